"""The pilot of a fit: its states, what counts as its exact ends, and the calls that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from .. import grids
from ..core.arguments import context_names, context_of, shape_to_draw
from ..core.errors import InvalidArgumentError, NonFiniteError
from ..core.noise import SampleNoise, check_seed
from ..core.sdes import SDE, AffineSDE, Estimate, Node
from ..core.sdes.base import check_affine
from ..core.solve import solve
from ..core.support.checks import (
    MOST_DRAWS,
    MOST_STEPS,
    check_device,
    check_dtype,
    check_finite_rows,
    check_integer,
    check_shape,
    check_state,
    check_tensor,
    warn_caller,
)
from ..core.support.context import cut
from ..core.support.tensors import FAR, MANY, far_from_most
from ..scores import Score, Split, as_score
from ..scores.high_noise import deviation, warn_of_high_noise
from ..scores.networks import check_quiet
from ..solvers import Solver, UniPC
from ..solvers.registry.auto import NoiseStart, unit_of
from .records import Cost, PilotErrors


def pilot_states(
    sde: AffineSDE,
    score: Score,
    x: Tensor | None,
    shape: tuple[int, ...],
    seed: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """The pilot's states: those given, checked and moved, or draws of the prior."""
    if x is None:
        where = check_device(device, score.network_device)
        generator = torch.Generator(where).manual_seed(seed)
        return sde.prior_sample(shape, generator=generator, dtype=dtype, device=where)
    check_state("x", x)
    if dtype is not None:
        check_dtype("dtype", dtype)
    check_finite_rows("`x`", x)
    return x.to(device=check_device(device, x.device), dtype=dtype)


def check_count(given: int | None, x: Tensor) -> None:
    """Refuse a number of samples that is not that of the pilot's states."""
    if given is not None and len(x) != given:
        raise InvalidArgumentError(f"`pilot` is {given}, but there are {len(x)} samples; leave it out.")


_OUT = 30.0  # median errors: what is more may be due to another mode
_USUAL = 10.0  # to its inverse: standard deviations of data that need not be declared
_APART = 0.3  # standard deviations of the data: so far are modes apart, at least


