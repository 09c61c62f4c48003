"""Small helpers for batched tensors. Shapes: states are ``(batch, *event)``, per-sample scalars are ``(batch,)``."""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from .errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreSDEWarning, short, unknown

# A Python float, or a tensor (batch,) with one value per sample: solvers are written once for both.
Scalar: TypeAlias = float | Tensor
# A NumPy array on the host, or a tensor where it must have a gradient: one or more values per sample.
Array: TypeAlias = np.ndarray | Tensor

Tree = TypeVar("Tree")  # tensors, arrays, None, and tuples of those

_LEAVES = (np.ndarray, Tensor)
MOST_STEPS = 10_000_000  # of a fixed grid, whose nodes are kept
MOST_LEVELS = 1_000_000  # of a chain, whose tables are kept
MOST_WIDTH = 1 << 16  # features, channels, blocks of a network
MOST_GREY = 1 << 24  # grey levels
MOST_DRAWS = 1_000_000  # draws, probes, pilots, points: whatever is made of one call
MOST_STOCHASTICITY = 1e6
MOST_NUMBERS = 1 << 50  # of a tensor that is requested by its shape


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
        value = torch.from_numpy(value).to(like)
    elif not isinstance(value, Tensor):
        return value
    elif value.dtype != like.dtype:
        value = value.to(like.dtype)
    missing = like.ndim - value.ndim
    return value.reshape(value.shape + (1,) * missing) if value.ndim and missing else value


@overload
def as_array(value: Tensor | np.ndarray) -> np.ndarray: ...


@overload
def as_array(value: None) -> None: ...


@overload
def as_array(value: bool) -> bool: ...


@overload
def as_array(value: float) -> float: ...


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
    return list(values) if has_graph(*values) else list(on_host(*values))


def has_graph(*values: Scalar) -> bool:
    """Whether a gradient of one of the values is recorded.

    Example:
        >>> has_graph(0.5, torch.zeros(1)), has_graph(torch.zeros(1, requires_grad=True))
        (False, True)
    """
    return torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in values)


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
    kept: Tree = tree_map(lambda a: a[as_array(rows) if isinstance(a, np.ndarray) else rows] if a.ndim else a, tree)
    return kept


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that states are computed in: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def row_finite(x: Tensor) -> Tensor:
    """Which samples are finite, ``(batch,)`` bool."""
    return torch.isfinite(x).flatten(1).all(1)


def check_finite_rows(what: str, x: Tensor, hint: str = "leave them out") -> None:
    """Refuse samples with NaN or infinite values.

    Example:
        >>> check_finite_rows("`x0`", torch.tensor([[0.0], [torch.nan]]))
        Traceback (most recent call last):
        scoresde.errors.NonFiniteError: `x0` has NaN or infinite values in 1 of 2 samples (first: [1]); leave them out.
    """
    rows = (~row_finite(x.detach())).nonzero()[:, 0].tolist()
    if rows:
        raise NonFiniteError(
            f"{what} has NaN or infinite values in {len(rows)} of {len(x)} samples (first: {rows[:5]}); {hint}.",
            stage="input",
            indices=rows[:5],
        )


def rms(x: Tensor, start: int = 1) -> Tensor:
    """Root mean square over the dimensions from ``start`` on, float64, without a gradient; 0 if they are empty.

    Example:
        >>> rms(torch.ones(2, 3, 4)), rms(torch.ones(2, 3, 4), 2).shape
        (tensor([1., 1.], dtype=torch.float64), torch.Size([2, 3]))
    """
    flat = _in_order(x.detach().flatten(start))
    return torch.linalg.vector_norm(flat, dim=start, dtype=torch.float64) / math.sqrt(max(1, flat.shape[start]))


def row_sums(x: Tensor) -> Tensor:
    """The sum over each sample, ``(batch,)``, the same for a sample whatever its batch.

    Example:
        >>> row_sums(torch.ones(2, 3, 4))
        tensor([12., 12.])
    """
    flat = _in_order(x.flatten(1))
    return flat.sum(1) if len(flat) != 1 else flat.expand(2, -1).sum(1)[:1]  # a single sum is split among threads


