"""The time of a step with a network that costs nothing, beside loops written by hand and those of other libraries.

The loops of `benchmarks._by_hand` make the same steps; before anything is timed, both are compared with a real network.
The loops of other libraries (`benchmarks._peer_loops`) first transport normal data, and their result is compared with
the exact one. All programs run in turns in one process, and the medians are compared. A time per step is that of a
whole solve over its steps; what a solve costs around its steps is measured too, and the share of the loop beside two
small networks.

A solve sums the state after each step, so that what is not finite is known at that step. *checked by hand* are the
loops by hand with such a sum before each evaluation: their ratio is what the check alone costs the best of loops, and
below it no solve with the check can come.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._by_hand import LOOPS, Net
from benchmarks._peer_loops import MEAN, PEERS, RANDOM, STD, Task, exact
from benchmarks._record import write
from benchmarks._tables import load
from benchmarks.speed import SHAPES, interleaved

STEPS = {(1, 2): 200, (64, 3, 32, 32): 40, (16, 4, 64, 64): 40}
CLOSE = 1e-5  # relative to the largest number
PEER_STEPS, PEER_CLOSE = 200, 0.05
COARSE = 2.5  # of a ratio to that of the file, on any machine
EVALUATIONS = {"heun": 2, "pc": 2}


def real(x: Tensor, t: Tensor) -> Tensor:
    """Something that depends on the state."""
    return 0.3 * x + 0.1 * torch.sin(3 * x)


def checked(net: Net) -> Net:
    """A network before which the state is summed, and refused if that is not finite."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        if not math.isfinite(x.sum().item()):
            raise RuntimeError("the state is not finite")
        return net(x, t)

    return call


