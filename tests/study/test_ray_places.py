"""What the Ray executor makes of what a cluster says: a fake cluster plays it here, tests/ray has a real one."""

from __future__ import annotations

import builtins
import json
import os
import signal
import sys
import types
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ddpmkit.builtin.executors import _ray_cluster, _ray_seat, ray
from ddpmkit.builtin.executors._ray_cluster import Cluster, Lost, Share, connect, with_port
from ddpmkit.builtin.executors._ray_seat import Seat
from ddpmkit.builtin.executors.inline import Inline
from ddpmkit.builtin.executors.ray import Ray
from ddpmkit.errors import DdpmkitError
from ddpmkit.plugin.execution import Event, Job, Pool, Task
from ddpmkit.plugin.registry import Registry
from ddpmkit.study.prepare import RunOptions, device_names, prepare
from ddpmkit.study.runner import run


@dataclass
class Played:
    """A cluster in which each answer is what the test has put there; nothing is said of what it has not."""

    rooms: int = 2
    has_gpus: bool = False
    made: list[dict[str, Any]] = field(default_factory=list)  # what actors were told
    shares: list[Share] = field(default_factory=list)
    asked: list[tuple[int, str, int]] = field(default_factory=list)  # actor, method, number of the answer
    tasks: dict[str, int] = field(default_factory=dict)  # stage -> the answer that is waited for
    says: dict[int, Any] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    closed: int = 0

    def room(self, share: Share) -> int:
        return self.rooms

    def seat(self, share: Share, told: str) -> int:
        self.made.append(json.loads(told))
        self.shares.append(share)
        return len(self.made) - 1

    def ask(self, actor: int, what: str, *told: str) -> int:
        self.asked.append((actor, what, len(self.asked)))
        return len(self.asked) - 1

    def heard(self, answers: list[int], seconds: float) -> int | None:
        return next((a for a in answers if a in self.says), None)

    def read(self, answer: int) -> dict[str, Any]:
        said = self.says.pop(answer)
        if isinstance(said, Exception):
            raise said
        return said

    def end(self, actor: int) -> None:
        self.ended.append(actor)

    def close(self) -> None:
        self.closed += 1

    def last(self, actor: int, what: str) -> int:
        """The number of the newest answer of a method."""
        return max(n for a, w, n in self.asked if (a, w) == (actor, what))


