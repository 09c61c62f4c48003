"""Mixtures of concepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_callable
from ..core.support.tensors import expand, row_times
from ..scores.wrapper import AffineSDE, Estimate, Node, ScoreFn, Wrapper
from .combination import listed, weights_of
from .gradient import check_values
from .together import ask_together


class Mixture(Wrapper):
    """See `mixture`."""

    needs_process = False

    def __init__(
        self,
        score_fns: Sequence[ScoreFn],
        log_probs: Sequence[Callable[[Tensor, Tensor], Tensor]],
        weights: Sequence[float] | None = None,
        sde: AffineSDE | None = None,
    ) -> None:
        score_fns, log_probs = listed("score_fns", score_fns), listed("log_probs", log_probs)
        if len(score_fns) < 1 or len(log_probs) != len(score_fns):
            raise InvalidArgumentError(
                f"`log_probs` must have one entry per score function, got {len(log_probs)} for {len(score_fns)}."
            )
        for log_prob in log_probs:
            check_callable("log_probs", log_prob, "log_prob(x, t)")
        super().__init__(tuple(score_fns), sde)
        self.log_probs = tuple(log_probs)
        self.weights = weights_of(score_fns, weights, low=0.0, strict=True)

    def accepts(self, name: str) -> bool:
        """False: the densities are those of given distributions."""
        return False

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """None, likewise."""
        return {}

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        t = row_times(node.t, x)
        logs = []
        for log_prob in self.log_probs:
            value = log_prob(x, t.clone())
            check_values(value, x, "log_probs")
            logs.append(value.to(torch.float64, copy=True))
        logits = torch.stack(logs, dim=1)
        shares = (logits + torch.tensor(self.weights, dtype=torch.float64).log().to(x.device)).softmax(1)
        estimates = ask_together(self.ask, self.score_fns, x, node, [{}] * len(self.score_fns))
        base = estimates[0]
        data, noise = base.data, base.noise
        for share, e in zip(shares.unbind(1)[1:], estimates[1:], strict=True):
            w = expand(share, x)
            data, noise = data + w * (e.data - base.data), noise + w * (e.noise - base.noise)
        return base._replace(data=data, noise=noise)


def mixture(
    score_fns: Sequence[ScoreFn],
    log_probs: Sequence[Callable[[Tensor, Tensor], Tensor]],
    weights: Sequence[float] | None = None,
    *,
    sde: AffineSDE | None = None,
) -> Mixture:
    r"""Mixture of concepts: the score of :math:`\sum_i w_i p_i`,

    .. math:: \sum_i r_i s_i,\qquad r_i = \frac{w_i\,p_{i,t}(x)}{\sum_j w_j\,p_{j,t}(x)}.

    The diffused distribution of a mixture is the mixture of the diffused distributions, so this is exact for every
    solver. But it needs the ratios of the densities at every time: scores alone do not determine how much of each
    distribution there is at x. Targets and energies have them; of a network each would be a `scoresde.log_likelihood`,
    a whole solve for every step.

    Args:
        score_fns: of one process.
        log_probs: ``log_prob(x, t) -> (batch,)`` of each, up to a constant that is the same for all.
        weights: positive, one each, by default equal.
        sde: the process, if none declares it.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> laws = [
        ...     scoresde.targets.Gaussian(torch.full((1,), m), 0.01) for m in (-1.0, 1.0)
        ... ]
        >>> logs = [lambda x, t, law=law: law.log_prob(x, sde, t) for law in laws]
        >>> either = mixture([law.score(sde) for law in laws], logs, weights=[1.0, 3.0])
        >>> x = scoresde.solve(sde, either, method="ddim", seeds=range(100)).x
        >>> bool(((x.abs() - 1).abs() < 0.5).all()), 60 < int((x > 0).sum()) < 90
        (True, True)

    References:
        Du et al. (2020), Compositional Visual Generation with Energy Based Models. https://arxiv.org/abs/2004.06030
    """
    return Mixture(score_fns, log_probs, weights, sde)
