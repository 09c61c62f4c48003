r"""Adaptive methods of the reverse SDE: rejections leave the distribution of the noise as it is, and results converge
with the tolerance, along a path and in distribution.

Seeds are fixed. False alarms: 1e-6 for the verdict of `compare` on a right program, and z-tests at 4.9
standard errors (1e-6 each, 16 of them): 2e-5 in all.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import VESDE, VPSDE, StepResult
from scoresde.core.controllers import Adaptive
from scoresde.core.noise import BatchNoise, BrownianPath, FollowedPath, SampleNoise
from scoresde.core.processes import LOG_SNR, Coordinate, Network, ReverseProcess
from scoresde.solvers import DPMppSDE12, SASolver, Solver
from scoresde.solvers.base import of_power
from scoresde.solvers.families.exponential import adams_weights, frame
from tests.statistical.test_random_path import compare

F64 = torch.float64
SIGMAS = 4.9
SEED = 11
METHODS = ["ggf", "dpmpp_sde12"]
SDE = VPSDE()
MIXTURE = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-0.6], [0.6]], dtype=F64), scales=0.5)


# --- rejections -----------------------------------------------------------------------------------------------------


class Redrawn(FollowedPath):
    """A defect: every trial has a new draw, as in the published code of Gotta Go Fast."""

    def increment(self, start: Any, stop: Any, like: Tensor) -> Tensor:
        return self.source.normal(like)


@dataclass(frozen=True)
class Walk(Solver):
    """The noise alone, on its clock; the error is the step's own noise, so that large noise is rejected."""

    name: ClassVar[str] = "walk"
    kind: ClassVar[str] = "sde"
    stochastic: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    coordinate: ClassVar[Coordinate] = LOG_SNR

    def noise_clock(self, sde: scoresde.SDE, times: Tensor) -> Tensor:
        return sde.nodes(times).lam

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> StepResult:
        moved = (stop.lam - start.lam).sqrt()[:, None] * (yield process.increment(start.t, stop.t, x))
        return StepResult(x + moved, None, of_power(moved, 1.0, torch.zeros_like(x)))


def walk(kind: type[FollowedPath]) -> tuple[Tensor, float]:
    """Where walks end, and the share of trials that was rejected."""
    path = kind(BatchNoise.seeded(SEED, torch.device("cpu")), lambda t: SDE.nodes(t).lam)
    solution = scoresde.solve(
        SDE, lambda x, t: x, torch.zeros(4_000, 2, dtype=F64), method=Walk(), noise=path, rtol=0.0, atol=0.7
    )
    return solution.x, float((solution.rejected / (solution.rejected + solution.accepted)).mean())


def test_rejections_leave_the_law_of_the_noise() -> None:
    """8,000 numbers, whose variance has a standard error of 1.6 %: eight of them are seen nearly always. With a new
    draw for every trial large noise is thrown away, and the variance comes out by more than a tenth too small."""
    lam = SDE.nodes(torch.tensor([SDE.t_max, SDE.t_min], dtype=F64)).lam
    variance = float(lam[1] - lam[0])
    ends, rejected = walk(FollowedPath)
    verdict = compare(ends, 0.0, variance)
    assert rejected > 0.1 and not verdict.rejected, verdict
    ends, rejected = walk(Redrawn)
    assert rejected > 0.1 and compare(ends, 0.0, variance).rejected
    assert float(ends.square().mean()) < 0.9 * variance


# --- single steps of the pair ---------------------------------------------------------------------------------------


