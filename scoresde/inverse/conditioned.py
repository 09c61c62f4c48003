"""Score functions of a posterior, made from score functions of a prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._signatures import accepts
from .._tensors import check_state, compute_dtype, expand
from ..errors import InvalidArgumentError, InvalidTypeError
from ..processes import Network
from ..sdes import AffineSDE, Estimate, Node
from ..sdes.base import times_of
from .measurement import Measurement
from .rules import Rule, Tally, look


class Conditioned:
    r"""The score function of :math:`p_t(x_t|y)`, by a `Rule`: the rule moves the data estimate, and
    :math:`x = \alpha\hat x + \sigma\hat\varepsilon` is kept.

    Args:
        score_fn: of the data: a `ScoreModel`, a target's score, or any score function.
        measurement: what was measured.
        rule: how it is used.
        sde: the process, if the score function does not know it.

    Attributes:
        tally: ``tally.products`` counts the products with the network's Jacobian since it was made.

    Example:
        >>> from scoresde.inverse import Conditioned, Measurement
        >>> from scoresde.inverse.rules import MMPS
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        >>> seen = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), 0.1)
        >>> posterior = Conditioned(target.score(sde), seen, MMPS(iterations=1))
        >>> x = scoresde.solve(sde, posterior, method="ddim", steps=50, shape=(500, 2), seed=0).x
        >>> x.mean(0).round(decimals=1), posterior.tally.products
        (tensor([2.0000, 1.8000]), 50)
    """

    has_noise_limit = False
    has_variance = False

    def __init__(
        self,
        score_fn: Callable[..., Any],
        measurement: Measurement,
        rule: Rule,
        *,
        sde: AffineSDE | None = None,
    ) -> None:
        self.score_fns, self.sde = (score_fn,), process_of(score_fn, sde)
        self.measurement = measurement
        self.rule = rule.ready(measurement, self.sde)
        self.tally = Tally()
        event = event_of(score_fn, measurement)
        if event is not None:
            self.event_shape = event
        # a measurement a sample belongs to a batch, which must stay whole
        self.rowwise = bool(getattr(score_fn, "rowwise", False)) and measurement.shared

    def accepts(self, name: str) -> bool:
        """As the score function."""
        return accepts(self.score_fns[0], name)

    def estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate:
        """The conditional `Estimate` at a node; what solvers call."""
        network = Network(self.score_fns[0], context, copies=False)  # a rule sees one evaluation
        known = look(network.estimate, x, node, self.tally, self.rule.gradients)
        data = self.rule.apply(known, self.measurement, self.measurement.of(x))
        alpha, sigma = expand(node.alpha, x), expand(node.sigma, x)
        return Estimate(data=data, noise=known.noise + (known.data - data) * (alpha / sigma))

    def __call__(self, x: Tensor, t: Any, **context: Any) -> Tensor:
        """The conditional score, shaped like ``x``."""
        check_state("x", x)
        state = x.to(compute_dtype(x.dtype))
        node = self.sde.nodes(times_of(state, t))
        return (-self.estimate(state, node, **context).noise / expand(node.sigma, state)).to(x.dtype)


def process_of(score_fn: Any, sde: Any) -> AffineSDE:
    """The process of a score function, which is given or known to it."""
    own = getattr(score_fn, "sde", None)
    process = own if sde is None else sde
    if not callable(score_fn):
        raise InvalidTypeError(f"`score_fn` must be callable as score_fn(x, t), got {type(score_fn).__name__}.")
    if not isinstance(process, AffineSDE):
        raise InvalidArgumentError("`sde` is missing, and this score function does not know its own; pass sde=….")
    if isinstance(own, AffineSDE) and not process.same_schedule(own):
        raise InvalidArgumentError(f"`score_fn` was made for {own!r}, but `sde` is {process!r}; leave `sde` out.")
    return process


def event_of(score_fn: Any, measurement: Measurement) -> tuple[int, ...] | None:
    """The shape of the events that both the network and the operator know; None where neither says."""
    shapes = [getattr(source, "event_shape", None) for source in (measurement.operator, score_fn)]
    known = [tuple(shape) for shape in shapes if shape is not None]
    if len(set(known)) > 1:
        raise InvalidArgumentError(
            f"The operator measures events of shape {known[0]}, but the score function is for {known[1]}."
        )
    return known[0] if known else None
