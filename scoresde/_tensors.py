"""Small helpers for batched tensors. Shapes: states are ``(batch, *event)``, per-sample scalars are ``(batch,)``."""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .errors import InvalidArgumentError, InvalidTypeError, ScoreSDEWarning

# A Python float, or a tensor (batch,) with one value a sample: solvers are written once for both.
Scalar: TypeAlias = Any
# A NumPy array on the host, or a tensor where it must have a gradient: one value or more a sample.
Array: TypeAlias = Any


_LEAVES = (np.ndarray, Tensor)


def expand(value: Scalar, like: Tensor) -> Scalar:
    """Make per-sample values ``(batch,)`` broadcast against ``like``, in its dtype and on its device; floats pass
    through.

    Example:
        >>> expand(torch.ones(4, dtype=torch.float64), torch.zeros(4, 2, 3)).shape
        torch.Size([4, 1, 1])
    """
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value).to(like)
    elif not isinstance(value, Tensor):
        return value
    elif value.dtype != like.dtype:
        value = value.to(like.dtype)
    missing = like.ndim - value.ndim
    return value.reshape(value.shape + (1,) * missing) if value.ndim and missing else value


def as_array(value: Array) -> Any:
    """On the host, without a gradient; what is neither tensor nor array passes through.

    Example:
        >>> as_array(torch.ones(2))
        array([1., 1.], dtype=float32)
    """
    if isinstance(value, np.ndarray) or not isinstance(value, Tensor):
        return value
    return value.numpy(force=value.requires_grad or not value.is_cpu)


def on_host(*values: Tensor) -> list[np.ndarray]:
    """float64 arrays of tensors, without a gradient, with one wait for the device.

    Example:
        >>> on_host(torch.ones(2), torch.zeros(1))
        [array([1., 1.]), array([0.])]
    """
    if values[0].is_cpu:
        return [as_array(v if v.dtype == torch.float64 else v.to(torch.float64)) for v in values]
    packed = torch.cat([v.detach().to(torch.float64).flatten() for v in values]).cpu()
    parts = packed.split([v.numel() for v in values])
    return [part.reshape(v.shape).numpy() for part, v in zip(parts, values, strict=True)]


def constants(*values: Tensor) -> list[Array]:
    """Values of a schedule `on_host`, for arithmetic that is done sooner there; if one of them has a gradient, the
    tensors.

    Example:
        >>> constants(torch.zeros(1), torch.ones(1, requires_grad=True))[0]
        tensor([0.])
    """
    graph = torch.is_grad_enabled() and any(v.requires_grad for v in values)
    return list(values) if graph else list(on_host(*values))


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


def where(mask: Tensor | np.ndarray, new: Any, old: Any) -> Any:
    """Take the rows of ``new`` where ``mask`` is true and those of ``old`` elsewhere, leaf by leaf."""

    def choose(a: Array, b: Array) -> Array:
        if a is b:
            return a
        if isinstance(a, np.ndarray):
            return np.where(as_array(mask).reshape(-1, *(1,) * (a.ndim - 1)), a, b)
        rows = torch.as_tensor(mask, device=a.device)
        return torch.where(rows.reshape(-1, *(1,) * (a.ndim - 1)) if a.ndim > 1 else rows, a, b)

    return tree_map(choose, new, old)


def take(tree: Any, rows: Tensor) -> Any:
    """Keep the given rows of every leaf of a tree."""
    return tree_map(lambda a: a[as_array(rows) if isinstance(a, np.ndarray) else rows] if a.ndim else a, tree)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that states are computed in: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def row_finite(x: Tensor) -> Tensor:
    """Which samples are finite, ``(batch,)`` bool."""
    return torch.isfinite(x).flatten(1).all(1)


def rms(x: Tensor, start: int = 1) -> Tensor:
    """Root mean square over the dimensions from ``start`` on, float64, without a gradient; 0 if they are empty.

    Example:
        >>> rms(torch.ones(2, 3, 4)), rms(torch.ones(2, 3, 4), 2).shape
        (tensor([1., 1.], dtype=torch.float64), torch.Size([2, 3]))
    """
    flat = x.detach().flatten(start)
    return torch.linalg.vector_norm(flat, dim=start, dtype=torch.float64) / math.sqrt(max(1, flat.shape[start]))


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_dtype(name: str, dtype: Any) -> None:
    """Refuse what is not one of the dtypes that states may have."""
    if dtype not in FLOATS:
        names = ", ".join(str(d) for d in FLOATS)
        raise InvalidTypeError(
            f"`{name}` must have a floating-point dtype, got {dtype!r}; possible are {names}. Try {name}.float()."
        )


