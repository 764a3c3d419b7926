"""What a study is: settings, the axes along which they vary, and the seeds that repeat every cell."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.design import (
    DESIGNS,
    FULL,
    among,
    conditions,
    label_of,
    points,
    read_zip,
    shape_of,
    size,
    with_baseline,
)
from ddpmkit.study.metrics import of_images, read_metrics
from ddpmkit.study.naming import check_name
from ddpmkit.study.narrow import read_chosen, refuse_large
from ddpmkit.study.ordering_files import ordering_toml, read_orderings
from ddpmkit.study.orderings import Ordering
from ddpmkit.study.settings import COMPONENTS, DEFAULT_METRICS, FIELDS, PLURALS, PRESETS, Settings, field_named
from ddpmkit.study.tune import Tune, read_tune, refuse_clashes
from ddpmkit.study.values import LARGEST, as_toml, check_text, read_seeds, read_setting, words


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    settings: Settings
    point: dict[str, Any]  # the axes' values here, by field name

    @functools.cached_property
    def label(self) -> str:
        """The cell's name in tables: its values on the axes that vary.

        A study of one cell has none; it is named by its schedule, or where that is the default one, by the first
        component of another name than the default's.
        """
        if not self.point:
            kinds = (kind for kind in PLURALS.values() if kind in COMPONENTS)
            chosen = ((getattr(self.settings, kind), FIELDS[kind].default) for kind in kinds)
            return next((c for c, usual in chosen if spec.parse(c)[0] != spec.parse(usual)[0]), self.settings.schedule)
        return label_of(self.point)

    @property
    def slug(self) -> str:
        """A file name made from the label; two labels that slug alike still differ, by a hash."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")[:40]
        return f"{plain}-{files.sha256(self.label.encode())[:4]}"


@dataclass(frozen=True)
class Study:
    """A named grid."""

    name: str
    base: Settings
    axes: dict[str, tuple[Any, ...]]
    train_seeds: tuple[int, ...]
    sample_seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    features: tuple[str, ...]
    only: tuple[str, ...] = ()  # labels of the cells that are run, or conditions on them; all when empty
    zips: tuple[str, ...] = ()  # settings that vary together: see study/design.py
    exclude: tuple[str, ...] = ()  # conditions on cells that are left out
    design: str = FULL
    unsaid: tuple[str, ...] = ()  # lists that nobody asked for: those of the study where there is one of that name
    scored: tuple[tuple[str, tuple[str, ...]], ...] = ()  # see scored() below; empty unless metrics were added later
    stopped: dict[str, tuple[int, ...]] = field(default_factory=dict)  # label -> the seeds of a cell that has fewer
    orderings: tuple[Ordering, ...] = ()  # what is expected of its cells; part of no grid and no stage
    tune: Tune | None = None  # what each cell gets its own best value of

    @property
    def by_default(self) -> bool:
        """Whether nobody asked for the metrics by name, so that one that can't be taken may be left out."""
        return "metrics" in self.unsaid

    def cells(self) -> list[Cell]:
        """The grid's points, the last axis running fastest; without what is excluded, or is not of ``only``."""
        every = points(self.axes, [read_zip(text) for text in self.zips], self.design)
        cells = [Cell(replace(self.base, **point), point) for point in every]
        if self.only or self.exclude:
            some, out = conditions(self.only), conditions(self.exclude)
            cells = [
                c
                for c in cells
                if (not self.only or among(c.label, vars(c.settings), self.only, some))
                and not among(c.label, vars(c.settings), self.exclude, out)
            ]
        if self.tune is None:
            return cells
        return [replace(c, settings=replace(c.settings, **self.tune.of(c.label))) for c in cells]

    def seeds_of(self, cell: Cell) -> tuple[int, ...]:
        """The train seeds of a cell: those of the study, or fewer where it got no more once it was settled."""
        return self.stopped.get(cell.label, self.train_seeds)

    def grid(self) -> dict[str, Any]:
        """Everything but the name, as JSON values."""
        return {
            "settings": spec.values(self.base),
            "axes": {k: list(v) for k, v in self.axes.items() if len(v) > 1},
            "train_seeds": list(self.train_seeds),
            "sample_seeds": list(self.sample_seeds),
            "metrics": list(self.metrics),
            "features": list(self.features),
            **({"only": list(self.only)} if self.only else {}),
            **shape_of(self.zips, self.exclude, self.design),
            **({"tune": str(self.tune)} if self.tune else {}),
        }

    def toml(self) -> str:
        """The study as a file that ``ddpmkit ablate FILE`` reads back."""
        plural = {v: k for k, v in PLURALS.items()}
        lines = [f"name = {as_toml(self.name)}"]
        zipped = {field for text in self.zips for field in read_zip(text).fields}
        for name, value in spec.values(self.base).items():
            if name in zipped:
                continue
            values = self.axes.get(name, (value,))
            if values == (None,):
                continue  # TOML has no word for it; what is not said is the default
            key = plural.get(name, name)
            lines.append(f"{key} = {as_toml(list(values) if name in plural or len(values) > 1 else values[0])}")
        for key in ("train_seeds", "sample_seeds", "metrics", "features", *(["only"] if self.only else [])):
            lines.append(f"{key} = {as_toml(list(getattr(self, key)))}")
        shape = shape_of(self.zips, self.exclude, self.design)
        lines += [f"{key} = {as_toml(value)}" for key, value in shape.items()]
        if self.tune:
            lines += [f"tune = {as_toml(self.tune.texts())}", f"tune_seeds = {as_toml(list(self.tune.seeds))}"]
        if self.stopped:  # a table ends only with the file
            lines += ["", "[stopped]", *(f"{as_toml(c)} = {as_toml(list(s))}" for c, s in self.stopped.items())]
        return "\n".join(lines) + "\n" + "".join("\n" + ordering_toml(o) for o in self.orderings)


