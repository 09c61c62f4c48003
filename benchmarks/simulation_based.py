r"""Simulation-based inference: what tests find, and what compositions, bounds and networks of sets err by.

The parts are settings of `docs/inference.md` whose exact answers are known:

- ``power``: the smallest error of posteriors that simulation-based calibration finds with probability 0.9. The ranks
  of N(shift, factor²) in place of N(0, 1) have a known distribution; 10,000 sets of them are compared with the band of
  `trust.simulation_based_calibration`.
- ``sets``: 100 subjects of the simulator of the page; networks of single trials that are composed by `guidance.tall`,
  and networks of whole sets. Errors are those of the posterior mean, in exact standard deviations, their median over
  subjects and parameters, for three networks of each kind.
- ``modes``: y ~ N(theta², 0.5²), composed with exact scores: the standard deviation of |theta| over the exact one.
- ``langevin``: the composition of `benchmarks.compositions` by Langevin moves: how far the samples come.
- ``bounds``: theta uniform on (0, 1), y ~ N(theta, 0.3²), composed with exact scores in the box and after the logit;
  and trained networks at an observation beyond the edge.
- ``predictive``: the p-values of predictive checks of a right model.
- ``outliers``: 12 summaries, of which two nearly agree: what the two distances find at a level of 5 %.
- ``prior``: the score of a noised logistic prior, as a mixture on a grid and as fitted mixtures.

``python -m benchmarks simulation_based`` writes ``results/simulation_based.json``; ``--only PART …`` measures some
parts and keeps the others; ``--check`` measures a little of most parts, compares it with the file, and writes nothing.
All fail if a bar is missed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from benchmarks import compositions
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from scoresde import guidance, targets, trust

F64 = torch.float64
VP = scoresde.VPSDE()


# What simulation-based calibration finds

PAIRS, DRAWS, POWER, SIMULATIONS = (60, 100, 300, 1000), 63, 0.9, 10_000


@functools.cache
def band(pairs: int, draws: int, parameters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The levels of the test, and the least and the largest number of ranks below each that it accepts."""
    generator = torch.Generator().manual_seed(0)
    theta, x = (torch.randn(*n, pairs, parameters, generator=generator) for n in ((), (draws,)))
    found = trust.simulation_based_calibration(theta, x)
    levels = np.rint((draws + 1) * found.levels.numpy()).astype(int)
    low, high = (np.rint(pairs * end.numpy()) for end in found.band)
    return levels, low, high


def found_share(pairs: int, shift: float, factor: float, draws: int = DRAWS, parameters: int = 1) -> float:
    """How often the test finds that the draws of one parameter are N(shift, factor²) where N(0, 1) is right."""
    from scipy.stats import binom

    theta = torch.special.ndtri((torch.arange(2000, dtype=F64) + 0.5) / 2000)
    below = torch.special.ndtr((theta - shift) / factor).numpy()
    ranks = binom.pmf(np.arange(draws + 1), draws, below[:, None]).mean(0)
    levels, low, high = band(pairs, draws, parameters)
    counts = np.random.default_rng(0).multinomial(pairs, ranks / ranks.sum(), SIMULATIONS).cumsum(1)[:, levels - 1]
    return float(((counts < low) | (counts > high)).any(1).mean())


def smallest(kind: str, pairs: int, parameters: int) -> float:
    """The shift, or the factor, that is found with probability `POWER`, by bisection."""
    low, high = 0.0, 0.99
    for _ in range(12):
        error = (low + high) / 2
        shift, factor = (error, 1.0) if kind == "shift" else (0.0, 1 - error)
        low, high = (low, error) if found_share(pairs, shift, factor, parameters=parameters) > POWER else (error, high)
    return high if kind == "shift" else 1 - high


