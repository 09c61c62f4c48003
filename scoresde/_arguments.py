"""Checks of arguments that `solve` and `log_likelihood` share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ._signatures import accepts
from ._tensors import check_number
from .errors import InvalidArgumentError, InvalidTypeError
from .sdes import AffineSDE
from .solvers import Solver

DEFAULT_TOLERANCE = 1e-3


def check_limits(sde: AffineSDE, score_fn: Any, solver: Solver, times: tuple[float, float]) -> None:
    noisy, clean = max(times), min(times)
    with torch.no_grad():
        nodes = sde.nodes(torch.tensor([noisy, clean], dtype=torch.float64))
    alpha, sigma = float(nodes.alpha[0]), float(nodes.sigma[1])
    smallest = torch.finfo(torch.float32).tiny
    if min(alpha, sigma) < smallest:
        sde.check_schedule()  # 0 may be a limit or an underflow
    if alpha < smallest:
        if not getattr(score_fn, "has_noise_limit", False):
            raise InvalidArgumentError(
                f"alpha is 0 at t={noisy:g}, where a score or noise prediction does not determine the data, and rho, "
                f"log_snr and x/alpha are infinite; take a ScoreModel with data, v or flow prediction told t or "
                f"sigma, or t_max below {noisy:g}."
            )
        if not solver.noise_limit:
            raise InvalidArgumentError(
                f"alpha is 0 at t={noisy:g}, and {solver.name!r} has no limit there; try 'ddim', 'ancestral', "
                f"'heun', or t_max below {noisy:g}."
            )
        if not solver.affine and not math.isfinite(nodes.dalpha[0]):
            raise InvalidArgumentError(
                f"alpha is 0 at t={noisy:g}, where its derivative, which {solver.name!r} needs, is not known; take a "
                f"method of the estimates such as 'ddim', or t_max below {noisy:g}."
            )
    if sigma == 0.0 and times[0] == clean:
        raise InvalidArgumentError(
            f"sigma is 0 at t={clean:g}, where the score is not defined; start above it, at t_start > {clean:g}."
        )
    if sigma == 0.0 and not solver.data_limit:
        raise InvalidArgumentError(
            f"sigma is 0 at t={clean:g}, where {solver.name!r} would evaluate the score; try 'ddim', or t_end above "
            f"{clean:g} with denoise=True."
        )


def context_of(context: Any, score_fn: Any, batch: int, device: torch.device) -> dict[str, Tensor]:
    if context is not None and not isinstance(context, Mapping):
        raise InvalidTypeError(f"`context` must be a mapping from names to tensors, got {type(context).__name__}.")
    checked = {}
    for name, value in (context or {}).items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"`context` must have strings as names, got {name!r}.")
        if name in ("x", "t", "node") or not accepts(score_fn, name):
            raise InvalidArgumentError(
                f"`context` must have names that the score function takes besides x and t, got {name!r}."
            )
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != batch:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InvalidArgumentError(
                f"`context[{name!r}]` must be a tensor ({batch}, …) with one entry a sample, got {got}."
            )
        checked[name] = value.to(device)
    return checked


def tolerances(rtol: Any, atol: Any, dtype: torch.dtype) -> tuple[float, float]:
    """Relative and absolute, checked."""
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
    return rtol, atol


@contextlib.contextmanager
def memory_note(x: Any, shape: Any) -> Iterator[None]:
    """torch's own error when memory runs out, with a note of what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if exhausted and hasattr(error, "add_note"):
            full = tuple(x.shape) if isinstance(x, Tensor) else shape
            error.add_note(f"It ran out of memory with shape {full}; use a smaller batch.")
        raise


def device_of(device: Any, default: torch.device) -> torch.device:
    """The device asked for, if it is one and holds data."""
    try:
        where = default if device is None else torch.device(device)
    except TypeError as error:
        raise InvalidTypeError(f"`device` must be a torch device or its name, got {device!r}.") from error
    except (RuntimeError, ValueError) as error:
        raise InvalidArgumentError(f"`device` must be a device such as 'cpu' or 'cuda', got {device!r}.") from error
    if where.type == "meta":
        raise InvalidArgumentError("`device` must hold data, got 'meta'; try 'cpu'.")
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise InvalidArgumentError(f"`device` {device!r} is not available here: {error}") from error
    return where


def check_made_for(sde: AffineSDE, score_fn: Any) -> None:
    """Refuse a score function of another process."""
    own = getattr(score_fn, "sde", None)
    if isinstance(own, AffineSDE) and not sde.same_schedule(own):
        raise InvalidArgumentError(
            f"`score_fn` was made for {own!r}, but `sde` is {sde!r}; make it again with .score(sde) or "
            f"ScoreModel(net, sde, …)."
        )


def check_events(score_fn: Any, x: Tensor) -> None:
    """Refuse events that have no size, or another shape than those of the score function."""
    event = getattr(score_fn, "event_shape", None)
    if event is not None and tuple(x.shape[1:]) != tuple(event):
        raise InvalidArgumentError(
            f"The score function is for events of shape {tuple(event)}, got events of shape {tuple(x.shape[1:])}."
        )
    if not all(x.shape[1:]):
        raise InvalidArgumentError(f"Events of shape {tuple(x.shape[1:])} have no numbers, and no density.")
