"""The memory that a solve takes at most, in units of its state.

What is alive is followed through every operation of torch, on any machine: memory that holds at least half as many
numbers as the state counts from the operation that makes it to its release. The network returns a new tensor and makes
nothing else; what it is given and what it returns counts, and so does the state that a solve begins with.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import scoresde
from benchmarks._peer_loops import PEERS, Task
from benchmarks._record import write
from benchmarks._tables import load
from benchmarks.overhead import installed
from scoresde.core.errors import ScoreSDEWarning

SHAPE = (4, 3, 16, 16)
STEPS = 20
PREDICTIONS = ("noise", "data", "score")
METHODS = {row.name: row for row in scoresde.methods() if row.kind not in ("backend", "forward")}


class Alive(TorchDispatchMode):
    """Follows the memory that is alive while it is the current mode.

    Args:
        like: the state.

    Attributes:
        most: the most memory so far, in units of the state.
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.unit, self.most = like.numel() * like.element_size(), 0.0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {v.untyped_storage()._cdata for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)}
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in given and 2 * storage.nbytes() >= self.unit:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: pair for key, pair in self.alive.items() if not pair[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()) / self.unit)
        return out


def network(x: Tensor, t: Tensor) -> Tensor:
    """A network that makes what it returns alone."""
    return -0.3 * x


def peak(method: str, prediction: str) -> float:
    """The most memory of a solve, in units of the state."""
    sde, row = scoresde.VPSDE(), METHODS[method]
    model = scoresde.ScoreModel(network, sde, prediction)
    length: dict[str, Any] = {"max_steps": STEPS, "throw": False} if row.adaptive else {"steps": STEPS}
    x = torch.linspace(-1.0, 1.0, math.prod(SHAPE)).reshape(SHAPE)

    def solve() -> None:
        scoresde.solve(sde, model, x, method=method, seed=0, **length)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScoreSDEWarning)
        solve()  # what is kept for later solves is not counted
        with Alive(x) as alive:
            solve()
    return alive.most


class Made(Task):
    """A network whose estimates are new tensors, as that above."""

    def data(self, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
        return -0.3 * x

    noise = data


def peer_peak(make: Callable[[int, Task], Any]) -> float:
    """The same of another library's loop."""
    x = torch.linspace(-1.0, 1.0, math.prod(SHAPE)).reshape(SHAPE)
    task = Made(x)
    loop = make(STEPS, task)
    loop.run(x.clone())
    with Alive(x) as alive:
        loop.run(x.clone())
    return alive.most


def counted() -> dict[str, dict[str, float]]:
    """The peaks of all methods whose steps the loop makes."""
    return {name: {prediction: peak(name, prediction) for prediction in PREDICTIONS} for name in METHODS}


def main(arguments: list[str]) -> None:
    """Measure, print, and write; or compare with what is written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare our own with the file")
    options = parser.parse_args(arguments)
    ours = counted()
    if options.check:
        known = load("memory")["results"]["ours"]
        changed = {
            name: (known.get(name), row) for name, row in json.loads(json.dumps(ours)).items() if known.get(name) != row
        }
        print(f"{len(ours)} methods, {len(changed)} with another peak {changed or ''}")
        sys.exit(bool(changed))
    print(f"{'':24}" + "".join(f"{prediction:>10}" for prediction in PREDICTIONS))
    for name, row in ours.items():
        print(f"{name:24}" + "".join(f"{value:10.2f}" for value in row.values()))
    peers = {
        method: {name: peer_peak(make) for name, (library, make) in loops.items() if installed(library)}
        for method, loops in PEERS.items()
    }
    for method, loops in peers.items():
        for name, value in loops.items():
            print(f"{method:24}{name:32}{value:8.2f}")
    write("memory", {"ours": ours, "peers": peers}, "python -m benchmarks memory")
