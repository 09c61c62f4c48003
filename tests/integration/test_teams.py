"""Processes that hold one network together make the set that one process makes."""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.sets import Samples, generate, verify
from tests.pages import program
from tools._faults import ended, started

dist = pytest.importorskip("torch.distributed")
if not dist.is_available():
    pytest.skip("this torch has no processes that talk to each other", allow_module_level=True)

SDE = scoresde.VPSDE()
OPTIONS: dict[str, Any] = {"shape": (6,), "shard_size": 8, "batch_size": 4, "identity": "net"}


class Net(torch.nn.Module):
    """A score network; in the smallest form that has matrices to share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(7, 32), torch.nn.Linear(32, 6)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden = torch.cat([x, t[:, None]], dim=1)
        return self.last(torch.tanh(self.first(hidden))) - x


def whole(net: Net, group: Any) -> Net:
    return net


def sharded(net: Net, group: Any) -> Net:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.DeviceMesh.from_group(group, "cpu")
    fully_shard(net.first, mesh=mesh)
    return fully_shard(net, mesh=mesh)  # type: ignore[return-value]


def split(net: Net, group: Any) -> Net:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = dist.DeviceMesh.from_group(group, "cpu")
    parallelize_module(net, mesh, {"first": ColwiseParallel(), "last": RowwiseParallel()})
    return net


def rank(
    number: int,
    world: int,
    size: int,
    meeting: Path,
    folder: Path,
    make: Callable[[Net, Any], Net],
    options: Any,
    seconds: float = 60.0,
    count: int = 30,
) -> None:
    """One process: teams of ``size``, of which each holds one network."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=world)
    limit = timedelta(seconds=seconds)
    groups = [dist.new_group(list(range(first, first + size)), timeout=limit) for first in range(0, world, size)]
    group = groups[number // size]
    with torch.no_grad():
        net = make(Net().eval(), group)
        calls: list[int] = []
        if isinstance(net, Net):
            net.register_forward_hook(lambda *call: calls.append(len(call[2])))
        found = generate(folder, SDE, net, count, group=group, **{**OPTIONS, **options})
    Path(f"{meeting}.{number}").write_text(json.dumps([found.shards, found.made, len(found.failures), len(calls)]))
    dist.destroy_process_group()


def teams(folder: Path, make: Callable[..., Net], options: Any, world: int = 2, **more: Any) -> list[int]:
    """How the processes of teams of two end."""
    run = functools.partial(rank, world=world, size=2, folder=folder, make=make, options=options, **more)
    children = [started(functools.partial(run, number), number, world) for number in range(world)]
    return [ended(child) for child in children]


DDIM, RK45 = {"method": "ddim", "steps": 5}, {"method": "rk45", "rtol": 1e-3, "atol": 1e-3}
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (whole, DDIM),
        *(pytest.param(make, options, marks=slow) for make in (sharded, split) for options in (DDIM, RK45)),
        pytest.param(whole, RK45, marks=slow),
    ],
)
def test_a_team_makes_the_set_of_one_process(tmp_path: Path, make: Callable[..., Net], options: dict[str, Any]) -> None:
    """The samples of one process, to rounding, with the same calls of the network in every process."""
    assert teams(tmp_path / "a", make, options, meeting=tmp_path / "meeting") == [0, 0]
    first, second = (json.loads((tmp_path / f"meeting.{number}").read_text()) for number in range(2))
    assert first[:3] == [4, 4, 0] and first == second and first[3] >= 8 * 5
    assert verify(tmp_path / "a").complete
    with torch.no_grad():
        generate(tmp_path / "b", SDE, Net().eval(), 30, **OPTIONS, **options)
    together, alone = Samples(tmp_path / "a"), Samples(tmp_path / "b")
    assert together.store.plan.settings["group"] == 2 and "group" not in alone.store.plan.settings
    found, wanted = together.all(), alone.all()
    assert torch.equal(found["index"], wanted["index"])
    adaptive = "rtol" in options  # rounding decides on a step now and then
    assert (found["nfe"] - wanted["nfe"]).abs().max() <= (12 if adaptive else 0)
    assert torch.allclose(found["x"], wanted["x"], atol=1e-2 if adaptive else 1e-5)


