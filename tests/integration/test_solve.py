"""`solve` as users call it: what a result depends on, what is left untouched, and bugs of other libraries.

What a method adds to `solve` is the same for all methods that step alike; tests of that take one method per way of
stepping. The contract in tests/contract and the orders in tests/convergence are those of every method.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import scoresde
from scoresde import VESDE, VPSDE, FlowSDE, GaussianSDE, ScoreModel, Status, SubVPSDE, solve
from scoresde.solvers.families import runge_kutta
from scoresde.solvers.pairs import Pair
from tests.parameters import own_methods, ways

pytestmark = pytest.mark.timeout(60)

SDE = VPSDE()
PROCESSES = [VPSDE(), SubVPSDE(), VESDE(), scoresde.EDMSDE(), scoresde.CosineVPSDE(), FlowSDE(), scoresde.VDMSDE()]
PROCESSES += [GaussianSDE(torch.cos, torch.sin, 1e-3, 1.5)]
# Other libraries' methods have a file of their own, test_backends.py.
OWN = {m.name: m for m in own_methods()}
FIXED = [name for name, m in OWN.items() if not m.adaptive]
ODE = [name for name, m in OWN.items() if not m.stochastic]
DETOUR = {"restart": 4, "annealed_langevin": 1}  # steps besides the grid's
WAYS = ways()
FIXED_WAYS = [name for name in WAYS if name in FIXED]
# This moves by a share of sigma^2 at each level, and so needs a score of the size of 1/sigma.
SCALED = ("annealed_langevin",)
by_way = pytest.mark.parametrize("method", WAYS)
by_fixed_way = pytest.mark.parametrize("method", FIXED_WAYS)
GRIDS = ("log_snr", "time", "karras", "quadratic")


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
    if method in FIXED:
        return {"method": method, "steps": steps}
    tolerance = 0.3 if method not in ODE else 1e-3 if OWN[method].ode_order == 2 else 1e-4
    return {"method": method, "rtol": tolerance, "atol": tolerance}


@by_way
def test_the_batch_never_changes_a_result(method: str) -> None:
    """Permuted, or split in two parts, every sample is bitwise what it was, and so are its counts."""
    seeds, order = [7, 2**64 - 1, 0, 7, 12345], [3, 0, 4, 1, 2]
    for compacts, event, cut in ((True, (2, 3), 2), (False, (4,), 1)):
        x = states(5, *event) * torch.logspace(-1, 1, 5, dtype=torch.float64).reshape(-1, *[1] * len(event))
        score_fn = rowwise(elementwise) if compacts else elementwise

        def run(rows: list[int], x: Tensor = x, score_fn: Any = score_fn) -> Any:
            given = {"seeds": [seeds[i] for i in rows], "save_at": [0.5], "denoise": True}
            return solve(SDE, score_fn, x[rows], **given, **few(method))

        whole = run([0, 1, 2, 3, 4])
        for parts in ([run(order)], [run(order[:cut]), run(order[cut:])]):
            assert torch.equal(torch.cat([p.x for p in parts]), whole.x[order])
            assert torch.equal(torch.cat([p.xs for p in parts], 1), whole.xs[:, order])
            for name in ("nfe", "accepted", "rejected", "status", "t"):
                assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name)[order]), name


def test_the_batch_changes_a_target_by_rounding_at_most() -> None:
    gaussian = scoresde.targets.Gaussian(torch.zeros(3).double(), torch.tensor([[2, 0.5, 0], [0.5, 1, 0], [0, 0, 0.1]]))
    means = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]).double()
    mixture = scoresde.targets.GaussianMixture(torch.ones(2), means, scales=0.2)
    x = states(7, 3)
    for target, method in itertools.product((gaussian, mixture), ("ddim", "rk45")):
        whole = solve(SDE, target.score(SDE), x, seeds=range(7), **few(method))
        for i in (0, 6):
            alone = solve(SDE, target.score(SDE), x[i : i + 1], seeds=[i], **few(method))
            torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-9, atol=1e-9)


class Count(TorchFunctionMode):
    """Counts the calls of torch's functions."""

    calls = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


