"""The protocol of a process. Processes import from here what their signatures name."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import Tensor

from .._combination import Combination, Term, tensor_of
from .._tensors import Scalar
from ..errors import InvalidArgumentError
from ..sdes import SDE, Estimate, Node
from ..sdes.records import LinearEstimate
from .coordinates import Coordinate
from .network import Network
from .nodes import Nodes


def _now(make: Callable[[], Any]) -> Any:
    return make()


@dataclass(frozen=True)
class Process(abc.ABC):
    """A process that solvers step: drift and diffusion, estimates of its network, and the nodes of its grid.

    Attributes:
        sde, network, nodes: what it is made of.
        once: ``once(make)`` is ``make()``; in a step that is made again, what it was before. The stages of adaptive
            steps are made by it, so that one that its caller interrupts (see `scoresde.Stepper`) loses little.
    """

    sde: SDE
    network: Network
    nodes: Nodes = field(default=None, repr=False, kw_only=True)  # type: ignore[assignment]
    once: Callable[[Callable[[], Any]], Any] = field(default=_now, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.nodes is None:
            object.__setattr__(self, "nodes", Nodes(self.sde))

    @abc.abstractmethod
    def drift(self, x: Tensor, node: Node) -> Tensor:
        """dx/dt without its noise, a new tensor shaped like ``x``; multiply by a signed dt."""

    @abc.abstractmethod
    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        """The noise's amplitude, broadcast against ``x``; multiply by the square root of |dt|."""

    @property
    def estimate(self) -> Callable[[Tensor, Node], Estimate]:
        r"""``(x, node) ->`` :math:`\hat x` and :math:`\hat\varepsilon`, where alpha, sigma and a network are known.

        Where `Solver.keeps_estimates` is False, the next evaluation may overwrite them, and a score as well.
        """
        raise InvalidArgumentError(f"{type(self).__name__} has no estimate of the data; take a method of its drift.")

    @property
    def score(self) -> Callable[[Tensor, Node], Tensor]:
        r"""``(x, node) ->`` :math:`\nabla\log p_t(x)`, where there is a network."""
        raise InvalidArgumentError(f"{type(self).__name__} has no score.")

    def linear_drift(self, x: Tensor, node: Node) -> Term:
        """The drift, not computed yet where it is a sum of the state and the network's output; like the two that
        follow, it holds until the next evaluation."""
        return Combination([1.0], [self.drift(x, node)])

    def linear_estimate(self, x: Tensor, node: Node) -> LinearEstimate | Estimate:
        """The estimate, likewise."""
        return self.estimate(x, node)

    def linear_score(self, x: Tensor, node: Node) -> Term:
        """The score, likewise."""
        return Combination([1.0], [self.score(x, node)])

    def linear_slope(self, coordinate: Coordinate, x: Tensor, node: Node) -> Term:
        """The derivative of x over the coordinate's scale, on its clock, likewise."""
        return coordinate.slope(self, x, node)

    @final
    def slope(self, coordinate: Coordinate, x: Tensor, node: Node) -> Tensor:
        """The same, computed."""
        return tensor_of(self.linear_slope(coordinate, x, node))

    def take(self, rows: Tensor) -> Process:
        """The same process for some samples of the batch."""
        return replace(self, network=self.network.take(rows))
