"""Chains, likelihood weighting and the bound of variational diffusion models, against closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import ScoreModel, losses
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, ScoreSDEError
from scoresde.discrete import BetaChain, NoiseScales

from .quadrature import NORMAL, Given, Line, Off, hermite, legendre
from .refusals import assert_refused

F64 = torch.float64
V, T = InvalidArgumentError, InvalidTypeError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaussian_kl() -> None:
    """Against torch's, and a divergence of distributions that hardly differ, where ratios would cancel."""
    m, v, w = (torch.tensor([x], dtype=F64) for x in (0.7, 0.3, 1.9))
    laws = [torch.distributions.Normal(c * m, x.sqrt()) for c, x in ((1, v), (0, w))]
    torch.testing.assert_close(losses.gaussian_kl(m, v.log(), w.log()), torch.distributions.kl_divergence(*laws))
    near = losses.gaussian_kl(0 * m, 1e-6, 0.0)
    assert float(near) == pytest.approx(0.25e-12, rel=1e-3)
    numbers = losses.gaussian_kl(m, math.log(0.3), math.log(1.9))  # float64 all the way
    torch.testing.assert_close(numbers, torch.distributions.kl_divergence(*laws), rtol=1e-14, atol=0.0)
    prior = scoresde.NormalPrior(2.0, 0.5)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(torch.tensor([[0.3, 0.6]]), 0.8), torch.distributions.Normal(0.5, 2.0)
    )
    torch.testing.assert_close(losses.prior_kl(torch.tensor([[0.5, 1.0]]), 0.6, 0.8, prior), exact.sum(1))


@pytest.mark.parametrize(("levels", "grid"), [(2, "cells"), (17, "ends"), (256, "ends"), (256, "cells")])
def test_grey_values_have_probabilities(levels: int, grid: str) -> None:
    """They add up to 1, are those of the bins, and keep their digits far away."""
    first, width, count = losses.grey_values(levels, (-1.0, 1.0), grid)
    x = first + width * torch.arange(count, dtype=F64)
    for mean, log_variance in ((0.3, -1.0), (-0.9, -6.0), (2.5, 0.5)):
        got = losses.discretised_log_prob(x, mean + 0 * x, log_variance, levels=levels, grid=grid)
        assert float(got.exp().sum()) == pytest.approx(1.0, rel=1e-12)
        edges = first + width * (torch.arange(1, count, dtype=F64) - 0.5)
        below = torch.special.ndtr((edges - mean) * math.exp(-0.5 * log_variance))
        exact = torch.cat([below, torch.ones(1, dtype=F64)]) - torch.cat([torch.zeros(1, dtype=F64), below])
        torch.testing.assert_close(got.exp(), exact, rtol=1e-6, atol=1e-14)
    far = losses.discretised_log_prob(x[:1], torch.tensor([9.0], dtype=F64), -8.0, levels=levels, grid=grid)
    distance = (9.0 - float(x[0]) - 0.5 * width) * math.exp(4.0)
    assert float(far) == pytest.approx(-0.5 * distance**2, rel=1e-3)
    assert (x[0], x[-1]) == ((-1, 1) if grid == "ends" else (-1 + 1 / levels, 1 - 1 / levels))


def test_gradients_of_grey_values_do_not_vanish() -> None:
    """DDPM's clamp loses the gradient at 1e-12; here it is that of the normal distribution far away."""
    mean = torch.tensor([0.9], dtype=F64, requires_grad=True)
    value = losses.discretised_log_prob(torch.tensor([-0.2], dtype=F64), mean, -6.0)
    (slope,) = torch.autograd.grad(value.sum(), mean)
    assert float(slope) == pytest.approx(-1.1 * math.exp(6.0), rel=0.02)


def varied(chain: BetaChain) -> ScoreModel:
    """A network whose variance depends on the state."""

    def net(x: Tensor, i: Tensor) -> Tensor:
        return torch.cat([torch.tanh(x), 2 * torch.sigmoid(x) - 1], 1)

    return ScoreModel(net, chain.sde(), "noise", time_input="index", chain=chain, variance="learned_range")