def test_a_sample_depends_on_its_seed_alone() -> None:
    for method in ("ddim", "pc", "dpmpp_sde12"):
        runs = [
            solve(SDE, elementwise, states(3), seeds=seeds, **few(method)).x
            for seeds in ([4, 5, 6], (4, 5, 6), range(4, 7), torch.tensor([4, 5, 6]), np.array([4, 5, 6]))
        ]
        assert all(torch.equal(runs[0], r) for r in runs), method
        both = solve(SDE, elementwise, shape=(2, 3), seeds=[8, 9], **few(method)).x  # the prior's draw, too
        assert torch.equal(both[1:], solve(SDE, elementwise, shape=(1, 3), seeds=[9], **few(method)).x), method
        assert not torch.equal(both[0], both[1]), method
    score_fn = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(SDE)  # which knows the event
    assert solve(SDE, score_fn, method="ddim", steps=2, seeds=[1, 2, 3]).x.shape == (3, 2)
    assert solve(SDE, score_fn, method="ddim", steps=2).x.shape == (1, 2)


@by_way
def test_bare_functions_see_the_whole_batch_and_context_goes_with_its_samples(method: str) -> None:
    """A bare function may be a closure over labels, one per sample. Labels in the context are the same as labels in
    the state's own place, whether or not finished samples leave."""
    strength = torch.linspace(0.5, 8.0, 5, dtype=torch.float64)[:, None]
    widths: dict[str, set[int]] = {"closure": set(), "context": set()}

    def closure(x: Tensor, t: Tensor) -> Tensor:
        widths["closure"].add(len(x))
        return -strength * x / (1 + column(t, x))

    def score_fn(x: Tensor, t: Tensor, strength: Tensor) -> Tensor:
        assert len(strength) == len(x)
        widths["context"].add(len(x))
        return -strength * x / (1 + column(t, x))

    x, wide = states(5), few(method, 20)
    if method not in FIXED:
        wide |= dict.fromkeys(("rtol", "atol"), 1e-3 if method in ODE else 0.5)
    bare = solve(SDE, closure, x, seeds=range(5), **wide)
    assert widths["closure"] == {5} and bool(bare.success.all())
    given: dict[str, Any] = {"context": {"strength": strength}, "seeds": range(5), **wide}
    runs = [solve(SDE, f, x, **given) for f in (score_fn, rowwise(score_fn))]
    for run in runs:
        assert torch.equal(run.x, bare.x) and torch.equal(run.nfe, bare.nfe)
    if method not in FIXED:
        assert len(set(bare.nfe.tolist())) > 1 and len(widths["context"]) > 1  # there was something to drop
        assert runs[1].evaluations == int(runs[1].nfe.max())
    alone = solve(SDE, score_fn, x[2:3], context={"strength": strength[2:3]}, seeds=[2], **wide)
    assert torch.equal(alone.x, bare.x[2:3])


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


@by_way
def test_evaluations_are_the_networks_own_and_denoising_is_one_by_tweedies_formula(method: str) -> None:
    calls: list[int] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return elementwise(x, t)

    x = states(5) * torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0]).double()[:, None]
    alpha, sigma = float(SDE.alpha(0.1)), float(SDE.sigma(0.1))
    most = method == "dpmpp_sde12"  # whose last step may be made with the one before
    for f, rows in ((score_fn, 5), (rowwise(score_fn), None)):
        found = []
        for denoise in (False, True):
            calls.clear()
            run = solve(SDE, f, x, seeds=range(5), t_end=0.1, denoise=denoise, **few(method, 5))
            assert run.evaluations == len(calls) == int(run.nfe.max())
            assert sum(calls) == (rows * len(calls) if rows else int(run.nfe.sum()))
            assert bool((run.accepted + run.rejected <= run.steps + most).all())
            found.append(run)
        plain, clean = found
        assert torch.equal(clean.nfe, plain.nfe + 1)
        score = elementwise(plain.x, torch.full((5,), 0.1, dtype=torch.float64))
        torch.testing.assert_close(clean.x, (plain.x + sigma**2 * score) / alpha, rtol=1e-12, atol=1e-12)


