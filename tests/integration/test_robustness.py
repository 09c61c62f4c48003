"""Scores that are hard on step control: stiff, discontinuous, flat, noisy. A solve ends, with a result or a status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import MaxStepsError, Status, StepSizeUnderflowError, solve
from tests.parameters import own_methods, ways

F64 = torch.float64
SDE = scoresde.VPSDE()
ADAPTIVE = {m.name: m for m in own_methods() if m.adaptive}
WAYS = [name for name in ways() if name in ADAPTIVE]
ODES = [name for name, m in ADAPTIVE.items() if not m.stochastic]
by_way = pytest.mark.parametrize("method", WAYS)

pytestmark = pytest.mark.timeout(60)


def states(rows: int = 4, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(5), dtype=F64).to(dtype)


class Counted:
    """A score that counts its rows' evaluations."""

    rowwise = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function, self.rows = function, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.rows += len(x)
        return self.function(x, t[:, None])


def ended(method: str, function: Callable[[Tensor, Tensor], Tensor], **options: Any) -> scoresde.Solution:
    """A solve of a limited number of steps; every sample has a result, or a status that says why not."""
    score_fn = Counted(function)
    tolerance = 0.1 if ADAPTIVE[method].stochastic else 1e-3
    options = {"rtol": tolerance, "atol": tolerance, "max_steps": 200, "seeds": range(4), **options}
    solution = solve(SDE, score_fn, states(), method=method, throw=False, **options)
    assert score_fn.rows == int(solution.nfe.sum())
    assert int((solution.accepted + solution.rejected).max()) <= options["max_steps"]
    assert bool(solution.x[solution.success].isfinite().all())
    known = {Status.SUCCESS, Status.MAX_STEPS, Status.STEP_UNDERFLOW}
    assert {Status(int(s)) for s in solution.status} <= known
    return solution


def gaussian(x: Tensor, t: Tensor, variance: float = 0.25) -> Tensor:
    a2 = torch.exp(-(0.1 * t + 9.95 * t * t))
    return -x / (variance * a2 + 1 - a2)


@by_way
def test_a_stiff_score_and_one_with_a_jump(method: str) -> None:
    """Data of a standard deviation of 1e-4: the flow is stiff at the end, where explicit methods take small steps. A
    step over a jump in time or in space is rejected until it is short; then its error is that of the step."""
    stiff = ended(method, lambda x, t: gaussian(x, t, 1e-8))
    assert not bool(stiff.success.all()) or float(stiff.x.abs().max()) < 1.0
    for size in (0.1, 10.0, 1e6):
        jump = ended(method, lambda x, t, s=size: gaussian(x, t) + s * (t > 0.5) + 0.1 * s * (x > 0.3))
        if size == 0.1:
            assert bool(jump.success.all()) and int(jump.rejected.max()) < 60