@pytest.mark.parametrize("levels", [None, 16])
@pytest.mark.parametrize("variance", ["large", "small", "learned"])
def test_every_term_is_that_of_the_evaluation(variance: str, levels: int | None) -> None:
    """Level by level, with the same noise: the loss and `scoresde.chain_bound` are one bound."""
    chain = BetaChain.linear(10, 0.001, 0.1)
    model = varied(chain)
    v = torch.randint(0, 16, (3, 2), generator=seeded())
    x0, noise = -1 + 2 * v.to(F64) / 15, torch.randn(3, 2, generator=seeded(1), dtype=F64)
    terms = []
    for i in range(len(chain)):
        index = torch.full((3,), i)
        seen = losses.look(model, x0, noise, model.sde.nodes(chain.times[index]))
        terms.append(losses.chain_term(seen, losses.level_of(chain, index), variance=variance, levels=levels))
    torch.set_default_dtype(F64)
    options: dict[str, Any] = {"levels": levels, "data_range": (-16 / 15, 16 / 15), "variance": variance}
    bound = scoresde.chain_bound(chain, model, x0 if levels is None else v, noise=lambda k, like: noise, **options)
    torch.testing.assert_close(torch.stack(terms, 1), bound.steps.value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variance", ["large", "small", "learned"])
def test_terms_are_divergences_of_the_posterior(variance: str) -> None:
    """Against torch's divergence, with the process's posterior and the variances of the papers."""
    chain = BetaChain.linear(10, 0.02, 0.3)
    model, sde = varied(chain), chain.sde()
    x0, noise = (torch.randn(9, 2, generator=seeded(i), dtype=F64) for i in (0, 1))
    index = torch.arange(1, 10)
    seen = losses.look(model, x0, noise, sde.nodes(chain.times[index]))
    got = losses.chain_term(seen, losses.level_of(chain, index), variance=variance)
    betas, small = chain.betas, chain.posterior_variances
    clipped = torch.cat([small[1:2], small[1:]])
    share = torch.sigmoid(seen.state)
    large, least = betas[index, None].expand(9, 2), small[index, None].expand(9, 2)
    between = torch.exp(share * large.log() + (1 - share) * clipped[index, None].log())
    v = {"large": large, "small": least, "learned": between}[variance]
    for i in range(9):
        row = slice(i, i + 1)
        s, t = float(chain.times[i]), float(chain.times[i + 1])
        mean, std = sde.posterior(seen.state[row], x0[row], s, t)
        other, _ = sde.posterior(seen.state[row], seen.estimate.data[row], s, t)
        laws = torch.distributions.Normal(mean, std), torch.distributions.Normal(other, v[row].sqrt())
        assert float(got[i]) == pytest.approx(float(torch.distributions.kl_divergence(*laws).sum()), rel=1e-7)
    weighted = losses.chain_term(seen, losses.level_of(chain, index), variance=variance, form="weighted")
    alphas = 1 - betas
    factor = betas**2 / (2 * alphas * (1 - chain.alphas_bar))
    by_paper = (factor[index, None] / v * (torch.tanh(seen.state) - noise).square()).sum(1)
    torch.testing.assert_close(weighted, by_paper, rtol=1e-7, atol=1e-10)
    constant = 0.5 * (small[index, None] / v - 1 - (small[index, None] / v).log()).sum(1)
    torch.testing.assert_close(got - weighted, constant, rtol=1e-6, atol=1e-9)


def test_the_public_bound_is_prior_and_terms() -> None:
    """Levels given: T times the weight times the term, and the prior's divergence; in bits over D ln 2."""
    chain = BetaChain.linear(5, 0.05, 0.4)
    model = ScoreModel(lambda x, i: torch.tanh(x), chain.sde(), "noise", time_input="index", chain=chain)
    x0 = torch.randn(5, 2, generator=seeded(), dtype=F64)
    index = torch.arange(5)
    law = Given(chain.times, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=F64), index)
    got = losses.ddpm_vlb(model, x0, seeded(1), times=law)
    g = seeded(1)
    torch.rand(5, generator=g, dtype=F64)
    noise = torch.randn(5, 2, generator=g, dtype=F64)
    seen = losses.look(model, x0, noise, model.sde.nodes(chain.times))
    term = losses.chain_term(seen, losses.level_of(chain, index))
    alpha2 = float(chain.alphas_bar[-1])
    prior = 0.5 * (alpha2 * x0.square() + (1 - alpha2) - 1 - math.log(1 - alpha2)).sum(1)
    torch.testing.assert_close(got, 5 * law.made.weight * term + prior)
    bits = losses.ddpm_vlb(model, x0, seeded(1), times=law, unit="bits")
    torch.testing.assert_close(bits, got / (2 * math.log(2)))
    simple = losses.ddpm_simple(model, x0, seeded(1), times=law)
    torch.testing.assert_close(simple, law.made.weight * (torch.tanh(seen.state) - noise).square().mean(1))