def programs(method: str, net: Net, x: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """The solve, and the same by hand, without a check and with it."""
    sde = scoresde.VPSDE()
    make, prediction, options = LOOPS[method]
    model = scoresde.ScoreModel(net, sde, prediction)

    def solved(**more: Any) -> scoresde.Solution:
        generator = torch.Generator().manual_seed(0)
        return scoresde.solve(sde, model, x, method=method, steps=steps, generator=generator, **options, **more)

    nodes = [sde.node(t) for t in solved(save_at="steps").ts.tolist()]  # type: ignore[union-attr]
    found: dict[str, Callable[[], Tensor]] = {"solve": lambda: solved().x}
    for name, called in {"by hand": net, "checked by hand": checked(net)}.items():
        loop = make(called, nodes, len(x))
        found[name] = lambda loop=loop: loop(x.clone(), torch.Generator().manual_seed(0))  # type: ignore[misc]
    return found


def check(method: str) -> float:
    """The largest difference of both, relative to the largest number.

    Raises:
        RuntimeError: they differ by more than rounding.
    """
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    ours, *theirs = (program() for program in programs(method, real, x, 40).values())
    error = max(float((ours - other).abs().max() / ours.abs().max()) for other in theirs)
    if not error < CLOSE:
        raise RuntimeError(f"{method}: `solve` and the loop by hand differ by {error:.2g}")
    return error


def timed(method: str, shape: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Microseconds per step of each program, and their ratio, for whole solves; and the ratio of steps alone, by the
    difference from solves of three times as many."""
    constant = torch.full(shape, 0.1)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    steps = STEPS[shape]
    both = {count: programs(method, lambda x, t: constant, x, count) for count in (steps, 3 * steps)}
    seconds = interleaved({(name, n): run for n, loops in both.items() for name, run in loops.items()}, rounds)
    each = {name: 1e6 * seconds[name, steps] / steps for name in both[steps]}
    alone = {name: seconds[name, 3 * steps] - seconds[name, steps] for name in each}
    return each | {
        "ratio": each["solve"] / each["by hand"],
        "ratio of steps alone": alone["solve"] / alone["by hand"],
        "ratio of the check alone": alone["checked by hand"] / alone["by hand"],
    }


def installed(library: str) -> bool:
    """Whether another library is there."""
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


def check_peer(method: str, name: str) -> float:
    """The error of another library's loop on normal data: of its result, or of the mean and deviation of random steps.

    Raises:
        RuntimeError: it does not solve the problem.
    """
    torch.manual_seed(0)
    loop = PEERS[method][name][1](PEER_STEPS, Task())
    alpha, sigma = loop.first
    x = alpha * MEAN + math.sqrt((alpha * STD) ** 2 + sigma**2) * torch.randn(4000, 3)
    end, got = exact(x, loop.first, loop.last), loop.run(x)
    if method in RANDOM:
        pairs = ((got.mean(), end.mean()), (got.std(), end.std()))
        error = max(float(abs(a - b) / end.std()) for a, b in pairs)
    else:
        error = float((got - end).abs().max() / end.abs().max())
    if not error < PEER_CLOSE:
        raise RuntimeError(f"{name}: its result differs from the exact one by {error:.2g}")
    return error


def timed_peers(method: str, shape: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Microseconds per step of the loops of other libraries."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    steps, task = STEPS[shape], Task(torch.full(shape, 0.1))
    loops = {name: make(steps, task) for name, (library, make) in PEERS[method].items() if installed(library)}
    seconds = interleaved({name: lambda loop=loop: loop.run(x.clone()) for name, loop in loops.items()}, rounds)
    return {name: 1e6 * value / steps for name, value in seconds.items()}


def around(method: str, rounds: int) -> dict[str, float]:
    """Microseconds of a solve of 10 steps in two dimensions outside its steps: of the first solve with a process, and
    of later ones; and of a step."""
    x, constant = torch.randn(1, 2), torch.full((1, 2), 0.1)
    _, prediction, options = LOOPS[method]

    def model(beta_max: float) -> scoresde.ScoreModel:
        return scoresde.ScoreModel(lambda x, t: constant, scoresde.VPSDE(beta_max=beta_max), prediction)

    known, generator = model(20.0), torch.Generator()
    fresh = iter([model(20.0 + 1e-3 * i) for i in range(1, 8 * rounds + 2)])

    def solve(steps: int, model: scoresde.ScoreModel = known) -> None:
        scoresde.solve(model.sde, model, x, method=method, steps=steps, generator=generator, **options)

    programs: dict[str, Callable[[], None]] = {
        "first": lambda: solve(10, next(fresh)),
        "later": lambda: solve(10),
        "50": lambda: solve(50),
        "250": lambda: solve(250),
    }
    seconds = interleaved(programs, 8 * rounds)
    step = (seconds["250"] - seconds["50"]) / 200
    return {name: 1e6 * (seconds[name] - 10 * step) for name in ("first", "later")} | {"step": 1e6 * step}


def networks() -> dict[str, tuple[torch.nn.Module, tuple[int, ...]]]:
    """Two small networks, and the states that they are for."""
    layers: list[torch.nn.Module] = [torch.nn.Linear(3, 128)]
    for _ in range(2):
        layers += [torch.nn.SiLU(), torch.nn.Linear(128, 128)]
    mlp = torch.nn.Sequential(*layers, torch.nn.SiLU(), torch.nn.Linear(128, 2))

    class Joined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = mlp

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.mlp(torch.cat([x, t[:, None]], 1))
            return out

    unet = scoresde.nets.UNet((3, 32, 32), channels=56, multipliers=(1, 2, 3))
    count = sum(p.numel() for p in unet.parameters())
    return {
        "3 layers of 128, 1,000 points": (Joined().eval(), (1000, 2)),
        f"U-Net of {count / 1e6:.1f} million, 8 images of 32 x 32": (unet.eval(), (8, 3, 32, 32)),
    }


def shares(rounds: int) -> dict[str, dict[str, float]]:
    """The loop's own time, with a network that costs nothing, over its time with a network, by method."""
    results: dict[str, dict[str, float]] = {}
    for name, (network, shape) in networks().items():
        x, t = torch.randn(shape), torch.full(shape[:1], 0.5)
        constant = torch.full(shape, 0.1)
        with torch.no_grad():
            network(x, t)
            calls = []
            for _ in range(3 * rounds):
                begin = time.perf_counter()
                network(x, t)
                calls.append(time.perf_counter() - begin)
        call = statistics.median(calls)
        results[name] = {"call": 1e6 * call}
        for method in LOOPS:
            solve = programs(method, lambda x, t, constant=constant: constant, x, 50)["solve"]
            own = interleaved({"solve": solve}, rounds)["solve"] / 50
            results[name][method] = own / (own + EVALUATIONS.get(method, 1) * call)
    return results


def coarse() -> None:
    """Compare the ratios of the smallest state with those of the result file.

    Raises:
        RuntimeError: one is far larger.
    """
    label, shape = next(iter(SHAPES.items()))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for method, row in load("overhead")["results"]["1 threads"].items():
        ratio, known = timed(method, shape, 5)["ratio"], row[label]["ratio"]
        print(f"{method:16}{ratio:6.2f} times the loop by hand, {known:.2f} in the file")
        if ratio > COARSE * known:
            raise RuntimeError(f"{method}: a solve takes {ratio:.1f} times the loop by hand, which was {known:.1f}")
    torch.set_num_threads(before)


def main(arguments: list[str]) -> None:
    """Compare, time, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--check", action="store_true", help="compare the answers, and the ratios coarsely")
    options = parser.parse_args(arguments)
    there = {library: installed(library) for loops in PEERS.values() for library, _ in loops.values()}
    results: dict[str, Any] = {
        "difference": {method: check(method) for method in LOOPS},
        "peers' errors": {
            name: check_peer(method, name)
            for method in PEERS
            for name in PEERS[method]
            if there[PEERS[method][name][0]]
        },
        "versions": {library: importlib.metadata.version(library) for library, found in there.items() if found},
    }
    print(f"largest difference from the loops by hand: {max(results['difference'].values()):.1e}")
    for name, error in results["peers' errors"].items():
        print(f"error of {name}: {error:.1e}")
    if options.check:
        coarse()
        return
    before = torch.get_num_threads()
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"{threads} threads: µs per step, by hand, ratio; ratio of steps alone, of the check alone")
        for method in LOOPS:
            rows = {label: timed(method, shape, options.rounds) for label, shape in SHAPES.items()}
            results.setdefault(f"{threads} threads", {})[method] = rows
            cells = (
                f"{r['solve']:9.1f} {r['by hand']:9.1f} {r['ratio']:6.2f} {r['ratio of steps alone']:6.2f} "
                f"{r['ratio of the check alone']:6.2f}"
                for r in rows.values()
            )
            print(f"{method:16}" + "   ".join(cells), flush=True)
    torch.set_num_threads(1)
    print("1 thread: µs per step of other libraries")
    for method in PEERS:
        peers = {label: timed_peers(method, shape, options.rounds) for label, shape in SHAPES.items()}
        results.setdefault("peers", {})[method] = peers
        for name in peers[next(iter(SHAPES))]:
            print(f"{method:16}{name:32}" + "   ".join(f"{row[name]:9.1f}" for row in peers.values()), flush=True)
    results["around"] = {method: around(method, options.rounds) for method in LOOPS}
    print("1 thread: µs outside the steps of a solve, first and later; µs per step")
    for method, row in results["around"].items():
        print(f"{method:16}" + "   ".join(f"{value:9.1f}" for value in row.values()))
    results["shares"] = shares(options.rounds)
    print("1 thread: the loop's share of the time")
    for name, row in results["shares"].items():
        print(f"{name}: {', '.join(f'{k} {v:.4f}' if k != 'call' else f'a call {v:.0f} µs' for k, v in row.items())}")
    torch.set_num_threads(before)
    write("overhead", results, " ".join(["python -m benchmarks overhead", *arguments]))
