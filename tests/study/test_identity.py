"""What an id stands for: everything that can change an output, by value where a stranger's value is at hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpmkit import Schedule, param
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import spec
from ddpmkit.plugin.interfaces import Images
from ddpmkit.plugin.parameters import Parameter
from ddpmkit.plugin.registry import Registry
from ddpmkit.plugin.sources import reading, sources_of
from ddpmkit.study import settings
from ddpmkit.study.config import make_study, stated_grid
from ddpmkit.study.identity import value_hash
from ddpmkit.study.plan import make_plan
from ddpmkit.study.prepare import RunOptions, prepare
from ddpmkit.study.runner import run
from ddpmkit.study.stage import Stage, added
from ddpmkit.study.stages import STAGE_KINDS, read_stage
from ddpmkit.study.stages.fit import Fit
from ddpmkit.study.stages.train import Train

TINY = {
    "train_steps": 4, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 40, "eval_batch": 64,
    "batch_size": 4, "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "0",
}  # fmt: skip
INLINE = RunOptions(1, "cpu", "inline")
FIT: dict[str, Any] = {
    "train": "a" * 64, "weights": "ema 0.9", "batch": 8, "eval_precision": "fp32", "data": "b" * 64, "split": "train",
    "draws": 4, "seed": 0,
}  # fmt: skip


def ids(plugins: list[str], **options: Any) -> dict[str, list[str]]:
    registry = Registry(plugins, installed=False)
    stages = make_plan(make_study({**TINY, **options}, registry), registry).stages.values()
    kinds = dict.fromkeys(s.kind for s in stages)
    return {kind: [s.id for s in stages if s.kind == kind] for kind in kinds}


# --- values ------------------------------------------------------------------------------------------------------


def test_values_are_hashed_at_ten_digits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.normal(size=20) * 10.0 ** rng.integers(-3, 4, 20)
        middle = np.array([float(f"{v:.9e}") for v in values])  # far from where rounding would turn
        assert value_hash(middle) == value_hash(middle * (1 + 4e-16))
        changed = middle.copy()
        changed[rng.integers(20)] *= 1 + 1e-9
        assert value_hash(middle) != value_hash(changed)


def test_values_of_another_shape_or_sign_are_others_and_rounding_noise_is_none() -> None:
    assert value_hash(np.ones(4)) != value_hash(np.ones((2, 2)))
    assert value_hash([1.0], [2.0]) != value_hash([1.0, 2.0])
    assert value_hash(1.0) != value_hash(-1.0)
    assert value_hash([0.0, 1.0]) == value_hash([-0.0, 1.0]) == value_hash([3e-17, 1.0])
    assert value_hash(np.inf) != value_hash(-np.inf)


# --- fields that come later --------------------------------------------------------------------------------------


def test_a_field_added_later_moves_no_id_where_it_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(Fit):
        label_dropout: float = added(0.0)

    monkeypatch.setitem(STAGE_KINDS, "fit", Later)
    old = Stage(Fit(**FIT), {}, "", 1.0)
    for value, same in ((0.0, True), (0.1, False)):
        new = Stage(Later(**FIT, label_dropout=value), {}, "", 1.0)
        assert (new.id == old.id) == same
        assert new.spec.json() == (old.spec.json() if same else {**old.spec.json(), "label_dropout": value})
        assert read_stage(json.loads(json.dumps(new.json()))).spec == new.spec
    assert read_stage(json.loads(json.dumps(old.json()))).spec == Later(**FIT, label_dropout=0.0)


def test_a_parameter_added_later_moves_no_id_whatever_becomes_of_its_default() -> None:
    @dataclass(frozen=True)
    class Old(Schedule):
        name = "mine"
        s: float = param(0.1, "s")

    @dataclass(frozen=True)
    class New(Schedule):
        name = "mine"
        s: float = param(0.1, "s")
        power: float = param(2.0, "p", before=1.0)  # the default has changed since it was added

    assert spec.hashed_values(New(power=1.0)) == spec.hashed_values(Old())
    assert spec.hashed_values(New()) == {"s": 0.1, "power": 2.0}
    assert spec.from_values(New, spec.hashed_values(New(power=1.0))) == New(power=1.0)
    assert spec.from_values(New, spec.hashed_values(New())) == New()


def test_a_path_enters_no_id() -> None:
    registry = Registry(installed=False)
    here, there = (registry.build("features", f"dinov2:path={p}:sha256={'a' * 64}") for p in ("here", "there"))
    assert registry.identity(here) == registry.identity(there)
    assert registry.record(here) != registry.record(there)


def test_a_setting_added_later_renames_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(TINY, Registry(installed=False))
    novel = Parameter("novel", int, 9, "", {}, before=3)
    monkeypatch.setitem(settings.FIELDS, "novel", novel)
    grid = study.grid()
    assert stated_grid({**grid, "settings": {**grid["settings"], "novel": 3}}) == stated_grid(grid)
    assert stated_grid({**grid, "settings": {**grid["settings"], "novel": 9}}) != stated_grid(grid)


def test_a_changed_default_moves_no_id_of_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"axis": ["warmup=100", "ema=0.99", "grad_clip=1.0"], "learning_rate": "4e-3"}
    before = ids([], **said)
    changed = {"warmup": 7, "ema": 0.5, "grad_clip": 3.0, "learning_rate": 1e-3, "eval_precision": "bf16"}
    fields = {f.name: f for f in dataclasses.fields(settings.Settings)}
    for name, value in changed.items():
        monkeypatch.setattr(fields[name], "default", value)
    assert ids([], **said) == before


def test_labels_are_part_of_the_data() -> None:
    levels = np.zeros((2, 1, 4, 4), np.uint8)
    plain = Images(levels, levels, levels, 4, {})
    one, other, wide = (
        Images(levels, levels, levels, 4, {s: np.array(v, t) for s in ("train", "validation", "test")})
        for v, t in (([0, 1], np.int64), ([1, 0], np.int64), ([0, 1], np.int32))
    )
    assert len({plain.fingerprint(), one.fingerprint(), other.fingerprint()}) == 3
    assert one.fingerprint() == wide.fingerprint()


# --- what a plugin brings ----------------------------------------------------------------------------------------

HEAD = "from dataclasses import dataclass\nfrom ddpmkit import Backbone, Schedule, Sampler, hookimpl, param\n"
SCHEDULE = """
@dataclass(frozen=True)
class Mine(Schedule):
    name = "mine"
    path: str = param("", "a file")
    def betas(self, T):
        import numpy as np
        return np.full(T, {beta})