class World:
    """The executor's pool over a played cluster, and all it has emitted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: Path, *, spec: Ray | None = None, **job: Any) -> None:
        self.cluster, self.events = Played(), []
        self.now = 1000.0
        monkeypatch.setattr(_ray_cluster, "connect", lambda *_: self.cluster)
        monkeypatch.setattr(ray, "time", types.SimpleNamespace(monotonic=lambda: self.now, sleep=lambda _: None))
        self.job = Job(str(out), (), False, ("cpu",), 9, 500, run="r", **job)
        self.spec = spec or Ray()

    def open(self) -> Pool:
        self.pool = self.spec.open(self.job, self.events.append, lambda: False)
        return self.pool

    def take(self) -> list[Event]:
        found, self.events[:] = list(self.events), []
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    found = World(monkeypatch, tmp_path)
    found.open()
    return found


def task(name: str) -> Task:
    return Task(name, "train", f"train {name}", {"kind": "train"})


def end(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {"events": [{"event": "end", "stage": name, "state": state, "worker": 0, **more}]}


@pytest.mark.parametrize("state", ["done", "failed", "diverged", "interrupted", "timed out"])
def test_a_stage_ends_as_its_node_says_under_the_place_that_it_has(world: World, state: str) -> None:
    world.pool.submit(0, task("a"))
    world.pool.submit(1, task("b"))
    world.cluster.says[world.cluster.last(1, "begin")] = end("b", state, error="why")
    world.pool.poll(0.0)
    assert world.take() == [{"event": "end", "stage": "b", "state": state, "worker": 1, "error": "why"}]
    world.pool.submit(1, task("c"))
    assert len(world.cluster.made) == 2, "an actor that is free has the next stage"


def test_progress_is_asked_for_until_the_end(world: World) -> None:
    world.pool.submit(0, task("a"))
    halfway = {"event": "progress", "stage": "a", "done": 0.5, "worker": 0}
    world.cluster.says[0] = {"events": [halfway]}
    world.pool.poll(0.0)
    assert world.take() == [halfway]
    assert world.cluster.asked[-1] == (0, "news", 1)
    world.cluster.says[1] = end("a", "done")
    world.pool.poll(0.0)
    assert [e["event"] for e in world.take()] == ["end"]
    assert len(world.cluster.asked) == 2


def test_what_a_lost_node_had_is_handed_out_again_so_often_and_then_fails(world: World) -> None:
    for lost in range(world.spec.losses):
        world.pool.submit(0, task("a"))
        world.cluster.says[world.cluster.last(lost, "begin")] = Lost("its node has died")
        world.pool.poll(0.0)
        log, again = world.take()
        assert again == {"event": "requeued", "stage": "a", "worker": 0}
        assert log["text"] == "warning: train a: it was lost, and had not begun: it begins elsewhere: its node has died"
        assert lost in world.cluster.ended
    world.pool.submit(0, task("a"))
    world.cluster.says[world.cluster.last(world.spec.losses, "begin")] = Lost("its node has died")
    world.pool.poll(0.0)
    assert world.take()[-1] == {
        "event": "end", "stage": "a", "state": "failed", "worker": 0, "error": "it was lost 4 times: its node has died",
    }  # fmt: skip


def test_a_stage_that_was_heard_of_and_is_lost_begins_again(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = {"events": []}
    world.pool.poll(0.0)
    world.cluster.says[1] = Lost("its node has died")
    world.pool.poll(0.0)
    assert world.take()[-2]["text"] == "warning: train a: it was lost, and begins again elsewhere: its node has died"


def test_idle_actors_of_a_lost_node_are_no_losses_of_the_stage_that_is_given_to_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path, spec=Ray(losses=0))
    world.open()
    for place, name in enumerate("abcd"):
        world.pool.submit(place, task(name))
        world.cluster.says[place] = end(name, "done")
    for _ in "abcd":
        world.pool.poll(0.0)
    world.pool.submit(0, task("e"))
    world.cluster.says[4] = Lost("its node has died")
    world.take()
    world.pool.poll(0.0)
    assert world.take()[-1] == {"event": "requeued", "stage": "e", "worker": 0}
    assert sorted(world.cluster.ended) == [0, 1, 2, 3], "the idle ones may be lost too"
    world.pool.submit(0, task("e"))
    assert len(world.cluster.made) == 5
    world.cluster.says[world.cluster.last(4, "begin")] = Lost("its node has died")
    world.pool.poll(0.0)
    assert world.take()[-1]["state"] == "failed", "a new actor had it"


def test_a_stage_that_an_actor_had_for_long_is_lost_with_it_whatever_that_had_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path, spec=Ray(losses=0))
    world.open()
    for number, name in enumerate("ab"):
        world.pool.submit(0, task(name))
        world.cluster.says[number] = end("a", "done") if name == "a" else {"events": []}
        world.pool.poll(0.0)
    world.cluster.says[world.cluster.last(0, "news")] = Lost("its node has died")
    world.pool.poll(0.0)
    assert world.take()[-1]["state"] == "failed"


def test_an_error_about_an_actor_that_was_at_work_ends_the_run_with_that_error(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = {"events": []}
    world.pool.poll(0.0)
    world.take()
    world.cluster.says[1] = DdpmkitError("Ray can't go on", "why")
    with pytest.raises(DdpmkitError, match="Ray can't go on"):
        world.pool.poll(0.0)
    assert [(e["stage"], e["state"]) for e in world.take()] == [("a", "interrupted")]
    world.pool.close(now=False)  # nobody is left who is waited for
    assert (world.cluster.ended, world.cluster.closed) == ([0], 1)


def test_losses_are_counted_by_stage(world: World) -> None:
    for name in "abcdef":
        world.pool.submit(0, task(name))
        world.cluster.says[len(world.cluster.asked) - 1] = Lost("gone")
        world.pool.poll(0.0)
        assert world.take()[-1]["event"] == "requeued"


def test_a_stop_asks_what_runs_and_ends_what_has_not_begun(world: World) -> None:
    for place, name in enumerate("abc"):
        world.pool.submit(place, task(name))
    for place, name in ((0, "a"), (1, "b")):
        world.cluster.says[place] = {"events": [{"event": "attempt", "stage": name, "worker": 0}]}
        world.pool.poll(0.0)
    world.take()
    world.pool.stop()
    assert [(a, w) for a, w, _ in world.cluster.asked if w == "stop"] == [(0, "stop"), (1, "stop")]
    cut, said = world.take()
    assert cut["stage"] == "c"
    assert (cut["state"], cut["error"]) == ("interrupted", "it was killed: it had not begun")
    assert said["text"].startswith("stopping: waiting for train a; train b; what has not ended in 30 s is killed")
    world.cluster.says[world.cluster.last(0, "news")] = end("a", "interrupted")
    world.cluster.says[world.cluster.last(1, "news")] = Lost("its node has died")
    world.pool.poll(0.0)
    world.pool.poll(0.0)
    assert [(e["stage"], e["state"]) for e in world.take()] == [("a", "interrupted"), ("b", "interrupted")]


def test_what_does_not_end_when_it_is_stopped_is_ended(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = {"events": []}
    world.pool.poll(0.0)
    world.pool.stop()
    world.take()
    world.now += 30 + ray.SLACK - 1
    world.pool.poll(0.0)
    assert world.take() == []
    world.now += 2
    world.pool.poll(0.0)
    (cut,) = world.take()
    assert cut["error"] == "it was killed: it had not ended 30 s after the stop"
    assert world.cluster.ended == [0]


def test_a_second_signal_cuts_all_off_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == [tmp_path / ".ray-r"]
    world.pool.submit(0, task("a"))
    world.pool.submit(1, task("b"))
    world.cluster.says[0] = end("a", "done")
    world.pool.poll(0.0)
    world.take()
    world.pool.close(now=True)
    assert [(e["stage"], e["state"], e["error"]) for e in world.take()] == [
        ("b", "interrupted", "it was killed: a second signal")
    ]
    assert sorted(world.cluster.ended) == [0, 1]
    assert world.cluster.closed == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_cut_off_takes_away_what_was_brought_to_its_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "p.py").touch()
    world = World(monkeypatch, tmp_path)
    world.job = replace(world.job, plugins=(str(tmp_path / "p.py"),))
    world.open()
    for place, name in enumerate("abc"):
        world.pool.submit(place, task(name))
    for place in (0, 1):
        world.cluster.says[place] = {"events": []}
        world.pool.poll(0.0)
    world.pool.close(now=True)
    assert [a for a, w, _ in world.cluster.asked if w == "leave"] == [0, 1], "the third has no node yet"


def test_a_run_that_can_tell_nobody_of_its_end_leaves_the_cluster_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path)

    def emit(event: Event) -> None:
        raise KeyboardInterrupt

    pool = world.spec.open(world.job, emit, lambda: False)
    pool.submit(0, task("a"))
    pool.submit(1, task("b"))
    with pytest.raises(KeyboardInterrupt):
        pool.close(now=True)
    assert (sorted(world.cluster.ended), world.cluster.closed, list(tmp_path.iterdir())) == ([0, 1], 1, [])


def test_a_run_that_can_leave_no_mark_leaves_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        world.open()
    assert world.cluster.closed == 1


def test_marks_of_runs_that_were_killed_are_swept_and_those_of_others_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path)
    old, other = tmp_path / ".ray-old", tmp_path / ".ray-other"
    old.touch()
    other.touch()
    os.utime(old, (0, 0))
    world.open()
    assert {p.name for p in tmp_path.iterdir()} == {".ray-other", ".ray-r"}
    os.utime(tmp_path / ".ray-r", (0, 0))
    world.now += ray.LOOK + 1
    world.pool.poll(0.0)
    assert (tmp_path / ".ray-r").stat().st_mtime > 0, "whoever is at work shows it"


def test_a_close_that_may_wait_asks_for_checkpoints(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = {"events": []}
    world.pool.poll(0.0)
    world.cluster.says[2 - 1] = end("a", "interrupted")
    world.pool.close(now=False)
    assert ("stop", "interrupted") == (world.cluster.asked[2][1], world.take()[-1]["state"])


def test_an_idle_place_goes_back_to_ray(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = end("a", "done")
    world.pool.poll(0.0)
    world.now += ray.IDLE - 1
    world.pool.poll(0.0)
    assert world.cluster.ended == []
    world.now += 2
    world.pool.poll(0.0)
    assert world.cluster.ended == [0]
    world.pool.submit(0, task("b"))
    assert len(world.cluster.made) == 2


def test_places_follow_the_nodes_unless_a_number_was_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert world.pool.places == 2
    for rooms, places in ((5, 5), (0, 1)):
        world.cluster.rooms = rooms
        world.now += ray.LOOK + 1
        world.pool.poll(0.0)
        assert world.pool.places == places
    assert World(monkeypatch, tmp_path, asked_jobs=7).open().places == 7


def test_a_node_that_waits_for_the_results_folder_is_not_said_to_be_waited_for() -> None:
    assert ray.SLOW > _ray_seat.PATIENCE


def test_a_stage_that_waits_for_a_node_says_so_once(world: World) -> None:
    world.cluster.rooms = 0
    world.pool.submit(0, task("a"))
    world.pool.poll(0.0)
    assert world.take() == []
    world.now += ray.SLOW + 1
    world.pool.poll(0.0)
    world.pool.poll(0.0)
    note, said = world.take()
    assert (note["event"], note["note"]) == ("progress", "waits for a node with 1 CPU to spare")
    assert said["text"] == "warning: no node of the Ray cluster has 1 CPU; stages wait until one has"


def test_a_stage_that_waits_long_for_a_node_has_the_first_place_that_is_free(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = {"events": []}
    world.pool.poll(0.0)
    world.pool.submit(1, task("b"))
    world.now += ray.SLOW + 1
    world.pool.poll(0.0)
    world.take()
    world.cluster.says[world.cluster.last(0, "news")] = end("a", "done")
    world.pool.poll(0.0)
    assert world.cluster.ended == [1], "the actor that no node has"
    assert world.cluster.asked[-1][:2] == (0, "begin")
    world.cluster.says[world.cluster.last(0, "begin")] = end("b", "done")
    world.pool.poll(0.0)
    assert [(e["stage"], e["worker"]) for e in world.take() if e["event"] == "end"] == [("a", 0), ("b", 1)]


def test_a_node_without_the_results_folder_is_an_error_and_no_end(world: World) -> None:
    world.pool.submit(0, task("a"))
    world.cluster.says[0] = {"refused": "does not see the results folder '/x'"}
    with pytest.raises(DdpmkitError) as found:
        world.pool.poll(0.0)
    assert found.value.message == "a node of the Ray cluster does not see the results folder '/x'"
    assert found.value.hint == "--out must name a folder that all nodes share"


@pytest.mark.parametrize(
    ("spec", "asked", "has_gpus", "share", "device"),
    [
        (Ray(), "auto", False, Share(1, 0, 0), "cpu"),
        (Ray(), "auto", True, Share(1, 1, 0), "cuda"),
        (Ray(), "cpu", True, Share(1, 0, 0), "cpu"),
        (Ray(), "cuda:0,cuda:1", False, Share(1, 1, 0), "cuda"),
        (Ray(gpus=0.0), "auto", True, Share(1, 0, 0), "cpu"),
        (Ray(gpus=0.5, cpus=2.0, memory=1.5), "auto", True, Share(2, 0.5, 1.5), "cuda"),
        (Ray(gpus=0.5), "cpu", True, Share(1, 0.5, 0), "cpu"),
    ],
)
def test_what_a_stage_is_given_and_the_device_that_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: Ray, asked: str, has_gpus: bool, share: Share, device: str
) -> None:
    world = World(monkeypatch, tmp_path, spec=spec, asked_device=asked)
    world.cluster.has_gpus = has_gpus
    world.open().submit(0, task("a"))
    assert world.cluster.shares == [share]
    told = Job.from_json(world.cluster.made[0]["job"])
    assert told == replace(world.job, devices=(device,), places=1)


def test_gpus_that_are_asked_for_and_ruled_out_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DdpmkitError, match="ray:gpus=0"):
        World(monkeypatch, tmp_path, spec=Ray(gpus=0.0), asked_device="cuda").open()
    with pytest.raises(DdpmkitError, match="a share of one or a whole number"):
        Registry(installed=False).build("executor", "ray:gpus=1.5")


def test_gpus_of_nodes_can_be_asked_for_where_this_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    registry = Registry(installed=False)
    found = RunOptions(None, "cuda:0,cuda:1", "ray").check(registry)
    assert (found.devices(), found.asked_jobs(), found.device) == (device_names("auto"), None, "cuda:0,cuda:1")
    for device, executor in (("cuda", "local"), ("nothing", "ray")):
        with pytest.raises(DdpmkitError, match="device"):
            RunOptions(None, device, executor).check(registry)


def test_the_results_folder_goes_to_nodes_by_its_whole_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    world = World(monkeypatch, Path("results"))
    world.open().submit(0, task("a"))
    assert world.cluster.made[0]["job"]["out"] == str(tmp_path / "results")


@pytest.mark.parametrize(
    ("share", "node", "count"),
    [
        (Share(1, 0, 0), {"CPU": 3.0}, 3),
        (Share(1, 0.1, 0), {"CPU": 64.0, "GPU": 2.0}, 20),
        (Share(1, 0.4, 0), {"CPU": 64.0, "GPU": 2.0}, 4),
        (Share(1, 2, 0), {"CPU": 64.0, "GPU": 5.0}, 2),
        (Share(0.28, 0, 0), {"CPU": 7.0}, 25),
        (Share(1, 1, 0), {"CPU": 64.0}, 0),
        (Share(1, 0, 2), {"CPU": 64.0, "memory": 5.0 * (1 << 30)}, 2),
        (Share(4, 0, 0), {"CPU": 3.0}, 0),
    ],
)
def test_how_often_a_share_fits_into_a_node(share: Share, node: dict[str, float], count: int) -> None:
    assert share.fits(node) == count


def test_a_host_alone_gets_the_usual_port() -> None:
    assert [with_port(a) for a in ("10.0.0.1", "h:1", "auto", "local", "ray://h:2")] == [
        "10.0.0.1:6379", "h:1", "auto", "local", "ray://h:2",
    ]  # fmt: skip


# --- Ray itself, as far as it can be played ------------------------------------------------------------------------


class FakeRay(types.ModuleType):
    """The part of Ray's module that is used to join a cluster."""

    def __init__(self, running: bool, joined: bool = False) -> None:
        super().__init__("ray")
        self.running, self.joined, self.inits, self.left = running, joined, [], 0

    def is_initialized(self) -> bool:
        return self.joined

    def init(self, address: str, **how: Any) -> None:
        self.inits.append({"address": address, **how})
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does
        if address != "local" and not self.running:
            raise ConnectionError("Could not find any running Ray instance.\nMore of it.")

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": {"CPU": 2.0}},
            {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
            {"Alive": False, "Resources": {"CPU": 8.0}},
        ]

    def shutdown(self) -> None:
        self.left += 1