def power(quick: bool) -> dict[str, Any]:
    """The smallest errors, the shares that are found from fewer and from more draws, and a check by the test itself."""
    table = {
        str(pairs): {
            kind + name: smallest(kind, pairs, parameters)
            for parameters, name in ((1, ""), (12, ", one of 12"))
            for kind in ("shift", "factor")
        }
        for pairs in ((60,) if quick else PAIRS)
    }
    draws = {
        str(m): {"factor 0.8": found_share(300, 0.0, 0.8, m), "shift 0.25": found_share(300, 0.25, 1.0, m)}
        for m in ((9,) if quick else (9, 63, 255))
    }
    generator, repeats, factor = torch.Generator().manual_seed(1), 100, table["60"]["factor"]
    found = 0
    for seed in range(repeats):
        theta, x = (torch.randn(*n, 60, 1, generator=generator) for n in ((), (DRAWS,)))
        found += not trust.simulation_based_calibration(theta, factor * x, seed=seed).calibrated
    off = (found / repeats - POWER) / math.sqrt(POWER * (1 - POWER) / repeats)
    return {"smallest": table, "found": draws, "the test itself": {"z": off}}


# Composition, or a network of whole sets

SIDE, NOISE, TRIALS, SEEDS = 2.0, 0.3, 20, (0, 1, 2)
EDM = scoresde.EDMSDE(sigma_min=0.01, sigma_max=20.0)
LINE = torch.linspace(-SIDE, SIDE, 401)
POINTS = torch.cartesian_prod(LINE, LINE)


def means_of(theta: Tensor) -> Tensor:
    """The mean of an observation."""
    a, b = theta.unbind(-1)
    return torch.stack([a + b**2 / 2, b], -1)


def simulated(count: int, trials: int = 1) -> tuple[Tensor, Tensor]:
    """Parameters ``(count, 2)``, uniform in the box, and observations ``(count, trials, 2)``."""
    theta = SIDE * (2 * torch.rand(count, 2) - 1)
    return theta, means_of(theta)[:, None] + NOISE * torch.randn(count, trials, 2)


def exact_moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the posterior of one subject, from its trials ``(n, 2)``."""
    weights = (-((y.mean(0) - means_of(POINTS)) ** 2).sum(1) * len(y) / (2 * NOISE**2)).softmax(0)
    mean = weights @ POINTS
    return mean, (weights @ (POINTS - mean) ** 2).sqrt()


class Net(torch.nn.Module):
    """A network of a noisy parameter, its noise level, and an observation."""

    def __init__(self, data: int = 2) -> None:
        super().__init__()
        linear, act = torch.nn.Linear, torch.nn.SiLU()
        layers = [linear(3 + data, 64), act, linear(64, 64), act, linear(64, 64), act, linear(64, 2)]
        self.body = torch.nn.Sequential(*layers)

    def forward(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        """The estimate."""
        out: Tensor = self.body(torch.cat([x, time[:, None], y / 2], 1))
        return out


class SetNet(torch.nn.Module):
    """A network of the trials that are ``real``, whose order does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.each = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 32))
        self.net = Net(33)

    def forward(self, x: Tensor, time: Tensor, y: Tensor, real: Tensor) -> Tensor:
        """The estimate."""
        count = real.sum(1, keepdim=True)
        mean = (self.each(y / 2) * real[..., None]).sum(1) / count
        out: Tensor = self.net(x, time, torch.cat([2 * mean, 2 * count.log()], 1))
        return out


def train(net: torch.nn.Module, spread: float, steps: int, batch: Callable[[], tuple[Tensor, dict[str, Any]]]) -> Any:
    """A model of parameters with a standard deviation, from batches of them and of their contexts."""
    model = scoresde.ScoreModel(net, EDM, "edm", sigma_data=spread, event_shape=(2,))
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        theta, context = batch()
        loss = scoresde.losses.edm(model, theta, **context).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    return model


@functools.cache
def single(seed: int, steps: int, logit: bool = False) -> tuple[Any, Tensor]:
    """A network of one trial from 20,000 simulations, of parameters or of their logits in units of their standard
    deviations, which are returned, too."""
    torch.manual_seed(seed)
    theta, y = simulated(20_000)
    unit = torch.ones(2)
    if logit:
        theta = ((theta + SIDE) / (2 * SIDE)).logit()
        unit = theta.std(0)
        theta = theta / unit

    def batch() -> tuple[Tensor, dict[str, Any]]:
        rows = torch.randint(len(theta), (512,))
        return theta[rows], {"y": y[rows, 0]}

    return train(Net(), float(theta.std()), steps, batch), unit


