"""What a backbone must build, and what its network must give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.blame import blame
from ddpmkit.plugin.contract.answers import checked_tensor, refuse

if TYPE_CHECKING:
    from torch import nn

    from ddpmkit.plugin.interfaces import Backbone, ImageSize


def image_size(shape: Sequence[int]) -> ImageSize:
    """Return what a backbone is told of images (N, C, H, W): the side of square ones, (H, W) of others."""
    height, width = shape[-2:]
    return height if height == width else (height, width)


def takes(backbone: Backbone, size: ImageSize, images: str = "these images") -> None:
    """Refuse images that are not square where a backbone takes no others; ``images`` names them.

    Raises:
        DdpmkitError: when it does not say that it takes them.
    """
    if not isinstance(size, int) and not backbone.non_square:
        refuse(
            backbone,
            f"backbone '{backbone.name}' takes square images only, and {images} are {size[0]}x{size[1]} (HxW)",
            "take unet or mlp, or say non_square = True in its class and build for image_size=(H, W)",
        )


def network(
    backbone: Backbone, *, in_channels: int, out_channels: int, image_size: ImageSize, num_classes: int | None = None
) -> nn.Module:
    """Build a backbone's network, whose every output is checked: floating, on the device, (B, out_channels, H, W).

    Raises:
        DdpmkitError: when it takes no images of that shape; when it is no module, or has no parameter, or one that is
            not finite. Calling it raises the same for an output that does not fit.
    """
    import torch
    from torch import nn

    takes(backbone, image_size)
    told = f"backbone '{backbone.name}'"
    with blame("backbone", backbone.name):
        net = backbone.build(
            in_channels=in_channels, out_channels=out_channels, image_size=image_size, num_classes=num_classes
        )
    if not isinstance(net, nn.Module):
        refuse(backbone, f"{told}: build gives a {type(net).__name__} and no torch module")
    parameters = dict(net.named_parameters())
    if not parameters:
        refuse(backbone, f"{told}: its network has no parameters, so there is nothing to train")
    buffers = dict(net.named_buffers())
    for path, p in (*parameters.items(), *buffers.items()):
        if nn.parameter.is_lazy(p):
            refuse(backbone, f"{told}: '{path}' of its network has no shape yet", "give the layer its sizes")
        if not p.is_floating_point() or p.device.type == "meta":
            continue
        # A buffer may be infinite, as the mask of an attention is; a number that is none is wrong in either.
        if bool(torch.isnan(p).any()) or (path in parameters and bool(torch.isinf(p).any())):
            refuse(backbone, f"{told}: '{path}' of its network starts with values that are not finite")

    def checked(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        x = given[0] if given else None
        if isinstance(x, torch.Tensor):
            checked_tensor(backbone, f"{told}: its network", out, (len(x), out_channels, *x.shape[2:]), x.device)
            if module.training and torch.is_grad_enabled() and not out.requires_grad:
                refuse(backbone, f"{told}: the output of its network has no gradient, so it can't be trained")

    net.register_forward_hook(checked)
    return net


def why_no_labels(backbone: Backbone, net: nn.Module, shape: tuple[int, ...], num_classes: int) -> str | None:
    """Return why a network can't be trained with labels, in words; None where it can.

    It must give another answer for another label, and the same for y = None as for y = K, which both say: no label. A
    layer that starts at zero would hide what is behind it, so all parameters of ``net`` are moved first, by fixed
    numbers: give a network that is built for this alone.

    Args:
        backbone: What built it.
        net: The network, on the CPU.
        shape: Of an image, (C, H, W).
        num_classes: The classes K that it was built for.
    """
    import torch

    draws = torch.Generator().manual_seed(0)
    told = f"backbone '{backbone.name}'"
    labels = torch.tensor([*range(min(num_classes, MOST_LABELS)), num_classes])
    try:
        with torch.inference_mode(), blame("backbone", backbone.name):
            for p in net.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=draws, dtype=p.dtype))
            net.eval()
            x = torch.randn((1, *shape), generator=draws).expand(len(labels), *shape).contiguous()
            t = torch.full((len(labels),), 500.0)
            out, without = net(x, t, labels), net(x, t)
    except DdpmkitError as err:  # the network's own; cells without labels may do well
        return f"{err.message}; it was told labels up to y = {num_classes}, which says none: that is one row more"
    if bool((out[:-1] == out[:1]).all()):  # one that sees only whether there is a label tells no class from another
        return f"{told} gives the same answer for every label y, so it can't be trained with labels"
    if not torch.allclose(without, out[-1:].expand_as(without), rtol=1e-4, atol=1e-5):
        return (
            f"{told} gives another answer without y than for y = {num_classes}, which both say that there is no label"
        )
    return None


MOST_LABELS = 4  # that are tried; a network that tells none of these apart tells nothing


def dropout_layers(net: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return every layer of a network that drops out, with the name of the attribute that holds its rate."""
    from torch import nn

    kinds = (
        nn.Dropout,
        nn.Dropout1d,
        nn.Dropout2d,
        nn.Dropout3d,
        nn.AlphaDropout,
        nn.FeatureAlphaDropout,
    )
    found: list[tuple[nn.Module, str]] = []
    for layer in net.modules():
        if isinstance(layer, kinds):
            found.append((layer, "p"))
        elif isinstance(layer, (nn.MultiheadAttention, nn.RNNBase)):  # they drop out by a number of their own
            found.append((layer, "dropout"))
    return found
