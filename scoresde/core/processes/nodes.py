"""The nodes of a solve: those of its grid, and those inside its steps."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..sdes import SDE, AffineSDE, Node
from ..sdes.base import check_affine
from ..sdes.span import log_snr_range
from ..support.tensors import Scalar, has_graph, number
from .coordinates import Coordinate


class Nodes:
    """The nodes of one solve. Those of a fixed grid, and those inside its steps, are computed at once before the first
    step, so that a step only looks them up; where steps are chosen on the way, they are computed when needed.

    Args:
        sde: the process of the nodes.

    Example:
        >>> nodes = Nodes(scoresde.VPSDE())
        >>> nodes.set_grid([scoresde.VPSDE().node(t) for t in (1.0, 0.5, 0.1)])
        >>> nodes.steps, nodes.steps_left(nodes.begin)
        (2, 2)
    """

    def __init__(self, sde: SDE) -> None:
        self.sde = sde
        self._inner: dict[tuple[str, Scalar, Scalar, float], Node] = {}
        self._at: dict[Scalar, Node] = {}
        self._left: dict[Scalar, int] = {}
        self._grid: list[Node] = []
        self._times: Tensor | None = None  # of the grid, and its nodes as tensors
        self._table: Node[Tensor] | None = None
        self.rows: dict[Hashable, Any] = {}  # coefficients of steps that a method has computed at once, its own

    def between(self, start: Node, stop: Node, fractions: Sequence[float], coordinate: Coordinate) -> list[Node]:
        """Nodes inside a step, at the given fractions of its way on a clock."""
        if not fractions:
            return []
        if isinstance(start.t, Tensor) and isinstance(stop.t, Tensor):
            column = start.t.new_tensor(fractions).unflatten(0, (-1, *[1] * max(start.t.ndim, stop.t.ndim)))
            clocks = _clock_at(column, start, stop, coordinate)  # (fractions, batch), or (fractions,)
            low, high = torch.minimum(start.t, stop.t), torch.maximum(start.t, stop.t)
            nodes = self.sde.nodes(self.times_at(clocks, coordinate).clamp(low, high).flatten())
            return [Node(*part.unbind()) for part in torch.stack(nodes).unflatten(1, clocks.shape).unbind(1)]
        keys = [(coordinate.name, start.t, stop.t, c) for c in fractions]
        if keys[0] not in self._inner:
            self.prepare_between([start, stop], fractions, coordinate)
        return [self._inner[key] for key in keys]

    def prepare_between(self, nodes: Sequence[Node], fractions: Sequence[float], coordinate: Coordinate) -> None:
        """Compute the inner nodes of a whole grid at once, so that a step only looks them up."""
        keys: list[tuple[str, Scalar, Scalar, float]] = []
        clocks: list[float] = []
        for a, b in itertools.pairwise(nodes):
            if coordinate.lam is None or (math.isfinite(a.lam) and math.isfinite(b.lam)):
                keys += [(coordinate.name, a.t, b.t, c) for c in fractions]
                clocks += [float(_clock_at(c, a, b, coordinate)) for c in fractions]
        times = self.times_at(torch.tensor(clocks, dtype=torch.float64), coordinate)
        self._inner.update(zip(keys, node_list(self.sde, times), strict=True))

    def at(self, lam: Scalar) -> Node[Any]:
        r"""The node with a given :math:`\lambda`, for stages whose place depends on the step; beyond the ends of the
        process the nearest one."""
        if isinstance(lam, Tensor):
            return self.sde.nodes(self._nearest(lam))
        if lam not in self._at:
            self.prepare_at([lam])
        return self._at[lam]

    def prepare_at(self, lams: Sequence[float]) -> None:
        """Compute such nodes for a whole grid at once."""
        finite = [lam for lam in lams if math.isfinite(lam)]
        times = self._nearest(torch.tensor(finite, dtype=torch.float64))
        self._at.update(zip(finite, node_list(self.sde, times), strict=True))

    @functools.cached_property
    def _lams(self) -> tuple[float, float]:
        """Lambda at both ends of the process."""
        low, high = log_snr_range(check_affine(self.sde))
        return 0.5 * low, 0.5 * high

    def _nearest(self, lam: Tensor) -> Tensor:
        """The times with the given lambda, or of the end that is nearest."""
        return self._time_of(lam.clamp(*self._lams)).clamp(self.sde.t_min, self.sde.t_max)

    def times_at(self, clocks: Tensor, coordinate: Coordinate) -> Tensor:
        """The times at which a clock shows the given values."""
        return clocks if coordinate.lam is None else self._time_of(coordinate.lam(clocks))

    def _time_of(self, lam: Tensor) -> Tensor:
        """The times with the given lambda."""
        if not isinstance(self.sde, AffineSDE):
            raise InvalidArgumentError("A clock other than time needs alpha and sigma.")
        return self.sde._time(lam.flatten()).reshape(lam.shape)

    def grid(self, times: Tensor) -> list[Node[Any]]:
        """The nodes of a grid, which is then that of the solve."""
        if times is not self._times or not self._grid:
            self.set_grid(_listed(times, self.columns(times)))
        return self._grid

    def columns(self, times: Tensor) -> Node[Tensor]:
        """The nodes of a grid as tensors."""
        if times is not self._times or self._table is None:
            self._times, self._table = times, self.sde.nodes(times)
            self._grid.clear()
        return self._table

    def set_grid(self, nodes: Sequence[Node]) -> None:
        """Keep the nodes of a grid, and how many steps follow each."""
        self._left.update({number(node.t): len(nodes) - 1 - i for i, node in enumerate(nodes)})
        self._grid[:] = nodes

    def known(self) -> list[Node]:
        """The nodes of the grid, and those that were prepared inside its steps."""
        return [*self._grid, *self._inner.values(), *self._at.values()]

    @functools.cached_property
    def lowest_lam(self) -> float:
        r""":math:`\lambda` at ``t_max``: nothing noisier is evaluated."""
        return float(node_list(self.sde, torch.tensor([self.sde.t_max], dtype=torch.float64))[0].lam)

    @property
    def steps(self) -> int:
        """The steps of the whole grid; 0 where steps are chosen on the way."""
        return max(len(self._grid) - 1, 0)

    @property
    def begin(self) -> Node:
        """The first node of the grid."""
        return self._grid[0]

    @property
    def end(self) -> Node:
        """The last node of the grid."""
        return self._grid[-1]

    def steps_left(self, node: Node) -> int | None:
        """How many steps of the grid follow a node; None where steps are chosen on the way."""
        t = number(node.t)
        return None if isinstance(t, Tensor) else self._left.get(t)


def _clock_at(c: Scalar, start: Node, stop: Node, coordinate: Coordinate) -> Any:
    """What a clock shows at a fraction of a step."""
    u, v = coordinate.clock(start), coordinate.clock(stop)
    return u + c * (v - u)


def node_list(sde: SDE, times: Tensor) -> list[Node[Any]]:
    """The nodes of a grid, computed at once: Python floats, or 0-d tensors where a learned schedule or the grid itself
    (then t, too) has a gradient."""
    return _listed(times, sde.nodes(times))


def _listed(times: Tensor, nodes: Node[Tensor]) -> list[Node[Any]]:
    if has_graph(*nodes):
        clock = times.unbind() if times.requires_grad else times.tolist()
        return [Node(*row) for row in zip(clock, *(v.unbind() for v in nodes[1:]), strict=True)]
    return [Node(*row) for row in zip(times.tolist(), *(v.tolist() for v in nodes[1:]), strict=True)]
