"""Samples of the tilted distribution, at which guidance aims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE
from ..core.solution import Solution
from ..core.solve import solve
from ..core.support.display import Displayed, kind, span
from ..solvers import SMC, ParticleInfo, ParticleLog


@dataclass(frozen=True, eq=False, repr=False)
class TiltedSamples(Displayed):
    r"""The result of `sample_tilted`.

    Attributes:
        x: the samples, ``(batch, *event)``, of equal weights.
        ess: the effective sample size at each level, ``(levels, sets)``.
        resampled: where sets were resampled, ``(levels, sets)`` bool.
        log_evidence: :math:`\ln\int p(x)\,p(y|x)^w dx` as each set estimates it, ``(sets,)``; its exponential is
            unbiased for the chain of these steps. Trust it where several sets (``particles=``) agree: where they
            differ by one or more, few sets carry the mean of the exponentials, and most are too low, whatever ``ess``
            is.
        solution: the `Solution` of the solve.

    Example:
        >>> TiltedSamples(
        ...     torch.zeros(1, 2),
        ...     torch.ones(1, 1),
        ...     torch.ones(1, 1) > 0,
        ...     torch.zeros(1),
        ...     None,
        ... ).ess.shape
        torch.Size([1, 1])
    """

    x: Tensor
    ess: Tensor
    resampled: Tensor
    log_evidence: Tensor
    solution: Solution

    def _summary(self) -> dict[str, str]:
        shown = {"x": kind(self.x), "ess": span(self.ess), "log_evidence": span(self.log_evidence)}
        return {**shown, "solution": repr(self.solution)}


def sample_tilted(
    sde: AffineSDE,
    score_fn: Callable[..., Tensor],
    x: Tensor | None = None,
    *,
    particles: int | None = None,
    threshold: float = 0.5,
    record: Callable[[ParticleInfo], object] | None = None,
    data_std: float = 1.0,
    **options: Any,
) -> TiltedSamples:
    r"""Sample the tilted distribution :math:`p(x)\,p(y|x)^w` by the particles of `scoresde.solvers.SMC`; other methods
    with the guided score sample it for :math:`w = 1` only.

    With :math:`\psi_t = p(y|x_t)^w` and the model's ancestral steps p, guided to q, a particle's weight is multiplied
    by

    .. math:: \frac{\psi_t(x_t)}{\psi_s(x_s)}\,\frac{p(x_t|x_s)}{q(x_t|x_s)}

    in a step from s to t; sets whose weights are too unequal are resampled.

    Args:
        sde: the process.
        score_fn: a `scoresde.guidance.classifier_guidance`, or a ``likelihood_guidance``, at any scale w. A score
            function that is guided by both multiplies their factors.
        x: the state at ``t_start``, as in `scoresde.solve`.
        particles: the number of particles in a set; the batch is a whole number of sets, which are independent. None
            makes one set. A ``context`` must be the same for all particles of a set.
        threshold: the share of effective particles below which a set is resampled.
        record: called with a `scoresde.solvers.ParticleInfo` at each level.
        data_std: about the data's standard deviation; see `scoresde.solvers.SMC`.
        **options: of `scoresde.solve`: ``shape``, ``steps``, ``seed``, ``context``, …

    Raises:
        InvalidArgumentError: the score function is not guided by a density, or the batch is not a whole number of sets.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.8
        ... )
        >>> right = lambda x, t: target.log_responsibilities(x, sde, t)[:, 1]
        >>> guided = scoresde.guidance.classifier_guidance(target.score(sde), right, 3.0)
        >>> got = scoresde.sample_tilted(sde, guided, steps=100, shape=(2000, 1), seed=0)
        >>> abs(float(got.x.mean()) - 1.27) < 0.1, float(got.ess.min()) > 500
        (True, True)

    References:
        Wu et al. (2023), Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, algorithm 1.
        https://arxiv.org/abs/2306.17775
    """
    if "method" in options:
        raise InvalidArgumentError("`method` is always the particle method here; other methods are those of solve.")
    log = ParticleLog(record)
    solution = solve(sde, score_fn, x, method=SMC(particles, threshold, log, data_std), **options)
    if not log.infos:
        raise InvalidArgumentError(
            "There is nothing to weigh: `x` has no samples, the solve no steps, or no particle a weight at the start."
        )
    return TiltedSamples(solution.x, log.ess, log.resampled, log.log_evidence, solution)
