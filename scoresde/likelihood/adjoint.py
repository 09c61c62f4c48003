r"""Gradients of a solve by the adjoint equation.

With :math:`dy/du = G(y, u; \theta)` and :math:`a = \partial L/\partial y`,

.. math:: \frac{da}{du} = -\Big(\frac{\partial G}{\partial y}\Big)^{\!T} a,\qquad
    \frac{\partial L}{\partial\theta} = \int a^T\frac{\partial G}{\partial\theta}\,du,

solved from the noise end to the data end beside y, which is recomputed on the way: only the ends of the solve are
kept. The gradient is that of the flow, not of the steps that were taken; the two agree up to the tolerance.

References:
    Chen et al. (2018), Neural ordinary differential equations. https://arxiv.org/abs/1806.07366
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..core.errors import InvalidArgumentError, NonFiniteError, ScoreFnError, StepSizeUnderflowError
from ..core.processes.density import LogDensityFlow
from ..core.sdes import Node
from ..core.solution import Solution
from ..core.support.tensors import leaves_of, where
from ..solvers import Solver
from ..solvers.backends.base import Slope

_LOOKED = (0.0, 0.5, 1.0)  # of the way, where parameters are searched for


@dataclass(frozen=True)
class Adjoint:
    """How to differentiate a solve of a `LogDensityFlow`, by torchdiffeq's dopri5, whose steps are those of the batch.

    Args:
        process: the flow, with ``differentiable``.
        solver: the solver, whose coordinate is used.
        start, end: the ends of the solve, with Python floats.
        rtol, atol: tolerances of y and of its gradient.
    """

    process: LogDensityFlow
    solver: Solver
    start: Node
    end: Node
    rtol: float
    atol: float

    def __post_init__(self) -> None:
        if any(isinstance(value, Tensor) for node in (self.start, self.end) for value in node):
            raise InvalidArgumentError('`differentiable`="adjoint" gives no gradient of a learned schedule.')

    def __call__(self, z: Tensor, solution: Solution) -> Solution:
        """The solution with a gradient, with respect to its beginning z and the leaves of the score function."""
        leaves: dict[int, Tensor] = {}
        slope, ends = self.slope(z), self.ends
        with torch.enable_grad():
            for share in _LOOKED:
                state = (z.detach() / float(self.solver.coordinate.scale(self.start))).requires_grad_(True)
                out = slope(ends[0] + share * (ends[1] - ends[0]), state)
                leaves |= {id(leaf): leaf for leaf in leaves_of(out) if leaf is not state}
        x = _Solved.apply(self, solution.success, z, solution.x, *leaves.values())
        return replace(solution, x=x)

    @property
    def ends(self) -> tuple[float, float]:
        """The clock's values at the ends."""
        first, last = (float(self.solver.coordinate.clock(node)) for node in (self.start, self.end))
        return first, last

    def slope(self, z: Tensor) -> Slope:
        """G; its evaluations are not counted."""
        every = torch.arange(len(z), device=z.device)
        return Slope(self.solver, self.process.take(every), z, self.start, self.end)  # type: ignore[arg-type]

    def back(self, last: Tensor, slope_there: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """The gradients in z at the start and in the leaves, given the state at the end and the gradient there."""
        from torchdiffeq import odeint

        (first, stop), known = self.ends, {id(leaf) for leaf in leaves}
        scales = [float(self.solver.coordinate.scale(node)) for node in (self.start, self.end)]
        slope = self.slope(last)

        def rate(s: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                y = state[0].detach().requires_grad_(True)
                out = slope(stop - float(s) * (stop - first), y)
                if any(id(leaf) not in known for leaf in leaves_of(out) if leaf is not y):
                    raise ScoreFnError(
                        f"The score function uses parameters at t={slope.t:.3g} that it does not use at the ends or "
                        'half-way; take differentiable="checkpoint".'
                    )
                got = torch.autograd.grad(out, (y, *leaves), state[1], allow_unused=True, retain_graph=True)
            parts = [torch.zeros_like(v) if g is None else g for g, v in zip(got, (y, *leaves), strict=True)]
            rates = (-out.detach(), parts[0], *([_flat(parts[1:])] if leaves else []))
            return tuple((stop - first) * value for value in rates)

        begin = (last / scales[1], slope_there * scales[1], *([torch.zeros_like(_flat(leaves))] if leaves else []))
        times = torch.tensor([0.0, 1.0], dtype=torch.float64, device=last.device)
        options = {"step_t": times[1:], "first_step": 0.01}  # no step leads beyond the end
        try:
            found = odeint(rate, begin, times, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)
        except AssertionError as error:
            raise StepSizeUnderflowError(
                f'The adjoint equation ended at t={slope.t:.6g} ({error}); take differentiable="checkpoint".'
            ) from error
        ends = [part[-1] for part in found]
        if not all(bool(part.isfinite().all()) for part in ends):
            raise NonFiniteError("The adjoint equation became NaN or infinite.", stage="score")
        sizes = [leaf.numel() for leaf in leaves]
        parts = ends[2].split(sizes) if leaves else ()
        return ends[1] / scales[0], [p.reshape(leaf.shape).to(leaf) for p, leaf in zip(parts, leaves, strict=True)]


class _Solved(torch.autograd.Function):
    """The end of a solve, with the gradient of `Adjoint.back`. Samples that failed have none."""

    @staticmethod
    def forward(ctx: Any, adjoint: Adjoint, good: Tensor, z: Tensor, last: Tensor, *leaves: Tensor) -> Tensor:
        ctx.adjoint, ctx.leaves = adjoint, leaves
        ctx.save_for_backward(good.to(z.device), z, last)
        return last.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        good, z, last = ctx.saved_tensors
        start, given = where(good, last, z), where(good, slope, torch.zeros_like(slope))
        first, parts = ctx.adjoint.back(start, given, ctx.leaves)
        return None, None, where(good, first, torch.zeros_like(first)), None, *parts


def _flat(parts: Any) -> Tensor:
    """Side by side, float64."""
    return torch.cat([part.detach().flatten().to(torch.float64) for part in parts])
