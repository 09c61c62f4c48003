"""iPNDM and PLMS: the weights of Adams-Bashforth for even grids, with DDIM's transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.processes import Asking, Process
from ..core.sdes import Estimate, Node
from ..core.sdes.records import LinearEstimate
from ..core.support.combination import Term, combination, sum_of, tensor_of
from .families.exponential import History, endless, read
from .families.multistep import NoiseMultistep

_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class IPNDM(NoiseMultistep):
    r"""iPNDM: DDIM's step with :math:`\bar\varepsilon` in place of :math:`\hat\varepsilon`, a combination of the last
    estimates by the weights of Adams-Bashforth: :math:`\bar\varepsilon = \frac{1}{24}(55\hat\varepsilon_0 -
    59\hat\varepsilon_{-1} + 37\hat\varepsilon_{-2} - 9\hat\varepsilon_{-3})` with all four.

    Facts:
        Order 2, whatever the number of estimates, since the weights are those of an even grid and the transfer is not
        linear; on coarse grids more estimates help. 1 evaluation per step; keeps up to 3 estimates; no noise.

    Args:
        order: the number of estimates used, 1 to 4.
        start_up: ``"single"`` or ``"published"``, the same here: the first steps use the estimates that there are.
        lower_order_final: use fewer estimates in the last steps.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="ipndm", steps=10, shape=(4, 2), grid="time"
        ... ).evaluations
        10

    References:
        Zhang, Chen (2023), DEIS, appendix H. https://arxiv.org/abs/2204.13902
        Liu et al. (2022), Pseudo Numerical Methods for Diffusion Models. https://arxiv.org/abs/2202.09778
    """

    predictor_nodes: ClassVar[int] = 0
    reference: ClassVar[str] = "Zhang, Chen (2023), DEIS, appendix H"

    @property
    def ode_order(self) -> int:
        """2 at most."""
        return min(self.order, 2)

    def advance(self, process: Process, x: Tensor, stop: Node, history: History) -> Term:
        """See `Multistep.advance`."""
        noise = sum_of(list(zip(_WEIGHTS[len(history.values) - 1], history.values, strict=True)))
        return replace_noise(x, history.nodes[0], stop, noise)


def replace_noise(x: Tensor, start: Node, stop: Node, noise: Term) -> Term:
    """DDIM's step with a given noise."""
    keep = stop.alpha / start.alpha
    return combination(keep, x, 1.0, (stop.sigma - keep * start.sigma,), (noise,))


@dataclass(frozen=True)
class PLMS(IPNDM):
    r"""PLMS: `IPNDM` whose first step averages the noise at its two ends, as in latent diffusion's code.

    Facts:
        Order 2; 1 evaluation per step and 1 more in the first; keeps up to 3 estimates; no noise.

    Differs from:
        diffusers' ``PNDMScheduler``, where the same method skips one time step.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="plms", steps=10, shape=(4, 2), grid="time"
        ... ).evaluations
        11

    References:
        Liu et al. (2022), Pseudo Numerical Methods for Diffusion Models, section 3.3.
        https://arxiv.org/abs/2202.09778
    """

    reference: ClassVar[str] = "Liu et al. (2022), Pseudo Numerical Methods"

    def cost(self, steps: int, limits: int = 0) -> int:
        """See `Solver.cost`: the first step has an additional evaluation."""
        return steps + int(self.order > 1 and steps > limits)

    def predict(
        self,
        process: Process,
        x: Tensor,
        start: Node,
        stop: Node,
        history: History,
        estimate: LinearEstimate | Estimate | None,
    ) -> Asking[tuple[Term, bool]]:
        """See `Multistep.predict`."""
        if self.order == 1 or len(history.nodes) > 1 or endless(start, stop):
            return (yield from super().predict(process, x, start, stop, history, estimate))
        first = history.values[0]
        second = yield read(process, tensor_of(replace_noise(x, start, stop, first)), stop, self.prediction)
        return replace_noise(x, start, stop, sum_of([(0.5, first), (0.5, second)])), True
