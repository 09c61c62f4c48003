"""Paths that a system could have, and input files that can be read, or an error that says why not."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import InvalidArgumentError, InvalidTypeError, out_of_memory, short, too_little_memory


def check_path(name: str, path: object) -> Path:
    """Return a path that a system could have, or say what is wrong with it.

    Raises:
        InvalidTypeError: it is neither text nor a path.
        InvalidArgumentError: it is empty, too long, or holds what no path can.

    Example:
        >>> check_path("path", "runs/a").name
        'a'
    """
    if isinstance(path, type) or not isinstance(path, str | os.PathLike):
        raise InvalidTypeError(f"`{name}` must be a path, such as 'runs/a', got {short(path)}.")
    try:
        text = os.fspath(path)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"`{name}` must be a path, got {type(path).__name__}: {error}.") from None
    if not text:
        raise InvalidArgumentError(f"`{name}` must be a path, got an empty one; '.' is this folder.")
    try:
        os.lstat(text)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            raise InvalidArgumentError(f"`{name}` must be a path, got {short(text)}: {reason(error)}.") from None
    return Path(text)


def reason(error: Exception) -> str:
    """Why a path cannot be used, without the path."""
    return str(getattr(error, "strerror", None) or error)


@contextlib.contextmanager
def readable(path: Path, name: str = "data") -> Iterator[None]:
    """Say in one way that the file of an argument cannot be read, of the many in which libraries do.

    Raises:
        InvalidArgumentError: it cannot be read.
        OutOfMemoryError: there is too little memory for it.
    """
    import tokenize  # NumPy reads the header of an array as Python does
    import zipfile
    import zlib

    from PIL.Image import DecompressionBombError
    from safetensors import SafetensorError

    broken = (
        *(OSError, ValueError, EOFError, RuntimeError, NotImplementedError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, SafetensorError, DecompressionBombError),
    )
    try:
        yield
    except InvalidArgumentError:
        raise
    except (MemoryError, *broken) as error:
        if out_of_memory(error):
            raise too_little_memory(f"to read `{name}` {str(path)!r}", error) from error
        lines = reason(error).splitlines() or [type(error).__name__]
        hint = " A pickle can run code and is refused; save numbers." if "allow_pickle" in str(error) else ""
        raise InvalidArgumentError(f"`{name}` {str(path)!r} cannot be read: {lines[0].rstrip('.')}.{hint}") from None
