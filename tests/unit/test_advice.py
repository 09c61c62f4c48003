"""Advice from data, against the closed forms of normal distributions and of two points, and written-out sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.core.sdes import LinearGamma, NormalPrior
from scoresde.trust import advice as module
from scoresde.trust.advice import HarmlessEnd, advise, shifted
from tests.unit.refusals import assert_refused

F64 = torch.float64
ENDS = [10.0, 4.0, 2.5]  # sigma/alpha


def normal(n: int, *event: int, mean: float = 0.0, std: float = 1.0, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return (mean + std * torch.randn(n, *event, generator=torch.Generator().manual_seed(seed), dtype=F64)).to(dtype)


def process(alpha: float, sigma: float, prior: NormalPrior | None = None) -> scoresde.GaussianSDE:
    """At its end, 1, the states are alpha x + sigma e."""
    return scoresde.GaussianSDE(lambda t: 1 + (alpha - 1) * t, lambda t: sigma * t, 0.01, 1.0, prior=prior)


def ends_of(x: Tensor, sde: scoresde.AffineSDE) -> Any:
    return advise(x, sde=sde).ends


def of_normal(mean: Tensor, variances: Tensor, std: float) -> float:
    """The chi-square of a normal distribution against N(0, std^2 I): the integral of p^2/q, dimension by dimension."""
    r = variances / std**2
    return float((mean.square() / (std**2 * (2 - r)) - 0.5 * (r * (2 - r)).log()).sum().expm1())


def u_centred(x: Tensor) -> Tensor:
    """Written out: x_i x_j less the means over the rows other than i, other than j, and all pairs."""
    n, flat = len(x), x.flatten(1)
    a = [[float(flat[i] @ flat[j]) if i != j else 0.0 for j in range(n)] for i in range(n)]
    sums, total = [sum(row) for row in a], sum(map(sum, a))
    means = [[(sums[i] + sums[j]) / (n - 2) - total / ((n - 1) * (n - 2)) for j in range(n)] for i in range(n)]
    return (torch.tensor(a, dtype=F64) - torch.tensor(means, dtype=F64)).fill_diagonal_(0.0)


@pytest.mark.parametrize("tv", [0.001, 0.05, 0.4])
def test_the_harmless_end_solves_the_mean_over_pairs(tv: float) -> None:
    """The root is found to 1e-7 in ln(1/rho^2); the chi-square there has a relative slope below 20."""
    for n in (4, 5, 9):
        x = normal(n, 2, 3, mean=0.5, seed=n)
        found = advise(x, tv=tv)
        flat, s = x.flatten(1), 1 / found.uncentred.rho**2
        raw = [math.expm1(float(flat[i] @ flat[j]) * s) for i in range(n) for j in range(n) if i != j]
        assert sum(raw) / (n * (n - 1)) == pytest.approx(4 * tv**2, rel=1e-5)
        trace = float((flat - flat.mean(0)).square().sum()) / (n - 1)
        own = float((u_centred(x) / found.centred.rho**2).expm1().sum()) / (n * (n - 3))
        assert own + trace / n / found.centred.rho**2 == pytest.approx(4 * tv**2, rel=1e-5)
        assert found.centred.floor == pytest.approx(trace / n / found.centred.rho**2, rel=1e-12)
        assert found.centred.low < found.centred.rho < found.centred.high


def test_the_closed_forms() -> None:
    """Both are the larger one of two terms, of which each is half of the chi-square."""
    n = 150
    x = normal(n, 6, mean=0.3)
    found = advise(x, tv=0.2)
    products, own = x @ x.T, u_centred(x)
    products.fill_diagonal_(0.0)
    first, second = float(products.sum()) / (n * (n - 1)), float(products.square().sum()) / (n * (n - 1))
    wanted = max(math.sqrt(2 * first) / 0.4, math.sqrt(math.sqrt(second) / 0.4))
    assert found.uncentred.closed == pytest.approx(wanted, rel=1e-12)
    trace, square = float(torch.cov(x.T).trace()), float(own.square().sum()) / (n * (n - 3))
    wanted = max(math.sqrt(2 * trace / n) / 0.4, math.sqrt(math.sqrt(square) / 0.4))
    assert found.centred.closed == pytest.approx(wanted, rel=1e-9)
    assert square == pytest.approx(6, rel=0.14)  # tr S^2; two standard errors are 0.14


def test_an_interval_holds_the_true_end_and_little_more() -> None:
    """Sixty data sets: at 93 % coverage fewer than 48 occur with a probability of 2e-4, and so do standard deviations
    of 60 numbers that are off by a third."""
    from scipy.optimize import brentq

    d, tv, n = 20, 0.02, 100

    def excess(s: float) -> float:
        return math.expm1(-0.5 * d * math.log1p(-(s**2))) + s * d / n - 4 * tv**2

    true = brentq(excess, 1e-9, 0.5) ** -0.5
    ends = [advise(normal(n, d, seed=seed), tv=tv).centred for seed in range(60)]
    assert sum(end.low <= true <= end.high for end in ends) >= 48
    found = torch.tensor([end.rho for end in ends], dtype=F64).log().std()
    stated = torch.tensor([end.high / end.low for end in ends], dtype=F64).log().mean() / (2 * 1.96)
    assert 2 / 3 < float(stated / found) < 3 / 2


@pytest.mark.cells(3)
@pytest.mark.parametrize("rho", ENDS)
@pytest.mark.parametrize(("std", "mean"), [(1.0, 0.0), (0.9, 0.7), (1.4, 0.7)])
def test_the_chi_square_of_a_process_is_that_of_normal_data(rho: float, std: float, mean: float) -> None:
    """Against a prior of any scale, within four standard errors (a probability of 6e-5 per case)."""
    variances = torch.tensor([1.0, 0.3, 0.1], dtype=F64)
    x = mean + variances.sqrt() * normal(400, 3, seed=3)
    alpha, sigma = 1 / math.hypot(1, rho), rho / math.hypot(1, rho)
    prior = NormalPrior(std * sigma, 0.2 * alpha)
    ends = ends_of(x, process(alpha, sigma, prior))
    known = of_normal(alpha * torch.full((3,), mean - 0.2, dtype=F64), alpha**2 * variances + sigma**2, prior.std)
    assert abs(ends.chi2 - known) < 4 * ends.error
    assert ends.error < 0.15 * known + 0.01
    assert ends.tv == pytest.approx(min(1, math.sqrt(max(0, ends.chi2)) / 2), rel=1e-12)
    assert ends.rho_max == pytest.approx(rho, rel=1e-12)


@pytest.mark.parametrize("std", [0.9, 1.0, 1.3])
def test_the_chi_square_of_two_points_is_exact(std: float) -> None:
    """The pairs of two points are counted, and the integral of a product of kernels over the prior is computed by a sum
    that has the accuracy of float64 for normal densities."""
    points, n = (-0.5, 1.5), 8
    x = torch.tensor(points, dtype=F64).repeat(n // 2)[:, None]
    u = torch.linspace(-60, 60, 20_001, dtype=F64)

    def log_density(centre: float, scale: float) -> Tensor:
        return -0.5 * ((u - centre) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))

    for rho in ENDS:
        alpha, sigma = 1 / math.hypot(1, rho), rho / math.hypot(1, rho)
        prior, integral = NormalPrior(std * sigma, 0.1), []
        for a, b in ((points[0], points[0]), (points[1], points[1]), points):
            kernels = log_density(alpha * a, sigma) + log_density(alpha * b, sigma)
            integral.append(float((kernels - log_density(0.1, prior.std)).exp().sum() * (u[1] - u[0])))
        same = n // 2 * (n // 2 - 1)  # ordered pairs of different rows with one value
        total = same * sum(integral[:2]) + 2 * (n // 2) ** 2 * integral[2]
        ends = ends_of(x, process(alpha, sigma, prior))
        assert ends.chi2 == pytest.approx(total / (n * (n - 1)) - 1, rel=1e-9, abs=1e-11)


def test_a_prior_with_the_mean_of_the_rows_has_no_bias() -> None:
    """Its chi-square is that about the true mean and the error of the mean, tr S / n rho^2; products about the mean of
    the same rows would give a negative one here. Within four standard errors (a probability of 6e-5)."""
    x = normal(100, 200, mean=2.0)
    sde = process(1.0, 20.0, NormalPrior(20.0, x.mean(0)))
    ends = ends_of(x, sde)
    known = of_normal(torch.zeros(200, dtype=F64), torch.full((200,), 401.0, dtype=F64), 20.0) + 200 / 100 / 400
    assert abs(ends.chi2 - known) < 4 * ends.error < 0.2 * known


def test_ends_that_are_limits() -> None:
    x = normal(50, 3)
    nothing = ends_of(x, scoresde.FlowSDE(t_max=1.0))  # alpha = 0 and the prior is N(0, I)
    assert (nothing.chi2, nothing.tv, nothing.rho_max, nothing.noise_harmless) == (0.0, 0.0, math.inf, True)
    for ends in (ends_of(x, process(0.1, 1.0, NormalPrior(std))) for std in (0.5, 1e200)):
        assert (ends.chi2, ends.tv, ends.noise_harmless) == (math.inf, 1.0, False)


def test_processes_whose_noise_does_or_does_not_suffice() -> None:
    centred, away = normal(300, 4), normal(300, 4, mean=3.0)

    def harmless(x: Tensor, sde: scoresde.AffineSDE) -> bool:
        return bool(ends_of(x, sde).noise_harmless)

    assert harmless(centred, scoresde.VPSDE()) and not harmless(away, scoresde.VPSDE())
    assert advise(away).mean_matters and not advise(centred).mean_matters
    assert harmless(centred, scoresde.VPSDE(0.1, 4.0))  # which keeps N(0, I) as it is
    assert not harmless(0.3 * centred, scoresde.VPSDE(0.1, 4.0))
    assert harmless(100 * centred, scoresde.VESDE(sigma_max=1e4))
    assert not harmless(100 * centred, scoresde.VESDE(sigma_max=50.0))
    alpha = float(scoresde.VPSDE().alpha(1.0))
    assert harmless(away, scoresde.VPSDE(prior=NormalPrior(1.0, alpha * away.mean(0))))


@pytest.mark.parametrize("kind", ["vp", "ve", "edm", "vdm"])
def test_the_advised_process_has_harmless_ends(kind: str) -> None:
    x = normal(200, 2, 3, mean=1.0, std=0.5)
    found = advise(x)
    for centred, end in ((True, found.centred), (False, found.uncentred)):
        sde = found.sde(kind, centred=centred)
        ends = ends_of(x, sde)
        assert ends.noise_harmless and ends.data_harmless
        assert ends.rho_min == pytest.approx(found.sigma_min, rel=1e-3)
        top = max(found.sigma_max, end.high) if kind in ("ve", "edm") else end.high
        assert ends.rho_max == pytest.approx(top, rel=1e-9)
        prior = found.prior(sde, centred=centred)
        assert sde.prior.std == pytest.approx(prior.std, rel=1e-12)
        assert torch.allclose(torch.as_tensor(sde.prior.mean, dtype=F64), torch.as_tensor(prior.mean, dtype=F64))


def test_a_prior_has_the_moments_of_the_states() -> None:
    x = normal(500, 3, mean=2.0)
    sde = scoresde.VPSDE(0.1, 3.0)
    mean, std = sde.marginal(x, 1.0)
    noisy = float(std.flatten()[0])
    found = advise(x)
    for centred, middle in ((True, mean.mean(0)), (False, torch.zeros(3, dtype=F64))):
        prior = found.prior(sde, centred=centred)
        assert prior.std**2 == pytest.approx(noisy**2 + float((mean - middle).square().mean()), rel=1e-12)
        assert torch.allclose(torch.as_tensor(prior.mean, dtype=F64), middle)


def test_schedules_reach_the_end() -> None:
    end = HarmlessEnd(rho=50.0, low=40.0, high=60.0, closed=70.0, floor=0.0)
    vp = scoresde.VPSDE(0.1, end.beta_max)
    assert float(vp.alpha(1.0)) == pytest.approx(end.alpha, rel=1e-12)
    assert float(vp.sigma(1.0) / vp.alpha(1.0)) == pytest.approx(60.0, rel=1e-12)
    assert end.beta_d == pytest.approx(end.beta_max - 0.1, rel=1e-15)
    vdm = scoresde.VDMSDE(LinearGamma(-13.3, end.gamma_max))
    assert float(vdm.sigma(1.0) / vdm.alpha(1.0)) == pytest.approx(60.0, rel=1e-12)
    small = HarmlessEnd(rho=0.1, low=0.1, high=0.1, closed=0.1, floor=0.0)
    assert small.beta_max == 0.1 and float(scoresde.VPSDE(0.1, 0.1).alpha(1.0)) < small.alpha


def test_rows_at_right_angles_have_the_bound_of_their_norm() -> None:
    """No pair has a positive product; with chi-square at most exp(max |x|^2 / rho^2) - 1 the end is safe."""
    found = advise(3 * torch.eye(6, dtype=F64))
    assert found.uncentred.low == 0.0
    assert found.uncentred.high >= 3 / math.sqrt(math.log1p(4e-4))
    assert 0 < found.centred.rho < math.inf  # there is the error of the mean


def test_the_bound_at_the_data_end() -> None:
    r"""In one dimension the distance of two normal distributions is known, and below the bound."""
    x = normal(400, 1, std=0.5)
    sde = scoresde.VPSDE(t_min=0.05)
    ends = ends_of(x, sde)
    alpha, sigma, v = float(sde.alpha(0.05)), float(sde.sigma(0.05)), float(x.square().mean())
    assert ends.w2 == pytest.approx(math.sqrt((1 - alpha) ** 2 * v + sigma**2), rel=1e-12)
    assert abs(math.sqrt(alpha**2 * v + sigma**2) - math.sqrt(v)) < ends.w2
    assert not ends.data_harmless


def test_t_min_has_the_least_noise() -> None:
    for sde in (scoresde.VPSDE(), scoresde.EDMSDE(), scoresde.VDMSDE(), scoresde.CosineVPSDE()):
        t = ends_of(normal(50, 2), sde).t_min
        wanted = advise(normal(50, 2)).sigma_min
        assert float(sde.sigma(t) / sde.alpha(t)) == pytest.approx(wanted, rel=1e-6), sde
    for sde in (scoresde.VESDE(sigma_min=0.1), scoresde.VDMSDE(LinearGamma(-4.0, 5.0))):  # which have more
        assert ends_of(normal(50, 2), sde).t_min is None, sde


GREY = torch.arange(256).repeat(4).reshape(64, 16)
LATTICES: dict[str, tuple[Tensor, float]] = {
    "8 bits on [-1, 1]": (GREY.float() / 127.5 - 1, 2 / 255),
    "8 bits on [0, 1], float64": (GREY.double() / 255, 1 / 255),
    "8 bits, computed in float32": ((GREY.float() / 127.5 - 1).double(), 2 / 255),
    "8 bits, standardised": ((GREY.float() / 255 - 0.1307) / 0.3081, 1 / 255 / 0.3081),
    "8 bits, rounded in two ways": (torch.cat([GREY.float() / 255, GREY.float() * (1 / 255)]), 1 / 255),
    "16 bits": (torch.arange(65536).reshape(256, 256).float() / 32767.5 - 1, 2 / 65535),
    "17 levels": ((GREY % 17).float() / 16, 1 / 16),
    "counts": (((GREY * 7) % 101).float() - 20, 1.0),
}
OTHERS: dict[str, Tensor] = {
    "normal": normal(64, 16, dtype=torch.float32),
    "binary": (normal(64, 16) > 0).float(),
    "bfloat16": (GREY.float() / 127.5 - 1).bfloat16(),
    "a scale for each column": (GREY.float() / 255) / (1 + torch.rand(16, generator=torch.Generator().manual_seed(0))),
    "a continuous column": torch.cat([GREY.float(), normal(64, 1, dtype=torch.float32)], 1),
    "rare counts": torch.cat([torch.zeros(360, 1), torch.arange(-7.0, 9.0)[:, None]]),
    "few values": normal(4, 5),
}


def test_a_lattice_is_detected() -> None:
    for name, (data, step) in LATTICES.items():
        found = advise(data)
        assert found.origin == "lattice", name
        assert found.step == pytest.approx(step, rel=1e-5), name
        assert found.sigma_min == pytest.approx(step / math.sqrt(12), rel=1e-5), name


def test_other_data_have_no_lattice() -> None:
    for name, data in OTHERS.items():
        found = advise(data)
        assert (found.origin, found.step) == ("none", None), name
        assert found.sigma_min == pytest.approx(0.002 * found.sigma_data / 0.5, rel=1e-12), name


def test_steps_that_are_given() -> None:
    grey, other = LATTICES["8 bits on [-1, 1]"][0], OTHERS["normal"].clamp(-1, 1)
    assert advise(grey, resolution=0.1).sigma_min == pytest.approx(0.1 / math.sqrt(12), rel=1e-12)
    assert advise(grey, data_range=(-1.0, 1.0)).origin == "lattice"
    found = advise(other, data_range=(-1.0, 1.0))
    assert (found.origin, found.step) == ("data_range", 2 / 255)
    found = advise(other, data_range=(-1.0, 1.0), resolution=0.5)
    assert (found.origin, found.step) == ("given", 0.5)


def test_edm_s_distribution_follows_the_data() -> None:
    found = advise(normal(400, 40, std=0.5))
    assert found.p_mean == pytest.approx(-1.2, abs=4 * math.sqrt(0.5 / 16000))  # four standard errors of ln(sigma_data)
    assert (found.noise_levels.mean, found.noise_levels.std) == (found.p_mean, 1.2)


def test_ncsnv2_s_levels() -> None:
    x = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found, chain = advise(x, resolution=0.01 * math.sqrt(12)), scoresde.discrete.NoiseScales.ncsnv2(x)
    assert found.levels == len(chain) and found.ratio == scoresde.discrete.ncsnv2.ratio(3072)
    assert found.sigma_max == pytest.approx(float(chain.sigmas[-1]), rel=1e-12)
    small = advise(normal(20, 4))
    assert small.ratio is None and small.levels is None


def test_the_largest_distance_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster far from the mean with more rows than are compared hides nothing; the pair is found in long tails."""
    monkeypatch.setattr(module, "_ROWS", 64)
    cluster = torch.cat([normal(80, 2) + 40, normal(220, 2, seed=1), torch.tensor([[-9.0, 0.0]], dtype=F64)])
    for x in (cluster, normal(1200, 3) ** 3, normal(300, 20)):
        assert advise(x).sigma_max == pytest.approx(scoresde.discrete.ncsnv2.largest_distance(x), rel=1e-12)


