"""Scores that are hard on step control: stiff, discontinuous, flat, noisy. A solve ends, with a result or a status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import MaxStepsError, Status, StepSizeUnderflowError, solve

F64 = torch.float64
SDE = scoresde.VPSDE()
ADAPTIVE = [m.name for m in scoresde.methods() if m.adaptive and m.kind != "backend"]
STOCHASTIC = [m.name for m in scoresde.methods() if m.stochastic]
by_method = pytest.mark.parametrize("method", ADAPTIVE)

pytestmark = pytest.mark.timeout(60)


def states(rows: int = 4, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(5), dtype=F64).to(dtype)


def column(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


class Counted:
    """A score that counts its rows' evaluations."""

    rowwise = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function, self.rows = function, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.rows += len(x)
        return self.function(x, column(t, x))


def ended(method: str, function: Callable[[Tensor, Tensor], Tensor], **options: Any) -> scoresde.Solution:
    """A solve that is limited to some hundred steps; every sample has a result, or a status that says why not."""
    score_fn = Counted(function)
    tolerance = 0.1 if method in STOCHASTIC else 1e-3
    options = {"rtol": tolerance, "atol": tolerance, "max_steps": 400, "seeds": range(4), **options}
    solution = solve(SDE, score_fn, states(), method=method, throw=False, **options)
    assert score_fn.rows == int(solution.nfe.sum())
    trials = solution.accepted + solution.rejected
    assert int(trials.max()) <= options["max_steps"]
    failed = ~solution.success
    assert bool(solution.x[~failed].isfinite().all())
    known = {Status.SUCCESS, Status.MAX_STEPS, Status.STEP_UNDERFLOW}
    assert {Status(int(s)) for s in solution.status} <= known
    return solution


def gaussian(x: Tensor, t: Tensor, variance: float = 0.25) -> Tensor:
    a2 = torch.exp(-(0.1 * t + 9.95 * t * t))
    return -x / (variance * a2 + 1 - a2)


@by_method
def test_a_stiff_score(method: str) -> None:
    """Data of a standard deviation of 1e-4: the flow is stiff at the end, where explicit methods take small steps."""
    solution = ended(method, lambda x, t: gaussian(x, t, 1e-8))
    if bool(solution.success.all()):
        assert float(solution.x.abs().max()) < 1.0


@by_method
@pytest.mark.parametrize("size", [0.1, 10.0, 1e6])
def test_a_score_with_a_jump(method: str, size: float) -> None:
    """In time and in space. A step over the jump is rejected until it is short; then its error is that of the step."""
    solution = ended(method, lambda x, t: gaussian(x, t) + size * (t > 0.5) + 0.1 * size * (x > 0.3))
    if size == 0.1:
        assert bool(solution.success.all()) and int(solution.rejected.max()) < 60


@by_method
def test_a_plateau(method: str) -> None:
    """A score that is exactly zero gives no scale for the steps; the result is that of the linear part alone."""
    solution = ended(method, lambda x, t: 0 * x, max_steps=100)
    assert bool(solution.success.all()) and int(solution.rejected.max()) < 20


@by_method
@pytest.mark.parametrize("noise", [1e-5, 1e-3, 0.1])
def test_a_network_with_noise_in_its_output(method: str, noise: float) -> None:
    """Differences of evaluations do not fall below the noise, however short the step."""
    generator = torch.Generator().manual_seed(0)

    def function(x: Tensor, t: Tensor) -> Tensor:
        return gaussian(x, t) + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    solution = ended(method, function, max_steps=100 if noise > 1e-3 else 400)
    if noise <= 1e-3:
        assert bool(solution.success.all())


@by_method
def test_float16_and_bfloat16_networks(method: str) -> None:
    """A score rounded to half precision is a score with steps in it."""
    for dtype in (torch.float16, torch.bfloat16):
        solution = ended(method, lambda x, t, dtype=dtype: gaussian(x, t).to(dtype).to(x.dtype), rtol=1e-2, atol=1e-2)
        assert bool(solution.success.all())


def test_the_partial_solution_is_in_the_error() -> None:
    for method in ADAPTIVE:
        with pytest.raises(MaxStepsError) as caught:
            solve(SDE, lambda x, t: -3 * x, states(), method=method, rtol=1e-8, atol=1e-8, max_steps=4, seed=0)
        partial = caught.value.partial
        assert partial is not None and bool((partial.accepted + partial.rejected <= 4).all())
        assert bool(((partial.t > SDE.t_min) & (partial.t <= SDE.t_max)).all()) and bool(partial.x.isnan().all())
        assert {Status(int(s)) for s in partial.status} == {Status.MAX_STEPS}


def test_the_limit_of_steps_is_finite() -> None:
    """An error estimate that never falls ends in an underflow, long before the default limit."""
    generator = torch.Generator().manual_seed(0)
    calls = 0

    def wild(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 1e12 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    for method in ADAPTIVE:
        calls = 0
        with pytest.raises((StepSizeUnderflowError, MaxStepsError)) as caught:
            solve(SDE, wild, states(2), method=method, seeds=range(2), rtol=1e-6, atol=1e-6, max_steps=500)
        assert calls < 7000 and caught.value.partial is not None


ODES = ["adams", "rk45", "tsit5", "dop853", "dpm12", "dpm23", "erk32", "erk43", "rk23"]


@pytest.mark.parametrize("method", ODES)
@pytest.mark.parametrize("length", [1e-15, 1e-14, 2.3e-16, 1e-12])
def test_an_interval_of_a_few_units_in_the_last_place(method: str, length: float) -> None:
    sde = scoresde.VPSDE()
    x = torch.ones(1, 2, dtype=torch.float64)
    got = scoresde.solve(sde, lambda x, t: -x, x, method=method, t_start=0.5, t_end=0.5 - length)
    assert got.evaluations < 100
    torch.testing.assert_close(got.x, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ODES)
def test_a_rejected_trial_that_is_not_finite_leaves_no_trace_in_a_gradient(method: str) -> None:
    """A sample's gradient is what it is alone, also where a batch mate goes on."""
    sde = scoresde.VPSDE()

    class Once:
        rowwise = False

        def __init__(self, row: int) -> None:
            self.row, self.calls = row, 0

        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            out = -x / (0.5 + x * x)
            if self.calls == 8:
                hot = torch.zeros(len(x), 1, dtype=x.dtype)
                hot[self.row] = float("inf")
                out = out * (1 + hot) - out * hot
            return out

    states = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slopes = []
    for rows, row in ((list(range(6)), 1), ([1], 0)):
        x = states[rows].clone().requires_grad_(True)
        got = scoresde.solve(sde, Once(row), x, method=method, differentiable=True)
        (slope,) = torch.autograd.grad(got.x[row].sum(), x)
        assert bool(slope.isfinite().all())
        slopes.append(slope[row])
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-12)
