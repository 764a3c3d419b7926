"""What is promised to plugin authors: the documents name it, their examples run, and type checkers see it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ddpmkit
from ddpmkit import tables_for
from ddpmkit.plugin import contract
from ddpmkit.plugin.interfaces import KINDS
from ddpmkit.plugin.registry import Registry

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/plugins.md")}
BLOCKS = [block for page in PAGES.values() for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


@pytest.fixture
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("ddpmkit_p_"):
            del sys.modules[name]


def test_every_public_name_is_documented_in_its_place() -> None:
    rows = [line for line in PAGES["docs/plugins.md"].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])}
    named |= {"DAMAGE"} & set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named == set(ddpmkit.__all__)


def test_every_public_function_and_class_has_a_docstring() -> None:
    for name in ddpmkit.__all__:
        value = getattr(ddpmkit, name)
        if callable(value) and getattr(value, "__module__", "").startswith("ddpmkit"):
            assert value.__doc__, name


def test_the_documents_import_only_public_names() -> None:
    found = [
        alias.name
        for block in BLOCKS
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "ddpmkit"
        for alias in node.names
    ]
    assert len(found) >= 10
    assert set(found) <= set(ddpmkit.__all__)


PLUGINS = {re.findall(r'name = "(.*)"', block)[0]: block for block in BLOCKS if "@hookimpl" in block}


def of_kind(kind: str) -> list[str]:
    """The names of the documents' plugins of a kind."""
    return [name for name, block in PLUGINS.items() if f"ddpmkit_register_{KINDS[kind].plural}" in block]


@pytest.mark.parametrize("name", of_kind("prediction"))
def test_the_predictions_of_the_documents_agree_with_themselves(name: str, tmp_path: Path, forget: None) -> None:
    (tmp_path / "my.py").write_text(PLUGINS[name])
    prediction = Registry([str(tmp_path / "my.py")], installed=False).build("prediction", name)
    for schedule in ("cosine", "random-walk"):
        assert contract.declared_divisor(prediction, tables_for(ddpmkit.build("schedule", schedule), 100)).min() > 0


def test_there_is_a_plugin_of_each_kind_that_the_documents_explain() -> None:
    assert len(of_kind("schedule")) >= 3
    assert of_kind("metric") == ["mean-pixel"]
    assert of_kind("prediction")
    assert set(PLUGINS) == {*of_kind("schedule"), *of_kind("prediction"), *of_kind("metric")}


@pytest.mark.parametrize("name", of_kind("schedule"))
def test_the_plugins_of_the_documents_work(name: str, tmp_path: Path, forget: None) -> None:
    (tmp_path / "my.py").write_text(PLUGINS[name])
    registry = Registry([str(tmp_path / "my.py")], installed=False)
    (entry,) = registry.foreign()
    tables = tables_for(entry.cls(), 100)
    assert tables.variance_preserving
    assert np.all(np.diff(tables.snr) < 0)
    # As the part of another, and what it gives is rescaled.
    part = registry.build("schedule", f"zero-snr:base={entry.name}")
    assert tables_for(part, 100).signal[-1] == 0


def test_the_metric_of_the_documents_works(tmp_path: Path, forget: None) -> None:
    from ddpmkit.distances import prepare, score

    (tmp_path / "my.py").write_text(PLUGINS["mean-pixel"])
    metric = Registry([str(tmp_path / "my.py")], installed=False).build("metric", "mean-pixel")
    digits = ddpmkit.build("dataset", "digits").load()
    reference = prepare(digits, ddpmkit.build("features", "pca:k=2"), floor=100, metrics=[metric])
    got = score(digits.train[:300] // 2, reference, metrics=[metric])["mean-pixel"]
    assert got.value == pytest.approx(abs((digits.train[:300] // 2).mean() - digits.test.mean()) / 16)
    assert got.se is not None
    assert reference.floor["mean-pixel"]["value"] + 4 * got.se < got.value


def test_a_shifted_schedule_is_shifted(tmp_path: Path, forget: None) -> None:
    (tmp_path / "my.py").write_text(PLUGINS["shifted"])
    obj = Registry([str(tmp_path / "my.py")], installed=False).build("schedule", "shifted:base=jsd:scale=0.1")
    ratio = tables_for(obj, 50).snr[:-1] / tables_for(obj.base, 50).snr[:-1]
    np.testing.assert_allclose(ratio, 0.01, rtol=1e-9)


def test_what_is_loaded_late_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(ddpmkit.__file__).read_text(encoding="utf-8"))
    (late,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in late.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    promised = {name: module for name, module in seen.items() if name in ddpmkit.__all__}
    here = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    late_ones = [name for name in ddpmkit.__all__ if name not in here]
    assert set(ddpmkit._WHERE) <= set(late_ones)
    assert promised == {name: ddpmkit._WHERE.get(name, "ddpmkit.plugin.interfaces") for name in late_ones}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ddpmkit' has no attribute 'to_pixel'"):
        ddpmkit.to_pixel  # noqa: B018 - asking is the point
    from ddpmkit import files  # a module beneath it

    assert files.__name__ == "ddpmkit.files"