def fake(monkeypatch: pytest.MonkeyPatch, *, running: bool, joined: bool = False) -> FakeRay:
    module = FakeRay(running, joined)
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return module


def test_a_cluster_is_joined_quietly_and_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module, said = fake(monkeypatch, running=True), []
    printing = types.SimpleNamespace(print_to_stdstream=print)
    monkeypatch.setitem(sys.modules, "ray._private.worker", printing)  # type: ignore[arg-type]
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    before = signal.getsignal(signal.SIGTERM)
    cluster = connect(None, None, said.append)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert signal.getsignal(signal.SIGTERM) is before
    (how,) = module.inits
    assert (how["address"], how["log_to_driver"]) == ("auto", False)
    assert printing.print_to_stdstream is not print
    assert (cluster.room(Share(1, 0, 0)), cluster.room(Share(1, 1, 0)), cluster.has_gpus) == (6, 1, True)
    cluster.close()
    assert printing.print_to_stdstream is print
    assert (module.left, said) == (1, [])


def test_without_a_cluster_one_is_started_here_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    module, said = fake(monkeypatch, running=False), []
    connect(None, None, said.append)
    assert [how["address"] for how in module.inits] == ["auto", "local"]
    assert said == ["no Ray cluster runs here: one is started on this machine, for this run"]


