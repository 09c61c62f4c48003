"""Distributions of guided sampling, against closed forms.

With the exact classifier of a mixture and scale 1, the guided score is that of one component: every method must do what
it does on that Gaussian. With a larger scale neither the flow nor the reverse SDE has the tilted distribution, and
Langevin moves do; the figures are quadratures, not samples.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import guidance, targets, testing
from scoresde.testing.kolmogorov import expectations
from tests.parameters import ways

from .problems import PROCESSES

F64 = torch.float64
MEANS = torch.tensor([[-1.0, 0.4], [0.6, -0.3], [1.5, 1.0]], dtype=F64)
SCALES = torch.tensor([0.5, 0.3, 0.8], dtype=F64)
MIXTURE = targets.GaussianMixture(torch.tensor([0.3, 0.5, 0.2], dtype=F64), MEANS, scales=SCALES)
COMPONENT = targets.Gaussian(MEANS[1], float(SCALES[1]) ** 2)


def classifier(target: targets.GaussianMixture, sde: scoresde.AffineSDE, k: int = 1):
    return lambda x, t: target.log_responsibilities(x, sde, t)[:, k]


def guided(sde: scoresde.AffineSDE, scale: float = 1.0):
    return guidance.classifier_guidance(MIXTURE.score(sde), classifier(MIXTURE, sde), scale)


def test_scale_one_is_the_conditional_law_for_every_way_of_stepping() -> None:
    """The same solve, with the component's own score: equal but for rounding, and for what an adaptive method makes of
    it."""
    sde = scoresde.VPSDE()
    for method in ways():
        adaptive = scoresde.solvers.make_solver(method, {}).adaptive
        options: dict[str, float] = {"rtol": 1e-2, "atol": 1e-2} if adaptive else {"steps": 12}
        if method == "adams":  # the same clock for both, which otherwise follows the standard deviation of their data
            options["spread"] = 0.2
        if method != "ggf":  # whose accepted steps hang on the last digit: two scores that differ by 1e-13 part
            x, exact = (
                scoresde.solve(sde, f, method=method, seeds=range(6), dtype=F64, **options).x
                for f in (guided(sde), COMPONENT.score(sde))
            )
            assert float((x - exact).abs().max()) < (1e-6 if adaptive else 1e-9), method


@pytest.mark.parametrize("name", PROCESSES)
def test_the_guided_flow_is_the_flow_of_the_component(name: str) -> None:
    """The error falls with the tolerance, on every process."""
    sde = PROCESSES[name]
    x = sde.prior.std * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    exact = COMPONENT.flow_map(x, sde, sde.t_max, sde.t_min)
    errors = [
        float((scoresde.solve(sde, guided(sde), x, method="rk45", rtol=tol, atol=tol).x - exact).abs().max())
        for tol in (1e-3, 1e-7)
    ]
    assert errors[0] > errors[1] and errors[1] < 1e-5, errors


def law(sde: scoresde.AffineSDE, steps: int, **options: object) -> tuple[Tensor, Tensor]:
    def run(shape: tuple[int, ...], draw: testing.Draw) -> Tensor:
        return scoresde.solve(sde, guided(sde), steps=steps, shape=shape, noise=draw, dtype=F64, **options).x

    return testing.affine_law(run, (2,), basis=torch.eye(2))


@pytest.mark.parametrize(
    "options",
    [{"method": "pc", "snr": 0.05}, {"method": "ancestral"}, {"method": "dpmpp_2m_sde"}, {"method": "euler_maruyama"}],
)
def test_the_law_of_stochastic_methods_is_the_components(options: dict[str, object]) -> None:
    """By probing, without Monte Carlo: the score is affine where the guidance is right. (A shift of the mean weighs the
    score and the guidance otherwise, so that its steps are not affine; it is compared with this form below.)"""
    sde = scoresde.VPSDE()
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    variance = alpha**2 * float(SCALES[1]) ** 2 + sigma**2
    errors = []
    for steps in (20, 60, 180):
        mean, covariance = law(sde, steps, **options)
        off = (covariance / variance - torch.eye(2, dtype=F64)).abs().max()
        errors.append(float(torch.maximum(off, ((mean - alpha * MEANS[1]) / variance**0.5).abs().max())))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.1, errors  # of order 1


def test_the_likelihood_of_the_guided_flow_is_the_components() -> None:
    """Gradients go through the gradient of the classifier."""
    sde = scoresde.VPSDE()
    x = COMPONENT.sample(3, sde, sde.t_min, torch.Generator().manual_seed(0))
    prior = SimpleNamespace(log_prob=lambda z: COMPONENT.log_prob(z, sde, sde.t_max))
    got = scoresde.log_likelihood(sde, guided(sde), x, divergence="exact", prior=prior)
    assert torch.allclose(got.log_prob, COMPONENT.log_prob(x, sde, sde.t_min), atol=1e-4)


# --- the shift of the mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["small", "large"])
def test_shift_of_the_mean_is_the_published_one(variance: str) -> None:
    """One step without noise: the mean without guidance, and scale times Sigma times the gradient at the start."""
    sde, scale = scoresde.VPSDE(), 1.7
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    s, t = 0.5, 0.4
    base, log_prob = MIXTURE.score(sde), classifier(MIXTURE, sde)
    grid = torch.tensor([s, t], dtype=F64)

    def step(f, **options):
        quiet = lambda k, like: torch.zeros_like(like)  # noqa: E731
        return scoresde.solve(sde, f, x, method="ancestral", grid=grid, noise=quiet, variance=variance, **options).x

    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_prob(y, torch.full((4,), s, dtype=F64)).sum(), y)
    alpha_s, alpha_t, sigma_s, sigma_t = (float(v) for v in (*map(sde.alpha, (s, t)), *map(sde.sigma, (s, t))))
    beta = 1 - (alpha_s / alpha_t) ** 2
    sigma2 = beta if variance == "large" else beta * sigma_t**2 / sigma_s**2  # DDPM's two variances
    score_fn = guidance.classifier_guidance(base, log_prob, scale)
    shift = step(score_fn, condition="mean") - step(base)
    assert torch.allclose(shift, scale * sigma2 * slope, rtol=1e-9, atol=1e-12)
    ratio = alpha_s / alpha_t * (1.0 if variance == "large" else sigma_t**2 / sigma_s**2)
    assert torch.allclose(shift, ratio * (step(score_fn) - step(base)), rtol=1e-9, atol=1e-12)


def test_shift_of_the_mean_needs_guidance_that_has_one() -> None:
    sde = scoresde.VPSDE()
    for f in (MIXTURE.score(sde), scoresde.scores.Clip(guided(sde), -9, 9), lambda x, t: -x):
        with pytest.raises(scoresde.InvalidArgumentError, match="condition"):
            scoresde.solve(sde, f, method="ancestral", condition="mean", shape=(2, 2), steps=3)
    with pytest.raises(scoresde.InvalidArgumentError, match="condition"):
        scoresde.solvers.Ancestral(condition="means")


# --- scales above one: the tilted distribution -----------------------------------------------------------------------

PAIR = targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=0.8)
SDE = scoresde.VPSDE()
TILTED = guidance.classifier_guidance(PAIR.score(SDE), classifier(PAIR, SDE), 3.0)


def moments(x: np.ndarray) -> np.ndarray:
    return np.stack([x, x * x], axis=1)


def law_of(method: str, steps: int, **options: object) -> tuple[float, float]:
    """Mean and variance of a guided method, by the backward recursion."""
    times = scoresde.grids.log_snr(SDE, SDE.t_max, SDE.t_min, steps)
    options = {"points": 201, "nodes": 10, "score_fn": TILTED, "function": moments, **options}
    first, second = expectations(PAIR, SDE, times, method, **options)
    return float(first), float(second - first**2)


def tilted() -> tuple[float, float]:
    """Of p(x) p(y|x)^3, by quadrature."""
    x = torch.linspace(-9, 9, 4001, dtype=F64)[:, None]
    log_p = PAIR.log_prob(x) + 3 * PAIR.log_responsibilities(x)[:, 1]
    p = log_p.softmax(0)
    mean = p @ x[:, 0]
    return float(mean), float(p @ x[:, 0] ** 2 - mean**2)


def test_flow_and_reverse_sde_miss_the_tilted_law_and_differ() -> None:
    """The figures of the documentation: mean and variance at scale 3."""
    assert tilted() == (pytest.approx(1.27, abs=5e-3), pytest.approx(0.43, abs=5e-3))
    u = (torch.arange(400, dtype=F64) + 0.5) / 400
    x = torch.special.ndtri(u)[:, None]
    ends = scoresde.solve(SDE, TILTED, x, method="dop853", rtol=1e-6, atol=1e-6).x
    assert float(ends.mean()) == pytest.approx(1.83, abs=5e-3)
    assert float(ends.var(correction=0)) == pytest.approx(0.26, abs=5e-3)
    few, many = (law_of("ancestral", n) for n in (80, 160))
    mean, variance = (2 * b - a for a, b in zip(few, many, strict=True))  # of order 1: extrapolated
    assert (mean, variance) == (pytest.approx(1.55, abs=1e-2), pytest.approx(0.39, abs=1e-2))


def test_langevin_moves_reach_the_tilted_law() -> None:
    """The moves at a level know that level only; with many levels the distribution follows, to the moves' bias."""
    mean, variance = tilted()
    errors = []
    for steps in (40, 80, 160):
        a, b = law_of("langevin", steps, snr=0.5, points=121, nodes=8)
        errors.append(abs(a - mean) + abs(b - variance))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.025, errors


