"""Any network at all: what a user types, what is refused and how, and the exact worlds seen through that door."""

import math

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import DdpmkitError, Diverged
from ddpmkit.likelihood import LinearGaussian, bits_per_dim, bound, draw
from ddpmkit.likelihood.fit import fit_statistics

torch.set_num_threads(1)
H = 2.047095585180641  # 1/2 log2(2 pi e)
BETAS = np.linspace(1e-4, 0.02, 1000)
BAR = torch.from_numpy(np.cumprod(1 - BETAS)).float()
DIMS = 16
GAUSSIAN = torch.randn(120, DIMS, generator=torch.Generator().manual_seed(0))
GREY = torch.randint(0, 256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def spread(table, xt):
    return table.reshape(-1, *([1] * (xt.dim() - 1)))


def unit_gaussian(xt, t):
    """The exact x0-denoiser of N(0, I): sqrt(alpha-bar) x_t."""
    return spread(BAR[t].sqrt(), xt) * xt


PREDICTIONS = {
    "x0": unit_gaussian,
    "eps": lambda xt, t: spread((1 - BAR[t]).sqrt(), xt) * xt,
    "v": lambda xt, t: torch.zeros_like(xt),
}


def own_cost(x0):
    """-log2 of the density of N(0, I), a dimension: beta and beta_1 make the bound of every image equal to it."""
    return 0.5 * math.log2(2 * math.pi) + 0.5 * float(x0.double().square().mean()) / math.log(2)


def exact(**options):
    options = {"prediction": "x0", "sigma": "beta", "decoder": "continuous", "decoder_variance": "beta1", **options}
    predict = options.pop("predict", PREDICTIONS[options["prediction"]])
    return bits_per_dim(predict, options.pop("x0", GAUSSIAN), **options)


@pytest.mark.long
@pytest.mark.parametrize(
    ("prediction", "how"),
    [("eps", {"evals": 8000}), ("x0", {"evals": 8000}), ("v", {"evals": 8000}), ("x0", {"full": True})],
    ids=str,
)
def test_unit_gaussian_images_cost_what_their_density_says(prediction, how):
    got = exact(prediction=prediction, **how)
    last = float(BAR[-1])
    # L_T of these very images, less what the chain's own end already explains: 4e-5 of a bit at most
    assert got.total == pytest.approx(own_cost(GAUSSIAN), abs=4 * got.standard_error + last)
    assert got.standard_error < 0.03
    assert own_cost(GAUSSIAN) == pytest.approx(H, abs=0.1)


@pytest.mark.slow
def test_the_estimate_is_unbiased_although_the_images_are_their_own_pilot():
    found = [exact(seed=s, evals=3000) for s in range(60)]
    misses = np.array([b.total - own_cost(GAUSSIAN) for b in found])
    said = math.sqrt(np.mean([b.standard_error**2 for b in found]))
    assert abs(misses.mean()) < 4 * said / math.sqrt(60)
    assert 0.7 < misses.std(ddof=1) / said < 1.35


@pytest.mark.slow
def test_the_control_that_evens_out_the_images_does_not_hide_that_they_differ():
    own = 0.5 * GAUSSIAN.double().square().mean(1).std() / math.log(2) / math.sqrt(len(GAUSSIAN))
    found = [exact(seed=s, evals=30_000).test_set_error for s in range(8)]
    assert math.sqrt(np.mean(np.square(found))) == pytest.approx(float(own), rel=0.2)


@pytest.mark.parametrize("count", [5, 40])
def test_a_strided_chain_keeps_the_density_and_tells_the_network_the_full_time(count):
    times = np.linspace(0, 999, count).round().astype(int)
    seen = set()

    def predict(xt, t):
        seen.update(t.tolist())
        return unit_gaussian(xt, t)

    chain = tables_for(ddpmkit.build("schedule", "linear"), 1000).strided(times.tolist())
    got = exact(predict=predict, schedule=chain, full=True)
    assert seen == set(times.tolist())
    assert got.total == pytest.approx(own_cost(GAUSSIAN), abs=4 * got.standard_error)


@pytest.mark.long
def test_names_objects_and_numbers_are_the_same_choice():
    tables = tables_for(ddpmkit.build("schedule", "linear"), 1000)
    choices = [
        {"schedule": "linear", "sigma": "beta", "decoder_variance": "beta1"},
        {"schedule": ddpmkit.build("schedule", "linear"), "sigma": ddpmkit.build("sigma", "beta")},
        {"schedule": BETAS.tolist(), "sigma": BETAS, "decoder_variance": 1e-4},
        {"schedule": tables, "timesteps": 7},
    ]
    totals = [exact(evals=2000, **c).total for c in choices]
    assert totals == pytest.approx([totals[0]] * 4, rel=1e-9)


@pytest.mark.long
def test_levels_and_pixels_are_the_same_images():
    pixels = -1 + 2 * GREY.double() / 255
    options = {"timesteps": 1000, "evals": 1500, "prediction": "x0", "clip": True}
    totals = {
        bits_per_dim(unit_gaussian, x, **options).total
        for x in (GREY, GREY.long(), GREY.numpy(), pixels, pixels.float(), pixels.numpy())
    }
    assert len(totals) == 1


@pytest.mark.long
def test_a_single_image_with_the_exact_denoiser_costs_what_the_decoder_says():
    """Middle terms are free under beta-tilde; 1.305378 bits/dim for black-and-white-between, 256 levels, linear."""
    x0 = torch.full((3, 1, 2, 2), 1 / 255)  # level 128
    got = bits_per_dim(lambda xt, t: torch.full_like(xt, 1 / 255), x0, prediction="x0", evals=1000)
    assert got.terms.middle == pytest.approx(0, abs=1e-9)
    assert got.terms.decoder == pytest.approx(1.305378, abs=6e-7)
    beta = bits_per_dim(lambda xt, t: torch.full_like(xt, 1 / 255), x0, prediction="x0", sigma="beta", full=True)
    assert beta.terms.middle == pytest.approx(0.486419, abs=6e-7)
    assert beta.total - beta.terms.prior == pytest.approx(1.305378 + 0.486419, abs=2e-6)


@pytest.mark.long
def test_clipping_and_the_decoder_are_choices():
    wild = {"predict": lambda xt, t: 3 * unit_gaussian(xt, t), "prediction": "x0", "evals": 2000, "sigma": "beta-tilde"}
    loose, tight = (bits_per_dim(x0=GREY, clip=c, **wild) for c in (False, True))
    assert tight.total < loose.total - 1
    decoders = {d: bits_per_dim(x0=GREY, decoder=d, **wild).terms.decoder for d in ("cdf", "cdf-tanh", "softmax")}
    assert len({round(v, 6) for v in decoders.values()}) == 3
    assert decoders["cdf-tanh"] <= 39.87


def test_without_a_budget_the_middle_gets_8192_evaluations():
    calls = []

    def predict(xt, t):
        calls.append(t)
        return unit_gaussian(xt, t)

    got = bits_per_dim(predict, GREY, prediction="x0", micro_batch=512)
    pilot, decoder = 32 * 16, 2 * len(GREY)
    assert pilot + decoder + 8192 - 16 * 16 <= got.evaluations <= pilot + decoder + 8192 + 16
    assert all(t.dtype == torch.int64 and t.shape == (512,) for t in calls)
    low, high = got.interval
    assert low < got.total < high
    assert (high - low) / 2 == pytest.approx(2.131 * got.standard_error, rel=1e-3)


def test_the_same_seed_gives_the_same_number():
    first, again, other = (bits_per_dim(unit_gaussian, GREY, prediction="x0", evals=1200, seed=s) for s in (1, 1, 2))
    assert first.total == again.total != other.total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evals": 1000, "full": True}, "evals and full are both given"),
        ({"evals": 10}, "10 evaluations are fewer than the"),
        ({"x0": GREY.float()}, "not on 256 grey levels in .-1, 1.: it runs from"),
        ({"x0": GREY.float() / 255}, "not on 256 grey levels"),
        ({"x0": -1 + 2 * GREY.float() / 255, "levels": 17}, "not on 17 grey levels"),
        ({"levels": 17}, r"x0 has levels \d+ .. \d+, and K = 17"),
        ({"x0": GREY.long() - 3}, r"x0 has levels -3 .. \d+"),
        ({"levels": 1}, "levels must be at least 2"),
        ({"x0": torch.full((2, 3), math.nan)}, "not finite"),
        ({"x0": torch.zeros(4)}, r"x0 has shape \(4,\)"),
        ({"predict": lambda xt, t: xt[:, :, :2]}, r"predict gives shape \(64, 1, 2, 4\) for xt of shape"),
        ({"predict": lambda xt, t: (xt, None)}, "predict gives a tuple"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"schedule": np.zeros((2, 2))}, r"betas have shape \(2, 2\)"),
        ({"schedule": [0.1, 1.5]}, "beta"),
        ({"sigma": "gamma"}, "unknown sigma 'gamma'"),
        ({"sigma": BETAS[:5]}, "sigma must be 1000 variances"),
        ({"sigma": -BETAS}, "sigma must be 1000 variances"),
        ({"prediction": "epsilon"}, "unknown prediction 'epsilon'"),
        ({"schedule": "random-walk", "prediction": "v"}, "v-prediction needs"),
        ({"decoder": "tanh"}, "unknown decoder 'tanh'"),
        ({"decoder_variance": "tilde"}, "unknown decoder_variance 'tilde'"),
        ({"decoder_variance": 0.0}, "above 0"),
        ({"decoder_variance": None}, "decoder_variance must be one number above 0"),
        ({"decoder_variance": [0.1, 0.2]}, "decoder_variance must be one number above 0"),
        ({"decoder_variance": math.inf}, "decoder_variance must be one number above 0"),
        ({"decoder": None}, "unknown decoder None"),
        ({"prediction": 3}, "prediction must be a name or a prediction, got 3"),
        ({"schedule": ["0.1", "small"]}, "betas must be numbers, got .'0.1', 'small'"),
        ({"sigma": ["large"] * 1000}, "sigma must be numbers"),
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"micro_batch": 8.0}, "micro_batch must be a whole number, got 8.0"),
        ({"evals": 1e4}, "evals must be a whole number"),
        ({"levels": "256"}, "levels must be a whole number, got '256'"),
        ({"timesteps": 1000.0}, "timesteps must be a whole number"),
        ({"timesteps": 1}, "timesteps must be at least 2"),
        ({"x0": GREY[:0]}, r"x0 has shape \(0, 1, 4, 4\)"),
        ({"sigma": "learned-range"}, "sigma 'learned-range' is learned: its variance is the network's own"),
        ({"sigma": "optimal"}, "sigma 'optimal' is fitted to a trained network"),
    ],
)
def test_what_does_not_fit_is_said_before_the_network_has_run_for_long(options, message):
    calls = []

    def predict(xt, t):
        calls.append(1)
        return unit_gaussian(xt, t)

    options = {"predict": predict, "x0": GREY, "prediction": "x0", **options}
    with pytest.raises(DdpmkitError, match=message):
        bits_per_dim(**options)
    assert calls == []


