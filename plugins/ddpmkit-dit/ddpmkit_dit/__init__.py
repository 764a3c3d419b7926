"""ddpmkit-dit: diffusion transformers as a backbone for ddpmkit."""

from __future__ import annotations

from ddpmkit import hookimpl

from ddpmkit_dit.backbone import DiT

__version__ = "0.1.0"
__all__ = ["DiT"]

ddpmkit_api = (1, 1)  # the plugin API that this was made for, lowest and highest


@hookimpl
def ddpmkit_register_backbones() -> list[type]:
    """Return the backbones of this plugin."""
    return [DiT]
