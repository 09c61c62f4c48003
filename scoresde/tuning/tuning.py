r"""The method and the grid that are best for a network and a number of evaluations, measured on it.

No rule predicts which method has the smallest error at few evaluations: it depends on how rough the network is, and on
its process. `tune` solves a pilot accurately, and with every candidate, and ranks the candidates by their distance from
the accurate ends.

A method that draws noise ends nowhere near the end of an exact path, and may have better samples nevertheless. With
``objective="law"`` the distributions of the end states are compared instead, by an unbiased estimate of the energy
distance between the samples of a candidate and an accurate solve of the same pilot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, check_choice, short
from ..core.sdes import SDE
from ..core.sdes.base import check_affine
from ..core.support.checks import check_integer
from ..core.support.declared import alias
from ..grids import Angle, VPTime
from ..solvers import Solver, choose, make_solver
from ..solvers.registry.auto import HIGH, NOISE, level_of
from ..solvers.registry.config import to_text
from .grid import check_fixed
from .objectives import OBJECTIVES, Comparison, accurate
from .pilot import Pilot
from .records import PilotErrors, Ranked, Tuned

GridChoice = str | grids.GridFunction | None
Candidate = tuple[str | Solver, GridChoice]
Row = tuple[str, Mapping[str, Any], GridChoice]

# Methods and grids that are among the best somewhere: see `benchmarks.few`.
CANDIDATES: tuple[Row, ...] = (
    ("unipc2", {"lower_order_final": True}, VPTime(0.3, 0.25)),
    ("unipc2", {"lower_order_final": True}, "tangent"),
    ("unipc2", {"lower_order_final": True}, "quadratic"),
    ("unipc2", {}, "log_snr"),
    ("dpm_2m", {}, Angle(1.0, 0.25)),
    ("dpm_2m", {}, Angle(1.0, 0.35)),
    ("dpm_3m", {"start_up": "published"}, Angle(1.0, 0.25)),
    ("dpm_3m", {"start_up": "published"}, Angle(1.0, 0.35)),
    ("dpm_3m", {"start_up": "published"}, Angle(2.0, 0.25)),
    ("dpm_3m", {"start_up": "published"}, Angle(3.0, 0.25)),
    ("dpm_3m", {}, "karras"),
    ("ipndm", {}, "time"),
    ("ipndm", {}, "quadratic"),
    ("ipndm", {}, "vp_quadratic"),
    ("ipndm", {}, "cosine"),
    ("euler", {}, "quadratic"),
    ("tab3", {}, "time"),
)

# Methods that draw noise and have better samples than all of these somewhere: see docs/few_evaluations.md.
STOCHASTIC: tuple[Row, ...] = (
    ("ddim_eta", {"eta": 0.25}, "karras"),
    ("ddim_eta", {"eta": 0.5}, "karras"),
    ("er_sde2", {}, "vp_quadratic"),
)


_MOST = 1000  # evaluations: what takes more needs no choice
_LOWERED = 2  # candidates that are begun lower, too


class Entry(NamedTuple):
    """A candidate: its solver, its grid, the name of that, and the level of noise above which it does not begin."""

    solver: Solver
    grid: GridChoice
    name: str
    level: float = math.inf

    def lower(self, pilot: Pilot) -> Entry:
        """The same, begun at a lower level."""
        return self._replace(level=NOISE, name=f"{self.name}, from sigma/alpha = {NOISE * pilot.unit:g}")

    def count(self, evaluations: int) -> int:
        """The largest number of steps with no more than so many evaluations; 0 if there is none."""
        return self.solver.steps_for(evaluations)

    def times(self, pilot: Pilot, evaluations: int) -> Tensor:
        """The times of its steps."""
        return self.begun(pilot).times(self.grid, self.count(evaluations))

    def results(self, pilot: Pilot, evaluations: int) -> Tensor:
        """The pilot's end states."""
        return self.begun(pilot).solve(self.solver, self.times(pilot, evaluations))

    def begun(self, pilot: Pilot) -> Pilot:
        """The pilot where it begins."""
        return pilot if self.level == math.inf else pilot.from_level(self.level)


