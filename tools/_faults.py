"""A small set of samples, processes that make it, and what happens to them: for `tools.crash` and for the tests.

As a program, ``python -m tools._faults FOLDER LOG OPTIONS`` makes the set: what torchrun starts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import scoresde
from scoresde.core.support.files import leases
from scoresde.core.support.files.shards import Store
from scoresde.sets import Generated, generate

SDE = scoresde.VPSDE()
TARGET = scoresde.targets.Gaussian(torch.zeros(1, 4, 4), 0.3).score(SDE)
SHARD_SIZE, BATCH_SIZE = 4, 2
PATIENCE = 0.3  # seconds


class Score:
    """Score function of a target, as slow and with as little memory as a test wants."""

    def __init__(self, pause: float, most: int) -> None:
        self.pause, self.most = pause, most

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if len(x) > self.most:
            raise MemoryError
        time.sleep(self.pause)
        return TARGET(x, t)


def draw(folder: Path, log: Path, shards: int = 4, pause: float = 0.0, most: int = 99, **options: Any) -> Generated:
    """Make or continue the set; the log gets a line for each shard that is computed."""
    write = Store.write

    def logged(store: Store, shard: int, *args: Any, **kwargs: Any) -> None:
        with log.open("ab") as file:
            file.write(b"%d\n" % shard)
        write(store, shard, *args, **kwargs)

    given = {"patience": PATIENCE, "shard_size": SHARD_SIZE, "batch_size": BATCH_SIZE, "identity": "target", **options}
    with mock.patch.object(Store, "write", logged):
        return generate(
            folder, SDE, Score(pause, most), shards * SHARD_SIZE - 1, shape=(1, 4, 4), method="ddim", steps=2, **given
        )


def scratch() -> Path:
    """A new folder, in memory where the system has one for that: faults are many, and disks slow."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def computed(log: Path) -> int:
    """The shards that were computed."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


# Processes


def started(action: Callable[[], object], rank: int = 0, world: int = 1) -> int:
    """A child process that does something; its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(world)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        action()
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a child process ended: its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# What happens to them


def die(number: int = signal.SIGKILL) -> None:
    """End this process."""
    os.kill(os.getpid(), number)
    time.sleep(60)  # the signal may take a moment


