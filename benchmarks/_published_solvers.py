r"""Published learned solvers, written from their papers, to compare `scoresde.fit_solver` with.

Each of `bns`, `ld3`, `s4s` and `amed` takes a process, a score function, the number of evaluations of a solve, pilot
states at t_max with their context and exact ends, and the number of calls on the whole pilot that it may spend. A
gradient counts as two calls more (`scoresde.tuning.pilot.Watched`). Each returns a sampler: a function of states at
t_max and their context that returns the ends. One half of the pilots is learned from, the other chooses the iterate.

As `fit_solver` does, all of them begin at :math:`\sigma/\alpha = 300` on processes that go beyond it, and on the best
of several grids. With a budget of 0 each one is what it is before it learns, a classical method on the first grid.

The papers learn from images, LD3 and S4S mostly by a perceptual distance, and each has its own course of the rates.
Here the distance is that of `fit_solver`, the mean logarithm of the samples' RMS errors, which up to a factor is the
loss of BNS; and the rates fall along a cosine until the budget is spent.
"""

from __future__ import annotations

import abc
import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from scoresde.core.errors import InvalidArgumentError
from scoresde.core.sdes import Estimate, Node
from scoresde.core.support.context import cut
from scoresde.scores import as_score
from scoresde.solvers.registry.auto import HIGH, NoiseStart, unit_of
from scoresde.tuning.grid import Clock
from scoresde.tuning.pilot import Pilot, squares

Look = Callable[[Tensor, Node[Any]], Estimate]  # what the network says at a state and a node
Sampler = Callable[[Tensor, Mapping[str, Any]], Tensor]

GRIDS = ("log_snr", "karras", "time", "quadratic")  # to begin with, beside the times that are even in the flow
LOOK_EVERY = 3  # iterations
LEAST = 1e-28  # of a squared error
FINE = 10  # steps of the teacher of `amed` in each step


class Student(nn.Module, abc.ABC):
    """A solver with numbers to learn.

    Attributes:
        evaluations: of a solve.
    """

    evaluations: int

    @abc.abstractmethod
    def forward(self, look: Look, x: Tensor) -> Tensor:
        """The end of a path from x."""

    def loss(self, look: Look, x: Tensor, exact: Tensor) -> Tensor:
        """The mean logarithm of the errors of the ends."""
        return _log_error(self(look, x), exact)

    def learned(self, spent: float) -> list[nn.Parameter]:
        """The numbers to learn when this share of the budget is spent."""
        return list(self.parameters())


