"""What a step asks of torch, counted: passes over the state, reductions, draws, reads by the host, new memory.

A pass is an operation that writes, or only reads, at least half as many numbers as the state has; views are none. New
memory counts where it holds as many. What the network does is not counted. Each count is the difference of two solves,
of which one takes more steps, so that it belongs to one step in the middle. Counts are exact and the same on every
machine.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from scoresde.core.errors import ScoreSDEWarning
from scoresde.solvers import make_solver
from tools._device import device

SHAPE = (2, 3, 8, 8)
STEPS = (18, 22)
PATH_STEPS = (8, 12)  # whose densities together are fewer numbers than half a state
DEVICE_STEPS = 64
ADAPTIVE_STEPS = (4, 8)
SHOWN = ("passes", "reductions", "draws", "reads", "bytes", "operations")
PREDICTIONS = ("noise", "data", "v", "score", "bare")
QUICK = ("noise",)  # that is compared with the file
METHODS = {row.name: row for row in scoresde.methods()}
PATH_ADDS = ("passes", "reductions", "reads")
SHORT: dict[str, dict[str, float]] = {"annealed_langevin": {"moves": 2}, "ncsn": {"moves": 2}}  # per step, not 100
PATH_OPTIONS: dict[str, dict[str, float]] = {"cas": {"epsilon": 1.0}, **SHORT}
READS = ("_local_scalar_dense", "item", "is_nonzero", "equal")
DRAWS = ("normal", "rand", "uniform", "bernoulli", "exponential", "random")


class Counter(TorchDispatchMode):
    """Counts operations while it is the current mode, but for those of a network.

    Args:
        size: how many numbers the state has.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.paused = False
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.paused:
            self._count(func, [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)], out)
        return out

    def _count(self, func: Any, given: list[Tensor], out: Any) -> None:
        self.counts["operations"] += 1
        name = func.overloadpacket.__name__
        made = [v for v in tree_leaves(out) if isinstance(v, Tensor)]
        if name in READS or any(v.is_cpu and any(g.is_cuda for g in given) for v in made):
            self.counts["reads"] += 1
        if func.is_view:
            return
        owned = {v.untyped_storage()._cdata for v in given}
        self.counts["bytes"] += sum(
            v.untyped_storage().nbytes()
            for v in made
            if v.untyped_storage()._cdata not in owned and 2 * v.numel() >= self.size
        )
        written = sum(2 * v.numel() >= self.size for v in made)
        if name.startswith(DRAWS):
            self.counts["draws"] += bool(written)
        elif name.startswith("empty"):
            pass  # it neither reads nor writes
        elif written:
            self.counts["passes"] += written
        elif any(2 * v.numel() >= self.size for v in given):
            self.counts["reductions"] += 1


class Network:
    """A network that costs nothing that is counted.

    Args:
        counter: is paused while the network is called.
    """

    def __init__(self, counter: Counter) -> None:
        self.counter = counter

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.counter.paused = True
        out = -0.3 * x
        self.counter.paused = False
        return out


def score_of(prediction: str, counter: Counter, sde: scoresde.AffineSDE) -> Callable[..., Tensor]:
    """A score function by a network of a prediction; ``"bare"`` is a function that returns the score."""
    network = Network(counter)
    return network if prediction == "bare" else scoresde.ScoreModel(network, sde, prediction)


def solved(method: str, prediction: str, steps: int, **others: Any) -> collections.Counter[str]:
    """The counts of a whole solve."""
    sde = scoresde.VPSDE()
    x = torch.linspace(-1.0, 1.0, SHAPE[0] * 192).reshape(SHAPE)
    x = x.double() if METHODS[method].adaptive else x  # whose tolerances are met by many steps
    counter = Counter(x.numel())
    score_fn = score_of(prediction, counter, sde)
    row = METHODS[method]
    length = {"max_steps": steps, "throw": False, "rtol": 1e-10, "atol": 1e-10} if row.adaptive else {"steps": steps}

    def solve() -> scoresde.Solution:
        return scoresde.solve(sde, score_fn, x, method=method, seed=0, **length, **others)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScoreSDEWarning)
        solve()  # what is kept for later solves is not counted
        counter.counts.clear()
        with counter:
            solution = solve()
    if row.adaptive and solution.steps != steps:
        raise RuntimeError(f"{method} took {solution.steps} steps, not {steps}")
    return counter.counts


def per_step(method: str, prediction: str, steps: tuple[int, int] = STEPS, **others: Any) -> dict[str, float]:
    """The counts of a step in the middle, and the operations of what surrounds the steps."""
    few, many = (solved(method, prediction, count, **others) for count in steps)
    each = {key: (many[key] - few[key]) / (steps[1] - steps[0]) for key in sorted(many | few)}
    around = few["operations"] - steps[0] * each["operations"]
    return each | {"operations around the steps": around}


