"""A data set that is soon evaluated: what the tests of studies share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory) -> str:
    """A spec: the first of scikit-learn's digits, 100 to train, 20 for validation, 60 to test.

    A bound looks at every image of a split; where it is not asked how large the split is, fewer images will do.
    """
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.uint8)
    path = tmp_path_factory.mktemp("digits") / "few.npz"
    np.savez(path, train_images=images[:120], test_images=images[120:180])
    old = path.stat().st_mtime - 60  # a file of this moment is read again, since it may change within its time stamp
    os.utime(path, (old, old))
    return f"npz:path={path}:levels=17:validation=20"


SMALL = {
    "train_steps": 6, "samples": 4, "sampling_steps": 2, "nll_evals": 16, "timesteps": 40, "eval_batch": 8,
    "batch_size": 8, "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "0",
    "metrics": "fd,nll", "warmup": 1,
}  # fmt: skip


def prepared_small(out: Path, dataset: str, **options):
    """Prepare a tiny study, a checkpoint every two steps."""
    from ddpmkit.plugin.registry import Registry
    from ddpmkit.study.prepare import RunOptions, prepare

    given = {**SMALL, "dataset": dataset, **options}
    run_options = RunOptions(1, "cpu", "inline", checkpoint_every=2)
    return prepare(given, out=out, registry=Registry(installed=False), run_options=run_options)


def small_study(out: Path, dataset: str, **options):
    """Run a tiny study, and return how it ended."""
    from ddpmkit.study.runner import run

    return run(prepared_small(out, dataset, **options))


@pytest.fixture(scope="session")
def two_studies_made(tmp_path_factory, few_digits) -> Path:
    """Two studies that share a cell: ``both`` of linear and cosine, ``more`` of linear and sigmoid."""
    out = tmp_path_factory.mktemp("two") / "results"
    small_study(out, few_digits, schedules="linear,cosine", name="both")
    small_study(out, few_digits, schedules="linear,sigmoid", name="more")
    return out


@pytest.fixture
def two_studies(two_studies_made, tmp_path) -> Path:
    """A copy of them, to do with as one likes."""
    return Path(shutil.copytree(two_studies_made, tmp_path / "results"))


@pytest.fixture
def small() -> dict[str, object]:
    """The settings of a tiny study, but for its data."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def run_small(few_digits):
    """What runs a tiny study of the same data."""
    return lambda out, **options: small_study(out, few_digits, **options)


@pytest.fixture
def prepare_small(few_digits):
    """What prepares one, and does not run it."""
    return lambda out, **options: prepared_small(out, few_digits, **options)
