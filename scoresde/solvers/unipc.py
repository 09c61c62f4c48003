"""UniP and UniPC: a predictor of any order, and a corrector that costs no evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..core.support.checks import check_choice, check_integer
from ..core.support.tensors import Scalar
from .families.exponential import interpolation_weights, moments
from .families.multistep import HIGHEST, Multistep
from .families.phi import phi
from .registry.variants import variants

__getattr__ = variants(__name__)  # the public names of rows

VARIANTS = ("bh2", "bh1", "full")


@dataclass(frozen=True)
class UniP(Multistep):
    r"""UniP-p: interpolate the last p estimates in :math:`\lambda`, and integrate exactly.

    .. math:: x_t = K x_s + G h\sum_{j<p}\omega_j m_{-j},\qquad \sum_j \omega_j r_j^k = k!\,\varphi_{k+1}(z).

    With two nodes the published methods replace :math:`\varphi_2` by :math:`\frac12 B(z)/z`, with :math:`B = z` ("bh1")
    or :math:`B = e^z - 1` ("bh2"); with more nodes B drops out of the system.

    Facts:
        Order p; 1 evaluation per step (more in the first steps of p >= 3); keeps p - 1 estimates; no noise. UniP-1
        is DDIM, UniP-2 with "bh2" DPM-Solver(++) 2M, UniP-3 with "full" DPM-Solver(++) 3M ("bh2" differs in the
        second step, which has two nodes).

    Args:
        order: p, 1 to 6.
        prediction: ``"data"`` or ``"noise"``, what is integrated.
        variant: ``"bh2"``, ``"bh1"`` or ``"full"`` (:math:`\varphi_2` itself).
        start_up: ``"single"`` steps of order p - 1, or ``"published"``, with lower orders.
        lower_order_final: predict with lower orders in the last p - 1 steps.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> method = scoresde.solvers.UniP(order=4)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        14

    References:
        Zhao et al. (2023), UniPC, algorithm 2. https://arxiv.org/abs/2302.04867
    """

    order: int = 3
    prediction: str = "data"
    variant: str = "bh2"
    start_up: str = "single"
    lower_order_final: bool = False

    reference: ClassVar[str] = "Zhao et al. (2023), UniPC"
    highest: ClassVar[int] = HIGHEST + 1  # the order for which there is a start-up

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("order", self.order, low=1, high=self.highest)
        check_choice("variant", self.variant, VARIANTS)

    @property
    def ode_order(self) -> int:
        """p."""
        return self.order

    def weights(self, r: Sequence[Scalar], z: Scalar) -> list[Scalar]:
        """See `Multistep.weights`."""
        exact = moments(len(r), z)
        if len(r) == 2 and self.variant != "full":
            exact[1] = 0.5 * (phi(1, z)[1] if self.variant == "bh2" else 1.0)
        return interpolation_weights(r, exact)


@dataclass(frozen=True)
class UniPC(UniP):
    r"""UniPC-p: UniP-p, corrected with the estimate that the next step needs anyway.

    The network is evaluated at the predicted state, and the step is made again with this estimate as one more node
    (:math:`r = 1`). The estimate is not renewed at the corrected state (PEC) and serves the next step, so that the
    correction costs nothing.

    Facts:
        Order p + 1; 1 evaluation per step (2 more at the start of UniPC-3); keeps p - 1 estimates and a state; no
        noise. The last step is not corrected, since that costs an evaluation; the order does not change.

    Differs from:
        the official code and diffusers, whose first steps have lower orders: that limits UniPC-3 to order 3.

    Args:
        order: p, 1 to 5.
        prediction: ``"data"`` or ``"noise"``, what is integrated.
        variant: ``"bh2"``, ``"bh1"`` or ``"full"``, see `UniP`.
        start_up: ``"single"`` steps of order p, or ``"published"``, with lower orders.
        lower_order_final: predict with lower orders in the last p - 1 steps.
        correct_last: correct the last step too, for one more evaluation.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> method = scoresde.solvers.UniPC(order=2)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        10

    References:
        Zhao et al. (2023), UniPC, algorithm 1. https://arxiv.org/abs/2302.04867
    """

    correct_last: bool = False

    highest: ClassVar[int] = HIGHEST

    @property
    def ode_order(self) -> int:
        """p + 1."""
        return self.order + 1

    @property
    def corrector_order(self) -> int:
        """The nodes of the predictor and the new one."""
        return self.order + 1
