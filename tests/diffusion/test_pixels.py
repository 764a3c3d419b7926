"""Grey levels and pixel values are one map, there and back, for every number of levels."""

import numpy as np
import pytest
import torch

from ddpmkit.pixels import quantise, to_pixels


@pytest.mark.parametrize("count", range(2, 257))
def test_there_and_back(count):
    levels = torch.arange(count, dtype=torch.uint8)
    pixels = to_pixels(levels, count)
    assert pixels.dtype == torch.float32
    assert pixels[0] == -1
    assert pixels[-1] == pytest.approx(1, abs=2e-7)
    exact = -1 + 2 * np.arange(count) / (count - 1)
    np.testing.assert_allclose(pixels.double().numpy(), exact, atol=2e-7)
    assert torch.equal(quantise(pixels, count), levels)


@pytest.mark.parametrize("count", [2, 17, 256])
def test_quantising_rounds_to_the_nearest_level(count):
    """Truncating would shift every pixel by half a level on average."""
    spacing = 2 / (count - 1)
    levels = torch.arange(count, dtype=torch.uint8)
    for share in (-0.49, -0.2, 0.2, 0.49):
        assert torch.equal(quantise(to_pixels(levels, count) + share * spacing, count), levels)


@pytest.mark.parametrize("count", [2, 17, 256])
def test_quantising_clamps(count):
    pixels = torch.tensor([-torch.inf, -9.0, -1.0001, 1.0001, 9.0, torch.inf])
    assert quantise(pixels, count).tolist() == [0, 0, 0, count - 1, count - 1, count - 1]


def test_known_values_and_shapes():
    assert to_pixels(torch.tensor([[0, 8], [12, 16]], dtype=torch.uint8), 17).tolist() == [[-1, 0], [0.5, 1]]
    assert to_pixels(torch.tensor([0, 255], dtype=torch.uint8), 256).tolist() == [-1, 1]
    out = quantise(torch.zeros(2, 1, 3, 3), 17)
    assert out.shape == (2, 1, 3, 3)
    assert out.dtype == torch.uint8
    assert bool((out == 8).all())
