r"""Solvers learned for the shipped networks, on EDM's process, and their errors on noise that took no part.

The pilots have the labels 0 to 9 in turn. The errors are those of `benchmarks.few`, against 200 steps of `UniPC3`, on
other noise with the same labels; on *VP*, they are those of the same solver through `FittedSolver.on`, and with
*guidance 3* those on guided scores, which it was not learned on.

``python -m benchmarks shipped_solvers --network digits`` writes ``results/shipped_solvers.json`` (the other network's
figures are kept); ``--ship`` puts the solvers into the config of the network, ``--keep`` measures those that are there.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from benchmarks.fitted_grids import summary
from benchmarks.work_precision import distances
from scoresde import guidance
from scoresde.fit import FittedSolver
from scoresde.solvers import UniPC

BUDGETS = (4, 5, 8, 10, 20)
# The pilots of each network, the samples for the errors, and the iterations.
NETWORKS: dict[str, tuple[int, int, int | None]] = {"digits": (128, 32, None), "mnist": (16, 16, 20)}
PROCESSES = {"EDM": scoresde.EDMSDE(), "VP": scoresde.VPSDE()}


class Network:
    """A shipped network, its noise and the ends of the paths."""

    def __init__(self, name: str) -> None:
        self.model: Any = scoresde.load(name)
        self.pilot, tests, self.iterations = NETWORKS[name]
        self.context = {"label": torch.arange(self.pilot + tests) % 10}
        shape = (self.pilot + tests, *self.model.event_shape)
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(17))

    def score(self, sde: Any, scale: float | None = None) -> Any:
        """The score function, guided or not."""
        plain = self.model.score(sde)
        return plain if scale is None else guidance.classifier_free(plain, self.model.score(sde), scale=scale)

    def start(self, sde: Any, rows: slice) -> dict[str, Any]:
        """States and labels."""
        return {"x": sde.prior.std * self.noise[rows], "context": {k: v[rows] for k, v in self.context.items()}}

    def ends(self, sde: Any, rows: slice, scale: float | None = None) -> Tensor:
        """The ends of the paths."""
        given = self.start(sde, rows)
        return scoresde.solve(sde, self.score(sde, scale), given.pop("x"), method=UniPC(order=3), steps=200, **given).x

    def learn(self, budget: int, ends: Tensor) -> FittedSolver:
        """The solver for a number of evaluations."""
        sde, given = PROCESSES["EDM"], self.start(PROCESSES["EDM"], slice(0, self.pilot))
        return scoresde.fit_solver(
            sde, self.score(sde), budget, reference=ends, iterations=self.iterations, checkpoint=False, **given
        )

    def errors(self, sde: Any, ends: Tensor, scale: float | None = None, **options: Any) -> dict[str, float]:
        """On the other noise."""
        given = self.start(sde, slice(self.pilot, None))
        got = scoresde.solve(sde, self.score(sde, scale), given.pop("x"), **given, **options).x
        return summary(distances(got.double(), ends.double()))

    def measure(self, learn: bool) -> tuple[dict[str, Any], list[FittedSolver]]:
        """All figures, and the solvers."""
        tests = slice(self.pilot, None)
        edm, vp = PROCESSES["EDM"], PROCESSES["VP"]
        pilots = self.ends(edm, slice(0, self.pilot)) if learn else None
        cases = {"EDM": (edm, None), "VP": (vp, None), "guidance 3": (edm, 3.0)}
        ends = {name: self.ends(sde, tests, scale) for name, (sde, scale) in cases.items()}
        rows, learned = {}, []
        for budget in BUDGETS:
            began = time.perf_counter()
            solver = self.model.solver(budget, edm) if pilots is None else self.learn(budget, pilots)
            learned.append(solver)
            rows[str(budget)] = {
                name: {
                    "auto": self.errors(sde, ends[name], scale, method="auto", steps=budget),
                    "learned": self.errors(sde, ends[name], scale, method=solver.on(sde)),
                }
                for name, (sde, scale) in cases.items()
            } | {"start": solver.start, "cost": solver.cost.pilots}
            print(budget, rows[str(budget)], f"{time.perf_counter() - began:.0f} s", flush=True)
        return rows, learned


def main(arguments: list[str]) -> None:
    """Learn, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks shipped_solvers", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), required=True)
    parser.add_argument("--ship", action="store_true", help="put the solvers into the network's config")
    parser.add_argument("--keep", action="store_true", help="measure the solvers that are there, learn none")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = Network(options.network)
    rows, learned = network.measure(not options.keep)
    known = load("shipped_solvers")["results"] if (RESULTS / "shipped_solvers.json").exists() else {}
    known[options.network] = rows
    write("shipped_solvers", known, f"python -m benchmarks shipped_solvers --network {options.network}")
    if options.ship:
        model = network.model
        others = [record for record in model.config.grids if not isinstance(record, FittedSolver)]
        config = replace(model.config, grids=(*others, *learned))
        directory = Path(scoresde.__file__).parent / "zoo" / "weights" / options.network
        scoresde.save(replace(model, config=config), directory)
