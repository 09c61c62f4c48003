"""Sets of samples survive: kills, signals, hangs, full disks, damage, clocks, launches at once; what each fault costs.

A small set is made in processes to which something happens, and then continued. After every fault its files must be,
byte for byte, those of a run that was not interrupted. Most processes are forks, which cost no start; the others are
started by torchrun. Shards that were computed without need are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks._record import write
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, OutputError
from scoresde.core.support.files.leases import Leases
from scoresde.sets import Samples, verify
from tools._faults import (
    SCENARIOS,
    SHARD_SIZE,
    Counts,
    computed,
    draw,
    ended,
    every_point,
    files,
    jumping,
    scratch,
    started,
)

ROOT = Path(__file__).resolve().parent.parent
WORLDS = (1, 2, 3, 5)
SHARDS = 10
SLOW = 0.01  # seconds of an evaluation
LONGEST = 120.0  # seconds until a run counts as hung
Options = dict[str, Any]


class Bench:
    """Where the faults happen.

    Args:
        base: a folder.
        chance: which decides when and where.
    """

    def __init__(self, base: Path, chance: random.Random) -> None:
        self.base, self.chance, self._number = base, chance, itertools.count()
        self._plain: dict[str, dict[str, bytes]] = {}

    def plain(self, **options: Any) -> dict[str, bytes]:
        """The files of a run that is not interrupted."""
        key = json.dumps(options)
        if key not in self._plain:
            folder = self.base / f"plain {len(self._plain)}"
            draw(folder, self.base / "log of plain", **options)
            self._plain[key] = files(folder)
        return self._plain[key]

    def new(self) -> tuple[Path, Path]:
        """A folder for a set, and a log of what is computed."""
        number = next(self._number)
        return self.base / f"set {number}", self.base / f"log {number}"

    def finish(self, counts: Counts, folder: Path, log: Path, shards: int = SHARDS, needed: int = SHARDS) -> None:
        """Continue a set after its fault, in this process, and look what became of it."""
        with limited():
            draw(folder, log, shards)
        counts.count(folder, self.plain(shards=shards), computed(log), needed)
        shutil.rmtree(folder)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """An error in place of a hang."""

    def hung(*args: object) -> None:
        raise TimeoutError(f"no end after {LONGEST:g} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def forks(world: int, folder: Path, log: Path, **options: Any) -> list[int]:
    """The ranks of a run."""
    return [started(functools.partial(draw, folder, log, SHARDS, **options), rank, world) for rank in range(world)]


def torchrun(world: int, folder: Path, log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """A run by torchrun."""
    given = json.dumps({"shards": SHARDS, **options})
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world))
    return subprocess.Popen(
        [sys.executable, *command, "-m", "tools._faults", str(folder), str(log), given],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )


def begun(log: Path, shards: int = 1) -> None:
    """Wait until shards have been computed."""
    end = time.monotonic() + LONGEST
    while computed(log) < shards and time.monotonic() < end:
        time.sleep(0.01)


# Processes


def points(bench: Bench, quick: bool) -> dict[str, Counts]:
    """Killed at every call that changes the disk."""
    names = ("new", "taken over") if quick else tuple(SCENARIOS)
    whens = ("before",) if quick else ("before", "half", "after")
    found = {}
    for name in names:
        base = bench.base / name
        base.mkdir()
        found[f"killed at every call, {name}"] = every_point(base, name, whens)
    return found


def deaths(bench: Bench, world: int, trials: int, number: int) -> Counts:
    """Ranks killed at any time, one by one, until all or all but one are dead; the next run has any size."""
    counts = Counts()
    for _ in range(trials):
        folder, log = bench.new()
        children = forks(world, folder, log, pause=SLOW)
        victims = bench.chance.sample(children, bench.chance.randint(1, world))
        for child in victims:
            time.sleep(bench.chance.uniform(0.0, 0.6 / len(victims)))
            os.kill(child, number)
        for child in children:
            ended(child)
        if bench.chance.random() < 0.5:
            for child in forks(bench.chance.choice(WORLDS), folder, log):
                ended(child)
        bench.finish(counts, folder, log)
    return counts


def hangs(bench: Bench, world: int, trials: int) -> Counts:
    """A rank that is stopped at work, and goes on when the others, or a second launch, have completed the set."""
    counts = Counts()
    for _ in range(trials):
        folder, log = bench.new()
        children = forks(world, folder, log, pause=SLOW)
        begun(log, bench.chance.randint(1, SHARDS - world))
        sleeper = bench.chance.choice(children)
        os.kill(sleeper, signal.SIGSTOP)
        children += forks(1, folder, log) if world == 1 else []
        for child in children:
            if child != sleeper:
                ended(child)
        complete = verify(folder).complete
        os.kill(sleeper, signal.SIGCONT)
        counts.lost += not complete or ended(sleeper) != 0
        bench.finish(counts, folder, log)
    return counts


def leaves(bench: Bench, world: int, trials: int) -> Counts:
    """A rank that ends with status 0 after its first batch."""
    counts = Counts()
    for _ in range(trials):
        folder, log = bench.new()
        rank = bench.chance.randrange(world)
        early = functools.partial(draw, folder, log, SHARDS, SLOW, show=lambda done: os._exit(0))
        others = [functools.partial(draw, folder, log, SHARDS, SLOW)] * world
        runs = [*others[:rank], early, *others[rank + 1 :]]
        children = [started(run, i, world) for i, run in enumerate(runs)]
        counts.lost += [ended(child) for child in children] != [0] * world
        bench.finish(counts, folder, log)
    return counts


def clocks(bench: Bench, world: int, trials: int) -> Counts:
    """The time of day jumps at every call."""
    counts = Counts()

    def run(folder: Path, log: Path, seed: int) -> None:
        with jumping(random.Random(seed)):
            draw(folder, log, SHARDS, SLOW)

    for _ in range(trials):
        folder, log = bench.new()
        runs = [functools.partial(run, folder, log, bench.chance.randrange(2**32)) for _ in range(world)]
        children = [started(one, i, world) for i, one in enumerate(runs)]
        counts.lost += [ended(child) for child in children] != [0] * world
        bench.finish(counts, folder, log)
    return counts


def launches(bench: Bench, world: int, trials: int) -> Counts:
    """Two runs at once in a folder."""
    counts = Counts()
    for _ in range(trials):
        folder, log = bench.new()
        children = forks(world, folder, log, pause=SLOW) + forks(bench.chance.choice(WORLDS), folder, log, pause=SLOW)
        counts.lost += sum(ended(child) != 0 for child in children)
        bench.finish(counts, folder, log)
    return counts


def by_torchrun(bench: Bench, quick: bool, kills: int) -> dict[str, Counts]:
    """The same through torchrun, which ends the other ranks when one dies."""
    found = {
        f"torchrun, {name}": Counts() for name in ("kill -9", "SIGTERM", "exit 0", "hung", "clock", "two launches")
    }
    for world in (2,) if quick else WORLDS:
        others = [size for size in WORLDS if size != world]
        for _ in range(1 if quick else kills):
            folder, log = bench.new()
            run = torchrun(world, folder, log, pause=0.05)
            begun(log)
            time.sleep(bench.chance.uniform(0.0, 0.5))
            rank = bench.chance.randrange(world)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(Path(f"{log}.{rank}.pid").read_text()), signal.SIGKILL)
            run.wait(LONGEST)
            torchrun(3 if quick else bench.chance.choice(others), folder, log).wait(LONGEST)
            bench.finish(found["torchrun, kill -9"], folder, log)
        cases: list[tuple[str, Options]] = [("exit 0", {"leaves": 0}), ("clock", {"jumps": 7})]
        for name, options in cases[:1] if quick else cases:
            folder, log = bench.new()
            status = torchrun(world, folder, log, pause=0.02, **options).wait(LONGEST)
            found[f"torchrun, {name}"].lost += status != 0
            bench.finish(found[f"torchrun, {name}"], folder, log)
        if quick:
            continue
        folder, log = bench.new()
        run = torchrun(world, folder, log, pause=0.05)
        begun(log)
        run.send_signal(signal.SIGTERM)
        run.wait(LONGEST)
        bench.finish(found["torchrun, SIGTERM"], folder, log)
        if world > 1:
            folder, log = bench.new()
            run = torchrun(world, folder, log, pause=0.1)
            begun(log)
            sleeper = int(Path(f"{log}.{bench.chance.randrange(world)}.pid").read_text())
            os.kill(sleeper, signal.SIGSTOP)
            end = time.monotonic() + LONGEST
            while not verify(folder).complete and time.monotonic() < end:
                time.sleep(0.1)
            found["torchrun, hung"].lost += not verify(folder).complete
            os.kill(sleeper, signal.SIGCONT)
            found["torchrun, hung"].lost += run.wait(LONGEST) != 0
            bench.finish(found["torchrun, hung"], folder, log)
        folder, log = bench.new()
        runs = [torchrun(size, folder, log, pause=0.02) for size in (world, 2)]
        found["torchrun, two launches"].lost += sum(run.wait(LONGEST) != 0 for run in runs)
        bench.finish(found["torchrun, two launches"], folder, log)
    return {name: counts for name, counts in found.items() if counts.injected}


# Files


def damage(chance: random.Random, content: bytes) -> tuple[str, bytes | None]:
    """What a bad disk or a bad copy makes of a file."""
    at, byte = chance.randrange(len(content)), bytes([chance.randrange(256)])
    other = bytes([content[at] ^ 1 << chance.randrange(8)])
    return chance.choice(
        [
            ("a bit", content[:at] + other + content[at + 1 :]),
            ("a byte", content[:at] + byte + content[at + 1 :]),
            ("an end", content[:at]),
            ("a part", content[:at] + content[at + chance.randrange(1, 50) :]),
            ("more", content[:at] + byte * chance.randrange(1, 50) + content[at:]),
            ("zeros", content[:at] + bytes(len(content) - at)),
            ("anything", chance.randbytes(len(content))),
            ("missing", None),
        ]
    )


def fuzz(bench: Bench, trials: int, container: str) -> dict[str, Any]:
    """Files of every kind, damaged, one or several at once; then the set is read, and continued."""
    folder, log = bench.new()
    options: Options = {"shards": 3, "most": 1, "container": container}
    whole, counts = bench.plain(**options), Counts()
    kinds = {"shard": "shards", "manifest": "set.json", "record": "records", "lease": "leases"}
    found: dict[str, Any] = dict.fromkeys(kinds, 0) | {"crashes": 0, "hangs": 0}
    for _ in range(trials):
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in whole.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        log.write_bytes(b"")
        lease = Leases(folder / "leases", 60.0).take("00000001")
        kind = bench.chance.choice(list(kinds))
        several = bench.chance.randint(1, 1 if kind == "manifest" else 3)  # the manifest is known from the records
        names = [name for name in files(folder) if name.startswith(kinds[kind])]
        for name in bench.chance.sample(names, min(several, len(names))):
            _, content = damage(bench.chance, (folder / name).read_bytes())
            (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        if kind == "lease":
            (folder / "records" / "00000001.json").unlink()  # so that the shard is made, by who sees the lease
        elif lease:
            lease.release()
        found[kind] += 1
        with contextlib.suppress(CorruptCheckpointError, InvalidArgumentError):  # pictures are no arrays
            verify(folder)
            [Samples(folder)[i] for i in range(3 * SHARD_SIZE - 1)]
        broken = 0
        with contextlib.suppress(CorruptCheckpointError):
            broken = len(verify(folder).missing)
        try:
            with limited():
                draw(folder, log, **options, patience=0.05)
        except TimeoutError:
            found["hangs"] += 1
        except Exception as error:  # of any kind: it is counted, and shown
            print(f"{kind}: {error!r}")
            found["crashes"] += 1
        counts.count(folder, whole, computed(log), broken)
    shutil.rmtree(folder, ignore_errors=True)
    return {**found, **asdict(counts)}


def space(bench: Bench, quick: bool) -> dict[str, Any] | None:
    """A disk that becomes full, at every size in steps of a block, and of a file; then it gets room. None where this
    process may mount none."""
    counts, errors = Counts(), 0
    place = bench.base / "small"
    place.mkdir()

    def mount(options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return shutil.which("mount") is not None and not subprocess.run(command, stderr=subprocess.DEVNULL).returncode

    limits = [f"size={4 * blocks}k" for blocks in range(1, 24)] + [f"nr_inodes={n}" for n in range(4, 24)]
    for limit in limits[:: 8 if quick else 1]:
        if not mount(limit):
            return None
        try:
            log = bench.new()[1]
            try:
                draw(place / "set", log, 4)
            except OutputError:
                errors += 1
            if not mount("remount,size=4m,nr_inodes=1000"):
                return None
            draw(place / "set", log, 4)
            counts.count(place / "set", bench.plain(shards=4), computed(log), 4)
        finally:
            subprocess.run(["umount", str(place)], check=True)
    return {"errors": errors, **asdict(counts)}


# Cost


def resume(bench: Bench, shards: int) -> dict[str, float]:
    """Seconds to continue a set that is finished."""
    folder, log = bench.new()
    draw(folder, log, shards)
    begin = time.perf_counter()
    made = draw(folder, log, shards).made
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder)
    return {"shards": shards, "made": made, "seconds": seconds}


def memory(bench: Bench, shards: int) -> dict[str, float]:
    """The memory of a process when it has made a quarter of a set, half of it, and all, in MiB."""
    folder, log = bench.new()
    page, sizes = os.sysconf("SC_PAGE_SIZE"), Path(f"{log}.sizes")

    def show(done: int) -> None:
        if done in (shards // 4 * SHARD_SIZE, shards // 2 * SHARD_SIZE, shards * SHARD_SIZE - 1):
            with sizes.open("a") as file:
                file.write(f"{int(Path('/proc/self/statm').read_text().split()[1]) * page / 2**20}\n")

    if ended(started(functools.partial(draw, folder, log, shards, show=show))):
        raise RuntimeError("the run whose memory is measured has failed")
    quarter, half, end = map(float, sizes.read_text().split())
    shutil.rmtree(folder)
    return {"shards": shards, "quarter": quarter, "half": half, "end": end, "end / quarter": end / quarter}


def main(argv: list[str]) -> None:
    """Inject every fault, print and write the counts, and fail where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tools crash", description=__doc__)
    parser.add_argument("--check", action="store_true", help="a few faults of each kind; nothing is written")
    parser.add_argument("--seed", type=int, default=0, help="of times and places")
    parser.add_argument("--kills", type=int, default=3, help="kills through torchrun, at each number of ranks")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    quick, base = options.check, scratch()
    bench = Bench(base, random.Random(options.seed))
    few, many = (1, 15) if quick else (12, 400)
    results: dict[str, Any] = {}

    def note(name: str, found: Any) -> None:
        row = asdict(found) if isinstance(found, Counts) else found
        results[name] = row
        print(f"{name:38}", "  ".join(f"{key} {value:.4g}" for key, value in (row or {"not possible here": 1}).items()))

    kinds: dict[str, Callable[[int], Counts]] = {
        "kill -9": lambda world: deaths(bench, world, few, signal.SIGKILL),
        "SIGTERM": lambda world: deaths(bench, world, few, signal.SIGTERM),
        "hung": lambda world: hangs(bench, world, few),
        "exit 0": lambda world: leaves(bench, world, few),
        "clock": lambda world: clocks(bench, world, few),
        "two launches": lambda world: launches(bench, world, few),
    }
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # what is said of halved batches
            for name, counts in points(bench, quick).items():
                note(name, counts)
            for name, kind in kinds.items():
                for world in WORLDS:
                    note(f"{name}, ranks {world}", kind(world))
            for container in ("safetensors",) if quick else ("safetensors", "npz", "png", "tar"):
                note(f"damaged files, {container}", fuzz(bench, many, container))
            note("full disk", space(bench, quick))
            for name, counts in by_torchrun(bench, quick, options.kills).items():
                note(name, counts)
            note("resume", resume(bench, 50 if quick else 1000))
            note("memory in MiB", memory(bench, 100 if quick else 1000))
    finally:
        shutil.rmtree(base)
    rows = [row for row in results.values() if row and "injected" in row]
    total = {key: sum(row[key] for row in rows) for key in asdict(Counts())}
    note("all", total)
    if not quick:
        write("crash", {"faults": results, "seed": options.seed}, "python -m tools crash")
    wrong = total["lost"] or total["recovered"] != total["injected"]
    if wrong or any(row.get("crashes") or row.get("hangs") for row in rows):
        sys.exit("not everything was recovered")
