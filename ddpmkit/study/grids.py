"""Two grids of one name: whether one holds all of the other, what it adds, and both as one.

A grid that was read may be of another version with other settings, or damaged; what can't be read holds nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ddpmkit import files
from ddpmkit.plugin import spec
from ddpmkit.study.config import Study, scored
from ddpmkit.study.design import FULL, ONE, SHAPE, Zip, read_zip, size, together
from ddpmkit.study.grid_cells import cells_of, gives_back
from ddpmkit.study.metrics import of_images
from ddpmkit.study.narrow import refuse_large
from ddpmkit.study.orderings import Ordering, completed, merged
from ddpmkit.study.settings import FIELDS, PLURALS
from ddpmkit.study.store import Store

SEEDS = ("train_seeds", "sample_seeds")
LISTS = (*SEEDS, "metrics", "features", "only")
ALL = ["all cells"]
# The averages are taken while a network trains: with one more, every training would be another one.
IN_TRAINING = ("ema",)
LONGEST = 60  # characters of a value


@dataclass(frozen=True)
class There:
    """What is there under a name.

    Attributes:
        grid: the grid of the plan.
        scored: which metrics one stage takes, where the study grew in them; see :func:`ddpmkit.study.config.scored`.
        stopped: the train seeds of cells that have fewer than the study.
        orderings: what is expected of its cells.
    """

    grid: dict[str, Any]
    scored: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())
    stopped: dict[str, tuple[int, ...]] = field(default_factory=dict)
    orderings: tuple[Ordering, ...] = ()

    @classmethod
    def read(cls, store: Store, name: str) -> Self | None:
        """Return what is there; None where there is none, or its plan is damaged and will be made again."""
        plan = files.read_sealed(store.study(name) / "plan.json") or {}
        grid = plan.get("grid")
        if not isinstance(grid, dict) or not isinstance(grid.get("settings", {}), dict):
            return None
        stopped = {str(cell): tuple(seeds) for cell, seeds in plan.get("stopped", {}).items()}
        scored = tuple((str(f), tuple(metrics)) for f, metrics in plan.get("scored", ()))
        return cls(grid, scored, stopped, tuple(Ordering.of_json(o) for o in plan.get("orderings", ())))


def flat(grid: Any) -> dict[str, list[str]]:
    """Return every setting and list of a grid as texts; an axis has several, a setting that is new its value before."""
    if not isinstance(grid, Mapping):
        return {}
    settings, axes = ({} if not isinstance(grid.get(k), Mapping) else dict(grid[k]) for k in ("settings", "axes"))
    rest = {key: value for key, value in grid.items() if key not in ("settings", "axes")}
    before = {p.name: p.before for p in FIELDS.values() if p.before is not dataclasses.MISSING}
    out = {str(key): texts(value) for key, value in {**before, **settings, **axes, **rest}.items()}
    out |= {key: texts(grid.get(key, [])) for key in LISTS}
    shape = {key: texts(grid.get(key) or "none") for key in SHAPE}
    if grid.get("design", FULL) != FULL:  # its cells depend on where it starts from
        shape["design"] = [f"{out['design'][0]} from {' '.join(out[axis][0] for axis in axes) or 'one cell'}"]
    return {**out, **shape, "only": out["only"] or ALL}


def lacking(there: Any, now: Any, unsaid: Sequence[str] = ()) -> list[str]:
    """Return the settings and lists of a grid whose values another does not have all of; what was not said it has."""
    old, new = flat(there), flat(now)
    out = []
    for key in dict.fromkeys((*LISTS, *new, *old)):
        a, b = old.get(key), new.get(key)
        if key in SHAPE:
            continue
        if key in unsaid:
            holds = _is_list(key, there.get(key))
        elif a is None or b is None:
            holds = False
        elif key in IN_TRAINING:
            holds = set(a) == set(b)
        else:
            holds = set(a) <= set(b) or (key == "only" and b == ALL)
        if not holds:
            out.append(key)
    shaped = any(grid.get(key) for grid in (there, now) if isinstance(grid, Mapping) for key in SHAPE)
    if not out and shaped and not cells_of(there) <= cells_of(now):
        out = [key for key in SHAPE if old.get(key) != new.get(key)] or ["design"]
    return out


def union(there: There, now: Study) -> Study:
    """Return a study with all that is there and all that it asks for; what is there keeps its place, so the baseline.

    A list that was not asked for is the one that is there. Metrics alone keep being asked for by default, since which
    of them can be taken is known only when they are planned.

    Raises:
        DdpmkitError: where the shapes of both leave only the product of all levels, and that is too many points.
    """
    axes = {}
    for name in FIELDS:
        asked = now.axes.get(name, (getattr(now.base, name),))
        both = tuple(dict.fromkeys((*_levels(there.grid, name, asked), *asked)))
        if name in now.axes or len(both) > 1:
            axes[name] = both
    base = replace(now.base, **{name: values[0] for name, values in axes.items()})
    lists: dict[str, Any] = {}
    for key in (*SEEDS, "metrics", "features"):
        asked = () if key in now.unsaid and key != "metrics" else getattr(now, key)
        lists[key] = tuple(dict.fromkeys((*there.grid.get(key, ()), *asked)))
    only = tuple(there.grid.get("only", ()))
    only = tuple(dict.fromkeys((*only, *now.only))) if only and now.only else ()
    grown = _shaped(there, now, replace(now, base=base, axes=axes, only=only, **lists))
    # Who asks for more seeds asks for them in every cell, unless it is said which have had enough.
    more = "train_seeds" not in now.unsaid and not set(now.train_seeds) <= set(there.grid.get("train_seeds", ()))
    stopped = _stopped(there, grown, now.stopped or ({} if more else there.stopped))
    return replace(grown, scored=_scored(there, grown), stopped=stopped, orderings=_orderings(there, now, grown))


def restarts(there: Mapping[str, Any], now: Study) -> dict[str, Any]:
    """Return the first levels that a grid has of axes of which a study, one axis at a time, starts from others.

    What is there keeps its place, so the baseline: such a study can't be had beside that grid.
    """
    if now.design != ONE or len(together(now.axes, [read_zip(text) for text in now.zips])) < 2:
        return {}
    first = {name: _levels(there, name, values)[0] for name, values in now.axes.items()}
    return {name: value for name, value in first.items() if value != now.axes[name][0]}


def added(there: Any, now: Any) -> list[str]:
    """Say what one grid has and the other lacks, a line each: ``train seeds 3-4``, ``schedules sigmoid``."""
    old, new, out = flat(there), flat(now), []
    for key, values in new.items():
        before = old.get(key, [])
        if key in ("only", *SHAPE) or not (more := [v for v in values if v not in before]):
            continue
        axis = (
            f" beside {short(before)}, so that cells are named by it too" if len(before) == 1 and key in FIELDS else ""
        )
        out.append(f"{word(key)} {short(in_ranges(more) if key in SEEDS else more)}{axis}")
    if old.get("only", ALL) != new.get("only", ALL) or gives_back(there, now):
        out.append("cells that were left out")
    return out


def word(key: str) -> str:
    """Return the name of a setting or a list in a sentence."""
    plural = {name: many for many, name in PLURALS.items()}
    return plural.get(key, key).replace("_", " ")


def texts(value: Any) -> list[str]:
    """Return a value, or each of a list, as one types it."""
    return [v if isinstance(v, str) else spec.encode(v) for v in (value if isinstance(value, list) else [value])]


def in_ranges(seeds: Sequence[str]) -> list[str]:
    """Return seeds as one types them: 0, 1, 2, 5 is 0-2, 5; what is no seed stays as it is."""
    if not all(s.isdecimal() for s in seeds):
        return list(seeds)
    numbers = [int(s) for s in seeds]
    runs = [[s for _, s in run] for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]


def short(values: Sequence[str] | None) -> str:
    """Return values behind one another, the end of a long list left out and counted."""
    text = ",".join(values or ())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}.. ({len(values or ())} values)"


def _levels(grid: Mapping[str, Any], name: str, otherwise: Sequence[Any]) -> Sequence[Any]:
    """The values of a setting in a grid."""
    if name in grid.get("axes", {}):
        return tuple(grid["axes"][name])
    before = FIELDS[name].before
    usual = otherwise[0] if before is dataclasses.MISSING else before
    return (grid.get("settings", {}).get(name, usual),)


def _shaped(there: There, now: Study, grown: Study) -> Study:
    """Give a study of all levels the zips, exclusions and design that leave all cells in: as asked for, where they do.

    Where two processes grew a study in two ways, they may not; then fewer are left out, and last none.
    """
    zips = dict[tuple[str, ...], Zip]()
    for z in map(read_zip, (*there.grid.get("zip", ()), *now.zips)):
        first = zips.get(z.fields, Zip(z.fields, ()))
        zips[z.fields] = Zip(z.fields, tuple(dict.fromkeys((*first.values, *z.values))))
    asked = tuple(str(zips[z.fields]) for z in map(read_zip, now.zips))
    both = tuple(text for text in now.exclude if text in there.grid.get("exclude", ()))
    needed = cells_of(there.grid) | cells_of(now.grid())
    for exclude in (now.exclude, both):
        shaped = replace(grown, zips=asked, exclude=exclude, design=now.design)
        if needed <= cells_of(shaped.grid()):
            return shaped
    count = size(grown.axes, (), FULL)
    refuse_large(count, count, None)
    return replace(grown, zips=(), exclude=(), design=FULL)


def _stopped(there: There, grown: Study, fewer: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The cells of a study that have fewer train seeds than it, each with all that are there for it.

    Who says that a cell stopped may have read that before somebody gave it more, and what is there is never dropped.
    """
    if not fewer:
        return {}
    names = grown.axes.keys() | there.grid.get("axes", {}).keys()
    levels = {name: tuple(_levels(there.grid, name, grown.axes.get(name, ()))) for name in FIELDS if name in names}
    base = replace(grown.base, **{name: values[0] for name, values in levels.items()})
    zips, exclude = (tuple(there.grid.get(key, ())) for key in ("zip", "exclude"))
    before = replace(grown, base=base, axes=levels, only=tuple(there.grid.get("only", ())), stopped=there.stopped)
    before = replace(before, design=there.grid.get("design", FULL), zips=zips, exclude=exclude, tune=None)
    # By its settings, not by its label: with one more axis the same cell has a longer one.
    has = {c.settings: there.stopped.get(c.label, there.grid.get("train_seeds", ())) for c in before.cells()}
    out = {}
    for cell in replace(grown, tune=None).cells():
        if cell.label in fewer:
            seeds = {*fewer[cell.label], *has.get(cell.settings, ())}
            if not seeds >= set(grown.train_seeds):
                out[cell.label] = tuple(s for s in grown.train_seeds if s in seeds)
    return out


