"""Every error that scoresde raises on purpose.

All derive from `ScoreSDEError` and from the built-in class that a caller would expect, so that both ``except
scoresde.ScoreSDEError`` and ``except ValueError`` work. A message says what is wrong, the value that was received, why
it cannot be used, and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_SHOWN = 100  # characters of a value in the text of an error


class ScoreSDEError(Exception):
    """Base class of all errors of this package.

    Example:
        >>> issubclass(InvalidArgumentError, (ScoreSDEError, ValueError))
        True
    """


class InvalidArgumentError(ScoreSDEError, ValueError):
    """An argument has a value, shape or name that cannot be used.

    Example:
        >>> raise InvalidArgumentError("`steps` must be at least 1, got 0.")
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `steps` must be at least 1, got 0.
    """


class InvalidTypeError(ScoreSDEError, TypeError):
    """An argument has a type or dtype that cannot be used.

    Example:
        >>> issubclass(InvalidTypeError, TypeError)
        True
    """


class ScoreFnError(ScoreSDEError, RuntimeError):
    """The score function returned something that is no score: a wrong shape, dtype or device, or it changed its input.

    Example:
        >>> issubclass(ScoreFnError, RuntimeError)
        True
    """


class NonFiniteError(ScoreSDEError, ArithmeticError):
    """A value became NaN or infinite.

    Attributes:
        stage: ``"input"``, ``"score"``, ``"state"`` or ``"logp"``: where it was first seen.
        step: the step at which it was seen, or None before the first.
        t: the time at which it was seen, or None.
        indices: the first few samples concerned.
        partial: the `Solution` so far, with the samples concerned set to NaN, or None.

    Example:
        >>> error = NonFiniteError("the score is NaN", stage="score", step=3, t=0.5, indices=[0, 2])
        >>> error.stage, error.indices
        ('score', [0, 2])
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str = "state",
        step: int | None = None,
        t: float | None = None,
        indices: Iterable[int] = (),
        partial: Any = None,
    ) -> None:
        super().__init__(message)
        self.stage = stage
        self.step = step
        self.t = t
        self.indices = list(indices)
        self.partial = partial


class SolveFailedError(ScoreSDEError, RuntimeError):
    """The solver could not reach the end time.

    Attributes:
        partial: the `Solution` so far; samples that failed are NaN, those that were under way are marked STOPPED.

    Example:
        >>> issubclass(MaxStepsError, SolveFailedError)
        True
    """

    def __init__(self, message: str, *, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class StepSizeUnderflowError(SolveFailedError):
    """The step that the tolerance asks for is too small for the clock.

    Example:
        >>> issubclass(StepSizeUnderflowError, SolveFailedError)
        True
    """


class MaxStepsError(SolveFailedError):
    """``max_steps`` were used up before the end time.

    Example:
        >>> issubclass(MaxStepsError, RuntimeError)
        True
    """


class CheckpointError(ScoreSDEError):
    """A saved model cannot be used.

    Example:
        >>> issubclass(CorruptCheckpointError, CheckpointError)
        True
    """


class UnsafeCheckpointError(CheckpointError):
    """A file could run code when it is read (a pickle), and is refused.

    Example:
        >>> issubclass(UnsafeCheckpointError, CheckpointError)
        True
    """


class CorruptCheckpointError(CheckpointError):
    """A file is truncated, altered, or not what it says it is.

    Example:
        >>> issubclass(CorruptCheckpointError, ScoreSDEError)
        True
    """


class CheckpointMismatchError(CheckpointError):
    """A file is intact, but does not fit the network it is loaded into.

    Example:
        >>> issubclass(CheckpointMismatchError, ScoreSDEError)
        True
    """


class OutputError(ScoreSDEError, OSError):
    """A result could not be written.

    Example:
        >>> issubclass(OutputError, OSError)
        True
    """


class ScoreSDEWarning(UserWarning):
    """Something looks wrong, though it may be meant; every warning of this package is one.

    Example:
        >>> issubclass(ScoreSDEWarning, UserWarning)
        True
    """


def short(value: Any) -> str:
    """The repr of a value for the text of an error: on one line, and not long.

    Example:
        >>> short([1] * 99)[-7:]
        '1, 1...'
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def unknown(argument: str, got: Any, allowed: Iterable[str]) -> InvalidArgumentError:
    """The error for a name that is not in a list, with the closest name as a suggestion.

    Example:
        >>> print(unknown("method", "eulr", ["euler", "heun"]))
        `method`: unknown name 'eulr'; did you mean 'euler'? Known: euler, heun.
    """
    names = sorted(allowed)
    close = [name for name in names if name.endswith(f":{got}")] or difflib.get_close_matches(str(got), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return InvalidArgumentError(f"`{argument}`: unknown name {short(got)}{hint} Known: {', '.join(names)}.")
