"""What is diagnosed: a sampler, its data, and the samples that the repairs share."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, SolveFailedError
from ...core.noise import check_seed
from ...core.support.context import cut
from ...core.support.intervals import Interval
from ...core.support.tensors import row_finite
from ...guidance.classifier import taken
from ...scores import Score
from ...tuning.pilot import distances
from ..advice import ProcessEnds, advise
from ..coupling import Task, check_repeatable, parts, rows_of, seeds_of, spread_times
from ..reference import FlowReference, PathReference, Reference, StepsReference, scale_of
from ..two_samples import EnergyTest, SlicedWasserstein, energy_test, sliced_wasserstein
from .base import MATTERS, SHARE, TESTS
from .unwrapped import without

_PILOT, _STARTS, _ROWS = 11, 12, 13  # purposes of seeds
_MOST_COMPARED = 1024  # rows of the data
_PROJECTIONS = 64
_ENOUGH = 0.1  # of what matters: what a reference may be uncertain by
_FEWEST = 16  # draws that must have an end state

Context = Mapping[str, Any]


class Rows(NamedTuple):
    """Data with the context of each."""

    x: Tensor
    context: dict[str, Any]

    def take(self, which: Tensor) -> Rows:
        """Some of them."""
        return Rows(self.x[which.to(self.x.device)], cut_rows(self.context, which, len(self.x)))


def cut_rows(context: Context, which: Tensor, count: int) -> dict[str, Any]:
    """The context of some rows; what is the same for all stays."""
    return {name: cut({name: value}, which)[name] if varies(value, count) else value for name, value in context.items()}


def repeated(context: Context, times: int, count: int) -> dict[str, Any]:
    """A context that has a row for each of ``count`` rows, for as many rows again and again."""
    return {
        name: value.repeat((times,) + (1,) * (value.ndim - 1)) if varies(value, count) else value
        for name, value in context.items()
    }


def varies(value: Any, count: int) -> bool:
    """Whether a value of a context has a row for each of ``count`` samples.

    Example:
        >>> varies(torch.zeros(3), 3), varies(torch.zeros(1), 3), varies(None, 3)
        (True, False, False)
    """
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count > 1


class Far(NamedTuple):
    """How far two independent sets of samples are apart: a distance, and a test whether there is any."""

    sliced: SlicedWasserstein
    energy: EnergyTest

    @property
    def value(self) -> float:
        """The distance, in the units of the data, RMS per element."""
        return self.sliced.value

    @property
    def seen(self) -> bool:
        """Whether there is a distance beyond chance; the test has exactly its level."""
        return self.energy.significant

    @property
    def interval(self) -> Interval:
        """The distance with its limits."""
        low, high = self.sliced.interval
        return Interval(self.value, low, high, self.sliced.level, "asymptotic")


class Subject:
    """A sampler and its data, with the samples that the repairs share; each set of samples is made once.

    Args:
        task: what is solved, and how.
        data: that the network was trained on.
        held_out: other data, and whether they are.
        held: whether ``held_out`` were not used in training.
        pilot, seed, batch_size: of the samples.
        confidence: of the whole diagnosis.
        exact: the exact score, if it is known.
        steps: of the reference, (tight, loose); None for a tolerance.
        begun: the states at which the samples of the pilot begin; None for draws of the prior.
    """

    def __init__(
        self,
        task: Task,
        data: Rows,
        held_out: Rows,
        held: bool,
        *,
        pilot: int,
        seed: int,
        batch_size: int,
        confidence: float,
        exact: Score | None,
        steps: tuple[int, int] | None = None,
        begun: Tensor | None = None,
    ) -> None:
        self.task, self.data, self.held_out, self.held = task, data, held_out, held
        self.pilot, self.seed, self.batch_size, self.exact = pilot, check_seed("seed", seed), batch_size, exact
        self.confidence, self.level = confidence, 1 - (1 - confidence) / TESTS
        self.evaluations = 0.0  # of the score function, for all samples together
        x = data.x.to(torch.float64)
        self.unit = float((x - x.mean(0)).square().mean().sqrt())
        if not self.unit > 0:
            raise InvalidArgumentError("`data` must have different rows, but all of them are the same.")
        self.score, self._steps, self.begun = task.score, steps, begun
        self._made: dict[Any, Tensor] = {}
        self._kept: list[Score | None] = []  # whose identities are in the keys

    # Rows of the data.

    def generator(self, purpose: int) -> torch.Generator:
        """Draws for a purpose."""
        return torch.Generator().manual_seed(seeds_of(self.seed, 1, purpose)[0] >> 1)

    def some(self, rows: Rows, count: int, purpose: int = _ROWS) -> Rows:
        """Random rows, at most so many."""
        order = torch.randperm(len(rows.x), generator=self.generator(purpose))[:count].sort().values
        return rows.take(order)

    @functools.cached_property
    def compared(self) -> Tensor:
        """Held-out data that samples are compared with."""
        return self.some(self.held_out, _MOST_COMPARED).x.to("cpu", torch.float64)

    @functools.cached_property
    def ends(self) -> ProcessEnds:
        """What the two ends of the process do to the data."""
        x = self.some(self.data, _MOST_COMPARED).x.to("cpu", torch.float64)
        found = advise(x, sde=self.task.sde, tv=MATTERS, seed=self.seed).ends
        if found is None:
            raise SolveFailedError("The ends of the process are not known.")
        return found

    @property
    def t_end(self) -> float:
        """Where solves end."""
        return float(self.task.shared.get("t_end", self.task.sde.t_min))

    @property
    def denoised(self) -> bool:
        """Whether solves end with a step to the data."""
        return bool(self.task.shared.get("denoise", False))

    def noised(self, x: Tensor, t: float, purpose: int) -> Tensor:
        r"""States :math:`\alpha x + \sigma\varepsilon` at a time, of data."""
        node = self.task.sde.node(t)
        noise = torch.randn(x.shape, generator=self.generator(purpose), dtype=torch.float64).to(x.device)
        return node.alpha * x.to(torch.float64) + node.sigma * noise

    # Samples.

    def check_repeatable(self) -> None:
        """Refuse a random score function, by two evaluations of some data, each at a time of its own."""
        rows = self.some(self.data, _FEWEST)
        times, x0 = spread_times(self.task.sde, len(rows.x)), rows.x.to("cpu", torch.float64)
        noise = torch.randn(x0.shape, generator=self.generator(_ROWS), dtype=torch.float64)
        x, _ = self.task.sde.perturb(x0, times, noise)
        check_repeatable(lambda: self.estimate(x, times, rows.context)[1])

    def estimate(self, x: Tensor, t: Tensor, context: Context, score: Score | None = None) -> tuple[Tensor, Tensor]:
        """The data and the noise estimate of states at times ``(batch,)``, in float64, evaluated in parts."""
        score, counted = score or self.score, score is None or score is not self.exact
        found = []
        for rows in parts(len(x), self.batch_size):
            state = x[rows].to(self.task.device, self.task.dtype)
            node = self.task.sde.nodes(t[rows].to(self.task.device))
            given = taken(score, rows_of(context, rows, len(x)))
            with torch.no_grad():
                out = score.estimate(state, node, **given)
                eps, data = out.noise.to(torch.float64), out.data.to(torch.float64)
                found.append((data.cpu(), eps.cpu()))
        self.evaluations += len(x) * counted
        return torch.cat([a for a, _ in found]), torch.cat([b for _, b in found])

    def samples(
        self,
        how: str = "tight",
        *,
        score: Score | None = None,
        start: str = "prior",
        denoise: bool | None = None,
        dtype: torch.dtype | None = None,
        cast: Callable[[], Any] | None = None,
    ) -> Tensor:
        """End states of the pilot, float64 ``(pilot, *event)``; NaN for draws that failed.

        Args:
            how: ``"method"``, or ``"tight"`` and ``"loose"``, the two levels of the reference.
            score: another score function.
            start: ``"prior"``, or ``"data"``: states at ``t_max`` made of data, which have the right distribution. They
                have other draws.
            denoise: other than in the settings.
            dtype, cast: other than the task's, and a context manager around the solve.
        """
        key = (how, None if score is None else id(score), start, denoise, dtype)
        if key not in self._made:
            self._made[key] = self._solved(how, score, start, denoise, dtype, cast)
            self._kept.append(score)
        return self._made[key]

    @functools.cached_property
    def contexts(self) -> Mapping[str, Rows]:
        """The data that the draws of a pilot belong to, by where they start."""
        found = {}
        for name, purpose in (("prior", _PILOT), ("data", _STARTS)):
            generator, n = self.generator(purpose), len(self.data.x)
            orders = [torch.randperm(n, generator=generator) for _ in range(math.ceil(self.pilot / n))]
            found[name] = self.data.take(torch.cat(orders)[: self.pilot])
        return found

    def _solved(self, how: str, score: Score | None, start: str, denoise: bool | None, dtype: Any, cast: Any) -> Tensor:
        task = self._reference.task if how != "method" else self.task
        settings: dict[str, Any] = dict(task.settings)
        if how != "method":
            tight, loose = self.levels
            settings = dict(self._reference.settings(tight if how == "tight" else loose))
        if denoise is not None:
            settings["denoise"] = denoise
        if score is not None:
            task = replace(task, score_fn=score)
        if dtype is not None:
            task = replace(task, dtype=dtype)
        rows = self.contexts[start]
        seeds = seeds_of(self.seed, self.pilot, _PILOT if start == "prior" else _STARTS)
        begun = self.noised(rows.x, task.sde.t_max, _STARTS) if start == "data" else self.begun
        context = rows.context if score is None else taken(score, rows.context)
        return self._in_parts(task, seeds, context, settings, begun, cast)

    def given(self, rows: Rows, number: int, purpose: int) -> Tensor:
        """So many samples of the method for the context of each row, float64 ``(number, n, *event)``."""
        n, task = len(rows.x), self.task
        seeds = seeds_of(self.seed, n * number, purpose)
        context = repeated(rows.context, number, n)
        return self._in_parts(task, seeds, context, dict(task.settings)).reshape(number, n, *rows.x.shape[1:])

    def _in_parts(
        self,
        task: Task,
        seeds: list[int],
        context: Context,
        settings: dict[str, Any],
        begun: Tensor | None = None,
        cast: Any = None,
    ) -> Tensor:
        found, count = [], len(seeds)
        for part in parts(count, self.batch_size):
            noise, own = task.noise(seeds[part]), rows_of(context, part, count)
            found.append(self._solve(task, noise, part, own, settings, begun, cast))
        return torch.cat(found)

    def _solve(
        self, task: Task, noise: Any, part: slice, context: Context, settings: Any, begun: Tensor | None, cast: Any
    ) -> Tensor:
        given: dict[str, Any] = {}
        if begun is not None:
            given = {"shape": None, "x": begun[part].to(task.device, task.dtype)}
            settings = {key: value for key, value in settings.items() if key != "start"}
        count = part.stop - part.start
        with (cast or contextlib.nullcontext)():
            solution = task.solve(noise, count, context, settings, **given)
        self.evaluations += float(solution.nfe.to(torch.float64).sum())
        return solution.x.to("cpu", torch.float64)

    @functools.cached_property
    def _reference(self) -> Reference:
        task = self.task
        if self._steps is not None:
            return StepsReference(task, *self._steps)
        if task.stochastic and task.solver.strong_order is not None:
            reference: Reference = PathReference(task, task.steps(50))
            reference.levels = reference.levels[:2]  # the cost is so many times that of the method
        else:
            reference = FlowReference(task, scale_of(self.data.x))
        return reference

    @property
    def coupled(self) -> bool:
        """Whether the method and the reference converge to the same state, draw by draw."""
        return not self.task.stochastic or self.task.solver.strong_order is not None

    @functools.cached_property
    def levels(self) -> tuple[float, float]:
        """The levels of the reference, tight and loose, chosen on the first part of the pilot."""
        first, reference, most = slice(0, min(self.batch_size, self.pilot)), self._reference, MATTERS * self.unit
        noise = self.task.noise(seeds_of(self.seed, self.pilot, _PILOT)[first])
        context = rows_of(self.contexts["prior"].context, first, self.pilot)

        @functools.cache
        def solved(level: float) -> Tensor:
            return self._solve(reference.task, noise, first, context, reference.settings(level), self.begun, None)

        tight, loose = reference.levels_for(solved, lambda *ends: rms_of_finite(*ends) <= _ENOUGH * most)
        gap = rms_of_finite(solved(tight), solved(loose))
        if self._steps is not None and not gap <= most:
            raise SolveFailedError(
                f"The reference does not agree with itself: its {tight} and {loose} steps end {gap:.3g} apart, and "
                f"faults of {most:.3g} are to be seen. Take more steps."
            )
        return tight, loose

    # Comparisons.

    def far(self, x: Tensor, y: Tensor) -> Far:
        """How far two independent sets of samples are apart; those of x that failed are left out."""
        x = finite(x)
        return Far(
            sliced_wasserstein(x, y, projections=_PROJECTIONS, level=self.level, seed=self.seed),
            energy_test(x, y, level=self.level, seed=self.seed),
        )

    @functools.cached_property
    def total(self) -> Far:
        """How far the samples of the method are from held-out data."""
        return self.far(self.samples("method"), self.compared)

    @functools.cached_property
    def remaining(self) -> Far:
        """How far exact samples are from held-out data."""
        return self.far(self.samples(), self.compared)

    @functools.cached_property
    def of_network(self) -> Far:
        """How far the distribution of the network is from that of the data at the end of the solve: exact samples of
        the network alone, which start from states that were made of data."""
        bare = self.bare
        x = self.samples("loose", score=bare, start="data", denoise=False)
        return self.far(x, self.noised(self.compared, self.t_end, _ROWS))

    @functools.cached_property
    def bare(self) -> Score | None:
        """The score function without guidance and limits, None where it has none."""
        found = without(without(self.score, "range") or self.score, "guidance")
        return found or without(self.score, "range")

    def large(self, size: float) -> bool:
        """Whether a distance in the units of the data matters: absolutely, and beside the whole."""
        return size > MATTERS * self.unit and size > SHARE * self.total.value


def finite(x: Tensor) -> Tensor:
    """The rows that have an end state.

    Raises:
        SolveFailedError: there are too few of them.
    """
    good = x[row_finite(x)]
    if len(good) < min(_FEWEST, len(x)):
        raise SolveFailedError(
            f"{len(x) - len(good)} of {len(x)} draws failed. Examine the network with scoresde.check_score, or pass a "
            "wider `dtype`."
        )
    return good


def rms_of_finite(x: Tensor, y: Tensor) -> float:
    """The RMS distance of the rows that are finite in both; 0 if there are none."""
    gaps = distances(x, y)
    gaps = gaps[gaps.isfinite()]
    return float(gaps.square().mean().sqrt()) if len(gaps) else 0.0


def rms(difference: Tensor) -> float:
    """Over all elements."""
    return float(difference.to(torch.float64).square().mean().sqrt())