def scored(study: Study) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the extractors, each with the metrics that one stage takes of its features.

    Of a study that grew in metrics an extractor may stand there several times: what was taken is not taken again.
    """
    return study.scored or tuple((features, of_images(study.metrics)) for features in study.features)


def stated_grid(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Return a grid without the settings that are as they were before they existed: what a default name is made of."""
    before = {p.name: p.before for p in FIELDS.values()}
    settings = {k: v for k, v in grid.get("settings", {}).items() if k not in before or v != before[k]}
    return {**grid, "settings": settings}


def make_study(options: Mapping[str, Any], registry: Registry, *, most: int | None = LARGEST) -> Study:
    """Turn options, as flags, a TOML file or Python keywords give them, into a study that has been checked.

    Every setting takes one value or several (a list, or comma text); several make an axis. ``axis`` is a list of
    ``name=a,b`` texts. What is None was not given. Components are written back in one canonical form. ``zip``,
    ``exclude``, ``only``, ``design`` and ``baseline`` choose among the points: study/design.py and study/condition.py.

    Args:
        options: What is asked for.
        registry: The components to choose from.
        most: The most results; None for no limit.

    Raises:
        DdpmkitError: for an unknown option or preset, a bad value, an empty or an oversized grid.
    """
    given = {k: v for k, v in options.items() if v is not None}
    for key, value in given.items():
        if key in ("name", "preset", "metrics", "features", "axis", "only", "zip", "exclude", "design", "baseline"):
            check_text(key, value, single=key in ("name", "preset", "design"))
    name = given.pop("name", None)
    preset = given.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise DdpmkitError(
            f"unknown preset '{preset}'{did_you_mean(preset, PRESETS)}", f"presets: {', '.join(PRESETS)}"
        )
    unsaid = tuple(k for k in ("train_seeds", "sample_seeds", "metrics", "features") if k not in given)
    seeds = {k: read_seeds(k, given.pop(k, default)) for k, default in (("train_seeds", "0-2"), ("sample_seeds", "0"))}
    metrics = read_metrics(given.pop("metrics", DEFAULT_METRICS), registry)
    features = given.pop("features", None)
    only, zipped, exclude, baseline = (_texts(given.pop(k, ())) for k in ("only", "zip", "exclude", "baseline"))
    design = given.pop("design", FULL)
    if design not in DESIGNS:
        raise DdpmkitError(f"unknown design '{design}'{did_you_mean(design, DESIGNS)}", f"one of {', '.join(DESIGNS)}")
    stopped = given.pop("stopped", {})
    orderings = given.pop("ordering", ())
    tune = read_tune(given.pop("tune", ()), given.pop("tune_seeds", None), lambda f, text: _values(f, text, registry))
    axis = given.pop("axis", ())
    for text in [axis] if isinstance(axis, str) else axis:
        key, eq, values = text.partition("=")
        if not eq or not values:
            raise DdpmkitError(f"--axis '{text}': expected name=value,value", "as in --axis learning_rate=1e-3,2e-3")
        field = field_named(key)
        if any(PLURALS.get(k, k) == field for k in given):
            raise DdpmkitError(f"'{field}' is given twice, by its own flag and by --axis", "keep one of the two")
        given[field] = values

    def read(field: str, text: str) -> Any:
        return read_setting(field, text, registry)

    zips = tuple(read_zip(text, read) for text in zipped)
    for field in (field for z in zips for field in z.fields):
        if any(PLURALS.get(k, k) == field for k in given) or sum(field in z.fields for z in zips) > 1:
            raise DdpmkitError(f"'{field}' is given twice, by --zip and by another flag", "keep one of the two")
    given |= {field: list(values) for z in zips for field, values in z.columns().items()}
    axes: dict[str, tuple[Any, ...]] = {}
    for key, value in {**PRESETS.get(preset or "", {}), **given}.items():
        field = PLURALS.get(key, key)
        if field not in FIELDS:
            known = [*FIELDS, *PLURALS]
            raise DdpmkitError(f"unknown setting '{key}'{did_you_mean(key, known)}", "ddpmkit ablate --help")
        axes[field] = _values(field, value, registry)
    if len(axes.get("dataset", ())) > 1:
        raise DdpmkitError("a study has one data set; distances to two references share no column", "run two studies")
    ordered, zips = with_baseline(baseline, axes, zips, read)
    base = replace(Settings(), **{field: values[0] for field, values in ordered.items()})
    if features is None:
        features = registry.build("dataset", base.dataset).default_features
    extractors = tuple(
        dict.fromkeys(spec.format(registry.build("features", f), called=registry.called) for f in words(features))
    )
    study = Study("", base, ordered, seeds["train_seeds"], seeds["sample_seeds"], metrics, extractors, unsaid=unsaid)
    study = replace(study, zips=tuple(map(str, zips)), design=design)
    count = size(ordered, zips, design)
    per_cell = len(study.train_seeds) * len(study.sample_seeds)
    refuse_large(count, count * per_cell, most, narrowed=(narrowed := bool(only or exclude)))
    if narrowed:
        cells = [(c.label, vars(c.settings)) for c in study.cells()]
        only, exclude = read_chosen("--only", only, cells, read), read_chosen("--exclude", exclude, cells, read)
        study = replace(study, only=only, exclude=exclude)
        if not (left := len(study.cells())):
            raise DdpmkitError("--only and --exclude leave no cell of the grid", "ddpmkit ablate -n without them")
        refuse_large(left, left * per_cell, most)
    settings = [vars(c.settings) for c in study.cells()] if orderings else []
    beyond = [vars(c.settings) for c in replace(study, only=(), exclude=()).cells()] if orderings and narrowed else []
    stated = read_orderings(orderings, settings, lambda field, value: _values(field, value, registry), beyond)
    refuse_clashes(tune, ordered, study.train_seeds)
    study = replace(study, stopped=_stopped(stopped, study), orderings=stated, tune=tune)
    dataset = re.sub(r"[^A-Za-z0-9._-]", "-", spec.parse(base.dataset)[0].rpartition("/")[2])[:60]
    default = f"{dataset}-{files.sha256(files.canonical(stated_grid(study.grid())).encode())[:8]}"
    return replace(study, name=check_name(default if name is None else name))


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _stopped(given: Any, study: Study) -> dict[str, tuple[int, ...]]:
    """Read which cells have fewer train seeds than the study."""
    labels, out = [c.label for c in study.cells()], {}
    if not isinstance(given, Mapping):
        raise DdpmkitError("'stopped' must be a table of cells and their train seeds", "leave it out")
    for label, seeds in given.items():
        if label not in labels:
            raise DdpmkitError(f"the grid has no cell '{label}'{did_you_mean(str(label), labels)}", "ddpmkit ablate -n")
        out[label] = read_seeds("train_seeds", seeds)
        if more := [s for s in out[label] if s not in study.train_seeds]:
            raise DdpmkitError(
                f"cell '{label}' stopped at train seed {more[0]}, which the study lacks", "add it to train_seeds"
            )
    return out


def axis_fields(texts: str | Iterable[str]) -> set[str]:
    """Return the settings that ``--axis`` texts name."""
    return {field_named(t.partition("=")[0]) for t in ([texts] if isinstance(texts, str) else texts)}


def _values(field: str, value: Any, registry: Registry) -> tuple[Any, ...]:
    """Read one setting's values, in order and without repeats."""
    raw = spec.split(value) if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]
    if not raw:
        raise DdpmkitError(f"'{field}' is given no value", "name at least one")
    read = (read_setting(field, item if isinstance(item, str) else spec.encode(item), registry) for item in raw)
    return tuple(dict.fromkeys(read))