@pytest.mark.parametrize(
    ("sigma", "advice"), [("learned", "ddpmkit.likelihood.draw"), ("analytic", "--sigmas analytic")]
)
def test_a_sigma_without_a_table_says_where_its_variance_comes_from(sigma, advice):
    """Neither is told to say of itself what it says already."""
    with pytest.raises(DdpmkitError) as refused:
        bits_per_dim(unit_gaussian, GREY, prediction="x0", sigma=sigma)
    assert advice in refused.value.hint
    assert "neither" not in refused.value.message


def test_a_chain_of_one_step_says_which_variance_is_missing_and_has_a_bound_with_another():
    chain = tables_for(ddpmkit.build("schedule", "linear"), 1000).strided([999])
    options = {"schedule": chain, "prediction": "x0", "full": True}
    with pytest.raises(DdpmkitError, match="a chain of one step has no beta-tilde_2") as refused:
        bits_per_dim(unit_gaussian, GREY, **options)
    assert "decoder_variance=" in refused.value.hint
    for choice in ("beta1", 0.5):
        got = bits_per_dim(unit_gaussian, GREY, decoder_variance=choice, **options)
        assert math.isfinite(got.total)
        assert got.terms.middle == 0.0


def test_what_is_drawn_from_fits_the_chain_and_there_is_something_to_draw():
    chain = tables_for(ddpmkit.build("schedule", "cosine"), 20)
    x = torch.zeros(4, 1, 2, 2)

    def drawn(**options):
        options = {"images": x, "pilot": x, "levels": 3, "evaluations": 2000, **options}
        return draw(lambda xt, t: (xt, None), chain, **options)

    for options, message in (
        ({"images": x[:0]}, "images has no images"),
        ({"images": x[:0], "full": True, "evaluations": None}, "images has no images"),
        ({"images": x.numpy()}, "images must be a tensor"),
        ({"pilot": x[:0]}, "pilot has no images"),
        ({"pilot": x[:, :, :1]}, r"pilot has images of shape \(1, 1, 2\), the others \(1, 2, 2\)"),
        ({"proposal": np.full(30, 1 / 30)}, r"the proposal has shape \(30,\), and the chain 20 steps"),
        ({"micro_batch": 0}, "micro_batch must be at least 1"),
        ({"evaluations": "many"}, "evaluations must be a whole number"),
        ({"decoder_draws": 0}, "decoder_draws must be at least 1"),
    ):
        with pytest.raises(DdpmkitError, match=message):
            drawn(**options)
    with pytest.raises(DdpmkitError, match="images has no images"):
        LinearGaussian.fit(x[:0])
    for options in ({"images": x[:0]}, {"draws": 0}, {"micro_batch": 0}, {"levels": 1}):
        with pytest.raises(DdpmkitError, match=r"has no images|must be at least"):
            fit_statistics(
                lambda xt, t: (xt, None), chain,
                **{"images": x, "draws": 1, "levels": 3, "seed": 0, "micro_batch": 4, **options},
            )  # fmt: skip
    found, decoder = drawn(), 0.1
    log_sigma2 = np.log(chain.b2)
    for given, message in (
        ({"log_sigma2": log_sigma2[1:]}, r"log_sigma2 has shape \(19,\), and the chain 20 steps"),
        ({"levels": 1}, "levels must be at least 2"),
        ({"decoder": None}, "unknown decoder None"),
    ):
        with pytest.raises(DdpmkitError, match=message):
            bound(found, chain, **{"log_sigma2": log_sigma2, "decoder_log_variance": decoder, "levels": 3, **given})


def test_a_network_that_gives_no_number_is_named_and_scores_none():
    with pytest.raises(Diverged, match=r"x0hat is not finite at step \d+ of image \d+"):
        bits_per_dim(lambda xt, t: torch.full_like(xt, torch.nan), GREY)
