"""Checks of arguments, and the limits of counts. The error of each names the argument and its value."""

from __future__ import annotations

import math
import operator
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import (
    InvalidArgumentError,
    InvalidTypeError,
    NonFiniteError,
    ScoreFnError,
    ScoreSDEWarning,
    check_choice,  # noqa: F401 - beside the other checks
    short,
)
from .tensors import row_finite

MOST_STEPS = 10_000_000  # of a fixed grid, whose nodes are kept; and of any limit of steps
MOST_LEVELS = 1_000_000  # of a chain, whose tables are kept
MOST_WIDTH = 1 << 16  # features, channels, blocks of a network
MOST_GREY = 1 << 24  # grey levels
MOST_DRAWS = 1_000_000  # draws, probes, pilots, points: whatever is made of one call
MOST_STOCHASTICITY = 1e6
MOST_NUMBERS = 1 << 50  # of a tensor that is requested by its shape
_PACKAGE = __package__.partition(".")[0]
DEFAULT_TOLERANCE = 1e-3  # relative and absolute, of adaptive methods and of other libraries


def check_finite_rows(what: str, x: Tensor, hint: str = "leave them out", *, rows: str = "samples") -> None:
    """Refuse samples, or what else the rows are, with NaN or infinite values.

    Example:
        >>> check_finite_rows("`x0`", torch.tensor([[0.0], [torch.nan]]))
        Traceback (most recent call last):
        scoresde.core.errors.NonFiniteError: `x0` has NaN or infinite values in 1 of 2 samples (first: [1]); ...
    """
    if x.is_cpu and math.isfinite(x.detach().sum().item()):
        return
    refuse_rows(~row_finite(x.detach()), f"{what} has NaN or infinite values in", f"; {hint}", "input", rows=rows)


def refuse_rows(bad: Tensor, what: str, why: str, stage: str, *, rows: str = "samples", **details: Any) -> None:
    """Refuse the rows that are marked as not finite, if there are any; their number is put between what and why. The
    details are fields of the error."""
    which = bad.nonzero()[:, 0].tolist()
    if which:
        text = f"{what} {len(which)} of {len(bad)} {rows} (first: {which[:5]}){why}."
        raise NonFiniteError(text, stage=stage, indices=which[:5], **details)


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shown(value: object) -> str:
    """A value for the text of an error, on one line and not long.

    Example:
        >>> shown(torch.zeros(2, 3)), shown("abc")
        ('a torch.float32 tensor (2, 3)', "'abc'")
    """
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor {tuple(value.shape)}"
    return short(value)


def as_torch(name: str, value: object) -> str:
    """What to write for a tensor of a value, for the text of an error.

    Example:
        >>> as_torch("x", [1.0]), as_torch("x", torch.ones(2).numpy())
        ('torch.as_tensor(x)', 'torch.from_numpy(x)')
    """
    return f"torch.{'from_numpy' if isinstance(value, np.ndarray) else 'as_tensor'}({name})"


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
        return f"{value.dtype} {tuple(value.shape)}"
    return str(tuple(value.shape))


def check_dtype(name: str, dtype: object, hint: str = "") -> None:
    """Refuse what is not one of the dtypes that states may have."""
    if not isinstance(dtype, torch.dtype) or dtype not in FLOATS:
        names = ", ".join(str(d) for d in FLOATS)
        raise InvalidTypeError(f"`{name}` must have a floating-point dtype, got {dtype!r}; possible are {names}.{hint}")


_KINDS: dict[str, Callable[[torch.dtype], bool]] = {
    "floating-point": lambda dtype: dtype in FLOATS,
    "integer": lambda dtype: not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool),
    "real": lambda dtype: dtype in FLOATS or _KINDS["integer"](dtype),
    "boolean": lambda dtype: dtype == torch.bool,
}
_CASTS = {"floating-point": "float", "integer": "long", "real": "float", "boolean": "bool"}