def check_state(name: str, x: Any) -> None:
    """Refuse what is not a floating-point tensor ``(batch, *event)`` with an event of rank one or more."""
    if not isinstance(x, Tensor):
        raise InvalidTypeError(
            f"`{name}` must be a tensor (batch, *event), got {type(x).__name__}; try torch.as_tensor({name})."
        )
    check_dtype(name, x.dtype)
    if x.layout != torch.strided or x.device.type == "meta":
        raise InvalidTypeError(f"`{name}` must be a dense tensor with data, got layout {x.layout} on {x.device}.")
    if x.ndim < 2:
        raise InvalidArgumentError(
            f"`{name}` must be (batch, *event) with an event of rank 1 or more, got shape {tuple(x.shape)}; "
            f"scalars are events of shape (1,): try {name}.reshape(-1, 1)."
        )


def check_shape(name: str, shape: Any, *, rank: int) -> tuple[int, ...]:
    """Return a shape of at least the given rank as a tuple of Python ints, or say what is wrong with it."""
    if isinstance(shape, str | bytes) or not isinstance(shape, Sequence):
        raise InvalidTypeError(f"`{name}` must be a tuple of integers, got {shape!r}.")
    if len(shape) < rank:
        raise InvalidArgumentError(f"`{name}` must have at least {rank} entries, got {tuple(shape)!r}.")
    return tuple(check_integer(f"{name}[{i}]", n, low=0) for i, n in enumerate(shape))


def check_times(name: str, values: Any, what: str = "times") -> Tensor:
    """Return a list of times (or of ``what`` it is) as float64 ``(n,)`` on the CPU, or say what is wrong with it."""
    if isinstance(values, str | bytes):
        raise InvalidTypeError(f"`{name}` must be a list of {what}, got {values!r}.")
    if isinstance(values, Tensor):
        times, real = (
            values.detach().cpu(),
            values.dtype.is_floating_point or values.dtype in (torch.int32, torch.int64),
        )
    else:
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            array = np.asarray(None)
        real = array.dtype.kind in "fiu" or array.size == 0
        times = torch.as_tensor(array.astype(np.float64) if real else np.zeros(0))
    if not real:
        got = values.dtype if isinstance(values, Tensor) else repr(values)
        raise InvalidTypeError(f"`{name}` must be a list of real numbers, got {got}.")
    times = times.to(torch.float64)
    if times.ndim != 1:
        raise InvalidArgumentError(f"`{name}` must be a 1-d list of {what}, got shape {tuple(times.shape)}.")
    return times


def output_problem(out: Any, x: Tensor) -> str | None:
    """What is wrong with the output of a network that must be a floating-point tensor like ``x``; None if nothing."""
    if not isinstance(out, Tensor):
        return f"must return a tensor of shape {tuple(x.shape)}, like x, got {type(out).__name__}"
    if out.shape != x.shape:
        return f"must return a tensor of shape {tuple(x.shape)}, like x, got {tuple(out.shape)}"
    if out.device != x.device:
        return f"must return a tensor on {x.device}, like x, got {out.device}"
    if not out.dtype.is_floating_point:
        return f"must return {x.dtype}, like x, got {out.dtype}"
    return None


