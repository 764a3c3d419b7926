"""ddpmkit-tensorboard: a study of ddpmkit as TensorBoard event files, made from its records alone."""

from __future__ import annotations

from ddpmkit_tensorboard.exporting import export

__version__ = "0.1.0"

__all__ = ["export"]
