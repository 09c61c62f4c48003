"""A table of likelihoods that is killed at any moment, and what the same command makes of the rest."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

import scoresde.likelihood
from scoresde.cli._batches import batches
from scoresde.errors import OutputError
from scoresde.files.locks import locked
from scoresde.files.writing import extend

Run = Callable[..., Result]
Files = Callable[[], list[str]]
COMMAND = ("likelihood", "data.npz", "--levels", 17, "--batch-size", 2, "--probes", 2)
TABLE, SIDECAR, JOURNAL = Path("likelihood.csv"), Path("likelihood.csv.json"), Path("likelihood.csv.partial")

posix = pytest.mark.skipif(os.name != "posix", reason="forks and signals of POSIX")


@pytest.fixture
def solved(fake: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Likelihoods that cost nothing and are functions of the data and the seeds; the sizes of the batches asked for.
    Sample 3 fails."""
    sizes: list[int] = []

    def log_likelihood(sde: Any, score_fn: Any, x: torch.Tensor, *, seeds: list[int], **kwargs: Any) -> Any:
        sizes.append(len(x))
        noise = torch.tensor([seed % 1000 / 7 for seed in seeds], dtype=torch.float64)
        log_prob = x.flatten(1).double().sum(1) * 1e-3 + noise
        bad = x.flatten(1).mean(1) > 0.5
        log_prob = torch.where(bad, torch.nan, log_prob)
        return scoresde.Likelihood(
            log_prob=log_prob,
            std_error=log_prob.abs() / 3,
            paths=log_prob[:, None],
            solver_error=log_prob,
            latent=x,
            prior_log_prob=-log_prob,
            nfe=torch.arange(len(x)) + 7,
            products=1,
            status=torch.where(bad, 3, 0),
        )

    monkeypatch.setattr(scoresde.likelihood, "log_likelihood", log_likelihood)
    grey = np.random.default_rng(0).integers(0, 9, (7, 1, 8, 8))
    grey[3] = 16
    np.savez("data.npz", x=grey)
    return sizes


@pytest.fixture
def whole(run: Run, solved: list[int], files: Files) -> tuple[bytes, bytes]:
    """What an uninterrupted run writes."""
    assert run(*COMMAND).exit_code == 3
    assert solved == [2, 2, 2, 1]
    content = TABLE.read_bytes(), SIDECAR.read_bytes()
    TABLE.unlink()
    SIDECAR.unlink()
    assert files() == ["data.npz"]
    solved.clear()
    return content


def finished(files: Files, whole: tuple[bytes, bytes]) -> bool:
    assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]
    return (TABLE.read_bytes(), SIDECAR.read_bytes()) == whole


@pytest.mark.parametrize("done", range(4))
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_batch_is_all_that_is_lost(
    run: Run, solved: list[int], files: Files, whole: Any, monkeypatch: pytest.MonkeyPatch, done: int, error: Any
) -> None:
    good = scoresde.likelihood.log_likelihood

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if len(solved) == done:
            raise error("a bug" if error is RuntimeError else "")
        return good(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(scoresde.likelihood, "log_likelihood", interrupted)
        result = run(*COMMAND)
    assert files() == (["data.npz", JOURNAL.name] if done else ["data.npz"])
    if error is KeyboardInterrupt:
        kept = f"{2 * done} of 7 rows are kept, the same command resumes" if done else "no row is kept"
        assert result.exit_code == 75 and kept in result.output
    else:
        assert result.exit_code == 1
    result = run(*COMMAND)
    assert result.exit_code == 3 and finished(files, whole)
    assert solved == [2, 2, 2, 1]  # no batch twice
    assert (f"{2 * done} of them were there" in result.output) == bool(done)


@posix
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["fsync", "replace", "unlink", "extend"])
def test_killed_at_every_point(run: Run, solved: list[int], files: Files, whole: Any, point: str, when: str) -> None:
    """SIGKILL at the first, second, ... call that changes the disk, until a run has no more of them: nothing is left of
    it but the identical table."""
    reached = 0
    for hit in itertools.count(1):
        child = os.fork()
        if not child:
            _killed_at(point, when, hit)
            os._exit(run(*COMMAND).exit_code)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 3
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        reached += 1
        solved.clear()
        assert run(*COMMAND).exit_code == 3
        assert finished(files, whole)
        for path in (TABLE, SIDECAR):
            path.unlink()
    assert finished(files, whole)
    # the header and four batches; two files and their folder; what is removed of them, of a trial file and the journal
    assert reached == {"fsync": 9, "replace": 2, "unlink": 4, "extend": 5}[point]


