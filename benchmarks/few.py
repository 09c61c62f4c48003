r"""Errors at 5 to 20 evaluations: the best shipped method and grid, ``method="auto"``, and what `tune` chooses.

Problems (`benchmarks._few_problems`): small networks that are trained here, the shipped networks on several processes,
exact scores, and, with ``--network FOLDER``, a network that somebody else trained. The rule of ``auto`` and the
candidates of `tune` were chosen on one half of them ("choose"); the other half ("report") and the foreign network,
which took no part, say what they are worth.

Errors are RMS over dimensions per sample, at the end of the flow, against a solve in float64 with tight tolerances;
then median and RMS over samples that took no part in tuning. *best* is the smallest of every deterministic method with
fixed steps on every grid of `GRIDS`, chosen by the figure itself; ratios are to that. *Best of nine* is the smallest of
nine common methods on five grids, and *best candidate* that of the list of `tune`, from where that list begins.

With ``--adaptive`` the program counts the evaluations of ``adams`` at a tolerance of 1e-2 on the problems of `NOISY`,
whose noise is 2,981 times as large as data at t_max, against those of torchdiffeq's ``dopri5`` at the same errors,
interpolated in the logarithms between tolerances that fall by the root of 10. Each sample is a problem of its own for
``adams``, and ``dopri5`` steps all together.

``python -m benchmarks few`` writes ``results/few.json``; ``--only NAME …`` measures some problems and keeps the others;
``--check`` measures two and compares them with the file.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._few_problems import F64, PILOT, PROBLEMS, Problem, add_arguments, foreign, kept
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from benchmarks.adaptive import Point, crossing
from scoresde.solvers import DPM3M, IPNDM, Solver, make_solver
from scoresde.solvers.registry.auto import HIGH, level_of
from scoresde.tuning.pilot import Pilot
from scoresde.tuning.tuning import candidates_of

BUDGETS = (5, 8, 10, 15, 20)
GRIDS = ("log_snr", "karras", "time", "quadratic")
NINE = ("euler", "heun", "ddim", "dpmpp_2m", "dpmpp_3m", "tab3", "unipc2", "unipc3", "ipndm")
FIVE = (*GRIDS, "cosine")
TOLERANCE = {"network": 1e-6, "exact": 1e-8}
BEFORE: dict[int, Solver] = {5: IPNDM(), 8: DPM3M(), 10: DPM3M(), 15: DPM3M(), 20: DPM3M()}  # on "log_snr"
QUICK = ("ring", "gaussian")
NOISY = (
    *(f"to noise 2981, {name}" for name in ("mixture", "normal", "curve", "mixture in 8 dimensions")),
    *(f"{name} posterior" for name in ("linear", "four modes", "two moons")),
)
COMMAND = "python -m benchmarks few --network …"
Figures = dict[str, float]


def methods() -> dict[str, Solver]:
    """Every deterministic method with fixed steps, but for those of other libraries."""
    found = {m.name: make_solver(m.name, {}, ()) for m in scoresde.methods() if ":" not in m.name and m.kind == "ode"}
    return {n: s for n, s in found.items() if not (s.stochastic or s.adaptive or s.own_steps)}


class Case:
    """A problem with the ends of its paths.

    Attributes:
        pilots: how many of the states are for choosing, and not for errors.
    """

    pilots = PILOT

    def __init__(self, problem: Problem, folder: Path | None = None) -> None:
        self.problem, self.folder = problem, folder
        tolerance = problem.tolerance or TOLERANCE[problem.kind]
        looser, self.ends = self.solved(10 * tolerance), self.solved(tolerance)
        self.reference = self.figures(looser[self.pilots :])["median"]

    def solved(self, tolerance: float) -> Tensor:
        """The ends of the paths by an adaptive solve in float64, which are kept."""
        problem = self.problem
        file = kept(self.folder, f"ends of {problem.name} {len(problem.x)} at {tolerance:.0e}")
        if file and file.exists():
            ends: Tensor = torch.load(file, weights_only=True)
            return ends
        given: dict[str, Any] = {
            "method": problem.method,
            "rtol": tolerance,
            "atol": tolerance,
            "context": problem.context,
        }
        ends = scoresde.solve(problem.sde, problem.sharp, problem.x.to(F64), **given).x
        if file:
            torch.save(ends, file)
        return ends

    def rows(self, part: slice) -> tuple[Tensor, Mapping[str, Any]]:
        """Some states and their context."""
        return self.problem.x[part], {name: value[part] for name, value in self.problem.context.items()}

    def figures(self, x: Tensor) -> Figures:
        """Median and RMS of the errors of the samples that are no pilots."""
        errors = (x.to(F64) - self.ends[self.pilots :]).flatten(1).square().mean(1).sqrt().nan_to_num(nan=math.inf)
        return {"median": float(errors.median()), "rms": float(errors.square().mean().sqrt())}

    def solve(self, **options: Any) -> Figures:
        """The errors of a method."""
        x, context = self.rows(slice(self.pilots, None))
        got = scoresde.solve(self.problem.sde, self.problem.score, x, context=context, throw=False, **options)
        return self.figures(got.x)

    def best(self, budget: int, solvers: Mapping[str, Solver], grids: Sequence[str]) -> dict[str, Any]:
        """The smallest median and RMS of all pairs, and the pair of the former."""
        found: dict[str, Figures] = {}
        for name, solver in solvers.items():
            steps = (budget - solver.extra_evaluations) // solver.evaluations
            for grid in grids if steps > 0 else ():
                found[f"{name} on {grid}"] = self.solve(method=solver, steps=steps, grid=grid)
        pair = min(found, key=lambda name: found[name]["median"])
        return {"pair": pair, **{k: min(row[k] for row in found.values()) for k in ("median", "rms")}}

    def tuned(self, budget: int) -> dict[str, Any]:
        """What `tune` chooses, and what that costs."""
        x, context = self.rows(slice(0, self.pilots))
        got = scoresde.tune(self.problem.sde, self.problem.score, budget, x=x, context=context)
        chosen = f"{got.ranking[0].method} on {got.ranking[0].grid}"
        return {"pair": chosen, "pilot calls": got.cost.pilots, **self.solve(method=got)}

    def batch(self, budget: int) -> Pilot:
        """The samples that are no pilots, as `tune` solves them."""
        x, context = self.rows(slice(self.pilots, None))
        return Pilot.of(
            self.problem.sde, self.problem.score, len(x), x=x, context=context, checkpoint=False,
            level=level_of(budget, HIGH), shape=None, seed=0, t_start=None, t_end=None, dtype=None, device=None,
        )  # fmt: skip

    def best_candidate(self, budget: int) -> Figures:
        """The smallest median and RMS of the candidates of `tune`."""
        batch = self.batch(budget)
        entries = [entry for entry in candidates_of(batch, budget) if entry.count(budget)]
        found = [self.figures(entry.results(batch, budget)) for entry in entries]
        return {k: min(row[k] for row in found) for k in ("median", "rms")}

    def measure(self, known: dict[str, Any] | None, budgets: Sequence[int], rules: bool) -> dict[str, Any]:
        """All figures for some budgets, and what is known of others; with ``rules`` the best pairs are as known."""
        problem = self.problem
        out: dict[str, Any] = {"half": problem.half, "kind": problem.kind, "reference": self.reference}
        out["budgets"] = dict(known["budgets"]) if known else {}
        every = methods()
        pairs = {"best": (every, GRIDS), "best of nine": ({name: every[name] for name in NINE}, FIVE)}
        for budget in budgets:
            old = known["budgets"][str(budget)] if known and rules else {}
            out["budgets"][str(budget)] = {
                **{name: old.get(name) or self.best(budget, *given) for name, given in pairs.items()},
                "best candidate": self.best_candidate(budget),
                "auto": self.solve(method="auto", evaluations=budget),
                "before": self.solve(
                    method=BEFORE[budget], steps=budget - BEFORE[budget].extra_evaluations, grid="log_snr"
                ),
                "tuned": self.tuned(budget),
            }
        return out


def adaptive(case: Case) -> dict[str, Any]:
    """The evaluations of ``adams`` at 1e-2, and as a share of dopri5's at the same errors."""
    x, context = case.rows(slice(case.pilots, None))

    def run(method: str, tolerance: float) -> Point:
        given = {"method": method, "rtol": tolerance, "atol": tolerance, "context": context, "throw": False}
        got = scoresde.solve(case.problem.sde, case.problem.score, x, **given)
        return tolerance, float(got.nfe.double().mean()), case.figures(got.x)

    _, evaluations, errors = run("adams", 1e-2)
    curve = [run("torchdiffeq:dopri5", 10 ** (-k / 2)) for k in range(9)]
    shares = {kind: evaluations / (crossing(curve, kind, error) or math.nan) for kind, error in errors.items()}
    return {"half": case.problem.half, "evaluations": evaluations, "errors": errors, "of dopri5's": shares}


