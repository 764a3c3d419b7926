"""A trained cell as a folder that DDPMPipeline.from_pretrained loads and samples from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import DdpmkitError

from ddpmkit_diffusers.backbone import Diffusers
from ddpmkit_diffusers.layout import Told, configuration, is_unet, to_diffusers
from ddpmkit_diffusers.scheduler import scheduler_of

if TYPE_CHECKING:
    from ddpmkit.study.loaded import Loaded


def export(loaded: Loaded, folder: Path) -> list[str]:
    """Write a trained cell as a folder of DDPMPipeline, and return what whoever uses it should know, a line each.

    A ``unet`` becomes a UNet2DModel where its configuration can say all of it, and else a DdpmkitUNet2DModel, which
    diffusers loads where this package was imported. The weights are the average that the study reports.

    Args:
        loaded: From ``ddpmkit.load``.
        folder: Where to; made if it is not there.

    Raises:
        DdpmkitError: when the network or its chain has no counterpart in diffusers, or diffusers is not installed.
    """
    backbone = loaded.registry.rebuild(loaded.cell.recipe["backbone"])
    if not (is_unet(backbone) or isinstance(backbone, Diffusers)):
        raise DdpmkitError(
            f"backbone '{backbone.name}' has no counterpart in diffusers",
            "name a cell whose backbone is unet or diffusers",
        )
    scheduler, notes = scheduler_of(loaded)
    try:
        from diffusers import DDPMPipeline, DDPMScheduler
    except ImportError as err:
        raise DdpmkitError(f"diffusers can't be imported: {err}", "pip install 'diffusers>=0.42'") from err
    model = _model(loaded, backbone)
    # Where all is a configuration's, the folder is diffusers' alone.
    if type(model).__name__ != "UNet2DModel":
        notes.append("it holds a DdpmkitUNet2DModel: import ddpmkit_diffusers before DDPMPipeline loads it")
    DDPMPipeline(unet=model, scheduler=DDPMScheduler(**scheduler)).save_pretrained(folder)
    steps = loaded.cell.settings.sampling_steps
    notes.append(f"DDPMPipeline.from_pretrained('{{to}}')(num_inference_steps={steps}) takes the study's steps")
    return notes


def _model(loaded: Loaded, backbone: Any) -> Any:
    """The network as a model of diffusers, on the CPU."""
    from diffusers import UNet2DModel

    from ddpmkit_diffusers.model import DdpmkitUNet2DModel

    network, shape = loaded.network, loaded.images.train.shape[1:]
    size = int(shape[1]) if shape[1] == shape[2] else (int(shape[1]), int(shape[2]))
    outputs = int(shape[0]) * (2 if loaded.sigma.learned else 1)
    told = Told(int(shape[0]), outputs, size, loaded.classes, loaded.tables.full_T)
    if isinstance(backbone, Diffusers):
        inner: Any = network.unet
        weights = {k: v.cpu() for k, v in inner.state_dict().items()}
        config: dict[str, Any] = {k: v for k, v in inner.config.items() if not k.startswith("_")}
        plain = told.T == 1000 and told.classes is None
        extra: dict[str, Any] = {} if plain else {"time_scale": 1000 / told.T}
    else:
        weights = to_diffusers({k: v.cpu() for k, v in network.state_dict().items()}, backbone)
        config, extra = configuration(backbone, network, told)
    model = DdpmkitUNet2DModel(**extra, **config) if extra else UNet2DModel(**config)
    model.load_state_dict(weights)
    return model.eval()
