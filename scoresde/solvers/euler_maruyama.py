"""Euler-Maruyama and Heun's method on the reverse SDE, for any process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.support.combination import Term, combination, combine, sum_of, weighted
from ..core.support.tensors import absolute, expand
from .base import THROUGH_NETWORK, Asking, DriftSolver, Node, Process, Step, StepResult


@dataclass(frozen=True)
class EulerMaruyama(DriftSolver):
    r"""Euler-Maruyama on the reverse family.

    .. math:: x' = x + h\,[fx - \tfrac12(1+\eta^2)g^2 s] + \eta g\sqrt{|h|}\,z, \qquad h = t_{next} - t < 0.

    Facts:
        Weak order 1 and, the noise being additive, strong order 1; 1 evaluation per step; no state. :math:`\eta` is the
        ``stochasticity`` of `scoresde.solve`.

    Differs from:
        score_sde's ``EulerMaruyamaPredictor``, whose dt = -1/N is not the spacing of its grid and whose last step ends
        below zero.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="euler_maruyama",
        ...     steps=20,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).x.shape
        torch.Size([4, 2])

    References:
        Song et al. (2021), appendix E. https://arxiv.org/abs/2011.13456
    """

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Maruyama (1955); Song et al. (2021), appendix E"
    data_limit: ClassVar[bool] = True

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        h = stop.t - start.t
        spread = process.diffusion(x, start) * expand(absolute(h) ** 0.5, x)
        values = ((yield process.linear_drift(x, start)), (yield process.increment(start.t, stop.t, x)))
        return StepResult(combination(1.0, x, 1.0, (h, spread), values))


@dataclass(frozen=True)
class HeunSDE(DriftSolver):
    r"""Stochastic Heun: the mean of two Euler-Maruyama increments with the same draw, at both ends of the step.

    .. math::
        K_1 = hF(x, s) + g_s\sqrt{|h|}\,z,\quad K_2 = hF(x + K_1, t) + g_t\sqrt{|h|}\,z,\quad
        x' = x + \tfrac12(K_1+K_2).

    Facts:
        Weak order 2, strong order 1; 2 evaluations per step; no state. :math:`\eta` is the ``stochasticity`` of
        `scoresde.solve`; :math:`\eta = 0` is `Heun`.

    Differs from:
        the drift-only variant of Lamba, whose weak order is 1.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="heun_sde", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        40

    References:
        Jolicoeur-Martineau et al. (2021), Gotta Go Fast, algorithm 1 (fixed step). https://arxiv.org/abs/2105.14080
    """

    keeps_estimates: ClassVar[bool] = False
    weak_order: ClassVar[int] = 2
    strong_order: ClassVar[float] = 1.0
    evaluations: ClassVar[int] = 2
    not_gaussian: ClassVar[str] = THROUGH_NETWORK
    reference: ClassVar[str] = "Jolicoeur-Martineau et al. (2021), Gotta Go Fast"

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        return StepResult(combination(1.0, x, 1.0, (0.5, 0.5), (yield from increments(process, x, start, stop))))


def increments(process: Process, x: Tensor, start: Node, stop: Node) -> Asking[tuple[Tensor, Term]]:
    """The increments of Euler-Maruyama at the start, and, with the same noise, at the end that they lead to."""
    h, z = stop.t - start.t, (yield process.increment(start.t, stop.t, x))
    root = expand(absolute(h) ** 0.5, x)
    first = weighted([(h, (yield process.linear_drift(x, start))), (process.diffusion(x, start) * root, z)])
    there = combine(1.0, x, 1.0, (1.0,), (first,))
    return first, sum_of([(h, (yield process.linear_drift(there, stop))), (process.diffusion(there, stop) * root, z)])
