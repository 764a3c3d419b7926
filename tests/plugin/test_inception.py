"""The Inception extractor without its weights: where it looks, what it refuses, what it says."""

import http.client
import sys
from pathlib import Path

import numpy as np
import pytest

from ddpmkit import Images, build
from ddpmkit.builtin.features import inception
from ddpmkit.distances import distance_label
from ddpmkit.errors import DdpmkitError

GREY = Images(*(np.zeros((3, 1, 8, 8), np.uint8),) * 3, 17, {})


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A home without weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("DDPMKIT_WEIGHTS", raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


def refused(**options):
    with pytest.raises(DdpmkitError) as caught:
        inception.Inception(**options).load(GREY)
    assert caught.value.hint
    return caught.value


def test_missing_weights_are_an_error_that_lists_the_places(tmp_path, nowhere, monkeypatch):
    message = refused().message
    assert all(str(nowhere / name) in message for name in inception.NAMES)
    monkeypatch.setenv("DDPMKIT_WEIGHTS", str(tmp_path))
    message = refused().message
    assert all(str(place / name) in message for name in inception.NAMES for place in (tmp_path, nowhere))
    message = refused(weights="/no/such/file.pth").message
    assert "/no/such/file.pth" in message
    assert str(nowhere) not in message  # never another file than the one that was named


def test_the_places_come_in_order(tmp_path, nowhere, monkeypatch):
    nowhere.mkdir(parents=True)
    (nowhere / inception.NAMES[1]).write_bytes(b"x")
    assert inception.find() == nowhere / inception.NAMES[1]
    (nowhere / inception.NAMES[0]).write_bytes(b"x")
    assert inception.find() == nowhere / inception.NAMES[0]
    own = tmp_path / "own.pth"
    own.write_bytes(b"x")
    monkeypatch.setenv("DDPMKIT_WEIGHTS", str(own))
    assert inception.find() == own
    assert inception.find(str(nowhere / inception.NAMES[1])) == nowhere / inception.NAMES[1]


def test_the_hub_cache_is_torchs_own(monkeypatch):
    import torch

    for variable, value in (("TORCH_HOME", "/a"), ("TORCH_HOME", None), ("XDG_CACHE_HOME", "/b")):
        if value is None:
            monkeypatch.delenv(variable)
        else:
            monkeypatch.setenv(variable, value)
        assert inception.hub_cache() == Path(torch.hub.get_dir()) / "checkpoints"


def test_a_truncated_or_foreign_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x" * 1000)
    assert "is cut short: 1000 bytes, not 95628359" in refused(weights=str(path)).message
    with path.open("wb") as file:
        file.truncate(inception.SIZE)  # a hole: takes no space on the disk
    assert "is another file: SHA-256" in refused(weights=str(path)).message
    with path.open("ab") as file:
        file.write(b"x")
    assert "is another file: 95628360 bytes" in refused(weights=str(path)).message


def test_nothing_is_downloaded_unless_asked_and_a_wrong_download_leaves_nothing(tmp_path, nowhere, monkeypatch):
    asked = []
    monkeypatch.setattr(inception, "fetch", lambda target: asked.append(target))
    refused()
    assert asked == []
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    source = tmp_path / "source"
    source.write_bytes(b"an error page")
    with pytest.raises(DdpmkitError, match="is cut short"):
        inception.fetch(nowhere / inception.NAMES[0], source.as_uri())
    assert list(nowhere.iterdir()) == []
    with pytest.raises(DdpmkitError, match="can't fetch"):
        inception.fetch(nowhere / inception.NAMES[0], (tmp_path / "none").as_uri())


def test_a_download_that_breaks_off_in_the_middle_says_what_to_do(tmp_path, nowhere, monkeypatch):
    class Cut:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, _):
            raise errors.pop()

    errors = [ConnectionResetError("reset by peer"), http.client.IncompleteRead(b"x", 9)]
    monkeypatch.setattr(inception.urllib.request, "urlopen", lambda *_, **__: Cut())
    for _ in range(2):
        with pytest.raises(DdpmkitError, match="can't fetch") as caught:
            inception.fetch(nowhere / inception.NAMES[0])
        assert "fetch it by hand" in caught.value.hint
    assert list(nowhere.iterdir()) == []


def test_a_right_download_is_put_in_its_place(tmp_path, nowhere, monkeypatch):
    import hashlib

    source = tmp_path / "source"
    source.write_bytes(b"the weights")
    monkeypatch.setattr(inception, "SIZE", 11)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"the weights").hexdigest())
    assert inception.fetch(nowhere / "w.pth", source.as_uri()).read_bytes() == b"the weights"


def test_without_torch_fidelity_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "ddpmkit.builtin.features._inception", raising=False)
    with pytest.raises(DdpmkitError, match="need torch-fidelity") as caught:
        inception.extractor(tmp_path / "w.pth", GREY, verified=False)
    assert caught.value.hint == "pip install torch-fidelity"


def test_images_of_two_channels_are_refused(tmp_path):
    two = Images(*(np.zeros((3, 2, 8, 8), np.uint8),) * 3, 17, {})
    with pytest.raises(DdpmkitError, match="1 or 3 channels, not 2"):
        inception.extractor(tmp_path / "w.pth", two)


def test_the_component_and_its_name():
    features = build("features", "inception:weights=/a/b.pth")
    assert (features.weights, features.download) == ("/a/b.pth", False)
    assert distance_label(features) == "FID"
    assert len(features.fingerprint()) == 64
