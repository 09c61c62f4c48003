"""Measurements by any function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from ...core.errors import ScoreFnError
from ...core.support.checks import form
from ...core.support.declared import called, checked
from .base import EventShape

Measured = Annotated[Callable[[Tensor], Tensor], called("function(x)")]


class Nonlinear:
    """Any differentiable function of the data, for methods that only need its values and its gradients.

    Args:
        function: ``(batch, *event) -> (batch, *measurement)``, sample by sample, in torch.
        measurement_shape: the shape of a measurement, without the batch.

    Example:
        >>> Nonlinear(lambda x: x.square().sum(1, keepdim=True), (1,)).forward(
        ...     torch.ones(1, 3)
        ... )
        tensor([[3.]])
    """

    noise_std: float | None = 0.0  # as those of a `LinearOperator`
    shared = True

    @checked
    def __init__(self, function: Measured, measurement_shape: EventShape) -> None:
        self.function, self.measurement_shape = function, tuple(measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        """The measurement of x, ``(batch, *measurement)``."""
        out: Any = self.function(x.clone())  # it may write to what it gets
        wanted = (len(x), *self.measurement_shape)
        if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
            raise ScoreFnError(f"The measurement must return a tensor of shape {wanted}, got {form(out)}.")
        return out

    def pull(self, x: Tensor, v: Tensor) -> Tensor:
        """The product of v with the Jacobian at x, transposed; shaped like ``x``."""
        keep = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            given = x if keep and x.requires_grad else x.detach().clone().requires_grad_()
            out = self.forward(given)
            if not out.requires_grad:
                raise ScoreFnError("The measurement blocks gradients; write it in torch, without detach() or numpy.")
            return torch.autograd.grad(out, given, v, create_graph=keep)[0]
