"""Plans make the steps that solvers make, bit for bit, and only serve solves that they belong to."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import _plan
from scoresde._combination import combination, combine
from scoresde._memo import Memo, constants_of
from scoresde.controllers import fixed
from scoresde.errors import ScoreSDEWarning
from scoresde.models import ScoreModel
from scoresde.scores.base import with_data
from scoresde.solvers.base import Node, Noise, Process, StepResult

SDE = scoresde.VPSDE()
# particles and the sampler with batch norms are not linear
FIXED = [m.name for m in scoresde.methods() if m.kind not in ("backend", "forward") and not m.adaptive]
plan_of = _plan.plan_of


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + 0.1 * torch.sin(3 * x) * t[:, None]


def start(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(1))


class Asked:
    """Notes whether a solve had a plan, or takes it away.

    Args:
        give: whether there is one.
    """

    def __init__(self, give: bool) -> None:
        self.give, self.plans = give, []

    def __call__(self, *args: Any) -> Any:
        self.plans.append(plan_of(*args) if self.give else None)
        return self.plans[-1]


def both(monkeypatch: Any, solve: Callable[[], Any]) -> tuple[Any, Any, bool]:
    """What a solve gives with a plan and without one, and whether it had one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScoreSDEWarning)
        results = []
        for give in (True, False):
            asked = Asked(give)
            monkeypatch.setattr(fixed, "plan_of", asked)
            results.append(solve())
            if give:
                planned = bool(asked.plans) and asked.plans[-1] is not None
    return results[0], results[1], planned


@pytest.mark.parametrize("prediction", ["noise", "data", "v", "edm", "score", "bare"])
@pytest.mark.parametrize("method", FIXED)
def test_every_method_repeats_its_own_steps(method: str, prediction: str, monkeypatch: Any) -> None:
    score_fn = net if prediction == "bare" else ScoreModel(net, SDE, prediction)

    def solve() -> Any:
        seen: list[Any] = []
        options = {
            "seeds": [1, 2, 3, 4],
            "save_at": "steps",
            "callback": lambda i: seen.append((i.step, i.t, i.nfe, i.x)),
        }
        return scoresde.solve(SDE, score_fn, start(), method=method, steps=13, **options), seen

    (a, seen_a), (b, seen_b), planned = both(monkeypatch, solve)
    assert planned
    for name in ("x", "t", "nfe", "accepted", "rejected", "status", "ts", "xs"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.steps, a.evaluations) == (b.steps, b.evaluations)
    for one, other in zip(seen_a, seen_b, strict=True):
        assert one[:2] == other[:2] and torch.equal(one[2], other[2]) and torch.equal(one[3], other[3])


@pytest.mark.parametrize(
    "options",
    [
        {"grid": "time"},
        {"grid": "karras", "dtype": torch.float64},
        {"save_at": [0.5, 0.25]},
        {"t_end": 0.3, "denoise": True},
        {"grid": torch.tensor([1.0, 0.7, 0.69, 0.2, 0.01]), "steps": None},
    ],
)
@pytest.mark.parametrize("method", ["ddim", "heun", "unipc3", "rho_ab4", "dpmpp_2m_sde", "pc", "seeds2", "ipndm"])
def test_options(method: str, options: dict[str, Any], monkeypatch: Any) -> None:
    model = ScoreModel(net, SDE, "noise")
    arguments = {"steps": 9, "seed": 0, **options}
    a, b, _ = both(monkeypatch, lambda: scoresde.solve(SDE, model, start(), method=method, **arguments))
    assert torch.equal(a.x, b.x) and torch.equal(a.nfe, b.nfe)
    assert a.xs is None or torch.equal(a.xs, b.xs)


