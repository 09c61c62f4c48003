"""`solve` as users call it: what a result depends on, what is left untouched, and bugs of other libraries."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import scoresde
from scoresde import (
    EDMSDE,
    VDMSDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    FlowSDE,
    GaussianSDE,
    Grid,
    NormalPrior,
    ScoreModel,
    Status,
    SubVPSDE,
    solve,
)
from scoresde.solvers import make_solver
from scoresde.solvers.pairs import Pair
from tests.parameters import pairs

pytestmark = pytest.mark.timeout(60)

SDE = VPSDE()
PROCESSES = [
    VPSDE(),
    SubVPSDE(),
    VESDE(),
    EDMSDE(),
    CosineVPSDE(),
    FlowSDE(),
    VDMSDE(),
    GaussianSDE(torch.cos, torch.sin, 1e-3, 1.5),
]
# Other libraries' methods have a file of their own, test_backends.py.
OWN = [m for m in scoresde.methods() if m.kind != "backend"]
METHODS = [m.name for m in OWN]
FIXED = [m.name for m in OWN if not m.adaptive]
ODE = [m.name for m in OWN if not m.stochastic]
ORDER = {m.name: m.ode_order for m in scoresde.methods()}
DETOUR = {"restart": 4, "annealed_langevin": 1, "ncsn": 1}  # steps besides the grid's
SOLVER = {m.name: m.solver for m in OWN}
STOCHASTIC = [m.name for m in OWN if m.stochastic]
# These move by a share of sigma^2 at each level, and so need a score of the size of 1/sigma.
SCALED = ("annealed_langevin", "ncsn")
STRAIGHT = [name for name in FIXED if name not in SCALED]  # the others move at the first time, too
by_any_score = pytest.mark.parametrize("method", [name for name in METHODS if name not in SCALED])
by_process = pytest.mark.parametrize("sde", PROCESSES, ids=lambda s: type(s).__name__)
by_method = pytest.mark.parametrize("method", METHODS)
NAMED = {type(sde).__name__: sde for sde in PROCESSES}


def column(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    """A score that no sample shares with another, made of sums and products only: bitwise the same in any batch."""
    u = column(t, x)
    return -x / (1 + u * u) - 0.1 * x * x * x / (1 + x * x)


def rowwise(function: Callable[..., Tensor]) -> Any:
    class Rowwise:
        rowwise = True

        def __call__(self, x: Tensor, t: Tensor, **context: Tensor) -> Tensor:
            return function(x, t, **context)

    return Rowwise()


def states(rows: int = 4, *event: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(rows, *(event or (2,)), generator=generator, dtype=torch.float64).to(dtype)


def few(method: str, steps: int = 4) -> dict[str, Any]:
    tolerance = 0.3 if method in STOCHASTIC else 1e-3 if ORDER[method] == 2 else 1e-4
    return {"method": method} | ({"steps": steps} if method in FIXED else {"rtol": tolerance, "atol": tolerance})


def tolerances(method: str, factor: float = 1.0) -> dict[str, float]:
    """Tight ones that take some hundred steps, times a factor."""
    value = factor * {2: 1e-5, 3: 1e-6}.get(ORDER[method] or 2, 1e-9)
    return {"rtol": value, "atol": value}


# --- the batch ------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    method=st.sampled_from(METHODS),
    event=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    rows=st.integers(1, 6),
    compacts=st.booleans(),
    data=st.data(),
)
def test_the_batch_never_changes_a_result(
    method: str, event: list[int], rows: int, compacts: bool, data: st.DataObject
) -> None:
    """Permuted, or split in any two parts, every sample is bitwise what it was, and so are its counts."""
    x = states(rows, *event) * torch.logspace(-1, 1, rows, dtype=torch.float64).reshape(-1, *[1] * len(event))
    seeds = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=rows, max_size=rows))
    order = data.draw(st.permutations(range(rows)))
    cut = data.draw(st.integers(0, rows))
    score_fn = rowwise(elementwise) if compacts else elementwise

    def run(rows: list[int]) -> Any:
        return solve(SDE, score_fn, x[rows], seeds=[seeds[i] for i in rows], save_at=[0.5], denoise=True, **few(method))

    whole = run(list(range(rows)))
    permuted, first, second = run(list(order)), run(list(order[:cut])), run(list(order[cut:]))
    assert whole.xs is not None
    for parts in ([permuted], [first, second]):
        assert torch.equal(torch.cat([p.x for p in parts]), whole.x[list(order)])
        assert torch.equal(torch.cat([p.xs for p in parts], 1), whole.xs[:, list(order)])
        for name in ("nfe", "accepted", "rejected", "status", "t"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name)[list(order)])


@by_method
@pytest.mark.parametrize("target", ["gaussian", "mixture"])
def test_the_batch_changes_a_target_by_rounding_at_most(target: str, method: str) -> None:
    made: Any = (
        scoresde.targets.Gaussian(torch.zeros(3).double(), torch.tensor([[2.0, 0.5, 0], [0.5, 1.0, 0], [0, 0, 0.1]]))
        if target == "gaussian"
        else scoresde.targets.GaussianMixture(
            torch.ones(2), torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]).double(), scales=0.2
        )
    )
    x = states(7, 3)
    whole = solve(SDE, made.score(SDE), x, seeds=range(7), **few(method, 10))
    for i in (0, 3, 6):
        alone = solve(SDE, made.score(SDE), x[i : i + 1], seeds=[i], **few(method, 10))
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-9, atol=1e-9)


@by_method
def test_a_hard_mate_does_not_loosen_and_is_not_loosened(method: str) -> None:
    """One sample whose score is stiff, among many whose score is not."""

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        hard = (x.abs() > 50).any(1, keepdim=True)
        return torch.where(hard, -0.01 * x + 20 * torch.round(column(t, x) * 40), -x)

    x = torch.cat([states(1) + 500, states(30)])
    whole = solve(SDE, score_fn, x, seeds=range(31), **few(method, 20))
    alone = solve(SDE, score_fn, x[:1], seeds=[0], **few(method, 20))
    assert torch.equal(whole.x[:1], alone.x) and torch.equal(whole.nfe[:1], alone.nfe)


@by_method
def test_seeds_do_not_depend_on_the_dtype_of_the_list(method: str) -> None:
    x = states(3)
    runs = [
        solve(SDE, elementwise, x, seeds=seeds, **few(method)).x
        for seeds in ([4, 5, 6], (4, 5, 6), range(4, 7), torch.tensor([4, 5, 6]), np.array([4, 5, 6]))
    ]
    assert all(torch.equal(runs[0], r) for r in runs)


@pytest.mark.timeout(30)
class Count(TorchFunctionMode):
    """Counts the calls of torch's functions."""

    calls = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


