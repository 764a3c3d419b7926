"""A training step as recordings: the batch, a micro-batch's forward and backward, and clipping, AdamW and averages.

The step's code is the loop's own and is run once for each recording. What that needs is here: inputs that stay where
they are, weights that are put back after the steps that warm up (or a training that is resumed would have made other
steps than one that was not), and the proof that a replayed step gives the bits of one that runs kernel by kernel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ddpmkit.recording import Recorder, RecordingError, Run, hold, not_recorded
from ddpmkit.training.state import State

Cut = slice | Tensor  # which images of the batch a micro-batch holds


@dataclass(frozen=True)
class Parts:
    """The three parts of a step.

    Attributes:
        draw: makes the batch of the step: images, steps t, noise.
        descend: forward and backward of a micro-batch; told which images, and whether it is the first of its step,
            whose gradients are not added to any.
        finish: clips, steps, averages.
    """

    draw: Run
    descend: Callable[[Cut, bool], None]
    finish: Run


def recorded(
    recorder: Recorder,
    parts: Parts,
    take: Callable[[int, Parts], None],
    state: State,
    step: int,
    sizes: tuple[int, int],
) -> Parts | None:
    """Return the parts as replays; None where they can't be, which is said on stderr. The state is as it was before.

    Args:
        recorder: What makes recordings.
        parts: The step, which reads what changes from tensors.
        take: ``take(step, parts)`` takes a step with these parts.
        state: All that a step changes. What comes into being in the first step, the optimiser's moments and its count,
            is zero before it.
        step: The next step.
        sizes: Images in a batch and in a micro-batch.
    """
    before = {name: recorder.keep(v) for name, v in state.tensors().items()}

    @torch.no_grad()
    def back() -> None:
        for name, v in state.tensors().items():
            if name in before:
                v.copy_(before[name])
            else:
                v.zero_()

    def kept() -> list[Tensor]:
        return [recorder.keep(v) for v in state.tensors().values()]

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # it is for the recording, not yet made
            recorder.warm(lambda: take(step, parts))
            back()
            take(step + 1, parts)  # other images, steps, noise, rate and decay than in the recording
            expected = kept()
            again = None
            if recorder.caveat:
                back()
                take(step + 1, parts)
                again = kept()
            take(step, parts)  # for its inputs
        back()
        replays = _record(recorder, parts, sizes, state.sums.device)
        back()  # some recorders do what they write down
        take(step + 1, replays)
        hold(recorder, state.tensors().values(), expected, again)
    except RecordingError as err:
        not_recorded("the training step", str(err))
        for group in state.optimizer.param_groups:
            group["capturable"] = False  # or torch warns that nothing is captured
        return None
    finally:
        back()
    return replays


def _record(recorder: Recorder, parts: Parts, sizes: tuple[int, int], device: torch.device) -> Parts:
    """Record each part; a micro-batch once for each size it comes in, first of its step or not."""
    batch, micro = sizes
    rows = torch.arange(min(micro, batch), device=device)
    offsets = rows.clone()
    forms: dict[tuple[int, bool], Run] = {}
    for first in range(0, batch, micro):
        kind = (min(micro, batch - first), first == 0)
        if kind not in forms:
            # A whole batch is read as it lies; parts of one through their rows, which are written before each replay.
            cut: Cut = slice(0, batch) if kind[0] == batch else rows[: kind[0]]
            forms[kind] = partial(parts.descend, cut, kind[1])
    for kind, form in forms.items():
        if kind[0] < batch:  # the steps so far read slices; no kernel is to run for the first time in a recording
            recorder.warm(form)
    draw = recorder.record(parts.draw)
    descents = {kind: recorder.record(form) for kind, form in forms.items()}
    finish = recorder.record(parts.finish)

    def descend(cut: Cut, begins: bool) -> None:
        start = cut.start if isinstance(cut, slice) else 0
        if micro < batch:
            torch.add(offsets, start, out=rows)
        descents[min(micro, batch - start), begins]()

    return Parts(draw, descend, finish)