def test_all_levels_follow_the_scale_of_the_data() -> None:
    """To the accuracy of the roots, 1e-7 in ln(1/rho^2)."""
    x = normal(80, 6, mean=0.5)
    one = advise(x)
    for scale in (1 / 8, 4.0, 1e-20, 1e20):
        other = advise(scale * x)
        for name in ("sigma_data", "sigma_min", "sigma_max"):
            assert getattr(other, name) == pytest.approx(scale * getattr(one, name), rel=1e-9)
        for a, b in ((one.centred, other.centred), (one.uncentred, other.uncentred)):
            for name in ("rho", "low", "high", "closed"):
                assert getattr(b, name) == pytest.approx(scale * getattr(a, name), rel=1e-6)
            assert b.floor == pytest.approx(a.floor, rel=1e-6)
        assert other.p_mean == pytest.approx(one.p_mean + math.log(scale), rel=1e-9)
        assert other.levels == one.levels and other.mean_matters == one.mean_matters


def test_a_constant_that_is_added_moves_nothing_but_the_mean() -> None:
    """The mean of 80 numbers of the size of 100 is exact to 1e-14; products of rows are of the size of 1."""
    x = normal(80, 6)
    one, other = advise(x), advise(x + 100)
    assert other.sigma_data == pytest.approx(one.sigma_data, rel=1e-9)
    assert other.centred.rho == pytest.approx(one.centred.rho, rel=1e-6)
    assert other.uncentred.rho > 100 * one.centred.rho


