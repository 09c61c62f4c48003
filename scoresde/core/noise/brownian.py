"""A Brownian path with consistent increments over any intervals."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..support.checks import check_below
from ..support.declared import Number, called, checked, integer
from ..support.tensors import Scalar, absolute, expand
from .philox import fold, halves, normals, table
from .sources import Noise, check_count, check_seeds

_KEPT = 64
_PLACES, _EXTRA = 2**64, 2**65  # counters of places between dyadic points, and of no interval; from 0, dyadic points


class _Variance:
    """What a clock shows at places of the tree, each read once for the paths of all samples.

    It is callable, and thus no part of a saved state: it is read again.
    """

    def __init__(self, clock: Callable[[Tensor], Tensor] | None, t0: float, cell: float) -> None:
        self.clock, self.t0, self.cell = clock, t0, cell
        self.known: dict[float, float] = {}

    def __call__(self, place: float) -> float:
        if place not in self.known:
            self.read([place])
        return self.known[place]

    def read(self, places: Iterable[float]) -> None:
        """Read the clock at places, all at once."""
        new = [place for place in dict.fromkeys(places) if place not in self.known]
        shown = [self.t0 + place * self.cell for place in new]
        if new and self.clock is not None:
            shown = self.clock(torch.tensor(shown, dtype=torch.float64)).detach().tolist()
        self.known.update(zip(new, shown, strict=True))


class BrownianPath(Noise):
    r"""One Brownian path per sample, on an interval of time, with consistent increments.

    The path is fixed by the seeds alone. Its values at the dyadic points of the interval come from a tree of Brownian
    bridges, each drawn from a counter of its own, so it does not matter in which order, how often, or with which grid
    they are requested: solves with more steps see the same path in finer detail, and a step that is rejected and tried
    again sees the same path. Between neighbouring dyadic points values are drawn by bridges from the known values of
    the path there, and kept: they are consistent with everything drawn before.

    In a solve, `increment` gives :math:`(W_t - W_s)/\sqrt{|t-s|}`, which methods take for their draws. Times may be
    those of the samples, ``(batch,)``: each sample then has its own path, and its increments depend on its own requests
    only.

    With ``areas`` the tree holds the integral of the path too, in bridges of both, so that `increment_and_mean` (what
    methods of strong order 1.5 draw) is consistent in the same way; the path is another one than without.

    With a clock v it is the path :math:`W(v(t))`, with increments of the variance :math:`|v_t-v_s|`, from the same
    draws.

    Values between dyadic points are kept, so that memory grows with the number of different times requested.

    Args:
        seeds: one seed per sample, or one for the batch.
        t0, t1: the ends of the interval, such as ``sde.t_min, sde.t_max``.
        depth: the interval has :math:`2^{depth}` dyadic cells; on a finer grid the path depends on the order of the
            queries.
        areas: also keep the integral of the path, which takes twice the draws and float64.
        clock: the variance v as a function of times ``(n,)`` float64, rising or falling; None is the time itself.

    Shapes:
        like: ``(batch, *event)``; with one seed the batch is drawn as a whole.

    Example:
        >>> path = BrownianPath([1, 2], 0.0, 1.0)
        >>> like = torch.zeros(2, 3, dtype=torch.float64)
        >>> whole = path.between(0.25, 0.75, like)
        >>> parts = path.between(0.25, 0.4, like) + path.between(0.4, 0.75, like)
        >>> bool((whole - parts).abs().max() < 1e-15)
        True

    References:
        Li et al. (2020), Scalable Gradients for Stochastic Differential Equations, section 4 (the virtual tree).
        https://arxiv.org/abs/2001.01328
    """

    @checked
    def __init__(
        self,
        seeds: int | Sequence[int] | Tensor,
        t0: Number,
        t1: Number,
        *,
        depth: Annotated[int, integer(low=0, high=30)] = 5,
        areas: bool = False,
        clock: Annotated[Callable[[Tensor], Tensor], called("clock(times)")] | None = None,
    ) -> None:
        check_below("t0", t0, "t1", t1)
        self.t0, self.t1, self.depth = t0, t1, depth
        if areas and clock is not None:
            raise InvalidArgumentError("`areas` need a path in time itself; leave `clock` out.")
        self.areas = areas
        self._batched = not isinstance(seeds, Sequence | Tensor | np.ndarray) or not getattr(seeds, "ndim", 1)
        given = (seeds,) if self._batched else seeds
        self.seeds = list(check_seeds(given))
        self._keys = [table([fold(seed, purpose) for seed in self.seeds]) for purpose in range(3)]
        self._tree: OrderedDict[int, Tensor] = OrderedDict()  # the dyadic values used last, by their index
        self._cells: dict[int, list[tuple[float, Tensor]]] = {}  # other values, by the cell they are in, sorted
        self._ready: dict[int, Tensor] = {}  # draws that are made, and about to be used
        self._extra = 0  # draws that belong to no interval
        self._rows: list[BrownianPath] = []  # the paths of the samples, once they need times of their own
        self.clock = clock
        self._variance = _Variance(clock, self.t0, (self.t1 - self.t0) / 2**self.depth)
        self._kind: tuple[torch.Size, torch.dtype] | None = None  # of the states

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, like: Tensor) -> Tensor:
        """A draw that belongs to no interval: the prior's, a corrector's, the second of a method with an area."""
        self._check_count(like)
        self._extra += 1
        draw = self._draw(_EXTRA + self._extra, like)
        return (draw[..., 0] if self.areas else draw).to(like)

    def begin(self) -> Noise:
        """The path from its first draw: what belongs to no interval is counted within a solve."""
        self._extra = 0
        return self

    def increment_and_mean(self, start: Scalar, stop: Scalar, like: Tensor) -> tuple[Tensor, Tensor]:
        """See `Noise.increment_and_mean`."""
        if not self.areas:
            raise InvalidArgumentError(
                "This method draws the mean of the path over a step, too; pass BrownianPath(..., areas=True)."
            )
        if any(isinstance(t, Tensor) and t.ndim for t in (start, stop)):
            raise InvalidArgumentError(
                "Means are available for the steps of a fixed grid only, with one time for the batch."
            )
        first, last = self._at(start, like), self._at(stop, like)
        (w, integral), length = (last - first).unbind(-1), float(stop - start)
        z, mean = (v / math.sqrt(abs(length)) for v in (w, integral / length - first[..., 0]))
        return z.to(like), mean.to(like)

    def increment(self, start: Scalar, stop: Scalar, like: Tensor) -> Tensor:
        """See `Noise.increment`."""
        if any(isinstance(t, Tensor) and t.ndim for t in (start, stop)):
            self._check_rows(like)
            ends = [torch.as_tensor(t, dtype=torch.float64).detach().cpu().expand(len(like)) for t in (start, stop)]
            length = (ends[1] - ends[0] if self.clock is None else self.clock(ends[1]) - self.clock(ends[0])).abs()
            scale = torch.where(length > 0, length, 1.0).rsqrt()  # a step that has no length gets zeros
            return self._moved(ends[0], ends[1], like).mul_(expand(scale, like.to("cpu", torch.float64))).to(like)
        if start == stop:
            return self.normal(like)
        whole = absolute(self._clock(stop) - self._clock(start))
        return self._moved(start, stop, like).div_(math.sqrt(whole)).to(like)

    def between(self, start: Scalar, stop: Scalar, like: Tensor) -> Tensor:
        """:math:`W_{stop} - W_{start}`, shaped like ``like``."""
        return self._moved(start, stop, like).to(like)

    def _moved(self, start: Scalar, stop: Scalar, like: Tensor) -> Tensor:
        moved = self._at(stop, like) - self._at(start, like)
        return moved[..., 0] if self.areas else moved

    def value(self, t: Scalar, like: Tensor) -> Tensor:
        """:math:`W_t`, shaped like ``like``, on the CPU: 0 at the end where the clock shows least, which is
        :math:`t_0` without one; t may be ``(batch,)``."""
        value = self._at(t, like)
        return (value[..., 0] if self.areas else value).to(like.dtype)

    def _at(self, t: Scalar, like: Tensor) -> Tensor:
        """The value, and with areas the integral since t0 beside it, float64 ``(..., 2)``."""
        if self._rows or (isinstance(t, Tensor) and t.ndim):
            return self._of_rows(t, like)
        if not self.t0 <= t <= self.t1:
            raise InvalidArgumentError(f"The path is on [{self.t0}, {self.t1}], got t={t}.")
        self._check(like)
        place, cell = self._place(t)
        if place in (cell, cell + 1):
            return self._dyadic(round(place), like)
        known = self._cells.setdefault(cell, [])
        for other, value in known:
            if other == place:
                return value
        left = max([(p, v) for p, v in known if p < place], default=None, key=lambda pair: pair[0])
        right = min([(p, v) for p, v in known if p > place], default=None, key=lambda pair: pair[0])
        low = left or (float(cell), self._dyadic(cell, like))
        high = right or (float(cell + 1), self._dyadic(cell + 1, like))
        # The counter of a value between dyadic points is made of its place, so the first query in a cell decides.
        value = self._bridge(low, high, place, self._hashed(place), like)
        known.append((place, value))
        return value

    def _place(self, t: Scalar) -> tuple[float, int]:
        """A time in units of the dyadic cells, and the cell that it is in."""
        place = float(t - self.t0) / (self.t1 - self.t0) * 2**self.depth
        return place, min(int(place), 2**self.depth - 1)

    def _hashed(self, place: float) -> int:
        """A counter beyond the tree's for a place between dyadic points."""
        return _PLACES + int(np.float64(place).view(np.uint64))

    def on(self, clock: Callable[[Tensor], Tensor]) -> BrownianPath:
        """A path on another clock, from the same seeds; nothing is known of it."""
        if self.areas:
            raise InvalidArgumentError("A path with areas is a path in time itself; this method needs areas=False.")
        for name, t in (("t0", self.t0), ("t1", self.t1)):
            if not math.isfinite(float(clock(torch.tensor(t, dtype=torch.float64)).detach())):
                raise InvalidArgumentError(
                    f"`{name}`={t:g}: the clock of this method's noise is infinite there; make the path for the times "
                    f"of the solve, BrownianPath(seeds, t_end, t_start)."
                )
        part = BrownianPath(self.seeds, self.t0, self.t1, depth=self.depth, clock=clock)
        part._batched, part._extra = self._batched, self._extra
        return part

    def take(self, rows: Tensor) -> Noise:
        """See `Noise.take`."""
        if self._batched:
            raise InvalidArgumentError(
                "A path with one seed for the batch cannot leave samples out; give one per sample."
            )
        keep = rows.cpu()
        seeds = [self.seeds[i] for i in keep.tolist()]
        part = BrownianPath(seeds, self.t0, self.t1, depth=self.depth, areas=self.areas, clock=self.clock)
        part._tree = OrderedDict((k, v[keep]) for k, v in self._tree.items())
        part._cells = {k: [(p, v[keep]) for p, v in cell] for k, cell in self._cells.items()}
        part._variance = self._variance
        part._extra = self._extra
        part._rows = [self._rows[i] for i in keep.tolist()] if self._rows else []
        return part

    def _make_room(self, content: Mapping[str, Any]) -> None:
        """Make the paths that a saved state is to be read into."""
        if content["_rows"]:
            self._part()

    def _part(self) -> None:
        """Make a path for each sample, unless they are there."""
        if not self._rows:
            self._rows = [self.take(torch.tensor([i])) for i in range(len(self))]  # type: ignore[misc]

    def _of_rows(self, t: Scalar, like: Tensor) -> Tensor:
        """The value at a time of each sample, from paths of their own that begin with what is known."""
        self._check_rows(like)
        self._part()
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(self)).tolist()
        wanted = [pair for path, time in zip(self._rows, times, strict=True) for pair in path._wanted(time)]
        drawn = _drawn(wanted, math.prod(self._event(like))) if wanted else torch.zeros(0)
        for (path, counter), z in zip(wanted, drawn, strict=True):
            path._ready[counter] = z
        if self.clock is not None:
            self._variance.read(self._place(time)[0] for time in times if self.t0 <= time <= self.t1)
        values = [path._at(time, like[:1]) for path, time in zip(self._rows, times, strict=True)]
        return torch.cat(values) if values else torch.zeros(like.shape + (2,) * self.areas, dtype=self._dtype(like))

    def _clock(self, t: Scalar) -> Scalar:
        return t if self.clock is None else float(self.clock(torch.tensor([t], dtype=torch.float64)).detach())

    @property
    def _least(self) -> int:
        """The dyadic point where the clock shows least, and the path is 0."""
        top = 2**self.depth
        return 0 if self._variance(0) <= self._variance(top) else top

    def _check_rows(self, like: Tensor) -> None:
        self._check(like)
        if self._batched:
            raise InvalidArgumentError(
                "A path with one seed for the batch has no times per sample; give one per sample."
            )

    def _check_count(self, like: Tensor) -> None:
        if not self._batched:
            check_count(len(self), len(like))

    def _check(self, like: Tensor) -> None:
        self._check_count(like)
        kind = (like.shape if self._batched else like.shape[1:], like.dtype)
        if self._kind not in (None, kind):
            raise InvalidArgumentError(f"The path is in {self._kind}, got {kind}.")
        self._kind = kind

    def _dyadic(self, index: int, like: Tensor) -> Tensor:
        """The value at a dyadic point: the bridge between its parents in the tree."""
        if index in self._tree:
            self._tree.move_to_end(index)
            return self._tree[index]
        top = 2**self.depth
        if index == self._least:
            value = torch.zeros(like.shape + (2,) * self.areas, dtype=self._dtype(like))
        elif index in (0, top):
            value = self._draw(0, like) * math.sqrt(abs(self._variance(top) - self._variance(0)))
            if self.areas:  # the integral over a length L, given W: N(L W / 2, L^3 / 12)
                value[..., 1] = (self.t1 - self.t0) * (0.5 * value[..., 0] + 12**-0.5 * value[..., 1])
        else:
            step = index & -index  # the largest power of two that divides it
            ends = [(float(i), self._dyadic(i, like)) for i in (index - step, index + step)]
            value = self._bridge(ends[0], ends[1], float(index), index, like)
        self._tree[index] = value
        if len(self._tree) > _KEPT:  # it can be made again
            self._tree.popitem(last=False)
        return value

    def _bridge(
        self, low: tuple[float, Tensor], high: tuple[float, Tensor], place: float, counter: int, like: Tensor
    ) -> Tensor:
        """A point of the path between two known ones."""
        before, after = (abs(self._variance(place) - self._variance(end)) for end in (low[0], high[0]))
        whole = before + after
        share, rest = (before / whole, after / whole) if whole else (0.5, 0.5)  # neither as 1 less the other
        draw = self._draw(counter, like)
        if self.areas:
            return _joint_bridge(low[1], high[1], share, whole, draw)
        return (rest * low[1]).add_(high[1], alpha=share).add_(draw, alpha=math.sqrt(share * after))

    def _event(self, like: Tensor) -> tuple[int, ...]:
        """The shape of a draw for one seed; with areas it has two numbers for each element."""
        return tuple(like.shape if self._batched else like.shape[1:]) + (2,) * self.areas

    def _draw(self, counter: int, like: Tensor) -> Tensor:
        """Standard normal numbers that depend on the seed and the counter only."""
        event = self._event(like)
        z = self._ready.pop(counter) if counter in self._ready else _drawn([(self, counter)], math.prod(event))
        return z.reshape(event if self._batched else (len(self), *event)).to(self._dtype(like))

    def _wanted(self, t: float) -> list[tuple[BrownianPath, int]]:
        """The draws that the value at a time will take, each once."""
        return [(self, counter) for counter in dict.fromkeys(self._missing(t))] if self.t0 <= t <= self.t1 else []

    def _missing(self, t: float) -> list[int]:
        place, cell = self._place(t)
        if place in (cell, cell + 1):
            return self._missing_dyadic(round(place))
        known = [other for other, _ in self._cells.get(cell, [])]
        if place in known:
            return []
        before = [] if any(other < place for other in known) else self._missing_dyadic(cell)
        after = [] if any(other > place for other in known) else self._missing_dyadic(cell + 1)
        return [*before, *after, self._hashed(place)]

    def _missing_dyadic(self, index: int) -> list[int]:
        if index in self._tree or index == self._least:
            return []
        if index in (0, 2**self.depth):
            return [0]
        step = index & -index
        return [*self._missing_dyadic(index - step), *self._missing_dyadic(index + step), index]

    def _dtype(self, like: Tensor) -> torch.dtype:
        """The dtype of the path's values: float64 where its differences are far smaller than they are."""
        return like.dtype if self.clock is None and not self.areas else torch.float64