@by_way
def test_nothing_is_evaluated_outside_the_interval(method: str) -> None:
    options = few(method, 3) if method in FIXED else {"method": method, "rtol": 0.1, "atol": 0.1}
    for sde in PROCESSES if method in FIXED else PROCESSES[:6]:  # the last two differentiate
        times: list[float] = []

        def score_fn(x: Tensor, t: Tensor, sde: Any = sde, times: list[float] = times) -> Tensor:
            assert t.dtype == torch.float64 and t.shape == (len(x),)
            times.extend(t.tolist())
            return -x / column(sde.alpha(t) ** 2 + sde.sigma(t) ** 2, x)

        solution = solve(sde, score_fn, shape=(2, 2), seed=0, dtype=torch.float64, denoise=True, **options)
        assert bool(solution.success.all()) and solution.t.tolist() == [sde.t_min] * 2, sde
        assert min(times) >= sde.t_min and max(times) <= sde.t_max, sde
        assert times[-1] == sde.t_min, sde  # the denoising, exactly at the end


def test_the_times_visited_are_the_grid() -> None:
    """Those of Euler-Maruyama, too: not t - 1/N on a grid of spacing (T - eps)/(N - 1), and nothing below eps."""
    for method, sde, grid in itertools.product(("euler", "euler_maruyama"), PROCESSES, GRIDS):
        visited: list[float] = []

        def score_fn(x: Tensor, t: Tensor, visited: list[float] = visited) -> Tensor:
            visited.append(float(t[0]))
            return torch.zeros_like(x)

        options: dict[str, Any] = {"grid": grid, "save_at": "steps", "dtype": torch.float64, "seed": 0}
        solution = solve(sde, score_fn, shape=(1, 1), method=method, steps=6, **options)
        assert solution.ts is not None, (sde, grid)
        assert visited == solution.ts.tolist()[:-1] and len(visited) == 6, (sde, grid)
        assert solution.ts[0] == sde.t_max and solution.ts[-1] == sde.t_min, (sde, grid)
        assert bool((solution.ts.diff() < 0).all()), (sde, grid)
        if grid == "time":
            assert visited == pytest.approx(np.linspace(sde.t_max, sde.t_min, 7)[:-1].tolist(), rel=1e-15)


def test_a_given_grid_is_visited() -> None:
    times = [0.9, 0.6, 0.2, 0.05]
    tensor = torch.tensor(times, dtype=torch.float64)
    kinds: list[Any] = [tensor, times, scoresde.Grid(tuple(times)), lambda sde, a, b, n: tensor]
    for method, grid in [("ddim", grid) for grid in kinds] + [(name, tensor) for name in FIXED_WAYS]:
        options: dict[str, Any] = {"t_start": 0.9, "t_end": 0.05, "steps": 3} if callable(grid) else {}
        options |= {"intervals": ()} if method == "restart" else {}  # without detours
        solution = solve(SDE, elementwise, states(), method=method, grid=grid, save_at="steps", seed=0, **options)
        assert solution.ts is not None and solution.ts.tolist() == times, (method, grid)
        assert solution.t.tolist() == [0.05] * 4, (method, grid)


@by_fixed_way
def test_saved_times_of_fixed_steps_are_additional_nodes(method: str) -> None:
    wanted = [0.05, 0.77, SDE.t_max, 0.4, SDE.t_min, 0.4]
    infos: list[Any] = []
    options: dict[str, Any] = {"seeds": range(4), "callback": infos.append, **few(method, 5)}
    solution = solve(SDE, elementwise, states(), save_at=wanted, **options)
    assert solution.ts.tolist() == wanted and solution.xs.shape == (6, 4, 2)
    assert solution.steps == 5 + 3 + DETOUR.get(method, 0)
    assert torch.equal(solution.xs[2], states()) and torch.equal(solution.xs[4], solution.x)
    for t, saved in zip(wanted, solution.xs, strict=True):
        assert t == SDE.t_max or any(i.t == t and torch.equal(i.x, saved) for i in infos), t
    steps = solve(SDE, elementwise, states(), save_at="steps", **options)
    assert steps.xs is not None and torch.equal(steps.xs[-1], steps.x)
    assert steps.xs.shape == (6 + DETOUR.get(method, 0), 4, 2)