def test_a_corrector_moves_the_reverse_sde_towards_it() -> None:
    mean, variance = tilted()
    plain = law_of("ancestral", 60)
    some, many = (law_of("pc", 60, draws=2, nodes=6, points=121, predictor="ancestral", snr=r) for r in (0.3, 0.6))
    gaps = [abs(a - mean) + abs(b - variance) for a, b in (plain, some, many)]
    assert gaps[0] > 1.5 * gaps[1] > 3 * gaps[2], gaps


# --- other distributions ----------------------------------------------------------------------------------------------


def test_a_mixture_of_laws_has_its_own_score() -> None:
    parts = [targets.Gaussian(m, float(s) ** 2) for m, s in zip(MEANS, SCALES, strict=True)]
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for name in ("vp", "ve", "flow"):
        sde = PROCESSES[name]
        logs = [lambda x, t, p=p, sde=sde: p.log_prob(x, sde, t) for p in parts]
        whole = guidance.mixture([p.score(sde) for p in parts], logs, [0.3, 0.5, 0.2])
        for t in (sde.t_min, 0.3, sde.t_max):
            got, exact = whole.estimate(x, sde.node(t)), MIXTURE.score(sde).estimate(x, sde.node(t))
            for a, b in zip(got, exact, strict=True):
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), (name, t)


