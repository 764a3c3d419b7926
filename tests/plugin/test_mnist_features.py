"""The shipped MNIST classifier: its hash, its size, its arithmetic, and what it refuses."""

import hashlib

import numpy as np
import pytest
from safetensors.numpy import load_file

from ddpmkit import Images, build
from ddpmkit.builtin.features import mnist
from ddpmkit.errors import DdpmkitError


def images(shape=(5, 1, 28, 28), levels=256):
    array = np.random.default_rng(0).integers(0, levels, shape).astype(np.uint8)
    return Images(array, array, array, levels, {})


def test_the_shipped_file_is_small_and_has_the_recorded_hash():
    blob = mnist.WEIGHTS.read_bytes()
    assert len(blob) < 200_000
    assert build("features", "mnist").fingerprint() == hashlib.sha256(blob).hexdigest()


def test_features_are_the_network_of_the_shipped_file():
    w = {k: v.astype(np.float64) for k, v in load_file(mnist.WEIGHTS).items()}

    def conv(x, name, stride):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
        return np.maximum(np.einsum("nchwij,ocij->nohw", windows, w[f"{name}.weight"])
                          + w[f"{name}.bias"][:, None, None], 0)  # fmt: skip

    data = images()
    h = data.test.astype(np.float64) / 127.5 - 1
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 2)):
        h = conv(h, name, stride)
    expected = h.reshape(5, -1) @ w["hidden.weight"].T + w["hidden.bias"]
    np.testing.assert_allclose(build("features", "mnist").load(data)(data.test), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("shape", "levels"), [((5, 1, 32, 32), 256), ((5, 3, 28, 28), 256), ((5, 1, 28, 28), 17)])
def test_other_images_are_refused(shape, levels):
    with pytest.raises(DdpmkitError, match="features 'mnist' are for 28x28 images with 256 levels"):
        build("features", "mnist").load(images(shape, levels))


def test_tampered_or_missing_weights_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "mnist.safetensors"
    monkeypatch.setattr(mnist, "WEIGHTS", path)
    with pytest.raises(DdpmkitError, match=r"can't read mnist\.safetensors"):
        build("features", "mnist").load(images())
    path.write_bytes(b"\0" * 100)
    with pytest.raises(DdpmkitError, match="not the file that was shipped"):
        build("features", "mnist").load(images())


def test_pixels_are_the_pixels_and_large_images_are_refused():
    data = images((4, 1, 8, 8), 17)
    got = build("features", "pixels").load(data)(data.test)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, data.test.reshape(4, 64))
    with pytest.raises(DdpmkitError, match="at most 4096 values, not 12288"):
        build("features", "pixels").load(images((2, 3, 64, 64)))
