"""The ids that stores hold, pinned: of the default study, and of one study for each kind of stage that is rare.

When this fails, something that is hashed has changed, and every store that people have is worth nothing to the new
version. If that was not meant, undo it: a field that is added is declared by ``added(...)`` or ``param(before=...)``.
If the same spec now gives other numbers, raise the ``version`` of the kind in ddpmkit/study/stages, or the component's,
say so in the changelog, and only then write the file again: ``python tests/study/test_golden_ids.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.plugin.registry import Registry
from ddpmkit.study.config import make_study
from ddpmkit.study.plan import make_plan
from ddpmkit.study.stages import STAGE_KINDS

FILE = Path(__file__).with_name("golden_ids.json")
# The defaults of the first stores; that they are others now moves no id of what is stated.
FIRST: dict[str, Any] = {
    "predictions": "eps", "backbones": "unet", "timestep_sampling": "uniform", "batch_size": 64, "learning_rate": 4e-3,
    "sampling_steps": 100, "train_steps": 1200,
}  # fmt: skip
OF_TODAY, LONGER = "default of today", "default of 1200 steps"
STUDIES: dict[str, dict[str, Any]] = {
    "default": {"schedules": "linear,cosine,sigmoid"},
    OF_TODAY: {"schedules": "linear,cosine,sigmoid"},
    LONGER: {"schedules": "linear,cosine,sigmoid", "train_steps": 1200},
    "fit": {"sigmas": "analytic,optimal", "axis": ["decoder_variance=tilde2,fitted"], "train_seeds": "0"},
    "learned": {"sigmas": "learned-range,learned", "weightings": "hybrid,vlb", "train_seeds": "0"},
    "full sweep": {"nll_full": True, "train_seeds": "0", "metrics": "nll"},
    "target error": {"axis": ["nll_se=0.01"], "train_seeds": "0", "metrics": "nll"},
    "every metric": {
        "metrics": "fd,kid,precision,recall,density,coverage,sw,c2st,copy,nll", "features": "digits,pixels",
        "train_seeds": "0", "sample_seeds": "0,1",
    },
    "walks": {
        "samplers": "ancestral:spacing=openai,ddim:eta=0.5,dpm-solver++:clip=none", "predictions": "eps,x0,v,mu",
        "timestep_sampling": "importance", "metrics": "fd", "features": "pixels", "train_seeds": "0",
    },
    "settings": {
        "axis": ["ema=0.9,0.99", "eval_precision=bf16", "lr_decay=constant"], "dropout": "0.1", "precision": "bf16",
        "backbones": "unet:fourier=true:channels=8", "schedules": "random-walk,zero-snr", "predictions": "x0",
        "train_seeds": "0",
    },
    "flips": {"axis": ["flip=true"], "metrics": "fd,copy", "train_seeds": "0"},
    "labels": {
        "conditional": True, "axis": ["label_dropout=0.1,0.3", "sample_labels=balanced"], "guidances": "0,1.5",
        "train_seeds": "0",
    },
    "published networks": {
        "backbones": "unet:size=ho-cifar10:mults=1/2:attention=4,unet:size=improved-cifar10:mults=1/2:attention=8,"
        "unet:time=shift,unet:details=ho,mlp", "metrics": "fd", "features": "pixels", "train_seeds": "0",
    },
}  # fmt: skip


def ids(options: dict[str, Any]) -> dict[str, str]:
    """The id of every stage, by kind and label; stages of one label are told apart by their order."""
    registry = Registry(installed=False)
    out: dict[str, str] = {}
    for stage in make_plan(make_study(options, registry), registry).stages.values():
        key = f"{stage.kind}: {stage.label}"
        same = sum(k == key or k.startswith(f"{key} #") for k in out)
        out[f"{key} #{same + 1}" if same else key] = stage.id
    return out


def stated(name: str) -> dict[str, Any]:
    """The options of a study, with the defaults that it was pinned under."""
    return STUDIES[name] if name in (OF_TODAY, LONGER) else {**FIRST, **STUDIES[name]}


@pytest.mark.parametrize("name", STUDIES)
def test_ids_are_those_that_stores_hold(name: str) -> None:
    pinned, here = json.loads(FILE.read_text(encoding="utf-8"))[name], ids(stated(name))
    # A study of one cell is labelled by what differs from the defaults, so labels are compared where these are today's.
    assert _kinds(here) == _kinds(pinned)
    assert name not in (OF_TODAY, LONGER) or here == pinned


def _kinds(found: dict[str, str]) -> dict[str, str]:
    """The kind of each id."""
    return {id: key.partition(":")[0] for key, id in found.items()}


def test_every_kind_of_stage_is_pinned() -> None:
    pinned = {key.partition(":")[0] for study in json.loads(FILE.read_text(encoding="utf-8")).values() for key in study}
    assert pinned == set(STAGE_KINDS)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: ids(stated(name)) for name in STUDIES}, indent=1) + "\n", encoding="utf-8")
