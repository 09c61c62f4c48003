"""Common parts of the solvers of inverse problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.support.checks import MOST_LEVELS
from ...core.support.declared import checked, integer
from ...core.support.tensors import expand
from ...solvers.base import Asking, Node, Process, SDESolver
from ..measurement import Measurement
from ..operators import LinearOperator
from ..rules import Tally

Repeats = Annotated[int, integer(low=1, high=MOST_LEVELS)]


@checked
@dataclass(frozen=True, eq=False)
class InverseSolver(SDESolver):
    """A solver whose steps use a measurement; subclasses are frozen dataclasses.

    Per-sample values, above all the measurement, are in the solver's state, so that they leave the batch with the
    sample.

    Args:
        measurement: the measurement.
        tally: counts vector-Jacobian products.

    Attributes:
        products: vector-Jacobian products per step.

    Example:
        >>> from scoresde.inverse import DDRM, Mask, Measurement
        >>> (
        ...     issubclass(DDRM, InverseSolver),
        ...     DDRM(Measurement(Mask(torch.tensor([True])), torch.ones(1))).products,
        ... )
        (True, 0)
    """

    measurement: Measurement
    tally: Tally = field(default_factory=Tally, kw_only=True, repr=False)

    gradients: ClassVar[bool] = False
    products: ClassVar[int] = 0

    @property
    def batch_coupled(self) -> bool:
        """An operator with parameters for each sample needs the batch as it is."""
        return super().batch_coupled or not self.measurement.operator.shared

    @property
    def operator(self) -> LinearOperator:
        """The operator, if it is linear."""
        return self.measurement.linear(self.name)


@dataclass(frozen=True, eq=False)
class SpectralSolver(InverseSolver):
    """A solver that needs the singular values of the operator; its state is the known part, unless it has its own."""

    def __post_init__(self) -> None:
        self.measurement.spectral(self.name)

    def init(self, process: Process, x: Tensor, start: Node) -> object:
        """The known part."""
        return self.operator.pseudo_inverse(self.measurement.of(x))


def impute(process: Process, operator: LinearOperator, x: Tensor, known: Tensor, node: Node) -> Asking[Tensor]:
    r"""Replace the part of a state that A measures by ``known``, perturbed to the state's own level with fresh noise:
    :math:`V^Hx \leftarrow \alpha V^Hx_{known} + \sigma V^Hz` where :math:`s > 0`.

    Example:
        >>> from scoresde.inverse import Mask
        >>> from scoresde.core.processes import Network, ReverseProcess
        >>> from scoresde.core.noise import CallableNoise
        >>> silence = CallableNoise(lambda k, like: torch.zeros_like(like))
        >>> sde, ones = scoresde.EDMSDE(), torch.ones(1, 2)
        >>> process = ReverseProcess(sde, Network(lambda x, t: x), noise=silence)
        >>> mask = Mask(torch.tensor([True, False]))
        >>> process.run(impute(process, mask, ones, 5.0 * ones, sde.node(1.0)))
        tensor([[5., 1.]])
    """
    into, back = operator.svd.into, operator.svd.back
    perturbed = expand(node.alpha, x) * known + expand(node.sigma, x) * (yield process.normal(x))
    seen = (operator.svd.values > 0).to(x.device)
    return back(torch.where(seen, into(perturbed), into(x)))


def detours(times: Tensor, jump: int, repeats: int) -> Tensor:
    """A grid that repeats every stretch of ``jump`` steps ``repeats`` times, with a leap back up in between.

    Example:
        >>> detours(torch.tensor([3.0, 2.0, 1.0]), jump=2, repeats=2)
        tensor([3., 2., 1., 3., 2., 1.])
    """
    if repeats == 1 or len(times) < 2:
        return times
    path = [times[:1]]
    for low in range(0, len(times) - 1, jump):
        stretch = times[low : low + jump + 1]
        path += [stretch[1:], *[stretch] * (repeats - 1)]
    return torch.cat(path)
