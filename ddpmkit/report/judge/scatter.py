"""Where a study's scatter comes from: its numbers nested as cell, train seed, sample seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from ddpmkit.statistics import Components, Contrast, components


class Scatter:
    """The numbers of every metric, nested as cell, train seed, sample seed; a shared stage counts once."""

    def __init__(self, frame: pd.DataFrame, metrics: Sequence[str]) -> None:
        rows = frame.loc[frame["value"].notna() & frame["metric"].isin(metrics)]
        # A likelihood is one stage for all sample seeds: its repetitions are copies, and no replicates.
        stage = rows["stage"].where(rows["stage"].notna() & (rows["stage"] != ""), rows["sample_seed"].astype("object"))
        rows = rows.assign(_once=stage).drop_duplicates(["metric", "cell", "train_seed", "_once"])
        self.numbers: dict[str, dict[str, dict[int, dict[int, float]]]] = {}
        names = ["metric", "cell", "train_seed", "sample_seed", "value"]
        for metric, cell, train, sample, value in zip(*(rows[n].tolist() for n in names), strict=True):
            nested = self.numbers.setdefault(metric, {}).setdefault(cell, {}).setdefault(int(train), {})
            nested[int(sample)] = float(value)
        errors = pd.to_numeric(rows["standard_error"]).astype("float64")
        self.noise = (errors**2).groupby(rows["metric"]).agg(lambda e: float("nan") if e.isna().any() else e.mean())
        self.unit = dict(zip(rows["metric"], rows["unit"], strict=True))

    def sampled(self, metric: str) -> bool:
        """Whether the metric is measured on samples; a likelihood is not."""
        return self.unit.get(metric) != "bits/dim" and not metric.startswith("NLL")

    def of_values(self, metric: str, cells: Sequence[str]) -> Components | None:
        """Split the scatter of one number, pooled over the cells."""
        by_cell = self.numbers.get(metric, {})
        noise = float(self.noise.get(metric, math.nan))
        once = {str(by_cell[c]): by_cell[c] for c in cells if c in by_cell}  # cells may rest on the same stages
        nested = [{t: list(v.values()) for t, v in of_cell.items()} for of_cell in once.values()]
        return components(nested, None if math.isnan(noise) else noise)

    def of_differences(self, metric: str, base: str, contrasts: Mapping[str, Contrast]) -> Components | None:
        """Split the paired differences; what the cells share is gone, so the measurement is not told apart."""
        by_cell = self.numbers.get(metric, {})
        reference = by_cell.get(base, {})
        nested = []
        for cell, contrast in contrasts.items():
            if contrast.p_holm is not None:
                both = {t: by_cell[cell][t].keys() & reference[t].keys() for t in contrast.seeds}
                nested.append({t: [by_cell[cell][t][s] - reference[t][s] for s in sorted(k)] for t, k in both.items()})
        return components(nested)
