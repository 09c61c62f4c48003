"""Traces from products with a matrix: no bias, the known variances, honest errors, exactness."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from scipy import special
from torch import Tensor

import scoresde
from scoresde import targets
from scoresde.core.processes import Network, ReverseProcess, angle
from scoresde.core.processes.coordinates import RHO, SNR, TIME
from scoresde.core.processes.divergence import (
    DIVERGENCES,
    PROBES,
    Backward,
    Divergence,
    ExactTrace,
    Hutchinson,
    HutchPlusPlus,
    XTrace,
)
from scoresde.core.processes.divergence.control import Control

F64 = torch.float64


def matrix(size: int = 6, rank: int | None = None, seed: int = 0) -> Tensor:
    """Not symmetric, of full rank or less."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, rank or size, generator=generator, dtype=F64) for _ in range(2))
    return left @ right.mT


def falling(size: int = 20) -> Tensor:
    """Symmetric with the eigenvalues 1/k^2."""
    q = torch.linalg.qr(matrix(size, seed=3)).Q
    return (q * torch.arange(1, size + 1, dtype=F64) ** -2.0) @ q.mT


def product(a: Tensor, event: tuple[int, ...]):
    return lambda v: (v.flatten(2) @ a).reshape(v.shape)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def unbiased(estimates: Tensor, trace: Tensor) -> bool:
    """At 4.892 standard errors: one false alarm in a million."""
    return float((estimates.mean() - trace).abs()) < 4.892 * float(estimates.std()) / len(estimates) ** 0.5


def test_the_exact_trace() -> None:
    a = matrix()
    for event in ((6,), (2, 3), (1, 3, 2)):
        got = ExactTrace(torch.zeros(3, 0, *event, dtype=F64))(product(a, event))
        torch.testing.assert_close(got, a.trace().expand(3, 1))


def test_all_signs_together_have_no_bias() -> None:
    """Every one of the 2^d Rademacher probes once."""
    a = matrix()
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=F64)
    estimates = Hutchinson(signs[None])(product(a, (6,)))
    assert estimates.shape == (1, 64)
    assert float((estimates.mean() - a.trace()).abs()) < 1e-12
    s = 0.5 * (a + a.mT)
    variance = 2 * (s.square().sum() - s.diagonal().square().sum())
    torch.testing.assert_close(estimates.var(correction=0), variance, rtol=1e-12, atol=1e-12)


def test_all_signs_of_the_rest_have_no_bias() -> None:
    """Hutch++ with one sketch and every one of the 2^d probes of the rest once."""
    a = matrix()
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=F64)
    sketch = normal(1, 2, 6, seed=1).expand(32, 2, 6)
    pairs = torch.cat([sketch, signs.reshape(32, 2, 6)], dim=1)
    for shift in (True, False):
        got = HutchPlusPlus(pairs, shift=shift)(product(a, (6,)))
        assert float((got.mean() - a.trace()).abs()) < 1e-12


def single(probe: str, s: Tensor) -> Tensor:
    """The variance of one probe."""
    size = len(s)
    if probe == "orthogonal":
        return 2 * size / (size + 2) * (s - s.trace() / size * torch.eye(size, dtype=F64)).square().sum()
    return 2 * (s.square().sum() - (s.diagonal().square().sum() if probe == "rademacher" else 0.0))


@pytest.mark.parametrize("probe", PROBES)
def test_the_variances_of_the_probes(probe: str) -> None:
    """200,000 probes: the variance within 5 %, five standard errors for a kurtosis of 21."""
    a = matrix()
    estimates = Hutchinson(PROBES[probe](normal(20_000, 10, 6, seed=1)))(product(a, (6,))).flatten()
    assert float(estimates.var() / single(probe, 0.5 * (a + a.mT))) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("m", [1, 2, 4, 6, 9, 12])
