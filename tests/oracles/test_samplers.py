"""One trajectory of each sampler from the same noise and the same exact denoiser, against other people's code."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

import ddpmkit
from ddpmkit.diffusion.tables_for import fixed_log_variance

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
NEAR = {"rtol": 1e-4, "atol": 1e-4}  # their tables are float32
SAME = {"rtol": 2e-5, "atol": 2e-5}  # their tables are float64, rounded once


def log_variance(sigma):
    return lambda chain: fixed_log_variance(ddpmkit.build("sigma", sigma), chain)


def diffusers_walk(scheduler, world, count, scale=1.0, **options):
    """diffusers' walk with the exact denoiser: every x after the first."""
    scheduler.set_timesteps(count)
    x, seen = world.noise(0), []
    for k, t in enumerate(scheduler.timesteps.tolist()):
        x0 = scale * world.x0(x, t)
        extra = {name: f(k + 1) for name, f in options.items()}
        x = scheduler.step(x0, t, x, **extra).prev_sample
        seen.append(x)
    return torch.stack(seen)


def seeded(k):
    """The generator whose first draw is the world's noise of step k."""
    return torch.Generator().manual_seed(100 + k)


@pytest.mark.parametrize(("sigma", "kind"), [("beta", "fixed_large"), ("beta-tilde", "fixed_small")])
@pytest.mark.parametrize(("spacing", "theirs"), [("even", "linspace"), ("trailing", "trailing")])
@pytest.mark.parametrize("count", [1000, 10])
def test_ancestral_is_that_of_diffusers(world, count, spacing, theirs, sigma, kind):
    w = world("linear")
    peer = DDPMScheduler(variance_type=kind, prediction_type="sample", timestep_spacing=theirs)
    expected = diffusers_walk(peer, w, count, scale=1.7, generator=seeded)
    ours = w.walk(f"ancestral:spacing={spacing}", count, log_variance(sigma), scale=1.7)
    if peer.timesteps[-1] > 0 and kind == "fixed_large":
        # They add noise unless the index is 0, see the test of the last step below.
        ours, expected = ours[:-1], expected[:-1]
    # Their float32 alpha-bar leaves beta, 1 - alpha-bar_t / alpha-bar_{t-1}, an error that a thousand steps add up.
    torch.testing.assert_close(ours, expected, **(NEAR if count < 1000 else {"rtol": 1e-3, "atol": 6e-4}))
    assert float(ours[-1].std()) > 0.1


@pytest.mark.parametrize(("sigma", "kind"), [("beta", "fixed_large"), ("beta-tilde", "fixed_small")])
def test_with_a_float64_table_diffusers_agrees_ten_times_better(world, sigma, kind):
    w = world("linear")
    peer = DDPMScheduler(variance_type=kind, prediction_type="sample")
    peer.alphas_cumprod = torch.from_numpy(w.full.alpha_bars)
    expected = diffusers_walk(peer, w, 1000, scale=1.7, generator=seeded)
    torch.testing.assert_close(w.walk("ancestral", 1000, log_variance(sigma), scale=1.7), expected, **SAME)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_is_that_of_denoising_diffusion_pytorch(lucidrains, world, model, monkeypatch, schedule):
    w = world(schedule, 100)
    peer = lucidrains.GaussianDiffusion(
        model(lambda x, t: 1.7 * w.x0(x, int(t[0]))), image_size=4, timesteps=100, beta_schedule=schedule,
        objective="pred_x0",
    )  # fmt: skip
    x, theirs = w.noise(0), []
    for k, t in enumerate(range(99, -1, -1)):
        monkeypatch.setattr(torch, "randn_like", lambda _, k=k: w.noise(k + 1))
        x, _ = peer.p_sample(x, t)
        theirs.append(x)
    torch.testing.assert_close(w.walk("ancestral", 100, log_variance("beta-tilde"), 1.7), torch.stack(theirs), **SAME)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rederive", [True, False])
