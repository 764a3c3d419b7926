"""How much variance the likelihood's estimator saves, measured by repeating it on a network that ddpmkit trained.

    python benchmarks/nll_variance.py --out /tmp/nll-variance > benchmarks/nll_variance.md

It trains the digits network (kept under --out), asks it about every (image, step) several times with independent noise,
keeps the answers as a bank (an .npz under --out), and then repeats every estimator on the bank by table look-up: a draw
of (image, step) takes one of the bank's noise draws of that pair at random. The bank is a world of its own, in which
the truth is known exactly: the mean over the bank.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

import ddpmkit
from ddpmkit import files
from ddpmkit.diffusion.bound_terms import decoder_terms, middle_constant, middle_factor, prior_kl
from ddpmkit.diffusion.denoise import predictor
from ddpmkit.diffusion.gaussian import Coefficients, q_sample
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.likelihood import proposal as proposals
from ddpmkit.likelihood.ask import draw, proposal_of
from ddpmkit.likelihood.control_variates import Controls, LinearGaussian, scales_of
from ddpmkit.likelihood.draws import Draws, Sampled, Values
from ddpmkit.likelihood.vlb import bound, paired
from ddpmkit.pixels import to_pixels
from ddpmkit.plugin.registry import Registry
from ddpmkit.randomness import normal, stream_key
from ddpmkit.training import checkpoint

IMAGES = 400  # of the 797 test images
SWEEPS = 8  # noise draws of every (image, step)
DECODER = 64  # noise draws of every image at t=1
PILOTS = 64  # noise draws of every pilot pair
SIGMAS = ("beta-tilde", "beta")
LEVELS = 17
LIVE, LIVE_REPETITIONS = 2048, 400  # `draw` itself, on the network
INTRO = f"""# The likelihood's variance, measured

    python benchmarks/nll_variance.py --out /tmp/nll-variance > benchmarks/nll_variance.md

On one of two cores of an AMD EPYC, no GPU, torch {torch.__version__}. The network is what
`ddpmkit ablate --schedules linear --train-seeds 0` trains on the digits: eps-prediction, weighting `simple`, the
default `unet` without Fourier features; cosine likewise. {IMAGES} of the 797 test images, T = 1000, 17 grey levels,
x0hat clipped, decoder `cdf` with variance beta-tilde_2.

The network was asked once about every (image, step) with {SWEEPS} independent noise draws ({DECODER} at t=1), and every
estimator is repeated on these answers by table look-up: a draw of (image, step) takes one of its noise draws at random.
That is exact resampling of a world in which the truth is known without error: the mean over all answers (the noise
controls are centred over the draws of this world). The numbers of evaluations count pilot and decoder. "Ours" is pilot,
proposal, systematic draws, control variates and errors as in `ddpmkit.likelihood.draw` and `bound`; stratified is one
uniform t in each of n equal slices of 1..T, and the images equally often."""


def trained(out: Path, schedule: str) -> tuple[Any, Any, Any]:
    """Train as `ddpmkit ablate` does, or find what was trained; return the data, the tables and predict_x0."""
    outcome = ddpmkit.ablate(schedules=[schedule], train_seeds=[0], metrics=["nll"], out=out / "results", jobs=1)
    registry = Registry()
    stage = next(s for s in files.read_json(outcome.folder / "plan.json")["stages"] if s["kind"] == "train")
    folder = next((out / "results" / "store" / "train").glob(f"*/{stage['id']}"))
    images = registry.build("dataset", "digits").load()
    size, channels = images.train.shape[2], images.train.shape[1]
    net = registry.rebuild(stage["how"]["backbone"]).build(
        in_channels=channels, out_channels=channels, image_size=size, num_classes=None
    )
    found = checkpoint.newest(folder / "ckpt")
    if found is None:
        raise SystemExit(f"no checkpoint under {folder}")
    (rate,) = stage["spec"]["emas"]
    net.load_state_dict(checkpoint.under(found.ema, repr(rate)))
    tables = tables_for(registry.build("schedule", schedule), 1000)
    predict = predictor(net.eval(), tables, ddpmkit.build("prediction", "eps"), torch.device("cpu"))
    return images, tables, lambda xt, t: predict(xt, t)[0]


def asked(
    predict: Any, c: Coefficients, pool: Tensor, controls: Controls, image: Tensor, t: Tensor, index: Tensor, key: Any
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Return the squared errors, clipped and not, the controls, and x0hat of some (image, t)."""
    noise = normal(key, index, tuple(pool.shape[1:]))
    x0 = pool[image]
    hat = predict(q_sample(c, x0, t, noise), t).double()
    errors = [(x0.double() - h).square().flatten(1).sum(1).numpy() for h in (hat.clamp(-1, 1), hat)]
    return np.stack(errors), controls(image, t, noise), hat