@pytest.mark.parametrize(
    "sde",
    [
        scoresde.SubVPSDE(),
        scoresde.VESDE(),
        scoresde.EDMSDE(),
        scoresde.FlowSDE(t_min=0.0, t_max=1.0),
        scoresde.CosineVPSDE(),
        scoresde.GaussianSDE(alpha=lambda t: torch.exp(-t), sigma=lambda t: 0.01 + t, t_min=0.0, t_max=1.0),
    ],
    ids=lambda sde: type(sde).__name__,
)
@pytest.mark.parametrize("method", ["ddim", "unipc2", "dpmpp_2m", "dpmpp_3m_sde"])
def test_processes(sde: Any, method: str, monkeypatch: Any) -> None:
    model = ScoreModel(net, sde, "data")
    a, b, planned = both(monkeypatch, lambda: scoresde.solve(sde, model, start(), method=method, steps=9, seed=0))
    assert planned and torch.equal(a.x, b.x)


@pytest.mark.parametrize("method", ["ddim", "unipc2", "heun", "pc"])
def test_a_network_on_another_process(method: str, monkeypatch: Any) -> None:
    results = []
    for native in (SDE, scoresde.VPSDE(beta_max=15.0), scoresde.CosineVPSDE()):
        model = ScoreModel(net, native, "noise")
        served = model.on(scoresde.models.within(scoresde.FlowSDE(), (-5.0, 5.0)))
        a, b, planned = both(
            monkeypatch, lambda s=served: scoresde.solve(s.sde, s, start(), method=method, steps=9, seed=0)
        )
        assert planned and torch.equal(a.x, b.x)
        results.append(a.x)
    assert not torch.equal(results[0], results[1])


@dataclass(frozen=True)
class Mine(scoresde.solvers.DDIM):
    """A solver of a user."""

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object, noise: Noise) -> StepResult:
        return StepResult(super().step(process, x, start, stop, state, noise).x + 1.0)


class Drift(scoresde.SDE):
    """A process without alpha and sigma."""

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -x

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


def test_what_is_not_planned(monkeypatch: Any) -> None:
    model = ScoreModel(net, SDE, "noise")
    for solve in (
        lambda: scoresde.solve(SDE, model, start(), method=Mine(), steps=5),
        lambda: scoresde.solve(SDE, model, start(), method="rk45"),
        lambda: scoresde.solve(SDE, model, start(), method="ddim", steps=5, throw=False),
        lambda: scoresde.solve(SDE, model, start(), method="ddim", steps=5, differentiable=True),
        lambda: scoresde.solve(SDE, model, start(), method="pc", steps=5, rule="batch", seed=0),
        lambda: scoresde.solve(
            SDE, ScoreModel(net, SDE, "noise", time_input=lambda t: t), start(), method="ddim", steps=5
        ),
        lambda: scoresde.solve(
            Drift(t_min=0.1, t_max=1.0, prior=SDE.prior), lambda x, t: -x, start(), method="heun", steps=5
        ),
    ):
        a, b, planned = both(monkeypatch, solve)
        assert not planned and torch.equal(a.x, b.x)


@pytest.mark.parametrize("first", ["name", "function"])
def test_a_function_of_time_and_a_name_of_it_follow_each_other(monkeypatch: Any, first: str) -> None:
    """Only a network with a named time input is prepared; both solves have the same grid and the same reading."""
    times = {"name": "t", "function": lambda t: t}
    order = sorted(times, key=lambda name: name != first)

    def solve(name: str) -> Any:
        model = ScoreModel(net, SDE, "noise", time_input=times[name])
        return scoresde.solve(SDE, model, start(), method="ddim", steps=7)

    for name in order:
        a, b, planned = both(monkeypatch, lambda name=name: solve(name))
        assert planned == (name == "name") and torch.equal(a.x, b.x)


