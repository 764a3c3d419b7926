"""A name that is no choice is refused wherever a function branches on it: none may take it for another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpmkit
from ddpmkit import device as devices
from ddpmkit.diffusion.bound_terms import checked_decoder
from ddpmkit.diffusion.clipping import clipped
from ddpmkit.diffusion.labels import labels_of_samples
from ddpmkit.diffusion.spacing import spaced
from ddpmkit.diffusion.tables_for import decoder_log_variance, tables_for
from ddpmkit.distances.folder import read_image_files
from ddpmkit.distances.resize import squared
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood.probability_flow import ode_likelihood
from ddpmkit.training.config import rate
from ddpmkit.training.timesteps import timesteps

GREY = Path("grey.png")
CPU = torch.device("cpu")
CHAIN = tables_for(ddpmkit.build("schedule", "cosine"), 10)
ASKED = {
    "spacing": (lambda name: spaced(name, 10, 3), "evn", "even"),
    "clip": (lambda name: clipped(torch.zeros(1, 4), name), "statik", "static"),
    "timestep_sampling": (lambda name: timesteps(name, 10, CPU), "unifrom", "uniform"),
    "lr_decay": (lambda name: rate(3, 1.0, steps=10, warmup=0, lr_decay=name), "cosin", "cosine"),
    "sample_labels": (lambda name: labels_of_samples(name, np.zeros(3, np.int64), 2, 0), "balance", "balanced"),
    "divergence": (
        lambda name: ode_likelihood(lambda xt, t: xt, CHAIN, torch.zeros(1, 2), levels=None, steps=1, divergence=name),
        "hutchinsen", "hutchinson",
    ),
    "precision": (lambda name: devices.autocast(CPU, name), "fp23", "fp32"),
    "resize": (lambda name: squared(Image.new("L", (4, 4)), 2, name), "bicubik", "bicubic"),
    "colour": (lambda name: read_image_files([GREY], colour=name), "gray", "grey"),
    "decoder": (checked_decoder, "cfd", "cdf"),
    "decoder_variance": (lambda name: decoder_log_variance(CHAIN, name), "tilde", "tilde2"),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_an_unknown_name_is_refused_with_those_that_there_are(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (4, 4)).save(GREY)
    ask, wrong, right = ASKED[what]
    ask(right)
    with pytest.raises(DdpmkitError, match=f"unknown {what} '{wrong}'; did you mean '{right}'") as refused:
        ask(wrong)
    assert right in (refused.value.hint or "")
    with pytest.raises(DdpmkitError, match=f"unknown {what} None$"):
        ask(None)
