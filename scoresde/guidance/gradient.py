"""Gradients of a user's log-density, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ScoreFnError
from ..core.sdes import Estimate
from ..core.sdes.records import PARTS
from ..core.support.checks import form
from ..core.support.tensors import expand, leaves_of

Valued = Callable[[Tensor], tuple[Tensor, Any]]  # the values (batch,), and what else there is


def gradient_of(function: Valued, x: Tensor, name: str) -> tuple[Tensor, Any, Tensor]:
    """The gradient, shaped like ``x``, of a function ``(batch, …) -> ((batch,) values, anything)``, the anything, and
    the values.

    The graph is kept where a gradient of it may be needed: while torch records, and if x or something else in it
    requires one. It works under ``torch.no_grad`` and ``torch.inference_mode``.
    """
    records = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        y = x if records and x.requires_grad else x.detach().clone().requires_grad_(True)
        value, extra = function(y)
        check_values(value, x, name)
        keep = records and value.requires_grad and (y is x or any(leaf is not y for leaf in leaves_of(value)))
        slope = None
        if value.requires_grad:
            slope = torch.autograd.grad(value.sum(), y, create_graph=keep, allow_unused=True)[0]
        if slope is None:
            raise ScoreFnError(_blocked(function, x, value, name))
        lost = value.detach().isnan()  # of a value that is none there is no gradient, whatever autograd says
        slope = torch.where(expand(lost, slope).bool(), torch.full_like(slope, torch.nan), slope)
    if keep:
        return slope, extra, value
    return slope, _detached(extra) if isinstance(extra, Estimate) else extra, value.detach()


def blocked_score(remedy: str) -> ScoreFnError:
    """The error of a score function without gradients; ``remedy`` is the way to do without them."""
    return ScoreFnError(
        "The score function blocks gradients (torch.no_grad, .detach(), .numpy() or quantised layers inside?); "
        f"{remedy}."
    )


def check_values(value: object, x: Tensor, name: str) -> None:
    """Refuse what is not one floating-point value per sample."""
    if not isinstance(value, Tensor) or value.shape != (len(x),):
        raise ScoreFnError(
            f"`{name}` must return ({len(x)},), one value per sample, got {form(value)}. (Labels of each sample belong "
            f"in the `context` of the solve, which is cut with the batch.)"
        )
    if not value.dtype.is_floating_point or value.device != x.device:
        raise ScoreFnError(
            f"`{name}` must return real numbers on {x.device}, like x, got {value.dtype} on {value.device}."
        )


def _blocked(function: Valued, x: Tensor, value: Tensor, name: str) -> str:
    """Why there is no gradient: a second evaluation, elsewhere, shows it."""
    value = value.detach().clone()
    with torch.no_grad():
        moved = function(x.detach() + 0.1)[0]
    if torch.equal(moved, value):
        return f"`{name}` does not depend on x, so it guides nothing; leave the guidance out, or set scale=0."
    return (
        f"`{name}` depends on x, but its gradient is blocked (torch.no_grad, .detach() or .numpy() in it, or in what "
        f"it calls?)."
    )


def _detached(estimate: Estimate) -> Estimate:
    return estimate._replace(**{k: getattr(estimate, k).detach() for k in PARTS if hasattr(estimate, k)})
