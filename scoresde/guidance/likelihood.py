"""Guidance by the likelihood of an observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..core.sdes.records import copied
from ..core.support.checks import check_flag
from ..core.support.context import mapped
from ..core.support.tensors import expand, usable
from .classifier import AffineSDE, Estimate, Node, ScoreFn, ShiftedScore, Split, moved, taken
from .gradient import blocked_score, gradient_of
from .scale import ScaleLike


class LikelihoodGuidance(ShiftedScore):
    """See `likelihood_guidance`."""

    through: bool = True
    takes = 1

    def _slope(self, x: Tensor, node: Node, context: dict[str, object]) -> tuple[Split, Tensor, Tensor]:
        given = taken(self.function, context)

        def value(data: Tensor) -> Tensor:
            return self.function(data.clone(), **mapped(usable, given))

        if not self.through:
            below = self._base(x, node, context)
            slope, _, values = gradient_of(lambda data: (value(data), None), _data(below, x, node), self.name)
            return below, slope / expand(node.alpha, x), values

        def denoised(y: Tensor) -> tuple[Tensor, Estimate]:
            nonlocal below
            here = Node(*map(usable, node))
            below = self._base(y, here, mapped(usable, context))
            if not all(part.requires_grad for part in below.estimate):
                self._refuse_blocked(below.estimate, y, here, context)
            return value(_data(below, y, here)), below.estimate

        slope, estimate, values = gradient_of(denoised, x, self.name)
        below = below._replace(estimate=estimate)
        return below if slope.requires_grad else below.detached(), slope, values

    def _refuse_blocked(self, estimate: Estimate, x: Tensor, node: Node, context: dict[str, object]) -> None:
        """Refuse a score function whose output changes with x, but not for autograd."""
        estimate = copied(estimate)
        with torch.no_grad():
            elsewhere = self._base(x + 0.1, node, context).estimate
        for here, there in zip(estimate, elsewhere, strict=True):
            if not here.requires_grad and not torch.equal(here, there):
                raise blocked_score("pass through=False to guide without its gradient")


def _data(below: Split, x: Tensor, node: Node) -> Tensor:
    """The data estimate, with what guides it already."""
    return (below.estimate if below.shift is None else moved(below.estimate, below.shift, x, node)).data


def likelihood_guidance(
    score_fn: ScoreFn,
    log_likelihood: Callable[..., Tensor],
    scale: ScaleLike = 1.0,
    interval: Sequence[float | None] | None = None,
    *,
    through: bool = True,
    sde: AffineSDE | None = None,
) -> LikelihoodGuidance:
    r"""Guidance by an observation y of the clean data, of which :math:`\log p(y|x_0)` is known:

    .. math:: s(x_t, t) + w\,\nabla_{x_t}\log p(y|x_0 = \hat x(x_t)).

    The point :math:`\hat x = E[x_0|x_t]` stands for all of :math:`p(x_0|x_t)`. That is exact where noise has gone, and
    elsewhere too certain of y: an approximation, whatever the scale. Where :math:`\log p(y|x_t)` itself is known, use
    `classifier_guidance`.

    The network is called once per step, and its own gradient is used, as in diffusion posterior sampling. With
    ``through=False`` it is not: :math:`\partial\hat x/\partial x_t` is replaced by :math:`1/\alpha`, its value for data
    that are far wider than the noise.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        log_likelihood: ``log_likelihood(data, **context) -> (batch,)``, differentiable, up to a constant of data; see
            ``log_prob`` of `classifier_guidance`.
        scale: w, in the forms of `classifier_free`.
        interval: guide only where the log-SNR :math:`\ln\alpha^2/\sigma^2` is in ``(low, high)``; None is open.
        through: whether the gradient goes through the score function.
        sde: the process, if the score function does not declare it.

    Raises:
        ScoreFnError: in a call, ``log_likelihood`` did not return one value per sample, or its gradient is blocked.

    Differs from:
        DPS, whose step is divided by the norm of the residual; here the likelihood is used as it is.

    Example:
        >>> sde, target = (
        ...     scoresde.VPSDE(),
        ...     scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)),
        ... )
        >>> # the first coordinate, +- 0.1
        >>> seen = lambda data: -((data[:, 0] - 1.0) ** 2) / (2 * 0.1**2)
        >>> guided = likelihood_guidance(target.score(sde), seen)
        >>> x = scoresde.solve(sde, guided, method="ddim", steps=200, seeds=range(20)).x
        >>> bool((x[:, 0] - 1).abs().max() < 0.1)
        True

    References:
        Chung et al. (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems, eq. 11.
        https://arxiv.org/abs/2209.14687
    """
    check_flag("through", through)
    guided = LikelihoodGuidance(score_fn, "log_likelihood", log_likelihood, scale, interval, sde)
    guided.through = through
    return guided