@dataclass(frozen=True)
class Pilot:
    """A batch that a fit is made on.

    Attributes:
        sde, score: the process and the score function, whose calls are counted.
        x, context: the states at ``start``, and the context of the score function.
        start, end: the interval.
        origin: where the paths begin, and the states there: at ``start``, or at t_max, from where they are scaled to
            ``start`` as noise is.
        free: whether it may begin at a level below that of t_max.
        halves: the rows to learn from, and those that are held out.
        seed: of it, and of the noise of methods that draw any.
        unit: the scale of the data, in which levels are.
    """

    sde: AffineSDE
    score: Watched
    x: Tensor
    context: Mapping[str, Any]
    start: float
    end: float
    origin: tuple[float, Tensor]
    free: bool
    halves: tuple[slice, slice]
    seed: int
    unit: float

    @classmethod
    def of(
        cls,
        sde: SDE,
        score_fn: Callable[..., Tensor],
        count: int | None,
        default: int = 2,
        *,
        checkpoint: bool,
        level: float,
        x: Tensor | None,
        shape: Sequence[int] | None,
        seed: int,
        t_start: float | None,
        t_end: float | None,
        context: Mapping[str, object] | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Pilot:
        """The pilot of the arguments that all fits take, checked; of the default number of samples where none is
        given, begun at a level at most."""
        sde = check_affine(sde)
        size = default if count is None else check_integer("pilot", count, low=2, high=MOST_DRAWS)
        score = Watched(as_score(score_fn, sde), checkpoint)
        start, end = grids.time_of("t_start", t_start, sde, sde.t_max), grids.time_of("t_end", t_end, sde, sde.t_min)
        if start == end:
            raise InvalidArgumentError(f"There is nothing to fit between t_start={start:g} and t_end={end:g}.")
        seed = check_seed("seed", seed)
        drawn = () if x is not None else shape_to_draw(shape, score.traits.event_shape, size, "pilot")
        if x is not None and shape is not None:
            check_state("x", x)
            if check_shape("shape", shape, rank=2) != tuple(x.shape):
                raise InvalidArgumentError(f"`shape` {shape} is not that of `x`, {tuple(x.shape)}; leave it out.")
        if x is None and start != sde.t_max:
            raise InvalidArgumentError(f"`x` is missing, but t_start={start:g} is not t_max={sde.t_max:g}.")
        x = pilot_states(sde, score, x, drawn, seed, dtype, device)
        if len(x) < 2:
            raise InvalidArgumentError(f"The pilot must have at least 2 samples, got {len(x)}.")
        check_count(count, x)
        context, free, half = context_of(context, score, x), t_start is None, len(x) // 2
        halves, unit = (slice(0, half), slice(half, len(x))), unit_of(score.traits.data_std)
        return cls(sde, score, x, context, start, end, (start, x), free, halves, seed, unit).from_level(level)

    def from_level(self, level: float) -> Pilot:
        """The same, begun at a level of noise, where that is below the level of t_max; see `NoiseStart`."""
        start, x = self.origin
        begun = NoiseStart.of(self.sde, self.unit, level) if self.free else None
        if begun is not None and begun.t > self.end:
            start, x = begun.t, begun.state(x)
        return replace(self, start=start, x=x)

    def measured(self, ends: Tensor, level: float) -> Pilot:
        """The same, in units of the exact ``ends`` where the score function declares no scale of the data and theirs is
        another one: at a level that is rounded down networks of images are not yet sure to see noise alone."""
        std = float(ends[~far_from_most(ends)].std()) / float(self.sde.node(self.end).alpha)
        if self.score.traits.data_std is not None or 1 / _USUAL <= std <= _USUAL:
            return self
        return replace(self, unit=unit_of(std)).from_level(level)

    def turned(self) -> Pilot:
        """The same with the halves exchanged."""
        return replace(self, halves=self.halves[::-1])

    @property
    def from_noise(self) -> bool:
        """Whether it begins below its origin."""
        return self.start != self.origin[0]

    @property
    def cost(self) -> Cost:
        """What it has taken so far."""
        return self.score.cost(len(self.x))

    @property
    def made_with(self) -> dict[str, Any]:
        """What a record keeps of the score function, the names of its context and what its network predicts, and
        whether a start was given."""
        score = self.score.score_fn
        return {
            "context": context_names(self.context, score),
            "prediction": score.traits.prediction or "",
            "from_given": self.origin[0] != self.sde.t_max,
            "data_scale": None if self.unit == 1 else self.unit,
        }

    def warn_of_far(self, ends: Tensor) -> None:
        """Warn where a few exact ends are far from most others."""
        if count := int(far_from_most(ends).sum()):
            warn_caller(
                f"{count} of {len(ends)} pilots end{'s' if count == 1 else ''} on exact paths more than {FAR:g} times "
                "as far from the middle as most do. If the data have no such samples, the network errs there. They "
                "decide every RMS, and a pilot says little about them."
            )

    def warn_of_high_noise(self, ends: Tensor) -> None:
        """Warn where the network errs far above the data, which have the scale of the exact ``ends``."""
        std = self.score.traits.data_std or max(1.0, deviation(ends[~far_from_most(ends)]))
        warn_of_high_noise(self.score, self.sde, self.x, self.context, std, self.start)

    def warn_of_modes(self, errors: Tensor, ends: Tensor) -> None:
        """Warn where many samples end in another mode than the exact ``ends``: their errors stand out."""
        apart = _APART * float(ends.to(torch.float64).std(0).square().mean().sqrt())
        flipped = errors.isfinite() & (errors > _OUT * errors.median()) & (errors > apart)
        count = int(flipped.sum())
        if count > MANY * len(errors):
            warn_caller(
                f"{count} of {len(errors)} pilots end in another mode than their exact paths (their errors are more "
                f"than {_OUT:g} times the median). Take more `steps`; do not take an objective that such samples "
                "dominate, as they do 'rms'."
            )

    def times(self, grid: Any, steps: int) -> Tensor:
        """The times of a grid between its ends."""
        return grids.resolve(grid, self.sde, self.start, self.end, steps)

    def batch(self, rows: slice) -> tuple[Tensor, dict[str, Any], slice]:
        """The states and the context to solve for some rows, and where these are in the result. A score function that
        is not ``rowwise`` may hold what belongs to the whole pilot, such as labels that are bound to it."""
        if self.score.traits.rowwise:
            return self.x[rows], cut(self.context, rows), slice(None)
        return self.x, dict(self.context), rows

    def solve(
        self, method: Solver, times: Tensor, rows: slice = slice(None), *, differentiable: bool = False
    ) -> Tensor:
        """The end states of some rows; NaN for samples that fail."""
        return self.states(method, times, rows, differentiable=differentiable, save_at=None)[-1]

    def states(self, method: Solver, times: Tensor, rows: slice = slice(None), **options: Any) -> Tensor:
        """The states of some rows at the times, ``(n, rows, *event)``; only the last with ``save_at=None``."""
        x, context, found = self.batch(rows)
        given: dict[str, Any] = {"save_at": "steps", "context": context, "throw": False, **options}
        if method.stochastic:
            solved = rows if found == slice(None) else slice(None)
            given["noise"] = SampleNoise(self.seed, indices=range(len(self.x))[solved])
        solution = solve(self.sde, self.score, x, method=method, grid=times, **given)
        return (solution.x[None] if solution.xs is None else solution.xs)[:, found]

    def reference(self, given: int | Tensor) -> Tensor:
        """The end states that count as exact: those given, or those of so many steps of `UniPC3`."""
        if isinstance(given, Tensor):
            check_tensor("reference", given)
            if given.shape != self.x.shape:
                raise InvalidArgumentError(
                    f"`reference` must have the shape of the pilot, {tuple(self.x.shape)}, got {tuple(given.shape)}."
                )
            check_finite_rows("`reference`", given)
            return given.detach().to(self.x)
        return self.flow(*self.origin, check_integer("reference", given, low=1, high=MOST_STEPS))

    def flow(self, start: float, x: Tensor, steps: int) -> Tensor:
        """The end states of `UniPC3` from some states; a sample that fails is an error."""
        times = grids.resolve(None, self.sde, start, self.end, steps)
        try:
            return solve(self.sde, self.score, x, method=UniPC(order=3), grid=times, context=self.context).x
        except NonFiniteError as error:
            where = "" if error.t is None else f" at t={error.t:.6g}"
            raise NonFiniteError(
                f"The {error.stage} is NaN or infinite{where} in the accurate solve of the pilot (samples "
                f"{error.indices}); check the network with scoresde.check_score, or pass end states as `reference`.",
                stage=error.stage, step=error.step, t=error.t, indices=error.indices, partial=error.partial,
            ) from None  # fmt: skip


class Watched(Score):
    """A score function whose calls are counted, and repeated in a backward pass instead of kept."""

    def __init__(self, score_fn: Score, checkpoint: bool) -> None:
        self.score_fn, self.checkpoint = score_fn, checkpoint
        self.traits = score_fn.traits
        self.calls = self.gradients = self.rows = 0

    @property
    def only_scores(self) -> bool:
        return self.score_fn.only_scores

    @property
    def network_device(self) -> torch.device | None:
        return self.score_fn.network_device

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
            with check_quiet("score_fn", x.device):
                return function(x, node, **context)

        if not torch.is_grad_enabled() or not any(isinstance(v, Tensor) and v.requires_grad for v in (x, *node)):
            return call(x, node)
        try:
            out = recompute(call, x, node, use_reentrant=False) if self.checkpoint else call(x, node)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            raise InvalidArgumentError(
                "The score function uses torch.func, which keeps nothing to call again; pass checkpoint=False."
            ) from error
        if any(v.requires_grad for v in (out if isinstance(out, tuple) else (out,))):
            self.gradients += 1
            self.rows += 2 * len(x)
        elif x.requires_grad:
            raise InvalidArgumentError(
                "The score function has no gradient (torch.no_grad or .detach() inside?); pass gradient=False."
            )
        return out


def squares(end: Tensor, exact: Tensor) -> Tensor:
    """Mean squares over dimensions, per sample."""
    return (end.to(torch.float64) - exact.to(torch.float64)).flatten(1).square().mean(1)


def distances(x: Tensor, exact: Tensor) -> Tensor:
    """The RMS over dimensions of each sample's error; infinite for one that failed."""
    return squares(x, exact).sqrt().nan_to_num(nan=math.inf)


def summary(errors: Tensor) -> PilotErrors:
    """RMS and median over samples."""
    return PilotErrors(float(errors.square().mean().sqrt()), float(errors.median()))
