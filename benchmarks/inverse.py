r"""How far the methods for inverse problems are from the posterior, where it is known exactly.

Data: Gaussians and mixtures of four, of unit variance and correlated as neighbouring pixels are, in 2, 16 and 64
dimensions, with exact scores. Operators: a direction (2), and a mask of half the pixels, means of blocks (16), a blur
(64). For each method, operator and noise:

- distance: sliced Wasserstein-2 distance to exact samples of the posterior, over that of other exact samples (1 is as
  good as can be seen with so many samples);
- coverage: the share of samples inside the exact region of highest density that holds 90 % of the posterior;
- evaluations of the network and vector-Jacobian products.

Averages are over several measurements, drawn from the data's distribution. *particles*: the particle method's distance
by the number of particles and steps, with the floor.

``python -m benchmarks inverse`` writes ``results/inverse.json``; ``--check`` is a small version that writes nothing.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import scoresde
from benchmarks._record import write
from scoresde import inverse
from scoresde.targets import Gaussian, GaussianMixture

F64 = torch.float64
SDE = scoresde.VPSDE()
NOISES = (0.1, 0.5)
STEPS = 100
PROJECTIONS = 200
PLAN = {2: (4, 1000), 16: (2, 500), 64: (1, 500)}  # dimensions: measurements, samples of each
SHAPES: dict[int, tuple[int, ...]] = {2: (2,), 16: (1, 4, 4), 64: (1, 8, 8)}
# The options of each method beyond its defaults; the data's RMS is 1, as `pigdm` assumes.
OPTIONS: dict[str, dict[str, Any]] = {
    "exact": {},
    "mmps": {},
    "tmpd": {},
    "pigdm": {},
    "dps": {},
    "ddnm": {},
    "diffpir": {},
    "replacement": {},
    "replacement, 5 repeats": {"repeats": 5},
    "dps_step": {"zeta": 0.1},
    "mcg": {"zeta": 0.1},
    "ddrm": {"steps": 20},
    "ddnm_plus": {},
    "twisted_smc": {},
    "split_gibbs": {},
}


def covariance(size: int) -> Tensor:
    """Of pixels that are alike when they are near, of unit variance."""
    if size == 2:
        return torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    side = math.isqrt(size)
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side)).to(F64)
    return torch.exp(-torch.cdist(place, place) / 2)


def targets(size: int) -> dict[str, Gaussian | GaussianMixture]:
    """The distributions of data."""
    shape, cov = SHAPES[size], covariance(size)
    generator = torch.Generator().manual_seed(size)
    factor = torch.linalg.cholesky(cov)
    means = torch.randn(4, size, generator=generator, dtype=F64) @ factor.mT
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    centred = 0.8**0.5 * (means - (weights[:, None] * means).sum(0))
    mixture = GaussianMixture(weights, centred.reshape(4, *shape), (0.2 * cov).expand(4, -1, -1))
    return {"gaussian": Gaussian(torch.zeros(shape, dtype=F64), cov), "mixture": mixture}


def operators(size: int) -> dict[str, inverse.LinearOperator]:
    """What measures."""
    shape = SHAPES[size]
    if size == 2:
        return {"direction": inverse.Matrix(torch.tensor([[1.0, -0.3]], dtype=F64))}
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    other = inverse.block_average(shape, 2) if size == 16 else inverse.gaussian_blur(shape, 1.0)
    return {"mask": inverse.Mask(mask), "block average" if size == 16 else "blur": other}


def sliced(a: Tensor, b: Tensor) -> float:
    """The sliced Wasserstein-2 distance of two samples of the same size."""
    size = a[0].numel()
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(size, PROJECTIONS, generator=generator, dtype=F64)
    directions = directions / directions.norm(dim=0)
    gaps = (a.flatten(1).to(F64) @ directions).sort(0).values - (b.flatten(1).to(F64) @ directions).sort(0).values
    return float(gaps.square().mean().sqrt())


class Problem:
    """A posterior with what is needed to compare with it."""

    def __init__(self, target: Any, operator: inverse.LinearOperator, std: float, seed: int, count: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        x = target.sample(1, generator=generator).to(F64)
        y = operator.forward(x)[0]
        self.y = y + std * torch.randn(y.shape, generator=generator, dtype=F64)
        self.target, self.operator, self.std, self.count = target, operator, std, count
        self.law = target.posterior(operator, self.y, std)
        self.exact, other = (self.law.sample(count, generator=generator).to(F64) for _ in range(2))
        self.floor = sliced(self.exact, other)
        many = self.law.log_prob(self.law.sample(20 * count, generator=generator).to(F64))
        self.limit = float(many.quantile(0.1))

    def run(self, method: str, seed: int = 0, **options: Any) -> inverse.PosteriorSamples:
        """Samples by a method."""
        given = {"exact": {"target": self.target}}.get(method, {})
        rule = {"sampler": "dpmpp_2m_sde"} if method in inverse.rules.RULES else {}
        return inverse.sample_posterior(
            SDE,
            self.target.score(SDE),
            self.operator,
            self.y,
            self.std,
            method=method,
            **{"steps": STEPS, **given, **rule, **options},
            shape=(self.count, *self.target.event_shape),
            seed=seed,
            dtype=F64,
            throw=False,
        )

    def row(self, name: str) -> dict[str, float]:
        """The figures of a method."""
        got = self.run(name.split(",")[0], **OPTIONS[name])
        good = got.solution.success
        x = torch.where(good.reshape(-1, *[1] * (got.x.ndim - 1)), got.x, torch.zeros_like(got.x))
        return {
            "distance": sliced(x, self.exact),
            "floor": self.floor,
            "coverage": float((self.law.log_prob(x) > self.limit).double().mean()),
            "failed": float((~good).double().mean()),
            "evaluations": float(got.solution.evaluations),
            "products": float(got.products),
        }


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of figures; distances are root mean squares, relative to the floors'."""
    out = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    for key in ("distance", "floor"):
        out[key] = math.sqrt(sum(row[key] ** 2 for row in rows) / len(rows))
    return {**out, "distance / floor": out["distance"] / out["floor"]}