def of_sets(seed: int, count: int, steps: int) -> Any:
    """A network of up to 20 trials, from so many sets of 20."""
    torch.manual_seed(seed)
    theta, y = simulated(count, TRIALS)

    def batch() -> tuple[Tensor, dict[str, Any]]:
        rows = torch.randint(count, (256,))
        real = (torch.arange(TRIALS) < torch.randint(1, TRIALS + 1, (256, 1))).float()
        return theta[rows], {"y": y[rows], "real": real}

    return train(SetNet(), float(theta.std()), steps, batch)


def draw(model: Any, score: Any, context: dict[str, Tensor], draws: int, **options: Any) -> Tensor:
    """Draws for each row of the context, ``(draws, rows, 2)``."""
    rows = len(next(iter(context.values())))
    repeated = {key: value.repeat_interleave(draws, 0) for key, value in context.items()}
    settings: dict[str, Any] = {"method": "unipc", "steps": 20, "seed": 2, "throw": False} | options
    x: Tensor = scoresde.solve(model.sde, score, shape=(rows * draws, 2), context=repeated, **settings).x
    return x.reshape(rows, draws, 2).movedim(1, 0)


def composed(model: Any, y: Tensor, draws: int) -> Tensor:
    """Draws from the composed posteriors of subjects, whose trials are ``(subjects, n, 2)``."""
    pilot = draw(model, model, {"y": y.flatten(0, 1)}, 200, steps=12, seed=1)
    covariances = torch.stack([torch.cov(one.mT) for one in pilot.movedim(1, 0)]).reshape(*y.shape, 2)
    box = targets.Uniform(torch.full((2,), -SIDE), SIDE)
    together = guidance.tall(model, box, ["y"], covariances="covariances", sde=model.sde)
    return draw(model, together, {"y": y, "covariances": covariances}, draws)


def from_sets(model: Any, y: Tensor, draws: int) -> Tensor:
    """Draws of a network of sets."""
    subjects, n, _ = y.shape
    padded = torch.cat([y, y.new_zeros(subjects, TRIALS - n, 2)], 1)
    real = (torch.arange(TRIALS) < n).float().expand(subjects, TRIALS)
    return draw(model, model, {"y": padded, "real": real}, draws)


def judged(theta: Tensor, y: Tensor, draws: Tensor) -> dict[str, float]:
    """The errors of draws inside of the box, the share outside, and the p-value of the test of calibration."""
    mean, spread = (torch.stack(part) for part in zip(*map(exact_moments, y), strict=True))
    inside = (draws.abs() <= SIDE).all(2)
    kept = torch.where(inside[..., None], draws, torch.nan)
    errors = ((kept.nanmean(0) - mean) / spread).abs()
    ranks = trust.simulation_based_calibration(theta, draws.nan_to_num(1e6))
    return {
        "error": float(errors.nanmedian()), "outside": 1 - float(inside.float().mean()), "p": ranks.p_value,
    }  # fmt: skip


def sets(quick: bool) -> dict[str, Any]:
    """The errors of networks by the number of trials. A quick run shows only that the code works."""
    subjects, draws = (5, 20) if quick else (100, 200)
    makers: dict[str, Callable[[int], Any]] = {
        "composition": lambda seed: single(seed, 20 if quick else 1500)[0],
        "composition, four times the training": lambda seed: single(seed, 6000)[0],
        "network of sets": lambda seed: of_sets(seed, 1000, 20 if quick else 600),
        "network of sets, 20 times the simulations": lambda seed: of_sets(seed, 20_000, 1500),
    }
    found: dict[str, Any] = {}
    for name, seed in itertools.product(makers, SEEDS):
        if quick and (seed or "times" in name):
            continue
        model = makers[name](seed)
        for n in (5, TRIALS):
            torch.manual_seed(1000 + n)
            theta, y = simulated(subjects, n)
            got = judged(theta, y, (composed if "composition" in name else from_sets)(model, y, draws))
            row = found.setdefault(str(n), {}).setdefault(name, {key: [] for key in got})
            for key, value in got.items():
                row[key].append(value)
            print(n, name, seed, got, flush=True)
    return {} if quick else found


# Exact scores on grids