def test_repeated_rows_are_counted() -> None:
    x = normal(30, 5)
    assert advise(x).repeated == 0.0
    assert advise(torch.cat([x, x[:10]])).repeated == 0.5
    found = advise(torch.cat([x, x]))
    assert found.repeated == 1.0 and found.uncentred.rho > advise(x).uncentred.rho
    for far in (1e4, 1e7):
        x = normal(40, 2)
        x[:20] += far
        assert advise(x).repeated == 0.0
        assert advise(torch.cat([x, x[:8]])).repeated == 16 / 48


def test_arrays_and_blocks(tmp_path: Path) -> None:
    x = normal(60, 2, 3, mean=0.3, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for same in (mapped, x.numpy().astype(">f4"), x.numpy()[::1]):
        assert repr(advise(same)) == repr(advise(x))
    assert advise(mapped).event_shape == (2, 3)
    wide = normal(45, 100_000, mean=0.3, dtype=torch.float32)  # more numbers than are read at once
    found, about = advise(wide, resolution=0.1), wide.double() - wide.double().mean(0)
    assert found.sigma_data == pytest.approx(float(about.square().mean().sqrt()), rel=1e-12)
    assert torch.allclose(found.mean, wide.double().mean(0))
    assert found.centred.closed == pytest.approx(math.sqrt(2 * float(about.square().sum()) / 44 / 45) / 0.02, rel=1e-3)


def test_a_subset_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 100)
    x = normal(400, 3)
    state = torch.random.get_rng_state()
    one, again, other = advise(x, seed=1), advise(x, seed=1), advise(x, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.rows == 100 and one.n == 400
    assert str(one) == str(again) and one.centred.rho != other.centred.rho
    assert one.sigma_data == other.sigma_data and one.sigma_max == other.sigma_max
    monkeypatch.setattr(module, "_PRODUCTS", 3 * 70**2)
    assert advise(x).rows == 70


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (torch.zeros(9, 3, dtype=torch.uint8), {}, InvalidTypeError, "data / 127.5 - 1"),
    (torch.zeros(9), {}, InvalidArgumentError, r"reshape\(-1, 1\)"),
    (torch.zeros(1, 3), {}, InvalidArgumentError, "at least 4 rows, got 1"),
    (torch.tensor([0.0, 1.0, torch.nan, 3.0, 4.0])[:, None], {}, NonFiniteError, r"1 of 5 rows \(first: \[2\]\)"),
    (1e150 * normal(9, 2), {}, InvalidArgumentError, "within"),
    (normal(9, 2), {"tv": 0.0}, InvalidArgumentError, "`tv`"),
    (normal(9, 2), {"resolution": 1e3}, InvalidArgumentError, "`resolution` must give a step below"),
    (normal(9, 2), {"data_range": (0.0, 1.0)}, InvalidArgumentError, "`data_range` must hold all values"),
    (normal(9, 2), {"sde": process(0.1, 1.0, NormalPrior(1.0, torch.zeros(3)))}, InvalidArgumentError, "mean"),
]


