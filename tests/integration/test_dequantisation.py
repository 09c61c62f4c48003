"""Bounds of the probability of grey values, against the exact one.

With ``t_start`` and ``t_end`` at the noise end and the distribution as the prior, `log_likelihood` is the
distribution's density, so that most tests here need no network.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

import scoresde
from scoresde import UniformDequantizer, VariationalDequantizer, decoder_bound, discrete_log_likelihood, targets

F64 = torch.float64
SDE = scoresde.VPSDE()
MEANS = torch.tensor([[-0.35, 0.1], [0.3, -0.2]], dtype=F64)
SCALES = torch.tensor([0.08, 0.12], dtype=F64)
WEIGHTS = torch.tensor([0.4, 0.6], dtype=F64)
TARGET = targets.GaussianMixture(WEIGHTS, MEANS, scales=SCALES)


def zero(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


class Law:
    """A density that is told at once."""

    def __init__(self, log_prob: Any) -> None:
        self.log_prob = log_prob


def at_once(law: Any, v: Tensor, q: Any, **options: Any) -> scoresde.LowerBound:
    options = {"divergence": "exact", "dtype": F64, "seed": 0, **options}
    return discrete_log_likelihood(SDE, zero, v, dequantizer=q, prior=law, t_start=1.0, t_end=1.0, **options)


def exact(v: Tensor, levels: int, sde: Any = None, t: float = 0.0, shrink: float = 1.0) -> Tensor:
    """ln of the mixture's part in the cells, by its distribution function."""
    alpha, sigma = (1.0, 0.0) if sde is None else (float(sde.alpha(t)), float(sde.sigma(t)))
    width = 2 / levels
    low = shrink * (-1 + width * v.to(F64))[:, None]
    spread = ((alpha * SCALES) ** 2 + sigma**2).sqrt()[None, :, None]
    a, b = ((low + side * shrink * width - alpha * MEANS) / spread for side in (0, 1))
    part = (torch.special.ndtr(b) - torch.special.ndtr(a)).prod(2)
    return (part @ WEIGHTS).log()


def grey(levels: int, count: int, seed: int = 0) -> Tensor:
    x = TARGET.sample(count, generator=torch.Generator().manual_seed(seed)).to(F64)
    return ((x + 1) * levels / 2).floor().long().clamp(0, levels - 1)


def test_a_uniform_density_has_exactly_eight_bits() -> None:
    """Whatever is drawn: on [-1, 1]^D with 256 levels."""
    for size in (1, 3, 64):
        law = Law(lambda x, size=size: torch.full((len(x),), -size * math.log(2), dtype=F64))
        v = torch.randint(0, 256, (5, size), generator=torch.Generator().manual_seed(0))
        for options in ({}, {"draws": 4, "importance": True}):
            got = at_once(law, v, UniformDequantizer(), **options)
            torch.testing.assert_close(got.bits_per_dim, torch.full((5,), 8.0, dtype=F64), rtol=0, atol=1e-12)


def test_the_truncated_normal_is_right_but_loose_for_a_uniform_density() -> None:
    """8.569 bits in the mean at gamma = -13.3, and 8 for little noise in the cell's units; 20,000 numbers, 4.9 standard
    errors."""
    v = torch.randint(0, 256, (200, 100), generator=torch.Generator().manual_seed(0))
    for sde, t, bits in ((scoresde.VDMSDE(), None, 8.569), (SDE, 0.2, 8.0)):
        q = scoresde.TruncatedNormalDequantizer(sde, t=t)
        law = Law(lambda z, q=q: torch.full((len(z),), -100 * math.log(2 * q.alpha), dtype=F64))
        got = at_once(law, v, q).bits_per_dim
        assert float(got.mean()) == pytest.approx(bits, abs=4.892 * float(got.std()) / 200**0.5 + 1e-3)
        assert (math.log(2 * q.alpha) - q.entropy) / math.log(2) == pytest.approx(bits, abs=1e-3)


