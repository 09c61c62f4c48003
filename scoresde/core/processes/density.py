r"""The flow with its log-density.

Along the probability flow :math:`\frac{d}{dt}\ln|\partial x_t/\partial x_0|` is the divergence of the drift. In a
coordinate, :math:`y = x/S` on a clock u, :math:`dy/du = G`, the linear part of it has vanished:

.. math:: \ln\Big|\frac{\partial x_T}{\partial x_0}\Big| = D\ln\frac{S_T}{S_0} + \int S\,\nabla_x\!\cdot G\,du.

The state holds x, flattened, and one integral for each path of the divergence, as numbers that the solver steps like x:
times S, and times a weight that makes an error of D times the tolerance in an integral as large as one of the tolerance
in x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from ..errors import InvalidArgumentError, ScoreFnError
from ..support.tensors import Scalar, expand
from .base import Coordinate, Node, Process, ReverseProcess
from .divergence import Backward, Divergence, dot
from .divergence.control import Control
from .requests import Computation, Request

_STRICT = 4.0  # integrals are larger than states, and their tolerance, which is relative, with them


@dataclass(frozen=True)
class LogDensityFlow(Process):
    """The probability flow with its log-density; see the module.

    Args:
        flow: the probability flow of the states.
        divergence: made for the batch.
        event_shape, dtype: of the states.
        control: a known field, whose Jacobian is subtracted before the divergence is estimated, and whose trace is
            added.
        backward: makes the products.
        differentiable: keep the graph of the divergence.
        checkpoint: of that graph, keep what goes into a slope, and make the slope again on the way back.
    """

    flow: ReverseProcess = field(kw_only=True)
    divergence: Divergence = field(kw_only=True)
    event_shape: tuple[int, ...] = field(kw_only=True)
    dtype: torch.dtype = field(kw_only=True)
    control: Control | None = field(default=None, kw_only=True)
    backward: Backward = field(default_factory=Backward, kw_only=True)
    differentiable: bool = field(default=False, kw_only=True)
    checkpoint: bool = field(default=False, kw_only=True)

    @property
    def size(self) -> int:
        """D, the number of elements of an event."""
        return math.prod(self.event_shape)

    @property
    def weight(self) -> float:
        """The weight of an integral."""
        paths = self.divergence.paths
        return _STRICT * math.sqrt((self.size + paths) / paths) / self.size

    def pack(self, x: Tensor) -> Tensor:
        """The state at the start, float64 ``(batch, D + paths)``."""
        flat = x.flatten(1).to(torch.float64)
        return torch.cat([flat, flat.new_zeros((len(x), self.divergence.paths))], dim=1)

    def unpack(self, z: Tensor) -> Tensor:
        """The states x of z."""
        return z[:, : self.size].reshape(len(z), *self.event_shape)

    def integrals(self, z: Tensor, scale: Scalar) -> Tensor:
        """The integrals in z, ``(batch, paths)``, given S."""
        return z[:, self.size :] / (self.weight * scale)

    def drift(self, x: Tensor, node: Node) -> Request:
        raise InvalidArgumentError("The log-density is stepped in a coordinate; take method='adams' or 'rk45'.")

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        return 0.0

    def linear_slope(self, coordinate: Coordinate, x: Tensor, node: Node) -> Request:
        """See `Process.linear_slope`."""
        return Computation(lambda: self._kept(coordinate, x, node))

    def _kept(self, coordinate: Coordinate, x: Tensor, node: Node) -> Tensor:
        """The slope, of whose graph a ``checkpoint`` keeps little."""
        if not self.checkpoint:
            return self._slope(coordinate, x, node)
        calls = self.network.calls
        if not self.backward.tried:  # or the way back would not try in vain what was tried here
            self._slope(coordinate, x.detach(), node)
        try:
            out: Tensor = recompute(self._slope, coordinate, x, node, use_reentrant=False, preserve_rng_state=False)
        except RuntimeError as error:
            if "saved tensor" not in str(error):
                raise
            raise ScoreFnError(
                "The score function differentiates by torch.func, which torch cannot evaluate again for a gradient; "
                "take differentiable=True."
            ) from error
        self.network.calls = calls + 1  # the second derivative recomputes the evaluation at once
        return out

    def _slope(self, coordinate: Coordinate, x: Tensor, node: Node) -> Tensor:
        given = self.unpack(x)
        with torch.enable_grad():
            state = given.to(self.dtype)
            state = state if self.differentiable and state.requires_grad else state.detach().requires_grad_(True)
            field_ = self.flow.answer(self.flow.slope(coordinate, state, node))
            known = state if self.differentiable else state.detach()

            def product(v: Tensor) -> Tensor:
                out = self.backward(field_, state, v, self.differentiable)
                if self.control is None:
                    return out
                return out - self.control.product(self.flow.sde, coordinate, known, node, v)  # type: ignore[arg-type]

            traces = self.divergence(product)
            if self.control is not None:
                exact = self.control.trace(self.flow.sde, coordinate, known, node)  # type: ignore[arg-type]
                traces = traces + exact[:, None]
        if not self.differentiable:
            field_, traces = field_.detach(), traces.detach()
        scale = expand(coordinate.scale(node), x)
        return torch.cat([field_.flatten(1).to(torch.float64), self.weight * scale * traces], dim=1)

    def take(self, rows: Tensor) -> LogDensityFlow:
        """See `Process.take`."""
        taken: Any = super().take(rows)
        return replace(taken, flow=replace(self.flow, network=taken.network), divergence=self.divergence.take(rows))


def sample_of(process: LogDensityFlow, x: Tensor, count: int = 8) -> tuple[Tensor, ReverseProcess]:
    """The first few samples, and the flow of them; all of them, unless the score function declares ``rowwise``."""
    alone = process.network.traits.rowwise
    rows = torch.arange(min(len(x), count) if alone else len(x), device=x.device)
    return rows, replace(process.flow, network=process.network.take(rows))


class Examined(NamedTuple):
    """Properties of a score function: how far vector-Jacobian products are from differences (0, or 1 where autograd
    does not see it), what part of a sample's gradient belongs to others, and how far a second evaluation at the same
    place is from the first, in units of its RMS."""

    mismatch: float
    coupled: float
    moved: float


def examine(
    flow: ReverseProcess,
    x: Tensor,
    node: Node,
    backward: Backward | None = None,
    differentiable: bool = False,
    *,
    levels: int = 1,
    seed: int = 0,
    step: float | None = None,
) -> list[Examined]:
    """Evaluate the noise estimate near some states, along a direction of its own of about every other one; rows that
    are not finite, or so large that a step is lost in them, count for nothing.

    Args:
        flow, x, node: the states and their levels of noise.
        backward, differentiable: how products are made.
        levels: the number of equal parts of the batch that are reported separately.
        seed: of the directions, which no pattern of a network should be orthogonal to.
        step: of the differences, in units of sigma; by default by the states' precision.
    """
    size = len(x) // levels
    backward = backward or Backward()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x)
    place = torch.arange(len(x), device=x.device) % size
    asked = (place % 2 == 0) & (place != 2)  # a coupling of every other sample would be hidden without a gap
    v = expand(asked.to(x) / direction.flatten(1).square().mean(1).sqrt(), x) * direction
    sigma = torch.as_tensor(node.sigma).to(x).expand(len(x))  # products times sigma are of order 1 in any units of x
    share = (1e-3 if x.dtype == torch.float64 else 3e-2) if step is None else step
    ahead, behind, here = (x + sign * share * expand(sigma, x) * v for sign in (1, -1, 0))
    with torch.no_grad():
        ahead, behind, here = (flow.network.estimate(state, node).noise for state in (ahead, behind, here))
    seen = dot(v, ahead - behind) / (2 * share)
    with torch.enable_grad():
        state = x.clone().requires_grad_(True)
        noise = flow.network.estimate(state, node).noise
        out = backward(noise, state, torch.stack([v, v], 1), differentiable)[:, 0].detach()
    told = sigma * dot(v, out)
    lost = x.flatten(1).abs().amax(1) * torch.finfo(x.dtype).eps > 1e-2 * share * sigma
    fine = asked & torch.isfinite(seen) & torch.isfinite(told) & ~lost
    reached = dot(out, out).nan_to_num(0.0).sqrt()
    change, values = (n.detach().nan_to_num(0.0, 0.0, 0.0) for n in (here - noise, here))

    def part(rows: slice) -> Examined:
        good = fine[rows]
        a, b, r, own = seen[rows][good], told[rows][good], reached[rows], asked[rows]
        top = float(torch.maximum(a.abs(), b.abs()).square().sum().sqrt())
        off = float((a - b).square().sum().sqrt())
        most = float(r[own].max())
        others = float(r[~own].max()) / most if size > 1 and most > 0 else 0.0
        moved = float(change[rows].abs().max()) / (float(values[rows].square().mean().sqrt()) or 1.0)
        return Examined(off / top if top > 1e-6 else 0.0, others, moved)

    return [part(slice(i * size, (i + 1) * size)) for i in range(levels)]
