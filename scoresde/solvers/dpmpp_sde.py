"""DPM-Solver++ 2S with noise: k-diffusion's ``dpmpp_sde`` and ``dpmpp_2s_ancestral``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.processes import LOG_SNR, RHO, Coordinate, Process
from ..core.support.checks import check_number
from ..core.support.combination import Term, combination, sum_of, tensor_of, weighted
from ..core.support.tensors import Scalar, exp, expm1, log
from .base import EstimateSDESolver, Node, Step, StepResult
from .ddim import DDIMEta
from .families.exponential import endless, read


def split(start: Node, stop: Node, eta: float) -> tuple[Scalar, Scalar]:
    r"""The ancestral split of k-diffusion: a deterministic step to less noise than the target level, and fresh noise on
    top.

    From :math:`\rho_s` to :math:`\rho_t < \rho_s`, with :math:`\rho_{up} = \eta\rho_t\sqrt{1-\rho_t^2/\rho_s^2}` and
    :math:`\rho_{dn} = \sqrt{\rho_t^2-\rho_{up}^2}`.

    Returns:
        The noise that is added (of the state, not of :math:`\rho`), and :math:`\ln(1/\rho_{dn})`, where the
        deterministic step goes.

    Example:
        >>> import scoresde
        >>> sde = scoresde.EDMSDE()
        >>> up, lam = split(sde.node(2.0), sde.node(1.0), eta=1.0)
        >>> round(up**2, 12), round(lam, 6)  # 1 - 1/4, and rho_dn = 1/2
        (0.75, 0.693147)
    """
    back = 2 * (start.lam - stop.lam)
    added = -eta * eta * expm1(back)  # rho_up^2 / rho_t^2
    # ln(1 - added), which for eta = 1 is the exponent itself
    left = back if eta == 1.0 else log((1 - eta) * (1 + eta) + eta * eta * exp(back))
    return stop.sigma * added**0.5, stop.lam - 0.5 * left


def _towards(
    x: Tensor, start: Node, scale: Scalar, lam: Scalar, weights: Sequence[Scalar], data: Sequence[Tensor]
) -> Term:
    r"""The deterministic step of :math:`x/\alpha` to the noise level :math:`e^{-lam}` with given estimates of the data
    (weights that add up to 1), times ``scale``."""
    keep = exp(start.lam - lam)
    return combination(scale * keep / start.alpha, x, -scale * expm1(start.lam - lam), weights, data)


@dataclass(frozen=True)
class _Splitting(EstimateSDESolver):
    """What the two share."""

    eta: float = 1.0

    weak_order: ClassVar[int] = 2
    strong_order: ClassVar[float] = 1.0
    gaussian_step: ClassVar[bool] = True
    evaluations: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_number("eta", self.eta, low=0.0, high=1.0)

    def follows(self, eta: float) -> float | None:
        """Its own eta."""
        return self.eta


@dataclass(frozen=True)
class DPMppSDE(_Splitting):
    r"""DPM-Solver++ (2S) for the SDE, as in k-diffusion: ancestral splits for the half and for the whole step, with
    noise from one Brownian path in :math:`\rho = \sigma/\alpha`.

    Facts:
        Weak order 2, strong order 1; 2 evaluations per step; no state. With independent draws for the half and the
        whole step, as in many ports, the weak order is 1.

    Args:
        eta: the share of noise, 0 to 1.
        r: the place of the inner node, in :math:`\lambda`.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="dpmpp_sde", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        40

    References:
        Crowson, k-diffusion, sample_dpmpp_sde. https://github.com/crowsonkb/k-diffusion
        Lu et al. (2022), DPM-Solver++. https://arxiv.org/abs/2211.01095
    """

    r: float = 0.5

    coordinate: ClassVar[Coordinate] = LOG_SNR
    reference: ClassVar[str] = "Crowson, k-diffusion; Lu et al. (2022), DPM-Solver++"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("r", self.r, low=0.0, high=1.0, strict=True)

    @property
    def stages(self) -> tuple[float, ...]:
        """The inner node."""
        return (self.r,)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        if endless(start, stop):
            return (yield from DDIMEta(self.eta).step(process, x, start, stop, state))
        (middle,) = process.nodes.between(start, stop, self.stages, LOG_SNR)
        first = yield process.increment(start.t, middle.t, x)
        second = yield process.increment(middle.t, stop.t, x)
        data = yield read(process, x, start, "data")
        up, lam = split(start, middle, self.eta)
        inner = weighted([(1.0, _towards(x, start, middle.alpha, lam, (1.0,), (data,))), (up, first)])
        bend = 0.5 / self.r
        estimates = (data, (yield read(process, inner, middle, "data")))
        up, lam = split(start, stop, self.eta)
        moved = _towards(x, start, stop.alpha, lam, (1 - bend, bend), estimates)
        before = (RHO.clock(start) - RHO.clock(middle)) / (RHO.clock(start) - RHO.clock(stop))  # of the path's length
        path = sum_of([(before**0.5, first), ((1 - before) ** 0.5, second)])
        return StepResult(sum_of([(1.0, moved), (up, path)]))


@dataclass(frozen=True)
class DPMpp2SAncestral(_Splitting):
    r"""DPM-Solver++ (2S) with one ancestral split: a deterministic step of order 2 to :math:`\rho_{dn}`, then noise.

    Facts:
        Weak order 2 for the distribution of a solve that starts at the right one (from a fixed state the order is 1);
        strong order 1; 2 evaluations per step; no state.

    Args:
        eta: the share of noise, 0 to 1; 0 is `DPMpp2S` with ``form="dpmsolver"``.

    Example:
        >>> DPMpp2SAncestral().evaluations
        2

    References:
        Crowson, k-diffusion, sample_dpmpp_2s_ancestral. https://github.com/crowsonkb/k-diffusion
    """

    keeps_estimates: ClassVar[bool] = False
    reference: ClassVar[str] = "Crowson, k-diffusion"

    def _middle(self, start: Node, stop: Node) -> Scalar:
        return 0.5 * (start.lam + split(start, stop, self.eta)[1])

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """See `Solver.prepare`."""
        pairs = [(a, b) for a, b in itertools.pairwise(nodes) if not endless(a, b)]
        process.nodes.prepare_at([float(self._middle(a, b)) for a, b in pairs])

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        if endless(start, stop):
            return (yield from DDIMEta(self.eta).step(process, x, start, stop, state))
        up, lam = split(start, stop, self.eta)
        middle = process.nodes.at(self._middle(start, stop))
        data = yield read(process, x, start, "data")
        inner = tensor_of(_towards(x, start, middle.alpha, middle.lam, (1.0,), (data,)))
        moved = _towards(x, start, stop.alpha, lam, (1.0,), ((yield read(process, inner, middle, "data")),))
        return StepResult(sum_of([(1.0, moved), (up, (yield process.increment(start.t, stop.t, x)))]))
