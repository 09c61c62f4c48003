r"""The distribution of predictor-corrector sampling.

It has no order: with ever more steps the corrector moves ever more often at each level, and the distribution tends to
within the bias of its fixed points, whose variance is between v and :math:`v/(1-r^2\sigma^2/v) \le v/(1-r^2)` on
:math:`N(0, v)`. So errors must fall with the steps until they are below :math:`r^2/(1-r^2)`, relative to the variance.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import scoresde
from scoresde import testing
from scoresde.testing.kolmogorov import OBSERVABLES, expectations
from scoresde.testing.kolmogorov import expectations_of_law as exact
from tests.parameters import pairs

from .problems import MIXTURE, PROCESSES, affine_from

F64 = torch.float64
SNR = 0.16
BIAS = SNR**2 / (1 - SNR**2)  # 2.6 %
ORDERS = ("cp", "pc")
PREDICTORS = ("reverse_diffusion", "ancestral", "euler_maruyama", "ddim", "euler", "heun")


POSSIBLE = [
    m.name
    for m in scoresde.methods()
    if not m.adaptive and m.kind in ("sde", "ode") and m.name == m.solver.name != "pc" and not m.solver().looks_ahead
]


def both_orders(names: list[str]) -> list[Any]:
    """Every process in the default order and VP in both; the others in the second order are left to slow runs."""
    quick = [pytest.param(*case) for case in (*((name, "cp") for name in names), ("vp", "pc"))]
    return quick + [pytest.param(name, "pc", marks=pytest.mark.slow) for name in names if name != "vp"]


def gaussian(size: int, seed: int) -> scoresde.targets.Gaussian:
    """A random mean, and a random covariance whose eigenvalues span a factor of about a hundred."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=F64)
    covariance = root @ root.mT / size + 0.04 * torch.eye(size, dtype=F64)
    return scoresde.targets.Gaussian(0.5 * torch.randn(size, generator=generator, dtype=F64), covariance)


def law_error(target: scoresde.targets.Gaussian, sde: scoresde.AffineSDE, steps: int, **options: object) -> float:
    """The largest error of the mean (in standard deviations) and of the covariance (relative), from the prior on."""

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        given = {"method": "pc", "steps": steps, "shape": shape, "noise": draw, "dtype": F64, **options}
        return scoresde.solve(sde, target.score(sde), **given).x

    basis, values = target.spectrum.basis, target.spectrum.values.reshape(-1)
    assert basis is not None
    mean, covariance = testing.affine_law(run, target.event_shape, basis=basis)
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    std = (alpha**2 * values + sigma**2).sqrt()
    off = (basis.mT @ covariance @ basis) / std / std[:, None] - torch.eye(len(std), dtype=F64)
    shift = (basis.mT @ (mean - alpha * target.mean)) / std
    return max(float(torch.linalg.matrix_norm(off, 2)), float(shift.abs().max()))


@pytest.mark.parametrize(("name", "order"), both_orders([*PROCESSES]))
def test_law_on_a_gaussian_in_many_dimensions(name: str, order: str) -> None:
    target, sde = gaussian(16, 0), PROCESSES[name]
    few, many = (law_error(target, sde, n, order=order) for n in (20, 320))
    assert many < min(few, BIAS), (few, many)


@pytest.mark.cells(8)
@pytest.mark.parametrize(("which", "name"), pairs(map(" ".join, product(PREDICTORS, ORDERS)), ["ve", "vp", "flow"]))
def test_law_with_every_predictor(which: str, name: str) -> None:
    predictor, order = which.split()
    target, sde = gaussian(6, 1), PROCESSES[name]
    few, many = (law_error(target, sde, n, order=order, predictor=predictor) for n in (20, 320))
    assert many < min(few, BIAS), (few, many)


def test_the_list_of_predictors_is_complete() -> None:
    """Every fixed-step method that can be a predictor."""
    assert set(POSSIBLE) >= set(PREDICTORS) and len(POSSIBLE) > 40
    for name in ("unipc3", "sa_solver", "restart", "rk45", "pc"):
        with pytest.raises(scoresde.InvalidArgumentError, match="predictor"):
            scoresde.solvers.make_solver("pc", {"predictor": name})


@pytest.mark.parametrize("predictor", [name for name in POSSIBLE if name not in (*PREDICTORS, "ddim_eta")])
def test_law_with_any_predictor(predictor: str) -> None:
    """On VP, with enough steps for the methods of order 1 in time; ddim_eta makes the steps of ancestral."""
    target, sde = gaussian(3, 1), PROCESSES["vp"]
    few, many = (law_error(target, sde, n, predictor=predictor) for n in (20, 100))
    assert many < 1.5 * BIAS and (many < few or few < BIAS), (few, many)  # some are within the bias at once


