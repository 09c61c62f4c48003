"""EDM's stochastic sampler."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.processes import RHO, Process
from ..core.support.checks import check_number, check_positive
from ..core.support.combination import combine
from ..core.support.tensors import exp
from .base import THROUGH_NETWORK, EstimateSDESolver, Node, Step, StepResult
from .families.exponential import endless, transfer
from .families.runge_kutta import Tableau, runge_kutta_step


@dataclass(frozen=True)
class EDM(EstimateSDESolver):
    r"""EDM's sampler: a little noise is added ("churn"), then a step of order 2 in :math:`\rho = \sigma/\alpha`.

    From :math:`\rho_i` to :math:`\hat\rho = (1+\gamma)\rho_i`, :math:`\gamma = \min(S_{churn}/N, \sqrt2-1)` if
    :math:`\rho_i \in [S_{min}, S_{max}]`, else 0: :math:`\hat y = y + S_{noise}\sqrt{\hat\rho^2-\rho_i^2}\,z`; then
    from :math:`\hat\rho` to :math:`\rho_{i+1}` with the tableau of :math:`a` (1 Heun, 1/2 midpoint, 2/3 Ralston).
    :math:`\hat\rho` never exceeds the noise at ``t_max``.

    Facts:
        Weak order 2 for the distribution of a solve that starts at the right one, with ``s_noise=1`` and while
        :math:`S_{churn}/N` is below its cap; no strong order, as the added noise is not that of a reverse SDE with
        fixed :math:`\eta`. 2 evaluations per step; no state. A step that ends at sigma = 0 is one of Euler in
        :math:`\rho`. ``s_churn=0`` is `RhoHeun`.

    Differs from:
        EDM's code, where alpha is 1 and the time is :math:`\rho`.

    Args:
        s_churn, s_min, s_max, s_noise: the amount of churn, its range, and the factor on its noise. Published: 0 for
            the deterministic sampler; (30, 0.01, 1, 1.007) and (80, 0.05, 1, 1.007) for CIFAR-10 with VP and VE
            networks, (40, 0.05, 50, 1.003) for ImageNet-64.
        a: the stage of the family of order 2, in (0, 1].

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.EDMSDE()
        >>> options = {
        ...     "s_churn": 5.0,
        ...     "steps": 18,
        ...     "grid": "karras",
        ...     "shape": (4, 2),
        ...     "seed": 0,
        ... }
        >>> scoresde.solve(sde, target.score(sde), method="edm", **options).evaluations
        36

    References:
        Karras et al. (2022), algorithm 2 and table 5. https://arxiv.org/abs/2206.00364
    """

    s_churn: float = 40.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0
    a: float = 1.0

    weak_order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    not_gaussian: ClassVar[str] = THROUGH_NETWORK
    reference: ClassVar[str] = "Karras et al. (2022), algorithm 2"

    def __post_init__(self) -> None:
        for name in ("s_churn", "s_min", "s_noise"):
            check_number(name, getattr(self, name), low=0.0)
        endless = isinstance(self.s_max, float) and self.s_max == math.inf
        if not endless and not check_number("s_max", self.s_max) > self.s_min:
            raise InvalidArgumentError(f"`s_max` must be greater than s_min={self.s_min}, got {self.s_max}.")
        object.__setattr__(self, "a", check_positive("a", self.a, high=1.0))

    @property
    def tableau(self) -> Tableau:
        """The step of order 2."""
        return Tableau(a=((), (self.a,)), c=(0.0, self.a), b=(1 - 0.5 / self.a, 0.5 / self.a))

    def _churned(self, process: Process, start: Node[float]) -> float | None:
        r""":math:`\lambda` with the noise added; None without."""
        rho = RHO.clock(start)
        gamma = (
            min(self.s_churn / max(process.nodes.steps, 1), math.sqrt(2) - 1)
            if self.s_min <= rho <= self.s_max
            else 0.0
        )
        lam = max(start.lam - math.log1p(gamma), process.nodes.lowest_lam)
        return lam if lam < start.lam else None

    def prepare(self, process: Process, nodes: Sequence[Node[float]]) -> None:
        """See `Solver.prepare`."""
        starts = [n for n in nodes[:-1] if not endless(n, n)]
        hats = {n.t: self._churned(process, n) for n in starts}
        process.nodes.prepare_at([lam for lam in hats.values() if lam is not None])
        fractions = self.tableau.c[1:]
        for start, stop in itertools.pairwise(nodes):
            if not endless(start, stop) and self.a < 1:
                process.nodes.prepare_between([self._hat(process, hats[start.t], start), stop], fractions, RHO)

    def _hat(self, process: Process, lam: float | None, start: Node[float]) -> Node[float]:
        return start if lam is None else process.nodes.at(lam)

    def step(self, process: Process, x: Tensor, start: Node[float], stop: Node[float], state: object) -> Step:
        """See `Solver.step`."""
        z = yield process.increment(start.t, stop.t, x)
        if endless(start, start):
            return StepResult(transfer((yield process.linear_estimate(x, start)), start, stop))
        hat = self._hat(process, self._churned(process, start), start)
        if hat is not start:
            ratio = hat.alpha / start.alpha
            added = hat.sigma * (1 - exp(2 * (hat.lam - start.lam))) ** 0.5
            x = combine(ratio, x, self.s_noise * added, (1.0,), (z,))
        estimate = yield process.linear_estimate(x, hat)
        if endless(hat, stop):
            return StepResult(transfer(estimate, hat, stop))
        moved, _ = yield from runge_kutta_step(self.tableau, RHO, process, x, hat, stop, estimate.mix(0.0, 1.0))
        return StepResult(moved)
