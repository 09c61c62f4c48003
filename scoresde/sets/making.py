"""Making the shards of a set, in as many processes as there are."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import OutputError, SolveFailedError, out_of_memory, too_little_memory
from ..core.support.files.leases import Lease, Leases
from ..core.support.files.shards import Record, Store
from .containers import Files, Rows
from .teams import Alone, Team

_PAUSE = 0.2  # seconds between two readings of what others do
_LISTED = 10.0  # seconds between two readings of how far others are, where that is shown
_WORST = 5  # failures that a message names

Failure = Mapping[str, Any]  # index, seed, t and reason
Compute = Callable[[range, Callable[[], None]], tuple[Rows, list[Failure]]]
Made = tuple[Rows, tuple[Failure, ...], int]  # of a shard: its arrays, what failed, and the size of its batches


class Writer:
    """Writes one shard while the next one is made.

    Args:
        write: ``(shard, made, lease)``.
    """

    def __init__(self, write: Callable[[int, Made, Lease | None], None]) -> None:
        self._write, self._pool = write, ThreadPoolExecutor(1)
        self._now: tuple[int, Future[None]] | None = None

    def put(self, shard: int, made: Made, lease: Lease | None) -> int | None:
        """Begin to write a shard; returns the one before, which is complete."""
        before = self.finish()
        self._now = (shard, self._pool.submit(self._write, shard, made, lease))
        return before

    def finish(self) -> int | None:
        """Wait for what is being written; returns its shard."""
        if self._now is None:
            return None
        (shard, future), self._now = self._now, None
        future.result()
        return shard

    def close(self) -> None:
        """Wait for it, also after an error."""
        self._pool.shutdown()


@dataclass
class Work:
    """What a process does for a set.

    Args:
        store: the folder.
        compute: ``(indices, beat) -> (arrays, failures)`` of a batch; it calls ``beat`` as it goes on.
        pack: ``(shard, arrays) -> files``.
        patience: see `scoresde.core.support.files.leases.Leases`.
        allowed: the share of samples that may fail.
        rank, world: of this process, or of its team, and how many there are: only where to begin, and who reads
            everything in the end, depends on them.
        show: called with the number of samples that are made; None for nobody.
        team: with which this process makes each shard.
        arrived: called before the arrays of ``compute`` are read; it returns when they are complete.
    """

    store: Store
    compute: Compute
    pack: Callable[[int, Rows], Files]
    patience: float
    allowed: float
    rank: int
    world: int
    show: Callable[[int], None] | None
    team: Team = field(default_factory=Alone)
    arrived: Callable[[], None] = lambda: None
    _complete: set[int] = field(default_factory=set)  # the shards that are, or that this process is writing
    _listed: float = 0.0  # when their names were read last
    _failures: dict[int, tuple[Failure, ...]] = field(default_factory=dict)  # by shard
    _shown: int = 0

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All that failed, when the set is complete."""
        return tuple(failure for _, failures in sorted(self._failures.items()) for failure in failures)

    def run(self) -> int:
        """Make what is missing, wait for what others make, and, in the first process, read everything again.

        Returns:
            The number of shards that this process made.
        """
        if not self.team.leads:
            return self._follow()
        writer = Writer(self._write)
        try:
            made = self._make(dict.fromkeys(self._order()), writer)
            if self.rank == 0:
                damaged = [shard for shard, record in self.store.read() if record is None]
                for shard in damaged:  # records are the last to be written, but disks may err
                    self._write(shard, self._shard(shard, None), None)
                made += len(damaged)
                self.store.clean()
        except (SolveFailedError, OutputError):  # which the others of the team do not meet
            self.team.end(())
            raise
        finally:
            writer.close()
        self.team.end(self.failures)
        return made

    def _follow(self) -> int:
        """Make the shards that the first process of the team names, which is the one that writes them."""
        made = set()
        while (order := self.team.hear()) is not None:
            self._parts(*order, lambda: None)
            made.add(order[0])
        self._failures = {0: self.team.failures}
        return len(made)

    def _order(self) -> Iterator[int]:
        """The shards, each process from a place of its own."""
        shards = self.store.plan.shards
        first = self.rank * len(shards) // self.world
        yield from shards[first:]
        yield from shards[:first]

    def _make(self, left: dict[int, None], writer: Writer) -> int:
        leases = Leases(self.store.leases, self.patience)
        made = 0

        def note(shard: int, record: Record | None) -> None:
            if record is not None:
                del left[shard]
                self._note(shard, record)

        def note_written(shard: int | None) -> None:
            if shard is not None:
                note(shard, self.store.record(shard))

        while left:
            before = len(left)
            for shard in list(left):
                record = self.store.record(shard)
                if record is None:
                    lease = leases.take(f"{shard:08d}")
                    if lease is None:
                        continue
                    # Another process may have made it since, and given the lease back.
                    record = self.store.record(shard)
                    if record is None:
                        try:
                            shard_made = self._shard(shard, lease)
                            before_it = writer.put(shard, shard_made, lease)
                        except BaseException:
                            lease.release()
                            raise
                        made += 1
                        note_written(before_it)
                        if shard_made[1]:  # failures, of which there may be too many
                            note_written(writer.finish())
                        continue
                    lease.release()
                note(shard, record)
            note_written(writer.finish())
            if len(left) == before:
                self.team.wait()
                time.sleep(_PAUSE)
        return made

    def _note(self, shard: int, record: Record) -> None:
        """A shard is complete: show it, and stop where too many samples have failed; what is complete stays."""
        self._complete.add(shard)
        self._show(0)
        if record.failures:
            self._failures[shard] = record.failures
        failed = sum(len(failures) for failures in self._failures.values())
        if record.failures and failed > self.allowed * self.store.plan.count:
            named = "; ".join(told(failure) for failure in record.failures[:_WORST])
            raise SolveFailedError(
                f"{failed} of {self.store.plan.count} samples failed, the last: {named}. What is complete is kept; "
                f"max_failures={self.allowed:g} allows {int(self.allowed * self.store.plan.count)}."
            )

    def _show(self, made: int) -> None:
        """Say how many samples of the set are made, these of a shard in work included, to whom wants to know."""
        if self.show is None:
            return
        done = self._done() + made
        if done > self._shown:
            self._shown = done
            self.show(done)

    def _done(self) -> int:
        """The samples of complete shards and of those that this process is writing. What others have made is read
        now and then: with many processes and shards, lists of files are long, and all of them make the file server
        work."""
        now = time.monotonic()
        if now - self._listed >= _LISTED or self._listed == 0.0:
            self._complete.update(self.store.recorded())
            self._listed = now
        return self.store.plan.samples(self._complete)

    def _shard(self, shard: int, lease: Lease | None) -> Made:
        """Make a shard, with smaller batches where memory does not suffice."""
        store, size = self.store, 0
        parts: list[tuple[Rows, list[Failure]]] | None = None
        while size != store.batch_size(shard) or parts is None:  # which becomes smaller, here or in another process
            size = store.batch_size(shard)
            self.team.tell(shard, size)
            parts = self._parts(shard, size, (lambda: None) if lease is None else lease.beat)
        self.arrived()
        rows = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
        failures = tuple(failure for _, failed in parts for failure in failed)
        self._complete.add(shard)
        self._show(0)
        return rows, failures, size

    def _parts(self, shard: int, size: int, beat: Callable[[], None]) -> list[tuple[Rows, list[Failure]]] | None:
        """The batches of a shard; None where memory does not suffice, and smaller ones are to be made in their place.

        In a group the others wait for this process, which cannot begin again. It ends with them, and the next start
        makes the smaller batches.
        """
        store, span = self.store, self.store.plan.span(shard)
        parts = []
        try:
            for batch in store.plan.batches(shard, size):
                parts.append(self._batch(batch, span, beat))
                if batch.stop < span.stop:
                    self._show(batch.stop - span.start)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise too_little_memory("for one sample", error) from error
            print(f"Too little memory for shard {shard}; its batches become {size // 2}.", file=sys.stderr)
            store.halve(shard, size // 2)
            if not self.team.alone:
                purpose = f"for batches of {size}; the next start of the group makes shard {shard} in smaller ones"
                raise too_little_memory(purpose, error) from error
            return None
        return parts

    def _write(self, shard: int, made: Made, lease: Lease | None) -> None:
        rows, failures, size = made
        try:
            files = self.pack(shard, rows)
            if lease is not None:
                lease.beat()
            self.store.write(shard, files, batch_size=size, failures=failures)
        finally:
            if lease is not None:
                lease.release()

    def _batch(self, batch: range, span: range, beat: Callable[[], None]) -> tuple[Rows, list[Failure]]:
        """What a batch has of a shard."""
        rows, failures = self.compute(batch, beat)
        beat()
        low, high = max(batch.start, span.start), min(batch.stop, span.stop)
        part = slice(low - batch.start, high - batch.start)
        return {name: value[part] for name, value in rows.items()}, [f for f in failures if low <= f["index"] < high]


def told(failure: Failure) -> str:
    """Describe a failure in words.

    Example:
        >>> told({"index": 7, "seed": 0, "t": 0.5, "reason": "non_finite"})
        'sample 7 at t=0.5: non_finite'
    """
    where = "" if failure["t"] is None else f" at t={failure['t']:g}"
    return f"sample {failure['index']}{where}: {failure['reason']}"


def place() -> tuple[int, int]:
    """The rank of this process and how many there are, as torchrun says.

    Example:
        >>> place()
        (0, 1)
    """
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 0, 1
    return (rank, world) if 0 <= rank < world else (0, 1)
