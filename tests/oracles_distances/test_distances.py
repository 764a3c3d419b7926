"""Against other people's code: torch-fidelity, pytorch-fid, torchmetrics and prdc, on the same features and images.

They need an environment of their own, with torch-fidelity==0.4.0, pytorch-fid==0.3.0, torchmetrics==1.9.0, prdc==0.2
and transformers.
"""

import numpy as np
import prdc
import pytest
import torch
import torch_fidelity
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import mmd2
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd
from transformers import Dinov2Config, Dinov2Model

from ddpmkit import Images
from ddpmkit.builtin.features import inception
from ddpmkit.distances import frechet_distance, prepare, score
from ddpmkit.distances.kernel import kernel_distance
from ddpmkit.distances.neighbours import neighbour_metrics

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.filterwarnings("ignore"),  # those of the others are theirs
]


@pytest.fixture
def features():
    """Two full-rank sets with an offset, as the features of a network have it."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(64, 64)) / 8
    return rng.normal(size=(3000, 64)) @ mix + 0.4, 1.1 * rng.normal(size=(2500, 64)) @ mix + 0.45


def traces(x, y):
    return np.trace(np.cov(x.T)) + np.trace(np.cov(y.T))


def test_pytorch_fid_on_float64_statistics(features):
    x, y = features
    theirs = calculate_frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert abs(frechet_distance(x, y) - theirs) <= 1e-10 * traces(x, y)


def torch_fidelitys(x, y, dtype):
    stats = [fid_features_to_statistics(torch.from_numpy(v.astype(dtype))) for v in (x, y)]
    return fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]


def test_torch_fidelity_on_float64_features(features):
    x, y = features
    assert abs(frechet_distance(x, y) - torch_fidelitys(x, y, np.float64)) <= 1e-10 * traces(x, y)


def test_torch_fidelity_on_float32_features(features):
    """Its mean is then of single precision."""
    x, y = (v.astype(np.float32) for v in features)
    assert frechet_distance(x, y) == pytest.approx(torch_fidelitys(x, y, np.float32), rel=2e-6)


def test_rank_deficient_sets(features):
    """There the others lose digits: 1e-5 absolute."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 128)) / 12, rng.normal(size=(70, 128)) / 11
    ours = frechet_distance(x, y)
    assert ours == pytest.approx(torch_fidelitys(x, y, np.float64), abs=1e-5)
    theirs = calculate_frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert ours == pytest.approx(theirs, abs=1e-4)  # it adds 1e-6 to the diagonals where its root is not finite


class Flat(torch.nn.Module):
    """Features straight from pixels, for torchmetrics' interface."""

    num_features = 48

    def forward(self, x):
        return x.flatten(1).double() / 255


def test_torchmetrics_with_a_module_of_ones_own():
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(rng.integers(0, high, (400, 3, 4, 4)).astype(np.uint8)) for high in (256, 200))
    metric = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    metric.update(a, real=False)
    metric.update(b, real=True)
    x, y = (v.flatten(1).numpy() / 255 for v in (a, b))
    assert frechet_distance(x, y) == pytest.approx(float(metric.compute()), rel=1e-7)


def test_kid_on_all_samples(features):
    """Their subsets of the whole size are the complete U-statistic, in equal numbers."""
    x, y = (v[:400] for v in features)
    ours = kernel_distance(x, y, standardise=False).value
    kernels = [(a @ b.T / 64 + 1) ** 3 for a, b in ((x, x), (x, y), (y, y))]
    k_xx, k_xy, k_yy = kernels
    assert ours == pytest.approx(mmd2(k_xx, k_xy, k_yy, mmd_est="unbiased"), rel=1e-9)
    theirs = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y), 3, None, 1.0))
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("k", [3, 5])
def test_prdc(features, k):
    x, y = (v[:700] for v in features)
    theirs = prdc.compute_prdc(real_features=y, fake_features=x, nearest_k=k)
    ours = {name: m.value for name, m in neighbour_metrics(x, y, k=k).items()}
    assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A file of the right layout whose weights are random, scaled so that features vary."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    torch.manual_seed(0)
    network = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    load = torch.nn.Module.load_state_dict
    fetch = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *args, **kwargs: {}
    torch.nn.Module.load_state_dict = lambda self, state, *args, **kwargs: None
    try:
        network.__init__("inception", ["2048"])
    finally:
        module.load_state_dict_from_url, torch.nn.Module.load_state_dict = fetch, load
    for name, value in network.named_parameters():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


class RandomInception(inception.Inception):
    """The whole path of the built-in extractor, its hash check left out in so many words."""

    name = "inception"
    path = None

    def fingerprint(self):
        return "0" * 64

    def load(self, data):
        return inception.extractor(type(self).path, data, verified=False)


class InMemory(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.from_numpy(self.images[index])


@pytest.mark.parametrize("size", [32, 299])
def test_the_whole_path_from_images_to_a_number_is_torch_fidelitys(random_weights, size):
    """uint8 images in, one number out: 1e-4 relative, the resize included."""
    rng = np.random.default_rng(3)
    coarse = [rng.integers(0, high, (16, 3, 4, 4)) for high in (256, 180)]
    grow = -(-size // 4)
    sets = [c.repeat(grow, 2).repeat(grow, 3)[:, :, :size, :size].astype(np.uint8) for c in coarse]
    theirs = torch_fidelity.calculate_metrics(
        input1=InMemory(sets[0]), input2=InMemory(sets[1]), fid=True, cuda=False, verbose=False, cache=False,
        batch_size=8, feature_extractor_weights_path=str(random_weights),
    )["frechet_inception_distance"]  # fmt: skip
    RandomInception.path = random_weights
    data = Images(sets[1], sets[1][:0], sets[1], 256, {})
    panel = score(sets[0], prepare(data, RandomInception()), metrics=["fd"])
    assert panel["fd"].details["plain"] == pytest.approx(theirs, rel=1e-4)
    assert theirs > 0
    assert panel.protocol["label"] == "FD-inception"  # unverified: never the word


def test_grey_images_are_three_equal_channels(random_weights):
    rng = np.random.default_rng(4)
    grey = rng.integers(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    colour = grey.repeat(3, axis=1)
    got = [inception.extractor(random_weights, Images(v, v, v, 256, {}), verified=False)(v) for v in (grey, colour)]
    np.testing.assert_array_equal(*got)
    assert got[0].shape == (5, 2048)
    assert got[0].std(0).max() > 0


def test_the_weights_are_refused_where_the_check_is_not_left_out(random_weights):
    from ddpmkit.errors import DdpmkitError

    data = Images(*(np.zeros((3, 1, 8, 8), np.uint8),) * 3, 256, {})
    with pytest.raises(DdpmkitError, match=r"is another file|is cut short"):
        inception.Inception(weights=str(random_weights)).load(data)


def test_dinov2_against_transformers(tmp_path):
    """A small random network of theirs, saved by them, read by us; the resize is the identity at 224."""
    import hashlib

    from ddpmkit.builtin.features.dinov2 import DinoV2

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=518, patch_size=14)
    theirs = Dinov2Model(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 224, 224)).astype(np.uint8)
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = theirs((torch.from_numpy(images).float() / 255 - mean) / sd).pooler_output.numpy()
    ours = DinoV2(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    got = ours.load(Images(images, images, images, 256, {}))(images)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(got).max() > 0.1