class Drifting:
    """The data estimate is a function of the time alone."""

    def estimate(self, x: Tensor, node: scoresde.Node) -> scoresde.Estimate:
        data = torch.sin(5 * node.t)[:, None] * torch.ones_like(x)
        return scoresde.Estimate(data, (x - node.alpha[:, None] * data) / node.sigma[:, None])

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        node = SDE.nodes(t)
        return -self.estimate(x, node).noise / node.sigma[:, None]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_integrates_a_line_through_both_estimates(eta: float) -> None:
    """Exactly in the frame of the data estimate, with the noise of its clock."""
    solver, process = DPMppSDE12(eta=eta), ReverseProcess(SDE, Network(Drifting()), eta=eta)
    times = torch.tensor([[0.9, 0.8, 0.6], [0.5, 0.3, 0.05]], dtype=F64)
    nodes = [SDE.nodes(t) for t in times.unbind(1)]
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(2), dtype=F64)
    state = process.run(solver.init(process, x, nodes[0]))
    for start, stop in itertools.pairwise(nodes):
        source, again = (FollowedPath(SampleNoise([5, 6]), lambda t: solver.noise_clock(SDE, t)) for _ in range(2))
        result = replace(process, noise=source).run(solver.step(process, x, start, stop, state))
        part = frame("data", start, stop, eta)
        weights = adams_weights((0.0, 1.0), part.z)
        values = [process.network.estimate(x, node).data for node in (start, stop)]
        line = sum((part.gain * part.h * w)[:, None] * v for w, v in zip(weights, values, strict=True))
        clock = [solver.noise_clock(SDE, t) for t in (start.t, stop.t)]
        spread = stop.sigma * torch.exp(-(eta**2) * stop.lam) * (clock[1] - clock[0]).abs().sqrt() * (eta > 0)
        noise = again.increment(start.t, stop.t, x)
        exact = part.keep[:, None] * x + line + spread[:, None] * noise
        torch.testing.assert_close(result.x, exact, rtol=1e-12, atol=1e-12)
        x, state = result.x, result.state


def test_the_estimate_of_ggf_is_the_difference_of_its_two_methods() -> None:
    solver, process = scoresde.solvers.GGF(), ReverseProcess(SDE, Network(MIXTURE.score(SDE)), eta=1.0)
    start, stop = (SDE.nodes(torch.full((3,), t, dtype=F64)) for t in (0.5, 0.4))
    x = torch.linspace(-1, 1, 3, dtype=F64)[:, None]
    path = FollowedPath(SampleNoise([5, 6, 7]), lambda t: t)
    result = replace(process, noise=path).run(solver.step(process, x, start, stop, solver.init(process, x, start)))
    torch.testing.assert_close(result.error.values[:, 0], result.x - result.state.low, rtol=1e-12, atol=1e-13)


def test_the_steps_of_ggf_are_those_of_its_paper() -> None:
    """The next step is .9 e^-.9 times as long, with the error e as the paper measures it; here without noise."""
    solver, score, tol = scoresde.solvers.GGF(), MIXTURE.score(SDE), 1e-5
    times, states = [SDE.t_max], [torch.tensor([[0.4]], dtype=F64)]

    def keep(info: Any) -> None:
        times.append(float(info.t))
        states.append(info.x.clone())

    scoresde.solve(SDE, score, states[0], method=solver, stochasticity=0.0, rtol=tol, atol=tol, callback=keep)
    process = ReverseProcess(SDE, Network(score), eta=0.0, noise=SampleNoise([0]))
    state, ratios = solver.init(process, states[0], SDE.nodes(torch.tensor([times[0]], dtype=F64))), []
    for x, (a, b, c) in zip(states, zip(times, times[1:], times[2:], strict=False), strict=False):
        if b == a:  # rejected
            continue
        start, stop = (SDE.nodes(torch.tensor([t], dtype=F64)) for t in (a, b))
        last, result = state.low, process.run(solver.step(process, x, start, stop, state))
        allowed = max(tol, tol * float(result.error.size))
        assert float(result.error.size) == max(float(result.state.low.abs()), float(last.abs()))
        e = abs(float(result.x - result.state.low)) / allowed
        if c < b and 0.2 < 0.9 * e**-0.9 < 10:
            ratios.append((b - c) / (a - b) / (0.9 * e**-0.9))
        state = result.state
    assert len(ratios) > 50 and ratios[:-2] == pytest.approx([1.0] * (len(ratios) - 2), rel=1e-6)  # the last land


