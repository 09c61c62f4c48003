"""Langevin dynamics along a grid of noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_choice, check_integer, check_number, check_positive
from ..core.support.combination import sum_of
from ..core.support.tensors import at_most, exp
from .base import SDE, EstimateSolver, MCMCSolver, Node, Process, Step, StepResult
from .correctors import LangevinCorrector


@dataclass(frozen=True)
class Langevin(MCMCSolver):
    r"""Langevin moves at each level of the grid, without a predictor.

    A step from s to t is ``moves`` Langevin moves at t with :math:`\epsilon = 2(r\sigma_t)^2` (see
    `scoresde.LangevinCorrector`). Mixing is slow where the data is far wider than the noise: take many
    levels.

    Facts:
        No order: it targets the distribution of each level, and is tested by its fixed point. ``moves`` evaluations per
        step.

    Differs from:
        score_sde's corrector-only sampler, whose step takes norms over the batch.

    Args:
        snr: r.
        moves: Langevin moves per level.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="langevin",
        ...     steps=10,
        ...     moves=3,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).evaluations
        30

    References:
        Song, Ermon (2019), Generative Modeling by Estimating Gradients, algorithm 1. https://arxiv.org/abs/1907.05600
    """

    snr: float = 0.16
    moves: int = 1

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    reference: ClassVar[str] = "Song, Ermon (2019), algorithm 1"

    def __post_init__(self) -> None:
        LangevinCorrector(self.snr, self.moves)  # checks the options

    @property
    def evaluations(self) -> int:
        """One per move."""
        return self.moves

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        return StepResult((yield from LangevinCorrector(self.snr, self.moves).correct(process, x, stop)))


# The step of a move, as a share of epsilon sigma^2 / sigma_L^2 (paper: x + a s / 2 + sqrt(a) z).
CONVENTIONS: dict[str, float] = {"code": 1.0, "paper": 0.5}
PUBLISHED = 0.2  # epsilon / sigma_L^2


@dataclass(frozen=True)
class AnnealedLangevin(MCMCSolver):
    r"""NCSN's annealed Langevin dynamics: the same number of moves at each level of the grid, the first included.

    .. math:: x \leftarrow x + a\, s(x, \sigma) + \sqrt{2a}\, z, \qquad a = \epsilon\,\sigma^2/\sigma_L^2,

    with :math:`\sigma_L` the noise of the grid's last level. That is the published code; the paper's algorithm has half
    the step,
    :math:`x + \tfrac{a}{2} s + \sqrt{a} z`, for the same :math:`\epsilon`.

    Facts:
        No order: it targets the distribution of each level, and is biased. On :math:`N(0, \sigma^2)` its fixed point is
        :math:`\sigma^2/(1 - a/2\sigma^2)`: 11 % too wide for the published :math:`\epsilon` at :math:`\sigma_L` = 0.01.
        ``moves`` evaluations per level; a grid of L levels has L - 1 steps and ``moves`` extra evaluations. It is
        `LangevinCorrector` with :math:`r^2 = \epsilon/2\sigma_L^2`.

    Args:
        epsilon: :math:`\epsilon`, in units of the data squared; None is the published :math:`0.2\,\sigma_L^2` (2e-5 at
            :math:`\sigma_L` = 0.01).
        moves: T, moves per level. NCSNv2 takes 3 to 5, of many levels.
        convention: ``"code"`` or ``"paper"``.

    Differs from:
        the published code, which starts from a uniform distribution on [0, 1] (give it as ``x``), and NCSNv2's, which
        denoises at the end (``denoise=True``).

    Raises:
        InvalidArgumentError: :math:`a \ge 2\sigma^2`, where the moves diverge.

    Example:
        >>> import torch, scoresde
        >>> chain = scoresde.discrete.NoiseScales.geometric(10, 0.01, 1.0)
        >>> sde = chain.sde()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     torch.rand(4, 2),
        ...     method="annealed_langevin",
        ...     grid=chain.grid(),
        ...     seed=0,
        ... ).evaluations
        1000

    References:
        Song, Ermon (2019), algorithm 1. https://arxiv.org/abs/1907.05600
        Song, Ermon (2020), Improved Techniques for Training Score-Based Generative Models, algorithm 1.
        https://arxiv.org/abs/2006.09011
    """

    epsilon: float | None = None
    moves: int = 100
    convention: str = "code"

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    reference: ClassVar[str] = "Song, Ermon (2019), algorithm 1"

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_number("epsilon", self.epsilon, low=0.0, strict=True)
        check_integer("moves", self.moves, low=1)
        check_choice("convention", self.convention, CONVENTIONS)

    @property
    def evaluations(self) -> int:
        """One per move."""
        return self.moves

    @property
    def extra_evaluations(self) -> int:
        """The moves at the first level."""
        return self.moves

    def prepare(self, process: Process, nodes: Sequence[Node[float]]) -> None:
        """See `Solver.prepare`."""
        limit = 2 / CONVENTIONS[self.convention]
        if not self._share(nodes[-1]) < limit:
            scale = nodes[-1].sigma ** 2
            raise InvalidArgumentError(
                f"Moves of this size diverge: `epsilon` must be below {limit * scale:.3g} with this grid's last level, "
                f"got {self.epsilon:g}; the published one is {PUBLISHED * scale:.3g}."
            )

    def _share(self, last: Node[Any]) -> float:
        """Epsilon in units of the last level's variance."""
        return PUBLISHED if self.epsilon is None else self.epsilon / last.sigma**2

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The first level twice: a step moves at its end, so the first one stays where it is."""
        return torch.cat([times[:1], times])

    def step(self, process: Process, x: Tensor, start: Node[float], stop: Node[float], state: object) -> Step:
        """See `Solver.step`."""
        snr = math.sqrt(0.5 * CONVENTIONS[self.convention] * self._share(process.nodes.end))
        return StepResult((yield from LangevinCorrector(snr, self.moves).correct(process, x, stop)))


@dataclass(frozen=True)
class CAS(MCMCSolver, EstimateSolver):
    r"""Consistent annealed sampling: a Langevin move whose noise is chosen so that the next level is met exactly.

    In :math:`y = x/\alpha`, :math:`y' = y + \epsilon\rho_s^2\nabla_y\ln p + \beta\rho_t z`, :math:`\beta =
    \sqrt{1 - ((1-\epsilon)\rho_s/\rho_t)^2}`: of the noise :math:`\rho_s` the share :math:`1-\epsilon` stays, and what
    :math:`\rho_t` lacks is drawn,

    .. math:: x_t = \alpha_t\hat x + \min(\sigma_t, (1-\epsilon)\alpha_t\rho_s)\,\hat\varepsilon + \beta\sigma_t z.

    Facts:
        No order: with fixed :math:`\epsilon` and finer grids it becomes annealed Langevin dynamics. It is exact for a
        point mass. 1 evaluation per step; no state. Where :math:`(1-\epsilon)\rho_s > \rho_t` it is `DDIM`.

    Args:
        epsilon: the share of the noise that is removed, in (0, 1].

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="cas", steps=50, shape=(4, 2), seed=0
        ... ).evaluations
        50

    References:
        Jolicoeur-Martineau et al. (2021), Adversarial score matching and improved sampling for image generation,
        algorithm 2. https://arxiv.org/abs/2009.05475
    """

    epsilon: float = 0.2

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    reference: ClassVar[str] = "Jolicoeur-Martineau et al. (2021), algorithm 2"

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon, high=1.0)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        left = (1 - self.epsilon) * exp(stop.lam - start.lam)  # (1 - epsilon) rho_s / rho_t
        kept = at_most(left, 1.0)
        drawn = stop.sigma * (1 - kept * kept) ** 0.5
        moved = (yield process.linear_estimate(x, start)).mix(stop.alpha, stop.sigma * kept)
        return StepResult(sum_of([(1.0, moved), (drawn, (yield process.increment(start.t, stop.t, x)))]))
