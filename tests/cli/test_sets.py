"""Sets of samples from the command line: what is written, continued, verified and refused."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import Result

import scoresde
from scoresde.cli import app
from scoresde.generation import Samples

Run = Callable[..., Result]


@pytest.fixture
def ddim(typed: Run) -> Run:
    """Runs `scoresde sample` with 10 steps of ddim."""
    return lambda *arguments: typed("sample", "--method", "ddim", "--steps", 10, *arguments)


def contents(folder: str) -> dict[str, bytes]:
    """All files of a set but leases, which nobody holds."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    assert not [name for name in found if name.endswith(".tmp") or "leases" in name]
    return found


def test_a_set_has_the_samples_of_single_files(ddim: Run, fake: Any) -> None:
    assert ddim("--count", 10, "--shard-size", 4, "--batch-size", 2, "--out", "set/").exit_code == 0
    assert ddim("--count", 3, "--first", 5, "--batch-size", 3, "--out", "a.npz").exit_code == 0
    data = Samples("set")
    with np.load("a.npz") as alone:
        assert alone["index"].tolist() == [5, 6, 7]
        assert json.loads(str(alone["metadata"]))["first"] == 5
        for row, index in enumerate(alone["index"]):
            assert np.allclose(data[int(index)]["x"].numpy(), alone["x"][row], atol=1e-5)
    assert len(data) == 10 and [int(data[i]["index"]) for i in range(10)] == list(range(10))
    assert [p.name for p in sorted(Path("set/shards").iterdir())] == [f"0000000{i}.safetensors" for i in range(3)]


def test_the_same_command_continues_and_repairs(ddim: Run, fake: Any) -> None:
    command = ("--count", 10, "--shard-size", 4, "--batch-size", 4, "--out", "set/")
    first = ddim(*command)
    assert first.exit_code == 0 and "shards: 3, of which 3 were made now" in first.output, first.output
    whole = contents("set")
    again = ddim(*command)
    assert "shards: 3, of which 0 were made now" in again.output and contents("set") == whole
    Path("set/shards/00000001.safetensors").write_bytes(b"damaged")
    Path("set/records/00000002.json").unlink()
    assert "of which 2 were made now" in ddim(*command).output
    assert contents("set") == whole


def test_only_what_is_asked_for_is_extended(ddim: Run, fake: Any) -> None:
    settings = ("--shard-size", 4, "--batch-size", 4, "--out", "set/")
    assert ddim("--count", 6, *settings).exit_code == 0
    refused = ddim("--count", 10, *settings)
    assert refused.exit_code == 2 and "extend" in refused.output
    assert ddim("--count", 10, "--extend", *settings).exit_code == 0
    assert ddim("--count", 10, "--shard-size", 4, "--batch-size", 4, "--out", "plain/").exit_code == 0
    assert contents("set") == contents("plain")
    other = ddim("--count", 10, "--seed", 1, *settings)
    assert other.exit_code == 2 and "its seed is 0, not 1" in other.output.replace("\n", " ")


