"""The time of a step with a network that costs nothing, beside loops written by hand.

The loops of `benchmarks._by_hand` make the same steps; before anything is timed, both are compared with a real network.
All programs run in turns in one process, and the medians are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._by_hand import LOOPS, Net
from benchmarks._record import write
from benchmarks.speed import SHAPES, interleaved

STEPS = {(1, 2): 200, (64, 3, 32, 32): 40, (16, 4, 64, 64): 40}
CLOSE = 1e-5  # relative to the largest number


def real(x: Tensor, t: Tensor) -> Tensor:
    """Something that depends on the state."""
    return 0.3 * x + 0.1 * torch.sin(3 * x)


def programs(method: str, net: Net, x: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """The solve, and the same by hand."""
    sde = scoresde.VPSDE()
    make, prediction, options = LOOPS[method]
    model = scoresde.ScoreModel(net, sde, prediction)

    def solved(**more: Any) -> scoresde.Solution:
        generator = torch.Generator().manual_seed(0)
        return scoresde.solve(sde, model, x, method=method, steps=steps, generator=generator, **options, **more)

    nodes = [sde.node(t) for t in solved(save_at="steps").ts.tolist()]  # type: ignore[union-attr]
    loop = make(net, nodes, len(x))
    return {"solve": lambda: solved().x, "by hand": lambda: loop(x.clone(), torch.Generator().manual_seed(0))}


def check(method: str) -> float:
    """The largest difference of both, relative to the largest number.

    Raises:
        RuntimeError: they differ by more than rounding.
    """
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    ours, theirs = (program() for program in programs(method, real, x, 40).values())
    error = float((ours - theirs).abs().max() / ours.abs().max())
    if not error < CLOSE:
        raise RuntimeError(f"{method}: `solve` and the loop by hand differ by {error:.2g}")
    return error


def timed(method: str, shape: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Microseconds per step of each program, and their ratio."""
    constant = torch.full(shape, 0.1)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    steps = STEPS[shape]
    seconds = interleaved(programs(method, lambda x, t: constant, x, steps), rounds)
    each = {name: 1e6 * value / steps for name, value in seconds.items()}
    return each | {"ratio": seconds["solve"] / seconds["by hand"]}


def main(arguments: list[str]) -> None:
    """Compare, time, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="compare the answers only")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"difference": {method: check(method) for method in LOOPS}}
    print(f"largest difference from the loops by hand: {max(results['difference'].values()):.1e}")
    if options.quick:
        return
    before = torch.get_num_threads()
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"{threads} threads: µs per step, by hand, ratio")
        for method in LOOPS:
            rows = {label: timed(method, shape, options.rounds) for label, shape in SHAPES.items()}
            results.setdefault(f"{threads} threads", {})[method] = rows
            cells = (f"{r['solve']:9.1f} {r['by hand']:9.1f} {r['ratio']:6.2f}" for r in rows.values())
            print(f"{method:16}" + "   ".join(cells))
            sys.stdout.flush()
    torch.set_num_threads(before)
    write("overhead", results, " ".join(["python -m benchmarks overhead", *arguments]))
