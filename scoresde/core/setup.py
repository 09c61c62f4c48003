"""What `solve` is given, checked and turned into a loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import grids
from ..grids import Grid
from ..paths.wanted import Told, check_path_wanted
from ..scores import Score, as_score
from ..solvers import Solver, choose, drift_methods, from_config, make_solver
from ..solvers.registry.auto import NoiseStart, unit_of
from ..targets import GaussianStart
from .arguments import (
    GridChoice,
    SolveOptions,
    check_limits,
    check_no_vmap,
    check_save_at,
    context_names,
    context_of,
    for_data_of,
    shape_to_draw,
    tolerances,
)
from .controllers import Adaptive, Controller, FixedGrid
from .errors import InvalidArgumentError
from .loop import Loop, Recorder
from .noise import Noise, path_on
from .noise import resolve as resolve_noise
from .processes import Asking, GeneralReverse, Network, Process, ReverseProcess
from .recorder.plan import plan_of
from .recorder.tracing import traced
from .sdes import SDE, AffineSDE, NormalPrior
from .sdes.base import check_sde
from .solution import Solution, Status
from .support.checks import (
    check_device,
    check_finite_rows,
    check_integers,
    check_state,
    check_times,
    refuse_rows,
    warn_caller,
)
from .support.memo import Memo, constants_of
from .support.tensors import compute_dtype, far_from_most, row_finite, transforming, where

DEFAULT_MAX_STEPS = 10_000  # of an adaptive method
DEFAULT_EVALUATIONS = 20  # of a solve that leaves the method to the rule
_LEFT_OUT = "leave them out, or pass throw=False"
_ROUNDING = 1e-12
_ALIKE = 1e-6  # times, relative
_FAR = 100.0  # from the scale that a rule is for, to the nearest power of ten
_FEWEST = 8  # numbers that show a scale
_OUTSIDE, _NOISES, _SOME = 0.5, 3.0, 0.1  # widths of the range of data and noises beyond it, and a share of samples
_CLEAR = 10.0  # by which the noise of a prior is larger than data, at least
_GRIDS: Memo[Tensor] = Memo(most=64)  # by what they follow from


@dataclass
class Setup:
    """A solve that is ready to begin.

    Attributes:
        process: what is stepped.
        loop: the loop; without one, `standing` is the solution.
        t_end: where it ends.
        denoise, throw: as they are given to `solve`.
        dtype: of the result.
        told: what a path keeps besides its states, if one is wanted.
        few: for how many evaluations a rule chose a grid for data near a standard deviation of 1, since theirs is not
            declared.
        budget: how many evaluations were wanted.
    """

    process: Process
    loop: Loop | None
    standing: Solution | None
    t_end: float
    denoise: bool
    throw: bool
    dtype: torch.dtype
    few: int | None = None
    told: Told | None = None
    budget: int | None = None

    def arrived(self) -> Solution:
        """The solution at the end of the loop, or the error of samples that did not arrive."""
        return self.loop.finish() if self.loop is not None else self.standing  # type: ignore[return-value]

    def finished(self, solution: Solution) -> Asking[Solution]:
        """The result: denoised, if that is wanted, and in the dtype to return."""
        if self.denoise and len(solution.x):
            solution = yield from _denoised(self.process, solution, self.t_end, self.throw)
        if self.few is not None:
            _warn_of_scale(self.process, solution, self.t_end, self.few)
        _warn_of_range(self.process, solution, self.t_end)
        solution = _rounded(solution, self.dtype, self.throw)
        if self.budget is not None:
            solution = replace(solution, budget=self.budget)
        return solution if self.told is None else self.told.on(solution, self.process.sde, self.loop)


def set_up(
    sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None, given: SolveOptions, *, compact: bool = True
) -> Setup:
    """Check the arguments of `solve`, and prepare everything up to the first step.

    Args:
        compact: whether finished samples may leave the batch, if the score function allows it.
    """
    # what is given
    check_sde(sde)
    score = as_score(score_fn, sde)
    if given.denoise and not isinstance(sde, AffineSDE):
        raise InvalidArgumentError(
            f"`denoise` needs alpha and sigma, which {type(sde).__name__} does not have; pass denoise=False."
        )
    argument = "method" if isinstance(given.method, Grid) else "grid"
    course = _course(sde, score, _with_its_grid(given))
    given, solver, times = course.given, course.solver, course.times
    if given.path_log_prob is not False:
        check_path_wanted(given, sde, solver)
    # the state at the start, the source of noise, the network, the steps
    state, source, dtype = _initial(sde, score, x, course)
    copies = solver.keeps_estimates or given.differentiable
    network = Network(score, context_of(given.context, score, state, complete=False), copies=copies)
    if isinstance(given.grid, Grid):
        _warn_of_use(argument, given.grid, score, context_names(given.context, score))
    controller, solver, limit, recorder = _steps(sde, course, (state.dtype, score.network_dtype))
    if solver.adaptive and solver.stochastic:  # what is drawn decides on the steps
        source = path_on(lambda t: solver.noise_clock(sde, t), source, solver.name)
    # the solve
    eta = solver.default_stochasticity if given.stochasticity is None else float(given.stochasticity)
    process = (ReverseProcess if sde.affine else GeneralReverse)(sde, network, eta=eta)
    setup = Setup(process, None, None, times[-1], given.denoise, given.throw, dtype, course.few)
    setup.budget = course.budget
    if given.path_log_prob is not False:
        drawn = x is None and course.moved is None
        setup.told = _told_of_path(given, solver, eta, sde, state, dtype, drawn=drawn)
    if len(state) == 0 or times[0] == times[-1]:
        setup.standing = _standing(state, times[0], recorder)
    else:
        setup.loop = Loop(
            process,
            solver,
            controller,
            state,
            source,
            compact=compact and score.traits.rowwise and not source.whole_batch and not solver.batch_coupled,
            recorder=recorder,
            callback=given.callback,
            max_steps=limit,
            throw=given.throw,
            planner=plan_of if setup.told is None else partial(traced, keep=given.path_log_prob is True),
        )
    return setup


@dataclass(frozen=True)
class _Course:
    """Where a solve goes, and by which method.

    Attributes:
        given: the arguments, with the method, the grid and the number of steps that were chosen.
        solver: the method.
        times: the ends.
        values: the times of the grid, if it was given so.
        first: the time of the state that is given or drawn.
        moved: takes this state to where the solve begins, if that is another time.
        few, budget: see `Setup`.
    """

    given: SolveOptions
    solver: Solver
    times: tuple[float, float]
    values: Tensor | None
    first: float
    moved: NoiseStart | GaussianStart | None
    few: int | None
    budget: int | None


def _course(sde: SDE, score: Score, given: SolveOptions) -> _Course:
    """Choose what the arguments leave open, and refuse what does not go together."""
    start, from_prior, budget = given.start, isinstance(given.grid, grids.SamplerGrid), given.evaluations
    if budget is not None and given.steps is not None:
        raise InvalidArgumentError("`evaluations` and `steps` exclude each other; give one of them.")
    free = given.t_start is None and grids.time_of("t_end", given.t_end, sde, sde.t_min) != sde.t_max  # to begin lower
    given = replace(given, t_start=_started(sde, start, given.t_start))
    noise_start: NoiseStart | None = None
    chosen, own = isinstance(given.method, str) and given.method == "auto", given.grid
    if chosen:
        given, noise_start = _chosen(sde, score, given, free and start is None)
        budget = given.evaluations
    options = {} if chosen else given.solver_options
    solver = for_data_of(score, make_solver(given.method, options, given.names))  # type: ignore[arg-type]
    if isinstance(given.grid, grids.SamplerGrid):
        given = _with_sampler_times(sde, solver, given)
    grid = given.grid
    if isinstance(grid, Grid) and grid.from_noise and isinstance(sde, AffineSDE):
        noise_start = NoiseStart.at(sde, grid.times_for(sde)[0], grid.data_scale or 1.0)
    times, values = _times(sde, given)
    if start is not None and times[1] > times[0]:
        raise InvalidArgumentError(f"`t_end` must not be above the start's t={start.t:g}, got {times[1]:g}.")
    if given.differentiable and values is not None and isinstance(grid, Tensor) and grid.requires_grad:
        values = values + (grid - grid.detach()).to(values)  # the checked values, with the gradient
    _check_fit(sde, score, solver, times, given)
    moved = noise_start if start is None else start
    first = times[0] if moved is None and not from_prior else sde.t_max
    ruled = chosen and own is None and grid is not None
    few = budget if ruled and score.traits.data_std is None else None
    return _Course(given, solver, times, values, first, moved, few, budget)


def _with_sampler_times(sde: SDE, solver: Solver, given: SolveOptions) -> SolveOptions:
    """The options with the times of a `SamplerGrid` in the place of the grid and of the number of steps."""
    grid: Any = given.grid
    if given.evaluations is None:
        times = grid.times(grid.default_steps if given.steps is None else given.steps)
    else:
        times = _most_nodes(sde, solver, given, grid.times)
    return replace(given, grid=times, steps=None, evaluations=None)


def _most_nodes(sde: SDE, solver: Solver, given: SolveOptions, nodes_for: Callable[[int], Tensor]) -> Tensor:
    """The nodes of the largest number of steps that the evaluations pay for."""
    wanted: Any = given.evaluations
    for count in range(max(1, solver.steps_for(wanted, limits=2)), 0, -1):
        nodes = nodes_for(count)
        spent = _spent(sde, solver, nodes, given.denoise)
        if spent <= wanted:
            return nodes
    raise InvalidArgumentError(f"`evaluations` must be at least {spent} for {solver.name!r} here, got {wanted}.")


def _spent(sde: SDE, solver: Solver, nodes: Tensor, denoise: bool) -> int:
    """The evaluations of a solve on a grid; steps back cost none."""
    visited = solver.visit(sde, nodes)
    steps = int((visited.diff() * (nodes[-1] - nodes[0]) > 0).sum())
    if not isinstance(sde, AffineSDE):
        return solver.cost(steps)
    ends = sde.log_snr(nodes[[0, -1]].detach())
    return solver.cost(steps, int(ends.isinf().sum())) + (denoise and float(ends[1]) < math.inf)


def _steps(
    sde: SDE, course: _Course, dtypes: tuple[torch.dtype, torch.dtype | None]
) -> tuple[Controller, Solver, int | None, Recorder | None]:
    """The controller, the method (with the settings of its steps, if it makes them itself), the most steps, and what
    keeps states."""
    given, solver, times = course.given, course.solver, course.times
    saved = check_save_at(given.save_at, sde, times)
    nodes = torch.zeros(0, dtype=torch.float64)
    if not solver.adaptive and not solver.own_steps:

        def nodes_for(steps: int | None) -> Tensor:
            return _with_saved(_nodes(sde, solver, times, course.values, given.grid, steps), saved, times)

        counted = given.evaluations is None or times[0] == times[1]
        nodes = nodes_for(given.steps) if counted else _most_nodes(sde, solver, given, nodes_for)
        saved = [_on_node(t, nodes) for t in saved]
    controller, limit = _controller(sde, solver, times, nodes, saved, given, dtypes)
    if solver.own_steps:
        solver, limit = _told(solver, given, limit, dtypes), None
    recorder = None if given.save_at is None else Recorder("steps" if isinstance(given.save_at, str) else saved)
    return controller, solver, limit, recorder


def _told_of_path(
    given: SolveOptions, solver: Solver, eta: float, sde: SDE, state: Tensor, dtype: torch.dtype, *, drawn: bool
) -> Told:
    """What a path needs besides its states, of which the first may be ``drawn`` from the prior."""
    if dtype != state.dtype:
        raise InvalidArgumentError(
            f"`path_log_prob` needs states that are returned as they are computed, but {dtype} is rounded from "
            f"{state.dtype}; pass dtype={state.dtype}."
        )
    known = drawn and isinstance(sde.prior, NormalPrior)
    prior = sde.prior.log_prob(state.to(torch.float64)) if known else None
    seeds = given.seed if given.seeds is None else list(check_integers("seeds", given.seeds, low=0))
    return Told(solver, eta, prior, seeds)


def _started(sde: SDE, start: GaussianStart | None, t_start: float | None) -> float | None:
    """Where the method begins."""
    if start is None:
        return t_start
    if not (isinstance(sde, AffineSDE) and sde.same_schedule(start.sde)):
        raise InvalidArgumentError(f"`start` was made for {start.sde!r}, but `sde` is {sde!r}.")
    if t_start is not None:
        raise InvalidArgumentError("`t_start` follows from `start`; leave it out.")
    return start.t


def _times(sde: SDE, given: SolveOptions) -> tuple[tuple[float, float], Tensor | None]:
    """The ends of the solve, and the grid itself if it was given as times."""
    grid, t_start, t_end, start = given.grid, given.t_start, given.t_end, given.start
    if is_times(grid):
        own = None if start else t_start
        wanted = ("steps", given.steps), ("evaluations", given.evaluations), ("t_start", own), ("t_end", t_end)
        for name, value in wanted:
            if value is not None:
                raise InvalidArgumentError(f"`{name}` follows from `grid`; leave it out.")
        values = check_times("grid", grid.times_for(sde) if isinstance(grid, Grid) else grid).clone()
        if len(values):
            values[0], values[-1] = grids.snap(float(values[0]), sde), grids.snap(float(values[-1]), sde)
        values = grids.check_times(values, sde.t_min, sde.t_max)
        if start is not None and not math.isclose(float(values[0]), start.t, rel_tol=1e-6):
            raise InvalidArgumentError(
                f"`grid` must begin where the start ends, at t={start.t:g}, got {float(values[0]):g}."
            )
        return (float(values[0]), float(values[-1])), values
    first = grids.time_of("t_start", t_start, sde, sde.t_max)
    return (first, grids.time_of("t_end", t_end, sde, sde.t_min)), None


def _with_its_grid(given: SolveOptions) -> SolveOptions:
    """The options with the method and the grid, of which a fitted grid in the place of the method gives both."""
    method = given.method
    if not isinstance(method, Grid):
        return given
    if given.solver_options:
        raise InvalidArgumentError(f"`method` brings its options; leave {min(given.solver_options)!r} out.")
    for name in ("grid", "steps", "evaluations", "rtol", "atol", "t_start", "t_end"):
        if getattr(given, name) is not None:
            raise InvalidArgumentError(f"`{name}` follows from `method`, which brings its grid; leave it out.")
    if not method.method:
        raise InvalidArgumentError("`method` is a grid without a method; pass it as `grid`, beside a method.")
    return replace(given, method="auto", grid=method)


def _chosen(sde: SDE, score: Score, given: SolveOptions, free: bool) -> tuple[SolveOptions, NoiseStart | None]:
    """The options with the method for ``method="auto"``, the number of evaluations unless a grid or tolerances set it,
    and its grid if none is given; and where it begins, if it is free to."""
    grid, options = given.grid, given.solver_options
    if isinstance(grid, Grid) and grid.method and not options:
        return replace(given, method=from_config(grid.method)), None
    if is_times(grid):
        count = len(grid.times if isinstance(grid, Grid) else grid) - 1  # type: ignore[arg-type]
        return replace(given, method=choose(sde.affine, max(1, count), options).solver), None
    if given.steps is not None:
        warn_caller(
            f"With method='auto' the number of evaluations is `evaluations`: pass evaluations={given.steps} in place "
            f"of steps={given.steps}."
        )
        given = replace(given, evaluations=given.steps, steps=None)
    free_of = given.rtol is None and given.atol is None and given.log_prob is False
    if given.evaluations is None and free_of and sde.affine:
        given = replace(given, evaluations=getattr(grid, "default_steps", DEFAULT_EVALUATIONS))
    evaluations = given.evaluations
    if evaluations is not None:
        evaluations = max(1, evaluations - given.denoise)
    choice, unit = choose(sde.affine, evaluations, options), unit_of(score.traits.data_std)
    given = replace(given, method=choice.solver)
    if choice.grid is None or grid is not None:
        return given, None
    start = NoiseStart.of(sde, unit, choice.level) if free and isinstance(sde, AffineSDE) else None
    if start and start.t <= grids.time_of("t_end", given.t_end, sde, sde.t_min) * (1 + _ALIKE):
        start = None  # the solve ends before that
    return replace(given, grid=choice.grid_for(unit), t_start=start.t if start else given.t_start), start


def _warn_of_use(argument: str, grid: Grid, score: Score, names: tuple[str, ...]) -> None:
    """Warn where a grid was made with other names of a context, or for another prediction, as far as known."""
    found = []
    if grid.context is not None:
        missing = [name for name in grid.context if name not in names and score.accepts(name)]
        added = [name for name in names if name not in grid.context]
        found += [f"with the context {name!r}, which is missing here" for name in missing]
        found += [f"without the context {name!r}, which is given here" for name in added]
    prediction = score.traits.prediction
    if grid.prediction and prediction not in (None, grid.prediction):
        found.append(f"for a network that predicts {grid.prediction!r}, while this one predicts {prediction!r}")
    if found:
        warn_caller(
            f"`{argument}` was made {', and '.join(found)}. It holds for what it was made with; make another one for "
            "this solve."
        )


def is_times(grid: GridChoice) -> bool:
    """Whether a grid is a list of times."""
    return isinstance(grid, Grid | Tensor | list | tuple | np.ndarray)


def _check_fit(sde: SDE, score: Score, solver: Solver, times: tuple[float, float], given: SolveOptions) -> None:
    """Refuse combinations that cannot work."""
    start, end = times
    if solver.kind == "forward":
        raise InvalidArgumentError(f"method={solver.name!r} runs the process forwards; scoresde.simulate takes it.")
    if solver.affine and not sde.affine:
        raise InvalidArgumentError(
            f"method={solver.name!r} needs alpha and sigma, which {type(sde).__name__} does not have; try "
            "'euler_maruyama' or 'heun'."
        )
    if start < end and solver.stochastic:
        raise InvalidArgumentError(
            f"t_start={start:g} < t_end={end:g} encodes, which needs a deterministic method; {solver.name!r} draws "
            "noise. Try method='rk45', or scoresde.simulate."
        )
    if given.stochasticity is not None and not solver.takes_stochasticity:
        raise InvalidArgumentError(
            f"method={solver.name!r} has no stochasticity; methods that take it, alone or as predictor of pc: "
            f"{', '.join(drift_methods())}. A method of your own that uses it declares takes_stochasticity = True."
        )
    if solver.adaptive:
        for option in ("steps", "evaluations", "grid"):
            if getattr(given, option) is not None:
                raise InvalidArgumentError(
                    f"`{option}` does not apply to {solver.name!r}, which chooses its steps; set rtol and atol, or "
                    "max_steps."
                )
    else:
        if solver.own_steps and given.grid is not None:
            raise InvalidArgumentError(
                f"`grid` does not apply to {solver.name!r}, which makes equal steps on its clock; set steps, or clock."
            )
        if solver.own_steps and given.evaluations is not None:
            raise InvalidArgumentError(
                f"`evaluations` does not apply to {solver.name!r}, whose steps evaluate as often as they "
                "need; set steps."
            )
        for option in ("rtol", "atol"):
            if getattr(given, option) is not None:
                raise InvalidArgumentError(
                    f"`{option}` does not apply to {solver.name!r}, which has fixed steps; set steps, or take an "
                    "adaptive method such as 'rk45'."
                )
    if isinstance(sde, AffineSDE) and start != end:
        check_limits(sde, score, solver, times)


def _initial(sde: SDE, score: Score, x: Tensor | None, course: _Course) -> tuple[Tensor, Noise, torch.dtype]:
    """The state where the solve begins, in its compute dtype, the source of noise, and the dtype to return. A state
    that is not finite is refused, unless its sample can be left out."""
    given, solver, first = course.given, course.solver, course.first
    event_shape, shape, dtype, seeds = score.traits.event_shape, given.shape, given.dtype, given.seeds
    if x is not None:
        check_state("x", x)
        check_no_vmap("x", x)
        if shape is not None and shape != tuple(x.shape):
            raise InvalidArgumentError(
                f"`shape` {tuple(shape)} differs from that of `x`, {tuple(x.shape)}; leave it out."
            )
        full, out_dtype = tuple(x.shape), dtype or x.dtype
        where = check_device(given.device, x.device)
    else:
        if first != sde.t_max:
            raise InvalidArgumentError(
                f"`x` is missing, but t_start={first:g} is not t_max={sde.t_max:g}, where the prior is; give x at "
                "t_start."
            )
        count = 1
        if isinstance(seeds, Sequence | np.ndarray | Tensor) and getattr(seeds, "ndim", 1) == 1:
            count = len(seeds)
        full = shape_to_draw(shape, event_shape, count, "batch")
        out_dtype = dtype or torch.get_default_dtype()
        where = check_device(given.device, score.network_device)
    if event_shape is not None and full[1:] != event_shape:
        raise InvalidArgumentError(
            f"The score function is for events of shape {event_shape}, but the state is {full}, with events {full[1:]}."
        )
    source = resolve_noise(
        seed=given.seed, seeds=seeds, generator=given.generator, noise=given.noise, device=where, batch=full[0]
    )
    compute = compute_dtype(out_dtype)
    if x is None:
        state = sde.prior.from_normal(source.normal(torch.empty(full, dtype=compute, device=where)))
        if state.shape != full:
            raise InvalidArgumentError(f"The prior gave shape {tuple(state.shape)} for {full}; see prior.from_normal.")
    else:
        state = x.to(device=where, dtype=compute, copy=True)  # whoever writes to it does not write to the caller's
    coupled = solver.batch_coupled and not solver.own_steps
    if given.throw or coupled:
        check_finite_rows(
            "The draw of the prior" if x is None else "`x`",
            state,
            f"{solver.name!r} steps samples together; leave them out" if coupled else _LEFT_OUT,
        )
    if course.moved is not None and course.moved.t != sde.t_max:
        state = course.moved.state(state)
    return state, source, out_dtype


def _told(
    solver: Any, given: SolveOptions, limit: int | None, dtypes: tuple[torch.dtype, torch.dtype | None]
) -> Solver:
    """A solver that makes its own steps, with the arguments of the solve that it needs; those not given keep its own
    values."""
    told: dict[str, object] = {"lenient": not given.throw}
    if limit is not None:
        told["max_steps"] = limit
    if solver.adaptive:
        rtol, atol = (getattr(solver if getattr(given, n) is None else given, n) for n in ("rtol", "atol"))
        told["rtol"], told["atol"] = tolerances(rtol, atol, *dtypes)
    elif given.steps is not None:
        told["steps"] = given.steps
    return replace(solver, **told)


def _nodes(
    sde: SDE, solver: Solver, times: tuple[float, float], given: Tensor | None, grid: GridChoice, steps: int | None
) -> Tensor:
    """The times of a fixed grid."""
    if given is None:
        count = solver.default_steps if steps is None else steps
        if times[0] == times[1]:
            return torch.tensor(times[:1], dtype=torch.float64)
        known = (grid is None or isinstance(grid, str)) and not transforming()
        constants = constants_of(sde) if known else None
        if constants is None:
            return _separate(sde, grids.resolve(grid, sde, *times, count))
        key = constants, grid, times, count
        return _GRIDS.get(key, lambda: _separate(sde, grids.resolve(grid, sde, *times, count)))
    return _separate(sde, given)


def _separate(sde: SDE, times: Tensor) -> Tensor:
    """The times of a grid, or an error where two that follow each other have the same log-SNR."""
    if isinstance(sde, AffineSDE):
        still = sde.log_snr(times.detach()).diff() == 0
        if bool(still.any()):
            i = int(still.int().argmax())
            raise InvalidArgumentError(
                f"`grid` must have times with different log-SNRs; entries {i} and {i + 1}, {float(times[i]):.17g} and "
                f"{float(times[i + 1]):.17g}, have the same."
            )
    return times


def _with_saved(nodes: Tensor, saved: list[float], times: tuple[float, float]) -> Tensor:
    """The nodes, and the times to save that are not among them."""
    missing = {t for t in (_on_node(t, nodes) for t in saved) if t not in times and not bool((nodes == t).any())}
    if not missing:
        return nodes
    merged = torch.cat([nodes, torch.tensor(sorted(missing), dtype=torch.float64)])
    return merged.sort(descending=times[1] < times[0]).values


def _on_node(t: float, nodes: Tensor) -> float:
    """A time that differs from a node by rounding is the node."""
    near = float(nodes.detach()[(nodes.detach() - t).abs().argmin()])
    return near if abs(near - t) <= _ROUNDING * max(abs(t), abs(near)) else t


def _controller(
    sde: SDE,
    solver: Solver,
    times: tuple[float, float],
    nodes: Tensor,
    saved: list[float],
    given: SolveOptions,
    dtypes: tuple[torch.dtype, torch.dtype | None],
) -> tuple[Controller, int | None]:
    limit = given.max_steps
    start, end = times
    sign = 1.0 if end > start else -1.0
    inner = sorted({t for t in saved if t not in times}, key=lambda t: sign * t)
    if solver.own_steps:
        return FixedGrid(torch.tensor([start, *inner, end], dtype=torch.float64)), limit
    if solver.adaptive:
        allowed = tolerances(given.rtol, given.atol, *dtypes)
        return Adaptive(start, (*inner, end), *allowed), DEFAULT_MAX_STEPS if limit is None else limit
    return FixedGrid(solver.visit(sde, nodes)), limit


def _standing(state: Tensor, t: float, recorder: Recorder | None) -> Solution:
    """The solution of a solve without a step."""
    zeros = torch.zeros(len(state), dtype=torch.long)
    good = row_finite(state.detach())
    x = where(good, state.clone(), torch.full_like(state, torch.nan))
    ts, xs = None, None
    if recorder is not None:
        recorder.record(t, x)
        ts, xs = recorder.result(x)
    return Solution(
        x,
        torch.full((len(x),), t, dtype=torch.float64),
        zeros,
        0,
        zeros.clone(),
        zeros.clone(),
        0,
        torch.where(good.cpu(), zeros + Status.SUCCESS, zeros + Status.NON_FINITE),
        ts,
        xs,
    )


def _denoised(process: Any, solution: Solution, t_end: float, throw: bool) -> Asking[Solution]:
    """Tweedie's estimate at the end; where sigma is 0 the state is its own estimate."""
    node = process.sde.node(t_end)
    done = solution.success
    if node.sigma == 0.0 or not bool(done.any()):
        return solution
    calls = process.network.calls
    mask = done.to(solution.x.device)
    data = (yield process.estimate(where(mask, solution.x, torch.zeros_like(solution.x)), node)).data
    used = process.network.calls - calls
    solution = replace(
        solution,
        x=where(mask, data, solution.x),
        nfe=solution.nfe + used * done.long(),
        evaluations=solution.evaluations + used,
        denoised=True,
    )
    return _finite_or_marked(solution, throw, "score", f"The score at t_end={t_end:g} is not finite", t_end)


