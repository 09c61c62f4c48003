"""The list of methods: what each declares is what it does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from scoresde import VPSDE, InvalidArgumentError, InvalidTypeError, LangevinCorrector, methods, solve, solvers, testing
from scoresde.core.noise import Noise
from scoresde.solvers import Ancestral, Solver, make_solver
from tests.parameters import own_methods, ways

pytestmark = pytest.mark.timeout(30)

SDE = VPSDE()
METHODS = methods()
OWN = own_methods()
# Steps beyond the grid, and how many of them are not counted in evaluations per step: restart leaps up without one and
# comes down in three steps; annealed Langevin moves at the first level too, and declares that as extra.
DETOURS = {"restart": (4, 1), "annealed_langevin": (1, 1)}


class Counted(Noise):
    def __init__(self) -> None:
        self.draws = 0
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, like: Tensor) -> Tensor:
        self.draws += 1
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def states(rows: int = 3) -> Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def quick(method: Any) -> dict[str, Any]:
    """Options with which a method takes few steps."""
    tolerance = 0.5 if method.stochastic else 0.1
    return {"rtol": tolerance, "atol": tolerance} if method.adaptive else {"steps": 7}


def test_a_method_declares_itself_in_full() -> None:
    names = [m.name for m in METHODS]
    assert len(names) == len(set(names)) and "pc" in names and methods() == METHODS
    for method in METHODS:
        assert method.kind in ("ode", "sde", "mcmc", "backend"), method
        assert {type(v) for v in (method.stochastic, method.adaptive, method.batch_coupled)} == {bool}, method
        assert method.reference and method.evaluations >= 1, method
        assert issubclass(method.solver, Solver) and method.name in (method.solver.name, *method.solver.aliases)
        if method.kind == "ode":
            assert isinstance(method.ode_order, int) and method.ode_order >= 1 and not method.stochastic, method
            assert method.weak_order is None and method.strong_order is None, method
        if method.kind in ("sde", "mcmc"):
            assert method.stochastic and method.ode_order is None, method
        for order in (method.weak_order, method.strong_order):
            assert order is None or float(2 * order).is_integer(), method
        text = method.solver.__doc__ or ""
        if (method.ode_order, method.weak_order, method.strong_order) == (None, None, None):
            assert "not an order" in text.lower() or "no order" in text.lower(), f"{method.name} has no reason"
        assert "References:" in text and "Example:" in text, method
        solver = method.solver()
        assert dataclasses.is_dataclass(solver) and solver == method.solver(), method


def test_evaluations_and_noise_are_as_declared() -> None:
    for method in OWN:
        calls = 0

        def score_fn(x: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            assert x.shape == (3, 2) and t.shape == (3,)
            return -x

        noise = Counted()
        solution = solve(SDE, score_fn, states(), method=method.name, noise=noise, **quick(method))
        assert solution.evaluations == calls, method.name
        assert (noise.draws > 0) == method.stochastic, method.name
        if method.adaptive:
            trials = solution.accepted + solution.rejected
            free = method.evaluations * trials + method.solver().extra_evaluations - solution.nfe
            # the last step may do without
            assert bool(((free == 0) | (free == (method.name == "dpmpp_sde12"))).all()), method.name
        else:
            detour, free = DETOURS.get(method.solver.name, (0, 0))
            assert solution.steps == 7 + detour, method.name
            assert calls == (7 + detour - free) * method.evaluations + method.solver().extra_evaluations, method.name
            assert solution.nfe.tolist() == [calls] * 3, method.name
            assert solution.accepted.tolist() == [7 + detour] * 3, method.name


@pytest.mark.filterwarnings("ignore::scoresde.ScoreSDEWarning")
@pytest.mark.parametrize("some", [OWN, [m for m in METHODS if m.kind == "backend"]], ids=["own", "backends"])
def test_a_solver_object_does_what_its_name_does_and_keeps_nothing_between_solves(some: list[Any]) -> None:
    for method in some:
        solver, options = method.solver(), quick(method)
        results = []
        for given in (solver, solver, method.name):
            results.append(solve(SDE, lambda x, t: -x, states(), method=given, seed=0, **options).x)
            if len(results) == 1:
                solve(SDE, lambda x, t: -2 * x, torch.zeros(5, 4), method=solver, seed=1, **options)
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2]), method.name


def test_the_default_numbers_of_steps() -> None:
    for name in [name for name in ways() if not make_solver(name, {}).adaptive]:
        solution = solve(SDE, lambda x, t: -x, states(1), method=name, seed=0)
        assert solution.steps == (500 if name == "pc" else 50) + DETOURS.get(name, (0, 0))[0], name


def test_options_become_fields() -> None:
    pc: Any = make_solver("pc", {"predictor": "ancestral", "snr": 0.1, "moves": 3, "order": "pc"})
    assert pc.predictor == Ancestral() and pc.corrector == LangevinCorrector(0.1, 3) and pc.order == "pc"
    assert pc.evaluations == 4
    assert make_solver("pc", {"corrector": LangevinCorrector(0.2)}).corrector.snr == 0.2  # type: ignore[attr-defined]


def test_pc_runs_in_both_orders() -> None:
    for order, expected in (("cp", [1.0, 1.0, 0.5, 0.5]), ("pc", [1.0, 0.5, 0.5, 0.1])):
        visited: list[float] = []

        def score_fn(x: Tensor, t: Tensor, visited: Any = visited) -> Tensor:
            visited.append(float(t[0]))
            return -x

        solve(SDE, score_fn, states(), method="pc", order=order, grid=[1.0, 0.5, 0.1], seed=0)
        assert visited == expected, order


def test_a_name_that_is_unknown_gets_a_suggestion() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'ancestral'"):
        make_solver("ancestrl", {})
    with pytest.raises(InvalidArgumentError, match="did you mean 'moves'"):
        make_solver("langevin", {"move": 3})
    with pytest.raises(InvalidTypeError, match="solver object"):
        make_solver(3, {})  # type: ignore[arg-type]


def test_evaluations_are_as_declared_with_options() -> None:
    for method in (
        solvers.PLMS(lower_order_final=True),
        solvers.PLMS(order=1),
        solvers.PLMS(order=2),
        solvers.UniPC3(lower_order_final=True, correct_last=True),
        solvers.SASolver(correct_last=True, lower_order_final=True),
        solvers.PredictorCorrector(predictor=solvers.DPMpp2M()),
    ):
        for steps in (2, 3, 10):
            solution = solve(SDE, lambda x, t: -x, states(), method=method, steps=steps, seed=0)
            # single steps at the start are no more than the steps that there are
            extra = method.extra_evaluations if steps > 2 else min(method.extra_evaluations, 3)
            assert solution.evaluations == steps * method.evaluations + extra, (method, steps)


def test_one_node_rules_the_order_of_sa_solver() -> None:
    for p, c in ((1, 0), (1, 1), (2, 1), (3, 1)):
        method = solvers.SASolver(predictor_order=p, corrector_order=c)
        assert method.weak_order == 1, (p, c)
        assert testing.weak_order(method, steps=(128, 256)).order() == pytest.approx(1, abs=0.15), (p, c)
    for p, c in ((2, 0), (1, 2), (2, 2), (3, 4)):
        assert solvers.SASolver(predictor_order=p, corrector_order=c).weak_order == 2, (p, c)
