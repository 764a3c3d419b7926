"""What to run next, in words: more seeds of which kind, how many, or a better measurement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ddpmkit.statistics import (
    ALPHA,
    Components,
    Contrast,
    seeds_for_margin,
    seeds_needed,
    seeds_to_end,
    smallest_visible,
)

NAMED = 4  # contrasts that one sentence names
NAMED_EACH = 1  # of each metric, where it names several


def smallest(contrasts: Iterable[Contrast], spreads: Sequence[float], alpha: float = ALPHA) -> float | None:
    """Return the gap that a study as large as this shows with 80 % power, at the typical spread of its differences."""
    tested = [c for c in contrasts if c.p_holm is not None]
    if not tested or not spreads:
        return None
    typical = sorted(spreads)[len(spreads) // 2]
    seeds = min(c.n for c in tested)
    grown = any(c.anytime and c.anytime.stands for c in tested)
    # smallest_visible wants one cell's sd: that of the differences over sqrt 2, at correlation 0.
    return smallest_visible(seeds, typical / math.sqrt(2), contrasts=len(tested), alpha=alpha, anytime=grown)


def to_settle(open_: Mapping[str, tuple[Contrast, float]]) -> list[str]:
    """Say how many train seeds would settle the contrasts that are open, going by the gaps and spreads seen so far.

    Args:
        open_: cell -> its contrast, and the sd of its differences over seeds.
    """
    return all_to_settle({"": open_})


def all_to_settle(by_metric: Mapping[str, Mapping[str, tuple[Contrast, float]]]) -> list[str]:
    """Say the same of several metrics at once: a sentence stands once, and in it each metric with its contrasts.

    Args:
        by_metric: metric -> its open contrasts, as for :func:`to_settle`; a metric without a name stands unnamed.
    """
    needs: dict[tuple[int, bool], dict[str, list[str]]] = {}
    hopeless: dict[bool, dict[str, list[str]]] = {}
    for metric, open_ in by_metric.items():
        few, beyond = _reckoned(open_)
        if few:
            grown = any(c.anytime and c.anytime.stands for c, _ in open_.values())
            needs.setdefault((max(c.n for c, _ in open_.values()), grown), {})[metric] = few
        if beyond:
            hopeless.setdefault(all(c.margin is None for c, _ in open_.values()), {})[metric] = beyond
    out = []
    for (now, grown), each in needs.items():
        settled = f"to settle what is open, going by the gaps seen with {now} train seeds, it takes about this many"
        out.append(f"{settled}: {_each(each)} ({'were the gaps these' if grown else '80 % power'}).")
    for without, each in hopeless.items():
        margin = "; set a margin to show that it is no larger than what matters" if without else ""
        out.append(f"{_each(each)}: the gap seen is so small that 100 train seeds would not do{margin}.")
    return out


def _each(by_metric: Mapping[str, Sequence[str]]) -> str:
    """Each metric with its names, of which fewer are said where there are several metrics."""
    most = NAMED if len(by_metric) == 1 else NAMED_EACH
    return "; ".join(
        f"{metric}: {_some(names, most)}" if metric else _some(names, most) for metric, names in by_metric.items()
    )


def _reckoned(open_: Mapping[str, tuple[Contrast, float]]) -> tuple[list[str], list[str]]:
    """The contrasts that some train seeds would settle, each with their number, the fewest first; and the others."""
    needs: dict[str, int] = {}
    hopeless = []
    for cell, (c, sd) in open_.items():
        enough = [n for n in _ways(c, sd) if n is not None]
        if enough and min(enough) <= 100:
            needs[cell] = max(min(enough), c.n + 1)
        else:
            hopeless.append(cell)
    counted = sorted(needs, key=lambda cell: needs[cell])
    # Behind a name that ends in a number stands what the next number is of.
    return [f"{c} {needs[c]}" + (" seeds" if c[-1:].isdigit() else "") for c in counted], hopeless


def _ways(c: Contrast, sd: float) -> list[int | None]:
    """The train seeds with which a contrast would be found, and with a margin those that would show it to be small."""
    if c.anytime and c.anytime.stands:
        level, gap = 1 / c.anytime.needed, abs(c.difference)
        ways = [seeds_to_end(gap, sd, level)]
        return ways if c.margin is None else [*ways, seeds_to_end(c.margin - gap, sd, level)]
    level = c.level or ALPHA
    ways = [seeds_needed(c.difference, sd, level=level)]
    return ways if c.margin is None else [*ways, seeds_for_margin(c.margin, sd, level=level)]


def which_seeds(parts: Components | None, sampled: bool) -> list[str]:
    """Say whether train seeds or sample seeds cut the scatter of the differences.

    Args:
        parts: The split of the paired differences; None where there is none.
        sampled: Whether the metric depends on a sample seed at all.
    """
    if parts is None or not sampled:
        return []
    if parts.sample is None:
        return [
            "with one sample seed the noise of training and of sampling can't be told apart; "
            "--sample-seeds 0-2 tells them apart, without training anything again."
        ]
    inner, whole = parts.sample / parts.repeats, parts.of_mean()
    if whole == 0:
        return []
    now, share = round(parts.repeats), 100 * inner / whole
    if inner > parts.train:
        return [
            f"{share:.0f} % of the scatter of the differences is sampling: more sample seeds (now {now}) "
            "help most, and train nothing again."
        ]
    return [
        f"{100 - share:.0f} % of the scatter of the differences is training: only more train seeds help; "
        f"{now} sample seed{'s are' if now > 1 else ' is'} enough."
    ]


def measuring(parts: Components | None, how: str) -> list[str]:
    """Say when the Monte-Carlo error of the measurement is most of what separates two train seeds."""
    share = _share(parts)
    return [f"{share} of the scatter over train seeds is the measurement itself: {how}."] if share else []


def all_measuring(by_metric: Mapping[str, tuple[Components | None, str]]) -> list[str]:
    """Say the same of several metrics at once, which are told apart by what helps.

    Args:
        by_metric: metric -> its components, and what helps.
    """
    shares: dict[str, dict[str, str]] = {}
    for metric, (parts, how) in by_metric.items():
        if share := _share(parts):
            shares.setdefault(how, {})[metric] = share
    return [
        f"{metric}: {measuring(by_metric[metric][0], how)[0]}"
        if len(each) == 1
        else f"{', '.join(f'{m} {share}' for m, share in each.items())} of the scatter over train seeds is the "
        f"measurement itself: {how}."
        for how, each in shares.items()
        for metric in [next(iter(each))]
    ]


def _share(parts: Components | None) -> str:
    """The measurement's share of the scatter, where it is most of it; else nothing."""
    if parts is None or not parts.evaluation:
        return ""
    share = parts.evaluation / parts.repeats / parts.of_mean()
    return f"{100 * share:.0f} %" if share > 0.5 else ""


def _some(names: Sequence[str], most: int = NAMED) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def merged(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Write ``metric: sentence``, with all metrics of one sentence in front of it."""
    out: dict[str, list[str]] = {}
    for metric, sentence in pairs:
        out.setdefault(sentence, []).append(metric)
    return [f"{', '.join(metrics)}: {sentence}" for sentence, metrics in out.items()]
