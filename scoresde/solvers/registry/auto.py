"""``method="auto"``: a method by rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from ..._checks import MOST_STEPS, check_flag, check_integer, check_kind
from ...errors import InvalidArgumentError
from ..adams import Adams
from ..base import Solver
from ..dpm_multistep import DPM3M
from ..heun import Heun
from ..ipndm import IPNDM
from ..rk45 import RK45
from ..unipc import UniPC

# The method for so many evaluations and fewer: the smallest errors of the table of all methods, in the geometric mean
# of its problems, at 5, 10, 20, 50 and 100 evaluations on steps even in the log-SNR.
BUDGETS: tuple[tuple[float, Solver], ...] = ((7, IPNDM()), (29, DPM3M()), (float("inf"), UniPC(order=3)))


def choose(affine: bool, steps: int | None, options: Iterable[str]) -> tuple[Solver, int | None]:
    """The method, and its number of steps for a budget.

    - With ``steps``, the number of evaluations: up to 7 `IPNDM`, up to 29 `DPM3M`, beyond that `UniPC3`.
    - Otherwise, with or without tolerances: `Adams`.
    - For a process with a drift and a diffusion only: `Heun` and `RK45`.

    Example:
        >>> choose(True, 10, ())
        (DPM3M(prediction='noise', variant='corrected', start_up='single', lower_order_final=False), 9)
    """
    check_flag("affine", affine)
    if steps is not None:
        check_integer("steps", steps, low=1, high=MOST_STEPS)
    check_kind("options", options, (Mapping, Sequence, Set), "the names of options")
    given = sorted(map(str, options))
    if given:
        raise InvalidArgumentError(f"method='auto' has no options; give {given[0]!r} with the name of a method.")
    if steps is None:
        return Adams() if affine else RK45(), None
    solver = next(method for most, method in BUDGETS if steps <= most) if affine else Heun()
    return solver, max(1, (steps - solver.extra_evaluations) // solver.evaluations)