def test_many_seeds_of_small_events_are_cheap() -> None:
    """The work and memory of a draw are those of the numbers drawn, not of a large block per sample."""
    with Count() as count:
        solve(SDE, elementwise, states(1000), method="ancestral", steps=3, seeds=range(1000))
    assert count.calls < 2500  # a few per seed, not one per draw


@by_method
def test_the_prior_draw_of_a_sample_is_its_seeds(method: str) -> None:
    both = solve(SDE, elementwise, shape=(2, 3), seeds=[8, 9], **few(method)).x
    alone = solve(SDE, elementwise, shape=(1, 3), seeds=[9], **few(method)).x
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


def test_seeds_set_the_batch_where_the_event_is_known() -> None:
    target = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    assert solve(SDE, target.score(SDE), method="ddim", steps=2, seeds=[1, 2, 3]).x.shape == (3, 2)
    assert solve(SDE, target.score(SDE), method="ddim", steps=2).x.shape == (1, 2)


@by_any_score
def test_a_bare_function_always_sees_the_whole_batch(method: str) -> None:
    """It may be a closure over labels, one per sample."""
    labels = torch.linspace(0.5, 40.0, 5, dtype=torch.float64)[:, None]
    shapes: set[tuple[int, ...]] = set()

    def closure(x: Tensor, t: Tensor) -> Tensor:
        shapes.add(tuple(x.shape))
        return -labels * x / (1 + column(t, x))

    solution = solve(SDE, closure, states(5), seeds=range(5), **few(method, 60))
    assert shapes == {(5, 2)} and bool(solution.success.all())
    if method not in FIXED:
        assert len(set(solution.nfe.tolist())) > 1  # so there was something to drop


@by_any_score
def test_context_reaches_the_network_with_its_samples(method: str) -> None:
    """The same as labels in the state's own place, whether or not finished samples leave."""
    strength = torch.linspace(0.5, 40.0, 5, dtype=torch.float64)[:, None]
    widths: set[int] = set()

    def score_fn(x: Tensor, t: Tensor, strength: Tensor) -> Tensor:
        assert len(strength) == len(x)
        widths.add(len(x))
        return -strength * x / (1 + column(t, x))

    x = states(5)
    runs = [
        solve(SDE, f, x, context={"strength": strength}, seeds=range(5), **few(method, 60))
        for f in (score_fn, rowwise(score_fn))
    ]
    assert torch.equal(runs[0].x, runs[1].x) and torch.equal(runs[0].nfe, runs[1].nfe)
    if method not in FIXED:
        assert len(widths) > 1
        assert runs[1].evaluations == int(runs[1].nfe.max())
    alone = solve(SDE, score_fn, x[2:3], context={"strength": strength[2:3]}, seeds=[2], **few(method, 60))
    assert torch.equal(alone.x, runs[0].x[2:3])


def test_a_function_for_noise_always_sees_the_whole_batch() -> None:
    shapes: list[tuple[int, ...]] = []

    def draw(k: int, like: Tensor) -> Tensor:
        assert k == len(shapes)
        shapes.append(tuple(like.shape))
        return torch.zeros_like(like)

    sick = rowwise(lambda x, t: torch.where((x.abs() > 50) & (column(t, x) < 0.5), math.nan, -x * (x.abs() < 50)))
    x = states(3)
    x[1] = 1e4
    solve(VESDE(sigma_max=5.0), sick, x, method="ancestral", steps=10, noise=draw, throw=False)
    assert shapes == [(3, 2)] * 10
    shapes.clear()
    solve(SDE, elementwise, shape=(3, 2), method="ancestral", steps=2, noise=draw)
    assert shapes == [(3, 2)] * 3  # the prior's, and one per step


# --- what is counted ------------------------------------------------------------------------------------------------


@by_method
@pytest.mark.parametrize("compacts", [False, True])
def test_evaluations_are_the_networks_own(method: str, compacts: bool) -> None:
    calls: list[int] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return elementwise(x, t)

    x = states(5) * torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0]).double()[:, None]
    f = rowwise(score_fn) if compacts else score_fn
    solution = solve(SDE, f, x, seeds=range(5), denoise=True, **few(method, 7))
    assert solution.evaluations == len(calls) == int(solution.nfe.max())
    assert sum(calls) == (int(solution.nfe.sum()) if compacts else 5 * len(calls))
    most = solution.steps + make_solver(method, {}).lands  # a landing is made with the step before
    assert bool((solution.accepted + solution.rejected <= most).all())


