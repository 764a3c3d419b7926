"""Weights from elsewhere: read in a process of their own, held against a backbone, and kept as safetensors.

The file says of which network it is: ``open_weights(file)`` builds that and gives it back with its weights.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError
from ddpmkit.places import MOST_READ, what_is_at
from ddpmkit.plugin import contract, spec
from ddpmkit.plugin.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

READER = Path(__file__).with_name("unpickled.py")
PATIENCE = 900  # seconds for the reader, which ends itself sooner
NAMED = 3  # tensors that are named in a line
SIDE = 4096  # the most of an image's height, width and channels


@dataclass(frozen=True)
class Network:
    """Which network weights are of.

    Attributes:
        backbone: its spec.
        channels: of the images.
        height: of the images.
        width: of the images.
        classes: how many it is told of; None for none.
        learned: whether it has a second output for a learned variance.
    """

    backbone: str
    channels: int
    height: int
    width: int
    classes: int | None = None
    learned: bool = False

    @classmethod
    def read(cls, backbone: str, shape: str, *, classes: int | None, learned: bool, registry: Registry) -> Network:
        """Read what a command line says; ``shape`` is CHANNELS/HEIGHT/WIDTH.

        Raises:
            DdpmkitError: for a shape that is none, or a spec that is none.
        """
        sides = shape.split("/")
        if len(sides) != 3 or not all(side.isascii() and side.isdecimal() and 0 < int(side) <= SIDE for side in sides):
            raise DdpmkitError(f"'{shape}' is no shape of an image", "--shape 1/28/28: channels, height and width")
        stated = spec.format(registry.build("backbone", backbone), called=registry.called)
        channels, height, width = map(int, sides)
        return cls(stated, channels, height, width, classes, learned)

    @classmethod
    def from_json(cls, record: Any) -> Network:
        """Read what a file says.

        Raises:
            ValueError: when that is no network's.
        """
        sides = ("channels", "height", "width")
        if not isinstance(record, dict) or record.keys() != cls.__dataclass_fields__.keys():
            raise ValueError("its network has other fields")
        classes, learned = record["classes"], record["learned"]
        whole = isinstance(record["backbone"], str) and isinstance(learned, bool)
        whole = whole and all(type(record[side]) is int and 0 < record[side] <= SIDE for side in sides)
        if not whole or not (classes is None or (type(classes) is int and 0 < classes)):
            raise ValueError("its network has a field that is none")
        return cls(**record)

    def build(self, registry: Registry, *, meta: bool) -> nn.Module:
        """Build it, on torch's meta device where that will do.

        Raises:
            DdpmkitError: when its backbone can't be that.
        """
        import torch

        backbone = registry.build("backbone", self.backbone)
        size = contract.image_size((1, self.channels, self.height, self.width))
        with torch.device("meta" if meta else "cpu"):
            return contract.network(
                backbone,
                in_channels=self.channels,
                out_channels=self.channels * (2 if self.learned else 1),
                image_size=size,
                num_classes=self.classes,
            )


def import_checkpoint(
    source: Path, to: Path, network: Network, *, registry: Registry, key: str = "", prefix: str = ""
) -> dict[str, Any]:
    """Write the weights in somebody's .pt file as safetensors, if they are those of a network; say what was taken.

    Args:
        source: The file; it is read in a process of its own, which runs nothing of it but what builds tensors.
        to: Where to, a .safetensors file.
        network: What they must be of, name by name and shape by shape.
        registry: The components to choose from.
        key: Where in the file the weights are, ``model.ema``; needed where it holds several.
        prefix: What stands before every name, as ``module.``, and is taken away.

    Raises:
        DdpmkitError: when it can't be read so, or the weights are another network's, with what is missing or left over.
    """
    if to.suffix != ".safetensors":
        raise DdpmkitError(f"weights can't be written as '{to.name}'", f"--to {to.stem or 'weights'}.safetensors")
    if what_is_at(source) != "file":
        raise DdpmkitError(f"'{source}' is no file", "name a file that torch.save wrote")
    if source.stat().st_size > MOST_READ:
        raise DdpmkitError(f"'{source}' has more than {MOST_READ >> 30} GiB", "save the weights alone")
    wanted = network.build(registry, meta=True).state_dict()
    with tempfile.TemporaryDirectory(prefix="ddpmkit-import-") as folder:
        at, tensors = _read(source.resolve(), Path(folder) / "weights.safetensors", key, _most(source, wanted))
    fitted = fit(tensors, wanted, prefix, f"'{source}'", network.backbone)
    meta = {"network": json.dumps(asdict(network)), "source": files.sha256(source.read_bytes())}
    files.write_bytes(to, files.pack(fitted, meta))
    parameters = sum(value.numel() for value in fitted.values())
    return {"file": str(to), "key": at, "tensors": len(fitted), "numbers": parameters, **asdict(network)}


def open_weights(path: str | Path, *, registry: Registry | None = None) -> nn.Module:
    """Return the network of a file that ``import-checkpoint`` wrote, with its weights, in eval mode.

    ``forward(x, t, y=None)``: x float32 (B, C, H, W) of unit variance, t float (B,), which is 1000 t / T.

    Raises:
        DdpmkitError: when the file is none of these, or its backbone is not here.
    """
    from safetensors import SafetensorError, safe_open

    path, registry = files.home(path), registry or Registry()
    try:
        if what_is_at(path) != "file":
            raise DdpmkitError(f"'{path}' is no file", "ddpmkit import-checkpoint writes one")
        with safe_open(path, framework="pt") as file:
            network = Network.from_json(json.loads((file.metadata() or {})["network"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as err:
        said = " ".join(str(err).split())
        raise DdpmkitError(
            f"'{path}' holds no imported weights: {said}", "ddpmkit import-checkpoint writes it"
        ) from None
    # First on the meta device: what a stranger's file asks for may be larger than any memory, and what it holds is not.
    wanted = network.build(registry, meta=True).state_dict()
    fitted = fit(tensors, wanted, "", f"'{path}'", network.backbone)
    net = network.build(registry, meta=False)
    net.load_state_dict(fitted)
    return net.eval()


def fit(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str, source: str, backbone: str
) -> dict[str, Tensor]:
    """Return tensors under the names and in the dtypes of a network's.

    Raises:
        DdpmkitError: when they are not the network's, with what is missing, left over, or of another shape or kind.
    """
    import torch

    here = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    missing = [name for name in wanted if name not in here]
    other = [name for name in here if name not in wanted] + [n for n in tensors if not n.startswith(prefix)]
    both = [name for name in wanted if name in here]
    shapes = [f"{n} is {_shape(here[n])}, not {_shape(wanted[n])}" for n in both if here[n].shape != wanted[n].shape]
    kinds = [f"{n} is {here[n].dtype}" for n in both if here[n].is_floating_point() != wanted[n].is_floating_point()]
    if missing or other or shapes or kinds:
        parts = (("missing", missing), ("left over", other), ("of another shape", shapes), ("of another kind", kinds))
        told = "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in parts if names)
        raise DdpmkitError(f"{source} is not of '{backbone}': {told}", _hint(tensors, wanted, prefix))
    bad = [name for name in both if here[name].is_floating_point() and not bool(torch.isfinite(here[name]).all())]
    if bad:
        raise DdpmkitError(f"{source} holds numbers that are not finite: {_some(bad)}", "take an earlier checkpoint")
    return {name: here[name].to(wanted[name].dtype) for name in wanted}


def _hint(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str) -> str:
    """What would fit, where it is a matter of what stands before each name."""
    first = next(iter(wanted))
    for there in tensors:
        before = there.removesuffix(first)
        if before not in (there, prefix) and all(f"{before}{name}" in tensors for name in wanted):
            return f"--prefix {before}"
    return "names and shapes must be those of --backbone, --shape, --classes; a plugin can bring the network itself"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (" .." if len(names) > NAMED else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _most(source: Path, wanted: Mapping[str, Tensor]) -> int:
    """Bytes that weights may take: a network's in the largest of types, or, of another network's, what the file has."""
    return max(8 * sum(value.numel() for value in wanted.values()), source.stat().st_size)


def _read(source: Path, target: Path, key: str, most: int) -> tuple[str, dict[str, Tensor]]:
    """Let the reader read; what it leaves is looked at as if it were the file itself."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    command = [sys.executable, "-I", str(READER), str(source), str(target), key, str(most)]
    # Nothing that this process knows: a variable may hold a secret.
    known = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    known |= {"HOME": str(target.parent), "TMPDIR": str(target.parent), "OMP_NUM_THREADS": "1"}
    said: Any = {}
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError, RecursionError):
        ended = subprocess.run(
            command, cwd=target.parent, env=known, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
        )
        said = json.loads(ended.stdout.splitlines()[-1]) if ended.stdout else {}
    if not isinstance(said, dict) or not {"key", "error"} & {*said}:
        said = {"error": "its reader ended without a word", "hint": "it may want more memory than it is given"}
    if "error" in said:
        raise DdpmkitError(f"'{source}': {said['error']}", said.get("hint"))
    try:
        return str(said["key"]), dict(load_file(target))
    except (OSError, SafetensorError) as err:
        raise DdpmkitError(f"'{source}' can't be read: {err}", "save the state_dict of the network alone") from None
