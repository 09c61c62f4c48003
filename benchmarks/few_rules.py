r"""How well one method on one grid can do on many problems, at 5 to 20 evaluations: how the rule of "auto" was chosen.

The multistep methods of `METHODS` and `EXTRA`, on the grids of `ALL_GRIDS`, begun where ``method="auto"`` begins, on
the "choose" half of the problems of `benchmarks.few`, flows of broad and of narrow laws among them. The error of a pair
on a problem is the median over samples, divided by the best pair of ``benchmarks/results/few.json``. Of each pair the
geometric mean and the largest of these ratios are taken. Shown are the pair of ``method="auto"`` and the pairs with the
smallest mean and with the smallest maximum. Networks that `scoresde.check_score` would name as unreliable at high noise
are left out.

``python -m benchmarks few_rules`` writes ``results/few_rules.json``.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any, NamedTuple

import torch

from benchmarks._few_problems import PROBLEMS, add_arguments
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from benchmarks.few import BUDGETS, GRIDS, Case
from scoresde.grids import Angle, VPTime
from scoresde.solvers import Solver, choose, make_solver
from scoresde.solvers.registry.auto import level_of

SHOWN = 3
FAMILY: dict[str, VPTime | Angle] = {
    **{f"VPTime({s}, {p})": VPTime(s, p) for s, p in ((0.3, 0.25), (0.3, 0.375), (1.0, 0.25))},
    **{f"Angle({s}, {p})": Angle(s, p) for s, p in ((1.0, 0.25), (1.0, 0.35), (2.0, 0.25), (3.0, 0.2), (3.0, 0.25))},
}
ALL_GRIDS: dict[str, Any] = {name: name for name in GRIDS} | FAMILY
METHODS = ("ddim", "dpm_2m", "dpm_3m", "dpmpp_2m", "dpmpp_3m", "unipc2", "unipc3", "ipndm", "tab2", "tab3")
EXTRA: dict[str, Solver] = {
    "unipc2, lower_order_final": make_solver("unipc2", {"lower_order_final": True}, ()),
    "unipc3, lower_order_final": make_solver("unipc3", {"lower_order_final": True}, ()),
    "dpm_3m, published start-up": make_solver("dpm_3m", {"start_up": "published"}, ()),
}
UNRELIABLE = ("mixture, VP, badly trained", "linear posterior, badly trained")
Errors = dict[str, float]


EVERY = {name: make_solver(name, {}, ()) for name in METHODS} | EXTRA


def errors(case: Case, budget: int) -> Errors:
    """The median error of every pair that makes so few evaluations."""
    batch, found = case.batch(budget).from_level(level_of(budget)), {}
    for name, solver in EVERY.items():
        steps = (budget - solver.extra_evaluations) // solver.evaluations
        for grid, given in ALL_GRIDS.items() if steps > 0 else ():
            found[f"{name} on {grid}"] = case.figures(batch.solve(solver, batch.times(given, steps)))["median"]
    return found


class Rule(NamedTuple):
    """A pair, the geometric mean and the largest of its ratios, and the problem of the latter."""

    pair: str
    mean: float
    worst: float
    problem: str


def rules(found: dict[str, Errors], best: dict[str, float]) -> list[Rule]:
    """All pairs that have a figure on every problem."""
    rows = []
    for pair in set.intersection(*(set(row) for row in found.values())):
        ratios = {name: row[pair] / best[name] for name, row in found.items()}
        worst = max(ratios, key=lambda name: ratios[name])
        mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
        rows.append(Rule(pair, mean, ratios[worst], worst))
    return sorted(rows)


def pair_of_auto(budget: int) -> str:
    """The name here of what ``method="auto"`` takes."""
    chosen = choose(True, budget, ())
    (name,) = (name for name, solver in EVERY.items() if solver == chosen.solver)
    if chosen.grid is None:
        raise SystemExit(f"auto has no grid of its own at {budget} evaluations.")
    own = (isinstance(chosen.grid, Angle), chosen.grid.scale, chosen.grid.power)
    (grid,) = (name for name, g in FAMILY.items() if (isinstance(g, Angle), g.scale, g.power) == own)
    return f"{name} on {grid}"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The pairs with the smallest mean, and with the smallest maximum, for each budget."""
    makers: dict[str, Any] = dict(PROBLEMS)
    known = load("few")["results"]["problems"]
    names = [n for n in options.only or makers if known[n]["half"] == "choose" and n not in UNRELIABLE]
    if not names:
        raise SystemExit("--only names no problem of that half.")
    found: dict[int, dict[str, Errors]] = {budget: {} for budget in BUDGETS}
    for name in names:
        started = time.perf_counter()
        case = Case(makers[name](options.folder), options.folder)
        for budget in BUDGETS:
            found[budget][name] = errors(case, budget)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    results: dict[str, Any] = {"problems": len(names)}
    for budget in BUDGETS:
        best = {name: known[name]["budgets"][str(budget)]["best"]["median"] for name in names}
        rows = rules(found[budget], best)
        results[str(budget)] = {
            "pairs": len(rows),
            "smallest mean": [row._asdict() for row in sorted(rows, key=lambda row: row.mean)[:SHOWN]],
            "smallest maximum": [row._asdict() for row in sorted(rows, key=lambda row: row.worst)[:SHOWN]],
            "auto": next(row for row in rows if row.pair == pair_of_auto(budget))._asdict(),
        }
        print(budget, results[str(budget)], flush=True)
    return results


def main(arguments: list[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks few_rules", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    if not (RESULTS / "few.json").exists():
        parser.error("results/few.json has the best pairs; run `python -m benchmarks few` first.")
    results = measure(options)
    if not options.only:
        write("few_rules", results, "python -m benchmarks few_rules")
