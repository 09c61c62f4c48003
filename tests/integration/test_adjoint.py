"""Gradients of log-likelihoods by the adjoint equation, against those of the steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import log_likelihood, targets

F64 = torch.float64
SDE = scoresde.VPSDE()
TIGHT: dict[str, Any] = {"probes": 2, "seed": 0, "rtol": 1e-5, "atol": 1e-5, "check": False}
LOOSE = TIGHT | {"rtol": 1e-3, "atol": 1e-3}


class Closure:
    """A score function whose parameters are those of a network and a number that its scale is made of."""

    def __init__(self, dtype: torch.dtype = F64) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
        self.number = torch.tensor(0.3, dtype=dtype, requires_grad=True)
        self.scale = self.number.exp()

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (self.number, *self.net.parameters())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.scale * x + 0.2 * self.net(torch.cat([x, t[:, None]], 1))


def data(dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=F64).to(dtype).requires_grad_(True)


def gradients(score: Closure, x: Tensor, differentiable: Any, **options: Any) -> tuple[Tensor, ...]:
    """Of the densities and of the latents, in the data and in all parameters."""
    got = log_likelihood(SDE, score, x, differentiable=differentiable, **{**TIGHT, **options})
    total = got.log_prob.sum() + got.latent.square().sum()
    return torch.autograd.grad(total, (x, *score.leaves), retain_graph=True)


@pytest.mark.parametrize(
    ("dtype", "options", "near"),
    [
        (F64, {}, 1e-4),
        (F64, {"method": "rk45", "form": "noise"}, 1e-4),
        (torch.float32, {"rtol": 1e-4, "atol": 1e-4}, 2e-3),
    ],
)
def test_it_is_that_of_the_steps(dtype: torch.dtype, options: dict[str, Any], near: float) -> None:
    score, x = Closure(dtype), data(dtype)
    kept = gradients(score, x, True, **({} if dtype == F64 else options))
    for adjoint, steps in zip(gradients(score, x, "adjoint", **options), kept, strict=True):
        assert adjoint.dtype == dtype and float((adjoint - steps).abs().max()) < near * float(steps.abs().max())


def test_the_gradient_of_the_density_is_the_score() -> None:
    target = targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0.0], [0.5, 1.0]], dtype=F64), scales=0.4)

    class Law:
        def log_prob(self, x: Tensor) -> Tensor:
            return target.log_prob(x, SDE, SDE.t_max)

    x = target.sample(3, SDE, 0.1, generator=torch.Generator().manual_seed(0)).to(F64).requires_grad_(True)
    options: dict[str, Any] = {"divergence": "exact", "t_start": 0.1, "prior": Law(), "rtol": 1e-6, "atol": 1e-6}
    got = log_likelihood(SDE, target.score(SDE), x, differentiable="adjoint", **options)
    (slope,) = torch.autograd.grad(got.log_prob.sum(), x)
    torch.testing.assert_close(slope, target.score(SDE)(x.detach(), 0.1), rtol=1e-5, atol=1e-5)


def test_failed_samples_have_no_gradient_and_leave_that_of_the_others() -> None:
    score, x = Closure(), data()
    broken = x.detach().clone()
    broken[1] = math.nan
    broken.requires_grad_(True)
    given = {**TIGHT, "seed": None, "seeds": range(3)}
    got = log_likelihood(SDE, score, broken, differentiable="adjoint", throw=False, **given)
    (slope,) = torch.autograd.grad(got.log_prob[got.success].sum(), broken, retain_graph=True)
    kept = log_likelihood(SDE, score, x, differentiable=True, **given).log_prob
    (alone,) = torch.autograd.grad(kept[[0, 2]].sum(), x)
    assert slope[1].tolist() == [0.0] * 3
    torch.testing.assert_close(slope[[0, 2]], alone[[0, 2]], rtol=1e-3, atol=1e-3)


def test_values_and_counts_are_those_without_a_gradient_and_nothing_is_evaluated_outside_the_interval() -> None:
    seen: list[float] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return -x / (0.3 + 0.7 * t[:, None]) - 0.1 * torch.sin(x)

    x = data()
    plain, got = (log_likelihood(SDE, score, x, differentiable=d, **LOOSE) for d in (False, "adjoint"))
    assert torch.equal(plain.log_prob, got.log_prob.detach()) and torch.equal(plain.nfe, got.nfe)
    got.log_prob.sum().backward()
    assert SDE.t_min <= min(seen) and max(seen) <= SDE.t_max and x.grad is not None


def test_parameters_that_are_used_now_and_then_are_an_error() -> None:
    rare = torch.tensor(0.1, dtype=F64, requires_grad=True)

    def score(x: Tensor, t: Tensor) -> Tensor:
        return -x * (1 + rare if 0.01 < float(t[0]) < 0.02 else 1.0)

    x = data()
    got = log_likelihood(SDE, score, x, differentiable="adjoint", **TIGHT)
    with pytest.raises(scoresde.ScoreFnError, match="checkpoint"):
        got.log_prob.sum().backward()


def test_refusals() -> None:
    x = data()
    with pytest.raises(scoresde.InvalidArgumentError, match="schedule"):
        log_likelihood(
            scoresde.VDMSDE(scoresde.nets.MonotoneGamma()), lambda x, t: -x, x, differentiable="adjoint", **LOOSE
        )
    with pytest.raises(scoresde.InvalidArgumentError, match="did you mean 'adjoint'"):
        log_likelihood(SDE, lambda x, t: -x, x, differentiable="adjiont", **LOOSE)
    got = log_likelihood(SDE, lambda x, t: -x, x, differentiable="adjoint", **LOOSE)
    (slope,) = torch.autograd.grad(got.log_prob.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_the_adjoint_is_right_where_the_steps_see_no_error() -> None:
    """With the score -w x the noise is x e^(-a), a = (1 - w) B, and ln p(x) = -D a - |x|^2 e^(-2a)/2 + c. At w = 1 the
    values of `adams` have no error that would shorten its steps, and their gradient in w is off, as the page says."""
    x = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=F64)
    weight = torch.ones((), dtype=F64, requires_grad=True)

    def slope(differentiable: Any) -> float:
        found = log_likelihood(SDE, lambda x, t: -weight * x, x, differentiable=differentiable, divergence="exact")
        return float(torch.autograd.grad(found.log_prob.sum(), weight)[0])

    length = math.log(SDE.node(SDE.t_min).alpha / SDE.node(SDE.t_max).alpha)  # B
    exact = length * (x.numel() - float(x.square().sum()))
    assert slope("adjoint") == pytest.approx(exact, rel=1e-3)
    assert slope(True) != pytest.approx(exact, rel=0.1)
