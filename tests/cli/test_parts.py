"""Outputs of several batches are kept in parts until they are written; sets of likelihoods, latents and posteriors."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

import scoresde
from scoresde.cli import _sets
from scoresde.files.shards import Store
from scoresde.generation import Samples

Run = Callable[..., Result]


@pytest.fixture
def ddim(typed: Run) -> Run:
    """Runs `scoresde sample` with 5 steps of ddim."""
    return lambda *arguments: typed("sample", "--method", "ddim", "--steps", 5, *arguments)


def near(fake: Any, count: int) -> np.ndarray:
    """Data of the fake model."""
    generator = torch.Generator().manual_seed(0)
    picked = fake.means()[torch.arange(count) % 2]
    return (picked + 0.05 * torch.randn(picked.shape, generator=generator)).numpy()


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
def test_a_file_goes_on_where_it_was_killed(ddim: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    command = ("--count", 11, "--batch-size", 2, "--first", 3, "--label", 1, "--out", out)
    with monkeypatch.context() as patch:
        dies_after(patch, 4)
        with pytest.raises(Killed):
            ddim(*command)
    assert os.listdir() == [f"{out.rstrip('/')}.parts"]
    fake.calls = 0
    result = ddim(*command)
    assert result.exit_code == 0, result.output
    assert fake.calls == 2 * (5 + (out in ("a.png", "a/"))), "two of six batches were left"
    assert os.listdir() == [out.rstrip("/")]
    Path("whole").mkdir()
    assert ddim(*command[:-1], f"whole/{out}").exit_code == 0
    for path in [Path(out)] if Path(out).is_file() else sorted(Path(out).iterdir()):
        assert path.read_bytes() == Path("whole", path).read_bytes()


def test_a_file_has_the_samples_of_any_batches(ddim: Run) -> None:
    for size, name in ((3, "a.npz"), (50, "b.npz")):
        result = ddim("--model", "digits", "--count", 10, "--label", "all", "--batch-size", size, "--out", name)
        assert result.exit_code == 0, result.output
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert set(a.files) == set(b.files) == {"x", "nfe", "label", "index", "metadata"}
        assert np.allclose(a["x"], b["x"], atol=1e-4) and a["label"].tolist() == list(range(10))
        assert a["index"].tolist() == b["index"].tolist() == list(range(10))


def test_parts_of_a_sample_that_failed_are_not_kept(ddim: Run, fake: Any) -> None:
    fake.change = lambda s, x, t: s.clone().index_fill(0, torch.tensor([1]), torch.nan)
    result = ddim("--count", 8, "--batch-size", 3, "--first", 5, "--out", "a.npz")
    text = result.output.replace("\n", " ")
    assert result.exit_code == 3 and "Failed: sample 6; --first 6 --count 1 draws" in text, result.output
    assert not os.listdir()


@pytest.mark.parametrize("other", [("--seed", 1), ("--batch-size", 9), ("--animate", "a.gif")])
def test_parts_of_other_options_are_removed(
    ddim: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, other: tuple[object, ...]
) -> None:
    with monkeypatch.context() as patch:
        dies_after(patch, 1)
        with pytest.raises(Killed):
            ddim("--count", 9, "--batch-size", 3, "--out", "a.npz")
    assert os.listdir() == ["a.npz.parts"]
    result = ddim("--count", 9, "--batch-size", 3, "--out", "a.npz", *other)
    assert result.exit_code == 0, result.output
    assert set(os.listdir()) - {"a.gif"} == {"a.npz"}


def test_an_output_that_has_come_meanwhile_is_kept(ddim: Run, fake: Any) -> None:
    """And what was drawn is, too, for the same command with --force."""

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        Path("a.npz").write_bytes(b"of another command")
        return s

    fake.change = change
    command = ("--count", 9, "--batch-size", 3, "--out", "a.npz")
    result = ddim(*command)
    assert result.exit_code == 4 and "The file is there" in result.output.replace("\n", " "), result.output
    assert Path("a.npz").read_bytes() == b"of another command"
    fake.calls = 0
    assert ddim(*command, "--force").exit_code == 0 and fake.calls == 0 and os.listdir() == ["a.npz"]


def test_an_interrupt_says_what_is_kept(ddim: Run, fake: Any) -> None:
    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if fake.calls == 8:
            raise KeyboardInterrupt
        return s

    fake.change = change
    result = ddim("--count", 9, "--batch-size", 3, "--out", "a.npz")
    text = result.output.replace("\n", " ")
    assert result.exit_code == 75 and "what is complete is kept in" in text and "no partial file" not in text
    assert os.listdir() == ["a.npz.parts"]


def test_what_is_refused_leaves_nothing(typed: Run, fake: Any) -> None:
    """Tolerances that the dtype does not have, and logs that cannot be."""
    adaptive = ("sample", "--method", "rk45", "--rtol", 1e-9, "--atol", 1e-9, "--count", 9, "--batch-size", 3)
    for out in (("--out", "a.npz"), ("--shard-size", 3, "--out", "set/")):
        result = typed(*adaptive, *out)
        assert result.exit_code == 2 and not os.listdir(), result.output
    for log, code in (("set/log", 2), ("no/log", 4)):
        result = typed("sample", "--count", 3, "--shard-size", 3, "--out", "set/", "--log-json", log)
        assert result.exit_code == code and not os.listdir(), result.output


def test_samples_that_do_not_arrive_are_named_by_their_indices(typed: Run, fake: Any) -> None:
    adaptive = ("--method", "rk45", "--rtol", 1e-5, "--atol", 1e-5, "--max-steps", 5)
    result = typed("sample", *adaptive, "--count", 4, "--first", 8, "--out", "a.npz")
    text = result.output.replace("\n", " ")
    assert result.exit_code == 3 and "Failed: sample 8, 9, 10, 11; --first 8 --count 1" in text, result.output


@pytest.mark.parametrize(("command", "out"), [("likelihood", "a/"), ("encode", "a/")])
def test_a_folder_without_a_set_is_refused(typed: Run, fake: Any, command: str, out: str) -> None:
    np.savez("x.npz", x=near(fake, 2))
    result = typed(command, "x.npz", "--out", out)
    assert result.exit_code == 2 and "give --shard-size or --format" in result.output.replace("\n", " ")
    result = typed(command, "x.npz", "--patience", 3)
    assert result.exit_code == 2 and "`patience` is for sets" in result.output.replace("\n", " ")


def test_two_commands_do_not_share_parts(ddim: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second ends at once, and leaves the first alone."""
    results: list[Result | None] = []
    command = ("--count", 9, "--batch-size", 3, "--out", "a.npz")
    show = fake.change

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if not results:
            results.append(None)  # only once
            results.append(ddim(*command))
        return show(s, x, t)

    fake.change = change
    assert ddim(*command).exit_code == 0
    assert results[1] is not None and results[1].exit_code == 4
    assert "Another command makes this output" in results[1].output.replace("\n", " ")
    assert os.listdir() == ["a.npz"]


