r"""Weights of paths to a known target, and what recording a path costs.

**Normalising constants.** The targets are mixtures of four Gaussians in 2 and in 16 dimensions, tilted by
:math:`e^{a\cdot x}`: their normalising constants are known. Samples come from the mixture's exact score by ancestral
steps with the large variance. `RUNS` independent runs give each an interval of 95 %. Shown are the share of intervals
that hold the exact value, with the z of a binomial test, and the mean effective share of the samples.

**Cost.** Processor time of a solve with ``path_log_prob`` over that of one without, with the digits network at batch
256, on one thread; medians of `REPEATS`, interleaved.

``python -m benchmarks path_densities`` writes ``results/path_densities.json``; ``--check`` makes `QUICK` runs in 2
dimensions and checks the bars.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from scoresde import paths
from scoresde.core.errors import ScoreSDEWarning

F64 = torch.float64
RUNS, QUICK, REPEATS, TOGETHER = 2000, 200, 45, 40
SDE = scoresde.VPSDE()
SHARES = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
# dimensions: samples per run, steps
PROBLEMS: dict[str, dict[str, int]] = {
    "2 dimensions": {"size": 2, "samples": 500, "steps": 100},
    "16 dimensions": {"size": 16, "samples": 500, "steps": 250},
}


def problem(size: int) -> tuple[scoresde.targets.GaussianMixture, Tensor]:
    """The mixture and the tilt."""
    generator = torch.Generator().manual_seed(0)
    spread = 1.2 if size == 2 else 0.6
    means = spread * torch.randn(4, size, generator=generator, dtype=F64)
    tilt = torch.full((size,), 0.25 / math.sqrt(size), dtype=F64)
    return scoresde.targets.GaussianMixture(SHARES, means, scales=0.5), tilt


def exact(mixture: scoresde.targets.GaussianMixture, tilt: Tensor) -> float:
    r""":math:`\ln\sum_k w_k e^{a\cdot\alpha m_k + \frac12|a|^2(\alpha^2s^2+\sigma^2)}` at the end of the solve."""
    node = SDE.node(SDE.t_min)
    variance = (node.alpha * 0.5) ** 2 + node.sigma**2
    tilted = SHARES.log() + node.alpha * mixture.means @ tilt
    return float(torch.logsumexp(tilted, 0) + 0.5 * variance * tilt.square().sum())


def coverage(size: int, samples: int, steps: int, runs: int, seed: int = 0) -> dict[str, float]:
    """Of the intervals of independent runs, several of which are solved together."""
    mixture, tilt = problem(size)
    score_fn, truth, held, shares = mixture.score(SDE), exact(mixture, tilt), 0, 0.0
    for first in range(0, runs, TOGETHER):
        count = min(TOGETHER, runs - first)
        path = scoresde.solve(
            SDE,
            score_fn,
            method="ancestral",
            variance="large",
            steps=steps,
            shape=(count * samples, size),
            seed=seed + first,
            dtype=F64,
            path_log_prob=True,
        ).path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScoreSDEWarning)
            found = paths.weights(path, lambda x: mixture.log_prob(x, SDE, SDE.t_min) + x @ tilt, score_fn)
        for log_weights, x in zip(found.log_weights.split(samples), found.x.split(samples), strict=True):
            run = paths.Weights(log_weights, x)
            interval = run.log_normaliser(0.95)
            held += interval.low < truth < interval.high
            shares += run.ess / samples
    share = held / runs
    return {
        "share": share,
        "z": (share - 0.95) / math.sqrt(0.95 * 0.05 / runs),
        "ess share": shares / runs,
        "runs": runs,
        "samples": samples,
        "steps": steps,
    }


def spent(score_fn: Any, wanted: bool | str, seed: int) -> float:
    """Processor time of a solve of 10 steps at batch 256."""
    begun = time.process_time()
    scoresde.solve(SDE, score_fn, method="ancestral", steps=10, shape=(256, 1, 8, 8), seed=seed, path_log_prob=wanted)
    return time.process_time() - begun


def cost() -> dict[str, float]:
    """Processor time of recorded solves over that of plain ones: what recording adds where the network costs nothing,
    which varies less, over a plain solve with the digits network."""
    wanted: dict[str, bool | str] = {"False": False, "sums": "sums", "True": True}
    times: dict[str, list[float]] = {name: [] for name in wanted}
    for turn in range(REPEATS):
        for name, value in wanted.items():
            times[name].append(spent(lambda x, t: -x, value, turn))
    model = scoresde.load("digits").score(SDE)
    whole = statistics.median(spent(model, False, turn) for turn in range(5))
    plain = statistics.median(times["False"])
    return {name: 1 + (statistics.median(times[name]) - plain) / whole for name in ("sums", "True")}


def check(results: dict[str, Any]) -> list[str]:
    """The bars that are missed: coverage at a family-wise level of 1e-3 (two tests, |z| at most 3.5), the effective
    share, and the cost."""
    missed = []
    for name, row in results["coverage"].items():
        if not (abs(row["z"]) <= 3.5 and row["ess share"] >= 0.7):
            missed.append(f"{name}: {row}")
    missed += [f"cost {name}: {value}" for name, value in results.get("cost", {}).items() if value > 1.05]
    return missed


def main(arguments: list[str]) -> None:
    """Run, print, and write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks path_densities", description=__doc__)
    parser.add_argument("--check", action="store_true", help="few runs in 2 dimensions; nothing is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"coverage": {}}
    for name, given in PROBLEMS.items():
        if options.check and given["size"] > 2:
            continue
        row = coverage(**given, runs=QUICK if options.check else RUNS)
        results["coverage"][name] = row
        print(f"{name:16}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    if not options.check:
        results["cost"] = cost()
        print(f"cost            {results['cost']}")
        write("path_densities", results, "python -m benchmarks path_densities")
    if missed := check(results):
        sys.exit("\n".join(missed))