@pytest.mark.parametrize("clip", ["static", "none"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_is_that_of_diffusers(world, schedule, clip, rederive, eta):
    w = world(schedule)
    peer = DDIMScheduler(
        beta_schedule=SCHEDULES[schedule],
        clip_sample=clip == "static",
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    options = {"eta": lambda k: eta, "use_clipped_model_output": lambda k: rederive, "variance_noise": w.noise}
    theirs = diffusers_walk(
        peer, w, 20, scale=1.7, **(options if eta else {**options, "variance_noise": lambda k: None})
    )
    spec = f"ddim:eta={eta}:spacing=trailing:clip={clip}:rederive={str(rederive).lower()}"
    torch.testing.assert_close(w.walk(spec, 20, scale=1.7), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_is_that_of_denoising_diffusion_pytorch(lucidrains, world, model, monkeypatch, schedule, eta):
    """Their times are linspace(-1, T-1), which is our trailing; eps is derived again from the clipped x0."""
    w = world(schedule)
    peer = lucidrains.GaussianDiffusion(
        model(lambda x, t: 1.7 * w.x0(x, int(t[0]))), image_size=4, timesteps=1000, sampling_timesteps=20,
        beta_schedule=schedule, objective="pred_x0", ddim_sampling_eta=eta, auto_normalize=False,
    )  # fmt: skip
    calls = iter(range(1, 100))
    noise_0, later = w.noise(0), [w.noise(k) for k in range(21)]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *a, **k: noise_0)
        patch.setattr(torch, "randn_like", lambda _: later[next(calls)])
        theirs = peer.ddim_sample(w.shape, return_all_timesteps=True)
    ours = w.walk(f"ddim:eta={eta}:spacing=trailing", 20, scale=1.7)
    torch.testing.assert_close(ours, theirs.transpose(0, 1)[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # a tensor to numpy, in their code
@pytest.mark.parametrize("count", [5, 20, 50])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpm_solver_is_that_of_diffusers(world, schedule, count):
    w = world(schedule)
    peer = DPMSolverMultistepScheduler(
        beta_schedule=SCHEDULES[schedule], prediction_type="sample", timestep_spacing="trailing"
    )
    theirs = diffusers_walk(peer, w, count)
    ours = w.walk("dpm-solver++:spacing=trailing:clip=none", count)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    first_order = diffusers_walk(DDIMScheduler(
        beta_schedule=SCHEDULES[schedule], prediction_type="sample", timestep_spacing="trailing", clip_sample=False
    ), w, count)  # fmt: skip
    assert float((first_order[-1] - theirs[-1]).abs().max()) > 10 * float((ours[-1] - theirs[-1]).abs().max())


@pytest.mark.parametrize("T", [1000, 100])
@pytest.mark.parametrize("count", [1, 5, 10, 20, 33, 50])
def test_trailing_steps_are_those_of_diffusers(T, count):
    peer = DDIMScheduler(num_train_timesteps=T, timestep_spacing="trailing")
    peer.set_timesteps(count)
    ours = list(ddpmkit.build("sampler", "ddim:spacing=trailing").timesteps(T, count))
    theirs = peer.timesteps.flip(0).tolist()
    assert ours == theirs[-count:]  # where the stride is no integer, a rounding may give them one step more


@pytest.mark.parametrize("count", [2, 10, 50])
def test_even_steps_are_diffusers_linspace(count):
    peer = DDPMScheduler(timestep_spacing="linspace")
    peer.set_timesteps(count)
    assert list(ddpmkit.build("sampler", "ancestral").timesteps(1000, count)) == peer.timesteps.flip(0).tolist()


def test_dynamic_clipping_is_diffusers_once_its_ceiling_is_lifted():
    """sample_max_value is 1 by default there, and dynamic thresholding is then static clipping."""
    from ddpmkit.diffusion.clipping import clipped

    x = 3 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    lifted = DDPMScheduler(thresholding=True, sample_max_value=1e9)._threshold_sample(x)
    torch.testing.assert_close(clipped(x, "dynamic"), lifted)
    default = DDPMScheduler(thresholding=True)._threshold_sample(x)
    torch.testing.assert_close(clipped(x, "static"), default)
    assert float((lifted - default).abs().max()) > 0.5


# --- known differences -------------------------------------------------------------------------------------------


def test_leading_spacing_never_sees_the_noise_end():
    """diffusers' default starts ten steps of a thousand at 900; every spacing of ours starts at T-1."""
    peer = DDPMScheduler()
    peer.set_timesteps(10)
    assert peer.timesteps.tolist() == list(range(900, -1, -100))
    for spacing in ("even", "quadratic", "trailing"):
        assert ddpmkit.build("sampler", f"ancestral:spacing={spacing}").timesteps(1000, 10)[-1] == 999


def test_with_linspace_diffusers_ddim_steps_back_by_a_stride_that_its_grid_does_not_have(world):
    """Ten of a thousand are 111 apart, and its DDIM goes to the noise level 100 before; its DDPM uses the grid."""
    w = world("linear")
    peer = DDIMScheduler(prediction_type="sample", timestep_spacing="linspace")
    x = w.noise(0)
    peer.set_timesteps(10)
    assert peer.timesteps[:2].tolist() == [999, 888]
    theirs = peer.step(w.x0(x, 999), 999, x).prev_sample
    before, now = 899, 999
    x0 = w.x0(x, now).clamp(-1, 1)
    torch.testing.assert_close(theirs, w.signal[before] * x0 + w.deviation[before] * w.eps(x, now), **SAME)
    assert float((w.walk("ddim", 10) - diffusers_walk(peer, w, 10)).abs().max()) > 0.02


def test_rederiving_eps_is_a_choice_that_is_seen(world):
    """OpenAI and denoising-diffusion-pytorch derive eps from the clipped x0, diffusers by default does not."""
    w = world("linear")
    again, kept = (w.walk(f"ddim:spacing=trailing:rederive={r}", 20, scale=1.7) for r in ("true", "false"))
    assert float((again - kept).abs().max()) > 0.1
    default = diffusers_walk(DDIMScheduler(prediction_type="sample", timestep_spacing="trailing"), w, 20, scale=1.7)
    torch.testing.assert_close(kept, default, **NEAR)


@pytest.mark.parametrize(
    "options", [{"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"}]
)
def test_diffusers_noises_the_last_step_of_a_walk_that_does_not_end_at_index_0(world, options):
    """Its rule is t > 0; ours is the last step of the walk, whatever its index."""
    w = world("linear")
    peer = DDPMScheduler(prediction_type="sample", variance_type="fixed_large", **options)
    theirs = diffusers_walk(peer, w, 10, generator=seeded)
    last = int(peer.timesteps[-1])
    assert last > 0
    added = theirs[-1] - w.x0(theirs[-2], last).clamp(-1, 1)
    assert float(added.std()) == pytest.approx(w.deviation[last], rel=0.2)
    ours = w.walk("ancestral:spacing=trailing", 10, log_variance("beta"))
    torch.testing.assert_close(ours[-1], w.x0(ours[-2], 99).clamp(-1, 1))
