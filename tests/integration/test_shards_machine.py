"""Several workers on one set, and all that can happen to them in any order: one clean run leaves the plain set."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scoresde.core.errors import CorruptCheckpointError, OutputError
from scoresde.core.support.files import leases as leases_module
from scoresde.core.support.files.leases import Lease, Leases
from scoresde.core.support.files.shards import SetPlan, Store, opened
from scoresde.sets import making as making_module
from scoresde.sets.making import Rows, Work
from tools._faults import scratch

PLAN = SetPlan({"seed": 1}, first=1, count=6, shard_size=4, batch_size=4)
PATIENCE = 10.0
WORKERS = st.integers(0, 2)
PLACES = st.floats(0, 1, exclude_max=True)


def content(shard: int, size: int) -> dict[str, bytes]:
    """Of a shard, which is a function of its indices and of the batches that they are in."""
    batches = PLAN.batches(shard, size)
    rows = [(i, next(batch.start for batch in batches if i in batch)) for i in PLAN.span(shard)]
    return {f"{shard}.{end}": json.dumps([end, *rows]).encode() for end in ("a", "b")}


@dataclass
class Worker:
    """A process on a machine of its own, with a clock of its own."""

    number: int
    clock: float
    store: Store | None = None
    leases: Leases | None = None
    shard: int = -1
    size: int = 0
    lease: Lease | None = None
    life: int = field(default=0)


class Machine(RuleBasedStateMachine):
    """Workers begin, take, go on, write, fall asleep, die; files are damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = scratch()
        self.workers = [Worker(i, clock) for i, clock in enumerate((0.0, 1e6, -5.0))]
        for number in range(2):
            self.begin(number)

    def teardown(self) -> None:
        try:
            self.clean_run()
        finally:
            shutil.rmtree(self.folder)

    def as_worker(self, worker: Worker, action: Callable[[], Any]) -> Any:
        """With its clock and name."""
        clock = SimpleNamespace(monotonic=lambda: worker.clock)
        machine = SimpleNamespace(node=lambda: f"machine {worker.number}")
        with mock.patch.object(leases_module, "time", clock), mock.patch.object(leases_module, "platform", machine):
            return action()

    # what workers do

    @rule(number=WORKERS)
    def begin(self, number: int) -> None:
        worker = self.workers[number]
        try:
            worker.store = Store.begin(self.folder, PLAN)
        except (CorruptCheckpointError, OutputError):  # set.json and all records are damaged: nothing says what it is
            assert not self.told()
            self.forget()
            worker.store = Store.begin(self.folder, PLAN)
        worker.leases, worker.lease = Leases(worker.store.leases, PATIENCE), None

    @rule(number=WORKERS, place=PLACES)
    def take(self, number: int, place: float) -> None:
        worker = self.workers[number]
        if worker.store is None or worker.leases is None or worker.lease is not None:
            return
        left = [shard for shard in worker.store.plan.shards if worker.store.record(shard) is None]
        if left:
            shard = left[int(place * len(left))]
            leases = worker.leases
            worker.lease = self.as_worker(worker, lambda: leases.take(f"{shard:08d}"))
            worker.shard, worker.size = shard, worker.store.batch_size(shard)

    @rule(number=WORKERS, seconds=st.sampled_from([1.0, 6.0, 11.0, 1e5]))
    def wait(self, number: int, seconds: float) -> None:
        """Others see nothing of it: a slow worker."""
        self.workers[number].clock += seconds

    @rule(number=WORKERS)
    def beat(self, number: int) -> None:
        worker = self.workers[number]
        if worker.lease is not None:
            self.as_worker(worker, worker.lease.beat)

    @rule(number=WORKERS)
    def write(self, number: int) -> None:
        """At the end of the work, however long ago it began."""
        worker = self.workers[number]
        if worker.lease is not None and worker.store is not None:
            worker.store.write(worker.shard, content(worker.shard, worker.size), batch_size=worker.size)
            self.as_worker(worker, worker.lease.release)
            worker.lease = None

    @rule(number=WORKERS, place=PLACES)
    def work(self, number: int, place: float) -> None:
        """Without trouble."""
        self.take(number, place)
        self.write(number)

    @rule(number=WORKERS)
    def too_little_memory(self, number: int) -> None:
        worker = self.workers[number]
        if worker.lease is not None and worker.store is not None and worker.size > 1:
            worker.store.halve(worker.shard, worker.size // 2)
            worker.size = worker.store.batch_size(worker.shard)

    @rule(
        number=WORKERS, how=st.sampled_from(["at work", "with a temporary file", "after one file", "before the record"])
    )
    def die(self, number: int, how: str) -> None:
        worker = self.workers[number]
        if worker.lease is not None and worker.store is not None:
            made = content(worker.shard, worker.size)
            written = {"after one file": 1, "before the record": 2}.get(how, 0)
            for name in list(made)[:written]:
                worker.store.file(name).write_bytes(made[name])
            if how == "with a temporary file":
                worker.store.file(f".{worker.shard}.a.{worker.life:016d}.tmp").write_bytes(b"half of")
        worker.store = worker.leases = worker.lease = None
        worker.life += 1

    @rule(number=WORKERS)
    def tidy(self, number: int) -> None:
        """Who finds the set complete cleans it, whatever the others do."""
        store = self.workers[number].store
        if store is not None and all(record is not None for _, record in store.read()):
            store.clean()

    # what happens to files

    @precondition(lambda self: any(self.folder.rglob("*")))
    @rule(place=PLACES, where=PLACES, how=st.sampled_from(["flip", "cut", "remove", "empty", "zeros"]))
    def damage(self, place: float, where: float, how: str) -> None:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        if not files:
            return
        path = files[int(place * len(files))]
        whole = path.read_bytes()
        at = int(where * len(whole))
        if how == "remove":
            path.unlink()
        else:
            flipped = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] if whole else b"\0"
            path.write_bytes({"flip": flipped, "cut": whole[:at], "empty": b"", "zeros": bytes(len(whole))}[how])

    # what holds

    @invariant()
    def what_is_believed_is_right(self) -> None:
        try:
            store = Store.of(self.folder)
        except CorruptCheckpointError:
            return
        assert store.plan == PLAN
        for shard in PLAN.shards:
            record = store.record(shard, content=True)
            if record is not None:
                wanted = content(shard, record.batch_size)
                assert {name: store.file(name).read_bytes() for name in record.files} == wanted
                assert record.batch_size == store.batch_size(shard)

    def told(self) -> bool:
        """Whether a record is left that says what the set is."""
        for path in (self.folder / "records").glob("*.json"):
            try:
                opened(path.read_bytes())
            except ValueError:
                continue
            return True
        return False

    def forget(self) -> None:
        for path in list(self.folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clean_run(self) -> None:
        """One more process makes what is left, waits for nobody, and the set is the plain one."""
        fresh = Worker(9, 0.0)
        self.workers.append(fresh)
        self.begin(3)
        assert fresh.store is not None
        store = fresh.store

        def compute(batch: range, beat: Callable[[], None]) -> tuple[Rows, list[Any]]:
            beat()
            return {"index": np.array(batch), "batch": np.full(len(batch), batch.start)}, []

        def pack(shard: int, rows: Rows) -> dict[str, bytes]:
            pairs = list(zip(rows["index"].tolist(), rows["batch"].tolist(), strict=True))
            return {f"{shard}.{end}": json.dumps([end, *pairs]).encode() for end in ("a", "b")}

        def sleep(seconds: float) -> None:
            fresh.clock += seconds

        with mock.patch.object(making_module, "time", SimpleNamespace(sleep=sleep)):
            self.as_worker(fresh, Work(store, compute, pack, PATIENCE, 0.0, 0, 1, None).run)
        found = {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        sizes = {shard: store.batch_size(shard) for shard in PLAN.shards}
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as name:
            plain = Store.begin(Path(name), PLAN)
            for shard, size in sizes.items():
                if f"records/{shard:08d}.batch.json" in found:
                    found.pop(f"records/{shard:08d}.batch.json")
                plain.write(shard, content(shard, size), batch_size=size)
            wanted = {str(p.relative_to(name)): p.read_bytes() for p in Path(name).rglob("*") if p.is_file()}
            wanted = {n: c for n, c in wanted.items() if not n.endswith(".batch.json")}
        for shard in PLAN.shards:  # records of smaller batches have files of their own, which say so
            assert found[f"records/{shard:08d}.json"] == wanted[f"records/{shard:08d}.json"]
        assert found == wanted


def limits(examples: int) -> settings:
    """A failure is shown as it was found: to make it smaller takes minutes."""
    return settings(max_examples=examples, stateful_step_count=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))


class Longer(Machine):
    """The same in the full tier, with more orders of events."""


TestMachine = Machine.TestCase
TestMachine.settings = limits(40)
TestLonger = pytest.mark.slow(Longer.TestCase)
TestLonger.settings = limits(200)
