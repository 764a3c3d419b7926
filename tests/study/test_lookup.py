"""A stage says what it is for; two say what made them differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ddpmkit import files
from ddpmkit.cli import main
from ddpmkit.errors import DdpmkitError
from ddpmkit.study.catalogue import remove_study
from ddpmkit.study.claim import claimed
from ddpmkit.study.lookup import differences, short, why
from ddpmkit.study.store import Store


def result(out: Path, cell: str, study: str = "both") -> dict:
    plan = files.read_sealed(out / "studies" / study / "plan.json")
    return next(r for r in plan["results"] if r["cell"] == cell)


def test_why_names_the_studies_and_cells_that_need_a_stage(two_studies: Path, capsys) -> None:
    store = Store(two_studies)
    linear, cosine = result(two_studies, "linear"), result(two_studies, "cosine")
    found = why(store, linear["train"][:10])
    needed = {n["study"]: n["cells"] for n in found["needed_by"]}
    assert needed == {"both": ["linear"], "more": ["linear"]}
    assert (found["kind"], found["state"], found["attempts"], found["upstream"]) == ("train", "done", 1, [])
    assert found["spec"]["schedule"]["name"] == "ddpmkit/linear"
    ref = cosine["scores"][0][2]
    assert {n["study"]: n["cells"] for n in why(store, ref)["needed_by"]} == {
        "both": ["linear", "cosine"],
        "more": ["linear", "sigmoid"],
    }
    score = why(store, cosine["scores"][0][1])
    assert [(n["study"], n["cells"]) for n in score["needed_by"]] == [("both", ["cosine"])]
    assert {u["kind"]: u["id"] for u in score["upstream"]} == {"sample": cosine["sample"], "ref": ref}
    assert main(["why", cosine["train"][:12], "--out", str(two_studies)]) == 0
    rows = dict(line.split("\t") for line in capsys.readouterr().out.splitlines() if not line.startswith("needed"))
    assert rows["id"] == cosine["train"]
    assert rows["schedule.name"] == "ddpmkit/cosine"
    assert rows["state"].startswith("done, ")
    assert main(["why", cosine["train"], "--out", str(two_studies), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["needed_by"][0]["cells"] == ["cosine"]


def test_why_knows_a_stage_that_is_gone_running_or_needed_by_none(two_studies: Path, capsys) -> None:
    store, train = Store(two_studies), result(two_studies, "cosine")["train"]
    with claimed(store.folder("train", train), "somebody"):
        assert "runs it" in why(store, train)["at_work"]
    shutil.move(store.folder("train", train), two_studies / "aside")
    assert why(store, train)["state"] == "pending"
    shutil.move(two_studies / "aside", store.folder("train", train))
    remove_study(store, "both")
    assert why(store, train)["needed_by"] == []
    assert main(["why", train, "--out", str(two_studies)]) == 0
    assert "no study; ddpmkit gc" in capsys.readouterr().out
    plan = two_studies / "studies" / "more" / "plan.json"  # nobody knows what it needs
    plan.write_text(plan.read_text()[:-40])
    assert main(["why", train, "--out", str(two_studies)]) == 0
    said = capsys.readouterr().out
    assert "no readable study; not known of" in said
    assert "ddpmkit gc" not in said
    (store.folder("train", train) / "spec.json").write_text("{}")
    with pytest.raises(DdpmkitError, match="is damaged"):
        why(store, train)


def test_an_id_that_says_too_little_or_nothing_is_refused(two_studies: Path, capsys) -> None:
    assert main(["why", "zz", "--out", str(two_studies)]) == 2
    assert "hint: ids stand in" in capsys.readouterr().err
    assert main(["why", "", "--out", str(two_studies)]) == 2
    ids = [p.name for p in (two_studies / "store").glob("*/??/*")]
    first = next(a[0] for a in ids if sum(b[0] == a[0] for b in ids) > 1)
    capsys.readouterr()
    assert main(["why", first, "--out", str(two_studies)]) == 2
    assert "give more digits" in capsys.readouterr().err


def test_diff_says_every_field_and_follows_what_is_read(two_studies: Path, capsys) -> None:
    store = Store(two_studies)
    linear, cosine = result(two_studies, "linear"), result(two_studies, "cosine")
    found = {field: (a, b) for field, a, b in differences(store, linear["train"], cosine["train"])}
    assert found["schedule.name"] == ("ddpmkit/linear", "ddpmkit/cosine")
    assert all(field.startswith("schedule.") for field in found)
    one, other = (files.read_json(store.folder("train", r["train"]) / "spec.json") for r in (linear, cosine))
    params = {f"schedule.params.{k}" for s in (one, other) for k in s["spec"]["schedule"]["params"]}
    assert params <= set(found)  # of both, "-" where the other has none
    assert found["schedule.params.s"] == ("-", "0.008")
    scores = [r["scores"][0][1] for r in (linear, cosine)]
    deep = {field: (a, b) for field, a, b in differences(store, *scores)}
    assert deep["sample"] == (linear["sample"], cosine["sample"])
    assert deep["sample.train"] == (linear["train"], cosine["train"])
    assert deep["sample.train.schedule.name"] == ("ddpmkit/linear", "ddpmkit/cosine")
    assert "ref" not in deep
    assert main(["diff", linear["train"][:12], cosine["train"][:12], "--out", str(two_studies)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["field", linear["train"][:12], cosine["train"][:12]]
    assert "schedule.name\tddpmkit/linear\tddpmkit/cosine" in lines
    assert main(["diff", scores[0], scores[1], "--out", str(two_studies), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["differences"]) == len(deep)


def test_diff_of_one_stage_or_two_kinds(two_studies: Path, capsys) -> None:
    linear = result(two_studies, "linear")
    out = ["--out", str(two_studies)]
    assert main(["diff", linear["train"], linear["train"][:20], *out]) == 0
    assert "the same stage" in capsys.readouterr().err
    assert main(["diff", linear["train"], linear["sample"], *out]) == 2
    assert "is a train stage and" in capsys.readouterr().err


def test_values_that_look_alike_when_cut_do_not() -> None:
    long = "[" + ",".join(map(str, range(100)))
    a, b = short(f"{long},100]"), short(f"{long},101]")
    assert a != b
    assert len(a) == 32
    assert short("same") == "same"
    assert short("0123456789abcdef" * 4) == "0123456789ab"


def test_an_empty_record_beside_a_full_one_says_nothing_of_its_own(two_studies: Path) -> None:
    # linear and sigmoid have other parameters; an extractor without any and one with k are the other case.
    from ddpmkit.study.lookup import Found, _differences

    def found(features: dict, other: int = 1) -> Found:
        return Found("ref", "", {"features": features, "split": other}, 1, (), {})

    store = Store(two_studies)
    none, some = {"name": "digits", "params": {}}, {"name": "digits", "params": {"k": 16}}
    assert list(_differences(store, {}, found(none), found(some), "")) == [("features.params.k", "-", "16")]
    assert list(_differences(store, {}, found({"params": {}}), found({}), "")) == [("features.params", "{}", "-")]
