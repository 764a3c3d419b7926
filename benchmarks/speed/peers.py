"""Other people's code in two rows: as its own script runs it, and tuned by hand with what torch offers.

The step of each script is kept, without its data loader and its logging: that is in its favour. "Tuned" is channels
last, fused AdamW, a moving average by foreach, scaled-dot-product attention, torch.compile, and on a GPU bf16, in
one row more with the graphs of ``mode="reduce-overhead"``.
"""

from __future__ import annotations

import contextlib
import sys
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from cases import Case
from ours import Contender, images
from torch import Tensor, nn


class Averages:
    """A moving average of weights in three kernels a step, however many weights there are."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.live, self.decay = list(parameters), decay
        self.held = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def step(self) -> None:
        """Move towards the weights."""
        torch._foreach_lerp_(self.held, [p.detach() for p in self.live], 1 - self.decay)


def _looped(
    case: Case, device: torch.device, net: nn.Module, loss: Callable[[Tensor], Tensor], optimizer: Any, average: Any
) -> Contender:
    """A plain loop: loss, backward, clipping, the optimiser, the average."""
    data = images(case, device).float() / (case.levels - 1) * 2 - 1

    def step() -> Tensor:
        x = data[torch.randint(0, len(data), (case.batch,), device=device)]
        found = loss(x)
        found.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average()
        return found.detach()

    return Contender(sum(p.numel() for p in net.parameters()), _timed(step, case.steps, device))


def _timed(step: Callable[[], Tensor | None], steps: int, device: torch.device) -> Callable[[], Any]:
    def block() -> tuple[float, float, float]:
        _wait(device)
        cpu, wall, last = time.process_time(), time.perf_counter(), None
        for _ in range(steps):
            last = step()
        _wait(device)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return cpu / steps, wall / steps, float("nan") if last is None else float(last)

    return block


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def _tuned(
    net: nn.Module, device: torch.device, compiled: bool, mode: str | None = None
) -> tuple[nn.Module, nn.Module]:
    """(the network, what is called): channels last, and compiled where that is asked for, in a mode of the compiler."""
    net = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net, torch.compile(net, mode=mode) if compiled else net  # type: ignore[return-value]


# --- diffusers ---------------------------------------------------------------------------------------------------


def diffusers_training(
    case: Case,
    device: torch.device,
    *,
    precision: str = "fp32",
    tuned: bool = False,
    compiled: bool = False,
    mode: str | None = None,
) -> Contender:
    """examples/unconditional_image_generation/train_unconditional.py of diffusers: its step and its defaults."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    net = UNet2DModel(**case.diffusers).to(device)
    called: Any = net
    if tuned:
        net, called = _tuned(net, device, compiled, mode)
    scheduler = DDPMScheduler(1000)
    options = {"lr": 2e-4, "betas": (0.95, 0.999), "weight_decay": 1e-6, "eps": 1e-8}
    optimizer = torch.optim.AdamW(net.parameters(), fused=True if tuned else None, **options)
    if tuned:
        average: Callable[[], Any] = Averages(net.parameters(), case.ema).step
    else:
        kept = EMAModel(
            net.parameters(), decay=case.ema, use_ema_warmup=True, inv_gamma=1.0, power=0.75, model_cls=UNet2DModel,
            model_config=net.config,
        )  # fmt: skip

        def average() -> None:
            kept.step(net.parameters())

    def loss(x: Tensor) -> Tensor:
        eps, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=device)
        xt = scheduler.add_noise(x, eps, t)
        if tuned:
            xt = xt.contiguous(memory_format=torch.channels_last)
        with _autocast(device, precision):
            out = called(xt, t).sample
        return nn.functional.mse_loss(out.float(), eps)

    return _looped(case, device, net, loss, optimizer, average)


