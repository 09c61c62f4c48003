r"""Networks that take integer labels: which method and which grid at 10 and 20 evaluations.

Such a network knows the noise levels of its chain alone. Here it is made from a score that knows every level: the
network of a label returns the noise estimate at the level of that label, whatever the level of the state. So the exact
answer is known, the end of the flow of the score behind it, in float64 with tight tolerances.

On the levels of the chain, ``chain.grid(n)`` with a last denoising evaluation, the labels are exact, and the steps are
those that the chain has: even in its index. On other grids the steps are better placed, and each label is that of the
nearest level. Errors are RMS over dimensions, their median over samples; with denoising, the exact end is denoised too.

``python -m benchmarks integer_labels`` writes ``results/integer_labels.json``; ``--network FOLDER`` adds the network
that somebody else trained, ``--only NAME …`` measures some problems and keeps the others, ``--check`` compares one with
the file.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks import few
from benchmarks._few_problems import F64, Problem, add_arguments, exact, foreign, shipped
from benchmarks._record import RESULTS, check_same, write
from benchmarks._tables import load
from benchmarks.work_precision import gaussian, ring
from scoresde.discrete import BetaChain

BUDGETS = (10, 20)
CHAINS = {"linear": BetaChain.linear(1000), "cosine": BetaChain.cosine(1000)}
PILOT = few.Case.pilots
QUICK = "ring, cosine"


def wider(folder: Path) -> Problem:
    """The network that somebody else trained, on the linear chain, whose levels go a little beyond those of its own
    process."""
    found = foreign(folder, PILOT + 8)
    process, chain = scoresde.VPSDE(t_min=5e-4, t_max=1.01), CHAINS["linear"].sde()
    score, sharp = (
        scoresde.ScoreModel(model.net, process, "noise", event_shape=(1, 28, 28)).on(chain)
        for model in (found.score, found.sharp)
    )
    return replace(found, sde=chain, score=score, sharp=sharp)


def problem_of(name: str) -> Problem:
    """A score on the process of a chain."""
    kind, _, chain = name.rpartition(", ")
    process = CHAINS[chain].sde()
    if kind in ("digits", "mnist"):
        return shipped(name, "report", kind, process, PILOT + (32 if kind == "digits" else 8))
    return exact(name, "report", {"ring": ring, "gaussian": gaussian}[kind](), process, PILOT + 128)


NAMES = [f"{kind}, {chain}" for kind in ("ring", "gaussian", "digits", "mnist") for chain in CHAINS]


def with_labels(problem: Problem, chain: BetaChain) -> scoresde.ScoreModel:
    """The network of integer labels."""

    def net(x: Tensor, level: Tensor, **context: Any) -> Tensor:
        return problem.score.noise(x, level.to(F64), **context)

    return scoresde.ScoreModel(
        net, chain.sde(), "noise", time_input="index", chain=chain, event_shape=tuple(problem.x.shape[1:])
    )


class Case(few.Case):
    """A problem, and the denoised ends of its paths."""

    def __init__(self, problem: Problem, chain: BetaChain, folder: Path | None) -> None:
        super().__init__(problem, folder)
        self.chain = chain
        self.problem = replace(problem, score=with_labels(problem, chain))
        self.states = self.ends
        with torch.no_grad():
            self.denoised = problem.sharp.data(self.ends, chain.sde().t_min, **problem.context)

    def error(self, denoise: bool = False, **options: Any) -> float:
        """The median error of a method."""
        self.ends = self.denoised if denoise else self.states
        return self.solve(denoise=denoise, **options)["median"]

    def errors(self) -> dict[str, dict[str, Any]]:
        """Of all methods, by the number of evaluations."""
        out = {}
        x, context = self.rows(slice(0, self.pilots))
        for budget in BUDGETS:
            tuned = scoresde.tune(self.problem.sde, self.problem.score, budget, x=x, context=context)
            levels: dict[str, Any] = {"grid": self.chain.grid(budget), "denoise": True}
            out[str(budget)] = {
                "ddim, chain.grid": self.error(method="ddim", **levels),
                "dpmpp_2m, chain.grid": self.error(method="dpmpp_2m", **levels),
                "dpmpp_2m": self.error(method="dpmpp_2m", steps=budget),
                "unipc2": self.error(method="unipc2", steps=budget),
                "auto": self.error(method="auto", evaluations=budget),
                "tune": self.error(method=tuned),
                "tuned": f"{tuned.ranking[0].method} on {tuned.ranking[0].grid}",
            }
            print(f"{self.problem.name:20} {budget:3}", out[str(budget)], flush=True)
        return out


def ratios(problems: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Geometric means over problems of the errors over that of ``tune``."""
    found: dict[str, dict[str, float]] = {}
    for budget in map(str, BUDGETS):
        rows = [problem[budget] for problem in problems.values()]
        for name in rows[0]:
            if name not in ("tune", "tuned"):
                logs = [math.log(row[name] / row["tune"]) for row in rows]
                found.setdefault(budget, {})[name] = math.exp(sum(logs) / len(logs))
    return found


def main(arguments: list[str]) -> None:
    """Measure, print, and write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks integer_labels", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--check", action="store_true", help=f"{QUICK} only, compared with the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    makers: dict[str, Callable[[], Problem]] = {name: partial(problem_of, name) for name in NAMES}
    if options.network:
        makers["foreign network, linear"] = partial(wider, options.network)
    file = RESULTS / "integer_labels.json"
    known = load("integer_labels")["results"]["problems"] if file.exists() else {}
    for name in [QUICK] if options.check else options.only or list(makers):
        got = Case(makers[name](), CHAINS[name.rpartition(", ")[2]], options.folder).errors()
        if options.check:
            check_same(name, got, known[name])
            return
        known[name] = got
        write("integer_labels", {"problems": known, "ratios": ratios(known)}, "python -m benchmarks integer_labels")
    print(ratios(known))
