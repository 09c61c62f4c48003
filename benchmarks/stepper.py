"""The host's time of a `Stepper` beside that of `solve`, with a network that costs almost nothing.

Both make the same calls of the network, which is counted first. They run in turns in one process, on one thread, whose
processor time is taken, and the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write

SDE = scoresde.VPSDE()
SHAPES = ((1, 2), (64, 2), (16, 3, 32, 32))
LIMIT = 2.0
QUICK = ("ddim", "heun", "pc", "rk45")


def net(x: Tensor, t: Tensor) -> Tensor:
    """A network that costs one pass."""
    return 0.5 * x


def options_of(method: scoresde.solvers.Method) -> dict[str, Any]:
    """A solve of some dozens of evaluations."""
    if not method.adaptive:
        return {"steps": 2 if method.name in ("annealed_langevin", "ncsn") else 20}
    return {"rtol": 0.3, "atol": 0.3} if method.stochastic else {"rtol": 1e-3, "atol": 1e-3}


def solved(method: scoresde.solvers.Method, x: Tensor) -> scoresde.Solution:
    """By `solve`."""
    model = scoresde.ScoreModel(net, SDE, "noise")
    return scoresde.solve(SDE, model, x, method=method.name, seed=0, **options_of(method))


def stepped(method: scoresde.solvers.Method, x: Tensor) -> scoresde.Solution:
    """By a `Stepper`."""
    stepper = scoresde.Stepper(SDE, method.name, x, prediction="noise", seed=0, **options_of(method))
    while not stepper.done:
        stepper.tell(net(*stepper.ask()))
    return stepper.solution


def compared(method: scoresde.solvers.Method, shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Calls and times of a method."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    a, b = solved(method, x[:1]), stepped(method, x[:1])  # one sample: no other can leave the batch
    assert torch.equal(a.x, b.x) and a.evaluations == b.evaluations, method.name
    times: dict[Any, list[float]] = {solved: [], stepped: []}
    for _ in range(rounds):
        for program in times:
            begin = time.thread_time()
            program(method, x)
            times[program].append(time.thread_time() - begin)
    ours, its = (1e3 * statistics.median(times[program]) for program in (solved, stepped))
    return {"method": method.name, "shape": list(shape), "solve_ms": ours, "stepper_ms": its, "ratio": its / ours}


def main(argv: Sequence[str]) -> None:
    """Compare all methods."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks stepper", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="a few methods, compared coarsely")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    methods = [m for m in scoresde.methods() if m.kind not in ("backend", "forward")]
    if arguments.check:
        methods = [m for m in methods if m.name in QUICK]
    rows = []
    for shape in SHAPES[:1] if arguments.check else SHAPES:
        for method in methods:
            rows.append(compared(method, shape, arguments.rounds))
            print("{method:20s} {shape!s:16s} {solve_ms:9.2f} {stepper_ms:9.2f} {ratio:6.2f}".format(**rows[-1]))
    worst = max(rows, key=lambda row: row["ratio"])
    print(f"largest ratio {worst['ratio']:.2f}: {worst['method']} at {tuple(worst['shape'])}; limit {LIMIT}")
    if arguments.check:
        if worst["ratio"] > 2 * LIMIT:  # a shared machine
            raise SystemExit("a stepper takes too much of the host's time")
        return
    results = {"rounds": arguments.rounds, "limit": LIMIT, "rows": rows}
    write("stepper", results, "python -m benchmarks stepper")
