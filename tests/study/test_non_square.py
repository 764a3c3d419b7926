"""Images that are wider than high, from a data set to the report's pictures and back through evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpmkit.cli import main
from ddpmkit.plugin.registry import Registry
from ddpmkit.report.write import write_report
from ddpmkit.study import prepare as preparing
from ddpmkit.study import runner
from ddpmkit.study.estimate import estimate
from ddpmkit.study.prepare import RunOptions
from ddpmkit.study.walks import walks

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from ddpmkit import Backbone, hookimpl

@dataclass(frozen=True)
class Conv(Backbone):
    """One convolution, of any height and width."""
    name = "conv"
    reference = "a test"
    non_square: ClassVar[bool] = True

    def build(self, *, in_channels, out_channels, image_size, num_classes=None):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            def forward(self, x, t, y=None):
                return self.layer(x)

        return Net()

@hookimpl
def ddpmkit_register_backbones():
    return [Conv]
'''
TINY = {
    "backbones": "conv", "train_steps": "2", "batch_size": "4", "samples": "40", "sampling_steps": "3",
    "timesteps": "40", "train_seeds": "0", "metrics": "fd,sw,copy,nll", "features": "pca:k=4,pixels",
    "nll_evals": "64",
}  # fmt: skip


def wide(count: int, seed: int) -> Any:
    """Smooth colour images, 6 high and 10 wide, (N, H, W, C)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:6, 0:10] / 9
    tones = rng.random((count, 3, 3))
    images = tones[:, :, 0, None, None] * y + tones[:, :, 1, None, None] * x + tones[:, :, 2, None, None] / 2
    return (images * 100).astype(np.uint8).transpose(0, 2, 3, 1)


def test_a_study_of_images_that_are_not_square(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", train_images=wide(80, 0), test_images=wide(50, 1))
    (tmp_path / "conv_plugin.py").write_text(PLUGIN)
    registry = Registry([str(tmp_path / "conv_plugin.py")], installed=False)
    options = {**TINY, "dataset": f"npz:path={tmp_path / 'a.npz'}:validation=10"}
    prepared = preparing.prepare(
        options, out=tmp_path / "r", registry=registry, run_options=RunOptions(device="cpu", executor="inline")
    )
    assert estimate(prepared).seconds > 0
    outcome = runner.run(prepared)
    assert outcome.code == 0
    write_report(outcome.folder, walks(prepared))
    assert "could not be drawn" not in capsys.readouterr().err
    frame = outcome.results().set_index("metric")["value"]
    assert set(frame.index) >= {"FD-pca4", "FD-pixels"}
    assert any("nll" in name.lower() for name in frame.index)
    assert np.isfinite(frame.astype(float)).all()
    (picture,) = (outcome.folder / "figures").glob("samples-*.png")
    with Image.open(picture) as drawn:
        across, down = drawn.size
    assert across / down == pytest.approx((10 * 11 - 1) / (4 * 7 - 1), rel=0.01)
    for k, image in enumerate(wide(40, 2)):
        (tmp_path / "drawn").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "drawn" / f"{k}.png")
    args = ["evaluate", "--samples", str(tmp_path / "drawn"), "--features", "pca:k=4", "--metrics", "fd,kid,sw"]
    assert main([*args, "--reference", options["dataset"]]) == 0
    assert "FD-pca4" in capsys.readouterr().out
