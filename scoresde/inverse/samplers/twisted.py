"""Twisted sequential Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._tensors import check_integer, check_number, expand
from ...errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ...noise import Noise
from ...processes import Process
from ...sdes import AffineSDE, Node
from ...solvers import StepResult
from ...solvers.base import StepFailed
from ..rules import Known, PiGDM, Rule, look
from .base import InverseSolver, posterior_step


class ParticleInfo(NamedTuple):
    """What `TwistedSMC` reports of one level.

    Fields: ``t``; ``ess``, the effective sample size of each set ``(sets,)``, :math:`(\\sum w)^2/\\sum w^2`;
    ``resampled``, whether the set was drawn anew ``(sets,)``; ``log_mean``, the logarithm of the mean weight
    ``(sets,)``: the exponential of its sum over the levels estimates p(y), up to the potential's constant factor,
    without bias.

    Example:
        >>> ParticleInfo(0.5, torch.ones(1), torch.tensor([False]), torch.zeros(1)).t
        0.5
    """

    t: float
    ess: Tensor
    resampled: Tensor
    log_mean: Tensor


class _Memory(NamedTuple):
    y: Tensor
    log_weight: Tensor  # (batch,) float64, without the potential at the current level


@dataclass(frozen=True, eq=False)
class TwistedSMC(InverseSolver):
    r"""The twisted diffusion sampler: particles are proposed with a rule's guidance, weighted by what the guidance got
    wrong, and drawn anew by their weights.

    With a rule's density :math:`\psi_t(x_t) \approx p(y|x_t)`, the chain p of ancestral steps, and the proposal q which
    is p with the guided data estimate,

    .. math:: w_t = \frac{\psi_t(x_t)}{\psi_s(x_s)}\,\frac{p(x_t|x_s)}{q(x_t|x_s)}.

    Facts:
        1 evaluation and 1 product a step, and one evaluation at the end. With more particles the law of each tends to
        that of the chain's end times :math:`\psi` there, whatever :math:`\psi` was on the way. With more steps the
        chain's law tends to the data's, and :math:`\psi` at the end to the likelihood (``pigdm``'s width vanishes with
        the noise that is left): that is the posterior. Particles share their batch: it couples the batch.

    Differs from:
        the paper, which resamples at every level; here where the effective sample size falls below ``threshold`` times
        the particles, by systematic resampling.

    Args:
        measurement: one y for all particles of a set.
        twist: a rule with a density: `PiGDM` or `DPS`.
        particles: of a set; the batch is a whole number of sets, which do not know each other. None: one set.
        threshold: 0 to 1; 1 resamples always, and at the end the particles are always drawn anew, so that they have
            equal weights.
        record: called with a `ParticleInfo` at each level.

    Example:
        >>> from scoresde.inverse import Measurement, TwistedSMC
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        >>> seen = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), 0.1)
        >>> sizes = []
        >>> method = TwistedSMC(seen, record=lambda info: sizes.append(float(info.ess)))
        >>> x = scoresde.solve(sde, target.score(sde), method=method, steps=50, shape=(500, 2), seed=0).x
        >>> bool((x.mean(0) - torch.tensor([2.0, 1.8])).abs().max() < 0.1), min(sizes) > 50
        (True, True)

    References:
        Wu et al. (2023), Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, algorithm 1.
        https://arxiv.org/abs/2306.17775
    """

    twist: Rule = field(default_factory=PiGDM)
    particles: int | None = None
    threshold: float = 0.5
    record: Callable[[ParticleInfo], Any] | None = field(default=None, repr=False)

    name: ClassVar[str] = "twisted_smc"
    reference: ClassVar[str] = "Wu et al. (2023), algorithm 1"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    batch_coupled: ClassVar[bool] = True
    extra_evaluations: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not isinstance(self.twist, Rule):
            raise InvalidTypeError(f"`twist` must be a rule such as PiGDM(), got {self.twist!r}.")
        if type(self.twist).log_likelihood is Rule.log_likelihood:
            raise InvalidArgumentError(
                f"`twist` must be a rule with a density p(y|x_t), PiGDM() or DPS(), got {self.twist.name!r}."
            )
        if self.particles is not None:
            check_integer("particles", self.particles, low=1)
        check_number("threshold", self.threshold, low=0.0, high=1.0)
        if self.record is not None and not callable(self.record):
            raise InvalidTypeError(f"`record` must be callable as record(info), got {self.record!r}.")
        if isinstance(self.twist, PiGDM):
            self.measurement.solvable(self.name)

    def init(self, process: Process, x: Tensor, start: Node) -> Any:
        """The measurements and the weights."""
        count = len(x) if self.particles is None else self.particles
        if len(x) % count:
            raise InvalidArgumentError(
                f"`particles` must divide the batch of {len(x)} into whole sets, got {count}; take a batch of "
                f"{math.ceil(len(x) / count) * count}."
            )
        if isinstance(process.sde, AffineSDE):
            self.twist.ready(self.measurement, process.sde)
        return _Memory(self.measurement.of(x), torch.zeros(len(x), dtype=torch.float64, device=x.device))

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        """See `Solver.step`."""
        known = look(process.estimate, x, start, self.tally, True)
        potential, log_weight = self._weigh(known, state)
        guided = self.twist.apply(known, self.measurement, state.y)
        rows, log_weight = self._select(log_weight, start, noise, x, False)
        x, data, guided, potential = x[rows], known.data[rows], guided[rows], potential[rows]
        mean, std = posterior_step(x, guided, start, stop)
        plain, _ = posterior_step(x, data, start, stop)
        z = noise.normal(x)
        moved = mean + expand(std, x) * z
        shift = (mean - plain).double() / expand(std, x)
        # ln p - ln q of the same point: -|z + shift|^2/2 + |z|^2/2
        ratio = -(shift * (z.double() + 0.5 * shift)).flatten(1).sum(1)
        memory = _Memory(state.y, log_weight - potential + ratio)
        if process.steps_left(stop) != 0:
            return StepResult(moved, memory)
        last = look(process.estimate, moved, stop, self.tally, False)
        rows, log_weight = self._select(self._weigh(last, memory)[1], stop, noise, moved, True)
        return StepResult(moved[rows], _Memory(state.y, log_weight))

    def _weigh(self, known: Known, memory: _Memory) -> tuple[Tensor, Tensor]:
        """The potential and the weight of each particle."""
        potential = self.twist.log_likelihood(known, self.measurement, memory.y).double()
        weight = memory.log_weight + potential
        lost = ~torch.isfinite(weight)
        if bool(lost.any()):
            raise StepFailed(
                NonFiniteError(
                    f"The weights of {int(lost.sum())} of {len(lost)} particles are not finite at "
                    f"t={known.node.t:.6g}; check the network at this time (scoresde.check_score), or take more steps.",
                    stage="score",
                    t=float(known.node.t),
                    indices=lost.nonzero()[:5, 0].tolist(),
                ),
                lost,
            )
        return potential, weight

    def _select(self, log_weight: Tensor, node: Node, noise: Noise, x: Tensor, always: bool) -> tuple[Tensor, Tensor]:
        """Which particles go on, and their weights, of mean 1 in each set."""
        count = len(x) if self.particles is None else self.particles
        sets = log_weight.reshape(-1, count)
        weights = sets.softmax(1)
        ess = 1 / weights.square().sum(1)
        drawn = torch.full_like(ess, always, dtype=torch.bool) | (ess < self.threshold * count)
        # one uniform number a set: a normal draw through its distribution function
        place = torch.special.ndtr(noise.normal(x.new_empty(len(x), 1)).double().reshape(-1, count)[:, :1])
        marks = (torch.arange(count, device=x.device) + place) / count
        chosen = torch.searchsorted(weights.cumsum(1), marks).clamp_max(count - 1)
        stay = torch.arange(count, device=x.device).expand_as(chosen)
        rows = torch.where(drawn[:, None], chosen, stay)
        log_mean = sets.logsumexp(1) - math.log(count)
        kept = torch.where(drawn[:, None], torch.zeros_like(sets), sets - log_mean[:, None])
        if self.record is not None:
            self.record(ParticleInfo(float(node.t), ess, drawn, log_mean))
        first = count * torch.arange(len(rows), device=x.device)[:, None]
        return (rows + first).flatten(), kept.flatten()
