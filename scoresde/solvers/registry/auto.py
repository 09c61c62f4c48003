"""``method="auto"``: a method, and its grid, by rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ..._checks import MOST_STEPS, check_flag, check_integer, check_kind
from ...errors import InvalidArgumentError
from ...grids import Schedule, VPTime, default
from ..adams import Adams
from ..base import Solver
from ..dpm_multistep import DPM3M
from ..heun import Heun
from ..rk45 import RK45
from ..unipc import UniPC


@dataclass(frozen=True)
class FewSteps(VPTime):
    """The grid of few evaluations: `VPTime`, or the default grid for a process that begins at alpha = 0.

    Example:
        >>> [
        ...     round(t, 3)
        ...     for t in FewSteps(0.3, 0.5)(scoresde.EDMSDE(), 80.0, 0.002, 2).tolist()
        ... ]
        [80.0, 3.946, 0.002]
    """

    def __call__(self, sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        if float(sde.log_snr(max(t_start, t_end))) == -math.inf:
            return default(sde, t_start, t_end)(sde, t_start, t_end, steps)
        return super().__call__(sde, t_start, t_end, steps)

    def for_data(self, std: float) -> FewSteps:
        """The grid for data of another standard deviation, to the nearest power of ten."""
        return replace(self, scale=self.scale * 10.0 ** round(math.log10(std)))


class Choice(NamedTuple):
    """A method, its number of steps, and its grid; None is the default one."""

    solver: Solver
    steps: int | None
    grid: FewSteps | None = None


class Rule(NamedTuple):
    """What to take for so many evaluations and fewer."""

    most: float
    solver: Solver
    grid: FewSteps | None = None


_FEW = UniPC(order=2, lower_order_final=True)
# Up to 14 evaluations by `benchmarks.few`, the smallest errors on networks; beyond that the smallest errors of the
# table of all methods, in the geometric mean of its problems, at 20, 50 and 100 evaluations.
BUDGETS: tuple[Rule, ...] = (
    Rule(5, _FEW, FewSteps(0.3, 0.5)),
    Rule(7, _FEW, FewSteps(0.3, 0.375)),
    Rule(14, _FEW, FewSteps(0.3, 0.25)),
    Rule(29, DPM3M()),
    Rule(math.inf, UniPC(order=3)),
)


def choose(affine: bool, steps: int | None, options: Iterable[str]) -> Choice:
    """The method, its number of steps for a budget, and its grid.

    - With ``steps``, the number of evaluations: up to 14 `UniPC2` with ``lower_order_final=True`` on a grid that is
      even in a power of a VP process's time (see `scoresde.grids.VPTime`), up to 29 `DPM3M`, beyond that `UniPC3`.
    - Otherwise, with or without tolerances: `Adams`.
    - For a process with a drift and a diffusion only: `Heun` and `RK45`.

    Example:
        >>> choice = choose(True, 20, ())
        >>> choice.solver.name, choice.steps, choose(True, 8, ()).grid
        ('dpm_3m', 19, FewSteps(scale=0.3, power=0.25))
    """
    check_flag("affine", affine)
    if steps is not None:
        check_integer("steps", steps, low=1, high=MOST_STEPS)
    check_kind("options", options, (Mapping, Sequence, Set), "the names of options")
    given = sorted(map(str, options))
    if given:
        raise InvalidArgumentError(f"method='auto' has no options; give {given[0]!r} with the name of a method.")
    if steps is None:
        return Choice(Adams() if affine else RK45(), None)
    rule = next(rule for rule in BUDGETS if steps <= rule.most) if affine else Rule(math.inf, Heun())
    count = max(1, (steps - rule.solver.extra_evaluations) // rule.solver.evaluations)
    return Choice(rule.solver, count, rule.grid)
