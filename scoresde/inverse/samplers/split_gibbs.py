"""Split Gibbs sampling with a diffusion prior."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ... import grids
from ...core.errors import InvalidArgumentError
from ...core.processes import result_of
from ...core.sdes import AffineSDE
from ...core.support.declared import Index, Positive, checked
from ...core.support.tensors import Scalar, expand
from ...solvers.ancestral import Ancestral
from ...solvers.base import SDE, Asking, Node, Process, Solver, Step, StepResult
from .base import Repeats, SpectralSolver


@checked
@dataclass(frozen=True, eq=False)
class SplitGibbs(SpectralSolver):
    r"""Split Gibbs sampling: draws from the likelihood and from the prior alternate.

    .. math::
        u \sim N(u; z, \rho^2I)\,N(y; Au, \sigma_y^2I), \qquad z \sim p(z)\,N(u; z, \rho^2I).

    The first is Gaussian, exact in the coordinates of V. The second is what the reverse SDE draws from level
    :math:`\sigma/\alpha = \rho` down, started at :math:`\alpha u`. Over the sweeps :math:`\rho` falls from
    ``rho_max`` to ``rho_min``.

    Facts:
        With :math:`\rho` held, the distribution of z tends to the posterior with the noise :math:`\sigma_y^2I +
        \rho^2AA^T`: exact as :math:`\rho \to 0`, where the moves become small and slow. No vector-Jacobian product;
        ``sweeps`` x ``descent`` evaluations beyond those of the first descent, which draws from the prior.

    Differs from:
        DPnP and PnP-DM in the solver of the reverse SDE, which can be any of this package.

    Args:
        measurement: of a linear operator with singular values.
        rho_max, rho_min: the levels, geometric in between; None is the standard deviation of y in the data's units, or
            ten times the level of ``t_end`` if that is larger, for ``rho_min``.
        sweeps: of both draws.
        hold: the last sweeps that stay at ``rho_min``.
        descent: steps of each descent.
        solver: of the descents, one that draws noise.

    Example:
        >>> from scoresde.inverse import Measurement, SplitGibbs
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(
        ...     torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]])
        ... )
        >>> seen = Measurement(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), 0.3)
        >>> method = SplitGibbs(seen, rho_min=0.2, sweeps=80, hold=40)
        >>> x = scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=20, shape=(500, 2), seed=0
        ... ).x
        >>> bool((x.mean(0) - torch.tensor([1.77, 1.59])).abs().max() < 0.1)
        True

    References:
        Xu, Chi (2024), Provably Robust Score-Based Diffusion Posterior Sampling for Plug-and-Play Image Reconstruction,
        algorithm 1. https://arxiv.org/abs/2403.17042
        Wu et al. (2024), Principled Probabilistic Imaging using Diffusion Models as Plug-and-Play Priors.
        https://arxiv.org/abs/2405.18782
    """

    rho_max: Positive = 5.0
    rho_min: Positive | None = None
    sweeps: Repeats = 40
    hold: Index = 10
    descent: Repeats = 20
    solver: Solver = field(default_factory=Ancestral)

    name: ClassVar[str] = "split_gibbs"
    reference: ClassVar[str] = "Xu, Chi (2024), algorithm 1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho_min is not None and self.rho_min > self.rho_max:
            raise InvalidArgumentError(f"`rho_min` must be in (0, rho_max={self.rho_max:g}], got {self.rho_min!r}.")
        if self.hold > self.sweeps:
            raise InvalidArgumentError(f"`hold` must be at most sweeps={self.sweeps}, got {self.hold}.")
        if not self.solver.stochastic or self.solver.adaptive or self.solver.batch_coupled:
            raise InvalidArgumentError(
                f"`solver` must draw noise in fixed steps, each sample by itself, as Ancestral() does; got "
                f"{self.solver!r}."
            )

    @property
    def evaluations(self) -> int:
        """The evaluations of the solver."""
        return self.solver.evaluations

    @property
    def keeps_estimates(self) -> bool:
        """The same as that of the solver."""
        return self.solver.keeps_estimates

    def levels(self, sde: AffineSDE, t_end: float) -> list[float]:
        r"""The levels :math:`\rho` of the sweeps."""
        floor = math.exp(-0.5 * float(sde.log_snr(t_end)))
        ceiling = math.exp(-0.5 * float(sde.log_snr(sde.t_max)))
        values = self.operator.svd.values
        largest = float(values.max()) if values.numel() else 0.0
        own = self.measurement.std / largest if largest else 0.0
        low = min(max(own, 10 * floor), self.rho_max) if self.rho_min is None else self.rho_min
        high = min(self.rho_max, ceiling)
        if not floor < low <= high:
            raise InvalidArgumentError(
                f"`rho_min` must be above sigma/alpha at the end, {floor:.4g}, and at most {high:.4g}, got {low:.4g}."
            )
        falling = self.sweeps - self.hold
        ratio = (low / high) ** (1 / falling) if falling else 1.0
        return [high * ratio**k for k in range(falling)] + [low] * self.hold

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The first descent, and one from each level."""
        if not isinstance(sde, AffineSDE) or len(times) < 2:
            return times
        end = float(times[-1])
        path = [times]
        for rho in self.levels(sde, end):
            top = min(float(sde.time(torch.tensor(-2 * math.log(rho), dtype=torch.float64))), sde.t_max)
            path.append(grids.resolve("log_snr", sde, top, end, self.descent))
        return torch.cat(path)

    def init(self, process: Process, x: Tensor, start: Node) -> Asking[tuple[object, object]]:
        """The solver's state, and the known part."""
        memory = yield from result_of(self.solver.init(process, x, start))
        return memory, super().init(process, x, start)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: tuple[object, Tensor]) -> Step:
        """See `Solver.step`."""
        memory, known = state
        if stop.lam > start.lam:
            result = yield from result_of(self.solver.step(process, x, start, stop, memory))
            return StepResult(result.x, (result.state, known))
        z = x / expand(start.alpha, x)
        x = expand(stop.alpha, x) * (yield from self._draw(process, z, known, stop.sigma / stop.alpha))
        return StepResult(x, ((yield from result_of(self.solver.init(process, x, stop))), known))

    def _draw(self, process: Process, z: Tensor, known: Tensor, rho: Scalar) -> Asking[Tensor]:
        r"""u given z and y: precision :math:`s^2/\sigma_y^2 + 1/\rho^2` in each direction."""
        values, into, back = self.operator.svd
        s2, own = (values**2).to(z), self.measurement.std**2
        rho2 = expand(rho, z) ** 2
        total = rho2 * s2 + own
        inner = torch.where(
            s2 > 0, rho2 * s2 / torch.where(s2 > 0, total, torch.ones_like(total)), torch.zeros_like(s2)
        )
        spread = (rho2 * (1 - inner)).sqrt()  # rho^2 own / (rho^2 s^2 + own)
        a, b, c = into(z), into(known), into((yield process.normal(z)))
        return back(a + inner * (b - a) + spread * c)
