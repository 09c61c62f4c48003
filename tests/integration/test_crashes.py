"""Processes that are killed while they make a set of samples: the next one leaves the same bytes as one that was not
interrupted. `python -m benchmarks crash` is the longer program."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks._faults import computed, draw, ended, every_point, files, jumping, scratch, started
from scoresde.generation import verify

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="forks and signals of POSIX"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = scratch()
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("scenario", ["halved", "taken over", "extended", "pictures"])
def test_killed_at_every_point(folder: Path, scenario: str) -> None:
    """At each call that changes the disk, and in the middle of each write."""
    counts = every_point(folder, scenario, ("before", "half"))
    assert counts.injected == counts.recovered > 30 and counts.lost == 0
    assert counts.duplicated <= counts.injected  # the shard that was computed when the process was killed


def ranks(world: int, folder: Path, log: Path, begin: int = 0, **options: Any) -> list[int]:
    return [started(functools.partial(draw, folder, log, **options), rank, world) for rank in range(begin, world)]


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, bytes]:
    draw(tmp_path / "plain", tmp_path / "log of plain", 10)
    return files(tmp_path / "plain")


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_divide_the_work(tmp_path: Path, plain: dict[str, bytes], world: int) -> None:
    children = ranks(world, tmp_path / "set", tmp_path / "log", shards=10, pause=0.02, patience=100.0)
    assert [ended(child) for child in children] == [0] * world
    assert files(tmp_path / "set") == plain
    assert computed(tmp_path / "log") == 10  # no shard twice


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_others_make_what_killed_ranks_leave(tmp_path: Path, plain: dict[str, bytes], number: int) -> None:
    chance = random.Random(0)
    for world in (2, 3, 5):
        folder = tmp_path / str(world)
        children = ranks(world, folder, tmp_path / "log", shards=10, pause=0.02)
        for child in chance.sample(children, world - 1):
            time.sleep(chance.uniform(0.0, 0.1))
            os.kill(child, number)
        assert sorted(ended(child) for child in children)[-1] == 0
        draw(folder, tmp_path / "log", 10)  # the first rank, which removes what is left, may have been killed
        assert files(folder) == plain


def test_a_rank_that_hangs(tmp_path: Path, plain: dict[str, bytes]) -> None:
    """The others complete the set, and it ends well when it wakes up."""
    folder, log = tmp_path / "set", tmp_path / "log"
    children = ranks(3, folder, log, shards=10, pause=0.03)
    while not computed(log):
        time.sleep(0.01)
    os.kill(children[1], signal.SIGSTOP)
    assert ended(children[0]) == ended(children[2]) == 0
    assert verify(folder).complete
    os.kill(children[1], signal.SIGCONT)
    assert ended(children[1]) == 0
    draw(folder, log, 10)
    assert files(folder) == plain


def test_a_rank_that_leaves_early(tmp_path: Path, plain: dict[str, bytes]) -> None:
    folder, log = tmp_path / "set", tmp_path / "log"
    leaving = functools.partial(draw, folder, log, 10, 0.02, show=lambda done: os._exit(0))
    children = [started(leaving, 0, 3), *ranks(3, folder, log, shards=10, pause=0.02, begin=1)]
    assert [ended(child) for child in children] == [0, 0, 0]
    draw(folder, log, 10)
    assert files(folder) == plain


def test_clocks_that_jump(tmp_path: Path, plain: dict[str, bytes]) -> None:
    folder, log = tmp_path / "set", tmp_path / "log"

    def rank(seed: int) -> None:
        with jumping(random.Random(seed)):
            draw(folder, log, 10, 0.02)

    children = [started(functools.partial(rank, i), i, 3) for i in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
    assert files(folder) == plain


def test_two_launches_at_once(tmp_path: Path, plain: dict[str, bytes]) -> None:
    for i in range(4):
        folder, log = tmp_path / f"set {i}", tmp_path / f"log {i}"
        children = ranks(2, folder, log, shards=10) + ranks(1, folder, log, shards=10)
        assert [ended(child) for child in children] == [0, 0, 0]
        draw(folder, log, 10)
        assert files(folder) == plain


def test_a_rank_with_little_memory(tmp_path: Path, plain: dict[str, bytes]) -> None:
    """Its shards are made in smaller batches, those of the others are not; whoever continues keeps them apart."""
    folder, log = tmp_path / "set", tmp_path / "log"
    poor = functools.partial(draw, folder, log, 10, 0.02, 1)
    children = [started(poor, 0, 3), *ranks(3, folder, log, shards=10, pause=0.02, begin=1)]
    assert [ended(child) for child in children] == [0, 0, 0]
    draw(tmp_path / "small", log, 10, most=1)
    made, small = files(folder), files(tmp_path / "small")
    halved = [shard for shard in range(10) if f"records/{shard:08d}.batch.json" in made]
    assert 0 in halved and verify(folder).complete
    assert made == {
        name: (small if int(Path(name).name[:8]) in halved else plain)[name] for name in made if name != "set.json"
    } | {"set.json": plain["set.json"]}
    for name in ("shards/00000000.safetensors", "shards/00000009.safetensors"):
        (folder / name).unlink()
    assert draw(folder, log, 10).made == 2 and files(folder) == made