def _warn_of_range(process: Any, solution: Solution, t_end: float) -> None:
    """Warn where many samples are far outside the range that the network declares for its data."""
    x, declared = solution.x, getattr(process.network.score_fn, "data_range", None)
    if declared is None or transforming() or not x.numel():
        return
    (low, high), node, x = declared, process.sde.node(t_end), x.detach()
    limit = _OUTSIDE * (high - low) * node.alpha + _NOISES * node.sigma  # a state has noise until it is denoised
    beyond = (x - x.clamp(low * node.alpha, high * node.alpha)).flatten(1).square().mean(1).sqrt()
    share = float((beyond > limit).double().mean())
    if share > _SOME:
        warn_caller(
            f"{share:.0%} of the samples leave the range of the data that the network declares, from {low:g} to "
            f"{high:g}, by more than half of its width. Take more steps; if that does not help, the network is "
            "unreliable, as networks may be at high noise: examine it with scoresde.check_score, and limit its data "
            "estimates with scoresde.scores.Clip."
        )


def _warn_of_scale(process: Any, solution: Solution, t_end: float, steps: int) -> None:
    """Warn where the samples show another scale than the rule of few evaluations is for. Samples that are not much
    smaller than the noise of the prior show a network that errs."""
    x, sde = solution.x.detach(), process.sde
    if transforming() or x.numel() < _FEWEST or not bool(solution.success.all()):
        return
    std = _unusual_scale(sde, x, t_end)
    if std is not None:  # samples far from all others are no scale
        std = _unusual_scale(sde, x[~far_from_most(x)], t_end)
    if std is not None:
        warn_caller(
            f"method='auto' with {steps} evaluations is for data with a standard deviation near 1, but that of these "
            f"samples is {std:g}, and their errors may be several times as large as they need to be. Declare it, as "
            f"score_fn.data_std = {std:g}, or take method=scoresde.tune(sde, score_fn, {steps})."
        )


