r"""SEEDS: stochastic exponential methods in :math:`\hat\varepsilon`, with the noise of every stage on one path.

With :math:`\eta = 1` the noise between :math:`\lambda_s` and :math:`\lambda_s + ch` is :math:`\sigma_c
\sqrt{e^{2ch}-1}`; a step is cut into cells, and each stage takes the cells before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.processes import LOG_SNR, Coordinate, Process
from ..core.support.combination import Term, combination, tensor_of, with_noise
from ..core.support.tensors import Scalar, exp, expm1
from .ancestral import Ancestral
from .base import EstimateSDESolver, Node, Step, StepResult
from .families.exponential import Frame, endless, frame, read
from .families.phi import phi


class _Seeds(EstimateSDESolver):
    """What the three share."""

    strong_order: ClassVar[float] = 1.0
    gaussian_step: ClassVar[bool] = True
    coordinate: ClassVar[Coordinate] = LOG_SNR
    reference: ClassVar[str] = "Gonzalez et al. (2023), SEEDS"

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`. Every stage goes from the start of the step, with the noise of the cells before it."""
        if endless(start, stop):
            return (yield from Ancestral().step(process, x, start, stop, state))
        nodes = [start, *process.nodes.between(start, stop, self.stages, LOG_SNR), stop]
        draws: list[Tensor] = []
        for a, b in itertools.pairwise(nodes):
            draws.append((yield process.increment(a.t, b.t, x)))
        moved: Term = x
        values: list[Tensor] = []
        for i, end in enumerate(nodes[1:]):
            values.append((yield read(process, tensor_of(moved), nodes[i], "noise")))
            part = frame("noise", start, end, eta=1.0)
            spreads = [part.spread] if len(nodes) == 2 else _noises(nodes[: i + 2])
            mean = combination(part.keep, x, 1.0, self._weights(part, i), values)
            step = with_noise(mean, x, [*zip(spreads, draws, strict=False)])
            moved = step if i == len(nodes) - 2 else tensor_of(step)
        return StepResult(moved)

    def _weights(self, part: Frame, before: int) -> tuple[Scalar, ...]:
        """The weights of the estimates at the nodes before the end of a stage; here the newest serves all of it."""
        return (*(0.0,) * before, part.gain * expm1(part.h))


def _noises(nodes: Sequence[Node]) -> list[Scalar]:
    r"""The weights of the draws of the cells at the last node: :math:`\sigma_c\sqrt{e^{2(\lambda_c-\lambda_i)} -
    e^{2(\lambda_c-\lambda_{i+1})}}`."""
    end = nodes[-1]
    return [end.sigma * exp(end.lam - b.lam) * expm1(2 * (b.lam - a.lam)) ** 0.5 for a, b in itertools.pairwise(nodes)]


@dataclass(frozen=True)
class SEEDS1(_Seeds):
    r"""SEEDS-1, the first-order SDE-DPM-Solver in :math:`\hat\varepsilon`.

    .. math:: x_t = \frac{\alpha_t}{\alpha_s}x_s - 2\sigma_t(e^h-1)\hat\varepsilon + \sigma_t\sqrt{e^{2h}-1}\,z.

    Facts:
        Weak order 1, strong order 1; 1 evaluation per step; no state.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="seeds1", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        20

    References:
        Gonzalez et al. (2023), SEEDS, algorithm 1. https://arxiv.org/abs/2305.14267
        Lu et al. (2022), DPM-Solver++, eq. 17. https://arxiv.org/abs/2211.01095
    """

    keeps_estimates: ClassVar[bool] = False
    weak_order: ClassVar[int] = 1


@dataclass(frozen=True)
class SEEDS2(_Seeds):
    r"""SEEDS-2: the estimate half-way, at a state with the noise of the first half, serves the whole step.

    Facts:
        Weak order 2, strong order 1; 2 evaluations per step; no state.

    Example:
        >>> SEEDS2().stages
        (0.5,)

    References:
        Gonzalez et al. (2023), SEEDS, algorithm 2. https://arxiv.org/abs/2305.14267
    """

    keeps_estimates: ClassVar[bool] = False
    weak_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    stages: ClassVar[tuple[float, ...]] = (0.5,)


@dataclass(frozen=True)
class SEEDS3(_Seeds):
    r"""SEEDS-3: DPM-Solver-3's stages at thirds of the step, each with the noise of its thirds.

    Facts:
        Weak order 2 in general (the third-order conditions of the noise are not all met), strong order 1; 3 evaluations
        per step; no state.

    Differs from:
        the official code for noise prediction, where one stage draws noise of the size of the whole step and the last
        step takes the noise of the thirds in the wrong order.

    Example:
        >>> SEEDS3().evaluations
        3

    References:
        Gonzalez et al. (2023), SEEDS, algorithm 3. https://arxiv.org/abs/2305.14267
    """

    weak_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 3
    stages: ClassVar[tuple[float, ...]] = (1 / 3, 2 / 3)

    def _weights(self, part: Frame, before: int) -> tuple[Scalar, ...]:
        """The first estimate, and the slope from there to the newest."""
        if not before:
            return super()._weights(part, before)
        bend = (2 if before == 1 else 1.5) * part.h * phi(2, part.h)[2]  # r_2/r_1 = 2, 1/r_2 = 3/2
        return (part.gain * (expm1(part.h) - bend), *(0.0,) * (before - 1), part.gain * bend)
