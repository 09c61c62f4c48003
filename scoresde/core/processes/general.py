"""Processes of which only drift and diffusion are known: forwards, and their reverse family."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..sdes.spread import Spread
from ..support.checks import output_problem
from ..support.context import versions
from ..support.tensors import Scalar, row_times
from .base import SDE, Node, Process
from .requests import Computation, Evaluation, Request


def drift_of(sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """The drift of a process at states of times ``(batch,)``, checked."""
    before = versions(x, {})
    out = sde.drift(x, t)
    wrote = versions(x, {})[1:] != before[1:]
    problem = "modified its input in place; work on x.clone() inside it" if wrote else output_problem(out, x)
    if problem is not None:
        raise InvalidArgumentError(f"{type(sde).__name__}.drift {problem}.")
    return out.to(x.dtype)


class _DriftAndDiffusion(Process):
    """What the two share: the process's own functions, checked and broadcast."""

    @functools.cached_property
    def _spread(self) -> Spread:
        return Spread(self.sde)

    def _f(self, x: Tensor, node: Node) -> Tensor:
        """The forward drift."""
        return drift_of(self.sde, x, row_times(node.t, x))

    def _g(self, x: Tensor, node: Node) -> Scalar:
        """The diffusion."""
        return self._spread(
            x, node.t.to(x.device) if isinstance(node.t, Tensor) else torch.tensor(node.t, dtype=torch.float64)
        )


@dataclass(frozen=True)
class GeneralReverse(_DriftAndDiffusion):
    r"""The reverse family of a process given by drift and diffusion only:
    :math:`[f(x,t)-\tfrac12(1+\eta^2)g^2s]\,dt + \eta g\,d\bar w`."""

    eta: float = 0.0

    def drift(self, x: Tensor, node: Node) -> Request:
        f, g = self._f(x, node), self._g(x, node)
        return self.score(x, node).then(lambda score: f - 0.5 * (1 + self.eta**2) * g * g * score)

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        return self.eta * self._g(x, node)

    def score(self, x: Tensor, node: Node) -> Request:
        """See `Process.score`."""
        return Evaluation("score", x, node)


@dataclass(frozen=True)
class ForwardProcess(_DriftAndDiffusion):
    """The forward SDE; it has no network."""

    def drift(self, x: Tensor, node: Node) -> Request:
        return Computation(lambda: self._f(x, node).clone())

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        g = self._g(x, node)
        return g.clone() if isinstance(g, Tensor) else g  # the next call may overwrite it
