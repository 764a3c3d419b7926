"""Which way a metric is better: by its name word by word, by the record, by the user; and wherever it is written."""

from __future__ import annotations

import pandas as pd
import pytest

from ddpmkit.cli import main
from ddpmkit.report.draw.figures import write_figures
from ddpmkit.report.judge.summarise import summarise
from ddpmkit.report.read.directions import direction, read
from ddpmkit.report.read.foreign import records_of
from ddpmkit.report.show.tables import main_table

HIGHER = (
    "PSNR", "SSIM", "MS-SSIM", "psnr_db", "PSNR (dB)", "test/psnr", "IS", "is", "IS-10k", "Inception Score",
    "inception_score_mean", "AUC", "ROC-AUC", "auroc", "log-likelihood", "log_likelihood", "LogLikelihood",
    "test log likelihood", "ELBO", "accuracy", "val_acc", "acc1", "Top-1 Accuracy", "recall", "Recall@5", "precision",
    "improved_precision", "coverage", "density", "F1", "f1-score", "mIoU", "mAP", "CLIP score", "reward",
    "success rate", "precision-digits", "recall-fd",
)  # fmt: skip
LOWER = (
    "negative log-likelihood", "NegativeLogLikelihood", "neg_log_likelihood", "-log-likelihood", "NLL", "nll_test",
    "bits/dim", "NLL (bits/dim)", "LPIPS", "FID", "FID score", "sFID", "KID", "Frechet Inception Distance", "distance",
    "FD-digits", "FD-precision", "1-SSIM", "1 - accuracy", "accuracy drop", "top-1 error", "recall loss", "MSE", "RMSE",
    "PSNR gap", "training loss", "false positives", "time (s)", "VLB",
)  # fmt: skip
GUESSED = ("history", "what-is-x", "map of tiles", "aucune", "missing", "perceptual path length", "precisely-nothing")


def study(metric, **more):
    values = {"a": [10.0, 11.0, 12.0], "b": [5.0, 6.1, 7.0]}
    rows = [{"cell": c, "train_seed": s, "metric": metric, "value": v, **more} for c, x in values.items()
            for s, v in enumerate(x)]  # fmt: skip
    return records_of(pd.DataFrame(rows))


@pytest.mark.parametrize("metric", HIGHER)
def test_names_that_mean_higher(metric):
    assert direction(metric) == "higher"
    summary = summarise(study(metric))
    assert summary.differences[metric]["b"].verdict == "worse"
    assert main_table(summary).columns[2] == f"{metric} ↑"
    assert not any("guessed" in n for n in summary.notes)


@pytest.mark.parametrize("metric", LOWER)
def test_names_that_hold_such_a_word_and_mean_lower(metric):
    assert direction(metric) == "lower"
    assert not any("guessed" in n for n in summarise(study(metric)).notes)


@pytest.mark.parametrize("metric", [*GUESSED, "log-likelihood (bits/dim)"])
def test_a_guess_is_said_to_be_one(metric):
    summary = summarise(study(metric))
    assert summary.directions[metric] == "lower"
    (note,) = (n for n in summary.notes if "guessed" in n)
    assert f"{metric} lower" in note
    assert "--better" in note
    assert not any("guessed" in n for n in summarise(study(metric, better="higher")).notes)
    said = summarise(study(metric), directions=f"{metric}=higher")
    assert said.directions == {metric: "higher"}
    assert not any("guessed" in n for n in said.notes)


@pytest.mark.long
def test_the_user_says_it_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "theirs.csv"
    study("cost").results[["cell", "train_seed", "metric", "value"]].to_csv(path, index=False)
    assert main(["report", str(path)]) == 0
    assert "cost ↓" in capsys.readouterr().out
    assert main(["report", str(path), "--better", "cost=higher"]) == 0
    assert "cost ↑" in capsys.readouterr().out
    for wrong, said in (("cost=up", "can't be better 'up'"), ("costs=higher", "unknown metric 'costs'")):
        assert main(["report", str(path), "--better", wrong]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("FD-digits", "FD-digits, lower is better"),
        ("precision-digits", "precision-digits, higher is better"),
        ("coverage", "coverage, higher is better"),
        ("recall", "recall, higher is better"),
        ("c2st", "c2st"),
        ("NLL", "NLL bits/dim, lower is better"),
    ],
)
def test_the_axis_of_a_figure_says_the_metrics_own_direction(tmp_path, monkeypatch, metric, said):
    seen = []
    from matplotlib.axes import Axes

    plain = Axes.set_xlabel
    monkeypatch.setattr(Axes, "set_xlabel", lambda self, text, **how: (seen.append(text), plain(self, text, **how))[1])
    write_figures(tmp_path, summarise(study(metric)), [])
    assert seen == [said]


@pytest.mark.parametrize(
    "metric", ["FID improvement", "error reduction", "NLL gain", "bits saved", "delta FD", "SSIM ratio"]
)
def test_of_a_difference_of_metrics_the_name_says_nothing_sure(metric):
    assert not read(metric).sure
