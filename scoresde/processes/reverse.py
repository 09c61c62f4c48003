"""The reverse family of an affine process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .._tensors import Scalar, combine, expand
from .base import Estimate, Node, Process


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
        data, noise = self.network.estimate(x, node)
        rate = node.dsigma + 0.5 * self.eta**2 * node.g2 / node.sigma if self.eta else node.dsigma
        return combine(node.dalpha, data, rate, (1.0,), (noise,))

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        return expand(self.eta * node.g2**0.5, x)

    @property
    def estimate(self) -> Callable[[Tensor, Node], Estimate]:
        """The estimate of the network."""
        return self.network.estimate

    @property
    def score(self) -> Callable[[Tensor, Node], Tensor]:
        """The score of the network."""
        return self.network.score
