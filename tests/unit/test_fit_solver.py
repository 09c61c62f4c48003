"""Learned solvers: their steps, the methods that can be written as theirs, and what a fit promises."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import fit_solver, solve
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError
from scoresde.core.sdes import Estimate, Node
from scoresde.scores import Score
from scoresde.scores.base import Traits
from scoresde.solvers import from_config, make_solver
from scoresde.solvers.learned import Learned
from scoresde.solvers.registry.config import to_text
from scoresde.tuning import FittedGrid, FittedSolver
from scoresde.tuning.learning import coefficients_of
from scoresde.tuning.tuning import CANDIDATES
from tests.unit.refusals import assert_refused

F64 = torch.float64
SDE = scoresde.VPSDE()
PROCESSES = {"vp": SDE, "edm": scoresde.EDMSDE(), "ve": scoresde.VESDE(), "flow": scoresde.FlowSDE()}
RING = scoresde.targets.GaussianMixture(
    torch.ones(4, dtype=F64), torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.2
)
ONE = ((1.0,),) * 4


def states(sde: Any, count: int, seed: int = 9) -> Tensor:
    """Starts of RING."""
    return sde.prior_sample((count, 2), generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.fixture(scope="module")
def learned() -> FittedSolver:
    return fit_solver(SDE, RING.score(SDE), 4, pilot=16, iterations=24, reference=20, dtype=F64)


class TestSteps:
    @pytest.mark.parametrize("name", PROCESSES)
    def test_a_linear_method_is_its_coefficients(self, name: str) -> None:
        """And one estimate is DDIM; methods that do not step by the estimate have none."""
        sde, x = PROCESSES[name], states(PROCESSES[name], 5)
        size = 1e-10 + 3e-12 * float(x.abs().max())  # rounding of the largest state
        for method, options, grid in [("ddim", {}, "log_snr"), *CANDIDATES]:
            solver = make_solver(method, options)
            times = scoresde.grids.resolve(grid, sde, sde.t_max, sde.t_min, 7)
            found = coefficients_of(solver, sde, times)
            if method != "euler":  # a step in time, which is one of the estimate where paths are straight
                assert (found is None) == bool(solver.extra_evaluations), method
            if found is None:
                continue
            u, v = (tuple(tuple(row.tolist()) for row in rows) for rows in found)
            wanted = solve(sde, RING.score(sde), x, method=solver, grid=times).x
            for steps in (Learned(u, v), *([Learned(((1.0,),) * 7, ((1.0,),) * 7)] if method == "ddim" else [])):
                got = solve(sde, RING.score(sde), x, method=steps, grid=times).x
                torch.testing.assert_close(got, wanted, rtol=1e-9, atol=size, msg=f"{method} on {grid}")
        assert coefficients_of(scoresde.solvers.Heun(), sde, times) is None

    @pytest.mark.parametrize("name", ["vp", "edm", "ve"])
    def test_whatever_is_told_the_state_is_that_of_both_estimates(self, name: str) -> None:
        """A step whose end has almost the level of its start does not move, with any shift."""
        sde = PROCESSES[name]
        x, t = states(sde, 5), 0.5 * sde.t_max
        for shift in (0.0, 0.3, -0.5):
            method = Learned(((1.0,),), ((1.0,),), (shift,))
            moved = solve(sde, RING.score(sde), x, method=method, grid=[t, t * (1 - 1e-9)]).x
            torch.testing.assert_close(moved, x, rtol=1e-6, atol=1e-6)

    def test_on_a_vp_process_the_noise_is_that_of_the_other_level(self) -> None:
        """x' = alpha' (x - sigma n) / alpha + sigma' n with n what a network of the noise returns there."""
        x, (t, end) = states(SDE, 3), (0.6, 0.3)
        other = float(SDE.time(SDE.log_snr(t) + 2 * 0.2))
        model = scoresde.ScoreModel(lambda x, t: torch.sin(x) * t[:, None], SDE, "noise")
        start, stop, told = SDE.node(t), SDE.node(end), SDE.node(other)
        net = torch.sin(x) * other
        v = (net - told.sigma * x) / told.alpha
        data, noise = start.alpha * x - start.sigma * v, start.sigma * x + start.alpha * v
        got = solve(SDE, model, x, method=Learned(((1.0,),), ((1.0,),), (0.2,)), grid=[t, end]).x
        torch.testing.assert_close(got, stop.alpha * data + stop.sigma * noise, rtol=1e-6, atol=1e-7)

    def test_refusals(self) -> None:
        refused: list[tuple[dict[str, Any], str]] = [
            ({"data": ()}, "data"),
            ({"data": ((1.0, 0.0),), "noise": ((1.0, 0.0),)}, r"data\[0\]"),
            ({"data": ((0.9,),), "noise": ((1.0,),)}, "sum to 1"),
            ({"data": ((1.0,),), "noise": ((math.nan,),)}, "noise"),
            ({"data": ((1.0,), (1.0,)), "noise": ((1.0,), (0.5, 0.5))}, "same numbers"),
            ({"data": ((1.0,),), "noise": ((1.0,),), "shifts": (0.1, 0.2)}, "shifts"),
        ]
        assert_refused((partial(Learned, **({"noise": ()} | fields)), message) for fields, message in refused)
        with pytest.raises(InvalidArgumentError, match="4 steps"):
            solve(SDE, RING.score(SDE), states(SDE, 2), method=Learned(ONE, ONE), steps=4, save_at=[0.5])