def row_norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample, ``(batch,)``, likewise.

    Example:
        >>> row_norms(torch.ones(2, 3, 3))
        tensor([3., 3.])
    """
    return _in_order(x.flatten(1)).norm(dim=1)


def row_std(x: Tensor, correction: float = 0.0) -> Tensor:
    """The standard deviation over each sample, ``(batch,)``, likewise; computed in float64.

    Example:
        >>> row_std(torch.tensor([[1.0, 3.0]]))
        tensor([1.])
    """
    wide = x.flatten(1).to(torch.float64)
    apart = wide - (row_sums(wide) / wide.shape[1])[:, None]
    return (row_sums(apart.square()) / (wide.shape[1] - correction)).sqrt().to(x.dtype)


def _in_order(flat: Tensor) -> Tensor:
    """With the last dimension side by side in memory: of other layouts torch adds up the samples of a batch in
    different orders."""
    return flat if flat.stride(-1) == 1 else flat.contiguous()


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shown(value: object) -> str:
    """A value for the text of an error, on one line and not long.

    Example:
        >>> shown(torch.zeros(2, 3)), shown("abc")
        ('a torch.float32 tensor (2, 3)', "'abc'")
    """
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor {'' if value.is_nested else tuple(value.shape)}".rstrip()
    return short(value)


def named(value: object) -> str:
    """What class a value is of, and the value, for the text of an error.

    Example:
        >>> named([1]), named(None)
        ('list [1]', 'NoneType')
    """
    if value is None or isinstance(value, Tensor):
        return "NoneType" if value is None else shown(value)
    return f"{type(value).__name__} {short(value)}"


def form(value: object) -> str:
    """The shape of a tensor, or what else a value is, for the text of an error.

    Example:
        >>> form(torch.zeros(2, 3)), form(None)
        ('(2, 3)', 'NoneType')
    """
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.dtype not in FLOATS:
        return f"{value.dtype} {'' if value.is_nested else tuple(value.shape)}".rstrip()
    return str(tuple(value.shape)) if is_dense(value) else "a nested tensor" if value.is_nested else str(value.layout)


def check_dtype(name: str, dtype: object) -> None:
    """Refuse what is not one of the dtypes that states may have."""
    if not isinstance(dtype, torch.dtype) or dtype not in FLOATS:
        names = ", ".join(str(d) for d in FLOATS)
        raise InvalidTypeError(
            f"`{name}` must have a floating-point dtype, got {dtype!r}; possible are {names}. Try {name}.float()."
        )


def is_dense(x: Tensor) -> bool:
    """Whether a tensor has all of its numbers, in rows of one length."""
    return x.layout == torch.strided and not (x.is_nested or x.is_meta or x.is_quantized)


def check_dense(name: str, x: Tensor) -> None:
    """Refuse a sparse, nested or quantised tensor, and one without data."""
    if not is_dense(x):
        kind = "a nested tensor" if x.is_nested else f"layout {x.layout}, {x.dtype}"
        raise InvalidTypeError(f"`{name}` must be a dense tensor with data, got {kind} on {x.device}.")


_KINDS: dict[str, Callable[[torch.dtype], bool]] = {
    "floating-point": lambda dtype: dtype in FLOATS,
    "integer": lambda dtype: not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool),
    "real": lambda dtype: dtype in FLOATS or _KINDS["integer"](dtype),
    "boolean": lambda dtype: dtype == torch.bool,
}


def check_tensor(
    name: str, x: object, shape: Sequence[int] | None = None, *, kind: str = "floating-point", finite: bool = False
) -> Tensor:
    """Return a dense tensor of a kind, of a shape if one is given (-1 stands for any size), or say what is wrong.

    Example:
        >>> check_tensor("y", torch.zeros(3, 2), (-1, 2)).shape
        torch.Size([3, 2])
    """
    if not isinstance(x, Tensor):
        raise InvalidTypeError(f"`{name}` must be a {kind} tensor, got {shown(x)}; try torch.as_tensor({name}).")
    if not _KINDS[kind](x.dtype):
        raise InvalidTypeError(f"`{name}` must be a {kind} tensor, got {x.dtype}.")
    check_dense(name, x)
    if shape is not None:
        fits = x.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, x.shape, strict=True))
        if not fits:
            wanted = ", ".join("n" if n == -1 else str(n) for n in shape) + ("," if len(shape) == 1 else "")
            raise InvalidArgumentError(f"`{name}` must have shape ({wanted}), got {tuple(x.shape)}.")
    if finite and not bool(torch.isfinite(x).all()):
        raise InvalidArgumentError(
            f"`{name}` must be finite, got {int((~torch.isfinite(x)).sum())} values that are not."
        )
    return x


def as_tensor(name: str, value: object, dtype: torch.dtype | None = None) -> Tensor:
    """Return a number, a list of numbers, an array or a tensor as a dense tensor of real numbers.

    Example:
        >>> as_tensor("means", [[0.0], [1.0]]).shape
        torch.Size([2, 1])
    """
    try:
        given = np.array(value, value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value
        x = given if isinstance(given, Tensor) else torch.as_tensor(given, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InvalidTypeError(f"`{name}` must be numbers, got {shown(value)}.") from None
    check_tensor(name, x, kind="real")
    return x if dtype is None else x.to(dtype)


def check_broadcast(name: str, x: object, like: Tensor) -> None:
    """Refuse what is not a floating-point tensor that broadcasts against another one."""
    x = check_tensor(name, x)
    try:
        torch.broadcast_shapes(x.shape, like.shape)
    except RuntimeError:
        raise InvalidArgumentError(
            f"`{name}` must broadcast against shape {tuple(like.shape)}, got {tuple(x.shape)}."
        ) from None


def check_state(name: str, x: object) -> Tensor:
    """Return a floating-point tensor ``(batch, *event)`` with an event of rank one or more, or say what is wrong."""
    if not isinstance(x, Tensor):
        raise InvalidTypeError(
            f"`{name}` must be a tensor (batch, *event), got {type(x).__name__}; try torch.as_tensor({name})."
        )
    check_dtype(name, x.dtype)
    check_dense(name, x)
    if x.ndim < 2:
        raise InvalidArgumentError(
            f"`{name}` must be (batch, *event) with an event of rank 1 or more, got shape {tuple(x.shape)}; "
            f"scalars are events of shape (1,): try {name}.reshape(-1, 1)."
        )
    return x


def check_shape(name: str, shape: object, *, rank: int) -> tuple[int, ...]:
    """Return a shape of at least the given rank as a tuple of Python ints, or say what is wrong with it."""
    if isinstance(shape, str | bytes | bytearray) or not isinstance(shape, Sequence):
        raise InvalidTypeError(f"`{name}` must be a tuple of integers, got {shown(shape)}.")
    if len(shape) < rank:
        raise InvalidArgumentError(f"`{name}` must have at least {rank} entries, got {shown(tuple(shape))}.")
    sizes = tuple(check_integer(f"{name}[{i}]", n, low=0) for i, n in enumerate(shape))
    if math.prod(sizes) > MOST_NUMBERS:
        raise InvalidArgumentError(f"`{name}` must have at most {MOST_NUMBERS} numbers, got {shown(sizes)}.")
    return sizes


def check_times(name: str, values: object, what: str = "times") -> Tensor:
    """Return a list of times (or of ``what`` it is) as float64 ``(n,)`` on the CPU, or say what is wrong with it."""
    if isinstance(values, str | bytes):
        raise InvalidTypeError(f"`{name}` must be a list of {what}, got {shown(values)}.")
    if isinstance(values, Tensor):
        check_dense(name, values)
        times, real = values.detach().cpu(), _KINDS["real"](values.dtype)
    else:
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            array = np.asarray(None)
        real = array.dtype.kind in "fiu" or (array.size == 0 and array.dtype.names is None)
        times = torch.as_tensor(array.astype(np.float64) if real else np.zeros(0))
    if not real:
        got = values.dtype if isinstance(values, Tensor) else shown(values)
        raise InvalidTypeError(f"`{name}` must be a list of real numbers, got {got}.")
    times = times.to(torch.float64)
    if times.ndim != 1:
        raise InvalidArgumentError(f"`{name}` must be a 1-d list of {what}, got shape {tuple(times.shape)}.")
    return times


def output_problem(out: object, x: Tensor) -> str | None:
    """What is wrong with the output of a network that must be a floating-point tensor like ``x``; None if nothing."""
    if not isinstance(out, Tensor):
        return f"must return a tensor of shape {tuple(x.shape)}, like x, got {type(out).__name__}"
    if out.device == x.device and not is_dense(out):
        return f"must return a dense tensor, like x, got {'a nested one' if out.is_nested else out.layout}"
    if out.shape != x.shape:
        return f"must return a tensor of shape {tuple(x.shape)}, like x, got {tuple(out.shape)}"
    if out.device != x.device:
        return f"must return a tensor on {x.device}, like x, got {out.device}"
    if out.dtype not in FLOATS:
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
    if value is None or isinstance(value, bool | np.bool_ | str | bytes | bytearray):
        raise InvalidTypeError(f"`{name}` must be a number, got {shown(value)}.{hint}")
    if isinstance(value, np.ndarray | np.generic) and (value.ndim or value.dtype.kind not in "fiu"):
        raise InvalidTypeError(f"`{name}` must be a number, got an array {value.dtype} {value.shape}.{hint}")
    try:
        number = float(value.detach() if isinstance(value, Tensor) else value)
    except OverflowError:
        raise InvalidArgumentError(f"`{name}` must be a finite number, got one too large for a float.{hint}") from None
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTypeError(f"`{name}` must be a number, got {type(value).__name__}.{hint}") from None
    inside = low < number < high if strict else low <= number <= high
    if not math.isfinite(number) or not inside:
        left, right = ("(", ")") if strict else ("[", "]")
        if not math.isfinite(low):
            left = "("
        if not math.isfinite(high):
            right = ")"
        raise InvalidArgumentError(f"`{name}` must be in {left}{low:g}, {high:g}{right}, got {shown(value)}.{hint}")
    return number


def check_positive(name: str, value: object, *, high: float) -> float:
    """Return a number in (0, high], or say what is wrong with it."""
    number = check_number(name, value)
    if not 0.0 < number <= high:
        raise InvalidArgumentError(f"`{name}` must be in (0, {high:g}], got {shown(value)}.")
    return number


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"`{name}` must be True or False, got {shown(value)}.")


def check_integer(name: str, value: Any, *, low: int, high: int | None = None, hint: str = "") -> int:
    """Return a Python int in [low, high], or say what is wrong with it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTypeError(f"`{name}` must be an integer, got {shown(value)}.{hint}") from None
    if number < low:
        raise InvalidArgumentError(f"`{name}` must be at least {low}, got {shown(number)}.{hint}")
    if high is not None and number > high:
        raise InvalidArgumentError(f"`{name}` must be at most {high}, got {shown(number)}.{hint}")
    return number


