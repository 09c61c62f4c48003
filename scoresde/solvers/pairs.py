"""Adaptive Runge-Kutta pairs, in time or where the linear part of the flow vanishes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.processes import RHO, SNR, TIME, Coordinate, angle
from ..core.support.checks import check_choice
from ..core.support.combination import weighted
from .base import StepControl
from .families.runge_kutta import RungeKutta, Tableau

# The forms of the probability flow that a pair steps: dx/dt; d(x/alpha)/d(sigma/alpha), the noise estimate;
# d(x/sigma)/d(alpha/sigma), the data estimate; and both, in the angle between signal and noise.
FORMS: dict[str, Coordinate] = {"x": TIME, "noise": RHO, "data": SNR, "angle": angle(0.2)}


@dataclass(frozen=True)
class Pair(RungeKutta):
    r"""An adaptive pair, with a step size per sample; subclasses give the tableau.

    Other samples of the batch never change a result, finished samples are not evaluated again, and nothing is evaluated
    beyond the end of the interval.

    Args:
        form: what is stepped: ``"x"`` in time; or ``"noise"``, :math:`d(x/\alpha) = \hat\varepsilon\,d\rho` with
            :math:`\rho = \sigma/\alpha`, or ``"data"``, :math:`d(x/\sigma) = \hat x\,d\rho^{-1}`, where the linear part
            has vanished; or ``"angle"``, the coordinate of `Adams` with a spread of 0.2.
    """

    form: str = "x"

    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)

    @property
    def coordinate(self) -> Coordinate:  # type: ignore[override]
        """The coordinate of the form."""
        return FORMS[self.form]

    @property
    def noise_limit(self) -> bool:  # type: ignore[override]
        """True where the clock is finite at the noise end."""
        return self.form in ("x", "angle")

    @property
    def data_limit(self) -> bool:
        """False: it evaluates at the end of a step."""
        return False


@dataclass(frozen=True)
class RK23(Pair):
    r"""The adaptive Bogacki-Shampine 3(2) pair.

    Facts:
        Order 3, error estimate of order 2; 3 evaluations per trial step and one before the first.

    Differs from:
        SciPy's ``RK23`` and torchdiffeq's ``bosh3``, whose error norm spans the batch.

    Args:
        form: ``"x"``, ``"noise"``, ``"data"`` or ``"angle"``, see `Pair`.

    Example:
        >>> RK23(form="noise").evaluations
        3

    References:
        Bogacki, Shampine (1989), A 3(2) pair of Runge-Kutta formulas.
    """

    ode_order: ClassVar[int] = 3
    reference: ClassVar[str] = "Bogacki, Shampine (1989)"
    tableau: ClassVar[Tableau] = Tableau(
        a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        c=(0.0, 1 / 2, 3 / 4, 1.0),
        b=(2 / 9, 1 / 3, 4 / 9, 0.0),
        b_error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    )


_TSIT = (
    (),
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
)


@dataclass(frozen=True)
class Tsit5(Pair):
    r"""Tsitouras's adaptive 5(4) pair.

    Facts:
        Order 5, error estimate of order 4; 6 evaluations per trial step and one before the first.

    Args:
        form: ``"x"``, ``"noise"``, ``"data"`` or ``"angle"``, see `Pair`.

    Example:
        >>> Tsit5().evaluations
        6

    References:
        Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption.
    """

    ode_order: ClassVar[int] = 5
    reference: ClassVar[str] = "Tsitouras (2011)"
    tableau: ClassVar[Tableau] = Tableau(
        a=_TSIT,
        c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
        b=(*_TSIT[-1], 0.0),
        b_error=(
            -0.00178001105222577714,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            1 / 66,
        ),
    )


@functools.cache
def _dop853() -> tuple[Tableau, tuple[float, ...]]:
    """SciPy's coefficients, and those of the second error estimate."""
    from scipy.integrate import DOP853 as Known

    rows = [tuple(float(v) for v in row[:i]) for i, row in enumerate(Known.A)]
    b = tuple(float(v) for v in Known.B)
    tableau = Tableau(
        a=(*rows, b), c=(*(float(v) for v in Known.C), 1.0), b=(*b, 0.0), b_error=tuple(float(v) for v in Known.E5)
    )
    return tableau, tuple(float(v) for v in Known.E3)


@dataclass(frozen=True)
class DOP853(Pair):
    r"""The adaptive Dormand-Prince method of order 8, for tight tolerances.

    With the error estimates of orders 5 and 3, :math:`e_5^2/\sqrt{e_5^2 + 0.01\,e_3^2}` elementwise.

    Facts:
        Order 8; 12 evaluations per trial step and one before the first.

    Differs from:
        SciPy's ``DOP853``, which combines the norms of the two estimates over the batch.

    Args:
        form: ``"x"``, ``"noise"``, ``"data"`` or ``"angle"``, see `Pair`.

    Example:
        >>> DOP853().evaluations
        12

    References:
        Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, II.10.
    """

    control: ClassVar[StepControl] = StepControl(first_step=1e-3)  # a step of order 8 is fooled more easily
    ode_order: ClassVar[int] = 8
    reference: ClassVar[str] = "Hairer, Norsett, Wanner (1993), II.10"

    @property
    def tableau(self) -> Tableau:
        """The method's coefficients."""
        return _dop853()[0]

    def error(self, ks: Sequence[Tensor]) -> Tensor:
        """The error by both estimates."""
        fifth = super().error(ks)
        third = weighted([(w, k) for w, k in zip(_dop853()[1], ks, strict=True) if w])
        size = (fifth.square() + (0.1 * third).square()).sqrt()
        return torch.where(size > 0, fifth * fifth.abs() / size, fifth)