@torch.inference_mode()
def pilots(out: Path, schedule: str) -> dict[str, np.ndarray]:
    """Ask about the pilot's pairs of step and validation image, many times."""
    data, tables, predict = trained(out, schedule)
    train, validation = (to_pixels(torch.from_numpy(a), data.levels) for a in (data.train, data.validation))
    linear, c = LinearGaussian.fit(train), Coefficients.of(tables)
    grid = torch.from_numpy(np.repeat(proposals.pilot_grid(tables.T), proposals.PILOT_IMAGES))
    which, rows = torch.arange(len(grid)) % len(validation), torch.arange(len(grid))
    controls, key = Controls.of(tables, validation, linear), stream_key(0, "bank-pilot")
    found = [asked(predict, c, validation, controls, which, grid, rows + len(rows) * m, key) for m in range(PILOTS)]
    return {
        "pilot_t": grid.numpy(),
        "pilot_errors": np.stack([p[0] for p in found], 1),
        "pilot_controls": np.stack([p[1] for p in found]),
        "scales": scales_of(tables, linear, data.test[0].size),
    }


@torch.inference_mode()
def bank(out: Path, schedule: str) -> dict[str, np.ndarray]:
    """Ask the network about everything, or load what it said."""
    path = out / f"bank-{schedule}.npz"
    if path.exists():
        with np.load(path) as stored:
            return dict(stored)
    data, tables, predict = trained(out, schedule)
    test, train = (to_pixels(torch.from_numpy(a), data.levels) for a in (data.test[:IMAGES], data.train))
    linear, c, T = LinearGaussian.fit(train), Coefficients.of(tables), tables.T
    started = time.perf_counter()

    ask = partial(asked, predict, c)
    every, controls = torch.arange(IMAGES), Controls.of(tables, test, linear)
    errors = np.zeros((2, SWEEPS, IMAGES, T), np.float32)
    on_controls = np.zeros((SWEEPS, IMAGES, T, 3), np.float32)
    for t in range(1, T):
        for m in range(SWEEPS):
            index = every + IMAGES * (m + SWEEPS * t)
            e, z, _ = ask(test, controls, every, torch.full_like(every, t), index, stream_key(0, "bank"))
            errors[:, m, :, t], on_controls[m, :, t] = e, z
    decoder = np.stack([
        ask(test, controls, every, torch.zeros_like(every), every + IMAGES * m, stream_key(0, "bank-decoder"))[2]
        .float().flatten(1).numpy() for m in range(DECODER)
    ])  # fmt: skip
    world = {
        "errors": errors,
        "controls": on_controls,
        "decoder": decoder,
        "x0": test.flatten(1).numpy(),
        "seconds": np.array(time.perf_counter() - started),
    }
    np.savez(path, **world)
    return world


