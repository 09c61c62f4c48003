"""The bound of discrete chains: closed forms, exact likelihoods of small chains, and formulas derived again."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor

import scoresde
from scoresde import chain_bound, targets
from scoresde.discrete import BetaChain, Chain, NoiseScales
from scoresde.likelihood.bounds.terms import GreyCells, log_mass

from .quadrature import NORMAL, hermite
from .refusals import assert_refused

F64 = torch.float64
MEAN, VARIANCE = 0.4, 0.3
TARGET = targets.Gaussian(torch.tensor([MEAN], dtype=F64), VARIANCE)
CHAINS: dict[str, Chain] = {
    "ddpm, 5 of 1000": BetaChain.linear().respace(5),
    "cosine, 20": BetaChain.cosine(20),
    "two levels": BetaChain([0.1, 0.5]),
    "ncsn": NoiseScales.geometric(8, 0.05, 5.0),
}


X, NOISE, WEIGHTS = NORMAL.pairs(3)  # every term is a square of a linear function of data and noise


def mean(term: scoresde.likelihood.Term) -> Tensor:
    return torch.einsum("i,i...->...", WEIGHTS, term.value)


def levels_of(chain: Chain) -> tuple[Tensor, Tensor]:
    """alpha and sigma squared, from the chain's own numbers."""
    if isinstance(chain, BetaChain):
        return chain.alphas_bar.sqrt(), 1 - chain.alphas_bar
    return torch.ones(len(chain), dtype=F64), chain.sigmas**2


class Steps:
    """What is known of each step of a chain on the Gaussian law: column 0 is the last one, to the data."""

    def __init__(self, chain: Chain) -> None:
        alpha, sigma2 = levels_of(chain)
        clean_alpha = torch.cat([alpha.new_ones(1), alpha[:-1]])
        clean_sigma2 = torch.cat([alpha.new_zeros(1), sigma2[:-1]])
        self.large = sigma2 - (alpha / clean_alpha) ** 2 * clean_sigma2
        self.posterior = self.large * clean_sigma2 / sigma2  # of q(x_{i-1} | x_i, x)
        total, clean_total = alpha**2 * VARIANCE + sigma2, clean_alpha**2 * VARIANCE + clean_sigma2
        self.reverse = clean_total - ((alpha / clean_alpha) * clean_total) ** 2 / total  # of q(x_{i-1} | x_i)
        self.small = torch.cat([self.posterior[1:2], self.posterior[1:]])
        self.last = float(alpha[-1]), float(sigma2[-1])

    def share(self, variance: Tensor) -> Tensor:
        """The v of a learned variance."""
        return torch.log(variance / self.small) / torch.log(self.large / self.small)

    def expected(self, variance: Tensor) -> Tensor:
        """In expectation over data and noise, with the exact score and the given variances of the model's steps."""
        missed = self.reverse - self.posterior  # E (mean - mean')^2, by the distribution of total variance
        inner = 0.5 * (torch.log(variance / self.posterior) + (self.posterior + missed) / variance - 1)
        inner[0] = 0.5 * (torch.log(2 * math.pi * variance[0]) + self.reverse[0] / variance[0])
        return inner


def learned(chain: Chain, shares: Tensor) -> scoresde.ScoreModel:
    """The exact score, with a variance for each level."""
    sde = chain.sde()
    score = TARGET.score(sde)
    places = torch.zeros(int(chain.labels.max()) + 1, dtype=torch.long)
    places[chain.labels.long()] = torch.arange(len(chain))

    def net(x: Tensor, label: Tensor) -> Tensor:
        place = places[label.long()]
        noise = score.estimate(x, sde.nodes(chain.times[place])).noise
        return torch.cat([noise, (2 * shares[place] - 1)[:, None].expand_as(x)], 1)

    return scoresde.ScoreModel(net, sde, "noise", time_input="index", chain=chain, variance="learned_range")


def probed(chain: Chain, model: Any, **options: Any) -> scoresde.Bound:
    return chain_bound(chain, model, X, noise=lambda k, like: NOISE, **options)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("name", CHAINS)
