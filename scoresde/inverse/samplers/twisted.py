"""Twisted sequential Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.sdes import AffineSDE
from ...core.support.declared import checked
from ...solvers.base import Asking, Node, Process, Step, StepResult
from ...solvers.families.particles import ParticleInfo, Particles, Twisted
from ..rules import Rule, look
from ..rules.gaussian import PiGDM
from .base import InverseSolver


@checked
@dataclass(frozen=True, eq=False)
class TwistedSMC(InverseSolver):
    r"""The twisted diffusion sampler: particles are proposed with a rule's guidance, weighted by the error of the
    guidance, and resampled by their weights.

    With a rule's density :math:`\psi_t(x_t) \approx p(y|x_t)`, the chain p of ancestral steps, and the proposal q which
    is p with the guided data estimate,

    .. math:: w_t = \frac{\psi_t(x_t)}{\psi_s(x_s)}\,\frac{p(x_t|x_s)}{q(x_t|x_s)}.

    Facts:
        1 evaluation and 1 product per step, and one evaluation at the end. With more particles the distribution of each
        tends to that of the chain's end times :math:`\psi` there, whatever :math:`\psi` was on the way. With more steps
        the chain's distribution tends to the data's, and :math:`\psi` at the end to the likelihood (``pigdm``'s width
        vanishes with the noise that is left): that is the posterior. Particles share their batch: the method couples
        the batch.

    Differs from:
        the paper, which resamples at every level; here where the effective sample size falls below ``threshold`` times
        the particles, by systematic resampling.

    Args:
        measurement: one y for all particles of a set.
        twist: a rule with a density: `PiGDM` or `DPS`.
        particles: of a set; the batch is a whole number of sets, which are independent. None: one set.
        threshold: 0 to 1; 1 resamples always, and at the end the particles are always resampled, so that they have
            equal weights.
        record: called with a `ParticleInfo` at each level.

    Example:
        >>> from scoresde.inverse import Measurement, TwistedSMC
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(
        ...     torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]])
        ... )
        >>> seen = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), 0.1)
        >>> sizes = []
        >>> method = TwistedSMC(seen, record=lambda info: sizes.append(float(info.ess)))
        >>> x = scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=50, shape=(500, 2), seed=0
        ... ).x
        >>> bool((x.mean(0) - torch.tensor([2.0, 1.8])).abs().max() < 0.1), min(sizes) > 50
        (True, True)

    References:
        Wu et al. (2023), Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, algorithm 1.
        https://arxiv.org/abs/2306.17775
    """

    twist: Rule = field(default_factory=PiGDM)
    particles: int | None = None
    threshold: float = 0.5
    record: Callable[[ParticleInfo], object] | None = field(default=None, repr=False)

    name: ClassVar[str] = "twisted_smc"
    keeps_estimates: ClassVar[bool] = False
    reference: ClassVar[str] = "Wu et al. (2023), algorithm 1"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    batch_coupled: ClassVar[bool] = True
    extra_evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if type(self.twist).log_likelihood is Rule.log_likelihood:
            raise InvalidArgumentError(f"`twist` must have a density, as PiGDM() and DPS(), got {self.twist.name!r}.")
        self._weights()
        if isinstance(self.twist, PiGDM):
            self.measurement.solvable(self.name)

    def _weights(self) -> Particles:
        return Particles(self.particles, self.threshold, self.record)

    def init(self, process: Process, x: Tensor, start: Node) -> object:
        """The measurements and the weights."""
        weights, y = self._weights(), self.measurement.of(x)
        log_weight = weights.init(x, process.network.context)
        weights.check_shared("y", y)
        if not self.measurement.operator.shared:  # the same event, measured in every place
            event = torch.linspace(1.0, 2.0, x[0].numel(), dtype=x.dtype, device=x.device).reshape(x[0].shape)
            weights.check_shared("operator", self.measurement.operator.forward(event.expand(x.shape)))
        if isinstance(process.sde, AffineSDE):
            self.twist.ready(self.measurement, process.sde)
        return y, log_weight  # float64, without the potential at the current level

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: tuple[Tensor, Tensor]) -> Step:
        """See `Solver.step`."""
        y, log_weight = state

        def ask(x: Tensor, node: Node, proposes: bool) -> Asking[Twisted]:
            yield from ()  # it needs a graph, and evaluates the network itself
            known = look(process.network.estimate, x, node, self.tally, proposes)
            log_twist = self.twist.log_likelihood(known, self.measurement, y)
            guided = self.twist.apply(known, self.measurement, y) if proposes else None
            return Twisted(known.data, guided, log_twist)

        last = process.nodes.steps_left(stop) == 0
        x, log_weight = yield from self._weights().step(process, x, ask, start, stop, log_weight, last)
        return StepResult(x, (y, log_weight))