def test_orthogonal_probes_know_their_error(m: int) -> None:
    """The variance of the mean of m, of the formula and as `std_error` tells it, within 12 % (five standard errors of
    12,500 draws); whole frames are exact."""
    a, n, size = matrix(seed=2), 12_500, 6
    kind = PROBES["orthogonal"]
    probes = kind(normal(n, m, 2, 3, seed=m))
    frame = probes[:, :size].flatten(2)
    k = frame.shape[1]
    torch.testing.assert_close(frame @ frame.mT, size * torch.eye(k, dtype=F64).expand(n, k, k), rtol=0, atol=1e-10)
    trace = Hutchinson(probes, share=kind.share(m, size))
    paths = trace(product(a, (2, 3)))
    mean, claimed = paths.mean(1), trace.std_error(paths)
    if m % size == 0:
        torch.testing.assert_close(mean, a.trace().expand(n), rtol=1e-10, atol=1e-10)
        assert claimed.tolist() == [0.0] * n
        return
    assert unbiased(mean, a.trace())
    last = m % size
    exact = single("orthogonal", 0.5 * (a + a.mT)) * last * (size - last) / (size - 1) / m**2
    assert float(mean.var() / exact) == pytest.approx(1.0, abs=0.12)
    if m > 1:
        assert float(claimed.square().mean() / exact) == pytest.approx(1.0, abs=0.12)
    else:
        assert bool(claimed.isnan().all())


def test_hutch_plus_plus_is_exact_for_a_small_rank() -> None:
    """Without the shift."""
    for rank in (1, 2, 3):
        a = matrix(8, rank)
        got = HutchPlusPlus(normal(4, 6, 2, 4, seed=2), shift=False)(product(a, (2, 4)))
        assert got.shape == (4, 3)
        torch.testing.assert_close(got, a.trace().expand(4, 3), rtol=1e-9, atol=1e-9)


def test_hutch_plus_plus_is_exact_for_a_multiple_of_the_identity() -> None:
    """A = -4I in 64 dimensions: the published method is off by 5.6, the shifted one by nothing; and a small
    perturbation costs no more than its own deviation."""
    size, n = 64, 400
    a = -4 * torch.eye(size, dtype=F64)
    z = normal(n, 4, size, seed=5)
    for small in (0.0, 1e-3):
        some = a + small * matrix(size, seed=6) / 8
        plain, ours = (HutchPlusPlus(z, shift=s)(product(some, (size,))).mean(1) - some.trace() for s in (False, True))
        assert float(ours.square().mean().sqrt()) < 1e-10 + 100 * small
        assert float(plain.square().mean().sqrt()) > 5
    usual = DIVERGENCES["hutch++"].draw(z[:, 0], 6, PROBES["rademacher"], lambda like: z, None)
    torch.testing.assert_close(usual(product(a, (size,))), torch.full((n, 2), -4.0 * size, dtype=F64))


def test_hutch_plus_plus_has_no_bias_and_less_variance_on_a_falling_spectrum() -> None:
    """10,000 draws."""
    a, n = falling(), 10_000
    z = normal(n, 4, 20, seed=4)
    ours = HutchPlusPlus(torch.cat([z[:, :2], PROBES["rademacher"](z[:, 2:])], 1))(product(a, (20,))).mean(1)
    other = Hutchinson(PROBES["rademacher"](normal(n, 6, 20, seed=5)))(product(a, (20,))).mean(1)
    assert unbiased(ours, a.trace()) and unbiased(other, a.trace())
    assert float(ours.var()) < 0.25 * float(other.var())


def by_definition(a: Tensor, omega: Tensor) -> float:
    """XTrace of the transpose, each leave-one-out basis by itself: the mean of its terms. What is left of a vector is
    orthogonal to the basis after the second projection, however short it is."""
    m, size = omega.shape
    total = 0.0
    for i in range(m):
        rest = torch.cat([omega[:i], omega[i + 1 :]])
        q = torch.linalg.qr((rest @ a).mT).Q if m > 1 else torch.zeros(size, 0, dtype=F64)
        mu = omega[i]
        for _ in range(2):
            mu = mu - q @ (q.mT @ mu)
        mu = mu * ((size - m + 1) / mu.square().sum()) ** 0.5
        total += float((q.mT @ a.mT @ q).trace() + mu @ a.mT @ mu)
    return total / m