def test_denoising_costs_one_evaluation_and_is_tweedies_formula() -> None:
    calls = 0

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return elementwise(x, t)

    x = states()
    for method in METHODS:
        plain = solve(SDE, score_fn, x, seeds=range(4), t_end=0.1, **few(method))
        before, calls = calls, 0
        clean = solve(SDE, score_fn, x, seeds=range(4), t_end=0.1, denoise=True, **few(method))
        assert torch.equal(clean.nfe, plain.nfe + 1) and clean.evaluations == plain.evaluations + 1 == calls
        alpha, sigma = float(SDE.alpha(0.1)), float(SDE.sigma(0.1))
        t = torch.full((4,), 0.1, dtype=torch.float64)
        torch.testing.assert_close(
            clean.x, (plain.x + sigma**2 * elementwise(plain.x, t)) / alpha, rtol=1e-12, atol=1e-12
        )
        calls = before


# --- times ----------------------------------------------------------------------------------------------------------


@by_process
@by_any_score
def test_nothing_is_evaluated_outside_the_interval(sde: Any, method: str) -> None:
    times: list[float] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.float64 and t.shape == (len(x),)
        times.extend(t.tolist())
        return -x / column(sde.alpha(t) ** 2 + sde.sigma(t) ** 2, x)

    solution = solve(sde, score_fn, shape=(2, 2), seed=0, dtype=torch.float64, denoise=True, **few(method, 5))
    assert bool(solution.success.all()) and solution.t.tolist() == [sde.t_min] * 2
    assert min(times) >= sde.t_min and max(times) <= sde.t_max
    assert times[-1] == sde.t_min  # the denoising, exactly at the end


@by_process
@pytest.mark.parametrize("grid", ["log_snr", "time", "karras", "quadratic"])
def test_the_times_visited_are_the_grid(sde: Any, grid: str) -> None:
    visited: list[float] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        visited.append(float(t[0]))
        return torch.zeros_like(x)

    solution = solve(
        sde, score_fn, shape=(1, 1), method="euler", steps=6, grid=grid, save_at="steps", dtype=torch.float64, seed=0
    )
    assert solution.ts is not None
    assert visited == solution.ts.tolist()[:-1]
    assert solution.ts[0] == sde.t_max and solution.ts[-1] == sde.t_min
    assert bool((solution.ts.diff() < 0).all())


@pytest.mark.parametrize("kind", ["tensor", "list", "record", "function"])
@pytest.mark.parametrize("method", STRAIGHT)
def test_a_given_grid_is_visited(kind: str, method: str) -> None:
    times = [0.9, 0.6, 0.2, 0.05]
    grid: Any = {
        "tensor": torch.tensor(times, dtype=torch.float64),
        "list": times,
        "record": Grid(tuple(times)),
        "function": lambda sde, a, b, n: torch.tensor(times, dtype=torch.float64),
    }[kind]
    ends: dict[str, Any] = {"t_start": 0.9, "t_end": 0.05, "steps": 3} if kind == "function" else {}
    ends |= {"intervals": ()} if method == "restart" else {}  # without detours
    solution = solve(SDE, elementwise, states(), method=method, grid=grid, save_at="steps", seed=0, **ends)
    assert solution.ts is not None and solution.ts.tolist() == times and solution.t.tolist() == [0.05] * 4


def test_euler_maruyamas_labels_are_the_times_of_its_states() -> None:
    """Not t - 1/N on a grid of spacing (T - eps)/(N - 1), and nothing below eps."""
    visited: list[float] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        visited.append(float(t[0]))
        return -x

    infos: list[Any] = []
    solve(SDE, score_fn, states(), method="euler_maruyama", steps=9, grid="time", seed=0, callback=infos.append)
    assert visited == [SDE.t_max] + [i.t for i in infos[:-1]] and infos[-1].t == SDE.t_min
    assert visited == pytest.approx(np.linspace(1.0, 1e-3, 10)[:-1].tolist(), abs=1e-15)


@pytest.mark.parametrize("method", STRAIGHT)
def test_saved_times_of_fixed_steps_are_additional_nodes(method: str) -> None:
    wanted = [0.05, 0.77, SDE.t_max, 0.4, SDE.t_min, 0.4]
    solution = solve(SDE, elementwise, states(), seeds=range(4), save_at=wanted, **few(method, 5))
    assert solution.ts is not None and solution.xs is not None
    assert solution.ts.tolist() == wanted and solution.xs.shape == (6, 4, 2)
    assert solution.steps == 5 + 3 + DETOUR.get(method, 0)
    assert torch.equal(solution.xs[2], states()) and torch.equal(solution.xs[4], solution.x)
    assert torch.equal(solution.xs[3], solution.xs[5])
    steps = solve(SDE, elementwise, states(), seeds=range(4), save_at="steps", **few(method, 5))
    assert steps.xs is not None and torch.equal(steps.xs[-1], steps.x)
    assert steps.xs.shape == (6 + DETOUR.get(method, 0), 4, 2)


@pytest.mark.parametrize("method", ODE)
def test_saved_states_are_those_of_separate_solves(method: str) -> None:
    x = states()
    wanted = [0.7, 0.3, 0.1]
    tight = {"steps": 400} if method in FIXED else tolerances(method, 10.0)
    saved = solve(SDE, elementwise, x, method=method, save_at=wanted, **tight)
    assert saved.xs is not None
    for t, state in zip(wanted, saved.xs, strict=True):
        separate = solve(SDE, elementwise, x, method=method, t_end=t, **tight)
        atol = {1: 0.1, 2: 5e-3}.get(ORDER[method], 1e-4)  # the two grids differ
        torch.testing.assert_close(state, separate.x, rtol=0, atol=atol)


