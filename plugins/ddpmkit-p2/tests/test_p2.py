import numpy as np
import pytest
from ddpmkit import tables_for
from ddpmkit.plugin.registry import Registry
from ddpmkit.testing import checks

REGISTRY = Registry(strict=True)  # one for all: to look for plugins takes a while
build = REGISTRY.build


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_its_weights_are_those_of_the_built_in_one(schedule: str) -> None:
    tables = tables_for(build("schedule", schedule), 100)
    log_sigma2, _ = build("sigma", "beta").log_bounds(tables)
    for gamma in (0, 0.5, 1, 2):
        ours = build("weighting", f"perception:gamma={gamma}").weights(tables, log_sigma2)
        built_in = build("weighting", f"p2:gamma={gamma}:k=1").weights(tables, log_sigma2)
        np.testing.assert_allclose(ours, built_in, rtol=1e-14)
    # On the eps-error it is (1 - alpha-bar)^gamma, since 1 + SNR = 1 / (1 - alpha-bar).
    weights = build("weighting", "perception:gamma=2").weights(tables, log_sigma2)
    np.testing.assert_allclose(weights / tables.snr, (1 - tables.alpha_bars) ** 2)


def test_it_is_found_by_its_name_and_nothing_is_wrong_with_it() -> None:
    entry = REGISTRY.find("weighting", "perception")
    assert (entry.plugin, entry.plugin_version) == ("ddpmkit-p2", "0.1.0")


@pytest.mark.parametrize("check", checks("weighting"), ids=str)
def test_it_satisfies_its_kind(check) -> None:
    check(build("weighting", "perception"))
