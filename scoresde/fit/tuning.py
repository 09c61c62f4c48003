r"""The method and the grid that are best for a network and a number of evaluations, measured on it.

No rule knows which method has the smallest error at few evaluations: it depends on how rough the network is, and on its
process. `tune` solves a pilot with every candidate, and, unless it is given a reference, with twice as many evaluations
as well. A candidate whose results change little is a good one, as the error of a method of order p falls to
:math:`2^{-p}`; the finer results of the three that change least then stand for the exact ones, and all candidates are
ranked by their distance from these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import grids
from .._checks import MOST_STEPS, check_integer
from ..errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, short
from ..grids import VPTime
from ..sdes import SDE
from ..sdes.base import check_affine
from ..solvers import Solver, choose, make_solver
from ..solvers.registry.auto import is_few, unit_of
from ..solvers.registry.config import to_text
from .grid import check_method
from .pilot import Pilot, distances, summary
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
_REFERENCES = 3  # candidates whose finer results stand for the exact ones


class Entry(NamedTuple):
    """A candidate: its solver, its grid, and the name of that."""

    solver: Solver
    grid: GridChoice
    name: str

    def count(self, evaluations: int) -> int:
        """The largest number of steps with no more than so many evaluations; 0 if there is none."""
        return max(0, (evaluations - self.solver.extra_evaluations) // self.solver.evaluations)

    def results(self, pilot: Pilot, evaluations: int) -> Tensor:
        """The pilot's end states."""
        return pilot.solve(self.solver, pilot.times(self.grid, self.count(evaluations)))


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
            default); by default 15 of them and what ``method="auto"`` takes, if it is none of these.
        pilot: the number of samples; 16 are enough to find a candidate whose error is within some per cent of the
            smallest.
        reference: what the errors are measured against: by default the results of the three candidates that change
            least with twice as many evaluations (the geometric mean of the distances); the number of steps of
            `scoresde.solvers.UniPC3`, of which 40 cost less than the finer results; or the pilot's end states
            themselves.
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
        >>> scoresde.solve(sde, target.score(sde), method=tuned, shape=(3, 2)).evaluations
        6
    """
    sde = check_affine(sde)
    steps = check_integer("steps", steps, low=1, high=MOST_STEPS)
    batch = Pilot.of(
        sde, score_fn, pilot, checkpoint=False, noise_start=is_few(steps), x=x, shape=shape, seed=seed, t_start=t_start,
        t_end=t_end, context=context, dtype=dtype, device=device,
    )  # fmt: skip
    auto = _auto(batch, steps)
    listed = candidates_of(batch, steps) if candidates is None else _listed(candidates, batch)
    entries = [entry for entry in listed if entry.count(steps)]
    if not entries:
        raise InvalidArgumentError(f"No candidate can make a step with {steps} evaluations; take more `steps`.")
    coarse = [entry.results(batch, steps) for entry in entries]
    if reference is None:
        fine = [entry.results(batch, 2 * steps) for entry in entries]
        changes = [_score(distances(a, b)) for a, b in zip(coarse, fine, strict=True)]
        exact = [fine[i] for i in sorted(range(len(entries)), key=changes.__getitem__)[:_REFERENCES]]
    else:
        exact = [batch.reference(reference)]
    batch.warn_of_scale(exact[0])
    errors = [_mean(torch.stack([distances(x, known) for known in exact])) for x in coarse]
    order = sorted(range(len(entries)), key=lambda i: _score(errors[i]))
    if not math.isfinite(_score(errors[order[0]])):
        raise NonFiniteError(
            "Every candidate gave NaN or infinity in at least one sample; take more steps, or check the network with "
            "scoresde.check_score.",
            stage="state",
        )
    batch.warn_of_modes(errors[order[0]], exact[0])
    best = entries[order[0]]
    times = batch.times(best.grid, best.count(steps))
    with torch.no_grad():
        log_snr = sde.log_snr(times)
    known = [i for i, entry in enumerate(entries) if entry == auto]
    return Tuned(
        tuple(times.tolist()),
        method=to_text(best.solver),
        process=repr(sde),
        from_noise=batch.from_noise,
        log_snr=tuple(log_snr.tolist()),
        fitted=summary(errors[order[0]]),
        default=summary(errors[known[0]]) if known else Errors(math.nan, math.nan),
        cost=batch.cost,
        **batch.made_with,
        evaluations=steps,
        ranking=tuple(_ranked(entries[i], errors[i], errors[order[0]]) for i in order),
    )


def _auto(pilot: Pilot, steps: int) -> Entry:
    """What ``method="auto"`` takes."""
    choice = choose(True, steps, ())
    grid = choice.grid and choice.grid.for_data(unit_of(pilot.score.traits.data_std))
    return Entry(choice.solver, grid, "default" if grid is None else str(grid))


def candidates_of(pilot: Pilot, steps: int) -> list[Entry]:
    """What ``method="auto"`` takes, and the list, without those that make the same steps; on the default grid where a
    process has an end that their grids have not."""
    with torch.no_grad():
        endless = not all(math.isfinite(float(pilot.sde.log_snr(t))) for t in (pilot.start, pilot.end))
    entries = [Entry(make_solver(name, options, ()), grid, str(grid)) for name, options, grid in CANDIDATES]
    if endless:
        entries = [entry._replace(grid=None, name="default") for entry in entries]
    found: dict[tuple[Solver, tuple[float, ...]], Entry] = {}
    for entry in (_auto(pilot, steps), *entries):
        count = entry.count(steps)
        times = tuple(pilot.times(entry.grid, count).tolist()) if count else ()
        found.setdefault((entry.solver, times), entry)
    return list(found.values())


def _listed(candidates: Any, pilot: Pilot) -> list[Entry]:
    """The candidates that are given, checked."""
    if not isinstance(candidates, Sequence) or isinstance(candidates, str) or not candidates:
        raise InvalidTypeError(f"`candidates` must be a list of pairs (method, grid), got {short(candidates)}.")
    entries = []
    for i, pair in enumerate(candidates):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise InvalidTypeError(f"`candidates[{i}]` must be a pair (method, grid), got {short(pair)}.")
        solver = make_solver(pair[0], {}, ())
        check_method(solver)
        pilot.times(pair[1], 2)
        entries.append(Entry(solver, pair[1], "default" if pair[1] is None else _name(pair[1])))
    return entries


def _name(grid: Any) -> str:
    """A grid as text."""
    return grid if isinstance(grid, str) else getattr(grid, "__name__", repr(grid))


def _score(errors: Tensor) -> float:
    """What candidates are compared by: the mean of the logarithms, which varies least from pilot to pilot."""
    return float(errors.clamp_min(_LEAST).log().mean())


def _mean(errors: Tensor) -> Tensor:
    """The geometric mean over references."""
    return errors.clamp_min(_LEAST).log().mean(0).exp()


def _ranked(entry: Entry, errors: Tensor, best: Tensor) -> Ranked:
    """A row of the ranking."""
    ratios = errors.clamp_min(_LEAST).log() - best.clamp_min(_LEAST).log()
    spread = float(ratios.std()) / math.sqrt(len(ratios)) if bool(ratios.isfinite().all()) else math.inf
    whole, behind = summary(errors), float(ratios.mean().exp())
    return Ranked(to_text(entry.solver), entry.name, whole.rms, whole.median, behind, spread)
