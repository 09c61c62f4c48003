"""A table of likelihoods that is interrupted or killed at any moment, and what the same command makes of the rest."""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde.likelihood
from scoresde.core.support.files.locks import locked
from tests.cli.common import Files, Run, expect

COMMAND = ("likelihood", "data.npz", "--levels", 17, "--batch-size", 2, "--probes", 2)
TABLE, SIDECAR, JOURNAL = Path("likelihood.csv"), Path("likelihood.csv.json"), Path("likelihood.csv.partial")

posix = pytest.mark.skipif(os.name != "posix", reason="forks and signals of POSIX")


@pytest.fixture(autouse=True)
def data(solved: list[Any]) -> None:
    """Seven samples, of which number 3 fails."""
    x = np.random.default_rng(0).integers(0, 9, (7, 1, 8, 8))
    x[3] = 16
    np.savez("data.npz", x=x)


@pytest.fixture
def whole(run: Run, solved: list[Any], files: Files) -> tuple[bytes, bytes]:
    """What an uninterrupted run writes."""
    expect(run(*COMMAND), 3)
    content = TABLE.read_bytes(), SIDECAR.read_bytes()
    remove()
    assert sizes(solved) == [2, 2, 2, 1] and files() == ["data.npz"]
    solved.clear()
    return content


def sizes(solved: list[Any]) -> list[int]:
    return [len(call.x) for call in solved]


def remove() -> None:
    TABLE.unlink()
    SIDECAR.unlink()


def finished(files: Files, whole: tuple[bytes, bytes]) -> bool:
    assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]
    return (TABLE.read_bytes(), SIDECAR.read_bytes()) == whole


@contextmanager
def stopping(solved: list[Any], samples: int, error: BaseException | None = None) -> Iterator[None]:
    """The command is interrupted, or fails, once there are so many samples."""
    good = scoresde.likelihood.log_likelihood

    def stopped(*args: Any, **kwargs: Any) -> Any:
        if sum(sizes(solved)) >= samples:
            raise error or KeyboardInterrupt
        return good(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoresde.likelihood, "log_likelihood", stopped)
        yield


def journal(run: Run, solved: list[Any], samples: int = 4) -> bytes:
    """What a run leaves that is interrupted after some samples."""
    solved.clear()
    with stopping(solved, samples):
        expect(run(*COMMAND), 75)
    return JOURNAL.read_bytes()


@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_interrupt_loses_one_batch(run: Run, solved: list[Any], files: Files, whole: Any, done: int) -> None:
    for error in (KeyboardInterrupt(), RuntimeError("a bug")):
        for stop in [2 * done] if done < 3 else [2, 6]:  # the second one comes after rows that were taken up
            with stopping(solved, stop, error):
                result = run(*COMMAND)
        assert files() == (["data.npz", JOURNAL.name] if done else ["data.npz"])
        if isinstance(error, KeyboardInterrupt):
            kept = f"{2 * done} of 7 rows are kept, the same command resumes" if done else "no row is kept"
            expect(result, 75, kept)
        else:
            assert result.exit_code == 1 and result.exception is error
        text = expect(run(*COMMAND), 3)
        assert finished(files, whole) and sizes(solved) == [2, 2, 2, 1]  # no batch twice
        assert (f"{2 * done} of them were there" in text) == bool(done)
        solved.clear()
        remove()


def killed(run: Run, point: str, when: str, hit: int) -> bool:
    """Whether SIGKILL came: before or after a call of a function of the system that changes the disk."""
    child = os.fork()
    if not child:
        count = itertools.count(1)

        def kill(original: Any) -> Any:
            def called(*args: Any, **kwargs: Any) -> Any:
                now = next(count) == hit
                if now and when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    return original(*args, **kwargs)
                finally:
                    if now:
                        os.kill(os.getpid(), signal.SIGKILL)

            return called

        for place in {os, getattr(pathlib, "_normal_accessor", os)}:  # where the paths of Python 3.10 look
            if hasattr(place, point):
                setattr(place, point, kill(getattr(place, point)))
        os._exit(run(*COMMAND).exit_code)
    _, status = os.waitpid(child, 0)
    assert (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3) or os.WTERMSIG(status) == signal.SIGKILL
    return not os.WIFEXITED(status)


