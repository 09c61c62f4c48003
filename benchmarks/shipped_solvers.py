r"""Solvers learned for the shipped networks, on EDM's process, and their errors on noise that took no part.

The pilots have the labels 0 to 9 in turn. The errors are those of `benchmarks.few`, against 200 steps of `UniPC3`, on
other noise with the same labels; on *VP*, they are those of the same solver through `FittedSolver.on`, and with
*guidance 3* those on guided scores, which it was not learned on.

``python -m benchmarks shipped_solvers --network digits`` writes ``results/shipped_solvers.json`` (the other network's
figures are kept); ``--learn`` first learns those that the network does not have, and puts them into its config.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
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
from scoresde.solvers import UniPC
from scoresde.tuning import FittedSolver

BUDGETS = (4, 5, 8, 10, 20)
# The pilots of each network, the samples for the errors, and the iterations.
NETWORKS: dict[str, tuple[int, int, int | None]] = {"digits": (64, 32, None), "mnist": (16, 16, 20)}
PROCESSES = {"EDM": scoresde.EDMSDE(), "VP": scoresde.VPSDE()}


class Network:
    """A shipped network, its noise and the ends of the paths."""

    def __init__(self, name: str) -> None:
        self.name = name
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

    def learn(self, budgets: Sequence[int]) -> None:
        """Learn the solvers that the network does not have yet, and put each into its config."""
        there = {record.steps for record in self.model.config.grids if isinstance(record, FittedSolver)}
        sde, rows = PROCESSES["EDM"], slice(0, self.pilot)
        ends = self.ends(sde, rows)
        for budget in (n for n in budgets if n not in there):
            began, given = time.perf_counter(), self.start(sde, rows)
            solver = scoresde.fit_solver(
                sde, self.score(sde), budget, reference=ends, iterations=self.iterations, checkpoint=False, **given
            )
            print(solver, f"{time.perf_counter() - began:.0f} s", flush=True)
            config = self.model.config
            self.model = replace(self.model, config=replace(config, grids=(*config.grids, solver)))
            scoresde.save(self.model, Path(scoresde.__file__).parent / "zoo" / "weights" / self.name)

    def errors(self, sde: Any, ends: Tensor, scale: float | None = None, **options: Any) -> dict[str, float]:
        """On the other noise."""
        given = self.start(sde, slice(self.pilot, None))
        got = scoresde.solve(sde, self.score(sde, scale), given.pop("x"), **given, **options).x
        return summary(distances(got.double(), ends.double()))

    def measure(self) -> dict[str, Any]:
        """All figures of the solvers that the network has."""
        tests, edm, vp = slice(self.pilot, None), PROCESSES["EDM"], PROCESSES["VP"]
        cases = {"EDM": (edm, None), "VP": (vp, None), "guidance 3": (edm, 3.0)}
        ends = {name: self.ends(sde, tests, scale) for name, (sde, scale) in cases.items()}
        rows: dict[str, Any] = {}
        for budget in BUDGETS:
            solver = self.model.solver(budget, edm)
            row: dict[str, Any] = {"start": solver.start, "cost": solver.cost.pilots}
            for name, (sde, scale) in cases.items():
                row[name] = {"auto": self.errors(sde, ends[name], scale, method="auto", steps=budget)}
                try:
                    row[name]["learned"] = self.errors(sde, ends[name], scale, method=solver.on(sde))
                except scoresde.InvalidArgumentError as refusal:  # steps beyond the end of the process
                    print(refusal)
            rows[str(budget)] = row
            print(budget, row, flush=True)
        return rows


def main(arguments: list[str]) -> None:
    """Learn, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks shipped_solvers", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), required=True)
    parser.add_argument(
        "--learn", action="store_true", help="learn those that the network does not have, to begin with"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = Network(options.network)
    if options.learn:
        network.learn(BUDGETS)
    known = load("shipped_solvers")["results"] if (RESULTS / "shipped_solvers.json").exists() else {}
    known[options.network] = network.measure()
    write("shipped_solvers", known, f"python -m benchmarks shipped_solvers --network {options.network}")
