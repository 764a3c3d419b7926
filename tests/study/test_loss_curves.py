"""``plot loss``: each cell's weight and losses over log-SNR beside the optimal ones, out of a study's own draws."""

from __future__ import annotations

import numpy as np
import pytest

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.diffusion.training_weight import widths
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.draw.losses import losses_figure
from ddpmkit.study.loss_curves import loss_curves

TINY = {
    "dataset": "mixture:size=4:train=40:validation=20:test=30", "train_steps": 2, "timesteps": 50, "eval_batch": 64,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "executor": "inline", "on_event": lambda _: None,
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    ddpmkit.ablate(
        **TINY, schedules="cosine,linear", weightings="simple,vlb", train_seeds="0,1", metrics="nll", nll_evals=64,
        sampling_steps="3,7", name="tiny", out=out,
    )  # fmt: skip
    ddpmkit.ablate(**TINY, train_seeds="0", metrics="fd", samples=4, sampling_steps="3", features="pca:k=4",
                   name="no-nll", out=out)  # fmt: skip
    return out


@pytest.mark.long
def test_every_training_has_its_weight_and_a_loss_a_seed_and_split(out):
    found = loss_curves(out / "studies" / "tiny", Registry(installed=False), draws=300)
    names = [f"{s} {w}" for s in ("cosine", "linear") for w in ("simple", "vlb")]
    assert sorted(found.weights) == names  # sampling steps share a network
    for log_snr, weight in found.weights.values():
        assert len(log_snr) == 50
        assert (weight * widths(log_snr)).sum() == pytest.approx(1.0)
    simple, vlb = (found.weights[f"cosine {w}"][1] for w in ("simple", "vlb"))
    assert np.abs(simple - vlb).max() > 0.01
    for split in ("train", "test"):
        assert sorted(found.losses[split]) == names
        assert {len(drawn) for drawn in found.losses[split].values()} == {2}
        best = found.optimal[split][""]
        assert found.linear is not None
        assert len(best.log_snr) == len(found.linear[0]) == 64
    # An untrained network is far above the optimum.
    train, best = found.losses["train"]["cosine simple"][0], found.optimal["train"][""]
    drawn = np.isfinite(train.eps_loss)
    assert np.median(train.eps_loss[drawn] / np.interp(train.log_snr[drawn], best.log_snr, best.eps_loss)) > 1.5
    held_out = found.optimal["test"][""]
    assert held_out.eps_loss[-1] > 100 * best.eps_loss[-1]  # a copier does not know the others


@pytest.mark.long
def test_the_figure_has_a_line_for_each_and_says_which(out):
    found = loss_curves(out / "studies" / "tiny", Registry(installed=False), draws=300)
    weights, train, test = losses_figure(found).axes
    assert [t.get_text() for t in weights.get_legend().get_texts()] == list(found.weights)
    for axis, optimal in ((train, "optimal: none lies below"), (test, "optimal for the training images: a copier")):
        assert [t.get_text() for t in axis.get_legend().get_texts()] == [optimal, "linear-Gaussian denoiser"]
        assert len(axis.lines) == 4 * 2 + 2


@pytest.mark.long
def test_the_command_writes_it_and_runs_no_network(out, tmp_path, capsys, monkeypatch):
    import torch

    def refuse(*_, **__):
        raise AssertionError("a network ran")

    monkeypatch.setattr(torch.nn.Module, "__call__", refuse)
    path = tmp_path / "loss.svg"
    assert main(["plot", "loss", "tiny", "--out", str(out), "--to", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().err
    assert "<svg" in path.read_text()


@pytest.mark.long
def test_a_study_without_a_likelihood_is_refused_in_two_lines(out, capsys):
    assert main(["plot", "loss", "no-nll", "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "has no likelihood that is drawn" in said[0]
    typed = said[1].removeprefix("hint: ddpmkit ").partition(", or ")[0].split()
    assert main([*typed, "--dry-run", "--no-probe", "--out", str(out)]) == 0  # a growing study may lose no metric
