r"""Choices of `tune` by the energy distance of distributions, measured on samples that took no part.

For each problem and number of evaluations `tune` chooses on a pilot of 256 samples, among the deterministic candidates
and those that draw noise. 2,000 other samples then give the energy distance of every candidate to an accurate solve of
the same states. A choice counts as *tied* if its distance is within two standard errors of the smallest one, and the
choice by the errors of end points stands beside it.

The candidates that draw noise were chosen on problems of `benchmarks._few_problems` marked "choose"; those here are
marked "report". ``python -m benchmarks few_distributions --folder NETWORKS`` writes ``results/few_distributions.json``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch

import scoresde
from benchmarks._few_problems import Problem, small
from benchmarks._record import write
from scoresde.solvers import from_config
from scoresde.solvers.registry.auto import HIGH, level_of
from scoresde.solvers.registry.config import to_text
from scoresde.tuning.objectives import Distributions
from scoresde.tuning.pilot import Pilot
from scoresde.tuning.tuning import CANDIDATES, STOCHASTIC, candidates_of

NAMES = ("two moons posterior", "heavy tails", "mixture, badly trained", "roll, VP, badly trained")
BUDGETS = (5, 8)
PILOT, SAMPLES = 256, 2000


def part(problem: Problem, rows: slice) -> dict[str, Any]:
    """Some states of a problem with their context."""
    return {"x": problem.x[rows], "context": {name: value[rows] for name, value in problem.context.items()}}


def measure(problem: Problem, budget: int) -> dict[str, Any]:
    """The distances of the choices and of the best candidate."""
    pilot, rest = part(problem, slice(0, PILOT)), part(problem, slice(PILOT, None))
    batch = Pilot.of(
        problem.sde, problem.score, SAMPLES, **rest, checkpoint=False, level=level_of(budget, HIGH), shape=None,
        seed=1, t_start=None, t_end=None, dtype=None, device=None,
    )  # fmt: skip
    listed = candidates_of(batch, budget, (*CANDIDATES, *STOCHASTIC))
    entries = [*listed, *(entry.lower(batch) for entry in listed)]
    ends = [entry.results(batch, budget) for entry in entries]
    compared = Distributions(ends, Distributions.exact(batch, budget))
    names = [(to_text(entry.solver), entry.name) for entry in entries]
    best = min(range(len(entries)), key=compared.scores.__getitem__)

    def row(i: int) -> dict[str, Any]:
        errors, (behind, uncertainty) = compared.errors(i), compared.behind(i, best)
        return {
            "method": " on ".join(names[i]),
            "stochastic": from_config(names[i][0]).stochastic,
            "distance": errors.distance,
            "error": errors.distance_error,
            "behind": behind,
            "tied": math.log(behind) <= 2 * uncertainty,
        }

    def chosen(**options: Any) -> dict[str, Any]:
        found = scoresde.tune(problem.sde, problem.score, budget, **options)
        return row(names.index((found.ranking[0].method, found.ranking[0].grid)))

    few = part(problem, slice(0, 16))
    deterministic = [i for i, (method, _) in enumerate(names) if not from_config(method).stochastic]
    return {
        "best": row(best),
        "best deterministic": row(min(deterministic, key=compared.scores.__getitem__)),
        "law": chosen(objective="law", **pilot),
        "log": chosen(**few),
    }


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks few_distributions", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the small networks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in NAMES:
        problem = small(name, options.folder, PILOT + SAMPLES)
        found[name] = {}
        for budget in BUDGETS:
            found[name][str(budget)] = rows = measure(problem, budget)
            for kind, row in rows.items():
                print(f"{name:26}{budget:>3} {kind:20}{row['distance']:10.1e} ± {row['error']:.0e}  {row['method']}")
    write("few_distributions", found, "python -m benchmarks few_distributions")
