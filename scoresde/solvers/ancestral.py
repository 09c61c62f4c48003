"""Ancestral sampling: the Gaussian posterior with the estimated data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import Estimate, Node
from ..core.sdes.records import LinearEstimate
from ..core.support.checks import check_choice
from ..core.support.combination import Term, formula, sum_of
from ..core.support.tensors import Scalar, expand, expm1
from .base import EstimateSDESolver, Process, Step, StepResult


def _learned(start: Node, stop: Node, estimate: LinearEstimate | Estimate) -> Tensor:
    v: Tensor | None = getattr(estimate, "variance", None)
    if v is None:
        raise InvalidArgumentError(NONE_LEARNED)
    return _between(v, start.sigma, stop.sigma)


@formula
def _between(v: Tensor, noisy: Scalar, clean: Scalar) -> Tensor:
    r""":math:`\sigma_s^v\sigma_t^{1-v}`."""
    amplitude: Tensor = expand(noisy, v) ** v * expand(clean, v) ** (1 - v)
    return amplitude


NONE_LEARNED = (
    "variance='learned' needs a network that gives one, ScoreModel(..., variance='learned_range'); with others take "
    "variance='small' or 'large'."
)
# The standard deviation of a step's noise, without the factor sqrt(1 - exp(-2h)) that they share.
AMPLITUDES: dict[str, Callable[[Node, Node, LinearEstimate | Estimate], Scalar]] = {
    "small": lambda start, stop, estimate: stop.sigma,
    "large": lambda start, stop, estimate: start.sigma,
    "learned": _learned,
}


@dataclass(frozen=True)
class Ancestral(EstimateSDESolver):
    r"""Ancestral sampling for any process: draw from :math:`q(x_t|x_s, x_0=\hat x)` (t cleaner, s noisier,
    :math:`h=\lambda_t-\lambda_s`).

    .. math::
        x_t = \frac{\sigma_t}{\sigma_s}e^{-h}x_s + \alpha_t(1-e^{-2h})\hat x + \tilde\sigma\sqrt{1-e^{-2h}}\,z, \qquad
        \tilde\sigma = \begin{cases} \sigma_t & \text{small} \\ \sigma_s & \text{large} \\
                       \sigma_s^{v}\sigma_t^{1-v} & \text{learned} \end{cases}

    The small variance is the posterior's, :math:`\tilde\beta` of DDPM. The large one is that of the forward transition,
    :math:`\sigma_s^2 - (\alpha_s/\alpha_t)^2\sigma_t^2 = \sigma_s^2(1-e^{-2h})`, DDPM's :math:`\beta`. A step onto
    :math:`\sigma = 0` adds no noise, as DDPM's last one.

    Facts:
        Weak order 1, strong order 1; 1 evaluation per step; no state. The small variance is exact for a point mass, the
        large one for standard normal data under a variance preserving process. With the small one it is VDM's ancestral
        sampler, DDIM with :math:`\eta = 1` and the first-order SDE-DPM-Solver++.

    Args:
        variance: ``"small"``, ``"large"``, or ``"learned"`` for a network with improved DDPM's variance v (one number
            per element, `ScoreModel.variance`).
        condition: how a `scoresde.guidance.classifier_guidance` (or ``likelihood_guidance``) of the score acts, with
            :math:`u = w\,\nabla\log p(y|x_s)`. ``"score"``: through the guided :math:`\hat x`, as in every method,
            which shifts the mean of a step by :math:`\alpha_t(1-e^{-2h})(\sigma_s^2/\alpha_s)\,u`. ``"mean"``: by
            :math:`\Sigma\,u` with the variance of the step, :math:`\Sigma = \tilde\sigma^2(1-e^{-2h})`, the published
            ``condition_mean``. Its ratio to the first is :math:`\alpha_s/\alpha_t` with the large variance and
            :math:`(\alpha_s/\alpha_t)(\sigma_t/\sigma_s)^2` with the small one: 1 to first order in the step.

    Differs from:
        DDPM and improved DDPM, which clip :math:`\hat x`; score_sde's ``AncestralSamplingPredictor``, which supports
        VE and VP only.

    Raises:
        InvalidArgumentError: the variance is unknown, or ``"learned"`` and the network has none.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.FlowSDE()
        >>> options = {"method": "ancestral", "steps": 20, "seed": 0}
        >>> scoresde.solve(sde, target.score(sde), shape=(4, 2), **options).x.shape
        torch.Size([4, 2])

    References:
        Ho, Jain, Abbeel (2020), Denoising Diffusion Probabilistic Models, eq. 7 and section 3.2.
        https://arxiv.org/abs/2006.11239
        Nichol, Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, eq. 15.
        https://arxiv.org/abs/2102.09672
        Kingma et al. (2021), Variational Diffusion Models, appendix A. https://arxiv.org/abs/2107.00630
        Dhariwal, Nichol (2021), Diffusion Models Beat GANs on Image Synthesis, algorithm 1 (the shift of the mean, with
        the gradient at :math:`x_s`). https://arxiv.org/abs/2105.05233
    """

    variance: str = "small"
    condition: str = "score"

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Ho, Jain, Abbeel (2020), eq. 7; Kingma et al. (2021), appendix A"

    def __post_init__(self) -> None:
        check_choice("variance", self.variance, AMPLITUDES)
        check_choice("condition", self.condition, ("score", "mean"))

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """See `Solver.prepare`."""
        if self.variance == "learned" and not process.network.traits.variance:
            raise InvalidArgumentError(NONE_LEARNED)
        if self.condition == "mean" and not process.network.traits.shift:
            raise InvalidArgumentError(
                "condition='mean' needs a score function that classifier_guidance or likelihood_guidance made, of a "
                "known process, and nothing around it; take condition='score'."
            )

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        shrink = -expm1(2 * (start.lam - stop.lam))  # 1 - exp(-2h)
        keep = (start.alpha / stop.alpha) * (stop.sigma / start.sigma) * (stop.sigma / start.sigma)
        shift: Tensor | None = None
        estimate: LinearEstimate | Estimate
        if self.condition == "mean":
            estimate, shift = (yield process.twisted(x, start))[:2]
        else:
            estimate = yield process.linear_estimate(x, start)
        terms: list[tuple[Scalar, Term]] = [(keep, x), (1.0, estimate.mix(stop.alpha * shrink, 0.0))]
        amplitude = AMPLITUDES[self.variance](start, stop, estimate)
        if shift is not None:
            terms.append((amplitude * amplitude * shrink, shift))
        clean = not isinstance(stop.sigma, Tensor) and stop.sigma == 0.0
        std = 0.0 if clean else amplitude * shrink**0.5
        return StepResult(sum_of([*terms, (std, (yield process.increment(start.t, stop.t, x)))]))
