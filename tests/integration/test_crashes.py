"""Processes that are killed while they make a set of samples: the next one leaves the same bytes as one that was not
interrupted. `python -m tools crash` is the longer program."""

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

from scoresde.sets import verify
from tools._faults import computed, draw, ended, every_point, files, jumping, scratch, started

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="forks and signals of POSIX"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = scratch()
    yield path
    shutil.rmtree(path)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("scenario", "whens"),
    [
        ("archives", ("before",)),
        ("halved", ("half",)),
        *(
            pytest.param(scenario, ("before", "half"), marks=slow)
            for scenario in ("halved", "taken over", "extended", "pictures")
        ),
    ],
)
def test_killed_at_every_point(folder: Path, scenario: str, whens: tuple[str, ...]) -> None:
    """At each call that changes the disk, and in the middle of each write."""
    counts = every_point(folder, scenario, whens)
    assert counts.injected == counts.recovered > 4 and counts.lost == 0
    assert counts.duplicated <= counts.injected  # the shard that was computed when the process was killed


def ranks(world: int, folder: Path, log: Path, begin: int = 0, **options: Any) -> list[int]:
    return [started(functools.partial(draw, folder, log, **options), rank, world) for rank in range(begin, world)]


def all_end(children: list[int]) -> None:
    assert [ended(child) for child in children] == [0] * len(children)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The set of one process."""
    path = tmp_path_factory.mktemp("plain")
    draw(path / "plain", path / "log", 10)
    return files(path / "plain")


@pytest.mark.parametrize("world", [3, pytest.param(2, marks=slow), pytest.param(5, marks=slow)])
def test_ranks_divide_the_work(tmp_path: Path, plain: dict[str, bytes], world: int) -> None:
    all_end(ranks(world, tmp_path / "set", tmp_path / "log", shards=10, pause=0.02, patience=100.0))
    assert files(tmp_path / "set") == plain
    assert computed(tmp_path / "log") == 10  # no shard twice


@pytest.mark.parametrize(
    ("number", "world"),
    [
        (signal.SIGKILL, 3),
        *(pytest.param(number, world, marks=slow) for number in (signal.SIGKILL, signal.SIGTERM) for world in (2, 5)),
    ],
)
def test_others_make_what_killed_ranks_leave(tmp_path: Path, plain: dict[str, bytes], number: int, world: int) -> None:
    chance, folder = random.Random(0), tmp_path / "set"
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
    all_end([children[0], children[2]])
    assert verify(folder).complete
    os.kill(children[1], signal.SIGCONT)
    all_end([children[1]])
    draw(folder, log, 10)
    assert files(folder) == plain


@slow
@pytest.mark.parametrize("trouble", ["a rank leaves early", "clocks jump", "two launches at once"])
def test_ranks_in_trouble(tmp_path: Path, plain: dict[str, bytes], trouble: str) -> None:
    folder, log = tmp_path / "set", tmp_path / "log"

    def jumps(seed: int) -> None:
        with jumping(random.Random(seed)):
            draw(folder, log, 10, 0.02)

    if trouble == "clocks jump":
        all_end([started(functools.partial(jumps, i), i, 3) for i in range(3)])
    elif trouble == "a rank leaves early":
        leaving = functools.partial(draw, folder, log, 10, 0.02, show=lambda done: os._exit(0))
        all_end([started(leaving, 0, 3), *ranks(3, folder, log, shards=10, pause=0.02, begin=1)])
        draw(folder, log, 10)
    else:
        all_end(ranks(2, folder, log, shards=10) + ranks(1, folder, log, shards=10))
        draw(folder, log, 10)
    assert files(folder) == plain


def test_a_rank_with_little_memory(tmp_path: Path, plain: dict[str, bytes]) -> None:
    """Its shards are made in smaller batches, those of the others are not; whoever continues keeps them apart."""
    folder, log = tmp_path / "set", tmp_path / "log"
    poor = functools.partial(draw, folder, log, 10, 0.02, 1)
    all_end([started(poor, 0, 3), *ranks(3, folder, log, shards=10, pause=0.02, begin=1)])
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
