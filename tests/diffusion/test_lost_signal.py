"""A prediction that divides by a factor is refused where float32, in which it divides, has lost the factor."""

import numpy as np
import pytest
import torch

import ddpmkit
from ddpmkit.diffusion.denoise import Denoiser
from ddpmkit.diffusion.objective import check_possible
from ddpmkit.diffusion.tables_for import tables_for
from ddpmkit.errors import DdpmkitError
from ddpmkit.likelihood import bits_per_dim
from ddpmkit.likelihood.probability_flow import Continuum, from_network, ode_likelihood


def chain(schedule, T=1000):
    return tables_for(ddpmkit.build("schedule", schedule), T)


def x0hat_is_finite(name, tables):
    t = torch.arange(tables.T)
    xt = torch.ones(len(t), 1, 1, 1)
    hat, _ = Denoiser.of(tables, ddpmkit.build("prediction", name)).read(xt, t, torch.zeros_like(xt))
    return bool(torch.isfinite(hat).all())


@pytest.mark.parametrize(("name", "first"), [("eps", 782), ("mu", 769)])
def test_a_chain_that_goes_on_without_signal_is_refused_before_the_network_is_blamed(name, first):
    """The smallest normal float32 is 1.2e-38; m_t = 0.8^((t + 1) / 2), and c_t = 0.2 * 0.8^(t / 2) where S_t is 1."""
    tables, prediction = chain("constant:beta=0.2"), ddpmkit.build("prediction", name)
    assert tables.signal.all()
    assert not x0hat_is_finite(name, tables)
    with pytest.raises(
        DdpmkitError, match=rf"{name}-prediction divides by .* at step {first} of 1000, less than float32"
    ):
        check_possible(prediction, tables)
    with pytest.raises(DdpmkitError, match="less than float32 holds"):
        bits_per_dim(lambda xt, t: xt, np.zeros((2, 1, 2, 2), int), schedule=tables, prediction=name, levels=3)
    check_possible(prediction, tables.strided(range(first)))
    assert x0hat_is_finite(name, tables.strided(range(first)))


def test_the_flow_ends_where_float32_has_lost_the_signal():
    """x_t is noise alone there: the exact network of unit Gaussian data, eps = S_t x_t, has their density."""
    tables, x0 = chain("constant:beta=0.2"), torch.tensor([[0.3, -0.8]])
    scales = torch.from_numpy(np.sqrt(tables.noise2)).float()
    predict = from_network(
        lambda x, time: scales[(time * tables.T / 1000).long()][:, None] * x, tables, ddpmkit.build("prediction", "eps")
    )
    assert Continuum.of(tables).last == 781
    assert np.isfinite(ode_likelihood(predict, tables, x0, levels=None, steps=4).total)


@pytest.mark.parametrize("name", ["x0", "v"])
def test_what_divides_by_nothing_goes_on(name):
    tables = chain("constant:beta=0.2")
    check_possible(ddpmkit.build("prediction", name), tables)
    assert x0hat_is_finite(name, tables)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "laplace", "jsd", "sigmoid-gamma", "one-minus-t"])
@pytest.mark.parametrize("name", ["eps", "mu"])
def test_no_usual_chain_is_refused(name, schedule):
    for T in (200, 4000):
        tables = chain(schedule, T)
        if tables.signal.all():
            check_possible(ddpmkit.build("prediction", name), tables)
