"""Every error that scoresde raises on purpose.

All derive from `ScoreSDEError` and from the built-in class that a caller would expect, so that both ``except
scoresde.ScoreSDEError`` and ``except ValueError`` work. A message describes the problem, the value that was received,
why it cannot be used, and what to write instead; it is written where the error is raised, most often in `_checks`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

_NO_MEMORY = re.compile("out of memory|not enough memory|allocate memory|bad_alloc", re.IGNORECASE)
# torch's messages where a table has no row for an index.
_BEYOND = ("index out of range in self", "is out of bounds for dimension")
_DTYPES = re.compile(r"same dtype|type \(.*\) should be the same|expected scalar type|mixed dtype", re.IGNORECASE)
_AMOUNT = re.compile(r"allocate (\d[\d.]* ?(?:[KMGTPE]i?B|bytes))")
_MOST_NAMES = 25  # that an error lists
_ALIKE = 3  # characters at the beginning that names have in common
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
        scoresde.core.errors.InvalidArgumentError: `steps` must be at least 1, got 0.
    """


class InvalidTypeError(ScoreSDEError, TypeError):
    """An argument has a type or dtype that cannot be used.

    Example:
        >>> issubclass(InvalidTypeError, TypeError)
        True
    """


class ScoreFnError(ScoreSDEError, RuntimeError):
    """The score function returned something that is not a score: a wrong shape, dtype or device, or it changed its
    input.

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
        >>> error = NonFiniteError(
        ...     "the score is NaN", stage="score", step=3, t=0.5, indices=[0, 2]
        ... )
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
    """The step that the tolerance requires is too small for the clock.

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


class OutOfMemoryError(ScoreSDEError, MemoryError):
    """There is too little memory; the message says for what.

    Example:
        >>> issubclass(OutOfMemoryError, MemoryError)
        True
    """


class ScoreSDEWarning(UserWarning):
    """Something may be wrong, though it may be intended; every warning of this package is one.

    Example:
        >>> issubclass(ScoreSDEWarning, UserWarning)
        True
    """


def short(value: object) -> str:
    """The repr of a value for the text of an error: on one line, and not long.

    Example:
        >>> short([1] * 99)[-7:]
        ' 1, ...'
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def unknown(argument: str, got: object, allowed: Iterable[str]) -> InvalidArgumentError:
    """The error for a name that is not in a list, with the closest names as a suggestion, and the list, or the
    nearest five of a long one.

    Example:
        >>> print(unknown("method", "eulr", ["euler", "heun"]))
        `method`: unknown name 'eulr'; did you mean 'euler'? Known: euler, heun.
    """
    names = sorted(allowed)
    close = " or ".join(map(repr, closest(str(got), names)))
    hint = f"; did you mean {close}?" if close else "."
    listed = names if len(names) <= _MOST_NAMES else difflib.get_close_matches(str(got), names, n=5, cutoff=0.0)
    label = "Known" if listed is names else f"The nearest of {len(names)}"
    return InvalidArgumentError(f"`{argument}`: unknown name {short(got)}{hint} {label}: {', '.join(listed)}.")


def check_choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return one of some names, or say which there are.

    Example:
        >>> check_choice("method", "heun", ["euler", "heun"])
        'heun'
    """
    names = tuple(known)
    if not isinstance(value, str) or value not in names:
        raise unknown(name, value, names)
    return value