def warn_caller(message: str) -> None:
    """Warn with the line outside this package that led here."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ScoreSDEWarning, stacklevel=level + 1)


def check_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, strict: bool = False, hint: str = ""
) -> float:
    """Return a finite Python float within [low, high] (open ends if ``strict``), or say what is wrong with it."""
    if value is None or isinstance(value, bool | str | bytes):
        raise InvalidTypeError(f"`{name}` must be a number, got {value!r}.{hint}")
    try:
        number = float(value.detach() if isinstance(value, Tensor) else value)
    except OverflowError:
        raise InvalidArgumentError(
            f"`{name}` must be a finite number, got a larger one than a float holds.{hint}"
        ) from None
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTypeError(f"`{name}` must be a number, got {type(value).__name__}.{hint}") from None
    inside = low < number < high if strict else low <= number <= high
    if not math.isfinite(number) or not inside:
        left, right = ("(", ")") if strict else ("[", "]")
        if not math.isfinite(low):
            left = "("
        if not math.isfinite(high):
            right = ")"
        raise InvalidArgumentError(f"`{name}` must be in {left}{low:g}, {high:g}{right}, got {value!r}.{hint}")
    return number


def check_positive(name: str, value: Any, *, high: float) -> float:
    """Return a number in (0, high], or say what is wrong with it."""
    number = check_number(name, value)
    if not 0.0 < number <= high:
        raise InvalidArgumentError(f"`{name}` must be in (0, {high:g}], got {value!r}.")
    return number


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"`{name}` must be True or False, got {value!r}.")


def check_integer(name: str, value: Any, *, low: int, high: int | None = None, hint: str = "") -> int:
    """Return a Python int in [low, high], or say what is wrong with it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InvalidTypeError(f"`{name}` must be an integer, got {value!r}.{hint}") from None
    if number < low:
        raise InvalidArgumentError(f"`{name}` must be at least {low}, got {number}.{hint}")
    if high is not None and number > high:
        raise InvalidArgumentError(f"`{name}` must be at most {high}, got {number}.{hint}")
    return number


def check_integers(name: str, values: Any, *, low: int, high: int | None = None) -> tuple[int, ...]:
    """Return a sequence of integers in [low, high] as a tuple, or say what is wrong with it."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidTypeError(f"`{name}` must be a sequence of integers, such as (1, 2), got {values!r}.")
    return tuple(check_integer(f"{name}[{i}]", value, low=low, high=high) for i, value in enumerate(values))


def check_generator(generator: Any, hint: str = "write torch.Generator().manual_seed(0)") -> None:
    """Refuse what is neither a generator nor None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InvalidTypeError(f"`generator` must be a torch.Generator, got {type(generator).__name__}; {hint}.")


def expm1(z: Scalar) -> Scalar:
    """exp(z) - 1 of a float or a tensor."""
    return torch.expm1(z) if isinstance(z, Tensor) else math.expm1(z)


def sigmoid(z: Tensor) -> Tensor:
    """1/(1 + exp(-z)), the same for a value wherever it stands. The last digit of `torch.sigmoid`, `logaddexp`,
    `atan2`, `hypot` and `pow` depends on the place in a tensor, and so would a sample's result on its batch mates.

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


def at_most(value: Scalar, bound: float) -> Scalar:
    """The smaller of both."""
    return value.clamp_max(bound) if isinstance(value, Tensor) else min(value, bound)


def combine(keep: Scalar, x: Tensor, gain: Scalar, weights: Sequence[Scalar], values: Sequence[Tensor]) -> Tensor:
    r"""A step in most methods: :math:`keep\,x + gain\sum_j w_j v_j`, in as few operations as it takes.

    Weights that are the number 0 cost nothing.

    Example:
        >>> combine(1.0, torch.ones(1, 2), 2.0, (0.5, 0.0), (torch.ones(1, 2), torch.zeros(1, 2)))
        tensor([[2., 2.]])
    """
    pairs = [(w, v) for w, v in zip(weights, values, strict=True) if isinstance(w, Tensor) or w]
    out = x if not isinstance(keep, Tensor) and keep == 1.0 else x * expand(keep, x)
    if isinstance(gain, Tensor) and pairs:
        return torch.addcmul(out, expand(gain, x), weighted(pairs))
    for w, v in pairs:
        if isinstance(w, Tensor):
            out = torch.addcmul(out, expand(times(gain, w), v), v)
        else:
            out = out.add(v, alpha=gain * w) if out is x else out.add_(v, alpha=gain * w)
    return out


def times(a: Scalar, b: Scalar) -> Scalar:
    """a b, which is b itself where a is the number 1."""
    return b if isinstance(a, float) and a == 1.0 else a * b


def weighted(pairs: Sequence[tuple[Scalar, Tensor]]) -> Tensor:
    r""":math:`\sum_j w_j v_j`."""
    (w, v), *others = pairs
    if len(others) == 0:
        return v if not isinstance(w, Tensor) and w == 1.0 else v * expand(w, v)
    return combine(w, v, 1.0, *zip(*others, strict=True))
