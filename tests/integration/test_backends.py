"""Other libraries' methods: they agree with closed forms and with this package, keep promises, and fail in words."""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, MaxStepsError, NonFiniteError, Status, StepSizeUnderflowError, solve, testing
from scoresde.solvers import make_solver

pytestmark = [
    pytest.mark.timeout(20),
    # torchdiffeq says so of large steps of its implicit Adams method; it is the user's to know.
    pytest.mark.filterwarnings("ignore:Functional iteration did not converge"),
]

F64 = torch.float64
SDE = scoresde.VPSDE()
PROCESSES = [SDE, scoresde.SubVPSDE(), scoresde.VESDE(), scoresde.EDMSDE(), scoresde.CosineVPSDE(), scoresde.FlowSDE()]
PROCESSES += [scoresde.VDMSDE(), scoresde.GaussianSDE(torch.cos, torch.sin, 1e-3, 1.5)]
METHODS = [m for m in scoresde.methods() if m.kind == "backend"]
ADAPTIVE = [m.name for m in METHODS if m.adaptive]
ADAMS = [m.name for m in METHODS if m.solver().own_steps and not m.adaptive]
OWN_STEPS = ADAPTIVE + ADAMS
STEPPED = [m.name for m in METHODS if not m.solver().own_steps]
SDES = [m.name for m in METHODS if m.stochastic]
ODES = [m.name for m in METHODS if not m.stochastic]
ORDER = {m.name: m.ode_order for m in METHODS}
COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.25]], dtype=F64)
GAUSSIAN = scoresde.targets.Gaussian(torch.tensor([0.3, -0.2], dtype=F64), COVARIANCE)
# The pair 1(2) of Fehlberg has a small error estimate: its error is hundreds of times the tolerance.
MISSES = {"torchdiffeq:fehlberg2": 100.0}
# One of each class that does the work, and what differs within SciPy.
SOME = [f"torchdiffeq:{name}" for name in ("rk4", "dopri5", "explicit_adams", "implicit_adams")]
SOME += ["scipy:RK45", "scipy:Radau", "scipy:LSODA", "torchsde:srk", "torchsde:reversible_heun"]
by_some = pytest.mark.parametrize("method", SOME)
by_own_steps = pytest.mark.parametrize("method", [name for name in SOME if name in OWN_STEPS])


def states(rows: int = 4, *event: int, dtype: torch.dtype = F64) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(rows, *(event or (2,)), generator=generator, dtype=F64).to(dtype)