def test_a_cluster_that_was_named_and_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake(monkeypatch, running=False)
    with pytest.raises(DdpmkitError) as found:
        connect("10.0.0.1", None, print)
    assert found.value.message == "the Ray cluster 10.0.0.1 can't be joined: Could not find any running Ray instance."
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    with pytest.raises(DdpmkitError, match=r"10\.0\.0\.2:6379 can't be joined"):
        connect(None, None, print)
    assert [how["address"] for how in module.inits] == ["10.0.0.1:6379", "auto"]


def test_a_cluster_that_the_process_has_joined_is_used_and_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake(monkeypatch, running=True, joined=True)
    connect(None, None, print).close()
    assert (module.inits, module.left) == ([], 0)
    with pytest.raises(DdpmkitError, match="joined a Ray cluster already"):
        connect("elsewhere", None, print)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def none(name: str, *rest: Any) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(DdpmkitError) as found:
        Ray().open(Job(str(tmp_path), (), False, ("cpu",), 1, 500), print, lambda: False)
    assert (found.value.message, found.value.hint) == (
        "executor 'ray' needs Ray, which is not installed", "pip install ray",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


class AnyOfRay(Exception):
    pass


class Full(AnyOfRay):
    pass


class Died(AnyOfRay):
    actor_init_failed = False


class Unmade(Died):
    actor_init_failed = True


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (Died("The actor died.\n\tip: 10.0.0.1\nIts node has died.\n"), Lost, "Its node has died."),
        (
            AnyOfRay("ray::Seat.begin()\n  line\nOSError: [Errno 28] No space left"),
            Lost,
            r"^OSError: \[Errno 28\] No space",
        ),
        (Full("The node is low on memory.\nTo set the threshold, say so.\n"), Lost, "^The node is low on memory.$"),
        (Unmade("Trace\nModuleNotFoundError: No module named 'ddpmkit'"), DdpmkitError, "No module named 'ddpmkit'"),
    ],
)
def test_what_ray_raises_is_a_loss_or_an_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], said: str
) -> None:
    names = ("RuntimeEnvSetupError", "ActorUnschedulableError")
    kinds = types.SimpleNamespace(
        **{name: type(name, (AnyOfRay,), {}) for name in names},
        RayActorError=Died,
        OutOfMemoryError=Full,
        RayError=AnyOfRay,
    )

    def get(answer: Any) -> str:
        raise error

    module = types.ModuleType("ray")
    module.exceptions, module.get = kinds, get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(kind, match=said) as found:
        Cluster(module, ours=False).read(None)
    assert "\n" not in str(found.value)


