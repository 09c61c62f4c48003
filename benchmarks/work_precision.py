r"""Every method: what it declares, the orders that it reaches, and its error for a number of evaluations.

Problems, all on the VP process from t = 1 to 1e-3 with steps even in the log-SNR:

- ring: eight Gaussians of standard deviation 0.1 on a circle, weights 1, 5, 2, 8, 3, 7, 4, 6; 256 states from N(0, I);
  the truth is the adaptive pair with a tolerance of 1e-11. RMS and median distance of the end points (RMS over
  dimensions).
- gaussian: 32 dimensions, eigenvalues 1e-3 … 1 in a random basis; deterministic methods: RMS distance from the exact
  flow; stochastic ones: RMS over the eigenvectors of the relative error of the variance, exact by probing.

Orders are the last slopes on one-dimensional problems: a mixture with the exact quantile map (t: 1 -> 0.01, 160 to 320
steps), and for stochastic methods the variance on N(0, 0.3) (128 to 256 steps).

``python -m benchmarks work_precision`` writes ``results/work_precision.json`` and the tables of the README; ``--check``
measures a part and checks it against that file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import RESULTS, write
from benchmarks.orders import problem
from scoresde import Method, testing

F64 = torch.float64
BUDGETS = (5, 10, 20, 50, 100)
SDE = scoresde.VPSDE()
# The best of all peers at 5, 10, 20 and 50 evaluations (DPM-Solver++ 2M, UniPC, EDM, azula, … run by their own code on
# these problems), and of stochastic ones at 20, 50 and 100.
PEERS = {
    "gaussian": {"5": 2.9e-2, "10": 1.3e-2, "20": 3.2e-4, "50": 2.8e-5},
    "ring": {"5": 0.12, "10": 0.058, "20": 0.019, "50": 6.5e-4},
    "ring, median": {"5": 0.07, "10": 0.015, "20": 1.1e-3, "50": 2.7e-5},
    "gaussian, variance": {"20": 0.052, "50": 0.013, "100": 0.015},
}


def ring() -> scoresde.targets.GaussianMixture:
    """Eight modes on a circle."""
    angle = torch.arange(8, dtype=F64) * (math.pi / 4)
    means = torch.stack([angle.cos(), angle.sin()], dim=1)
    return scoresde.targets.GaussianMixture(torch.tensor([1.0, 5, 2, 8, 3, 7, 4, 6]), means, scales=0.1)


def gaussian() -> scoresde.targets.Gaussian:
    """32 dimensions, a condition number of 1000."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=generator, dtype=F64)).Q
    values = torch.logspace(-3, 0, 32, dtype=F64)
    return scoresde.targets.Gaussian(0.5 * torch.randn(32, generator=generator, dtype=F64), (basis * values) @ basis.mT)