@pytest.mark.parametrize("command", ["sample", "likelihood", "encode"])
def test_several_processes_do_not_write_one_file(
    run: Run, typed: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    np.savez("x.npz", x=near(fake, 2))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = () if command == "sample" else ("--data", "x.npz")
    result = typed(command, *data, "--out", "out.npz" if command != "likelihood" else "out.csv")
    assert result.exit_code == 2 and "2 processes, of which this is number 1" in result.output.replace("\n", " ")
    assert os.listdir() == ["x.npz"]


# Sets of other commands


def test_a_set_of_likelihoods_has_the_values_of_the_table(run: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 7))
    options = ("x.npz", "--rtol", 1e-3, "--atol", 1e-3, "--probes", 2, "--batch-size", 2)
    result = run("likelihood", *options, "--shard-size", 3, "--out", "set/", "--log-json", "log.jsonl")
    assert result.exit_code == 0 and "log-likelihood: mean" in result.output, result.output
    assert "shards: 3, of which 3 were made now" in result.output
    assert run("likelihood", *options, "--out", "table.csv").exit_code == 0
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    found = Samples("set").all()
    for name in ("log_prob", "std_error", "prior_log_prob"):
        assert np.allclose(found[name].numpy(), [float(row[name]) for row in rows], atol=1e-3), name
    assert found["status"].tolist() == [0] * 7 and found["bits_per_dim"].isnan().all()
    events = [json.loads(line)["event"] for line in Path("log.jsonl").read_text().splitlines()]
    assert events[0] == "start" and events[-1] == "end" and events.count("shard") == 3
    again = run("likelihood", *options, "--shard-size", 3, "--out", "set/")
    assert again.exit_code == 0 and "of which 0 were made now" in again.output
    other = run("likelihood", *options, "--seed", 1, "--shard-size", 3, "--out", "set/")
    assert other.exit_code == 2 and "its seed is 0, not 1" in other.output.replace("\n", " ")
    assert "all 7 samples are there" in run("verify", "set").output