# What is compared, and with what.
KINDS = {
    "auto": "best",
    "auto / best of nine": "best of nine",
    "tuned / best of nine": "best of nine",
    "before": "best",
    "tuned": "best",
    "tuned / best candidate": "best candidate",
}


def summary(problems: dict[str, Any]) -> dict[str, Any]:
    """Geometric means and largest ratios to the best pair, by half and kind."""
    groups: dict[str, Callable[[str], bool]] = {
        "choose": lambda name: problems[name]["half"] == "choose",
        "report": lambda name: problems[name]["half"] != "choose",
        "report, flows": lambda name: problems[name]["half"] != "choose" and "flow" in name,
        "report, networks": lambda name: problems[name]["half"] != "choose" and problems[name]["kind"] == "network",
    }
    out: dict[str, Any] = {}
    for budget in map(str, BUDGETS):
        for kind, over in KINDS.items():
            for group, member in groups.items():
                rows = [problem["budgets"][budget] for name, problem in problems.items() if member(name)]
                rows = [row for row in rows if over in row]
                if not rows:
                    continue
                for figure in ("median", "rms"):
                    ratios = [row[kind.partition(" /")[0]][figure] / row[over][figure] for row in rows]
                    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                    place = out.setdefault(budget, {}).setdefault(kind, {}).setdefault(group, {})
                    place[figure] = {"mean": mean, "worst": max(ratios)}
    return out