def _drawn(pairs: Sequence[tuple[BrownianPath, int]], size: int) -> Tensor:
    """The draws of paths and counters, ``(seeds of all paths, size)``: at once, which is far faster than one by one."""
    keys = torch.cat([path._keys[counter // _PLACES] for path, counter in pairs])
    words = torch.tensor([halves(counter % _PLACES) for path, counter in pairs for _ in path.seeds]).reshape(-1, 2)
    number, rest = words.unbind(1)
    return normals(keys, torch.stack([rest, torch.zeros_like(rest)], 1), number[:, None], size)[:, 0]


def _joint_bridge(low: Tensor, high: Tensor, p: float, length: float, z: Tensor) -> Tensor:
    r"""A path and its integral, ``(..., 2)``, at the fraction p of an interval whose ends are known.

    With W and J the differences from the lower end, J less :math:`W_{low}` times the time, in units of the length L = 1
    and q = 1 - p: the mean is :math:`(p(3p-2)W + 6pqJ,\ -p^2q\,W + p^2(3-2p)J)`, the covariance :math:`pq(1-3pq)`,
    :math:`\tfrac12p^2q^2(q-p)`, :math:`\tfrac13p^3q^3`.
    """
    q, root = 1 - p, math.sqrt(length)
    w_low = low[..., 0]
    w = (high[..., 0] - w_low) / root
    j = ((high[..., 1] - low[..., 1]) / length - w_low) / root
    left = 1 - 3 * p * q  # at least a quarter
    deviation = math.sqrt(p * q * left)
    shared = 0.5 * (p * q) ** 2 * (q - p) / deviation if deviation else 0.0
    own = math.sqrt((p * q) ** 3 / (12 * left))
    at = root * (p * (3 * p - 2) * w + 6 * p * q * j + deviation * z[..., 0])
    area = root * (p * p * (3 - 2 * p) * j - p * p * q * w + shared * z[..., 0] + own * z[..., 1])
    return torch.stack([w_low + at, low[..., 1] + length * (p * w_low + area)], dim=-1)