class Lesson:
    """The pilots, their ends and the budget.

    Args:
        sde, score_fn, x, context, exact, calls: as of the published solvers.
    """

    def __init__(
        self, sde: Any, score_fn: Any, x: Tensor, context: Mapping[str, Any], exact: Tensor, calls: float
    ) -> None:
        self.score, self.calls, self.exact = as_score(score_fn), calls, exact.to(x.dtype)
        self.pilot = Pilot.of(
            sde, self.score, len(x), checkpoint=False, level=HIGH, x=x, shape=None, seed=0, t_start=None,
            t_end=None, context=context, dtype=None, device=None,
        )  # fmt: skip
        self.clock = Clock(self.pilot.sde, self.pilot.start, self.pilot.end)
        if self.clock.in_time:
            raise InvalidArgumentError("The log-SNR must be finite at both ends of `sde`.")

    @property
    def spent(self) -> float:
        """Calls on the whole pilot so far."""
        return float(self.pilot.cost.pilots)

    def look(self, rows: slice) -> Look:
        """The network on some pilots, its calls counted."""
        context = cut(self.pilot.context, rows)
        return lambda x, node: self.pilot.score.estimate(x, node, **context)

    def value(self, student: Student, rows: slice) -> float:
        """The mean logarithm of the errors of some pilots; infinite where an end is not finite."""
        with torch.no_grad():
            value = float(_log_error(student(self.look(rows), self.pilot.x[rows]), self.exact[rows]))
        return value if math.isfinite(value) else math.inf

    def grids(self, steps: int) -> list[Tensor]:
        """Times to begin with: even in the flow, and those of `GRIDS`."""
        ends = [self.pilot.sde.node(t) for t in (self.pilot.start, self.pilot.end)]
        low, high = (node.sigma / (node.alpha + node.sigma) for node in ends)
        r = torch.linspace(low, high, steps + 1, dtype=torch.float64)
        flow = self.pilot.sde.time(2 * ((1 - r) / r).log())
        flow[0], flow[-1] = self.pilot.start, self.pilot.end
        return [flow, *(self.pilot.times(name, steps) for name in GRIDS)]

    def begin(self, make: Callable[[Tensor], Student], steps: int) -> Student:
        """The student that does best on the pilots to learn from, of those on the grids that the budget allows."""
        train, students = self.pilot.halves[0], [make(times) for times in self.grids(steps)]
        if self.spent + len(students) * students[0].evaluations > self.calls:
            return students[0]
        return min(students, key=lambda student: self.value(student, train))

    def teach(
        self,
        student: Student,
        optimiser: Callable[..., torch.optim.Optimizer],
        rates: Mapping[str, float],
        radius: float = 0.0,
    ) -> None:
        r"""Follow the gradient until the budget is spent, and leave the iterate that does best on the other half.

        Args:
            student: what learns.
            optimiser, rates: its class or a function that makes it, and the first rate of each parameter; the rates
                fall to a hundredth.
            radius: how far, in units of the noise of the start, the start of each pilot may move from its own,
                :math:`\|x'-x\| \le r\,\sigma\sqrt{d}`, to a place from where the end is nearer.
        """
        train, held_out = self.pilot.halves
        own, exact, look = self.pilot.x[train], self.exact[train], self.look(train)
        most = radius * self.pilot.sde.node(self.pilot.start).sigma * math.sqrt(own[0].numel())
        half = len(own) / len(self.pilot.x)
        dearest = student.evaluations * (3 * half + (1 - half))
        names, numbers = zip(*student.named_parameters(), strict=True)
        descent, first, x = optimiser([{"params": [number]} for number in numbers]), self.spent, own
        best, lowest = copy.deepcopy(student.state_dict()), math.inf
        for i in itertools.count():
            if self.spent + dearest > self.calls:
                break
            if i % LOOK_EVERY == 0:
                value = self.value(student, held_out)
                if value < lowest:
                    best, lowest = copy.deepcopy(student.state_dict()), value
            share = (self.spent - first) / (self.calls - first)
            for group, name in zip(descent.param_groups, names, strict=True):
                group["lr"] = rates[name] * (0.505 + 0.495 * math.cos(math.pi * share))
            descent.zero_grad()
            learned = student.learned(share)
            with torch.enable_grad():
                begun = x.detach().requires_grad_(radius > 0)
                loss = student.loss(look, begun, exact)
                if not bool(torch.isfinite(loss)):
                    break
                slopes = torch.autograd.grad(loss, [*learned, begun] if radius > 0 else learned)
            for number, slope in zip(learned, slopes, strict=False):
                number.grad = slope
            nn.utils.clip_grad_norm_(learned, 1.0)
            descent.step()
            if radius > 0:
                x = _within(own, begun.detach() - 0.5 * most * _unit(slopes[-1]), most)
        student.load_state_dict(best)

    def sampler(self, student: Student) -> Sampler:
        """What a student has learned, for other states."""
        sde, start = self.pilot.sde, self.pilot.start
        begun = NoiseStart.at(sde, start, unit_of(self.score.traits.data_std)) if self.pilot.from_noise else None

        def sample(x: Tensor, context: Mapping[str, Any]) -> Tensor:
            with torch.no_grad():
                x = begun.state(x) if begun else x
                return student(lambda x, node: self.score.estimate(x, node, **context), x)

        return sample


class NonStationary(Student):
    """The solver of `bns`."""

    def __init__(self, clock: Clock, times: Tensor) -> None:
        super().__init__()
        self.clock, self.evaluations = clock, len(times) - 1
        nodes = clock.sde.nodes(times)
        steps = (nodes.sigma / (nodes.alpha + nodes.sigma)).diff()
        self.theta = nn.Parameter(clock.theta(times))
        self.a = nn.Parameter(torch.ones(len(steps), dtype=torch.float64))
        self.b = nn.Parameter(steps.expand(len(steps), -1).tril())

    def forward(self, look: Look, x: Tensor) -> Tensor:
        """See `Student.forward`."""
        nodes = _nodes(self.clock, self.clock.times(self.theta))
        first = state = x / _flow_size(nodes[0])
        velocities: list[Tensor] = []
        for node, a, row in zip(nodes, self.a, self.b, strict=False):
            data, noise = look(_flow_size(node) * state, node)
            velocities.append(noise - data)
            state = a * first + sum(b * u for b, u in zip(row, velocities, strict=False))
        return _flow_size(nodes[-1]) * state