def test_bad_input_is_named() -> None:
    assert_refused((partial(advise, data, **options), error, text) for data, options, error, text in BAD)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: advise(normal(9, 2)).sde("flow"), "kind"),
        (lambda: advise(normal(9, 2)).prior("vp"), "sde"),
        (lambda: advise(normal(9, 2), sde=scoresde.VPSDE(prior=Laplace())), "normal prior"),  # type: ignore[arg-type]
        (lambda: shifted(scoresde.FlowSDE(t_max=1.0), 64, 32), "finite at both ends"),
        (lambda: shifted("vp", 64, 32), "level"),  # type: ignore[call-overload]
    ]
    assert_refused(calls)


class Laplace:
    def from_normal(self, z: Tensor) -> Tensor:
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.abs().flatten(1).sum(1)


def test_the_table_has_a_rule_and_a_source_for_each_value() -> None:
    x = normal(60, 8, mean=3e4, std=1e-3)
    plain, whole = advise(x), advise(torch.cat([x, x[:1]]), sde=scoresde.VPSDE(), tv=1e-7)
    for found in (plain, whole):
        lines = found.table().splitlines()
        assert str(found) == found.table() and max(map(len, lines)) <= 100
        for name in ("sigma_data", "sigma_min", "sigma_max", "P_mean", "gamma_min", "beta_max", "rho at t_max"):
            assert any(name in line for line in lines)
    assert "sde at t_max" in whole.table() and "sde at" not in plain.table()


def test_levels_for_another_resolution() -> None:
    lam = torch.tensor([-1.0, 0.0, 3.0])
    assert torch.allclose(shifted(lam, 256, 64), lam - math.log(4))
    assert shifted(1.0, 32, 64) == pytest.approx(1 + math.log(2))
    vp = scoresde.VPSDE()
    larger = shifted(vp, 128, 32)
    t = torch.linspace(1e-3, 1.0, 9, dtype=F64)
    assert torch.allclose(larger.log_snr(t), vp.log_snr(t) - 2 * math.log(4))
    assert torch.allclose(larger.alpha(t) ** 2 + larger.sigma(t) ** 2, torch.ones_like(t))


def test_a_flow_is_shifted_by_its_time() -> None:
    flow = scoresde.FlowSDE(t_min=0.01, t_max=0.99)
    t = torch.linspace(0.01, 0.99, 9, dtype=F64)
    for s in (0.5, 3.0):
        assert torch.allclose(shifted(flow, s, 1.0).log_snr(t), flow.log_snr(s * t / (1 + (s - 1) * t)), rtol=1e-9)
