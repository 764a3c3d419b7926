"""Cells that can't exist: settings and components that do not go together, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.study.settings import FIELDS, Settings


class Impossible(Exception):  # noqa: N818 - a property of a cell, not a defect
    """A cell that can't exist; its text is the reason, and the hint says what to type instead."""

    def __init__(self, reason: str, hint: str = "choose another of the two") -> None:
        super().__init__(reason)
        self.hint = hint


def of_the_cell(err: DdpmkitError) -> bool:
    """Whether an error is what one cell asks for, so that the others run; a component that raised is broken.

    What :func:`ddpmkit.plugin.blame.blame` makes of an exception has that as its cause, and what is refused has none.
    """
    return err.__cause__ is None


def refuse_pairs(s: Settings, sigma: Any, weighting: Any) -> None:
    """Refuse sigmas and weightings that do not go together.

    Raises:
        Impossible: with the reason.
    """
    share = contract.vlb_share(weighting, s.timesteps)
    teaches = weighting.is_bound or share > 0
    if sigma.learned and not teaches:
        raise Impossible(f"{s.weighting} has no term that teaches {s.sigma}; hybrid and vlb have")
    if share > 0 and not sigma.learned:
        raise Impossible(f"{s.sigma} learns nothing from {s.weighting}'s share of the bound; use simple")
    if sigma.fitted and weighting.uses_sigma:
        raise Impossible(f"{s.weighting} needs {s.sigma} for the training that {s.sigma} is fitted to")
    if s.decoder_variance == "fitted" and weighting.decoder_first and not sigma.learned:
        raise Impossible(f"{s.weighting} trains on the decoder's variance, which is fitted to the trained network")
    if s.nll_chain == "walk" and s.sampling_steps < 2:
        raise Impossible("nll_chain=walk needs two steps or more: the decoder's variance is that of the second")
    if s.decoder_variance == "fitted" and s.nll_chain == "walk":
        raise Impossible("decoder_variance=fitted is fitted at the first of all T steps; a walk may begin elsewhere")
    if s.decoder_variance != "tilde2" and sigma.learned:
        raise Impossible(f"{s.sigma} gives the decoder its variance too; decoder_variance={s.decoder_variance} can't")


def refuse_sparse(name: str, labels: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Refuse labels far above the number of classes that occur: a network would have a row for each number below.

    Args:
        name: The data set, as it was asked for.
        labels: Split -> labels, int64 (N,).

    Raises:
        DdpmkitError: where K > 100 + 10 n, of n classes that occur.
    """
    occur = len(np.unique(np.concatenate(list(labels.values())))) if labels else 0
    largest = max((int(of_split.max()) for of_split in labels.values() if len(of_split)), default=0)
    if largest >= 100 + 10 * occur:
        raise DdpmkitError(
            f"conditional=true: labels of {name} go up to {largest}, and {occur} classes occur",
            f"renumber them 0 .. {occur - 1}",
        )


def refuse_labels(s: Settings, classes: int | None) -> None:
    """Refuse what needs labels where there are none, or a network that was never shown an image without.

    Raises:
        Impossible: with the reason.
    """
    if classes is None:
        for name in OF_LABELS:
            value = getattr(s, name)
            if value != FIELDS[name].before:
                shown = f"{value:g}" if isinstance(value, float) else value
                raise Impossible(
                    f"{name}={shown} needs a network that is trained with labels (--conditional)", "add --conditional"
                )
    elif classes < 2:
        raise Impossible(
            f"conditional=true needs labels of two classes or more, and {s.dataset} has {classes or 'none'}",
            "leave out --conditional, or give the data set labels",
        )
    elif s.guidance != 0 and s.label_dropout == 0:
        raise Impossible(
            f"guidance={s.guidance:g} asks without a label too, and label_dropout=0 never trains that",
            "--axis label_dropout=0.1",
        )


OF_LABELS = ("guidance", "sample_labels", "label_dropout")  # settings that mean nothing to a network without labels