def bns(
    sde: Any, score_fn: Any, steps: int, x: Tensor, context: Mapping[str, Any], exact: Tensor, calls: float
) -> Sampler:
    r"""Bespoke non-stationary solvers: every step has coefficients of its own for the first state and all velocities.

    .. math:: \bar x_{i+1} = a_i\bar x_0 + \sum_{j\le i} b_{ij}u_j, \qquad u_j = \hat\varepsilon_j - \hat x_j

    in the flow that belongs to the process, :math:`\bar x = x/(\alpha+\sigma)`, whose clock is :math:`r =
    \sigma/(\alpha+\sigma)` and whose velocity is u; on this flow Euler's method is DDIM on the process. The numbers a,
    b and the times are learned by Adam from Euler's method, :math:`a_i = 1`, :math:`b_{ij} = r_{j+1}-r_j`, and the loss
    is :math:`E\ln\|x_n-x(0)\|^2`.

    Left out: the start at the midpoint method, and the factor of the first noise that the paper tries for guidance.

    References:
        Shaul et al. (2024), Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models.
        https://arxiv.org/abs/2403.01329
    """
    lesson = Lesson(sde, score_fn, x, context, exact, calls)
    student = lesson.begin(lambda times: NonStationary(lesson.clock, times), steps)
    lesson.teach(student, torch.optim.Adam, RATES["bns"])
    return lesson.sampler(student)


class Multistep(Student):
    """The solvers of `ld3` and `s4s`.

    Args:
        clock, times: where it begins.
        coefficients: whether those of the steps are learned, in turns with the times.
    """

    def __init__(self, clock: Clock, times: Tensor, coefficients: bool) -> None:
        super().__init__()
        self.clock, self.evaluations, self.coefficients = clock, len(times) - 1, coefficients
        self.theta = nn.Parameter(clock.theta(times))
        self.shifts = nn.Parameter(torch.zeros(self.evaluations, dtype=torch.float64))
        self.changes = nn.Parameter(torch.zeros(self.evaluations, 3, dtype=torch.float64))

    def learned(self, spent: float) -> list[nn.Parameter]:
        """See `Student.learned`."""
        if not self.coefficients:
            return [self.theta] if spent < TIMES_ALONE else [self.theta, self.shifts]
        return [self.changes] if int(spent * TURNS) % 2 else [self.theta, self.shifts]

    def forward(self, look: Look, x: Tensor) -> Tensor:
        """See `Student.forward`."""
        times = self.clock.times(self.theta)
        nodes, told = _nodes(self.clock, times), _nodes(self.clock, self._told(times))
        lams = [node.lam for node in nodes]
        data: list[Tensor] = []
        for i, (node, stop) in enumerate(itertools.pairwise(nodes)):
            data.insert(0, look(x, told[i]).data)
            slope = 0.0
            if 0 < i < self.evaluations - 1:  # the last step is of order 1, as usual with few steps
                slope = 0.5 * (lams[i + 1] - lams[i]) / (lams[i] - lams[i - 1])
            weights = [b + change for b, change in zip((1 + slope, -slope, 0.0), self.changes[i], strict=True)]
            kept = stop.sigma / node.sigma
            mean = sum(b * estimate for b, estimate in zip(weights, data, strict=False))
            x = kept * x + (stop.alpha - node.alpha * kept) * mean
        return x

    def _told(self, times: Tensor) -> Tensor:
        """The times that the network is told: the log-SNRs moved by less than half of the smallest gap, but for the
        first."""
        log_snr = self.clock.sde.log_snr(times[:-1])
        most = 0.5 * float(self.clock.sde.log_snr(times.detach()).diff().min())
        moved = log_snr[1:] + self.shifts[1:].clamp(-most, most)
        return torch.cat([times[:1], self.clock.sde.time(moved)])


def ld3(
    sde: Any, score_fn: Any, steps: int, x: Tensor, context: Mapping[str, Any], exact: Tensor, calls: float
) -> Sampler:
    r"""LD3: the times of DPM-Solver++ (2M), :math:`\xi`, and those that the network is told, :math:`\xi^c`.

    .. math:: \min_{\xi,\xi^c} E\min_{\|x'-x\|\le r\sigma\sqrt d} d(\Psi_{\xi,\xi^c}(x'), \Psi^*(x)),

    the soft form of the loss, in which the start of the student may move in a ball around that of the teacher. The gaps
    between the log-SNRs of the times are a softmax; the told log-SNRs differ from them by at most half of the smallest
    gap, and not at the first time. They are learned by RMSProp with momentum 0.9, :math:`\xi` alone for two sevenths of
    the budget. A start moves by half a radius against its gradient. The errors measured here are those of single paths,
    which a ball neglects: r = 0 does best, with which the loss is the plain one.

    Left out: mini-batches; plain gradient descent for :math:`\xi^c`; and the comparison of each moved start with its
    former place, which would take one solve more.

    References:
        Tong et al. (2025), Learning to Discretize Denoising Diffusion ODEs. https://arxiv.org/abs/2405.15506
    """
    lesson = Lesson(sde, score_fn, x, context, exact, calls)
    student = lesson.begin(lambda times: Multistep(lesson.clock, times, coefficients=False), steps)
    lesson.teach(student, _rmsprop, RATES["ld3"], RADIUS["ld3"])
    return lesson.sampler(student)


