"""What is asked of a backbone. A layer that starts at zero hides what is behind it, so parameters are moved first."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ddpmkit.plugin import contract
from ddpmkit.testing.check import fail, named, unless_refused
from ddpmkit.testing.networks import built, close, smallest, tried_out
from ddpmkit.testing.process import leaves_alone, put_back

if TYPE_CHECKING:
    from ddpmkit.plugin.interfaces import Backbone

CLASSES = 3
TIMES = (0, 20, 100, 300, 700, 960, 980)  # at which its answers differ: steps of a chain of 50


def output(backbone: Backbone) -> None:
    """It builds a torch module whose output is (B, out_channels, H, W), for images of one channel and of three."""
    import torch

    size = smallest(backbone)
    for channels, out_channels in ((1, 1), (3, 3), (3, 6)):
        tried = tried_out(backbone, size, channels, out_channels)
        with torch.no_grad():
            out = tried()
        if not bool(torch.isfinite(out).all()):
            fail(f"backbone '{backbone.name}': its output is not finite", "look at its layers one by one")
    if backbone.non_square:
        with torch.no_grad():
            tried_out(backbone, (size, 2 * size), 1, 1)()


def dtype_and_layout(backbone: Backbone) -> None:
    """Its output has the dtype of its input, float32, and its memory layout, C order."""
    import torch

    tried = tried_out(backbone, smallest(backbone), 3, 3)
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

    tried = tried_out(backbone, smallest(backbone), 3, 3)
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

    tried = tried_out(backbone, smallest(backbone), 3, 3)
    for training in (True, False):
        tried.net.train(training)
        for kept in (0, len(tried.x) - 1):
            others, times = 2 - 3 * tried.x, 900 - tried.t / 2
            others[kept], times[kept] = tried.x[kept], tried.t[kept]
            with torch.no_grad():
                out, again = tried()[kept], tried(others, times)[kept]
            if close(out, again):
                continue
            fail(
                f"backbone '{backbone.name}' leaks across the batch{' in training' if training else ''}: its answer "
                "for an image changes with the others",
                "take GroupNorm for BatchNorm, and no mean over the batch",
            )


def takes_any_batch(backbone: Backbone) -> None:
    """An image alone, and one in another place of a larger batch, get the answer that they get among four."""
    import torch

    tried = tried_out(backbone, smallest(backbone), 3, 3)
    tried.net.eval()
    order = [3, 2, 1, 0, 0, 1]
    with torch.no_grad():
        out, alone, more = tried(), tried(tried.x[-1:], tried.t[-1:]), tried(tried.x[order], tried.t[order])
    for what, found, known in (("alone", alone, out[-1:]), ("in another batch", more, out[order])):
        if not close(found, known):
            fail(
                f"backbone '{backbone.name}' gives another answer for an image that is shown {what}",
                "let nothing depend on the size of the batch, or on the place in it",
            )


def repeats_itself(backbone: Backbone) -> None:
    """Asked again it gives the same answer, and so does a second network with the same weights."""
    import torch

    size = smallest(backbone)
    tried, second = tried_out(backbone, size, 3, 3), tried_out(backbone, size, 3, 3, seed=1)
    tried.net.eval()
    second.net.eval()
    learned = [{id(p) for p in net.parameters() if p.requires_grad} for net in (tried.net, second.net)]
    if learned[0] & learned[1]:  # what is fixed may be loaded once for all
        fail(
            f"backbone '{backbone.name}': two networks that it builds share their parameters",
            "make new layers in every call of build, and keep none",
        )
    with torch.no_grad():
        out = tried()
        again = tried.net(tried.x, tried.t)
    if not close(out, again):
        fail(
            f"backbone '{backbone.name}' gives another answer when asked again", "draw random numbers in training only"
        )
    try:
        second.net.load_state_dict(tried.net.state_dict())
    except (RuntimeError, KeyError) as err:
        fail(f"backbone '{backbone.name}' does not build the same network twice: {str(err).splitlines()[0]}", "do so")
    with torch.no_grad():
        if not close(out, second()):
            fail(
                f"backbone '{backbone.name}': a second network with the same state_dict gives another answer",
                "keep every tensor in a Parameter or in register_buffer, and none in a plain attribute or list",
            )


def uses_time(backbone: Backbone) -> None:
    """Told another time it gives another answer, from the first steps to the last."""
    import torch

    tried = tried_out(backbone, smallest(backbone), 3, 3)
    tried.net.eval()
    with torch.no_grad():
        answers = [tried(t=torch.full_like(tried.t, t)) for t in TIMES]
    alike = [
        (s, t) for (s, a), (t, b) in itertools.combinations(zip(TIMES, answers, strict=True), 2) if bool((a == b).all())
    ]
    if alike:
        (s, t), all_of_them = alike[0], len(alike) == len(TIMES) * (len(TIMES) - 1) // 2
        fail(
            f"backbone '{backbone.name}' ignores t"
            + ("" if all_of_them else f": its answers at t = {s} and t = {t} are the same"),
            "add an embedding of t, float32 in [0, 1000), to its layers; t is 0 at the first step of every chain",
        )


def uses_its_input(backbone: Backbone) -> None:
    """Every channel that it is shown changes its answer, and every channel of its answer is one of the image's."""
    import torch

    tried = tried_out(backbone, smallest(backbone), 3, 6)
    tried.net.eval()
    x = tried.x.clone().requires_grad_()
    out = tried(x)
    (out * torch.linspace(0.5, 1.5, out.numel()).reshape(out.shape)).sum().backward()
    slope = torch.zeros_like(x) if x.grad is None else x.grad
    if unseen := [c for c in range(3) if not bool((slope[:, c] != 0).any())]:
        fail(
            f"backbone '{backbone.name}' does not look at channel {unseen[0]} of the three that it is shown",
            "give its first layer in_channels",
        )
    if still := [c for c in range(6) if bool((out[:, c] == out[:1, c, :1, :1]).all())]:
        fail(
            f"backbone '{backbone.name}': channel {still[0]} of the six of its answer is the same everywhere",
            "give its last layer out_channels; the second half is a learned sigma's",
        )