def test_with_a_fixed_estimate_the_steps_do_not_matter() -> None:
    """A step in two has the noise of the whole: the end is a function of the path's ends."""
    point = torch.tensor([0.7, -0.4], dtype=F64)
    model = scoresde.ScoreModel(lambda x, t: point.expand_as(x), SDE, "data")
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(4), dtype=F64)

    def run(save_at: list[float]) -> Tensor:
        noise = BrownianPath([1, 2, 3], SDE.t_min, SDE.t_max)
        options: dict[str, Any] = {"method": "dpmpp_sde12", "rtol": 1.0, "atol": 1.0, "noise": noise}
        return scoresde.solve(SDE, model, x, save_at=save_at, **options).x

    whole = run([])
    for times in ([0.5], [0.9, 0.31, 0.3, 0.003]):
        torch.testing.assert_close(run(times), whole, rtol=0, atol=1e-12)


def test_a_rejected_step_leaves_the_memory_of_its_start() -> None:
    class Marked(NamedTuple):
        value: Tensor
        before: Tensor
        passed: Tensor
        sigma: Tensor

    class Watched(DPMppSDE12):
        def init(self, process: Any, x: Tensor, start: Any) -> Any:
            return Marked(*(yield from super().init(process, x, start)), start.sigma)

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> StepResult:
            assert torch.equal(state.sigma, start.sigma)
            result = yield from super().step(process, x, start, stop, state)
            assert torch.equal(result.state.before, state.value)
            return StepResult(result.x, Marked(*result.state, stop.sigma), result.error, state)

    score = MIXTURE.score(SDE)
    solution = scoresde.solve(
        SDE, score, shape=(50, 1), method=Watched(), rtol=0.1, atol=0.01, seeds=range(50), dtype=F64
    )
    assert int(solution.rejected.sum()) > 20


# --- along a path ---------------------------------------------------------------------------------------------------

SHORT = VPSDE(t_min=0.0625, t_max=0.5625)
ROWS = 16


def path() -> BrownianPath:
    return BrownianPath(range(ROWS), SHORT.t_min, SHORT.t_max, depth=12)