# --- the other end -------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes where somebody waits, and nowhere else."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Quick(Pool):
    """A pool that says what it was told to."""

    places = 1

    def __init__(self, job: Job, emit: Any, script: list[Event], clock: Clock) -> None:
        self.job, self.emit, self.script, self.clock = job, emit, script, clock

    def submit(self, place: int, task: Task) -> None:
        self.task = task

    def poll(self, seconds: float) -> None:
        self.emit(self.script.pop(0)) if self.script else self.clock.sleep(seconds)

    def stop(self) -> None:
        self.emit({"event": "log", "text": "stopping"})
        self.emit({"event": "end", "stage": "a", "state": "interrupted"})


@pytest.fixture
def seat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """seat(script, plugins, files): a seat whose pool follows a script, and the pools that it made."""
    made: list[Quick] = []
    clock = Clock()
    monkeypatch.setattr("ddpmkit.builtin.executors._ray_seat.time", clock)

    def make(script: list[Event], plugins: tuple[str, ...] = (), files: dict[str, str] | None = None) -> Seat:
        class Scripted(Inline):
            def __init__(self, grace: float) -> None:
                pass

            def open(self, job: Job, emit: Any, should_stop: Any) -> Pool:
                made.append(Quick(job, emit, script, clock))
                return made[-1]

        monkeypatch.setattr("ddpmkit.builtin.executors._ray_seat.Local", Scripted)
        job = Job(str(tmp_path), plugins, False, ("cpu",), 1, 500)
        mark = tmp_path / "mark"
        mark.touch()
        return Seat(json.dumps({"job": job.json(), "files": files or {}, "mark": str(mark), "grace": 1.0}))

    return make, made