def counted(predictions: Sequence[str]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """The counts of all methods whose steps the loop makes."""
    for name, row in METHODS.items():
        if row.kind in ("backend", "forward"):
            continue
        for prediction in predictions:
            yield name, prediction, per_step(name, prediction)


def draw(k: int, like: Tensor) -> Tensor:
    return torch.randn_like(like)


def on_device() -> Iterator[tuple[str, dict[str, int]]]:
    """What a solve of `DEVICE_STEPS` steps of a fixed grid does with a device."""
    sde = scoresde.VPSDE()
    for name, row in METHODS.items():
        if row.kind in ("backend", "forward") or row.adaptive:
            continue
        with warnings.catch_warnings(), device() as use:
            warnings.simplefilter("ignore", ScoreSDEWarning)
            score_fn = scoresde.ScoreModel(lambda x, t: -0.3 * x, sde, "noise")
            x = torch.ones(SHAPE, device="cuda")
            options: dict[str, Any] = {"steps": DEVICE_STEPS, "noise": draw, **SHORT.get(name, {})}
            scoresde.solve(sde, score_fn, x, method=name, **options)
        totals = {"reads": use.reads, "float64": use.wide, "sent": use.sent}
        yield name, {key: sum(count.values()) for key, count in totals.items()}


def adaptive_on_device() -> Iterator[tuple[str, dict[str, float]]]:
    """What a step of an adaptive method does with a device, where every step is accepted."""
    sde = scoresde.VPSDE()
    for name, row in METHODS.items():
        if not row.adaptive or row.kind == "backend":
            continue
        uses = []
        for steps in ADAPTIVE_STEPS:
            with warnings.catch_warnings(), device() as use:
                warnings.simplefilter("ignore", ScoreSDEWarning)
                x = torch.zeros(SHAPE, device="cuda")
                model = scoresde.ScoreModel(lambda x, t: -0.3 * x, sde, "noise")
                noise = {"seeds": range(len(x))} if row.stochastic else {}
                with contextlib.suppress(scoresde.MaxStepsError):
                    scoresde.solve(sde, model, x, method=name, max_steps=steps, **noise)
            uses.append({key: sum(getattr(use, key).values()) for key in ("reads", "wide", "sent")})
        few, many = uses
        each = {key: (many[key] - few[key]) / (ADAPTIVE_STEPS[1] - ADAPTIVE_STEPS[0]) for key in ("reads", "sent")}
        yield name, {**each, "float64": many["wide"]}


def _states(method: str, steps: int, options: dict[str, float]) -> int:
    """How many random states a solve has."""
    given = {"method": method, "steps": steps, "path_log_prob": True, **options}
    return len(scoresde.solve(scoresde.VPSDE(), lambda x, t: -x, torch.zeros(SHAPE), **given).path.states)  # type: ignore


def of_paths(methods: Sequence[str] = tuple(METHODS)) -> Iterator[tuple[str, dict[str, float]]]:
    """What ``path_log_prob`` adds to a step of each method whose steps have densities, per random state: passes and
    reductions, and with the states the bytes too, in states."""
    for name in methods:
        if not (METHODS[name].stochastic and make_solver(name, {}, ()).gaussian_step):
            continue
        options = PATH_OPTIONS.get(name, {})
        states = _states(name, 3, options) - _states(name, 2, options)
        plain, sums, whole = (
            per_step(name, "noise", PATH_STEPS, **options, **wanted)
            for wanted in ({}, {"path_log_prob": "sums"}, {"path_log_prob": True})
        )
        adds = {key: (sums.get(key, 0) - plain.get(key, 0)) / states for key in PATH_ADDS}
        added = {key: float(f"{value:.6g}") for key, value in adds.items()}  # as they are written
        size = 4 * math.prod(SHAPE)
        yield name, {"states": states, **added, "kept": (whole["bytes"] - sums["bytes"]) / states / size}


def main(arguments: list[str]) -> None:
    """Count, print, and write; or compare with what is written."""
    parser = argparse.ArgumentParser(prog="python -m tools counts", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the result file instead of writing it")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"steps": {}, "device": {}, "adaptive on a device, per step": {}, "paths": {}}
    predictions = QUICK if options.check else PREDICTIONS
    for name, prediction, counts in counted(predictions):
        results["steps"].setdefault(name, {})[prediction] = counts
    shown = {"noise": "a network of noise", "bare": "a bare score"}
    for prediction, name in ((key, name) for key, name in shown.items() if key in predictions):
        print(f"{name:20}" + "".join(f"{key:>12}" for key in SHOWN))
        for method, counts in results["steps"].items():
            print(f"{method:20}" + "".join(f"{counts[prediction].get(key, 0):12g}" for key in SHOWN))
    print(f"{'on a device':20}" + "".join(f"{key:>12}" for key in ("reads", "float64", "sent")))
    for name, counts in on_device():
        results["device"][name] = counts
        print(f"{name:20}" + "".join(f"{value:12g}" for value in counts.values()))
    print(f"{'adaptive, per step':20}" + "".join(f"{key:>12}" for key in ("reads", "sent", "float64")))
    for name, use in adaptive_on_device():
        results["adaptive on a device, per step"][name] = use
        print(f"{name:20}" + "".join(f"{value:12g}" for value in use.values()))
    print(f"{'of a path':20}" + "".join(f"{key:>12}" for key in ("states", *PATH_ADDS, "kept")))
    for name, adds in of_paths():
        results["paths"][name] = adds
        print(f"{name:20}" + "".join(f"{value:12g}" for value in adds.values()))
    if not options.check:
        write("counts", results, "python -m tools counts")
        return
    committed = load("counts")["results"]
    for method, row in committed["steps"].items():
        committed["steps"][method] = {prediction: row[prediction] for prediction in QUICK}
    differing = [
        f"{part}, {method}: {committed[part].get(method)} before, {now} now"
        for part in results
        for method, now in results[part].items()
        if json.loads(json.dumps(now)) != committed[part].get(method)
    ]
    if differing:
        sys.exit("counts differ from benchmarks/results/counts.json:\n" + "\n".join(differing))