def test_saving_does_not_change_an_adaptive_result_beyond_its_tolerance() -> None:
    x = states()
    arguments = {"method": "rk45", "rtol": 1e-8, "atol": 1e-8}
    plain = solve(SDE, elementwise, x, **arguments)
    saved = solve(SDE, elementwise, x, save_at=torch.linspace(0.9, 0.1, 9), **arguments)
    torch.testing.assert_close(plain.x, saved.x, rtol=1e-5, atol=1e-6)
    assert saved.xs is not None and bool(saved.xs.isfinite().all()) and bool(saved.success.all())


@by_method
def test_saved_times_next_to_a_node_or_to_each_other(method: str) -> None:
    """A sliver of a step is no trouble."""
    near = math.nextafter(0.5, 1.0)
    wanted = [near, 0.5, math.nextafter(SDE.t_max, 0.0), math.nextafter(SDE.t_min, 1.0)]
    solution = solve(SDE, elementwise, states(), seeds=range(4), save_at=wanted, grid=None, **few(method, 4))
    assert solution.xs is not None and bool(solution.xs.isfinite().all()) and bool(solution.success.all())
    if method not in (
        "pc",
        "langevin",
        "annealed_langevin",
        "ncsn",
        "edm",
        "cas",
    ):  # their noise is as large at the end of a sliver as anywhere
        torch.testing.assert_close(solution.xs[0], solution.xs[1], rtol=1e-5, atol=1e-5)


def test_saving_many_times_costs_each_step_the_same() -> None:
    cost = []
    for n in (20, 160):
        with Count() as count:
            solution = solve(SDE, elementwise, states(1), method="rk45", save_at=torch.linspace(0.9, 0.1, n).double())
        cost.append(count.calls / solution.steps)
    assert cost[1] < 1.5 * cost[0]


@by_method
def test_the_direction_of_a_solve(method: str) -> None:
    x = states()
    if method in STOCHASTIC:
        return
    tight = {"steps": 300} if method in FIXED else tolerances(method)
    there = solve(SDE, elementwise, x, method=method, t_start=0.2, t_end=0.8, save_at="steps", **tight)
    back = solve(SDE, elementwise, there.x, method=method, t_start=0.8, t_end=0.2, **tight)
    torch.testing.assert_close(back.x, x, rtol=0, atol=0.1 if method in ("ddim", "euler") else 1e-3)
    assert there.ts is not None and bool((there.ts.diff(dim=0) >= 0).all())


# --- callback and bar -----------------------------------------------------------------------------------------------


@by_method
def test_a_callback_follows_and_stops(method: str) -> None:
    infos: list[Any] = []
    solution = solve(SDE, elementwise, states(), seeds=range(4), callback=infos.append, **few(method, 6))
    assert [i.step for i in infos] == list(range(1, solution.steps + 1))
    assert torch.equal(infos[-1].x, solution.x) and torch.equal(infos[-1].nfe, solution.nfe)
    stopped = solve(
        SDE, elementwise, states(), seeds=range(4), callback=lambda i: i.step == 2, denoise=True, **few(method, 6)
    )
    assert stopped.steps == 2 and stopped.status.tolist() == [Status.STOPPED] * 4
    assert torch.equal(stopped.x, infos[1].x)  # not denoised: it is not at the end
    assert bool((stopped.t > SDE.t_min).all())


@by_method
def test_a_bar_on_stderr(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    quiet = solve(SDE, elementwise, states(), seeds=range(4), **few(method, 6))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")  # off by default
    shown = solve(SDE, elementwise, states(), seeds=range(4), progress=True, **few(method, 6))
    out, err = capfd.readouterr()
    assert out == "" and make_solver(method, {}).name in err and "100%" in err
    assert torch.equal(shown.x, quiet.x)


def test_a_bar_is_not_drawn_at_every_step(capfd: pytest.CaptureFixture[str]) -> None:
    solve(SDE, elementwise, states(1), method="ddim", steps=2000, progress=True)
    assert capfd.readouterr().err.count("%") < 500


# --- what is left untouched -----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    method=st.sampled_from(METHODS),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    event=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    layout=st.sampled_from(["plain", "reversed", "strided", "expanded", "offset"]),
    rows=st.integers(0, 4),
)
def test_dtype_shape_and_input_are_kept(
    method: str, dtype: torch.dtype, event: list[int], layout: str, rows: int
) -> None:
    full = states(2 * rows + 1, *event).to(dtype)
    x = {
        "plain": lambda: full[:rows].clone(),
        "reversed": lambda: full[:rows].transpose(0, -1).contiguous().transpose(0, -1),
        "strided": lambda: full[: 2 * rows : 2],
        "expanded": lambda: full[:1].expand(rows, *event),
        "offset": lambda: full[1 : rows + 1],
    }[layout]()
    before, version, stride = x.clone(), x._version, x.stride()
    solution = solve(SDE, elementwise, x, seeds=range(rows), save_at=[0.5], denoise=True, **few(method, 2))
    assert solution.x.dtype == dtype and solution.x.shape == x.shape
    assert solution.xs is not None and solution.xs.dtype == dtype
    assert torch.equal(x, before) and x._version == version and x.stride() == stride
    assert solution.x.untyped_storage().data_ptr() != x.untyped_storage().data_ptr() or x.numel() == 0
    assert solution.t.dtype == torch.float64 and solution.nfe.dtype == solution.status.dtype == torch.int64


