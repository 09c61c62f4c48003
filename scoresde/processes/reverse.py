"""The reverse family of an affine process."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._combination import tensor_of
from .._tensors import Scalar, expand
from .base import Node, Process
from .requests import Evaluation, Request


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