def test_xtrace_is_its_definition_and_its_paths_the_jackknife() -> None:
    """Both are sums of some 100 terms of the norm of the matrix, 22, without cancellation: 1e-11 is 2,000 roundings of
    it."""
    for m in (1, 2, 3, 5, 8):
        a, omega = matrix(8, seed=1), normal(1, m, 2, 4, seed=m)
        got = XTrace(omega)(product(a, (2, 4)))[0]
        rows = omega[0].flatten(1)
        whole = by_definition(a, rows)
        assert float(got.mean()) == pytest.approx(whole, abs=1e-11), m
        assert got.shape == (m,)
        if m > 1:
            fewer = [by_definition(a, torch.cat([rows[:i], rows[i + 1 :]])) for i in range(m)]
            left = torch.tensor(fewer, dtype=F64)
            torch.testing.assert_close(got, whole + (m - 1) * (left.mean() - left), rtol=0, atol=1e-11)


@pytest.mark.parametrize("rank", [0, 1, 6])
def test_xtrace_of_as_many_vectors_as_dimensions_is_the_trace(rank: int) -> None:
    """In all of 2,000 sketches, some of which leave a vector a thousandth of its length; the norm of the matrix is 14
    at most. Rounding errors of the products, 4e-16 of them, move no path by more than 1e-10, 2e4 times as much.
    """
    a = matrix(6, rank, seed=1) if rank else torch.zeros(6, 6, dtype=F64)
    trace, multiply = XTrace(normal(2_000, 6, 6, seed=3)), product(a, (6,))
    got = trace(multiply)
    torch.testing.assert_close(got.mean(1), a.trace().expand(2_000), rtol=0, atol=1e-11)
    other = trace(lambda v: multiply(v) * (1 + 4e-16 * normal(*v.shape, seed=4)))
    torch.testing.assert_close(other, got, rtol=0, atol=1e-10)


def test_xtrace_has_no_bias() -> None:
    """A matrix that is not symmetric, 15,000 draws: a bias of 0.04 standard deviations is seen."""
    a = matrix(7, seed=3)
    for m in (2, 4):
        assert unbiased(XTrace(normal(15_000, m, 7, seed=m))(product(a, (7,))).mean(1), a.trace()), m


def test_xtrace_is_exact_for_a_small_rank() -> None:
    """Up to half of the products less 1; the paths, of one vector less, up to 2 less."""
    for rank, exact in ((0, True), (1, True), (3, True), (4, False)):
        a = matrix(9, rank, seed=4) if rank else torch.zeros(9, 9, dtype=F64)
        got = XTrace(normal(5, 4, 9, seed=2))(product(a, (9,)))
        off = (got.mean(1) - a.trace()).abs()
        assert bool((off < 1e-8).all()) if exact else bool((off > 1e-4).any()), rank
        if rank < 3:
            torch.testing.assert_close(got, a.trace().expand(5, 4), rtol=1e-8, atol=1e-8)


def test_xtrace_has_less_variance_than_the_others_on_a_falling_spectrum() -> None:
    """Twelve products each; the variances of 4,000 draws are known to 10 % or so."""
    a, n, event = falling(), 4_000, (20,)
    hutchinson = Hutchinson(PROBES["rademacher"](normal(n, 12, 20, seed=1)))(product(a, event)).mean(1).var()
    z = normal(n, 8, 20, seed=2)
    others = [HutchPlusPlus(z, shift=s)(product(a, event)).mean(1).var() for s in (True, False)]
    ours = XTrace(normal(n, 6, 20, seed=3))(product(a, event)).mean(1).var()
    assert float(ours) < 0.5 * float(min(others)) and float(ours) < 0.05 * float(hutchinson)