def s4s(
    sde: Any, score_fn: Any, steps: int, x: Tensor, context: Mapping[str, Any], exact: Tensor, calls: float
) -> Sampler:
    r"""S4S-Alt: the times of a linear multistep method of three estimates, in turns with its coefficients.

    .. math:: x_{i+1} = \frac{\sigma_{i+1}}{\sigma_i}x_i - \alpha_{i+1}(e^{-h_i}-1)\sum_{j<3} b_{ij}\hat x_{i-j},
        \qquad h_i = \lambda_{i+1}-\lambda_i,

    where b begins at DPM-Solver++ (2M) and is free, that is, a step need not be consistent. The times, those that the
    network is told and the loss with its ball are as in `ld3`.

    Left out: the forms with a corrector and with single steps; b is written as a change of the coefficients of
    DPM-Solver++ (2M) at the present times.

    References:
        Frankel et al. (2025), S4S: Solving for a Fast Diffusion Model Solver. https://arxiv.org/abs/2502.17423
    """
    lesson = Lesson(sde, score_fn, x, context, exact, calls)
    student = lesson.begin(lambda times: Multistep(lesson.clock, times, coefficients=True), steps)
    lesson.teach(student, torch.optim.Adam, RATES["s4s"], RADIUS["s4s"])
    return lesson.sampler(student)


class MeanDirection(Student):
    """The solver of `amed`.

    Args:
        clock, times: of the steps, two evaluations in each.
        analytic: whether the first evaluation of all is replaced by the estimate for normal data.
    """

    def __init__(self, clock: Clock, times: Tensor, analytic: bool) -> None:
        super().__init__()
        self.clock, self.times, self.analytic = clock, times, analytic
        self.evaluations = 2 * (len(times) - 1) - analytic
        self.numbers = nn.Parameter(torch.zeros(len(times) - 1, 3, dtype=torch.float64))
        self.teacher: list[Tensor] = []

    def forward(self, look: Look, x: Tensor) -> Tensor:
        """See `Student.forward`."""
        for i in range(len(self.numbers)):
            x = self.step(look, x, i)
        return x

    def step(self, look: Look, x: Tensor, i: int) -> Tensor:
        """One step."""
        node, stop = _nodes(self.clock, self.times[i : i + 2])
        r, c, a = self.numbers[i]
        share = torch.sigmoid(r)
        lam = share * node.lam + (1 - share) * stop.lam
        (middle,) = _nodes(self.clock, self.clock.sde.time(2 * lam)[None])
        (told,) = _nodes(self.clock, self.clock.sde.time(2 * lam - 2 * (1 + TIME_SCALE * torch.tanh(a)).log())[None])
        noise = _normal(x, node).noise if self.analytic and i == 0 else look(x, node).noise
        at, half, end = (n.sigma / n.alpha for n in (node, middle, stop))
        inner = x / node.alpha + (half - at) * noise
        mean = look(told.alpha * inner, told).noise
        scale = 1 + DIRECTION_SCALE * torch.tanh(c)
        return stop.alpha * (x / node.alpha + scale * (end - at) * mean)

    def loss(self, look: Look, x: Tensor, exact: Tensor) -> Tensor:
        """The distances from the teacher after each step, from where the student has come to."""
        losses = []
        for i, wanted in enumerate([*self.teacher, exact]):
            x = self.step(look, x.detach(), i)
            losses.append(_log_error(x, wanted))
        return torch.stack(losses).sum()


