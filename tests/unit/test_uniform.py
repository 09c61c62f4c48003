"""The uniform target, against quadrature, torch.distributions and the gradients of its own density."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.targets import Uniform
from tests.unit.quadrature import legendre

F64 = torch.float64
LOW, HIGH = -1.0, 2.0
PLACES = [-1e4, -40.0, -1.5, -1.0, 0.5, 0.7, 2.0, 3.0, 30.0]  # x / alpha: in the box, at its ends, and far away
SIGMAS = [1e-3, 0.1, 1.0, 1e2, 1e4]  # from a box that is far wider than the noise to one that is far narrower


def line(dtype: torch.dtype = F64) -> Uniform:
    return Uniform(torch.tensor([LOW], dtype=dtype), torch.tensor([HIGH], dtype=dtype))


def process(sigma: float, alpha: float = 1.0) -> scoresde.GaussianSDE:
    """At time 1 the kernel is N(alpha x0, sigma^2)."""
    return scoresde.GaussianSDE(lambda t: alpha + 0 * t, lambda t: sigma * t, t_min=0.5, t_max=1.0)


def integral(place: float, sigma: float) -> tuple[float, float]:
    """The log-density of x0 + sigma N(0, 1) at a place, and the mean of x0 given it, by Gauss-Legendre sums over the
    parts of the box where the weight is not negligible."""
    ends = [LOW, HIGH] if LOW < place < HIGH else [min(max(place, LOW), HIGH)]
    points, logs = [], []
    for toward in (HIGH, LOW):
        start = place if len(ends) == 2 else ends[0]
        away = abs(place - start)
        length = min(abs(toward - start), 10 * sigma, 50 * sigma**2 / away if away else math.inf)
        if length:
            s, w = legendre(200, 0.0, length)
            points.append(start + math.copysign(1.0, toward - start) * s)
            logs.append(w.log() - (2 * away + s) * s / (2 * sigma**2))  # but for what all of them have
    x0, log_weight = torch.cat(points), torch.cat(logs)
    common = away**2 / (2 * sigma**2) + math.log((HIGH - LOW) * sigma * (2 * math.pi) ** 0.5)
    return float(log_weight.logsumexp(0)) - common, float(log_weight.softmax(0) @ x0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_density_and_estimates_at_any_distance(sigma: float) -> None:
    """In float64 to the rounding of z^2; the noise estimate is the state less alpha times the data estimate."""
    for place, alpha in itertools.product(PLACES, (1.0, 1e-3)):
        target, sde = line(), process(alpha * sigma, alpha)
        log_prob, data = integral(place, sigma)
        x = torch.tensor([[alpha * place]], dtype=F64)
        got = target.score(sde).estimate(x, sde.node(1.0))
        density = float(target.log_prob(x, sde, 1.0))
        assert density == pytest.approx(log_prob - math.log(alpha), rel=1e-12, abs=1e-11), (place, alpha)
        distance = max(1.0, abs(place))
        allowed = 1e-12 * distance + 1e-13 * distance**2 / sigma
        assert float(got.data) == pytest.approx(data, abs=allowed), (place, alpha)
        noise = (place - float(got.data)) / sigma
        assert float(got.noise) == pytest.approx(noise, rel=1e-9, abs=1e-9), (place, alpha)
        assert LOW <= round(float(got.data), 9) <= HIGH, (place, alpha)


def test_the_data_estimate_far_from_the_box() -> None:
    """Where the state is the noise estimate to all digits; -1e20 is in the range of float32."""
    far = (-1e20, -1e9, 35.0, 2e4, 1.1e6, 1e7, 9e9, 1e20)
    for place, sigma, dtype in itertools.product(far, (1e-2, 1.0, 1e2, 1e6), (torch.float32, F64)):
        sde, x = process(sigma), torch.tensor([[place]], dtype=dtype)
        got = float(line(dtype).score(sde).estimate(x, sde.node(1.0)).data)
        exact = integral(float(x), sigma)[1]
        assert got == pytest.approx(exact, abs=1e-7 if dtype == F64 else 1e-6), (place, sigma, dtype)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_float32_has_the_digits_of_its_state(sigma: float) -> None:
    """A state in float32 is a place in float64, and the results are rounded once."""
    sde = process(sigma)
    x = torch.tensor(PLACES)[:, None]
    node = sde.node(1.0)
    narrow, wide = ((*line().score(sde).estimate(v, node), line().log_prob(v, sde, 1.0)) for v in (x, x.double()))
    for a, b in zip(narrow, wide, strict=True):
        assert a.dtype == torch.float32 and bool(a.isfinite().all())
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_score_and_its_slope_are_derivatives_of_the_density(sigma: float) -> None:
    sde = process(sigma)
    places = [*PLACES, 1e3 * sigma / 3, -1e3 * sigma**2]  # beside where a series begins
    x = torch.tensor(places, dtype=F64)[:, None].requires_grad_()
    (first,) = torch.autograd.grad(line().log_prob(x, sde, 1.0).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    score = line().score(sde)(x, 1.0)
    (slope,) = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close(score, first, rtol=1e-8, atol=1e-9 / sigma)
    torch.testing.assert_close(slope, second, rtol=1e-5, atol=1e-5 / sigma**2)
    variance = 1 + slope * sigma**2  # of x0 given x, in units of the noise; the rounding is that of z^2
    assert bool((variance >= -1e-6 - 1e-15 * (x / sigma).square()).all()), variance


def test_where_there_is_no_signal_or_no_noise() -> None:
    flow, target = scoresde.FlowSDE(t_min=0.0, t_max=1.0), line()
    x = torch.tensor([[-3.0], [-1.0], [0.5], [1.7], [9.0]], dtype=F64)
    score = target.score(flow)
    noise = score.estimate(x, flow.node(1.0))
    torch.testing.assert_close(noise.noise, x)
    torch.testing.assert_close(noise.data, torch.full_like(x, 0.5))
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=F64), 1.0).log_prob(x)[:, 0]
    torch.testing.assert_close(target.log_prob(x, flow, 1.0), normal)
    data = score.estimate(x, flow.node(0.0))
    torch.testing.assert_close(data.data, x.clamp(LOW, HIGH))
    assert torch.equal(data.noise[2:4], torch.zeros(2, 1, dtype=F64))
    box = torch.distributions.Uniform(*(torch.tensor(v, dtype=F64) for v in (LOW, HIGH)), validate_args=False)
    expected = box.log_prob(x)[:, 0]
    for got in (target.log_prob(x), target.log_prob(x, flow, 0.0)):
        assert torch.equal(got.isinf(), torch.tensor([True, False, False, False, True]))
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("at", [None, 0.02, 0.5])
def test_samples_follow_the_density(at: float | None) -> None:
    """Kolmogorov's distance, by the inequality of Dvoretzky, Kiefer and Wolfowitz at 1e-6: 0.028 is seen."""
    n, sde = 10_000, None if at is None else scoresde.VPSDE()
    x = line().sample(n, sde, at, torch.Generator().manual_seed(0))[:, 0].sort().values
    grid = torch.linspace(-8, 8, 16_001, dtype=F64)
    density = line().log_prob(grid[:, None], sde, at).exp()
    cdf = torch.cat([torch.zeros(1, dtype=F64), torch.cumulative_trapezoid(density, grid)])
    assert float(cdf[-1]) == pytest.approx(1.0, abs=1e-3 if at is None else 1e-6)
    place = torch.searchsorted(grid, x).clamp(max=len(cdf) - 1)
    gap = (cdf[place] - torch.arange(1, n + 1) / n).abs().max()
    assert float(gap) < math.sqrt(math.log(2e6) / (2 * n)) + 1e-3


def test_it_is_the_product_over_its_elements() -> None:
    low, high = torch.tensor([[0.0, -1.0], [3.0, 4.0]], dtype=F64), torch.tensor([[1.0, 1.0], [3.5, 9.0]], dtype=F64)
    whole, sde = Uniform(low, high), scoresde.VPSDE()
    assert whole.data_std == pytest.approx(math.sqrt((1 + 4 + 0.25 + 25) / 4 / 12))
    x = whole.sample(5, sde, 0.3, torch.Generator().manual_seed(0))
    parts = [Uniform(a[None], b[None]) for a, b in zip(low.flatten(), high.flatten(), strict=True)]
    columns: list[Tensor] = [v[:, None] for v in x.flatten(1).mT]
    log_prob = torch.stack([p.log_prob(v, sde, 0.3) for p, v in zip(parts, columns, strict=True)]).sum(0)
    torch.testing.assert_close(whole.log_prob(x, sde, 0.3), log_prob)
    score = torch.cat([p.score(sde)(v, 0.3) for p, v in zip(parts, columns, strict=True)], dim=1)
    torch.testing.assert_close(whole.score(sde)(x, 0.3).flatten(1), score)