def column(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    u = column(t, x)
    return -x / (1 + u * u) - 0.1 * x * x * x / (1 + x * x)


class Recorded:
    """A score that keeps the times at which it was asked."""

    def __init__(self, score: Any = elementwise) -> None:
        self.score, self.times, self.calls = score, [], 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        self.times += t.tolist()
        return self.score(x, t)


def at(method: str, tolerance: float = 1e-4, steps: int = 6) -> dict[str, Any]:
    wanted = {"rtol": tolerance, "atol": tolerance} if method in ADAPTIVE else {"steps": steps}
    return {"method": method, **wanted}


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_follow_the_exact_flow(method: str) -> None:
    tolerance = {2: 1e-3, 3: 1e-4}.get(ORDER[method], 1e-5)
    quick = method in ("torchdiffeq:dopri5", "scipy:RK45")
    for i, sde in enumerate(PROCESSES):
        if not quick and i % 6 not in (0, 1 + ADAPTIVE.index(method) % 5):
            continue  # two of them for each method
        x = sde.prior.from_normal(states())
        exact = GAUSSIAN.flow_map(x, sde, sde.t_max, sde.t_min)
        for clock in ("time", "log_snr", "rho") if quick and i in (2, 5) else ("time",):
            got = solve(sde, GAUSSIAN.score(sde), x, clock=clock, **at(method, tolerance)).x
            assert float((got - exact).abs().max()) < 100 * tolerance * MISSES.get(method, 1.0), (sde, clock)


def test_methods_of_fixed_steps_have_the_order_they_declare() -> None:
    """The start of the Adams methods is a Runge-Kutta method of order 4."""
    for method in STEPPED:
        if method in ODES:
            order = testing.estimate_order(method, steps=(40, 80)).order()
            assert order == pytest.approx(ORDER[method], abs=0.35), method
    exact = GAUSSIAN.flow_map(states(), SDE, 0.8, 0.2)
    for method in ADAMS:
        fine = {"tolerance": 1e-12} if "implicit" in method else {}  # four iterations do not reach it, and say so

        def error(n: int, method: str = method, fine: dict[str, float] = fine) -> float:
            got = solve(SDE, GAUSSIAN.score(SDE), states(), method=method, steps=n, t_start=0.8, t_end=0.2, **fine)
            return float((got.x - exact).abs().max())

        assert testing.converge(error, (40, 80)).order() > 3.7 and ORDER[method] == 4, method


@pytest.mark.parametrize("method", [name for name in SOME if name in ODES])
def test_a_round_trip(method: str) -> None:
    arguments, seen = at(method, 1e-6, 50), Recorded()
    there = solve(SDE, seen, states(), t_start=0.2, t_end=0.8, **arguments)
    back = solve(SDE, seen, there.x, t_start=0.8, t_end=0.2, **arguments)
    torch.testing.assert_close(back.x, states(), rtol=0, atol=1e-3)
    assert there.t.tolist() == [0.8] * 4 and back.t.tolist() == [0.2] * 4
    assert min(seen.times) >= 0.2 and max(seen.times) <= 0.8


SAME = [("euler", "euler_maruyama"), ("milstein", "euler_maruyama"), ("srk", "sra1"), ("heun", "heun_sde")]


@pytest.mark.parametrize(("method", "own"), [*SAME, ("log_ode", "torchsde:midpoint")])
def test_the_same_path_gives_the_same_state(method: str, own: str) -> None:
    for sde, source in [(SDE, "seeds"), (SDE, "stochasticity"), *((sde, "path") for sde in PROCESSES[:4])]:
        x = sde.prior.from_normal(states())

        def end(name: str, sde: Any = sde, x: Tensor = x, source: str = source) -> Tensor:
            noise = {"seeds": [5, 6, 7, 8]} if source != "path" else {}
            if source == "path":
                noise["noise"] = scoresde.BrownianPath([5, 6, 7, 8], sde.t_min, sde.t_max, areas=own == "sra1")
            eta = {"stochasticity": 0.6} if source == "stochasticity" else {}
            return solve(sde, GAUSSIAN.score(sde), x, method=name, steps=5, save_at=[0.5], **noise, **eta).x

        torch.testing.assert_close(end(f"torchsde:{method}"), end(own), rtol=1e-12, atol=1e-12)


def test_reversible_heun_is_its_published_recursion() -> None:
    x, times = states(), torch.linspace(1.0, 0.1, 31, dtype=F64).tolist()
    draws = [torch.randn(4, 2, generator=torch.Generator().manual_seed(k), dtype=F64) for k in range(30)]
    got = solve(SDE, elementwise, x, method="torchsde:reversible_heun", grid=times, noise=lambda k, like: draws[k])
    form = SDE.reverse(elementwise)

    def f_and_g(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return form.drift(x, torch.full((4,), t, dtype=F64)), torch.as_tensor(form.diffusion(t))

    y = z = x
    f, g = f_and_g(x, 1.0)
    for k, (t, s) in enumerate(itertools.pairwise(times)):
        dw, h = abs(s - t) ** 0.5 * draws[k], s - t
        z = 2 * y - z + f * h + g * dw
        f_next, g_next = f_and_g(z, s)
        y = y + 0.5 * h * (f + f_next) + 0.5 * (g + g_next) * dw
        f, g = f_next, g_next
    torch.testing.assert_close(got.x, y, rtol=1e-10, atol=1e-10)
    assert got.evaluations == 31


@pytest.mark.parametrize(("method", "order"), [("midpoint", 2), ("euler_heun", 1)])
def test_the_law_converges(method: str, order: int) -> None:
    """On Gaussian data the midpoint method has order 2; on others it has the order 1 that it declares."""
    name = f"torchsde:{method}"
    assert testing.weak_order(name, grid="time", steps=(32, 64)).order() == pytest.approx(order, abs=0.2)
    assert testing.strong_order(name, grid="time", steps=(32, 64)).order() == pytest.approx(1, abs=0.2)


def test_torchsde_in_the_direction_of_rising_time() -> None:
    times = torch.linspace(0.1, 1.0, 11, dtype=F64)
    runs = [
        testing.end_of(name, SDE, elementwise, states(), times, scoresde.SampleNoise(range(4)))
        for name in ("torchsde:euler", "euler_maruyama")
    ]
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-12)


@by_some
def test_nothing_is_evaluated_outside_and_all_is_counted(method: str) -> None:
    for sde in PROCESSES[:6:2] + PROCESSES[3:4]:
        recorded = Recorded(lambda x, t: -x / (1 + column(t, x) ** 2))
        solution = solve(sde, recorded, shape=(2, 2), seed=0, dtype=F64, **at(method, 1e-2))
        assert bool(solution.success.all()) and solution.t.tolist() == [sde.t_min] * 2, sde
        assert sde.t_min <= min(recorded.times) and max(recorded.times) <= sde.t_max, sde
        assert solution.evaluations == recorded.calls and solution.nfe.tolist() == [recorded.calls] * 2, sde
        assert solution.steps == (1 if method in OWN_STEPS else 6), sde


@pytest.mark.parametrize("end", [0.1, 0.9])
def test_the_first_step_of_torchdiffeq_is_a_hundredth_of_the_way(end: float) -> None:
    recorded = Recorded()
    solve(SDE, recorded, states(1), t_end=end, **at("torchdiffeq:dopri5", 1e-3))
    way = (SDE.t_max - recorded.times[1]) / (SDE.t_max - end)
    assert way == pytest.approx(0.01 / 5, rel=1e-6)  # its first stage is at a fifth of the step


def test_batch_mates_are_felt_and_evaluations_made_as_declared() -> None:
    """Beside those before the first step: one of torchdiffeq's methods, two of SciPy's."""
    x = states(5) * torch.tensor([1.0, 1.0, 5.0, 20.0, 50.0], dtype=F64)[:, None]
    for m in METHODS:
        whole = solve(SDE, elementwise, x, seeds=range(5), **at(m.name, 1e-3, 10))
        alone = solve(SDE, elementwise, x[:2], seeds=range(2), **at(m.name, 1e-3, 10))
        assert torch.equal(whole.x[:2], alone.x) != m.batch_coupled, m.name
        if m.adaptive and m.name not in ("scipy:Radau", "scipy:BDF", "scipy:LSODA"):
            before = 2 if m.name.startswith("scipy") else 1
            assert (whole.evaluations - before) % make_solver(m.name, {}).evaluations == 0, m.name


@by_own_steps
def test_saved_times_are_hit(method: str) -> None:
    wanted = [0.3, 0.9, SDE.t_max, 0.6, SDE.t_min]
    arguments = at(method, 1e-4, 60)
    solution = solve(SDE, elementwise, states(), save_at=wanted, **arguments)
    assert solution.ts is not None and solution.xs is not None and solution.steps == 4
    assert solution.ts.tolist() == wanted and torch.equal(solution.xs[4], solution.x)
    assert torch.equal(solution.xs[2], states())
    separate = solve(SDE, elementwise, states(), t_end=0.3, **arguments)
    torch.testing.assert_close(solution.xs[0], separate.x, rtol=0, atol=1e-3 * MISSES.get(method, 1.0))
    near = math.nextafter(0.5, 1.0)
    sliver = solve(SDE, elementwise, states(), save_at=[near, 0.5], **at(method))
    torch.testing.assert_close(sliver.xs[0], sliver.xs[1], rtol=1e-9, atol=1e-9)
    infos: list[Any] = []  # a callback is asked at saved times
    solve(SDE, elementwise, states(), save_at=[0.5], callback=infos.append, **at(method))
    assert [i.t for i in infos] == [0.5, SDE.t_min] and [i.step for i in infos] == [1, 2]
    stopped = solve(SDE, elementwise, states(), save_at=[0.5], callback=lambda i: True, **at(method))
    assert stopped.status.tolist() == [Status.STOPPED] * 4 and stopped.t.tolist() == [0.5] * 4


@by_some
def test_a_seed_repeats_a_solve_and_dtype_shape_and_input_are_kept(method: str) -> None:
    first, again, other = (solve(SDE, elementwise, shape=(2, 3), seed=s, **at(method, 1e-2)).x for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    fixed, moved = (solve(SDE, elementwise, states(), seed=s, **at(method, 1e-2)).x for s in (3, 4))
    assert torch.equal(fixed, moved) != (method in SDES)
    x = states(3, 2, 2)
    before = x.clone()
    double = solve(SDE, elementwise, x, seeds=range(3), **at(method)).x
    assert torch.equal(x, before) and double.shape == x.shape and double.dtype == F64
    single = solve(SDE, elementwise, x.float(), seeds=range(3), **at(method)).x
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)
    assert solve(SDE, elementwise, x.half(), seeds=range(3), **at(method)).x.dtype == torch.float16
    empty = solve(SDE, elementwise, x[:0], **at(method))
    assert empty.x.shape == (0, 2, 2) and empty.evaluations == 0


@by_some
def test_gradients_match_finite_differences_or_are_refused(method: str) -> None:
    """Steps are constants to a gradient: where they are chosen the reference is that of another adaptive method."""
    strength = torch.tensor(1.3, dtype=F64, requires_grad=True)
    arguments = at(method, 1e-5 if ORDER[method] == 2 else 1e-6, 8)

    def loss(strength: Tensor, scored: Any = None, **other: Any) -> Tensor:
        score_fn = lambda x, t: -strength * x / (0.3 + column(t, x)) - 0.2 * x**3 / (1 + x * x)  # noqa: E731
        options = {**arguments, "seeds": range(3), "t_start": 0.9, "t_end": 0.2, "differentiable": True, **other}
        return (solve(SDE, scored or score_fn, states(3), **options).x * states(3).flip(1)).sum()

    if method.startswith("scipy"):
        recorded = Recorded()
        with pytest.raises(InvalidArgumentError, match="gives no gradients"):
            loss(strength, recorded)
        assert recorded.calls == 0
        return
    loss(strength).backward()
    h, value = 1e-4, strength.detach()
    reference = {"method": "rk45", "rtol": 1e-11, "atol": 1e-11} if method in ADAPTIVE else {}
    difference = (loss(value + h, **reference) - loss(value - h, **reference)) / (2 * h)
    near = (1e-3 if method in ADAPTIVE else 1e-5) * MISSES.get(method, 1.0)
    torch.testing.assert_close(strength.grad, difference, rtol=near, atol=near)


@by_own_steps
def test_a_score_that_is_not_finite_is_an_error(method: str) -> None:
    def sick(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((column(t, x) < 0.7) & (torch.arange(4)[:, None] == 1), math.nan, elementwise(x, t))

    recorded = Recorded(sick)
    with pytest.raises(NonFiniteError, match=r"in 1 of 4 samples \(first: \[1\]\) in a step of") as caught:
        solve(SDE, recorded, states(), **at(method))
    assert caught.value.stage == "score" and caught.value.indices == [1] and caught.value.t == recorded.times[-1] < 0.7
    partial = caught.value.partial
    assert partial.status.tolist() == [Status.STOPPED, Status.NON_FINITE, Status.STOPPED, Status.STOPPED]
    assert partial.evaluations == recorded.calls
    rest = solve(SDE, sick, states(), throw=False, save_at=[0.5, 0.2], **at(method))
    assert rest.status.tolist() == [0, Status.NON_FINITE, 0, 0] and rest.t.tolist() == [1e-3, 1.0, 1e-3, 1e-3]
    assert bool(rest.x[1].isnan().all()) and bool(rest.x[[0, 2, 3]].isfinite().all())
    lost = solve(SDE, lambda x, t: torch.full_like(x, math.inf), states(), throw=False, **at(method))
    assert lost.status.tolist() == [Status.NON_FINITE] * 4 and bool(lost.x.isnan().all())


@by_own_steps
def test_max_steps_ends_a_solve(method: str) -> None:
    recorded = Recorded(lambda x, t: torch.sin(1e6 * (1 + x) * column(t, x)) * 1e4)
    arguments = {"max_steps": 5, **at(method, 1e-9, 60)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((MaxStepsError, StepSizeUnderflowError)) as caught:
            solve(SDE, recorded, states(), **arguments)
        marked = solve(SDE, recorded.score, states(), throw=False, **arguments)
    assert caught.value.partial.evaluations == recorded.calls < 200
    assert caught.value.partial.status.tolist() == marked.status.tolist() and bool(marked.x.isnan().all())
    if isinstance(caught.value, MaxStepsError):
        assert "max_steps=5 is used up; raise it" in str(caught.value)
        assert marked.status.tolist() == [Status.MAX_STEPS] * 4
    saved = {"save_at": torch.linspace(0.9, 0.1, 9), "method": method}
    assert bool(solve(SDE, elementwise, states(), max_steps=400, **saved).success.all())
    with pytest.raises(MaxStepsError):  # the limit is one of the whole solve
        solve(SDE, elementwise, states(), max_steps=2, **saved)


@pytest.mark.parametrize("method", ["torchdiffeq:dopri5", "scipy:RK45", "scipy:Radau"])
def test_steps_too_small_for_the_clock_are_an_error(method: str) -> None:
    def rough(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(1e9 * (1 + x) * column(t, x)) * 1e13

    with pytest.raises(StepSizeUnderflowError, match="loosen rtol and atol, or take 'rk45'"):
        solve(SDE, rough, states(), **at(method, 1e-7))
    marked = solve(SDE, rough, states(), throw=False, **at(method, 1e-7))
    assert marked.status.tolist() == [Status.STEP_UNDERFLOW] * 4 and bool(marked.x.isnan().all())


def test_an_interval_of_a_few_ulps_is_one_step() -> None:
    for method in ADAMS:
        end = solve(SDE, elementwise, states(), method=method, t_start=0.5, t_end=math.nextafter(0.5, 0.0)).x
        assert torch.allclose(end, states()), method


def test_an_error_of_the_score_is_left_as_it_is() -> None:
    for method, error in itertools.product(SOME, (AssertionError, KeyboardInterrupt)):

        def broken(x: Tensor, t: Tensor, error: type[BaseException] = error) -> Tensor:
            if t[0] < 0.9:
                raise error("mine")
            return -x

        with pytest.raises(error, match="mine"):
            solve(SDE, broken, states(), seed=0, **at(method))


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("dopri5", {}, "did you mean 'torchdiffeq:dopri5'"),
        ("torchdiffeq:dopri5", {"steps": 10}, "`steps` does not apply"),
        ("scipy:RK45", {"grid": "time"}, "`grid` does not apply"),
        ("torchdiffeq:explicit_adams", {"grid": "time"}, "equal steps on its clock"),
        ("torchdiffeq:explicit_adams", {"max_order": 3}, "`max_order`"),
        ("torchdiffeq:rk4", {"rtol": 1e-3}, "`rtol` does not apply"),
        ("torchdiffeq:dopri5", {"rtol": 1e-20}, "below 10 x"),
        ("torchdiffeq:dopri5", {"clock": "sigma"}, "`clock`: unknown name 'sigma'"),
        ("torchdiffeq:dopri5", {"stochasticity": 1.0}, "has no stochasticity"),
        ("torchsde:srk", {"t_start": 0.1, "t_end": 0.9}, "needs a deterministic method"),
    ]
    recorded = Recorded()
    for method, arguments, words in cases:
        with pytest.raises(InvalidArgumentError, match=words):
            solve(SDE, recorded, states(), method=method, **arguments)
    for library, method in (("torchdiffeq", "dopri5"), ("scipy.integrate", "RK45"), ("torchsde", "srk")):
        monkeypatch.setitem(sys.modules, library, None)
        name = library.partition(".")[0]
        with pytest.raises(InvalidArgumentError, match=f"needs the library {name}, .*pip install {name}"):
            solve(SDE, recorded, states(), method=f"{name}:{method}")
    assert recorded.calls == 0


def test_a_solver_object_keeps_what_solve_is_not_told() -> None:
    solver = make_solver("torchdiffeq:dopri5", {"rtol": 1e-9, "atol": 1e-9})
    tight = solve(SDE, elementwise, states(), method=solver)
    assert torch.equal(tight.x, solve(SDE, elementwise, states(), **at("torchdiffeq:dopri5", 1e-9)).x)
    loose = solve(SDE, elementwise, states(), method=solver, rtol=1e-3, atol=1e-3)
    assert loose.evaluations < tight.evaluations
    for wrong in ("torchdiffeq:dopri5", "torchdiffeq:explicit_adams"):
        with pytest.raises(InvalidArgumentError, match="`predictor` must make fixed steps"):
            solve(SDE, elementwise, states(), method="pc", predictor=wrong)


def test_a_process_of_which_only_drift_and_diffusion_are_known() -> None:
    class Slow(scoresde.SDE):
        def drift(self, x: Tensor, t: Tensor) -> Tensor:
            return -0.5 * x

        def diffusion(self, t: Any) -> Any:
            return torch.as_tensor(1.0)

    x, slow = states(), Slow(t_min=0.0, t_max=1.0, prior=scoresde.NormalPrior(1.0))
    expected = solve(slow, elementwise, x, method="rk45", rtol=1e-8, atol=1e-8).x
    for method in ("torchdiffeq:dopri5", "scipy:DOP853"):
        got = solve(slow, elementwise, x, **at(method, 1e-8)).x
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (solve(slow, elementwise, x, method=m, steps=5, seed=0).x for m in ("sra1", "torchsde:srk"))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    with pytest.raises(InvalidArgumentError, match="needs alpha and sigma"):
        solve(slow, elementwise, x, method="torchdiffeq:dopri5", clock="rho")


@pytest.mark.parametrize(("method", "own"), [("torchdiffeq:euler", "euler"), ("torchsde:euler", "euler_maruyama")])
def test_a_learned_schedule_has_a_gradient(method: str, own: str) -> None:
    grads = []
    for name in (method, own):
        scale = torch.tensor(1.5, dtype=F64, requires_grad=True)
        sde = scoresde.GaussianSDE(lambda t: 1 / (1 + scale * t), lambda t: scale * t / (1 + scale * t), 1e-3, 1.0)  # noqa: B023
        options = {"grid": [0.9, 0.6, 0.3], "seeds": range(4), "differentiable": True}
        solve(sde, elementwise, states(), method=name, **options).x.square().sum().backward()
        grads.append(scale.grad)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_an_end_without_noise_is_reached_or_refused() -> None:
    flow = scoresde.FlowSDE(t_min=0.0)
    model = scoresde.ScoreModel(lambda x, t: 0.3 * x, flow, "data")
    for method, clock in itertools.product(SOME[:-2], ("time", "rho")):
        message = ""
        try:
            end = solve(flow, model, states(), method=method, clock=clock).x
        except InvalidArgumentError as error:
            message = str(error)
        assert "sigma is 0 at t=0" in message or bool(end.isfinite().all()), (method, clock)