class Polynomial(Score):
    """An estimate of the data that is a polynomial in lambda, whatever the state, and its path."""

    def __init__(self, degree: int) -> None:
        self.traits = Traits(event_shape=(1,), rowwise=True)
        self.degree = degree

    def estimate(self, x: Tensor, node: Node[Any], **context: object) -> Estimate:
        lam = torch.as_tensor(node.lam, dtype=F64)
        data = lam**self.degree
        noise = -(torch.exp(lam) * (1.0 if self.degree == 1 else 2 * (lam - 1)))  # the integral of -e^lam d data
        return Estimate(torch.full_like(x, float(data)), torch.full_like(x, float(noise)))

    def score(self, x: Tensor, node: Node[Any], **context: object) -> Tensor:
        return -self.estimate(x, node).noise / node.sigma


@pytest.mark.parametrize("order", [2, 3])
def test_the_conditions_of_an_order_make_steps_exact_for_polynomials(order: int) -> None:
    sde = scoresde.VPSDE(t_min=0.05)
    target = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([0.1, 1.0], dtype=F64))
    fitted = fit_solver(sde, target.score(sde), 5, pilot=4, iterations=21, order=order, reference=20, dtype=F64)
    assert fitted.order == order
    for degree in range(1, order):
        score = Polynomial(degree)
        end = score.estimate(torch.zeros(1, 1, dtype=F64), sde.node(sde.t_min))
        node = sde.node(sde.t_min)
        got = solve(sde, score, torch.zeros(1, 1, dtype=F64), method=fitted).x
        torch.testing.assert_close(got, node.alpha * end.data + node.sigma * end.noise, rtol=1e-9, atol=1e-9)