def check_integers(name: str, values: Any, *, low: int, high: int | None = None) -> tuple[int, ...]:
    """Return a sequence of integers in [low, high] as a tuple, or say what is wrong with it."""
    try:
        if isinstance(values, Tensor | np.ndarray):
            items = tuple(values.tolist()) if values.ndim else None
        else:
            items = None if isinstance(values, str | bytes | Mapping) else tuple(values)
    except (TypeError, ValueError, RuntimeError):
        items = None
    if items is None:
        raise InvalidTypeError(f"`{name}` must be a sequence of integers, such as (1, 2), got {shown(values)}.")
    return tuple(check_integer(f"{name}[{i}]", value, low=low, high=high) for i, value in enumerate(items))


def check_generator(
    generator: object, hint: str = "write torch.Generator().manual_seed(0)", *, device: torch.device | None = None
) -> None:
    """Refuse what is neither a generator nor None, and one that is not on a device, if one is given."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InvalidTypeError(f"`generator` must be a torch.Generator, got {type(generator).__name__}; {hint}.")
    if generator is not None and device is not None and generator.device.type != device.type:
        raise InvalidArgumentError(
            f"`generator` is on {generator.device}, the data on {device}; write torch.Generator({str(device)!r})."
        )


def check_interval(name: str, value: object) -> tuple[float, float]:
    """Return two finite numbers (low, high) with low < high, or say what is wrong with them."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != 2:
        raise InvalidTypeError(f"`{name}` must be (low, high), got {shown(value)}.")
    low, high = (check_number(f"{name}[{i}]", v) for i, v in enumerate(value))
    if not low < high or not math.isfinite(high - low):
        raise InvalidArgumentError(f"`{name}` must be (low, high) with low < high, got {shown(value)}.")
    return low, high