def _killed_at(point: str, when: str, hit: int) -> None:
    """In a child process: the end comes before or after a call of a function of the system."""
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

    if point == "extend":
        import scoresde.cli._table as table

        table.extend = kill(extend)
    else:
        for place in {os, getattr(pathlib, "_normal_accessor", os)}:  # where the paths of Python 3.10 look
            if hasattr(place, point):
                setattr(place, point, kill(getattr(place, point)))


def test_a_journal_that_ends_anywhere(run: Run, solved: list[int], files: Files, whole: Any) -> None:
    """A row that is torn, and those after the last whole batch, are made again."""
    journal = _journal(run, solved, 4)
    body = len(journal) - len(journal.partition(b"\n")[2])
    for length in [*range(0, body, 211), *range(body - 1, len(journal), 19), len(journal)]:
        JOURNAL.write_bytes(journal[:length])
        solved.clear()
        assert run(*COMMAND).exit_code == 3
        assert finished(files, whole)
        rows = journal[:length].count(b"\n") - 1
        assert sum(solved) == 7 - max(0, rows // 2 * 2)
        TABLE.unlink()
        SIDECAR.unlink()


@pytest.mark.parametrize(
    "tail", [b"\0" * 50, b"4,4,nonsense,,,,,success\n", b"9,9,1.0,1.0,1.0,1.0,7,success\n" * 2, b'4,"\n']
)
def test_what_is_no_row_is_made_again(run: Run, solved: list[int], files: Files, whole: Any, tail: bytes) -> None:
    JOURNAL.write_bytes(_journal(run, solved, 4) + tail)
    assert run(*COMMAND).exit_code == 3 and finished(files, whole)


def _journal(run: Run, solved: list[int], rows: int) -> bytes:
    """What a run leaves that is interrupted after some rows."""
    good = scoresde.likelihood.log_likelihood
    solved.clear()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if sum(solved) == rows:
            raise KeyboardInterrupt
        return good(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoresde.likelihood, "log_likelihood", interrupted)
        assert run(*COMMAND).exit_code == 75
    return JOURNAL.read_bytes()


# Other settings


CHANGES: list[tuple[tuple[object, ...], str]] = [
    (("--seed", 1), "seed: old 0, new 1"),
    (("--probes", 3), "probes: old 2, new 3"),
    (("--rtol", 1e-4), "rtol: old 1e-05, new 0.0001"),
    (("--sde", "ve"), "sde: old"),
    (("--label", 1), "label: old null, new 1"),
    (("--levels", 18), "levels: old 17, new 18"),
    (("--data-range", -1, 2), "data_range: old [-1.0, 1.0], new [-1.0, 2.0]"),
    (("--batch-size", 3), "batch_size: old 2, new 3"),
    (("--option", "order=3"), 'options: old {}, new {"order": 3}'),
    (("--model", "other"), 'model: old "digits", new "other"'),
    (("--method", "rk45"), 'method: old "adams", new "rk45"'),
    (("--divergence", "exact"), 'divergence: old "hutchinson", new "exact"'),
]


@pytest.mark.parametrize("state", ["begun", "finished"])
@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_other_settings_are_refused(
    run: Run, solved: list[int], files: Files, change: Any, said: str, state: str
) -> None:
    if state == "begun":
        _journal(run, solved, 4)
    else:
        assert run(*COMMAND).exit_code == 3
    before = {name: Path(name).read_bytes() for name in files()}
    solved.clear()
    result = run(*COMMAND, *change)
    assert result.exit_code == 2, result.output
    assert f"other settings: {said}" in result.output and "--force" in result.output
    assert {name: Path(name).read_bytes() for name in files()} == before and not solved
    assert run(*COMMAND, *change, "--force").exit_code == 3
    assert sum(solved) == 7 and files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


@pytest.mark.parametrize("state", ["begun", "finished"])
def test_other_data_and_weights_are_refused(run: Run, fake: Any, solved: list[int], state: str) -> None:
    fake.net = torch.nn.Linear(2, 1)
    if state == "begun":
        _journal(run, solved, 4)
    else:
        assert run(*COMMAND).exit_code == 3
    with torch.no_grad():
        fake.net.weight += 1e-3
    result = run(*COMMAND)
    assert result.exit_code == 2 and "other settings: weights: old" in result.output
    with torch.no_grad():
        fake.net.weight -= 1e-3
    fake.config.data = "others"
    assert "other settings: weights: old" in run(*COMMAND).output
    with np.load("data.npz") as content:
        x = content["x"]
    x[0, 0, 0, 0] += 1
    np.savez("data.npz", x=x)
    result = run(*COMMAND)
    assert result.exit_code == 2 and "data: old" in result.output


def test_a_finished_table_is_not_made_again(run: Run, solved: list[int], files: Files, whole: Any) -> None:
    first = run(*COMMAND)
    solved.clear()
    times = {name: Path(name).stat().st_mtime_ns for name in files()}
    again = run(*COMMAND)
    assert again.exit_code == 3 and not solved and "7 of them were there" in again.output
    assert again.output.splitlines()[:4] == first.output.splitlines()[:4]
    assert {name: Path(name).stat().st_mtime_ns for name in files()} == times


def test_tables_of_others_are_not_touched(run: Run, solved: list[int], files: Files) -> None:
    TABLE.write_bytes(b"mine")
    result = run(*COMMAND)
    assert result.exit_code == 2 and "no likelihood.csv.json says what made it" in result.output
    SIDECAR.write_bytes(b"[]")
    assert run(*COMMAND).exit_code == 2
    SIDECAR.unlink()
    JOURNAL.write_bytes(b"mine\n")
    TABLE.unlink()
    result = run(*COMMAND)
    assert result.exit_code == 2 and "is not a journal of this command" in result.output
    assert JOURNAL.read_bytes() == b"mine\n" and not solved
    assert run(*COMMAND, "--force").exit_code == 3
    assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


def test_a_table_that_was_edited_is_refused(run: Run, solved: list[int]) -> None:
    assert run(*COMMAND).exit_code == 3
    TABLE.write_bytes(TABLE.read_bytes() + b"\n")
    result = run(*COMMAND)
    assert result.exit_code == 2 and "was changed since it was written" in result.output


def test_overwrite_keeps_the_old_table_until_the_new_one_is_there(run: Run, solved: list[int], whole: Any) -> None:
    assert run(*COMMAND).exit_code == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoresde.likelihood, "log_likelihood", _interrupt)
        assert run(*COMMAND, "--seed", 1, "--force").exit_code == 75
    assert (TABLE.read_bytes(), SIDECAR.read_bytes()) == whole
    assert run(*COMMAND).exit_code == 3