@by_method
@pytest.mark.parametrize("given_dtype", [torch.float16, torch.float32, torch.float64])
def test_the_dtype_asked_for(method: str, given_dtype: torch.dtype) -> None:
    assert solve(SDE, elementwise, states(), dtype=given_dtype, seed=0, **few(method, 2)).x.dtype == given_dtype
    assert solve(SDE, elementwise, shape=(2, 2), dtype=given_dtype, seed=0, **few(method, 2)).x.dtype == given_dtype
    assert solve(SDE, elementwise, shape=(2, 2), seed=0, **few(method, 2)).x.dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    assert solve(SDE, elementwise, shape=(2, 2), seed=0, **few(method, 2)).x.dtype == torch.float64


class Net(nn.Module):
    """A small network with what modules keep: a parameter, dropout, and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 2, dtype=torch.float64)
        self.drop = nn.Dropout(0.5)
        nn.init.eye_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.line(x) / (1 + column(t, x))


@by_method
@pytest.mark.parametrize("training", [False, True])
def test_modules_and_grad_mode_are_untouched(method: str, training: bool) -> None:
    net = Net().train(training)
    net.drop.train(not training)  # a mixed state, which train() or eval() would not give back
    x = states().requires_grad_()
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            solution = solve(SDE, net, x, seed=0, save_at="steps", denoise=True, **few(method))
            assert torch.is_grad_enabled() is enabled
        assert solution.x.grad_fn is None and not solution.x.requires_grad
        assert solution.xs is not None and not solution.xs.requires_grad
    assert net.training is training and net.drop.training is not training and net.line.training is training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert x.requires_grad and x.grad is None


@by_method
def test_no_graph_is_recorded_inside(method: str) -> None:
    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not x.requires_grad and not t.requires_grad
        return elementwise(x, t)

    for dtype in (torch.float64, torch.float16):
        solve(SDE, score_fn, states().to(dtype).requires_grad_(), seed=0, **few(method))


@by_method
@pytest.mark.parametrize("source", ["seed", "seeds", "generator", "noise"])
def test_the_global_generators_are_untouched(method: str, source: str) -> None:
    if source == "noise" and SOLVER[method]().needs_path:
        return  # it refuses a function, see tests/unit/test_followed.py
    given_source: dict[str, Any] = {
        "seed": {"seed": 3},
        "seeds": {"seeds": [3, 4]},
        "generator": {"generator": torch.Generator().manual_seed(3)},
        "noise": {"noise": lambda k, like: torch.zeros_like(like)},
    }[source]
    torch.manual_seed(0)
    states_before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    solve(SDE, elementwise, shape=(2, 2), **given_source, **few(method))
    solve(SDE, elementwise, states(2), **given_source, **few(method))
    assert torch.equal(torch.get_rng_state(), states_before[0])
    assert (np.random.get_state()[1] == states_before[1]).all() and random.getstate() == states_before[2]  # noqa: NPY002


@by_method
def test_without_a_source_torchs_generator_is_used(method: str) -> None:
    torch.manual_seed(5)
    a = solve(SDE, elementwise, shape=(2, 2), **few(method)).x
    torch.manual_seed(5)
    b = solve(SDE, elementwise, shape=(2, 2), **few(method)).x
    assert torch.equal(a, b) and not torch.equal(a, solve(SDE, elementwise, shape=(2, 2), **few(method)).x)


@by_method
def test_a_seed_repeats_a_solve_and_a_generator_goes_on(method: str) -> None:
    a, b = (solve(SDE, elementwise, shape=(3, 2), seed=7, **few(method)).x for _ in range(2))
    assert torch.equal(a, b)
    generator = torch.Generator().manual_seed(7)
    c, d = (solve(SDE, elementwise, shape=(3, 2), generator=generator, **few(method)).x for _ in range(2))
    assert torch.equal(a, c) and not torch.equal(c, d)
    assert not torch.equal(a, solve(SDE, elementwise, shape=(3, 2), seed=8, **few(method)).x)


# --- gradients ------------------------------------------------------------------------------------------------------


def differentiable(method: str) -> tuple[dict[str, Any], float]:
    """Options with which a result is a smooth function, and a difference to see its slope by."""
    if method in FIXED:
        return {"steps": 4}, 1e-6
    if issubclass(SOLVER[method], Pair):  # the steps change with the parameters: within the tolerance
        tight = 1e-8 if method == "rk23" else 1e-10
        return {"rtol": tight, "atol": tight}, 1e-3
    return {"rtol": 1e12, "atol": 1e12}, 1e-6  # the first step and the growth of steps are fixed


@pytest.mark.parametrize(("method", "name"), pairs(METHODS, ["VPSDE", "VESDE", "FlowSDE"]))
def test_gradients_match_finite_differences(method: str, name: str) -> None:
    sde = VESDE(sigma_max=5.0) if name == "VESDE" else NAMED[name]
    x = states(3)
    strength = torch.tensor(1.3, dtype=torch.float64)
    weight = states(3, 2)[:, [1, 0]]
    options, h = differentiable(method)

    def loss(x: Tensor, strength: Tensor) -> Tensor:
        score_fn = lambda x, t: -strength * x / (0.3 + column(t, x)) - 0.2 * x**3 / (1 + x * x)  # noqa: E731
        end = solve(
            sde, score_fn, x, method=method, seeds=range(3), t_end=0.2, differentiable=True, denoise=True, **options
        )
        return (end.x * weight).sum()

    leaf, parameter = x.clone().requires_grad_(), strength.clone().requires_grad_()
    loss(leaf, parameter).backward()
    assert leaf.grad is not None and parameter.grad is not None and bool(leaf.grad.isfinite().all())
    difference = (loss(x, strength + h) - loss(x, strength - h)) / (2 * h)
    torch.testing.assert_close(parameter.grad, difference.detach(), rtol=2e-5, atol=2e-5)
    for i in range(3):
        shift = torch.zeros_like(x)
        shift[i, i % 2] = h
        difference = (loss(x + shift, strength) - loss(x - shift, strength)) / (2 * h)
        torch.testing.assert_close(leaf.grad[i, i % 2], difference.detach(), rtol=2e-5, atol=2e-5)


def test_the_gradient_of_a_solve_without_error_is_not_nan() -> None:
    """An error estimate that is exactly zero has no finite root's derivative; steps are not differentiated through."""
    x = states(2).requires_grad_()
    solve(VESDE(), lambda x, t: torch.zeros_like(x), x, method="rk45", differentiable=True).x.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("compacts", [False, True])
