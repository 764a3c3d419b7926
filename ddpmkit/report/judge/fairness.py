"""Which numbers may stand in one column, and be compared: those that were measured alike."""

from __future__ import annotations

import pandas as pd

from ddpmkit.report.read.meaning import MODEL_PART, OF_THE_MODEL, Meaning


def unfair(frame: pd.DataFrame, known: dict[str, dict[str, Meaning | None]], base: str) -> list[str]:
    """Say which numbers were not averaged or not compared, and which comparisons go across a model's own settings."""
    notes = []
    for metric, cells in known.items():
        mixed = [c for c, meant in cells.items() if meant is None]
        if mixed:
            notes.append(f"{metric}: {', '.join(mixed)} left out, the numbers of one cell were measured differently.")
        other = [c for c, meant in cells.items() if meant is not None and meant != cells.get(base)]
        if other and cells.get(base) is not None:
            notes.append(
                f"{metric}: not compared with {base}, measured differently: "
                + "; ".join(f"{c} ({_differing(cells[c], cells[base])})" for c in other)
                + "."
            )
    rows = frame.loc[frame["value"].notna(), ["metric", "definition"]].drop_duplicates().dropna()
    for metric in dict.fromkeys(rows["metric"].tolist()):
        settings = [dict(MODEL_PART.findall(str(d))) for d in rows.loc[rows["metric"] == metric, "definition"]]
        for key in OF_THE_MODEL:
            values = sorted({t[key] for t in settings if key in t}, key=lambda v: (len(v), v))
            if len(values) > 1:
                notes.append(f"{metric} is compared across {key}={' / '.join(values)}, which is part of the model.")
    return notes


def _differing(a: Meaning | None, b: Meaning | None) -> str:
    """The words of one meaning that the other does not have."""
    if a is None or b is None:
        return "mixed"
    words = [w for w in a[0].split() if w not in b[0].split()]
    words = words or [f"without {w}" for w in b[0].split() if w not in a[0].split()]
    return " ".join(words + ([f"n={a[1]}"] if a[1] != b[1] and f"n={a[1]}" not in a[0] else [])) or "undefined"
