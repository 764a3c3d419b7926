"""Work on a device recorded once and replayed: one launch where there were hundreds (CUDA graphs).

A recording reads and writes tensors where they were when it was made, and every Python value in it stays what it was
then. So what changes from one replay to the next must be in tensors, and a replay is believed only after it has given
what the same code gives when it runs kernel by kernel, bit for bit, on other numbers than it was made with.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from ddpmkit.randomness import draw_again

Run = Callable[[], None]


class RecordingError(Exception):
    """Code that waits for the device, or whose replay is not what it would do itself."""


class Recorder(Protocol):
    """Makes replays on a device.

    Attributes:
        kind: ``recorded``, or ``one by one`` where it only runs what it is given.
    """

    kind: str

    @property
    def caveat(self) -> str:
        """What is to be said of the bits now."""
        ...

    def warm(self, run: Run) -> None:
        """Run it where the recording will be made, so that nothing happens for the first time in the recording.

        Raises:
            RecordingError: when it waits for the device.
        """
        ...

    def record(self, run: Run) -> Run:
        """Return what does again to the same tensors what ``run`` does to them; whether it was done now is left open.

        Raises:
            RecordingError: when the device refuses.
        """
        ...

    def keep(self, tensor: Tensor) -> Tensor:
        """Return a copy, where there is room for it."""
        ...

    def same(self, mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
        """Whether tensors are equal bit by bit."""
        ...


class CudaGraphs:
    """CUDA graphs that share their memory: they are to be replayed in the order in which they were recorded."""

    kind = "recorded"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, run: Run) -> None:
        """Run it twice on the stream of the recording; the second time, waiting for the device is an error."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        before = torch.cuda.get_sync_debug_mode()
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the mode says that it is a prototype
            try:
                run()  # a library may wait when it is used for the first time
            except RuntimeError as err:
                if "deterministic" not in str(err) or not torch.are_deterministic_algorithms_enabled():
                    raise
                self._allow_any_order(err)
                run()
            try:
                torch.cuda.set_sync_debug_mode("error")
                run()
            except RuntimeError as err:
                raise RecordingError(_first_line(err)) from err
            finally:
                torch.cuda.set_sync_debug_mode(before)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        torch.cuda.empty_cache()  # what this stream has freed no other stream and no recording could have

    def _allow_any_order(self, err: Exception) -> None:
        print(f"warning: two runs of this network may differ in their last bits: {_first_line(err)}", file=sys.stderr)
        torch.use_deterministic_algorithms(True, warn_only=True)

    @property
    def caveat(self) -> str:
        """That bits may differ, while torch lets kernels without a deterministic form run with a warning."""
        return ", not deterministic" if torch.is_deterministic_algorithms_warn_only_enabled() else ""

    def record(self, run: Run) -> Run:
        """Capture it as a graph."""
        graph = torch.cuda.CUDAGraph()
        here = torch.cuda.stream(torch.cuda.current_stream(self.device))  # torch does not come back from one that fails
        try:
            with here, torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                run()
        except RuntimeError as err:
            draw_again(self.device)
            raise RecordingError(_first_line(err)) from err
        replay: Run = graph.replay
        return replay

    def keep(self, tensor: Tensor) -> Tensor:
        """Copy it to the host: the memory of a GPU is what decides how large a network can be."""
        return tensor.detach().to("cpu", copy=True)

    def same(self, mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
        """Compare bits."""
        return same(mine, theirs)


class OneByOne:
    """No recorder, in the place of one: code that is fit to be recorded runs as it is, to be compared with replays."""

    kind, caveat = "one by one", ""

    def warm(self, run: Run) -> None:
        """Run it."""
        run()

    def record(self, run: Run) -> Run:
        """Return it."""
        return run

    def keep(self, tensor: Tensor) -> Tensor:
        """Copy it."""
        return tensor.detach().clone()

    def same(self, mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
        """Compare bits."""
        return same(mine, theirs)


def recorder(device: torch.device) -> Recorder | None:
    """Return what makes recordings on a device; None where there is nothing to gain, and code runs as it is."""
    return CudaGraphs(device) if device.type == "cuda" else None


def same(mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    """Whether tensors are equal bit by bit, compared on the host: a NaN equals itself, and 0 is not -0."""
    return all(torch.equal(_bits(a).cpu(), _bits(b).cpu()) for a, b in zip(mine, theirs, strict=True))


def hold(maker: Recorder, found: Iterable[Tensor], expected: list[Tensor], again: list[Tensor] | None = None) -> None:
    """Hold what a replay gave against what its code gave, once, or twice where the maker's caveat is that it may vary.

    Raises:
        RecordingError: when the code differs from itself, so that nothing can be proven, or the replay from the code.
    """
    if again is not None and not maker.same(expected, again):
        raise RecordingError("it differs from itself from run to run, so that no replay of it can be proven")
    if not maker.same(found, expected):
        raise RecordingError("its replay gives other numbers than it does")


def not_recorded(what: str, reason: str) -> None:
    """Say on stderr that something runs kernel by kernel."""
    print(f"warning: {what} is not recorded as a CUDA graph and takes longer: {reason}", file=sys.stderr)


class Replayed:
    """A function of tensors that is recorded where that pays, and otherwise called; see :func:`replayed`."""

    AFTER = 2  # calls with one shape before it is recorded: what is asked once or twice is not worth it
    PROOFS = 2  # replays that are held against the function itself, each on the numbers of its own call
    MOST = 4  # shapes; every recording keeps its memory

    def __init__(self, function: Callable[..., Any], what: str, recorder_of: Callable[..., Recorder | None]) -> None:
        self.function, self.what, self.recorder_of = function, what, recorder_of
        self.calls: dict[Any, int] = {}
        self.recordings: dict[Any, _Recording] = {}
        self.refused = False

    def __call__(self, *given: Tensor | None) -> Any:
        """Return what the function returns."""
        first = given[0]
        if self.refused or first is None or torch.is_grad_enabled():  # a replay has no gradient
            return self.function(*given)
        # Strides too: kernels, and so the last bits, are chosen by the layout.
        key = first.device, *(None if v is None else (tuple(v.shape), v.stride(), v.dtype) for v in given)
        call = self.calls[key] = self.calls.get(key, 0) + 1
        if call <= self.AFTER or (key not in self.recordings and len(self.recordings) == self.MOST):
            return self.function(*given)
        try:
            if key not in self.recordings:
                if (maker := self.recorder_of(first.device)) is None:
                    self.refused = True  # nothing to gain here
                    return self.function(*given)
                with _random_state_of(first.device):
                    self.recordings[key] = _Recording(self.function, given, maker)
            if call > self.AFTER + self.PROOFS:
                return self.recordings[key](*given)
            return self.recordings[key].proven(*given)
        except RecordingError as err:
            not_recorded(self.what, str(err))
            self.refused = True
            self.recordings.clear()
            return self.function(*given)


def replayed(
    function: Callable[..., Any], what: str, recorder_of: Callable[..., Recorder | None] | None = None
) -> Replayed:
    """Return a function that gives the same tensors bit for bit, on CUDA by replays from the third call of a shape on.

    Where gradients are asked for it is called as it is.

    Args:
        function: Of tensors (or None) to tensors, nothing else; it does not change what it is given.
        what: Its name, should it not be recordable: it is then called as it is, and a warning says why.
        recorder_of: What makes recordings on a device; by default :func:`recorder`.
    """
    return Replayed(function, what, recorder_of or recorder)


class _Recording:
    """One shape: tensors that hold what is given, the replay, and the tensors that hold what comes out."""

    def __init__(self, function: Callable[..., Any], given: tuple[Tensor | None, ...], maker: Recorder) -> None:
        self.function, self.maker = function, maker
        with torch.inference_mode(False):  # or nobody outside of that mode could write into them again
            self.given = [None if v is None else torch.empty_like(v, requires_grad=False) for v in given]
        self.out: Any = None
        self._give(given)
        maker.warm(self._run)
        self.replay = maker.record(self._run)

    def _run(self) -> None:
        self.out = self.function(*self.given)

    def _give(self, given: tuple[Tensor | None, ...]) -> None:
        for mine, value in zip(self.given, given, strict=True):
            if mine is not None and value is not None:
                mine.copy_(value)

    def __call__(self, *given: Tensor | None) -> Any:
        """Replay; the answer is the caller's own, since a sampler may keep it for its next steps."""
        self._give(given)
        self.replay()
        return _own(self.out)

    def proven(self, *given: Tensor | None) -> Any:
        """Replay, and hold it against the function.

        Raises:
            RecordingError: when they differ.
        """
        device, answers = next(v.device for v in given if v is not None), []
        for _ in range(2 if self.maker.caveat else 1):
            with _random_state_of(device):  # all draw the same, should they draw
                answers.append(_flat(self.function(*given)))
        found = self(*given)
        hold(self.maker, _flat(found), *answers)
        return found


def _random_state_of(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Put torch's random state back at the end."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _own(out: Any) -> Any:
    return out.clone() if isinstance(out, Tensor) else None if out is None else tuple(_own(v) for v in out)


def _flat(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [] if out is None else [v for part in out for v in _flat(part)]


def _bits(tensor: Tensor) -> Tensor:
    word = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().view(word)  # of the same size, so that any layout will do


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0]