def ends(noise: Any, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x = MIXTURE.sample(ROWS, SHORT, SHORT.t_max, generator=generator)
    return scoresde.solve(SHORT, MIXTURE.score(SHORT), x, noise=noise, **options).x


@pytest.mark.parametrize("method", METHODS)
def test_they_converge_along_a_path(method: str) -> None:
    """To what another method with given steps makes of the same Brownian motion. Steps are as tolerance^(2/3), so that
    strong orders of 1/2 and 1 are slopes of 1/3 and 2/3."""
    if method == "ggf":
        exact = ends(path(), method="heun_sde", steps=256, grid="time")
    else:
        clock = lambda t: DPMppSDE12().noise_clock(SHORT, t)  # noqa: E731
        exact = ends(path().on(clock), method=SASolver(), steps=256, grid="time")
    errors = []
    tolerances = (0.3, 0.1, 0.01)
    for tol in tolerances:
        got = ends(path(), method=method, rtol=tol, atol=tol)
        errors.append(float((got - exact).abs().mean()))
    slope = math.log(errors[0] / errors[-1]) / math.log(tolerances[0] / tolerances[-1])
    assert all(b < a for a, b in itertools.pairwise(errors)), errors
    assert 0.4 < slope < 1.3, (slope, errors)
    assert errors[-1] < 0.03, errors


# --- in distribution --------------------------------------------------------------------------------------------------

COUNT, SIZE = 2_500, 8
TARGET = scoresde.targets.Gaussian(torch.full((SIZE,), 0.7, dtype=F64), 0.3)
# Relative errors of the variance by tolerance, 1.3 times what was measured with 160,000 numbers.
BIAS = {"ggf": {0.1: 0.045, 0.03: 0.015}, "dpmpp_sde12": {0.1: 0.075, 0.03: 0.007}}


def errors_of_the_law(method: str, sde: scoresde.AffineSDE, tol: float) -> tuple[float, float]:
    """Of the mean, in standard deviations, and of the variance, relative."""
    options = {"method": method, "rtol": tol, "atol": tol, "seed": SEED, "dtype": F64}
    x = scoresde.solve(sde, TARGET.score(sde), shape=(COUNT, SIZE), **options).x
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    away, variance = x - alpha * 0.7, alpha**2 * 0.3 + sigma**2
    return abs(float(away.mean())) / math.sqrt(variance), abs(float(away.square().mean()) / variance - 1)


@pytest.mark.parametrize(
    ("method", "sde"),
    [
        ("ggf", VPSDE()),
        ("dpmpp_sde12", VESDE()),
        pytest.param("ggf", VESDE(), marks=pytest.mark.slow),
        pytest.param("dpmpp_sde12", VPSDE(), marks=pytest.mark.slow),
    ],
    ids=["ggf-vp", "dpmpp_sde12-ve", "ggf-ve", "dpmpp_sde12-vp"],
)
def test_the_law_converges_to_the_target_s(method: str, sde: scoresde.AffineSDE) -> None:
    """Mean and variance of a Gaussian, within a bias that falls with the tolerance, and the sampling error: of 20,000
    numbers 4.9 standard errors are 3.5 % of the standard deviation and 4.9 % of the variance."""
    n = COUNT * SIZE
    found = {tol: errors_of_the_law(method, sde, tol) for tol in (0.3, *BIAS[method])}
    for tol, bias in BIAS[method].items():
        mean, variance = found[tol]
        assert mean < 0.02 + SIGMAS / math.sqrt(n), (tol, mean)
        assert variance < bias + SIGMAS * math.sqrt(2 / n), (tol, variance)
    assert found[0.3][1] > 1.7 * found[0.1][1], found  # at least of order 0.5


@pytest.mark.parametrize("method", METHODS)
def test_times_to_save_cost_little(method: str) -> None:
    """Slivers of steps between them are no slopes to go on with."""
    options: dict[str, Any] = {"method": method, "rtol": 0.1, "atol": 0.03, "seeds": range(20), "dtype": F64}
    plain = scoresde.solve(SDE, TARGET.score(SDE), shape=(20, SIZE), **options)
    times = [t - d for t in (0.6, 0.3, 0.1) for d in (0.0, 1e-9, 1e-6)]
    saved = scoresde.solve(SDE, TARGET.score(SDE), shape=(20, SIZE), save_at=times, **options)
    each = 2 if method == "ggf" else 1
    assert saved.xs is not None and bool(saved.xs.isfinite().all())
    assert float((saved.nfe - plain.nfe).to(F64).mean()) < 2 * each * len(times)


def test_without_stochasticity_they_are_deterministic() -> None:
    """And agree with the probability flow."""
    x = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(1), dtype=F64)
    exact = TARGET.flow_map(x, SDE, SDE.t_max, SDE.t_min)
    for options in ({"method": "ggf", "stochasticity": 0.0}, {"method": DPMppSDE12(eta=0.0)}):
        runs = [
            scoresde.solve(SDE, TARGET.score(SDE), x, seed=seed, rtol=1e-3, atol=1e-3, **options).x for seed in (0, 1)
        ]
        assert torch.equal(runs[0], runs[1])
        assert float((runs[0] - exact).abs().max()) < 0.02


def test_refusals() -> None:
    score_fn, x = TARGET.score(SDE), torch.zeros(2, SIZE, dtype=F64)
    for method in METHODS:
        with pytest.raises(scoresde.InvalidArgumentError, match="BrownianPath"):
            scoresde.solve(SDE, score_fn, x, method=method, noise=lambda k, like: torch.zeros_like(like))
        with pytest.raises(scoresde.InvalidArgumentError, match="steps"):
            scoresde.solve(SDE, score_fn, x, method=method, steps=10)
        with pytest.raises(scoresde.InvalidArgumentError, match="encodes"):
            scoresde.solve(SDE, score_fn, x, method=method, t_start=0.1, t_end=0.9)
    with pytest.raises(scoresde.InvalidArgumentError, match="eta"):
        DPMppSDE12(eta=5.0)
    with pytest.raises(scoresde.InvalidArgumentError, match="drift and a diffusion"):
        scoresde.simulate(SDE, x, method="ggf")


# --- the last step, without an evaluation -----------------------------------------------------------------------------