def test_a_journal_without_its_first_line_does_not_replace_a_table(run: Run, solved: list[int], files: Files) -> None:
    """A run was killed before it had written anything."""
    assert run(*COMMAND).exit_code == 3
    for begun in (b"", b'{"settings": {"sco'):
        JOURNAL.write_bytes(begun)
        result = run(*COMMAND, "--seed", 1)
        assert result.exit_code == 2 and "seed: old 0, new 1" in result.output
        assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


def _interrupt(*args: Any, **kwargs: Any) -> Any:
    raise KeyboardInterrupt


# Disks and other processes


@pytest.mark.parametrize("hit", [1, 2, 4, 6, 8])
def test_a_full_disk(run: Run, solved: list[int], files: Files, whole: Any, hit: int) -> None:
    """At the header, a batch, the last batch, the settings, the table: what was done is kept, and goes on."""
    fsync, count = os.fsync, itertools.count(1)

    def full(descriptor: int) -> None:
        if next(count) >= hit:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = run(*COMMAND)
    assert result.exit_code == 4, result.output
    assert "No space left on device" in result.output and not TABLE.exists()
    kept = min(2 * (hit - 2), 7) if hit < 6 else 7
    assert (f"{kept} of 7 rows are kept" if kept > 0 else "no row is kept") in result.output
    solved.clear()
    assert run(*COMMAND).exit_code == 3 and finished(files, whole)
    assert sum(solved) <= 7 - max(0, kept)


@posix
def test_two_runs_at_once(run: Run, solved: list[int], files: Files, whole: Any) -> None:
    with locked(JOURNAL):
        result = run(*COMMAND)
        assert result.exit_code == 4 and "Another process is writing" in result.output and not solved
    assert run(*COMMAND).exit_code == 3 and finished(files, whole)


@posix
def test_a_lock_on_a_file_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    flock = fcntl.flock

    def late(file: Any, operation: int) -> None:
        (tmp_path / "a").unlink(missing_ok=True)  # the other process was done between our opening and our asking
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OutputError, match="Another process"):
        with locked(tmp_path / "a"):
            pass


def test_the_settings_tell_what_made_the_table(run: Run, solved: list[int]) -> None:
    assert run(*COMMAND).exit_code == 3
    record = json.loads(SIDECAR.read_text())
    assert record["settings"]["scoresde"] == scoresde.__version__ and record["settings"]["num"] == 7
    assert len(record["sha256"]) == len(record["settings"]["data"]) == len(record["settings"]["weights"]) == 64


def test_batches_end_where_a_run_is_taken_up_again() -> None:
    """Where memory allows two samples per batch, blocks of five are made of 2, 2 and 1, from wherever it goes on."""

    def run(first: int, count: int, show: Any) -> tuple[int, int]:
        if count > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return first, count

    whole = list(batches(run, 12, 5, "", True))
    assert whole == [(0, 2), (2, 2), (4, 1), (5, 2), (7, 2), (9, 1), (10, 2)]
    assert list(batches(run, 12, 5, "", True, 5)) == whole[3:]