@pytest.mark.parametrize(("levels", "t"), [(4, 0.001), (4, 0.3), (17, 0.02), (256, 0.001), (256, 0.3)])
def test_the_truncated_normal_against_quadrature(levels: int, t: float) -> None:
    q = scoresde.TruncatedNormalDequantizer(SDE, levels, (-1.0, 3.0), t=t)
    alpha, sigma, width = float(SDE.alpha(t)), float(SDE.sigma(t)), 4 / levels
    edge = 0.5 * alpha * width
    assert q.tau == pytest.approx(edge / sigma)
    total = special.ndtr(edge / sigma) - special.ndtr(-edge / sigma)
    density = lambda z: stats.norm.pdf(z, 0, sigma) / total  # noqa: E731
    points = [k * sigma for k in (-8, -4, -1, 0, 1, 4, 8) if abs(k * sigma) < edge]
    told = lambda z: density(z) * math.log(density(z)) if density(z) > 0 else 0.0  # noqa: E731
    by_quadrature = -integrate.quad(told, -edge, edge, points=points, limit=400)[0]
    assert q.entropy == pytest.approx(by_quadrature, abs=1e-7)
    v = torch.arange(4).repeat(50, 1)
    z, log_q = q.sample(v, generator=torch.Generator().manual_seed(0), dtype=F64)
    away = z - alpha * (-1 + width * (v.to(F64) + 0.5))
    assert float(away.abs().max()) <= edge * (1 + 1e-12)
    each = torch.as_tensor(stats.norm.logpdf(away.numpy(), 0, sigma) - math.log(total))
    torch.testing.assert_close(log_q, each.sum(1), rtol=1e-10, atol=1e-10)


def test_draws_follow_the_density_that_is_told() -> None:
    """10,000 pairs: volumes of parts of the cell at 4.9 standard errors, and the Kolmogorov-Smirnov distance of
    probability 1e-6."""
    torch.manual_seed(3)
    net = VariationalDequantizer((2,), levels=5)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    v = torch.tensor([[1, 3]]).repeat(10_000, 1)
    bound = math.sqrt(math.log(2 / 1e-6) / (2 * 10_000))
    for q in (net, scoresde.TruncatedNormalDequantizer(SDE, 5, t=0.05), UniformDequantizer(5)):
        x, log_q = q.sample(v, generator=torch.Generator().manual_seed(0), dtype=F64)
        alpha = getattr(q, "alpha", 1.0)
        u = (x.detach() / alpha + 1) * 5 / 2 - v  # the place in the cell of width 0.4
        assert float(u.min()) >= -1e-9 and float(u.max()) <= 1 + 1e-9
        for low, high in ((0.2, 0.5), (0.3, 0.8)):  # E[1/q] over a part of the cell is its volume
            inside = ((u > low) & (u < high)).all(1)
            volume = torch.where(inside, (-log_q.detach()).exp(), 0.0) / (0.4 * alpha) ** 2
            slack = 4.892 * float(volume.std()) / 100
            assert float(volume.mean()) == pytest.approx((high - low) ** 2, abs=slack) and slack < 0.03, type(q)
    x, _ = net.sample(v, generator=torch.Generator().manual_seed(0), dtype=F64)
    mean, scale = net.net(((2 * v[:1] + 1) / 5 - 1).float())[0].detach().to(F64)
    logit = torch.special.logit((x.detach() + 1) * 5 / 2 - v)
    for j in range(2):
        distance = stats.kstest(logit[:, j].numpy(), stats.norm(float(mean[j]), float(scale[j].exp())).cdf).statistic
        assert distance < bound


