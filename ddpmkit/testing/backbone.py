"""What is asked of a backbone. A layer that starts at zero hides what is behind it, so parameters are moved first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin import contract
from ddpmkit.testing.check import fail, named, unless_refused

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddpmkit.plugin.interfaces import Backbone, ImageSize

SIZES = (8, 16, 32)  # the first that it takes
CLASSES = 3
CLOSE = 1e-4  # of outputs of one network, far above the rounding of another order of sums


@dataclass(frozen=True, eq=False)
class Tried:
    """A network with moved parameters and without dropout, and what it is shown: (4, C, H, W) and times (4,)."""

    net: nn.Module
    x: Tensor
    t: Tensor

    def __call__(self, x: Tensor | None = None, t: Tensor | None = None) -> Tensor:
        """Return its answer; what draws random numbers draws the same ones."""
        import torch

        torch.manual_seed(0)
        out: Tensor = self.net(self.x if x is None else x, self.t if t is None else t)
        return out


def output(backbone: Backbone) -> None:
    """It builds a torch module whose output is (B, out_channels, H, W), for images of one channel and of three."""
    import torch

    size = _size(backbone)
    for channels, out_channels in ((1, 1), (3, 3), (3, 6)):
        tried = _tried(backbone, size, channels, out_channels)
        with torch.no_grad():
            out = tried()
        if not bool(torch.isfinite(out).all()):
            fail(f"backbone '{backbone.name}': its output is not finite", "look at its layers one by one")
    if backbone.non_square:
        with torch.no_grad():
            _tried(backbone, (size, 2 * size), 1, 1)()


def dtype_and_layout(backbone: Backbone) -> None:
    """Its output has the dtype of its input, float32, and its memory layout, C order."""
    import torch

    tried = _tried(backbone, _size(backbone), 3, 3)
    with torch.no_grad():
        out = tried()
    if out.dtype != tried.x.dtype:
        fail(
            f"backbone '{backbone.name}': its output is {str(out.dtype).removeprefix('torch.')}, not float32",
            "leave precision to ddpmkit: give tables and constants the dtype of x",
        )
    if not out.is_contiguous():
        fail(
            f"backbone '{backbone.name}': its output has another memory layout than its input, strides {out.stride()}",
            "end forward with .contiguous()",
        )


def leaves_its_input(backbone: Backbone) -> None:
    """It does not write into the images and the times that it is shown."""
    import torch

    tried = _tried(backbone, _size(backbone), 3, 3)
    x, t = tried.x.clone(), tried.t.clone()
    with torch.no_grad():
        tried()
    if not (torch.equal(x, tried.x) and torch.equal(t, tried.t)):
        fail(
            f"backbone '{backbone.name}' writes into its input", "use x + h instead of x += h on what forward is given"
        )


def no_leak_across_the_batch(backbone: Backbone) -> None:
    """What it says of an image does not depend on the other images of the batch, in training either."""
    import torch

    tried = _tried(backbone, _size(backbone), 3, 3)
    others = torch.cat([tried.x[:1], 2 - 3 * tried.x[1:]])
    for training in (True, False):
        tried.net.train(training)
        with torch.no_grad():
            out, again = tried()[:1], tried(others)[:1]
        if not _close(out, again):
            fail(
                f"backbone '{backbone.name}' leaks across the batch{' in training' if training else ''}: its answer "
                "for an image changes with the others",
                "take GroupNorm for BatchNorm, and no mean over the batch",
            )


def repeats_itself(backbone: Backbone) -> None:
    """Asked again it gives the same answer, and so does a second network with the same weights."""
    import torch

    size = _size(backbone)
    tried, second = _tried(backbone, size, 3, 3), _tried(backbone, size, 3, 3)
    tried.net.eval()
    second.net.eval()
    with torch.no_grad():
        out = tried()
        again = tried.net(tried.x, tried.t)
    if not _close(out, again):
        fail(
            f"backbone '{backbone.name}' gives another answer when asked again", "draw random numbers in training only"
        )
    try:
        second.net.load_state_dict(tried.net.state_dict())
    except (RuntimeError, KeyError) as err:
        fail(f"backbone '{backbone.name}' does not build the same network twice: {str(err).splitlines()[0]}", "do so")
    with torch.no_grad():
        if not _close(out, second()):
            fail(
                f"backbone '{backbone.name}': a second network with the same state_dict gives another answer",
                "keep every tensor in a Parameter or in register_buffer, and none in a plain attribute or list",
            )


def uses_time(backbone: Backbone) -> None:
    """Told another time, it gives another answer."""
    import torch

    tried = _tried(backbone, _size(backbone), 3, 3)
    tried.net.eval()
    with torch.no_grad():
        early, late = tried(t=torch.full_like(tried.t, 10.0)), tried(t=torch.full_like(tried.t, 700.0))
    if bool((early == late).all()):
        fail(f"backbone '{backbone.name}' ignores t", "add an embedding of t, float32 in [0, 1000), to its layers")


def uses_labels(backbone: Backbone) -> None:
    """Built for labels, it gives another answer for another y, and the same for None as for y = K."""
    size = _size(backbone)
    net = unless_refused(lambda: _network(backbone, size, 3, 3, CLASSES))
    for layer, rate in contract.dropout_layers(net):
        setattr(layer, rate, 0.0)
    if problem := contract.why_no_labels(backbone, net, (3, size, size), CLASSES):
        ignores = "gives the same answer for every label" in problem
        fail(
            f"backbone '{backbone.name}' ignores y: {problem}" if ignores else problem,
            "use nn.Embedding(num_classes + 1, ..), or raise DdpmkitError in build for num_classes that is not None",
        )


def every_parameter_learns(backbone: Backbone) -> None:
    """Every parameter gets a gradient that is not zero."""
    import torch

    tried = _tried(backbone, _size(backbone), 3, 3)
    tried.net.train()
    out = tried()
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    dead = [
        path
        for path, p in tried.net.named_parameters()
        if p.requires_grad and (p.grad is None or not bool((p.grad != 0).any()))
    ]
    if dead:
        more = f" and {len(dead) - 3} more" if len(dead) > 3 else ""
        fail(
            f"backbone '{backbone.name}' has dead parameters: {', '.join(dead[:3])}{more} get no gradient",
            "use them in forward without detach, or leave them out; what is fixed says requires_grad = False",
        )


def _close(a: Any, b: Any) -> bool:
    scale = float(b.abs().max())
    return bool(((a - b).abs() <= CLOSE * (1 + scale)).all())


def _size(backbone: Backbone) -> int:
    """The smallest size that it takes: one may need images that can be halved often."""
    import torch

    refusals = []
    for size in SIZES:
        try:
            tried = _tried(backbone, size, 1, 1)
            with torch.no_grad():
                tried()
        except (DdpmkitError, RuntimeError, ValueError) as err:
            refusals.append(err)
        else:
            return size
    raise refusals[-1]


def _network(
    backbone: Backbone, size: ImageSize, channels: int, out_channels: int, num_classes: int | None = None
) -> nn.Module:
    import torch

    torch.manual_seed(0)
    return contract.network(
        backbone, in_channels=channels, out_channels=out_channels, image_size=size, num_classes=num_classes
    )


def _tried(backbone: Backbone, size: ImageSize, channels: int, out_channels: int) -> Tried:
    import torch

    net = _network(backbone, size, channels, out_channels)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad and p.is_floating_point():
                p.add_(0.1 * torch.randn(p.shape, generator=draws, dtype=p.dtype))
    for layer, rate in contract.dropout_layers(net):
        setattr(layer, rate, 0.0)
    height, width = (size, size) if isinstance(size, int) else size
    x = torch.randn((4, channels, height, width), generator=draws)
    return Tried(net, x, torch.tensor([0.0, 250.0, 500.0, 999.0]))


CHECKS = named(
    output,
    dtype_and_layout,
    leaves_its_input,
    no_leak_across_the_batch,
    repeats_itself,
    uses_time,
    uses_labels,
    every_parameter_learns,
)