@hookimpl
def ddpmkit_register_schedules():
    return [Mine]
"""
BACKBONE = """
@dataclass(frozen=True)
class Net(Backbone):
    name = "net"
    path: str = param("", "a file")
    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        import torch
        {build}
        class M(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)
            def forward(self, x, t, y=None):
                {forward}
                return self.conv(x)
        return M()

@hookimpl
def ddpmkit_register_backbones():
    return [Net]
"""
Place = Callable[[str, str], Path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Write a file into a folder that Python imports from; what it brought is forgotten at the end."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for module in set(sys.modules) - before:
            if module.startswith(("ddpmkit_p_", "id_helper")):
                del sys.modules[module]
        return path

    yield write  # type: ignore[misc]
    for module in set(sys.modules) - before:
        if module.startswith(("ddpmkit_p_", "id_helper")):
            del sys.modules[module]


HELPERS = {
    "a helper": ("import id_helper_a\n", "id_helper_a.py", "VALUE = {}\n"),
    "a helper's helper": ("import id_helper_b\n", "id_helper_c.py", "VALUE = {}\n"),
    "a helper imported where it is used": ("def later():\n    import id_helper_a\n", "id_helper_a.py", "V = {}\n"),
    "a module of a package": ("from id_helper_p import inner\n", "id_helper_p/inner.py", "VALUE = {}\n"),
    "a relative import": ("import id_helper_q\n", "id_helper_q/deep.py", "VALUE = {}\n"),
    "an import by name": (
        "import importlib\nimportlib.import_module('id_helper_a')\n", "id_helper_a.py", "VALUE = {}\n",
    ),
    "a table read at import": (
        "from pathlib import Path\nT = Path({folder!r}, 't.json').read_text()\n", "t.json", "[{}]",
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("which", HELPERS)
def test_an_edit_of_what_a_backbone_s_import_reaches_moves_its_ids(place: Place, tmp_path: Path, which: str) -> None:
    head, file, text = HELPERS[which]
    place("id_helper_b.py", "from id_helper_c import VALUE\n")
    place("id_helper_p/__init__.py", "")
    place("id_helper_q/__init__.py", "from .deep import VALUE\n")
    for name in ("id_helper_a.py", "id_helper_c.py", "id_helper_p/inner.py", "id_helper_q/deep.py"):
        place(name, "VALUE = 0\nV = 0\n")
    plugin = HEAD + head.replace("{folder!r}", repr(str(tmp_path))) + BACKBONE.format(build="", forward="pass")
    found = []
    for value in (1, 2, 1):
        place(file, text.format(value))
        path = place("id_plugin.py", plugin)
        found.append(ids([str(path)], backbones="net"))
    assert found[0]["train"] != found[1]["train"]
    assert found[0] == found[2]
    assert found[0]["ref"] == found[1]["ref"]


@pytest.mark.long
def test_what_a_backbone_reads_while_it_is_built_moves_its_ids(place: Place, tmp_path: Path) -> None:
    build = f"import json, pathlib; json.loads(pathlib.Path({str(tmp_path / 'size.json')!r}).read_text())"
    found = []
    for value in ("1", "2", "1"):
        place("size.json", value)
        path = place("id_plugin.py", HEAD + BACKBONE.format(build=build, forward="pass"))
        found.append(ids([str(path)], backbones="net")["train"])
    assert found[0] != found[1]
    assert found[0] == found[2]


@pytest.mark.long
def test_a_file_that_a_parameter_names_is_part_of_the_component(place: Place) -> None:
    plugin = place("id_plugin.py", HEAD + BACKBONE.format(build="", forward="pass"))
    found = []
    for text in ("a", "b"):
        weights = place("weights.bin", text)
        found.append(ids([str(plugin)], backbones=f"net:path={weights}")["train"])
    assert found[0] != found[1]


@pytest.mark.long
@pytest.mark.parametrize("how", ["betas", "import"])
def test_a_schedule_s_values_are_in_its_ids(place: Place, tmp_path: Path, how: str) -> None:
    read = f"float(pathlib.Path({str(tmp_path / 'beta.txt')!r}).read_text())"
    text = (
        "import pathlib\n"
        + HEAD
        + (f"B = {read}\n" if how == "import" else "")
        + SCHEDULE.format(beta="B" if how == "import" else read)
    )
    found = []
    for value in ("0.02", "0.03", "0.02"):
        place("beta.txt", value)
        path = place("id_plugin.py", text)
        found.append(ids([str(path)], schedules="mine")["train"])
    assert found[0] != found[1]
    assert found[0] == found[2]


@pytest.mark.parametrize("how", ["betas", "helper"])
def test_a_plugin_s_schedule_inside_a_built_in_one_moves_its_ids(place: Place, tmp_path: Path, how: str) -> None:
    read = f"float(pathlib.Path({str(tmp_path / 'beta.txt')!r}).read_text())"
    text = "import pathlib\n" + HEAD + ("import id_helper_a\n" if how == "helper" else "") + SCHEDULE.format(beta=read)
    found = []
    for value in ("1", "2", "1"):
        place("beta.txt", f"0.0{value if how == 'betas' else 1}")
        place("id_helper_a.py", f"VALUE = {value}\n")
        path = place("id_plugin.py", text)
        found.append(ids([str(path)], schedules="zero-snr:base=mine,zero-snr,mine", predictions="v", metrics="fd"))
    # Cells in the order of the flag: over the plugin's, over linear, the plugin's own.
    over, plain, own = zip(*(f["train"] for f in found), strict=True)
    assert over[0] == over[2] != over[1]
    assert own[0] == own[2] != own[1]
    assert len(set(plain)) == 1
    assert len({over[0], plain[0], own[0]}) == 3
    assert plain[0] == ids([], schedules="zero-snr", predictions="v", metrics="fd")["train"][0]


def test_a_file_that_a_part_names_is_its_content(place: Place, tmp_path: Path) -> None:
    plugin = place("id_plugin.py", HEAD + SCHEDULE.format(beta="0.02"))
    found = []
    for name, text in (("one/table.txt", "a"), ("two/table.txt", "a"), ("one/table.txt", "b")):
        table = spec.encode(str(place(name, text)))
        part = spec.encode(f"mine:path={table}")
        asked = {"schedules": f"zero-snr:base={part}", "predictions": "v", "metrics": "fd"}
        found.append(ids([str(plugin)], **asked)["train"])
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("schedule", ["mine", "zero-snr:base=mine"])
def test_a_table_that_changes_between_plan_and_work_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], schedule: str
) -> None:
    place("beta.txt", "0.02")
    read = f"float(pathlib.Path({str(tmp_path / 'beta.txt')!r}).read_text())"
    plugin = place("id_plugin.py", "import pathlib\n" + HEAD + SCHEDULE.format(beta=read))
    registry = Registry([str(plugin)], installed=False)
    asked = {**TINY, "schedules": schedule, "predictions": "v"}
    prepared = prepare(asked, out=tmp_path / "out", registry=registry, run_options=INLINE)
    place("beta.txt", "0.03")
    outcome = run(prepared)
    assert outcome.code == 1
    assert "gives other numbers than when the stage was planned" in capsys.readouterr().err


WEIGHTING = """
import pathlib
from dataclasses import dataclass
from ddpmkit import Weighting, hookimpl
@dataclass(frozen=True)
class Read(Weighting):
    name = "read"
    def weights(self, tables, log_sigma2):
        return tables.snr * float(pathlib.Path({path!r}).read_text())
