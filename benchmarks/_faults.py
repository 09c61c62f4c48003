"""A small set of samples, processes that make it, and what happens to them: for `benchmarks.crash` and for the tests.

As a program, ``python -m benchmarks._faults FOLDER LOG OPTIONS`` makes the set: what torchrun starts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import scoresde
from scoresde.files import leases
from scoresde.files.shards import Store
from scoresde.generation import Generated, generate

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


def every_point(
    prepare: Callable[[], object], run: Callable[[], object], whens: tuple[str, ...]
) -> Iterator[tuple[str, int]]:
    """Kill a child process at every call that changes the disk, each time after a preparation, and hand over after each
    kill."""
    for when in whens:
        for hit in itertools.count(1):
            prepare()
            status = ended(started(lambda hit=hit, when=when: (doomed(hit, when), run())))  # type: ignore[misc]
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise RuntimeError(f"a process that was to be killed {when} call {hit} ended with {status}")
            yield when, hit


@contextlib.contextmanager
def jumping(chance: random.Random) -> Iterator[None]:
    """The time of day is anything, each time that it is read."""

    def seconds() -> float:
        return chance.uniform(-1e9, 1e11)

    def nanoseconds() -> int:
        return chance.randrange(10**18)

    with mock.patch("time.time", seconds), mock.patch("time.time_ns", nanoseconds):
        yield


def main(arguments: list[str]) -> None:
    """What torchrun starts: make the set, with its faults."""
    torch.set_num_threads(1)
    folder, log, text = arguments
    options = json.loads(text)
    leaves = options.pop("leaves", None)
    rank = int(os.environ["RANK"])
    Path(f"{log}.{rank}.pid").write_text(str(os.getpid()))
    if leaves == rank:
        options["show"] = lambda done: os._exit(0)
    draw(Path(folder), Path(log), **options)


if __name__ == "__main__":
    main(sys.argv[1:])
