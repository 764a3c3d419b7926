# make ablate   sets everything up in .venv and compares three variance schedules on real handwritten digits
# make test     sets everything up and runs the linter, the type checker and all tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: ablate test lint types unit slow install reference clean

ablate: $(READY)
	$(BIN)/ddpmkit ablate --schedules linear,cosine,sigmoid

test: lint types unit slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest -m "not slow and not oracles"

slow: $(READY)
	$(BIN)/pytest -m slow

# The committed study: run it, and copy its small outputs; never weights.
reference: $(READY)
	$(BIN)/ddpmkit ablate --schedules linear,cosine,sigmoid --name digits-schedules
	mkdir -p results/reference/digits-schedules
	cd results/studies/digits-schedules && cp -r study.toml results.csv report.md report.json figures \
		../../reference/digits-schedules/

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ddpmkit needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