def steps_for(method: Method, budget: int) -> int:
    """The largest number of steps with no more than so many evaluations; 0 if there is none."""
    detour = 6 if method.name == "restart" else 0
    return max(0, (budget - method.solver().extra_evaluations - detour) // method.evaluations)


def distances(got: Tensor, exact: Tensor) -> Tensor:
    """RMS over dimensions, a sample."""
    return (got - exact).flatten(1).square().mean(1).sqrt()


class Bench:
    """The problems with their answers."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ring, self.gaussian = ring(), gaussian()
        self.x_ring = torch.randn(256, 2, generator=generator, dtype=F64)
        self.x_gaussian = torch.randn(64, 32, generator=generator, dtype=F64)
        score = self.ring.score(SDE)
        self.end_ring = scoresde.solve(SDE, score, self.x_ring, method="rk45", rtol=1e-11, atol=1e-11).x
        self.end_gaussian = self.gaussian.flow_map(self.x_gaussian, SDE, SDE.t_max, SDE.t_min)
        self.mixture, self.starts = problem()
        self.exact = testing.mixture_flow_map(self.mixture, self.starts, SDE, 1.0, 0.01)

    def deterministic(self, method: Method) -> dict[str, dict[str, float]]:
        """Errors by problem and budget."""
        out: dict[str, dict[str, float]] = {"ring": {}, "ring, median": {}, "gaussian": {}}
        for budget in BUDGETS:
            steps = steps_for(method, budget)
            if not steps:
                continue
            at = distances(self._end(self.ring, self.x_ring, method, steps), self.end_ring)
            out["ring"][str(budget)] = float(at.square().mean().sqrt())
            out["ring, median"][str(budget)] = float(at.median())
            at = distances(self._end(self.gaussian, self.x_gaussian, method, steps), self.end_gaussian)
            out["gaussian"][str(budget)] = float(at.square().mean().sqrt())
        return out

    def _end(self, target: Any, x: Tensor, method: Method, steps: int) -> Tensor:
        return scoresde.solve(SDE, target.score(SDE), x, method=method.name, steps=steps, grid="log_snr").x

    def stochastic(self, method: Method) -> dict[str, dict[str, float]]:
        """The relative error of the variances."""
        target, errors = self.gaussian, {}
        for budget in BUDGETS:
            steps = steps_for(method, budget)
            if not steps:
                continue

            def run(shape: tuple[int, ...], draw: testing.Draw, steps: int = steps) -> Tensor:
                options = {"steps": steps, "grid": "log_snr", "shape": shape, "noise": draw, "dtype": F64}
                return scoresde.solve(SDE, target.score(SDE), method=method.name, **options).x

            basis = target.spectrum.basis
            assert basis is not None
            _, covariance = testing.affine_law(run, (32,), basis=basis)
            alpha, sigma = float(SDE.alpha(SDE.t_min)), float(SDE.sigma(SDE.t_min))
            exact = alpha**2 * target.spectrum.values.reshape(-1) + sigma**2
            relative = (basis.mT @ covariance @ basis).diagonal() / exact - 1
            errors[str(budget)] = float(relative.square().mean().sqrt())
        return {"gaussian, variance": errors}

    def ode_order(self, method: Method) -> float:
        """The last slope on the mixture."""

        def error(steps: int) -> float:
            grid = "time" if method.name in IN_TIME else "log_snr"
            options = {"method": method.name, "steps": steps, "grid": grid, "t_start": 1.0, "t_end": 0.01}
            got = scoresde.solve(SDE, self.mixture.score(SDE), self.starts, **options)
            return float((got.x - self.exact).abs().max())

        return testing.converge(error, (160, 320)).order()

    def weak_order(self, method: Method) -> float:
        """The last slope of the variance on N(0, 0.3)."""
        target = scoresde.targets.Gaussian(torch.zeros(1, dtype=F64), 0.3)
        options = {"s_churn": 5.0} if method.name == "edm" else {}

        grid = "time" if method.name in IN_TIME else "log_snr"

        def error(steps: int) -> float:
            times = scoresde.grids.GRIDS[grid](SDE, 1.0, 0.01, steps)

            def run(shape: tuple[int, ...], draw: testing.Draw) -> Tensor:
                x = testing.gaussian_state(target, SDE, 1.0, draw(0, torch.empty(shape, dtype=F64)))
                later = lambda k, like: draw(k + 1, like)  # noqa: E731
                score = target.score(SDE)
                return scoresde.solve(SDE, score, x, method=method.name, grid=times, noise=later, **options).x

            _, covariance = testing.affine_law(run, (1,))
            exact = float(SDE.alpha(0.01)) ** 2 * 0.3 + float(SDE.sigma(0.01)) ** 2
            return abs(float(covariance) / exact - 1)

        return testing.converge(error, (128, 256)).order()


def measure(bench: Bench, method: Method) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {
        "kind": method.kind,
        "processes": "affine" if method.solver().affine else "all",
        "evaluations": method.evaluations,
        "declared": {"ode": method.ode_order, "weak": method.weak_order, "strong": method.strong_order},
        "reference": method.reference,
    }
    if method.kind == "ode":
        row["measured"] = bench.ode_order(method)
        row["errors"] = bench.deterministic(method)
    else:
        row["measured"] = bench.weak_order(method) if method.weak_order else None
        row["errors"] = bench.stochastic(method)
    return row


# Methods that step in time; their orders are measured on steps even in time.
IN_TIME = ("euler", "heun", "midpoint", "rk4", "euler_maruyama", "reverse_diffusion", "heun_sde", "sra1", "shark")
QUICK = ("ddim", "dpmpp_2m", "unipc3", "rho_rk4", "ancestral", "dpmpp_2m_sde", "sra1", "edm")


def check(rows: dict[str, Any]) -> list[str]:
    """What differs from the file by more than 1 %."""
    known = json.loads((RESULTS / "work_precision.json").read_text())["results"]["methods"]
    wrong = []
    for name, row in rows.items():
        for problem_name, errors in row["errors"].items():
            for budget, error in errors.items():
                before = known[name]["errors"][problem_name][budget]
                if not math.isclose(error, before, rel_tol=0.01, abs_tol=1e-10):
                    wrong.append(f"{name}, {problem_name}, {budget} evaluations: {error:.3g}, in the file {before:.3g}")
    missing = {m.name for m in METHODS} - set(known)
    return wrong + [f"{name}: not in the file" for name in sorted(missing)]


# Other libraries' methods with fixed steps are those of this package, or nearly.
METHODS = [m for m in scoresde.methods() if m.name == m.solver.name and not m.adaptive and m.kind != "backend"]


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks work_precision", description=__doc__)
    parser.add_argument("--check", action="store_true", help="a part of the methods, checked against the file")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bench = Bench()
    rows = {}
    for method in METHODS:
        if options.check and method.name not in QUICK:
            continue
        rows[method.name] = row = measure(bench, method)
        order = "" if row["measured"] is None else f"{row['measured']:.2f}"
        print(f"{method.name:20}{row['evaluations']:3} {order:>6}", end="")
        for problem_name, errors in row["errors"].items():
            print(f"  {problem_name}: " + " ".join(f"{e:.1e}" for e in errors.values()), end="")
        print(flush=True)
    if options.check:
        wrong = check(rows)
        print("\n".join(wrong) or "as in the file")
        if wrong:
            sys.exit(1)
    elif not options.no_write:
        write("work_precision", {"methods": rows, "peers": PEERS}, "python -m benchmarks work_precision")