def test_a_predictor_without_noise_follows_the_probability_flow() -> None:
    """With a corrector that hardly moves, the distribution is the flow's: here with many steps, to a thousandth."""
    target, sde = gaussian(3, 2), scoresde.VPSDE()
    for predictor in ("heun", "ddim"):
        steps = 100 if predictor == "heun" else 1000
        assert law_error(target, sde, steps, predictor=predictor, snr=1e-4) < 0.01, predictor


def test_smaller_moves_mean_a_smaller_bias() -> None:
    """A level kept for long: the bias is the corrector's fixed point's, proportional to the square of r."""
    sde = scoresde.VPSDE()
    target = scoresde.targets.Gaussian(torch.zeros(1, dtype=F64), 0.3)
    times = scoresde.grids.log_snr(sde, 0.22, 0.2, 500)
    biases = []
    for snr in (0.16, 0.08):
        affine = affine_from(target, sde, times, "pc", predictor="ancestral", snr=snr)
        sigma = float(sde.sigma(0.2))
        v = 0.3 * float(sde.alpha(0.2)) ** 2 + sigma**2
        bias = float(affine.covariance) / v - 1
        assert bias == pytest.approx(1 / (1 - snr**2 * sigma**2 / v) - 1, rel=0.03)
        biases.append(bias)
    assert biases[0] / biases[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("name", "order"), both_orders(["ve", "vp", "flow"]))
def test_expectations_on_a_mixture_improve_with_steps(name: str, order: str) -> None:
    """Without Monte Carlo, by the backward recursion with two draws per step, from sigma/alpha = 5 on."""
    sde = PROCESSES[name]
    t_start, t_end = float(sde.time(-3.2)), float(sde.time(4.6))
    truth = exact(MIXTURE, sde, t_end)
    off = []
    for steps in (6, 18, 54):
        times = scoresde.grids.log_snr(sde, t_start, t_end, steps)
        got = expectations(MIXTURE, sde, times, "pc", draws=2, points=151, nodes=6, order=order)
        off.append(np.abs(got - truth))
    for j, observable in enumerate(OBSERVABLES):
        few, some, many = (float(row[j]) for row in off)
        assert few > some > many and many < 0.05, (observable, few, some, many)


# --- a mixture in three dimensions, by seeded Monte Carlo -------------------------------------------------------------

# False alarms: 1e-6 per comparison, two-sided (4.9 standard errors); 12 numbers in each of 16 tests at most: 1.9e-4.
# A bias of the mean above 0.22 standard deviations, or of a covariance above a quarter, is seen nearly always.
SIGMAS = 4.892
SAMPLES, MIXTURE_STEPS = 2000, 120
ALLOWED = 0.08  # bias: of the mean in standard deviations, of covariances relative to the variances


@pytest.mark.parametrize(
    ("name", "order", "predictor"),
    [
        *(pytest.param(*p.values, "reverse_diffusion", marks=p.marks) for p in both_orders(["ve", "vp", "flow"])),
        ("vp", "pc", "ancestral"),
        *(pytest.param("vp", "cp", p, marks=pytest.mark.slow) for p in ("euler_maruyama", "ddim", "euler", "heun")),
    ],
)
def test_moments_on_a_mixture_in_three_dimensions(name: str, order: str, predictor: str) -> None:
    """Mean and covariance against the exact ones. A difference passes if it is explained by 4.9 standard errors and a
    bias of 8 %, the predictor's and the corrector's together: on Gaussians it is 1 % to 7 % at these steps."""
    generator = torch.Generator().manual_seed(7)
    means = torch.tensor([[-1.0, 0.5, 0.0], [0.8, -0.6, 1.0], [0.5, 1.0, -1.2]], dtype=F64)
    roots = 0.35 * torch.randn(3, 3, 3, generator=generator, dtype=F64)
    covariances = roots @ roots.mT + 0.05 * torch.eye(3, dtype=F64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    target = scoresde.targets.GaussianMixture(weights, means, covariances)
    sde = PROCESSES[name]
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    mean = weights @ means
    centred = means - mean
    data_cov = (weights[:, None, None] * (covariances + centred[:, :, None] * centred[:, None, :])).sum(0)
    covariance = alpha**2 * data_cov + sigma**2 * torch.eye(3, dtype=F64)
    options = {"method": "pc", "steps": MIXTURE_STEPS, "order": order, "predictor": predictor, "dtype": F64}
    x = scoresde.solve(sde, target.score(sde), shape=(SAMPLES, 3), seed=2024, **options).x
    std = covariance.diag().sqrt()
    z = (x - alpha * mean) / std
    products = z[:, :, None] * z[:, None, :]
    for values, truth in ((z, torch.zeros(3, dtype=F64)), (products, covariance / std / std[:, None])):
        error = (values.mean(0) - truth).abs()
        allowed = SIGMAS * values.std(0) / math.sqrt(SAMPLES) + ALLOWED
        assert bool((error <= allowed).all()), (error, allowed)