@pytest.mark.parametrize("method", [name for name in ODE if name in WAYS])
def test_saved_states_are_those_of_separate_solves(method: str) -> None:
    """On the nodes before them fixed steps give the same bits, and adaptive ones an error of some tolerances."""
    x, wanted, nodes = states(), [0.7, 0.3, 0.1], [SDE.t_max]
    tolerance = {2: 1e-3, 3: 1e-4}.get(OWN[method].ode_order or 2, 1e-6)
    options = few(method, 6) if method in FIXED else {"method": method, "rtol": tolerance, "atol": tolerance}
    last: dict[str, Any] = {"correct_last": True} if method == "unipc3" else {}  # as in the midst of a solve
    saved = solve(SDE, elementwise, x, save_at=wanted, callback=lambda info: nodes.append(info.t), **options)
    assert saved.xs is not None and bool(saved.success.all())
    for t, state in zip(wanted, saved.xs, strict=True):
        if method in FIXED:
            separate = solve(SDE, elementwise, x, method=method, grid=nodes[: nodes.index(t) + 1], **last)
            assert torch.equal(state, separate.x)
        else:
            separate = solve(SDE, elementwise, x, t_end=t, **options)
            torch.testing.assert_close(state, separate.x, rtol=0, atol=30 * tolerance)
    if method not in FIXED:
        plain = solve(SDE, elementwise, x, **options)
        torch.testing.assert_close(plain.x, saved.x, rtol=30 * tolerance, atol=30 * tolerance)


@by_way
def test_saved_times_next_to_a_node_or_to_each_other(method: str) -> None:
    """A sliver of a step is no trouble."""
    near = math.nextafter(0.5, 1.0)
    wanted = [near, 0.5, math.nextafter(SDE.t_max, 0.0), math.nextafter(SDE.t_min, 1.0)]
    solution = solve(SDE, elementwise, states(), seeds=range(4), save_at=wanted, grid=None, **few(method, 4))
    assert solution.xs is not None and bool(solution.xs.isfinite().all()) and bool(solution.success.all())
    if method not in ("pc", "langevin"):  # their noise is as large at the end of a sliver as anywhere
        torch.testing.assert_close(solution.xs[0], solution.xs[1], rtol=1e-5, atol=1e-5)


def test_seeds_cost_little() -> None:
    """A draw costs what the numbers drawn do, not a large block per sample."""
    with Count() as count:
        solve(SDE, elementwise, states(1000), method="ancestral", steps=3, seeds=range(1000))
    assert count.calls < 2500  # a few per seed, not one per draw


@pytest.mark.parametrize("method", ODE)
def test_the_direction_of_a_solve(method: str) -> None:
    x, order = states(), OWN[method].ode_order
    tolerance = {2: 1e-4, 3: 1e-5}.get(order or 2, 1e-7)
    tight = {"steps": 40} if method in FIXED else {"rtol": tolerance, "atol": tolerance}
    there = solve(SDE, elementwise, x, method=method, t_start=0.2, t_end=0.8, save_at="steps", **tight)
    back = solve(SDE, elementwise, there.x, method=method, t_start=0.8, t_end=0.2, **tight)
    near = 1e-4 if method not in FIXED else 0.1 if order == 1 else 1e-3
    torch.testing.assert_close(back.x, x, rtol=0, atol=near)
    assert there.ts is not None and bool((there.ts.diff(dim=0) >= 0).all())


@by_way
def test_a_callback_follows_and_stops(method: str) -> None:
    infos: list[Any] = []
    solution = solve(SDE, elementwise, states(), seeds=range(4), callback=infos.append, **few(method, 6))
    assert [i.step for i in infos] == list(range(1, solution.steps + 1))
    assert torch.equal(infos[-1].x, solution.x) and torch.equal(infos[-1].nfe, solution.nfe)
    options = {"seeds": range(4), "callback": lambda i: i.step == 2, "denoise": True, **few(method, 6)}
    stopped = solve(SDE, elementwise, states(), **options)
    assert stopped.steps == 2 and stopped.status.tolist() == [Status.STOPPED] * 4
    assert torch.equal(stopped.x, infos[1].x)  # not denoised: it is not at the end
    assert bool((stopped.t > SDE.t_min).all())


def test_a_bar_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    for method in ("ddim", "rk45", "ggf"):
        quiet = solve(SDE, elementwise, states(), seeds=range(4), **few(method, 6))
        assert capfd.readouterr() == ("", ""), method  # off by default
        shown = solve(SDE, elementwise, states(), seeds=range(4), progress=True, **few(method, 6))
        out, err = capfd.readouterr()
        assert out == "" and method in err and "100%" in err, method
        assert torch.equal(shown.x, quiet.x), method
    solve(SDE, elementwise, states(1), method="ddim", steps=1000, progress=True)
    assert capfd.readouterr().err.count("%") < 250  # it is not drawn at every step