class GridScore:
    """The exact score of a parameter on a grid, given y, with a prior and a likelihood on it; each point of the grid is
    a normal distribution with a standard deviation."""

    rowwise = True

    def __init__(
        self, grid: Tensor, log_prior: Tensor, log_likelihood: Callable[[Tensor], Tensor], width: float
    ) -> None:
        self.grid, self.log_prior, self.log_likelihood, self.width = grid, log_prior, log_likelihood, width

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = VP.alpha(t).to(x)[:, None], VP.sigma(t).to(x)[:, None]
        variance = (alpha * self.width) ** 2 + sigma**2
        away = x - alpha * self.grid
        shares = (self.log_prior + self.log_likelihood(y) - 0.5 * away**2 / variance).softmax(1)
        return -(shares * away / variance).sum(1, keepdim=True)

    def weights(self, y: Tensor) -> Tensor:
        """Of the posteriors of all y, ``(n, grid)``."""
        return (self.log_prior + self.log_likelihood(y)).softmax(1)

    def together(self, y: Tensor) -> Tensor:
        """The weights of the posterior of all y, ``(grid,)``."""
        return (self.log_prior + self.log_likelihood(y).sum(0)).softmax(0)

    def composed(self, prior: Any, y: Tensor, **options: Any) -> Any:
        """The composition by the variances of the single posteriors."""
        weights = self.weights(y)
        variances = (weights @ self.grid**2 - (weights @ self.grid) ** 2)[:, None]
        return guidance.tall(self, prior, {"y": y}, covariances=variances, sde=VP, **options)


