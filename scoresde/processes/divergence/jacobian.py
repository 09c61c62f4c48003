"""Vector-Jacobian products of a network, several at once where autograd can."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
