r"""Solvers learned on 32 pilots beside grids fitted on the same pilots, at 5, 8 and 10 evaluations.

The problems are those of `benchmarks.few`: small networks, shipped networks, exact scores, and, with
``--network FOLDER``, a network that somebody else trained. *choose* problems decided constants of
`scoresde.fit_solver`; the others took no part.

For each problem and number of evaluations, `scoresde.fit_grid` fits a grid for each of `METHODS`, and
`scoresde.fit_solver` learns a solver, with their defaults. The errors are those of `benchmarks.few`, on samples that
took no part; *best grid* has the smallest median and the smallest RMS of all methods, each chosen by the figure itself.
The cost is in calls on the whole pilot, a gradient counted as two, and the ratio is to the cost of a grid for `unipc2`.
*Farthest* is the largest exact end over the median one: on some badly trained networks a few exact paths end far from
all data, and these samples decide every RMS.

``--published`` adds the learned solvers of `benchmarks._published_solvers`, at 5 and 8 evaluations, to problems that
are in the file. Each may take as many pilot calls as `scoresde.fit_solver` did there. Their rates were tuned on *ring*
and *two moons posterior*.

``python -m benchmarks fitted_solvers`` writes ``results/fitted_solvers.json``; ``--only NAME …`` measures some problems
and keeps the others.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import scoresde
from benchmarks import few
from benchmarks._few_problems import EDM, FLOW, PROBLEMS, SMALL, VP, Problem, add_arguments, foreign, shipped
from benchmarks._published_solvers import PUBLISHED
from benchmarks._record import RESULTS, write
from benchmarks._tables import load

BUDGETS = (5, 8, 10)
PILOT = 32
METHODS = ("unipc2", "dpm_2m", "dpmpp_2m", "unipc3", "dpm_3m", "ipndm")
COMPARED = (5, 8)
GROUPS = ("choose", "report", "report, badly trained")
USES_FUNC = ("roll, chain",)  # torch.func inside the network
Figures = dict[str, float]

# Networks of images take fewer samples.
IMAGES: dict[str, Callable[[Path | None], Problem]] = {
    "digits, VP": lambda _: shipped("digits, VP", "choose", "digits", VP, PILOT + 32),
    "digits, flow": lambda _: shipped("digits, flow", "choose", "digits", FLOW, PILOT + 32),
    "digits, EDM": lambda _: shipped("digits, EDM", "report", "digits", EDM, PILOT + 32),
    "digits, sub-VP": lambda _: shipped("digits, sub-VP", "report", "digits", scoresde.SubVPSDE(), PILOT + 32),
    "digits, guidance 3": lambda _: shipped("digits, guidance 3", "choose", "digits", VP, PILOT + 32, 3.0),
    "mnist, VP": lambda _: shipped("mnist, VP", "choose", "mnist", VP, PILOT + 16),
}
NAMES = {**{n: m for n, m in PROBLEMS.items() if n in SMALL or n in ("ring", "gaussian")}, **IMAGES}


class Case(few.Case):
    """A problem with the ends of its paths, and the error of samples that are no pilots."""

    pilots = PILOT

    def measure(
        self, known: Mapping[str, Any], done: Mapping[str, Any], keep: Callable[[dict[str, Any]], None]
    ) -> None:
        """All figures but those of budgets that are done; those of grids as they are known, if they are. What there is
        after each budget is kept."""
        problem = self.problem
        x, context = self.rows(slice(0, PILOT))
        given: dict[str, Any] = {"x": x, "context": context, "checkpoint": problem.name not in USES_FUNC}
        out: dict[str, Any] = {"half": problem.half, "kind": problem.kind, "reference": self.reference}
        out["farthest"] = self.farthest()
        out["budgets"] = dict(done)
        if done:  # otherwise the row of the file stays until there is another
            keep(out)
        for budget in (b for b in map(str, BUDGETS) if b not in done):
            grids = known["budgets"][budget]["grids"] if known else self.grids(int(budget), given)
            learned = scoresde.fit_solver(problem.sde, problem.score, int(budget), **given)
            out["budgets"][budget] = {
                "grids": grids,
                "best grid": {k: min(row[k] for row in grids.values()) for k in ("median", "rms")},
                "learned": self.solve(method=learned),
                "start": learned.start,
                "cost": learned.cost.pilots,
                "cost / grid": learned.cost.pilots / grids["unipc2"]["cost"],
                "auto": self.solve(method="auto", evaluations=int(budget)),
            }
            self.shown(budget, out["budgets"][budget])
            keep(out)

    def farthest(self) -> float:
        """The largest exact end over the median one, of the samples that are no pilots."""
        sizes = self.ends[self.pilots :].flatten(1).norm(dim=1)
        return float(sizes.max() / sizes.median())

    def grids(self, budget: int, given: Mapping[str, Any]) -> dict[str, Figures]:
        """The errors on fitted grids, and their cost."""
        found = {m: scoresde.fit_grid(self.problem.sde, self.problem.score, budget, m, **given) for m in METHODS}
        return {name: {**self.solve(method=grid), "cost": grid.cost.pilots} for name, grid in found.items()}

    def published(self, row: Mapping[str, Any]) -> None:
        """Add the errors of published learned solvers to a problem's row."""
        problem = self.problem
        x, context = self.rows(slice(0, PILOT))
        tests, seen = self.rows(slice(PILOT, None))
        for budget in map(str, COMPARED):
            place = row["budgets"][budget]
            place["published"] = {}
            for name, learn in PUBLISHED.items():
                exact = self.ends[:PILOT].to(x.dtype)
                sampler = learn(problem.sde, problem.score, int(budget), x, context, exact, place["cost"])
                place["published"][name] = self.figures(sampler(tests, seen))
            ratios = (f"{n} {v['median'] / place['learned']['median']:.2f}" for n, v in place["published"].items())
            print(f"{problem.name:32}{budget:>3}  over ours: {'  '.join(ratios)}", flush=True)

    def shown(self, budget: str, row: Mapping[str, Any]) -> None:
        """Print a row."""
        best, got = row["best grid"], row["learned"]
        ratios = "  ".join(f"{k} {got[k] / best[k]:.2f} ({got[k]:.1e})" for k in ("median", "rms"))
        print(f"{self.problem.name:32}{budget:>3}  {ratios}  cost {row['cost / grid']:.2f}  {row['start']}", flush=True)