def landings(rtol: float, atol: float, **options: Any) -> scoresde.Solution:
    x = SDE.prior_sample((40, SIZE), dtype=F64, generator=torch.Generator().manual_seed(2))
    return scoresde.solve(
        SDE, TARGET.score(SDE), x, method="dpmpp_sde12", rtol=rtol, atol=atol, seeds=range(40), **options
    )


def test_the_last_step_needs_no_evaluation_where_it_is_small() -> None:
    """One evaluation at the start and one per trial step, but for the last; none is spared at times to save."""
    for options in ({}, {"save_at": (0.5, 0.1)}):
        solution = landings(0.3, 0.03, **options)
        spared = solution.accepted + solution.rejected + 1 - solution.nfe
        assert solution.success.all() and (solution.t == SDE.t_min).all()
        assert set(spared.tolist()) <= {0, 1} and int(spared.sum()) >= 20, spared


def test_a_last_step_that_is_not_small_is_evaluated() -> None:
    """With a memory whose estimates differ by much, the same step takes an evaluation."""
    solver, node = DPMppSDE12(), SDE.nodes(torch.tensor([0.3, SDE.t_min], dtype=F64))
    start, stop = (type(node)(*(v[i : i + 1] for v in node)) for i in (0, 1))
    noise = FollowedPath(BatchNoise.seeded(SEED, torch.device("cpu")), lambda t: SDE.nodes(t).lam)
    process, x = ReverseProcess(SDE, Network(MIXTURE.score(SDE)), 1.0, noise=noise), torch.zeros(1, 1, dtype=F64)
    h = float(stop.lam - start.lam)
    for change, passed, landed in ((0.001, h, True), (0.5, h, False), (0.001, h / 6, False), (0.001, 0.0, False)):
        first = process.run(solver.init(process, x, start))
        state = first._replace(before=first.value - change, passed=torch.tensor([passed], dtype=F64))
        control = Adaptive(t_start=0.3, targets=(SDE.t_min,), rtol=0.1, atol=0.1)
        _, memory = control.first(process, solver, x, start, state)
        calls = process.network.calls
        which, ends = process.run(control.land(process, solver, x, start, stop, state, memory))
        assert which.tolist() == [landed] and process.network.calls == calls
        assert torch.equal(ends, process.run(solver.land(process, x, start, stop, state)).x)
        elsewhere, _ = process.run(control.land(process, solver, x, start, start, state, memory))
        assert elsewhere.tolist() == [False]  # not the end


def test_where_the_estimate_is_constant_landing_is_exact() -> None:
    """The data are one point: every step is exact, and so is the last, in distribution and to rounding along the
    path."""
    point = scoresde.targets.Gaussian(torch.tensor([0.7], dtype=F64), torch.tensor([0.0], dtype=F64))
    x = torch.full((5_000, 1), 0.2, dtype=F64)
    solution = scoresde.solve(SDE, point.score(SDE), x, method="dpmpp_sde12", rtol=0.3, atol=0.03, seed=SEED)
    assert ((solution.accepted + solution.rejected) == solution.nfe).all()
    end = SDE.node(SDE.t_min)
    z = (solution.x - end.alpha * 0.7) / end.sigma
    assert abs(float(z.mean())) < SIGMAS / 5_000**0.5 and abs(float(z.var()) - 1) < SIGMAS * (2 / 5_000) ** 0.5


