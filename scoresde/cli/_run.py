"""What every command shares: errors become exit codes, and an interrupt leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn, get_type_hints

import typer

from ..core.errors import (
    CheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    NonFiniteError,
    OutputError,
    ScoreFnError,
    ScoreSDEError,
    SolveFailedError,
    out_of_memory,
    too_little_memory,
)
from ._parameters import flag, parameters_of

FAILED, USAGE, NUMERICAL, OUTPUT, MODEL, INTERRUPTED = 1, 2, 3, 4, 5, 75

_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((InvalidArgumentError, InvalidTypeError), USAGE),
    ((NonFiniteError, SolveFailedError, ScoreFnError), NUMERICAL),
    ((OutputError,), OUTPUT),
    ((CheckpointError,), MODEL),
)


@dataclass(frozen=True, kw_only=True)
class QuietOptions:
    """What a command prints."""

    quiet: bool = flag(False, "Print neither a progress bar nor a summary.", "--quiet", "-q")
    began: float = field(default_factory=time.perf_counter, init=False)

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line, in the first of the processes that torchrun has started, which speaks for all."""
        if not self.quiet and leads():
            typer.echo(text, err=err)

    @property
    def took(self) -> str:
        """The time since the command began."""
        return f"{time.perf_counter() - self.began:.1f} s"


def leads() -> bool:
    """Whether this is the first of the processes that torchrun has started."""
    from ..sets.making import place

    return place()[0] == 0


def exit_code(error: BaseException) -> int:
    """The exit code of an error.

    Example:
        >>> (
        ...     exit_code(InvalidArgumentError("no")),
        ...     exit_code(OutputError("no")),
        ...     exit_code(MemoryError("no")),
        ... )
        (2, 4, 1)
    """
    return next((code for classes, code in _CODES if isinstance(error, classes)), FAILED)


def command(function: Callable[[Any], None]) -> Callable[..., None]:
    """Make a function of a record of options a command: it takes ``--config``, too, and its errors end it with a line
    on standard error and their exit code."""
    record = get_type_hints(function)["options"]

    @functools.wraps(function)
    def run(config: object, **given: Any) -> None:  # the values of the file are those of the other options by now
        try:
            with _handling(_interrupt, signal.SIGTERM, signal.SIGINT):
                function(record(**given))
        except ScoreSDEError as error:
            _fail(str(error), exit_code(error))
        except (MemoryError, RuntimeError, OSError) as error:
            if out_of_memory(error):
                _fail(f"{too_little_memory('for this command', error)} Take smaller batches, or less data.", FAILED)
            if not isinstance(error, OSError) or error.errno == errno.EPIPE:
                raise  # a bug; or the reader has had enough, as in `scoresde methods | head -3`
            _fail(f"The output cannot be written: {error}", OUTPUT)
        except KeyboardInterrupt as error:
            _fail(str(error) or "Interrupted; no partial file is left. Run the same command again.", INTERRUPTED)

    vars(run)["__signature__"] = inspect.Signature(parameters_of(record))
    return run


def _fail(message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        typer.echo(f"Error: {message}", err=True)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # what standard output does not take is dropped, or the exit would try again
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(code)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """For work that stops by itself where it can go on: the first SIGINT or SIGTERM is only noted, the second one is an
    interrupt.

    Yields:
        Whether there was one.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)
        with contextlib.suppress(OSError):  # of standard error, which may be full or closed
            os.write(2, b"\nStopping where the same command can go on; a second signal stops at once.\n")

    try:
        with _handling(note, signal.SIGINT, signal.SIGTERM):
            yield lambda: bool(noted)
    except RuntimeError as error:
        if not noted or isinstance(error, ScoreSDEError):
            raise
        raise KeyboardInterrupt from error  # the signal ended a process that the work needs, too


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt, but not inside an import, which would be left half done: the signal comes again a little later."""
    here = frame
    while here is not None and not here.f_code.co_filename.startswith("<frozen importlib"):
        here = here.f_back
    if here is None:
        raise KeyboardInterrupt
    again = threading.Timer(0.05, signal.raise_signal, (number,))
    again.daemon = True
    again.start()


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """While it runs, signals that are not ignored have a handler."""
    with contextlib.ExitStack() as before:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before.callback(signal.signal, number, signal.signal(number, handler) or signal.SIG_DFL)
        yield