class TestFit:
    def test_it_is_better_than_its_start_on_other_samples(self, learned: FittedSolver) -> None:
        x = states(SDE, 100)
        exact = solve(SDE, RING.score(SDE), x, method="dop853", rtol=1e-8, atol=1e-8).x

        def error(**options: Any) -> float:
            return float((solve(SDE, RING.score(SDE), x, **options).x - exact).square().mean(1).sqrt().median())

        grid = scoresde.fit_grid(SDE, RING.score(SDE), 4, "unipc2", pilot=16, reference=20, iterations=24, dtype=F64)
        assert error(method=learned) < 0.7 * error(method=grid)
        assert error(method=learned) < 0.2 * error(method="unipc2", steps=4)
        # on the half of the pilot that was held out
        assert learned.fitted.rms <= learned.default.rms and learned.fitted.median <= learned.default.median

    def test_without_iterations_it_is_the_best_start(self) -> None:
        start = fit_solver(SDE, RING.score(SDE), 4, pilot=8, iterations=0, dtype=F64)
        assert start.fitted == start.default and "on a fitted grid" not in start.start
        method = start.start.partition(" on ")[0]
        x = states(SDE, 5)
        times = torch.tensor(start.times, dtype=F64)
        same = solve(SDE, RING.score(SDE), x, method=from_config(method), grid=times)
        torch.testing.assert_close(solve(SDE, RING.score(SDE), x, method=start).x, same.x, rtol=1e-8, atol=1e-9)

    def test_it_is_a_function_of_its_seed(self) -> None:
        given: dict[str, Any] = {"pilot": 4, "iterations": 3, "reference": 10, "dtype": F64}
        one, again, other = (fit_solver(SDE, RING.score(SDE), 2, seed=seed, **given) for seed in (0, 0, 1))
        assert one == again and one.method != other.method

    def test_the_record_comes_back(self, learned: FittedSolver, tmp_path: Path) -> None:
        learned.save(tmp_path / "solver.json")
        again = FittedGrid.load(tmp_path / "solver.json")
        assert again == learned and isinstance(again, FittedSolver)
        assert learned.on(SDE).times == pytest.approx(learned.times, rel=1e-12)

    def test_a_stepper_takes_it(self, learned: FittedSolver) -> None:
        x, score = states(SDE, 3), RING.score(SDE)
        stepper = scoresde.Stepper(SDE, learned, x)
        while not stepper.done:
            question = stepper.ask()
            stepper.tell(score(question.x, question.t))
        wanted = solve(SDE, lambda x, t: score(x, t), x, method=learned).x
        torch.testing.assert_close(stepper.x, wanted, rtol=1e-6, atol=1e-7)

    def test_refusals(self) -> None:
        x, grad = states(SDE, 4), torch.func.grad(lambda y: -(y.square() / 2).sum())
        refused: list[tuple[dict[str, Any], str]] = [
            ({"evaluations": 1}, "evaluations"),
            ({"order": 4}, "order"),
            ({"shifts": 1}, "shifts"),
            ({"objective": "mean"}, "objective"),
            ({"pilot": 1}, "pilot"),
            ({"reference": torch.zeros(3, 2)}, "reference"),
            ({"score_fn": lambda x, t: grad(x), "x": x, "iterations": 3, "reference": 10}, "checkpoint=False"),
            ({"x": x, "shape": (8, 2), "iterations": 0}, "leave it out"),
            ({"x": x, "shape": 8}, "`shape`"),
            ({"x": -1, "shape": (4, 2)}, "`x`"),
        ]
        given = {"sde": SDE, "score_fn": RING.score(SDE), "evaluations": 4}
        assert_refused((partial(fit_solver, **given | arguments), message) for arguments, message in refused)
        assert fit_solver(SDE, lambda x, t: grad(x), 2, x=x, iterations=3, reference=10, checkpoint=False).steps == 2


CHAIN = scoresde.discrete.BetaChain(torch.linspace(1e-4, 0.02, 1000, dtype=F64)).sde()
NARROW = scoresde.EDMSDE(sigma_min=0.9, sigma_max=1.0)


