r"""Velocity networks: methods that codes for flow matching offer, and those of this package, within equal evaluations.

All are velocities of straight lines, :math:`x_t = (1-t) x_0 + t\varepsilon`, the process `FlowSDE`: small networks
trained as velocities (*roll*, *mixture*, *heavy tails*), the shipped networks, which are taken as velocities, and exact
scores. Euler's method, the midpoint rule, Heun's method and the classical Runge-Kutta method take equal steps of time,
as the solvers of flow matching do (those of torchdiffeq); the others take the grids of this package. Errors are RMS
over dimensions at the end of the flow, against a solve in float64 with tight tolerances; their median over samples that
took no part in tuning. With tolerances the evaluations are means over samples, and torchdiffeq's Dormand-Prince pair
has one step size for the whole batch.

``python -m benchmarks velocities`` writes ``results/velocities.json``; ``--only NAME …`` measures some problems and
keeps the others, ``--check`` compares one with the file.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks import few
from benchmarks._few_problems import (
    F64,
    FLOW,
    PROBLEMS,
    Problem,
    add_arguments,
    draws,
    exact,
    heavy,
    kept,
    mixture16,
    roll,
    shipped,
)
from benchmarks._record import RESULTS, check_same, write
from benchmarks._tables import load
from benchmarks.work_precision import gaussian, ring
from scoresde.nets import MLP
from scoresde.solvers import make_solver

BUDGETS = (4, 8, 12, 24, 48)
OF_TIME = {"euler": 1, "midpoint": 2, "heun": 2, "torchdiffeq:rk4": 4}  # evaluations per step
OURS: dict[str, dict[str, Any]] = {
    "ddim": {"method": "ddim"},
    "auto": {"method": "auto"},
    "ipndm, quadratic": {"method": "ipndm", "grid": "quadratic"},
    "dpm_3m": {"method": "dpm_3m"},
    "unipc3": {"method": "unipc3"},
}
TOLERANCES = (1e-2, 1e-3, 1e-4)
ADAPTIVE = ("torchdiffeq:dopri5", "rk45", "adams")
QUICK = "ring"
PILOT = few.Case.pilots
STEPS, BATCH = 4000, 512


def learned(name: str, data: Callable[[int, torch.Generator], Tensor], size: int, folder: Path | None) -> Problem:
    """A network trained by the loss of flow matching, or read."""
    torch.manual_seed(3)
    net, source, file = MLP((size,)), draws(5), kept(folder, f"velocity of {name}")
    model = scoresde.ScoreModel(net, FLOW, "flow", event_shape=(size,))
    if file and file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
    else:
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
            optimiser.zero_grad()
            scoresde.losses.flow_matching(model, data(BATCH, source), source).mean().backward()
            optimiser.step()
            schedule.step()
        if file:
            torch.save(net.state_dict(), file)
    net.eval().requires_grad_(False)
    sharp = scoresde.ScoreModel(copy.deepcopy(net).double(), FLOW, "flow", event_shape=(size,))
    x = FLOW.prior_sample((PILOT + 128, size), generator=draws(4), dtype=F64).float()
    return Problem(f"velocity, {name}", "report", "network", FLOW, model, x, sharp)


NAMES: dict[str, Callable[[Path | None], Problem]] = {
    "roll": lambda folder: learned("roll", roll, 2, folder),
    "mixture": lambda folder: learned("mixture", mixture16, 16, folder),
    "heavy tails": lambda folder: learned("heavy tails", heavy, 6, folder),
    "digits": PROBLEMS["digits, flow"],
    "mnist": lambda _: shipped("mnist, flow", "report", "mnist", FLOW, PILOT + 8),
    "ring": lambda _: exact("ring, flow", "report", ring(), FLOW, PILOT + 128),
    "gaussian": lambda _: exact("gaussian, flow", "report", gaussian(), FLOW, PILOT + 128),
}


class Case(few.Case):
    """A velocity with the ends of its paths, and what is measured of it."""

    def within(self, budget: int, method: str, **options: Any) -> float:
        """The error of a method in at most so many evaluations; of ``auto`` they are its steps."""
        steps = budget
        if method != "auto":
            solver = make_solver(method, {}, ())
            steps = (budget - solver.extra_evaluations) // solver.evaluations
        return self.solve(method=method, steps=steps, **options)["median"]

    def fixed(self) -> dict[str, dict[str, float]]:
        """Errors at so many evaluations, by method."""
        found: dict[str, dict[str, float]] = {}
        x, context = self.rows(slice(0, self.pilots))
        for budget in BUDGETS:
            row = found.setdefault(str(budget), {})
            for name, calls in OF_TIME.items():
                row[name] = self.solve(method=name, steps=budget // calls, grid="time")["median"]
            for name, options in OURS.items():
                row[name] = self.within(budget, **options)
            tuned = scoresde.tune(self.problem.sde, self.problem.score, budget, x=x, context=context)
            row["tune"] = self.solve(method=tuned)["median"]
        return found

    def adaptive(self) -> dict[str, dict[str, dict[str, float]]]:
        """Errors and evaluations by method and tolerance."""
        x, context = self.rows(slice(self.pilots, None))
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name in ADAPTIVE:
            for tolerance in TOLERANCES:
                got = scoresde.solve(
                    self.problem.sde, self.problem.score, x, method=name, rtol=tolerance, atol=tolerance,
                    context=context, throw=False,
                )  # fmt: skip
                found.setdefault(name, {})[f"{tolerance:g}"] = {
                    "error": self.figures(got.x)["median"],
                    "evaluations": float(got.nfe.double().mean()),
                }
        return found


def ratios(problems: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Errors over those of Euler's method at as many evaluations: geometric mean and largest over problems."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for budget in map(str, BUDGETS):
        rows = [problem["fixed"][budget] for problem in problems.values()]
        for name in rows[0]:
            over = [row[name] / row["euler"] for row in rows]
            mean = math.exp(sum(map(math.log, over)) / len(over))
            found.setdefault(budget, {})[name] = {"mean": mean, "worst": max(over)}
    return found


def main(arguments: list[str]) -> None:
    """Measure, print, and write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks velocities", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--check", action="store_true", help=f"{QUICK} only, compared with the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    file = RESULTS / "velocities.json"
    known = load("velocities")["results"]["problems"] if file.exists() else {}
    for name in [QUICK] if options.check else options.only or list(NAMES):
        case = Case(NAMES[name](options.folder), options.folder)
        got = {"reference": case.reference, "fixed": case.fixed()}
        for budget, row in got["fixed"].items():
            print(f"{name:20} {budget:3}", "  ".join(f"{k} {v:.1e}" for k, v in row.items()), flush=True)
        if options.check:
            check_same(name, got["fixed"], known[name]["fixed"])
            return
        known[name] = {**got, "adaptive": case.adaptive()}
        print(known[name]["adaptive"], flush=True)
        write("velocities", {"problems": known, "ratios": ratios(known)}, "python -m benchmarks velocities")