def test_a_plan_serves_its_own_solve_alone(monkeypatch: Any) -> None:
    """Solves that differ in one thing follow each other; each gives what it gives without a plan."""
    other = scoresde.VPSDE(beta_max=10.0)
    changed = scoresde.VPSDE()
    rates = [1.0]
    process = scoresde.GaussianSDE(
        alpha=lambda t: torch.exp(-rates[0] * t), sigma=lambda t: 0.01 + t, t_min=0.0, t_max=1.0
    )

    def solve(sde: Any = SDE, prediction: str = "noise", x: Tensor | None = None, **options: Any) -> Any:
        options = {"method": "euler_maruyama", "steps": 7, **options}
        given = start() if x is None else x
        return lambda: scoresde.solve(sde, ScoreModel(net, sde, prediction), given, seed=0, **options)

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
        solve(x=torch.randn(3, 5)),
        solve(sde=process),
    ]
    first = []
    for _ in range(2):
        for one in solves:
            a, b, planned = both(monkeypatch, one)
            assert planned and torch.equal(a.x, b.x)
            first.append(a.x)
    for i, x in enumerate(first[len(solves) :]):
        assert torch.equal(x, first[i])
    assert len({tuple(x.flatten()[:2].tolist()) for x in first}) == len(solves) - 1  # one has the constants of another
    # processes whose parameters are changed on the way
    changed.beta_max = 5.0
    rates[0] = 2.0
    for i in (2, 15):
        a, b, planned = both(monkeypatch, solves[i])
        assert planned and torch.equal(a.x, b.x) and not torch.equal(a.x, first[i])


class Remembers(scoresde.solvers.Solver):
    """Steps with the two last states, which it keeps."""

    def init(self, process: Process, x: Tensor, start: Node) -> Any:
        return None

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        out = process.linear_estimate(x, start).part("noise")
        before = x if state is None else state
        return StepResult(combination(0.5, x, 1.0, (0.25, 0.1), (before, out)), x)


def record_all(monkeypatch: Any) -> None:
    """Solvers of a test are recorded, too."""
    monkeypatch.setattr(_plan, "_is_recorded", lambda solver: True)
    monkeypatch.setattr(_plan, "constants_of", lambda value: type(value))
    monkeypatch.setattr(_plan, "_plans", Memo(3))


def test_a_state_that_a_solver_keeps_is_not_written_over(monkeypatch: Any) -> None:
    record_all(monkeypatch)
    model, x = ScoreModel(net, SDE, "noise"), start()
    a, b, planned = both(monkeypatch, lambda: scoresde.solve(SDE, model, x, method=Remembers(), steps=6))
    assert planned and torch.equal(a.x, b.x)


@dataclass(frozen=True)
class Twice(scoresde.solvers.Solver):
    """Its steps have one tensor twice: the state, or one that is made of it."""

    state: bool

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object, noise: Noise) -> StepResult:
        data = process.linear_estimate(x, start).part("data")
        first = x if self.state else combine(0.5, x, 1.0, (0.5,), (data,))
        return StepResult(combination(0.4, first, 1.0, (0.3, 0.3), (first, data)))


@pytest.mark.parametrize("state", [True, False])
def test_a_sum_is_not_written_over_a_term_that_it_reads_again(monkeypatch: Any, state: bool) -> None:
    record_all(monkeypatch)
    model, x = ScoreModel(net, SDE, "noise"), start()
    a, b, planned = both(monkeypatch, lambda: scoresde.solve(SDE, model, x, method=Twice(state), steps=6))
    assert planned and torch.equal(a.x, b.x)


def test_a_function_as_an_option_is_asked_again(monkeypatch: Any) -> None:
    sizes = [1.0, 0.3]

    def solve(size: list[float]) -> Tensor:
        model, tau = ScoreModel(net, SDE, "noise"), lambda lam: size[0]
        return scoresde.solve(SDE, model, start(), method="sa_solver", tau=tau, steps=5, seed=0).x

    wanted = [solve([size]) for size in sizes]
    changing, got = [0.0], []

    def tau(lam: float) -> float:
        return changing[0]

    for changing[0] in sizes:
        model = ScoreModel(net, SDE, "noise")
        got.append(scoresde.solve(SDE, model, start(), method="sa_solver", tau=tau, steps=5, seed=0).x)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1]) and not torch.equal(*wanted)