BEGIN = json.dumps({"id": "a", "kind": "train", "label": "train a", "record": {}})


def test_a_seat_tells_the_newest_progress_and_all_else(seat: Any) -> None:
    progress = [{"event": "progress", "stage": "a", "done": i / 4} for i in range(4)]
    logged, over = {"event": "log", "text": "x"}, {"event": "end", "stage": "a", "state": "done"}
    found = seat[0]([*progress[:2], logged, progress[2]])
    assert json.loads(found.begin(BEGIN)) == {"events": [logged, progress[2]]}
    assert json.loads(found.news()) == {"events": []}
    seat[1][0].script += [progress[3], over, logged]
    assert json.loads(found.news()) == {"events": [progress[3], over]}, "the end is told at once"


def test_a_seat_that_is_stopped_tells_the_end_and_not_who_is_waited_for(seat: Any) -> None:
    found = seat[0]([])
    found.begin(BEGIN)
    found.stop()
    assert [e["event"] for e in json.loads(found.news())["events"]] == ["end"]


def test_a_seat_that_does_not_see_the_results_refuses(seat: Any, tmp_path: Path) -> None:
    found = seat[0]([])
    (tmp_path / "mark").unlink()
    assert json.loads(found.begin(BEGIN)) == {"refused": f"does not see the results folder '{tmp_path}'"}
    assert seat[1] == []


