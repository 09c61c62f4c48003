"""Making the shards of a set, in as many processes as there are."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SolveFailedError, out_of_memory, too_little_memory
from ..files.leases import Lease, Leases
from ..files.shards import Store
from .containers import Files, Rows

_PAUSE = 0.2  # seconds between two looks at what others do
_WORST = 5  # failures that a message names

Failure = Mapping[str, Any]  # index, seed, t and reason
Compute = Callable[[range, Callable[[], None]], tuple[Rows, list[Failure]]]


@dataclass(frozen=True)
class Work:
    """What a process does for a set.

    Args:
        store: the folder.
        compute: ``(indices, beat) -> (arrays, failures)`` of a batch; it calls ``beat`` as it goes on.
        pack: ``(shard, arrays) -> files``.
        patience: see `scoresde.files.leases.Leases`.
        allowed: the share of samples that may fail.
        rank, world: of this process, and how many there are: only where to begin, and who looks at everything in the
            end, depends on them.
        show: called with the samples that are complete.
    """

    store: Store
    compute: Compute
    pack: Callable[[int, Rows], Files]
    patience: float
    allowed: float
    rank: int
    world: int
    show: Callable[[int], None]

    def run(self) -> int:
        """Make what is missing, wait for what others make, and, in the first process, read everything again.

        Returns:
            The number of shards that this process made.
        """
        made = self._make(dict.fromkeys(self._order()))
        if self.rank == 0:
            damaged = list(self.store.remaining(content=True))
            for shard in damaged:  # records are the last to be written, but disks may err
                made += self._shard(shard, None)
            self.store.clean()
        return made

    def _order(self) -> Iterator[int]:
        """The shards, each process from a place of its own."""
        shards = self.store.plan.shards
        first = self.rank * len(shards) // self.world
        yield from shards[first:]
        yield from shards[:first]

    def _make(self, left: dict[int, None]) -> int:
        leases = Leases(self.store.leases, self.patience)
        made = done = failed = 0
        while left:
            before = len(left)
            for shard in list(left):
                record = self.store.record(shard)
                if record is None:
                    lease = leases.take(f"{shard:08d}")
                    if lease is None:
                        continue
                    try:
                        # Another process may have made it since, and given the lease back.
                        made += self._shard(shard, lease) if self.store.record(shard) is None else 0
                    finally:
                        lease.release()
                    record = self.store.record(shard)
                if record is not None:
                    del left[shard]
                    done += len(self.store.plan.span(shard))
                    failed += len(record.failures)
                    self.show(done)
                    self._check(failed, record.failures)
            if len(left) == before:
                time.sleep(_PAUSE)
        return made

    def _check(self, failed: int, failures: tuple[Failure, ...]) -> None:
        """Stop where too many samples have failed; what is complete stays."""
        if failed > self.allowed * self.store.plan.count:
            named = "; ".join(f"sample {f['index']} at t={f['t']:g}: {f['reason']}" for f in failures[:_WORST])
            raise SolveFailedError(
                f"{failed} of {self.store.plan.count} samples failed, the last: {named}. What is complete is kept; "
                f"max_failures={self.allowed:g} allows {int(self.allowed * self.store.plan.count)}."
            )

    def _shard(self, shard: int, lease: Lease | None) -> int:
        """Make a shard, with smaller batches where memory does not suffice."""
        store, span = self.store, self.store.plan.span(shard)
        beat = (lambda: None) if lease is None else lease.beat
        size, parts = 0, []
        while size != store.batch_size(shard):  # which becomes smaller, here or in another process
            size = store.batch_size(shard)
            try:
                parts = [self._batch(batch, span, beat) for batch in store.plan.batches(shard, size)]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise too_little_memory("for one sample", error) from error
                print(f"Too little memory for shard {shard}; its batches become {size // 2}.", file=sys.stderr)
                store.halve(shard, size // 2)
        rows = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
        failures = tuple(failure for _, failed in parts for failure in failed)
        store.write(shard, self.pack(shard, rows), batch_size=size, failures=failures)
        return 1

    def _batch(self, batch: range, span: range, beat: Callable[[], None]) -> tuple[Rows, list[Failure]]:
        """What a batch has of a shard."""
        rows, failures = self.compute(batch, beat)
        beat()
        low, high = max(batch.start, span.start), min(batch.stop, span.stop)
        part = slice(low - batch.start, high - batch.start)
        return {name: value[part] for name, value in rows.items()}, [f for f in failures if low <= f["index"] < high]


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
