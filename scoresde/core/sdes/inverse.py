"""Schedules without a closed form: derivatives by automatic differentiation, the inverse by a bracketed root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidArgumentError, InvalidTypeError

Function = Callable[[Tensor], Tensor]


def evaluate(name: str, function: Callable[..., Any], t: Tensor) -> Any:
    """Call a user's function of time; return a tensor like ``t`` or a number; other results are refused."""
    try:
        value = function(t)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            f"`{name}` must take a tensor of times; use torch functions, not math's ({error})."
        ) from error
    if isinstance(value, Tensor):
        if value.ndim and value.shape != t.shape:
            raise InvalidArgumentError(
                f"`{name}` must be elementwise: for times of shape {tuple(t.shape)} it returned {tuple(value.shape)}."
            )
        return value.to(t).expand_as(t)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"`{name}` must return a tensor like its input, got {type(value).__name__}.")
    return value


def derivative(function: Function, t: Tensor) -> Tensor:
    """d function / dt of an elementwise function; parameters of the function keep their gradient.

    It works under ``torch.no_grad`` and ``torch.inference_mode`` alike.
    """
    return torch.func.grad(lambda u: function(u).sum())(t)


def with_derivative(function: Function, t: Tensor) -> tuple[Tensor, Tensor]:
    """The value of an elementwise function and its `derivative`, by one call."""

    def summed(u: Tensor) -> tuple[Tensor, Tensor]:
        value = function(u)
        return value.sum(), value

    rate, value = torch.func.grad(summed, has_aux=True)(t)
    return value, rate


def check_reached(function: Function, value: Tensor, low: float, high: float) -> None:
    """Refuse values that the log(alpha/sigma) of the times does not take on [low, high]."""
    ends = function(value.new_tensor([low, high]))
    slack = 1e-9 * (1 + ends[torch.isfinite(ends)].abs().max()) if bool(torch.isfinite(ends).any()) else 0.0
    outside = (value > ends[0] + slack) | (value < ends[1] - slack)
    if bool(outside.any()):
        bad = value[outside].flatten()[0] if value.ndim else value
        raise InvalidArgumentError(
            f"log(alpha/sigma) = {float(bad):.6g} is not reached on [{low:g}, {high:g}], where it falls from "
            f"{ends[0]:.6g} to {ends[1]:.6g}."
        )


def decreasing_root(function: Function, value: Tensor, low: float, high: float) -> Tensor:
    r"""Solve ``function(t) = value`` for a strictly decreasing function on [low, high], elementwise, by bisection.

    The last digits and the gradient come from one Newton step :math:`t - (F(t) - v)/F'(t)` whose derivative is frozen:
    its gradient with respect to v and to the parameters of F is that of the implicit function theorem.

    Raises:
        InvalidArgumentError: a value is not reached on the interval.
    """
    with torch.no_grad():
        check_reached(function, value, low, high)
        a, b = torch.full_like(value, low), torch.full_like(value, high)
        for _ in range(80):
            middle = 0.5 * (a + b)
            above = function(middle) > value
            a, b = torch.where(above, middle, a), torch.where(above, b, middle)
        t = 0.5 * (a + b)
        slope = derivative(function, t)
    step = (function(t) - value) / slope
    return (t - torch.where(torch.isfinite(step), step, torch.zeros_like(step))).clamp(low, high)