def check_tensor(
    name: str, x: object, shape: Sequence[int] | None = None, *, kind: str = "floating-point", finite: bool = False
) -> Tensor:
    """Return a tensor of a kind, of a shape if one is given (-1 stands for any size), or say what is wrong.

    Example:
        >>> check_tensor("y", torch.zeros(3, 2), (-1, 2)).shape
        torch.Size([3, 2])
    """
    if not isinstance(x, Tensor):
        raise InvalidTypeError(f"`{name}` must be a {kind} tensor, got {shown(x)}; try {as_torch(name, x)}.")
    if not _KINDS[kind](x.dtype):
        raise InvalidTypeError(f"`{name}` must be a {kind} tensor, got {x.dtype}; try {name}.{_CASTS[kind]}().")
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
    if isinstance(value, complex | np.generic | np.ndarray) and np.iscomplexobj(value):
        raise InvalidTypeError(f"`{name}` must be real numbers, got {shown(value)}.")
    try:
        given = np.array(value, value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value
        x = given if isinstance(given, Tensor) else torch.as_tensor(given, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InvalidTypeError(f"`{name}` must be numbers, got {shown(value)}.") from None
    check_tensor(name, x, kind="real")
    return x if dtype is None else x.to(dtype)


def check_per_sample(name: str, values: Tensor, x: Tensor) -> Tensor:
    """Return integers, one for each sample of ``x`` or one for all, as int64 ``(batch,)``, or say what is wrong."""
    if not _KINDS["integer"](values.dtype):
        raise InvalidTypeError(f"`{name}` must be integers, got {values.dtype}; write {name}.long().")
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(x)):
        raise InvalidArgumentError(
            f"`{name}` must be an integer or (batch,) = ({len(x)},), got shape {tuple(values.shape)}."
        )
    return values.long().expand(len(x))


def check_matrix(name: str, value: object, columns: int | None = None) -> Tensor:
    """Return a finite real matrix, of a number of columns if one is given, as float64, or say what is wrong with it."""
    matrix = check_tensor(name, value)
    fits = matrix.ndim == 2 and columns in (None, matrix.shape[1])
    if not fits or not bool(matrix.isfinite().all()):
        size = "" if columns is None else f" (n, {columns}) over the flattened event"
        raise InvalidArgumentError(f"`{name}` must be a finite matrix{size}, got shape {tuple(matrix.shape)}.")
    return matrix.detach().to(torch.float64)


def check_weights(weights: Tensor, size: int, hint: str = "") -> Tensor:
    """Return weights, if they are as many positive numbers, or say what is wrong with them."""
    if weights.shape != (size,) or not bool(((weights > 0) & weights.isfinite()).all()):
        raise InvalidArgumentError(
            f"`weights` must be {size} positive numbers, got {tuple(weights.shape)}: {weights.flatten()[:5].tolist()}"
            f"{hint}."
        )
    return weights


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
            f"`{name}` must be a tensor (batch, *event), got {type(x).__name__}; try {as_torch(name, x)}."
        )
    check_dtype(name, x.dtype, f" Try {name}.float().")
    if x.ndim < 2:
        raise InvalidArgumentError(
            f"`{name}` must be (batch, *event) with an event of rank 1 or more, got shape {tuple(x.shape)}; "
            f"scalars are events of shape (1,): try {name}.reshape(-1, 1)."
        )
    return x


def check_not_empty(name: str, x: Tensor) -> None:
    """Refuse samples ``(batch, *event)`` whose event has no numbers."""
    if 0 in x.shape[1:]:
        raise InvalidArgumentError(f"`{name}` must hold events of at least one number, got shape {tuple(x.shape)}.")


