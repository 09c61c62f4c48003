"""The reverse family of an affine process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .._combination import Term, tensor_of
from .._tensors import Scalar, expand
from .base import Estimate, LinearEstimate, Node, Process


@dataclass(frozen=True)
class ReverseProcess(Process):
    r"""The reverse family of an affine process, in the form that stays finite at both ends:

    .. math::
        dx = \Big[\alpha'\hat x + \Big(\sigma' + \frac{\eta^2 g^2}{2\sigma}\Big)\hat\varepsilon\Big] dt +
            \eta g\,d\bar w,

    which is :math:`[fx - \tfrac12(1+\eta^2)g^2 s]\,dt + \eta g\,d\bar w`.
    """

    eta: float = 0.0

    def drift(self, x: Tensor, node: Node) -> Tensor:
        return tensor_of(self.linear_drift(x, node))

    def linear_drift(self, x: Tensor, node: Node) -> Term:
        """See `Process.linear_drift`."""
        rate = node.dsigma + 0.5 * self.eta**2 * node.g2 / node.sigma if self.eta else node.dsigma
        return self.network.linear(x, node).mix(node.dalpha, rate)

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        return expand(self.eta * node.g2**0.5, x)

    @property
    def estimate(self) -> Callable[[Tensor, Node], Estimate]:
        """The estimate of the network."""
        return self.network.estimate

    def linear_estimate(self, x: Tensor, node: Node) -> LinearEstimate | Estimate:
        """See `Process.linear_estimate`."""
        return self.network.linear(x, node)

    def linear_score(self, x: Tensor, node: Node) -> Term:
        """See `Process.linear_score`."""
        return self.network.linear_score(x, node)

    @property
    def score(self) -> Callable[[Tensor, Node], Tensor]:
        """The score of the network."""
        return self.network.score
