r"""Warm starts by a Gaussian: where they end, and what they save, at several tolerances.

Problems: *ring* of `benchmarks.work_precision` and *digits* of `benchmarks.fitted_grids` with exact scores, in float64,
and *network*, the shipped network of handwritten digits, in float32; the Gaussians have the mean and the covariance of
the data, for the digits in full and of rank 8. ``--images FILE`` measures *mnist* alone, the network of MNIST with the
Gaussian of its training digits. A pilot of 64 samples is solved with and without the start: by `adams` with the same
tolerance, mean evaluations per sample; and by `unipc2` in 8 steps, median error.

``python -m benchmarks warm_start`` writes ``results/warm_start.json``; the figures of MNIST are a part of it.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import scoresde
from benchmarks._shipped import Shipped, add_images, shipped
from benchmarks.fitted_grids import Points
from benchmarks.work_precision import ring
from scoresde.targets import Gaussian

F64 = torch.float64
PROCESSES = {"VP": scoresde.VPSDE(), "EDM": scoresde.EDMSDE()}
PILOT = 64
TOLERANCES = (1e-1, 3e-2, 1e-2, 1e-3)


def problems(sde: scoresde.AffineSDE, shown: Shipped) -> dict[str, tuple[Any, Gaussian, torch.dtype]]:
    """Scores, Gaussians and dtypes: the network of MNIST by itself, or that of the digits with the exact scores."""
    network = shown.network().score(sde)
    if shown.name == "mnist":
        moments = Gaussian.fit(shown.train(torch.Generator().manual_seed(1)).to(F64))
        return {"mnist": (network, moments, torch.float32)}
    from sklearn.datasets import load_digits

    digits = torch.as_tensor(load_digits().data, dtype=F64) / 8 - 1
    target, score = ring(), Points(digits, 0.05, sde)
    moments = Gaussian.fit(target.sample(100_000, generator=torch.Generator().manual_seed(0)).to(F64))
    return {
        "ring": (target.score(sde), moments, F64),
        "digits": (score, Gaussian.fit(digits), F64),
        "digits, rank 8": (score, Gaussian.fit(digits, 8), F64),
        "network": (network, Gaussian.fit(digits.reshape(-1, 1, 8, 8)), torch.float32),
    }


def measure(sde: scoresde.AffineSDE, score: Any, gaussian: Gaussian, rtol: float, dtype: torch.dtype) -> dict[str, Any]:
    """One start."""
    adaptive = scoresde.fit_start(sde, score, gaussian, rtol=rtol, dtype=dtype, pilot=PILOT)
    fixed = scoresde.fit_start(sde, score, gaussian, rtol=rtol, dtype=dtype, pilot=PILOT, method="unipc2", steps=8)
    return {
        "samples": PILOT,
        "sigma / alpha": float(sde.sigma(adaptive.t) / sde.alpha(adaptive.t)),
        "adams": {"full": adaptive.full._asdict(), "warm": adaptive.warm._asdict()},
        "unipc2": {"full": fixed.full._asdict(), "warm": fixed.warm._asdict()},
    }


def main(arguments: list[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks warm_start", description=__doc__)
    add_images(parser)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    digits = shipped(options.images)
    for process, sde in PROCESSES.items():
        for name, (score, gaussian, dtype) in problems(sde, digits).items():
            by = results.setdefault(f"{name}, {process}", {})
            for rtol in TOLERANCES:
                by[f"{rtol:g}"] = row = measure(sde, score, gaussian, rtol, dtype)
                print(f"{name}, {process}, {rtol:g}: {row}", flush=True)
    if not options.no_write:
        digits.write("warm_start", results)
