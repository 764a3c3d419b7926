"""What a metric's name says: which way is better, and whether it ranks anything."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from ddpmkit.errors import DdpmkitError

Direction = Literal["lower", "higher", "none"]

# A p-value says whether there is a difference, not how large it is; a check has a wrong side on either end.
NOTHING = ("two-sample", "c2st", "copy", "p-value")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Whole words of a name, in lower case: there is no "is" in "distance".
HIGHER = _set(
    "precision recall density coverage accuracy acc auc auroc auprc f1 iou miou map dice psnr ssim msssim vif vmaf "
    "similarity correlation pearson spearman r2 is isc loglikelihood loglik likelihood logprob logp ll elbo "
    "sensitivity specificity success reward win winrate bleu rouge clipscore aesthetic fidelity diversity fps"
)
LOWER = _set(
    "fd fid sfid fvd fad kid cmmd mmd sw swd wasserstein emd distance divergence kl js nll bpd bpp bits nats vlb "
    "perplexity loss error err mse rmse nrmse mae lpips dists dssim dissimilarity niqe brisque brier ece "
    "time seconds latency memory flops parameters nfe"
)
# What makes a bad thing of a good one, wherever it stands: negative log-likelihood, accuracy drop, false positives.
TURNED = _set("negative neg minus loss error err drop gap false failure miss")
# A difference of a metric, which may have either sign: "FID improvement", "bits saved".
CHANGE = _set("improvement gain reduction increase decrease saved saving savings change delta diff difference ratio")
OWN = _set("fd kid sw nll precision recall density coverage")
SCORE = _set("score index")  # good, unless the name says of what: a FID score is a FID


class Read(NamedTuple):
    """What a name says.

    Attributes:
        way: the direction.
        sure: False where the name has no telling word, or one for each way.
    """

    way: Direction
    sure: bool


def direction(metric: str) -> Direction:
    """Return which way a metric is better by its name: ``precision-digits`` is better when higher."""
    return read(metric).way


def read(metric: str) -> Read:
    """Read a metric's direction from the words of its name; where nothing tells, lower is taken for better.

    ``1 - SSIM``, a leading minus and words such as "negative" turn round what is better when higher. Behind the name of
    one of ddpmkit's own metrics stands the extractor's, which may be anything; of other words that disagree lower wins,
    and it is not sure.
    """
    name = re.sub(r"[\s_]+", "-", metric.strip().lower())
    if any(name == word or name.startswith(f"{word}-") for word in NOTHING):
        return Read("none", True)
    words = _words(metric)
    if CHANGE.intersection(words):
        return Read("lower", False)
    if TURNED.intersection(words) or re.match(r"(1\s*)?[-\u2010-\u2015\u2212]", metric.strip()):
        return Read("lower", True)
    if words[:1] and words[0] in OWN:
        return Read("higher" if words[0] in HIGHER else "lower", True)
    high, low = HIGHER.intersection(words), LOWER.intersection(words)
    if not high and not low:
        return Read("higher", True) if SCORE.intersection(words) else Read("lower", False)
    return Read("lower" if low else "higher", not (high and low))


def as_direction(text: str, metric: str) -> Direction:
    """Read a direction that somebody wrote.

    Raises:
        DdpmkitError: for any other word.
    """
    known: dict[str, Direction] = {"lower": "lower", "higher": "higher", "none": "none"}
    if text not in known:
        raise DdpmkitError(f"metric '{metric}' can't be better '{text}'", f"use one of {', '.join(known)}")
    return known[text]


def arrow(given: str) -> str:
    """Return the arrow behind a metric's name in a head."""
    return {"lower": " ↓", "higher": " ↑"}.get(given, "")


def in_words(given: str) -> str:
    """Return what stands behind a metric's name at an axis; nothing for one that ranks nothing."""
    return {"lower": ", lower is better", "higher": ", higher is better"}.get(given, "")


def _words(metric: str) -> list[str]:
    """The words of a name in lower case: between signs, and where that is no word known here, between capitals too."""
    joined = re.sub(r"(?i)\blog[\s-]+(?=likelihood|lik|prob|p\b)", "log", metric.replace("_", " "))
    alone = re.fullmatch(r"\W*(is|map)\W*(\d+k?)?\W*", metric, re.IGNORECASE) is not None
    out = []
    for part in re.findall(r"[^\W_]+", joined):
        if part in ("is", "Is", "map", "Map") and not alone:  # words of plain English; IS and mAP are metrics
            continue
        pieces = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", part)
        out += [part.lower()] if part.lower() in HIGHER | LOWER | TURNED | SCORE else [p.lower() for p in pieces]
    return out