class Two(nn.Module):
    """A mean and a variance of two parameters each that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = (nn.Parameter(torch.tensor([a, b], dtype=F64)) for a, b in ((0.6, 0.1), (0.8, -0.2)))

    def forward(self, x: Tensor, i: Tensor) -> Tensor:
        out = self.mean[0] * torch.tanh(x) + self.mean[1]
        return torch.cat([out, torch.tanh(self.spread[0] * x + self.spread[1])], 1)


@pytest.mark.parametrize("levels", [None, 16])
def test_the_hybrid_trains_mean_and_variance_apart(levels: int | None) -> None:
    """The gradient by the mean is that of the simple loss, the one by the variance 0.001 times that of the bound in
    bits, for every T: exactly, on the same draws."""
    for size in (10, 40):
        chain, net = BetaChain.linear(size, 0.01, 0.2), Two()
        model = ScoreModel(net, chain.sde(), "noise", time_input="index", chain=chain, variance="learned_range")
        x0 = -1 + 2 * torch.randint(0, 16, (64, 3), generator=seeded()).to(F64) / 15
        hybrid = losses.iddpm_hybrid(model, x0, seeded(1), levels=levels)
        simple = losses.ddpm_simple(model, x0, seeded(1))
        bound = losses.ddpm_vlb(model, x0, seeded(1), levels=levels, unit="bits")
        by = [torch.autograd.grad(v.mean(), [net.mean, net.spread], allow_unused=True) for v in (hybrid, simple, bound)]
        torch.testing.assert_close(by[0][0], by[1][0], rtol=1e-9, atol=1e-12)
        assert by[1][1] is None or float(by[1][1].abs().max()) == 0
        torch.testing.assert_close(by[0][1], 0.001 * by[2][1], rtol=1e-9, atol=1e-15)
        assert float(by[2][1].abs().min()) > 0
        double = losses.iddpm_hybrid(model, x0, seeded(1), levels=levels, vlb_weight=0.002)
        torch.testing.assert_close(double - simple, 2 * (hybrid - simple), rtol=1e-9, atol=1e-12)


PROCESSES: dict[str, Any] = {
    "vp": scoresde.VPSDE(),
    "sub_vp": scoresde.SubVPSDE(),
    "ve": scoresde.VESDE(),
    "flow": scoresde.FlowSDE(),
    "vdm": scoresde.VDMSDE(scoresde.LinearGamma(-5.0, 4.0)),
}


def diffusion(model: Any, line: Line, points: int = 14, **options: Any) -> Tensor:
    """The diffusion term, averaged over times, data and noise by quadrature: over times even in the log-SNR, whose
    weight is the derivative of the time."""
    x0, noise, weight = line.pairs(points)
    v, w = legendre(100)
    with torch.no_grad():
        draw = losses.LogUniform().at(model.sde, v)
    u = (draw.t - model.sde.t_min) / (model.sde.t_max - model.sde.t_min)
    n, m = len(u), len(x0)
    value = losses.diffusion_at(model, x0.repeat(n, 1), noise.repeat(n, 1), u.repeat_interleave(m), **options)
    return (w * draw.weight) @ (value.reshape(n, m) @ weight)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_bound_of_a_normal_law_is_its_entropy(process: str) -> None:
    """With the exact score: the entropy at t_min and the divergence of the distribution at t_max from the prior."""
    sde = PROCESSES[process]
    model = NORMAL.target.score(sde)
    ends = [(float(sde.alpha(t)), float(sde.sigma(t))) for t in (sde.t_min, sde.t_max)]
    variances = [a * a * 0.3 + s * s for a, s in ends]
    alpha, sigma = ends[1]
    x0, _, weight = NORMAL.pairs(8)
    prior = float(weight @ losses.prior_kl(x0, alpha, sigma, sde.prior))
    total = float(diffusion(model, NORMAL)) + prior + 0.5 * math.log(2 * math.pi * math.e * ends[0][1] ** 2)
    ratio = variances[1] / sde.prior.std**2
    away = (alpha * 0.4 / sde.prior.std) ** 2
    exact = 0.5 * math.log(2 * math.pi * math.e * variances[0]) + 0.5 * (ratio - 1 - math.log(ratio) + away)
    assert total == pytest.approx(exact, abs=1e-6)


def test_the_public_bound_has_three_terms() -> None:
    """Data at 0, an error of 1 in every entry: all terms are known."""
    sde = PROCESSES["vdm"]
    model = ScoreModel(lambda x, t: x / sde.sigma(t)[:, None] + 1, sde, "noise")
    x0 = torch.zeros(4, 3, dtype=F64)
    first, last = (float(sde.sigma(t)) ** 2 for t in (0.0, 1.0))
    rest = 3 * 0.5 * math.log(2 * math.pi * math.e * first) + 1.5 * (last - 1 - math.log(last))
    torch.testing.assert_close(losses.vdm(model, x0, seeded()), torch.full((4,), 1.5 * 9.0 + rest, dtype=F64))
    discrete = 1.5 * 10 * math.expm1(0.9)
    torch.testing.assert_close(losses.vdm(model, x0, seeded(), steps=10), torch.full((4,), discrete + rest, dtype=F64))
    t = torch.tensor([0.1, 0.4, 0.6, 0.8], dtype=F64)
    law = Given(t, torch.tensor([2.0, 3.0, 4.0, 5.0], dtype=F64))
    weighted = losses.vdm(model, x0, seeded(), times=law, weight=losses.Sigmoid(1.0))
    share = 1 / (1 + torch.exp(sde.log_snr(t) - 1))
    torch.testing.assert_close(weighted, 13.5 * law.made.weight * share + rest)


@pytest.mark.parametrize("levels", [2, 7])
def test_the_bound_of_grey_values_is_their_entropy(levels: int) -> None:
    """Even grey values and their exact denoiser: ln L, and the divergence of the distribution at t_max from the prior,
    which at gamma = 9 is below 1e-4; the clean end at gamma = -11 leaves the reconstruction to the noise. By
    quadrature.
    """
    first, width, count = losses.grey_values(levels)
    centres = (first + width * torch.arange(count, dtype=F64)).tolist()
    sde = scoresde.VDMSDE(scoresde.LinearGamma(-11.0, 9.0))
    line = Line([1 / count] * count, centres, [1e-18] * count)
    model = line.target.score(sde)
    z, w = hermite(80)
    x0, noise = (v.reshape(-1, 1) for v in torch.broadcast_tensors(torch.tensor(centres, dtype=F64)[:, None], z))
    weight = w.repeat(count) / count
    u, by = legendre(100)
    value = torch.stack([weight @ losses.diffusion_at(model, x0, noise, v.expand(len(x0))) for v in u])
    recon = weight @ losses.reconstruction(x0, sde.nodes(torch.tensor(0.0, dtype=F64)), noise, levels)
    prior = weight @ losses.prior_kl(x0, float(sde.alpha(1.0)), float(sde.sigma(1.0)), sde.prior)
    assert float(by @ value + recon + prior) == pytest.approx(math.log(levels), abs=2e-4)
    assert float(recon) < 0.02


def test_reconstruction_is_a_softmax_of_squares() -> None:
    sde = scoresde.VDMSDE(scoresde.LinearGamma(-2.0, 5.0))
    node = sde.nodes(torch.tensor(0.0, dtype=F64))
    v = torch.tensor([[0, 3], [2, 1]])
    x0 = -1 + 0.5 * (v.to(F64) + 0.5)
    noise = torch.randn(2, 2, generator=seeded(), dtype=F64)
    z = x0 + noise * math.exp(-1.0)
    logits = torch.stack([-0.5 * math.exp(2.0) * (z - (-0.75 + 0.5 * k)) ** 2 for k in range(4)], -1)
    exact = torch.nn.functional.cross_entropy(logits.reshape(-1, 4), v.flatten(), reduction="none").reshape(2, 2).sum(1)
    torch.testing.assert_close(losses.reconstruction(x0, node, noise, 4), exact)
    model = ScoreModel(lambda x, t: 0 * x, sde, "noise")
    evaluated = scoresde.variational_bound(sde, model, v, levels=4, draws=2, noise=lambda k, like: noise, seed=0)
    torch.testing.assert_close(evaluated.reconstruction.value, exact, rtol=1e-6, atol=1e-6)  # of float32 data
    with_levels = losses.vdm(model, x0, seeded(), levels=4)
    g = seeded()
    torch.rand((), generator=g, dtype=F64)
    torch.randn(2, 2, generator=g, dtype=F64)
    again = losses.reconstruction(x0, node, torch.randn(2, 2, generator=g, dtype=F64), 4)
    entropy = math.log(2 * math.pi * math.e * float(node.sigma) ** 2)
    torch.testing.assert_close(with_levels - losses.vdm(model, x0, seeded()), again - entropy)


def test_the_schedule_between_the_ends_does_not_matter() -> None:
    """A wrong model's diffusion term too, and with a weight of the SNR: to 1e-6, by quadrature."""
    cubic = scoresde.VDMSDE(lambda t: -5 + 9 * (0.4 * t + 0.6 * t**3))
    wavy = scoresde.VDMSDE(lambda t: -5 + 9 * (t + 0.1 * torch.sin(2 * math.pi * t)))
    for weight in ("constant", losses.Sigmoid(0.0)):
        models = [Off(NORMAL.target.score(s), lambda x: 0.2 * torch.sin(x)) for s in (PROCESSES["vdm"], cubic, wavy)]
        line, *bent = (float(diffusion(model, NORMAL, weight=weight)) for model in models)
        assert bent == pytest.approx([line, line], rel=1e-6)


