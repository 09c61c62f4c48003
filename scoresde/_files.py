"""Files that are there completely or not at all.

`check_target` says before the work whether a file can be written; `write_bytes` writes it under a temporary name in the
same folder, brings it to the disk, and renames it. Whatever happens in between, the old file or none is what is left.

`extend` is for a journal, which grows by whole records: what a kill left of the last one is cut off by the next.
`locked` holds a file, and `owned` a folder, against other processes. `readable` tells of input that cannot be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from .errors import InvalidArgumentError, InvalidTypeError, OutputError, out_of_memory, short, too_little_memory

LOCK = ".lock"  # of a folder
_BYTES = 8  # of chance in the name of a temporary file
_LONGEST = 200  # characters that a lock may say of its holder
_held: set[IO[bytes]] = set()
if hasattr(os, "register_at_fork"):  # or a worker that survives its parent would go on holding what that held
    os.register_at_fork(after_in_child=lambda: [file.close() for file in _held])


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
            raise InvalidArgumentError(f"`{name}` must be a path, got {short(text)}: {_reason(error)}.") from None
    return Path(text)


def _reason(error: Exception) -> str:
    """Why a path cannot be used, without the path."""
    return str(getattr(error, "strerror", None) or error)


def check_target(path: str | os.PathLike[str]) -> Path:
    """Refuse a path where no file can be written; nothing is left there, and a file that is there stays as it is.

    Returns:
        Where the file will be: a symbolic link is followed, so that it goes on pointing to the file.

    Raises:
        OutputError: the folder is missing or not a folder or cannot be written; or the path is a folder or a device.

    Example:
        >>> check_target("no/such/folder/samples.png")
        Traceback (most recent call last):
        ...
        scoresde.errors.OutputError: [Errno 2] The output folder does not exist, make it first: 'no/such/folder'
    """
    folder = Path(path).parent
    try:
        target = Path(os.path.realpath(path))
        if not target.parent.exists():
            raise OutputError(errno.ENOENT, "The output folder does not exist, make it first", str(folder))
        if not target.parent.is_dir():
            raise OutputError(errno.ENOTDIR, "The output folder is a file", str(folder))
        if target.is_dir():
            raise OutputError(
                errno.EISDIR,
                f"The output is a folder, name a file in it such as {Path(path) / 'samples.png'}",
                str(path),
            )
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise OutputError(errno.EINVAL, "The output is a device or a pipe, not a file", str(path))
        with _temporary(target) as (descriptor, _):
            os.close(descriptor)
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise _failure(error, path, 0) from error
    return target


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file completely or not at all.

    Raises:
        OutputError: it could not be written; what was there before is still there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes(Path(folder, "a.txt"), b"whole")
        ...     [(file.name, file.read_bytes()) for file in Path(folder).iterdir()]
        [('a.txt', b'whole')]
    """
    try:
        target = Path(os.path.realpath(path))
        with _temporary(target) as (descriptor, name):
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        _sync_folder(target.parent)
    except (OSError, ValueError) as error:
        raise _failure(error, path, len(content)) from error


def extend(path: str | os.PathLike[str], size: int, content: bytes) -> None:
    """Write content behind the first ``size`` bytes of a file, and bring it to the disk; what was there is dropped.

    Raises:
        OutputError: it could not be written; the first ``size`` bytes are as they were.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes(Path(folder, "a.txt"), b"one tw")
        ...     extend(Path(folder, "a.txt"), 4, b"two")
        ...     Path(folder, "a.txt").read_bytes()
        b'one two'
    """
    try:
        with open(path, "r+b") as file:
            file.truncate(size)
            file.seek(size)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        raise _failure(error, path, len(content)) from error


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file, made if it is not there, against other processes that ask for it here, where the system can; a lock
    ends with its process.

    Raises:
        OutputError: another process holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "a.txt")):
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    try:
        file = open(path, "ab")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise _failure(error, path, 0) from error
    with file, contextlib.ExitStack() as held:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.callback(fcntl.flock, file, fcntl.LOCK_UN)
            _held.add(file)
            held.callback(_held.discard, file)
            same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except ImportError:
            file.close()  # such systems do not remove an open file
            same = True
        except (BlockingIOError, FileNotFoundError):
            same = False
        except OSError:  # a file system without locks
            same = True
        if not same:
            raise OutputError(errno.EBUSY, "Another process is writing this file; let it finish", os.fspath(path))
        yield