def test_every_step_has_its_closed_form(name: str, variance: str) -> None:
    chain = CHAINS[name]
    steps = Steps(chain)
    bound = probed(chain, TARGET.score(chain.sde()), variance=variance)
    variances = steps.small if variance == "small" else torch.cat([steps.small[:1], steps.large[1:]])
    assert torch.allclose(mean(bound.steps), steps.expected(variances), rtol=1e-9, atol=1e-12)
    assert bound.nfe == len(chain) and bool(bound.std_error.isnan().all())
    assert torch.equal(bound.steps.value[:, 0], bound.reconstruction.value)
    assert torch.allclose(bound.steps.value[:, 1:].sum(1), bound.diffusion.value, rtol=1e-12)
    alpha, sigma2 = steps.last
    base = float(chain.sde().prior.std) ** 2
    away = alpha**2 * (VARIANCE + MEAN**2)
    assert float(mean(bound.prior)) == pytest.approx(0.5 * ((sigma2 + away) / base - 1 - math.log(sigma2 / base)))


@pytest.mark.parametrize("name", CHAINS)
def test_a_perfect_variance_leaves_the_divergence_at_the_end(name: str) -> None:
    """The reverse steps of a Gaussian distribution are normal, so that with their variance the bound is the entropy of
    the data and KL(p_T || prior), and each step half the logarithm of a quotient of variances; fixed ones have more."""
    chain = CHAINS[name]
    steps = Steps(chain)
    bound = probed(chain, learned(chain, steps.share(steps.reverse)), variance="learned")
    inner = 0.5 * torch.log(steps.reverse[1:] / steps.posterior[1:])
    assert torch.allclose(mean(bound.steps)[1:], inner, rtol=1e-8, atol=1e-12)
    alpha, sigma2 = steps.last
    total, base = alpha**2 * VARIANCE + sigma2, float(chain.sde().prior.std) ** 2
    end = 0.5 * (total / base - 1 - math.log(total / base) + (alpha * MEAN) ** 2 / base)
    entropy = 0.5 * math.log(2 * math.pi * math.e * VARIANCE)
    assert float(WEIGHTS @ bound.total) == pytest.approx(entropy + end, abs=1e-10)
    for variance in ("small", "large"):
        fixed = probed(chain, TARGET.score(chain.sde()), variance=variance)
        assert bool((mean(fixed.steps) > mean(bound.steps))[1:].all())
        same = probed(chain, learned(chain, torch.full((len(chain),), float(variance == "large"))), variance="learned")
        assert torch.allclose(same.steps.value[:, 1:], fixed.steps.value[:, 1:], rtol=1e-12, atol=1e-14)