def group_of(name: str, problem: Mapping[str, Any]) -> str:
    """Where a problem counts."""
    if problem["half"] == "choose":
        return "choose"
    return "report, badly trained" if "badly trained" in name else "report"


def summary(problems: Mapping[str, Any]) -> dict[str, Any]:
    """Geometric means and largest ratios to the best grid, by half; badly trained networks by themselves."""
    out: dict[str, Any] = {}
    for group in GROUPS:
        for budget in map(str, BUDGETS):
            rows = [
                p["budgets"][budget]
                for name, p in problems.items()
                if group_of(name, p) == group and budget in p["budgets"]
            ]
            for figure in ("median", "rms") if rows else ():
                ratios = [row["learned"][figure] / row["best grid"][figure] for row in rows]
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                out.setdefault(group, {}).setdefault(budget, {})[figure] = {"mean": mean, "worst": max(ratios)}
    for budget in map(str, COMPARED):
        rows = [p["budgets"][budget] for p in problems.values() if "published" in p["budgets"].get(budget, {})]
        for name in PUBLISHED if rows else ():
            for figure in ("median", "rms"):
                ratios = [row["published"][name][figure] / row["learned"][figure] for row in rows]
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                place = out.setdefault("published over learned", {}).setdefault(budget, {}).setdefault(name, {})
                place[figure] = {"mean": mean, "least": min(ratios)}
    return out


def main(arguments: list[str]) -> None:
    """Measure, print, write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fitted_solvers", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--keep-grids", action="store_true", help="keep the fitted grids of the file")
    parser.add_argument("--resume", action="store_true", help="keep the budgets of a problem that are in the file")
    parser.add_argument("--again", type=int, nargs="+", default=[], choices=BUDGETS, help="but for these")
    parser.add_argument("--published", action="store_true", help="add published learned solvers to the file's problems")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    makers = dict(NAMES)
    if options.network:
        makers["foreign network"] = lambda _: foreign(options.network, PILOT + 16)
    file = RESULTS / "fitted_solvers.json"
    known = load("fitted_solvers")["results"]["problems"] if file.exists() else {}
    command = " ".join(["python -m benchmarks fitted_solvers", *(["--network …"] if options.network else [])])

    def keep(name: str, row: dict[str, Any]) -> None:
        known[name] = row
        write("fitted_solvers", {"problems": known, "ratios": summary(known)}, command)

    for name in options.only or list(makers):
        started = time.perf_counter()
        case = Case(makers[name](options.folder), options.folder)
        if options.published:
            case.published(known[name])
            keep(name, known[name])
        else:
            grids = known.get(name, {}) if options.keep_grids else {}
            done = known.get(name, {}).get("budgets", {}) if options.resume else {}
            done = {budget: row for budget, row in done.items() if int(budget) not in options.again}
            case.measure(grids, done, functools.partial(keep, name))
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    for group, budgets in summary(known).items():
        for budget, row in budgets.items():
            print(group, budget, row)
