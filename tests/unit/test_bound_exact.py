"""The terms of the bound against closed forms and quadrature: nothing here is drawn at random."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import targets, variational_bound
from scoresde.core.processes import Network
from scoresde.likelihood.bounds.levels import continuous, discrete
from scoresde.likelihood.bounds.terms import prior_term
from scoresde.likelihood.bounds.variational import squares

from .quadrature import NORMAL, hermite, legendre

F64 = torch.float64
PROCESSES = {
    "vp": scoresde.VPSDE(),
    "ve": scoresde.VESDE(),
    "edm": scoresde.EDMSDE(),
    "sub_vp": scoresde.SubVPSDE(),
    "cosine": scoresde.CosineVPSDE(),
    "flow": scoresde.FlowSDE(),
    "vdm": scoresde.VDMSDE(),
    "general": scoresde.GaussianSDE(lambda t: torch.exp(-t * t), lambda t: torch.sin(t), 0.01, 1.3),
}
MEAN, VARIANCE = 0.4, 0.3
TARGET = targets.Gaussian(torch.tensor([MEAN], dtype=F64), VARIANCE)
X, NOISE, WEIGHTS = NORMAL.pairs(3)


def mean_square(sde: Any, place: Any, u: Tensor, score: Any = None) -> Tensor:
    """The diffusion term's integrand at each u, in expectation over data and noise: 3 x 3 nodes, exact for a linear
    score."""
    network = Network(TARGET.score(sde) if score is None else score)
    return torch.stack([squares(network, X, NOISE, place, v.expand(9)) for v in u]) @ WEIGHTS


def closed_error(gamma: Tensor) -> Tensor:
    """E|eps - eps_hat|^2 with the exact score."""
    return VARIANCE * (-gamma).exp() / (1 + VARIANCE * (-gamma).exp())


def closed_integral(low: float, high: float) -> float:
    return 0.5 * (math.log1p(VARIANCE * math.exp(-low)) - math.log1p(VARIANCE * math.exp(-high)))


def law_at(sde: Any, t: float) -> tuple[float, float]:
    """Mean and variance."""
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    return alpha * MEAN, alpha**2 * VARIANCE + sigma**2


def normal_divergence(mean: float, variance: float, other: float, base: float) -> float:
    ratio = variance / base - 1
    return 0.5 * (ratio - math.log1p(ratio) + (mean - other) ** 2 / base)


def mean_prior(sde: Any) -> float:
    """In expectation over the data."""
    return float(prior_term(X, sde.node(sde.t_max), sde.prior).value @ WEIGHTS)


@pytest.mark.parametrize("clock", ["log_snr", "time"])
@pytest.mark.parametrize("name", PROCESSES)
def test_the_gap_is_the_divergence_at_the_end(name: str, clock: str) -> None:
    """With the exact score the bound, averaged over the data, is the entropy at t_min plus KL(p_T || prior)."""
    sde = PROCESSES[name]
    u, w = legendre(200 if clock == "time" else 80)
    u, w = (u**4, w * 4 * u**3) if clock == "time" else (u, w)  # the levels change fastest near the data
    diffusion = float(mean_square(sde, continuous(sde, clock), u) @ w)
    low, high = (-float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max))
    assert diffusion == pytest.approx(closed_integral(low, high), rel=1e-9)
    entropy = 0.5 * math.log(2 * math.pi * math.e * float(sde.sigma(sde.t_min)) ** 2)
    law = 0.5 * math.log(2 * math.pi * math.e * law_at(sde, sde.t_min)[1])
    gap = mean_prior(sde) + diffusion + entropy - law
    expected = normal_divergence(*law_at(sde, sde.t_max), 0.0, sde.prior.std**2)
    assert gap == pytest.approx(expected, abs=1e-8 if clock == "time" else 2e-12)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_bound_of_score_matching_is_the_same_number(name: str) -> None:
    """-E ln pi(x_T) + 1/2 int E[g^2 |s - grad|^2 - g^2 |grad|^2 - 2 div f] dt, from the process's public functions and
    with a wrong score, is prior + diffusion + entropy."""
    sde = PROCESSES[name]
    guess = targets.Gaussian(torch.tensor([-0.2], dtype=F64), 0.7)
    u, w = legendre(400)
    t = sde.t_min + (sde.t_max - sde.t_min) * u**4
    dt = (sde.t_max - sde.t_min) * w * 4 * u**3
    alpha, sigma, g2 = sde.alpha(t), sde.sigma(t), sde.diffusion(t).square()
    z, wz = hermite(3)
    x = (MEAN + VARIANCE**0.5 * z)[:, None, None]  # (3, 1, 1) data, (3, 1) noise, (400,) times
    state, conditional = alpha * x + sigma * z[:, None], -z[:, None] / sigma
    shape = torch.broadcast_shapes(state.shape, t.shape)
    state, times = state.expand(shape).reshape(-1, 1), t.expand(shape).reshape(-1)
    score = guess.score(sde)(state, times).reshape(shape)
    f = sde.drift(torch.ones(len(t), 1, dtype=F64), t)[:, 0]
    integrand = g2 * (score - conditional).square() - g2 * conditional.square() - 2 * f
    inner = torch.einsum("i,j,ijk->k", wz, wz, integrand)
    end_mean, end_variance = law_at(sde, sde.t_max)
    s2 = sde.prior.std**2
    cross = 0.5 * math.log(2 * math.pi * s2) + 0.5 * (end_variance + end_mean**2) / s2
    dsm = cross + 0.5 * float(inner @ dt)

    place, (u, w) = continuous(sde, "log_snr"), legendre(80)
    diffusion = float(mean_square(sde, place, u, guess.score(sde)) @ w)
    entropy = 0.5 * math.log(2 * math.pi * math.e * float(sde.sigma(sde.t_min)) ** 2)
    assert mean_prior(sde) + diffusion + entropy == pytest.approx(dsm, abs=1e-7 * max(1.0, abs(dsm)))


def test_importance_sampling_of_time_is_the_published_one() -> None:
    """t in proportion to g^2/sigma^2: closed forms of VP and VE, and the totals of VP and sub-VP on [1e-5, 1]."""
    u = torch.linspace(0, 1, 41, dtype=F64)
    vp, sub, ve = (c(t_min=1e-5) for c in (scoresde.VPSDE, scoresde.SubVPSDE, scoresde.VESDE))
    low, high = (0.1 * t + 0.5 * 19.9 * t**2 for t in (1e-5, 1.0))
    b = ((1 - u) * math.log(math.expm1(low)) + u * math.log(math.expm1(high))).exp().log1p()
    expected = (-0.1 + (0.01 + 2 * 19.9 * b).sqrt()) / 19.9
    node, weight = continuous(vp, "log_snr").at(u)
    assert torch.allclose(node.t, expected, rtol=1e-9) and float(weight[0]) == pytest.approx(23.8645, abs=1e-4)
    assert float(continuous(sub, "log_snr").at(u)[1][0]) == pytest.approx(37.6789, abs=1e-4)
    assert torch.allclose(continuous(ve, "log_snr").at(u)[0].t, 1e-5 + (1 - 1e-5) * u, rtol=1e-9)


@pytest.mark.parametrize("clock", ["log_snr", "time"])
@pytest.mark.parametrize("name", PROCESSES)
def test_steps_come_down_to_continuous_time(name: str, clock: str) -> None:
    """The sum over steps, of what is evaluated and with the weights that it has, is above the integral, by O(1/n)."""
    sde = PROCESSES[name]
    low, high = (-float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max))
    integral, gaps = closed_integral(low, high), []
    for n in (400, 800, 1600):
        times = sde.time(torch.linspace(-low, -high, n + 1, dtype=F64))
        times[0], times[-1] = sde.t_min, sde.t_max
        place = discrete(sde, times, clock)
        share = torch.expm1(-sde.log_snr(times).diff()) if clock == "log_snr" else times.diff()
        edges = torch.cat([share.new_zeros(1), share.cumsum(0)]) / share.sum()
        node, weight = place.at(0.5 * (edges[1:] + edges[:-1]))
        assert torch.allclose(node.t, times[1:], rtol=0, atol=1e-14)
        gaps.append(float(0.5 * (edges.diff() * weight) @ closed_error(-2 * node.lam)) - integral)
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert min(gaps) > 0
    assert slopes == pytest.approx([1.0, 1.0], abs=0.06)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_step_is_a_divergence_of_posteriors(name: str) -> None:
    """KL(q(x_s|x_t, x) || q(x_s|x_t, x_hat)) from `posterior`, for some network."""
    sde = PROCESSES[name]
    s, t = (sde.t_min + share * (sde.t_max - sde.t_min) for share in (0.3, 0.45))
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn((2, 5, 3), generator=generator, dtype=F64)
    model = scoresde.ScoreModel(lambda x, t: torch.tanh(x), sde, "data")
    state, _ = sde.perturb(x, t, z)
    (mean, std), (guess, _) = (sde.posterior(state, x0, s, t) for x0 in (x, model.data(state, t)))
    expected = 0.5 * ((mean - guess) / std).square().sum(1)
    place = discrete(sde, torch.tensor([s, t], dtype=F64), "time")
    assert torch.allclose(squares(Network(model), x, z, place, torch.full((5,), 0.5, dtype=F64)), expected, rtol=1e-9)


def test_steps_of_the_public_function() -> None:
    """One level at which all is known: a grid of one step, whose noise is given."""
    sde = scoresde.VPSDE()
    for steps, low, t in ((1, sde.t_min, sde.t_max), (torch.tensor([0.2, 0.05], dtype=F64), 0.05, 0.2)):
        options: dict[str, Any] = {"steps": steps, "draws": 2, "seed": 0, "noise": lambda k, like: NOISE}
        bound = variational_bound(sde, TARGET.score(sde), X, **options)
        gamma = -sde.log_snr(torch.tensor([low, t], dtype=F64))
        expected = 0.5 * float(gamma.diff().expm1() * closed_error(gamma[1]))
        assert float(bound.diffusion.value @ WEIGHTS) == pytest.approx(expected, rel=1e-9)
        mean, variance = law_at(sde, t)
        prior = 0.5 * (variance + mean**2 - 1) - math.log(sde.sigma(t))
        assert float(bound.prior.value @ WEIGHTS) == pytest.approx(prior, rel=1e-9)


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_a_decoder_bounds_the_data_themselves(name: str) -> None:
    """Through N(x_hat, sigma^2/alpha^2), with the exact score: the whole is the entropy of the data plus the
    divergences at both ends."""
    sde = PROCESSES[name]
    options: dict[str, Any] = {"decoder": True, "draws": 2, "seed": 0, "noise": lambda k, like: NOISE}
    bound = variational_bound(sde, TARGET.score(sde), X, **options)
    reconstruction = float(bound.reconstruction.value @ WEIGHTS)
    first = sde.node(sde.t_min)
    rho2 = (first.sigma / first.alpha) ** 2
    posterior = VARIANCE * rho2 / (VARIANCE + rho2)  # of the data given z
    assert reconstruction == pytest.approx(0.5 * math.log(2 * math.pi * rho2) + 0.5 * posterior / rho2, rel=1e-9)
    assert bound.nfe == 4
    low, high = (-float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max))
    total = mean_prior(sde) + closed_integral(low, high) + reconstruction
    entropy = 0.5 * math.log(2 * math.pi * math.e * VARIANCE)
    ends = normal_divergence(*law_at(sde, sde.t_max), 0.0, sde.prior.std**2)
    ends += normal_divergence(0.0, posterior, 0.0, rho2)
    assert total == pytest.approx(entropy + ends, abs=1e-11)


def test_a_decoder_of_grey_values() -> None:
    """The mass of the last step in a cell, by differences of the normal integral."""
    sde = scoresde.VPSDE(t_min=0.05)
    v = torch.tensor([[0, 1, 2, 3]])
    noise = torch.tensor([[0.3, -0.5, 1.0, -2.0]], dtype=F64)
    model = scoresde.ScoreModel(lambda x, t: 0.5 * x, sde, "data")
    torch.set_default_dtype(F64)
    options: dict[str, Any] = {"decoder": True, "draws": 2, "levels": 4, "data_range": (-2.0, 2.0)}
    got = variational_bound(sde, model, v, noise=lambda k, like: noise, seed=0, **options)
    alpha, sigma = float(sde.alpha(0.05)), float(sde.sigma(0.05))
    mean = 0.5 * (alpha * (v.double() - 1.5) + sigma * noise)
    edges = torch.tensor([-math.inf, -1.0, 0.0, 1.0, math.inf], dtype=F64)
    cdf = [torch.special.ndtr((edges[v + k] - mean) / (sigma / alpha)) for k in (0, 1)]
    assert float(got.reconstruction.value) == pytest.approx(-float((cdf[1] - cdf[0]).log().sum()), rel=1e-9)
    assert float(got.reconstruction.std_error) == 0.0
