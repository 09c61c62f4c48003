"""Sets of samples from the command line: what is written, continued, verified and refused."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde
from scoresde.generation import Samples
from tests.cli.common import COMMANDS, Run, arrays, expect, loses, metadata


def contents(folder: str) -> dict[str, bytes]:
    """All files of a set but leases, which nobody holds."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    assert not [name for name in found if name.endswith(".tmp") or "leases" in name]
    return found


def test_a_set_has_the_samples_of_single_files(draw: Run, fake: Any) -> None:
    expect(draw("--count", 10, "--shard-size", 4, "--batch-size", 2, "--label", "all", "--out", "set/"), 0)
    expect(draw("--count", 3, "--first", 5, "--batch-size", 3, "--label", "all", "--out", "a.npz"), 0)
    data, alone = Samples("set"), arrays("a.npz")
    assert alone["index"].tolist() == [5, 6, 7] and metadata("a.npz")["first"] == 5
    for row, index in enumerate(alone["index"]):
        assert np.allclose(data[int(index)]["x"].numpy(), alone["x"][row], atol=1e-5)
        assert int(data[int(index)]["label"]) == index % 2 == alone["label"][row]
    assert len(data) == 10 and [int(data[i]["index"]) for i in range(10)] == list(range(10))
    assert [p.name for p in sorted(Path("set/shards").iterdir())] == [f"0000000{i}.safetensors" for i in range(3)]


def test_the_same_command_continues_and_repairs(draw: Run, fake: Any) -> None:
    command = ("--count", 10, "--shard-size", 4, "--batch-size", 4, "--out", "set/")
    expect(draw(*command), 0, "shards: 3, of which 3 were made now")
    whole = contents("set")
    expect(draw(*command), 0, "shards: 3, of which 0 were made now")
    assert contents("set") == whole
    Path("set/shards/00000001.safetensors").write_bytes(b"damaged")
    Path("set/records/00000002.json").unlink()
    expect(draw(*command), 0, "of which 2 were made now")
    assert contents("set") == whole


def test_only_what_is_asked_for_is_extended(draw: Run, fake: Any) -> None:
    settings = ("--shard-size", 4, "--batch-size", 4, "--out")
    expect(draw("--count", 6, *settings, "set/"), 0)
    expect(draw("--count", 10, *settings, "set/"), 2, "extend")
    expect(draw("--count", 10, "--extend", *settings, "set/"), 0)
    expect(draw("--count", 10, *settings, "plain/"), 0)
    assert contents("set") == contents("plain")
    expect(draw("--count", 10, "--seed", 1, *settings, "set/"), 2, "its seed is 0, not 1")
    for more in ((), ("--force",)):
        expect(draw("--count", 3, "--out", "set/", *more), 2, "is a set; continue it")
    assert contents("set") == contents("plain")


def test_verify_reads_all_of_it(draw: Run, run: Run, fake: Any) -> None:
    expect(draw("--count", 10, "--shard-size", 4, "--format", "npz", "--out", "set/"), 0)
    expect(run("verify", "set"), 0, "all 10 samples are there")
    file = Path("set/shards/00000001.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    expect(run("verify", "set"), 5, "1 shards of 'set' are missing or damaged: 1")
    expect(run("verify", "nowhere"), 5)


def test_failures_are_kept_and_counted(draw: Run, run: Run, fake: Any) -> None:
    fake.change = loses(1)
    command = ("--count", 8, "--shard-size", 4, "--batch-size", 4, "--out", "set/")
    expect(draw(*command), 3, "sample 1 at t=")
    expect(draw(*command, "--max-failures", 0.25), 0, "failed samples: 2")
    data = Samples("set")
    bad = [i for i in range(8) if not bool(torch.isfinite(data[i]["x"]).all())]
    assert bad == [1, 5] and [int(data[i]["status"]) for i in bad] == [scoresde.Status.NON_FINITE] * 2
    expect(run("verify", "set"), 0, "2 samples failed")


def test_pictures(draw: Run, fake: Any) -> None:
    for kind, files in (("png", 11), ("tar", 2)):
        expect(draw("--count", 9, "--shard-size", 5, "--format", kind, "--out", f"{kind}/"), 0)
        names = sorted(p.name for p in Path(kind, "shards").iterdir())
        assert len(names) == files
        if kind == "png":
            assert names[-2:] == ["000000000008.png", "00000001.json"]
    with tarfile.open("tar/shards/00000001.tar") as archive:
        members = archive.getmembers()
    assert [m.name for m in members][:2] == ["000000000005.png", "000000000005.json"]
    assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}


def test_what_does_not_fit_is_refused(draw: Run, fake: Any) -> None:
    for arguments, said in (
        (("--out", "a.npz", "--shard-size", 4), "`out` must be a folder"),
        (("--out", "set/", "--format", "zip"), "`format`: unknown name 'zip'"),
        (("--out", "set/", "--format", "npz", "--force"), "`force` is not for sets"),
        (("--out", "set/", "--shard-size", 4, "--scale", 2), "`scale`"),
        (("--out", "set/", "--shard-size", 4, "--animate", "a.gif"), "`animate` is not for sets"),
        (("--out", "set/", "--shard-size", 4, "--tune"), "`tune` is not for sets"),
        (("--out", "a.npz", "--extend"), "`extend` and `max-failures` are for sets"),
        (("--out", "set/", "--max-failures", 0.5), "`extend` and `max-failures` are for sets"),
    ):
        expect(draw("--count", 3, *arguments), 2, said)
    assert not os.listdir()
    Path("set").mkdir()
    Path("set/notes.txt").write_text("mine")
    expect(draw("--count", 3, "--shard-size", 4, "--out", "set/"), 4, "files that are no set")
    assert os.listdir("set") == ["notes.txt"] and fake.calls == 0


def test_torchrun_claims_no_option() -> None:
    """torchrun's parser also looks at what follows the program's name, and completes what is a beginning of its own
    options."""
    from torch.distributed.run import get_args_parser

    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    kept = {"--num", "--log"}  # old names, with --count and --logger beside them
    for name, command in COMMANDS.commands.items():  # type: ignore[attr-defined]
        for option in {option for parameter in command.params for option in parameter.opts} - kept:
            clash = [other for other in theirs if option.startswith("--") and other.startswith(option)]
            assert not clash, f"scoresde {name} {option}: torchrun reads {clash}"


def test_ranks_begin_at_places_of_their_own(draw: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rank does alone, with the others' work not done, is the whole set."""
    command = ("--count", 10, "--shard-size", 2, "--batch-size", 2)
    expect(draw(*command, "--out", "plain/"), 0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    expect(draw(*command, "--out", "set/"), 0)
    assert contents("set") == contents("plain")
    assert scoresde.generation.verify("set").complete


def test_where_a_model_and_a_method_lie_does_not_matter(typed: Run) -> None:
    model = scoresde.load("digits")
    scoresde.tune(model.sde, model.score(), 2, candidates=[("ddim", None)], pilot=4).save("one.json")
    Path("two.json").write_bytes(Path("one.json").read_bytes())
    scoresde.save(model, "one")
    scoresde.save(model, "two")
    for name, made in (("one", 1), ("two", 0)):
        command = ("--model", name, "--sde", "edm", "--method", f"{name}.json", "--count", 3, "--shard-size", 4)
        expect(typed("sample", *command, "--out", "set/"), 0, f"of which {made} were made now")
