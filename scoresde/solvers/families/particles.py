"""Twisted sequential Monte Carlo: what its solvers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, NonFiniteError
from ...core.support.checks import check_callable, check_integer, check_number
from ...core.support.context import named
from ...core.support.tensors import Scalar, expand, expm1
from ..base import Asking, Node, Process, StepFailed


class ParticleInfo(NamedTuple):
    """The report of a particle method on one level.

    Fields: ``t``; ``ess``, the effective sample size of each set ``(sets,)``, :math:`(\\sum w)^2/\\sum w^2`;
    ``resampled``, whether the set was resampled ``(sets,)``; ``log_mean``, the logarithm of the mean weight
    ``(sets,)``: the exponential of its sum over the levels is an unbiased estimate of the integral of the twisted
    distribution, which is p(y) up to the twist's constant factor.

    Example:
        >>> ParticleInfo(0.5, torch.ones(1), torch.tensor([False]), torch.zeros(1)).t
        0.5
    """

    t: float
    ess: Tensor
    resampled: Tensor
    log_mean: Tensor


class ParticleLog:
    """Keeps the reports of a particle method, as its ``record``.

    Args:
        then: another ``record``, which is called too.

    Example:
        >>> log = ParticleLog()
        >>> log(
        ...     ParticleInfo(1.0, torch.ones(2), torch.ones(2) > 0, torch.tensor([0.5, 1.0]))
        ... )
        >>> log(
        ...     ParticleInfo(0.0, torch.ones(2), torch.ones(2) > 0, torch.tensor([0.5, 1.0]))
        ... )
        >>> log.ess.shape, log.log_evidence
        (torch.Size([2, 2]), tensor([1., 2.]))
    """

    def __init__(self, then: Callable[[ParticleInfo], object] | None = None) -> None:
        if then is not None:
            check_callable("record", then, "record(info)")
        self.then = then
        self.infos: list[ParticleInfo] = []

    def __call__(self, info: ParticleInfo) -> None:
        """Keep one level."""
        self.infos.append(ParticleInfo(info.t, *(v.detach().cpu() for v in info[1:])))
        if self.then is not None:
            self.then(info)

    @property
    def ess(self) -> Tensor:
        """The effective sample size, ``(levels, sets)``."""
        return torch.stack([info.ess for info in self.infos])

    @property
    def resampled(self) -> Tensor:
        """Where sets were resampled, ``(levels, sets)`` bool."""
        return torch.stack([info.resampled for info in self.infos])

    @property
    def log_evidence(self) -> Tensor:
        """The logarithm of the estimate of the twisted distribution's integral, ``(sets,)`` float64."""
        return torch.stack([info.log_mean for info in self.infos]).sum(0)


class Twisted(NamedTuple):
    r"""The quantities of particles at a level: the data estimate of the model, the guided one of the proposal (None
    where no step follows), and :math:`\ln\psi_t(x_t)`, ``(batch,)``.

    Example:
        >>> Twisted(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1)).guided.shape
        torch.Size([1, 2])
    """

    data: Tensor
    guided: Tensor | None
    log_twist: Tensor