def test_two_teams_divide_a_set(tmp_path: Path) -> None:
    meeting, folder = tmp_path / "meeting", tmp_path / "a"
    assert teams(folder, whole, {"method": "ddim", "steps": 3}, world=4, meeting=meeting) == [0] * 4
    made = [json.loads(Path(f"{meeting}.{number}").read_text())[1] for number in range(4)]
    assert made[0] == made[1] and made[2] == made[3] and made[0] + made[2] >= 4
    assert verify(folder).complete and not (folder / "leases").exists()


def test_a_team_that_waits_for_another_process_is_not_out_of_time(tmp_path: Path) -> None:
    """It waits for three seconds in a group that gives up after one."""
    folder = tmp_path / "a"
    holder = {"host": "elsewhere", "process": 1, "started": "2", "beat": 0}
    (folder / "leases").mkdir(parents=True)
    (folder / "leases" / "00000001.json").write_text(json.dumps(holder))
    options = {"method": "ddim", "steps": 3, "patience": 3.0}
    assert teams(folder, whole, options, meeting=tmp_path / "meeting", seconds=1.0) == [0, 0]
    assert verify(folder).complete


class Narrow(Net):
    """Process 1 of the group has memory for two samples only."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if self.number == 1 and len(x) > 2:
            raise MemoryError
        return super().forward(x, t)


def narrow(net: Net, group: Any) -> Net:
    return Narrow(dist.get_rank(group)).eval()


@pytest.mark.parametrize("count", [8, pytest.param(30, marks=slow)])
def test_a_group_with_little_memory_takes_smaller_batches_when_it_is_started_again(tmp_path: Path, count: int) -> None:
    """Each start ends at a shard, and marks it; the samples are those of the smaller batches."""
    folder, options = tmp_path / "a", {"method": "ddim", "steps": 3}
    ends = []
    for start in range(9):
        meeting = tmp_path / str(start)
        ends.append(teams(folder, narrow, options, meeting=meeting, seconds=5.0, count=count))
        if ends[-1] == [0, 0]:
            break
    assert len(ends) == 1 + -(-count // 8) and all(0 not in end for end in ends[:-1])  # once for each shard
    assert verify(folder).complete
    with torch.no_grad():
        generate(tmp_path / "b", SDE, Net().eval(), count, **{**OPTIONS, **options, "batch_size": 2})
    assert torch.allclose(Samples(folder).all()["x"], Samples(tmp_path / "b").all()["x"], atol=1e-5)


@slow
@pytest.mark.parametrize(("mark", "world", "folder", "count"), [("teams", 4, "set", 16), ("own", 2, "guided", 400)])
def test_the_programs_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, world: int, folder: str, count: int
) -> None:
    """As torchrun starts them, in several processes."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    text = program("docs/many_samples.md", mark)

    def run(number: int) -> None:
        torch.set_num_threads(1)
        os.environ["LOCAL_RANK"] = str(number)
        exec(compile(text, "draw.py", "exec"), {"__name__": "__main__"})
        if dist.is_initialized():
            dist.destroy_process_group()

    children = [started(functools.partial(run, number), number, world) for number in range(world)]
    assert [ended(child) for child in children] == [0] * world
    assert verify(folder).complete and len(Samples(folder)) == count


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_team_stops_when_too_many_samples_fail(tmp_path: Path) -> None:
    """The first process says why; the others end, too."""

    def broken(net: Net, group: Any) -> Any:
        return lambda x, t: torch.where(x > -9, torch.nan, x)

    assert teams(tmp_path / "a", broken, {"method": "ddim", "steps": 3}, meeting=tmp_path / "meeting") == [70, 0]
    with pytest.raises(scoresde.InvalidTypeError, match=r"process group of torch\.distributed"):
        generate(tmp_path / "b", SDE, Net().eval(), 3, group="world", method="ddim", steps=2, **OPTIONS)
    assert not (tmp_path / "b").exists()