def test_temperature_is_exact_for_isotropic_gaussians() -> None:
    """Estimates, at both ends and between, are those of N(m, T v)."""
    v, x = float(SCALES[1]) ** 2, torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for name, value in itertools.product(PROCESSES, (0.3, 2.5)):
        sde = PROCESSES[name]
        tempered = guidance.temperature(COMPONENT.score(sde), value, variance=v)
        exact = targets.Gaussian(MEANS[1], value * v).score(sde)
        for t in (sde.t_min, 0.5 * (sde.t_min + sde.t_max), sde.t_max):
            for a, b in zip(tempered.estimate(x, sde.node(t)), exact.estimate(x, sde.node(t)), strict=True):
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), (name, value, t)


def test_product_of_gaussians_with_a_base_has_the_products_score() -> None:
    """At every time: p_1 p_2 / p_b of the distributions diffused to it."""
    sde = scoresde.VPSDE()
    a, b, base = (targets.Gaussian(m, v) for m, v in ((MEANS[0], 0.2), (MEANS[1], 0.3), (MEANS[2], 1.5)))
    joint = guidance.product(a.score(sde), b.score(sde), base=base.score(sde))
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
    log_p = a.log_prob(x, sde, 0.3) + b.log_prob(x, sde, 0.3) - base.log_prob(x, sde, 0.3)
    (slope,) = torch.autograd.grad(log_p.sum(), x)
    assert torch.allclose(joint(x, 0.3), slope, rtol=1e-9)


@pytest.mark.parametrize("through", [True, False])
def test_likelihood_guidance_of_a_linear_observation(through: bool) -> None:
    r"""On a Gaussian the data estimate is affine, :math:`\hat x = m + K(x - \alpha m)`, and so is the gradient."""
    sde, t = scoresde.VPSDE(), 0.3
    cov = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64)
    target, seen = targets.Gaussian(MEANS[0], cov), torch.tensor([1.0, -0.4], dtype=F64)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    guided = guidance.likelihood_guidance(
        target.score(sde), lambda data: -((data @ seen - 0.7) ** 2) / (2 * 0.1), through=through
    )
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    gain = alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * torch.eye(2, dtype=F64))
    data = MEANS[0] + (x - alpha * MEANS[0]) @ gain.mT
    slope = -((data @ seen - 0.7) / 0.1)[:, None] * seen
    expected = slope @ gain if through else slope / alpha
    assert torch.allclose(guided(x, t) - target.score(sde)(x, t), expected, rtol=1e-8, atol=1e-10)
