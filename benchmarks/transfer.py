r"""What is tuned or learned for one thing and used on another: labels, guidance, process, network, evaluations.

For each pair of problems, `scoresde.tune` chooses, or `scoresde.fit_solver` learns, on the first. The errors are
measured on the second, beside those of what is *made* there in the same way, and those of ``method="auto"``. The record
goes from one process to another by `scoresde.FittedGrid.on`; where a step would be beyond the end of that process,
it refuses, and the pair has no figure. What was tuned for 8 evaluations is used with 5 and 10, as its method and its
grid. A learned solver cannot be used so, since each of its steps has coefficients of its own.

The errors are those of `benchmarks.few`, of end points against solves in float64 with tight tolerances, on noise that
took no part: 32 samples of the digits, 8 of MNIST, and 128 of the small networks. `scoresde.tune` takes 16 pilots (8 of
MNIST), and `scoresde.fit_solver` 32, with their defaults. All noise is drawn with the seed 4. The learned solvers for
the plain networks on EDM's process are those that come with them, from 64 pilots (16 of MNIST) of another seed.

``python -m benchmarks transfer`` writes ``results/transfer.json``; ``--only GROUP …`` measures some groups of pairs and
keeps the others.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import torch

import scoresde
from benchmarks import few
from benchmarks._few_problems import EDM, FLOW, PILOT, VP, Problem, shipped, small
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from scoresde.solvers import choose, from_config
from scoresde.tuning import FittedGrid
from scoresde.tuning.tuning import CANDIDATES

BUDGETS = (5, 8, 10)
CHOSEN = 8  # evaluations, for the use with other numbers of them
PROCESSES = {"EDM": EDM, "VP": VP, "flow": FLOW}
COUNTS = {"digits": (32, 32), "mnist": (8, 8), "small networks": (32, 128)}  # pilots and other samples
SMALL = ("heavy tails", "petals, guidance 3", "mixture, 16 dimensions", "mixture, VP, badly trained")


def problem_of(name: str, folder: Path | None) -> tuple[Problem, int]:
    """A problem and its pilots, by a name such as ``"digits, EDM, guidance 3"`` or ``"digits, VP, labels 5 to 9"``."""
    if name in SMALL:
        pilots, others = COUNTS["small networks"]
        return small(name, folder, pilots + others), pilots
    network, process, what = [*name.split(", "), ""][:3]
    samples = sum(COUNTS[network])
    problem = shipped(name, "report", network, PROCESSES[process], samples, 3.0 if what == "guidance 3" else None)
    if what.startswith("labels"):
        problem = replace(problem, context={"label": int(what.split()[1]) + torch.arange(samples) % 5})
    return problem, COUNTS[network][0]


class Case(few.Case):
    """A problem with the ends of its paths, and what was made for it."""

    def __init__(self, problem: Problem, pilots: int) -> None:
        self.pilots = pilots
        super().__init__(problem)
        self.made: dict[tuple[Maker, int], FittedGrid] = {}

    def given(self, count: int) -> dict[str, Any]:
        """The process, the score function and so many pilots, as the arguments of a fit."""
        x, context = self.rows(slice(0, min(count, self.pilots)))
        return {"sde": self.problem.sde, "score_fn": self.problem.score, "x": x, "context": context}

    def exact(self, count: int) -> torch.Tensor:
        """The ends of these pilots."""
        return self.ends[: min(count, self.pilots)].to(self.problem.x.dtype)

    def record(self, make: Maker, budget: int) -> FittedGrid:
        """What is made here, once."""
        if (make, budget) not in self.made:
            began = time.perf_counter()
            self.made[make, budget] = make(self, budget)
            took = time.perf_counter() - began
            print(f"{self.problem.name}: {self.made[make, budget]!r}, {took:.0f} s", flush=True)
        return self.made[make, budget]


Maker = Callable[[Case, int], FittedGrid]
case_of = cache(lambda name, folder: Case(*problem_of(name, folder)))


def tuned(case: Case, budget: int) -> FittedGrid:
    """The choice of `scoresde.tune`."""
    return scoresde.tune(steps=budget, **case.given(PILOT))


def learned(case: Case, budget: int) -> FittedGrid:
    """The solver that comes with a network, or that of `scoresde.fit_solver`."""
    network, _, process = case.problem.name.partition(", ")
    if process == "EDM":
        return scoresde.load(network).solver(budget, EDM)
    pilots = case.pilots
    return scoresde.fit_solver(steps=budget, reference=case.exact(pilots), checkpoint=False, **case.given(pilots))


def carried(case: Case, budget: int) -> FittedGrid:
    """The method and the grid that `scoresde.tune` chooses for `CHOSEN` evaluations, with another number of them."""
    chosen: Any = case.record(tuned, CHOSEN)
    best = chosen.ranking[0]
    grids = {str(grid): grid for grid in (choose(True, CHOSEN, ()).grid, *(grid for _, _, grid in CANDIDATES))}
    pair = from_config(best.method), grids[best.grid.partition(", from")[0]]  # from where the list begins
    return scoresde.tune(steps=budget, candidates=[pair], reference=case.exact(PILOT), **case.given(PILOT))


MADE: dict[str, Maker] = {"tuned": tuned, "learned": learned}


class Group(NamedTuple):
    """Pairs of problems: what is made on the first is used on the second.

    Attributes:
        pairs: the names of the problems.
        makers: for each kind, what makes the record on the first.
        budgets: the numbers of evaluations.
    """

    pairs: Sequence[tuple[str, str]]
    makers: Mapping[str, Maker] = MADE
    budgets: Sequence[int] = BUDGETS


def each_way(*names: str) -> list[tuple[str, str]]:
    """All pairs of some problems, in both directions."""
    return list(permutations(names, 2))


GUIDED = [(f"digits, {name}", f"digits, {name}, guidance 3") for name in ("EDM", "VP")]
LABELS = [f"digits, EDM, labels {part}" for part in ("0 to 4", "5 to 9")]
GROUPS = {
    "other labels": Group(each_way(*LABELS)),
    "guidance 1, used with 3": Group(GUIDED),
    "guidance 3, used with 1": Group([pair[::-1] for pair in GUIDED]),
    "another process": Group(each_way(*(f"digits, {name}" for name in PROCESSES))),
    "digits and MNIST, each used on the other": Group(each_way("digits, EDM", "mnist, EDM")),
    "digits, used on small networks": Group(list(product(("digits, VP", "digits, EDM"), SMALL))),
    "small networks, used on digits": Group(list(product(SMALL, ["digits, VP"]))),
    "8 evaluations, used with 5 and 10": Group(
        [(name, name) for name in ("digits, EDM", "digits, VP", "digits, flow", "mnist, EDM", *SMALL)],
        {"tuned": carried},
        [budget for budget in BUDGETS if budget != CHOSEN],
    ),
}


def measure(source: Case, target: Case, kind: str, maker: Maker, budget: int) -> dict[str, few.Figures]:
    """The errors on the second problem; without *transferred* where the record refuses its process."""
    found = {
        "made": target.solve(method=target.record(MADE[kind], budget)),
        "auto": target.solve(method="auto", steps=budget),
    }
    try:
        record = source.record(maker, budget).on(target.problem.sde)
    except scoresde.InvalidArgumentError as refusal:
        print(refusal, flush=True)
        return found
    return {"transferred": target.solve(method=record), **found}


def measured(group: Group, folder: Path | None) -> dict[str, Any]:
    """All figures of a group: of each kind, pair and number of evaluations."""
    out: dict[str, Any] = {}
    for (kind, maker), pair, budget in product(group.makers.items(), group.pairs, group.budgets):
        source, target = (case_of(name, folder) for name in pair)
        row = measure(source, target, kind, maker, budget)
        out.setdefault(kind, {}).setdefault(" → ".join(pair), {})[str(budget)] = row
        print(
            f"  {' → '.join(pair)}, {kind}, {budget}: ", {k: f"{v['median']:.1e}" for k, v in row.items()}, flush=True
        )
    return out


RATIOS = {"transferred": "auto", "made": "auto", "transferred / made": "made"}


def summary(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Geometric means and largest ratios, over the pairs that are not refused, by group, kind and evaluations."""
    out: dict[str, Any] = {}
    for group, kinds in groups.items():
        for kind, pairs in kinds.items():
            for budget in map(str, GROUPS[group].budgets):
                whole = [row[budget] for row in pairs.values()]
                rows = [row for row in whole if "transferred" in row]
                place = out.setdefault(group, {}).setdefault(kind, {}).setdefault(budget, {})
                place |= {"pairs": len(rows), "refused": len(whole) - len(rows)}
                for (what, over), figure in product(RATIOS.items(), ("median", "rms") if rows else ()):
                    ratios = [row[what.partition(" /")[0]][figure] / row[over][figure] for row in rows]
                    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                    place.setdefault(what, {})[figure] = {"mean": mean, "worst": max(ratios)}
    return out


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks transfer", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the small networks")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), help="groups; the others are kept as in the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    known = load("transfer")["results"]["groups"] if (RESULTS / "transfer.json").exists() else {}
    for name in options.only or list(GROUPS):
        began = time.perf_counter()
        known[name] = measured(GROUPS[name], options.folder)
        known = {name: known[name] for name in GROUPS if name in known}  # in the order of the page
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        results = {"pilots and others": COUNTS, "seed": 4, "groups": known, "ratios": summary(known)}
        write("transfer", results, "python -m benchmarks transfer")
    for group, kinds in summary(known).items():
        for kind, budgets in kinds.items():
            for budget, row in budgets.items():
                cells = (
                    f"{k} {v['median']['mean']:.2f} / {v['median']['worst']:.1f}" for k, v in row.items() if k in RATIOS
                )
                print(
                    f"{group:42}{kind:8}{budget:>3}  {row['pairs']} pairs, {row['refused']} refused  {'  '.join(cells)}"
                )
