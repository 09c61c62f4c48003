"""The published solvers of the benchmarks: what they begin as, that they learn, and what they spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from benchmarks._published_solvers import GRIDS, PUBLISHED, Lesson, MeanDirection, Multistep, Student, _path
from scoresde.solvers import make_solver
from scoresde.solvers.registry.auto import NoiseStart

F64 = torch.float64
PROCESSES = {
    "vp": scoresde.VPSDE(),
    "edm": scoresde.EDMSDE(),
    "flow": scoresde.FlowSDE(t_min=1e-3, t_max=0.99),
    "far": scoresde.VESDE(sigma_max=1000.0),
}
TARGET = scoresde.targets.GaussianMixture(
    torch.ones(4, dtype=F64), torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.2
)
NORMAL = scoresde.targets.Gaussian(torch.zeros(3, dtype=F64), torch.tensor([1e-3, 0.03, 1.0], dtype=F64))
# The method, with its options, that each solver equals before it learns, and its evaluations per step.
BEGUN: dict[str, tuple[str, dict[str, Any], int]] = {
    "bns": ("ddim", {}, 1),
    "ld3": ("dpmpp_2m", {"lower_order_final": True}, 1),
    "s4s": ("dpmpp_2m", {"lower_order_final": True}, 1),
    "amed": ("dpm_2s", {"form": "dpmsolver"}, 2),
}
NOTHING: Mapping[str, Any] = {}


def states(sde: Any, shape: tuple[int, ...], seed: int = 9) -> Tensor:
    """Draws of the prior."""
    return sde.prior_sample(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def even_in_the_flow(sde: Any, start: float, steps: int) -> Tensor:
    """Times at which sigma / (alpha + sigma) is even."""
    low, high = (float(sde.sigma(t) / (sde.alpha(t) + sde.sigma(t))) for t in (start, sde.t_min))
    r = torch.linspace(low, high, steps + 1, dtype=F64)
    times = sde.time(2 * torch.log(1 / r - 1))
    times[0], times[-1] = start, sde.t_min
    return times


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("evaluations", [4, 6])
def test_without_a_budget_each_is_the_method_that_it_begins_as(name: str, process: str, evaluations: int) -> None:
    sde, (method, options, each) = PROCESSES[process], BEGUN[name]
    x, score = states(sde, (6, 2)), TARGET.score(sde)
    start = NoiseStart.of(sde, 1.0, 300.0)
    got = PUBLISHED[name](sde, score, evaluations, x, NOTHING, x, 0.0)(x, NOTHING)
    wanted = scoresde.solve(
        sde,
        score,
        start.state(x) if start else x,
        method=make_solver(method, options),
        grid=even_in_the_flow(sde, start.t if start else sde.t_max, evaluations // each),
    ).x
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)  # times that went through a softmax and back


def test_the_first_of_an_odd_number_of_evaluations_is_left_out() -> None:
    """For standard normal data, whose estimate stands for it, nothing changes by that."""
    sde = PROCESSES["vp"]
    x, score = states(sde, (6, 2)), scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.eye(2)).score(sde)
    odd, even = (PUBLISHED["amed"](sde, score, n, x, NOTHING, x, 0.0)(x, NOTHING) for n in (5, 6))
    torch.testing.assert_close(odd, even)


class Counted:
    """A score function that counts its rows, three times those that are differentiated."""

    def __init__(self, score: Any) -> None:
        self.score, self.rows = score, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out = self.score(x, t)
        self.rows += len(x) * (3 if out.requires_grad else 1)
        return out


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("calls", [0, 7, 33, 200])
def test_calls_stay_within_the_budget_and_use_most_of_it(name: str, calls: int) -> None:
    sde, steps = PROCESSES["vp"], 5
    x, counted = states(sde, (8, 3)), Counted(NORMAL.score(sde))
    sampler = PUBLISHED[name](sde, counted, steps, x, NOTHING, torch.zeros_like(x), calls)
    assert counted.rows <= calls * len(x)
    if calls == 200:
        assert counted.rows > 0.9 * calls * len(x)
    counted.rows = 0
    sampler(x, NOTHING)
    assert counted.rows == steps * len(x)


@pytest.mark.parametrize("name", PUBLISHED)
def test_learning_brings_the_ends_nearer(name: str) -> None:
    """On the pilots that it learns from, compared with the best grid alone, and on others."""
    sde, steps = PROCESSES["vp"], 6
    x, score = states(sde, (48, 3)), NORMAL.score(sde)
    exact = scoresde.solve(sde, score, x, method="adams", rtol=1e-8, atol=1e-8).x
    pilot, ends = x[:16], exact[:16]
    grids_alone, learned = (
        PUBLISHED[name](sde, score, steps, pilot, NOTHING, ends, calls)(x, NOTHING)
        for calls in ((1 + len(GRIDS)) * steps, 600)
    )
    before, after = ((end - exact).square().mean(1).sqrt() for end in (grids_alone, learned))
    for rows in (slice(0, 8), slice(16, 48)):
        assert float(after[rows].log().mean()) < float(before[rows].log().mean()) - 0.2


def test_contexts_go_with_their_samples() -> None:
    """A budget, or a sampler, with labels: the network gets those of the samples that it is asked about."""
    sde = PROCESSES["vp"]
    x, label = states(sde, (8, 3)), torch.arange(8)
    inner = NORMAL.score(sde)
    seen = []

    def score(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(label.tolist())
        return inner(x, t)

    sampler = PUBLISHED["amed"](sde, score, 4, x, {"label": label}, torch.zeros_like(x), 200)
    assert {tuple(rows) for rows in seen} == {(0, 1, 2, 3), (4, 5, 6, 7)}
    seen.clear()
    sampler(x[:2], {"label": label[5:7]})
    assert seen == [[5, 6]] * 4


class Straight(Student):
    """Ends where it starts, moved by a number."""

    evaluations = 1

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros((), dtype=F64))
        self.starts: list[Tensor] = []

    def forward(self, look: Any, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.starts.append(x.detach())
        return x + self.number + 0.0 * look(x, PROCESSES["vp"].node(0.5)).data


def test_starts_move_towards_their_ends_in_a_ball() -> None:
    """To its border, against the gradient, where the ends are further away than that."""
    sde, radius = PROCESSES["vp"], 0.01
    x = states(sde, (8, 3))
    lesson, student = Lesson(sde, NORMAL.score(sde), x, NOTHING, x + torch.eye(8, 3), 60), Straight()
    lesson.teach(student, torch.optim.Adam, {"number": 0.0}, radius)
    most = radius * 3**0.5 * float(sde.sigma(sde.t_max))
    first, then, later = student.starts[0], student.starts[1], student.starts[-1]
    wanted = torch.eye(8, 3, dtype=F64)[:4]
    torch.testing.assert_close(first, x[:4])
    torch.testing.assert_close(then[:3], x[:3] + 0.5 * most * wanted[:3], rtol=0.0, atol=1e-12)
    torch.testing.assert_close(later[:3], x[:3] + most * wanted[:3], rtol=0.0, atol=1e-12)


def test_a_multistep_learner_tells_other_times_within_half_of_the_smallest_gap() -> None:
    sde = PROCESSES["edm"]
    lesson = Lesson(sde, TARGET.score(sde), states(sde, (4, 2)), NOTHING, states(sde, (4, 2)), 0)
    student = Multistep(lesson.clock, lesson.grids(5)[1], coefficients=False)  # even in the log-SNR
    gap = float(lesson.clock.high - lesson.clock.low) / 5
    told = []

    def look(x: Tensor, node: Any) -> Any:
        told.append(2 * float(node.lam))
        return TARGET.score(sde).estimate(x, node)

    shifts = torch.tensor([9.0, 0.1, -0.2, 9.0, -9.0], dtype=F64)
    with torch.no_grad():
        student.shifts.copy_(shifts)
        student(look, lesson.pilot.x)
    moved = torch.tensor([0.0, 0.1, -0.2, 0.5 * gap, -0.5 * gap], dtype=F64)
    wanted = lesson.clock.low + gap * torch.arange(5, dtype=F64) + moved
    torch.testing.assert_close(torch.tensor(told, dtype=F64), wanted, rtol=1e-8, atol=1e-8)


def test_coefficients_and_times_are_learned_in_turns() -> None:
    """LD3 has no coefficients to learn, and its told times wait."""
    sde = PROCESSES["vp"]
    lesson = Lesson(sde, NORMAL.score(sde), states(sde, (4, 3)), NOTHING, states(sde, (4, 3)), 0)
    ld3, s4s = (Multistep(lesson.clock, lesson.grids(5)[0], coefficients=c) for c in (False, True))
    assert [id(p) for p in ld3.learned(0.1)] == [id(ld3.theta)]
    assert [id(p) for p in ld3.learned(0.9)] == [id(ld3.theta), id(ld3.shifts)]
    assert [id(p) for p in s4s.learned(0.1)] == [id(s4s.theta), id(s4s.shifts)]
    assert [id(p) for p in s4s.learned(0.9)] == [id(s4s.changes)]


def test_a_mean_direction_learns_from_the_teachers_path_step_by_step() -> None:
    sde = PROCESSES["vp"]
    score, x = TARGET.score(sde), states(sde, (8, 2))
    lesson = Lesson(sde, score, x, NOTHING, x, 1000)
    times = lesson.grids(3)[0]
    student = MeanDirection(lesson.clock, times, analytic=False)
    student.teacher = _path(lesson, times)
    ends = [float(t) for t in times[1:]]
    wanted = [scoresde.solve(sde, score, x[:4], method="adams", rtol=1e-9, atol=1e-9, t_end=t).x for t in ends]
    for got, state in zip(student.teacher, wanted[:-1], strict=True):
        torch.testing.assert_close(got, state, rtol=0.0, atol=1e-3)  # the teacher's own error
    student.teacher = wanted[:-1]
    classical = make_solver("dpm_2s", {"form": "dpmsolver"})
    own = [scoresde.solve(sde, score, x[:4], method=classical, grid=times[: n + 1]).x for n in (1, 2, 3)]
    losses = [(end - state).square().mean(1).sqrt().log().mean() for end, state in zip(own, wanted, strict=True)]
    loss = student.loss(lesson.look(slice(0, 4)), x[:4], wanted[-1])
    torch.testing.assert_close(loss, torch.stack(losses).sum(), rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(loss, student.numbers)
    alone = student.loss(lesson.look(slice(0, 4)), x[:4], x[:4])  # the end moves the last step alone
    torch.testing.assert_close(torch.autograd.grad(alone, student.numbers)[0][:2], slope[:2])
