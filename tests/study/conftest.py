"""A data set that is soon evaluated: what the tests of studies share."""

from __future__ import annotations

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
    return f"npz:path={path}:levels=17:validation=20"
