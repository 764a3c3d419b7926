"""``ddpmkit likelihood``: a number that there is none of is said so, and its JSON is JSON."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.cli import main
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import Diverged, Exit
from ddpmkit.likelihood import bound, draw
from ddpmkit.study import bound_training
from ddpmkit.study.records import BoundRecord


@pytest.fixture(scope="module")
def unknown():
    """The bound of one image with one draw at t=1, which has no Monte-Carlo error."""
    tables, x = tables_for(ddpmkit.build("schedule", "cosine"), 12), torch.zeros(1, 1, 2, 2)
    draws = draw(lambda xt, t: (xt, None), tables, images=x, pilot=x, levels=3, evaluations=1000, decoder_draws=1)
    return bound(draws, tables, np.log(tables.b2), 0.0, levels=3)


def test_what_is_not_finite_is_left_out_of_a_record(unknown):
    assert math.isnan(unknown.standard_error)
    record = BoundRecord.of(unknown)
    assert (record.standard_error, record.test_set_error) == (None, None)
    json.dumps(asdict(record), allow_nan=False)


def test_the_command_says_that_an_error_is_not_resolved(unknown, monkeypatch, capsys):
    one = asdict(BoundRecord.of(unknown))
    said = {
        "clipped": one, "unclipped": one, "given": None, "label": "train of c seed 0", "steps": 12, "T": 12,
        "images": 1, "split": "test", "ema": 0.9, "sigma": "beta", "decoder": "cdf", "decoder_variance": "tilde2",
        "evaluations": 1, "full_sweep": 12,
    }  # fmt: skip
    monkeypatch.setattr(bound_training, "bound_training", lambda *_, **__: said)
    assert main(["likelihood", "abc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clipped"]["standard_error"] is None
    assert main(["likelihood", "abc"]) == 0
    assert capsys.readouterr().out.count("not resolved") == 4


def test_a_network_that_diverges_is_no_defect_of_ours(monkeypatch, capsys):
    def diverges(*_, **__):
        raise Diverged("x0hat is not finite at step 3 of image 0")

    monkeypatch.setattr(bound_training, "bound_training", diverges)
    assert main(["likelihood", "abc"]) == Exit.FAILED
    err = capsys.readouterr().err
    assert "diverged: x0hat is not finite at step 3 of image 0" in err
    assert "internal error" not in err
