"""Leases: who works on which part, so that processes on any machines divide work without talking to each other.

A lease is a file. It saves work and nothing else: two processes that hold one for the same part make the same bytes, so
that a lease which is lost, broken or taken over costs time only. Its holder changes the file as its work goes on; who
waits takes it over when it has seen the file unchanged for long enough by a clock of its own, so that the clocks of the
machines do not matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import OutputError
from .writing import make_folder, write_bytes

_BEAT = 5.0  # seconds between changes of a lease, at least
_BEATS = 4  # in the time after which it is taken over, at least
_DEAD = (b"Z", b"X")  # ended, though its parent has not noticed


@dataclass
class Lease:
    """A part that this process works on.

    Attributes:
        path: of the file.
        owner: what the file says of its holder.
        every: the seconds between changes, at least.
    """

    path: Path
    owner: dict[str, object]
    every: float = _BEAT
    _count: int = 0
    _last: float = field(default_factory=time.monotonic)

    def content(self) -> bytes:
        """What the file holds now."""
        return json.dumps({**self.owner, "beat": self._count}).encode()

    def beat(self) -> None:
        """Say that the work goes on; costs nothing if it was said some seconds ago."""
        if time.monotonic() - self._last >= self.every:
            self._count, self._last = self._count + 1, time.monotonic()
            self.write()

    def write(self) -> None:
        """Write the file, where that is possible: work goes on without it."""
        with contextlib.suppress(OutputError):
            write_bytes(self.path, self.content())

    def release(self) -> None:
        """Give the part back, unless another process has taken it over."""
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == self.content():
                self.path.unlink(missing_ok=True)


class Leases:
    """The leases in a folder, as one process sees them.

    Args:
        folder: it is made when a lease is taken.
        patience: how long a lease may stay unchanged, in seconds, before it is taken over. That of a process which is
            known to have ended, because it was on this machine, is taken over at once.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mine = Leases(Path(folder), 60.0).take("7")
        ...     nobody_else = Leases(Path(folder), 60.0).take("7")
        ...     mine.release()
        >>> mine is not None, nobody_else
        (True, None)
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder, self.patience = folder, patience
        self._seen: dict[str, tuple[bytes, float]] = {}  # what the others' files held, and since when

    def take(self, name: str) -> Lease | None:
        """The lease of a part, or None while another process works on it."""
        owner = {**_here(), "token": secrets.token_hex(8)}
        lease = Lease(self.folder / f"{name}.json", owner, min(_BEAT, self.patience / _BEATS))
        make_folder(self.folder)
        try:
            with open(lease.path, "xb") as file:
                file.write(lease.content())
        except FileExistsError:
            if not self._abandoned(name, lease.path):
                return None
            lease.write()
        except OSError:  # a full disk, or the folder has gone with the leases of a complete set
            with contextlib.suppress(OSError):
                lease.path.unlink(missing_ok=True)
        self._seen.pop(name, None)
        return lease

    def _abandoned(self, name: str, path: Path) -> bool:
        """Whether a lease has not changed for too long, or its holder has ended."""
        content = b""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return True
        except OSError:  # wait, as for one that does not change
            pass
        now = time.monotonic()
        before, since = self._seen.setdefault(name, (content, now))
        if content != before:
            self._seen[name] = (content, now)
            return _ended(content)
        return now - since >= self.patience or _ended(content)


def _here() -> dict[str, object]:
    """What identifies this process: machine, number and start, since numbers are used again."""
    return {"host": platform.node(), "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str:
    """When a process of this machine was started, in its own unit; empty if it has ended, or where that is unknown."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return "" if fields[0] in _DEAD else fields[19].decode()
    return ""


def _ended(content: bytes) -> bool:
    """Whether the holder was a process of this machine that is no longer there."""
    try:
        owner = json.loads(content)
        process, started = int(owner["process"]), str(owner["started"])
        same = owner["host"] == platform.node()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return False  # half written, or damaged: wait
    return same and bool(started) and _started(process) != started
