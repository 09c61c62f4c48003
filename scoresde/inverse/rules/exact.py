"""The likelihood score of a distribution that is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.declared import checked, instance
from ...targets import ExactScore, Gaussian, GaussianMixture
from .base import AffineSDE, Known, Measurement, Rule

_GAUSSIAN = instance((Gaussian, GaussianMixture), "a targets.Gaussian or GaussianMixture")


@checked
@dataclass(frozen=True, eq=False)
class Exact(Rule):
    r"""The exact :math:`\nabla\ln p(y|x_t)` of a Gaussian or a mixture, added to the score.

    .. math:: \nabla\ln p(y|x_t) = \nabla\ln p_t(x_t|y) - \nabla\ln p_t(x_t).

    Facts:
        No vector-Jacobian product. Exact where the score is that of the same distribution; with a `targets.Gaussian`
        fitted to data and a network, it is the Gaussian part of the posterior. One y for the whole batch.

    Args:
        target: the distribution of the data.

    Example:
        >>> Exact(scoresde.targets.Gaussian(torch.zeros(2), 1.0)).name
        'exact'
    """

    target: Annotated[Gaussian | GaussianMixture, _GAUSSIAN]
    scores: tuple[ExactScore, ExactScore] | None = field(default=None, repr=False)  # without and with y, by `ready`

    name: ClassVar[str] = "exact"
    reference: ClassVar[str] = "Bayes' rule"

    def ready(self, measurement: Measurement, sde: AffineSDE) -> Rule:
        """See `Rule.ready`."""
        if not measurement.shared:
            raise InvalidArgumentError("'exact' takes one `y` for the whole batch; call it for each measurement.")
        law = self.target.posterior(measurement.linear(self.name), measurement.y, measurement.std)
        return replace(self, scores=(self.target.score(sde), law.score(sde)))

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        if self.scores is None:
            raise InvalidArgumentError("'exact' is not ready for a measurement; see Rule.ready.")
        prior, given = (score.estimate(known.x, known.node).data for score in self.scores)
        return known.data + given - prior
