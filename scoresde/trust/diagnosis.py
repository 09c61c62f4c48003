"""`diagnose`: what limits the samples of a diffusion model."""

from __future__ import annotations

import copy
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.arguments import check_events
from ..core.errors import InvalidArgumentError, InvalidTypeError, short
from ..core.noise import check_seed
from ..core.sdes import SDE, AffineSDE, NormalPrior
from ..core.sdes.base import check_affine
from ..core.setup import DEFAULT_EVALUATIONS, is_times
from ..core.support import display as _display
from ..core.support.checks import (
    MOST_DRAWS,
    check_finite_rows,
    check_integer,
    check_interval,
    check_kind,
    check_not_empty,
    check_state,
)
from ..core.support.intervals import Interval
from ..grids import Grid
from ..plot import cause_bars
from ..scores import as_score
from ..scores.limits import Clip
from ..scores.networks import check_evaluating
from ..solvers import Solver, make_solver
from ..solvers.registry.rows import MethodName
from .conformal import check_confidence
from .coupling import Task
from .reference import check_steps
from .repairs.base import Repair, Rung, number
from .repairs.denoising import Denoised
from .repairs.high_noise import NoisyStart
from .repairs.network import LabelRepair, Memorisation, NetworkRepair, Overfitting
from .repairs.posterior import Posterior
from .repairs.precision import HALVES, Precision, in_float32
from .repairs.process import End, Prior, Steps
from .repairs.ranges import OtherRange, Range
from .repairs.subject import Rows, Subject
from .repairs.wrappers import Guidance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS, _DRAWS = 8, 32  # at least, of the data and of a pilot
# Of faults that explain the same distance, the first is the cause.
_CAUSES = (
    "dtype", "steps", "prior", "high noise", "guidance", "range", "memorisation", "overfitting", "labels", "t_min",
    "network", "calibration",
)  # fmt: skip
_LEGEND = "Distances without a unit are in the units of the data, RMS per element; limits are in brackets."
_HEAD, _WIDTHS = ("repair", "distance", "kind", "limits"), (14, 30, 14, 7)


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(_display.Displayed):
    """The result of `diagnose`; ``print`` shows it as a table.

    Attributes:
        rungs: a `Rung` for each repair.
        total: the sliced 2-Wasserstein distance of the method's samples to held-out data, less what finite samples
            add, with its limits; per element, in the units of the data.
        floor: what chance alone reaches.
        remaining: the same distance of samples by exact integration.
        limits: the names of the faults, in the order of their size; empty where none was found.
        unit: the standard deviation of the data per element.
        pilot: the number of samples of each kind.
        evaluations: of the score function, for all samples together.
        confidence: that a sound sampler has no faults, about.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
        >>> sde = scoresde.VPSDE()
        >>> generator = torch.Generator().manual_seed(0)
        >>> data = target.sample(512, generator=generator)
        >>> diagnosis = scoresde.trust.diagnosis.diagnose(
        ...     sde, target.score(sde), data, pilot=64
        ... )
        >>> diagnosis.limits, diagnosis["steps"].matters
        ((), False)
    """

    rungs: tuple[Rung, ...]
    total: Interval
    floor: float
    remaining: Interval
    limits: tuple[str, ...]
    unit: float
    pilot: int
    evaluations: int
    confidence: float

    def __getitem__(self, name: str) -> Rung:
        """The rung of a name.

        Raises:
            InvalidArgumentError: there is none.
        """
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise InvalidArgumentError(f"`name` must be one of {[rung.name for rung in self.rungs]}, got {name!r}.")

    @property
    def verdict(self) -> str:
        """What limits the samples, and what to do, in one or two sentences."""
        whole, left, chance = number(self.total.value), number(self.remaining.value), number(self.floor)
        if not self.limits and self.total.value > self.floor:
            largest = max(self.rungs, key=lambda rung: rung.size)
            return (
                f"The samples are {whole} from held-out data, where chance reaches {chance}, and no cause was found "
                f"that is large enough by itself. The largest is {largest.name!r}: {largest.finding}"
            )
        if not self.limits:
            ranked = any(rung.name == "calibration" and rung.applies for rung in self.rungs)
            average = " This is so on average over the observations; the posterior of a single one may still be wrong."
            return (
                f"No cause is seen: the samples cannot be distinguished from held-out data (distance {whole}, where "
                f"chance reaches {chance}).{average if ranked else ''} {self.pilot} samples are too few to see less "
                f"than {self.floor / self.unit:.0%} of the standard deviation of the data; a larger `pilot` shows "
                "smaller faults."
            )
        first = self[self.limits[0]]
        named = [name if _is_zero(self[name]) else f"{name} ({_row(self[name])[1]})" for name in self.limits[1:]]
        others = f" Then examine: {', '.join(named)}." if named else ""
        if "steps" in self.limits or "dtype" in self.limits:
            return f"{first.finding} {first.remedy}{others}"
        if self.total.value <= self.floor:  # the distance of the samples does not show this fault
            return f"More steps cannot help. {first.finding} {first.remedy}{others}"
        return (
            f"More steps cannot help: the samples are {whole} from the data, and {left} remains with exact "
            f"integration. {first.finding} {first.remedy}{others}"
        )

    def table(self) -> str:
        """The rungs as text of at most 100 columns, with the finding of each and the remedies of those that limit."""
        lines = [_line(_HEAD)]
        for rung in self.rungs:
            lines.append(_line(_row(rung)))
            text = f"{rung.finding} {rung.remedy}" if rung.matters else rung.finding
            lines += textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent="    ")
        return "\n".join([*lines, "", *textwrap.wrap(_LEGEND, 100), "", *textwrap.wrap(self.verdict, 100)])

    def __str__(self) -> str:
        return self.table()

    def plot(self, path: str | os.PathLike[str] | None = None, *, title: str | None = None) -> Axes:
        """How much each cause explains of the distance to the data, by `scoresde.plot.cause_bars`.

        Args:
            path: where to write the figure as PNG.
            title: above it; by default what limits the samples.

        Raises:
            ImportError: matplotlib is missing.
            OutputError: the file cannot be written.
        """
        rungs = [rung for rung in self.rungs if rung.applies]
        sizes = torch.tensor([rung.size for rung in rungs], dtype=torch.float64)
        told = f"limited by: {', '.join(self.limits)}" if self.limits else "nothing found that limits the samples"
        return cause_bars([rung.name for rung in rungs], sizes, self.limits, path, total=self.total.value,
                          floor=self.floor, title=told if title is None else title)  # fmt: skip

    def _repr_html_(self) -> str:
        head = (*_HEAD, "finding", "remedy")
        rows = [(*_row(rung), rung.finding, rung.remedy if rung.matters else "") for rung in self.rungs]
        return _display.table(f"Diagnosis: {self.verdict}", head, rows)

    def _summary(self) -> dict[str, str]:
        return {
            "limits": f"({', '.join(self.limits)})",
            "total": number(self.total.value),
            "floor": number(self.floor),
            "remaining": number(self.remaining.value),
            "evaluations": f"{self.evaluations}",
        }