@pytest.mark.parametrize("method", ["ddim", "heun", "dpmpp_2m", "pc"])
@pytest.mark.parametrize("how", ["class", "instance"])
def test_what_a_derived_model_estimates_is_what_is_stepped(method: str, how: str) -> None:
    class Clamped(ScoreModel):
        def estimate(self, x: Tensor, node: Node, **context: object) -> scoresde.Estimate:
            given = super().estimate(x, node, **context)
            return with_data(given, given.data.clamp(-0.1, 0.1), x, node)

    model = Clamped(net, SDE, "noise")
    if how == "instance":
        plain = ScoreModel(net, SDE, "noise")
        plain.estimate = model.estimate  # type: ignore[method-assign]
        model = plain  # type: ignore[assignment]
    assert float(scoresde.solve(SDE, model, start(), method=method, steps=50, seed=0).x.abs().max()) < 0.3


def test_a_network_that_is_replaced_on_the_way_is_called() -> None:
    model = ScoreModel(net, SDE, "noise")
    called: list[int] = []

    def other(x: Tensor, t: Tensor) -> Tensor:
        called.append(1)
        return -x

    def callback(info: scoresde.Info) -> None:
        if info.step == 5:
            model.net = other

    scoresde.solve(SDE, model, start(), method="ddim", steps=10, callback=callback)
    assert len(called) == 5


def test_a_schedule_that_changed_between_the_nodes(monkeypatch: Any) -> None:
    bump = [0.0]

    def gamma(t: Tensor) -> Tensor:
        return 4 - 8 * t + bump[0] * torch.relu(0.01 - (t - 0.625) ** 2) ** 3 * 1e6

    sde = scoresde.GaussianSDE(
        lambda t: torch.sigmoid(2 * gamma(t)).sqrt(), lambda t: torch.sigmoid(-2 * gamma(t)).sqrt(), 0.0, 1.0
    )
    model, results = ScoreModel(net, sde, "noise"), []
    for bump[0] in (0.0, 0.9, 0.0):
        a, b, planned = both(
            monkeypatch, lambda: scoresde.solve(sde, model, start(), method="rk4", steps=4, grid="time")
        )
        assert planned and torch.equal(a.x, b.x)
        results.append(a.x)
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


def test_a_process_that_ends_elsewhere_than_before(monkeypatch: Any) -> None:
    class Own(scoresde.VPSDE):
        pass

    sde = Own()
    model, grid = ScoreModel(net, sde, "noise"), torch.tensor([0.8, 0.6, 0.4, 0.2, 0.1], dtype=torch.float64)
    results = []
    for sde.t_max in (1.0, 0.8):
        a, b, _ = both(monkeypatch, lambda: scoresde.solve(sde, model, start(), method="edm", grid=grid, seed=0))
        assert torch.equal(a.x, b.x)
        results.append(a.x)
    assert not torch.equal(*results)


def test_a_kept_plan_keeps_no_process(monkeypatch: Any) -> None:
    monkeypatch.setattr(_plan, "_plans", Memo(4))
    sde = type("Own", (scoresde.VPSDE,), {})()
    scoresde.solve(sde, ScoreModel(net, sde, "noise"), start(), method="ddim", steps=4)
    assert len(_plan._plans._values) == 1
    forgotten = weakref.ref(sde)
    del sde
    gc.collect()
    assert forgotten() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns of its own
@pytest.mark.parametrize("method", ["ddim", "heun", "pc"])
def test_inside_functional_transforms(method: str) -> None:
    """No gradient is recorded; the values are those outside."""
    model = ScoreModel(net, SDE, "noise")

    def total(factor: Tensor) -> Tensor:
        own = ScoreModel(lambda x, t: factor * net(x, t), SDE, "noise")
        solutions = (scoresde.solve(SDE, m, start(), method=method, steps=7, seed=0) for m in (model, own))
        return sum(factor * solution.x.sum() for solution in solutions)  # type: ignore[return-value]

    wanted = total(torch.tensor(1.0))
    slope = torch.func.grad(total)(torch.tensor(1.0))
    assert torch.allclose(slope, wanted)
    assert torch.allclose(torch.func.jvp(total, (torch.tensor(1.0),), (torch.tensor(0.0),))[0], wanted)
    assert torch.equal(total(torch.tensor(1.0)), wanted)  # nothing of the transforms is kept


