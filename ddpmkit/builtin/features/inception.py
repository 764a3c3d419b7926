"""The Inception network of the published FID: a verified file, or an error that lists where it was looked for."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ddpmkit import Array, DdpmkitError, Features, Images, Levels, param

# One file under two names; the eight digits in them begin its hash.
NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 95_628_359
URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/" + NAMES[0]
VARIABLE = "DDPMKIT_WEIGHTS"


@dataclass(frozen=True)
class Inception(Features):
    """2048 features of the 2015 TensorFlow Inception-v3, as torch-fidelity ports it; distances over them are FID.

    Grey images are given three equal channels and levels are spread over 0 .. 255; the network resizes to 299 x 299 as
    TensorFlow 1 did. For photographs; a small grey digit is far from anything this network has seen.
    """

    name = "inception"
    reference = "Heusel et al. 2017, arXiv 1706.08500; Obukhov et al. 2020, torch-fidelity"
    resize: ClassVar[str] = "TensorFlow-1 bilinear to 299"
    weights: str = param("", f"the weights file; default: ${VARIABLE}, then torch's hub cache", locates=True)
    download: bool = param(False, "fetch the weights (91 MiB) where they are in none of those places", locates=True)

    def label(self) -> str:
        """Return the extractor's name; the word FID is given by the verified hash."""
        return "inception"

    def fingerprint(self) -> str:
        """Return the SHA-256 of the one file that :meth:`load` accepts."""
        return SHA256

    def load(self, data: Images) -> Callable[[Levels], Array]:
        """Return levels (N, 1 or 3, H, W) -> float64 (N, 2048).

        Raises:
            DdpmkitError: when the weights or torch-fidelity are missing, the file is another one, or the images have
                neither one nor three channels.
        """
        path = find(self.weights)
        if path is None and self.download:
            path = fetch(hub_cache() / NAMES[0])
        if path is None:
            paths = ", ".join(str(p) for p in places(self.weights))
            raise DdpmkitError(
                f"the Inception weights are not here; looked at {paths}",
                f"put {NAMES[0]} into one of them, or use inception:download=true",
            )
        return extractor(path, data)


def places(weights: str = "") -> list[Path]:
    """Where the weights may be, in order; a file that was named is the only place."""
    if weights:
        return [Path(weights)]
    paths = []
    if setting := os.environ.get(VARIABLE):
        place = Path(setting).expanduser()
        paths += [place / name for name in NAMES] if place.is_dir() else [place]
    return paths + [hub_cache() / name for name in NAMES]


def find(weights: str = "") -> Path | None:
    """Return the first place where there is a file, None when there is none."""
    return next((path for path in places(weights) if path.is_file()), None)


def hub_cache() -> Path:
    """The folder where torch keeps downloaded weights; torch itself is not imported for it."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")) / "hub" / "checkpoints"


def verify(path: Path) -> None:
    """Refuse a file that is not the published one, by its size and its SHA-256.

    Raises:
        DdpmkitError: with what differs.
    """
    size = path.stat().st_size
    if size != SIZE:
        what = "is cut short" if size < SIZE else "is another file"
        raise DdpmkitError(f"{path} {what}: {size} bytes, not {SIZE}", "delete it and fetch it again")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise DdpmkitError(f"{path} is another file: SHA-256 {digest[:16]}.., not {SHA256[:16]}..", "fetch it again")


def fetch(target: Path, url: str = URL) -> Path:
    """Download the weights beside their place, verify them, and only then move them there.

    Raises:
        DdpmkitError: when that fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, staged.open("wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
        verify(staged)
        staged.replace(target)
    except (OSError, http.client.HTTPException) as err:  # no such host, cut off in the middle, a full disk
        raise DdpmkitError(f"can't fetch {url}: {err}", f"fetch it by hand and put it into {target.parent}") from None
    finally:
        staged.unlink(missing_ok=True)
    return target


def extractor(path: Path, data: Images, *, verified: bool = True) -> Callable[[Levels], Array]:
    """Return levels (N, C, H, W) -> float64 (N, 2048), from a weights file.

    Args:
        path: The weights.
        data: Images of the kind that will be given.
        verified: False takes any file of the right layout; for tests alone, which have no network to fetch from.

    Raises:
        DdpmkitError: when torch-fidelity is missing, the file is another one, or the images do not fit.
    """
    channels = data.train.shape[1]
    if channels not in (1, 3):
        raise DdpmkitError(f"features 'inception' are for images of 1 or 3 channels, not {channels}", "use pca:k=64")
    if verified:
        verify(path)
    try:
        from ddpmkit.builtin.features._inception import load_network
    except ImportError as err:
        raise DdpmkitError(
            f"features 'inception' need torch-fidelity, and it can't be imported: {err}", "pip install torch-fidelity"
        ) from None
    return load_network(path, data.levels)