def _is_zero(rung: Rung) -> bool:
    """Whether the distance alone does not show why a fault matters."""
    return rung.distance is None or rung.distance.value <= rung.floor


def _row(rung: Rung) -> tuple[str, str, str, str]:
    unit = "" if rung.unit == "data" or not rung.applies else f" {rung.unit}"
    return rung.name, f"{rung.shown}{unit}", rung.kind or "-", "yes" if rung.matters else "no" if rung.applies else "-"


def _line(cells: Sequence[str]) -> str:
    return " ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def diagnose(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    data: Tensor,
    *,
    method: MethodName | str | Solver | Grid = "auto",
    evaluations: int | None = None,
    steps: int | None = None,
    held_out: Tensor | tuple[Tensor, Mapping[str, object]] | None = None,
    exact_score: Callable[..., Tensor] | None = None,
    context: Mapping[str, object] | None = None,
    x: Tensor | None = None,
    shape: Sequence[int] | None = None,
    pilot: int = 256,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    half_precision: torch.dtype | None = None,
    clip: tuple[float, float] | None = None,
    posterior_draws: int | None = None,
    reference: tuple[int, int] | None = None,
    **options: Any,
) -> Diagnosis:
    r"""Find what limits samples: the steps, the end of the solve, the prior, guidance, clipping, precision, or the
    network.

    A fixed list of repairs is tried, and each is measured by what it changes:

    ================ ===================================================================================
    ``prior``        states at ``t_max`` that are made of data, in place of the prior
    ``steps``        exact integration of the same draws
    ``t_min``        the noise that is left at the end; a last step to the data
    ``guidance``     the distribution that guidance aims at; only for guidance by `scoresde.guidance`
    ``range``        no clipping; data in another range than those that the network was trained on
    ``dtype``        full in place of half precision
    ``high noise``   the estimate of a Gaussian, or a clipped one, where noise is far larger than the data
    ``network``      what remains; denoising errors against those of linear denoisers
    ``overfitting``  denoising errors of held-out data against those of training data
    ``labels``       denoising errors with the right labels or observations against those with shuffled ones
    ``calibration``  ranks of held-out data among samples with the same context (with ``posterior_draws``)
    ``memorisation`` distances to the nearest training data against those of held-out data
    ================ ===================================================================================

    A fault counts if it is beyond what chance reaches, is more than 5 % of the standard deviation of the data (or a
    probability of more than 5 %), and is more than 10 % of the distance of the samples to held-out data. The tests of
    distributions (energy distance, classifier, samples far out, copies) have a level of (1 - confidence)/5 each, and
    means must be 3 standard errors apart. Three thresholds belong to one fault each: samples copy data if they are
    nearer with a probability of 60 %, or if 10 % more of them are near than should be; a classifier must show a total
    variation distance of 10 %; and data have another range if a shift by one standard deviation, or stretching by 1.5,
    brings the samples within 0.15 standard deviations, or within what chance reaches, or if they fill a range of images
    ([0, 1], [-1, 1], [0, 255]) and the network's errors beyond a linear denoiser's are less than half in another.

    The numbers do not add up to the whole: distances to the data are estimates, those of coupled samples upper bounds,
    and without the exact score no method separates the network's error from the entropy of the data.

    The cost is that of the method, of three accurate solves (two more with guidance or clipping), and of 24 evaluations
    at single noise levels (24 more with a context for each row, 12 more with labels, 24 more with an exact score), for
    ``pilot`` samples each. For deterministic
    methods it is 100 to 300 evaluations times ``pilot``; a method with a strong order that draws noise is its own
    reference, with 4 and 8 times as many steps, which costs about 20 times as much as the method.

    Args:
        sde, score_fn, method, evaluations, steps, options: as for `solve`; ``options`` may also have ``t_end``,
            ``denoise``, ``rtol``, and others. A method with fixed steps has 20 evaluations by default. With a grid that
            begins below ``t_max``, such as ``chain.grid(20, "leading")``, samples begin there with the noise of that
            level, as the loops of such networks do; what this changes is the row ``prior``.
        data: the training data as the network receives them, ``(n, *event)``, n ≥ 8.
        held_out: other data of the same distribution, ``(m, *event)``, m ≥ 8, or a pair of these and their context.
            Without them the samples are compared with the training data, and overfitting is not seen.
        exact_score: the exact score, if it is known, of the same data. The divergence of the network is then exact.
        context: the inputs of the network, with a row for each row of ``data``, or one for all; the samples have those
            of random rows.
        x: the states at which samples begin, ``(pilot, *event)``; by default they are drawn.
        shape: ``(pilot, *event)``; by default the shape of the data.
        pilot: the number of samples of each kind, at least 32. The distance that chance reaches falls as its root: with
            256 it is about 0.1 to 0.25 standard deviations of the data.
        confidence: that a sound sampler has no faults, about; it is more in practice, as faults must also be large.
        seed: of all draws.
        batch_size: samples that are solved together.
        dtype, device: of the states; by default torch's dtype, and the device of the data. With a half precision it
            is compared with float32, in which everything else is computed.
        half_precision: ``torch.float16`` or ``torch.bfloat16``, which is then compared with full precision. A network
            whose parameters are in half precision is compared with its copy in float32, with which everything else is
            computed.
        clip: (low, high), if the data estimate is clipped in sampling and ``score_fn`` does not do it.
        posterior_draws: for networks of posteriors, the number of samples of the method for the context of each of
            ``pilot`` rows of held-out data, of which the calibration is tested; 63 are enough with a pilot of 256. By
            default it is not: the cost is that of ``posterior_draws * pilot`` samples.
        reference: two numbers of steps (tight, loose), such as ``(500, 250)``, of `scoresde.solvers.UniPC3`, in place
            of a tolerance for the accurate solves of a deterministic method: for networks that are no smooth function
            of time, such as those of integer labels, on which a tolerance takes thousands of evaluations.

    Returns:
        A `Diagnosis`.

    Raises:
        InvalidTypeError: an argument has a wrong type.
        InvalidArgumentError: the shapes do not fit, there are too few rows, or a context is missing.
        NonFiniteError: data have NaN or infinite values.
        SolveFailedError: nearly all draws fail, or the two numbers of steps of a ``reference`` give different states.

    Example:
        >>> from scoresde.trust.diagnosis import diagnose
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), scales=0.2
        ... )
        >>> generator, sde = torch.Generator().manual_seed(0), scoresde.VPSDE()
        >>> data, held_out = target.sample(1000, generator=generator).split(500)
        >>> diagnose(
        ...     sde,
        ...     target.score(sde),
        ...     data,
        ...     held_out=held_out,
        ...     method="ddim",
        ...     steps=3,
        ...     pilot=128,
        ... ).limits
        ('steps',)

    References:
        Chen et al. (2023), Sampling is as easy as learning the score. https://arxiv.org/abs/2209.11215 (the three
        parts of the error: prior, steps, network).
        Song, Durkan, Murray, Ermon (2021), Maximum Likelihood Training of Score-Based Diffusion Models.
        https://arxiv.org/abs/2101.09258
    """
    count = check_integer("pilot", pilot, low=_DRAWS, high=MOST_DRAWS)
    seed = check_seed("seed", seed)
    draws = None if posterior_draws is None else check_integer("posterior_draws", posterior_draws, low=2, high=10_000)
    check_confidence("confidence", confidence)
    for name, value in (("dtype", dtype), ("half_precision", half_precision)):
        check_kind(name, value, (torch.dtype, type(None)), "a floating-point dtype")
    fixed = None if reference is None else _pair(reference)
    half = half_precision
    if half is not None and half not in HALVES:
        raise InvalidTypeError(f"`half_precision` must be torch.float16 or torch.bfloat16, got {half!r}.")
    if dtype in HALVES:
        half, dtype = half or dtype, torch.float32
    rows = _rows("data", data, context)
    event = tuple(rows.x.shape[1:])
    held = rows if held_out is None else _held(held_out, rows, event)
    own = isinstance(method, Grid) or "rtol" in options or is_times(options.get("grid"))
    if not own and evaluations is None and steps is None and not _adaptive(method):
        evaluations = DEFAULT_EVALUATIONS
    check_evaluating("score_fn", score_fn)
    score = as_score(score_fn, check_affine(sde))
    if clip is not None:
        score = Clip(score, *check_interval("clip", clip), sde=check_affine(sde))
    exact = None if exact_score is None else as_score(exact_score, check_affine(sde))
    full, packed = in_float32(score)
    settings = {"method": method, "evaluations": evaluations, "steps": steps, **options}
    where = rows.x.device if device is None else device
    process = _from_first(check_affine(sde), options.get("grid"))
    task = Task.of(process, full, settings, (count, *event) if shape is None else shape, count, dtype, where)
    if task.event != event:
        raise InvalidArgumentError(f"`data` must have events of shape {task.event}, got {event}.")
    if x is not None and check_state("x", x).shape != (count, *event):
        raise InvalidArgumentError(f"`x` must have the shape {(count, *event)}, got {tuple(x.shape)}.")
    for of in (full, *([] if exact is None else [exact])):
        check_events(of, rows.x)
    subject = Subject(
        task,
        rows,
        held,
        held_out is not None,
        pilot=count,
        seed=seed,
        batch_size=check_integer("batch_size", batch_size, low=1),
        confidence=float(confidence),
        exact=exact,
        steps=fixed,
        begun=x,
    )
    subject.check_repeatable()
    precision = Precision(half or packed, None if packed is None else score, half is not None)
    rungs = tuple(repair.try_on(subject) for repair in _ladder(subject, precision, draws))
    explained = {name for rung in rungs if rung.matters for name in rung.explains}
    rungs = tuple(replace(rung, matters=rung.matters and rung.name not in explained) for rung in rungs)
    faults = sorted((rung for rung in rungs if rung.matters), key=lambda r: (-r.size, _CAUSES.index(r.name)))
    return Diagnosis(
        rungs=rungs,
        total=subject.total.interval,
        floor=subject.total.sliced.floor,
        remaining=subject.remaining.interval,
        limits=tuple(rung.name for rung in faults),
        unit=subject.unit,
        pilot=count,
        evaluations=round(subject.evaluations),
        confidence=float(confidence),
    )


