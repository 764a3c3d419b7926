# make ablate   sets everything up in .venv and compares three variance schedules on real handwritten digits
# make test     sets everything up and runs the linter, the type checker and all tests
# make quick    the tests for the inner loop: every room, no study that trains, no simulation
# make test-browser   opens the report's page in a real Chromium
# make test-plugins   checks the packages in plugins/, in an environment of their own
# make bench    times ddpmkit beside diffusers and denoising-diffusion-pytorch on one CPU thread, in their environment
# make bench-gpu      the same on a GPU with what is installed, within eight minutes; DRY=1, or no GPU: a dry run on the CPU
# make test-long      every case of what make test takes samples of: each kind of damage to each file of a store, each command
#                     of the documents, wheels of plugins that are broken in each way
# make test-all       everything before a tag: test, test-plugins, test-browser, test-long, test-kernels, test-ray, test-oracles, docs
# make papers   runs the studies of docs/papers.md and docs/matched-betas.md again, an hour, into results/reference
# make docs     the site, in docs/_site, in an environment of its own; a warning is an error
# make release  builds the wheel, tries it in a fresh environment and tags; publishes nothing
# make test-oracles   compares with diffusers, denoising-diffusion-pytorch and statsmodels, in an environment of its own
# make test-ray       studies on a Ray cluster of several nodes on this machine, one of which is lost, in an environment of its own
# make test-kernels   every Triton kernel against its eager twin, on a GPU or by Triton's interpreter
# make test-oracles-distances   compares with torch-fidelity, pytorch-fid, torchmetrics and prdc; several GB

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ORACLES := .venv-oracles
DISTANCES := .venv-distances
PLUGINS := .venv-plugins
KERNELS := .venv-kernels
RAY := .venv-ray
SITE := .venv-docs
IN_PLUGINS := ddpmkit-diffusers ddpmkit-dit ddpmkit-p2 ddpmkit-slurm ddpmkit-tensorboard
# A process a core. A file stays in one process, so that what its tests share is made once; tests/conftest.py has the files
# of long tests first, so that no core is idle at the end.
SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# Tests start hundreds of processes, each of which would compile all modules anew where the caller wants no bytecode kept.
unexport PYTHONDONTWRITEBYTECODE
ALL_TESTS := -o addopts="-ra --strict-markers --strict-config --import-mode=importlib"

.PHONY: ablate bench bench-gpu docs release test test-all test-long test-browser test-plugins test-kernels test-ray test-oracles test-oracles-distances lint types unit quick slow install papers reference clean

ablate: $(READY)
	$(BIN)/ddpmkit ablate --schedules linear,cosine,sigmoid

test: lint types unit slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow and not browser and not oracles and not thorough"

quick: $(READY)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow and not browser and not oracles and not thorough and not long"

slow: $(READY)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m slow

test-long: $(READY)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m thorough

test-all: test test-plugins test-browser test-long test-kernels test-ray test-oracles docs

# Other people's code is no part of make test. denoising-diffusion-pytorch comes without its dependencies: of them only
# the extra's are needed, and torchvision, which it asks for, may want another build of torch.
test-oracles: $(ORACLES)/.ready
	$(ORACLES)/bin/pytest $(ALL_TESTS) -m oracles tests/oracles

$(ORACLES)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev,oracles]"
	$(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps denoising-diffusion-pytorch==2.3.4
	touch $(ORACLES)/.ready

# torch-fidelity needs torchvision, which exists for no build of the torch that everything else is pinned to.
test-oracles-distances: $(DISTANCES)/.ready
	$(DISTANCES)/bin/pytest $(ALL_TESTS) -m oracles tests/oracles_distances

$(DISTANCES)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DISTANCES)
	$(DISTANCES)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1
	$(DISTANCES)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
		torch-fidelity==0.4.0 pytorch-fid==0.3.0 torchmetrics==1.9.0 prdc==0.2 transformers --editable ".[dev]"
	touch $(DISTANCES)/.ready

