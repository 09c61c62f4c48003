"""``evaluations=``: as many steps as a number of calls of the network pays for, whatever the method."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch

import scoresde
from scoresde import EDMSDE, VPSDE, FlowSDE, InvalidArgumentError, ScoreModel, ScoreSDEWarning, Stepper, solve
from scoresde.solvers import make_solver
from tests.parameters import own_methods

F64 = torch.float64
NUMBERS = (3, 5, 8, 20, 50)
# without an infinite log-SNR at an end, with one, and with two
PROCESSES = (VPSDE(), EDMSDE(t_min=0.0), FlowSDE(t_min=0.0, t_max=1.0))


def model(sde: Any) -> ScoreModel:
    return ScoreModel(lambda x, t: 0.3 * x.sin(), sde, "data")


def fits(name: str, sde: Any) -> bool:
    """Whether a method can go from end to end."""
    solver = make_solver(name, {}, ())
    return (solver.noise_limit or sde is not PROCESSES[2]) and (solver.data_limit or sde is PROCESSES[0])


def smallest(sde: Any, name: str, given: dict[str, Any]) -> int:
    """The number that the refusal of one evaluation names; 1 where it is not refused."""
    try:
        solve(sde, model(sde), method=name, **given | {"evaluations": 1})
    except InvalidArgumentError as error:
        return int(re.search(r"`evaluations` must be at least (\d+)", str(error))[1])  # type: ignore[index]
    return 1


@pytest.mark.parametrize("name", [method.name for method in own_methods() if not method.adaptive])
def test_what_is_paid_for_is_made_and_no_more(name: str) -> None:
    """The loop's count, in `solve` and in a stepper; fewer than the dearest step are left."""
    solver = make_solver(name, {}, ())
    dearest = max(solver.evaluations, solver.cost(1)) + 8 * (name == "restart")  # with its detour
    made = 0
    for sde, wanted, denoise in itertools.product([p for p in PROCESSES if fits(name, p)], NUMBERS, (False, True)):
        given: dict[str, Any] = {"shape": (2, 3), "seed": 0, "dtype": F64, "evaluations": wanted, "denoise": denoise}
        least = smallest(sde, name, given)
        if least > wanted:
            assert solve(sde, model(sde), method=name, **given | {"evaluations": least}).evaluations == least
            continue
        solution = solve(sde, model(sde), method=name, **given)
        made += 1
        assert wanted - dearest < int(solution.nfe.max()) <= wanted == solution.budget, (sde, wanted, denoise)
        if wanted < 9:
            stepper = Stepper(sde, name, prediction=model(sde), **given)
            while not stepper.done:
                asked = stepper.ask()
                stepper.tell(model(sde).net(asked.x, asked.t))
            assert torch.equal(stepper.solution.nfe, solution.nfe) and stepper.solution.budget == wanted
    assert made or name in ("annealed_langevin", "langevin")


def test_times_to_save_are_inside_the_budget() -> None:
    for method in ("heun", "dpm_3m", "auto"):
        solution = solve(
            VPSDE(), model(VPSDE()), method=method, shape=(2, 3), seed=0, evaluations=12, save_at=[0.7, 0.3]
        )
        assert solution.evaluations == 12 and solution.ts is not None and 0.7 in solution.ts.tolist()


def test_the_grid_of_a_sampler_has_as_many_steps() -> None:
    for method, steps in (("ddim", 9), ("heun", 4), ("auto", 9)):
        grid = scoresde.grids.SamplerGrid(lambda n: torch.linspace(0.9, 0.01, n + 1, dtype=F64))
        given: dict[str, Any] = {"shape": (2, 3), "seed": 0, "grid": grid, "method": method, "dtype": F64}
        got = solve(VPSDE(), model(VPSDE()), evaluations=9, **given)
        assert got.steps == steps and got.budget == 9


def test_without_a_method_a_solve_is_auto_with_twenty_evaluations() -> None:
    given: dict[str, Any] = {"shape": (2, 3), "seed": 0, "dtype": F64}
    plain = solve(VPSDE(), model(VPSDE()), **given)
    assert plain.evaluations == plain.budget == 20
    assert torch.equal(plain.x, solve(VPSDE(), model(VPSDE()), method="auto", evaluations=20, **given).x)
    assert "evaluations per sample=20 of 20" in repr(plain)
    adaptive = solve(VPSDE(), model(VPSDE()), rtol=1e-3, **given)
    assert torch.equal(adaptive.x, solve(VPSDE(), model(VPSDE()), method="adams", rtol=1e-3, **given).x)


def test_steps_of_auto_are_evaluations_with_a_warning() -> None:
    given: dict[str, Any] = {"shape": (2, 3), "seed": 0, "dtype": F64}
    with pytest.warns(ScoreSDEWarning, match="pass evaluations=7 in place of steps=7"):
        old = solve(VPSDE(), model(VPSDE()), method="auto", steps=7, **given)
    assert torch.equal(old.x, solve(VPSDE(), model(VPSDE()), method="auto", evaluations=7, **given).x)
    with pytest.warns(ScoreSDEWarning, match="`steps` is named `evaluations`"):
        tuned = scoresde.tune(VPSDE(), model(VPSDE()), steps=3, shape=(16, 3), candidates=[("ddim", None)])
    assert tuned.evaluations == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "ddim", "steps": 5}, "`evaluations` and `steps` exclude each other"),
        ({"method": "rk45"}, "`evaluations` does not apply to 'rk45'"),
        ({"method": "torchdiffeq:explicit_adams"}, "`evaluations` does not apply"),
        ({"method": "ddim", "grid": [0.9, 0.5, 0.1]}, "`evaluations` follows from `grid`"),
        ({"method": "ddim", "evaluations": 0}, "`evaluations` must be at least 1"),
        ({"method": "rk4", "evaluations": 3}, "`evaluations` must be at least 4 for 'rk4' here, got 3"),
    ],
)
def test_refusals(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        solve(VPSDE(), model(VPSDE()), shape=(2, 3), **{"evaluations": 8} | given)
