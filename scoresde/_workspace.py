"""Memory that is used again when nobody holds it any more."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MOST_BUFFERS = 16  # buffers that are known; beyond them the oldest belongs to whoever holds it

# How many tensors and handles share some memory, by its address; None in a torch that does not say it.
_holders: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)


class Buffer:
    """One tensor, which is only handed out as views of it. Every view that Python, autograd, NumPy or a network keeps
    holds its storage; it is free while there is none.

    Args:
        base: the tensor; nobody else may hold it.
    """

    __slots__ = ("_handles", "_plain", "_storage", "_tensors", "_where", "base")

    def __init__(self, base: Tensor) -> None:
        self.base = base
        self._storage = base.untyped_storage()
        self._plain = type(base) is Tensor  # the numbers of another class may be nowhere
        self._where = base.data_ptr() if self._plain else 0
        self._tensors = 0 if _holders is None else _holders(self._storage._cdata)
        self._handles = sys.getrefcount(self._storage)

    @property
    def free(self) -> bool:
        """Whether nobody holds a view of it; sharing it with another process, which moves the memory, counts as
        that."""
        return (
            _holders is not None
            and _holders(self._storage._cdata) == self._tensors
            and sys.getrefcount(self._storage) == self._handles
            and (not self._plain or self.base.data_ptr() == self._where)
        )


class Workspace:
    """The buffers of one solve, shaped like its state. It is only for what no gradient is made of.

    Args:
        like: the state.

    Example:
        >>> workspace = Workspace(torch.zeros(2, 3))
        >>> first = workspace.tensor()
        >>> where = first.data_ptr()
        >>> workspace.tensor().data_ptr() == where  # the first is still held
        False
        >>> del first
        >>> workspace.tensor().data_ptr() == where
        True
    """

    def __init__(self, like: Tensor) -> None:
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.strides = torch.empty_like(like, device="meta").stride()
        self.buffers: list[Buffer] = []

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor is shaped like the state."""
        return x.shape == self.shape and x.dtype is self.dtype and x.device == self.device

    def buffer(self) -> Buffer:
        """A free buffer."""
        for buffer in self.buffers:
            if buffer.free:
                return buffer
        if len(self.buffers) >= MOST_BUFFERS:
            del self.buffers[0]
        self.buffers.append(Buffer(self.empty()))
        return self.buffers[-1]

    def adopt(self, base: Tensor) -> Buffer | None:
        """Make a buffer of a tensor that nobody else reads; None if it has no memory of its own, as those of functional
        transforms have none."""
        try:
            buffer = Buffer(base)
        except (RuntimeError, NotImplementedError):
            return None
        self.buffers.append(buffer)
        return buffer

    def empty(self) -> Tensor:
        """A new tensor like the state."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)

    def tensor(self) -> Tensor:
        """A tensor whose numbers are left over, to be written by the caller."""
        return self.buffer().base.detach()

    def sum(self, combination: Any) -> Tensor:
        """A `Combination` as a tensor."""
        total: Tensor = combination.write(self.tensor())
        return total


class _Here(threading.local):
    workspace: Workspace | None = None


_here = _Here()


def workspace_for(x: Tensor) -> Workspace | None:
    """The workspace of the solve that is under way in this thread, if a tensor like x may come from it."""
    workspace = _here.workspace
    if workspace is None or torch.is_grad_enabled() or not workspace.fits(x):
        return None
    return workspace


def exchange(workspace: Workspace | None) -> Workspace | None:
    """Set the workspace of this thread; returns the one before."""
    before, _here.workspace = _here.workspace, workspace
    return before


@contextmanager
def working_in(workspace: Workspace | None) -> Iterator[None]:
    """Run with a workspace."""
    before = exchange(workspace)
    try:
        yield
    finally:
        exchange(before)