def test_importance_weights_rise_to_the_exact_probability() -> None:
    """2,000 draws of a value, in groups of k: the mean bound grows with k, never passes the exact one by 4.9 standard
    errors (one-sided false alarm 5e-7), and comes within a tenth of the first gap at 64."""
    levels = 6
    v = torch.tensor([[2, 3], [3, 2]])
    truth = exact(v, levels)
    got = at_once(TARGET, v.repeat(250, 1), UniformDequantizer(levels), draws=64)
    weights = got.log_weights.reshape(250, 2, 64)
    means = []
    for k in (1, 4, 16, 64):
        bound = weights.reshape(250, 2, 64 // k, k).logsumexp(3) - math.log(k)
        flat = bound.mean(2)
        means.append(flat.mean(0))
        assert bool((flat.mean(0) <= truth + 4.892 * flat.std(0) / 250**0.5).all())
    for less, more in itertools.pairwise(means):
        assert bool((more > less).all())
    assert bool((truth - means[-1] < 0.1 * (truth - means[0])).all()) and bool((truth - means[0] > 0.05).all())
    whole = at_once(TARGET, v.repeat(250, 1), UniformDequantizer(levels), draws=64, importance=True)
    torch.testing.assert_close(whole.log_prob, got.log_weights.logsumexp(1) - math.log(64))


def test_standard_errors_are_those_of_the_bound() -> None:
    """Over 2,000 repetitions of 100 draws, the mean square of the standard errors is the variance of the bound, within
    15.5 % for the average (4.9 standard deviations) and 25 % for importance weights, by the delta method."""
    v = torch.tensor([[2, 3]]).repeat(2000, 1)
    for importance, slack in ((False, 0.155), (True, 0.25)):
        got = at_once(TARGET, v, UniformDequantizer(6), draws=100, importance=importance)
        ratio = float(got.std_error.square().mean() / got.log_prob.var())
        assert ratio == pytest.approx(1.0, abs=slack)
    assert bool((got.effective_draws <= 100).all()) and bool((got.effective_draws > 1).all())
    torch.testing.assert_close(got.spread, got.log_weights.std(1))
    one = at_once(TARGET, v[:2], UniformDequantizer(6))
    assert bool(one.std_error.isnan().all()) and bool(one.log_prob.isfinite().all())


@pytest.mark.parametrize("kind", ["uniform", "truncated normal"])
def test_the_flow_of_an_exact_score(kind: str) -> None:
    """The density by a solve, in two dimensions: the weights of 800 draws have the exact probability as their mean,
    and the bound is below it, both at 4.9 standard errors and the solver's tolerance."""
    levels, v = 6, torch.tensor([[2, 3], [3, 2], [4, 2]])
    q: Any = UniformDequantizer(levels)
    t, shrink = SDE.t_min, 1.0
    if kind != "uniform":
        t = 0.2
        q, shrink = scoresde.TruncatedNormalDequantizer(SDE, levels, t=t), float(SDE.alpha(t))
    options: dict[str, Any] = {"t_start": t, "divergence": "exact", "dtype": F64, "rtol": 1e-3, "atol": 1e-3}
    options["prior"] = Law(lambda z: TARGET.log_prob(z, SDE, SDE.t_max))
    options |= {"dequantizer": q, "draws": 4, "importance": True, "seed": 1}
    got = discrete_log_likelihood(SDE, TARGET.score(SDE), v.repeat(200, 1), **options)
    truth = exact(v, levels, SDE, t, shrink)
    relative = (got.log_weights.reshape(200, 3, 4) - truth[:, None]).exp().transpose(1, 2).reshape(800, 3)
    off = (relative.mean(0) - 1).abs()
    assert bool((off < 4.892 * relative.std(0) / 800**0.5 + 0.01).all()) and float(off.max()) < 0.3
    bound = got.log_prob.reshape(200, 3)
    assert bool((bound.mean(0) < truth + 4.892 * bound.std(0) / 200**0.5).all())
    assert bool((got.log_prob >= got.log_weights.mean(1)).all())


def train(q: VariationalDequantizer, levels: int, steps: int = 200) -> None:
    score, optimiser = TARGET.score(SDE), torch.optim.Adam(q.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    v = grey(levels, 2000)
    for step in range(steps):
        x, log_q = q.sample(v[torch.randint(0, 2000, (128,), generator=generator)], generator=generator, dtype=F64)
        slope = score(x.detach(), SDE.t_min)  # of ln p
        loss = (log_q - (slope * x).flatten(1).sum(1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)


def test_learned_noise_takes_most_of_the_gap() -> None:
    """Cells as wide as four deviations of the law: the mean gap falls to less than a fifth of uniform noise's."""
    levels = 4
    torch.manual_seed(0)
    q = VariationalDequantizer((2,), levels=levels)
    before = [p.clone() for p in q.parameters()]
    train(q, levels)
    assert any(not torch.equal(a, b) for a, b in zip(before, q.parameters(), strict=True))
    law = Law(lambda x: TARGET.log_prob(x, SDE, SDE.t_min))
    v = grey(levels, 500, seed=1)
    truth = exact(v, levels, SDE, SDE.t_min)
    gaps = {}
    for name, given in (("uniform", UniformDequantizer(levels)), ("learned", q)):
        got = at_once(law, v, given, draws=16)
        gap = truth - got.log_prob
        error = float(got.std_error.square().sum().sqrt()) / len(v)
        assert float(gap.mean()) > -4.892 * error
        gaps[name] = float(gap.mean())
    assert gaps["learned"] < 0.2 * gaps["uniform"] and gaps["uniform"] > 0.5, gaps
    assert all(p.grad is not None for p in q.parameters())
    assert not got.log_prob.requires_grad


def test_learned_noise_starts_nearly_uniform_and_takes_a_network() -> None:
    q = VariationalDequantizer((2, 3), levels=17)
    v = torch.randint(0, 17, (4000, 2, 3), generator=torch.Generator().manual_seed(0))
    _, log_q = q.sample(v, generator=torch.Generator().manual_seed(0))
    even = -6 * math.log(2 / 17)
    assert float(log_q.detach().mean()) - even == pytest.approx(6 * 0.0096, abs=0.05)  # the divergence from it

    class Net(torch.nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            return torch.stack([v, torch.zeros_like(v)], 1)

    x, log_q = VariationalDequantizer((2, 3), levels=17, net=Net()).sample(v[:5], dtype=F64)
    assert x.shape == v[:5].shape and bool(log_q.isfinite().all())
    assert bool((((x + 1) * 17 / 2).floor() == v[:5]).all())


@pytest.mark.parametrize(
    ("sde", "t"),
    [(SDE, None), (SDE, 0.1), (scoresde.VESDE(), 0.1), (scoresde.EDMSDE(), None), (scoresde.FlowSDE(), 0.1)],
    ids=str,
)
def test_the_gap_of_the_decoder_on_gaussian_data(sde: Any, t: float | None) -> None:
    """In the mean over 2,000 data it is (r - 1 - ln r)/2 per dimension, within 4.9 standard errors of the pairs."""
    variances = torch.tensor([0.3, 0.002], dtype=F64)
    law = targets.Gaussian(torch.tensor([0.1, -0.3], dtype=F64), variances)
    time = sde.t_min if t is None else t
    ratio = variances / (variances + float(sde.sigma(time) / sde.alpha(time)) ** 2)
    gap = float(0.5 * (ratio - 1 - ratio.log()).sum())
    x = law.sample(2000, generator=torch.Generator().manual_seed(0)).to(F64)
    end = Law(lambda z: law.log_prob(z, sde, sde.t_max))
    options: dict[str, Any] = {"divergence": "exact", "t_start": t, "prior": end, "rtol": 1e-4, "atol": 1e-4}
    got = decoder_bound(sde, law.score(sde), x, seed=1, **options)  # another seed than the data
    away = law.log_prob(x) - got.log_prob
    error = float(away.std()) / len(x) ** 0.5
    assert float(away.mean()) == pytest.approx(gap, abs=4.892 * error + 3e-4)
    assert error < 0.05


MIXTURE = targets.GaussianMixture(
    torch.tensor([0.4, 0.6]), torch.tensor([[-0.5], [0.4]], dtype=F64), scales=torch.tensor([0.05, 0.2])
)


def weights_of(x: Tensor, t: float, decode: Any) -> Tensor:
    """The mean log-weight of single numbers by quadrature."""
    alpha, sigma = float(SDE.alpha(t)), float(SDE.sigma(t))
    node = SDE.node(t)

    def weight(z: Tensor) -> Tensor:
        flat = z.reshape(-1, 1)
        data = MIXTURE.score(SDE).estimate(flat, node).data.reshape(z.shape)
        log_q = torch.distributions.Normal(alpha * x[..., None], sigma).log_prob(z)
        return (MIXTURE.log_prob(flat, SDE, t).reshape(z.shape) + decode(data, sigma / alpha) - log_q)[:, 0]

    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    points = (alpha * x)[..., None] + sigma * torch.as_tensor(nodes)
    return weight(points) @ torch.as_tensor(weights / weights.sum())


@pytest.mark.parametrize("t", [0.02, 0.2])
def test_the_decoder_on_a_mixture(t: float) -> None:
    """400 draws of each number against quadrature, at 4.9 standard errors; and in the mean over the data it is below
    the density at 0."""
    x = torch.linspace(-0.9, 0.9, 7, dtype=F64)[:, None]
    end = Law(lambda z: MIXTURE.log_prob(z, SDE, SDE.t_max))
    mean = weights_of(x, t, lambda m, s: torch.distributions.Normal(m, s).log_prob(x[..., None]))
    options: dict[str, Any] = {"t_start": t, "prior": end, "divergence": "exact", "rtol": 1e-5, "atol": 1e-5}
    got = decoder_bound(SDE, MIXTURE.score(SDE), x.repeat(400, 1), seed=0, **options)
    rows = got.log_weights.reshape(400, 7)
    z = (rows.mean(0) - mean) / (rows.std(0) / 20)
    assert float(z.abs().max()) < 4.892 + 0.1
    line = torch.linspace(-2, 2, 801, dtype=F64)[:, None]
    below = weights_of(line, t, lambda m, s: torch.distributions.Normal(m, s).log_prob(line[..., None]))
    gap = ((MIXTURE.log_prob(line) - below) * MIXTURE.log_prob(line).exp()).sum() * 0.005
    assert 0.0 < float(gap) < 1.0


def test_the_decoder_over_cells() -> None:
    """Its probabilities sum to 1, the bound is below them, and 400 draws agree with quadrature at 4.9 standard
    errors."""
    levels, t = 9, 0.02
    v = torch.arange(levels)[:, None]
    edges = torch.linspace(-1, 1, levels + 1, dtype=F64)
    edges[0], edges[-1] = -math.inf, math.inf

    def part(v: Tensor, m: Tensor, s: float) -> Tensor:
        a, b = ((edges[v + k] - m) / s for k in (0, 1))
        a, b = torch.where(a > 0, -b, a), torch.where(a > 0, -a, b)
        return (torch.special.ndtr(b) - torch.special.ndtr(a)).clamp_min(1e-300)

    middle = -1 + 2 / levels * (v.to(F64) + 0.5)
    mean = weights_of(middle, t, lambda m, s: part(v[..., None], m, s).log())
    z = torch.linspace(-4, 4, 40_001, dtype=F64)[:, None]
    node, ratio = SDE.node(t), float(SDE.sigma(t) / SDE.alpha(t))
    density = MIXTURE.log_prob(z, SDE, t).exp()
    data = MIXTURE.score(SDE).estimate(z, node).data[:, 0]
    probability = torch.stack([(density * part(v[i], data, ratio)).sum() * 2e-4 for i in range(levels)])
    assert float(probability.sum()) == pytest.approx(1.0, abs=1e-6)
    assert bool((mean < probability.log()).all())
    end = Law(lambda z: MIXTURE.log_prob(z, SDE, SDE.t_max))
    options: dict[str, Any] = {"t_start": t, "prior": end, "divergence": "exact", "rtol": 1e-5, "atol": 1e-5}
    got = decoder_bound(SDE, MIXTURE.score(SDE), v.repeat(400, 1), levels=levels, dtype=F64, seed=0, **options)
    rows = got.log_weights.reshape(400, levels)
    assert float(((rows.mean(0) - mean) / (rows.std(0) / 20)).abs().max()) < 4.892 + 0.1
    assert got.levels == levels and got.bits_per_dim.shape == (400 * levels,)


def test_a_cell_far_from_the_decoder_keeps_its_digits() -> None:
    """Up to 180 deviations away, where both distribution functions are 0 or 1, against an integral of the ratio to the
    density at the nearer edge. Without a solve, the weight is the decoder's probability over the density of the draw,
    which the prior sees."""
    seen: list[Tensor] = []
    law = Law(lambda z: seen.append(z) or torch.zeros(len(z), dtype=F64))
    v = torch.tensor([0, 255, 200, 1, 254, 100])[:, None]
    data = torch.tensor([0.9, 0.9, 0.9, -0.9, -0.9, -0.9], dtype=F64)[:, None]
    model = scoresde.ScoreModel(lambda x, t: data, SDE, "data")
    ends: dict[str, Any] = {"t_start": SDE.t_min, "t_end": SDE.t_min, "prior": law, "check": False}
    got = decoder_bound(SDE, model, v, levels=256, dtype=F64, divergence="exact", seed=0, **ends)
    alpha, sigma = float(SDE.alpha(SDE.t_min)), float(SDE.sigma(SDE.t_min))
    middle = -1 + 2 / 256 * (v.to(F64) + 0.5)
    mass = got.log_weights + torch.distributions.Normal(alpha * middle, sigma).log_prob(seen[-1])
    edges, scale = torch.linspace(-1, 1, 257, dtype=F64), sigma / alpha
    for i, value in enumerate(v[:, 0].tolist()):
        a, b = (float(edges[value + k] - data[i, 0]) / scale for k in (0, 1))
        if value == 0:
            want = stats.norm.logcdf(b)
        elif value == 255:
            want = stats.norm.logsf(a)
        else:
            near = min(a, b, key=abs)
            ratio = integrate.quad(lambda u, near=near: math.exp(0.5 * (near * near - u * u)), a, b, epsabs=0)[0]
            want = stats.norm.logpdf(near) + math.log(ratio)
        assert float(mass[i, 0]) == pytest.approx(want, rel=1e-9)


def test_draws_are_the_seeds_and_leave_the_global_generator_alone() -> None:
    v, q = grey(6, 3), UniformDequantizer(6)
    state = torch.get_rng_state()
    first, again, other = (at_once(TARGET, v, q, draws=2, seed=s).log_weights for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1])
    given = at_once(TARGET, v, q, draws=2, seed=None, generator=torch.Generator().manual_seed(3)).log_weights
    assert torch.equal(first, given)


def test_a_failed_sample_leaves_the_others() -> None:
    class Sick:
        rowwise = True

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.where(x[:, :1] > 0.5, torch.full_like(x, math.nan), -x / (0.3 + t[:, None]))

    v = torch.tensor([[2, 1], [5, 3], [1, 2]])
    options: dict[str, Any] = {"dequantizer": UniformDequantizer(6), "draws": 2, "seed": 0, "check": False}
    options |= {"dtype": F64, "divergence": "exact"}
    got = discrete_log_likelihood(SDE, Sick(), v, throw=False, **options)
    assert got.success.tolist() == [True, False, True] and got.log_prob.isnan().tolist() == [False, True, False]
    with pytest.raises(scoresde.NonFiniteError):
        discrete_log_likelihood(SDE, Sick(), v, **options)
    x = torch.tensor([[0.1, 0.0], [math.nan, 0.0]], dtype=F64)
    score = targets.Gaussian(torch.zeros(2, dtype=F64), 0.3).score(SDE)
    bound = decoder_bound(SDE, score, x, divergence="exact", seed=0, throw=False)
    assert bound.success.tolist() == [True, False] and bound.log_prob.isnan().tolist() == [False, True]


def test_the_checks_are_made_once_and_evaluations_are_counted() -> None:
    calls: list[int] = []

    class Counted:
        rowwise = True

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            calls.append(len(x))
            return -x / (0.3 + t[:, None])

    v, taken = grey(6, 3), []
    given: dict[str, Any] = {"seed": 0, "rtol": 1e-2, "atol": 1e-2}
    for draws in (1, 2):
        calls.clear()
        options = {"dequantizer": UniformDequantizer(6), "draws": draws, "dtype": F64, **given}
        got = discrete_log_likelihood(SDE, Counted(), v, **options)
        taken.append(sum(calls) - int(got.nfe.sum()))
    assert taken[0] == taken[1] > 0
    calls.clear()
    got = decoder_bound(SDE, Counted(), torch.full((2, 2), 0.1, dtype=F64), draws=3, check=False, **given)
    assert int(got.nfe.sum()) == sum(calls)
