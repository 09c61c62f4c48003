"""A multistep method whose coefficients are learned: what `scoresde.fit_solver` makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, short
from ..core.processes import Process
from ..core.sdes import Estimate, Node
from ..core.support.checks import check_number
from ..core.support.combination import Term, sum_of, tensor_of
from ..core.support.tensors import Scalar, sqrt
from .base import Asking, EstimateSolver, Step, StepResult

MEMORY = 4  # estimates that a step may use
_CLOSE = 1e-6  # of the sum of the coefficients of a step to 1


class Seen(NamedTuple):
    """The estimates at the last nodes, newest first."""

    data: tuple[Tensor, ...] = ()
    noise: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Learned(EstimateSolver):
    r"""Steps of given coefficients, for the grid that they were learned on.

    .. math:: x_{i+1} = \alpha_{i+1}\sum_{j<4} u_{ij}\,\hat x_{i-j} +
        \sigma_{i+1}\sum_{j<4} v_{ij}\,\hat\varepsilon_{i-j}, \qquad \sum_j u_{ij} = \sum_j v_{ij} = 1,

    so that it has order 1 whatever the coefficients. At node i the network receives the log-SNR
    :math:`\ln(\alpha_i^2/\sigma_i^2) + 2 s_i` in place of the true one: it gets the state with the variance of that
    level, and with :math:`\cos\varphi = \alpha/r`, :math:`\sin\varphi = \sigma/r`, :math:`r^2 = \alpha^2+\sigma^2`, its
    estimates give :math:`v = \cos\varphi\,\hat\varepsilon - \sin\varphi\,\hat x` there, which is taken for that of
    node i; so :math:`x_i = \alpha_i\hat x_i + \sigma_i\hat\varepsilon_i` always holds.

    Facts:
        Order 1; 1 evaluation per step; keeps up to 3 estimates of both kinds; no noise.

    Args:
        data, noise: u and v of each step, newest estimate first, 1 to 4 numbers (as many in both).
        shifts: s of each step, or nothing.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> ddim = Learned(data=((1.0,),) * 3, noise=((1.0,),) * 3)
        >>> options = {"steps": 3, "shape": (4, 2), "seed": 0}
        >>> torch.allclose(
        ...     scoresde.solve(sde, target.score(sde), method=ddim, **options).x,
        ...     scoresde.solve(sde, target.score(sde), method="ddim", **options).x,
        ... )
        True

    References:
        Shaul et al. (2024), Bespoke Non-Stationary Solvers. https://arxiv.org/abs/2403.01329
        Tong et al. (2025), Learning to Discretize Denoising Diffusion ODEs (the shifts of the time).
        https://arxiv.org/abs/2405.15506
    """

    data: tuple[tuple[Scalar, ...], ...]
    noise: tuple[tuple[Scalar, ...], ...]
    shifts: tuple[Scalar, ...] = ()

    name: ClassVar[str] = "learned"
    reference: ClassVar[str] = "Shaul et al. (2024), Bespoke Non-Stationary Solvers"
    ode_order: ClassVar[int] = 1
    looks_ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("data", "noise"):
            _check_rows(name, getattr(self, name))
        if [len(row) for row in self.data] != [len(row) for row in self.noise]:
            raise InvalidArgumentError("`data` and `noise` must have the same numbers of coefficients in every step.")
        if not isinstance(self.shifts, tuple) or len(self.shifts) not in (0, len(self.data)):
            raise InvalidArgumentError(f"`shifts` must be a tuple of {len(self.data)} numbers, or empty.")
        for i, shift in enumerate(self.shifts):
            if not isinstance(shift, Tensor):
                check_number(f"shifts[{i}]", shift)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.data)

    def ending(self, ratio: float) -> Learned:
        r"""The same for an end at another level, where :math:`\sigma/\alpha` is 1 / ``ratio`` times as large.

        In the last step, only the newest noise estimate has another weight; what the others add stays the same, since
        near the data it is small only because :math:`\sigma_{i+1}` is.

        Example:
            >>> Learned(((1.0,), (1.0, 0.0)), ((1.0,), (3.0, -2.0))).ending(0.25).noise[-1]
            (1.5, -0.5)
        """
        first, *others = self.noise[-1]
        moved = tuple(ratio * v for v in others)
        return replace(self, noise=(*self.noise[:-1], (1.0 + ratio * (first - 1.0), *moved)))

    def prepare(self, process: Process, nodes: Sequence[Node[Any]]) -> None:
        """See `Solver.prepare`."""
        super().prepare(process, nodes)
        if len(nodes) != self.steps + 1:
            raise InvalidArgumentError(
                f"The coefficients of 'learned' are those of {self.steps} steps on their own grid, but the solve has "
                f"{len(nodes) - 1}; leave out `steps` and `save_at` (but for save_at='steps')."
            )
        if any(map(_told, self.shifts)):
            process.nodes.prepare_at([a.lam + s for a, s in zip(nodes, self.shifts, strict=False) if _told(s)])

    def init(self, process: Process, x: Tensor, start: Node[Any]) -> Seen:
        """No estimates."""
        return Seen()

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Seen) -> Step:
        """See `Solver.step`."""
        left = process.nodes.steps_left(stop)
        if left is None:
            raise InvalidArgumentError("The steps of 'learned' are those of a fixed grid.")
        i = self.steps - 1 - left
        estimate = yield from _look(process, x, start, self.shifts[i] if self.shifts else 0.0)
        state = Seen((estimate.data, *state.data)[:MEMORY], (estimate.noise, *state.noise)[:MEMORY])
        terms: list[tuple[Scalar, Term]] = []
        for level, row, values in (
            (stop.alpha, self.data[i], state.data),
            (stop.sigma, self.noise[i], state.noise),
        ):
            terms += [(level * w, value) for w, value in zip(row, values, strict=False)]
        return StepResult(sum_of(terms), state)


def _told(shift: Scalar) -> bool:
    """Whether the network receives another level."""
    return isinstance(shift, Tensor) or shift != 0.0


def _look(process: Process, x: Tensor, node: Node, shift: Scalar) -> Asking[Estimate]:
    """Both estimates at a node, from a network that receives another level."""
    if not _told(shift):
        here = yield process.linear_estimate(x, node)
        return Estimate(here.part("data"), here.part("noise"))
    other = process.nodes.at(node.lam + shift)
    size, told = (sqrt(n.alpha * n.alpha + n.sigma * n.sigma) for n in (node, other))
    there = yield process.linear_estimate(tensor_of(sum_of([(told / size, x)])), other)
    v = there.mix(-other.sigma / told, other.alpha / told)
    cos, sin = node.alpha / size, node.sigma / size
    data = sum_of([(cos / size, x), (-sin, v)])
    noise = sum_of([(sin / size, x), (cos, v)])
    return Estimate(tensor_of(data), tensor_of(noise))


def _check_rows(name: str, rows: Any) -> None:
    """Refuse what are no coefficients."""
    if not isinstance(rows, tuple) or not rows or not all(isinstance(row, tuple) for row in rows):
        raise InvalidTypeError(f"`{name}` must be a tuple of tuples of numbers, one for each step, got {short(rows)}.")
    for i, row in enumerate(rows):
        if not 1 <= len(row) <= min(i + 1, MEMORY):
            raise InvalidArgumentError(
                f"`{name}[{i}]` must have 1 to {min(i + 1, MEMORY)} numbers, one for each estimate that is known, got "
                f"{len(row)}."
            )
        if any(isinstance(w, Tensor) for w in row):
            continue
        total = math.fsum(check_number(f"{name}[{i}]", w) for w in row)
        if abs(total - 1) > _CLOSE * max(1.0, *map(abs, row)):
            raise InvalidArgumentError(f"`{name}[{i}]` must sum to 1, got {total:g}.")
