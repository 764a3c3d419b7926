"""ddpmkit-slurm: stages of ddpmkit as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

from ddpmkit import hookimpl

from ddpmkit_slurm.executor import Slurm

__version__ = "0.1.0"
__all__ = ["Slurm"]

ddpmkit_api = (1, 1)  # the plugin API that this was made for, lowest and highest


@hookimpl
def ddpmkit_register_executors() -> list[type]:
    """Return the executors of this plugin."""
    return [Slurm]
