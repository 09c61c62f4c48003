"""Small helpers for batched tensors. Shapes: states are ``(batch, *event)``, per-sample scalars are ``(batch,)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

# A Python float, or a tensor (batch,) with one value per sample: solvers are written once for both.
Scalar: TypeAlias = float | Tensor
# A NumPy array on the host, or a tensor where it must have a gradient: one or more values per sample.
Array: TypeAlias = np.ndarray | Tensor

FAR = 10.0  # times as far from the middle as the median sample: so far no sample of usual data is
MANY = 0.125  # of the samples: 2 of 16 may be chance

Tree = TypeVar("Tree")  # tensors, arrays, None, and tuples of those
Plain = TypeVar("Plain", bound=float | None)

_LEAVES = (np.ndarray, Tensor)


def version_of(x: Tensor) -> int:
    """How often a tensor was written to; 0 for those of `torch.inference_mode`, which do not count it."""
    return 0 if x.is_inference() else x._version


@overload
def expand(value: Array, like: Tensor) -> Tensor: ...


@overload
def expand(value: float, like: Tensor) -> float: ...


def expand(value: Scalar | Array, like: Tensor) -> Scalar:
    """Make per-sample values ``(batch,)`` broadcast against ``like``, in its dtype and on its device; floats pass
    through.

    Example:
        >>> expand(torch.ones(4, dtype=torch.float64), torch.zeros(4, 2, 3)).shape
        torch.Size([4, 1, 1])
    """
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    elif not isinstance(value, Tensor):
        return value
    if value.dtype != like.dtype or value.device != like.device:
        value = value.to(like)
    missing = like.ndim - value.ndim
    return value.reshape(value.shape + (1,) * missing) if value.ndim and missing else value


@overload
def as_array(value: Tensor | np.ndarray) -> np.ndarray: ...


@overload
def as_array(value: Plain) -> Plain: ...


def as_array(value: Array | float | None) -> np.ndarray | float | None:
    """On the host, without a gradient; what is neither tensor nor array passes through.

    Example:
        >>> as_array(torch.ones(2))
        array([1., 1.], dtype=float32)
    """
    if isinstance(value, np.ndarray) or not isinstance(value, Tensor):
        return value
    return value.numpy(force=value.requires_grad or not value.is_cpu)


def on_host(*values: Tensor) -> list[np.ndarray]:
    """float64 arrays of tensors, without a gradient, with one synchronisation of the device.

    Example:
        >>> on_host(torch.ones(2), torch.zeros(1))
        [array([1., 1.]), array([0.])]
    """
    there = [v.detach() for v in values if not v.is_cpu]
    packed = torch.cat([v.flatten() for v in there]).cpu() if there else torch.zeros(0)
    parts = iter(packed.split([v.numel() for v in there]))
    here = [v if v.is_cpu else next(parts).reshape(v.shape) for v in values]
    return [as_array(v if v.dtype == torch.float64 else v.to(torch.float64)) for v in here]


def constants(*values: Tensor) -> list[Array]:
    """Values of a schedule `on_host`, for arithmetic that is done sooner there; if one of them has a gradient, the
    tensors.

    Example:
        >>> constants(torch.zeros(1), torch.ones(1, requires_grad=True))[0]
        tensor([0.])
    """
    return list(values) if has_graph(*values) else list(on_host(*values))


def has_graph(*values: Scalar) -> bool:
    """Whether a gradient of one of the values is recorded.

    Example:
        >>> has_graph(0.5, torch.zeros(1)), has_graph(torch.zeros(1, requires_grad=True))
        (False, True)
    """
    return torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in values)


def transforming() -> bool:
    """Whether a functional transform of torch, or forward-mode differentiation, is under way: its tensors have no
    memory of their own, and end with it."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def usable(value: Any) -> Any:
    """A tensor that autograd may keep: those made under ``torch.inference_mode`` are cloned."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def leaves_of(out: Tensor) -> Iterator[Tensor]:
    """The leaves with a gradient that a tensor was made of.

    Example:
        >>> w = torch.ones(2, requires_grad=True)
        >>> [leaf is w for leaf in leaves_of((2 * w).sum())]
        [True]
    """
    seen, left = set(), [out.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        left += [following for following, _ in node.next_functions]


def number(value: Scalar) -> Scalar:
    """A 0-d tensor, of a grid with a gradient, as a float; values ``(batch,)`` and floats pass through.

    Example:
        >>> number(torch.tensor(0.5)), number(0.5)
        (0.5, 0.5)
    """
    return value.detach().item() if isinstance(value, Tensor) and not value.ndim else value


def row_times(t: Scalar, x: Tensor) -> Tensor:
    """A time as ``(batch,)`` in the dtype of a state, the callee's to keep.

    Example:
        >>> row_times(0.5, torch.zeros(2, 3))
        tensor([0.5000, 0.5000])
    """
    if isinstance(t, Tensor):
        return t.expand(len(x)).to(device=x.device, dtype=x.dtype, copy=True)
    return x.new_full((len(x),), t)


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to the leaves of trees of equal structure (tensors, arrays, None, and tuples of those).

    Example:
        >>> tree_map(lambda a, b: a + b, (torch.ones(1), None), (torch.ones(1), None))
        (tensor([2.]), None)
    """
    first = trees[0]
    if isinstance(first, _LEAVES):
        return function(*trees)
    if isinstance(first, tuple):
        parts = [tree_map(function, *items) for items in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    return first


def where(mask: Tensor | np.ndarray, new: Tree, old: Tree) -> Tree:
    """Take the rows of ``new`` where ``mask`` is true and those of ``old`` elsewhere, leaf by leaf."""

    def choose(a: Any, b: Any) -> Any:
        if a is b:
            return a
        if isinstance(a, np.ndarray):
            return np.where(as_array(mask).reshape(-1, *(1,) * (a.ndim - 1)), a, b)
        rows = torch.as_tensor(mask, device=a.device)
        return torch.where(rows.reshape(-1, *(1,) * (a.ndim - 1)) if a.ndim > 1 else rows, a, b)

    chosen: Tree = tree_map(choose, new, old)
    return chosen


def take(tree: Tree, rows: Tensor) -> Tree:
    """Keep the given rows of every leaf of a tree."""

    def some(a: Any) -> Any:
        if not a.ndim:
            return a
        return a[as_array(rows) if isinstance(a, np.ndarray) else rows.to(a.device)]

    kept: Tree = tree_map(some, tree)
    return kept


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that states are computed in: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def row_finite(x: Tensor) -> Tensor:
    """Which samples are finite, ``(batch,)`` bool."""
    return torch.isfinite(x).flatten(1).all(1)


def rms(x: Tensor, start: int = 1) -> Tensor:
    """Root mean square over the dimensions from ``start`` on, without a gradient, float64 on the CPU; 0 if they are
    empty.

    Example:
        >>> rms(torch.ones(2, 3, 4)), rms(torch.ones(2, 3, 4), 2).shape
        (tensor([1., 1.], dtype=torch.float64), torch.Size([2, 3]))
    """
    flat = _in_order(x.detach().flatten(start))
    kind = torch.float64 if flat.is_cpu else flat.dtype  # which other devices may not have
    return torch.linalg.vector_norm(flat, dim=start, dtype=kind) / math.sqrt(max(1, flat.shape[start]))


def row_sums(x: Tensor) -> Tensor:
    """The sum over each sample, ``(batch,)``, the same for a sample whatever its batch.

    Example:
        >>> row_sums(torch.ones(2, 3, 4))
        tensor([12., 12.])
    """
    return _by_rows(torch.sum, x)


def row_means(x: Tensor) -> Tensor:
    """The mean over each sample, ``(batch,)``, likewise.

    Example:
        >>> row_means(torch.ones(2, 3, 4))
        tensor([1., 1.])
    """
    return _by_rows(torch.mean, x)


def row_norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample, ``(batch,)``, likewise.

    Example:
        >>> row_norms(torch.ones(2, 3, 3))
        tensor([3., 3.])
    """
    return _in_order(x.flatten(1)).norm(dim=1)


def sample_norms(x: Tensor) -> Tensor:
    """The same in float64, with a gradient.

    Example:
        >>> sample_norms(torch.ones(2, 3, 3))
        tensor([3., 3.], dtype=torch.float64)
    """
    return torch.linalg.vector_norm(_in_order(x.flatten(1)), dim=1, dtype=torch.float64)


def far_from_most(x: Tensor) -> Tensor:
    """Which samples are far from most others, ``(batch,)``; none where they are many, as in a small mode.

    Example:
        >>> far_from_most(
        ...     torch.tensor([[-1.0], [0.0], [0.0], [1.0], [2.0], [3.0], [2.0], [90.0]])
        ... ).tolist()
        [False, False, False, False, False, False, False, True]
    """
    flat = x.detach().flatten(1)
    away = rms(flat - flat.median(0).values)
    far = away > FAR * away.median()
    return far & (away.median() > 0) & (far.sum() <= MANY * len(far))


def row_std(x: Tensor, correction: float = 0.0) -> Tensor:
    """The standard deviation over each sample, ``(batch,)``, likewise; computed in float64.

    Example:
        >>> row_std(torch.tensor([[1.0, 3.0]]))
        tensor([1.])
    """
    wide = x.flatten(1).to(torch.float64)
    apart = wide - (row_sums(wide) / wide.shape[1])[:, None]
    return (row_sums(apart.square()) / (wide.shape[1] - correction)).sqrt().to(x.dtype)


def _by_rows(reduce: Callable[[Tensor, int], Tensor], x: Tensor) -> Tensor:
    flat = _in_order(x.flatten(1))
    return reduce(flat, 1) if len(flat) != 1 else reduce(flat.expand(2, -1), 1)[:1]  # one sum is split among threads


def _in_order(flat: Tensor) -> Tensor:
    """With the last dimension side by side in memory: of other layouts torch adds up the samples of a batch in
    different orders."""
    return flat if flat.stride(-1) == 1 else flat.contiguous()


def absolute(z: Scalar) -> Scalar:
    """abs(z) of a float or a tensor."""
    return z.abs() if isinstance(z, Tensor) else abs(z)


@overload
def expm1(z: Tensor) -> Tensor: ...


@overload
def expm1(z: float) -> float: ...


def expm1(z: Scalar) -> Scalar:
    """exp(z) - 1 of a float or a tensor."""
    return torch.expm1(z) if isinstance(z, Tensor) else math.expm1(z)


@overload
def log1p(z: Tensor) -> Tensor: ...


@overload
def log1p(z: float) -> float: ...


def log1p(z: Scalar) -> Scalar:
    """ln(1 + z) of a float or a tensor."""
    return torch.log1p(z) if isinstance(z, Tensor) else math.log1p(z)


def sigmoid(z: Tensor) -> Tensor:
    """1/(1 + exp(-z)), the same for a value wherever it stands. The last digit of `torch.sigmoid`, `logaddexp`,
    `atan2`, `hypot` and `pow` depends on the place in a tensor, and so would a sample's result on the rest of its
    batch.

    Example:
        >>> sigmoid(torch.zeros(1))
        tensor([0.5000])
    """
    return 1 / (1 + torch.exp(-z))


def power(base: Tensor, exponent: Tensor | float) -> Tensor:
    """base ** exponent of positive numbers, the same for a value wherever it stands.

    Example:
        >>> power(torch.full((1,), 4.0), 0.5).round(decimals=4)
        tensor([2.])
    """
    return torch.exp(exponent * torch.log(base))


def exp(z: Scalar) -> Scalar:
    """exp(z) of a float or a tensor."""
    return torch.exp(z) if isinstance(z, Tensor) else math.exp(z)


def log(z: Scalar) -> Scalar:
    """The natural logarithm of a float or a tensor."""
    return torch.log(z) if isinstance(z, Tensor) else math.log(z)


def sqrt(z: Scalar) -> Scalar:
    """The square root of a float or a tensor."""
    return torch.sqrt(z) if isinstance(z, Tensor) else math.sqrt(z)


def tan(z: Scalar) -> Scalar:
    """The tangent of a float or a tensor."""
    return torch.tan(z) if isinstance(z, Tensor) else math.tan(z)


def arctan(z: Scalar) -> Scalar:
    """The angle with a tangent of a float or a tensor."""
    return torch.atan(z) if isinstance(z, Tensor) else math.atan(z)


def divide(a: Scalar, b: Scalar) -> Scalar:
    """a / b, of floats too infinite or NaN where b is 0.

    Example:
        >>> divide(1.0, 0.0)
        inf
    """
    return a / b if isinstance(b, Tensor) or b else a * math.inf


def at_most(value: Scalar, bound: float) -> Scalar:
    """The smaller of both."""
    return value.clamp_max(bound) if isinstance(value, Tensor) else min(value, bound)


@overload
def times(a: Scalar, b: Tensor) -> Tensor: ...


@overload
def times(a: Scalar, b: Scalar) -> Scalar: ...


def times(a: Scalar, b: Scalar) -> Scalar:
    """a b, which is b itself where a is the number 1."""
    return b if isinstance(a, float) and a == 1.0 else a * b
