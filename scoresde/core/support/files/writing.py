"""Files that are there completely or not at all.

`check_target` says before the work whether a file can be written; `write_bytes` writes it under a temporary name in the
same folder, brings it to the disk, and renames it. Whatever happens in between, the old file or none is what is left.

`extend` is for a journal, which grows by whole records: what a kill left of the last one is cut off by the next.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ...errors import OutputError
from .paths import reason

_BYTES = 8  # of chance in the name of a temporary file


@contextlib.contextmanager
def writable(path: str | os.PathLike[str], size: int = 0) -> Iterator[None]:
    """Say in one way that a file or folder cannot be written, and what room there is if that is why.

    Args:
        path: of the file or folder.
        size: the bytes that are to be written.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> with writable("no/such/folder/a.txt"):
        ...     Path("no/such/folder/a.txt").write_text("content")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.OutputError: [Errno 2] The output cannot be written: No such file or directory: ...
    """
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or errno.EINVAL
        room = ""
        if number in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
                room = f"; {size:,} bytes are needed, {free:,} are free"
        text = f"The output cannot be written: {reason(error)}{room}"
        raise OutputError(number, text, os.fspath(path)) from error


def check_target(path: str | os.PathLike[str]) -> Path:
    """Refuse a path where no file can be written; nothing is left there, and a file that is there stays as it is.

    Returns:
        Where the file will be: a symbolic link is followed, so that it still points to the file.

    Raises:
        OutputError: the folder is missing or not a folder or cannot be written; or the path is a folder or a device.

    Example:
        >>> check_target("no/such/folder/samples.png")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.OutputError: [Errno 2] The output folder does not exist; make it first: 'no/such/folder'
    """
    folder = Path(path).parent
    with writable(path):
        target = Path(os.path.realpath(path))
        if not target.parent.exists():
            raise OutputError(errno.ENOENT, "The output folder does not exist; make it first", str(folder))
        if not target.parent.is_dir():
            raise OutputError(errno.ENOTDIR, "The output folder is a file", str(folder))
        if target.is_dir():
            raise OutputError(
                errno.EISDIR,
                f"The output is a folder; name a file in it, such as {Path(path) / 'samples.png'}",
                str(path),
            )
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise OutputError(errno.EINVAL, "The output is a device or a pipe, not a file", str(path))
        with _temporary(target) as (descriptor, _):
            os.close(descriptor)
    return target


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
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
    write_together({path: content})


def write_together(contents: Mapping[str | os.PathLike[str], bytes]) -> None:
    """Write files completely or not at all, and none before all of them are on the disk under temporary names; they are
    renamed in their order.

    Raises:
        OutputError: they could not be written; what was there before is still there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_together(
        ...         {Path(folder, "a.txt"): b"one", Path(folder, "b.txt"): b"two"}
        ...     )
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['a.txt', 'b.txt']
    """
    size = sum(map(len, contents.values()))
    with writable(next(iter(contents)), size), contextlib.ExitStack() as temporaries:
        ready = []
        for path, content in contents.items():
            target = Path(os.path.realpath(path))
            descriptor, temporary = temporaries.enter_context(_temporary(target))
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            ready.append((temporary, target))
        for temporary, target in ready:
            os.replace(temporary, target)
            _sync_folder(target.parent)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those that it is in, where they are missing.

    Raises:
        OutputError: it cannot be made.

    Example:
        >>> make_folder(".")
    """
    with writable(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Lines of comma-separated values: numbers with all of their digits, nothing for None.

    Example:
        >>> csv_text([("a", 0.1, None)])
        'a,0.1,\n'
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


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
    with writable(path, len(content)), open(path, "r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


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
