r"""What certificates say of the law of the samples, beside exact distances.

The problems are a mixture in one dimension and a Gaussian in 32 dimensions, both with exact scores on the VP process.
For a deterministic method the two laws, the method's and the flow's, are images of the same normal noise. In one
dimension they are computed on `QUANTILES` quantiles of the noise, and so are the Ky Fan distance of the coupling, the
Prokhorov distance (the least eps at which all but a share eps of the two laws can be matched within eps; in one
dimension greedy matching is best) and the 2-Wasserstein distance. For the Gaussian both maps are diagonal, and the Ky
Fan distance follows from a million draws of the noise. All lengths are RMS per dimension in units of the samples'
standard deviation.

`REPEATS` independent pilots of `PILOT` draws each give a certificate. Shown are how many of its Prokhorov bounds are
below the exact Ky Fan distance (at a level of .05), their median over that distance plus 3/n, and over the exact
Prokhorov distance, and the estimate of the 2-Wasserstein distance over the exact one. Methods that draw noise are
compared with the exact law of the SDE, which a coupling on one path cannot show.

``python -m benchmarks certified_laws`` writes ``results/certified_laws.json``; ``--check`` makes ten pilots and checks
the bars.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from scoresde.trust.coupling import seeds_of
from scoresde.trust.running import PILOT as PURPOSE

F64 = torch.float64
QUANTILES, REPEATS, PILOT, DRAWS = 20_001, 100, 256, 1_000_000
SDE = scoresde.VPSDE()
LINE = scoresde.targets.GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=F64), torch.tensor([[-1.0], [0.6]], dtype=F64), scales=torch.tensor([0.1, 0.25])
)
VARIANCES = torch.logspace(-3, 0, 32, dtype=F64)
GAUSSIAN = scoresde.targets.Gaussian(torch.zeros(32, dtype=F64), VARIANCES)
METHODS: dict[str, dict[str, Any]] = {
    "ddim, 5": {"method": "ddim", "steps": 5},
    "ddim, 20": {"method": "ddim", "steps": 20},
    "dpmpp_2m, 8": {"method": "dpmpp_2m", "steps": 8},
    "unipc2, 10": {"method": "unipc2", "steps": 10},
}
NOISY = {"dpmpp_2m_sde, 20": {"method": "dpmpp_2m_sde", "steps": 20}}


def exact_ends(x: Tensor, score: Any) -> Tensor:
    """The probability flow."""
    return scoresde.solve(SDE, score, x, method="adams", rtol=1e-9, atol=1e-9).x


def ky_fan(distances: Tensor) -> float:
    """Of equally probable distances: the least eps of which at most a share eps is farther."""
    ordered = distances.sort(descending=True).values
    shares = torch.arange(len(ordered), dtype=F64) / len(ordered)  # that is farther than each
    return float(torch.maximum(ordered, shares).min())


def matched(x: Tensor, y: Tensor, eps: float) -> float:
    """The largest share of two sorted samples of one size that can be matched within eps."""
    a, b, i, j, count = x.tolist(), y.tolist(), 0, 0, 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= eps:
            i, j, count = i + 1, j + 1, count + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return count / len(a)


def prokhorov(x: Tensor, y: Tensor) -> float:
    """Of two samples of one size in one dimension."""
    x, y = x.flatten().sort().values, y.flatten().sort().values
    low, high = 0.0, 1.0
    for _ in range(30):
        eps = (low + high) / 2
        low, high = (low, eps) if 1 - matched(x, y, eps) <= eps else (eps, high)
    return high


def on_the_line(settings: dict[str, Any]) -> dict[str, float]:
    """The exact distances of the mixture."""
    score = LINE.score(SDE)
    p = (torch.arange(QUANTILES, dtype=F64) + 0.5) / QUANTILES
    x = SDE.prior.from_normal(torch.special.ndtri(p)[:, None])
    exact = exact_ends(x, score)
    unit = float(exact.std())
    if "sde" in settings["method"]:
        noise = scoresde.SampleNoise(0, indices=range(QUANTILES))
        got = scoresde.solve(SDE, score, noise=noise, shape=x.shape, dtype=F64, **settings).x
        law = LINE.sample(QUANTILES, generator=torch.Generator().manual_seed(1))
        alpha, sigma = float(SDE.alpha(SDE.t_min)), float(SDE.sigma(SDE.t_min))
        law = alpha * law + sigma * torch.randn(law.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
        found = {"prokhorov": prokhorov(got / unit, law / unit)}
        gap = got.flatten().sort().values - law.flatten().sort().values
    else:
        got = scoresde.solve(SDE, score, x, **settings).x
        found = {
            "ky fan": ky_fan((got - exact).abs().flatten() / unit), "prokhorov": prokhorov(got / unit, exact / unit),
        }  # fmt: skip
        gap = got.flatten().sort().values - exact.flatten().sort().values
    return {**found, "wasserstein": float(gap.square().mean().sqrt()) / unit}


def of_the_gaussian(settings: dict[str, Any]) -> dict[str, float]:
    """The exact distances of the Gaussian: both maps are diagonal."""
    score = GAUSSIAN.score(SDE)
    basis = torch.eye(32, dtype=F64)
    got = scoresde.solve(SDE, score, basis, **settings).x.diagonal()
    exact = GAUSSIAN.flow_map(basis, SDE, SDE.t_max, SDE.t_min).diagonal()
    unit = float(exact.square().mean().sqrt())
    generator = torch.Generator().manual_seed(0)
    std = float(SDE.prior.from_normal(torch.ones(1, 1, dtype=F64)))
    distances = []
    for _ in range(DRAWS // 50_000):
        z = std * torch.randn(50_000, 32, generator=generator, dtype=F64)
        distances.append(((got - exact) * z).square().mean(1).sqrt() / unit)
    gap = std * (got.abs() - exact.abs())
    return {"ky fan": ky_fan(torch.cat(distances)), "wasserstein": float(gap.square().mean().sqrt()) / unit}


PROBLEMS: dict[str, tuple[Any, Any, int]] = {
    "mixture, 1-D": (LINE, on_the_line, 1),
    "Gaussian, 32-D": (GAUSSIAN, of_the_gaussian, 32),
}


def measure(name: str, settings: dict[str, Any], repeats: int) -> dict[str, Any]:
    """A row."""
    target, exact_of, size = PROBLEMS[name]
    score, exact = target.score(SDE), exact_of(settings)
    noisy = "sde" in settings["method"]
    seeds = [seed for r in range(repeats) for seed in seeds_of(r, PILOT, PURPOSE)]
    draws = scoresde.SampleNoise(seeds).normal(torch.zeros(len(seeds), size, dtype=F64))
    ends = None if noisy else exact_ends(SDE.prior.from_normal(draws), score).split(PILOT)
    bounds, values = [], []
    for r in range(10 if noisy else repeats):
        certificate = scoresde.certify(
            SDE, score, **settings, seed=r, shape=(PILOT, size), pilot=PILOT, dtype=F64, indicator="constant",
            reference=None if ends is None else (ends[r], ends[r]), batch_size=PILOT, identity="exact",
        )  # fmt: skip
        bounds.append(certificate.law.prokhorov)
        values.append(certificate.law.wasserstein().value / certificate.law.unit)
    bound, value = (float(torch.tensor(v, dtype=F64).median()) for v in (bounds, values))
    row: dict[str, Any] = {"bound": bound, "exact": exact, "pilots": len(bounds)}
    if "ky fan" in exact:
        row["below"] = sum(b < exact["ky fan"] for b in bounds)
        row["over ky fan + 3/n"] = bound / (exact["ky fan"] + 3 / PILOT)
    if "prokhorov" in exact:
        row["over prokhorov"] = bound / exact["prokhorov"]
    row["wasserstein over exact"] = value / exact["wasserstein"]
    return row


def check(rows: dict[str, Any], repeats: int) -> list[str]:
    """What is beyond the bars."""
    wrong = []
    for name, row in rows.items():
        if "below" not in row:
            continue
        if row["below"] > 0.1 * repeats:
            wrong.append(f"{name}: {row['below']} bounds of {repeats} are below the exact distance")
        if row["over ky fan + 3/n"] > 1.5:
            wrong.append(f"{name}: the bound is {row['over ky fan + 3/n']:.2f} times the distance plus 3/n")
        if not 1 / 3 < row["wasserstein over exact"] < 3:
            wrong.append(f"{name}: the RMS distance is {row['wasserstein over exact']:.2f} times the exact one")
    return wrong


def main(arguments: list[str]) -> None:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks certified_laws", description=__doc__)
    parser.add_argument("--check", action="store_true", help="ten pilots of the Gaussian; writes nothing")
    quick = parser.parse_args(arguments).check
    torch.set_num_threads(1)
    repeats = 10 if quick else REPEATS
    rows = {}
    for problem in list(PROBLEMS)[1:] if quick else PROBLEMS:
        methods = METHODS if quick or problem != "mixture, 1-D" else {**METHODS, **NOISY}
        for method, settings in methods.items():
            rows[f"{problem}: {method}"] = row = measure(problem, settings, repeats)
            print(
                f"{problem}: {method}",
                {k: round(v, 4) if not isinstance(v, dict) else v for k, v in row.items()},
                flush=True,
            )
    wrong = check(rows, repeats)
    if not quick:
        write("certified_laws", rows, "python -m benchmarks certified_laws")
    if wrong:
        sys.exit("\n".join(wrong))
