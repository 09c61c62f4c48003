"""The contract of a method, over every method; and that the checks catch a solver that breaks it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import scoresde
from scoresde import StepResult, solvers, testing
from tests.parameters import described, ways

# What makes steps of its own inside a step is not under this contract: see tests/integration/test_backends.py.
METHODS = [m for m in scoresde.methods() if m.name == m.solver.name and not m.adaptive and not m.solver().own_steps]
VARIANTS: list[scoresde.Solver] = [
    solvers.UniPC(order=4),
    solvers.UniP(order=5, prediction="noise"),
    solvers.UniPC3(correct_last=True, variant="full"),
    solvers.DPMpp3M(start_up="published", lower_order_final=True),
    solvers.DPM3M(variant="published"),
    solvers.SASolver(3, 4, tau=lambda t: 1.0 if t > 0.2 else 0.0),
    solvers.EDM(s_churn=3.0, a=0.5, s_noise=1.01),
    solvers.Restart(((0.2, 1.0, 2, 2), (0.05, 0.1))),
    solvers.PredictorCorrector(solvers.DPMpp2M(), scoresde.UnderdampedCorrector(), order="pc"),
]


@pytest.mark.parametrize("check", testing.CHECKS)
def test_every_way_of_stepping_keeps_the_contract(check: str) -> None:
    for method in METHODS:
        if method.name in ways():
            testing.CHECKS[check](method.solver())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_keeps_the_contract(method: scoresde.Method) -> None:
    for check in testing.CHECKS.values():
        check(method.solver())


@pytest.mark.parametrize("solver", VARIANTS, ids=described)
def test_so_do_their_variants(solver: scoresde.Solver) -> None:
    for check in testing.CHECKS.values():
        check(solver)


@dataclass(frozen=True)
class Broken(solvers.DDIM):
    mistake: str = ""

    name: ClassVar[str] = "broken"
    keeps_estimates: ClassVar[bool] = False
    seen: ClassVar[list[int]] = []

    def step(self, process: Any, x: Any, start: Any, stop: Any, state: Any) -> StepResult:
        if self.mistake == "writes into the state":
            x.mul_(1.0 + 1e-9)
        if self.mistake == "keeps an estimate":
            data, direction = yield process.estimate(x, start)
            last = data if state is None else state
            return StepResult(stop.alpha * (data + 1e-9 * last) + stop.sigma * direction, data)
        if self.mistake == "evaluates twice":
            yield process.estimate(x, start)
        out = (yield from super().step(process, x, start, stop, state)).x
        if self.mistake == "mixes the batch":
            out = out + 1e-9 * out.mean(0)
        if self.mistake == "changes the dtype":
            out = out.double()
        if self.mistake == "remembers":
            self.seen.append(1)
            out = out + 1e-9 * len(self.seen)
        if self.mistake == "knows one rank":
            out = out + 1e-9 * x.shape[1]
        if self.mistake == "draws in secret":
            out = out + 1e-9 * torch.randn_like(out)
        return StepResult(out)


def test_the_checks_catch_what_they_are_for() -> None:
    testing.check_solver(Broken())
    for mistake in (
        *("writes into the state", "keeps an estimate", "evaluates twice", "mixes the batch", "changes the dtype"),
        *("remembers", "knows one rank", "draws in secret"),
    ):
        with pytest.raises(AssertionError, match="breaks a rule"):
            testing.check_solver(Broken(mistake))


def test_they_catch_a_density_that_is_not_there() -> None:
    class Declared(solvers.HeunSDE):
        gaussian_step: ClassVar[bool] = True

    with pytest.raises(AssertionError, match=r"(?s)densities_of_steps.*no density"):
        testing.check_solver(Declared())


def test_orders_by_the_public_functions() -> None:
    assert testing.estimate_order("unipc3", t_start=0.5, steps=(80, 160)).order() == pytest.approx(4, abs=0.3)
    assert testing.estimate_order("heun", scoresde.FlowSDE(), grid="time", steps=(80, 160)).order() > 1.8
    assert testing.weak_order("heun_sde", grid="time").order() == pytest.approx(2, abs=0.2)
    assert testing.weak_order("ancestral", problem="mixture", steps=(32, 64)).order() == pytest.approx(1, abs=0.2)
    strong = testing.strong_order("sra1", grid="time", weight=testing.AREA_WEIGHTS)
    assert strong.order() > 1.4
    weight = lambda u: (node := scoresde.VPSDE().nodes(u)).g2.sqrt() / node.alpha  # noqa: E731
    cells = testing.strong_order("seeds3", weight=weight, cells=(1 / 3, 2 / 3))
    assert cells.order() == pytest.approx(1, abs=0.15)
    with pytest.raises(scoresde.InvalidArgumentError, match="problem"):
        testing.weak_order("ancestral", problem="other")


def test_work_precision() -> None:
    target = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.5)
    with pytest.raises(scoresde.InvalidArgumentError, match="exact"):
        testing.work_precision("ddim", target, scoresde.VPSDE())
    with pytest.raises(scoresde.InvalidArgumentError, match="budget"):
        testing.work_precision("rk45", target, scoresde.VPSDE())
    gaussian = scoresde.targets.Gaussian(torch.zeros(3, dtype=torch.float64), 0.5)
    errors = testing.work_precision("rk4", gaussian, scoresde.VPSDE(), budgets=(3, 8, 80))
    assert list(errors) == [8, 80] and errors[80] < errors[8]


WRITES: dict[str, Any] = {
    "x, behind autograd": lambda x, t, label: x.data.mul_(0.5),
    "x, through NumPy": lambda x, t, label: np.multiply(x.numpy(), 0.5, out=x.numpy()),
    "x, seen by autograd": lambda x, t, label: x.mul_(0.5),
    "t": lambda x, t, label: t.data.add_(1.0),
    "context['label']": lambda x, t, label: label.data.add_(1),
    "nothing": lambda x, t, label: None,
}


@pytest.mark.parametrize("what", WRITES)
def test_a_score_function_that_writes_to_its_input(what: str) -> None:
    sde = scoresde.VPSDE()

    def net(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        WRITES[what](x, t, label)
        return -x + 0.0 * label[:, None] + 0.0 * t[:, None]

    x, label = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    before = x.clone(), label.clone()
    message = f"changed `{re.escape(what.split(',')[0])}` in place|modified its input in place"
    for score_fn in (net, scoresde.ScoreModel(net, sde, "noise")):
        if what == "nothing" or (what == "t" and score_fn is not net):  # a model's network has a time of its own
            testing.check_score_fn(sde, score_fn, x, context={"label": label})
        else:
            with pytest.raises(scoresde.ScoreFnError, match=message):
                testing.check_score_fn(sde, score_fn, x, context={"label": label})
        assert torch.equal(x, before[0]) and torch.equal(label, before[1])


def test_a_score_function_that_does_not_keep_its_contract() -> None:
    sde, x = scoresde.VPSDE(), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for score_fn, message in (
        (lambda x, t: x[:, :1], "must return a tensor of shape"),
        (lambda x, t: x + torch.rand(()), "not deterministic"),
        (scoresde.ScoreModel(lambda x, t: x + torch.rand(()), sde, "data"), "not deterministic"),
    ):
        with pytest.raises(scoresde.ScoreFnError, match=message):
            testing.check_score_fn(sde, score_fn, x)
    memory = torch.empty_like(x)
    good = (lambda x, t: memory[: len(x)].copy_(-x), scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(sde))
    for process in (sde, scoresde.FlowSDE(t_min=0.0, t_max=1.0), scoresde.VESDE()):
        for score_fn in good[:1] if process is not sde else good:
            for states in (x, x.half(), x[:0]):
                testing.check_score_fn(process, score_fn, states)