@pytest.mark.parametrize("method", ["ddim", "heun", "dpmpp_2m", "rk4", "restart"])
def test_a_network_may_write_to_its_time_in_every_mode(method: str) -> None:
    scale = torch.ones(3, requires_grad=True)

    def writes(x: Tensor, t: Tensor) -> Tensor:
        t.mul_(2.0)
        return 0.3 * x + torch.sin(t[:, None] * scale)

    def reads(x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + torch.sin(2.0 * t[:, None] * scale)

    results = []
    for score_fn in (writes, reads):
        for mode, differentiable in ((torch.no_grad, False), (torch.inference_mode, False), (torch.enable_grad, True)):
            with mode():
                x = scoresde.solve(
                    SDE, score_fn, start(), method=method, steps=4, seed=0, differentiable=differentiable
                ).x
                results.append(x)
        results.append(torch.autograd.grad(x.sum(), scale)[0])
    for a, b in zip(results[:4], results[4:], strict=True):
        assert torch.allclose(a, b, rtol=1e-4)


def test_recording_calls_nothing(monkeypatch: Any) -> None:
    calls: list[str] = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append("network")
        return net(x, t)

    def draw(k: int, like: Tensor) -> Tensor:
        calls.append("draw")
        return torch.zeros_like(like)

    record = _plan.record

    def recorded(*args: Any) -> Any:
        plan = record(*args)
        assert not calls
        return plan

    monkeypatch.setattr(_plan, "record", recorded)
    monkeypatch.setattr(_plan, "_plans", Memo(1))
    for _ in range(2):
        calls.clear()
        scoresde.solve(SDE, ScoreModel(counted, SDE, "noise"), start(), method="pc", steps=5, noise=draw)
        assert calls.count("network") == calls.count("draw") == 10


def test_threads_do_not_share_memory() -> None:
    model = ScoreModel(net, SDE, "noise")
    x = torch.randn(4, 64)

    def solve(i: int) -> Tensor:
        return scoresde.solve(SDE, model, x + i, method="unipc3", steps=30, seed=i).x

    wanted = [solve(i) for i in range(4)]
    got: dict[int, list[Tensor]] = {i: [] for i in range(4)}
    threads = [threading.Thread(target=lambda i=i: got[i].extend(solve(i) for _ in range(8))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, wanted[i]) for i in range(4) for one in got[i])


def test_few_plans_are_kept(monkeypatch: Any) -> None:
    kept: Memo[Any] = Memo(3)
    monkeypatch.setattr(_plan, "_plans", kept)
    for steps in range(2, 9):
        scoresde.solve(SDE, net, start(), method="ddim", steps=steps)
    assert len(kept._values) == 3


def test_a_plan_in_inference_mode_serves_outside(monkeypatch: Any) -> None:
    monkeypatch.setattr(_plan, "_plans", Memo(3))
    results = []
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            results.append(scoresde.solve(SDE, net, start(), method="dpmpp_2m", steps=9).x)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_constants() -> None:
    assert constants_of(scoresde.VPSDE()) == constants_of(scoresde.VPSDE()) != constants_of(scoresde.VPSDE(0.2))
    assert constants_of(scoresde.VPSDE()) != constants_of(scoresde.SubVPSDE())
    assert (
        constants_of(process_with_function()) is None
        and constants_of(Drift(t_min=0.1, t_max=1.0, prior=SDE.prior)) is None
    )
    assert constants_of(type("Own", (scoresde.VPSDE,), {})()) is None
    made: dict[str, Any] = {}
    exec("def made(x): return x", {}, made)  # a function without a module
    made["made"].__module__ = None
    assert constants_of(made["made"]) is None


def process_with_function() -> scoresde.GaussianSDE:
    return scoresde.GaussianSDE(alpha=lambda t: torch.exp(-t), sigma=lambda t: 0.01 + t, t_min=0.0, t_max=1.0)
