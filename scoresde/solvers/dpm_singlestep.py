"""DPM-Solver and DPM-Solver++ of orders 2 and 3 in single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.support.checks import check_choice, check_number
from .families.exponential_runge_kutta import ExponentialRungeKutta, PhiTableau, Weight, minus
from .registry.variants import variants

__getattr__ = variants(__name__)  # the public names of rows

FORMS = ("taylor", "dpmsolver")


def second_order(r: float, form: str = "taylor") -> PhiTableau:
    r"""2S: :math:`D_1 = (m_1-m_0)/r` with the weight :math:`\varphi_2` ("taylor") or :math:`\frac12\varphi_1`
    ("dpmsolver")."""
    slope = ((2, 1 / r, 1.0),) if form == "taylor" else ((1, 0.5 / r, 1.0),)
    return PhiTableau(
        c=(0.0, r),
        a=((), (((1, r, r),),)),
        b=(((1, 1.0, 1.0), *minus(slope)), slope),
    )


def third_order(r1: float, r2: float, form: str = "taylor") -> PhiTableau:
    r"""3S. "dpmsolver": :math:`D_1 = (m_2-m_0)/r_2`, no :math:`D_2`; "taylor": both differences by interpolation."""
    lift = ((2, r2 * r2 / r1, r2),)
    first: Weight = ()
    second: Weight = ((2, 1 / r2, 1.0),)
    if form == "taylor":  # D1 = (r2 d1 - r1 d2)/(r2 - r1), D2 = 2 (d2 - d1)/(r2 - r1) with d_i = (m_i - m_0)/r_i
        gap = r2 - r1
        first = ((2, r2 / (gap * r1), 1.0), (3, -2 / (gap * r1), 1.0))
        second = ((2, -r1 / (gap * r2), 1.0), (3, 2 / (gap * r2), 1.0))
    return PhiTableau(
        c=(0.0, r1, r2),
        a=((), (((1, r1, r1),),), (((1, r2, r2), *minus(lift)), lift)),
        b=(((1, 1.0, 1.0), *minus(first), *minus(second)), first, second),
    )


@dataclass(frozen=True)
class DPM2S(ExponentialRungeKutta):
    r"""DPM-Solver-2 in single steps, in :math:`\hat\varepsilon`, with the inner node at :math:`\lambda_s + rh`.

    With :math:`D_1 = (\hat\varepsilon_1-\hat\varepsilon_0)/r`,

    .. math:: x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t h[\varphi_1(h)\hat\varepsilon_0 + \varphi_2(h) D_1],

    and :math:`\frac12\varphi_1` in place of :math:`\varphi_2` in the form "dpmsolver". With ``prediction="data"`` it is
    DPM-Solver++ (2S),

    .. math:: x_t = \frac{\sigma_t}{\sigma_s}x_s + \alpha_t h[\varphi_1(-h)\hat x_0 + \varphi_2(-h) D_1].

    Facts:
        Order 2 in either form; 2 evaluations per step; no state; no noise.

    Differs from:
        the official code, which takes the "dpmsolver" form by default; the "taylor" form has the smaller error on
        mixtures. k-diffusion's ``sample_dpmpp_2s_ancestral`` with eta = 0 is the "dpmsolver" form of the data.

    Args:
        prediction: ``"noise"`` or ``"data"``, what is integrated.
        form: ``"taylor"`` or ``"dpmsolver"``.
        r: the place of the inner node, in (0, 1).

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="dpm_2s", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        20

    References:
        Lu et al. (2022), DPM-Solver, algorithm 1. https://arxiv.org/abs/2206.00927
        Lu et al. (2022), DPM-Solver++, algorithm 1. https://arxiv.org/abs/2211.01095
    """

    prediction: str = "noise"
    form: str = "taylor"
    r: float = 0.5

    ode_order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("r", self.r, low=0.0, high=1.0, strict=True)
        check_choice("form", self.form, FORMS)

    @property
    def reference(self) -> str:
        """The reference for the estimate that is integrated."""
        return f"Lu et al. (2022), DPM-Solver{'++' * (self.prediction == 'data')}, algorithm 1"

    @property
    def tableau(self) -> PhiTableau:
        """The method's coefficients."""
        return second_order(self.r, self.form)


@dataclass(frozen=True)
class DPM3S(ExponentialRungeKutta):
    r"""DPM-Solver-3 in single steps, in :math:`\hat\varepsilon`, with inner nodes at :math:`\lambda_s + r_1h` and
    :math:`\lambda_s + \frac23h`; with ``prediction="data"`` DPM-Solver++ (3S).

    Facts:
        Order 3 in either form; 3 evaluations per step; no state; no noise. The second node is not free: with any other
        the order is 2.

    Differs from:
        the official code, which takes the "dpmsolver" form by default.

    Args:
        prediction: ``"noise"`` or ``"data"``, what is integrated.
        form: ``"taylor"`` or ``"dpmsolver"``.
        r1: the place of the first inner node, in (0, 2/3).

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="dpm_3s", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        30

    References:
        Lu et al. (2022), DPM-Solver, algorithm 2. https://arxiv.org/abs/2206.00927
        Lu et al. (2022), DPM-Solver++, appendix. https://arxiv.org/abs/2211.01095
    """

    prediction: str = "noise"
    form: str = "taylor"
    r1: float = 1 / 3

    ode_order: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("r1", self.r1, low=0.0, high=2 / 3, strict=True)
        check_choice("form", self.form, FORMS)

    @property
    def reference(self) -> str:
        """The reference for the estimate that is integrated."""
        return f"Lu et al. (2022), DPM-Solver{'++' if self.prediction == 'data' else ', algorithm 2'}"

    @property
    def tableau(self) -> PhiTableau:
        """The method's coefficients."""
        return third_order(self.r1, 2 / 3, self.form)
