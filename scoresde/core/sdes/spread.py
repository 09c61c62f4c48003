"""The diffusion of a process on a state."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from .base import SDE


class Spread:
    """The diffusion of a process, broadcast against a state.

    A list of numbers is one value per sample if its length follows the batch of the times, and one value per dimension
    if it does not. A batch that is as large as the event does not show which, so the process is called once with times
    of another batch.

    Example:
        >>> class Brownian(scoresde.SDE):
        ...     def drift(self, x, t):
        ...         return 0 * x
        ...
        ...     def diffusion(self, t):
        ...         return torch.tensor([0.5, 2.0])
        >>> sde = Brownian(t_min=0.0, t_max=1.0, prior=scoresde.NormalPrior())
        >>> Spread(sde)(torch.zeros(2, 2), torch.tensor(0.5)).expand(2, 2)
        tensor([[0.5000, 2.0000],
                [0.5000, 2.0000]])
    """

    def __init__(self, sde: SDE) -> None:
        self.sde = sde
        self._per_sample: bool | None = True if sde.affine else None  # unknown before the first call

    def __call__(self, x: Tensor, t: Tensor) -> Any:
        """g(t) for times that are 0-d or ``(batch,)``; a Python number passes through."""
        g = spread = self.sde.diffusion(t)
        if isinstance(g, Real):
            return g
        fits = isinstance(g, Tensor) and not g.dtype.is_complex
        if fits and 0 < g.ndim < x.ndim:
            missing = (1,) * (x.ndim - g.ndim)
            if g.numel() == 1 or self._follows(g, t):
                fits, spread = g.ndim == 1, g.reshape(g.shape + missing)
            else:
                fits, spread = g.ndim > 1 or g.shape == x.shape[1:], g.reshape(missing + g.shape)
        if fits and _broadcasts(spread.shape, x.shape):
            return spread.to(x)
        event, got = tuple(x.shape[1:]), f"{g.dtype} {tuple(g.shape)}" if isinstance(g, Tensor) else type(g).__name__
        raise InvalidArgumentError(
            f"{type(self.sde).__name__}.diffusion must return a real number or tensor that fits the state "
            f"{tuple(x.shape)}: a scalar; one value per sample, (batch,), where the times are (batch,); one value per "
            f"dimension, {event} or {(1, *event)}; or the state's rank, with 1 where values are shared. For times of "
            f"shape {tuple(t.shape)} it returned {got}."
        )

    def _follows(self, g: Tensor, t: Tensor) -> bool:
        """Whether the first axis of g(t) is that of the times."""
        if not t.ndim or not len(t):
            return bool(t.ndim)
        if self._per_sample is None:
            count = len(g) + 1
            try:
                with torch.no_grad():
                    other = self.sde.diffusion(t[:1].expand(count).clone())
            except RuntimeError as error:
                raise InvalidArgumentError(
                    f"{type(self.sde).__name__}.diffusion returned {tuple(g.shape)} for {len(t)} times and failed for "
                    f"{count} ({error}); the times are 0-d or (batch,), so for values per dimension that change with "
                    f"time write t[..., None] * g."
                ) from error
            self._per_sample = isinstance(other, Tensor) and other.shape == (count, *g.shape[1:])
        return self._per_sample


def _broadcasts(shape: torch.Size, onto: torch.Size) -> bool:
    """Whether values of a shape fit a state's without making it larger."""
    pairs = zip(reversed(shape), reversed(onto), strict=False)
    return len(shape) <= len(onto) and all(a in (1, b) for a, b in pairs)
