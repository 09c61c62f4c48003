"""The Dormand-Prince pair, with a step size per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .families.runge_kutta import Tableau
from .pairs import Pair

_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_B4 = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_B5 = (*_A[-1], 0.0)


@dataclass(frozen=True)
class RK45(Pair):
    r"""The adaptive Dormand-Prince 5(4) pair on the probability flow.

    Every sample has its own time, step and acceptance: other samples never change a result, and finished samples are
    not evaluated again.

    Facts:
        Order 5, error estimate of order 4; 6 evaluations per trial step and one before the first.

    Differs from:
        SciPy's ``RK45`` and torchdiffeq's ``dopri5``, whose error norm spans the batch (an easy sample loosens the
        tolerance of a hard one); nothing is evaluated beyond the end of the interval.

    Args:
        form: ``"x"`` in time, or ``"noise"`` or ``"data"``, where the linear part has vanished; see `Pair`.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="rk45",
        ...     rtol=1e-4,
        ...     atol=1e-4,
        ...     shape=(3, 2),
        ...     seed=0,
        ... )
        >>> solution.t.tolist(), bool((solution.accepted > 0).all())
        ([0.001, 0.001, 0.001], True)

    References:
        Dormand, Prince (1980), A family of embedded Runge-Kutta formulae.
    """

    ode_order: ClassVar[int] = 5
    reference: ClassVar[str] = "Dormand, Prince (1980)"
    tableau: ClassVar[Tableau] = Tableau(
        a=_A,
        c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        b=_B5,
        b_error=tuple(b5 - b4 for b5, b4 in zip(_B5, _B4, strict=True)),
    )