def test_dtype_shape_and_input_are_kept() -> None:
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for i, (dtype, event, rows) in enumerate(itertools.product(dtypes, ((3,), (1, 2, 3, 2)), (0, 4))):
        full = states(2 * rows + 1, *event).to(dtype)
        for x in (
            full[:rows].transpose(0, -1).contiguous().transpose(0, -1),
            full[: 2 * rows : 2],  # strided
            full[:1].expand(rows, *event),
            full[1 : rows + 1],  # with an offset
        ):
            before, version, stride = x.clone(), x._version, x.stride()
            options = {"seeds": range(rows), "save_at": [0.5], "denoise": True, **few(WAYS[i % len(WAYS)], 2)}
            solution = solve(SDE, elementwise, x, **options)
            assert solution.x.dtype == dtype and solution.x.shape == x.shape
            assert solution.xs is not None and solution.xs.dtype == dtype
            assert torch.equal(x, before) and x._version == version and x.stride() == stride
            assert rows == 0 or solution.x.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
            assert solution.t.dtype == torch.float64 and solution.nfe.dtype == solution.status.dtype == torch.int64


def test_the_dtype_asked_for() -> None:
    for method, wanted in itertools.product(("ddim", "pc", "rk45"), (torch.float16, torch.float32, torch.float64)):
        torch.set_default_dtype(torch.float32)
        given: list[dict[str, Any]] = [{"x": states()}, {"shape": (2, 2)}]
        for start in given:
            assert solve(SDE, elementwise, **start, dtype=wanted, seed=0, **few(method, 2)).x.dtype == wanted
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            assert solve(SDE, elementwise, shape=(2, 2), seed=0, **few(method, 2)).x.dtype == default