@contextlib.contextmanager
def owned(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder, made if it is not there, against other runs that ask for it here, where the system can. While it
    is held, its file ``.lock`` says by whom; a killed process leaves the file, but not the lock. A folder that was made
    for it and is empty at the end is removed.

    Raises:
        OutputError: another run holds it, or it cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, owned(Path(folder, "run")):
        ...     Path(folder, "run", ".lock").read_text().startswith(f"process {os.getpid()} on ")
        True
    """
    path = Path(folder)
    lock = path / LOCK
    try:
        missing = [place for place in (path, *path.parents) if not place.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _failure(error, folder, 0) from error
    with contextlib.ExitStack() as held:
        held.callback(_remove_empty, missing)
        try:
            held.enter_context(locked(lock))
        except OutputError as error:
            if error.errno != errno.EBUSY:
                raise
            raise OutputError(
                errno.EBUSY,
                f"Another run writes to this folder{_holder(lock)}; let it finish, or take another folder",
                os.fspath(folder),
            ) from None
        held.callback(lock.unlink, missing_ok=True)
        with contextlib.suppress(OSError):
            now = datetime.now(timezone.utc).isoformat(" ", "seconds")
            lock.write_text(f"process {os.getpid()} on {platform.node()} since {now}\n", encoding="utf-8")
        yield


def _holder(lock: Path) -> str:
    """Who holds a lock, as far as it says so."""
    with contextlib.suppress(OSError, ValueError), lock.open(encoding="utf-8") as file:
        text = file.read(_LONGEST).strip()
        return f" ({text})" if text.isprintable() and text else ""
    return ""


def _remove_empty(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def remove_temporaries(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process left of a file; for one that nobody else writes, see `locked`.

    Example:
        >>> remove_temporaries("no/such/folder/a.txt")
    """
    target = Path(os.path.realpath(path))
    beginning = f".{target.name[:100]}."
    with contextlib.suppress(OSError):
        for entry in list(target.parent.iterdir()):
            middle = entry.name[len(beginning) : -len(".tmp")]
            if entry.name == f"{beginning}{middle}.tmp" and len(middle) == 2 * _BYTES:
                entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[int, Path]]:
    """A new file beside the target, with the permissions that the user's files get; removed if it is still there."""
    name = target.with_name(f".{target.name[:100]}.{secrets.token_hex(_BYTES)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(name, flags, 0o666)
    try:
        yield descriptor, name
    finally:
        name.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the rename to the disk, where the system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # the file is complete; some file systems refuse to sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _failure(error: OSError | ValueError, path: str | os.PathLike[str], size: int) -> OutputError:
    number = getattr(error, "errno", None) or errno.EINVAL
    reason = _reason(error)
    room = ""
    if number in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
            room = f"; {size:,} bytes are needed, {free:,} are free"
    return OutputError(number, f"The output cannot be written: {reason}{room}", os.fspath(path))


@contextlib.contextmanager
def readable(path: Path, name: str = "data") -> Iterator[None]:
    """Say in one way that the file of an argument cannot be read, of the many in which libraries do.

    Raises:
        InvalidArgumentError: it cannot be read.
        OutOfMemoryError: there is too little memory for it.
    """
    import zipfile
    import zlib

    from PIL.Image import DecompressionBombError
    from safetensors import SafetensorError

    broken = (
        *(OSError, ValueError, EOFError, RuntimeError, NotImplementedError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error, SafetensorError, DecompressionBombError),
    )
    try:
        yield
    except InvalidArgumentError:
        raise
    except (MemoryError, *broken) as error:
        if out_of_memory(error):
            raise too_little_memory(f"to read `{name}` {str(path)!r}", error) from error
        lines = _reason(error).splitlines() or [type(error).__name__]
        hint = " A pickle can run code and is refused; save numbers." if "allow_pickle" in str(error) else ""
        raise InvalidArgumentError(f"`{name}` {str(path)!r} cannot be read: {lines[0].rstrip('.')}.{hint}") from None
