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

from .._phi import phi
from .._tensors import Scalar, combine, exp, expm1
from ..processes import LOG_SNR, Coordinate, Process
from .ancestral import Ancestral
from .base import Node, Noise, SDESolver, StepResult
from .families.exponential import endless, frame, read


class _Seeds(SDESolver):
    """What the three share."""

    strong_order: ClassVar[float] = 1.0
    coordinate: ClassVar[Coordinate] = LOG_SNR
    noise_limit: ClassVar[bool] = True
    data_limit: ClassVar[bool] = True
    reference: ClassVar[str] = "Gonzalez et al. (2023), SEEDS"

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object, noise: Noise) -> StepResult:
        """See `Solver.step`."""
        if endless(start, stop):
            return Ancestral().step(process, x, start, stop, state, noise)
        inside = process.nodes.between(start, stop, self.stages, LOG_SNR)
        nodes = [start, *inside, stop]
        draws = [noise.increment(a.t, b.t, x) for a, b in itertools.pairwise(nodes)]
        first = read(process, x, start, "noise")
        return StepResult(self._moved(process, x, nodes, first, draws))

    def _moved(
        self, process: Process, x: Tensor, nodes: Sequence[Node], first: Tensor, draws: Sequence[Tensor]
    ) -> Tensor:
        raise NotImplementedError


def _noises(nodes: Sequence[Node], to: int) -> list[Scalar]:
    r"""The weights of the draws of the cells up to node ``to``: :math:`\sigma_c\sqrt{e^{2(\lambda_c-\lambda_i)} -
    e^{2(\lambda_c-\lambda_{i+1})}}`."""
    end = nodes[to]
    return [
        end.sigma * exp(end.lam - b.lam) * expm1(2 * (b.lam - a.lam)) ** 0.5
        for a, b in itertools.pairwise(nodes[: to + 1])
    ]


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
        >>> scoresde.solve(sde, target.score(sde), method="seeds1", steps=20, shape=(4, 2), seed=0).evaluations
        20

    References:
        Gonzalez et al. (2023), SEEDS, algorithm 1. https://arxiv.org/abs/2305.14267
        Lu et al. (2022), DPM-Solver++, eq. 17. https://arxiv.org/abs/2211.01095
    """

    keeps_estimates: ClassVar[bool] = False
    weak_order: ClassVar[int] = 1

    def _moved(
        self, process: Process, x: Tensor, nodes: Sequence[Node], first: Tensor, draws: Sequence[Tensor]
    ) -> Tensor:
        part = frame("noise", nodes[0], nodes[1], eta=1.0)
        return combine(part.keep, x, 1.0, (part.gain * expm1(part.h), part.spread), (first, *draws))


@dataclass(frozen=True)
class SEEDS2(_Seeds):
    r"""SEEDS-2: the estimate half-way, at a state with the noise of the first half, serves the whole step.

    Facts:
        Weak order 2, strong order 1; 2 evaluations per step; no state.

    Differs from:
        the official code, whose stages draw noise of the wrong size.

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

    def _moved(
        self, process: Process, x: Tensor, nodes: Sequence[Node], first: Tensor, draws: Sequence[Tensor]
    ) -> Tensor:
        start, middle, stop = nodes
        half, whole = frame("noise", start, middle, eta=1.0), frame("noise", start, stop, eta=1.0)
        weights = (half.gain * expm1(half.h), *_noises(nodes, 1))
        inner = combine(half.keep, x, 1.0, weights, (first, draws[0]))
        second = read(process, inner, middle, "noise")
        return combine(whole.keep, x, 1.0, (whole.gain * expm1(whole.h), *_noises(nodes, 2)), (second, *draws))


@dataclass(frozen=True)
class SEEDS3(_Seeds):
    r"""SEEDS-3: DPM-Solver-3's stages at thirds of the step, each with the noise of its thirds.

    Facts:
        Weak order 2 in general (the third-order conditions of the noise are not all met), strong order 1; 3 evaluations
        per step; no state.

    Differs from:
        the official code, whose last step takes the noise of the thirds in the wrong order.

    Example:
        >>> SEEDS3().evaluations
        3

    References:
        Gonzalez et al. (2023), SEEDS, algorithm 3. https://arxiv.org/abs/2305.14267
    """

    weak_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 3
    stages: ClassVar[tuple[float, ...]] = (1 / 3, 2 / 3)

    def _moved(
        self, process: Process, x: Tensor, nodes: Sequence[Node], first: Tensor, draws: Sequence[Tensor]
    ) -> Tensor:
        start, one, two, stop = nodes
        parts = [frame("noise", start, node, eta=1.0) for node in (one, two, stop)]
        values = [first]
        inner = combine(
            parts[0].keep, x, 1.0, (parts[0].gain * expm1(parts[0].h), *_noises(nodes, 1)), (first, draws[0])
        )
        values.append(read(process, inner, one, "noise"))
        bend = 2 * parts[1].h * phi(2, parts[1].h)[2]  # r_2/r_1 = 2
        weights = (parts[1].gain * (expm1(parts[1].h) - bend), parts[1].gain * bend, *_noises(nodes, 2))
        inner = combine(parts[1].keep, x, 1.0, weights, (*values, *draws[:2]))
        values.append(read(process, inner, two, "noise"))
        bend = 1.5 * parts[2].h * phi(2, parts[2].h)[2]  # 1/r_2 = 3/2
        weights = (parts[2].gain * (expm1(parts[2].h) - bend), parts[2].gain * bend, *_noises(nodes, 3))
        return combine(parts[2].keep, x, 1.0, weights, (values[0], values[2], *draws))
