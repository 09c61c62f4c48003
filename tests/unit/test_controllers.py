"""Controllers by themselves: fixed grids, and the adaptive one's rules for acceptance, growth, targets and failure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scoresde
from scoresde import EDMSDE, VESDE, VPSDE, SubVPSDE, solve
from scoresde.core.controllers import Adaptive, FixedGrid
from scoresde.core.processes import Network, ReverseProcess
from scoresde.solvers import RK45, Heun, Solver, StepControl, StepResult

pytestmark = pytest.mark.timeout(20)

SDE = VPSDE()


def process_of(sde: Any = SDE) -> ReverseProcess:
    return ReverseProcess(sde, Network(lambda x, t: -x))


def test_nodes_of_a_fixed_grid_are_python_floats_computed_before_the_first_step() -> None:
    for sde in (VPSDE(), SubVPSDE(), VESDE(), EDMSDE()):
        times = torch.linspace(sde.t_max, sde.t_min, 6, dtype=torch.float64)
        times[0], times[-1] = sde.t_max, sde.t_min
        grid, process = FixedGrid(times), process_of(sde)
        x = torch.zeros(2, 3)
        start = grid.start(process, x)
        stop, state = grid.first(process, Heun(), x, start, None)
        seen = [start]
        while stop is not None:
            seen.append(stop)
            decision = grid.adapt(process, Heun(), x, start, stop, StepResult(x), state)
            assert decision.accept is True and decision.done is None and decision.non_finite is None
            start, stop, state = decision.start, decision.stop, decision.state
        assert [n.t for n in seen] == times.tolist() and grid.steps == 5
        for node in seen:
            assert all(type(v) is float for v in node)
            assert list(node) == pytest.approx(list(sde.node(node.t)), rel=1e-14)


def adapt(
    controller: Adaptive,
    error: list[float],
    *,
    t: float = 1.0,
    h: float = 0.1,
    wanted: float | None = None,
    last: float = 1.0,
    non_finite: int = 0,
    target: int = 0,
    taken: int = 0,
    end: float | None = None,
    x: Tensor | None = None,
    solver: Solver | None = None,
) -> Any:
    """A decision after a step of size h from t, with given errors, of x = 0 (so that the scale is atol)."""
    n, process, solver = len(error), process_of(), solver or RK45()
    full = lambda v: torch.full((n,), v, dtype=torch.float64)  # noqa: E731
    sign = math.copysign(1.0, controller.targets[-1] - controller.t_start)
    start, stop = SDE.nodes(full(t)), SDE.nodes(full(t + sign * h if end is None else end))
    x = torch.zeros(n, 4, dtype=torch.float64) if x is None else x
    _, state = controller.first(process, solver, x, start, None)
    state = state._replace(
        h=np.full(n, h if wanted is None else wanted),
        last_error=np.full(n, last),
        non_finite=np.full(n, non_finite),
        target=np.full(n, target),
        taken=np.full(n, taken),
    )
    result = StepResult(x, None, torch.tensor(error, dtype=torch.float64)[:, None].expand(n, 4))
    return controller.adapt(process, solver, x, start, stop, result, state)


CONTROLLER = Adaptive(1.0, (0.001,), rtol=0.0, atol=1.0)


def test_a_step_is_accepted_if_its_error_is_at_most_one() -> None:
    decision = adapt(CONTROLLER, [0.0, 0.5, 1.0, 1.0 + 1e-9, 10.0, math.nan, math.inf, -0.5])
    assert decision.accept.tolist() == [True, True, True, False, False, False, False, True]
    assert decision.start.t.tolist() == [0.9, 0.9, 0.9, 1.0, 1.0, 1.0, 1.0, 0.9]


def test_after_many_steps_a_step_may_err_less() -> None:
    class Patient(RK45):
        control = StepControl(many=16.0)

    for taken, allowed in ((0, 1.0), (15, 1.0), (31, 0.5**0.5), (63, 0.5), (1599, 0.1)):
        errors = [allowed * (1 - 1e-9), allowed * (1 + 1e-9)]
        decision = adapt(CONTROLLER, errors, taken=taken, solver=Patient())
        assert decision.accept.tolist() == [True, False], taken
        assert (decision.state.taken - taken).tolist() == [1, 0], taken
        assert adapt(CONTROLLER, errors, taken=taken).accept.tolist() == [True, allowed < 1], taken


@settings(max_examples=60)
@given(error=st.floats(1e-8, 1e8), last=st.floats(1e-4, 1.0))
def test_the_next_step_follows_the_rule(error: float, last: float) -> None:
    decision = adapt(CONTROLLER, [error], last=last, h=1e-3)
    factor = min(10.0, max(0.2, 0.9 * error ** (-0.7 / 5) * last ** (0.4 / 5)))
    if error > 1:  # by this error alone
        factor = min(0.9, max(0.2, 0.9 * error ** (-1 / 5)))
    assert decision.state.h.item() == pytest.approx(1e-3 * factor, rel=1e-9)
    assert bool(decision.accept) == (error <= 1)
    # A rejected step is tried again from the same place, smaller.
    if error > 1:
        assert float(decision.start.t) == 1.0 and decision.state.h.item() < 1e-3


def test_the_scale_is_each_samples_own() -> None:
    controller = Adaptive(1.0, (0.001,), rtol=0.1, atol=0.0)
    x = torch.tensor([[1.0] * 4, [100.0] * 4], dtype=torch.float64)
    decision = adapt(controller, [1.0, 1.0], x=x)
    assert decision.accept.tolist() == [False, True]


@settings(max_examples=40)
@given(errors=st.lists(st.one_of(st.floats(0, 100), st.just(math.nan)), min_size=2, max_size=6), data=st.data())
def test_samples_do_not_see_each_other(errors: list[float], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(errors) - 1))
    whole, alone = adapt(CONTROLLER, errors), adapt(CONTROLLER, [errors[i]])
    for a, b in zip(whole.state, alone.state, strict=True):
        assert np.array_equal(a[i : i + 1], b)
    for node_a, node_b in ((whole.start, alone.start), (whole.stop, alone.stop)):
        for a, b in zip(node_a, node_b, strict=True):
            assert torch.equal(a[i : i + 1], b)


def test_steps_that_are_not_finite_shrink_by_five_and_end() -> None:
    decision = adapt(CONTROLLER, [math.nan], h=0.1)
    assert decision.state.h.item() == pytest.approx(0.02) and not bool(decision.non_finite)
    assert decision.state.non_finite.item() == 1 and not bool(decision.accept)
    assert bool(adapt(CONTROLLER, [math.nan], non_finite=CONTROLLER.attempts - 1).non_finite)
    assert not bool(adapt(CONTROLLER, [math.nan], non_finite=CONTROLLER.attempts - 2).non_finite)


def test_an_infinite_state_is_not_accepted_whatever_its_error() -> None:
    """An infinite state has an infinite scale, and any error is small next to it."""
    controller = Adaptive(1.0, (0.001,), rtol=0.1, atol=1.0)
    x = torch.full((1, 4), math.inf, dtype=torch.float64)
    decision = adapt(controller, [0.5], x=x)
    assert not bool(decision.accept) and decision.state.non_finite.item() == 1


def test_a_step_that_the_clock_cannot_resolve_is_an_underflow() -> None:
    h = 8 * 2.0**-53
    decision = adapt(CONTROLLER, [100.0], h=h)
    assert bool(decision.underflow) and not bool(decision.non_finite)
    assert not bool(adapt(CONTROLLER, [100.0], h=1e-6).underflow)
    assert not bool(adapt(CONTROLLER, [0.5], h=h).underflow)  # an accepted step is no failure


@settings(max_examples=80)
@given(
    t=st.floats(0.02, 1.0),
    share=st.floats(1e-6, 0.99),
    error=st.floats(1e-6, 1.0),
    targets=st.lists(st.floats(0.001, 0.009), min_size=1, max_size=4, unique=True),
)
def test_a_step_never_passes_a_target(t: float, share: float, error: float, targets: list[float]) -> None:
    controller = Adaptive(1.0, tuple(sorted(targets, reverse=True)), rtol=0.0, atol=1.0)
    decision = adapt(controller, [error], t=t, h=share * (t - 0.01), end=t - share * (t - 0.01))
    now, h, stop, end = *(v.item() for v in (decision.start.t, decision.state.h, decision.stop.t)), max(targets)
    left = now - end
    assert end <= stop < now
    if h >= left:
        assert stop == end  # exactly
    elif h >= 0.5 * left:
        assert stop == pytest.approx(now - 0.5 * left) or stop == end  # no sliver is left over
    else:
        assert stop == pytest.approx(now - h)


def test_a_target_that_was_hit_gives_way_to_the_next() -> None:
    controller = Adaptive(1.0, (0.9, 0.5, 0.001), rtol=0.0, atol=1.0)
    decision = adapt(controller, [0.5], t=1.0, h=0.1, end=0.9, wanted=0.4)
    assert decision.start.t.tolist() == [0.9] and decision.state.target.item() == 1 and not bool(decision.done)
    assert decision.state.h.item() >= 0.4  # a step cut short for a target does not shrink the next
    assert float(decision.stop.t) in (0.5, pytest.approx(0.7))
    last = adapt(controller, [0.5], t=0.5, h=0.5 - 0.001, end=0.001, target=2)
    assert bool(last.done) and last.start.t.tolist() == [0.001]


def test_the_first_step_is_positive_finite_and_within_the_interval() -> None:
    controller = Adaptive(1.0, (0.001,), rtol=1e-3, atol=1e-3)
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1e6, 1e6]], dtype=torch.float64)
    speed = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1e30, 1e30], [math.nan, 1.0]], dtype=torch.float64)
    process = process_of()
    stop, state = controller.first(process, RK45(), x, controller.start(process, x), speed)
    assert all(v.shape == (4,) and v.dtype == torch.float64 for v in stop)  # one value a sample
    assert ((state.h > 0) & (state.h <= 0.999)).all()
    assert bool(((stop.t < 1.0) & (stop.t >= 0.001)).all())


def test_the_steps_do_not_depend_on_the_unit_of_time() -> None:
    """The same process with a clock that runs at another speed takes the same steps."""

    def sde_of(c: float) -> Any:
        return scoresde.GaussianSDE(lambda t: torch.cos(t / c), lambda t: torch.sin(t / c), 0.01 * c, 1.5 * c)

    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = scoresde.targets.GaussianMixture(
        torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double(), scales=0.2
    )
    for method in ("rk45", "adams"):
        one, *others = (solve(s, target.score(s), x, method=method) for s in map(sde_of, (1.0, 1e-3, 1e6)))
        for other in others:
            assert torch.equal(one.accepted, other.accepted) and torch.equal(one.rejected, other.rejected), method
            torch.testing.assert_close(one.x, other.x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["rk45", "adams"])
def test_nothing_is_evaluated_outside_the_interval_and_the_end_is_exact(method: str) -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t_start, t_end in ((1.0, 0.001), (0.001, 1.0), (0.3, 0.7)):
        times: list[float] = []

        def score_fn(x: Tensor, t: Tensor, times: list[float] = times) -> Tensor:
            times.extend(t.tolist())
            return -x / (1 + t[:, None])

        inner = [0.35, 0.6] if t_start < t_end else [0.6, 0.35]
        solution = solve(SDE, score_fn, x, method=method, t_start=t_start, t_end=t_end, save_at=[*inner, t_end])
        assert min(times) >= min(t_start, t_end) and max(times) <= max(t_start, t_end)
        assert solution.t.tolist() == [t_end] * 5
        assert set(inner) <= set(times)  # the targets are nodes of every sample
