"""Particles that reach the distribution which guidance aims at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.tensors import expand
from .base import Asking, Node, Process, SDESolver, Step, StepResult
from .families.particles import ParticleInfo, Particles, Twisted


@dataclass(frozen=True)
class SMC(SDESolver):
    r"""Twisted sequential Monte Carlo for guided scores: the guided ancestral step proposes, weights correct the
    error of the guidance, and particles are resampled by their weights.

    With :math:`\psi_t(x_t) = p(y|x_t)^w` of a `scoresde.guidance.classifier_guidance` at scale w (of a
    ``likelihood_guidance`` :math:`p(y|\hat x(x_t))^w`), the model's chain p of ancestral steps, and the guided chain q,

    .. math:: w_t = \frac{\psi_t(x_t)}{\psi_s(x_s)}\,\frac{p(x_t|x_s)}{q(x_t|x_s)}.

    Facts:
        1 evaluation per step, and one at the end. With more particles the distribution of each tends to that of the
        chain's end times :math:`\psi` there, at any scale and whatever :math:`\psi` was on the way; with more steps the
        chain's distribution tends to the data's. That is the tilted distribution :math:`p(x)\,p(y|x)^w`, which guidance
        alone has at w = 1 only. The product over the levels of the mean weights estimates :math:`\int p(x)\,p(y|x)^w
        dx` without bias. Particles share their batch: the method couples the batch.

    Args:
        particles: of a set; the batch is a whole number of sets, which are independent. None: one set. A
            ``context`` of the solve must be the same for all particles of a set.
        threshold: 0 to 1, the share of effective particles below which a set is resampled; 1 resamples always. At the
            end the particles are always resampled, so that they have equal weights.
        record: called with a `ParticleInfo` at each level; a `ParticleLog` keeps them.
        data_std: :math:`\sqrt v`, about the data's standard deviation: the chain's steps have the variance that is
            exact for data :math:`N(m, vI)`. 0 is the small variance of `Ancestral`; 1 on a variance preserving process
            its large one. It changes how fast the chain's distribution tends to the data's, not the limit.

    Differs from:
        the published sampler, which resamples at every level, and is for inverse problems
        (`scoresde.inverse.TwistedSMC`).

    Example:
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.8
        ... )
        >>> right = lambda x, t: target.log_responsibilities(x, sde, t)[:, 1]
        >>> guided = scoresde.guidance.classifier_guidance(target.score(sde), right, 3.0)
        >>> x = scoresde.solve(
        ...     sde, guided, method=SMC(), steps=100, shape=(2000, 1), seed=0
        ... ).x
        >>> # p(x) p(y|x)^3
        >>> (abs(float(x.mean()) - 1.27) < 0.1, abs(float(x.var()) - 0.43) < 0.1)
        (True, True)

    References:
        Wu et al. (2023), Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, algorithm 1.
        https://arxiv.org/abs/2306.17775
    """

    particles: int | None = None
    threshold: float = 0.5
    record: Callable[[ParticleInfo], object] | None = field(default=None, repr=False)
    data_std: float = 1.0

    name: ClassVar[str] = "smc"
    keeps_estimates: ClassVar[bool] = False
    batch_coupled: ClassVar[bool] = True
    extra_evaluations: ClassVar[int] = 1
    reference: ClassVar[str] = "Wu et al. (2023), algorithm 1"

    def __post_init__(self) -> None:
        self._weights()

    def _weights(self) -> Particles:
        return Particles(self.particles, self.threshold, self.record, self.data_std)

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """See `Solver.prepare`."""
        if not (process.network.traits.shift and process.network.traits.twist):
            raise InvalidArgumentError(
                "`score_fn` must be guided for method 'smc', which weighs particles by what guides them: a "
                "classifier_guidance or likelihood_guidance without an interval or a scale by levels, of a known "
                "process, and nothing around it. (Two networks, as in classifier_free, have no density to weigh with.)"
            )

    def init(self, process: Process, x: Tensor, start: Node) -> object:
        """The logarithms of the weights."""
        return self._weights().init(x, process.network.context)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Tensor) -> Step:
        """See `Solver.step`."""

        def look(x: Tensor, node: Node, proposes: bool) -> Asking[Twisted]:
            estimate, shift, log_twist = yield process.twisted(x, node)
            if log_twist is None:
                log_twist = x.new_zeros(len(x))
            move = expand(node.sigma * node.sigma / node.alpha, x)
            return Twisted(estimate.data, estimate.data if shift is None else estimate.data + move * shift, log_twist)

        last = process.nodes.steps_left(stop) == 0
        return StepResult(*(yield from self._weights().step(process, x, look, start, stop, state, last)))