def test_a_set_of_latents_has_the_values_of_the_file(typed: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 7))
    options = ("--data", "x.npz", "--method", "heun", "--steps", 5, "--batch-size", 2)
    result = typed("encode", *options, "--shard-size", 4, "--format", "npz", "--out", "set")
    assert result.exit_code == 0 and "shards: 2, of which 2 were made now" in result.output, result.output
    assert typed("encode", *options, "--out", "a.npz").exit_code == 0
    found = Samples("set").all()
    with np.load("a.npz") as alone:
        assert np.allclose(found["latent"].numpy(), alone["latent"], atol=1e-4)
        assert found["nfe"].tolist() == alone["nfe"].tolist()


@pytest.mark.parametrize("command", ["likelihood", "encode"])
def test_failures_of_data_are_in_the_set_and_told(typed: Run, fake: Any, command: str) -> None:
    fake.change = lambda s, x, t: torch.where(x[:, :1, :1, :1] > 0, torch.nan, s)
    np.savez("x.npz", x=near(fake, 4))
    result = typed(command, "x.npz", "--shard-size", 2, "--out", "set/")
    assert result.exit_code == 3 and "samples failed" in result.output.replace("\n", " "), result.output
    found = Samples("set").all()
    bad = found["status"] != scoresde.Status.SUCCESS
    values = found["log_prob" if command == "likelihood" else "latent"]
    assert bad.any() and values.isnan().reshape(4, -1).any(1).tolist() == bad.tolist()


@pytest.mark.parametrize("inverse", ["mmps", "ddrm"])
@pytest.mark.parametrize("out", ["set/", "a.npz"])
def test_the_samples_of_several_measurements(ddim: Run, typed: Run, fake: Any, inverse: str, out: str) -> None:
    """In turn; and those of one measurement alone are the same."""
    ys = fake.means().numpy()[:, :, ::2, ::2]
    np.savez("y.npz", y=ys)
    method = ("--method", "ddim", "--steps", 8) if inverse == "mmps" else ()
    options = (*method, "--operator", "block_average:factor=2", "--noise", 0.1, "--inverse", inverse, "--count", 6)
    sharded = ("--shard-size", 3) if out == "set/" else ()
    result = typed("sample", *options, "--measurement", "y.npz", "--batch-size", 3, *sharded, "--out", out)
    assert result.exit_code == 0, result.output
    if out == "set/":
        found = {name: value.numpy() for name, value in Samples("set").all().items()}
    else:
        with np.load(out) as content:
            found = {name: content[name] for name in content.files if name != "metadata"}
    assert found["measurement"].tolist() == [0, 1] * 3
    coarse = found["x"].reshape(6, 1, 4, 2, 4, 2).mean((3, 5))
    for i in range(6):
        assert np.abs(coarse[i] - ys[i % 2]).mean() < 0.3 < np.abs(coarse[i] - ys[1 - i % 2]).mean()


