"""Traces from products with a matrix: no bias, the known variances, exactness."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from scoresde.processes.divergence import PROBES, Exact, Hutchinson, HutchPlusPlus

F64 = torch.float64


def matrix(size: int = 6, rank: int | None = None, seed: int = 0) -> Tensor:
    """Not symmetric, of full rank or less."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, rank or size, generator=generator, dtype=F64) for _ in range(2))
    return left @ right.mT


def product(a: Tensor, event: tuple[int, ...]):
    return lambda v: (v.flatten(1) @ a).reshape(-1, *event)


@pytest.mark.parametrize("event", [(6,), (2, 3), (1, 3, 2)])
def test_the_exact_trace(event: tuple[int, ...]) -> None:
    a = matrix()
    got = Exact(torch.zeros(3, 0, *event, dtype=F64))(product(a, event))
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


@pytest.mark.parametrize("probe", PROBES)
def test_the_variances_of_the_probes(probe: str) -> None:
    """200,000 probes: the variance within 5 %, five standard errors for a kurtosis of 21."""
    a = matrix()
    s = 0.5 * (a + a.mT)
    z = torch.randn(1, 200_000, 6, generator=torch.Generator().manual_seed(1), dtype=F64)
    estimates = Hutchinson(PROBES[probe](z))(product(a, (6,)))[0]
    exact = 2 * (s.square().sum() - (s.diagonal().square().sum() if probe == "rademacher" else 0.0))
    assert float(estimates.var() / exact) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_hutch_plus_plus_is_exact_for_a_small_rank(rank: int) -> None:
    a = matrix(8, rank)
    z = torch.randn(4, 9, 2, 4, generator=torch.Generator().manual_seed(2), dtype=F64)
    got = HutchPlusPlus(z)(product(a, (2, 4)))
    assert got.shape == (4, 3)
    torch.testing.assert_close(got, a.trace().expand(4, 3), rtol=1e-9, atol=1e-9)


def test_hutch_plus_plus_has_no_bias_and_less_variance_on_a_falling_spectrum() -> None:
    """20,000 draws at 4.9 standard errors; eigenvalues 1/k^2."""
    q = torch.linalg.qr(matrix(20, seed=3)).Q
    a = (q * torch.arange(1, 21, dtype=F64) ** -2.0) @ q.mT
    generator = torch.Generator().manual_seed(4)
    n = 20_000
    z = torch.randn(n, 6, 20, generator=generator, dtype=F64)
    ours = HutchPlusPlus(torch.cat([z[:, :2], PROBES["rademacher"](z[:, 2:])], 1))(product(a, (20,))).mean(1)
    plain = Hutchinson(PROBES["rademacher"](torch.randn(n, 6, 20, generator=generator, dtype=F64)))
    other = plain(product(a, (20,))).mean(1)
    for estimates in (ours, other):
        assert float((estimates.mean() - a.trace()).abs()) < 4.892 * float(estimates.std()) / n**0.5
    assert float(ours.var()) < 0.25 * float(other.var())
