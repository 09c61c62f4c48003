"""What sampling costs: the digits network, 64 digits by pc, and a draw from each source of noise."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write

Name = TypeVar("Name", bound=Hashable)

SHAPES = {"(1, 2)": (1, 2), "(64, 3, 32, 32)": (64, 3, 32, 32), "(16, 4, 64, 64)": (16, 4, 64, 64)}
# Draws of a solve of 50 steps: torch's, and the increments of a path that answers every query consistently.
SOURCES: dict[str, Callable[[int, float, float], scoresde.Noise]] = {
    "seed": lambda n, a, b: scoresde.BatchNoise(torch.Generator().manual_seed(0)),
    "seeds": lambda n, a, b: scoresde.SampleNoise(range(n)),
    "BrownianPath, a seed for the batch": lambda n, a, b: scoresde.BrownianPath(0, a, b),
    "BrownianPath, a seed a sample": lambda n, a, b: scoresde.BrownianPath(range(n), a, b),
    "BrownianPath with areas, a seed a sample": lambda n, a, b: scoresde.BrownianPath(range(n), a, b, areas=True),
}


def draws(name: str, sde: scoresde.AffineSDE, like: Tensor, times: list[float]) -> None:
    """All increments of a grid, from a new source."""
    source = SOURCES[name](len(like), sde.t_min, sde.t_max)
    for start, stop in itertools.pairwise(times):
        if "areas" in name:
            source.increment_and_mean(start, stop, like)
        else:
            source.increment(start, stop, like)


def interleaved(
    programs: Mapping[Name, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Name, float]:
    """Median seconds of each program, run in turns in one process."""
    seconds: dict[Name, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()
    for _ in range(rounds):
        for name, program in programs.items():
            started = clock()
            program()
            seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(arguments: list[str]) -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)

    threads = torch.get_num_threads()
    results: dict[str, Any] = {}
    sde = scoresde.VPSDE()
    network = scoresde.load("digits")
    score_fn = network.score(sde)
    x = torch.randn(64, *network.event_shape)
    with torch.no_grad():
        call = interleaved({"call": lambda: score_fn(x, 0.5)}, 50)["call"]
        sample = interleaved(
            {"pc": lambda: scoresde.solve(sde, score_fn, method="pc", steps=500, seed=0, shape=x.shape)}, 3
        )["pc"]
    results["digits"] = {
        "threads": threads,
        "ms a call on 64": 1e3 * call,
        "seconds for 64 digits by pc, 500 steps": sample,
    }
    print(
        f"digits, {threads} threads: {1e3 * call:.2f} ms per call on 64; 64 digits by pc with 500 steps {sample:.1f} s"
    )

    torch.set_num_threads(1)
    print(f"{'µs per draw':40}" + "".join(f"{label:>18}" for label in SHAPES))
    noise: dict[str, dict[str, float]] = {}
    for label, shape in SHAPES.items():
        like, times = torch.zeros(shape), scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, 50).tolist()
        sources = {
            name: lambda name=name, like=like, times=times: draws(name, sde, like, times)  # type: ignore[misc]
            for name in SOURCES
        }
        for name, seconds in interleaved(sources, min(5, options.rounds)).items():
            noise.setdefault(name, {})[label] = 1e6 * seconds / 50
    results["microseconds a draw, 1 thread"] = noise
    for name, row in noise.items():
        print(f"{name:40}" + "".join(f"{row[label]:>18.1f}" for label in SHAPES))
    torch.set_num_threads(threads)
    if not options.no_write:
        write("speed", results, " ".join(["python -m benchmarks speed", *arguments]))
