"""The protocol of trace estimates, and the vector-Jacobian products that they are made of.
Estimates import from here what their signatures name."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...errors import InvalidArgumentError
from ...support.tensors import row_norms, row_sums, take
from .probes import Probe

Product = Callable[[Tensor], Tensor]  # v^T J of several v per sample, (batch, k, *event), shaped like v
Normal = Callable[[Tensor], Tensor]  # a standard normal draw, like a tensor

AT_ONCE = 2**16  # numbers in the vectors that are multiplied at once, by default


@dataclass(frozen=True)
class Divergence(abc.ABC):
    """An estimate of a trace from vector-Jacobian products.

    Args:
        probes: ``(batch, m, *event)``.
        chunk: products made at once; None for as many as fit `AT_ONCE`.
        share: the variance of the mean of the paths, in units of the expected variance among them; None where it is
            unknown.
    """

    probes: Tensor
    chunk: int | None = field(default=None, kw_only=True)
    share: float | None = field(default=None, kw_only=True)

    @classmethod
    @abc.abstractmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> Divergence:
        """An estimate from ``count`` products for states ``(batch, *event)``.

        Raises:
            InvalidArgumentError: it cannot use this number of products.
        """

    @property
    def paths(self) -> int:
        """The number of estimates that are kept apart, one per probe; their mean is the divergence."""
        return self.probes.shape[1]

    @property
    def products(self) -> int:
        """Vector-Jacobian products per evaluation, one per path."""
        return self.paths

    @abc.abstractmethod
    def __call__(self, product: Product) -> Tensor:
        """The estimates ``(batch, paths)``, float64."""

    def std_error(self, paths: Tensor) -> Tensor:
        """The standard error of the mean of paths ``(batch, paths)``; NaN for a single one, which has no spread, and 0
        where ``share`` is 0: the mean is the trace."""
        if self.share == 0.0:
            return torch.zeros_like(paths[:, 0])
        count = paths.shape[1]
        if count < 2 or not len(paths):
            return torch.full_like(paths[:, 0], torch.nan)
        away = paths - (row_sums(paths) / count)[:, None]
        return row_norms(away) * math.sqrt((1 / count if self.share is None else self.share) / (count - 1))

    def take(self, rows: Tensor) -> Divergence:
        """The same estimate for some samples of the batch."""
        return replace(self, probes=take(self.probes, rows))

    @property
    def event(self) -> torch.Size:
        """The shape of an event."""
        return self.probes.shape[2:]

    @property
    def block(self) -> int:
        """Products made at once."""
        if self.chunk is not None:
            return self.chunk
        return max(1, AT_ONCE // max(1, len(self.probes) * self.event.numel()))

    def blocks(self, product: Product, vectors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors ``(batch, k, *event)`` in parts, and their products, flattened and in float64."""
        for part in vectors.split(self.block, dim=1):
            yield part.flatten(2).to(torch.float64), product(part).flatten(2).to(torch.float64)

    def multiply(self, product: Product, vectors: Tensor) -> Tensor:
        """The products with vectors ``(batch, k, D)``, float64."""
        given = vectors.to(self.probes.dtype).reshape(*vectors.shape[:2], *self.event)
        return torch.cat([out for _, out in self.blocks(product, given)], dim=1)


@dataclass
class Backward:
    r"""Products :math:`v^TJ` by reverse differentiation.

    One evaluation keeps its graph for all of them. The backward passes of several v are made at once, as torch can for
    most networks; where it refuses (an autograd function without a rule for batches, a re-entrant checkpoint), they
    are made one after the other from then on.

    Args:
        at_once: whether it has not refused so far.
        tried: whether any product has been made.
    """

    at_once: bool = True
    tried: bool = False

    def __call__(self, out: Tensor, x: Tensor, v: Tensor, differentiable: bool) -> Tensor:
        """The products ``(batch, k, *event)`` of vectors like them."""
        if not out.requires_grad:  # it does not depend on x
            return torch.zeros_like(v)
        self.tried = True
        if self.at_once and v.shape[1] > 1:
            try:
                return self._given(out, x, v.transpose(0, 1), differentiable, True).transpose(0, 1)
            except (RuntimeError, NotImplementedError):
                self.at_once = False
        return torch.stack([self._given(out, x, one, differentiable, False) for one in v.unbind(1)], dim=1)

    @staticmethod
    def _given(out: Tensor, x: Tensor, v: Tensor, differentiable: bool, several: bool) -> Tensor:
        (product,) = torch.autograd.grad(
            out,
            x,
            v.to(out),
            retain_graph=True,
            create_graph=differentiable,
            allow_unused=True,
            is_grads_batched=several,
        )
        return torch.zeros_like(v) if product is None else product


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner products of samples, float64."""
    return (a.flatten(1).to(torch.float64) * b.flatten(1)).sum(1)


def refuse(what: str, count: int) -> InvalidArgumentError:
    """An error of the number of products."""
    return InvalidArgumentError(f"`probes` of {what}, got {count}.")