def _unusual_scale(sde: AffineSDE, x: Tensor, t_end: float) -> float | None:
    """The standard deviation of the data that samples show, where it is far from 1."""
    node, prior, size = sde.node(t_end), sde.node(sde.t_max), float(x.std())
    if 2 * float(node.sigma) >= size or float(node.alpha) <= 0:  # what is left is noise
        return None
    if _CLEAR * size / float(node.alpha) * float(prior.alpha) > float(prior.sigma):
        return None
    std = float(f"{size / float(node.alpha):.1g}")
    return None if 1 / _FAR < unit_of(std) < _FAR else std


def _rounded(solution: Solution, dtype: torch.dtype, throw: bool) -> Solution:
    """The solution in the dtype to return."""
    if dtype == solution.x.dtype:
        return solution
    xs = None if solution.xs is None else solution.xs.to(dtype)
    solution = replace(solution, x=solution.x.to(dtype), xs=xs)
    return _finite_or_marked(solution, throw, "state", f"The result does not fit into {dtype}", None)


def _finite_or_marked(solution: Solution, throw: bool, stage: str, what: str, t: float | None) -> Solution:
    """Raise, or mark samples that were fine and are not finite any more."""
    bad = solution.success & ~row_finite(solution.x.detach()).cpu()
    if not bool(bad.any()):
        return solution
    marked = replace(
        solution,
        x=where(bad.to(solution.x.device), torch.full_like(solution.x, torch.nan), solution.x),
        status=torch.where(bad, torch.full_like(solution.status, Status.NON_FINITE), solution.status),
    )
    if throw:
        refuse_rows(bad, f"{what} in", "; pass throw=False to keep the others", stage, t=t, partial=marked)
    return marked
