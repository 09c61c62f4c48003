"""A pilot: its draws, solved by the candidates and by the reference, part by part."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidTypeError, SolveFailedError
from ..core.noise import Noise
from ..core.solution import Solution
from ..core.support.checks import check_tensor, warn_caller
from .conformal import Coverage
from .coupling import Task, parts, rows_of, seeds_of
from .indicators import INDICATORS, Indicator, PathWatch
from .norms import Norm, rms
from .reference import (
    CHECKED,
    FlowReference,
    PathReference,
    Reference,
    StepsReference,
    Worth,
    check_agreement,
    check_converges,
    check_steps,
    failed,
    scale_of,
)

PILOT = 1  # the purpose of seeds
_GAIN = 0.9  # of the bound: what an indicator must bring that takes evaluations
_SURE = 0.8  # that a candidate which one half chose is certified by the other
_CLOSE = 0.01  # of the errors: what a reference may be uncertain by
_SHARE = 0.1  # of the errors: what it may be uncertain by without a warning
_OTHER = 0.5  # of the spread of the samples, in the median: more is the distance of other samples
_LARGE = 0.01  # of the spread of the samples: an uncertainty that ends everything


@dataclass
class Sizes:
    """What may go with the errors of some draws: differences along the path, and from half as many steps."""

    path: list[Tensor] = field(default_factory=list)
    half: list[Tensor] = field(default_factory=list)


@dataclass
class Column:
    """What is known of a candidate.

    Attributes:
        errors: of all draws, in the norm, with what the reference is uncertain by; ``distances``: likewise, RMS.
        sizes: that may go with them.
        nfe, half: evaluations per draw, and those of half as many steps.
    """

    errors: list[Tensor] = field(default_factory=list)
    distances: list[Tensor] = field(default_factory=list)
    sizes: list[Sizes] = field(default_factory=list)
    nfe: list[Tensor] = field(default_factory=list)
    half: list[Tensor] = field(default_factory=list)

    @property
    def evaluations(self) -> float:
        """Per sample."""
        return float(torch.cat(self.nfe).to(torch.float64).mean())

    @property
    def extra(self) -> float:
        """Of half as many steps."""
        return float(torch.cat(self.half).to(torch.float64).mean()) if self.half else 0.0


class ExactReference:
    """The reference of some candidates, at levels that the first part decides, or as it was given.

    Args:
        reference: None for end states that are ``given``.
    """

    def __init__(self, reference: Reference | None, given: tuple[Tensor, Tensor] | None) -> None:
        self.reference, self.given = reference, given
        self.levels = (math.nan, math.nan)
        self.gaps: list[Tensor] = []  # between the two levels, in the norm
        self.checked = 0  # draws that another method solved as well
        self.disagreement = self.apart = math.nan  # the median of their distances, in the norm and RMS


class PilotRun:
    """The draws of a pilot.

    Args:
        tasks: the candidates.
        norm: of the errors.
        count, split: the draws, and how many of them choose.
        seed: of the pilot.
        context: of all draws.
        batch_size: of the parts.
        share: the quantile of the errors that counts.
        given: the end states of the reference, if they are known, or its numbers of steps.
        target: the bound that is wanted.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        norm: Norm,
        count: int,
        split: int,
        seed: int,
        context: Mapping[str, Any],
        batch_size: int,
        share: float,
        given: tuple[Tensor, Tensor] | tuple[int, int] | None,
        target: float | None,
    ) -> None:
        self.tasks, self.norm, self.count, self.split, self.context = tasks, norm, count, split, context
        self.share, self.target = share, target
        self.seeds = seeds_of(seed, count, PILOT)
        self.parts = list(parts(count, batch_size, split))
        self.columns = [Column() for _ in tasks]
        self.scale = self.unit = math.nan
        self._ends: list[Tensor] = []
        self._given, self._steps = _checked(given, (count, *tasks[0].event))
        for task in tasks if self._given is None else ():
            check_converges(task)
        self._exact: dict[int, ExactReference] = {}  # by candidate; -1 for all that are deterministic

    def begin(self) -> None:
        """Solve the draws that choose, by all candidates."""
        for rows in self.parts:
            if rows.start < self.split:
                self._part(rows, range(len(self.tasks)), path=self.target is None, half=self.target is None)

    def complete(self, chosen: int, indicator: Indicator) -> None:
        """Solve the others, by the candidate that was chosen."""
        path, half = indicator.parts
        for rows in self.parts:
            if rows.start >= self.split:
                self._part(rows, [chosen], path=path, half=half)
        ends = torch.cat(self._ends).flatten(1).to(torch.float64)
        ends = ends[ends.isfinite().all(1)]
        self.unit = float((ends - ends.mean(0)).square().mean().sqrt()) if len(ends) else math.nan
        self.unit = self.unit if self.unit > 0 else 1.0

    def cheapest(self, target: float, confidence: float) -> int:
        """The candidate with the fewest evaluations whose bound, on the draws that choose, is at most the target,
        if possible with a margin, so that the others confirm it.

        Raises:
            SolveFailedError: there is none.
        """
        ordered = [
            _rows(_known(torch.cat(column.errors) + self._widening(i))).sort().values.tolist()
            for i, column in enumerate(self.columns)
        ]
        margins = [_SURE, None] if self.split >= Coverage.least(confidence, _SURE) else [None]
        for margin in margins:
            rank = Coverage.of(self.split, confidence, margin).rank
            bounds = [errors[rank - 1] for errors in ordered]
            for i in sorted(range(len(bounds)), key=lambda i: self.columns[i].evaluations):
                if bounds[i] <= target:
                    return i
        best = min(range(len(bounds)), key=bounds.__getitem__)
        raise SolveFailedError(
            f"None of {len(bounds)} candidates has a bound of {target:g}: the smallest is {bounds[best]:.3g}, with "
            f"{self.columns[best].evaluations:g} evaluations per sample. Take a longer list."
        )

    def indicator(self, names: Sequence[str]) -> Indicator:
        """The one of the smallest bounds, fitted on the draws that choose."""
        column = self.columns[0]
        errors = _known(torch.cat(column.errors))
        best, least = Indicator("constant", 0.0, (), (), 0.0), math.inf
        for name in names:
            half = INDICATORS[name][1]
            if half and not column.half:
                continue
            sizes = self._sizes(column, name, later=False)
            fitted, without = Indicator.fit(name, sizes, errors)
            ratio = self._ratio(errors, fitted(sizes, errors), without) * (1.0 if half else _GAIN)
            if ratio < least:
                best, least = fitted, ratio
        if not math.isfinite(least) and len(names) == 1 and names[0] != "constant":
            warn_caller(f"indicator={names[0]!r} does not exist for this method; the bound is constant.")
        return best

    def scores(self, chosen: int, indicator: Indicator) -> tuple[Tensor, Tensor]:
        """The errors in units of the indicator, of the draws that calibrate, and the indicator."""
        column, rows = self.columns[chosen], slice(self.split, self.count)
        errors = torch.cat(column.errors)[rows] + self._widening(chosen)
        values = indicator(self._sizes(column, indicator.name, later=True), errors)
        return _rows(_known(errors / values)), values

    def worth(self, chosen: int) -> Worth:
        """What the reference is worth.

        Raises:
            SolveFailedError: its two levels, or another method, are as far apart as the errors, and far.
        """
        exact = self._of(chosen)
        errors = self._at(torch.cat(self.columns[chosen].errors))
        gap = self._at(torch.cat(exact.gaps))
        for worth, what in ((gap, "its two levels of accuracy"), (exact.disagreement, "it and another method")):
            if worth > _LARGE * self.unit:
                check_agreement(worth, errors - gap, what)
            if worth > _SHARE * max(errors, self.target or 0.0):
                warn_caller(
                    f"The reference is uncertain: {what} are {worth:.2g} apart. That is part of the errors, which are "
                    f"{errors:.2g} with it, and so of the bound."
                )
        middle = float(torch.cat(self.columns[chosen].distances).nanmedian() - torch.cat(exact.gaps).nanmedian())
        if self._given is not None and middle > _OTHER * self.unit:
            warn_caller(
                f"The given `reference` is as far from the samples ({middle:.2g} in the median) as other samples are "
                f"(their standard deviation is {self.unit:.2g}). It must begin where the pilot does; pass numbers of "
                "steps instead, such as reference=(500, 250)."
            )
        reference = exact.reference
        name, other = ("as it was given", "") if reference is None else (reference.name, reference.other or "")
        return Worth(name, *exact.levels, gap, other if exact.checked else "", exact.checked, exact.disagreement)

    def _part(self, rows: slice, candidates: Sequence[int], path: bool, half: bool) -> None:
        """Solve some draws."""
        count, context = rows.stop - rows.start, rows_of(self.context, rows, self.count)
        known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for i in candidates:
            task, column = self.tasks[i], self.columns[i]
            noise = task.noise(self.seeds[rows])
            key = i if task.stochastic else -1
            if key not in known:
                known[key] = self._solved(i, rows, noise, context)
            tight, gap, apart = known[key]
            watch = PathWatch(task.sde, self.scale, task.sde.t_max, task.start(noise, count)) if path else None
            solution = task.solve(noise, count, context, callback=watch)
            column.errors.append(self.norm.between(solution.x, tight) + gap)
            column.distances.append(rms(solution.x.to(torch.float64) - tight) + apart)
            column.nfe.append(solution.nfe)
            sizes = Sizes()
            if watch is not None:
                sizes.path = [self.norm.between(solution.x, solution.x + field) for field in watch.fields()]
            fewer = task.halved(solution.steps) if half else None
            if fewer is not None:
                coarser = task.solve(noise, count, context, fewer)
                column.half.append(coarser.nfe)
                sizes.half = [self.norm.between(solution.x, coarser.x)]
            column.sizes.append(sizes)
        self._ends.append(next(iter(known.values()))[0])

    def _solved(
        self, i: int, rows: slice, noise: Callable[[], Noise], context: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The reference's end states, and what they are uncertain by, in the norm and RMS."""
        task, count = self.tasks[i], rows.stop - rows.start
        memo: dict[float, Tensor] = {}

        def solved(level: float) -> Tensor:
            if level not in memo:
                memo[level] = exact.reference.ends(noise, count, context, level)  # type: ignore[union-attr]
            return memo[level]

        exact = self._of(i)
        if self._given is not None:
            tight, loose = (ends[rows].to(task.device) for ends in self._given)
        else:
            if math.isnan(exact.levels[0]):
                coarse = task.solve(noise, count, context)
                if exact.reference is None:
                    exact.reference = self._reference(task, coarse)
                exact.levels = exact.reference.levels_for(solved, functools.partial(self._enough, coarse.x))
                self._check(exact, noise, count, context, solved(exact.levels[0]))
                for level in exact.reference.finer(exact.levels[0]):
                    now = solved(exact.levels[0])
                    if not exact.disagreement > _SHARE * self._at(self.norm.between(coarse.x, now)):
                        break
                    if failed(solved(level)) > failed(now):
                        break  # it requires too much
                    exact.levels = level, exact.levels[0]
                    self._check(exact, noise, count, context, solved(level))
            tight, loose = solved(exact.levels[0]), solved(exact.levels[1])
        if math.isnan(self.scale):
            with torch.no_grad():
                alpha = float(task.sde.alpha(task.shared.get("t_end", task.sde.t_min)))
            good = tight[tight.flatten(1).isfinite().all(1)].to(torch.float64)
            spread = float(good.std()) / alpha if good.numel() > 1 else math.nan
            self.scale = spread if spread > 0 else 1.0
        gap = self.norm.between(tight, loose)
        exact.gaps.append(gap)
        return tight, gap, rms(tight.to(torch.float64) - loose)

    def _reference(self, task: Task, coarse: Solution) -> Reference:
        """That of a candidate, of which some end states are known."""
        if self._steps is not None:
            return StepsReference(task, *self._steps)
        if not task.stochastic:
            return FlowReference(task, scale_of(coarse.x))
        return PathReference(task, task.steps(coarse.steps))

    def _enough(self, ends: Tensor, tight: Tensor, loose: Tensor) -> bool:
        """Whether two references differ by little beside what they are to measure, in the median and at the quantile
        that counts."""
        gap, errors = self.norm.between(tight, loose), self.norm.between(ends, tight)
        if self.target is not None:
            return self._at(gap) <= _CLOSE * self.target
        medians = (float(_rows(_known(values)).median()) for values in (gap, errors))
        return self._at(gap) <= _CLOSE * self._at(errors) and next(medians) <= _CLOSE * next(medians)

    def _check(
        self, exact: ExactReference, noise: Callable[[], Noise], count: int, context: Any, tight: Tensor
    ) -> None:
        """Solve a few draws by a method of another family."""
        count = min(CHECKED, count)
        reference = exact.reference
        if reference is None or reference.other is None:
            return
        task = reference.task
        few = task.noise(self.seeds[:count])
        ends = reference.check(few, count, rows_of(context, slice(0, count), len(tight)), exact.levels[0])
        if ends is not None:
            ends, tight = (states[ends.flatten(1).isfinite().all(1)] for states in (ends, tight[:count]))
            exact.checked = len(ends)
            if exact.checked:
                exact.disagreement = float(_rows(self.norm.between(tight, ends)).nanmedian())
                exact.apart = float(rms(tight.to(torch.float64) - ends).nanmedian())

    def _of(self, i: int) -> ExactReference:
        key = i if self.tasks[i].stochastic else -1
        return self._exact.setdefault(key, ExactReference(None, self._given))

    def distances(self, chosen: int) -> Tensor:
        """The RMS distances from the reference, and all that it is uncertain by; of the draws that did not choose."""
        found = torch.cat(self.columns[chosen].distances)[self.split if self.target is not None else 0 :]
        return _known(found) + (self._of(chosen).apart if self._widening(chosen) else 0.0)

    def _widening(self, i: int) -> float:
        """What the disagreement with another method adds to every error, beyond what the two levels add."""
        exact = self._of(i)
        if not exact.checked:
            return 0.0
        errors, gap = self._at(torch.cat(self.columns[i].errors)), self._at(torch.cat(exact.gaps))
        return exact.disagreement if exact.disagreement > max(gap, _SHARE * errors) else 0.0

    def _sizes(self, column: Column, indicator: str, *, later: bool) -> list[Tensor]:
        """The sizes of an indicator, of the draws that choose, or of the later ones, which calibrate."""
        path, half = INDICATORS[indicator]
        chosen = [
            part for rows, part in zip(self.parts, column.sizes, strict=False) if (rows.start >= self.split) == later
        ]
        found = [(part.path if path else []) + (part.half if half else []) for part in chosen]
        return [torch.cat(sizes) for sizes in zip(*found, strict=True)]

    def _ratio(self, errors: Tensor, inside: Tensor, without: Tensor) -> float:
        """The median of the bounds, in units of the errors."""
        flat = errors.reshape(-1)
        values = without if len(without) == len(flat) else inside
        values = values.reshape(errors.shape)
        bound = self._at(_known(errors / values)) * values
        ratios = (bound / errors.clamp_min(1e-300)).reshape(-1)
        return float(ratios.median())

    def _at(self, values: Tensor) -> float:
        """The quantile that counts."""
        ordered = _rows(_known(values)).sort().values
        return float(ordered[min(len(ordered), math.ceil(self.share * len(ordered))) - 1])


def _rows(values: Tensor) -> Tensor:
    """The largest of each draw, ``(batch,)``."""
    return values if values.ndim == 1 else values.flatten(1).amax(1)


def _known(values: Tensor) -> Tensor:
    """Those of draws that failed are infinite."""
    return values.nan_to_num(nan=math.inf)


def _checked(given: object, shape: tuple[int, ...]) -> tuple[tuple[Tensor, Tensor] | None, tuple[int, int] | None]:
    """The end states of a reference that is given, or its numbers of steps."""
    if given is None:
        return None, None
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InvalidTypeError("`reference` must be a pair (tight, loose), of numbers of steps or of end states.")
    if not any(isinstance(part, Tensor) for part in given):
        return None, check_steps(given)
    fine, coarse = (check_tensor("reference", ends, shape) for ends in given)
    return (fine.detach(), coarse.detach()), None
