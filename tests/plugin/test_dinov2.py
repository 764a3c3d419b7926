"""DINOv2 features from a file: its hash, its layout, its arithmetic in plain numpy, and what is refused."""

import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

from ddpmkit import Images, build
from ddpmkit import device as devices
from ddpmkit.distances import distance_label
from ddpmkit.errors import DdpmkitError

WIDTH, DEPTH, SIDE = 128, 2, 16


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that fight for the cores are slower than one."""
    with devices.one_thread():
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small random network under the names of the published files."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=0.05):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    w = {
        "embeddings.cls_token": normal(1, 1, WIDTH),
        "embeddings.mask_token": normal(1, WIDTH),
        "embeddings.position_embeddings": normal(1, SIDE**2 + 1, WIDTH),
        "embeddings.patch_embeddings.projection.weight": normal(WIDTH, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": normal(WIDTH),
        "layernorm.weight": 1 + normal(WIDTH),
        "layernorm.bias": normal(WIDTH),
    }
    for i in range(DEPTH):
        at = f"encoder.layer.{i}."
        for name in ("norm1", "norm2"):
            w |= {f"{at}{name}.weight": 1 + normal(WIDTH), f"{at}{name}.bias": normal(WIDTH)}
        linear = {f"attention.attention.{n}": (WIDTH, WIDTH) for n in ("query", "key", "value")}
        linear |= {
            "attention.output.dense": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }
        for name, shape in linear.items():
            w |= {f"{at}{name}.weight": normal(*shape, scale=0.2), f"{at}{name}.bias": normal(shape[0])}
        w |= {f"{at}layer_scale{n}.lambda1": normal(WIDTH, scale=1) for n in (1, 2)}
    path = tmp_path_factory.mktemp("dinov2") / "model.safetensors"
    save_file(w, path)
    return path, w


def spec(path):
    return f"dinov2:path={path}:sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"


def naive(w, images):
    """(N, 3, 224, 224) in [0, 1] -> (N, WIDTH), with loops over heads."""

    def norm(x, at):
        z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return z * w[f"{at}.weight"] + w[f"{at}.bias"]

    def linear(x, at):
        return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]

    x = (images - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    n = len(x)
    patches = x.reshape(n, 3, SIDE, 14, SIDE, 14).transpose(0, 2, 4, 1, 3, 5).reshape(n, SIDE**2, -1)
    kernel = w["embeddings.patch_embeddings.projection.weight"].reshape(WIDTH, -1)
    h = patches @ kernel.T + w["embeddings.patch_embeddings.projection.bias"]
    h = np.concatenate([np.repeat(w["embeddings.cls_token"], n, 0), h], 1) + w["embeddings.position_embeddings"]
    for i in range(DEPTH):
        at = f"encoder.layer.{i}."
        z = norm(h, f"{at}norm1")
        q, k, v = (linear(z, f"{at}attention.attention.{name}") for name in ("query", "key", "value"))
        heads = []
        for s in (slice(0, 64), slice(64, 128)):
            score = np.exp(q[..., s] @ k[..., s].transpose(0, 2, 1) / 8)
            heads.append(score / score.sum(-1, keepdims=True) @ v[..., s])
        out = linear(np.concatenate(heads, -1), f"{at}attention.output.dense")
        h = h + w[f"{at}layer_scale1.lambda1"] * out
        z = linear(norm(h, f"{at}norm2"), f"{at}mlp.fc1")
        z = linear(z * (1 + erf(z / np.sqrt(2))) / 2, f"{at}mlp.fc2")
        h = h + w[f"{at}layer_scale2.lambda1"] * z
    return norm(h[:, 0], "layernorm")


def images(channels=3, size=224, levels=256, n=3):
    array = np.random.default_rng(1).integers(0, levels, (n, channels, size, size)).astype(np.uint8)
    return Images(array, array, array, levels, {})


def test_features_are_the_network_of_the_file(weights):
    path, w = weights
    data = images()
    features = build("features", spec(path))
    got = features.load(data)(data.test)
    np.testing.assert_allclose(got, naive(w, data.test / 255), rtol=2e-3, atol=2e-4)
    assert features.fingerprint() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert distance_label(features) == f"FD-dinov2{features.fingerprint()[:8]}"


def test_grey_images_of_any_size_and_any_batches(weights):
    path, _ = weights
    data = images(channels=1, size=28, levels=17, n=10)
    extract = build("features", spec(path)).load(data)
    whole = extract(data.test)
    assert whole.shape == (10, WIDTH)
    assert whole.std(0).min() > 0
    np.testing.assert_allclose(np.concatenate([extract(data.test[:3]), extract(data.test[3:])]), whole, atol=1e-5)
    colour = Images(*(data.test.repeat(3, axis=1),) * 3, 17, {})
    np.testing.assert_allclose(extract(colour.test), whole, atol=1e-5)


def test_a_file_is_checked_against_the_stated_hash(weights, tmp_path):
    path, _ = weights
    data = images(n=1)
    with pytest.raises(DdpmkitError, match="needs the SHA-256"):
        build("features", f"dinov2:path={path}").load(data)
    with pytest.raises(DdpmkitError, match="is another file"):
        build("features", f"dinov2:path={path}:sha256={'0' * 64}").load(data)
    with pytest.raises(DdpmkitError, match="there is no file"):
        build("features", f"dinov2:path=/no/such:sha256={'0' * 64}").load(data)
    with pytest.raises(DdpmkitError, match="1 or 3 channels, not 2"):
        build("features", spec(path)).load(images(channels=2, n=1))


@pytest.mark.parametrize("change", ["text", "empty", "foreign", "missing", "shape"])
def test_a_file_of_another_network_is_refused(weights, tmp_path, change):
    _, w = weights
    path = tmp_path / "model.safetensors"
    w = dict(w)
    if change == "foreign":
        w = {"fc.weight": np.zeros((2, 2), np.float32)}
    elif change == "missing":
        del w["encoder.layer.1.mlp.fc1.weight"]
    elif change == "shape":
        w["layernorm.bias"] = np.zeros(3, np.float32)
    elif change == "empty":
        w = {}
    save_file(w, path)
    if change == "text":
        path.write_text("no tensors")
    with pytest.raises(DdpmkitError, match="holds no DINOv2 network"):
        build("features", spec(path)).load(images(n=1))
