"""What the actions of a rank cost: operations, which are counted, and seconds on a disk, which are measured."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import pathlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from scoresde.core.support.files.leases import Leases
from scoresde.core.support.files.shards import SetPlan, Store
from scoresde.core.support.registries import CONTAINERS

_CALLS = ("open", "stat", "mkdir", "unlink", "replace", "fsync", "rmdir", "scandir", "listdir")
_EVENT = (3, 64, 64)
_SMALL, _LARGE = 2**12, 2**25  # bytes


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """The calls that a file server sees: those that name a file, and those that bring one to the disk. The parts of
    paths that are looked at, to follow links, are not among them, since clients know them."""
    found: Counter[str] = Counter()

    def count(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(first: Any, *args: Any, **kwargs: Any) -> Any:
            # A number is of a file that is open, and /proc is on the machine.
            there = isinstance(first, str | os.PathLike) and not os.fspath(first).startswith("/proc/")
            found[name] += name == "fsync" or there
            return call(first, *args, **kwargs)

        return called

    with contextlib.ExitStack() as patches:
        for name in _CALLS:
            for place in {os, getattr(pathlib, "_normal_accessor", os)}:
                if hasattr(place, name):
                    patches.enter_context(mock.patch.object(place, name, count(name, getattr(place, name))))
        for place in (io, builtins):
            patches.enter_context(mock.patch.object(place, "open", count("open", open)))
        yield found


class Actions:
    """The actions of a rank, in a folder with a set of three shards: one is complete, one has another rank's lease.

    Args:
        folder: of the set.
        size: the bytes of a shard.
    """

    def __init__(self, folder: Path, size: int = _SMALL) -> None:
        self.store = Store.begin(folder, SetPlan({}, first=0, count=3, shard_size=1, batch_size=1))
        self.leases = Leases(self.store.leases, 60.0)
        self.content = np.random.default_rng(0).bytes(size)
        self.store.write(0, {"00000000.bin": self.content}, batch_size=1)
        with mock.patch("platform.node", return_value="another host"):
            Leases(self.store.leases, 60.0).take("00000001")

    def complete(self) -> None:
        """A look at a shard that is complete."""
        self.store.record(0)

    def busy(self) -> None:
        """A look at a shard that another rank makes."""
        self.store.record(1)
        if self.leases.take("00000001") is not None:
            raise RuntimeError("the lease of another rank was taken")

    def take(self) -> None:
        """A look at a shard that nobody makes, its lease, and what precedes its first batch."""
        self.store.record(2)
        self.lease = self.leases.take("00000002")
        self.store.record(2)
        self.store.batch_size(2)
        self.store.batch_size(2)

    def beat(self) -> None:
        """A change of the lease."""
        if self.lease is not None:
            self.lease.write()

    def write(self) -> None:
        """The files and the record; the lease is given back, and the record is looked at."""
        self.store.batch_size(2)
        self.store.write(2, {"00000002.bin": self.content}, batch_size=1)
        if self.lease is not None:
            self.lease.release()
        self.store.record(2)

    def check(self) -> None:
        """Read a complete shard again."""
        self.store.record(0, content=True)

    def renew(self) -> None:
        """Remove what was made."""
        for name in ("records/00000002.json", "shards/00000002.bin"):
            (self.store.folder / name).unlink()


NAMES = ("complete", "busy", "take", "beat", "write", "check")  # in an order in which they can be done


def operations(folder: Path) -> dict[str, int]:
    """How many operations each action has."""
    actions = Actions(folder)
    found = {}
    for name in NAMES:
        with counted() as calls:
            getattr(actions, name)()
        found[name] = sum(calls.values())
    return found


def seconds(
    folder: Path, trials: int, size: int = _SMALL, of: Callable[[list[float]], float] = statistics.median
) -> dict[str, float]:
    """The seconds of each action, the median or another figure of the trials."""
    actions = Actions(folder, size)
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(trials):
        for name in NAMES:
            begin = time.perf_counter()
            getattr(actions, name)()
            found[name].append(time.perf_counter() - begin)
        actions.renew()
    return {name: of(values) for name, values in found.items()}


def listing(folder: Path, records: int, trials: int) -> float:
    """The seconds for each name, of listing the records of a set."""
    store = Store.begin(folder, SetPlan({}, first=0, count=records, shard_size=1, batch_size=1))
    for shard in store.plan.shards:
        (folder / "records" / f"{shard:08d}.json").touch()
    times = []
    for _ in range(trials):
        begin = time.perf_counter()
        store.recorded()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) / records


def measured(folder: Path, trials: int) -> dict[str, Any]:
    """Median seconds of each action with a small shard, and the least seconds that each MB adds to writing and checking
    one: they are computing, which what else the machine does makes slower."""
    small, least = seconds(folder / "small", trials), seconds(folder / "least", trials, of=min)
    large = seconds(folder / "large", max(3, trials // 4), _LARGE, min)
    megabytes = (_LARGE - _SMALL) / 1e6
    per_megabyte = {name: (large[name] - least[name]) / megabytes for name in ("write", "check")}
    return {"seconds": small, "per MB": per_megabyte, "per name": listing(folder / "names", 2000, 5)}


def containers(trials: int, count: int = 64) -> dict[str, dict[str, float]]:
    """Bytes, files and seconds of packing per sample of 3 x 64 x 64, by container. The samples are noise, which no
    picture format makes smaller; those of a network need less room as pictures."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (count, *_EVENT)).astype(np.float32)
    index = np.arange(count, dtype=np.int64)
    rows = {"x": x, "nfe": np.full(count, 25), "status": np.zeros(count, dtype=np.int64), "index": index}
    found = {}
    for name, pack in CONTAINERS.items():
        packed = functools.partial(pack, "00000000", rows, (-1.0, 1.0))
        files, times = packed(), []
        for _ in range(trials):
            begin = time.perf_counter()
            packed()
            times.append((time.perf_counter() - begin) / count)
        found[name] = {
            "bytes": sum(map(len, files.values())) / count,
            "files": len(files) / count,
            "seconds": statistics.median(times),
        }
    return found