def check_batch(name: str, x: Tensor, event_shape: tuple[int, ...]) -> None:
    """Refuse what is not a batch of events of a shape."""
    if x.ndim != len(event_shape) + 1 or tuple(x.shape[1:]) != event_shape:
        event = ", ".join(map(str, event_shape))
        raise InvalidArgumentError(f"`{name}` must be (batch, {event}), got shape {tuple(x.shape)}.")


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


def fits(out: object, x: Tensor) -> bool:
    """Whether the output of a network is at once a plain tensor like ``x``; others may still be cast."""
    return type(out) is Tensor and out.shape == x.shape and out.dtype is x.dtype and out.device == x.device


def output_problem(out: object, x: Tensor) -> str | None:
    """What is wrong with the output of a network that must be a floating-point tensor like ``x``; None if nothing."""
    if not isinstance(out, Tensor):
        hint = " (scoresde.interop.from_arrays takes a function of arrays)" if hasattr(out, "__dlpack__") else ""
        return f"must return a tensor of shape {tuple(x.shape)}, like x, got {type(out).__name__}{hint}"
    if out.shape != x.shape:
        return f"must return a tensor of shape {tuple(x.shape)}, like x, got {tuple(out.shape)}"
    if out.device != x.device:
        return f"must return a tensor on {x.device}, like x, got {out.device}"
    if out.dtype not in FLOATS:
        return f"must return {x.dtype}, like x, got {out.dtype}"
    return None


def check_output(what: str, out: Tensor, x: Tensor, hint: str = "") -> Tensor:
    """Return the output of a network that is like ``x``, or say what is wrong with it."""
    problem = output_problem(out, x)
    if problem is not None:
        raise ScoreFnError(f"{what} {problem}{hint}.")
    return out


def warn_caller(message: str) -> None:
    """Warn with the line outside this package that led here."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ScoreSDEWarning, stacklevel=level + 1)


def check_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, strict: bool = False, hint: str = ""
) -> float:
    """Return a finite Python float within [low, high] (open ends if ``strict``), or say what is wrong with it."""
    if value is None or isinstance(value, bool | np.bool_ | str | bytes | bytearray | Decimal):
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


def check_below(name: str, value: float, other: str, bound: float) -> None:
    """Refuse a number that is not below that of another argument."""
    if not value < bound:
        raise InvalidArgumentError(f"`{name}` must be below `{other}`, got {value} and {bound}.")


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


def check_grey(levels: object, data_range: object) -> tuple[int, float, float]:
    """Return a number of grey values and the ends of their range, or say what is wrong with them."""
    return (check_integer("levels", levels, low=2, high=MOST_GREY), *check_interval("data_range", data_range))


def check_kind(name: str, value: object, kind: type | tuple[type, ...], what: str) -> None:
    """Refuse what is not of a class, which ``what`` describes."""
    if not isinstance(value, kind):
        hint = f"; try {as_torch(name, value)}" if kind is Tensor and isinstance(value, np.ndarray) else ""
        raise InvalidTypeError(f"`{name}` must be {what}, got {named(value)}{hint}.")


def check_callable(name: str, value: object, call: str) -> None:
    """Refuse what cannot be called as in ``call``."""
    if not callable(value):
        raise InvalidTypeError(f"`{name}` must be callable as {call}, got {named(value)}.")


def check_score_fn(score_fn: object) -> None:
    """Refuse what is not a score function."""
    own = hasattr(score_fn, "score")
    hint = "take its .score(sde)" if own else "targets and loaded networks give one by .score(sde)"
    check_callable("score_fn", score_fn, f"score_fn(x, t) ({hint})")


def best_device() -> torch.device:
    """A CUDA device if there is one, that of this process where torchrun started it as one of several; else the CPU.

    Example:
        >>> best_device().type in ("cpu", "cuda")
        True
    """
    rank = os.environ.get("LOCAL_RANK", "")
    mine = f"cuda:{rank}" if rank.isdecimal() and int(rank) < torch.cuda.device_count() else "cuda"
    return check_device(mine if torch.cuda.is_available() else "cpu")


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