def test_a_plugin_s_file_is_used_where_it_is_the_same_and_brought_where_it_is_not(seat: Any, tmp_path: Path) -> None:
    here, other, gone = (tmp_path / name for name in ("here.py", "other/here.py", "gone.py"))
    other.parent.mkdir()
    here.write_text("x = 1\r\n", newline="")
    other.write_text("x = 2\n")
    texts = {str(here): "x = 1\r\n", str(other): "x = 3\r\n", str(gone): "x = 4\n"}
    found = seat[0]([], ("no:thing", *texts, "module"), texts)
    found.begin(BEGIN)
    no, first, second, third, module = seat[1][0].job.plugins
    assert (no, first, module) == ("no:thing", str(here), "module")
    assert [Path(p).name for p in (second, third)] == ["here.py", "gone.py"]
    assert [Path(p).read_bytes() for p in (second, third)] == [b"x = 3\r\n", b"x = 4\n"]
    found.leave()
    assert not Path(second).exists()


def test_files_are_brought_with_their_text_unless_their_folder_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / "folder/in.py", tmp_path / "out.py"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_bytes("# é\r\n".encode())
    world = World(monkeypatch, tmp_path, spec=Ray(working_dir="folder"))
    world.job = replace(world.job, plugins=("folder/in.py", "out.py", "no:x", "module"))
    world.open().submit(0, task("a"))
    (told,) = world.cluster.made
    assert told["job"]["plugins"] == ["in.py", str(outside), "no:x", "module"]
    assert told["files"] == {str(outside): "# é\r\n"}


