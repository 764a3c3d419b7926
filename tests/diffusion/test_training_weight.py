"""The weight over log-SNR: flat under the bound in full, the schedule's density under ``simple``, in every space."""

from __future__ import annotations

import numpy as np
import pytest

from ddpmkit import build
from ddpmkit.diffusion.curves import eps_weights
from ddpmkit.diffusion.tables_for import decoder_log_variance, fixed_log_variance, tables_for
from ddpmkit.diffusion.training_weight import training_weight, widths
from ddpmkit.errors import DdpmkitError


def log_variances(tables):
    out = fixed_log_variance(build("sigma", "beta"), tables).copy()
    out[0] = decoder_log_variance(tables)
    return out


def weight(schedule, weighting, prediction="eps", T=1000):
    tables = tables_for(build("schedule", schedule), T)
    return training_weight(
        tables, build("weighting", weighting), build("prediction", prediction), log_variances(tables)
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid", "zero-snr", "random-walk"])
@pytest.mark.parametrize("weighting", ["simple", "vlb", "min-snr"])
def test_it_is_a_density(schedule, weighting):
    log_snr, found = weight(schedule, weighting)
    assert (np.diff(log_snr) < 0).all()
    assert (found >= 0).all()
    assert (found * widths(log_snr)).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
def test_the_bound_in_full_weighs_every_log_snr_alike(schedule):
    """Kingma et al. 2021, eq. 18: one half of the eps-error for each unit of log SNR, whatever the schedule."""
    log_snr, found = weight(schedule, "vlb", T=4000)
    inside = (log_snr > -4) & (log_snr < 4)
    assert found[inside].max() / found[inside].min() < 1.02


def test_under_simple_it_is_the_schedules_density():
    """Of the cosine schedule without its offset log SNR = -2 ln tan(pi u / 2), so p = sech(lambda / 2) / (2 pi)."""
    log_snr, found = weight("cosine:s=0", "simple", T=4000)
    inside = np.abs(log_snr) < 6
    assert np.allclose(found[inside], 1 / (2 * np.pi * np.cosh(log_snr[inside] / 2)), rtol=2e-3)


def test_a_weight_on_the_predictions_own_error_is_turned_into_one_on_eps():
    """||v - vhat||^2 = (SNR + 1) ||x0 - x0hat||^2 = (1 + 1 / SNR) ||eps - epshat||^2."""
    log_snr, plain = weight("cosine", "native", "eps")
    _, v = weight("cosine", "native", "v")
    ratio = v / plain / (1 + np.exp(-log_snr))
    assert np.allclose(ratio, ratio[0])
    assert np.allclose(plain, weight("cosine", "simple")[1])


def test_what_is_weighed_is_what_the_training_weighs():
    """Times the width it is the factor of each step, as the loss has it, over their sum."""
    tables = tables_for(build("schedule", "linear"), 50)
    log_sigma2, truncated = log_variances(tables), build("weighting", "vlb")
    log_snr, found = training_weight(tables, truncated, build("prediction", "x0"), log_sigma2)
    factors = eps_weights(truncated, tables, log_sigma2)
    assert np.allclose(found * widths(log_snr), factors / factors.sum())


def test_a_weighting_without_weight_where_there_is_signal_is_refused():
    tables = tables_for(build("schedule", "zero-snr"), 50)

    class Last(type(build("weighting", "simple"))):
        def weights(self, tables, log_sigma2):
            return np.r_[np.zeros(tables.T - 1), 1.0]

    with pytest.raises(DdpmkitError, match="no weight where there is signal"):
        training_weight(tables, Last(), build("prediction", "x0"), log_variances(tables))
