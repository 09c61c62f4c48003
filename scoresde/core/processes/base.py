"""The protocol of a process, and the reverse family of an affine one. Processes import from here what their signatures
name."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import Tensor

from ..errors import InvalidArgumentError
from ..noise import Noise
from ..sdes import SDE, Node
from ..support.combination import Combination, tensor_of
from ..support.tensors import Scalar, expand
from .coordinates import Coordinate
from .network import Network
from .nodes import Nodes
from .requests import Drawing, Evaluation, Request, drive


@dataclass(frozen=True)
class Process(abc.ABC):
    """A process that solvers step: its drift and diffusion, the estimates of its network, and its noise.

    A step gets them as answers to requests, ``drift = yield process.drift(x, node)``; what is no step reads
    ``process.answer(process.drift(x, node))``.

    Attributes:
        sde, network, noise, nodes: what it is made of; the noise is None where nothing is drawn.
    """

    sde: SDE
    network: Network
    noise: Noise = field(default=None, repr=False, kw_only=True)  # type: ignore[assignment]
    nodes: Nodes = field(default=None, repr=False, kw_only=True)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.nodes is None:
            object.__setattr__(self, "nodes", Nodes(self.sde))

    @abc.abstractmethod
    def drift(self, x: Tensor, node: Node) -> Request:
        """dx/dt without its noise, a new tensor shaped like ``x``; multiply by a signed dt."""

    @abc.abstractmethod
    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        """The noise's amplitude, broadcast against ``x``, which needs no request; multiply by the square root of
        |dt|."""

    def estimate(self, x: Tensor, node: Node) -> Request:
        r""":math:`\hat x` and :math:`\hat\varepsilon`, where alpha, sigma and a network are known.

        Where `Solver.keeps_estimates` is False, the next evaluation may overwrite them, and a score as well.
        """
        raise InvalidArgumentError(f"{type(self).__name__} has no estimate of the data; take a method of its drift.")

    def score(self, x: Tensor, node: Node) -> Request:
        r""":math:`\nabla\log p_t(x)`, where there is a network."""
        raise InvalidArgumentError(f"{type(self).__name__} has no score.")

    def linear_drift(self, x: Tensor, node: Node) -> Request:
        """The drift, not computed yet where it is a sum of the state and the network's output; like the two that
        follow, it holds until the next evaluation."""
        return self.drift(x, node).then(_alone)

    def linear_estimate(self, x: Tensor, node: Node) -> Request:
        """The estimate, likewise."""
        return self.estimate(x, node)

    def linear_score(self, x: Tensor, node: Node) -> Request:
        """The score, likewise."""
        return self.score(x, node).then(_alone)

    def linear_slope(self, coordinate: Coordinate, x: Tensor, node: Node) -> Request:
        """The derivative of x over the coordinate's scale, on its clock, likewise."""
        return coordinate.slope(self, x, node)

    @final
    def slope(self, coordinate: Coordinate, x: Tensor, node: Node) -> Request:
        """The same, computed."""
        return self.linear_slope(coordinate, x, node).then(tensor_of)

    def twisted(self, x: Tensor, node: Node) -> Request:
        """The estimate without guidance, and what guides it."""
        return Evaluation("twisted", x, node)

    @final
    def normal(self, like: Tensor) -> Request:
        """A standard normal draw shaped like ``like``."""
        return Drawing("normal", (), like)

    @final
    def increment(self, start: Scalar, stop: Scalar, like: Tensor) -> Request:
        """The increment of a Brownian path between two times, over its standard deviation: see `Noise.increment`."""
        return Drawing("increment", (start, stop), like)

    @final
    def increment_and_mean(self, start: Scalar, stop: Scalar, like: Tensor) -> Request:
        """The same, and the mean of the path: see `Noise.increment_and_mean`."""
        return Drawing("increment_and_mean", (start, stop), like)

    @final
    def answer(self, request: Request) -> Any:
        """What it answers to a request."""
        return request.answer(self)

    @final
    def run(self, made: Any) -> Any:
        """The result of a step, or of a part of one, whose requests it answers."""
        return drive(made, self.answer)

    def take(self, rows: Tensor) -> Process:
        """The same process for some samples of the batch."""
        noise = None if self.noise is None else self.noise.take(rows)
        return replace(self, network=self.network.take(rows), noise=noise)


def _alone(value: Tensor) -> Combination:
    return Combination([1.0], [value])


@dataclass(frozen=True)
class ReverseProcess(Process):
    r"""The reverse family of an affine process, in the form that stays finite at both ends:

    .. math::
        dx = \Big[\alpha'\hat x + \Big(\sigma' + \frac{\eta^2 g^2}{2\sigma}\Big)\hat\varepsilon\Big] dt +
            \eta g\,d\bar w,

    which is :math:`[fx - \tfrac12(1+\eta^2)g^2 s]\,dt + \eta g\,d\bar w`.
    """

    eta: float = 0.0

    def drift(self, x: Tensor, node: Node) -> Request:
        return self.linear_drift(x, node).then(tensor_of)

    def linear_drift(self, x: Tensor, node: Node) -> Request:
        """See `Process.linear_drift`."""
        rate = node.dsigma + 0.5 * self.eta**2 * node.g2 / node.sigma if self.eta else node.dsigma
        return self.linear_estimate(x, node).then(lambda estimate: estimate.mix(node.dalpha, rate))

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        return expand(self.eta * node.g2**0.5, x)

    def estimate(self, x: Tensor, node: Node) -> Request:
        """See `Process.estimate`."""
        return Evaluation("estimate", x, node)

    def linear_estimate(self, x: Tensor, node: Node) -> Evaluation:
        """See `Process.linear_estimate`."""
        return Evaluation("linear", x, node)

    def score(self, x: Tensor, node: Node) -> Request:
        """See `Process.score`."""
        return Evaluation("score", x, node)

    def linear_score(self, x: Tensor, node: Node) -> Request:
        """See `Process.linear_score`."""
        return Evaluation("linear_score", x, node)