def test_verify_reads_all_of_it(ddim: Run, run: Run, fake: Any) -> None:
    assert ddim("--count", 10, "--shard-size", 4, "--format", "npz", "--out", "set/").exit_code == 0
    assert "all 10 samples are there" in run("verify", "set").output
    file = Path("set/shards/00000001.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    found = run("verify", "set")
    assert found.exit_code == 5 and "1 shards of 'set' are missing or damaged: 1" in found.output.replace("\n", " ")
    assert run("verify", "nowhere").exit_code == 5


def test_failures_are_kept_and_counted(ddim: Run, run: Run, fake: Any) -> None:
    fake.change = lambda s, x, t: s.clone().index_fill(0, torch.tensor([1]), torch.nan)
    command = ("--count", 8, "--shard-size", 4, "--batch-size", 4, "--out", "set/")
    stopped = ddim(*command)
    assert stopped.exit_code == 3 and "sample 1 at t=" in stopped.output.replace("\n", " "), stopped.output
    done = ddim(*command, "--max-failures", 0.25)
    assert done.exit_code == 0 and "failed samples: 2" in done.output, done.output
    data = Samples("set")
    bad = [i for i in range(8) if not bool(torch.isfinite(data[i]["x"]).all())]
    assert bad == [1, 5] and [int(data[i]["status"]) for i in bad] == [scoresde.Status.NON_FINITE] * 2
    assert "2 samples failed" in run("verify", "set").output


def test_the_classes_are_kept(typed: Run) -> None:
    command = ("--model", "digits", "--label", "all", "--method", "ddim", "--steps", 2, "--count", 25)
    assert typed("sample", *command, "--shard-size", 12, "--out", "set/").exit_code == 0
    data = Samples("set")
    assert [int(data[i]["label"]) for i in range(25)] == [i % 10 for i in range(25)]
    alone = typed("sample", *command[:-1], 1, "--first", 17, "--batch-size", 12, "--out", "a.npz")
    assert alone.exit_code == 0, alone.output
    with np.load("a.npz") as found:
        assert np.allclose(found["x"][0], data[17]["x"].numpy(), atol=1e-4)


@pytest.mark.parametrize(("kind", "files"), [("png", 11), ("tar", 2)])
def test_pictures(ddim: Run, fake: Any, kind: str, files: int) -> None:
    assert ddim("--count", 9, "--shard-size", 5, "--format", kind, "--out", "set/").exit_code == 0
    names = sorted(p.name for p in Path("set/shards").iterdir())
    assert len(names) == files
    if kind == "tar":
        with tarfile.open("set/shards/00000001.tar") as archive:
            members = archive.getmembers()
        assert [m.name for m in members][:2] == ["000000000005.png", "000000000005.json"]
        assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
    else:
        assert names[-2:] == ["000000000008.png", "00000001.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.npz", "--shard-size", 4), "`out` must be a folder"),
        (("--out", "set/", "--format", "zip"), "`format`: unknown name 'zip'"),
        (("--out", "set/", "--format", "npz", "--force"), "`force` is not for sets"),
        (("--out", "set/", "--shard-size", 4, "--scale", 2), "`scale`"),
        (("--out", "set/", "--shard-size", 4, "--animate", "a.gif"), "`animate` is not for sets"),
        (("--out", "set/", "--shard-size", 4, "--tune"), "`tune` is not for sets"),
        (("--out", "a.npz", "--extend"), "`extend` and `max-failures` are for sets"),
        (("--out", "set/", "--max-failures", 0.5), "`extend` and `max-failures` are for sets"),
    ],
)
def test_what_does_not_fit_is_refused(ddim: Run, fake: Any, arguments: tuple[object, ...], message: str) -> None:
    result = ddim("--count", 3, *arguments)
    assert result.exit_code == 2 and message in result.output.replace("\n", " "), result.output
    assert not os.listdir()


def test_a_folder_with_other_files_is_left_alone(ddim: Run, fake: Any) -> None:
    Path("set").mkdir()
    Path("set/notes.txt").write_text("mine")
    result = ddim("--count", 3, "--shard-size", 4, "--out", "set/")
    assert result.exit_code == 4 and "files that are no set" in result.output.replace("\n", " ")
    assert os.listdir("set") == ["notes.txt"]


def test_torchrun_claims_no_option() -> None:
    """torchrun's parser also looks at what follows the program's name, and completes what is a beginning of its own
    options."""
    from torch.distributed.run import get_args_parser

    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    kept = {"--num", "--log"}  # old names, with --count and --logger beside them
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option not in kept:
                    clash = [other for other in theirs if other.startswith(option)]
                    assert not clash, f"scoresde {name} {option}: torchrun reads {clash}"


def test_ranks_begin_at_places_of_their_own(ddim: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rank does alone, with the others' work not done, is the whole set."""
    command = ("--count", 10, "--shard-size", 2, "--batch-size", 2)
    assert ddim(*command, "--out", "plain/").exit_code == 0
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    result = ddim(*command, "--out", "set/")
    assert result.exit_code == 0, result.output
    assert contents("set") == contents("plain")
    assert scoresde.generation.verify("set").complete


def test_a_set_is_no_folder_of_pictures(ddim: Run, fake: Any) -> None:
    assert ddim("--count", 3, "--shard-size", 4, "--out", "set/").exit_code == 0
    before = contents("set")
    for more in ((), ("--force",)):
        refused = ddim("--count", 3, "--out", "set/", *more)
        assert refused.exit_code == 2 and "is a set; continue it" in refused.output.replace("\n", " ")
    assert contents("set") == before


def test_where_a_model_and_a_method_lie_does_not_matter(typed: Run) -> None:
    model = scoresde.load("digits")
    scoresde.tune(model.sde, model.score(), 3, candidates=[("ddim", None)]).save("one.json")
    Path("two.json").write_bytes(Path("one.json").read_bytes())
    scoresde.save(model, "one")
    scoresde.save(model, "two")
    for name in ("one", "two"):
        command = ("--model", name, "--sde", "edm", "--method", f"{name}.json", "--count", 3, "--shard-size", 4)
        result = typed("sample", *command, "--out", "set/")
        assert result.exit_code == 0, result.output
    assert "of which 0 were made now" in result.output
