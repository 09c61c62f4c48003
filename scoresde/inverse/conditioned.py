"""Score functions of a posterior, made from score functions of a prior."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.processes import Network
from ..core.support.declared import checked
from ..scores.base import with_data
from ..scores.wrapper import AffineSDE, Estimate, Node, Score, ScoreFn, Wrapper
from .measurement import Measurement
from .rules import Rule, Tally, look


class ConditionedScore(Wrapper):
    r"""The score function of :math:`p_t(x_t|y)`, by a `Rule`: the rule moves the data estimate, and
    :math:`x = \alpha\hat x + \sigma\hat\varepsilon` is kept.

    Args:
        score_fn: the score function of the data: a `ScoreModel`, a target's score, or any score function.
        measurement: the measurement.
        rule: how the measurement is used.
        sde: the process, if the score function does not declare it.

    Attributes:
        tally: ``tally.products`` counts the vector-Jacobian products since this object was made.

    Example:
        >>> from scoresde.inverse import ConditionedScore, Measurement
        >>> from scoresde.inverse import MMPS
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(
        ...     torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]])
        ... )
        >>> seen = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), 0.1)
        >>> posterior = ConditionedScore(target.score(sde), seen, MMPS(iterations=1))
        >>> x = scoresde.solve(
        ...     sde, posterior, method="ddim", steps=50, shape=(500, 2), seed=0
        ... ).x
        >>> x.mean(0).round(decimals=1), posterior.tally.products
        (tensor([2.0000, 1.8000]), 50)
    """

    @checked
    def __init__(
        self, score_fn: ScoreFn, measurement: Measurement, rule: Rule, *, sde: AffineSDE | None = None
    ) -> None:
        super().__init__((score_fn,), sde)
        self.measurement = measurement
        self.rule = rule.ready(measurement, cast(AffineSDE, self.sde))
        self.tally = Tally()
        self.traits = replace(
            self.traits,
            event_shape=event_of(self, measurement),
            # A batch with its own measurements must stay whole.
            rowwise=self.rowwise and measurement.shared and measurement.operator.shared,
            noise_limit=False,
            variance=False,
        )

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """The conditional `Estimate` at a node; what solvers call."""
        network = Network(self.score_fns[0], context, copies=False)  # a rule sees one evaluation
        known = look(network.estimate, x, node, self.tally, self.rule.gradients)
        data = self.rule.apply(known, self.measurement, self.measurement.of(x))
        return with_data(Estimate(known.data, known.noise), data, x, node)


def event_of(score_fn: Score, measurement: Measurement) -> tuple[int, ...] | None:
    """The shape of the events that network and operator declare; None where neither does."""
    measured = getattr(measurement.operator, "event_shape", None)
    known = [tuple(shape) for shape in (measured, score_fn.traits.event_shape) if shape is not None]
    if len(set(known)) > 1:
        raise InvalidArgumentError(
            f"The operator measures events of shape {known[0]}, but the score function is for {known[1]}."
        )
    return known[0] if known else None