def test_particles_have_one_measurement(typed: Run, fake: Any) -> None:
    np.savez("y.npz", y=fake.means().numpy()[:, :, ::2, ::2])
    options = ("--operator", "block_average:factor=2", "--noise", 0.1, "--inverse", "twisted_smc", "--count", 6)
    result = typed("sample", *options, "--measurement", "y.npz", "--out", "a.npz")
    assert result.exit_code == 2 and "couples the samples of a batch" in result.output.replace("\n", " ")
    assert os.listdir() == ["y.npz"]


# Replay


def test_failed_samples_are_drawn_again_alone(ddim: Run, typed: Run, run: Run, fake: Any) -> None:
    fake.change = lambda s, x, t: s.clone().index_fill(0, torch.tensor([1]), torch.nan) if len(x) > 1 else s
    command = ("--count", 8, "--shard-size", 4, "--batch-size", 4, "--max-failures", 1.0)
    assert ddim(*command, "--label", 1, "--out", "set/").exit_code == 0
    note = json.loads(Path("set/set.json").read_text())["note"]
    assert note["command"] == "sample" and note["options"]["label"] == "1" and "num" not in note["options"]
    result = typed("sample", "--replay", "set")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == ["sample 1: succeeds alone", "sample 5: succeeds alone"]
    result = typed("sample", "--replay", "set/records/00000001.json")
    assert result.exit_code == 0 and result.output.splitlines() == ["sample 5: succeeds alone"]
    fake.change = lambda s, x, t: torch.full_like(s, torch.nan)
    result = typed("sample", "--replay", "set/records/00000001.json")
    text = result.output.replace("\n", " ")
    assert result.exit_code == 3 and "1 of 1 samples fail again" in text and "sample 5:" in text, result.output
    other = typed("sample", "--replay", "set", "--seed", 3)
    assert other.exit_code == 2 and "its seed is 0, not 3" in other.output.replace("\n", " ")
    for nothing in ("x" * 4000, "nowhere", "set/records/00000009.json", "set/records/a.json"):
        assert typed("sample", "--replay", nothing).exit_code == 2
    Path("set/records/00000001.json").unlink()
    assert typed("sample", "--replay", "set/records/00000001.json").exit_code == 2
    assert "Shards that are not complete: 1" in typed("sample", "--replay", "set/set.json").output


def test_a_set_without_failures_has_nothing_to_replay(ddim: Run, typed: Run, fake: Any) -> None:
    assert ddim("--count", 3, "--shard-size", 4, "--out", "set/").exit_code == 0
    result = typed("sample", "--replay", "set")
    assert result.exit_code == 0 and "No sample of 'set' failed." in result.output
    scoresde.generate("plain", scoresde.VPSDE(), fake.score(scoresde.VPSDE()), 2, shape=(1, 8, 8), identity="f",
                      method="ddim", steps=2)  # fmt: skip
    result = typed("sample", "--replay", "plain")
    assert result.exit_code == 2 and "`replay` is for sets of `scoresde sample`" in result.output.replace("\n", " ")
    np.savez("x.npz", x=near(fake, 2))
    assert typed("encode", "x.npz", "--method", "heun", "--steps", 2, "--shard-size", 2, "--out", "enc/").exit_code == 0
    result = typed("sample", "--replay", "enc")
    assert result.exit_code == 2 and "made by `scoresde encode`" in result.output.replace("\n", " ")


def test_the_options_of_a_set_are_texts() -> None:
    assert _sets._text([1.5, True, None]) == ["1.5", "true", "none"]
