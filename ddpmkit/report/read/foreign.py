"""Results that were made elsewhere: any tidy CSV becomes records, and gets the same statistics as a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.report.read.columns import COLUMNS
from ddpmkit.report.read.frames import Records

NEEDED = ("train_seed", "metric", "value")
# What is known of a result without being an axis of the comparison.
OF_A_RESULT = ("better", "standard_error", "test_set_error", "status", "unit", "n", "evaluations", "seconds",
               "train_seconds", "parameters", "flops", "definition", "fingerprint", "stage", "train_stage")  # fmt: skip
RESERVED = ("study", "cell", "sample_seed", *NEEDED, *OF_A_RESULT)
NUMBERS = ("standard_error", "test_set_error", "n", "evaluations", "seconds", "train_seconds", "parameters", "flops")
STATES = ("done", "failed", "diverged", "interrupted", "timed out", "pending")


def read_foreign(
    path: str | Path,
    *,
    name: str | None = None,
    axes: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Records:
    """Read a tidy CSV, one row per (cell, train seed, sample seed, metric), as records.

    ``summarise(read_foreign("theirs.csv", columns={"seed": "train_seed"}))`` is its report in numbers.

    Args:
        path: The file; comma, semicolon or tab.
        name: The study's name; the file's by default.
        axes: Columns that make up a cell, in order. Without them these are all columns that mean nothing else here, as
            far as they vary; where there is a column ``cell``, only those that are constant in each cell.
        columns: their name -> the name here.

    The columns ``train_seed``, ``metric`` and ``value`` must be there, and either ``cell`` or an axis. These may be:
    ``sample_seed`` (else 0), ``standard_error``, ``status`` (:data:`STATES`; else a row
    with a value is done, one without has failed and one that is not finite has diverged), ``better`` (lower, higher,
    none), ``unit``, ``n``, ``definition`` and ``fingerprint``. Numbers whose ``n`` or ``definition`` differ are not
    compared.

    Raises:
        DdpmkitError: when the file can't be read, a column is missing, a number or seed is none, or a result stands
            there twice.
    """
    file = files.home(path)
    try:
        with file.open(encoding="utf-8-sig") as f:
            head = f.readline()
        sep = max(",;\t", key=head.count)
        frame = pd.read_csv(file, sep=sep, dtype="str", keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except FileNotFoundError:
        raise DdpmkitError(f"there is no file '{path}'", "give a CSV with train_seed, metric and value") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, IsADirectoryError) as err:
        raise DdpmkitError(f"'{path}' is no CSV: {err}", "one row a number, with a head") from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took what the head has no name for as an index
        raise DdpmkitError(f"'{path}' is no CSV: its rows are longer than its head", "one name for each column")
    return records_of(frame, name or file.stem, axes=axes, columns=columns, folder=file.parent)


def records_of(
    frame: pd.DataFrame,
    name: str = "results",
    *,
    axes: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Records:
    """Turn a tidy frame into records; see :func:`read_foreign`.

    Args:
        frame: One row per (cell, train seed, sample seed, metric).
        name: The study's name.
        axes: Columns that make up a cell.
        columns: their name -> the name here.
        folder: Where the records say that they come from.

    Raises:
        DdpmkitError: as :func:`read_foreign`.
    """
    tidy = frame.rename(columns={str(c): str(c).strip() for c in frame.columns})
    for theirs in columns or {}:
        if theirs not in tidy:
            raise DdpmkitError(f"there is no column '{theirs}'{did_you_mean(theirs, tidy.columns)}", _there(tidy))
    tidy = tidy.rename(columns=dict(columns or {})).reset_index(drop=True)
    missing = [c for c in NEEDED if c not in tidy]
    if missing:
        near = {"train_seed": ("seed", "run", "replicate"), "metric": ("variable", "measure"), "value": ("score",)}
        for c in missing:
            old = next((o for o in near[c] if o in tidy), None)
            if old is not None:
                raise DdpmkitError(f"no column '{c}'", f'columns={{"{old}": "{c}"}} if that is what \'{old}\' is')
        raise DdpmkitError(f"no column {' and no column '.join(map(repr, missing))}", _there(tidy))
    if tidy.empty:
        raise DdpmkitError("there is a head and no result", "one row a number")
    twice = [c for c in dict.fromkeys(tidy.columns) if list(tidy.columns).count(c) > 1]
    if twice:
        raise DdpmkitError(f"column '{twice[0]}' is there twice", "rename one of them")
    tidy = _numbers(tidy)
    chosen = _axes(tidy, axes)
    text = {a: tidy[a].map(_text) for a in chosen}
    if "cell" not in tidy:
        if not chosen:
            raise DdpmkitError("nothing says what is compared", "give a column 'cell', or axes that vary")
        tidy["cell"] = [", ".join(p) for p in zip(*text.values(), strict=True)]
    tidy["cell"] = tidy["cell"].map(_text)
    tidy["metric"] = tidy["metric"].map(_text)
    for c in ("cell", "metric"):
        if (tidy[c] == "").any():
            raise DdpmkitError(f"row {int((tidy[c] == '').to_numpy().argmax()) + 2} has no {c}", "fill it in")
    key = ["cell", "train_seed", "sample_seed", "metric"]
    again = tidy.duplicated(key)
    if again.any():
        row = tidy.loc[again.to_numpy().argmax()]
        said = ", ".join(f"{k} {row[k]}" for k in key)
        raise DdpmkitError(f"two rows for {said}", "tell them apart by a sample_seed, or by an axis")
    first = ~tidy["cell"].duplicated()
    points = {
        cell: {a: text[a][i] for a in chosen} for i, cell in zip(tidy.index[first], tidy["cell"][first], strict=True)
    }
    plan: dict[str, Any] = {
        "study": name,
        "grid": {
            "train_seeds": sorted({int(s) for s in tidy["train_seed"]}),
            "sample_seeds": sorted({int(s) for s in tidy["sample_seed"]}),
        },
        "cells": [{"label": c, "point": p, "settings": p} for c, p in points.items()],
        "results": [],
        "stages": [],
        "excluded": [],
        "warnings": [],
    }
    tidy["study"] = name
    more = [c for c in (*chosen, "better") if c in tidy and c not in COLUMNS]
    return Records(folder or Path(), plan, tidy.reindex(columns=[*COLUMNS, *more]), [], [])


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Seeds as integers, values as floats, a status for every row."""
    out = frame.copy()
    if "sample_seed" not in out:
        out["sample_seed"] = 0
    for column in ("train_seed", "sample_seed"):
        seeds = pd.to_numeric(out[column], errors="coerce")
        bad = seeds.isna() | (seeds % 1 != 0)
        if bad.any():
            i = int(bad.to_numpy().argmax())
            raise DdpmkitError(
                f"row {i + 2}: {column} is '{_text(out[column].iloc[i])}'",
                "a seed is a whole number; give each its own",
            )
        out[column] = seeds.astype("int64")
    for column in ("value", *(c for c in NUMBERS if c in out)):
        number = pd.to_numeric(out[column], errors="coerce")
        words = out[column].map(_text).str.lower().str.lstrip("+-")
        bad = number.isna() & ~words.isin(["", "nan", "inf", "infinity", "none", "null", "na", "n/a"])
        if bad.any():
            i = int(bad.to_numpy().argmax())
            raise DdpmkitError(
                f"row {i + 2}: {column} is '{_text(out[column].iloc[i])}', no number",
                "write 0.5, or leave it empty and say status=failed",
            )
        if column == "value":
            wild = words.isin(["nan", "inf", "infinity"]) | np.isinf(number)
            implied = np.where(wild, "diverged", np.where(number.isna(), "failed", "done"))
        out[column] = number.astype("float64")
    said = out["status"].map(_text).str.lower() if "status" in out else pd.Series("", index=out.index)
    unknown = sorted(set(said) - {"", *STATES})
    if unknown:
        raise DdpmkitError(f"unknown status '{unknown[0]}'", f"one of {', '.join(STATES)}")
    # A row without a number is not done, whatever it says; one that is not done has no number that counts.
    status = np.where((said == "") | ((said == "done") & (implied != "done")), implied, said)
    out["status"] = pd.Series(status, index=out.index, dtype="str")
    out["value"] = out["value"].where(out["status"] == "done")
    return out


def _axes(frame: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    if asked is not None:
        for axis in asked:
            if axis not in frame:
                raise DdpmkitError(f"there is no column '{axis}'{did_you_mean(axis, frame.columns)}", _there(frame))
            if axis in RESERVED:
                raise DdpmkitError(f"'{axis}' can't be an axis: it means something else here", _there(frame))
        found_axes = list(asked)
    else:
        found_axes = [c for c in frame.columns if c not in RESERVED and frame[c].map(_text).nunique() > 1]
    if "cell" in frame:
        constant = [a for a in found_axes if frame[a].map(_text).groupby(frame["cell"]).nunique().max() == 1]
        loose = [a for a in found_axes if a not in constant]
        if asked is not None and loose:
            raise DdpmkitError(f"axis '{loose[0]}' varies within a cell", "leave out the column 'cell', or the axis")
        return constant
    return found_axes


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value).strip()


def _there(frame: pd.DataFrame) -> str:
    return f"columns: {', '.join(map(str, frame.columns))}"
