"""What ``precision=auto`` is on a device, wherever a study says it: ids hold what was computed in, not ``auto``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.condition import Condition, is_condition, read_condition
from ddpmkit.study.config import Study
from ddpmkit.study.design import Zip, label_of, points, read_zip

if TYPE_CHECKING:
    import torch

PRECISIONS = ("precision", "eval_precision")


def resolved(study: Study, device: str) -> Study:
    """Return a study with ``auto`` replaced by what the device offers: in levels, zips, conditions, labels, orderings.

    Raises:
        DdpmkitError: for a precision that the device does not offer, or where ``auto`` is the same as another level
            and is told from it by ``--only`` or ``--exclude``.
    """
    for field in PRECISIONS:
        if {getattr(study.base, field), *study.axes.get(field, ())} != {"fp32"}:
            from ddpmkit import device as devices

            study = _resolved(study, field, devices.resolve(device.partition(",")[0]))
    return study


def _resolved(study: Study, field: str, where: torch.device) -> Study:
    from ddpmkit import device as devices

    said = dict.fromkeys((getattr(study.base, field), *study.axes.get(field, ())))
    found = {value: devices.precision(value, where, learns=field == "precision") for value in said}
    if "auto" not in found:
        return study

    def at(point: Mapping[str, Any]) -> dict[str, Any]:
        return {k: found.get(v, v) if k == field else v for k, v in point.items()}

    axes = {
        k: tuple(dict.fromkeys(found[v] for v in values)) if k == field else values for k, values in study.axes.items()
    }
    zips = [read_zip(text) for text in study.zips]
    moved = [
        Zip(z.fields, tuple(dict.fromkeys(tuple(at(dict(zip(z.fields, s, strict=True))).values()) for s in z.values)))
        for z in zips
    ]
    labels = dict[str, str]()
    if study.only or study.exclude or study.stopped:  # of an axis that has one level now, labels say nothing
        for point in points(study.axes, zips, study.design):
            labels[label_of(point)] = label_of({k: v for k, v in at(point).items() if len(axes[k]) > 1})

    def rewritten(text: str) -> str:
        if text in labels or not is_condition(text):
            return labels.get(text, text)
        terms = read_condition(text).terms
        return str(
            Condition(
                tuple(
                    replace(t, values=tuple(dict.fromkeys(found.get(v, v) for v in t.values)))
                    if t.field == field
                    else t
                    for t in terms
                )
            )
        )

    made = replace(
        study,
        base=replace(study.base, **at({field: getattr(study.base, field)})),
        axes=axes,
        zips=tuple(map(str, moved)),
        only=tuple(dict.fromkeys(map(rewritten, study.only))),
        exclude=tuple(dict.fromkeys(map(rewritten, study.exclude))),
        stopped={labels[label]: seeds for label, seeds in study.stopped.items()},
        orderings=tuple(
            replace(o, cell=at(o.cell), baseline=at(o.baseline), where=at(o.where)) for o in study.orderings
        ),
    )
    asked = {replace(c.settings, **at({field: getattr(c.settings, field)})) for c in study.cells()}
    if (study.only or study.exclude) and asked != {c.settings for c in made.cells()}:
        here = found["auto"]
        raise DdpmkitError(
            f"{field} auto is {here} here, and --only or --exclude tell the two apart", f"name {here} in place of auto"
        )
    return made