class Dying:
    """A file at a write of which the process may end."""

    def __init__(self, file: Any, write: Callable[[Any, bytes], None]) -> None:
        self.file, self.write = file, lambda content: write(file, content)

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def doomed(hit: int, when: str) -> None:
    """In a child process: it is killed at a call that changes the disk.

    Args:
        hit: the number of the call.
        when: "before" or "after" it, or "half", which is in the middle of a write; then only writes are counted.
    """
    count = itertools.count(1)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            now = when != "half" and next(count) == hit
            if now and when == "before":
                die()
            try:
                return call(*args, **kwargs)
            finally:
                if now:
                    die()

        return called

    def write(file: Any, content: bytes) -> None:
        now = next(count) == hit
        if now and when == "before":
            die()
        file.write(content[: len(content) // 2] if now and when == "half" else content)
        if now:
            file.flush()
            die()

    for name in ("open", "fsync", "replace", "unlink", "mkdir", "rmdir", "link"):
        for place in {os, getattr(pathlib, "_normal_accessor", os)}:  # where the paths of Python 3.10 look
            if hasattr(place, name):
                setattr(place, name, deadly(getattr(place, name)))
    fdopen = os.fdopen
    os.fdopen = lambda *args, **kwargs: Dying(fdopen(*args, **kwargs), write)  # type: ignore[assignment]
    leases.open = lambda *args: Dying(deadly(open)(*args), write)  # type: ignore[attr-defined]


@dataclass
class Counts:
    """What came of faults.

    Attributes:
        injected: how many there were.
        recovered: after how many of them the set was, byte for byte, that of an uninterrupted run.
        lost: files that were not the same, and runs that ended badly.
        computed: shards that were computed, those before a fault included.
        duplicated: how many of them need not have been.
    """

    injected: int = 0
    recovered: int = 0
    lost: int = 0
    computed: int = 0
    duplicated: int = 0

    def count(self, folder: Path, plain: dict[str, bytes], done: int, needed: int) -> None:
        """One more fault, after which shards were computed; so many were needed."""
        found = files(folder)
        lost = sum(found.get(name) != plain.get(name) for name in {*found, *plain})
        self.injected += 1
        self.recovered += not lost
        self.lost += lost
        self.computed += done
        self.duplicated += max(0, done - needed)


def _new(folder: Path, log: Path) -> None:
    """Of a new set there is nothing."""


def _left(folder: Path, log: Path) -> None:
    """A process was killed at work, and a file is damaged: its lease is taken over."""
    draw(folder, log, 2)
    (folder / "shards" / "00000001.safetensors").write_bytes(b"damaged")
    if ended(started(lambda: (leases.Leases(folder / "leases", 60.0).take("00000001"), die()))) != -signal.SIGKILL:
        raise RuntimeError("the holder of a lease was not killed")


def _smaller(folder: Path, log: Path) -> None:
    """A set is to become larger."""
    draw(folder, log, 1)


SCENARIOS: dict[str, tuple[Callable[[Path, Path], None], dict[str, Any]]] = {
    "new": (_new, {"shards": 2}),
    "halved": (_new, {"shards": 1, "most": 1}),
    "taken over": (_left, {"shards": 2}),
    "extended": (_smaller, {"shards": 2, "extend": True}),
    "pictures": (_new, {"shards": 1, "container": "png"}),
    "archives": (_new, {"shards": 1, "container": "tar"}),
}


def every_point(base: Path, scenario: str, whens: Sequence[str]) -> Counts:
    """Kill a process at every call that changes the disk, and continue each time."""
    prepare, options = SCENARIOS[scenario]
    folder, log, before, counts = base / "set", base / "log", base / "before", Counts()
    prepare(before, log)
    draw(base / "plain", log, **options)
    plain = files(base / "plain")
    for when in whens:
        for hit in itertools.count(1):
            shutil.rmtree(folder, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, folder)
            log.unlink()
            run = functools.partial(draw, folder, log, **options)
            needed = options["shards"] - (scenario == "taken over")
            status = ended(started(lambda hit=hit, when=when, run=run: (doomed(hit, when), run())))  # type: ignore[misc]
            if status not in (0, -signal.SIGKILL):
                raise RuntimeError(f"a process that was to be killed {when} call {hit} ended with {status}")
            if status:
                run()
            if status or files(folder) != plain:
                counts.count(folder, plain, computed(log), needed)
            if not status:
                break
    return counts


@contextlib.contextmanager
def jumping(chance: random.Random) -> Iterator[None]:
    """The time of day is anything, each time that it is read."""

    def seconds() -> float:
        return chance.uniform(-1e9, 1e11)

    def nanoseconds() -> int:
        return chance.randrange(10**18)

    with mock.patch("time.time", seconds), mock.patch("time.time_ns", nanoseconds):
        yield


def announced(log: Path, rank: int, world: int) -> None:
    """Write this rank's process number beside the log, and wait until every rank has done so: a trial may then choose
    any of them, however slowly the machine starts processes."""
    new = Path(f"{log}.{rank}.new")
    new.write_text(str(os.getpid()))
    new.replace(f"{log}.{rank}.pid")
    while not all(Path(f"{log}.{other}.pid").exists() for other in range(world)):
        time.sleep(0.01)


def main(arguments: list[str]) -> None:
    """What torchrun starts: make the set, with its faults."""
    torch.set_num_threads(1)
    folder, log, text = arguments
    options = json.loads(text)
    leaves = options.pop("leaves", None)
    rank = int(os.environ["RANK"])
    announced(log, rank, int(os.environ["WORLD_SIZE"]))
    if leaves == rank:
        options["show"] = lambda done: os._exit(0)
    jumps = options.pop("jumps", None)
    with contextlib.nullcontext() if jumps is None else jumping(random.Random(jumps + rank)):
        draw(Path(folder), Path(log), **options)


if __name__ == "__main__":
    main(sys.argv[1:])
