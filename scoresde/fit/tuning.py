r"""The method and the grid that are best for a network and a number of evaluations, measured on it.

No rule knows which method has the smallest error at few evaluations: it depends on how rough the network is, and on its
process. `tune` solves a pilot with every candidate, and, unless it is given a reference, with twice as many evaluations
as well. The candidate whose results change least is the better one, as the error of a method of order p falls to
:math:`2^{-p}`; its finer results then stand for the exact ones, and all candidates are ranked by their distance from
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import grids
from .._arguments import context_of, shape_to_draw
from .._checks import MOST_DRAWS, MOST_STEPS, check_integer
from ..errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, short
from ..grids import VPTime
from ..noise import check_seed
from ..scores import as_score
from ..sdes import SDE, AffineSDE
from ..sdes.base import check_affine
from ..solvers import Solver, choose, make_solver
from ..solvers.registry.config import to_text
from ..solving import solve
from .grid import check_method
from .pilot import Watched, pilot_states, reference_ends, squares
from .records import Errors, Ranked, Tuned

GridChoice = str | grids.GridFunction | None
Candidate = tuple[str | Solver, GridChoice]

# Methods and grids that are among the best somewhere: see `benchmarks.few`.
CANDIDATES: tuple[tuple[str, Mapping[str, Any], GridChoice], ...] = (
    ("dpm_2m", {}, "vp_quadratic"),
    ("dpm_2m", {}, VPTime(0.3, 0.375)),
    ("dpm_2m", {}, "log_snr"),
    ("dpmpp_2m", {}, "log_snr"),
    ("unipc2", {}, "log_snr"),
    ("unipc2", {"lower_order_final": True}, VPTime(0.3, 0.25)),
    ("tab2", {"clock": "vp_time"}, "vp_quadratic"),
    ("tab2", {"clock": "vp_time"}, VPTime(0.3, 0.25)),
    ("tab2", {"clock": "vp_time"}, VPTime(0.3, 0.5)),
    ("dpm_3m", {}, "log_snr"),
    ("dpm_3m", {}, "karras"),
    ("dpm_3m", {"start_up": "published"}, "log_snr"),
    ("unipc3", {}, "log_snr"),
    ("ipndm", {}, VPTime(0.3, 0.25)),
    ("ddim", {}, VPTime(0.3, 0.25)),
)


_LEAST = 1e-300  # an error that is 0 has a logarithm, too


class _Entry(NamedTuple):
    """A candidate: its solver, its grid, and the name of that."""

    solver: Solver
    grid: GridChoice
    name: str


def tune(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    steps: int,
    *,
    candidates: Sequence[Candidate] | None = None,
    pilot: int = 16,
    reference: int | Tensor | None = None,
    x: Tensor | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    t_start: float | None = None,
    t_end: float | None = None,
    context: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tuned:
    r"""Choose the method and the grid for a score function, a process and a number of evaluations, by measuring.

    The choice holds for this network, this process, this number of evaluations and this context (its labels, and the
    scale of its guidance).

    Args:
        sde: an affine process.
        score_fn: as for `solve`.
        steps: the number of evaluations of a solve.
        candidates: pairs of a deterministic method with fixed steps and a grid (a name, a function, or None for the
            default); by default 15 of them and what ``method="auto"`` takes.
        pilot: the number of samples; 16 are enough to find a candidate whose error is within some per cent of the
            smallest.
        reference: what the errors are measured against: by default the results of the best candidate with twice as
            many evaluations; the number of steps of `scoresde.solvers.UniPC3`, which at 40 is cheaper up to 10
            evaluations; or the pilot's end states themselves.
        x: the pilot's states at ``t_start`` instead of draws from the prior.
        shape: ``(pilot, *event)``, where the score function does not declare the shape of its events.
        seed: of the pilot.
        t_start, t_end: the interval, as for `solve`.
        context: as for `scoresde.solve`, of the pilot.
        dtype, device: of the pilot.

    Returns:
        A `Tuned`, with the ranking of the candidates, the uncertainty of it, and the cost.

    Raises:
        InvalidArgumentError: an argument does not fit, or no candidate can make so few evaluations.
        NonFiniteError: no candidate gave a finite result.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> tuned = tune(sde, target.score(sde), 6)
        >>> tuned.fitted.median <= tuned.default.median
        True
        >>> solve(sde, target.score(sde), method=tuned, shape=(3, 2)).evaluations
        6
    """
    sde = check_affine(sde)
    steps = check_integer("steps", steps, low=1, high=MOST_STEPS)
    check_integer("pilot", pilot, low=2, high=MOST_DRAWS)
    watched = Watched(as_score(score_fn), checkpoint=False)
    ends = grids.time_of("t_start", t_start, sde, sde.t_max), grids.time_of("t_end", t_end, sde, sde.t_min)
    if ends[0] == ends[1]:
        raise InvalidArgumentError(f"There is nothing to choose between t_start={ends[0]:g} and t_end={ends[1]:g}.")
    if x is None and ends[0] != sde.t_max:
        raise InvalidArgumentError(f"`x` is missing, but t_start={ends[0]:g} is not t_max={sde.t_max:g}.")
    seed = check_seed("seed", seed)
    drawn = () if x is not None else shape_to_draw(shape, watched.traits.event_shape, pilot, "pilot")
    x = pilot_states(sde, x, drawn, seed, dtype, device)
    if len(x) < 2:
        raise InvalidArgumentError(f"The pilot must have at least 2 samples, got {len(x)}.")
    context = context_of(context, watched, x)
    auto = _auto(sde, steps)
    entries = [entry for entry in _listed(candidates, sde, ends, auto) if _count(entry.solver, steps)]
    if not entries:
        raise InvalidArgumentError(f"No candidate can make a step with {steps} evaluations; take more `steps`.")

    def results(entry: _Entry, evaluations: int) -> Tensor:
        times = grids.resolve(entry.grid, sde, *ends, _count(entry.solver, evaluations))
        return solve(sde, watched, x, method=entry.solver, grid=times, context=context, throw=False).x

    with torch.no_grad():
        coarse = [results(entry, steps) for entry in entries]
        if reference is None:
            fine = [results(entry, 2 * steps) for entry in entries]
            changes = [_score(_distances(a, b)) for a, b in zip(coarse, fine, strict=True)]
            exact = fine[min(range(len(entries)), key=changes.__getitem__)]
        else:
            exact = reference_ends(sde, watched, x, ends, reference, context)
        errors = [_distances(a, exact) for a in coarse]
        order = sorted(range(len(entries)), key=lambda i: _score(errors[i]))
        if not math.isfinite(_score(errors[order[0]])):
            raise NonFiniteError("No candidate gave a finite result; take more steps.", stage="state")
        best = entries[order[0]]
        times = grids.resolve(best.grid, sde, *ends, _count(best.solver, steps))
        log_snr = sde.log_snr(times)
    known = [i for i, entry in enumerate(entries) if entry == auto]
    return Tuned(
        tuple(times.tolist()),
        method=to_text(best.solver),
        process=repr(sde),
        log_snr=tuple(log_snr.tolist()),
        fitted=_summary(errors[order[0]]),
        default=_summary(errors[known[0]]) if known else Errors(math.nan, math.nan),
        cost=watched.cost(len(x)),
        evaluations=steps,
        ranking=tuple(_ranked(entries[i], errors[i], errors[order[0]]) for i in order),
    )


def _auto(sde: AffineSDE, steps: int) -> _Entry:
    """What ``method="auto"`` takes."""
    solver, _ = choose(True, steps, ())
    return _Entry(solver, None, "default")


def _listed(candidates: Any, sde: AffineSDE, ends: tuple[float, float], auto: _Entry) -> list[_Entry]:
    """The candidates that are given, checked; or those of the list whose grids the process has, and ``auto``."""
    if candidates is None:
        with torch.no_grad():
            endless = not all(math.isfinite(float(sde.log_snr(t))) for t in ends)
        entries = [_Entry(make_solver(name, options, ()), grid, str(grid)) for name, options, grid in CANDIDATES]
        if endless:  # whose grids have no end there
            entries = [entry._replace(grid=None, name="default") for entry in entries]
        return list(dict.fromkeys([auto, *entries]))
    if not isinstance(candidates, Sequence) or isinstance(candidates, str) or not candidates:
        raise InvalidTypeError(f"`candidates` must be a list of pairs (method, grid), got {short(candidates)}.")
    entries = []
    for i, pair in enumerate(candidates):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise InvalidTypeError(f"`candidates[{i}]` must be a pair (method, grid), got {short(pair)}.")
        solver = make_solver(pair[0], {}, ())
        check_method(solver)
        grids.resolve(pair[1], sde, *ends, 2)
        entries.append(_Entry(solver, pair[1], "default" if pair[1] is None else _name(pair[1])))
    return entries


def _name(grid: Any) -> str:
    """A grid as text."""
    return grid if isinstance(grid, str) else getattr(grid, "__name__", repr(grid))


def _count(solver: Solver, evaluations: int) -> int:
    """The largest number of steps with no more than so many evaluations; 0 if there is none."""
    return max(0, (evaluations - solver.extra_evaluations) // solver.evaluations)


def _distances(x: Tensor, exact: Tensor) -> Tensor:
    """The RMS over dimensions of each sample's error; infinite for one that failed."""
    return squares(x, exact).sqrt().nan_to_num(nan=math.inf)


def _score(errors: Tensor) -> float:
    """What candidates are compared by: the mean of the logarithms of the median and of the RMS."""
    both = _summary(errors)
    return 0.5 * (math.log(max(both.median, _LEAST)) + math.log(max(both.rms, _LEAST)))


def _summary(errors: Tensor) -> Errors:
    return Errors(float(errors.square().mean().sqrt()), float(errors.median()))


def _ranked(entry: _Entry, errors: Tensor, best: Tensor) -> Ranked:
    """A row of the ranking."""
    ratios = errors.clamp_min(_LEAST).log() - best.clamp_min(_LEAST).log()
    spread = float(ratios.std()) / math.sqrt(len(ratios)) if bool(ratios.isfinite().all()) else math.inf
    summary, behind = _summary(errors), float(ratios.mean().exp())
    return Ranked(to_text(entry.solver), entry.name, summary.rms, summary.median, behind, spread)
