"""Processes of which only drift and diffusion are known: forwards, and their reverse family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._tensors import output_problem, row_times
from ..errors import InvalidArgumentError
from ..sdes import SDE, Node
from ..sdes.base import spread_over
from .base import Process


@dataclass(frozen=True)
class GeneralReverse(Process):
    r"""The reverse family of a process of which only drift and diffusion are known:
    :math:`[f(x,t)-\tfrac12(1+\eta^2)g^2s]\,dt + \eta g\,d\bar w`."""

    eta: float = 0.0

    def drift(self, x: Tensor, node: Node) -> Tensor:
        g = _g(self.sde, x, node)
        return _drift(self.sde, x, node) - 0.5 * (1 + self.eta**2) * g * g * self.network.score(x, node)

    def diffusion(self, x: Tensor, node: Node) -> Any:
        return self.eta * _g(self.sde, x, node)

    def score(self, x: Tensor, node: Node) -> Tensor:
        r""":math:`\nabla\log p_t(x)`."""
        return self.network.score(x, node)


@dataclass(frozen=True)
class ForwardProcess(Process):
    """The forward SDE; it has no network."""

    def drift(self, x: Tensor, node: Node) -> Tensor:
        return _drift(self.sde, x, node).clone()

    def diffusion(self, x: Tensor, node: Node) -> Any:
        return _g(self.sde, x, node)


def _drift(sde: SDE, x: Tensor, node: Node) -> Tensor:
    """The forward drift, checked."""
    out = sde.drift(x, row_times(node.t, x))
    problem = output_problem(out, x)
    if problem is not None:
        raise InvalidArgumentError(f"{type(sde).__name__}.drift {problem}.")
    return out.to(x.dtype)


def _g(sde: SDE, x: Tensor, node: Node) -> Any:
    """The diffusion, broadcast against the state."""
    t = node.t if isinstance(node.t, Tensor) else torch.tensor(node.t, dtype=torch.float64)
    return spread_over(x, sde.diffusion(t))
