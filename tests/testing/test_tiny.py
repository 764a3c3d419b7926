"""``tiny_study``: a whole study with one component, whichever kind it is of and wherever it comes from."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddpmkit
from ddpmkit import build
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.new import package
from ddpmkit.testing import tiny_study

pytestmark = pytest.mark.long
ROOT = Path(ddpmkit.__file__).parents[1]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of one metric, as its author's test imports it; nobody has registered it."""
    (tmp_path / "tiny_odd.py").write_text(package("tiny-odd", "metric")["ddpmkit_tiny_odd.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "tiny_odd"
    del sys.modules["tiny_odd"]


def test_the_example_of_the_documents_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs/kinds.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    names["test_a_study_ends_with_it"](tmp_path)  # type: ignore[operator]


def test_a_component_that_nobody_registered_takes_part(module: str, tmp_path: Path) -> None:
    metric = importlib.import_module(module).TinyOddMetric()
    results = tiny_study(metric, tmp_path / "out").results()
    assert set(results.metric) >= {"tiny-odd", "NLL"}
    (odd,) = results[results.metric == "tiny-odd"].value
    assert 0 <= odd < 1


def test_a_study_that_fails_says_so_and_what_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = build("sampler", "ddim")

    def broken(*args: object) -> None:
        raise ValueError("no walk today")

    monkeypatch.setattr(type(sampler), "sample", broken)
    with pytest.raises(DdpmkitError, match=r"tiny study with sampler 'ddim' failed.*no walk today") as failed:
        tiny_study(sampler, tmp_path)
    assert failed.value.hint == "ddpmkit check ddim"


def test_what_is_no_component_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError, match="str is no component"):
        tiny_study("cosine", tmp_path)
