"""The two walks of a study's page: an image dissolving under each schedule, a sample of each cell appearing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.study.forward_strips import forward_strips
from ddpmkit.study.reverse_strips import reverse_strips

if TYPE_CHECKING:
    from ddpmkit.study.prepare import Prepared
    from ddpmkit.study.strips import Strips

MOST = 12  # cells; more make no picture that anyone reads


def walks(prepared: Prepared) -> dict[str, Strips]:
    """Return the strips of a study that has run, by their figure's name; what can't be walked is said and left out."""
    plan, registry = prepared.plan, prepared.registry
    if not any(r.sample and prepared.store.done("sample", r.sample) for r in plan.results) or len(plan.cells) > MOST:
        return {}
    pairs = dict.fromkeys((c.settings.schedule, c.settings.timesteps) for c in plan.cells)
    several = len({t for _, t in pairs}) > 1
    out = {}
    try:
        chains = {
            f"{name} T={T}" if several else name: tables_for(registry.build("schedule", name), T) for name, T in pairs
        }
        out["forward"] = forward_strips(plan.images.test[0], plan.images.levels, chains)
        out["reverse"] = reverse_strips(prepared.folder, registry)
    except Exception as err:  # a plugin's sampler runs here again, and a picture must not cost the results
        print(f"warning: the strips could not be drawn: {type(err).__name__}: {err}", file=sys.stderr)
    return out
