r"""Adaptive methods of the reverse SDE: evaluations at equal error of the distribution, beside those of fixed steps.

Problems, from t_max to t_min on the VP and the VE process, with exact scores, all samples from one seed:

- gaussian: 32 dimensions, eigenvalues 1e-3 … 1 in a random basis; the error is the relative error of the variances
  along the eigenvectors, RMS, less what the finite number of samples adds.
- ring: eight Gaussians of standard deviation 0.1 on a circle, with unequal weights; digits: scikit-learn's 1,797 digits
  scaled to [-1, 1], each a Gaussian of standard deviation 0.05, in float32. The error is the sliced Wasserstein-1
  distance from the exact distribution, whose projections on 32 directions are known; *floor* is what as many samples of
  the exact distribution have.

Every method has its best setting, a grid of those below for fixed steps and a ratio of the tolerances for adaptive
ones; evaluations at a given error are interpolated in the logarithms. Evaluations of adaptive methods are means over
samples, the rejected ones counted.

``python -m benchmarks adaptive_sde`` writes ``results/adaptive_sde.json``; ``--check`` measures the Gaussian on the VP
process and checks the ratios.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from benchmarks.fitted_grids import Points
from benchmarks.work_precision import gaussian, ring
from scoresde import Estimate

F64 = torch.float64
SDES: dict[str, scoresde.AffineSDE] = {"VP": scoresde.VPSDE(), "VE": scoresde.VESDE()}
GRIDS = ("log_snr", "quadratic")  # "time" and "karras" are behind one of them on every problem
FIXED = {"euler_maruyama": (10, 20, 40, 80), "dpmpp_2m_sde": (5, 6, 8, 10, 13, 16, 20, 26, 34)}
# By ratio of atol to rtol, the values of rtol.
ADAPTIVE: dict[str, dict[float, tuple[float, ...]]] = {
    "ggf": {0.1: (1.0, 0.4, 0.2, 0.1)},
    "dpmpp_sde12": {
        0.1: (2.0, 1.2, 0.8, 0.5, 0.3, 0.2),
        0.3: (1.6, 1.2, 0.8, 0.5, 0.3, 0.2),
        1.0: (1.2, 0.8, 0.4, 0.25, 0.15, 0.1),
        3.0: (0.8, 0.6, 0.4, 0.2, 0.12, 0.07),
    },
}
LEVELS = {"gaussian": (0.1, 0.05, 0.03), "ring": (0.03, 0.02, 0.01), "digits": (0.03, 0.02)}
COUNTS = {"gaussian": 12_000, "ring": 60_000, "digits": 6_000}


class Rounded(Points):
    """`Points` in float32."""

    def estimate(self, x: Tensor, node: scoresde.Node) -> Estimate:
        """The exact estimate, rounded."""
        return super().estimate(x, scoresde.Node(*(v.to(x) if isinstance(v, Tensor) else v for v in node)))


class Problem:
    """A score, and the distance of samples from the distribution that it belongs to."""

    def __init__(self, name: str, sde: scoresde.AffineSDE, count: int) -> None:
        self.name, self.sde, self.count, self.dtype = name, sde, count, F64
        end = sde.node(sde.t_min)
        self.score: Any
        if name == "gaussian":
            target = gaussian()
            basis, values = target.spectrum.basis, target.spectrum.values.reshape(-1)
            assert basis is not None
            self.basis, self.variances = basis, end.alpha**2 * values + end.sigma**2
            self.score, self.floor = target.score(sde), 0.0
            return
        generator = torch.Generator().manual_seed(5)
        if name == "ring":
            mixture = ring()
            means, scale = mixture.means, 0.1
            weights = torch.tensor([1.0, 5, 2, 8, 3, 7, 4, 6], dtype=F64)
            self.score = mixture.score(sde)
        else:
            from sklearn.datasets import load_digits

            means, scale = torch.as_tensor(load_digits().data, dtype=F64) / 8 - 1, 0.05
            weights = torch.ones(len(means), dtype=F64)
            self.score, self.dtype = Rounded(means.float(), scale, sde), torch.float32
        means, weights, width = end.alpha * means, weights / weights.sum(), math.hypot(end.alpha * scale, end.sigma)
        directions = torch.randn(means.shape[1], 32, generator=generator, dtype=F64)
        self.directions = directions / directions.norm(dim=0)
        along = means @ self.directions
        self.line = torch.linspace(float(along.min()) - 6 * width, float(along.max()) + 6 * width, 600, dtype=F64)
        self.cdf = torch.stack(
            [torch.special.ndtr((self.line[:, None] - a) / width) @ weights for a in along.unbind(1)]
        )
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        exact = means[chosen] + width * torch.randn(count, means.shape[1], generator=generator, dtype=F64)
        self.floor = self.distance(exact)

    def distance(self, x: Tensor) -> float:
        """Of samples from the distribution at t_min."""
        x = x.to(F64)
        if self.name == "gaussian":
            along = (x - x.mean(0)) @ self.basis
            relative = along.square().sum(0) / (len(x) - 1) / self.variances - 1
            square = float(relative.square().mean() - 2 / (len(x) - 1))
            return math.sqrt(max(square, 1e-8))
        along = (x @ self.directions).mT.contiguous().sort(1).values
        seen = torch.searchsorted(along, self.line.expand(len(along), -1).contiguous(), right=True) / len(x)
        return float((seen.to(F64) - self.cdf).abs().mean() * (self.line[-1] - self.line[0]))

    def run(self, **options: Any) -> tuple[float, float]:
        """Evaluations and the error of a solve."""
        shape = (self.count, *self.score.event_shape)
        got = scoresde.solve(self.sde, self.score, shape=shape, seed=1, dtype=self.dtype, **options)
        return float(got.nfe.to(F64).mean()), self.distance(got.x)


def curves(problem: Problem, method: str, thorough: bool) -> dict[str, list[tuple[float, float]]]:
    """Evaluations and errors of a method, by its setting."""
    if method in FIXED:
        grids = GRIDS if thorough else GRIDS[:1]
        counts = FIXED[method] + ((160,) if method == "euler_maruyama" and problem.name == "gaussian" else ())
        return {g: [problem.run(method=method, grid=g, steps=n) for n in counts] for g in grids}
    ratios = list(ADAPTIVE[method].items())[: None if thorough else 1]
    return {
        f"atol = {ratio:g} rtol": [problem.run(method=method, rtol=v, atol=ratio * v) for v in values]
        for ratio, values in ratios
    }


def needed(points: list[tuple[float, float]], level: float) -> float:
    """Evaluations from which on the error is no larger, between the measured ones along lines in the logarithms;
    infinity if there are none. An error that is small by chance, with larger ones after it, does not count."""
    points = sorted(points, reverse=True)
    if points[0][1] > level:
        return math.inf
    for (count, error), (fewer, larger) in itertools.pairwise(points):
        if larger > level:
            share = math.log(larger / level) / math.log(larger / error)
            return math.exp((1 - share) * math.log(fewer) + share * math.log(count))
    return points[-1][0]


def measure(problem: Problem, levels: tuple[float, ...], thorough: bool = True) -> dict[str, Any]:
    """All methods on a problem: their curves, and evaluations with the best setting at every level."""
    every = {method: curves(problem, method, thorough) for method in (*FIXED, *ADAPTIVE)}
    return {"samples": problem.count, "floor": problem.floor, "curves": every, "at": table(every, levels)}


def table(every: dict[str, Any], levels: tuple[float, ...]) -> dict[str, Any]:
    """Evaluations at every level, with the best setting."""
    at: dict[str, Any] = {}
    for level in levels:
        row: dict[str, Any] = {}
        for method, by_setting in every.items():
            count, setting = min((needed(points, level), setting) for setting, points in by_setting.items())
            row[method] = {"evaluations": count, "setting": setting} if math.isfinite(count) else None
        at[f"{level:g}"] = row
    return at


def ratio(row: dict[str, Any], method: str, other: str) -> float | None:
    """Evaluations of a method over those of another."""
    if row[method] is None or row[other] is None:
        return None
    return float(row[method]["evaluations"] / row[other]["evaluations"])


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks adaptive_sde", description=__doc__)
    parser.add_argument("--check", action="store_true", help="the Gaussian on VP, checked for the gain")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--problems", default=",".join(LEVELS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in ("gaussian",) if options.check else options.problems.split(","):
        for label, sde in list(SDES.items())[: 1 if options.check else None]:
            began = time.perf_counter()
            problem = Problem(name, sde, COUNTS[name] // (2 if options.check else 1))
            found = measure(problem, LEVELS[name], thorough=not options.check)
            results.setdefault(name, {})[label] = found
            print(f"{name} {label}: {time.perf_counter() - began:.0f} s, floor {problem.floor:.2g}", flush=True)
            for method, by_setting in found["curves"].items():
                for setting, points in by_setting.items():
                    print(f"    {method:15}{setting:18}", "  ".join(f"{n:.1f}: {e:.2g}" for n, e in points))
            for level, row in found["at"].items():
                print(f"    at {level}:", {m: v and round(v["evaluations"], 1) for m, v in row.items()}, flush=True)
    if options.check:
        row = results["gaussian"]["VP"]["at"]["0.05"]
        for other, most in (("dpmpp_2m_sde", 0.8), ("euler_maruyama", 0.5)):
            got = ratio(row, "dpmpp_sde12", other)
            if row["dpmpp_sde12"] is None or (got is not None and got > most):
                sys.exit(f"dpmpp_sde12 takes {got} of the evaluations of {other}, more than {most}")
    elif not options.no_write:
        write("adaptive_sde", results, "python -m benchmarks adaptive_sde")