@alias("steps", "evaluations")
def tune(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    evaluations: int,
    *,
    candidates: Sequence[Candidate] | None = None,
    objective: str = "log",
    pilot: int | None = None,
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
        evaluations: the number of calls of the network per sample, at most 1,000.
        candidates: pairs of a method with fixed steps and a grid (a name, a function, or None for the default); by
            default 17 of them and what ``method="auto"`` takes, if it is not one of these. The method is deterministic,
            unless distributions are compared. Up to 29 evaluations they begin at :math:`\sigma/\alpha` = 300, in units
            of the data, at most. Of the default list, what ``method="auto"`` takes and the best of the others are
            then tried from 100 as well, where ``auto`` begins with up to 14; a lower start is ranked only where it is
            better than the best of the list by two standard errors, since a pilot says little about the few samples
            that a lower start may send to another mode.
        objective: ``"log"``, the mean logarithm of the errors of the end points, to which :math:`3\ln(r/1.5)` is added
            where the RMS is r > 1.5 times the smallest, as single samples run away, of those whose mean is within
            :math:`\ln 1.5` of the smallest; or ``"law"``, the energy distance
            :math:`D^2 = 2E\|X-Y\| - E\|X-X'\| - E\|Y-Y'\|` between the distributions of a candidate's end states
            and of the reference's, estimated without bias. Then candidates may draw noise, and three that do are in the
            default list. With a context the distributions are those over all contexts of the pilot.
        pilot: the number of samples; by default as many as ``x`` or ``shape`` has, or 16, which are enough to find a
            candidate whose error is within some per cent of the smallest, or 256 where distributions are compared,
            which takes at least 16.
        reference: what the errors are measured against: a number of steps of `scoresde.solvers.UniPC3` from
            ``t_start``, by default 10 times as many as the candidates have, and 100 at least (100 where distributions
            are compared); or the pilot's end states themselves. Where distributions are compared, these may also be
            other samples of the wanted distribution, such as data with the contexts of the pilot.
        x: the pilot's states at ``t_start`` instead of draws from the prior.
        shape: ``(pilot, *event)``, where the score function does not declare the shape of its events.
        seed: of the pilot, and of the noise of candidates that draw any.
        t_start, t_end: the interval, as for `solve`.
        context: as for `scoresde.solve`, of the pilot.
        dtype, device: of the pilot; as of `solve`.

    Returns:
        A `Tuned`, with the ranking of the candidates, the uncertainty of it, and the cost. Where distributions are
        compared, candidates are ranked by :math:`D^2`, or by its standard error where that is larger: an estimate near
        0 or below it shows no more than that.

    Raises:
        InvalidArgumentError: an argument does not fit, a layer of the network is in training mode and
            depends on it, or no candidate can make so few evaluations.
        NonFiniteError: no candidate gave a finite result.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> tuned = tune(sde, target.score(sde), 6)
        >>> tuned.fitted.median <= tuned.default.median
        True
        >>> scoresde.solve(sde, target.score(sde), method=tuned, shape=(3, 2)).evaluations
        6
        >>> tuned = tune(sde, target.score(sde), 6, objective="law", pilot=64)
        >>> best, last = tuned.ranking[0], tuned.ranking[-1]
        >>> best.distance < last.distance
        True
    """
    sde = check_affine(sde)
    evaluations = check_integer("evaluations", evaluations, low=1, high=_MOST)
    comparison = OBJECTIVES[check_choice("objective", objective, OBJECTIVES)]
    batch = Pilot.of(
        sde, score_fn, pilot, comparison.pilot, checkpoint=False, level=level_of(evaluations, HIGH), x=x,
        shape=shape, seed=seed, t_start=t_start, t_end=t_end, context=context, dtype=dtype, device=device,
    )  # fmt: skip
    comparison.check(batch)
    listed = [] if candidates is None else _listed(candidates, batch, comparison)
    if listed and not any(entry.count(evaluations) for entry in listed):
        raise InvalidArgumentError(f"No candidate can make a step with {evaluations} evaluations; take more.")
    exact = comparison.exact(batch, evaluations) if reference is None else batch.reference(reference)
    if reference is not None:
        batch.warn_of_far(exact)
    batch.warn_of_high_noise(exact)
    declared, batch = batch, batch.measured(exact, level_of(evaluations, HIGH))
    auto = _auto(batch, evaluations)
    rows = (*CANDIDATES, *STOCHASTIC) if comparison.stochastic else CANDIDATES
    entries = [entry for entry in listed or candidates_of(batch, evaluations, rows) if entry.count(evaluations)]
    coarse = [entry.results(batch, evaluations) for entry in entries]
    compared = comparison(coarse, exact)
    order = sorted(range(len(entries)), key=compared.scores.__getitem__)
    lower: dict[Entry, Tensor] = {}
    if candidates is None:
        lower = _lower(
            batch, evaluations, [*(entry for entry in entries if entry == auto), *(entries[i] for i in order)]
        )
        better = [e for e, ends in lower.items() if _is_better(comparison([coarse[order[0]], ends], exact))]
        entries, coarse = [*entries, *better], [*coarse, *(lower[entry] for entry in better)]
        compared = comparison(coarse, exact)
        order = sorted(range(len(entries)), key=compared.scores.__getitem__)
    if not math.isfinite(compared.scores[order[0]]):
        raise NonFiniteError(
            "Every candidate gave NaN or infinity in at least one sample; take more steps, or check the network with "
            "scoresde.check_score.",
            stage="state",
        )
    compared.warn(batch, order[0])
    best = entries[order[0]]
    times = best.times(batch, evaluations)
    with torch.no_grad():
        log_snr = sde.log_snr(times)
    default = PilotErrors(math.nan, math.nan)
    if auto in entries:
        known = dict(zip(entries, coarse, strict=True)) | lower if batch.unit == declared.unit else {}
        default = comparison([_default(declared, evaluations, known)], exact).errors(0)
    return Tuned(
        tuple(times.tolist()),
        method=to_text(best.solver),
        process=repr(sde),
        from_noise=best.begun(batch).from_noise,
        log_snr=tuple(log_snr.tolist()),
        fitted=compared.errors(order[0]),
        default=default,
        cost=batch.cost,
        **batch.made_with,
        evaluations=evaluations,
        ranking=tuple(_ranked(entries[i], compared.errors(i), *compared.behind(i, order[0])) for i in order),
    )


def most_calls(evaluations: int) -> int:
    """How often `tune` calls the network at most, with the default candidates, but for a measurement of high noise.

    Example:
        >>> most_calls(8)
        260
    """
    return (len(CANDIDATES) + 1 + _LOWERED) * evaluations + accurate(evaluations)


def _default(pilot: Pilot, evaluations: int, known: Mapping[Entry, Tensor]) -> Tensor:
    """The end states of ``method="auto"``, of which some are known."""
    auto = _auto(pilot, evaluations)
    if level_of(evaluations) == NOISE and pilot.from_level(NOISE).start != pilot.start:
        auto = auto.lower(pilot)
    return known[auto] if auto in known else auto.results(pilot, evaluations)


def _lower(pilot: Pilot, evaluations: int, tried: Sequence[Entry]) -> dict[Entry, Tensor]:
    """The end states of the first of some candidates, begun at a lower level; of none where there is no lower one, or
    where all begin at t_max."""
    begun = pilot.from_level(NOISE)
    if level_of(evaluations) == math.inf or not begun.from_noise or begun.start == pilot.start:
        return {}
    entries = list(dict.fromkeys(entry.lower(pilot) for entry in tried))[:_LOWERED]
    return {entry: entry.results(pilot, evaluations) for entry in entries}


def _is_better(compared: Comparison) -> bool:
    """Whether the second of two candidates is better than the first, by two standard errors, or where that failed."""
    best, other = compared.scores
    if not math.isfinite(best):
        return math.isfinite(other)
    behind, uncertainty = compared.behind(1, 0)
    return behind < math.exp(-2 * uncertainty)


def _auto(pilot: Pilot, evaluations: int) -> Entry:
    """What ``method="auto"`` takes."""
    choice = choose(True, evaluations, ())
    grid = choice.grid_for(pilot.unit)
    return Entry(choice.solver, grid, "default" if grid is None else str(grid))


def candidates_of(pilot: Pilot, evaluations: int, rows: Sequence[Row] = CANDIDATES) -> list[Entry]:
    """What ``method="auto"`` takes, and the list, without those that make the same steps; on the default grid where a
    process has an end that their grids have not."""
    with torch.no_grad():
        endless = not all(math.isfinite(float(pilot.sde.log_snr(t))) for t in (pilot.start, pilot.end))
    unit, entries = pilot.unit, []
    for name, options, grid in rows:
        if isinstance(grid, VPTime | Angle):
            grid = replace(grid, scale=grid.scale * unit)
        entries.append(Entry(make_solver(name, options, ()), grid, str(grid)))
    if endless:
        entries = [entry._replace(grid=None, name="default") for entry in entries]
    found: dict[tuple[Solver, tuple[float, ...]], Entry] = {}
    for entry in (_auto(pilot, evaluations), *entries):
        count = entry.count(evaluations)
        times = tuple(entry.times(pilot, evaluations).tolist()) if count else ()
        found.setdefault((entry.solver, times), entry)
    return list(found.values())


def _listed(candidates: Any, pilot: Pilot, comparison: type[Comparison]) -> list[Entry]:
    """The candidates that are given, checked."""
    if not isinstance(candidates, Sequence) or isinstance(candidates, str) or not candidates:
        raise InvalidTypeError(f"`candidates` must be a list of pairs (method, grid), got {short(candidates)}.")
    entries = []
    for i, pair in enumerate(candidates):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise InvalidTypeError(f"`candidates[{i}]` must be a pair (method, grid), got {short(pair)}.")
        solver = make_solver(pair[0], {}, ())
        if solver.stochastic and not comparison.stochastic:
            raise InvalidArgumentError(
                f"`candidates[{i}]` must be deterministic, but {solver.name!r} draws noise, and its end points cannot "
                "be compared with a reference; pass `objective='law'` to compare distributions."
            )
        check_fixed(solver)
        pilot.times(pair[1], 2)
        entries.append(Entry(solver, pair[1], "default" if pair[1] is None else _name(pair[1])))
    return entries


def _name(grid: Any) -> str:
    """A grid as text."""
    return grid if isinstance(grid, str) else getattr(grid, "__name__", repr(grid))


def _ranked(entry: Entry, errors: PilotErrors, behind: float, uncertainty: float) -> Ranked:
    """A row of the ranking."""
    return Ranked(to_text(entry.solver), entry.name, behind=behind, uncertainty=uncertainty, **asdict(errors))
