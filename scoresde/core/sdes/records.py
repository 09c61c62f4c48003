"""The records that processes, models and solvers exchange, and times as they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidArgumentError, InvalidTypeError
from ..support.checks import check_number
from ..support.combination import Combination, Term, sum_of, tensor_of
from ..support.tensors import Scalar, compute_dtype, divide, times

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

    def mix(self, data: Scalar, noise: Scalar) -> Term:
        r""":math:`w_d\hat x + w_n\hat\varepsilon` with given weights."""
        for weight, other, value in ((data, noise, self.data), (noise, data, self.noise)):
            if isinstance(weight, float) and isinstance(other, float) and (weight, other) == (1.0, 0.0):
                return value
        return sum_of([(data, self.data), (noise, self.noise)])

    def part(self, name: str) -> Tensor:
        """One of both, which lasts as long as the estimate does."""
        value: Tensor = getattr(self, name)
        return value


class LearnedEstimate(Estimate):
    r"""The `Estimate` of a network that has learned the variance of reverse steps too; it unpacks as any other.

    Attributes:
        variance: v, shaped like ``data``: elementwise, how far the logarithm of a step's variance is from that of the
            smallest (0) to that of the largest (1); see `scoresde.solvers.Ancestral`.

    Example:
        >>> import torch
        >>> estimate = LearnedEstimate(
        ...     torch.zeros(1, 2), torch.ones(1, 2), variance=torch.full((1, 2), 0.5)
        ... )
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


# a and b as functions of a node and of EDM's sigma_data
Weights = Callable[["Node[Any]", float], tuple[Any, Any]]


class Prediction(NamedTuple):
    r"""What a network predicts: both estimates as linear functions :math:`a x + b\,out` of the state and the output.

    Fields: a and b of the data estimate and of the noise estimate, each a function of a node and of EDM's
    ``sigma_data``.

    Example:
        >>> import torch, scoresde
        >>> node, ones = scoresde.EDMSDE().node(1.0), torch.ones(1, 1)
        >>> scoresde.scores.PREDICTIONS["noise"](3 * ones, ones, node, 0.5).data
        tensor([[2.]])
    """

    data: Weights
    noise: Weights

    def __call__(self, x: Tensor, out: Tensor, node: Node[Any], sigma_data: float) -> Estimate:
        """The estimates, given the state, the output, the node and ``sigma_data``."""
        return LinearEstimate(x, out, self, node, sigma_data).estimate()


def score_weights(node: Node[Any], sigma_data: float) -> tuple[Scalar, Scalar]:
    r""":math:`\hat x = (x + \sigma^2 s)/\alpha`."""
    return divide(1.0, node.alpha), divide(node.sigma * node.sigma, node.alpha)


# The output is the score.
SCORE = Prediction(data=score_weights, noise=lambda n, _: (0.0, -n.sigma))


class LinearEstimate:
    r"""An estimate as the linear function of the state and the network's output that it is. Only what is requested is
    computed, and nothing may be requested after the next evaluation.

    Args:
        x, out: the state and the output.
        prediction: the functions.
        node: of the process.
        sigma_data: see `Prediction`.
        scale: the functions are of the state times this.

    Attributes:
        keep: whether a part is a new tensor even where it is the output, which the next evaluation may overwrite.
        variance: that of a `LearnedEstimate`; None where there is none.

    Example:
        >>> import torch, scoresde
        >>> given = LinearEstimate(
        ...     torch.ones(1, 1), torch.ones(1, 1), SCORE, scoresde.EDMSDE().node(2.0)
        ... )
        >>> given.part("data"), given.mix(1.0, 1.0).tensor()
        (tensor([[5.]]), tensor([[3.]]))
    """

    __slots__ = ("keep", "node", "out", "prediction", "scale", "sigma_data", "variance", "x")

    def __init__(
        self,
        x: Tensor,
        out: Tensor,
        prediction: Prediction,
        node: Node[Any],
        sigma_data: float = 0.5,
        scale: Scalar = 1.0,
    ) -> None:
        self.x, self.out, self.prediction, self.node, self.sigma_data = x, out, prediction, node, sigma_data
        self.scale = scale
        self.keep = True
        self.variance: Tensor | None = None

    def mix(self, data: Scalar, noise: Scalar) -> Term:
        """See `Estimate.mix`."""
        a: Scalar = 0.0
        b: Scalar = 0.0
        if isinstance(data, Tensor) or data:
            own_a, own_b = self.prediction.data(self.node, self.sigma_data)
            a, b = data * own_a, data * own_b
        if isinstance(noise, Tensor) or noise:
            own_a, own_b = self.prediction.noise(self.node, self.sigma_data)
            a, b = a + noise * own_a, b + noise * own_b
        a = times(a, self.scale)
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return sum_of([(a, self.x), (b, self.out)])
        return Combination([a, b], [self.x, self.out])

    def part(self, name: str) -> Tensor:
        """One of both."""
        value = self._read(self.prediction.data if name == "data" else self.prediction.noise)
        return tensor_of(Combination([1.0], [value])) if value is self.out and self.keep else value

    def score(self) -> Term:
        r""":math:`-\hat\varepsilon/\sigma`."""
        if self.prediction is SCORE:
            return Combination([1.0], [self.out])
        return self.mix(0.0, divide(-1.0, self.node.sigma))

    def estimate(self) -> Estimate:
        """Both; where one of them is the output, it is the same tensor."""
        return Estimate(*(self._read(function) for function in self.prediction))

    def _read(self, function: Weights) -> Tensor:
        a, b = function(self.node, self.sigma_data)
        a = times(a, self.scale)
        if isinstance(a, float) and isinstance(b, float) and (a, b) == (0.0, 1.0):
            return self.out
        return tensor_of(sum_of([(a, self.x), (b, self.out)]))


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


def as_time(name: str, t: Any, low: float = 0.0) -> Tensor:
    """A time as a float64 tensor, 0-d or ``(batch,)``; as a number it must not be below ``low``."""
    if isinstance(t, Tensor):
        if not t.dtype.is_floating_point:
            raise InvalidTypeError(f"`{name}` must be a float or a floating-point tensor, got {t.dtype}.")
        if t.ndim > 1:
            raise InvalidArgumentError(f"`{name}` must be a scalar or (batch,), got shape {tuple(t.shape)}.")
        return t.to(torch.float64)
    return torch.tensor(check_number(name, t, low=low), dtype=torch.float64)


def times_of(x: Tensor, t: Any) -> Tensor:
    """The time of each sample of a batch, float64 ``(batch,)`` on the batch's device."""
    time = as_time("t", t)
    if time.ndim and len(time) not in (1, len(x)):
        raise InvalidArgumentError(f"`t` must be a scalar or (batch,) = ({len(x)},), got shape {tuple(time.shape)}.")
    return time.to(x.device).expand(len(x))


def like_time(value: Tensor, t: Any) -> Tensor:
    """float64 for a float; the dtype of a tensor, float32 or wider."""
    return value.to(compute_dtype(t.dtype)) if isinstance(t, Tensor) else value