def _pair(reference: object) -> Any:
    """The numbers of steps of a reference."""
    if not isinstance(reference, tuple | list) or len(reference) != 2:
        raise InvalidTypeError(
            f"`reference` must be a pair of numbers of steps (tight, loose), got {short(reference)}."
        )
    return check_steps(reference)


def _ladder(subject: Subject, precision: Precision, draws: int | None) -> tuple[Repair, ...]:
    """What is repaired, from the cheapest cause to find."""
    denoised = Denoised(subject)
    other = OtherRange(subject, denoised)
    return (
        Prior(),
        Steps(),
        End(),
        Guidance(),
        Range(other),
        precision,
        NoisyStart(denoised),
        NetworkRepair(denoised, other),
        Overfitting(denoised),
        LabelRepair(denoised),
        Posterior(draws),
        Memorisation(),
    )


def _adaptive(method: Any) -> bool:
    return method != "auto" and make_solver(method, {}, ()).adaptive


def _from_first(sde: AffineSDE, grid: Any) -> AffineSDE:
    """The process up to the first time of a grid, with a prior that has as much of the size of the states there."""
    if not is_times(grid):
        return sde
    first = float(torch.as_tensor(grid.times_for(sde) if isinstance(grid, Grid) else grid).flatten()[0])
    if not (sde.t_min < first < sde.t_max and isinstance(sde.prior, NormalPrior)):
        return sde
    part, ends = copy.copy(sde), [sde.node(t) for t in (first, sde.t_max)]
    here, there = (math.hypot(node.alpha, node.sigma) for node in ends)
    part.t_max, part.prior = first, NormalPrior(sde.prior.std * here / there, sde.prior.mean)
    return part