def _orderings(there: There, now: Study, grown: Study) -> tuple[Ordering, ...]:
    """The orderings of both; where one had a single value on what is an axis now, its cells are those of that value."""
    many = [name for name, values in grown.axes.items() if len(values) > 1]
    before = {name: _levels(there.grid, name, (getattr(grown.base, name),)) for name in many}
    asked = {name: now.axes.get(name, (getattr(now.base, name),)) for name in many}
    old, new = ({name: v[0] for name, v in levels.items() if len(v) == 1} for levels in (before, asked))
    return merged(completed(there.orderings, old), completed(now.orderings, new))


def _scored(there: There, now: Study) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Which metrics one stage takes: those that are there as they are, and of each extractor the others in one more.

    So a metric that is added computes nothing again of those that are there, and their numbers stay on their machine.
    """
    metrics = there.grid.get("metrics", ())
    first = tuple((f, of_images(metrics)) for f in there.grid.get("features", ()))
    out = [(f, tuple(m for m in taken if m in metrics)) for f, taken in there.scored or first]
    for features in now.features:
        taken = {m for f, here in out if f == features for m in here}
        if left := tuple(m for m in of_images(now.metrics) if m not in taken):
            out.append((features, left))
    found = tuple((f, taken) for f, taken in out if taken)
    return () if found == scored(replace(now, scored=())) else found


def _is_list(key: str, value: Any) -> bool:
    """Whether a list that was read can be one."""
    kind = int if key in SEEDS else str
    return isinstance(value, list) and len(value) > 0 and all(type(v) is kind for v in value)