def diffusers_sampling(
    case: Case,
    device: torch.device,
    *,
    precision: str = "fp32",
    tuned: bool = False,
    compiled: bool = False,
    mode: str | None = None,
) -> Contender:
    """DDPMPipeline as the script calls it; tuned, its walk around a compiled network, channels last."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    net = UNet2DModel(**case.diffusers).to(device).eval()
    scheduler = DDPMScheduler(1000)
    count = sum(p.numel() for p in net.parameters())
    if not tuned:
        pipeline = DDPMPipeline(net, scheduler)
        pipeline.set_progress_bar_config(disable=True)

        def draw() -> None:
            with _autocast(device, precision):
                pipeline(batch_size=case.drawn, num_inference_steps=case.evaluations, output_type="np")

        return Contender(count, _by_evaluation(_timed(draw, 1, device), case.evaluations))
    net, called = _tuned(net, device, compiled, mode)

    @torch.inference_mode()
    def walk() -> None:
        scheduler.set_timesteps(case.evaluations)
        x = torch.randn(case.drawn, *case.shape, device=device).contiguous(memory_format=torch.channels_last)
        shown = scheduler.timesteps.to(device)  # at once; the scheduler reads its own on the host, and never waits
        with _autocast(device, precision):
            for t, on_device in zip(scheduler.timesteps, shown, strict=True):
                x = scheduler.step(called(x, on_device).sample.float(), t, x).prev_sample
        x.cpu()

    return Contender(count, _by_evaluation(_timed(walk, 1, device), case.evaluations))


def _by_evaluation(block: Callable[[], Any], evaluations: int) -> Callable[[], Any]:
    def each() -> tuple[float, float, float]:
        cpu, wall, loss = block()
        return cpu / evaluations, wall / evaluations, loss

    return each


# --- denoising-diffusion-pytorch ---------------------------------------------------------------------------------


def _import_ddpm_pytorch() -> Any:
    """Import it without torchvision and pytorch-fid, which only its own data loader and its FID ask for."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.utils", "pytorch_fid", "pytorch_fid.fid_score",
                 "pytorch_fid.inception"):  # fmt: skip
        sys.modules.setdefault(name, types.ModuleType(name))
    stand_in: Any = sys.modules
    stand_in["torchvision"].transforms = stand_in["torchvision.transforms"]
    stand_in["torchvision"].utils = stand_in["torchvision.utils"]
    stand_in["pytorch_fid.fid_score"].calculate_frechet_distance = None
    stand_in["pytorch_fid.inception"].InceptionV3 = object
    import denoising_diffusion_pytorch

    return denoising_diffusion_pytorch


def _gaussian(case: Case, device: torch.device, net: nn.Module, **more: Any) -> Any:
    made = _import_ddpm_pytorch()
    return made.GaussianDiffusion(
        net, image_size=case.shape[1], timesteps=1000, objective="pred_noise", beta_schedule="linear", **more
    ).to(device)


def ddpm_pytorch_training(
    case: Case, device: torch.device, *, precision: str = "fp32", tuned: bool = False, compiled: bool = False
) -> Contender:
    """The step of its Trainer: Adam, an average every tenth step."""
    made = _import_ddpm_pytorch()
    from ema_pytorch import EMA

    torch.manual_seed(0)
    net = made.Unet(**case.ddpm_pytorch, flash_attn=tuned and device.type == "cuda").to(device)
    if tuned:
        net, called = _tuned(net, device, compiled)
    diffusion = _gaussian(case, device, net)
    if tuned:
        # What GaussianDiffusion asks of a network besides its answer, a compiled one passes on.
        diffusion.model = called
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.9, 0.99), fused=True if tuned else None)
    average = Averages(net.parameters(), case.ema).step if tuned else EMA(diffusion, beta=0.995, update_every=10).update

    def loss(x: Tensor) -> Tensor:
        with _autocast(device, precision):
            return diffusion((x + 1) / 2)  # type: ignore[no-any-return]

    return _looped(case, device, net, loss, optimizer, average)


def ddpm_pytorch_sampling(
    case: Case, device: torch.device, *, precision: str = "fp32", tuned: bool = False, compiled: bool = False
) -> Contender:
    """GaussianDiffusion.sample with fewer steps than the chain, which is DDIM there: one evaluation a step."""
    made = _import_ddpm_pytorch()
    torch.manual_seed(0)
    net = made.Unet(**case.ddpm_pytorch, flash_attn=tuned and device.type == "cuda").to(device).eval()
    if tuned:
        net, called = _tuned(net, device, compiled)
    diffusion = _gaussian(case, device, net, sampling_timesteps=case.evaluations)
    if tuned:
        diffusion.model = called
    counted = case.evaluations
    silent(made)

    def draw() -> None:
        with torch.inference_mode(), _autocast(device, precision):
            diffusion.sample(batch_size=case.drawn)

    return Contender(sum(p.numel() for p in net.parameters()), _by_evaluation(_timed(draw, 1, device), counted))


def silent(made: Any) -> None:
    """Take its progress bars away."""
    module = sys.modules[made.GaussianDiffusion.__module__]
    module.tqdm = lambda it, **_: it  # type: ignore[attr-defined]


# --- plain torch -------------------------------------------------------------------------------------------------


def plain_training(
    case: Case, device: torch.device, *, precision: str = "fp32", tuned: bool = False, compiled: bool = False
) -> Contender:
    """The loop above around ddpmkit's own network: what the loop is worth, where no peer is installed."""
    import ours

    net = ours.network(case, device).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    called: Any = net
    if tuned:
        net, called = _tuned(net, device, compiled)
    alpha_bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4, fused=True if tuned else None)
    average = Averages(net.parameters(), case.ema).step

    def loss(x: Tensor) -> Tensor:
        eps, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=device)
        at = alpha_bars[t][:, None, None, None]
        xt = at.sqrt() * x + (1 - at).sqrt() * eps
        if tuned:
            xt = xt.contiguous(memory_format=torch.channels_last)
        with _autocast(device, precision):
            out = called(xt, t.float())
        return nn.functional.mse_loss(out.float(), eps)

    return _looped(case, device, net, loss, optimizer, average)
