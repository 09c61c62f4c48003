r"""How often the intervals of the variational bound hold what they estimate.

With an exact score the mean of the diffusion term over its draws is known,

.. math:: KL(q(z_{t_{min}}|x)\,\|\,p_{t_{min}}) - KL(q(z_{t_{max}}|x)\,\|\,p_{t_{max}}),

a mean of log-densities at the two ends (by 1024 antithetic draws each, whose error is a hundredth of the bound's). For
2000 data of each problem, one bound each: the share of 95 % intervals, ``bound.interval()``, that hold it; the share of
``total ± 1.96 std_error``; the share of bounds that are more than three standard errors too low; and, over the samples,
the RMS error, the RMS of the standard errors, and the RMS error of as many independent draws.

``python -m benchmarks bound_coverage`` writes ``results/bound_coverage.json``; ``--check`` measures one problem and
checks it against that file.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from typing import Any

import torch
from scipy.stats import chi2
from torch import Tensor

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from scoresde import targets, variational_bound

F64 = torch.float64
PROCESSES: dict[str, scoresde.AffineSDE] = {"VP": scoresde.VPSDE(), "flow": scoresde.FlowSDE()}
CLOCKS = ("log_snr", "time")
DRAWS = (32, 256)
DATA = 2000
QUICK = "student, 5"


def problems() -> dict[str, Any]:
    """Gaussians, mixtures, and a mixture of scales that stands for Student's t with 4 degrees of freedom."""
    generator = torch.Generator().manual_seed(5)
    three = (torch.randn(3, size, generator=generator, dtype=F64) for size in (2, 17))
    weights, scales = torch.tensor([0.3, 0.5, 0.2]), torch.tensor([0.3, 0.2, 0.4])
    tails = 0.3 * torch.from_numpy(4 / chi2.ppf((torch.arange(12) + 0.5).numpy() / 12, 4)).sqrt()
    return {
        "gaussian, 1": targets.Gaussian(torch.zeros(1, dtype=F64), 0.3),
        "gaussian, 16": targets.Gaussian(torch.zeros(16, dtype=F64), torch.logspace(-3, 0, 16, dtype=F64)),
        **{f"mixture, {m.shape[1]}": targets.GaussianMixture(weights, m, scales=scales) for m in three},
        QUICK: targets.GaussianMixture(torch.ones(12), torch.zeros(12, 5, dtype=F64), scales=tails),
    }


def divergence(target: Any, sde: scoresde.AffineSDE, x: Tensor, t: float, rounds: int = 8) -> Tensor:
    """KL(q(z_t|x) || p_t), nats, ``(batch,)``."""
    generator = torch.Generator().manual_seed(99)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    total = torch.zeros(len(x), dtype=F64)
    for _ in range(rounds):
        z = torch.randn(64, *x.shape, generator=generator, dtype=F64)
        for noise in (z, -z):
            log_prob = target.log_prob((alpha * x + sigma * noise).flatten(0, 1), sde, t)
            total -= log_prob.reshape(64, len(x)).mean(0)
    return total / (2 * rounds) - x.shape[1] * (0.5 * math.log(2 * math.pi * math.e) + math.log(sigma))


def measure(target: Any, sde: scoresde.AffineSDE, x: Tensor, exact: Tensor, clock: str, draws: int) -> dict[str, float]:
    """The figures of one row."""
    options: dict[str, Any] = {"draws": draws, "clock": clock, "seed": 7}
    bound = variational_bound(sde, target.score(sde), x, **options)
    low, high = (end - bound.total + bound.diffusion.value for end in bound.interval())
    error, told = bound.diffusion.value - exact, bound.diffusion.std_error
    alone = variational_bound(sde, target.score(sde), x, times="independent", **options).diffusion.value - exact
    rms = {"error": error, "standard error": told, "error of independent draws": alone}
    return {
        "interval holds": float(((low <= exact) & (exact <= high)).to(F64).mean()),
        "1.96 standard errors hold": float((error.abs() <= 1.96 * told).to(F64).mean()),
        "three too low": float((error < -3 * told).to(F64).mean()),
        "median half-width": float((0.5 * (high - low)).median()),
        "mean error over its own": float(error.mean() / error.std() * len(x) ** 0.5),
        **{f"rms {name}": float(value.square().mean().sqrt()) for name, value in rms.items()},
    }


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bound_coverage", description=__doc__)
    parser.add_argument("--check", action="store_true", help="one problem with 32 draws, checked against the file")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for (name, target), (process, sde) in itertools.product(problems().items(), PROCESSES.items()):
        if options.check and (name, process) != (QUICK, "VP"):
            continue
        x = target.sample(DATA, generator=torch.Generator().manual_seed(3)).to(F64)
        exact = divergence(target, sde, x, sde.t_min) - divergence(target, sde, x, sde.t_max)
        for clock, draws in itertools.product(CLOCKS, DRAWS[: 1 if options.check else None]):
            row = measure(target, sde, x, exact, clock, draws)
            results.setdefault(name, {}).setdefault(process, {}).setdefault(clock, {})[str(draws)] = row
            print(f"{name:14}{process:6}{clock:9}{draws:5}  " + "  ".join(f"{v:.3g}" for v in row.values()), flush=True)
    if options.check:
        known = load("bound_coverage")["results"][QUICK]["VP"]
        wrong = [
            f"{clock}, {key}: {value:.3g}, in the file {known[clock]['32'][key]:.3g}"
            for clock, by_draws in results[QUICK]["VP"].items()
            for key, value in by_draws["32"].items()
            if not math.isclose(value, known[clock]["32"][key], rel_tol=0.01, abs_tol=0.003)
        ]
        sys.exit("\n".join(wrong) or 0)
    if not options.no_write:
        write("bound_coverage", {"data": DATA, **results}, "python -m benchmarks bound_coverage")