def test_the_noisy_end_is_in_the_last_step() -> None:
    sde = scoresde.VDMSDE()
    model = scoresde.ScoreModel(lambda x, t: 0 * x, sde, "noise")
    x0, noise = torch.zeros(2, 3, dtype=F64), torch.ones(2, 3, dtype=F64)
    inside, end = losses.diffusion_at(model, x0, noise, torch.tensor([0.95, 1.0], dtype=F64), steps=10)
    assert inside == end and inside > 0


def test_steps_tend_to_continuous_time() -> None:
    """L_T - L falls as 1/T and L_T falls with T, by the sum over all steps and quadrature."""
    sde = PROCESSES["vdm"]
    model = NORMAL.target.score(sde)
    x0, noise, weight = NORMAL.pairs(14)
    limit = float(diffusion(model, NORMAL))

    def term(steps: int) -> float:
        u = (torch.arange(steps, dtype=F64) + 0.3) / steps
        value = losses.diffusion_at(
            model, x0.repeat(steps, 1), noise.repeat(steps, 1), u.repeat_interleave(len(x0)), steps=steps
        )
        return float((value.reshape(steps, -1) @ weight).mean())

    gaps = [term(steps) - limit for steps in (50, 100, 200, 400)]
    assert all(gap > 0 for gap in gaps)
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert slopes[-1] == pytest.approx(1.0, abs=0.03)