@pytest.mark.parametrize(("eta", "power"), [(0.0, 1.0), (0.5, 0.8), (1.0, 0.5), (2.0, 0.5)])
def test_the_estimate_goes_on_as_a_martingale_or_a_slope(eta: float, power: float) -> None:
    """The predictor, whose state is that of a landing, adds half of the last change of the estimate, times a power of
    the ratio of the steps; the error estimate is what was missed beyond it."""
    asked: list[Tensor] = []

    class Seen(Drifting):
        def estimate(self, x: Tensor, node: Any) -> Any:
            asked.append(x)
            return super().estimate(x, node)

    solver = DPMppSDE12(eta=eta)
    process = ReverseProcess(SDE, Network(Seen()), eta=eta)
    start, stop = (SDE.nodes(torch.tensor([t], dtype=F64)) for t in (0.5, 0.4))
    x, change = torch.ones(1, 3, dtype=F64), torch.tensor([[0.3, -0.2, 0.1]], dtype=F64)
    state, part = process.run(solver.init(process, x, start)), frame("data", start, stop, eta)
    ends, errors = [], []
    for passed in (0.0, float(stop.lam - start.lam), float(stop.lam - start.lam) / 2):
        before = state._replace(before=state.value - change, passed=torch.tensor([passed], dtype=F64))
        for make in (solver.step, solver.land):
            noise = FollowedPath(SampleNoise([5]), lambda t: solver.noise_clock(SDE, t))
            result = replace(process, noise=noise).run(make(process, x, start, stop, before))
            errors.append(result.error.values[:, 0])
        assert torch.equal(asked[-1], result.x)
        ends.append(result.x)
    weights = adams_weights((0.0, 1.0), part.z)
    half = 0.5 * part.gain * part.h * sum(weights)
    missed = errors[2] - errors[0]  # of two steps, of which the first knows no change
    torch.testing.assert_close(missed, -0.5 * part.gain * part.h * weights[1] * change, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ends[1] - ends[0], half[:, None] * change, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ends[2] - ends[0], 2**power * half[:, None] * change, rtol=1e-12, atol=1e-12)


def test_all_states_before_a_landing_are_kept() -> None:
    """A sample may come to a time and land in one turn of the loop; a callback is told once per turn, of the last."""
    times = [0.5, 0.02, 0.005, 0.002]
    score = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(SDE)
    options: dict[str, Any] = {"method": "dpmpp_sde12", "rtol": 0.3, "atol": 0.03, "seed": SEED}
    solution = scoresde.solve(SDE, score, shape=(200, 2), save_at=times, **options)
    assert solution.xs is not None and not solution.xs.isnan().any()
    assert int(((solution.accepted + solution.rejected) == solution.nfe).sum()) > 100  # landed
    seen: list[float] = []
    alone = scoresde.solve(
        SDE, score, shape=(1, 2), save_at="steps", callback=lambda info: seen.append(float(info.t)), **options
    )
    assert alone.xs is not None and len(alone.xs) - 1 == int(alone.accepted + alone.rejected) == alone.steps + 1
    assert len(seen) == alone.steps and seen[-1] == SDE.t_min


def test_no_step_passes_over_much() -> None:
    """However large the tolerance: errors below the noise do not tell what is between."""
    seen: list[Tensor] = []
    score = MIXTURE.score(SDE)

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(SDE.nodes(t).lam[0])
        return score(x, t)

    options: dict[str, Any] = {"method": "dpmpp_sde12", "rtol": 50.0, "atol": 50.0, "seed": SEED, "dtype": F64}
    scoresde.solve(SDE, watched, shape=(1, 1), **options)
    gaps = torch.stack(seen).diff()
    assert float(gaps.max()) == pytest.approx(DPMppSDE12().control.longest, abs=1e-6)


@pytest.mark.parametrize("noise", [BrownianPath(range(5), 0.0, 1.0), None], ids=["a path", "a path that follows"])
def test_gradients_by_a_learned_schedule_are_finite(noise: Any) -> None:
    """Samples arrive at different times, and those that wait have steps of length 0, whose roots have no slope."""
    gamma = scoresde.nets.MonotoneGamma(-8.0, 5.0, hidden=0)
    sde = scoresde.VDMSDE(gamma)

    def score(x: Tensor, t: Tensor) -> Tensor:
        node = sde.nodes(t)
        return -x / (0.3 * node.alpha.square() + node.sigma.square())[:, None]

    source = {"seed": 1} if noise is None else {"noise": noise}
    x = torch.linspace(-2, 2, 10, dtype=F64).reshape(5, 2)
    for eta in (0.0, 1.0):
        options: dict[str, Any] = {"method": DPMppSDE12(eta=eta), "rtol": 0.3, "atol": 0.03, **source}
        solution = scoresde.solve(sde, score, x, differentiable=True, **options)
        assert len(solution.nfe.unique()) > 1 or eta == 0
        slopes = torch.autograd.grad(solution.x.square().sum(), gamma.endpoints)
        assert all(bool(torch.isfinite(slope)) for slope in slopes), slopes
