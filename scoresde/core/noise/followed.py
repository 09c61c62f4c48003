"""Brownian paths of a solve with steps per sample, drawn as the solve goes along."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..support.tensors import Scalar, expand
from .brownian import BrownianPath
from .sources import CallableNoise, Noise

Clock = Callable[[Tensor], Tensor]


class FollowedPath(Noise):
    r"""One Brownian path per sample, drawn as a solve goes along: the part that a rejected step has seen is kept.

    The path is :math:`B(v(t))`, a Brownian motion on a clock v (the time itself by default), so that its increment over
    :math:`[s, t]` is Gaussian with the variance :math:`|v_t - v_s|`. A time beyond all those known takes one draw z,

    .. math:: B_t = B_s + \sqrt{|v_t-v_s|}\,z,

    and one between two known times, as after a rejection, the Brownian bridge between its neighbours,

    .. math::
        B_t = B_s + \frac{v_t-v_s}{v_u-v_s}(B_u-B_s) + \sqrt{\frac{(v_t-v_s)(v_u-v_t)}{v_u-v_s}}\,z.

    By the Markov property that is the distribution of the path given everything that the sample has seen of it,
    rejected steps included: however its steps are chosen, a sample is driven by a Brownian motion.
    With a new draw for every trial it would not be: a step is rejected when its noise is large, and the next draw is
    another one, so that large noise is thrown away.

    Facts:
        `increment` takes one draw of the source per call, whatever becomes of the step; a sample's path depends on its
        own draws and its own times. Times before the step are dropped, so that only the few values ahead are kept.
        The path is one of the source and the queries: with other tolerances it is another one. A `BrownianPath` is the
        same path at all tolerances.

    Args:
        source: the source of the draws.
        clock: the variance v as a function of times ``(n,)`` float64, rising or falling.

    Example:
        >>> from scoresde.core.noise import SampleNoise
        >>> path = FollowedPath(SampleNoise([1, 2]))
        >>> like, start = (
        ...     torch.zeros(2, 3, dtype=torch.float64),
        ...     torch.ones(2, dtype=torch.float64),
        ... )
        >>> whole = path.increment(start, 0.5 * start, like)
        >>> # both rejected, shorter steps
        >>> first = path.increment(start, start * torch.tensor([0.9, 0.7]), like)
        >>> part = torch.tensor([[0.1], [0.3]], dtype=torch.float64)  # of the time
        >>> rest = path.increment(start * torch.tensor([0.9, 0.7]), 0.5 * start, like)
        >>> joined = first * part.sqrt() + rest * (0.5 - part).sqrt()
        >>> bool((joined - whole * 0.5**0.5).abs().max() < 1e-7)
        True

    References:
        Rackauckas, Nie (2017), Adaptive methods for stochastic differential equations via natural embeddings and
        rejection sampling with memory. https://doi.org/10.3934/dcdsb.2017133
    """

    def __init__(self, source: Noise, clock: Clock | None = None) -> None:
        self.source = source
        self.clock = torch.clone if clock is None else clock
        # The known times, NaN where there is none, the clock, and the values: (batch, knots), twice, and (…, *event).
        # The values are on the device of the states, in float64 on the CPU; all others are on the CPU.
        self._t = self._v = self._w = torch.zeros(0)

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        """The same as that of the source."""
        return self.source.whole_batch

    def normal(self, like: Tensor) -> Tensor:
        """A draw of the source, which belongs to no interval."""
        return self.source.normal(like)

    def increment(self, start: Scalar, stop: Scalar, like: Tensor) -> Tensor:
        """See `Noise.increment`; the times may be those of the samples, ``(batch,)``. A step that has no length gets
        zeros."""
        batch = len(like)
        begin, end = (torch.as_tensor(t, dtype=torch.float64, device="cpu").expand(batch) for t in (start, stop))
        z = self.source.normal(like)
        z = z.to(torch.float64) if z.is_cpu else z
        if not batch:
            return z.to(like)
        if not self._t.numel():
            self._t, self._v = begin[:, None].clone(), self.clock(begin)[:, None]
            self._w = torch.zeros_like(z)[:, None]
        passed = (self._t - begin[:, None]) * torch.sign(end - begin)[:, None] < 0
        self._t = torch.where(passed, torch.nan, self._t)
        v, w, known = self._value(end, z)
        begins = self._t == begin[:, None]
        if not bool(begins.any(1).all()):
            raise InvalidArgumentError("A step must begin where a step before it began or ended; take a BrownianPath.")
        here, rows = begins.to(torch.int8).argmax(1), torch.arange(batch)
        moved, length = w - self._w[rows, here], (v - self._v[rows, here]).abs()
        self._keep(end, v, w, known)
        return (moved / expand(torch.where(length > 0, length, 1.0).sqrt(), moved)).to(like)

    def on(self, clock: Clock) -> FollowedPath:
        """A path on another clock, with the draws that follow; nothing is known of it."""
        return type(self)(self.source, clock)

    def take(self, rows: Tensor) -> Noise:
        """See `Noise.take`."""
        part = FollowedPath(self.source.take(rows), self.clock)
        if self._t.numel():
            part._t, part._v, part._w = (v[rows.to(v.device)] for v in (self._t, self._v, self._w))
        return part

    def begin(self) -> Noise:
        """A path of which nothing is known, with the draws that its source begins with."""
        return type(self)(self.source.begin(), self.clock)

    def finish(self, done: Tensor) -> None:
        """See `Noise.finish`."""
        self.source.finish(done)

    def _value(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The clock and the path at a time of each sample, drawn with z where it is not known, and where it is."""
        gap = self._t - t[:, None]  # NaN counts as far away on both sides
        before, after = (torch.where(g >= 0, g, torch.inf).min(1) for g in (gap, -gap))
        rows = torch.arange(len(t), device=t.device)
        v_a, v_b = self._v[rows, before.indices], self._v[rows, after.indices]
        w_a, w_b = self._w[rows, before.indices], self._w[rows, after.indices]
        known = before.values == 0
        v = torch.where(known, v_a, self.clock(t))
        has_a, has_b = torch.isfinite(before.values), torch.isfinite(after.values)
        from_a, from_b, whole = (v - v_a).abs(), (v_b - v).abs(), (v_b - v_a).abs()
        inside = has_a & has_b & (whole > 0)
        share = torch.where(inside, from_a / torch.where(inside, whole, 1.0), torch.where(has_a, 0.0, 1.0))
        variance = torch.where(inside, from_b * share, torch.where(has_a, from_a, from_b))
        new = ~known & (variance > 0)  # roots have no gradient at 0
        spread = torch.where(new, torch.where(new, variance, 1.0).sqrt(), 0.0)
        return v, torch.lerp(w_a, w_b, expand(share, w_a)) + expand(spread, z) * z, known

    def _keep(self, t: Tensor, v: Tensor, w: Tensor, known: Tensor) -> None:
        """Put what is new in a free place of each sample."""
        free = torch.isnan(self._t)
        if not bool((free.any(1) | known).all()):
            self._t = torch.cat([self._t, torch.full_like(t, torch.nan)[:, None]], dim=1)
            self._v, self._w = (torch.cat([a, b[:, None]], dim=1) for a, b in ((self._v, v), (self._w, w)))
            free = torch.isnan(self._t)
        rows, place = (~known).nonzero()[:, 0], free.to(torch.int8).argmax(1)
        place = place[rows]
        self._t, self._v, self._w = self._t.clone(), self._v.clone(), self._w.clone()
        self._t[rows, place], self._v[rows, place], self._w[rows, place] = t[rows], v[rows], w[rows]


def path_on(clock: Clock | None, noise: Noise, method: str) -> Noise:
    """The source for a method that needs a path on a clock: the source itself if it is such a path, a path with the
    same seeds, or one that follows the solve. Without a clock it is the source.

    Example:
        >>> from scoresde.core.noise import SampleNoise
        >>> type(path_on(lambda t: t, SampleNoise([1]), "ggf")).__name__
        'FollowedPath'
    """
    if clock is None:
        return noise
    if isinstance(noise, FollowedPath | BrownianPath):
        return noise.on(clock)
    if isinstance(noise, CallableNoise):
        raise InvalidArgumentError(
            f"method={method!r} chooses its steps by what it has drawn, so that a draw belongs to no step, and a "
            f"function `noise` cannot give the k-th; pass seed, seeds, or noise=BrownianPath(seeds, t_min, t_max)."
        )
    return FollowedPath(noise, clock)
