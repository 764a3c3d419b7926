"""The two strips of a study's page: an image dissolving under each schedule, a sample of each cell appearing."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ddpmkit import files
from ddpmkit.diffusion.tables import tables_for
from ddpmkit.plots import FRACTIONS, forward_strips, strips_figure
from ddpmkit.study.reverse import reverse_strips

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpmkit.study.runner import Prepared

MOST = 12  # cells; more make no picture that anyone reads


def write_strips(prepared: Prepared) -> None:
    """Draw the strips of a study that has run into its figures; what can't be drawn is said and left out."""
    folder, plan, registry = prepared.folder, prepared.plan, prepared.registry
    if not any(r.sample and prepared.store.done("sample", r.sample) for r in plan.results) or len(plan.cells) > MOST:
        return
    pairs = dict.fromkeys((c.settings.schedule, c.settings.timesteps) for c in plan.cells)
    several = len({t for _, t in pairs}) > 1
    try:
        chains = {
            f"{name} T={T}" if several else name: tables_for(registry.build("schedule", name), T) for name, T in pairs
        }
        image = plan.images.test[0]
        strips = forward_strips(image, plan.images.levels, chains)
        heads = ["x0", *(f"{f:.2g} T" for f in FRACTIONS[1:])]
        _write(strips_figure(strips, plan.images.levels, heads), folder / "figures" / "forward.png")
        appearing, levels, heads = reverse_strips(folder, registry)
        _write(strips_figure(appearing, levels, heads), folder / "figures" / "reverse.png")
    except Exception as err:  # a plugin's sampler runs here again, and a picture must not cost the results
        print(f"warning: the strips could not be drawn: {type(err).__name__}: {err}", file=sys.stderr)


def _write(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, buffer.getvalue())
