r"""Grids fitted to a network: the best nodes for a given number of steps.

With few steps the error of a solve depends on where they are more than on the method. `fit_grid` takes a pilot batch,
solves it once almost exactly, and moves the nodes until a solve with the given number of steps comes close to it. Nodes
are written as

.. math:: \lambda_k = \lambda_0 + (\lambda_N-\lambda_0)\sum_{j<k}\mathrm{softmax}(\theta)_j,

so that both ends stay and the order is kept, and :math:`\theta` follows the gradient of the pilot's error, which goes
backwards through the solver. The gradient is that of one half of the pilot; the error of the other half decides.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from .. import grids
from .._arguments import context_of, shape_to_draw
from .._checks import (
    MOST_DRAWS,
    MOST_STEPS,
    check_choice,
    check_device,
    check_dtype,
    check_finite_rows,
    check_flag,
    check_integer,
    check_state,
    check_tensor,
    form,
)
from .._context import cut
from .._signatures import typed
from ..errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, NonFiniteError, short
from ..files.paths import check_path
from ..files.writing import write_bytes
from ..grids import Grid
from ..noise import check_seed
from ..scores import Score, Split, as_score
from ..sdes import SDE, AffineSDE, Estimate, Node
from ..sdes.base import check_affine
from ..solvers import Solver, UniPC, make_solver
from ..solvers.registry.config import to_text
from ..solving import solve

if TYPE_CHECKING:
    from .. import _typed

FORMAT = 1
_LEAST_GAP = 1e-3  # of the mean gap
_RATE = 0.15  # Adam's first step in theta
_SMOOTH = 0.1  # of the median error: samples nearer than that pull no more
_STEP = 0.02  # of a finite difference in theta
_PATIENCE = 8  # evaluations of the held-out half without progress
_LOOK_EVERY = 3  # iterations
_STARTING = 4.0  # a first step so much smaller than the next one was not chosen by the error

Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Errors:
    """The error of the held-out half of the pilot: RMS over dimensions per sample, then RMS and median over samples.

    Example:
        >>> Errors(rms=0.2, median=0.1).median
        0.1
    """

    rms: float
    median: float


@dataclass(frozen=True)
class Cost:
    """The cost of a fit.

    Args:
        calls: calls of the score function, those repeated to save memory included.
        gradients: how many of them were differentiated.
        pilots: the same work in calls on the whole pilot batch, a gradient counted as two.

    Example:
        >>> Cost(calls=10, gradients=0, pilots=5.0).pilots
        5.0
    """

    calls: int
    gradients: int
    pilots: float


@dataclass(frozen=True)
class FittedGrid(Grid):
    """A grid that `fit_grid` made, for ``grid=`` of `solve`; it refuses processes other than its own.

    Args:
        times: from the start to the end of the solve.
        name: a name for it.
        method: the method that it was fitted for, as text, which ``method="auto"`` takes; other methods run on it
            too, usually with less gain.
        process: the process, as text.
        log_snr: the log-SNR of the process at the times, which identifies it.
        fitted, default: the held-out `Errors` on this grid and on the default one.
        cost: what the fit took.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> grid = fit_grid(sde, target.score(sde), 4, pilot=8, iterations=20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     grid.save(Path(folder, "grid.json"))
        ...     FittedGrid.load(Path(folder, "grid.json")) == grid
        True
    """

    name: str = "fitted"
    method: str = field(default="", kw_only=True)
    process: str = field(default="", kw_only=True)
    log_snr: tuple[float, ...] = field(default=(), kw_only=True)
    fitted: Errors = field(default=Errors(math.nan, math.nan), kw_only=True)
    default: Errors = field(default=Errors(math.nan, math.nan), kw_only=True)
    cost: Cost = field(default=Cost(0, 0, 0.0), kw_only=True)

    def times_for(self, sde: object) -> tuple[float, ...]:
        """The times, if the process is the one that the grid was fitted for."""
        if self.fits(sde):
            return self.times
        raise InvalidArgumentError(
            f"`grid` was fitted for {self.process}, but `sde` is {sde!r}; fit one with fit_grid(sde, score_fn, "
            f"{self.steps})."
        )

    def fits(self, sde: object) -> bool:
        """Whether a process is the one that the grid was fitted for: it has the grid's log-SNRs at its times."""
        if not isinstance(sde, AffineSDE) or not self.times or len(self.log_snr) != len(self.times):
            return False
        if not (sde.t_min <= min(self.times) and max(self.times) <= sde.t_max):
            return False
        with torch.no_grad():
            here = sde.log_snr(torch.tensor(self.times, dtype=torch.float64))
        return torch.allclose(here, torch.tensor(self.log_snr, dtype=torch.float64), rtol=1e-6, atol=1e-6)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the grid as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        path = check_path("path", path)
        content = {"format": FORMAT, **self.fields()}
        write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    def fields(self) -> dict[str, object]:
        """The fields as JSON values, which `of` reads; numbers that are not finite are text."""
        return _plain(asdict(self))

    @classmethod
    def of(cls, content: Mapping[str, Any], where: str) -> FittedGrid:
        """A grid from its fields, as `dataclasses.asdict` and JSON give them.

        Raises:
            CorruptCheckpointError: the fields are not those of a grid; ``where`` names their source.
        """
        try:
            given = dict(content)
            grid = cls(
                times=_numbers(given.pop("times")),
                log_snr=_numbers(given.pop("log_snr")),
                fitted=Errors(**_named(given.pop("fitted"))),
                default=Errors(**_named(given.pop("default"))),
                cost=Cost(**_named(given.pop("cost"))),
                **given,
            )
            if not all(isinstance(v, str) for v in (grid.name, grid.method, grid.process)):
                raise ValueError("its name, method and process must be text")
            if len(grid.log_snr) != len(grid.times):
                raise ValueError(f"it has {len(grid.times)} times and {len(grid.log_snr)} log-SNRs")
            grids.check_times(torch.tensor(grid.times, dtype=torch.float64), -math.inf, math.inf, "times")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptCheckpointError(f"{where} is not a fitted grid: {error}") from None
        return grid

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedGrid:
        """Read what `save` wrote.

        Raises:
            CorruptCheckpointError: the file is not a fitted grid.
        """
        where = os.fspath(check_path("path", path))
        try:
            content = json.loads(Path(where).read_bytes())
            found = content.pop("format")
            if found != FORMAT:
                raise ValueError(f"its format is {found!r}, but this version of scoresde reads {FORMAT}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptCheckpointError(f"{where} is not a fitted grid: {error}") from None
        return cls.of(content, where)

    def __repr__(self) -> str:
        gain = f"{self.fitted.median:.2g} (default grid {self.default.median:.2g})"
        process = self.process.partition("(")[0]
        return f"FittedGrid({self.steps} steps of {self.method} for {process}, held-out median error {gain})"


@typed(lambda: _typed.fit_grid)
def fit_grid(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    steps: int,
    method: str | Solver = "unipc2",
    *,
    pilot: int = 64,
    objective: str | Objective = "log",
    x: Tensor | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    starts: str | Sequence[str | Grid | Tensor] | None = None,
    iterations: int | None = None,
    gradient: bool = True,
    checkpoint: bool = True,
    reference: int | Tensor | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    context: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **solver_options: object,
) -> FittedGrid:
    r"""Fit the nodes of a grid to a score function, a process and a deterministic method.

    A few iterations of Adam from each start choose one of them; Adam continues with it, and BFGS finishes. A third of
    the iterations is for each of the three. The grid that did best on the held-out half is returned, so a fit is never
    worse there than its starts and the default grid.

    Args:
        sde: an affine process.
        score_fn: as for `solve`.
        steps: the number of steps; evaluations follow from the method.
        method: a deterministic method with fixed steps.
        pilot: the number of samples in the pilot batch: one half to learn from, one half held out.
        objective: ``"log"``, the mean logarithm of the samples' RMS errors, which a few samples that end in another
            mode do not dominate; ``"rms"``; or a function ``(x, reference) -> (batch,)``, whose mean is minimised.
        x: the pilot's states at ``t_start`` instead of draws from the prior.
        shape: ``(pilot, *event)``, if the score function does not declare the shape of its events.
        seed: of the pilot.
        starts: names of grids, ``"quick"`` (the steps of an adaptive method), ``"perturbed"`` (the default grid with
            random gaps), grids, or tensors of times; by default ``"log_snr"`` (``"time"`` if the log-SNR is infinite),
            ``"quadratic"``, ``"cosine"`` and ``"quick"``.
        iterations: steps of the optimiser in all, by default 720 / evaluations of a solve (10 to 150), so that a fit of
            up to 40 evaluations takes about 2,000 calls on the pilot; 0 takes the best of the starts.
            ``starts="quick", iterations=0`` needs only one adaptive solve: as many steps fall in an interval as the
            adaptive pair took there.
        gradient: False if the score function has no gradient: finite differences then take twice ``steps`` solves per
            iteration.
        checkpoint: keep only states for the gradient and call the network again in the backward pass, so that memory
            does not grow with the network's depth times the steps.
        reference: the number of steps of the reference by `scoresde.solvers.UniPC3`, by default 200, or ten times
            ``steps``; or the pilot's end states themselves.
        t_start, t_end: the interval, as for `solve`.
        context: of the pilot, as for `scoresde.solve`.
        dtype, device: of the pilot.
        **solver_options: fields of the method's class.

    Returns:
        A `FittedGrid`.

    Raises:
        InvalidArgumentError: an argument does not fit, or the score function has no gradient.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> grid = fit_grid(sde, target.score(sde), 5, pilot=16, iterations=80)
        >>> grid.fitted.rms < 0.2 * grid.default.rms
        True
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="unipc2", grid=grid, shape=(3, 2)
        ... ).evaluations
        5

    References:
        Xue et al. (2024), Accelerating Diffusion Sampling with Optimized Time Steps. https://arxiv.org/abs/2402.17376
    """
    solver = make_solver(method, solver_options, ())
    sde = check_affine(sde)
    _check_method(solver)
    steps = check_integer("steps", steps, low=2, high=MOST_STEPS)
    count = min(max(720 // (steps * solver.evaluations), 10), 150)
    if iterations is not None:
        count = check_integer("iterations", iterations, low=0, high=MOST_STEPS)
    check_integer("pilot", pilot, low=2, high=MOST_DRAWS)
    for name, flag in (("gradient", gradient), ("checkpoint", checkpoint)):
        check_flag(name, flag)
    _check_objective(objective)
    watched = _Watch(as_score(score_fn), checkpoint)
    first = grids.time_of("t_start", t_start, sde, sde.t_max)
    clock = _Clock(sde, first, grids.time_of("t_end", t_end, sde, sde.t_min))
    seed = check_seed("seed", seed)
    drawn = () if x is not None else shape_to_draw(shape, watched.traits.event_shape, pilot, "pilot")
    if x is None and first != sde.t_max:
        raise InvalidArgumentError(f"`x` is missing, but t_start={first:g} is not t_max={sde.t_max:g}.")
    x = pilot_states(sde, x, drawn, seed, dtype, device)
    if len(x) < 2:
        raise InvalidArgumentError(f"The pilot must have at least 2 samples, got {len(x)}.")
    context = context_of(context, watched, x)
    ends = _reference(watched, x, clock, reference, steps, context)
    halves = slice(0, len(x) // 2), slice(len(x) // 2, len(x))
    problem = _Problem(watched, solver, clock, x, ends, context, objective, *halves, gradient)
    best = _optimise(problem, [problem.start(s, steps, seed) for s in _listed(starts, clock)], count)
    times = clock.times(best).detach()
    with torch.no_grad():
        log_snr = sde.log_snr(times)
    return FittedGrid(
        tuple(times.tolist()),
        method=to_text(solver),
        process=repr(sde),
        log_snr=tuple(log_snr.tolist()),
        fitted=problem.errors(times),
        default=problem.errors(clock.default(steps)),
        cost=watched.cost(len(x)),
    )


def _check_method(solver: Solver) -> None:
    """Refuse a method whose error is no function of the nodes."""
    if solver.stochastic or solver.adaptive or solver.own_steps:
        what = "draws noise" if solver.stochastic else "chooses its own steps"
        raise InvalidArgumentError(
            f"`method` must be deterministic with fixed steps, but {solver.name!r} {what}; try 'unipc2'."
        )


def _check_objective(objective: object) -> None:
    """Refuse what is neither the name of an objective nor a function."""
    if isinstance(objective, str):
        check_choice("objective", objective, ("log", "rms"))
    elif not callable(objective):
        raise InvalidTypeError(
            f"`objective` must be a name or a function (x, reference) -> (batch,), got {objective!r}."
        )


def pilot_states(
    sde: AffineSDE,
    x: Tensor | None,
    shape: tuple[int, ...],
    seed: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """The pilot's states: those given, checked and moved, or draws of the prior."""
    if x is None:
        generator = torch.Generator(check_device(device)).manual_seed(seed)
        return sde.prior_sample(shape, generator=generator, dtype=dtype, device=device)
    check_state("x", x)
    if dtype is not None:
        check_dtype("dtype", dtype)
    check_finite_rows("`x`", x)
    return x.to(device=check_device(device, x.device), dtype=dtype)


def _plain(value: object) -> Any:
    """A tree for JSON, which has no infinity and no NaN."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: object) -> float:
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("inf", "-inf", "nan")):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{str(values)[:40]!r} is not a list of numbers")
    return tuple(_number(v) for v in values)


def _named(values: Any) -> dict[str, Any]:
    """Numbers by name; whole ones stay whole."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{str(values)[:40]!r} is not an object of numbers")
    return {name: v if type(v) is int else _number(v) for name, v in values.items()}


def _listed(starts: Any, clock: _Clock) -> list[Any]:
    if starts is None:
        return ["time" if clock.in_time else "log_snr", "quadratic", "cosine", "quick"]
    if isinstance(starts, str | Grid | Tensor):
        starts = [starts]
    if not isinstance(starts, Sequence) or not starts:
        raise InvalidTypeError(f"`starts` must be a name, a grid, or a list of those, got {short(starts)}.")
    for i, start in enumerate(starts):
        if not isinstance(start, str | Grid) and not callable(start):
            check_tensor(f"starts[{i}]", start, (-1,))
    return list(starts)


def _reference(watched: Any, x: Tensor, clock: _Clock, reference: Any, steps: int, context: Any) -> Tensor:
    """The end states that count as exact."""
    if isinstance(reference, Tensor):
        check_tensor("reference", reference)
        if reference.shape != x.shape:
            raise InvalidArgumentError(
                f"`reference` must have the shape of the pilot, {tuple(x.shape)}, got {tuple(reference.shape)}."
            )
        return reference.to(x)
    count = max(200, 10 * steps) if reference is None else check_integer("reference", reference, low=1, high=MOST_STEPS)
    return solve(clock.sde, watched, x, method=UniPC(order=3), grid=clock.default(count), context=context).x


class _Clock:
    """Times as functions of theta: gaps in the log-SNR, or in time where that is infinite at an end."""

    def __init__(self, sde: AffineSDE, start: float, end: float) -> None:
        self.sde, self.start, self.end = sde, start, end
        if start == end:
            raise InvalidArgumentError(f"There is nothing to fit between t_start={start:g} and t_end={end:g}.")
        with torch.no_grad():
            ends = [float(sde.log_snr(t)) for t in (self.start, self.end)]
        self.in_time = not all(math.isfinite(v) for v in ends)
        self.low, self.high = (self.start, self.end) if self.in_time else (ends[0], ends[1])

    def default(self, steps: int) -> Tensor:
        return grids.resolve(None, self.sde, self.start, self.end, steps)

    def times(self, theta: Tensor) -> Tensor:
        gaps = (torch.softmax(theta, 0) + _LEAST_GAP / len(theta)) / (1 + _LEAST_GAP)
        inner = self.low + (self.high - self.low) * gaps.cumsum(0)[:-1]
        ends = torch.tensor([self.start, self.end], dtype=torch.float64)
        return torch.cat([ends[:1], inner if self.in_time else self.sde.time(inner), ends[1:]])

    def theta(self, times: Tensor) -> Tensor:
        """The inverse, apart from gaps that are too small."""
        with torch.no_grad():
            u = times if self.in_time else self.sde.log_snr(times)
        return self.theta_of_gaps(u.diff() / (self.high - self.low))

    @staticmethod
    def theta_of_gaps(gaps: Tensor) -> Tensor:
        """Theta of gaps that sum to one."""
        given = gaps * (1 + _LEAST_GAP) - _LEAST_GAP / len(gaps)
        theta = given.clamp_min(0.1 * _LEAST_GAP / len(gaps)).log()
        return theta - theta.mean()


class _Watch(Score):
    """A score function whose calls are counted, and repeated in a backward pass instead of kept."""

    def __init__(self, score_fn: Score, checkpoint: bool) -> None:
        self.score_fn, self.checkpoint = score_fn, checkpoint
        self.traits = score_fn.traits
        self.calls = self.gradients = self.rows = 0

    @property
    def only_scores(self) -> bool:
        return self.score_fn.only_scores

    def accepts(self, name: str) -> bool:
        return self.score_fn.accepts(name)

    def score(self, x: Tensor, node: Node, **context: object) -> Tensor:
        return self._run(self.score_fn.score, x, node, context)

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        return self._run(self.score_fn.estimate, x, node, context)

    def twisted(self, x: Tensor, node: Node, **context: object) -> Split:
        self.calls += 1
        self.rows += len(x)
        return self.score_fn.twisted(x, node, **context)

    def cost(self, pilot: int) -> Cost:
        """The cost so far."""
        return Cost(self.calls, self.gradients, self.rows / pilot)

    def _run(self, function: Callable[..., Any], x: Tensor, node: Node, context: Mapping[str, object]) -> Any:
        def call(x: Tensor, node: Node) -> Any:
            self.calls += 1
            self.rows += len(x)
            return function(x, node, **context)

        if not torch.is_grad_enabled() or not any(isinstance(v, Tensor) and v.requires_grad for v in (x, *node)):
            return call(x, node)
        out = recompute(call, x, node, use_reentrant=False) if self.checkpoint else call(x, node)
        if any(v.requires_grad for v in (out if isinstance(out, tuple) else (out,))):
            self.gradients += 1
            self.rows += 2 * len(x)
        elif x.requires_grad:
            raise InvalidArgumentError(
                "The score function has no gradient (torch.no_grad or .detach() inside?); pass gradient=False."
            )
        return out


@dataclass(frozen=True)
class _Problem:
    """The error of the pilot as a function of theta."""

    score_fn: Any
    solver: Solver
    clock: _Clock
    x: Tensor
    ends: Tensor
    context: Mapping[str, Any]
    objective: str | Objective
    train: slice  # of the rows
    held_out: slice
    gradient: bool

    def start(self, start: Any, steps: int, seed: int) -> Tensor:
        """Theta of a start."""
        clock = self.clock
        if isinstance(start, str) and start == "quick":
            return clock.theta(self._quick(steps))
        if isinstance(start, str) and start == "perturbed":
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(steps, generator=generator, dtype=torch.float64)
            return clock.theta(clock.default(steps)) + 0.5 * noise
        if isinstance(start, str) or (callable(start) and not isinstance(start, Grid)):
            return clock.theta(grids.resolve(start, clock.sde, clock.start, clock.end, steps))
        given = torch.as_tensor(start.times_for(clock.sde) if isinstance(start, Grid) else start, dtype=torch.float64)
        if len(given) != steps + 1 or not torch.allclose(
            given[[0, -1]].detach(), torch.tensor([clock.start, clock.end], dtype=torch.float64), rtol=1e-6, atol=0.0
        ):
            raise InvalidArgumentError(
                f"A grid among `starts` must have {steps + 1} times from {clock.start:g} to {clock.end:g}, got "
                f"{given.tolist()}."
            )
        return clock.theta(given.detach())

    def _quick(self, steps: int) -> Tensor:
        """Equidistribution: every step has the same share of the steps that an adaptive method took."""
        path = solve(
            self.clock.sde, self.score_fn, self.x[self.train], method="rk45", rtol=1e-3, atol=1e-3, save_at="steps",
            t_start=self.clock.start, t_end=self.clock.end, context=cut(self.context, self.train),
        )  # fmt: skip
        return equidistribute(path.ts.T, steps, self.clock)  # type: ignore[union-attr]

    def end(self, times: Tensor, rows: slice, differentiable: bool) -> Tensor:
        """The end states of the rows on a grid."""
        return solve(
            self.clock.sde, self.score_fn, self.x[rows], method=self.solver, grid=times,
            context=cut(self.context, rows), differentiable=differentiable, throw=False,
        ).x  # fmt: skip

    def _loss(self, end: Tensor, rows: slice, floor: float) -> Tensor:
        if not isinstance(self.objective, str):
            losses = self.objective(end, self.ends[rows])
            if not isinstance(losses, Tensor) or losses.shape != (len(end),):
                raise InvalidArgumentError(
                    f"`objective` must return ({len(end)},), one loss per sample, got {form(losses)}."
                )
            return losses.to(torch.float64).mean()
        squares = _squares(end, self.ends[rows])
        if self.objective == "rms":
            return 0.5 * squares.mean().log()
        return 0.5 * (squares + floor**2).log().mean()

    def floor(self, theta: Tensor) -> float:
        """The error below which a sample no longer counts."""
        with torch.no_grad():
            squares = _squares(self.end(self.clock.times(theta), self.train, False), self.ends[self.train])
        return _SMOOTH * max(math.sqrt(float(squares.nanmedian())), 1e-14)

    def value(self, theta: Tensor, rows: slice, floor: float) -> float:
        with torch.no_grad():
            return float(self._loss(self.end(self.clock.times(theta), rows, False), rows, floor))

    def value_and_gradient(self, theta: Tensor, floor: float) -> tuple[float, Tensor]:
        """The objective and its gradient on the half that is learned from."""
        rows = self.train
        if not self.gradient:
            shifts = _STEP * torch.eye(len(theta), dtype=torch.float64)
            slopes = [
                (self.value(theta + s, rows, floor) - self.value(theta - s, rows, floor)) / (2 * _STEP) for s in shifts
            ]
            return self.value(theta, rows, floor), torch.tensor(slopes, dtype=torch.float64)
        with torch.enable_grad():
            theta = theta.detach().clone().requires_grad_(True)
            loss = self._loss(self.end(self.clock.times(theta), rows, True), rows, floor)
            if not bool(torch.isfinite(loss)):
                return math.inf, torch.zeros_like(theta)
            (slope,) = torch.autograd.grad(loss, theta)
        return loss.item(), slope

    def errors(self, times: Tensor) -> Errors:
        """The errors of the held-out half."""
        with torch.no_grad():
            each = _squares(self.end(times, self.held_out, False), self.ends[self.held_out]).sqrt()
            each = each.nan_to_num(nan=math.inf)  # of samples that failed
        return Errors(float(each.square().mean().sqrt()), float(each.median()))


def _squares(end: Tensor, exact: Tensor) -> Tensor:
    """Mean squares over dimensions, per sample."""
    return (end.to(torch.float64) - exact.to(torch.float64)).flatten(1).square().mean(1)


def equidistribute(paths: Tensor, steps: int, clock: _Clock) -> Tensor:
    """Times between which each sample's path, ``(batch, n)`` times, has on average equal shares of its own steps."""
    at = torch.linspace(0.0, 1.0, 16 * steps + 1, dtype=torch.float64)
    shares = torch.zeros_like(at)
    for path in paths:
        times = torch.unique_consecutive(path[torch.isfinite(path)])  # rejected steps do not move
        u = (times if clock.in_time else clock.sde.log_snr(times)).sub(clock.low).div(clock.high - clock.low)
        while len(u) > 3 and _STARTING * (u[1] - u[0]) < u[2] - u[1]:  # steps that had not found their size
            u = torch.cat([u[:1], u[2:]])
        shares += _interpolate(at, u, torch.linspace(0.0, 1.0, len(u), dtype=torch.float64)) / len(paths)
    inner = _interpolate(torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64), shares, at)
    return clock.times(clock.theta_of_gaps(inner.diff()))


def _interpolate(x: Tensor, xp: Tensor, fp: Tensor) -> Tensor:
    """Linear, for growing xp."""
    i = torch.searchsorted(xp, x, right=True).clamp(1, len(xp) - 1)
    return fp[i - 1] + (fp[i] - fp[i - 1]) * (x - xp[i - 1]) / (xp[i] - xp[i - 1])


class _Spent(Exception):
    """The iterations are used up, or nothing improves any more."""


class _Search:
    """The best theta so far, by the held-out half."""

    def __init__(self, problem: _Problem) -> None:
        self.problem, self.best, self.lowest, self.idle = problem, torch.zeros(0), math.inf, 0

    def look(self, theta: Tensor) -> float:
        """Keep theta if it is the best so far."""
        value = self.problem.value(theta, self.problem.held_out, 1e-14)
        self.idle += 1
        if value < self.lowest or not len(self.best):
            self.best, self.lowest, self.idle = theta.detach().clone(), value, 0
        return value

    def adam(self, theta: Tensor, count: int, rate: float) -> Tensor:
        """Some iterations of Adam, with a rate that falls to a tenth along a cosine; returns the last theta."""
        floor, self.idle = self.problem.floor(theta), 0
        theta = theta.clone()
        optimiser = torch.optim.Adam([theta], lr=rate, betas=(0.9, 0.95))
        for i in range(count):
            optimiser.param_groups[0]["lr"] = rate * (0.55 + 0.45 * math.cos(math.pi * i / count))
            value, theta.grad = self.problem.value_and_gradient(theta, floor)
            if not math.isfinite(value) or self.idle >= _PATIENCE:
                return self.best
            optimiser.step()
            if i % _LOOK_EVERY == _LOOK_EVERY - 1 or i == count - 1:
                self.look(theta)
        return theta

    def bfgs(self, theta: Tensor, count: int) -> None:
        """BFGS with so many gradients."""
        from scipy.optimize import minimize  # takes long to import

        floor, self.idle, used = self.problem.floor(theta), 0, itertools.count()

        def function(point: Any) -> tuple[float, Any]:
            if next(used) >= count:
                raise _Spent
            value, slope = self.problem.value_and_gradient(torch.as_tensor(point), floor)
            return (value if math.isfinite(value) else 1e6), slope.numpy()

        def after(point: Any) -> None:
            self.look(torch.tensor(point))
            if self.idle >= _PATIENCE:
                raise _Spent

        try:
            minimize(function, theta.numpy(), jac=True, method="BFGS", callback=after, options={"gtol": 1e-6})
        except _Spent:
            return


def _optimise(problem: _Problem, starts: list[Tensor], iterations: int) -> Tensor:
    """The theta that did best on the held-out half."""
    search = _Search(problem)
    search.look(problem.clock.theta(problem.clock.default(len(starts[0]))))
    each = iterations // 3 // len(starts)
    reached = []
    for theta in starts:
        value = search.look(theta)
        if each:
            theta = search.adam(theta, each, _RATE)
            value = problem.value(theta, problem.train, problem.floor(theta))
        reached.append((value, theta))
    if not math.isfinite(search.lowest):
        raise NonFiniteError("No starting grid gives a finite result; take more steps or other starts.", stage="state")
    left = iterations - each * len(starts)
    if left:
        theta = search.adam(min(reached, key=lambda pair: pair[0])[1], left // 2, _RATE / 2)
        search.bfgs(theta, left - left // 2)
    return search.best