def improved_diffusion(betas: np.ndarray, x: np.ndarray, eps: np.ndarray, net: Any, v: np.ndarray) -> np.ndarray:
    """The terms in nats per dimension as that paper's code has them, (steps, batch), from its formulas and levels of
    data in [-1, 1] that are 2/255 apart."""
    alphas_bar = np.cumprod(1 - betas)
    before = np.append(1.0, alphas_bar[:-1])
    posterior = betas * (1 - before) / (1 - alphas_bar)
    log_posterior = np.log(np.append(posterior[1], posterior[1:]))
    data_part, state_part = betas * before**0.5 / (1 - alphas_bar), (1 - before) * (1 - betas) ** 0.5 / (1 - alphas_bar)
    terms = []
    for t in range(len(betas)):
        state = alphas_bar[t] ** 0.5 * x + (1 - alphas_bar[t]) ** 0.5 * eps
        guess = (state - (1 - alphas_bar[t]) ** 0.5 * net(state, t)) / alphas_bar[t] ** 0.5
        model_mean = data_part[t] * guess + state_part[t] * state
        log_variance = v * np.log(betas[t]) + (1 - v) * log_posterior[t]
        if t == 0:
            inverse = np.exp(-0.5 * log_variance) / 2**0.5
            upper, lower = (0.5 * (1 + erf((x + d / 255 - model_mean) * inverse)) for d in (1, -1))
            term = -np.log(np.where(x < -0.999, upper, np.where(x > 0.999, 1 - lower, upper - lower)))
        else:
            true_mean = data_part[t] * x + state_part[t] * state
            gap = log_variance - log_posterior[t]
            term = 0.5 * (-1 + gap + np.exp(-gap) + (true_mean - model_mean) ** 2 * np.exp(-log_variance))
        terms.append(term.mean(1))
    return np.stack(terms)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_the_formulas_of_improved_ddpm(variance: str, clip: bool) -> None:
    """A chain of 4 levels, 256 grey levels on the published scale, and some network with a learned variance."""
    chain = BetaChain([0.02, 0.1, 0.3, 0.6])
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (6, 2), generator=generator)
    grey[0, 0], grey[1, 1] = 0, 255
    eps = torch.randn((6, 2), generator=generator, dtype=F64)
    share = torch.tensor([0.3, 0.8], dtype=F64)

    def noise_of(x: Any, t: Any) -> Any:
        return 0.6 * x + 0.1 * t

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([noise_of(x, t[:, None]), (2 * share - 1).expand_as(x)], 1)

    model = scoresde.ScoreModel(net, chain.sde(), "noise", time_input="index", chain=chain, variance="learned_range")
    torch.set_default_dtype(F64)
    options: dict[str, Any] = {"levels": 256, "data_range": (-256 / 255, 256 / 255)}
    got = chain_bound(chain, model, grey, variance=variance, clip=clip, noise=lambda k, like: eps, **options)
    x, betas = (2 * grey / 255 - 1).double().numpy(), chain.betas.numpy()
    v = {"small": np.zeros(2), "large": np.ones(2), "learned": share.numpy()}[variance]
    alphas_bar = np.cumprod(1 - betas)

    def limited(state: np.ndarray, t: int) -> np.ndarray:
        noise = noise_of(state, t)
        guess = (state - (1 - alphas_bar[t]) ** 0.5 * noise) / alphas_bar[t] ** 0.5
        guess = guess.clip(-1, 1) if clip else guess
        return (state - alphas_bar[t] ** 0.5 * guess) / (1 - alphas_bar[t]) ** 0.5

    expected = improved_diffusion(betas, x, eps.numpy(), limited, v)
    if variance == "large":  # the first level has the posterior's variance of the second
        expected[0] = improved_diffusion(betas, x, eps.numpy(), limited, np.zeros(2))[0]
    assert np.allclose(got.steps.value.numpy(), 2 * expected.T, rtol=1e-7)
    prior = 0.5 * (-1 - np.log(1 - alphas_bar[-1]) + 1 - alphas_bar[-1] + alphas_bar[-1] * x**2).sum(1)
    assert np.allclose(got.prior.value.numpy(), prior, rtol=1e-9)
    bits = (2 * expected.sum(0) + prior) / (2 * math.log(2))
    assert np.allclose(got.bits_per_dim.numpy(), bits, rtol=1e-7)


CENTRES = torch.tensor([-2 / 3, 0.0, 2 / 3], dtype=F64)
SHARES = torch.tensor([0.5, 0.2, 0.3], dtype=F64)
THREE = targets.GaussianMixture(SHARES, CENTRES[:, None], scales=torch.full((3,), 1e-3, dtype=F64))


def exact_log_prob(chain: Chain, variance: str) -> Tensor:
    """ln P(v) of ancestral sampling, (3,), by quadrature over every level's state on a grid."""
    sde, size = chain.sde(), 801
    y = torch.linspace(-6, 6, size, dtype=F64)
    width = float(y[1] - y[0])
    alpha, sigma2 = levels_of(chain)
    law = torch.exp(sde.prior.log_prob(y[:, None]))
    model = THREE.score(sde)
    small = 0.0
    for i in range(len(chain) - 1, 0, -1):
        guess = model.estimate(y[:, None], sde.node(float(chain.times[i]))).data[:, 0]
        keep = (alpha[i] / alpha[i - 1]) ** 2
        beta = sigma2[i] - keep * sigma2[i - 1]
        small = beta * sigma2[i - 1] / sigma2[i]
        mean = alpha[i - 1] * beta / sigma2[i] * guess + keep.sqrt() * sigma2[i - 1] / sigma2[i] * y
        s2 = small if variance == "small" else beta
        kernel = torch.exp(-0.5 * (y - mean[:, None]) ** 2 / s2) / (2 * math.pi * s2) ** 0.5  # (from, to)
        law = width * (law @ kernel)
    guess = model.estimate(y[:, None], sde.node(float(chain.times[0]))).data
    edges = torch.tensor([-math.inf, -1 / 3, 1 / 3, math.inf], dtype=F64)
    mass = torch.special.ndtr((edges - guess) / small**0.5).diff(dim=1)
    total = width * (law @ mass)
    assert float(total.sum()) == pytest.approx(1.0, abs=1e-6)
    return total.log()