# The largest geometric means over the best of nine, on the half that reports, by evaluations.
BARS = {"auto / best of nine": (1.1, 1.15, 1.3, 1.3, 1.3), "tuned / best of nine": (0.8, 0.95, 0.95, 1.05, 1.05)}
# And the largest ratios, where these are held.
WORST: dict[str, dict[int, float]] = {
    "auto / best of nine": {8: 3.0},
    "tuned / best of nine": {8: 1.5, 10: 1.5, 15: 1.5, 20: 1.5},
}


def check_bars(results: dict[str, Any]) -> None:
    """Refuse figures that are beyond `BARS` or `WORST`, or above a half of dopri5's evaluations."""
    for kind, bars in BARS.items():
        for budget, bar in zip(BUDGETS, bars, strict=True):
            mean = results["ratios"][str(budget)][kind]["report"]["median"]["mean"]
            if not mean <= bar:
                raise RuntimeError(f"{kind} at {budget}: {mean:.2f}, and {bar} is allowed")
    for kind, held in WORST.items():
        for budget, bar in held.items():
            worst = results["ratios"][str(budget)][kind]["report"]["median"]["worst"]
            if not worst <= bar:
                raise RuntimeError(f"{kind} at {budget}: {worst:.2f} at most, and {bar} is allowed")
    shares = [row["of dopri5's"]["median"] for row in results["adaptive"].values()]
    mean = math.exp(sum(map(math.log, shares)) / len(shares))
    if not (mean <= 0.35 and max(shares) <= 0.5):
        raise RuntimeError(f"adams: {mean:.2f} of dopri5's evaluations, and {max(shares):.2f} at most")


def shown(name: str, row: dict[str, Any]) -> None:
    """Print the ratios of a problem."""
    for budget, figures in row["budgets"].items():
        best = figures["best"]
        ratios = (f"{k} {v['median'] / best['median']:.2f}" for k, v in figures.items() if not k.startswith("best"))
        print(f"{name:28}{budget:>3}  best {best['median']:.1e} ({best['pair']})  {'  '.join(ratios)}", flush=True)


def main(arguments: list[str]) -> None:
    """Measure, print, write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks few", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rules", action="store_true", help="keep the best pairs of the file, which no rule changes")
    parser.add_argument("--budgets", type=int, nargs="*", choices=BUDGETS, help="evaluations; the others are kept, too")
    parser.add_argument("--adaptive", action="store_true", help="measure adams on the problems with most noise only")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    makers: dict[str, Callable[[Path | None], Problem]] = dict(PROBLEMS)
    if options.network:
        makers["foreign network"] = lambda _: foreign(options.network, PILOT + 8)
    names = QUICK if options.check else options.only or list(makers)
    known = load("few")["results"]["problems"] if (RESULTS / "few.json").exists() else {}
    if options.check:
        for name in names:
            case = Case(makers[name](None))
            for budget in (5, 10):
                for kind, given in (("auto", {"method": "auto", "evaluations": budget}),):
                    got, file = case.solve(**given), known[name]["budgets"][str(budget)][kind]
                    print(name, budget, kind, got, file)
                    if not math.isclose(got["median"], file["median"], rel_tol=1e-4):
                        raise RuntimeError(f"{name}: the error of {kind} at {budget} is not that of the file")
        check_bars(load("few")["results"])
        return
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    adams = load("few")["results"].get("adaptive", {}) if (RESULTS / "few.json").exists() else {}
    if options.adaptive:
        adams = {name: adaptive(Case(makers[name](options.folder), options.folder)) for name in NOISY}
        for name, row in adams.items():
            print(f"{name:40}{row['evaluations']:6.1f}", {k: round(v, 3) for k, v in row["of dopri5's"].items()})
        names = []
    for name in names:
        started = time.perf_counter()
        case = Case(makers[name](options.folder), options.folder)
        known[name] = case.measure(known.get(name), options.budgets or BUDGETS, options.rules)
        shown(name, known[name])
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        write("few", {"problems": known, "ratios": summary(known), "adaptive": adams}, COMMAND)
    if options.adaptive:
        write("few", {"problems": known, "ratios": summary(known), "adaptive": adams}, COMMAND)
    for budget, kinds in summary(known).items():
        for kind, found in kinds.items():
            cells = (f"{g}: {v['median']['mean']:.2f} / {v['median']['worst']:.1f}" for g, v in found.items())
            print(f"{budget:>3} {kind:24}{'   '.join(cells)}")
