"""ddpmkit-diffusers: UNet2DModel as a backbone, trained networks as folders of DDPMPipeline, and back.

Importing it loads neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
from typing import Any

from ddpmkit import hookimpl

from ddpmkit_diffusers.backbone import Diffusers, spec_of
from ddpmkit_diffusers.exporting import export
from ddpmkit_diffusers.importing import read

__version__ = "0.1.0"
__all__ = ["Diffusers", "export", "read", "spec_of"]

ddpmkit_api = (1, 1)  # the plugin API that this was made for, lowest and highest


def __getattr__(name: str) -> Any:
    # A folder names its network by this package: diffusers imports no module of others itself, and looks here for the
    # class and for its kind, once whoever loads the folder has imported the package.
    if name in ("DdpmkitUNet2DModel", "ModelMixin"):
        return getattr(importlib.import_module("ddpmkit_diffusers.model"), name)
    raise AttributeError(f"module 'ddpmkit_diffusers' has no attribute '{name}'")


@hookimpl
def ddpmkit_register_backbones() -> list[type]:
    """Return the backbones of this plugin."""
    return [Diffusers]
