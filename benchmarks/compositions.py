r"""The posterior of many observations from scores of single ones: what that costs where they are no Gaussians.

A prior of two components N(±1, 0.5²) with weights 0.4 and 0.6, observations y = theta + n, n ~ N(0, 1), exact scores of
the single posteriors, on `VPSDE`. Mean and standard deviation of: the exact posterior; `guidance.tall` with the
covariances of the single posteriors, and with Jacobians, by the probability flow from 2,000 quantiles of the noise; the
plain sum, likewise; and Langevin moves at 400 levels on the composition with covariances, of 4,000 samples.

``python -m benchmarks compositions`` writes ``results/compositions.json``, in half a minute; ``--check`` takes two
observations and 200 samples, and writes nothing.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from scoresde import guidance, targets

F64 = torch.float64
SDE = scoresde.VPSDE()
WEIGHTS, MEANS, VARIANCE = torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([-1.0, 1.0], dtype=F64), 0.25
PRIOR = targets.GaussianMixture(WEIGHTS, MEANS[:, None], scales=VARIANCE**0.5)
COUNTS = (2, 8, 32)
LINE = torch.linspace(-6, 6, 6001, dtype=F64)[:, None]


class Single:
    """The exact score of theta given one y, for a batch of y."""

    rowwise = True

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = SDE.alpha(t).to(x)[:, None], SDE.sigma(t).to(x)[:, None]
        shrink = VARIANCE / (1 + VARIANCE)
        logits = WEIGHTS.log() - 0.5 * (y - MEANS) ** 2 / (1 + VARIANCE)
        spread = alpha**2 * shrink + sigma**2
        away = (x - alpha * (MEANS + shrink * (y - MEANS))) / spread
        shares: Tensor = (logits - 0.5 * away**2 * spread).softmax(1)
        return -(shares * away).sum(1, keepdim=True)


def moments(law: Any) -> tuple[float, float]:
    """Mean and variance, by quadrature."""
    mass = law.log_prob(LINE).softmax(0)
    mean = float(mass @ LINE[:, 0])
    return mean, float(mass @ (LINE[:, 0] - mean) ** 2)


def posterior(y: Tensor) -> Any:
    """The exact one; of the observations, only their mean matters."""
    return PRIOR.posterior(torch.eye(1, dtype=F64), y.mean(0), 1 / math.sqrt(len(y)))


def measure(count: int, samples: int, levels: int) -> dict[str, list[float]]:
    """Mean and standard deviation of everything."""
    generator = torch.Generator().manual_seed(count)
    y = 0.5 + torch.randn(count, 1, generator=generator, dtype=F64)
    covariances = torch.tensor([moments(posterior(v[None]))[1] for v in y], dtype=F64)[:, None, None]
    gauss = guidance.tall(Single(), PRIOR, {"y": y}, covariances=covariances, sde=SDE)
    scores = {
        "with covariances": gauss,
        "with Jacobians": guidance.tall(Single(), PRIOR, {"y": y}, sde=SDE),
        "plain sum": guidance.product(
            *(partial(Single(), y=v) for v in y), base=PRIOR.score(SDE), weights=[1.0] * count, sde=SDE
        ),
    }
    mean, variance = moments(posterior(y))
    found = {"exact": [mean, variance**0.5]}
    z = torch.special.ndtri((torch.arange(samples, dtype=F64) + 0.5) / samples)[:, None]
    for name, score_fn in scores.items():
        x = scoresde.solve(SDE, score_fn, z, method="unipc", steps=60).x
        found[name] = [float(x.mean()), float(x.std())]
    options: dict[str, Any] = {"method": "langevin", "snr": 0.3, "steps": levels, "dtype": F64, "seed": 0}
    x = scoresde.solve(SDE, gauss, shape=(2 * samples, 1), **options).x
    return found | {"langevin": [float(x.mean()), float(x.std())]}


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compositions", description=__doc__)
    parser.add_argument("--check", action="store_true", help="two observations; nothing is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = {}
    for count in COUNTS[: 1 if options.check else None]:
        found = results[str(count)] = measure(count, *((200, 100) if options.check else (2000, 400)))
        print(count, {k: [round(v, 3) for v in pair] for k, pair in found.items()}, flush=True)
    if not options.check:
        write("compositions", results, "python -m benchmarks compositions")
