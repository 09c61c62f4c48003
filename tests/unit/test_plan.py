"""A solve on a fixed grid gives the same bits whatever was solved before, and as when its steps are made one by one.

With ``throw=False`` every step is made by the solver itself, one after the other; without, what earlier solves have
computed may be used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core.support.combination import combination, combine
from scoresde.scores import ScoreModel
from scoresde.solvers import StepResult
from tests.parameters import own_methods, ways

SDE = scoresde.VPSDE()
FIXED = [m.name for m in own_methods() if m.kind != "forward" and not m.adaptive]
FEW = [name for name in ways() if name in FIXED]
pytestmark = pytest.mark.filterwarnings("ignore::scoresde.ScoreSDEWarning")


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + 0.1 * torch.sin(3 * x) * t[:, None]


def start(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(1))


def same(solve: Callable[..., Any], where: object = "") -> Tensor:
    """What a solve gives, which is the same when each step is made by itself."""
    a, b = solve(), solve(throw=False)
    for name in ("x", "t", "nfe", "accepted", "rejected", "status", "ts", "xs"):
        one, other = getattr(a, name), getattr(b, name)
        assert one is other is None or torch.equal(one, other), (name, where)
    assert (a.steps, a.evaluations) == (b.steps, b.evaluations), where
    return a.x


@pytest.mark.cells(16)
@pytest.mark.parametrize("method", FIXED)
def test_every_method_repeats_its_own_steps(method: str) -> None:
    for prediction in ("noise", "data", "bare"):
        score_fn = net if prediction == "bare" else ScoreModel(net, SDE, prediction)
        seen: list[Any] = []
        options = {"seeds": [1, 2, 3, 4], "save_at": "steps", "method": method, "steps": 8}
        options["callback"] = lambda i, seen=seen: seen.append((i.step, i.t, i.nfe.tolist(), i.x))
        same(lambda *, f=score_fn, o=options, **given: scoresde.solve(SDE, f, start(), **o, **given), prediction)
        half = len(seen) // 2
        for one, other in zip(seen[:half], seen[half:], strict=True):
            assert one[:3] == other[:3] and torch.equal(one[3], other[3]), prediction


PROCESSES = [
    scoresde.SubVPSDE(),
    scoresde.VESDE(),
    scoresde.EDMSDE(),
    scoresde.FlowSDE(),
    scoresde.CosineVPSDE(),
    scoresde.GaussianSDE(alpha=lambda t: torch.exp(-t), sigma=lambda t: 0.01 + t, t_min=0.0, t_max=1.0),
]
OPTIONS: list[dict[str, Any]] = [
    {"grid": "time"},
    {"grid": "karras", "dtype": torch.float64},
    {"save_at": [0.5, 0.25]},
    {"t_end": 0.3, "denoise": True},
    {"grid": torch.tensor([1.0, 0.7, 0.69, 0.2, 0.01]), "steps": None},
]


@pytest.mark.parametrize("method", FEW)
def test_options_processes_and_networks_of_other_processes(method: str) -> None:
    model = ScoreModel(net, SDE, "noise")
    fixed = {"method": method, "steps": 9, "seed": 0}
    for options in OPTIONS:
        arguments = {**fixed, **options}
        same(lambda *, a=arguments, **given: scoresde.solve(SDE, model, start(), **a, **given), options)
    if method not in ("annealed_langevin", "ncsn", "langevin", "cas"):
        for sde in PROCESSES:
            own = ScoreModel(net, sde, "data")
            same(lambda *, s=sde, m=own, **given: scoresde.solve(s, m, start(), **fixed, **given), sde)
    results = []
    for native in (SDE, scoresde.VPSDE(beta_max=15.0), scoresde.CosineVPSDE()):
        served = ScoreModel(net, native, "noise").on(scoresde.within(scoresde.FlowSDE(), (-5.0, 5.0)))
        results.append(same(lambda *, s=served, **given: scoresde.solve(s.sde, s, start(), **fixed, **given), native))
    assert not torch.equal(results[0], results[1])


def test_solves_that_differ_in_one_thing_do_not_take_each_others_numbers() -> None:
    other, changed, rates = scoresde.VPSDE(beta_max=10.0), scoresde.VPSDE(), [1.0]
    process = scoresde.GaussianSDE(
        alpha=lambda t: torch.exp(-rates[0] * t), sigma=lambda t: 0.01 + t, t_min=0.0, t_max=1.0
    )

    def solve(sde: Any = SDE, prediction: str = "noise", x: Tensor | None = None, **options: Any) -> Any:
        options = {"method": "euler_maruyama", "steps": 7, "seed": 0, **options}
        model = ScoreModel(net, sde, prediction)
        return lambda **given: scoresde.solve(sde, model, start() if x is None else x, **options, **given)

    solves = [
        solve(),
        solve(sde=other),
        solve(sde=changed),
        solve(prediction="data"),
        solve(prediction="edm"),
        solve(stochasticity=0.5),
        solve(grid="time"),
        solve(steps=8),
        solve(t_end=0.01),
        solve(method="pc"),
        solve(method="pc", snr=0.1),
        solve(method="pc", predictor="ancestral"),
        solve(dtype=torch.float64),
        solve(x=start(2)),
        solve(x=torch.randn(3, 5, generator=torch.Generator().manual_seed(3))),
        solve(sde=process),
    ]
    first = [same(one, i) for i, one in enumerate(solves)]
    for i, one in enumerate(solves):
        assert torch.equal(same(one, i), first[i]), i
    assert len({tuple(x.flatten()[:2].tolist()) for x in first}) == len(solves) - 1  # one has the constants of another
    changed.beta_max, rates[0] = 5.0, 2.0  # processes that are changed on the way
    for i in (2, 15):
        assert not torch.equal(same(solves[i]), first[i])


def test_a_schedule_that_changed_between_the_nodes_is_read_again() -> None:
    bump = [0.0]

    def gamma(t: Tensor) -> Tensor:
        return 4 - 8 * t + bump[0] * torch.relu(0.01 - (t - 0.625) ** 2) ** 3 * 1e6

    sde = scoresde.GaussianSDE(
        lambda t: torch.sigmoid(2 * gamma(t)).sqrt(), lambda t: torch.sigmoid(-2 * gamma(t)).sqrt(), 0.0, 1.0
    )
    model, results = ScoreModel(net, sde, "noise"), []
    for bump[0] in (0.0, 0.9, 0.0):
        results.append(same(lambda **o: scoresde.solve(sde, model, start(), method="rk4", steps=4, grid="time", **o)))
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns of its own
def test_functional_transforms_and_modes_of_gradients_give_the_same_values() -> None:
    """No gradient is recorded, and nothing of a transform or of inference mode is kept for later solves."""
    model, one = ScoreModel(net, SDE, "noise"), torch.tensor(1.0)
    for method in ("ddim", "heun", "pc"):

        def total(factor: Tensor, method: str = method) -> Tensor:
            own = ScoreModel(lambda x, t: factor * net(x, t), SDE, "noise")
            solutions = (scoresde.solve(SDE, m, start(), method=method, steps=7, seed=0) for m in (model, own))
            return sum(factor * solution.x.sum() for solution in solutions)  # type: ignore[return-value]

        wanted = total(one)
        assert torch.allclose(torch.func.grad(total)(one), wanted) and torch.equal(total(one), wanted), method
        results = []
        for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
            with mode():
                results.append(scoresde.solve(SDE, net, start(), method=method, steps=10, seed=0).x)
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2]), method


def test_a_network_may_write_to_its_time_in_every_mode() -> None:
    scale = torch.ones(3, requires_grad=True)

    def writes(x: Tensor, t: Tensor) -> Tensor:
        t.mul_(2.0)
        return 0.3 * x + torch.sin(t[:, None] * scale)

    for method in ("ddim", "heun", "dpmpp_2m"):
        results = []
        for score_fn in (writes, lambda x, t: writes(x, t.clone())):
            for mode, graph in ((torch.no_grad, False), (torch.inference_mode, False), (torch.enable_grad, True)):
                with mode():
                    options = {"method": method, "steps": 4, "seed": 0, "differentiable": graph}
                    results.append(scoresde.solve(SDE, score_fn, start(), **options).x)
            results.append(torch.autograd.grad(results[-1].sum(), scale)[0])
        for a, b in zip(results[:4], results[4:], strict=True):
            assert torch.allclose(a, b, rtol=1e-4), method


def test_threads_do_not_share_memory() -> None:
    model, x = ScoreModel(net, SDE, "noise"), torch.randn(4, 64, generator=torch.Generator().manual_seed(0))

    def solve(i: int) -> Tensor:
        return scoresde.solve(SDE, model, x + i, method="unipc3", steps=30, seed=i).x

    wanted = [solve(i) for i in range(4)]
    got: dict[int, list[Tensor]] = {i: [] for i in range(4)}
    threads = [threading.Thread(target=lambda i=i: got[i].extend(solve(i) for _ in range(4))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(got[i]) == 4 and torch.equal(one, wanted[i]) for i in range(4) for one in got[i])


@dataclass(frozen=True)
class Twice(scoresde.solvers.Solver):
    """Its steps have one tensor twice: the state, or one that is made of it."""

    state: bool

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: object) -> StepResult:
        data = (yield process.linear_estimate(x, start)).part("data")
        first = x if self.state else combine(0.5, x, 1.0, (0.5,), (data,))
        return StepResult(combination(0.4, first, 1.0, (0.3, 0.3), (first, data)))


Twice.__module__ = scoresde.solvers.__name__  # steps of the package's methods are recorded


@pytest.mark.parametrize("state", [True, False])
def test_a_sum_is_not_written_over_a_term_that_it_reads_again(state: bool) -> None:
    model = ScoreModel(net, SDE, "noise")
    for _ in range(2):
        same(lambda **given: scoresde.solve(SDE, model, start(), method=Twice(state), steps=6, **given))


@pytest.mark.parametrize("method", ["ddim", "heun", "unipc", "pc", "dpmpp_2m_sde"])
def test_step_by_step_every_step_is_made_by_the_solver(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = scoresde.solvers.make_solver(method, {}, ())
    calls, step = [], type(solver).step

    def counted(*given: Any) -> Any:
        calls.append(1)
        return step(*given)

    wanted = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), start(), method=solver, steps=7, seed=3)
    monkeypatch.setattr(type(solver), "step", counted)
    with scoresde.step_by_step():
        slow = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), start(), method=solver, steps=7, seed=3)
    assert len(calls) == 7 and torch.equal(slow.x, wanted.x)
    scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), start(), method=solver, steps=7, seed=3)
    assert len(calls) == 7