MATRICES = {
    "not symmetric": matrix(12, seed=1),
    "falling": falling(12),
    "indefinite": torch.diag(torch.tensor([1.0, -1.0] * 6, dtype=F64)),
    "step": torch.diag(torch.tensor([1.0] * 5 + [0.01] * 7, dtype=F64)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_error_of_xtrace_is_not_too_small(name: str) -> None:
    """The mean square of the standard errors is at least the variance, and 95 % intervals hold at least 92.5 %, of
    5,000 draws (the variance is known to 8 %; an interval of 94 % would be seen to hold less than 92.5 % once in 10^5).
    """
    a, n = MATRICES[name], 5_000
    for m in (2, 3, 6):
        trace = XTrace(normal(n, m, 12, seed=m))
        paths = trace(product(a, (12,)))
        mean, claimed = paths.mean(1), trace.std_error(paths)
        assert unbiased(mean, a.trace()), m
        assert float(claimed.square().mean()) > 0.92 * float(mean.var()), m
        inside = (mean - a.trace()).abs() <= float(special.stdtrit(m - 1, 0.975)) * claimed
        assert float(inside.double().mean()) > 0.925, m


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_values_do_not_depend_on_the_chunk(name: str) -> None:
    a, x = matrix(), torch.zeros(3, 2, 3, dtype=F64)

    def made(chunk: int | None) -> Divergence:
        return DIVERGENCES[name].draw(x, 12, PROBES["rademacher"], lambda like: normal(*like.shape), chunk)

    for chunk in (1, 2, 5, 100):
        sizes: list[int] = []

        def counted(v: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(v.shape[1])
            return product(a, (2, 3))(v)

        trace = made(chunk)
        got = trace(counted)
        assert max(sizes) <= chunk and sum(sizes) == trace.products, chunk
        torch.testing.assert_close(got, made(None)(product(a, (2, 3))), rtol=1e-12, atol=1e-12)
        assert got.shape == (3, trace.paths), chunk
        torch.testing.assert_close(trace.take(torch.tensor([2, 0]))(product(a, (2, 3))), got[[2, 0]])


class Refuses(torch.autograd.Function):
    """No rule for batches of gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if float(slope.sum()) != float(slope.sum()):
            raise ValueError
        return slope * x.cos()


def test_products_one_by_one_where_autograd_refuses_several() -> None:
    x, v = normal(2, 3).requires_grad_(True), normal(2, 4, 3, seed=1)
    for function, at_once in ((torch.sin, True), (Refuses.apply, False)):
        backward = Backward()
        got = backward(function(x), x, v, False)
        torch.testing.assert_close(got, v * x.detach().cos()[:, None])
        assert backward.at_once is at_once
    assert torch.equal(Backward()(torch.zeros(2, 3), x, v, False), torch.zeros_like(v))


def laws() -> dict[str, Any]:
    root = matrix(6, seed=8) / 3
    covs = torch.stack([matrix(6, seed=i) @ matrix(6, seed=i).mT / 20 + 0.05 * torch.eye(6, dtype=F64) for i in (1, 2)])
    weights, means = torch.tensor([0.4, 0.6]), normal(2, 2, 3, seed=9)
    return {
        "gaussian": targets.Gaussian(normal(2, 3, seed=1), root @ root.mT),
        "diagonal": targets.Gaussian(normal(2, 3, seed=1), normal(2, 3, seed=2).square()),
        "low rank": targets.Gaussian(normal(2, 3, seed=1), targets.LowRank(matrix(6, seed=3)[:, :2], 0.1)),
        "mixture": targets.GaussianMixture(weights, means, covs),
        "mixture of diagonals": targets.GaussianMixture(weights, means, scales=normal(2, 2, 3, seed=4).abs() + 0.1),
    }


@pytest.mark.parametrize("law", laws())
def test_the_jacobians_of_denoisers(law: str) -> None:
    """Closed forms against autograd, float64, with one noise level per sample; and the posterior's covariance."""
    target, x = laws()[law], normal(3, 2, 3, seed=5).requires_grad_(True)
    sde = scoresde.VPSDE()
    node = sde.nodes(torch.tensor([0.05, 0.4, 1.0], dtype=F64))
    alpha, sigma = (v.reshape(3, 1, 1) for v in (node.alpha, node.sigma))
    units = torch.eye(6, dtype=F64).reshape(1, 6, 2, 3).expand(3, 6, 2, 3)
    given = target.score(sde).estimate(x, node)
    products, traces = target.tangent(x.detach(), units, alpha, sigma), target.trace(x.detach(), alpha, sigma)
    for out, got, trace in zip(given, products, traces, strict=True):
        exact = Backward()(out, x, units, False)
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(trace, exact.flatten(2).diagonal(dim1=1, dim2=2).sum(1), rtol=1e-9, atol=1e-11)
    one = target.tangent(x.detach(), units, float(alpha[1]), float(sigma[1]))
    torch.testing.assert_close(one.data[1], products.data[1])
    torch.testing.assert_close(target.trace(x.detach(), float(alpha[1]), float(sigma[1])).noise[1], traces.noise[1])


def test_the_trace_of_a_denoiser_is_that_of_the_posterior_covariance() -> None:
    """By quadrature in one dimension."""
    target = targets.GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [0.5]], dtype=F64), scales=0.2)
    x, alpha, sigma = torch.tensor([[0.1]], dtype=F64), 0.8, 0.5
    line = torch.linspace(-6, 6, 20_001, dtype=F64)[:, None]
    weights = (target.log_prob(line) - 0.5 * ((x - alpha * line) / sigma)[:, 0] ** 2).softmax(0)[:, None]
    mean = (weights * line).sum()
    variance = (weights * (line - mean) ** 2).sum()
    torch.testing.assert_close(target.trace(x, alpha, sigma).data[0], alpha / sigma**2 * variance, rtol=1e-9, atol=0)