@pytest.mark.parametrize("counts", [(3, 9), pytest.param((3, 9, 27, 81), marks=pytest.mark.slow)], ids=len)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_it_bounds_the_likelihood_and_becomes_tight(variance: str, counts: tuple[int, ...]) -> None:
    """Three grey values, chains of 3 to 81 levels from a log-SNR of 4: the bound, by quadrature over the noise, is
    above -ln P(v) by less and less."""
    z, w = hermite(120)
    v = torch.arange(3).repeat_interleave(120)[:, None]
    gaps = []
    torch.set_default_dtype(F64)
    for n in counts:
        chain = BetaChain.linear()
        chain = chain.respace(chain.label(torch.linspace(4.0, float(chain.log_snrs[-1]), n, dtype=F64)))
        options: dict[str, Any] = {"levels": 3, "variance": variance, "noise": lambda k, like: z.repeat(3)[:, None]}
        bound = chain_bound(chain, THREE.score(chain.sde()), v, **options)
        gap = bound.total.reshape(3, 120) @ w + exact_log_prob(chain, variance)
        assert bool((gap > 0).all())
        gaps.append(float(SHARES @ gap))
    assert all(a > 1.5 * b for a, b in itertools.pairwise(gaps))
    assert len(gaps) < 4 or gaps[3] < 0.14


@pytest.mark.parametrize(
    ("variance", "weighted"), [("small", False), ("learned", False), ("large", True), ("learned", True)]
)
def test_random_steps_estimate_the_sum_of_all(variance: str, weighted: bool) -> None:
    """4,000 repetitions: the mean within 4.9 standard errors (a false alarm in 1e6), the squared standard errors those
    of repetitions to 15 % (the ratio itself is known to some 3 %)."""
    chain = CHAINS["cosine, 20"]
    steps = Steps(chain)
    model = learned(chain, steps.share(steps.reverse))
    x = torch.full((4000, 1), 0.1, dtype=F64)
    options: dict[str, Any] = {"variance": variance, "seed": 1}
    if weighted:
        few = chain_bound(chain, model, TARGET.sample(200).to(F64), variance=variance, seed=0)
        options["weights"] = few.steps.value[:, 1:].square().mean(0).sqrt()
    bound = chain_bound(chain, model, x, steps="random", draws=6, **options)
    z, w = hermite(40)
    probe = chain_bound(chain, model, x[:40], variance=variance, noise=lambda k, like: z[:, None])
    error = float(bound.diffusion.value.std()) / 4000**0.5
    assert float(bound.diffusion.value.mean()) == pytest.approx(float(w @ probe.diffusion.value), abs=4.892 * error)
    assert float(bound.diffusion.value.var() / bound.diffusion.std_error.square().mean()) == pytest.approx(1, abs=0.15)
    assert bound.steps is None and bound.nfe == 12


@pytest.mark.parametrize("options", [{"draws": 3}, {"steps": "random", "draws": 32}], ids=["all", "random"])
def test_intervals_of_a_chain_hold_the_mean(options: dict[str, Any]) -> None:
    """2000 repetitions around their mean in eight dimensions, whose squares are little skewed. At a true share of 0.93
    fewer than 0.905 are a false alarm in 1e5; normal intervals have less than 0.9."""
    chain, target = CHAINS["ncsn"], scoresde.targets.Gaussian(torch.zeros(8, dtype=F64), 0.3)
    x = torch.full((2000, 8), 0.1, dtype=F64)
    bound = chain_bound(chain, target.score(chain.sde()), x, seed=0, **options)
    low, high = bound.interval()
    mean = bound.total.mean()
    assert float(((low < mean) & (mean < high)).to(F64).mean()) > 0.905
    assert float(((bound.total - mean).abs() < 1.96 * bound.std_error).to(F64).mean()) < 0.9
    assert float(bound.total.var() / bound.std_error.square().mean()) == pytest.approx(1, abs=0.15)
    one = chain_bound(chain, target.score(chain.sde()), x[:2], seed=0)
    assert bool(torch.stack(one.interval()).isnan().all())