def uses_labels(backbone: Backbone) -> None:
    """Built for labels, it gives another answer for another y, and the same for None as for y = K."""
    size = smallest(backbone)
    net = unless_refused(lambda: built(backbone, size, 3, 3, CLASSES))
    for layer, rate in contract.dropout_layers(net):
        setattr(layer, rate, 0.0)
    if problem := contract.why_no_labels(backbone, net, (3, size, size), CLASSES):
        ignores = "gives the same answer for every label" in problem
        fail(
            f"backbone '{backbone.name}' ignores y: {problem}" if ignores else problem,
            "use nn.Embedding(num_classes + 1, ..), or raise DdpmkitError in build for num_classes that is not None",
        )


def tells_labels_apart(backbone: Backbone) -> None:
    """Built for labels, it gives another answer for each of them."""
    import torch

    size = smallest(backbone)
    net = unless_refused(lambda: tried_out(backbone, size, 3, 3, num_classes=CLASSES)).net
    net.eval()
    draws = torch.Generator().manual_seed(0)
    x = torch.randn((1, 3, size, size), generator=draws).expand(CLASSES + 1, -1, -1, -1).contiguous()
    y = torch.arange(CLASSES + 1)
    with torch.no_grad():
        out = net(x, torch.full((len(x),), 500.0), y)
    alike = [(a, b) for (a, one), (b, other) in itertools.combinations(enumerate(out), 2) if bool((one == other).all())]
    if alike:
        fail(
            f"backbone '{backbone.name}' gives the same answer for y = {alike[0][0]} and y = {alike[0][1]} of "
            f"{CLASSES} classes",
            "use nn.Embedding(num_classes + 1, ..): a row for each label, and the last for none",
        )


def moves_to_a_device(backbone: Backbone) -> None:
    """No tensor that its network holds and uses stays behind when the network is moved to a device."""
    import torch

    tried = tried_out(backbone, smallest(backbone), 3, 3)
    left = [
        f"{path}.{name}" if path else name
        for path, module in tried.net.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.ndim
    ]
    if not left:
        return
    net = tried.net.eval().to("meta")
    try:
        with torch.no_grad():
            net(tried.x.to("meta"), tried.t.to("meta"))
    except (RuntimeError, NotImplementedError) as err:
        if "device" in str(err):  # else it looks at values, which are none there, and is not to blame
            fail(
                f"backbone '{backbone.name}': '{left[0]}' of its network stays on the CPU when the network is moved",
                f'self.register_buffer("{left[0].rpartition(".")[-1]}", ..), or .to(x.device) in forward',
            )


def every_parameter_learns(backbone: Backbone) -> None:
    """Every parameter gets a gradient that is not zero."""
    import torch

    tried = tried_out(backbone, smallest(backbone), 3, 3)
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


def leaves_the_process_alone(backbone: Backbone) -> None:
    """To build it and to ask it seeds no global generator, and changes no setting of the process."""
    import torch

    with put_back():
        size = smallest(backbone)

    def use() -> None:
        net = backbone.build(in_channels=3, out_channels=3, image_size=size)
        with torch.no_grad():
            net(torch.zeros((2, 3, size, size)), torch.tensor([0.0, 500.0]))

    leaves_alone(backbone, use)


CHECKS = named(
    output,
    dtype_and_layout,
    leaves_its_input,
    no_leak_across_the_batch,
    takes_any_batch,
    repeats_itself,
    uses_time,
    uses_its_input,
    uses_labels,
    tells_labels_apart,
    every_parameter_learns,
    moves_to_a_device,
    leaves_the_process_alone,
)
