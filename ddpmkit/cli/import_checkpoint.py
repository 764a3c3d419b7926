"""``import-checkpoint``: weights from elsewhere, held against a backbone, as safetensors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpmkit.cli.options import PATH, Global, Json, Plugins
from ddpmkit.cli.streams import data


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    example = "ddpmkit import-checkpoint mine.pt --backbone unet:channels=64 --shape 3/32/32 --to mine.safetensors"
    app.command("import-checkpoint", epilog=f"Example: {example}")(import_checkpoint)


def import_checkpoint(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A file that torch.save wrote", **PATH)],
    backbone: Annotated[str, typer.Option(help="The network that the weights are of", metavar="SPEC")],
    shape: Annotated[str, typer.Option(help="Of an image: channels/height/width", metavar="C/H/W")],
    to: Annotated[Path, typer.Option("--to", help="The .safetensors file to write", **PATH)],
    classes: Annotated[int | None, typer.Option(min=1, help="How many classes the network is told of")] = None,
    learned_sigma: Annotated[
        bool, typer.Option("--learned-sigma", help="The network has a second output, for a learned variance")
    ] = False,
    key: Annotated[str, typer.Option(help="Where in the file they are, where it holds several: model.ema")] = "",
    prefix: Annotated[str, typer.Option(help="What stands before every name there, as module.")] = "",
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Take weights from a .pt file, as safetensors.

    It is read in a process of its own that runs nothing of it but what builds tensors. Every name and shape must be
    the backbone's. ddpmkit.study.imported.open_weights gives the network with them, for the likelihood of any network.
    """
    import json as json_module

    from ddpmkit.study import imported
    from ddpmkit.text import inert

    given: Global = context.obj
    registry = given.registry(plugin)
    network = imported.Network.read(backbone, shape, classes=classes, learned=learned_sigma, registry=registry)
    found = imported.import_checkpoint(source, to, network, registry=registry, key=key, prefix=prefix)
    if json:
        print(json_module.dumps(found, indent=1), file=data())
        return
    where = f" under '{inert(found['key'])}'" if found["key"] else ""
    print(f"took {found['tensors']} tensors{where}, {found['numbers']:,} numbers", file=sys.stderr)
    print(to, file=data())
