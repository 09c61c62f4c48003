"""Adaptive exponential Runge-Kutta pairs, with a step size per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .dpm_singlestep import second_order, third_order
from .families.exponential_runge_kutta import ExponentialRungeKutta, PhiTableau, minus, times
from .res import RES3S


class ExponentialPair(ExponentialRungeKutta):
    """An exponential method with an error estimate: its difference to one of a lower order with the same stages."""

    adaptive: ClassVar[bool] = True
    noise_limit: ClassVar[bool] = False
    data_limit: ClassVar[bool] = False


def paired(tableau: PhiTableau, other: PhiTableau) -> PhiTableau:
    """A tableau whose error estimate is the difference to another with the same first stages."""
    lower = (*other.b, *((),) * (len(tableau.b) - len(other.b)))
    return tableau._replace(b_error=tuple((*w, *minus(v)) for w, v in zip(tableau.b, lower, strict=True)))


@dataclass(frozen=True)
class DPM12(ExponentialPair):
    r"""DPM-Solver-12: `DPM2S` with DDIM inside it.

    Facts:
        Order 2, error estimate of order 1; 2 evaluations per trial step.

    Differs from:
        the official code and k-diffusion's ``dpm_adaptive``, where one step size serves the batch, and a step is
        accepted for all or for none.

    Args:
        prediction: ``"noise"`` or ``"data"``, what is integrated.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> bool(
        ...     scoresde.solve(
        ...         sde, target.score(sde), method="dpm12", shape=(4, 2), seed=0
        ...     ).success.all()
        ... )
        True

    References:
        Lu et al. (2022), DPM-Solver, appendix C. https://arxiv.org/abs/2206.00927
    """

    prediction: str = "noise"

    ode_order: ClassVar[int] = 2
    reference: ClassVar[str] = "Lu et al. (2022), DPM-Solver, appendix C"
    tableau: ClassVar[PhiTableau] = paired(second_order(0.5), PhiTableau((0.0,), ((),), (((1, 1.0, 1.0),),)))


@dataclass(frozen=True)
class DPM23(ExponentialPair):
    r"""DPM-Solver-23: `DPM3S` with `DPM2S` inside it, nodes at a third and two thirds.

    Facts:
        Order 3, error estimate of order 2; 3 evaluations per trial step.

    Differs from:
        the official code and k-diffusion's ``dpm_adaptive``, where one step size serves the batch.

    Args:
        prediction: ``"noise"`` or ``"data"``, what is integrated.

    Example:
        >>> DPM23().evaluations
        3

    References:
        Lu et al. (2022), DPM-Solver, appendix C. https://arxiv.org/abs/2206.00927
    """

    prediction: str = "noise"

    ode_order: ClassVar[int] = 3
    reference: ClassVar[str] = "Lu et al. (2022), DPM-Solver, appendix C"
    tableau: ClassVar[PhiTableau] = paired(third_order(1 / 3, 2 / 3), second_order(1 / 3))


@dataclass(frozen=True)
class ERK32(ExponentialPair):
    r"""The exponential pair 3(2): `RES3S` with nodes 1/2 and 1, and its method of order 2 on the first of them.

    Facts:
        Order 3, error estimate of order 2 (both stiff); 3 evaluations per trial step.

    Args:
        prediction: ``"data"`` or ``"noise"``, what is integrated.

    Example:
        >>> ERK32().evaluations
        3

    References:
        Hochbruck, Ostermann (2005), Explicit exponential Runge-Kutta methods for semilinear parabolic problems, 5.2.
    """

    prediction: str = "data"

    ode_order: ClassVar[int] = 3
    reference: ClassVar[str] = "Hochbruck, Ostermann (2005), section 5.2"
    tableau: ClassVar[PhiTableau] = paired(RES3S(c2=0.5, c3=1.0).tableau, second_order(0.5))


def _fourth_order() -> PhiTableau:
    """Stages at 0, 1/3, 1/3, 1, 1/2; the result is a quadrature of those at 0, 1/2, 1, the other of those at 0, 1/3, 1.

    Stages 3 and 4 are of order 2, and a53 makes the third-order defects of 4 and 5 cancel in the result.
    """
    a32 = ((2, 1 / 3, 1 / 3),)
    a53 = ((2, 9 / 8, 0.5), (3, -9 / 8, 0.5), (2, 3 / 8, 1.0), (3, -9 / 4, 1.0))
    a54 = ((2, 0.25, 0.5), *times(-1 / 3, a53))
    gap = ((2, 1.0, 1.0), (3, -2.0, 1.0))
    return PhiTableau(
        c=(0.0, 1 / 3, 1 / 3, 1.0, 0.5),
        a=(
            (),
            (((1, 1 / 3, 1 / 3),),),
            (((1, 1 / 3, 1 / 3), *minus(a32)), a32),
            (((1, 1.0, 1.0), (2, -3.0, 1.0)), (), ((2, 3.0, 1.0),)),
            (((1, 0.5, 0.5), *minus(a53), *minus(a54)), (), a53, a54),
        ),
        b=(((1, 1.0, 1.0), (2, -3.0, 1.0), (3, 4.0, 1.0)), (), (), ((2, -1.0, 1.0), (3, 4.0, 1.0)), times(4.0, gap)),
        b_error=(gap, (), times(-4.5, gap), times(-0.5, gap), times(4.0, gap)),
    )


@dataclass(frozen=True)
class ERK43(ExponentialPair):
    r"""An exponential pair 4(3): Hochbruck and Ostermann's five stages with their second and third nodes at a third.

    Facts:
        Order 4 (stiff), error estimate of order 3; 5 evaluations per trial step.

    Differs from:
        Hochbruck and Ostermann's eq. 5.19, whose inner nodes are all at a half. An estimate of order 3 that uses only
        the nodes 0, 1/2 and 1 has the same quadrature as the result, and cannot estimate its error.

    Args:
        prediction: ``"data"`` or ``"noise"``, what is integrated.

    Example:
        >>> ERK43().evaluations
        5

    References:
        Hochbruck, Ostermann (2005), eq. 5.19, and the conditions of its table 2 with other nodes.
    """

    prediction: str = "data"

    ode_order: ClassVar[int] = 4
    reference: ClassVar[str] = "Hochbruck, Ostermann (2005), eq. 5.19"
    tableau: ClassVar[PhiTableau] = _fourth_order()