class TestOnAnotherProcess:
    """A record's steps at the same levels of noise."""

    @pytest.mark.parametrize("sde", [scoresde.FlowSDE(), scoresde.SubVPSDE(), scoresde.EDMSDE(), CHAIN], ids=repr)
    @pytest.mark.parametrize("kind", ["learned", "tuned"])
    def test_the_samples_are_the_same(self, sde: Any, kind: str, learned: FittedSolver) -> None:
        """On the same paths of noise and data, in units of alpha, up to levels that one of the processes lacks."""
        record = learned if kind == "learned" else scoresde.tune(SDE, RING.score(SDE), 4, dtype=F64)
        there = record.on(sde)
        x = states(SDE, 20)
        first, end = sde.node(there.times[0]), sde.node(there.times[-1])
        last = SDE.node(record.times[-1])
        at = sde.node(sde.t_max)
        scale = math.hypot(at.alpha, at.sigma) if there.from_noise else math.hypot(first.alpha, first.sigma)
        got = solve(sde, RING.score(sde), x * scale, method=there)
        wanted = solve(SDE, RING.score(SDE), x, method=record).x
        assert got.evaluations == 4 and there.fits(sde) and len(there.times) == 5
        exact = kind == "tuned" and all(abs(a - b) < 1e-9 for a, b in zip(there.log_snr, record.log_snr, strict=True))
        tolerance = 1e-9 if exact else 0.02
        torch.testing.assert_close(got.x / end.alpha, wanted / last.alpha, rtol=tolerance, atol=tolerance)

    def test_a_process_that_begins_in_pure_noise_is_begun_where_the_record_begins(self, learned: FittedSolver) -> None:
        """Its log-SNR there is -inf, from which every level is infinitely far."""
        there = learned.on(scoresde.FlowSDE(t_max=1.0))
        assert there.from_noise and there.log_snr[0] == pytest.approx(learned.log_snr[0], rel=1e-6)

    def test_levels_between_the_ends_must_be_there(self, learned: FittedSolver) -> None:
        with pytest.raises(InvalidArgumentError, match="makes a step at a log-SNR of"):
            learned.on(NARROW)

    def test_where_the_end_moves_only_the_newest_noise_does(self, learned: FittedSolver) -> None:
        """However large the weights of the last step are, since sigma is small there."""
        last = (30.0, -29.0)
        steps = Learned((*ONE[:3], (1.0, 0.0)), (*ONE[:3], last))
        record = replace(learned, method=to_text(steps))
        ends, x = [], states(PROCESSES["edm"], 20)
        for sigma in (0.02, 0.03):
            sde = scoresde.EDMSDE(sigma_min=sigma)
            path = solve(sde, RING.score(sde), x, method=record.on(sde), save_at="steps")
            ends.append(path.x)
        assert path.xs is not None
        before, node = path.xs[-2], sde.node(record.on(sde).times[-2])
        noise = -node.sigma * RING.score(sde)(before, torch.full((20,), node.t, dtype=F64))
        torch.testing.assert_close((ends[1] - ends[0]) / 0.01, noise, rtol=1e-6, atol=1e-6)

    def test_a_level_beyond_the_process_is_its_end(self) -> None:
        seen: list[float] = []

        def net(x: Tensor, t: Tensor) -> Tensor:
            seen.append(float(t[0]))
            return 0.1 * x

        for sde in (*PROCESSES.values(), CHAIN):
            model: Any = scoresde.ScoreModel(net, sde, "noise", time_input="t")
            for shift, end in ((-30.0, sde.t_max), (30.0, sde.t_min)):
                seen.clear()
                solve(sde, model, states(sde, 3), method=Learned(ONE[:2], ONE[:2], (shift, 0.0)), steps=2)
                assert seen[0] == pytest.approx(end, rel=1e-6), (sde, shift)


@pytest.mark.parametrize("fit", [fit_solver, scoresde.fit_grid])
def test_an_objective_without_a_gradient_is_refused(fit: Any) -> None:
    objective = lambda x, reference: (x - reference).square().mean(1).detach()  # noqa: E731
    options = {"pilot": 4, "iterations": 3, "reference": 10, "objective": objective}
    with pytest.raises(InvalidArgumentError, match=r"`objective` must be differentiable .* pass gradient=False"):
        fit(SDE, RING.score(SDE), 2, **options)
    assert fit(SDE, RING.score(SDE), 2, gradient=False, **options).steps == 2


def test_a_record_that_does_not_fit_is_refused(learned: FittedSolver) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"order": 4}, "order"),
        ({"method": "DDIM()"}, "learned one with 4 steps"),
        ({"method": to_text(Learned(ONE[:3], ONE[:3]))}, "learned one with 4 steps"),
        ({"method": "print(1)"}, "not a fitted grid"),
        ({"log_snr": ["nan"] * 5}, "log-SNRs"),
    ]
    known = learned.fields()
    of = FittedGrid.of
    assert_refused((partial(of, {**known, **fields}, "x.json"), CorruptCheckpointError, m) for fields, m in refused)


def test_a_flow_without_noise_at_its_end_is_told_what_to_do() -> None:
    sde = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
    score = scoresde.targets.Gaussian(torch.zeros(2), 0.3).score(sde)
    with pytest.raises(scoresde.InvalidArgumentError, match="make the process or model with t_min=1e-3"):
        scoresde.fit_solver(sde, score, 4, pilot=8)
    with pytest.raises(scoresde.InvalidArgumentError, match=r"make the process or model with t_min=0\.001"):
        scoresde.log_likelihood(sde, score, torch.zeros(1, 2))