class Gamma(nn.Module):
    """Two ends and a monotone polynomial between them, positive parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = (nn.Parameter(torch.tensor(v, dtype=F64)) for v in (-5.0, 4.0))
        self.inner = nn.Parameter(torch.tensor([0.3, -0.5], dtype=F64))

    def forward(self, t: Tensor) -> Tensor:
        a, b = self.inner.exp()
        return self.low + (self.high - self.low) * (t + a * t**2 + b * t**3) / (1 + a + b)


@pytest.mark.parametrize("steps", [None, 20])
def test_the_variance_is_minimised_between_the_ends(steps: int | None) -> None:
    """One backward pass gives the inner parameters the gradient of E[L^2] of the diffusion term, and the ends and the
    network that of the bound: against automatic differentiation, on the same draws."""
    gamma, scale = Gamma(), torch.nn.Parameter(torch.tensor(0.7, dtype=F64))
    sde = scoresde.VDMSDE(gamma)
    model = ScoreModel(lambda x, t: scale * torch.tanh(x), sde, "noise", time_input="log_snr")
    x0, noise = (torch.randn(16, 3, generator=seeded(i), dtype=F64) for i in (0, 1))
    u = torch.rand(16, generator=seeded(2), dtype=F64)
    wanted = [gamma.inner, gamma.low, gamma.high, scale]
    plain = losses.diffusion_at(model, x0, noise, u, steps=steps)
    bent = losses.diffusion_at(model, x0, noise, u, steps=steps, minimise_variance=True)
    torch.testing.assert_close(bent, plain, rtol=1e-9, atol=1e-9)
    squared = torch.autograd.grad(plain.square().mean(), wanted, retain_graph=True)
    first = torch.autograd.grad(plain.mean(), wanted)
    got = torch.autograd.grad(bent.mean(), wanted)
    torch.testing.assert_close(got[0], squared[0], rtol=1e-7, atol=1e-10)
    for a, b in zip(got[1:], first[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    assert float((got[0] - first[0]).abs().max()) > 1e-3
    grey = -0.75 + 0.5 * torch.randint(0, 4, (8, 3), generator=seeded()).to(F64)  # the public loss has other parts too
    values = [losses.vdm(model, grey, seeded(1), levels=4, minimise_variance=flag) for flag in (False, True)]
    one, two = (torch.autograd.grad(v.mean(), [gamma.low, gamma.high, gamma.inner]) for v in values)
    torch.testing.assert_close(one[:2], two[:2], rtol=1e-7, atol=1e-9)
    assert not torch.allclose(one[2], two[2])


CHAIN = BetaChain.linear(10)
ZERO = torch.zeros(2, 3)


def zero(x: Tensor, t: Tensor) -> Tensor:
    return 0 * x


ON_CHAIN = ScoreModel(zero, CHAIN.sde(), "noise", time_input="index", chain=CHAIN)
PLAIN = ScoreModel(zero, scoresde.VDMSDE(), "noise")
SCALES = NoiseScales.geometric(5)
HALF = ScoreModel(
    lambda x, i: torch.cat([x, x], 1), CHAIN.sde(), "noise", "index", chain=CHAIN, variance="learned_range"
)
OF_SCALES = ScoreModel(zero, SCALES.sde(), "noise", time_input="index", chain=SCALES)
REFUSED: dict[str, tuple[Callable[[], Any], type[ScoreSDEError], str]] = {
    "bound without a chain": (lambda: losses.ddpm_vlb(PLAIN, ZERO), V, "BetaChain"),
    "another chain": (lambda: losses.ddpm_vlb(OF_SCALES, ZERO), V, "NoiseScales"),
    "a variance": (lambda: losses.ddpm_vlb(ON_CHAIN, ZERO, variance="lrge"), V, "'large'"),
    "times of no chain": (lambda: losses.ddpm_vlb(ON_CHAIN, ZERO, times=losses.UniformTimes()), T, "UniformIndex"),
    "a negative share": (lambda: losses.iddpm_hybrid(HALF, ZERO, vlb_weight=-1), V, "vlb_weight"),
    "an infinite end": (
        lambda: losses.vdm(ScoreModel(zero, scoresde.FlowSDE(t_max=1.0), "v"), ZERO),
        V,
        "finite at both ends",
    ),
    "no grey values": (lambda: losses.vdm(PLAIN, ZERO, levels=16), V, "middles of 16 cells"),
    "the variance of a fixed schedule": (lambda: losses.vdm(PLAIN, ZERO, minimise_variance=True), V, "no parameters"),
    "a grid": (lambda: losses.grey_values(4, grid="middle"), V, "grid"),
}


def test_refusals() -> None:
    assert_refused(REFUSED)
