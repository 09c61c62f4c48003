"""Leases: who works on which part, by clocks that do not agree, after deaths, and on broken files."""

from __future__ import annotations

import builtins
import errno
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scoresde.core.errors import OutputError
from scoresde.core.support.files.leases import Lease, Leases

PATIENCE = 100.0
proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc: it is not known who has ended")


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = float(int(time.monotonic()))  # so that sums with whole numbers are exact

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def taken(leases: Leases, name: str = "7") -> Lease:
    lease = leases.take(name)
    assert lease is not None
    return lease


def elsewhere(path: Path, beat: int = 0, **owner: object) -> None:
    """A lease of a process on another machine."""
    path.write_bytes(json.dumps({"host": "elsewhere", "process": 1, "started": "5", "beat": beat, **owner}).encode())


def test_one_holds_a_part(tmp_path: Path) -> None:
    mine, theirs = Leases(tmp_path / "leases", PATIENCE), Leases(tmp_path / "leases", PATIENCE)
    lease = taken(mine)
    assert theirs.take("7") is None and taken(theirs, "8") is not None
    lease.release()
    assert not lease.path.exists()
    assert taken(theirs) is not None and mine.take("7") is None
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        Leases(tmp_path / "file" / "leases", PATIENCE).take("1")


def test_who_makes_no_progress_is_relieved(tmp_path: Path, clock: Clock) -> None:
    """And the next holder gets the full time: what is known of a part is forgotten when it is taken."""
    waiting, path = Leases(tmp_path, PATIENCE), tmp_path / "7.json"
    elsewhere(path)
    assert waiting.take("7") is None
    for beat in range(1, 5):  # it goes on, slowly
        clock.now += PATIENCE - 1
        elsewhere(path, beat)
        assert waiting.take("7") is None
    clock.now += PATIENCE - 0.1
    assert waiting.take("7") is None
    clock.now += 0.2
    lease = taken(waiting)
    assert path.read_bytes() == lease.content()
    lease.release()
    elsewhere(path, 4)
    assert waiting.take("7") is None


def test_patience_begins_when_the_lease_is_seen_and_the_time_of_day_does_not_matter(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the age of the file, as another machine wrote it, and though the clock jumps: it is never read."""
    path = tmp_path / "7.json"
    elsewhere(path)
    os.utime(path, (0, 0))
    clock.now += 1e6
    waiting = Leases(tmp_path, PATIENCE)
    assert waiting.take("7") is None
    monkeypatch.setattr(time, "time", lambda: 1e12)
    os.utime(path, (2e9, 2e9))
    clock.now += PATIENCE / 2
    assert waiting.take("7") is None
    clock.now += PATIENCE
    assert waiting.take("7") is not None


def test_a_beat_changes_the_file_now_and_then(tmp_path: Path, clock: Clock) -> None:
    lease = taken(Leases(tmp_path, PATIENCE))
    contents = []
    for _ in range(21):
        clock.now += 1
        lease.beat()
        contents.append(lease.path.read_bytes())
    assert len(set(contents)) == 5 and contents[-1] == lease.content()
    for patience in (0.4, 4.0, 1000.0):  # however small it is, who works is not relieved
        lease, waiting = taken(Leases(tmp_path, patience), str(patience)), Leases(tmp_path, patience)
        for _ in range(60):
            clock.now += patience / 10
            lease.beat()
            assert waiting.take(str(patience)) is None


def test_a_lease_that_was_taken_over_is_not_given_back(tmp_path: Path, clock: Clock) -> None:
    mine, theirs = Leases(tmp_path, PATIENCE), Leases(tmp_path, PATIENCE)
    late = taken(mine)
    assert theirs.take("7") is None
    clock.now += PATIENCE
    lease = taken(theirs)
    late.release()
    assert lease.path.read_bytes() == lease.content()
    assert Leases(tmp_path, PATIENCE).take("7") is None
    lease.release()
    assert not lease.path.exists()


@proc
def test_an_ended_process_of_this_machine_is_relieved_at_once(tmp_path: Path) -> None:
    """A killed child that nobody has waited for, which stays in the list of processes, and one that is gone."""
    code = (
        "import sys; from pathlib import Path; from scoresde.core.support.files.leases import Leases;"
        "print(Leases(Path(sys.argv[1]), 100.0).take('7') is not None, flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout and child.stdout.readline() == "True\n"
        path = tmp_path / "7.json"
        content = json.loads(path.read_bytes())
        assert content["host"] == platform.node() and content["process"] == child.pid
        assert Leases(tmp_path, PATIENCE).take("7") is None
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        taken(Leases(tmp_path, PATIENCE)).release()
    finally:
        child.communicate()
    path.write_text(json.dumps({**content, "host": "elsewhere"}))
    assert Leases(tmp_path, PATIENCE).take("7") is None
    path.write_text(json.dumps(content))
    taken(Leases(tmp_path, PATIENCE))
    # this process has the number of the holder, but began at another time
    mine = json.loads(path.read_bytes())
    assert mine["process"] == os.getpid() and Leases(tmp_path, PATIENCE).take("7") is None
    path.write_text(json.dumps({**mine, "started": str(int(mine["started"]) - 1)}))
    assert Leases(tmp_path, PATIENCE).take("7") is not None


BROKEN = [b"", b'{"host": "a"', b"null", b"\xff\xfe", b"{}"]


def test_a_half_written_lease_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    for i, content in enumerate(BROKEN):
        (tmp_path / f"{i}.json").write_bytes(content)
        waiting = Leases(tmp_path, PATIENCE)
        assert waiting.take(f"{i}") is None, content[:20]
        clock.now += PATIENCE
        assert waiting.take(f"{i}") is not None, content[:20]


def test_a_folder_in_place_of_a_lease_and_leases_that_are_removed(tmp_path: Path, clock: Clock) -> None:
    """Work goes on without a lease that nobody can write."""
    (tmp_path / "7.json").mkdir()
    waiting = Leases(tmp_path, PATIENCE)
    assert waiting.take("7") is None
    clock.now += PATIENCE
    lease = taken(waiting)
    clock.now += PATIENCE
    lease.beat()
    lease.release()
    assert (tmp_path / "7.json").is_dir()
    leases = Leases(tmp_path / "leases", PATIENCE)
    lease = taken(leases)
    lease.path.unlink()
    lease.path.parent.rmdir()
    clock.now += PATIENCE
    lease.beat()
    lease.release()
    assert not lease.path.exists()


def test_disks_that_refuse(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease saves work, and stops none."""
    leases = Leases(tmp_path / "leases", PATIENCE)
    held = taken(leases, "6")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    for where, name in ((builtins, "open"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, refuse)
            clock.now += PATIENCE
            held.beat()
            lease = taken(leases, f"7{name}")
            lease.release()
        assert held.path.exists() and not lease.path.exists(), name


def test_many_take_at_once(tmp_path: Path) -> None:
    """Of several processes, one gets each part."""
    code = (
        "import sys; from pathlib import Path; from scoresde.core.support.files.leases import Leases; input();"
        "mine = [n for n in range(50) if Leases(Path(sys.argv[1]), 60.0).take(str(n))];"
        "print(*mine, flush=True); input()"
    )
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) for _ in range(3)]
    got: list[str] = []
    try:
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            got += child.stdout.readline().split()
    finally:
        for child in children:
            child.communicate("\n")
    assert sorted(map(int, got)) == list(range(50))
