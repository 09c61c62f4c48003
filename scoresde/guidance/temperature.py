"""Distributions made narrower or wider."""

from __future__ import annotations

from torch import Tensor

from ..core.support.checks import check_number
from ..core.support.tensors import expand
from ..scores.wrapper import AffineSDE, Estimate, Node, ScoreFn, Wrapper


class Temperature(Wrapper):
    """See `temperature`."""

    def __init__(self, score_fn: ScoreFn, value: float, variance: float, sde: AffineSDE | None) -> None:
        self.value = check_number("value", value, low=0.0, strict=True)
        self.variance = check_number("variance", variance, low=0.0, strict=True)
        super().__init__((score_fn,), sde)

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        given = self.ask(self.score_fns[0], x, node, context)
        signal, noise = node.alpha * node.alpha * self.variance, node.sigma * node.sigma
        tempered = signal * self.value + noise
        gain = node.alpha * node.sigma * self.variance * (self.value - 1) / tempered
        return given._replace(
            data=given.data + expand(gain, x) * given.noise, noise=expand((signal + noise) / tempered, x) * given.noise
        )


def temperature(score_fn: ScoreFn, value: float, variance: float = 1.0, *, sde: AffineSDE | None = None) -> Temperature:
    r"""Make a distribution narrower (T < 1: more typical, less diverse samples) or wider (T > 1), by

    .. math:: \frac{\alpha^2 v + \sigma^2}{T\alpha^2 v + \sigma^2}\,s(x, t).

    The factor is 1 where noise dominates, so that the prior stays right, and 1/T where it has gone, which makes the
    score that of :math:`p^{1/T}`.

    Facts:
        Exact for data :math:`N(m, vI)`: every solver then samples :math:`N(m, TvI)`. For others it is a heuristic whose
        distribution depends on the solver; the weights of far modes are not those of :math:`p^{1/T}`. Langevin moves at
        the data end have that distribution as their fixed point, but for the noise that is left.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        value: the temperature T.
        variance: v, of an element of the data.
        sde: the process, if the score function does not declare it.

    Example:
        >>> sde, target = scoresde.VPSDE(), scoresde.targets.Gaussian(torch.zeros(1), 4.0)
        >>> cold = temperature(target.score(sde), 0.25, variance=4.0)
        >>> x = scoresde.solve(
        ...     sde, cold, torch.ones(1, 1), method="rk45", rtol=1e-5, atol=1e-5
        ... ).x
        >>> round(float(x), 2)  # 2 x sqrt(T)
        1.0

    References:
        Ingraham et al. (2023), Illuminating protein space with a programmable generative model, supplement B.
        https://doi.org/10.1038/s41586-023-06728-8
    """
    return Temperature(score_fn, value, variance, sde)