@by_way
def test_a_score_that_is_flat_noisy_or_rounded(method: str) -> None:
    """A score that is zero gives no scale for the steps. Differences of a noisy score do not fall below the noise,
    however short the step. A score that is rounded to half precision is one with steps in it."""
    plateau = ended(method, lambda x, t: 0 * x, max_steps=100)
    assert bool(plateau.success.all()) and int(plateau.rejected.max()) < 20
    generator = torch.Generator().manual_seed(0)

    def noisy(size: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: gaussian(x, t) + size * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    ended(method, noisy(0.1), max_steps=50)
    for size in (1e-5, 1e-3):
        assert bool(ended(method, noisy(size)).success.all()), size
    for dtype in (torch.float16, torch.bfloat16):
        rounded = ended(method, lambda x, t, d=dtype: gaussian(x, t).to(d).to(x.dtype), rtol=1e-1, atol=1e-1)
        assert bool(rounded.success.all()), dtype


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_limit_of_steps_ends_a_solve_and_the_partial_solution_is_in_the_error(method: str) -> None:
    """An error estimate that never falls ends in an underflow, long before the default limit."""
    with pytest.raises(MaxStepsError) as caught:
        solve(SDE, lambda x, t: -3 * x, states(), method=method, rtol=1e-8, atol=1e-8, max_steps=4, seed=0)
    partial = caught.value.partial
    assert partial is not None and bool((partial.accepted + partial.rejected <= 4).all())
    assert bool(((partial.t > SDE.t_min) & (partial.t <= SDE.t_max)).all()) and bool(partial.x.isnan().all())
    assert {Status(int(s)) for s in partial.status} == {Status.MAX_STEPS}
    generator = torch.Generator().manual_seed(0)
    calls = 0

    def wild(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 1e12 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    with pytest.raises((StepSizeUnderflowError, MaxStepsError)) as ending:
        solve(SDE, wild, states(2), method=method, seeds=range(2), rtol=1e-6, atol=1e-6, max_steps=500)
    assert calls < 7000 and ending.value.partial is not None


@pytest.mark.parametrize("method", ODES)
def test_an_interval_of_a_few_units_in_the_last_place(method: str) -> None:
    x = torch.ones(1, 2, dtype=torch.float64)
    for length in (1e-15, 1e-14, 2.3e-16, 1e-12):
        got = solve(SDE, lambda x, t: -x, x, method=method, t_start=0.5, t_end=0.5 - length)
        assert got.evaluations < 100, length
        torch.testing.assert_close(got.x, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", [name for name in WAYS if name in ODES])
def test_a_rejected_trial_that_is_not_finite_leaves_no_trace_in_a_gradient(method: str) -> None:
    """A sample's gradient is what it is alone, also where a batch mate goes on."""

    class Once:
        rowwise = False

        def __init__(self, row: int) -> None:
            self.row, self.calls = row, 0

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            self.calls += 1
            out = -x / (0.5 + x * x)
            if self.calls == 8:
                hot = torch.zeros(len(x), 1, dtype=x.dtype)
                hot[self.row] = float("inf")
                out = out * (1 + hot) - out * hot
            return out

    slopes = []
    for rows, row in ((list(range(4)), 1), ([1], 0)):
        x = states()[rows].requires_grad_(True)
        got = solve(SDE, Once(row), x, method=method, differentiable=True)
        (slope,) = torch.autograd.grad(got.x[row].sum(), x)
        assert bool(slope.isfinite().all())
        slopes.append(slope[row])
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["ddim", "rk45", "pc", "scipy:RK45"])
def test_a_network_that_leaves_gradients_on_is_named_and_they_are_off_again(method: str) -> None:
    def score(x: Tensor, t: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        return -x

    for kind in (score, scoresde.ScoreModel(score, SDE, "noise")):
        with torch.no_grad():
            with pytest.raises(scoresde.ScoreFnError, match="left torch's gradient mode on"):
                solve(SDE, kind, states().float(), method=method, seed=0)
            assert not torch.is_grad_enabled()


def test_a_callback_answers_for_all_samples() -> None:
    """A mask would end all of a batch of one, and is no answer for more."""
    for count in (1, 3):
        x = torch.ones(count, 2)
        for mask in (torch.ones(count, dtype=torch.bool), np.zeros(count, dtype=bool)):
            with pytest.raises(scoresde.InvalidTypeError, match="must return True or False for all samples"):
                scoresde.solve(SDE, lambda x, t: -x, x, method="ddim", steps=3, callback=lambda info, m=mask: m)
        answers = {1: (torch.tensor(True), np.bool_(True), True), 3: (None, torch.tensor(False))}
        for steps, answer in ((steps, answer) for steps, some in answers.items() for answer in some):
            made = scoresde.solve(SDE, lambda x, t: -x, x, method="ddim", steps=3, callback=lambda info, a=answer: a)
            assert made.steps == steps


def test_events_of_size_0_need_no_library() -> None:
    for method in ("torchdiffeq:implicit_adams", "torchdiffeq:dopri5", "scipy:RK45"):
        steps = {"steps": 4} if "implicit" in method else {}
        assert scoresde.solve(SDE, lambda x, t: -x, shape=(2, 0), method=method, seed=0, **steps).x.shape == (2, 0)
