"""What several processes bring when they make one set, and what a sample costs in large sets.

The network is that of the digits, `ddim` takes 10 steps, batches have 256 samples, and each process has one thread. A
process loads everything, draws a small set to warm up and waits; the time is from the word to go to the end of the last
process, so that the final reading by the first one counts. Runs with one process and with two take turns.

``python -m benchmarks throughput`` writes ``results/throughput.json``.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import scoresde
from benchmarks._faults import ended, started
from benchmarks._record import write

STEPS, BATCH, SHARD = 10, 256, 1024
WORLDS = (1, 2)


def make(folder: Path, count: int) -> None:
    """Make a set with the digits network."""
    network = scoresde.load("digits")
    scoresde.generate(
        folder, network.sde, network.score(), count, method="ddim", steps=STEPS, batch_size=BATCH, shard_size=SHARD,
        identity="digits",
    )  # fmt: skip


def waiting(base: Path, rank: int, world: int, count: int) -> None:
    """A process that warms up, says so, waits for the word, and makes its part."""
    os.environ["RANK"], os.environ["WORLD_SIZE"] = "0", "1"
    make(base / f"warm {rank}", BATCH)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(world)
    (base / f"ready {rank}").touch()
    while not (base / "go").exists():
        time.sleep(0.001)
    make(base / "set", count)


def together(world: int, count: int) -> float:
    """Seconds in which so many processes make a set."""
    base = Path(tempfile.mkdtemp())
    try:
        children = [started(functools.partial(waiting, base, rank, world, count), rank, world) for rank in range(world)]
        while not all((base / f"ready {rank}").exists() for rank in range(world)):
            time.sleep(0.001)
        begin = time.perf_counter()
        (base / "go").touch()
        codes = [ended(child) for child in children]
        seconds = time.perf_counter() - begin
        if any(codes):
            raise RuntimeError(f"a process ended with {codes}")
        return seconds
    finally:
        shutil.rmtree(base)


def alone(count: int) -> dict[str, float]:
    """Processor time per sample, and the largest memory of a process that makes a set by itself."""
    base = Path(tempfile.mkdtemp())

    def run() -> None:
        make(base / "warm", BATCH)
        begin = time.process_time()
        make(base / "set", count)
        spent = time.process_time() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        (base / "found").write_text(f"{spent / count} {peak}")

    try:
        if ended(started(run)):
            raise RuntimeError("the process failed")
        cost, peak = map(float, (base / "found").read_text().split())
    finally:
        shutil.rmtree(base)
    return {"samples": count, "processor milliseconds per sample": 1e3 * cost, "peak memory in MiB": peak}


def main(arguments: list[str]) -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=8 * SHARD, help="samples of a run that is timed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[int, list[float]] = {world: [] for world in WORLDS}
    for _ in range(options.rounds):
        for world in WORLDS:
            found[world].append(together(world, options.count))
        print({world: round(seconds[-1], 2) for world, seconds in found.items()}, flush=True)
    ratios = [one / two for one, two in zip(found[1], found[2], strict=True)]
    results: dict[str, Any] = {
        "samples": options.count,
        "seconds": {f"{world} processes": statistics.median(seconds) for world, seconds in found.items()},
        "two processes over one": {"median": statistics.median(ratios), "all": ratios},
        "one process": [],
    }
    print(results["two processes over one"], flush=True)
    for size in options.sizes:
        results["one process"].append(alone(size))
        print(results["one process"][-1], flush=True)
    write("throughput", results, "python -m benchmarks throughput")