class Net(nn.Module):
    """A small network with what modules keep: parameters and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 2, dtype=torch.float64)
        self.drop = nn.Dropout(0.5)
        nn.init.eye_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not x.requires_grad and not t.requires_grad
        return -self.line(x.double()).to(x) / (1 + column(t, x))


@pytest.mark.filterwarnings("ignore:The network is in training mode")  # a mixed state is what is given back
@by_way
def test_modules_and_grad_mode_are_untouched(method: str) -> None:
    net = Net()
    for training, enabled in ((True, True), (False, False)):
        net.train(training)
        net.drop.train(not training)  # a mixed state, which train() or eval() would not give back
        x = states(dtype=torch.float64 if training else torch.float16).requires_grad_()
        with torch.set_grad_enabled(enabled):
            solution = solve(SDE, net, x, seed=0, save_at="steps", denoise=True, **few(method, 3))
            assert torch.is_grad_enabled() is enabled
        assert solution.x.grad_fn is None and not solution.x.requires_grad
        assert solution.xs is not None and not solution.xs.requires_grad
        assert net.training is training and net.drop.training is not training and net.line.training is training
        assert all(p.requires_grad and p.grad is None for p in net.parameters())
        assert x.requires_grad and x.grad is None


@by_way
def test_generators_that_are_not_given_are_untouched(method: str) -> None:
    def drawn() -> list[Any]:
        return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002

    sources: list[dict[str, Any]] = [{"seed": 3}, {"seeds": [3, 4]}, {"generator": torch.Generator().manual_seed(3)}]
    if not (OWN[method].adaptive and OWN[method].stochastic):  # it refuses a function, see tests/unit/test_followed.py
        sources.append({"noise": lambda k, like: torch.zeros_like(like)})
    torch.manual_seed(0)
    before = drawn()
    for source in sources:
        solve(SDE, elementwise, shape=(2, 2), **source, **few(method, 2))
        assert drawn() == before, source
    if method in ODE:  # nor is one that is given, by a method that draws nothing
        generator = torch.Generator().manual_seed(1)
        state = generator.get_state()
        solve(SDE, elementwise, states(), generator=generator, **few(method, 2))
        assert torch.equal(generator.get_state(), state)


def test_a_seed_repeats_a_solve_and_a_generator_goes_on() -> None:
    for method in ("ddim", "pc", "seeds3", "ggf", "dpmpp_sde12"):

        def run(method: str = method, **source: Any) -> Tensor:
            return solve(SDE, elementwise, shape=(3, 2), **source, **few(method)).x

        generator = torch.Generator().manual_seed(7)
        first, again, other = run(seed=7), run(seed=7), run(seed=8)
        assert torch.equal(first, again) and not torch.equal(first, other), method
        assert torch.equal(first, run(generator=generator)), method
        assert not torch.equal(first, run(generator=generator)), method
        torch.manual_seed(7)  # without a source torch's generator is used
        first, other = run(), run()
        torch.manual_seed(7)
        assert torch.equal(first, run()) and not torch.equal(first, other), method


def differentiable(method: str) -> tuple[dict[str, Any], float]:
    """Options with which a result is a smooth function, and a difference to see its slope by."""
    if method in FIXED:
        return {"steps": 4}, 1e-6
    if issubclass(OWN[method].solver, Pair):  # the steps change with the parameters: within the tolerance
        tight = 1e-8 if method == "rk23" else 1e-10
        return {"rtol": tight, "atol": tight, "t_start": 0.4}, 1e-3
    return {"rtol": 1e12, "atol": 1e12}, 1e-6  # the first step and the growth of steps are fixed


GRADIENTS = [(name, "VPSDE") for name in OWN] + [(name, sde) for name in FIXED_WAYS for sde in ("VESDE", "FlowSDE")]


@pytest.mark.parametrize(("method", "name"), GRADIENTS)
def test_gradients_match_finite_differences(method: str, name: str) -> None:
    sde = {"VPSDE": SDE, "VESDE": VESDE(sigma_max=5.0), "FlowSDE": FlowSDE()}[name]
    x = states(3)
    strength = torch.tensor(1.3, dtype=torch.float64)
    weight = states(3, 2)[:, [1, 0]]
    options, h = differentiable(method)

    def loss(x: Tensor, strength: Tensor, differentiable: bool = False) -> Tensor:
        score_fn = lambda x, t: -strength * x / (0.3 + column(t, x)) - 0.2 * x**3 / (1 + x * x)  # noqa: E731
        given = {"seeds": range(3), "t_end": 0.2, "denoise": True, "differentiable": differentiable, **options}
        end = solve(sde, score_fn, x, method=method, **given)
        assert not end.t.requires_grad
        return (end.x * weight).sum()

    leaf, parameter = x.clone().requires_grad_(), strength.clone().requires_grad_()
    value = loss(leaf, parameter, differentiable=True)
    assert torch.equal(value.detach(), loss(x, strength))  # the same result with a graph as without
    value.backward()
    assert leaf.grad is not None and parameter.grad is not None and bool(leaf.grad.isfinite().all())
    difference = (loss(x, strength + h) - loss(x, strength - h)) / (2 * h)
    torch.testing.assert_close(parameter.grad, difference, rtol=2e-5, atol=2e-5)
    direction = torch.tensor([[0.6, -0.8], [-0.3, 0.5], [1.0, 0.2]]).double()
    difference = (loss(x + h * direction, strength) - loss(x - h * direction, strength)) / (2 * h)
    torch.testing.assert_close((leaf.grad * direction).sum(), difference, rtol=2e-5, atol=2e-5)


def test_gradients_of_samples_that_finish_at_different_times() -> None:
    """Sample by sample the gradient is that of the sample alone, whoever has left the batch before. An error estimate
    that is exactly zero has no finite root's derivative; steps are not differentiated through."""
    x = states(3) * torch.tensor([0.01, 1.0, 3.0]).double()[:, None]

    def gradient(x: Tensor, score_fn: Any) -> tuple[Tensor, set[int]]:
        leaf = x.clone().requires_grad_()
        solution = solve(SDE, score_fn, leaf, method="rk45", rtol=1e-5, atol=1e-5, differentiable=True)
        return torch.autograd.grad(solution.x.square().sum(), leaf)[0], set(solution.nfe.tolist())

    function = lambda x, t: -(1 + x * x) * x / (1 + column(t, x))  # noqa: E731
    runge_kutta._columns.cache_clear()
    with torch.inference_mode():  # what is kept of this solve must serve a gradient
        solve(SDE, function, states(3), method="rk45", rtol=1e-2, atol=1e-2)
    for score_fn in (function, rowwise(function)):
        whole, counts = gradient(x, score_fn)
        assert len(counts) > 1
        for i in range(3):
            torch.testing.assert_close(whole[i : i + 1], gradient(x[i : i + 1], score_fn)[0], rtol=1e-9, atol=1e-9)
    still = states(2).requires_grad_()
    solve(VESDE(), lambda x, t: torch.zeros_like(x), still, method="rk45", differentiable=True).x.sum().backward()
    assert still.grad is not None and torch.equal(still.grad, torch.ones_like(still))