@posix
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("point", "calls"),  # of the header and four batches, two files and their folder; what is removed
    [("fsync", 9), ("replace", 2), ("unlink", 4), pytest.param("every fsync", 9, marks=pytest.mark.slow)],
)
def test_killed_at_every_point(run: Run, files: Files, whole: Any, point: str, calls: int) -> None:
    """Nothing is left of it but the identical table."""
    hits = range(1, calls + 1) if point.startswith("every") else sorted({1, calls // 2, calls})
    for hit, when in itertools.product(hits, ("before", "after")):
        assert killed(run, point.split()[-1], when, hit), "there are fewer calls"
        expect(run(*COMMAND), 3)
        assert finished(files, whole), (hit, when)
        remove()
    assert not killed(run, point.split()[-1], "before", calls + 1)


def test_a_journal_that_ends_anywhere(run: Run, solved: list[Any], files: Files, whole: Any) -> None:
    """A row that is torn, what is no row, and rows after the last whole batch are made again."""
    whole_journal = journal(run, solved)
    ends = [i + 1 for i, byte in enumerate(whole_journal) if byte == ord("\n")]
    cut = [whole_journal[: end + shift] for end in [0, *ends] for shift in (-1, 0, 9)]
    tails = (b"\0" * 50, b"4,4,nonsense,,,,,success\n", b"9,9,1.0,1.0,1.0,1.0,7,success\n" * 2, b'4,"\n')
    for left in [*cut, *(whole_journal + tail for tail in tails)]:
        JOURNAL.write_bytes(left)
        solved.clear()
        expect(run(*COMMAND), 3)
        assert finished(files, whole), left
        done = left[: len(whole_journal)].count(b"\n") - 1
        assert sum(sizes(solved)) == 7 - max(0, done // 2 * 2), left
        remove()


CHANGES: list[tuple[tuple[object, ...], str]] = [
    (("--seed", 1), "seed: old 0, new 1"),
    (("--probes", 3), "probes: old 2, new 3"),
    (("--sde", "ve"), "sde: old"),
    (("--label", 1), "label: old null, new 1"),
    (("--batch-size", 3), "batch_size: old 2, new 3"),
    (("--method", "rk45"), 'method: old "adams", new "rk45"'),
]


@pytest.mark.parametrize("state", ["begun", "finished"])
def test_other_settings_are_refused(run: Run, fake: Any, solved: list[Any], files: Files, state: str) -> None:
    fake.net = torch.nn.Linear(2, 1)

    def prepared() -> dict[str, bytes]:
        if state == "begun":
            journal(run, solved)
        else:
            expect(run(*COMMAND), 3)
        solved.clear()
        return {name: Path(name).read_bytes() for name in files()}

    before = prepared()
    for change, said in CHANGES:
        expect(run(*COMMAND, *change), 2, f"other settings: {said}", "--force")
    with torch.no_grad():
        fake.net.weight += 1e-3
        expect(run(*COMMAND), 2, "other settings: weights: old")
        fake.net.weight -= 1e-3
    fake.config.data = "others"
    expect(run(*COMMAND), 2, "other settings: weights: old")
    assert {name: Path(name).read_bytes() for name in files()} == before and not solved
    expect(run(*COMMAND, "--seed", 1, "--force"), 3)
    assert sum(sizes(solved)) == 7 and files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]
    with np.load("data.npz") as content:
        x = content["x"]
    x[0, 0, 0, 0] += 1
    np.savez("data.npz", x=x)
    expect(run(*COMMAND, "--seed", 1), 2, "data: old")


def test_a_finished_table_is_not_made_again(run: Run, solved: list[Any], files: Files) -> None:
    first = run(*COMMAND)
    solved.clear()
    times = {name: Path(name).stat().st_mtime_ns for name in files()}
    again = run(*COMMAND)
    expect(again, 3, "7 of them were there")
    assert not solved and again.output.splitlines()[:4] == first.output.splitlines()[:4]
    assert {name: Path(name).stat().st_mtime_ns for name in files()} == times


def test_tables_of_others_are_not_touched(run: Run, solved: list[Any], files: Files) -> None:
    with locked(JOURNAL):
        expect(run(*COMMAND), 4, "Another process is writing")
    TABLE.write_bytes(b"mine")
    expect(run(*COMMAND), 2, "no likelihood.csv.json records what made it")
    SIDECAR.write_bytes(b"[]")
    expect(run(*COMMAND), 2)
    remove()
    JOURNAL.write_bytes(b"mine\n")
    expect(run(*COMMAND), 2, "is not a journal of this command")
    assert JOURNAL.read_bytes() == b"mine\n" and not solved
    expect(run(*COMMAND, "--force"), 3)
    assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]
    TABLE.write_bytes(TABLE.read_bytes() + b"\n")
    expect(run(*COMMAND), 2, "was changed since it was written")


def test_a_table_is_kept_until_all_is_there(run: Run, solved: list[Any], files: Files, whole: Any) -> None:
    """Neither one that --force begins, nor one without its first line, of a run that was killed before it had written
    anything."""
    expect(run(*COMMAND), 3)
    with stopping(solved, 0):
        expect(run(*COMMAND, "--seed", 1, "--force"), 75)
    assert finished(files, whole)
    for begun in (b"", b'{"settings": {"sco'):
        JOURNAL.write_bytes(begun)
        expect(run(*COMMAND, "--seed", 1), 2, "seed: old 0, new 1")
        assert finished(files, whole)


def test_a_full_disk(run: Run, solved: list[Any], files: Files, whole: Any) -> None:
    """At the header, a batch, the last batch, the settings, the table: what was done is kept, and goes on."""
    for hit in (1, 4, 8):
        fsync, count = os.fsync, itertools.count(1)

        def full(descriptor: int, hit: int = hit, count: Any = count, fsync: Any = fsync) -> None:
            if next(count) >= hit:
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", full)
            text = expect(run(*COMMAND), 4, "No space left on device")
        kept = min(2 * (hit - 2), 7) if hit < 6 else 7
        assert (f"{kept} of 7 rows are kept" if kept > 0 else "no row is kept") in text and not TABLE.exists()
        solved.clear()
        expect(run(*COMMAND), 3)
        assert finished(files, whole) and sum(sizes(solved)) <= 7 - max(0, kept), hit
        remove()


def test_batches_are_those_of_a_whole_run(run: Run, fake: Any, solved: list[Any], files: Files) -> None:
    """Where memory allows two samples per batch, blocks of five are made of 2, 2 and 1, from wherever it goes on."""
    np.savez("data.npz", x=np.zeros((12, 1, 8, 8)))
    command = ("likelihood", "data.npz", "--batch-size", 5)
    good = scoresde.likelihood.log_likelihood

    def scarce(sde: Any, score_fn: Any, x: torch.Tensor, **kwargs: Any) -> Any:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return good(sde, score_fn, x, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoresde.likelihood, "log_likelihood", scarce)
        expect(run(*command), 0)
        assert sizes(solved) == [2, 2, 1, 2, 2, 1, 2]
        seeds = [call.seeds for call in solved]
        remove()
        solved.clear()
        with stopping(solved, 5):
            expect(run(*command), 75)
        expect(run(*command), 0)
        assert [call.seeds for call in solved] == seeds