# Fetches nothing that make test-oracles does not. BLOCKS=2 ONLY="8x8, training" is the shortest run of use.
BLOCKS ?= 5
ONLY ?=
bench: $(ORACLES)/.ready
	$(ORACLES)/bin/python benchmarks/speed cpu --blocks $(BLOCKS) $(if $(ONLY),--only "$(ONLY)")

# Needs no network: it runs in whatever environment PYTHON is of, in which ddpmkit's own packages are; peers that are
# not there have a row that says so. make bench-gpu PYTHON=.venv-oracles/bin/python has them.
DRY ?=
bench-gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/speed gpu --blocks $(BLOCKS) $(if $(DRY),--dry)

# The report's page in a real Chromium, which is installed where there is apt and the right to use it.
test-browser: $(READY)
	for b in chromium chromium-browser google-chrome; do command -v $$b && exit 0; done; \
		apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium
	$(BIN)/pytest -m browser tests/browser

# The packages in plugins/ need what ddpmkit does not, so they are no part of make test; make lint covers their style.
# They are editable there, and one test has wheels of ddpmkit and of one of them in an environment of its own. What
# new-plugin writes is installed by pip, without a network, and uninstalled again.
test-plugins: $(PLUGINS)/.ready
	$(PLUGINS)/bin/ruff check plugins
	$(PLUGINS)/bin/ruff format --check plugins
	$(PLUGINS)/bin/mypy --config-file plugins/mypy.ini plugins/ddpmkit-diffusers/ddpmkit_diffusers \
		plugins/ddpmkit-dit/ddpmkit_dit plugins/ddpmkit-p2/ddpmkit_p2.py plugins/ddpmkit-slurm/ddpmkit_slurm \
		plugins/ddpmkit-tensorboard/ddpmkit_tensorboard
	$(PLUGINS)/bin/pytest $(SIDE_BY_SIDE) plugins/tests $(addprefix plugins/,$(IN_PLUGINS))  # the longest first
	rm -rf $(PLUGINS)/new && mkdir $(PLUGINS)/new && cd $(PLUGINS)/new && ../bin/ddpmkit new-plugin tried --kind schedule
	$(PLUGINS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		$(PLUGINS)/new/ddpmkit-tried
	$(PLUGINS)/bin/pytest $(PLUGINS)/new/ddpmkit-tried && $(PLUGINS)/bin/ddpmkit --strict-plugins show tried > /dev/null
	$(PLUGINS)/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes ddpmkit-tried

# One setuptools for all, instead of an environment for each package that is built.
$(PLUGINS)/.ready: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml plugins/*/constraints.txt)
	$(PYTHON) -m venv $(PLUGINS)
	$(PLUGINS)/bin/python -m pip install --quiet --disable-pip-version-check "setuptools>=77" wheel
	$(PLUGINS)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--constraint constraints.txt $(patsubst %,--constraint %,$(wildcard plugins/*/constraints.txt)) \
		--editable ".[dev]" $(patsubst %,--editable ./plugins/%,$(IN_PLUGINS))
	touch $(PLUGINS)/.ready

# The fused kernels. On a GPU torch brings its own triton, and the newest that fits is taken; elsewhere they are interpreted,
# and compiled for GPUs that are not there.
test-kernels: $(KERNELS)/.ready
	$(KERNELS)/bin/pytest tests/kernels

$(KERNELS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(KERNELS)
	$(KERNELS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev,kernels]"
	touch $(KERNELS)/.ready

# Studies on a head and nodes of Ray on this machine, which take half a GB each; ddpmkit itself needs no Ray.
test-ray: $(RAY)/.ready
	$(RAY)/bin/pytest $(ALL_TESTS) -m ray tests/ray

$(RAY)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev,ray]"
	touch $(RAY)/.ready

# The site is made from docs/ and from the code; it needs Sphinx, which nothing else does.
docs: $(SITE)/.ready
	$(SITE)/bin/python -m sphinx -E -W --keep-going --quiet -b html docs docs/_site
	@echo "docs/_site/index.html"