def test_gradients_of_samples_that_finish_at_different_times(compacts: bool) -> None:
    """Sample by sample the gradient is that of the sample alone, whoever has left the batch before."""
    function = lambda x, t: -(1 + x * x) * x / (1 + column(t, x))  # noqa: E731
    score_fn = rowwise(function) if compacts else function
    x = states(3) * torch.tensor([0.01, 1.0, 3.0]).double()[:, None]
    leaf = x.clone().requires_grad_()
    solution = solve(SDE, score_fn, leaf, method="rk45", rtol=1e-6, atol=1e-6, differentiable=True)
    solution.x.square().sum().backward()
    assert len(set(solution.nfe.tolist())) > 1 and leaf.grad is not None
    for i in range(3):
        alone = x[i : i + 1].clone().requires_grad_()
        solve(
            SDE, score_fn, alone, method="rk45", rtol=1e-6, atol=1e-6, differentiable=True
        ).x.square().sum().backward()
        assert alone.grad is not None
        torch.testing.assert_close(leaf.grad[i : i + 1], alone.grad, rtol=1e-9, atol=1e-9)


@by_method
def test_a_differentiable_solve_has_the_same_result(method: str) -> None:
    x = states()
    plain = solve(SDE, elementwise, x, seeds=range(4), **few(method))
    graph = solve(SDE, elementwise, x.clone().requires_grad_(), seeds=range(4), differentiable=True, **few(method))
    assert graph.x.requires_grad and torch.equal(graph.x.detach(), plain.x)
    assert not graph.t.requires_grad and graph.nfe.tolist() == plain.nfe.tolist()


@pytest.mark.parametrize("method", FIXED)
def test_guidance_on_a_grid_with_gradients(method: str) -> None:
    """Both sides of the guidance are one call of the network, on nodes of the grid and on those inside a step."""
    net = lambda x, t, label: torch.tanh(x + t[:, None] * label[:, None])  # noqa: E731
    sides = [scoresde.ScoreModel(net, SDE, "noise", context={"label": torch.full((4,), v)}) for v in (0.5, -0.5)]
    guided = scoresde.guidance.classifier_free(*sides, scale=3.0)
    times = scoresde.grids.resolve("log_snr", SDE, 1.0, 0.05, 3)
    given: dict[str, Any] = {"method": method, "seeds": range(4)}
    moving = times.clone().requires_grad_()
    graph = solve(SDE, guided, states(), grid=moving, differentiable=True, **given).x
    torch.testing.assert_close(graph.detach(), solve(SDE, guided, states(), grid=times, **given).x)
    (slope,) = torch.autograd.grad(graph.sum(), moving)
    assert slope.isfinite().all() and bool(slope.any())


# --- bugs of other libraries, as tests ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "name"), pairs(METHODS, NAMED))
def test_every_method_runs_on_every_process(method: str, name: str) -> None:
    """Sub-VP with a Langevin corrector among them."""
    sde = NAMED[name]
    target = scoresde.targets.Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([1.0, 0.25]))
    solution = solve(sde, target.score(sde), method=method, shape=(5, 2), seed=0)
    assert bool(torch.isfinite(solution.x).all()) and bool(solution.success.all())
    if method != "langevin":  # which needs far more levels than its default to forget a wide prior
        assert float(solution.x.abs().max()) < 20


@pytest.mark.parametrize(("method", "name"), pairs(FIXED, NAMED))
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_few_steps_work(method: str, name: str, steps: int) -> None:
    """No NaN from beta > 1 at N = 20, no square root of a negative below, no 0/0 at N = 1."""
    sde = NAMED[name]
    target = scoresde.targets.Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([1.0, 0.25]))
    for grid in ("log_snr", "time", "karras", "quadratic"):
        solution = solve(sde, target.score(sde), method=method, steps=steps, grid=grid, shape=(5, 2), seed=0)
        assert solution.steps == steps + DETOUR.get(method, 0) and bool(torch.isfinite(solution.x).all())


@by_process
@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_a_point_mass_is_exact_at_one_step(sde: Any, method: str) -> None:
    """With the true data prediction both land on alpha x_0 + sigma e, whatever the number of steps."""
    point = torch.tensor([0.7, -0.4], dtype=torch.float64)
    model = ScoreModel(lambda x, t: point.expand_as(x), sde, "data")
    for steps in (1, 3):
        solution = solve(
            sde, model, shape=(3, 2), method=method, steps=steps, seed=0, dtype=torch.float64, denoise=True
        )
        torch.testing.assert_close(solution.x, point.expand(3, 2), rtol=0, atol=1e-12)


