"""Outputs of several batches are kept in parts until they are written; and sets."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde
from scoresde.core.support.files.shards import Store
from scoresde.sets import Samples
from tests.cli.common import COMMANDS, Result, Run, arrays, column, expect, fails, loses, metadata, near

MEASURED = ("--operator", "block_average:factor=2", "--noise", 0.1, "--measurement", "y.npz", "--count", 6)


class Killed(BaseException):
    """What `kill` does."""


def dies_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    """The process ends when so many parts are there."""
    write = Store.write
    done: list[int] = []

    def writing(store: Store, *args: Any, **kwargs: Any) -> None:
        if len(done) == shards:
            raise Killed
        done.append(1)
        write(store, *args, **kwargs)

    monkeypatch.setattr(Store, "write", writing)


@pytest.mark.parametrize("out", ["a.npz", "a.safetensors", "a.png", "a/"])
def test_a_file_goes_on_where_it_was_killed(draw: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    command = ("--count", 11, "--batch-size", 2, "--first", 3, "--label", 1, "--out", out)
    with monkeypatch.context() as patch:
        dies_after(patch, 4)
        with pytest.raises(Killed):
            draw(*command)
    assert os.listdir() == [f"{out.rstrip('/')}.parts"]
    fake.calls = 0
    expect(draw(*command), 0)
    assert fake.calls == 2 * (5 + (out in ("a.png", "a/"))), "two of six batches were left"
    assert os.listdir() == [out.rstrip("/")]
    Path("whole").mkdir()
    expect(draw(*command[:-1], f"whole/{out}"), 0)
    for path in [Path(out)] if Path(out).is_file() else sorted(Path(out).iterdir()):
        assert path.read_bytes() == Path("whole", path).read_bytes()


def test_what_is_kept_of_samples_that_fail_and_of_an_interrupt(draw: Run, typed: Run, fake: Any) -> None:
    adaptive = ("sample", "--method", "rk45", "--rtol", 1e-5, "--atol", 1e-5, "--max-steps", 5, "--out", "a.npz")
    expect(typed(*adaptive, "--count", 4, "--first", 8), 3, "Failed: sample 8, 9, 10, 11; --first 8 --count 1")
    command = ("--count", 8, "--batch-size", 3, "--first", 5, "--out", "a.npz")
    fake.change = loses(1)
    expect(draw(*command), 3, "Failed: sample 6; --first 6 --count 1 draws")
    assert not os.listdir()
    fake.change, fake.calls = fails(KeyboardInterrupt(), lambda x: fake.calls == 8), 0
    text = expect(draw(*command), 75, "what is complete is kept in")
    assert "no partial file" not in text and os.listdir() == ["a.npz.parts"]


@pytest.mark.parametrize("other", [("--seed", 1), ("--batch-size", 9), ("--animate", "a.gif")])
def test_parts_of_other_options_are_removed(
    draw: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, other: tuple[object, ...]
) -> None:
    command = ("--count", 9, "--batch-size", 3, "--out", "a.npz")
    with monkeypatch.context() as patch:
        dies_after(patch, 1)
        with pytest.raises(Killed):
            draw(*command)
    assert os.listdir() == ["a.npz.parts"]
    expect(draw(*command, *other), 0)
    assert set(os.listdir()) - {"a.gif"} == {"a.npz"}


def test_an_output_that_has_come_meanwhile_is_kept(draw: Run, fake: Any) -> None:
    """And what was drawn is, too, for the same command with --force."""

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        Path("a.npz").write_bytes(b"of another command")
        return s

    fake.change = change
    command = ("--count", 9, "--batch-size", 3, "--out", "a.npz")
    expect(draw(*command), 4, "The file is there")
    assert Path("a.npz").read_bytes() == b"of another command"
    fake.calls = 0
    expect(draw(*command, "--force"), 0)
    assert fake.calls == 0 and os.listdir() == ["a.npz"]


def test_two_commands_do_not_share_parts(draw: Run, fake: Any) -> None:
    results: list[Result | None] = []
    command = ("--count", 9, "--batch-size", 3, "--out", "a.npz")

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if not results:
            results.append(None)  # only once
            results.append(draw(*command))
        return s

    fake.change = change
    expect(draw(*command), 0)
    assert results[1] is not None
    expect(results[1], 4, "Another command makes this output")
    assert os.listdir() == ["a.npz"]


def test_one_file_is_no_set_and_of_one_process(typed: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("x.npz", x=near(fake, 2))
    expect(typed("likelihood", "x.npz", "--out", "a/"), 2, "give --shard-size or --format")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command, out in (("sample", "out.npz"), ("likelihood", "out.csv"), ("encode", "out.npz")):
        data = () if command == "sample" else ("--data", "x.npz")
        expect(typed(command, *data, "--out", out), 2, "2 processes, of which this is number 1")
    assert os.listdir() == ["x.npz"]


def test_a_set_of_likelihoods_has_the_values_of_the_table(run: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 5))
    options = ("likelihood", "x.npz", "--rtol", 1e-2, "--atol", 1e-2, "--probes", 2, "--batch-size", 2)
    made = ("--shard-size", 3, "--out", "set/")
    said = ("log-likelihood: mean", "shards: 2, of which 2 were made now")
    expect(run(*options, *made), 0, *said)
    expect(run(*options, "--out", "table.csv"), 0)
    found = Samples("set").all()
    for name in ("log_prob", "std_error", "prior_log_prob"):
        assert np.allclose(found[name].numpy(), column(name, "table.csv"), atol=1e-3), name
    assert found["status"].tolist() == [0] * 5 and found["bits_per_dim"].isnan().all()
    expect(run(*options, *made), 0, "of which 0 were made now")


def test_a_set_of_latents_has_the_values_of_the_file(typed: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 7))
    options = ("encode", "--data", "x.npz", "--method", "heun", "--steps", 3, "--batch-size", 2)
    made = ("--shard-size", 4, "--format", "npz", "--out", "set")
    expect(typed(*options, *made), 0, "shards: 2, of which 2 were made now")
    expect(typed(*options, "--out", "a.npz"), 0)
    found, alone = Samples("set").all(), arrays("a.npz")
    assert np.allclose(found["latent"].numpy(), alone["latent"], atol=1e-4)
    assert found["nfe"].tolist() == alone["nfe"].tolist()


def test_failures_of_data_are_in_the_set_and_told(typed: Run, fake: Any) -> None:
    fake.change = lambda s, x, t: torch.where(x[:, :1, :1, :1] > 0, torch.nan, s)
    np.savez("x.npz", x=near(fake, 4))
    for command, name in (("likelihood", "log_prob"), ("encode", "latent")):
        options = ("x.npz", "--rtol", 1e-2, "--atol", 1e-2, "--shard-size", 2, "--out", f"{command}/")
        expect(typed(command, *options), 3, "samples failed")
        found = Samples(command).all()
        bad = found["status"] != scoresde.Status.SUCCESS
        assert bad.any() and found[name].isnan().reshape(4, -1).any(1).tolist() == bad.tolist(), command


@pytest.mark.parametrize(("inverse", "out"), [("mmps", "set/"), ("ddrm", "a.npz")])
def test_the_samples_of_several_measurements(typed: Run, fake: Any, inverse: str, out: str) -> None:
    """They are in turn."""
    ys = fake.means().numpy()[:, :, ::2, ::2]
    np.savez("y.npz", y=ys)
    method = ("--method", "ddim", "--steps", 8) if inverse == "mmps" else ()
    sharded = ("--shard-size", 3) if out == "set/" else ()
    options = (*method, *MEASURED, "--inverse", inverse, "--batch-size", 3)
    expect(typed("sample", *options, *sharded, "--out", out), 0)
    found = {k: v.numpy() for k, v in Samples("set").all().items()} if sharded else arrays(out)
    assert found["measurement"].tolist() == [0, 1] * 3
    coarse = found["x"].reshape(6, 1, 4, 2, 4, 2).mean((3, 5))
    for i in range(6):
        assert np.abs(coarse[i] - ys[i % 2]).mean() < 0.3 < np.abs(coarse[i] - ys[1 - i % 2]).mean()
    particles = typed("sample", *MEASURED, "--inverse", "twisted_smc", "--out", "b.npz")
    expect(particles, 2, "couples the samples of a batch")
    assert not Path("b.npz").exists()
    np.savez("y.npz", y=ys[:1])
    expect(typed("sample", *MEASURED, "--inverse", "twisted_smc", "--steps", 3, "--out", "b.npz"), 0)


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
        (("--out", "set/", "--format", "npz", "--force"), "`force` is not for sets"),
        (("--out", "set/", "--shard-size", 4, "--animate", "a.gif"), "`animate` is not for sets"),
        (("--out", "a.npz", "--extend"), "`extend` and `max-failures` are for sets"),
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


def test_where_a_model_and_a_method_lie_does_not_matter(typed: Run) -> None:
    model = scoresde.load("digits")
    scoresde.tune(model.sde, model.score(), 2, candidates=[("ddim", None)], pilot=4).save("one.json")
    Path("two.json").write_bytes(Path("one.json").read_bytes())
    scoresde.save(model, "one")
    scoresde.save(model, "two")
    for name, made in (("one", 1), ("two", 0)):
        command = ("--model", name, "--sde", "edm", "--method", f"{name}.json", "--count", 3, "--shard-size", 4)
        expect(typed("sample", *command, "--out", "set/"), 0, f"of which {made} were made now")