$(SITE)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $(SITE)/.ready

# The committed studies of the README: run them, and copy their small outputs; never weights. The second shares nine
# trainings with the first.
reference: $(READY)
	$(BIN)/ddpmkit ablate --schedules linear,cosine,sigmoid --name digits-schedules
	$(BIN)/ddpmkit ablate --schedules linear,cosine,sigmoid --weightings simple,vlb --name digits-weightings
	$(call keep,digits-schedules,digits-schedules)
	$(call keep,digits-weightings,digits-weightings)

# What docs/papers.md and docs/matched-betas.md show: about an hour on two cores.
ORDERINGS := few-steps-nll few-steps-fd full-weight cosine-linear
papers: $(READY)
	for study in $(ORDERINGS); do $(BIN)/ddpmkit ablate results/reference/orderings/$$study.toml || exit 1; done
	$(BIN)/ddpmkit ablate --recipe matched-betas
	$(BIN)/ddpmkit ablate --recipe matched-betas --train-steps 25 --train-seeds 0 --name matched-betas-undertrained
	$(foreach study,$(ORDERINGS),$(call keep,$(study),orderings/$(study)) &&) true
	$(call keep,matched-betas-digits,matched-betas)
	$(call keep,matched-betas-undertrained,matched-betas-undertrained)
	$(BIN)/ddpmkit plot split cosine-linear --where backbone=unet --where weighting=simple \
		--to results/reference/orderings/cosine-linear/figures/split-plain.png
	$(BIN)/ddpmkit plot split cosine-linear --where backbone=unet:fourier=true --where weighting=simple \
		--to results/reference/orderings/cosine-linear/figures/split-fourier.png
	$(BIN)/ddpmkit plot denoise matched-betas-digits --to results/reference/matched-betas/figures/denoise.png
	$(BIN)/ddpmkit plot denoise matched-betas-undertrained --to results/reference/matched-betas-undertrained/figures/denoise.png

# Puts what a study wrote into results/reference, without its store.
keep = rm -rf results/reference/$(2) && mkdir -p results/reference/$(2) && \
	(cd results/studies/$(1) && cp -r study.toml results.csv report.* card.* figures $(CURDIR)/results/reference/$(2)/)

# Builds what would be published, installs the wheel where nothing of this tree is, uses it from an empty folder, and tags.
# The version stands in ddpmkit/__init__.py; CHANGELOG.md must have a section of it, and the tree must be clean. Nothing
# leaves this machine.
RELEASE := .venv-release
release: VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ddpmkit/__init__.py)
release:
	git diff --quiet HEAD || { echo "error: the tree has changes that are not committed"; exit 1; }
	grep -q "^## $(VERSION)" CHANGELOG.md || { echo "error: CHANGELOG.md has no section '## $(VERSION)'"; exit 1; }
	grep -q "^version: $(VERSION)$$" CITATION.cff || { echo "error: CITATION.cff is of another version"; exit 1; }
	! git rev-parse --quiet --verify refs/tags/v$(VERSION) > /dev/null || { echo "error: v$(VERSION) is tagged already"; exit 1; }
	rm -rf dist $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check build
	$(RELEASE)/bin/python -m build --outdir dist .
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	mkdir $(RELEASE)/empty && cd $(RELEASE)/empty && test "$$(../bin/ddpmkit --version)" = "ddpmkit $(VERSION)" && \
		../bin/ddpmkit ablate --preset quick --train-seeds 0 --train-steps 20 && ../bin/ddpmkit report > /dev/null && \
		../bin/ddpmkit ls recipe > /dev/null
	git tag -a v$(VERSION) -m "ddpmkit $(VERSION)"
	@echo "dist/ and the tag v$(VERSION) are ready: git push origin v$(VERSION), twine upload dist/*"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ddpmkit needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) $(RELEASE) $(ORACLES) $(DISTANCES) $(PLUGINS) $(KERNELS) $(RAY) $(SITE) docs/_site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
