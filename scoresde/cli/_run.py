"""What every command shares: errors become exit codes, and an interrupt leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, ParamSpec

import typer

from ..errors import (
    CheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    NonFiniteError,
    OutputError,
    ScoreFnError,
    ScoreSDEError,
    SolveFailedError,
)

FAILED, USAGE, NUMERICAL, OUTPUT, MODEL, INTERRUPTED = 1, 2, 3, 4, 5, 75

P = ParamSpec("P")

_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((InvalidArgumentError, InvalidTypeError), USAGE),
    ((NonFiniteError, SolveFailedError, ScoreFnError), NUMERICAL),
    ((OutputError,), OUTPUT),
    ((CheckpointError,), MODEL),
)


def exit_code(error: BaseException) -> int:
    """The exit code of an error.

    Example:
        >>> exit_code(InvalidArgumentError("no")), exit_code(OutputError("no")), exit_code(MemoryError("no"))
        (2, 4, 1)
    """
    return next((code for classes, code in _CODES if isinstance(error, classes)), FAILED)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function a command: its errors end it with a line on standard error and their exit code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _terminable():
                function(*args, **kwargs)
        except (ScoreSDEError, MemoryError) as error:
            _fail(str(error), exit_code(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has had enough, as in `scoresde methods | head -3`
                raise
            _fail(f"The output cannot be written: {error}", OUTPUT)
        except KeyboardInterrupt as error:
            _fail(str(error) or "Interrupted; no partial file is left. The same command starts again.", INTERRUPTED)

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
def _terminable() -> Iterator[None]:
    """While it runs, SIGTERM is an interrupt as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