def amed(
    sde: Any, score_fn: Any, steps: int, x: Tensor, context: Mapping[str, Any], exact: Tensor, calls: float
) -> Sampler:
    r"""AMED-Solver with constants: each step of two evaluations learns where the second is, and how far to go along it.

    With :math:`\rho = \sigma/\alpha` and :math:`\bar x = x/\alpha`, at which the flow is :math:`d\bar x =
    \hat\varepsilon\,d\rho`, a step is

    .. math:: \rho_s = \rho_n^{r_n}\rho_{n+1}^{1-r_n}, \quad \bar x_s = \bar x_n + (\rho_s-\rho_n)\hat\varepsilon(\bar
        x_n,\rho_n), \quad \bar x_{n+1} = \bar x_n + c_n(\rho_{n+1}-\rho_n)\hat\varepsilon(\bar x_s, a_n\rho_s),

    which with r = 1/2 and c = a = 1 is DPM-Solver-2 in single steps. An odd number of evaluations leaves out the first
    of all, which the estimate for normal data replaces. The loss of a step is the distance from a teacher's
    path at its end, and no gradient passes from one step to another. The teacher is `UniPC3` with ten steps in each
    step, whose calls count. Adam learns the numbers.

    Left out: the predictor of r, c and a, a small network whose input is the innermost layer of a U-Net, which a score
    function does not have. The numbers are constants of each step instead, as in the paper on EPD-Solver, whose several
    evaluations in parallel are left out.

    References:
        Zhou et al. (2024), Fast ODE-based Sampling for Diffusion Models in Around 5 Steps.
        https://arxiv.org/abs/2312.00094
        Zhu et al. (2025), Distilling Parallel Gradients for Fast ODE Solvers of Diffusion Models (constants).
        https://arxiv.org/abs/2507.14797
    """
    lesson, odd = Lesson(sde, score_fn, x, context, exact, calls), steps % 2 == 1
    student = lesson.begin(lambda times: MeanDirection(lesson.clock, times, odd), (steps + 1) // 2)
    if lesson.spent + FINE * steps > calls:
        return lesson.sampler(student)
    student.teacher = _path(lesson, student.times)
    lesson.teach(student, torch.optim.Adam, RATES["amed"])
    return lesson.sampler(student)


PUBLISHED: dict[str, Callable[..., Sampler]] = {"bns": bns, "ld3": ld3, "s4s": s4s, "amed": amed}

# Chosen on the problems "ring" and "two moons posterior", at 5 and 8 evaluations, by the errors on other samples.
RATES = {
    "bns": {"theta": 0.1, "a": 0.003, "b": 0.003},
    "ld3": {"theta": 0.007, "shifts": 0.003, "changes": 0.0},
    "s4s": {"theta": 0.1, "shifts": 0.03, "changes": 0.03},
    "amed": {"numbers": 0.2},
}
RADIUS = {"ld3": 0.0, "s4s": 5e-4}  # the best of 0, 5e-4, 1e-3 and 1e-2
TIMES_ALONE = 2 / 7  # of the budget of `ld3`
TURNS = 2  # of times and coefficients in `s4s`
DIRECTION_SCALE, TIME_SCALE = 0.05, 0.2  # c and a of `amed` are as near to 1 as that


def _rmsprop(groups: Any) -> torch.optim.Optimizer:
    """The optimiser of LD3."""
    return torch.optim.RMSprop(groups, momentum=0.9)


def _path(lesson: Lesson, times: Tensor) -> list[Tensor]:
    """The teacher's states at the inner times, of the pilots to learn from."""
    pilot, states = lesson.pilot, []
    train = pilot.halves[0]
    x = pilot.x[train]
    for start, end in itertools.pairwise(times.tolist()[:-1]):
        x = scoresde.solve(
            pilot.sde, pilot.score, x, method="unipc3", steps=FINE, grid="log_snr", t_start=start, t_end=end,
            context=cut(pilot.context, train),
        ).x  # fmt: skip
        states.append(x)
    return states


def _nodes(clock: Clock, times: Tensor) -> list[Node[Tensor]]:
    """The nodes of some times, with their gradients."""
    return [Node(*row) for row in zip(*(values.unbind() for values in clock.sde.nodes(times)), strict=True)]


def _flow_size(node: Node[Tensor]) -> Tensor:
    """By how much a state of the process is larger than that of the flow."""
    return node.alpha + node.sigma


def _normal(x: Tensor, node: Node[Tensor]) -> Estimate:
    """The estimates for standard normal data."""
    square = node.alpha**2 + node.sigma**2
    return Estimate(node.alpha / square * x, node.sigma / square * x)


def _log_error(x: Tensor, exact: Tensor) -> Tensor:
    """The mean logarithm of the samples' RMS errors."""
    return 0.5 * (squares(x, exact) + LEAST).log().mean()


def _unit(slope: Tensor) -> Tensor:
    """The direction of each sample's gradient."""
    return slope / _norm(slope).clamp_min(1e-30)


def _within(own: Tensor, x: Tensor, most: float) -> Tensor:
    """The nearest states that are no further away than that."""
    way = x - own
    return own + way * (most / _norm(way).clamp_min(most))


def _norm(x: Tensor) -> Tensor:
    """Of each sample, ``(batch, 1, …)``."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
