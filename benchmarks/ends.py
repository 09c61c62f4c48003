r"""Grids where the log-SNR is infinite at an end: the errors of each grid, and what it leaves of the orders.

The problem is the one-dimensional mixture of `benchmarks.orders` with its exact quantile map, from t_max to t_min.
There sigma is 0, and at t_max alpha is, where that is stated. Errors are means over six states. *exponent* is p in
:math:`\sigma \sim (t-t_{min})^p`, measured beside t_min. The grid ``tangent`` was found on the first three
processes; the others took no part in it, and showed that ``quadratic``, as good on VP, is not what others need.

``python -m benchmarks ends`` writes ``results/ends.json``; ``--check`` measures a part and checks it against that file.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from typing import Any

import torch

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from benchmarks.orders import problem
from scoresde import testing

F64 = torch.float64
CHOSEN_ON: dict[str, scoresde.AffineSDE] = {
    "VP": scoresde.VPSDE(t_min=0.0),
    "sub-VP": scoresde.SubVPSDE(t_min=0.0),
    "flow, both ends": scoresde.FlowSDE(t_min=0.0, t_max=1.0),
}


def power(p: float) -> scoresde.GaussianSDE:
    """A variance preserving process with sigma = t^p."""
    return scoresde.GaussianSDE(lambda t: (1 - t ** (2 * p)).sqrt(), lambda t: t**p, 0.0, 0.99)


def gamma(slope: float, line: float) -> scoresde.VDMSDE:
    """gamma = slope ln t + line t, so that sigma goes as t^(slope / 2)."""
    return scoresde.VDMSDE(lambda t: slope * t.log() + line * t)


OTHERS: dict[str, scoresde.AffineSDE] = {
    "cosine": scoresde.CosineVPSDE(t_min=0.0),
    "cosine, both ends": scoresde.CosineVPSDE(t_min=0.0, t_max=1.0),
    "sigmoid": scoresde.SigmoidVPSDE(t_min=0.0),
    "EDM": scoresde.EDMSDE(t_min=0.0),
    "sigma = t^1/4": power(0.25),
    "sigma = t^1/2": power(0.5),
    "sigma = t": power(1.0),
    "sigma = t^2": power(2.0),
    "gamma = ln t + 6t": gamma(1.0, 6.0),
    "gamma = 2 ln t + 6t": gamma(2.0, 6.0),
    "gamma = 4 ln t + 6t": gamma(4.0, 6.0),
    "gamma = 2 ln(t/(1-t)), both ends": scoresde.VDMSDE(lambda t: 2 * torch.logit(t)),
}
METHODS = ("midpoint", "ddim", "dpm_2m", "dpm_3m", "dpm_3s", "unipc3")
GRIDS = (None, "time", "quadratic", "cosine", "tangent")
STEPS = (10, 20, 50, 100, 200)
QUICK = {"VP": ("dpm_3m",), "sigma = t": ("unipc3",)}


def exponent(sde: scoresde.AffineSDE) -> float:
    """Of sigma beside t_min."""
    h = 1e-9 * (sde.t_max - sde.t_min)
    return float(torch.log2(sde.sigma(sde.t_min + 2 * h) / sde.sigma(sde.t_min + h)))


def measure(sde: scoresde.AffineSDE, methods: tuple[str, ...]) -> dict[str, Any]:
    """Errors by method, grid and steps."""
    target, x = problem()
    x = x * sde.prior.std
    exact = testing.mixture_flow_map(target, x, sde, sde.t_max, sde.t_min)
    rows: dict[str, Any] = {}
    for method, grid in itertools.product(methods, GRIDS):
        errors = {}
        try:
            for steps in STEPS:
                end = scoresde.solve(sde, target.score(sde), x, method=method, steps=steps, grid=grid).x
                errors[str(steps)] = float((end - exact).abs().mean())
        except scoresde.InvalidArgumentError:  # a method without the limit of this process
            continue
        slope = math.log2(errors["100"] / errors["200"])
        rows.setdefault(method, {})[grid or "default"] = {"errors": errors, "slope": slope}
    return rows


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ends", description=__doc__)
    parser.add_argument("--check", action="store_true", help="two processes, checked against the file")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, sde in (CHOSEN_ON | OTHERS).items():
        if options.check and name not in QUICK:
            continue
        rows = measure(sde, QUICK[name] if options.check else METHODS)
        results[name] = {"took part": name in CHOSEN_ON, "exponent": exponent(sde), "methods": rows}
        for method, by_grid in rows.items():
            for grid, row in by_grid.items():
                errors = " ".join(f"{e:.1e}" for e in row["errors"].values())
                print(f"{name:34}{method:10}{grid:10}{errors}  slope {row['slope']:.2f}", flush=True)
    if options.check:
        known = load("ends")["results"]
        wrong = [
            f"{name}, {method}, {grid}, {steps} steps: {error:.3g}, in the file {before:.3g}"
            for name, process in results.items()
            for method, by_grid in process["methods"].items()
            for grid, row in by_grid.items()
            for steps, error in row["errors"].items()
            if not math.isclose(
                error, before := known[name]["methods"][method][grid]["errors"][steps], rel_tol=0.01, abs_tol=1e-10
            )
        ]
        sys.exit("\n".join(wrong) or 0)
    if not options.no_write:
        write("ends", results, "python -m benchmarks ends")