def deviation(values: Tensor, weights: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of weighted values."""
    mean = weights @ values
    return float(mean), float((weights @ (values - mean) ** 2).sqrt())


def modes(quick: bool) -> dict[str, Any]:
    """The width of the modes of composed posteriors over the exact one, for data sets of 4 and 16 trials."""
    grid = torch.linspace(-3, 3, 201, dtype=F64)
    prior = targets.GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=F64), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=0.4
    )
    single = GridScore(grid, prior.log_prob(grid[:, None]), lambda y: -0.5 * (y - grid**2) ** 2 / 0.5**2, 0.03)
    options: dict[str, dict[str, Any]] = {
        "unipc, 40": {"method": "unipc", "steps": 40},
        "dpmpp_2m_sde, 100": {"method": "dpmpp_2m_sde", "steps": 100},
        "langevin, 400": {"method": "langevin", "steps": 400, "snr": 0.5},
    }
    found: dict[str, dict[str, list[float]]] = {}
    for n, seed in itertools.product((4,) if quick else (4, 16), (0,) if quick else SEEDS):
        generator = torch.Generator().manual_seed(100 * n + seed)
        y = 1 + 0.5 * torch.randn(n, 1, generator=generator, dtype=F64)
        _, exact = deviation(grid.abs(), single.together(y))
        score = single.composed(prior, y)
        for name in ["unipc, 40"] if quick else options:
            x = scoresde.solve(VP, score, shape=(300, 1), seed=0, dtype=F64, **options[name]).x
            found.setdefault(str(n), {}).setdefault(name, []).append(float(x.abs().std()) / exact)
            print(n, seed, name, found[str(n)][name][-1], flush=True)
    return found


def langevin(quick: bool) -> list[dict[str, float]]:
    """Mean and standard deviation of composed samples against the steps and the size of the moves."""
    rows = []
    for count, steps, snr in itertools.product((8, 32), (100, 400, 1600), (0.1, 0.2, 0.3, 0.5, 0.7)):
        if steps * snr**2 > 200 or (quick and rows):
            continue
        generator = torch.Generator().manual_seed(count)
        y = 0.5 + torch.randn(count, 1, generator=generator, dtype=F64)
        mean, variance = compositions.moments(compositions.posterior(y))
        each = [[compositions.moments(compositions.posterior(v[None]))[1]] for v in y]
        score = guidance.tall(
            compositions.Single(), compositions.PRIOR, {"y": y}, covariances=torch.tensor(each, dtype=F64), sde=VP
        )
        x = scoresde.solve(VP, score, shape=(2000, 1), method="langevin", snr=snr, steps=steps, dtype=F64, seed=0).x
        row = {"observations": count, "steps": steps, "snr": snr, "product": steps * snr**2}
        rows.append(row | {"bias": (float(x.mean()) - mean) / variance**0.5, "width": float(x.std()) / variance**0.5})
        print(rows[-1], flush=True)
    return rows


# Bounded parameters


def logistic(half: float, points: int) -> tuple[Tensor, Tensor, Any, float]:
    """The logits of a uniform parameter on a grid, their log-density, the mixture of it, and the distance of points."""
    grid = torch.linspace(-half, half, points, dtype=F64)
    log_prior = torch.nn.functional.logsigmoid(grid) + torch.nn.functional.logsigmoid(-grid)
    width = 2 * half / (points - 1)
    return grid, log_prior, targets.GaussianMixture(log_prior.softmax(0), grid[:, None], scales=width), width


def at_the_edge(seed: int, steps: int, logit: bool) -> dict[str, float]:
    """The share outside, and the error of the mean of what is inside, at an observation beyond the edge."""
    y = torch.tensor([[2.2, 0.3]])
    mean, spread = exact_moments(y)
    model, unit = single(seed, steps, logit)
    x = draw(model, model, {"y": y}, 4000)[:, 0]
    x = SIDE * (2 * (x * unit).sigmoid() - 1) if logit else x
    inside = (x.abs() < SIDE).all(1)
    errors = (x[inside].mean(0) - mean) / spread
    return {"outside": 1 - float(inside.float().mean()), "error": float(errors.abs().max())}


def bounds(quick: bool) -> dict[str, Any]:
    """The width of composed posteriors in the box and after the logit, and trained networks near the edge."""
    logits, log_prior, prior, width = logistic(16, 321)
    inside = (torch.arange(200, dtype=F64) + 0.5) / 200
    spread = 0.3
    after = GridScore(logits, log_prior, lambda y: -0.5 * (y - logits.sigmoid()) ** 2 / spread**2, width)
    box = GridScore(inside, torch.zeros(200, dtype=F64), lambda y: -0.5 * (y - inside) ** 2 / spread**2, 1 / 400)
    quantiles = torch.special.ndtri((torch.arange(200, dtype=F64) + 0.5) / 200)[:, None]
    rows = []
    for truth, n in itertools.product((0.5, 0.7, 0.9), (8, 32)):
        if quick and (truth, n) != (0.7, 8):
            continue
        y = truth + spread * torch.randn(n, 1, generator=torch.Generator().manual_seed(n), dtype=F64)
        mean, exact = deviation(inside, box.together(y))
        uniform = targets.Uniform(torch.zeros(1, dtype=F64), 1.0)
        variance = torch.tensor([[math.pi**2 / 3]], dtype=F64)
        row: dict[str, Any] = {"truth": truth, "trials": n}
        for name, score in (
            ("box", box.composed(uniform, y)), ("logit", after.composed(prior, y, prior_covariance=variance)),
        ):  # fmt: skip
            x = scoresde.solve(VP, score, quantiles, method="unipc", steps=60).x
            x = x.sigmoid() if name == "logit" else x
            row[name] = {"bias": (float(x.mean()) - mean) / exact, "width": float(x.std()) / exact}
        rows.append(row)
        print(row, flush=True)
    if quick:
        return {"composed": {f"{row['truth']}, {row['trials']}": row for row in rows}}
    trained: dict[str, Any] = {}
    for name, steps, logit in (("box, 1500", 1500, False), ("box, 6000", 6000, False), ("logit, 1500", 1500, True)):
        got = [at_the_edge(seed, steps, logit) for seed in SEEDS]
        trained[name] = {key: [row[key] for row in got] for key in got[0]}
        print(name, trained[name], flush=True)
    return {"composed": {f"{row['truth']}, {row['trials']}": row for row in rows}, "trained": trained}


# Checks of the model


def predictive(quick: bool) -> dict[str, float]:
    """The standard deviation of p-values over 4,000 simulated subjects of 20 trials, with 500 draws of each: theta ~
    N(0, I) and y ~ N(theta, I / 2) in two dimensions, and exact posteriors. Uniform ones have 0.289."""
    generator = torch.Generator().manual_seed(0)
    p_values: dict[str, list[float]] = {"mean": [], "standard deviation": []}
    for _ in range(4000):
        theta = torch.randn(2, generator=generator)
        y = theta + 0.5**0.5 * torch.randn(20, 2, generator=generator)
        draws = y.sum(0) / 20.5 + (0.5 / 20.5) ** 0.5 * torch.randn(500, 1, 2, generator=generator)
        again = draws + 0.5**0.5 * torch.randn(500, 20, 2, generator=generator)
        p_values["mean"].append(float((again.mean(1)[:, 0] >= y.mean(0)[0]).float().mean()))
        spread, observed = again.std(1).mean(1), y.std(0).mean()
        p_values["standard deviation"].append(float((spread >= observed).float().mean()))
    return {name: statistics.stdev(values) for name, values in p_values.items()}


def outliers(quick: bool) -> dict[str, Any]:
    """The share of strange observations that a distance finds at a level of 5 %, for five sets of simulations."""
    found: dict[str, Any] = {}
    for seed in (0,) if quick else range(5):
        generator = torch.Generator().manual_seed(seed)

        def summaries(count: int, generator: torch.Generator = generator) -> Tensor:
            y = torch.randn(count, 12, generator=generator)
            y[:, 1] = y[:, 0] + 0.1 * y[:, 1]
            return y

        fitted, held_out = summaries(19_000), summaries(1000)
        apart, shifted = summaries(500), summaries(500)
        apart[:, 1] += 1.0  # the usual difference is 0.1
        shifted[:, 5] += 5.0
        cases = {"right": summaries(500), "two differ": apart, "one shifted": shifted}
        whitening, unit, centre = torch.linalg.cholesky(torch.cov(fitted.T).inverse()), fitted.std(0), fitted.mean(0)
        for name, distance in {
            "nearest": lambda v, unit=unit, fitted=fitted: torch.cdist(v / unit, fitted / unit).amin(1),
            "mahalanobis": lambda v, centre=centre, whitening=whitening: ((v - centre) @ whitening).norm(dim=1),
        }.items():
            usual = distance(held_out)
            for case, y in cases.items():
                p = (1 + (usual >= distance(y)[:, None]).sum(1)) / (len(held_out) + 1)
                found.setdefault(case, {}).setdefault(name, {})[str(seed)] = float((p <= 0.05).float().mean())
    return found


def prior(quick: bool) -> dict[str, Any]:
    """The relative RMS error of the score of a noised logistic prior by noise level: of a mixture on the grid of the
    page, and of mixtures fitted to 20,000 draws."""
    *_, exact, _ = logistic(20, 4001)
    *_, coarse, _ = logistic(16, 321)
    fitted = {
        f"fit of {k}, seed {seed}": targets.GaussianMixture.fit(
            torch.rand(20_000, 1, generator=torch.Generator().manual_seed(seed), dtype=F64).logit(), k
        )
        for k in (3, 4, 5) for seed in SEEDS if not quick or (k, seed) == (3, 0)
    }  # fmt: skip
    found: dict[str, Any] = {}
    for t in (0.03,) if quick else (0.03, 0.1, 0.3, 1.0, 3.0):
        x = exact.sample(2000, EDM, t, generator=torch.Generator().manual_seed(2))
        right = exact.score(EDM)(x, t)
        for name, law in ({"grid": coarse} | fitted).items():
            error = (law.score(EDM)(x, t) - right).square().mean() / right.square().mean()
            found.setdefault(name, {})[str(t)] = float(error.sqrt())
    return found


# What the page says of each part, and whether it holds


def power_bars(part: Any) -> dict[str, bool]:
    """A few dozen pairs show large errors only."""
    rows = [part["smallest"][str(n)] for n in PAIRS]
    columns = [[row[name] if "shift" in name else 1 - row[name] for row in rows] for name in rows[0]]
    return {
        "more pairs find smaller errors": all(a > b for column in columns for a, b in itertools.pairwise(column)),
        "300 pairs find a shift of 0.25 and a factor of 0.8": rows[2]["shift"] < 0.25 and rows[2]["factor"] > 0.8,
        "60 pairs find large errors only": rows[0]["shift"] > 0.4 and rows[0]["factor"] < 0.7,
        "the test finds what its band says": abs(part["the test itself"]["z"]) < 3.5,
    }


def sets_bars(part: Any) -> dict[str, bool]:
    """Of many trials a network of sets errs less."""
    row = {kind: statistics.median(got["error"]) for kind, got in part[str(TRIALS)].items()}
    return {
        "a network of sets errs less": row["network of sets"] < 0.6 * row["composition"],
        "training helps a composition": row["composition, four times the training"] < 0.8 * row["composition"],
    }


def modes_bars(part: Any) -> dict[str, bool]:
    """Noise repairs a part, moves repair most."""
    flow, noise, moves = ([width for n in ("4", "16") for width in part[n][kind]] for kind in part["4"])
    few, many = (part[n]["unipc, 40"] for n in ("4", "16"))
    return {
        "more trials make the modes of the flow narrower": max(many) < min(few),
        "noise repairs a part": max(flow) < max(noise) < 0.9 and min(noise) > 0.6,
        "moves repair most": min(moves) > max(0.9, max(noise)),
    }


def langevin_bars(part: Any) -> dict[str, bool]:
    """Small products are too wide."""
    far = [abs(row["width"] - 1) for row in part if row["product"] > 63 and row["snr"] < 0.6]
    near = [row["width"] for row in part if row["product"] < 20]
    return {"large products": max(far) < 0.05, "small products": min(near) > 1.05}


def bounds_bars(part: Any) -> dict[str, bool]:
    """The box is better for compositions, and the transform no better near the edge."""
    box, logit = (max(abs(row[kind]["width"] - 1) for row in part["composed"].values()) for kind in ("box", "logit"))
    short, long, logits = part["trained"].values()
    return {
        "compose in the box": box < 0.2 and logit > 0.35,
        "training helps near the edge": max(long["error"]) < min(short["error"]),
        "the logit does not": min(logits["error"]) >= min(short["error"]) and not any(logits["outside"]),
    }


def predictive_bars(part: Any) -> dict[str, bool]:
    """A statistic that the parameters fit says nothing."""
    return {"uniform": abs(part["standard deviation"] - 12**-0.5) < 0.01, "near 1/2": part["mean"] < 0.06}


def outliers_bars(part: Any) -> dict[str, bool]:
    """Both distances are needed."""
    nearest, mahalanobis = (
        {case: statistics.mean(row[kind].values()) for case, row in part.items()} for kind in ("nearest", "mahalanobis")
    )
    return {
        "the level": all(0.03 < found["right"] < 0.07 for found in (nearest, mahalanobis)),
        "two that differ": mahalanobis["two differ"] > 0.99 and nearest["two differ"] < 0.15,
        "one that is shifted": min(found["one shifted"] for found in (nearest, mahalanobis)) > 0.85,
    }


def prior_bars(part: Any) -> dict[str, bool]:
    """A grid is exact, a fit is not."""
    three, four, five = ([row["0.03"] for key, row in part.items() if f"fit of {k}" in key] for k in (3, 4, 5))
    return {
        "the grid": max(part["grid"].values()) < 0.005,
        "fits": min(three) > 0.2 and max(three) < min(four) and max(four) < min(five),
    }


# How each part is measured, and what must hold of it.
PARTS: dict[str, tuple[Callable[[bool], Any], Callable[[Any], dict[str, bool]]]] = {
    "power": (power, power_bars),
    "sets": (sets, sets_bars),
    "modes": (modes, modes_bars),
    "langevin": (langevin, langevin_bars),
    "bounds": (bounds, bounds_bars),
    "predictive": (predictive, predictive_bars),
    "outliers": (outliers, outliers_bars),
    "prior": (prior, prior_bars),
}


def check(results: dict[str, Any]) -> list[str]:
    """The bars that are missed."""
    return [
        f"{name}: {bar}" for name, part in results.items() for bar, holds in PARTS[name][1](part).items() if not holds
    ]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a record, each with its place."""
    if isinstance(value, int | float):
        yield path, value
    else:
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, f"{path}, {key}")


def main(arguments: list[str]) -> None:
    """Measure, print, and write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks simulation_based", description=__doc__)
    parser.add_argument("--check", action="store_true", help="a little of each part, compared with the file")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts; others are kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = load("simulation_based")["results"] if (RESULTS / "simulation_based.json").exists() else {}
    missed = []
    for name in options.only:
        found = PARTS[name][0](options.check)
        print(name, found, flush=True)
        if options.check:
            known = dict(leaves(results[name]))
            for place, value in leaves(found):
                if not math.isclose(value, known.get(place, math.nan), rel_tol=0.02, abs_tol=2e-3):
                    missed.append(f"{name}{place}: {value:g} is not that of the file")
        else:
            results[name] = found
            ordered = {part: results[part] for part in PARTS if part in results}
            write("simulation_based", ordered, "python -m benchmarks simulation_based")
    if missed := [*missed, *check(results)]:
        sys.exit("\n".join(missed))
