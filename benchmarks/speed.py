"""What sampling costs: the digits network, 64 digits by pc, the loop's own time per step with a null network, and a
draw from each source of noise."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write

SHAPES = {"(1, 2)": (1, 2), "(64, 3, 32, 32)": (64, 3, 32, 32), "(16, 4, 64, 64)": (16, 4, 64, 64)}
STEPS = 100
METHODS: dict[str, dict[str, Any]] = {
    "ddim": {},
    "euler": {},
    "heun": {},
    "rk4": {},
    "euler_maruyama": {},
    "reverse_diffusion": {},
    "ancestral": {},
    "pc": {},
}


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


class Null:
    """A network that costs nothing: it returns a constant as the data and its input as the noise."""

    rowwise = True

    def __init__(self, like: Tensor) -> None:
        self.constant = torch.ones_like(like)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.constant

    def estimate(self, x: Tensor, node: scoresde.Node) -> scoresde.Estimate:
        """Both estimates exist already."""
        return scoresde.Estimate(self.constant, x)


def hand_written(x: Tensor, coefficients: list[tuple[float, float]]) -> Tensor:
    """DDIM by hand: two operations per step, coefficients as floats. The limit."""
    for a, s in coefficients:
        x = (x * a).add_(x, alpha=s)
    return x


def interleaved(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each program, run in turns in one process."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()
    for _ in range(rounds):
        for name, program in programs.items():
            started = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - started)
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
    coefficients = [(0.999, 1e-3)] * STEPS
    table: dict[str, dict[str, float]] = {}
    for label, shape in SHAPES.items():
        state = torch.randn(shape)
        programs: dict[str, Callable[[], Any]] = {"by hand": lambda state=state: hand_written(state, coefficients)}
        for method, extra in METHODS.items():
            programs[method] = lambda state=state, method=method, extra=extra: scoresde.solve(
                sde, Null(state), state, method=method, steps=STEPS, seed=0, **extra
            )
        for method, seconds in interleaved(programs, options.rounds).items():
            table.setdefault(method, {})[label] = 1e6 * seconds / STEPS
    results["microseconds a step, null network, 1 thread"] = table
    print(f"{'µs per step':20}" + "".join(f"{label:>18}" for label in SHAPES))
    for method, row in table.items():
        print(f"{method:20}" + "".join(f"{row[label]:>18.1f}" for label in SHAPES))
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