def test_the_number_of_steps_is_no_part_of_a_process() -> None:
    """The process is asked for at other times, never changed by a solve."""
    target = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    for sde in PROCESSES:
        before = repr(sde), [float(sde.sigma(t)) for t in (0.1, 0.5, 0.9)]
        for steps in (1, 7, 100):
            solve(sde, target.score(sde), method="ddim", steps=steps, seed=0)
        assert (repr(sde), [float(sde.sigma(t)) for t in (0.1, 0.5, 0.9)]) == before


@pytest.mark.parametrize(
    ("sde", "sigma2"),
    [
        (VPSDE(t_min=1e-8), lambda b: -math.expm1(-b)),
        (SubVPSDE(t_min=1e-8), lambda b: math.expm1(-b) ** 2),
    ],
    ids=["vp", "subvp"],
)
@pytest.mark.parametrize("t", [1e-6, 1e-5, 1e-3])
def test_sigma_keeps_its_digits_near_the_data(sde: Any, sigma2: Any, t: float) -> None:
    """sqrt(1 - exp(-B)) in single precision is 9 % off at t = 1e-6; expm1 is not."""
    b = 0.1 * t + 0.5 * 19.9 * t * t
    assert float(sde.sigma(t)) == pytest.approx(math.sqrt(sigma2(b)), rel=1e-12)
    assert float(sde.sigma(torch.tensor(t))) == pytest.approx(math.sqrt(sigma2(b)), rel=3e-7)
    seen: list[float] = []

    def net(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma[0]))
        return torch.zeros_like(x)

    model = ScoreModel(net, sde, "noise", time_input="sigma")
    solve(sde, model, torch.ones(1, 1), method="ddim", grid=[1.0, t, 1e-8])
    assert seen[1] == pytest.approx(math.sqrt(sigma2(b)), rel=3e-7)


@pytest.mark.parametrize("steps", [4, 50, 999])
def test_networks_are_told_the_time_of_the_state(steps: int) -> None:
    """One source of times: the network is told of the very node that the step starts from."""
    told: list[float] = []

    def net(x: Tensor, log_snr: Tensor) -> Tensor:
        told.append(float(log_snr[0]))
        return torch.zeros_like(x)

    model = ScoreModel(net, SDE, "noise", time_input="log_snr")
    solution = solve(SDE, model, states(1), method="ddim", steps=steps, save_at="steps")
    assert solution.ts is not None
    assert told == pytest.approx(SDE.log_snr(solution.ts[:-1]).tolist(), rel=1e-9)


def test_denoising_leaves_no_noise_of_the_last_step() -> None:
    sde = VESDE()
    point = torch.tensor([0.7, -0.4], dtype=torch.float64)
    target = scoresde.targets.Gaussian(point, 1e-20)
    for method in ("pc", "ancestral", "euler_maruyama", "reverse_diffusion"):
        solution = solve(
            sde, target.score(sde), method=method, shape=(50, 2), seed=0, dtype=torch.float64, denoise=True
        )
        assert float((solution.x - point).abs().max()) < 1e-9


def test_langevin_steps_are_each_samples_own() -> None:
    """A norm over the batch would move sample 0 when the score of sample 1 changes."""
    x = states(2)

    def run(factor: float) -> Tensor:
        scale = torch.tensor([1.0, factor], dtype=torch.float64)[:, None]
        return solve(SDE, lambda x, t: -scale * x, x, method="pc", steps=5, seeds=[0, 1]).x

    assert torch.equal(run(1.0)[0], run(3.0)[0]) and not torch.equal(run(1.0)[1], run(3.0)[1])


def test_noise_is_drawn_by_those_who_use_it() -> None:
    """A deterministic method draws nothing, so that the stream of a generator does not depend on it."""
    for method in ODE:
        generator = torch.Generator().manual_seed(1)
        before = generator.get_state()
        solve(SDE, elementwise, states(), generator=generator, **few(method))
        assert torch.equal(generator.get_state(), before)


def test_no_noise_left_when_stochasticity_is_0() -> None:
    """Euler-Maruyama without noise is Euler on the probability flow."""
    a = solve(SDE, elementwise, states(), method="euler_maruyama", steps=20, stochasticity=0.0, seed=0).x
    b = solve(SDE, elementwise, states(), method="euler", steps=20).x
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_stochasticity_reaches_the_predictor_of_pc() -> None:
    runs = [
        solve(SDE, elementwise, states(), method="pc", predictor="euler_maruyama", steps=5, stochasticity=eta, seed=0).x
        for eta in (None, 1.0, 0.5)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("method", METHODS)
def test_a_float16_result_is_the_float32_result_rounded_once(method: str) -> None:
    """Accumulating y' = y in half precision stands still."""
    x = states().half()
    options = few(method, 30 if method in SCALED else 300)  # those move many times per step
    half = solve(SDE, elementwise, x, seeds=range(4), **options)
    single = solve(SDE, elementwise, x.float(), seeds=range(4), **options)
    assert torch.equal(half.x, single.x.half())


@settings(max_examples=25)
@given(
    means=st.lists(st.floats(-3, 3), min_size=2, max_size=2),
    std=st.floats(0.05, 3.0),
    sde=st.sampled_from(PROCESSES),
    method=st.sampled_from(["rk45", "heun", "rk4", "ddim"]),
)
def test_the_flow_of_a_gaussian_is_the_closed_form(means: list[float], std: float, sde: Any, method: str) -> None:
    target = scoresde.targets.Gaussian(torch.tensor(means, dtype=torch.float64), std**2)
    x = sde.prior.from_normal(states(3))
    exact = target.flow_map(x, sde, sde.t_max, sde.t_min)
    arguments = {"rtol": 1e-7, "atol": 1e-7} if method == "rk45" else {"steps": 400}
    solution = solve(sde, target.score(sde), x, method=method, **arguments)
    tolerance = {"rk45": 1e-4, "heun": 2e-2, "rk4": 2e-2, "ddim": 0.1}[method] * (1 + float(exact.abs().max()))
    assume(bool(exact.isfinite().all()))
    assert float((solution.x - exact).abs().max()) < tolerance


def test_a_prior_of_ones_own() -> None:
    class Uniform:
        def from_normal(self, z: Tensor) -> Tensor:
            return torch.special.ndtr(z)

        def log_prob(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x))

    sde = VPSDE(prior=Uniform())  # type: ignore[arg-type]
    start = solve(sde, elementwise, shape=(50, 2), seed=0, method="ddim", steps=1, save_at=[1.0]).xs
    assert start is not None and float(start.min()) >= 0 and float(start.max()) <= 1
    shifted = VPSDE(prior=NormalPrior(1e-6, torch.tensor([3.0, -3.0])))
    start = solve(shifted, elementwise, shape=(4, 2), seed=0, method="ddim", steps=1, save_at=[1.0]).xs
    assert start is not None
    torch.testing.assert_close(start[0], torch.tensor([3.0, -3.0]).expand(4, 2), rtol=0, atol=1e-4)


