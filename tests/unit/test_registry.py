"""The list of methods: what each declares is what it does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import (
    VPSDE,
    InvalidArgumentError,
    InvalidTypeError,
    LangevinCorrector,
    Method,
    Noise,
    methods,
    solve,
    solvers,
    testing,
)
from scoresde.solvers import Ancestral, Solver, make_solver

pytestmark = pytest.mark.timeout(20)

SDE = VPSDE()
METHODS = methods()
by_name = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
# How many steps a library makes inside one of the loop is its own business: see tests/integration/test_backends.py.
STEPPED = [m for m in METHODS if not m.solver().own_steps]
stepped = pytest.mark.parametrize("method", STEPPED, ids=lambda m: m.name)


class Counted(Noise):
    def __init__(self) -> None:
        self.draws = 0
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, like: Tensor) -> Tensor:
        self.draws += 1
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def states(rows: int = 3) -> Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_record_has_the_promised_fields() -> None:
    assert Method._fields == (
        "name",
        "solver",
        "kind",
        "stochastic",
        "adaptive",
        "evaluations",
        "ode_order",
        "weak_order",
        "strong_order",
        "batch_coupled",
        "reference",
        "states",
    )
    names = [m.name for m in METHODS]
    assert len(names) == len(set(names)) and "pc" in names and methods() == METHODS


@by_name
def test_a_method_declares_itself_in_full(method: Method) -> None:
    assert method.kind in ("ode", "sde", "mcmc", "backend")
    assert type(method.stochastic) is bool and type(method.adaptive) is bool and type(method.batch_coupled) is bool
    assert method.reference and method.evaluations >= 1
    assert issubclass(method.solver, Solver) and method.name in (method.solver.name, *method.solver.aliases)
    if method.kind == "ode":
        assert isinstance(method.ode_order, int) and method.ode_order >= 1 and not method.stochastic
        assert method.weak_order is None and method.strong_order is None
    if method.kind in ("sde", "mcmc"):
        assert method.stochastic and method.ode_order is None
    orders = (method.ode_order, method.weak_order, method.strong_order)
    if orders == (None, None, None):
        text = (method.solver.__doc__ or "").lower()
        assert "order" in text and ("not an order" in text or "no order" in text)  # the reason


@by_name
def test_a_solver_is_a_frozen_value(method: Method) -> None:
    solver = method.solver()
    assert dataclasses.is_dataclass(solver) and solver == method.solver() and hash(solver) == hash(method.solver())
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        solver.steps = 5  # type: ignore[attr-defined]
    assert method.solver.__doc__ and "References:" in method.solver.__doc__ and "Example:" in method.solver.__doc__


# Steps beyond the grid, and how many of them are not counted in evaluations per step: restart leaps up without one and
# comes down in three steps; annealed Langevin moves at the first level too, and declares that as extra.
DETOURS = {"restart": (4, 1), "annealed_langevin": (1, 1)}


@stepped
def test_evaluations_and_noise_are_as_declared(method: Method) -> None:
    calls = 0

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert x.shape == (3, 2) and t.shape == (3,)
        return -x

    noise = Counted()
    solution = solve(
        SDE, score_fn, states(), method=method.name, noise=noise, **({} if method.adaptive else {"steps": 7})
    )
    assert solution.evaluations == calls
    assert (noise.draws > 0) == method.stochastic
    if method.adaptive:
        trials = solution.accepted + solution.rejected
        free = method.evaluations * trials + method.solver().extra_evaluations - solution.nfe
        assert bool(((free == 0) | (free == method.solver().lands)).all())  # the last step may do without
    else:
        detour, free = DETOURS.get(method.solver.name, (0, 0))
        assert solution.steps == 7 + detour
        assert calls == (7 + detour - free) * method.evaluations + method.solver().extra_evaluations
        assert solution.nfe.tolist() == [calls] * 3 and solution.accepted.tolist() == [7 + detour] * 3


@by_name
def test_a_solver_object_does_what_its_name_does(method: Method) -> None:
    by_object = solve(SDE, lambda x, t: -x, states(), method=method.solver(), seed=0)
    assert torch.equal(by_object.x, solve(SDE, lambda x, t: -x, states(), method=method.name, seed=0).x)


@by_name
def test_a_method_keeps_nothing_between_solves(method: Method) -> None:
    solver = method.solver()
    # adaptive stochastic methods take a thousand steps at the default tolerances
    tolerances = {"rtol": 0.1, "atol": 0.1} if method.adaptive and method.stochastic else {}
    a = solve(SDE, lambda x, t: -x, states(), method=solver, seed=0, **tolerances)
    solve(SDE, lambda x, t: -2 * x, torch.zeros(5, 4), method=solver, seed=1, **tolerances)
    assert torch.equal(a.x, solve(SDE, lambda x, t: -x, states(), method=solver, seed=0, **tolerances).x)


def test_the_default_numbers_of_steps() -> None:
    for method in STEPPED:
        if not method.adaptive:
            solution = solve(SDE, lambda x, t: -x, states(1), method=method.name, seed=0)
            steps = 500 if method.name == "pc" else 50
            assert solution.steps == steps + DETOURS.get(method.solver.name, (0, 0))[0]


def test_options_become_fields() -> None:
    pc: Any = make_solver("pc", {"predictor": "ancestral", "snr": 0.1, "moves": 3, "order": "pc"})
    assert pc.predictor == Ancestral() and pc.corrector == LangevinCorrector(0.1, 3) and pc.order == "pc"
    assert pc.evaluations == 4
    assert make_solver("pc", {"corrector": LangevinCorrector(0.2)}).corrector.snr == 0.2  # type: ignore[attr-defined]
    assert make_solver("langevin", {"moves": 3}).evaluations == 3
    options = {"snr": 0.1}
    make_solver("pc", options)
    assert options == {"snr": 0.1}  # the caller's dictionary is not emptied


@pytest.mark.parametrize("order", ["cp", "pc"])
def test_pc_runs_in_both_orders(order: str) -> None:
    visited: list[float] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        visited.append(float(t[0]))
        return -x

    solve(SDE, score_fn, states(), method="pc", order=order, grid=[1.0, 0.5, 0.1], seed=0)
    assert visited == ([1.0, 1.0, 0.5, 0.5] if order == "cp" else [1.0, 0.5, 0.5, 0.1])


def test_a_name_that_is_unknown_gets_a_suggestion() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'ancestral'"):
        make_solver("ancestrl", {})
    with pytest.raises(InvalidArgumentError, match="did you mean 'moves'"):
        make_solver("langevin", {"move": 3})
    with pytest.raises(InvalidTypeError, match="solver object"):
        make_solver(3, {})  # type: ignore[arg-type]


def test_a_solver_of_ones_own_is_a_method() -> None:
    @dataclasses.dataclass(frozen=True)
    class Halve(Solver):
        name = "halve"
        kind = "ode"

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any, noise: Any) -> Any:
            return scoresde.StepResult(0.5 * x)

    x = states()
    assert torch.equal(solve(SDE, lambda x, t: -x, x, method=Halve(), steps=3).x, x / 8)


@pytest.mark.parametrize(
    "method",
    [
        solvers.PLMS(lower_order_final=True),
        solvers.PLMS(order=1),
        solvers.PLMS(order=2),
        solvers.UniPC3(lower_order_final=True, correct_last=True),
        solvers.SASolver(correct_last=True, lower_order_final=True),
        solvers.PredictorCorrector(predictor=solvers.DPMpp2M()),
    ],
)
@pytest.mark.parametrize("steps", [2, 3, 10])
def test_evaluations_are_as_declared_with_options(method: Solver, steps: int) -> None:
    solution = solve(SDE, lambda x, t: -x, states(), method=method, steps=steps, seed=0)
    # single steps at the start are no more than the steps that there are
    declared = steps * method.evaluations + (
        method.extra_evaluations if steps > 2 else min(method.extra_evaluations, 3)
    )
    assert solution.evaluations == declared


def declared_order(p: int, c: int) -> int:
    return solvers.SASolver(predictor_order=p, corrector_order=c).weak_order


def test_one_node_rules_the_order_of_sa_solver() -> None:
    for p, c in ((1, 0), (1, 1), (2, 1), (3, 1)):
        assert declared_order(p, c) == 1
        method = solvers.SASolver(predictor_order=p, corrector_order=c)
        assert testing.weak_order(method, steps=(128, 256)).order() == pytest.approx(1, abs=0.15)
    for p, c in ((2, 0), (1, 2), (2, 2), (3, 4)):
        assert declared_order(p, c) == 2
