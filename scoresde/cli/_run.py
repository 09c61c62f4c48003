"""What every command shares: options are declared as fields of records, which several commands may share, and have
values from ``--config FILE.toml``, too; errors become exit codes, and an interrupt leaves nothing behind.

A command has one record. In the help its own options come first, then those of the records that it is made of.

Example:
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SeedOptions:
    ...     seed: int = flag(0, "Seed of the noise.", min=0)
    >>> @dataclass(frozen=True, kw_only=True)
    ... class DrawOptions(SeedOptions):
    ...     seed: int = 7
    >>> [(option.name, option.default) for option in parameters_of(DrawOptions)]
    [('seed', 7), ('config', None)]
"""

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, get_type_hints

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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FAILED, USAGE, NUMERICAL, OUTPUT, MODEL, INTERRUPTED = 1, 2, 3, 4, 5, 75

_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((InvalidArgumentError, InvalidTypeError), USAGE),
    ((NonFiniteError, SolveFailedError, ScoreFnError), NUMERICAL),
    ((OutputError,), OUTPUT),
    ((CheckpointError,), MODEL),
)
_INFO = "typer"  # the key of a field's metadata


def flag(default: Any, help: str, *spellings: str, names: Iterable[str] = (), **more: Any) -> Any:
    """A field of a record that is an option. A record that is made of another one may give the field another default.

    Args:
        default: its value; ``...`` for an option that must be given.
        help: what ``--help`` says of it.
        *spellings: where they are not the field's name with dashes.
        names: what the shell completes it with.
        **more: as of `typer.Option`.
    """
    return _field(default, typer.Option(*spellings, help=help, autocompletion=_completion(names), **more))


def argument(default: Any, help: str, names: Iterable[str] = (), **more: Any) -> Any:
    """A field of a record that is an argument without a name; see `flag`."""
    return _field(default, typer.Argument(help=help, autocompletion=_completion(names), **more))


def _field(default: Any, info: Any) -> Any:
    return field(default=MISSING if default is ... else default, metadata={_INFO: info})


def _completion(names: Iterable[str]) -> Any:
    return (lambda incomplete: [name for name in names if name.startswith(incomplete)]) if names else None


def parameters_of(record: type) -> list[inspect.Parameter]:
    """The fields of a record, as parameters that typer understands, and ``config``."""
    infos: dict[str, Any] = {}
    for base in record.__mro__:
        for name in inspect.get_annotations(base):
            metadata = vars(base)["__dataclass_fields__"][name].metadata
            if metadata:
                infos.setdefault(name, metadata[_INFO])
    types = get_type_hints(record)
    defaults = {each.name: each.default for each in fields(record)}
    found = [_parameter(name, defaults[name], Annotated[types[name], info]) for name, info in infos.items()]
    return [*found, _parameter("config", None, Config)]


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def values(content: Mapping[str, Any], command: str, others: Iterable[str], names: Mapping[str, str]) -> dict[str, Any]:
    """The values that a file has for a command, as texts, since those of the command line are texts.

    Args:
        content: of the file: values for any command, and tables with the names of commands.
        command: its name.
        others: the names of all commands.
        names: of its options, without the dashes, and of their parameters.

    Raises:
        ValueError: the command has no such option, or its value is none that a command line has.

    Example:
        >>> values(
        ...     {"seed": 3, "sample": {"steps": 5, "option": {"eta": 0.5}}, "train": {}},
        ...     "sample",
        ...     ["sample", "train"],
        ...     {"seed": "seed", "steps": "steps", "option": "option"},
        ... )
        {'seed': '3', 'steps': '5', 'option': ['eta=0.5']}
    """
    shared = {key: value for key, value in content.items() if key not in others}
    own = content.get(command, {})
    if not isinstance(own, Mapping):
        raise ValueError(f"{command!r} must be a table, [{command}]")
    found = {}
    for key, value in {**shared, **own}.items():
        option = key.replace("_", "-")
        if option not in names:
            raise ValueError(f"{command!r} has no option {key!r}; it has {', '.join(sorted(names))}")
        found[names[option]] = _text(key, value)
    return found


def _text(key: str, value: Any) -> str | list[str]:
    if isinstance(value, Mapping):
        return [f"{inner}={_text(key, v)}" for inner, v in value.items()]
    if isinstance(value, list):
        return [str(_text(key, v)) for v in value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"{key!r} must be a number, a text, true or false, or a list of them, got {value!r}")


def _read(ctx: typer.Context, path: Path | None) -> None:
    """Let the values of the file stand where the command line has none."""
    if path is None or ctx.resilient_parsing:
        return
    names = {
        text[2:]: parameter.name
        for parameter in ctx.command.params
        for text in parameter.opts
        if text.startswith("--") and parameter.name not in ("config", "help")
    }
    parent = ctx.parent
    others = [] if parent is None else list(getattr(parent.command, "commands", {}))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(1 << 20)
            if file.read(1):  # no settings, and a device such as /dev/full has no end
                raise ValueError("the file has more than 1 MiB")
        content = tomllib.loads(text)
        found = values(content, ctx.info_name or "", others, names)
    except (OSError, ValueError, RecursionError) as error:  # a TOMLDecodeError is a ValueError
        raise typer.BadParameter(f"{str(path)!r}: {getattr(error, 'strerror', None) or error}.") from None
    ctx.default_map = {**(ctx.default_map or {}), **found}


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        is_eager=True,
        callback=_read,
        help="Values of options, such as steps = 20; those under [sample] are for that command only. Options on the "
        "command line take precedence.",
    ),
]


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