@by_fixed_way
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


@pytest.mark.parametrize("method", OWN)
def test_every_method_runs_on_every_process_and_in_few_steps(method: str) -> None:
    """No NaN from beta > 1 at N = 20, no square root of a negative below, no 0/0 at N = 1; sub-VP with a Langevin
    corrector among them."""
    target = scoresde.targets.Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([1.0, 0.25]))
    adaptive = {"rtol": 0.3, "atol": 0.3} if method not in ODE else {"rtol": 1e-2, "atol": 1e-2}
    for i, sde in enumerate(PROCESSES):
        runs = [(1, GRIDS[i % 4]), (2, GRIDS[(i + 1) % 4])]
        runs += [(5 if method in SCALED else 20, "log_snr" if i % 2 else GRIDS[(i // 2 + 1) % 4])]
        for options in [{"steps": n, "grid": grid} for n, grid in runs] if method in FIXED else [adaptive]:
            solution = solve(sde, target.score(sde), method=method, shape=(5, 2), seed=0, **options)
            assert bool(torch.isfinite(solution.x).all()) and bool(solution.success.all()), (sde, options)
            assert method not in FIXED or solution.steps == options["steps"] + DETOUR.get(method, 0), (sde, options)
            far = method in ("langevin", "cas")  # which need more levels to forget a wide prior
            if options.get("steps", 20) == 20 and options.get("grid", "log_snr") == "log_snr" and not far:
                assert float(solution.x.abs().max()) < 20, (sde, options)


def test_networks_are_told_the_time_of_the_state() -> None:
    """One source of times: the network is told of the very node that the step starts from. Near the data its digits
    are kept: sqrt(1 - exp(-B)) in single precision is 9 % off at t = 1e-6; expm1 is not."""
    told: list[float] = []

    def net(x: Tensor, log_snr: Tensor) -> Tensor:
        told.append(float(log_snr[0]))
        return torch.zeros_like(x)

    model = ScoreModel(net, SDE, "noise", time_input="log_snr")
    for steps in (4, 50):
        told.clear()
        solution = solve(SDE, model, states(1), method="ddim", steps=steps, save_at="steps")
        assert told == pytest.approx(SDE.log_snr(solution.ts[:-1]).tolist(), rel=1e-9)
    for sde, power in ((VPSDE(t_min=1e-8), 0.5), (SubVPSDE(t_min=1e-8), 1.0)):
        for t in (1e-6, 1e-5, 1e-3):
            told.clear()
            model = ScoreModel(net, sde, "noise", time_input="sigma")
            solve(sde, model, torch.ones(1, 1), method="ddim", grid=[1.0, t, 1e-8])
            sigma = (-math.expm1(-(0.1 * t + 0.5 * 19.9 * t * t))) ** power
            assert told[1] == pytest.approx(sigma, rel=3e-7), (sde, t)


def test_stochasticity_scales_the_noise() -> None:
    """Of the predictor, too; without it see tests/convergence/test_equivalences.py."""
    given: dict[str, Any] = {"method": "pc", "predictor": "euler_maruyama", "steps": 8, "seed": 0}
    by_default, one, half = (solve(SDE, elementwise, states(), stochasticity=e, **given).x for e in (None, 1.0, 0.5))
    assert torch.equal(by_default, one) and not torch.equal(by_default, half)


@by_way
def test_a_float16_result_is_the_float32_result_rounded_once(method: str) -> None:
    """Accumulating y' = y in half precision stands still."""
    x = states().half()
    half = solve(SDE, elementwise, x, seeds=range(4), **few(method, 40))
    single = solve(SDE, elementwise, x.float(), seeds=range(4), **few(method, 40))
    assert torch.equal(half.x, single.x.half())


def test_a_prior_of_ones_own() -> None:
    class Uniform:
        def from_normal(self, z: Tensor) -> Tensor:
            return torch.special.ndtr(z)

        def log_prob(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x))

    sde = VPSDE(prior=Uniform())  # type: ignore[arg-type]
    start = solve(sde, elementwise, shape=(50, 2), seed=0, method="ddim", steps=1, save_at=[1.0]).xs
    assert start is not None and float(start.min()) >= 0 and float(start.max()) <= 1


def test_a_general_process_solves_with_its_own_drift() -> None:
    class OrnsteinUhlenbeck(scoresde.SDE):
        def drift(self, x: Tensor, t: Any) -> Tensor:
            return -x

        def diffusion(self, t: Any) -> Tensor:
            return torch.as_tensor(2.0**0.5, dtype=torch.float64)

    sde = OrnsteinUhlenbeck(t_min=0.01, t_max=2.0, prior=scoresde.NormalPrior(1.0))
    affine = GaussianSDE(lambda t: torch.exp(-t), lambda t: (-torch.expm1(-2 * t)).sqrt(), 0.01, 2.0)
    target = scoresde.targets.Gaussian(torch.tensor([0.5, -0.5], dtype=torch.float64), 0.25)

    def bare(x: Tensor, t: Tensor) -> Tensor:
        return target.score(affine)(x, t)

    x = states()
    reference = target.flow_map(x, affine, 2.0, 0.01)
    fine: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
    limits = {
        "euler": (200, 2e-2),
        "heun": (200, 3e-4),
        "rk4": (100, 1e-4),
        "midpoint": (100, 1e-4),
        "rk45": (None, 1e-4),
    }
    for method, (steps, limit) in limits.items():
        how = {"steps": steps, "grid": "time"} if steps else fine
        error = float((solve(sde, bare, x, method=method, **how).x - reference).abs().max())
        assert error < limit, method
    noisy, same = (solve(p, bare, x, method="euler_maruyama", steps=50, grid="time", seed=0).x for p in (sde, affine))
    torch.testing.assert_close(noisy, same, rtol=1e-9, atol=1e-9)


MIXTURE = scoresde.targets.GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.2], [1.0, -0.4]]), scales=torch.tensor([0.3, 0.1])
)


