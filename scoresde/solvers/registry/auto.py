"""``method="auto"``: a method, and its grid, by rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.sdes import AffineSDE
from ...core.support.checks import MOST_STEPS, check_flag, check_integer, check_kind
from ...grids import Angle, Schedule, VPTime, default
from ..adams import Adams
from ..base import Solver
from ..dpm_multistep import DPM2M, DPM3M
from ..rk45 import RK45
from ..runge_kutta import Heun
from ..unipc import UniPC

_POWERS = 12  # of ten, at most
NOISE, HIGH = 100.0, 300.0  # sigma/alpha in units of the data, where solves of few evaluations begin


@dataclass(frozen=True)
class FewSteps(VPTime):
    """The grid of the fewest evaluations: `VPTime`, or the default grid for a process that begins at alpha = 0.

    Example:
        >>> [
        ...     round(t, 3)
        ...     for t in FewSteps(0.3, 0.5)(scoresde.EDMSDE(), 80.0, 0.002, 2).tolist()
        ... ]
        [80.0, 1.182, 0.002]
    """

    def __call__(self, sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        if float(sde.log_snr(max(t_start, t_end))) == -math.inf:
            return default(sde, t_start, t_end)(sde, t_start, t_end, steps)
        return super().__call__(sde, t_start, t_end, steps)


@dataclass(frozen=True)
class NoiseStart:
    r"""Where a solve of few evaluations begins: at :math:`\sigma/\alpha` = 100 in units of the data, or 300, with the
    state scaled as noise is.

    Above it the state is noise to a part in 100, and a network of the noise errs by :math:`\sigma/\alpha` times its own
    error in the data, which one long step from there would keep.

    Args:
        t: the time.
        factor: by which the state at ``t_max`` is multiplied.

    Example:
        >>> sde = scoresde.VPSDE(beta_min=1e-6, beta_max=32.0)
        >>> start = NoiseStart.of(sde, 1.0)
        >>> round(start.t, 3), round(start.factor, 3)
        (0.759, 1.0)
        >>> NoiseStart.of(scoresde.EDMSDE(), 1.0) is None
        True
    """

    t: float
    factor: float

    @classmethod
    def of(cls, sde: AffineSDE, unit: float, level: float = NOISE) -> NoiseStart | None:
        """The start of a process, for data of a scale; None where it begins with less noise."""
        log_snr = -2 * math.log(level * unit)
        if float(sde.log_snr(sde.t_max)) >= log_snr:
            return None
        return cls.at(sde, float(sde.time(log_snr)), unit)

    @classmethod
    def at(cls, sde: AffineSDE, t: float, unit: float = 1.0) -> NoiseStart:
        """The start at a time."""
        here, there = sde.node(sde.t_max), sde.node(t)
        sizes = [math.hypot(node.alpha * unit, node.sigma) for node in (here, there)]
        return cls(t, sizes[1] / sizes[0])

    def state(self, x: Tensor) -> Tensor:
        """The states there, given those at ``t_max``."""
        return x * self.factor


def unit_of(std: float | None) -> float:
    """The scale of data of a standard deviation, to the nearest power of ten; 1 where it is not known.

    Example:
        >>> unit_of(0.5), unit_of(30.0), unit_of(None)
        (1.0, 10.0, 1.0)
    """
    return 10.0 ** min(max(round(math.log10(std)), -_POWERS), _POWERS) if std else 1.0


class Choice(NamedTuple):
    """A method, its grid, of which None is the default one, and the level of noise above which it does not begin, in
    units of the data."""

    solver: Solver
    grid: FewSteps | Angle | None = None
    level: float = math.inf

    def grid_for(self, unit: float) -> FewSteps | Angle | None:
        """The grid for data of another scale."""
        return None if self.grid is None else replace(self.grid, scale=self.grid.scale * unit)


class BudgetRule(NamedTuple):
    """What to take for so many evaluations and fewer."""

    most: float
    solver: Solver
    grid: FewSteps | Angle | None = None
    level: float = math.inf


_FEW = DPM3M(start_up="published"), Angle(3.0, 0.25)
# Up to 29 evaluations by `benchmarks.few`, the smallest errors on one half of its problems; beyond that the smallest
# errors of the table of all methods, in the geometric mean of its problems, at 50 and 100 evaluations.
BUDGETS: tuple[BudgetRule, ...] = (
    BudgetRule(6, UniPC(order=2, lower_order_final=True), FewSteps(0.3, 0.25), NOISE),
    BudgetRule(8, DPM2M(), Angle(1.0, 0.35), NOISE),
    BudgetRule(14, *_FEW, NOISE),
    BudgetRule(29, *_FEW, HIGH),
    BudgetRule(math.inf, UniPC(order=3)),
)


def level_of(evaluations: int, least: float = 0.0) -> float:
    """Where so many evaluations begin at most; not below a level.

    Example:
        >>> level_of(8), level_of(20), level_of(100)
        (100.0, 300.0, inf)
    """
    return max(least, next(rule for rule in BUDGETS if evaluations <= rule.most).level)


def choose(affine: bool, evaluations: int | None, options: Iterable[str]) -> Choice:
    """The method for a number of evaluations, and its grid.

    - With ``evaluations``: up to 6 `UniPC2` with ``lower_order_final=True``, on the grid
      ``VPTime(0.3, 0.25)`` (see `scoresde.grids.VPTime`); up to 8 `DPM2M` on ``Angle(1.0, 0.35)`` (see
      `scoresde.grids.Angle`); up to 29 `DPM3M` with ``start_up="published"`` on ``Angle(3.0, 0.25)``; then `UniPC3`.
    - Otherwise, with or without tolerances: `Adams`.
    - For a process with a drift and a diffusion only: `Heun` and `RK45`.

    Example:
        >>> choice = choose(True, 20, ())
        >>> choice.solver.name, choice.grid
        ('dpm_3m', Angle(scale=3.0, power=0.25))
    """
    check_flag("affine", affine)
    if evaluations is not None:
        check_integer("evaluations", evaluations, low=1, high=MOST_STEPS)
    check_kind("options", options, (Mapping, Sequence, Set), "the names of options")
    given = sorted(map(str, options))
    if given:
        raise InvalidArgumentError(f"method='auto' has no options; give {given[0]!r} with the name of a method.")
    if evaluations is None:
        return Choice(Adams() if affine else RK45())
    rule = next(rule for rule in BUDGETS if evaluations <= rule.most) if affine else BudgetRule(math.inf, Heun())
    return Choice(rule.solver, rule.grid, rule.level)
