r"""What guidance with a scale above 1 samples: distributions of one dimension by quadrature, no samples.

Two components :math:`N(\pm1, 0.8^2)` of equal weight, the exact classifier of the right one, w = 3, on the VP process:
mean and variance of the tilted distribution :math:`p(x)\,p(y|x)^3`; of the guided probability flow, of the guided
reverse SDE, of Langevin moves on the guided score (backward recursions of `scoresde.testing.kolmogorov`, that of the
reverse SDE extrapolated from two numbers of steps); and of the chain that `scoresde.sample_tilted` takes its particles
from, times its last twist, which is what many particles have.

``python -m benchmarks tilt`` writes ``results/tilt.json``; ``--check`` takes fewer levels, and checks that the tilted
distribution is reached by the last two and missed by the others.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from scoresde import guidance
from scoresde.testing.kolmogorov import expectations

F64 = torch.float64
SCALE = 3.0
SDE = scoresde.VPSDE()
PAIR = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=0.8)


def right(x: Tensor, t: Any) -> Tensor:
    """The classifier of the right component."""
    return PAIR.log_responsibilities(x, SDE, t)[:, 1]


GUIDED = guidance.classifier_guidance(PAIR.score(SDE), right, SCALE)


def powers(x: np.ndarray) -> np.ndarray:
    """1, x and its square."""
    return np.stack([np.ones_like(x), x, x * x], axis=1)


def twisted(x: np.ndarray) -> np.ndarray:
    """The same times the last twist."""
    y = torch.as_tensor(x)[:, None]
    return (SCALE * right(y, torch.full((len(y),), SDE.t_min, dtype=F64))).exp().numpy()[:, None] * powers(x)


def moments(sums: Any) -> list[float]:
    """Mean and variance of the integrals of `powers`."""
    whole, first, second = (float(v) for v in sums)
    return [first / whole, second / whole - (first / whole) ** 2]


def of_method(method: str, steps: int, **options: Any) -> list[float]:
    """Of a method's end, by the backward recursion."""
    times = scoresde.grids.log_snr(SDE, SDE.t_max, SDE.t_min, steps)
    return moments(expectations(PAIR, SDE, times, method, **{"function": powers, **options}))


def measure(quick: bool) -> dict[str, Any]:
    """Mean and variance of every distribution."""
    x = torch.linspace(-9, 9, 40_001, dtype=F64)[:, None]
    weight = (PAIR.log_prob(x) + SCALE * PAIR.log_responsibilities(x)[:, 1]).softmax(0)
    u = (torch.arange(4000, dtype=F64) + 0.5) / 4000
    ends = scoresde.solve(SDE, GUIDED, torch.special.ndtri(u)[:, None], method="dop853", rtol=1e-8, atol=1e-8).x
    guided: dict[str, Any] = {"score_fn": GUIDED, "points": 201, "nodes": 10}
    few, many = (of_method("ancestral", n, **guided) for n in ((80, 160) if quick else (320, 640)))
    levels, steps = ((40, 100), (20, 40)) if quick else ((50, 150, 450, 1000), (20, 40, 80, 100))
    return {
        "tilted": moments(weight @ torch.cat([torch.ones_like(x), x, x * x], dim=1)),
        "flow": moments([1.0, ends.mean(), ends.square().mean()]),
        "reverse SDE": [2 * b - a for a, b in zip(few, many, strict=True)],
        "langevin": {str(n): of_method("langevin", n, snr=0.5, **guided) for n in levels},
        "particles": {str(n): of_method("ancestral", n, variance="large", function=twisted) for n in steps},
        "particles, data_std=0": {"40": of_method("ancestral", 40, variance="small", function=twisted)},
    }


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tilt", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fewer levels, checked; nothing is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = measure(options.check)
    for name, value in results.items():
        print(name, value, flush=True)
    if not options.check:
        write("tilt", results, "python -m benchmarks tilt")
        return
    mean = results["tilted"][0]
    for name in ("flow", "reverse SDE"):
        if abs(results[name][0] - mean) < 0.2:
            sys.exit(f"{name} has the mean of the tilted distribution, and should not.")
    for name in ("langevin", "particles"):
        gaps = [abs(value[0] - mean) for value in results[name].values()]
        if not gaps[1] < gaps[0] < 0.1:
            sys.exit(f"{name} does not tend to the tilted distribution: {gaps}.")
