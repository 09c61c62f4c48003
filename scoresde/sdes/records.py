"""The records that processes, models and solvers exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import torch
from torch import Tensor

from .._tensors import Scalar

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Entry = TypeVar("Entry", bound=Scalar, covariant=True, default=Scalar)

    class Node(NamedTuple, Generic[Entry]):  # which no NamedTuple can be at run time before Python 3.11
        t: Entry
        alpha: Entry
        sigma: Entry
        lam: Entry
        f: Entry
        g2: Entry
        dalpha: Entry
        dsigma: Entry

else:

    class Node(NamedTuple):
        r"""A forward process at one time: Python floats on a fixed grid, ``(batch,)`` float64 tensors when steps are
        per sample.

        Fields: ``t``; :math:`\alpha`; :math:`\sigma`; :math:`\lambda = \ln(\alpha/\sigma)` (half the log-SNR);
        :math:`f = d\ln\alpha/dt`; :math:`g^2 = -2\sigma^2 d\lambda/dt`; and the derivatives :math:`\alpha', \sigma'`,
        which stay finite where f does not. Of a process that is not affine only ``t`` is known, the rest is NaN.

        Example:
            >>> import scoresde
            >>> node = scoresde.VESDE().node(0.5)
            >>> node.alpha, round(node.sigma, 4)
            (1.0, 0.7071)
        """

        t: Scalar
        alpha: Scalar
        sigma: Scalar
        lam: Scalar
        f: Scalar
        g2: Scalar
        dalpha: Scalar
        dsigma: Scalar


def some(node: Node[Any], rows: Tensor) -> Node[Tensor]:
    """A node of samples ``(batch,)`` for the given ones.

    Example:
        >>> import scoresde
        >>> node = scoresde.VESDE().nodes(torch.tensor([0.2, 0.5, 0.9]))
        >>> some(node, torch.tensor([1])).t
        tensor([0.5000], dtype=torch.float64)
    """
    return Node(*torch.stack(node)[:, rows].unbind())


def either(mask: Tensor, new: Node[Any], old: Node[Any]) -> Node[Tensor]:
    """The node of the samples where ``mask`` is true from ``new``, of the others from ``old``.

    Example:
        >>> import scoresde
        >>> new, old = (scoresde.VESDE().nodes(torch.tensor([t, t])) for t in (0.2, 0.5))
        >>> either(torch.tensor([True, False]), new, old).t
        tensor([0.2000, 0.5000], dtype=torch.float64)
    """
    return Node(*torch.where(mask, torch.stack(new), torch.stack(old)).unbind())


class Estimate(NamedTuple):
    r"""A score network's estimates at a state: :math:`\hat x = E[x_0|x_t]` and :math:`\hat\varepsilon = (x_t-\alpha\hat
    x)/\sigma`.

    Both are kept, because each is ill-conditioned to derive from the other at one end of the interval.

    Example:
        >>> import torch
        >>> Estimate(data=torch.zeros(1, 2), noise=torch.ones(1, 2)).noise
        tensor([[1., 1.]])
    """

    data: Tensor
    noise: Tensor


class LearnedEstimate(Estimate):
    r"""The `Estimate` of a network that has learned the variance of reverse steps too; it unpacks as any other.

    Attributes:
        variance: v, shaped like ``data``: elementwise, how far the logarithm of a step's variance is from that of the
            smallest (0) to that of the largest (1); see `scoresde.solvers.Ancestral`.

    Example:
        >>> import torch
        >>> estimate = LearnedEstimate(torch.zeros(1, 2), torch.ones(1, 2), variance=torch.full((1, 2), 0.5))
        >>> len(estimate), estimate.variance
        (2, tensor([[0.5000, 0.5000]]))
    """

    variance: Tensor

    def __new__(cls, data: Tensor, noise: Tensor, variance: Tensor) -> LearnedEstimate:
        estimate = super().__new__(cls, data, noise)
        estimate.variance = variance
        return estimate

    def _replace(self, **changes: Any) -> LearnedEstimate:
        return LearnedEstimate(**{**self._asdict(), "variance": self.variance, **changes})

    def __getnewargs__(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.data, self.noise, self.variance  # for copies and pickles


PARTS = (*Estimate._fields, "variance")


def copied(estimate: Estimate, parts: Sequence[str] = PARTS) -> Estimate:
    """An estimate with new tensors for some of its parts, which later evaluations do not overwrite. A score function
    declares as ``network_parts`` those that are the network's own output; of others any part may be.

    Example:
        >>> import torch
        >>> estimate = Estimate(torch.zeros(1, 2), torch.ones(1, 2))
        >>> kept = copied(estimate, ("noise",))
        >>> kept.data is estimate.data, kept.noise is estimate.noise
        (True, False)
    """
    new = {name: getattr(estimate, name).clone() for name in parts if hasattr(estimate, name)}
    return estimate._replace(**new) if new else estimate