def test_a_general_process_solves_with_its_own_drift() -> None:
    class OrnsteinUhlenbeck(scoresde.SDE):
        def drift(self, x: Tensor, t: Any) -> Tensor:
            return -x

        def diffusion(self, t: Any) -> Tensor:
            return torch.as_tensor(2.0**0.5, dtype=torch.float64)

    sde = OrnsteinUhlenbeck(t_min=0.01, t_max=2.0, prior=NormalPrior(1.0))
    affine = GaussianSDE(lambda t: torch.exp(-t), lambda t: (-torch.expm1(-2 * t)).sqrt(), 0.01, 2.0)
    target = scoresde.targets.Gaussian(torch.tensor([0.5, -0.5], dtype=torch.float64), 0.25)

    def bare(x: Tensor, t: Tensor) -> Tensor:
        a2 = torch.exp(-2 * column(t, x))
        return -(x - a2.sqrt() * target.mean) / (1 - 0.75 * a2)

    x = states()
    for method in ("euler", "heun", "rk4", "rk45", "midpoint"):
        steps = {"rtol": 1e-8, "atol": 1e-8} if method == "rk45" else {"steps": 1500, "grid": "time"}
        solution = solve(sde, bare, x, method=method, **steps)
        reference = target.flow_map(x, affine, 2.0, 0.01)
        torch.testing.assert_close(solution.x, reference, rtol=0, atol=2e-2 if method == "euler" else 1e-4)
    noisy = solve(sde, bare, x, method="euler_maruyama", steps=200, seed=0)
    same = solve(affine, bare, x, method="euler_maruyama", steps=200, grid="time", seed=0)
    torch.testing.assert_close(noisy.x, same.x, rtol=1e-9, atol=1e-9)


MULTISTEP = [m for m in scoresde.methods() if issubclass(m.solver, scoresde.solvers.Multistep)]


@pytest.mark.parametrize("method", MULTISTEP, ids=[m.name for m in MULTISTEP])
def test_saved_times_near_nodes_do_not_spoil_a_result(method: scoresde.Method) -> None:
    """Rounded nodes among the times to save, as users write them, cost no order: the error of a sample does not grow,
    and a stochastic method stays where the data are."""
    target = scoresde.targets.GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.2], [1.0, -0.4]]), scales=torch.tensor([0.3, 0.1])
    )
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = solve(SDE, target.score(SDE), x, method="dop853", rtol=1e-9, atol=1e-9).x
    times = scoresde.grids.log_snr(SDE, 1.0, 1e-3, 20)
    ends = []
    for digits in (None, 16, 5, 4, 3):
        near = digits and [round(float(t), digits) for t in times[3:17]]
        ends.append(solve(SDE, target.score(SDE), x, method=method.name, steps=20, seed=0, save_at=near).x)
    if method.solver().stochastic:
        assert max(float(end.abs().max()) for end in ends) < 2.2
    else:
        errors = [float((end - exact).square().mean(1).sqrt().median()) for end in ends]
        assert max(errors[1:]) < 1.3 * errors[0], errors


def test_a_denoised_result_says_from_which_time() -> None:
    """The last level that a chain evaluates is not the time of the data."""
    chain = scoresde.discrete.BetaChain.linear(1000)
    target, x = scoresde.targets.Gaussian(torch.zeros(2), 1.0), torch.zeros(3, 2)
    options: dict[str, Any] = {"method": "ddim", "grid": chain.grid(20)}
    sde = chain.sde()
    denoised, state = (solve(sde, target.score(sde), x, denoise=d, **options) for d in (True, False))
    assert ", denoised at t=49, status=3 × SUCCESS" in repr(denoised) and denoised.denoised
    assert ", t=49, status=3 × SUCCESS" in repr(state) and not state.denoised
    assert "<th>denoised at t</th><td>49</td>" in denoised._repr_html_()
    clean = scoresde.FlowSDE(t_min=0.0, t_max=1.0)  # sigma is 0 there: the state is the data
    assert not solve(clean, target.score(clean), x, method="ddim", steps=3, denoise=True).denoised
