"""What an extractor must give, every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import as_array, refuse, shown

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Array, Features, Images, Levels

PROBE = 16  # images that an extractor is shown again
CLOSE = 1e-3  # relative; features of a batch of another size differ in their last bits, not more


@dataclass(frozen=True, eq=False)
class Extractor:
    """A loaded extractor whose every answer is checked: uint8 levels (N, C, H, W) -> finite float64 (N, D)."""

    features: Features
    extract: Callable[[Levels], Array]

    def __call__(self, levels: Levels, what: str = "the features hold values") -> Array:
        """Return the features of images; ``what`` says in an error what they are.

        Raises:
            DdpmkitError: when it gives something else.
        """
        import numpy as np

        rows = self._rows(levels)
        bad = int((~np.isfinite(rows)).any(axis=1).sum())
        if bad:
            subject = f"features '{self.features.name}': {what}"
            refuse(
                self.features, f"{subject} that are not finite, in {bad} of {len(rows)} rows", "look at those images"
            )
        return rows

    def agrees(self, levels: Levels, known: Array) -> None:
        """Refuse an extractor that gives other features of the first images than it gave before, (N, D).

        Raises:
            DdpmkitError: when they differ by more than rounding.
        """
        import numpy as np

        first = self._rows(levels[:PROBE])
        again = np.asarray(known[: len(first)], dtype=np.float64)
        scale = CLOSE * np.abs(again[np.isfinite(again)]).max(initial=0.0)
        if first.shape != again.shape or not np.allclose(first, again, rtol=CLOSE, atol=scale, equal_nan=True):
            refuse(
                self.features,
                f"features '{self.features.name}' gives other features of the same images when asked again",
                "it must not draw random numbers, and not look at the batch that an image comes in",
            )

    def _rows(self, levels: Levels) -> Array:
        import numpy as np

        subject = f"features '{self.features.name}'"
        with blame("features", self.features.name):
            rows = as_array(subject, "features", self.extract(levels))
        if rows.dtype.kind not in "iuf" or rows.ndim != 2 or rows.shape[-1] == 0:
            refuse(
                self.features,
                f"{subject} gave {rows.dtype} {rows.shape}, not real numbers of shape (N, D)",
                "one row an image: flatten what is left",
            )
        if len(rows) != len(levels):
            refuse(self.features, f"{subject} gave {len(rows)} rows for {len(levels)} images", "one row an image")
        return np.array(rows, dtype=np.float64, order="C")


def extractor(features: Features, data: Images) -> Extractor:
    """Load an extractor; its every answer is then checked.

    Raises:
        DdpmkitError: when it can't be loaded, or is nothing to call.
    """
    with blame("features", features.name):
        extract = features.load(data)
    if not callable(extract):
        refuse(features, f"features '{features.name}': load gives a {type(extract).__name__}, which can't be called")
    return Extractor(features, extract)


def label(features: Features) -> str:
    """Return the name of an extractor in tables: one line of text.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    return _text(features, "label", features.label)


def fingerprint(features: Features) -> str:
    """Return the hash of an extractor: one line of text.

    Raises:
        DdpmkitError: when it gives something else, or something else when asked again.
    """
    return _text(features, "fingerprint", features.fingerprint)


def _text(features: Features, what: str, ask: Callable[[], Any]) -> str:
    subject = f"features '{features.name}'"
    with blame("features", features.name):
        first, again = ask(), ask()
    if not isinstance(first, str) or not first.strip() or not first.isprintable():
        refuse(features, f"{subject}: its {what} is {shown(first)}, not a line of text")
    if first != again:
        refuse(features, f"{subject} gives another {what} when asked again")
    return first
