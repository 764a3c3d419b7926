"""The kinds of stage, one a file: what enters its id, how it is planned from a cell, how it runs, what it leaves.

In the table a kind stands below those whose output it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.study.kind import StageKind
from ddpmkit.study.stage import Stage
from ddpmkit.study.stages.draw import Draw
from ddpmkit.study.stages.fit import Fit
from ddpmkit.study.stages.nll import Nll
from ddpmkit.study.stages.ref import Ref
from ddpmkit.study.stages.sample import Sample
from ddpmkit.study.stages.score import Score
from ddpmkit.study.stages.train import Train

STAGE_KINDS: dict[str, type[StageKind]] = {kind.kind: kind for kind in (Ref, Train, Fit, Sample, Draw, Nll, Score)}


def read_stage(record: Mapping[str, Any]) -> Stage[Any]:
    """Read a stage back that :meth:`Stage.json` wrote.

    Raises:
        DdpmkitError: when its spec is not the one that its id was made of.
    """
    damaged = DdpmkitError(
        f"the record of stage '{record.get('label')}' is damaged, or of another ddpmkit", "run the study again"
    )
    if record["kind"] not in STAGE_KINDS:
        raise damaged
    try:
        spec = STAGE_KINDS[record["kind"]].from_json(record["spec"])
    except DdpmkitError:
        raise damaged from None
    stage = Stage(spec, record["how"], record["label"], record["work"], record.get("follows"))
    if stage.id != record["id"]:
        raise damaged
    return stage