def test_a_file_above_the_folder_that_is_copied_is_brought_however_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.py").touch()
    monkeypatch.chdir(tmp_path / "folder")
    world = World(monkeypatch, tmp_path, spec=Ray(working_dir="."))
    world.job = replace(world.job, plugins=("../out.py", "../folder/in.py"))
    world.open().submit(0, task("a"))
    assert world.cluster.made[0]["files"] == {str(tmp_path / "out.py"): ""}
    assert world.cluster.made[0]["job"]["plugins"] == [str(tmp_path / "out.py"), "in.py"]


def test_a_file_that_is_gone_or_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path)
    world.job = replace(world.job, plugins=(str(tmp_path / "gone.py"),))
    with pytest.raises(DdpmkitError, match=r"gone\.py can't be brought to a node: No such file"):
        world.open()
    (tmp_path / "gone.py").write_bytes(b"\xff\xfe")
    with pytest.raises(DdpmkitError, match=r"gone\.py is no UTF-8"):
        world.open()


# --- a whole study -------------------------------------------------------------------------------------------------


class Here(Played):
    """A cluster of seats in this process; the first of them is lost in the middle of its second report."""

    def __init__(self) -> None:
        super().__init__()
        self.seats: list[Seat] = []
        self.todo: dict[int, Any] = {}
        self.reports = 0

    def seat(self, share: Share, told: str) -> int:
        self.seats.append(Seat(told))
        return len(self.seats) - 1

    def ask(self, actor: int, what: str, *told: str) -> int:
        number = len(self.asked)
        self.asked.append((actor, what, number))
        self.todo[number] = lambda: getattr(self.seats[actor], what)(*told)
        return number

    def heard(self, answers: list[int], seconds: float) -> int | None:
        return answers[0] if answers else None

    def read(self, answer: int) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.todo.pop(answer)())
        self.reports += 1
        if self.reports == 2:
            raise Lost("its node has died")
        return said


def test_a_study_that_loses_a_node_has_the_results_of_one_in_this_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few_digits: str
) -> None:
    tiny = {
        "train_steps": "3", "samples": "4", "sampling_steps": "2", "timesteps": "24", "eval_batch": "4",
        "batch_size": "4", "backbones": "unet:channels=4:mults=1", "features": "pca:k=2", "train_seeds": "0",
        "nll_evals": "16", "metrics": "nll", "dataset": few_digits,
    }  # fmt: skip
    monkeypatch.setattr("ddpmkit.builtin.executors._ray_seat.Local", lambda grace: Inline())
    cluster, events, found = Here(), [], []
    monkeypatch.setattr(_ray_cluster, "connect", lambda *_: cluster)
    for out, executor in (("here", "inline"), ("there", "ray:losses=1")):
        how = RunOptions(None, "cpu", executor)
        prepared = prepare(tiny, out=tmp_path / out, registry=Registry(installed=False), run_options=how)
        assert run(prepared, events.append).code == 0
        found.append({s.id: prepared.store.result(s.kind, s.id) for s in prepared.plan.stages.values()})
    assert found[0] == found[1]
    assert [e["event"] for e in events if e["event"] == "requeued"] == ["requeued"]
    assert not list((tmp_path / "there").glob(".ray*"))
