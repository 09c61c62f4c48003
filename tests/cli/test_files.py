"""Files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from scoresde.core.errors import OutputError
from scoresde.core.support.files.locks import locked, owned
from scoresde.core.support.files.writing import check_target, extend, write_bytes


def test_extend_drops_what_is_behind(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one and more")
    extend(path, 3, b" two")
    assert path.read_bytes() == b"one two"
    with pytest.raises(OutputError):
        extend(tmp_path / "missing", 0, b"")
    with pytest.raises(OutputError):
        extend(tmp_path, 0, b"")


def test_a_lock_excludes_and_ends(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    for _ in range(2):
        with locked(tmp_path / "a"):
            with pytest.raises(OutputError) as caught:
                with locked(tmp_path / "a"):
                    pass
            assert caught.value.errno == errno.EBUSY
    with pytest.raises(OutputError):
        with locked(tmp_path / "missing" / "a"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("hold", [locked, owned])
def test_a_lock_ends_with_its_process_though_a_child_of_it_lives(tmp_path: Path, hold: Any) -> None:
    """As the workers of a loader do for some seconds."""
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with hold(tmp_path / "a"):
            if not os.fork():  # by now it has closed what it inherited
                os.write(writer, os.getpid().to_bytes(8, "big"))
            signal.pause()
    child = int.from_bytes(os.read(reader, 8), "big")
    try:
        with pytest.raises(OutputError):
            with hold(tmp_path / "a"):
                pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.kill(child, 0)  # it lives
        with hold(tmp_path / "a"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_a_folder_has_one_owner_who_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    here = rf"Another run .*\(process {os.getpid()} on .* since 2.*\)"
    for i, left in enumerate((b"", b"process 1 on \x1b[2J", b"process 7 on here\n")):
        top = tmp_path / str(i)
        top.mkdir()
        folder = top / "a" / "b"
        for _ in range(2):
            with owned(folder):
                with pytest.raises(OutputError, match=here) as caught:
                    with owned(folder):
                        pass
                assert caught.value.errno == errno.EBUSY
                (folder / ".lock").write_bytes(left)
                named = r"folder \(process 7 on here\);" if b"7" in left else "folder; let"
                with pytest.raises(OutputError, match=named):
                    with owned(folder):
                        pass
            assert list(top.iterdir()) == []  # the folders that were made for it
        folder.mkdir(parents=True)
        (folder / ".lock").write_bytes(left)  # of a process that was killed
        with owned(folder):
            (folder / "result").touch()
        assert [path.name for path in folder.iterdir()] == ["result"]
        with pytest.raises(OutputError):
            with owned(folder / "result"):
                pass


def test_write_replaces_completely_and_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"first", b"2", b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "b").write_bytes(b"")
    assert len({stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}) == 1


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(Path("folder", "file"))
    write_bytes(check_target(tmp_path / "link"), b"a")
    write_bytes(tmp_path / "link", b"b")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_bytes() == b"b"
    (tmp_path / "folder" / "file").unlink()
    (tmp_path / "folder").rmdir()
    with pytest.raises(OutputError):
        check_target(tmp_path / "link")


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/full")
    for name, number in (
        ("missing/a", errno.ENOENT),
        ("file/a", errno.ENOTDIR),
        ("folder", errno.EISDIR),
        ("device", errno.EINVAL),
        ("n" * 300, errno.ENAMETOOLONG),
    ):
        with pytest.raises(OutputError) as caught:
            check_target(tmp_path / name)
        assert caught.value.errno == number and isinstance(caught.value, OSError)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_whatever_fails_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(descriptor: int, mode: str) -> IO[bytes]:
        os.close(descriptor)
        return open("/dev/full", "wb")

    def fails(error: BaseException) -> Callable[..., None]:
        def fail(*arguments: Any) -> None:
            raise error

        return fail

    space = OSError(errno.ENOSPC, "No space left on device")
    broken = [(name, fails(error)) for name in ("fsync", "replace") for error in (space, KeyboardInterrupt())]
    for name, function in [("fdopen", full), *broken]:
        with monkeypatch.context() as patch:
            patch.setattr(os, name, function)
            with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
                write_bytes(tmp_path / "a", b"new")
        if isinstance(caught.value, OutputError):
            assert caught.value.errno == errno.ENOSPC and "3 bytes are needed" in str(caught.value), name
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() == b"old"
