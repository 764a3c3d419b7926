"""The time to a fixed target: fixed data, fixed numbers, a recipe that is a file, and a clock that looking stops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.registry import Registry
from ddpmkit.study import target as target_module
from ddpmkit.study.config import make_study
from ddpmkit.study.recipe import LOOK, RECIPES
from ddpmkit.study.target import TARGETS, Look, race, reached, read_recipe

TOY = """look_every = 3
backbone = "unet:channels=4:mults=1"
timesteps = 50
sampling_steps = 3
train_steps = 7
warmup = 1
eval_batch = 64
"""
EASY = replace(TARGETS["digits"], nll=1e9, fd=1e9, samples=140, evals=64)
HARD = replace(EASY, nll=0.0, fd=-1e9)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOY, encoding="utf-8")
    return path


class Clock:
    """Time that goes on by 1 whenever it is read, and by 100 when somebody looks at the training."""

    now = {"cpu": 0, "wall": 0}

    def process_time(self) -> int:
        self.now["cpu"] += 1
        return self.now["cpu"]

    def perf_counter(self) -> int:
        self.now["wall"] += 1
        return self.now["wall"]

    def looked(self) -> None:
        for name in self.now:
            self.now[name] += 100


@pytest.mark.long
def test_a_training_is_looked_at_on_its_way_and_is_the_training_that_nobody_looks_at(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(HARD, toy)
    seen: list[dict[str, Any]] = []
    network = target_module._network

    def watched(*args: Any) -> Any:
        found = network(*args)
        seen.append({k: v.clone() for k, v in found.net.state_dict().items()})
        return found

    monkeypatch.setattr(target_module, "_network", watched)
    clock = Clock()
    monkeypatch.setattr(target_module, "time", clock)
    fd = target_module._fd
    monkeypatch.setattr(target_module, "_fd", lambda *args: clock.looked() or fd(*args))
    record = race(HARD, recipe, registry=Registry(installed=False))
    assert [look["step"] for look in record["looks"]] == [3, 6, 7]
    assert [look["wall_seconds"] for look in record["looks"]] == [1, 2, 3]  # what looking took is not on the clock
    assert [look["cpu_seconds"] for look in record["looks"]] == [1, 2, 3]
    assert record["reached"] == {}
    whole = race(HARD, {**recipe, LOOK: 100}, registry=Registry(installed=False))
    assert [look["step"] for look in whole["looks"]] == [7]
    assert whole["looks"][-1]["nll"] == record["looks"][-1]["nll"]
    assert whole["looks"][-1]["fd"] == record["looks"][-1]["fd"]
    assert all((seen[2][k] == seen[3][k]).all() for k in seen[2])
    assert any((seen[0][k] != seen[2][k]).any() for k in seen[2])


@pytest.mark.long
def test_it_ends_where_both_targets_are_reached(toy: Path) -> None:
    record = race(EASY, read_recipe(EASY, toy), registry=Registry(installed=False))
    assert [look["step"] for look in record["looks"]] == [3]
    assert record["reached"]["nll"] == record["reached"]["fd"] == record["looks"][0]
    json.dumps(record)


def test_the_first_look_below_counts_for_each() -> None:
    def at(step: int, nll: float, fd: float) -> Look:
        return Look(step, 1.0, 1.0, nll, 0.0, fd, 0.0)

    target = replace(EASY, nll=2.0, fd=5.0)
    looks = [at(1, 3.0, 9.0), at(2, 2.0, 6.0), at(3, 2.5, 4.0), at(4, 1.0, 1.0)]
    assert {k: v.step for k, v in reached(target, looks).items()} == {"nll": 2, "fd": 3}
    assert reached(target, looks[:1]) == {}


@pytest.mark.parametrize("name", TARGETS)
def test_the_shipped_recipes_are_settings_of_one_training(name: str) -> None:
    recipe = read_recipe(TARGETS[name])
    settings = {k: v for k, v in recipe.items() if k != LOOK}
    study = make_study(settings, Registry(installed=False))
    assert len(study.cells()) == 1
    assert study.base.train_steps % recipe[LOOK] == 0
    assert (RECIPES / f"{name}.toml").read_text(encoding="utf-8").isascii()


@pytest.mark.parametrize("line", ["samples = 10", "dataset = 'mnist'", "train_seeds = [1]", "metrics = 'fd'"])
def test_what_is_the_target_s_is_no_recipe_s(line: str, toy: Path) -> None:
    toy.write_text(f"{TOY}{line}\n", encoding="utf-8")
    with pytest.raises(DdpmkitError, match=f"sets '{line.split()[0]}', which is fixed by the target"):
        read_recipe(EASY, toy)


@pytest.mark.parametrize("value", ["0", "true", "'often'"])
def test_a_recipe_says_when_it_is_looked_at(value: str, toy: Path) -> None:
    toy.write_text(TOY.replace("= 3\nbackbone", f"= {value}\nbackbone"), encoding="utf-8")
    with pytest.raises(DdpmkitError, match="no number of steps"):
        read_recipe(EASY, toy)


def test_a_recipe_has_no_axes(toy: Path) -> None:
    recipe = {**read_recipe(EASY, toy), "learning_rate": [1e-3, 2e-3]}
    with pytest.raises(DdpmkitError, match="has axes"):
        race(EASY, recipe, registry=Registry(installed=False))


def test_other_images_are_another_record(toy: Path) -> None:
    other = replace(EASY, reference="0" * 64)
    with pytest.raises(DdpmkitError, match="not the test images of bench digits"):
        race(other, read_recipe(EASY, toy), registry=Registry(installed=False))


@pytest.mark.long
def test_the_command_prints_a_table_or_json_and_fails_where_it_is_not_reached(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "digits", EASY)
    args = ["--no-plugins", "bench", "digits", "--recipe", str(toy)]
    assert main([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["reached"]["fd"]["step"] == 3
    assert err.splitlines()[-1].startswith("step 3: ")
    monkeypatch.setitem(TARGETS, "digits", HARD)
    assert main(args) == 1
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["target", "at most", "CPU s", "wall s", "step", "found"]
    assert [row[2] for row in rows[1:]] == ["not reached", "not reached"]


def test_its_recipe_can_be_printed_and_an_unknown_bench_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "mnist", "--print-recipe"]) == 0
    assert capsys.readouterr().out == (RECIPES / "mnist.toml").read_text(encoding="utf-8")
    assert main(["bench", "mnits"]) == 2
    assert "there is no bench 'mnits'; did you mean 'mnist'?" in capsys.readouterr().err
    assert main(["bench", "mnist"]) == 2
    assert "bench mnist needs the images" in capsys.readouterr().err