@cache
def exact_ends() -> Tensor:
    return solve(SDE, MIXTURE.score(SDE), states(64), method="dop853", rtol=1e-9, atol=1e-9).x


@pytest.mark.parametrize(
    "method", [name for name, m in OWN.items() if issubclass(m.solver, scoresde.solvers.Multistep)]
)
def test_saved_times_near_nodes_do_not_spoil_a_result(method: str) -> None:
    """Rounded nodes among the times to save, as users write them, cost no order: the error of a sample does not grow,
    and a stochastic method stays where the data are."""
    times = scoresde.grids.log_snr(SDE, 1.0, 1e-3, 20)
    ends = []
    for digits in (None, 16, 5, 4, 3):
        near = digits and [round(float(t), digits) for t in times[3:17]]
        ends.append(solve(SDE, MIXTURE.score(SDE), states(64), method=method, steps=20, seed=0, save_at=near).x)
    if method not in ODE:
        assert max(float(end.abs().max()) for end in ends) < 2.2
    else:
        errors = [float((end - exact_ends()).square().mean(1).sqrt().median()) for end in ends]
        assert max(errors[1:]) < 1.3 * errors[0], errors


def test_a_denoised_result_says_from_which_time() -> None:
    """The last level that a chain evaluates is not the time of the data."""
    chain = scoresde.discrete.BetaChain.linear(1000)
    target, x = scoresde.targets.Gaussian(torch.zeros(2), 1.0), torch.zeros(3, 2)
    options: dict[str, Any] = {"method": "ddim", "grid": chain.grid(20)}
    sde = chain.sde()
    denoised, state = (solve(sde, target.score(sde), x, denoise=d, **options) for d in (True, False))
    assert "denoised at t=49" in repr(denoised) and denoised.denoised and not state.denoised
    clean = scoresde.FlowSDE(t_min=0.0, t_max=1.0)  # sigma is 0 there: the state is the data
    assert not solve(clean, target.score(clean), x, method="ddim", steps=3, denoise=True).denoised
