"""Files and folders that are held against other processes."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from ...errors import OutputError
from .writing import writable

LOCK = ".lock"  # of a folder
_LONGEST = 200  # characters that a lock may say of its holder
_held: set[IO[bytes]] = set()
if hasattr(os, "register_at_fork"):  # or a worker that survives its parent would go on holding what that held
    os.register_at_fork(after_in_child=lambda: [file.close() for file in _held])


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file, made if it is not there, against other processes that use this function, where the system can; a
    lock ends with its process.

    Raises:
        OutputError: another process holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "a.txt")):
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    with writable(path):
        file = open(path, "ab")  # noqa: SIM115
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
    """Hold a folder, made if it is not there, against other runs that use this function, where the system can. While it
    is held, its file ``.lock`` says by whom; a killed process leaves the file, but not the lock. A folder that was made
    for it and is empty at the end is removed.

    Raises:
        OutputError: another run holds it, or it cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, owned(Path(folder, "run")):
        ...     Path(folder, "run", ".lock").read_text().startswith(
        ...         f"process {os.getpid()} on "
        ...     )
        True
    """
    path = Path(folder)
    lock = path / LOCK
    with writable(folder):
        missing = [place for place in (path, *path.parents) if not place.exists()]
        path.mkdir(parents=True, exist_ok=True)
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
    """The holder of a lock, as far as the lock names it."""
    with contextlib.suppress(OSError, ValueError), lock.open(encoding="utf-8") as file:
        text = file.read(_LONGEST).strip()
        return f" ({text})" if text.isprintable() and text else ""
    return ""


def _remove_empty(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