def test_masses_of_cells_in_the_tails() -> None:
    """ln of the mass of [a, b] for narrow cells far away: phi(a) w to first order, and sums to 1 near."""
    grey = GreyCells(torch.arange(256)[None], 256, -1.0, 2 / 256)
    for mean, std in ((0.1, 0.3), (-5.0, 0.01), (0.999, 1e-3)):
        log = log_mass(grey, torch.full((1, 256), mean, dtype=F64), std)
        assert float(log.logsumexp(1)) == pytest.approx(0.0, abs=1e-12)
        assert bool(log.isfinite().all()) and float(log.max()) <= 0
    far = log_mass(GreyCells(torch.tensor([[1]]), 3, 0.0, 1e-3), torch.tensor([[-30.0]], dtype=F64), 1.0)
    a = 30.001
    expected = -0.5 * a * a - 0.5 * math.log(2 * math.pi) - math.log(a) + math.log(-math.expm1(-a * 1e-3))
    assert float(far) == pytest.approx(expected, abs=2e-3)
    both = [
        log_mass(GreyCells(torch.tensor([[1]]), 3, lo, 1.0), torch.zeros(1, 1, dtype=F64), 1.0) for lo in (9.0, -12.0)
    ]
    assert float(both[0]) == pytest.approx(float(both[1]), rel=1e-13)  # [10, 11] and [-11, -10]


DDPM = BetaChain([0.1, 0.5])
SCORE = TARGET.score(DDPM.sde())


def of(chain: Any = DDPM, model: Any = SCORE, x: Any = None, **options: Any) -> Any:
    return chain_bound(chain, model, torch.zeros(2, 1) if x is None else x, **options)


REFUSED: dict[str, tuple[Any, str]] = {
    "no chain": (lambda: of(scoresde.VPSDE()), "chain"),
    "a variance": (lambda: of(variance="medium"), "variance"),
    "nothing learned": (lambda: of(variance="learned"), "learned_range"),
    "no draw": (lambda: of(draws=0), "draws"),
    "one random draw": (lambda: of(steps="random", draws=1), "draws"),
    "a weight of nothing": (lambda: of(steps="random", weights=[0.0]), "weights"),
    "grey values in floats": (lambda: of(levels=3), "integers"),
    "noise and its shape": (lambda: of(noise=lambda k, like: like[:1]), "noise"),
    "a score of NaN": (lambda: of(model=lambda x, t: x * math.nan), "2 of 2"),
    "a variance of NaN": (
        lambda: of(model=learned(DDPM, torch.tensor([0.5, math.nan], dtype=F64)), variance="learned", seed=0),
        "2 of 2",
    ),
    "bits of a density": (lambda: of(seed=0).bits_per_dim, "bits_per_dim"),
}


def test_refusals() -> None:
    assert_refused(REFUSED)


def test_a_part_asks_the_network_at_the_labels_of_the_whole_and_leaves_nothing_behind() -> None:
    chain, seen = BetaChain.linear(), []

    def net(x: Tensor, label: Tensor) -> Tensor:
        seen.extend(label[:1].tolist())
        return x

    model = scoresde.ScoreModel(net, chain.sde(), "noise", time_input="index", chain=chain)
    x, state = torch.zeros(2, 1, requires_grad=True), torch.get_rng_state()
    bound = chain_bound(chain.respace(4), model, x, seed=0)
    assert seen == [0, 333, 666, 999]
    assert torch.equal(torch.get_rng_state(), state) and not bound.total.requires_grad and bool((x == 0).all())
    for options in ({"draws": 2}, {"steps": "random"}):
        assert chain_bound(chain.respace(4), model, torch.zeros(0, 1), seed=0, **options).total.shape == (0,)
    law = scoresde.NormalPrior(5.0, torch.tensor([MEAN]))
    bound = probed(CHAINS["ncsn"], TARGET.score(CHAINS["ncsn"].sde()), prior=law)
    assert float(mean(bound.prior)) == pytest.approx(0.5 * VARIANCE / 25, rel=1e-9)
