"""The arguments of a solve, as one record, and the checks that several functions make of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor

from ..grids import Grid, GridFunction, snap
from ..scores import Score, ScoreFn, as_score
from ..scores.bare import check_complete, check_context
from ..solvers import Solver
from ..targets import GaussianStart
from .errors import InvalidArgumentError, short
from .noise import Noise
from .sdes import SDE, AffineSDE
from .sdes.base import check_affine
from .support.checks import (
    DEFAULT_TOLERANCE,
    check_number,
    check_shape,
    check_times,
    warn_caller,
)
from .support.context import mapped, named, per_row
from .support.declared import Device, NonNegative, Shape, Steps, Stochasticity, called, checked_fields
from .support.memo import Memo, constants_of
from .support.tensors import transforming

GridChoice: TypeAlias = str | Grid | Tensor | GridFunction | None  # what `solve` takes as ``grid``


@dataclass(frozen=True, eq=False)
class SolveOptions:
    """What `scoresde.solve` takes besides the process, the score function and the state; see there.

    Attributes:
        solver_options: fields of the method's class.
        names: the arguments of the function that was called, which the texts of errors name.

    Example:
        >>> SolveOptions(method="ddim", steps=20).rtol is None
        True
    """

    method: str | Solver | Grid = "auto"
    shape: Shape | None = None
    steps: Steps | None = None
    evaluations: Steps | None = None
    grid: GridChoice = None
    rtol: NonNegative | None = None
    atol: NonNegative | None = None
    t_start: float | None = None
    t_end: float | None = None
    start: GaussianStart | None = None
    stochasticity: Stochasticity | None = None
    context: Mapping[str, object] | None = None
    seed: int | None = None
    seeds: Sequence[int] | Tensor | None = None
    generator: torch.Generator | None = None
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None
    denoise: bool = False
    save_at: Sequence[float] | Tensor | str | None = None
    callback: Annotated[Callable[[Any], object], called("callback(info)")] | None = None
    progress: bool = False
    max_steps: Steps | None = None
    throw: bool = True
    differentiable: bool = False
    log_prob: Any = False
    path_log_prob: bool | str = False
    dtype: torch.dtype | None = None
    device: Device | None = None
    solver_options: Mapping[str, object] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> SolveOptions:
        """Those among the arguments of a function, its ``locals()`` where it begins.

        Example:
            >>> def draw(sde, steps=5, **solver_options):
            ...     return SolveOptions.of(locals())
            >>> draw(None).steps, draw(None).names
            (5, ('sde', 'steps', 'solver_options'))
        """
        known = {name: value for name, value in arguments.items() if name in cls.__dataclass_fields__}
        names = tuple(name for name in arguments if name not in ("self", "__class__"))
        return cls(**checked_fields(cls, known), names=names)

    @classmethod
    def named(cls, settings: Mapping[str, Any]) -> SolveOptions:
        """Settings by name, in which fields of the method's class stand beside the others.

        Example:
            >>> SolveOptions.named({"method": "pc", "snr": 0.2}).solver_options
            {'snr': 0.2}
        """
        own = {name: value for name, value in settings.items() if name not in cls.__dataclass_fields__}
        known = {name: value for name, value in settings.items() if name not in own}
        return cls(**checked_fields(cls, known), solver_options=own, names=tuple(cls.__dataclass_fields__))


def check_limits(sde: AffineSDE, score_fn: Score, solver: Solver, times: tuple[float, float]) -> None:
    noisy, clean = max(times), min(times)
    constants = constants_of(sde)
    ends = _ends(sde, times) if constants is None else _ENDS.get((constants, times), lambda: _ends(sde, times))
    alpha, sigma, dalpha = ends
    smallest = torch.finfo(torch.float32).tiny
    if min(alpha, sigma) < smallest:
        sde.check_schedule()  # 0 may be a limit or an underflow
    if alpha < smallest:
        if not score_fn.traits.noise_limit:
            raise InvalidArgumentError(
                f"alpha is 0 at t={noisy:g}, where a score or noise prediction does not determine the data, and rho, "
                "log_snr and x/alpha are infinite; take a ScoreModel with data, v or flow prediction and the time "
                f"input t or sigma, or t_max below {noisy:g}."
            )
        if not solver.noise_limit:
            raise InvalidArgumentError(
                f"alpha is 0 at t={noisy:g}, and {solver.name!r} has no limit there; try 'ddim', 'ancestral', "
                f"'heun', or t_max below {noisy:g}. A method of your own that can start there declares "
                "noise_limit = True."
            )
        if not solver.affine and not math.isfinite(dalpha):
            raise InvalidArgumentError(
                f"alpha is 0 at t={noisy:g}, where its derivative, which {solver.name!r} needs, is not known; take a "
                f"method of the estimates such as 'ddim', or t_max below {noisy:g}."
            )
    if sigma == 0.0 and times[0] == clean:
        raise InvalidArgumentError(
            f"sigma is 0 at t={clean:g}, where the score is not defined; start above it, at t_start > {clean:g}, or "
            f"make the process or model with t_min={clean + _NEAR:g}."
        )
    if sigma == 0.0 and not solver.data_limit:
        raise InvalidArgumentError(
            f"sigma is 0 at t={clean:g}, where {solver.name!r} would evaluate the score; try 'ddim', t_end above "
            f"{clean:g} with denoise=True, or a process or model made with t_min={clean + _NEAR:g}. A method of your "
            "own that can end there declares data_limit = True."
        )


_NEAR = 1e-3  # of the clean end, where the score is defined
_ENDS: Memo[tuple[float, float, float]] = Memo(most=64)


def _ends(sde: AffineSDE, times: tuple[float, float]) -> tuple[float, float, float]:
    """Alpha at the noisy end, sigma at the clean one, and the derivative of alpha at the first."""
    with torch.no_grad():
        nodes = sde.nodes(torch.tensor([max(times), min(times)], dtype=torch.float64))
    return float(nodes.alpha[0]), float(nodes.sigma[1]), float(nodes.dalpha[0])


def context_of(
    context: Mapping[str, object] | None, score_fn: Score, x: Tensor, *, complete: bool = True
) -> dict[str, Any]:
    """The context of a state, checked, on its device, with one entry per sample in every tensor; ``complete``, unless
    nothing is evaluated."""
    given = check_context(context, score_fn, len(x)) if context is not None else {}
    if complete:
        check_complete(given, score_fn)
    if not given:
        return {}
    for name, value in named(given).items():
        check_no_vmap(name, value)
    return per_row(mapped(lambda value: value.to(x.device), given), x)


def context_names(context: Mapping[str, object] | None, score_fn: Score) -> tuple[str, ...]:
    """The names of what a score function receives besides x and t, passed or bound; None is nothing."""
    given = {name for name, value in (context or {}).items() if value is not None}
    return tuple(sorted(given | score_fn.bound_names))


def shape_to_draw(
    shape: Sequence[int] | None, event_shape: tuple[int, ...] | None, count: int, what: str
) -> tuple[int, ...]:
    """The shape of a state that is drawn: as given, or ``count`` (which is ``what``) events of a score function."""
    if shape is not None:
        return check_shape("shape", shape, rank=2)
    if event_shape is None:
        raise InvalidArgumentError(
            f"Give x, or shape=({what}, *event): this score function does not declare the shape of its events."
        )
    return count, *event_shape


def check_no_vmap(name: str, value: Tensor) -> None:
    """Refuse a tensor inside `torch.func.vmap`, where none has numbers to choose steps by."""
    if not transforming():
        return
    try:
        value.detach().flatten()[:0].tolist()
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"`{name}` is inside torch.func.vmap, which cannot map over a solve, as its steps and checks depend on "
            f"numbers; put the samples into the batch dimension of `x` instead, and their labels into `context`."
        ) from error


def check_save_at(save_at: object, sde: SDE, times: tuple[float, float]) -> list[float]:
    """The times to save at between those of the ends; none for None and for "steps"."""
    if save_at is None or (isinstance(save_at, str) and save_at == "steps"):
        return []
    if isinstance(save_at, str):
        raise InvalidArgumentError(f'`save_at` must be a list of times or "steps", got {short(save_at)}.')
    values = [snap(t, sde) for t in check_times("save_at", save_at).tolist()]
    for value in values:
        check_number("save_at", value, low=min(times), high=max(times), hint=" (the interval of the solve)")
    return values


def tolerances(
    rtol: float | None, atol: float | None, dtype: torch.dtype, network: torch.dtype | None = None
) -> tuple[float, float]:
    """Relative and absolute, checked for states of a dtype, and a network of another one."""
    epsilon = 10 * torch.finfo(dtype).eps
    rtol, atol = (
        check_number(name, DEFAULT_TOLERANCE if value is None else value, low=0.0)
        for name, value in (("rtol", rtol), ("atol", atol))
    )
    if (rtol < epsilon and atol < epsilon) or 0.0 < rtol < epsilon:
        raise InvalidArgumentError(
            f"rtol={rtol:g}, atol={atol:g} is below 10 x the resolution of {dtype} ({epsilon:.1e}); loosen it, or pass "
            f"dtype=torch.float64."
        )
    if network is not None and max(rtol, atol) < resolution_of(network):
        warn_caller(
            f"rtol={rtol:g}, atol={atol:g} are below the rounding of a network in {network}, about "
            f"{resolution_of(network):.1g} of its estimates: samples may err by more, and cost many evaluations. "
            "Loosen them, or evaluate the network in a wider dtype."
        )
    return rtol, atol


def resolution_of(network: torch.dtype) -> float:
    """The relative error that rounding leaves, about, where the layers of a network round to a dtype: half its spacing.

    Example:
        >>> resolution_of(torch.bfloat16), resolution_of(torch.float32)
        (0.00390625, 5.960464477539063e-08)
    """
    return 0.5 * torch.finfo(network).eps


def for_data_of(score_fn: Score, solver: Solver) -> Solver:
    """The method for the data of a score function, where it declares their scale, and they are no single point."""
    std = score_fn.traits.data_std
    return solver.for_data(std) if std else solver


def affine_model(sde: SDE, score_fn: ScoreFn) -> tuple[AffineSDE, Score]:
    """An affine process and the `Score` of a score function for it; others are refused."""
    affine = check_affine(sde)
    return affine, as_score(score_fn, affine)


def check_finite_ends(clean: float, noisy: float) -> None:
    """Refuse a process whose log-SNR is infinite at an end."""
    if not (math.isfinite(clean) and math.isfinite(noisy)):
        raise InvalidArgumentError(
            f"The log-SNR must be finite at both ends, but is {clean:g} and {noisy:g}; take t_min or t_max inside the "
            f"interval."
        )


def check_events(score_fn: Score, x: Tensor) -> None:
    """Refuse events that have no size, or another shape than those of the score function."""
    event = score_fn.traits.event_shape
    if event is not None and tuple(x.shape[1:]) != event:
        raise InvalidArgumentError(
            f"The score function is for events of shape {event}, got events of shape {tuple(x.shape[1:])}."
        )
    if not all(x.shape[1:]):
        raise InvalidArgumentError(f"Events of shape {tuple(x.shape[1:])} have no elements, and so no density.")
