"""Orders of convergence of the fixed-step probability-flow methods, against the exact quantile map of a 1-d mixture."""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch

import scoresde
from benchmarks._record import write
from scoresde.testing import mixture_flow_map

STEPS = (20, 80, 320)
START, END = 1.0, 0.01


def problem() -> tuple[scoresde.targets.GaussianMixture, torch.Tensor]:
    """Three Gaussians, and six initial states."""
    target = scoresde.targets.GaussianMixture(
        torch.tensor([0.3, 0.5, 0.2]),
        torch.tensor([[-1.2], [0.4], [1.5]], dtype=torch.float64),
        scales=torch.tensor([0.3, 0.2, 0.4]),
    )
    x = torch.tensor([-1.7, -0.9, -0.2, 0.35, 0.8, 1.6], dtype=torch.float64)
    return target, x[:, None]


def main(arguments: list[str]) -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks orders", description=__doc__)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)

    sde = scoresde.VPSDE()
    target, x = problem()
    exact = mixture_flow_map(target, x, sde, START, END)
    results: dict[str, Any] = {}
    print(f"{'method':12}{'grid':>9}" + "".join(f"{f'N={n}':>11}" for n in STEPS) + f"{'slope':>8}{'order':>7}")
    for method in scoresde.methods():
        if method.kind != "ode" or method.adaptive:
            continue
        for grid in ("log_snr", "time"):
            errors = [
                float(
                    (
                        scoresde.solve(
                            sde, target.score(sde), x, method=method.name, steps=n, grid=grid, t_start=START, t_end=END
                        ).x
                        - exact
                    )
                    .abs()
                    .max()
                )
                for n in STEPS
            ]
            slope = math.log(errors[-2] / errors[-1]) / math.log(STEPS[-1] / STEPS[-2])
            results.setdefault(method.name, {})[grid] = {
                "errors": dict(zip(map(str, STEPS), errors, strict=True)),
                "slope": slope,
                "order": method.ode_order,
            }
            print(
                f"{method.name:12}{grid:>9}"
                + "".join(f"{e:>11.1e}" for e in errors)
                + f"{slope:>8.2f}{method.ode_order!s:>7}"
            )
    if not options.no_write:
        write("orders", results, " ".join(["python -m benchmarks orders", *arguments]))
