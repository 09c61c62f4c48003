"""DPM-Solver and DPM-Solver++ of orders 2 and 3 in multiple steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..core.support.checks import check_choice
from ..core.support.tensors import Scalar
from .dpm_singlestep import FORMS
from .families.exponential import interpolation_weights
from .families.multistep import Multistep
from .families.phi import phi
from .registry.variants import variants

__getattr__ = variants(__name__)  # the public names of rows


@dataclass(frozen=True)
class DPM2M(Multistep):
    r"""DPM-Solver-2 in multiple steps, in :math:`\hat\varepsilon`: a line through this node's estimate and the last.

    With :math:`D_1 = (m_0-m_{-1})/r_0` and :math:`r_0 = (\lambda_s-\lambda_{s-1})/h`,

    .. math:: x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t h[\varphi_1(h) m_0 + \tfrac12\varphi_1(h) D_1],

    and :math:`\varphi_2` in place of :math:`\frac12\varphi_1` in the form "taylor". With ``prediction="data"`` it is
    DPM-Solver++ (2M), k-diffusion's ``sample_dpmpp_2m`` on any process.

    Facts:
        Order 2 in either form; 1 evaluation per step; keeps one estimate; no noise.

    Differs from:
        diffusers, where "dpmsolver" is called midpoint and "taylor" heun.

    Args:
        prediction: ``"noise"`` or ``"data"``, what is integrated.
        form: ``"dpmsolver"`` or ``"taylor"``.
        start_up: ``"single"`` or ``"published"``, the same here: the first step is DDIM's.
        lower_order_final: make the last step one of DDIM, as the published codes do for fewer than 15 steps.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="dpm_2m", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        10

    References:
        Lu et al. (2022), DPM-Solver++, algorithm 2. https://arxiv.org/abs/2211.01095
    """

    prediction: str = "noise"
    form: str = "dpmsolver"
    start_up: str = "single"
    lower_order_final: bool = False

    ode_order: ClassVar[int] = 2
    memory: ClassVar[int] = 2
    reference: ClassVar[str] = "Lu et al. (2022), DPM-Solver++, algorithm 2"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("form", self.form, FORMS)

    def weights(self, r: Sequence[Scalar], z: Scalar) -> list[Scalar]:
        """See `Multistep.weights`."""
        if self.form == "taylor":
            return super().weights(r, z)
        first = phi(1, z)[1]
        return interpolation_weights(r, [first, 0.5 * first][: len(r)])


@dataclass(frozen=True)
class DPM3M(Multistep):
    r"""DPM-Solver-3 in multiple steps, in :math:`\hat\varepsilon`: a parabola through three estimates.

    .. math:: x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t h[\varphi_1 m_0 + \varphi_2 D_1 + \varphi_3 D_2]

    with the divided differences of the last three estimates. The published code has half of :math:`D_2`, the second
    derivative, which makes its order 2. With ``prediction="data"`` it is DPM-Solver++ (3M).

    Facts:
        Order 3, the same method as `UniP3` with ``variant="full"``; 1 evaluation per step (1 more at the start);
        keeps two estimates; no noise. ``variant="published"`` has order 2.

    Differs from:
        the official code and diffusers, where the factor 2 of :math:`D_2` is missing and the first two steps have
        orders 1 and 2.

    Args:
        prediction: ``"noise"`` or ``"data"``, what is integrated.
        variant: ``"corrected"`` or ``"published"``.
        start_up: ``"single"`` (a single step of order 2) or ``"published"`` (one of order 1).
        lower_order_final: use orders 2 and 1 in the last two steps.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="dpm_3m", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        11

    References:
        Lu et al. (2022), DPM-Solver++, appendix. https://arxiv.org/abs/2211.01095
    """

    prediction: str = "noise"
    variant: str = "corrected"
    start_up: str = "single"
    lower_order_final: bool = False

    memory: ClassVar[int] = 3
    reference: ClassVar[str] = "Lu et al. (2022), DPM-Solver++; the factor of the second derivative is ours"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("variant", self.variant, ("corrected", "published"))

    @property
    def ode_order(self) -> int:
        """3, or 2 as published."""
        return 3 if self.variant == "corrected" else 2

    def weights(self, r: Sequence[Scalar], z: Scalar) -> list[Scalar]:
        """See `Multistep.weights`."""
        weights = super().weights(r, z)
        if self.variant == "published" and len(r) == 3:  # half of D2 taken away: m = r (r - r1) / 2 has D2 = 1 alone
            lacking = interpolation_weights(r, [0.0, 0.0, phi(3, z)[3]])
            weights = [w - v for w, v in zip(weights, lacking, strict=True)]
        return weights