@hookimpl
def ddpmkit_register_weightings():
    return [Read]
"""


def test_a_weighting_that_changes_between_plan_and_work_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("factor.txt", "1")
    plugin = place("id_plugin.py", WEIGHTING.format(path=str(tmp_path / "factor.txt")))
    registry = Registry([str(plugin)], installed=False)
    prepared = prepare({**TINY, "weightings": "read"}, out=tmp_path / "out", registry=registry, run_options=INLINE)
    place("factor.txt", "2")
    assert run(prepared).code == 1
    assert "weighting 'id_plugin/read' gives other numbers than when the stage was planned" in capsys.readouterr().err


def test_the_folder_of_a_plugin_does_not_matter(tmp_path: Path, place: Place) -> None:
    found = []
    for folder in ("one", "two"):
        path = place(f"{folder}/id_plugin.py", HEAD + BACKBONE.format(build="", forward="pass"))
        found.append(ids([str(path)], backbones="net"))
    assert found[0] == found[1]


def test_installed_modules_and_the_standard_library_do_not_count() -> None:
    import sklearn

    assert sources_of(sklearn).modules == {}
    assert sources_of(json).modules == {}


def test_files_that_are_read_are_heard_of_and_others_are_not(tmp_path: Path) -> None:
    for name in ("read.txt", "bytes.bin", "written.txt", "both.npy", "script.py"):
        (tmp_path / name).write_text("x")
    np.save(tmp_path / "both.npy", np.ones(2))
    with reading() as outer, reading() as paths:
        (tmp_path / "read.txt").read_text()
        with open(bytes(tmp_path / "bytes.bin"), "rb"):
            pass
        np.load(tmp_path / "both.npy")
        (tmp_path / "written.txt").write_text("y")
        (tmp_path / "script.py").read_text()
    (tmp_path / "written.txt").read_text()
    assert {Path(p).name for p in paths} == {"read.txt", "bytes.bin", "both.npy"}
    assert outer == paths


# --- what a plugin changes for everyone ----------------------------------------------------------------------------

PATCHES = {
    "a function by a lambda": "import torch.nn.functional as F\nF.silu = lambda x, inplace=False: x\n",
    "a function by another of torch": "import torch.nn.functional as F\nF.silu = F.relu\n",
    "a method": "import torch\ntorch.nn.GroupNorm.forward = lambda self, x: x\n",
    "a function of numpy": "import numpy\nnumpy.log1p = lambda x, _f=numpy.log1p: _f(x)\n",
    "nothing": "import torch, numpy\n",
    "the default dtype": "import torch\ntorch.set_default_dtype(torch.float64)\n",
}
# Each in a process of its own, since what is replaced there stays replaced; forked when all is imported and read.
PRINT_IDS = """
import json, os, sys
{first}
sys.path.insert(0, {tests!r})
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan
Registry(installed=False).build("dataset", "digits").load()

