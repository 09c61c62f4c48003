r"""Which solver with classifier-free guidance: errors by the scale, at 10, 20 and 50 evaluations.

The shipped networks with their labels, on the VP process. Errors are RMS over dimensions at the end of the guided flow,
against a solve in float64 with tight tolerances; their median over samples. All methods take the default grid, and as
many steps as the evaluations allow. ``tune`` is given other samples, up to 20 evaluations.

``python -m benchmarks guided_solvers`` writes ``results/guided_solvers.json``; ``--only NAME …`` measures some networks
and keeps the others, ``--check`` compares one row with the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

import scoresde
from benchmarks import few
from benchmarks._few_problems import VP, add_arguments, shipped
from benchmarks._record import RESULTS, check_same, write
from benchmarks._tables import load
from benchmarks.velocities import Case

BUDGETS = (10, 20, 50)
TUNED = (10, 20)
METHODS = ("ddim", "dpm_2m", "dpm_3m", "dpmpp_2m", "dpmpp_3m", "unipc2", "unipc3", "auto")
SCALES = {"digits": (1.0, 3.0, 5.0, 8.0), "mnist": (1.0, 3.0, 8.0)}
SAMPLES = {"digits": 32, "mnist": 8}
QUICK = ("digits", 3.0)


def errors(case: Case, budgets: Sequence[int] = BUDGETS) -> dict[str, dict[str, float]]:
    """By the number of evaluations and the method."""
    found: dict[str, dict[str, float]] = {}
    x, context = case.rows(slice(0, case.pilots))
    for budget in budgets:
        row = found[str(budget)] = {name: case.within(budget, name) for name in METHODS}
        if budget in TUNED:
            tuned = scoresde.tune(case.problem.sde, case.problem.score, budget, x=x, context=context)
            row["tune"] = case.solve(method=tuned)["median"]
    return found


def main(arguments: list[str]) -> None:
    """Measure, print, and write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks guided_solvers", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--check", action="store_true", help="one row, compared with the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    file = RESULTS / "guided_solvers.json"
    known: dict[str, Any] = load("guided_solvers")["results"] if file.exists() else {}
    for name in [QUICK[0]] if options.check else options.only or list(SCALES):
        for scale in [QUICK[1]] if options.check else SCALES[name]:
            problem = shipped(f"{name}, guided {scale:g}", "report", name, VP, few.Case.pilots + SAMPLES[name], scale)
            case = Case(problem, options.folder)
            got = errors(case, BUDGETS[:1] if options.check else BUDGETS)
            for budget, row in got.items():
                print(f"{name:7} {scale:g} {budget:3}", "  ".join(f"{k} {v:.1e}" for k, v in row.items()), flush=True)
            if options.check:
                check_same(f"{name}, {scale:g}", got, known[name][f"{scale:g}"])
                return
            known.setdefault(name, {})[f"{scale:g}"] = got
            write("guided_solvers", known, "python -m benchmarks guided_solvers")