class World:
    """The bank as a world to repeat estimators in; everything in bits/dim."""

    def __init__(self, stored: dict[str, np.ndarray], schedule: str) -> None:
        registry = Registry()
        # The controls' mean over all noise is zero; in a world of few noise draws it has to be made so.
        stored["controls"][..., :2] -= stored["controls"][..., :2].mean(0)
        self.b = stored
        self.tables = tables_for(registry.build("schedule", schedule), 1000)
        self.log_sigma2 = {s: fixed_log_variance(registry.build("sigma", s), self.tables) for s in SIGMAS}
        self.decoder = decoder_log_variance(self.tables)
        self.x0 = stored["x0"]
        self.count, self.dims = self.x0.shape
        self.unit = self.dims * math.log(2)
        self.prior = float(prior_kl(self.tables, torch.from_numpy(self.x0)).mean()) / self.unit
        x0 = torch.from_numpy(self.x0).double()
        self.at_one = np.stack([
            decoder_terms("cdf", x0, torch.from_numpy(m).double().clamp(-1, 1), self.decoder, LEVELS).sum(1).numpy()
            for m in stored["decoder"]
        ]) / self.unit  # fmt: skip

    def weights(self, sigma: str) -> tuple[np.ndarray, np.ndarray]:
        """Factor and constant of L_{t-1} in the squared error, bits/dim."""
        log_sigma2 = self.log_sigma2[sigma]
        constant = self.dims * middle_constant(self.tables, log_sigma2)
        return middle_factor(self.tables, log_sigma2) / self.unit, constant / self.unit

    def truth(self, sigma: str) -> float:
        """The mean over the whole bank."""
        factor, constant = self.weights(sigma)
        mean = self.b["errors"][0].mean((0, 1), dtype=np.float64)
        return self.prior + float((factor * mean + constant)[1:].sum()) + float(self.at_one.mean())

    def uniform(self, sigma: str, n: int, rng: np.random.Generator, stratified: bool) -> float:
        """One t an evaluation, uniform over 1..T, t=1 being the decoder; images at random, or each equally often."""
        T = self.tables.T
        if stratified:
            t = ((np.arange(n) + rng.random()) * T / n).astype(np.int64)
            image = rng.permutation(np.resize(rng.permutation(self.count), n))
        else:
            t, image = rng.integers(0, T, n), rng.integers(0, self.count, n)
        factor, constant = self.weights(sigma)
        first = t == 0
        value = np.empty(n)
        value[first] = self.at_one[rng.integers(0, DECODER, first.sum()), image[first]]
        m, i, s = rng.integers(0, SWEEPS, (~first).sum()), image[~first], t[~first]
        value[~first] = factor[s] * self.b["errors"][0, m, i, s] + constant[s]
        return self.prior + T * float(value.mean())

    def sweep_variance(self, sigma: str) -> float:
        """Variance of a full sweep, one noise draw for every (image, t), given the images: exact in this world."""
        factor, _ = self.weights(sigma)
        variance = self.b["errors"][0].var(0, dtype=np.float64).sum(0)  # over noise, summed over images
        return float(((factor**2 * variance)[1:].sum() + self.at_one.var(0).sum()) / self.count**2)

    def draws(self, n: int, rng: np.random.Generator, seed: str, decoder_draws: int = 2) -> Draws:
        """What `draw` gives for a budget of n evaluations, each answer looked up; the same functions do the rest."""
        b, pairs = self.b, len(self.b["pilot_t"])
        m, every = rng.integers(0, PILOTS, pairs), np.arange(pairs)
        pilot = Values(*(b["pilot_errors"][k, m, every].astype(np.float64) for k in (0, 1)))
        pilot_controls = b["pilot_controls"][m, every].astype(np.float64)
        p = proposal_of(b["pilot_t"], pilot, None, pilot_controls, b["scales"], self.tables, self.dims)
        size = -(-(n - pairs - decoder_draws * self.count) // proposals.REPLICATES)
        t, image = (v.numpy() for v in proposals.systematic(p, self.count, size, seed, "nll"))
        m = rng.integers(0, SWEEPS, len(t))
        errors = Values(*(b["errors"][k, m, image, t].astype(np.float64) for k in (0, 1)))
        controls = b["controls"][m, image, t].astype(np.float64)
        middle = Sampled(
            t,
            image,
            p,
            errors,
            None,
            controls,
            b["pilot_t"],
            pilot,
            None,
            pilot_controls,
            b["scales"],
            proposals.REPLICATES,
        )
        picked = b["decoder"][rng.integers(0, DECODER, (decoder_draws, self.count)), np.arange(self.count)]
        total = pairs + decoder_draws * self.count + len(t)
        return Draws(self.x0, picked, None, middle, self.tables.T, total)

    def ours(self, n: int, repetitions: int, decoder_draws: int = 2, **options: Any) -> dict[str, np.ndarray]:
        """Repeat the estimator: totals and standard errors under both sigmas, and of their paired difference."""
        rng = np.random.default_rng(n)
        rows = []
        for r in range(repetitions):
            draws = self.draws(n, rng, f"{n}-{r}", decoder_draws)
            found = [
                bound(draws, self.tables, s, self.decoder, levels=LEVELS, **options) for s in self.log_sigma2.values()
            ]
            d = paired(found[1], found[0])
            parts = [v for x in found for v in (x.total, x.standard_error)]
            parts += [d.total, d.standard_error, draws.evaluations]
            parts += [v for x in found for v in (x.evidence.middle_variance(), x.evidence.decoder_variance())]
            rows.append(parts)
        names = ("beta-tilde", "beta-tilde se", "beta", "beta se", "difference", "difference se", "evaluations")
        names += ("beta-tilde middle", "beta-tilde decoder", "beta middle", "beta decoder")
        return dict(zip(names, np.array(rows).T, strict=True))


@torch.inference_mode()
def live(out: Path, schedule: str, world: World, n: int, repetitions: int) -> dict[str, np.ndarray]:
    """Repeat `draw` itself on the network, no bank: totals and standard errors, kept under --out."""
    path = out / f"live-{schedule}-{n}-{repetitions}.npz"
    if not path.exists():
        data, tables, predict = trained(out, schedule)
        test, validation, train = (
            to_pixels(torch.from_numpy(a), data.levels) for a in (data.test[:IMAGES], data.validation, data.train)
        )
        linear, rows = LinearGaussian.fit(train), []
        for r in range(repetitions):
            draws = draw(
                lambda xt, t: (predict(xt, t), None), tables, images=test, pilot=validation, levels=LEVELS,
                evaluations=n, seed=f"live-{r}", micro_batch=128, linear=linear,
            )  # fmt: skip
            found = [bound(draws, tables, s, world.decoder, levels=LEVELS) for s in world.log_sigma2.values()]
            rows.append([v for b in found for v in (b.total, b.standard_error)])
        np.savez(path, **dict(zip(("beta-tilde", "beta-tilde se", "beta", "beta se"), np.array(rows).T, strict=True)))
    with np.load(path) as stored:
        return dict(stored)


def report_live(found: dict[str, np.ndarray], world: World, n: int) -> None:
    """Print what the repetitions on the network itself gave."""
    print(f"\n`draw` itself, {len(found['beta'])} repetitions of {n} evaluations on the network, no bank:\n")
    print("| sigma | truth | its error | mean | sd | the standard error given | coverage |\n|:--|" + "--:|" * 6)
    for s in SIGMAS:
        total, error, own = found[s], found[f"{s} se"], math.sqrt(world.sweep_variance(s) / (SWEEPS - 1))
        share = own / (stats.t.ppf(0.975, proposals.REPLICATES - 1) * math.sqrt(np.mean(error**2)))
        truth, said = world.truth(s), math.sqrt(np.mean(error**2))
        print(
            f"| {s} | {truth:.4f} | {own:.4f}, {share:.1%} of the half-width | {total.mean():.4f} | "
            f"{total.std(ddof=1):.4f} | {said:.4f} | {covered(total, error, truth):.1%} |"
        )


def covered(total: np.ndarray, error: np.ndarray, truth: float) -> float:
    """The share of 95 % intervals that hold the truth."""
    half = stats.t.ppf(0.975, proposals.REPLICATES - 1) * error
    return float(np.mean(np.abs(total - truth) < half))


def report(world: World, schedule: str, n: int, repetitions: int) -> None:
    """Print the tables of one schedule."""
    ours, rng = world.ours(n, repetitions), np.random.default_rng(0)
    plain = world.ours(n, repetitions, control=False)
    truth = {s: world.truth(s) for s in SIGMAS}
    sweep = world.count * world.tables.T
    print(f"\n## {schedule}\n")
    budget = int(ours["evaluations"][0])
    print(f"{budget} evaluations each, {repetitions} repetitions. Standard deviation of the bound, bits/dim:\n")
    print("| | " + " | ".join(SIGMAS) + " |\n|:--|" + "--:|" * len(SIGMAS))
    sd: dict[str, list[float]] = {"truth, bits/dim": [truth[s] for s in SIGMAS]}
    for name, stratified in (("one uniform t an evaluation", False), ("stratified uniform t", True)):
        sd[name] = [np.std([world.uniform(s, n, rng, stratified) for _ in range(repetitions)]) for s in SIGMAS]
    sd["ours without control variates"] = [np.std(plain[s]) for s in SIGMAS]
    sd["ours"] = [np.std(ours[s]) for s in SIGMAS]
    sd["ours, the standard error that it gives"] = [math.sqrt(np.mean(ours[f"{s} se"] ** 2)) for s in SIGMAS]
    sd["of which the decoder"] = [math.sqrt(np.mean(ours[f"{s} decoder"])) for s in SIGMAS]
    sd[f"full sweep, {sweep:,} evaluations"] = [math.sqrt(world.sweep_variance(s)) for s in SIGMAS]
    for name, row in sd.items():
        print(f"| {name} | " + " | ".join(f"{v:.4f}" for v in row) + " |")
    print("\n| | asked for | " + " | ".join(SIGMAS) + " |\n|:--|--:|" + "--:|" * len(SIGMAS))

    def line(name: str, asked: str, values: list[str]) -> None:
        print(f"| {name} | {asked} | " + " | ".join(values) + " |")

    for name, asked in (("one uniform t an evaluation", "100"), ("stratified uniform t", "10")):
        ratio = [f"{(a / b) ** 2:.0f}" for a, b in zip(sd[name], sd["ours"], strict=True)]
        line(f"variance, {name}, over ours", f"at least {asked}", ratio)
    needed = []
    for s in SIGMAS:
        goal = world.sweep_variance(s)
        middle = np.mean(ours[f"{s} middle"]) * (n - len(world.b["pilot_t"]) - 2 * world.count)
        one = np.mean(ours[f"{s} decoder"]) * 2  # with one draw an image
        best = min(
            len(world.b["pilot_t"]) + d * world.count + middle / (goal - one / d)
            for d in range(2, 30)
            if one / d < goal
        )
        needed.append(best)
    line("evaluations for the error of the full sweep", f"at most {sweep // 10:,}", [f"{v:,.0f}" for v in needed])
    line("share of the full sweep's evaluations", "at most 10 %", [f"{v / sweep:.1%}" for v in needed])
    line(
        "coverage of the 95 % interval",
        "92 to 98 %",
        [f"{covered(ours[s], ours[f'{s} se'], truth[s]):.1%}" for s in SIGMAS],
    )
    difference = truth["beta"] - truth["beta-tilde"]
    alone = math.hypot(*sd["ours"])
    print(
        f"\nbeta less beta-tilde: {difference:+.4f} bits/dim from the same draws and no further evaluation; standard "
        f"deviation {np.std(ours['difference']):.5f} paired, {alone:.5f} from draws of their own: the paired interval "
        f"is {alone / np.std(ours['difference']):.1f} times narrower (asked for: 3); it covers "
        f"{covered(ours['difference'], ours['difference se'], difference):.1%}."
    )


def main() -> None:
    """Build the banks and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--schedules", default="linear,cosine")
    parser.add_argument("--evaluations", type=int, default=8192)
    parser.add_argument("--repetitions", type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    print(INTRO)
    for schedule in args.schedules.split(","):
        world = World(bank(args.out, schedule) | pilots(args.out, schedule), schedule)
        report(world, schedule, args.evaluations, args.repetitions)
        if schedule == "linear":
            report_live(live(args.out, schedule, world, LIVE, LIVE_REPETITIONS), world, LIVE)


if __name__ == "__main__":
    main()