@dataclass(frozen=True)
class Particles:
    r"""The weights of a twisted particle method, and its choice of particles.

    With any :math:`\psi_t`, the model's chain p of ancestral steps, and the proposal q which is p with a guided data
    estimate,

    .. math:: w_t = \frac{\psi_t(x_t)}{\psi_s(x_s)}\,\frac{p(x_t|x_s)}{q(x_t|x_s)},\qquad w_T = \psi_T(x_T),

    whose product is :math:`\psi_0(x_0)` times the ratio of the chains: the weighted particles have the distribution of
    the chain's end times :math:`\psi_0`, whatever the other :math:`\psi` and the guidance were.

    Args:
        count: the particles of a set; None: the batch is one set.
        threshold: sets whose effective sample size is below this share are resampled, by systematic resampling.
        record: called with a `ParticleInfo` at each level.
        data_std: :math:`\sqrt v`: the steps of p and q have the variance that is exact for data :math:`N(m, vI)`.

    Example:
        >>> Particles(4, 0.5).count
        4
    """

    count: int | None = None
    threshold: float = 0.5
    record: Callable[[ParticleInfo], object] | None = field(default=None, repr=False)
    data_std: float = 0.0

    def __post_init__(self) -> None:
        check_number("data_std", self.data_std, low=0.0)
        if self.count is not None:
            check_integer("particles", self.count, low=1)
        check_number("threshold", self.threshold, low=0.0, high=1.0)
        if self.record is not None:
            check_callable("record", self.record, "record(info)")

    def init(self, x: Tensor, context: Mapping[str, object]) -> Tensor:
        """The logarithms of the first weights, ``(batch,)`` float64; a batch that is not a whole number of sets is
        refused, and a context that differs within a set."""
        count = self.of(x)
        if len(x) % count:
            raise InvalidArgumentError(
                f"`particles` must divide the batch of {len(x)} into whole sets, got {count}; take a batch of "
                f"{math.ceil(len(x) / count) * count}."
            )
        for name, value in named(context).items():
            if value.ndim:
                self.check_shared(name, value)
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def check_shared(self, name: str, value: Tensor) -> None:
        """Refuse what is not the same for all particles of a set, ``(batch, …)``."""
        sets = value.unflatten(0, (len(value) // self.of(value), self.of(value)))
        if not torch.equal(sets, sets[:, :1].expand_as(sets)):
            raise InvalidArgumentError(
                f"`{name}` must be the same for all {self.of(value)} particles of a set, which are weighed against "
                f"each other; repeat each entry by .repeat_interleave(particles, 0), and set particles."
            )

    def of(self, x: Tensor) -> int:
        """The number of particles of a set in a batch."""
        return len(x) if self.count is None else self.count

    def step(
        self,
        process: Process,
        x: Tensor,
        look: Callable[[Tensor, Node, bool], Asking[Twisted]],
        start: Node,
        stop: Node,
        log_weight: Tensor,
        last: bool,
    ) -> Asking[tuple[Tensor, Tensor]]:
        """One step.

        Args:
            look: ``look(x, node, proposes)``; only a look that proposes needs the guided estimate.
            log_weight: without the twist at the current level.
            last: whether it is the last step: the particles are then resampled at its end.
        """
        known = yield from look(x, start, True)
        weighed = self._weighed(log_weight, known, start)
        rows, log_weight = yield from self.select(process, weighed, start, x, False)
        x, data, guided, log_twist = (v[rows] for v in (x, *known))  # type: ignore[index]
        mean, _ = posterior_step(x, guided, start, stop)
        plain, _ = posterior_step(x, data, start, stop)
        std, z = self.std(start, stop), (yield process.normal(x))
        moved = mean + expand(std, x) * z
        shift = (mean - plain).double() / expand(std, x)
        # ln p - ln q of the same point: -|z + shift|^2/2 + |z|^2/2
        ratio = -(shift * (z.double() + 0.5 * shift)).flatten(1).sum(1)
        log_weight = log_weight - log_twist.double() + ratio
        if not last:
            return moved, log_weight
        ended = yield from look(moved, stop, False)
        log_weight = self._weighed(log_weight, ended, stop)
        rows, log_weight = yield from self.select(process, log_weight, stop, moved, True)
        return moved[rows], log_weight

    def std(self, start: Node, stop: Node) -> Scalar:
        r"""The standard deviation of a step: with gain a of the data estimate and :math:`r_s^2`, the variance of
        :math:`x_0` given :math:`x_s` for data N(m, v I), it is :math:`\sqrt{\tilde\sigma^2 + a^2r_s^2}`."""
        _, gain, std = posterior_weights(start, stop)
        noise, data = start.sigma * start.sigma, self.data_std * self.data_std
        spread = noise * data / (start.alpha * start.alpha * data + noise)
        return (std * std + gain * gain * spread) ** 0.5

    def _weighed(self, log_weight: Tensor, known: Twisted, node: Node) -> Tensor:
        """The weights with the twist at a level."""
        weight = log_weight + known.log_twist.double()
        lost = ~torch.isfinite(weight)
        if bool(lost.any()):
            raise StepFailed(
                NonFiniteError(
                    f"The weights of {int(lost.sum())} of {len(lost)} particles are not finite at "
                    f"t={node.t:.6g}; check the network at this time (scoresde.check_score), or take more steps.",
                    stage="score",
                    t=float(node.t),
                    indices=lost.nonzero()[:5, 0].tolist(),
                ),
                lost,
            )
        return weight

    def select(
        self, process: Process, log_weight: Tensor, node: Node, x: Tensor, always: bool
    ) -> Asking[tuple[Tensor, Tensor]]:
        """Which particles survive, and their weights, of mean 1 in each set."""
        count = self.of(x)
        sets = log_weight.reshape(-1, count)
        weights = sets.softmax(1)
        ess = 1 / weights.square().sum(1)
        drawn = torch.full_like(ess, always, dtype=torch.bool) | (ess < float(self.threshold) * count)
        # one uniform number per set: a normal draw through its distribution function
        place = torch.special.ndtr((yield process.normal(x.new_empty(len(x), 1))).double().reshape(-1, count)[:, :1])
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


def posterior_step(x: Tensor, data: Tensor, start: Node, stop: Node) -> tuple[Tensor, Scalar]:
    r"""Mean and standard deviation of :math:`q(x_t|x_s, x_0)`, t cleaner than s, as `scoresde.solvers.Ancestral` with
    the small variance:

    .. math:: \frac{\sigma_t}{\sigma_s}e^{-h}x_s + \alpha_t(1-e^{-2h})x_0, \qquad \sigma_t\sqrt{1-e^{-2h}}.

    Example:
        >>> sde = scoresde.EDMSDE()
        >>> posterior_step(
        ...     torch.ones(1, 1), torch.zeros(1, 1), sde.node(2.0), sde.node(1.0)
        ... )[0]
        tensor([[0.2500]])
    """
    keep, gain, std = posterior_weights(start, stop)
    return expand(keep, x) * x + expand(gain, x) * data, std


def posterior_weights(start: Node, stop: Node) -> tuple[Scalar, Scalar, Scalar]:
    r"""The weights of :math:`x_s` and :math:`x_0`, and the standard deviation, of `posterior_step`.

    Example:
        >>> sde = scoresde.EDMSDE()
        >>> round(posterior_weights(sde.node(2.0), sde.node(1.0))[1], 12)
        0.75
    """
    shrink = -expm1(2 * (start.lam - stop.lam))
    keep = (start.alpha / stop.alpha) * (stop.sigma / start.sigma) * (stop.sigma / start.sigma)
    return keep, stop.alpha * shrink, stop.sigma * shrink**0.5