def check_choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return one of some names, or say which there are."""
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise unknown(name, value, names)
    return value


def check_kind(name: str, value: object, kind: type | tuple[type, ...], what: str) -> None:
    """Refuse what is not of a class; ``what`` says what would be."""
    if not isinstance(value, kind):
        raise InvalidTypeError(f"`{name}` must be {what}, got {named(value)}.")


def check_callable(name: str, value: object, call: str) -> None:
    """Refuse what cannot be called; ``call`` says how it would be."""
    if not callable(value):
        raise InvalidTypeError(f"`{name}` must be callable as {call}, got {named(value)}.")


def check_score_fn(score_fn: object) -> None:
    """Refuse what is not a score function."""
    own = hasattr(score_fn, "score")
    hint = "take its .score(sde)" if own else "targets and loaded networks give one by .score(sde)"
    check_callable("score_fn", score_fn, f"score_fn(x, t) ({hint})")


def check_device(device: Any, default: torch.device | None = None) -> torch.device:
    """Return the requested device, if it is one and holds data."""
    try:
        fallback = torch.get_default_device() if default is None else default
        where = fallback if device is None else torch.device(device)
    except TypeError as error:
        raise InvalidTypeError(f"`device` must be a torch device or its name, got {shown(device)}.") from error
    except (RuntimeError, ValueError) as error:
        raise InvalidArgumentError(
            f"`device` must be a device such as 'cpu' or 'cuda', got {shown(device)}."
        ) from error
    if where.type == "meta":
        raise InvalidArgumentError("`device` must hold data, got 'meta'; try 'cpu'.")
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidArgumentError(f"`device` {shown(device)} is not available here: {reason}") from error
    return where


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
    if isinstance(gain, Tensor):
        return torch.addcmul(out, expand(gain, x), _total(pairs)) if pairs else out
    for w, v in pairs:
        if isinstance(w, Tensor):
            out = torch.addcmul(out, expand(times(gain, w), v), v)
        else:
            out = out.add(v, alpha=gain * w) if out is x else out.add_(v, alpha=gain * w)
    return out


@overload
def times(a: Scalar, b: Tensor) -> Tensor: ...


@overload
def times(a: Scalar, b: Scalar) -> Scalar: ...


def times(a: Scalar, b: Scalar) -> Scalar:
    """a b, which is b itself where a is the number 1."""
    return b if isinstance(a, float) and a == 1.0 else a * b


def weighted(pairs: Sequence[tuple[Scalar, Tensor]]) -> Tensor:
    r""":math:`\sum_j w_j v_j`, a new tensor even where it is one of the values.

    Example:
        >>> value = torch.ones(1, 2)
        >>> weighted([(1.0, value), (0.0, value)]) is value
        False
    """
    total = _total(pairs)
    return total.clone() if total is pairs[0][1] else total


def _total(pairs: Sequence[tuple[Scalar, Tensor]]) -> Tensor:
    r""":math:`\sum_j w_j v_j`; the first value itself where nothing is added to it."""
    weights, values = zip(*pairs, strict=True)
    return combine(weights[0], values[0], 1.0, weights[1:], values[1:])
