"""Every number of a report as JSON, and the tables as they are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ddpmkit.report.judge.summary import Summary
from ddpmkit.report.show.table import Table
from ddpmkit.report.show.tables import all_tables


def to_json(summary: Summary, shown: Sequence[Table] | None = None) -> str:
    """Every number of the report before rounding, and under ``tables`` the text of the tables."""
    tables = [
        {
            "name": t.name,
            "title": t.title,
            "columns": t.columns,
            "rows": t.rows,
            "references": t.references,
            "note": t.note,
        }
        for t in (all_tables(summary) if shown is None else shown)
    ]
    return json.dumps(finite({**summary.json(), "tables": tables}), indent=1) + "\n"


def finite(value: object) -> Any:  # a JSON value: whatever json.dumps takes
    """Return the value with null for what is not a number; JSON has no NaN."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
