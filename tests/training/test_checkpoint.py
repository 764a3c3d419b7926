"""Checkpoints: the newest that verifies is used, a damaged one is set aside, the last two are kept."""

import os

import pytest
import torch

from ddpmkit import files
from ddpmkit.training import checkpoint
from ddpmkit.training.checkpoint import Checkpoint


def make(step: int) -> Checkpoint:
    value = torch.arange(6, dtype=torch.float32).reshape(2, 3) + step
    return Checkpoint(
        step, {"w": value}, {"w": value / 2}, {"exp_avg/w": value * 2, "step/w": torch.tensor(float(step))}
    )


@pytest.fixture
def folder(tmp_path):
    for step in (3, 6, 9):
        checkpoint.write(tmp_path, make(step))
    return tmp_path


def test_what_was_written_is_read_back_bit_for_bit(tmp_path):
    checkpoint.write(tmp_path, make(4))
    found, expected = checkpoint.newest(tmp_path), make(4)
    assert found is not None
    assert found.step == 4
    for part in ("model", "ema", "optim"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_an_empty_place_has_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_only_the_last_two_are_kept(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["00000006", "00000009"]


def test_a_process_that_ends_while_it_drops_an_old_one_leaves_none_that_is_half_gone(folder, monkeypatch):
    def ended(place, ignore_errors=False):
        if not ignore_errors:  # what was staged is gone by its new name
            (place / files.COMMIT).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", ended)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(folder, make(40))
    there = [p for p in folder.iterdir() if p.name.isdecimal()]
    assert len(there) == checkpoint.KEEP
    assert all(files.verify_folder(p) for p in there)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size - 2)  # the last byte of COMMIT.json is a newline that nobody misses


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()], ids=["flipped bit", "truncated", "missing"])
@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optim.safetensors", files.COMMIT])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(folder, capsys, name, damage):
    damage(folder / "00000009" / name)
    found = checkpoint.newest(folder)
    assert found is not None
    assert found.step == 6
    assert torch.equal(found.model["w"], make(6).model["w"])
    kept = sorted(p.name for p in folder.iterdir())
    assert kept[0] == "00000006"
    assert kept[1].startswith("quarantined-00000009")
    assert "is damaged; set aside" in capsys.readouterr().err


def test_no_checkpoint_is_left_when_all_are_damaged(folder):
    for step in ("00000006", "00000009"):
        cut(folder / step / "ema.safetensors")
    assert checkpoint.newest(folder) is None
    assert len([p for p in folder.iterdir() if p.name.startswith("quarantined-")]) == 2


def test_a_quarantined_step_can_be_written_again(folder):
    flip(folder / "00000009" / "model.safetensors")
    checkpoint.newest(folder)
    checkpoint.write(folder, make(9))
    found = checkpoint.newest(folder)
    assert found is not None
    assert found.step == 9


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_disk_that_fails_leaves_a_checkpoint_that_loads(folder, monkeypatch, nth):
    calls = []

    def counted(real):
        def call(*args, **kwargs):
            calls.append(real)
            if len(calls) == nth:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename"):
            patch.setattr(os, name, counted(getattr(os, name)))
        # Five fsyncs (three parts, COMMIT.json, the folder), the rename, the folder above.
        with pytest.raises(OSError, match="No space left"):
            checkpoint.write(folder, make(12))
    found = checkpoint.newest(folder)
    assert found is not None
    assert found.step == (12 if nth == 7 else 9)
    assert not [p for p in folder.iterdir() if p.name.startswith((".tmp", "quarantined"))]


def test_the_optimiser_goes_on_bit_for_bit(tmp_path):
    """Adam's moments and step count survive; without them the next step would be another one."""

    def net_and_optimizer():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        return net, torch.optim.AdamW(net.parameters(), lr=0.1)

    def step(net, optimizer, k):
        optimizer.zero_grad()
        (net(torch.full((2, 3), float(k))) - 1).square().sum().backward()
        optimizer.step()

    net, optimizer = net_and_optimizer()
    for k in range(3):
        step(net, optimizer, k)
    state = checkpoint.optimizer_tensors(optimizer, net)
    checkpoint.write(tmp_path, Checkpoint(3, dict(net.state_dict()), {}, state))
    step(net, optimizer, 3)

    other, fresh = net_and_optimizer()
    found = checkpoint.newest(tmp_path)
    assert found is not None
    other.load_state_dict(found.model)
    checkpoint.restore_optimizer(fresh, other, found.optim)
    step(other, fresh, 3)
    for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