def print_ids(plugins):
    r = Registry(plugins, installed=False)
    made = make_plan(make_study({options!r}, r), r)
    import torch
    print(json.dumps([sorted(made.stages), made.warnings, str(torch.get_default_dtype())]), flush=True)

for plugins in {cases!r}:
    child = os.fork()
    if not child:
        print_ids(plugins)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def built_in_ids(cases: list[list[str]], first: str = "") -> list[Any]:
    """The ids of a study of built-ins alone, with each of several lists of plugins."""
    code = PRINT_IDS.format(first=first, tests=str(Path(__file__).parent), cases=cases, options=TINY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is imported first -> the patch, or nothing at all -> the ids."""
    cases = [[], *(patching(tmp_path_factory.mktemp("patching"), patch) for patch in PATCHES.values())]
    return {first: dict(zip(("", *PATCHES), built_in_ids(cases, first), strict=True)) for first in ("", "import torch")}


def patching(tmp_path: Path, patch: str) -> list[str]:
    path = tmp_path / "patching.py"
    path.write_text(patch + HEAD + SCHEDULE.format(beta=0.02))
    return [str(path)]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import torch"])
@pytest.mark.parametrize("which", PATCHES)
def test_a_plugin_that_replaces_parts_of_torch_is_in_every_id(
    patched: dict[str, dict[str, Any]], which: str, first: str
) -> None:
    clean, found = patched[""][""], patched[first][which]
    if which in ("nothing", "the default dtype"):
        assert found == clean
        return
    assert not set(found[0]) & set(clean[0])
    assert found[1][0].startswith("plugin patching replaces ")


@pytest.mark.slow
def test_an_edit_of_a_plugin_that_replaces_parts_of_torch_moves_every_id(tmp_path: Path) -> None:
    (tmp_path / "edited").mkdir()
    places = {tmp_path: "", tmp_path / "edited": "# another\n"}
    one, other = built_in_ids([patching(place, PATCHES["a method"] + edit) for place, edit in places.items()])
    assert not set(one[0]) & set(other[0])


REPLACING = "import torch.nn.functional as F; F.silu = F.relu"
PUT_BACK = "torch.nn.functional.silu was replaced by a component while it worked"


def test_what_a_network_replaces_while_it_is_built_is_put_back_and_refused(place: Place, tmp_path: Path) -> None:
    plugin = place("id_plugin.py", HEAD + BACKBONE.format(build=REPLACING, forward="pass"))
    registry, silu = Registry([str(plugin)], installed=False), torch.nn.functional.silu
    with pytest.raises(DdpmkitError, match=PUT_BACK):
        prepare({**TINY, "backbones": "net"}, out=tmp_path / "r", registry=registry, run_options=INLINE)
    assert torch.nn.functional.silu is silu


def test_what_a_network_replaces_while_it_runs_is_put_back_and_fails_its_stage(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = place("id_plugin.py", HEAD + BACKBONE.format(build="", forward=REPLACING))
    registry, silu = Registry([str(plugin)], installed=False), torch.nn.functional.silu
    assert (
        run(prepare({**TINY, "backbones": "net"}, out=tmp_path / "r", registry=registry, run_options=INLINE)).code == 1
    )
    assert PUT_BACK in capsys.readouterr().err
    assert torch.nn.functional.silu is silu


def test_a_network_is_built_once_while_planning_however_many_cells_have_it(place: Place, tmp_path: Path) -> None:
    count = f"import os; os.mkdir(os.path.join({str(tmp_path)!r}, 'built'))"  # a second time it would raise
    plugin = place("id_plugin.py", HEAD + BACKBONE.format(build=count, forward="pass"))
    ids([str(plugin)], backbones="net", schedules="linear,cosine", samplers="ancestral,ddim", sigmas="beta,beta-tilde")
    assert (tmp_path / "built").is_dir()


# --- what the seed does not reach -----------------------------------------------------------------------------------

RANDOM = {
    "dropout that is always on": "x = torch.nn.functional.dropout(x, 0.5)",
    "torch": "x = x + torch.randn_like(x)",
    "numpy": "import numpy; x = x + float(numpy.random.normal())",
    "random": "import random; x = x + random.random()",
}


@pytest.mark.long
@pytest.mark.parametrize("which", RANDOM)
def test_a_network_that_draws_by_itself_gives_the_same_numbers_twice(
    place: Place, tmp_path: Path, few_digits: str, which: str
) -> None:
    plugin = str(place("id_plugin.py", HEAD + BACKBONE.format(build="", forward=RANDOM[which])))
    found = []
    for out in ("one", "two"):
        np.random.seed(len(found))
        registry = Registry([plugin], installed=False)
        options = {**TINY, "backbones": "net", "dataset": few_digits}
        outcome = run(prepare(options, out=tmp_path / out, registry=registry, run_options=INLINE))
        assert outcome.code == 0
        found.append(
            {p.parts[-3]: p.read_bytes() for p in outcome.folder.parent.parent.glob("store/*/*/*/out/COMMIT.json")}
        )
    assert found[0] == found[1]


@pytest.mark.long
@pytest.mark.parametrize("which", RANDOM)
def test_a_network_that_draws_by_itself_goes_on_after_a_stop_as_if_there_was_none(
    place: Place, tmp_path: Path, few_digits: str, which: str
) -> None:
    plugin = str(place("id_plugin.py", HEAD + BACKBONE.format(build="", forward=RANDOM[which])))
    options = {**TINY, "backbones": "net", "metrics": "nll", "dataset": few_digits}

    def weights() -> bytes:
        registry = Registry([plugin], installed=False)
        run(
            prepare(
                options, out=tmp_path, registry=registry, run_options=RunOptions(1, "cpu", "inline", checkpoint_every=2)
            )
        )
        (last,) = tmp_path.glob("store/train/*/*/ckpt/00000004/model.safetensors")
        return last.read_bytes()

    whole = weights()
    (training,) = tmp_path.glob("store/train/*/*")
    for finished in ("out", "ckpt/00000004"):
        shutil.rmtree(training / finished)
    assert weights() == whole


@pytest.mark.long
def test_a_stage_leaves_the_caller_s_random_state_alone(tmp_path: Path) -> None:
    import random

    import torch

    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = random.random(), float(np.random.random()), float(torch.rand(()))
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    run(prepare({**TINY, "metrics": "nll"}, out=tmp_path, registry=Registry(installed=False), run_options=INLINE))
    assert (random.random(), float(np.random.random()), float(torch.rand(()))) == expected


# --- specs ---------------------------------------------------------------------------------------------------------


def test_a_spec_that_is_not_what_its_folder_is_named_by_is_refused_by_name(tmp_path: Path) -> None:
    prepared = prepare({**TINY, "metrics": "nll"}, out=tmp_path, registry=Registry(installed=False), run_options=INLINE)
    (training,) = (s for s in prepared.plan.stages.values() if s.kind == "train")
    store = prepared.store
    store.write_spec(training)
    assert store.spec("train", training.id) == training.spec.json()
    assert store.read_spec(Train, training.id) == training.spec
    path = store.folder("train", training.id) / "spec.json"
    whole = path.read_text()
    for damaged in (whole.replace("eps", "eqs"), whole.replace('"T": 40', '"T": 44'), "", "null", "[1", "1e999"):
        path.write_text(damaged)
        with pytest.raises(DdpmkitError, match=r"spec\.json"):
            store.spec("train", training.id)


def test_a_record_of_a_stage_that_was_changed_is_no_stage() -> None:
    stage = Stage(Fit(**FIT), {}, "fit a", 1.0)
    other = {**stage.spec.json(), "draws": 14}
    for changed in ({"spec": other}, {"spec": {"T": 14}}, {"id": "0" * 64}, {"kind": "draw"}, {"kind": "none"}):
        with pytest.raises(DdpmkitError, match="fit a"):
            read_stage({**stage.json(), **changed})