@pytest.mark.parametrize("coordinate", [TIME, RHO, SNR, angle(0.2)], ids=lambda c: c.name)
@pytest.mark.parametrize("law", laws())
def test_controls_have_no_bias(law: str, coordinate: Any) -> None:
    """All 2^d signs: the trace of another field, and nothing is left of the control's own."""
    target, sde = laws()[law], scoresde.VPSDE()
    x = normal(2, 2, 3, seed=5).requires_grad_(True)
    node = sde.nodes(torch.tensor([0.2, 0.6], dtype=F64))
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=F64).reshape(1, 64, 2, 3)
    own, other = (
        process.answer(process.slope(coordinate, x, node))
        for process in (
            ReverseProcess(sde, Network(target.score(sde))),
            ReverseProcess(sde, Network(lambda x, t: -x - torch.sin(2 * x.roll(1, 2)))),
        )
    )
    for field, scale in ((own, 1.0), (other, 1.0), (other, 0.3)):
        control = Control(target, scale)

        def left(v: Tensor, field: Tensor = field, control: Control = control) -> Tensor:
            known = control.product(sde, coordinate, x.detach(), node, v)
            return Backward()(field, x, v, False) - known

        got = Hutchinson(signs.expand(2, 64, 2, 3))(left) + control.trace(sde, coordinate, x.detach(), node)[:, None]
        exact = ExactTrace(x.new_zeros(2, 0, 2, 3).detach())(lambda v, field=field: Backward()(field, x, v, False))[
            :, 0
        ]
        torch.testing.assert_close(got.mean(1), exact, rtol=1e-12, atol=1e-12)
        if field is own:
            torch.testing.assert_close(got, exact[:, None].expand(2, 64), rtol=1e-9, atol=1e-9)