def particles(quick: bool) -> dict[str, Any]:
    """The particle method in two dimensions, and the exact score, by particles and steps: 4000 samples in all."""
    total, out = 1000 if quick else 4000, {}
    problem = Problem(targets(2)["mixture"], operators(2)["direction"], 0.5, 0, total)
    out["floor"] = {"distance": problem.floor}
    for steps in (25, 100) if quick else (25, 100, 400, 1600):
        for count in (4, 50, 1000) if quick else (4, 50, 1000, 4000):
            got = problem.run("twisted_smc", steps=steps, particles=count)
            out[f"{steps} steps, {count} particles"] = {
                "distance": sliced(got.x, problem.exact),
                "ess": float(got.ess.mean()) / count if got.ess is not None else math.nan,
            }
        out[f"{steps} steps, exact score"] = {
            "distance": sliced(problem.run("exact", steps=steps, sampler="ancestral").x, problem.exact)
        }
    return out


def main(arguments: list[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks inverse", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = {2: (1, 500)} if options.check else PLAN
    cases = [
        (size, law, name, std)
        for size in plan
        for law in ("gaussian", "mixture")
        for name in operators(size)
        for std in NOISES
    ]
    results: dict[str, Any] = {"methods": {}}
    with tqdm(total=len(cases) * len(OPTIONS)) as bar:
        for size, law, name, std in cases:
            target, operator, (seeds, count) = targets(size)[law], operators(size)[name], plan[size]
            problems = [Problem(target, operator, std, seed, count) for seed in range(seeds)]
            for method in OPTIONS:
                row = mean([problem.row(method) for problem in problems])
                results["methods"].setdefault(method, {})[f"{size}, {law}, {name}, {std:g}"] = row
                bar.write(
                    f"{size:3} {law:9} {name:13} {std:<4g} {method:23} distance {row['distance / floor']:7.2f} floors, "
                    f"coverage {row['coverage']:.2f}, {row['evaluations']:.0f} + {row['products']:.0f}"
                    + (f", failed {row['failed']:.2f}" if row["failed"] else "")
                )
                bar.update()
    results["particles"] = particles(options.check)
    for name, row in results["particles"].items():
        print(f"{name:30} {row}")
    if not (options.check or options.no_write):
        write("inverse", results, "python -m benchmarks inverse")