def _rows(name: str, x: object, context: object) -> Rows:
    """Data and their context, checked."""
    found = check_state(name, x)
    check_not_empty(name, found)
    check_finite_rows(f"`{name}`", found)
    if len(found) < _ROWS:
        raise InvalidArgumentError(f"`{name}` must have at least {_ROWS} rows, got {len(found)}.")
    check_kind("context", context, (Mapping, type(None)), "a mapping from names to tensors")
    given: dict[str, Any] = dict(context or {})  # type: ignore[call-overload]
    for key, value in given.items():
        if isinstance(value, Tensor) and value.ndim and len(value) not in (1, len(found)):
            raise InvalidArgumentError(
                f"`context[{key!r}]` must have a row for each of the {len(found)} rows of `{name}`, or one for all, "
                f"got {len(value)}."
            )
    return Rows(found.detach(), given)


def _held(held_out: object, data: Rows, event: tuple[int, ...]) -> Rows:
    """The held-out data with their context."""
    x, context = held_out if isinstance(held_out, tuple) and len(held_out) == 2 else (held_out, None)
    if context is None:
        varying = [k for k, v in data.context.items() if isinstance(v, Tensor) and v.ndim and len(v) > 1]
        if varying:
            raise InvalidArgumentError(
                f"`held_out` must be a pair (data, context) where `context` has rows for `data`; {varying} is missing."
            )
        context = data.context
    rows = _rows("held_out", x, context)
    if tuple(rows.x.shape[1:]) != event:
        raise InvalidArgumentError(f"`held_out` must have events of shape {event}, got {tuple(rows.x.shape[1:])}.")
    return rows


__all__ = ["Diagnosis", "diagnose"]
