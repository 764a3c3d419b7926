"""The error that stems from the choice of the images: its square is unbiased, however few images there are."""

import math

import numpy as np
import pytest

from ddpmkit.likelihood.draws import SweepSums
from ddpmkit.likelihood.evidence import Evidence

OWN = np.array([1.0, 1.2, 0.7, 0.9, 1.4])  # what each image costs
N = len(OWN)
TRUTH = OWN.var(ddof=1) / N
NONE = np.zeros(0)
SUMS = SweepSums(NONE, NONE, NONE, NONE)
REPLICATES = 4


def swept(rng):
    totals = np.tile(OWN / 2, REPLICATES) + rng.normal(size=REPLICATES * N) * 0.6
    decoder = OWN / 2 + rng.normal(size=(2, N)) * 0.5
    return Evidence(np.zeros(N), decoder, NONE, NONE, np.zeros(0, np.int64), REPLICATES, totals, NONE, SUMS)


def sampled(rng):
    image = np.tile(np.arange(N), 2 * REPLICATES)
    values = OWN[image] / 2 + rng.normal(size=len(image)) * 0.6
    decoder = OWN / 2 + rng.normal(size=(2, N)) * 0.5
    return Evidence(np.zeros(N), decoder, values, values, image, REPLICATES, NONE, NONE, None)


@pytest.mark.parametrize("how", [swept, sampled])
def test_the_variance_over_images_is_unbiased(how):
    rng = np.random.default_rng(0)
    found = np.array([how(rng).test_set_variance() for _ in range(3000)])
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert found.mean() == pytest.approx(TRUTH, abs=4 * error)
    assert error < TRUTH / 12  # what a mean of five takes with it is a third of the truth here, and more


def test_without_noise_it_is_the_variance_itself_and_its_root_the_error():
    exact = Evidence(
        np.zeros(N), np.stack([OWN, OWN]), NONE, NONE, np.zeros(0, np.int64), 2, np.zeros(2 * N), NONE, SUMS
    )
    assert exact.test_set_error() == pytest.approx(math.sqrt(TRUTH))