def closest(got: str, names: Iterable[str]) -> list[str]:
    """The names that a misspelt one may stand for: that in another case, or one that ends in it after a colon, or the
    most similar one; but where that begins in another way and others begin alike, these, three at most.

    Example:
        >>> names = ["ddim", "dpm_2m", "dpm_3m", "dpmpp_2m_sde", "sa_solver", "scipy:RK45"]
        >>> [
        ...     closest(got, names)
        ...     for got in ("DDIM", "dpm_solver", "dpm_2m_sde", "rk45", "x")
        ... ]
        [['ddim'], ['dpmpp_2m_sde', 'dpm_3m', 'dpm_2m'], ['dpmpp_2m_sde'], ['scipy:RK45'], []]
    """
    got, known = got.casefold(), {name.casefold(): name for name in names}
    if found := [name for name in known if name == got] or [name for name in known if name.endswith(f":{got}")]:
        return [known[found[0]]]
    found = difflib.get_close_matches(got, known, n=1)
    alike = [name for name in known if got[:_ALIKE] == name[:_ALIKE]] if len(got) >= _ALIKE else []
    if alike and not set(found) & set(alike):
        found = difflib.get_close_matches(got, alike, n=3, cutoff=0.0)
    return [known[name] for name in found]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is too little memory: Python's and NumPy's are MemoryErrors; torch has a class
    for devices only, and libraries that map files have none, so these are known by their texts.

    Example:
        >>> (
        ...     out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        ...     out_of_memory(RuntimeError("no")),
        ... )
        (True, False)
    """
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def dtypes_differ(error: BaseException) -> bool:
    """Whether an error of torch means that tensors of different dtypes met; torch has no class for these.

    Example:
        >>> dtypes_differ(
        ...     RuntimeError(
        ...         "mat1 and mat2 must have the same dtype, but got Float and BFloat16"
        ...     )
        ... )
        True
    """
    return type(error) is RuntimeError and bool(_DTYPES.search(str(error)))


def too_little_memory(purpose: str, error: BaseException) -> OutOfMemoryError:
    """The error where there was too little memory: for what, and how much was requested if the cause states it.

    Example:
        >>> print(
        ...     too_little_memory(
        ...         "to read 'a.npy'", MemoryError("Unable to allocate 8. GiB for an array")
        ...     )
        ... )
        There is too little memory to read 'a.npy': 8. GiB were requested.
    """
    amount = _AMOUNT.search(str(error))
    return OutOfMemoryError(
        f"There is too little memory {purpose}" + (f": {amount[1]} were requested." if amount else ".")
    )


class explained:
    """What to do about errors of torch that a score function, or what is around it, raises: when memory runs out, a
    note on torch's own; when a network has another dtype than it receives, looks up what its table does not have,
    was compiled for a single backward pass, or was made in inference mode, an error with torch's as its cause.

    Example:
        >>> with explained(torch.ones(1, 2)):
        ...     torch.nn.Embedding(2, 3)(torch.tensor([5]))
        Traceback (most recent call last):
        scoresde.core.errors.ScoreFnError: A table has no row for an index (index out of range in self), ...
    """

    def __init__(self, x: Any, shape: object = None) -> None:
        self.x, self.shape = x, shape

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, RuntimeError | MemoryError | IndexError):
            _explain(error, getattr(self.x, "shape", self.shape))


def _explain(error: RuntimeError | MemoryError | IndexError, shape: Any) -> None:
    if isinstance(error, IndexError):
        if any(text in str(error) for text in _BEYOND):
            raise ScoreFnError(
                f"A table has no row for an index ({error}), most likely that of an embedding in the network: labels "
                "in `context` count from 0, and a network that takes the index of a level is "
                'ScoreModel(net, chain.sde(), "noise", time_input="index", chain=chain).'
            ) from error
        return
    if out_of_memory(error) and hasattr(error, "add_note"):
        error.add_note(f"It ran out of memory with shape {shape and tuple(shape)}; use a smaller batch.")
    if dtypes_differ(error):
        reason = str(error).partition("\n")[0]
        raise ScoreFnError(
            "The network in the score function seems to have another dtype than the state or the context that it "
            f"receives ({reason}). Give the module itself, as "
            "ScoreModel(net, sde, …), which calls an nn.Module in its own dtype, or cast inside, as "
            "lambda x, t: net(x.to(dtype), t.to(dtype)).float(); context must have the network's dtype."
        ) from error
    if "donated buffers" in str(error):
        raise ScoreFnError(
            "The network in the score function was compiled for a single backward pass, and this takes several; "
            "give the module without torch.compile, or compile it after torch._functorch.config.donated_buffer = "
            "False."
        ) from error
    if "Inference tensors cannot be saved for backward" in str(error):
        raise ScoreFnError(
            "The network in the score function was made, or its weights were loaded, within "
            "torch.inference_mode(), and this needs a gradient; make or load it outside."
        ) from error
