"""Sets of samples: what each sample is, in whatever part it is made; failures, little memory, and what is refused."""

from __future__ import annotations

import copy
import functools
import io
import json
import operator
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import scoresde
from scoresde.errors import (
    CorruptCheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    OutOfMemoryError,
    OutputError,
    ScoreFnError,
    SolveFailedError,
)
from scoresde.files import leases as leases_module
from scoresde.files.leases import Leases
from scoresde.files.shards import Store, opened
from scoresde.generation import Generated, Samples, generate, verify
from scoresde.generation import making as making_module
from scoresde.generation.identity import identity_of
from scoresde.generation.making import place
from scoresde.noise import SampleNoise

SDE = scoresde.VPSDE()
SCORE = scoresde.targets.Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.3], [0.3, 0.5]])).score(SDE)
IMAGE = scoresde.targets.Gaussian(torch.zeros(3, 4, 4), 0.3).score(SDE)
GREY = scoresde.targets.Gaussian(torch.zeros(1, 4, 4), 0.3).score(SDE)
DDIM: dict[str, Any] = {"method": "ddim", "steps": 3}
SIZES: dict[str, Any] = {"shard_size": 8, "batch_size": 4}


class Labelled:
    """A score that depends on a label, and is not finite where it is negative."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where(label[:, None] < 0, torch.nan, SCORE(x, t) - 0.1 * label[:, None])


def labels(indices: Tensor) -> dict[str, Tensor]:
    return {"label": (indices % 5).float()}


def some_fail(indices: Tensor) -> dict[str, Tensor]:
    return {"label": torch.where(indices % 10 == 7, -1.0, 1.0)}


def draw(folder: Path, count: int = 20, score: Any = SCORE, **options: Any) -> Generated:
    return generate(folder, SDE, score, count, **{**SIZES, **DDIM, **options})


def everything(folder: Path) -> dict[str, Tensor]:
    data = Samples(folder)
    parts = [data.arrays(shard) for shard in data.store.plan.shards]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# What a sample is

METHODS: list[dict[str, Any]] = [
    {"method": "ddim", "steps": 4},
    {"method": "dpmpp_2m", "steps": 4},
    {"method": "rk45", "rtol": 1e-3},
    {"method": "euler_maruyama", "steps": 4},
    {"method": "pc", "steps": 3},
    {"method": "dpmpp_2m_sde", "steps": 4},
    {"method": "ggf", "rtol": 0.5},
    {"method": "ddim", "steps": 4, "denoise": True, "dtype": torch.float64},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("score", [SCORE, Labelled()], ids=["plain", "context"])
def test_a_sample_is_that_of_solve_in_any_part(tmp_path: Path, options: dict[str, Any], score: Any) -> None:
    """A batch is that of `solve` with the same indices, and a part of the set has the same bits as the whole."""
    given: dict[str, Any] = {"shape": (2,), "seed": 11, "identity": "the score"}
    if score is not SCORE:
        given["context"] = labels
    generate(tmp_path / "whole", SDE, score, 22, **SIZES, **given, **options)
    whole = everything(tmp_path / "whole")
    assert whole["index"].tolist() == list(range(22)) and whole["x"].shape == (22, 2)
    for first in range(0, 20, 4):
        indices = range(first, first + 4)
        context = None if score is SCORE else labels(torch.arange(first, first + 4))
        noise = SampleNoise(11, indices=indices)
        alone = scoresde.solve(SDE, score, shape=(4, 2), noise=noise, context=context, **options)
        assert torch.equal(alone.x, whole["x"][first : first + 4])
        assert alone.nfe.tolist() == whole["nfe"][first : first + 4].tolist()
    for first, count in ((0, 7), (5, 1), (3, 19), (8, 8), (13, 9)):
        folder = tmp_path / f"{first} {count}"
        generate(folder, SDE, score, count, first=first, **SIZES, **given, **options)
        part = everything(folder)
        assert all(torch.equal(part[name], whole[name][first : first + count]) for name in whole)


def test_a_larger_set_is_the_one_that_was_larger_at_once(tmp_path: Path) -> None:
    draw(tmp_path / "once", 30)
    draw(tmp_path / "grown", 5, first=10)
    with pytest.raises(InvalidArgumentError, match="extend=True"):
        draw(tmp_path / "grown", 30)
    assert draw(tmp_path / "grown", 12, first=8, extend=True).made == 2
    assert draw(tmp_path / "grown", 30, extend=True).made == 3
    assert contents(tmp_path / "grown") == contents(tmp_path / "once")


def test_a_seed_is_a_set(tmp_path: Path) -> None:
    for seed in (0, 1, 2**62):
        draw(tmp_path / str(seed), seed=seed)
    x = [everything(tmp_path / str(seed))["x"] for seed in (0, 1, 2**62)]
    assert not any(torch.equal(x[i], x[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert len(torch.unique(x[0][:, 0])) == 20


def test_large_indices(tmp_path: Path) -> None:
    first = 2**62 + 3
    draw(tmp_path / "a", 5, first=first, shard_size=4)
    found = everything(tmp_path / "a")
    noise = SampleNoise(0, indices=range(first + 1, first + 5))
    assert found["index"].tolist() == list(range(first, first + 5))
    assert torch.equal(found["x"][1:], scoresde.solve(SDE, SCORE, shape=(4, 2), noise=noise, **DDIM).x)


def test_numbers_of_the_context_are_kept(tmp_path: Path) -> None:
    draw(tmp_path / "a", score=Labelled(), shape=(2,), context=labels, identity="s")
    assert everything(tmp_path / "a")["label"].tolist() == [i % 5 for i in range(20)]


# Continuing


def test_a_complete_set_costs_no_evaluation(tmp_path: Path) -> None:
    calls: list[int] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return SCORE(x, t)

    shown: list[int] = []
    made = draw(tmp_path / "a", score=score, shape=(2,), identity="s", show=shown.append)
    assert (made.count, made.shards, made.made, made.failures) == (20, 3, 3, ())
    assert shown == [4, 8, 12, 16, 20] and set(calls) == {4} and len(calls) == 5 * 3
    before = contents(tmp_path / "a")
    calls.clear()
    assert draw(tmp_path / "a", score=score, shape=(2,), identity="s").made == 0 and not calls
    (tmp_path / "a" / "shards" / "00000001.safetensors").unlink()
    assert draw(tmp_path / "a", score=score, shape=(2,), identity="s").made == 1 and len(calls) == 2 * 3
    assert contents(tmp_path / "a") == before
    assert not (tmp_path / "a" / "leases").exists()


@pytest.mark.parametrize("kind", ["shards/00000001.safetensors", "records/00000001.json", "set.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_what_is_damaged_is_made_again(tmp_path: Path, kind: str, damage: str) -> None:
    draw(tmp_path / "a")
    before, path = contents(tmp_path / "a"), tmp_path / "a" / kind
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:], "cut": whole[:9]}.get(damage, b""))
    if kind == "set.json":
        with pytest.raises(CorruptCheckpointError):
            verify(tmp_path / "a")
    else:
        assert verify(tmp_path / "a").missing == (1,)
    assert draw(tmp_path / "a").made == (0 if kind == "set.json" else 1)
    assert contents(tmp_path / "a") == before and verify(tmp_path / "a").complete


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "its seed is 0, not 1"),
    ({"method": "euler"}, "its method is 'ddim', not 'euler'"),
    ({"steps": 4}, "its steps is 3, not 4"),
    ({"score": IMAGE, "shape": (3, 4, 4)}, r"its functions, networks or process are not the same"),
    ({"identity": "other"}, r"its identity is '\w{64}', not 'other'"),
    ({"container": "npz"}, "its container is 'safetensors', not 'npz'"),
    ({"shard_size": 4}, "its shard_size is 8, not 4"),
    ({"batch_size": 2}, "its batch_size is 4, not 2"),
    ({"denoise": True}, "its denoise is None, not True"),
    ({"context": lambda indices: {"label": indices}}, r"its context is \[\], not \['label'\]"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda value: str(value)[:20])
def test_another_set_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    draw(tmp_path / "a")
    before = contents(tmp_path / "a")
    with pytest.raises(InvalidArgumentError, match=said):
        draw(tmp_path / "a", **change)
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_begin_at_places_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """One after the other, and the last does it all: each finds what the others left."""
    draw(tmp_path / "plain", 40, shard_size=4)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    order: list[int] = []
    write = Store.write
    monkeypatch.setattr(
        Store, "write", lambda self, shard, *args, **kwargs: order.append(shard) or write(self, shard, *args, **kwargs)
    )
    monkeypatch.setenv("RANK", str(world - 1))
    assert draw(tmp_path / "a", 40, shard_size=4).made == 10
    begin = (world - 1) * 10 // world
    assert order == [*range(begin, 10), *range(begin)]
    monkeypatch.setenv("RANK", "0")
    assert draw(tmp_path / "a", 40, shard_size=4).made == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "plain")


@pytest.mark.parametrize(
    ("rank", "world", "found"),
    [("0", "1", (0, 1)), ("2", "3", (2, 3)), ("3", "3", (0, 1)), ("-1", "3", (0, 1)), ("a", "3", (0, 1))],
)
def test_places(monkeypatch: pytest.MonkeyPatch, rank: str, world: str, found: tuple[int, int]) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert place() == found


def test_a_shard_of_another_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is alive: its shard is taken when it has made no progress for long enough, not before; or when it is
    there."""
    draw(tmp_path / "plain")
    clock = time.monotonic()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal clock
        waited.append(seconds)
        clock += seconds

    monkeypatch.setattr(making_module.time, "sleep", sleep)
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: clock)
    holder = {"host": "elsewhere", "process": 1, "started": "2", "beat": 0}
    (tmp_path / "a" / "leases").mkdir(parents=True)
    (tmp_path / "a" / "leases" / "00000001.json").write_text(json.dumps(holder))
    assert draw(tmp_path / "a", patience=30.0).made == 3
    assert 29.99 < sum(waited) < 31.0  # of floating-point numbers
    assert contents(tmp_path / "a") == contents(tmp_path / "plain")


@pytest.mark.parametrize("late", ["slow", "sleeping"])
def test_two_writers_of_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    """A second process takes everything over while the first computes its first shard, or is about to write it: the
    first ends well, and the bytes are the same."""
    draw(tmp_path / "plain", 40)
    entered: list[bool] = []

    def other() -> None:
        if not entered:
            entered.append(True)
            assert draw(tmp_path / "a", 40, patience=0.0).made == 5

    if late == "slow":
        take = Leases.take
        monkeypatch.setattr(Leases, "take", lambda self, name: (take(self, name), other())[0])
    else:
        write = Store.write
        monkeypatch.setattr(Store, "write", lambda self, *args, **kwargs: (other(), write(self, *args, **kwargs))[1])
    made = draw(tmp_path / "a", 40).made  # while it writes, the next shard is made
    assert made == 0 if late == "slow" else 1 <= made <= 5
    monkeypatch.undo()
    assert draw(tmp_path / "a", 40).made == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "plain")


# Containers


KINDS = ("safetensors", "npz", "png", "tar")
ELSEWHERE = """
import os, sys, time
os.umask(0o077)
time.time, time.localtime = lambda: 1e9 + 7, lambda *seconds: time.gmtime(0)
import torch, scoresde
torch.set_num_threads(1)
sde = scoresde.VPSDE()
score = scoresde.targets.Gaussian(torch.zeros(1, 4, 4), 0.3).score(sde)
sizes = {"shard_size": 8, "batch_size": 4}
for kind in sys.argv[2:]:
    scoresde.generate(f"{sys.argv[1]}/{kind}", sde, score, 11, container=kind, method="ddim", steps=3, **sizes)
"""


def test_the_bytes_do_not_depend_on_time_or_process(tmp_path: Path) -> None:
    """In another process, another year, time zone, folder, order of hashes, with another mask of permissions."""
    for kind in KINDS:
        draw(tmp_path / "here" / kind, 11, GREY, container=kind)
        assert verify(tmp_path / "here" / kind).complete
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "17", "LOGNAME": "somebody"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "there"), *KINDS]
    subprocess.run(command, env=environment, check=True, timeout=100)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def picture(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def wanted(x: Tensor) -> np.ndarray:
    """The grey levels of a sample with values in [-1, 1]."""
    levels = ((x.double().clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8)
    return (levels[0] if len(levels) == 1 else levels.movedim(0, -1)).numpy()


@pytest.mark.parametrize("score", [GREY, IMAGE], ids=["grey", "colour"])
def test_containers_hold_the_same_samples(tmp_path: Path, score: Any) -> None:
    for container in KINDS:
        draw(tmp_path / container, 11, score, first=5, container=container)
    arrays = everything(tmp_path / "safetensors")
    assert all(torch.equal(value, arrays[name]) for name, value in everything(tmp_path / "npz").items())
    files = contents(tmp_path / "png" / "shards")
    assert sorted(files) == sorted([*(f"{i:012d}.png" for i in range(5, 16)), "00000000.json", "00000001.json"])
    for x, index in zip(arrays["x"], arrays["index"], strict=True):
        assert np.abs(picture(files[f"{int(index):012d}.png"]).astype(int) - wanted(x).astype(int)).max() <= 1
    numbers = json.loads(files["00000001.json"])
    assert [row["index"] for row in numbers] == list(range(8, 16))
    assert numbers[0] == {"index": 8, "nfe": 3, "status": 0}


def test_the_layout_of_webdataset(tmp_path: Path) -> None:
    """The files of a sample follow each other, and their names differ from the first dot on; nothing of the user."""
    options = {"shape": (1, 4, 4), "identity": "s", "context": some_fail, "max_failures": 0.2}
    draw(tmp_path / "png", 20, Picky(), container="png", **options)
    draw(tmp_path / "tar", 20, Picky(), container="tar", **options)
    pictures = contents(tmp_path / "png" / "shards")
    names: list[str] = []
    for path in sorted((tmp_path / "tar" / "shards").iterdir()):
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.isfile()
                content = archive.extractfile(member)
                assert content is not None
                if member.name.endswith(".png"):
                    assert content.read() == pictures[member.name]
                else:
                    assert json.loads(content.read())["index"] == int(member.name.partition(".")[0])
                names.append(member.name)
    assert names == [f"{i:012d}.{end}" for i in range(20) if i % 10 != 7 for end in ("png", "json")]
    assert [f["index"] for f in verify(tmp_path / "tar").failures] == [7, 17]
    assert sorted(p for p in pictures if p.endswith("png")) == [f"{i:012d}.png" for i in range(20) if i % 10 != 7]


class Picky:
    """A score of grey images that is not finite where the label is negative."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where(label[:, None, None, None] < 0, torch.nan, GREY(x, t))


# Failures


@pytest.mark.parametrize(
    "options", [DDIM, {"method": "rk45"}, {"method": "pc", "steps": 3}], ids=["ddim", "rk45", "pc"]
)
def test_samples_that_fail_are_named_and_the_others_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"shape": (2,), "seed": 5, "identity": "s", **SIZES, **options}
    made = generate(tmp_path / "a", SDE, Labelled(), 40, context=some_fail, max_failures=0.1, **given)
    assert [f["index"] for f in made.failures] == [7, 17, 27, 37]
    for failure in made.failures:
        assert failure == {"index": failure["index"], "seed": 5, "t": SDE.t_max, "reason": "non_finite"}
    arrays = everything(tmp_path / "a")
    bad = ~torch.isfinite(arrays["x"]).all(1)
    assert bad.nonzero()[:, 0].tolist() == [7, 17, 27, 37]
    assert torch.equal(arrays["status"] != 0, bad)
    never = generate(tmp_path / "b", SDE, Labelled(), 40, context=lambda i: {"label": torch.ones(len(i))}, **given)
    assert never.failures == () and torch.equal(everything(tmp_path / "b")["x"][~bad], arrays["x"][~bad])
    assert generate(tmp_path / "c", SDE, Labelled(), 6, context=some_fail, **given).failures == ()  # sample 7 fills up
    record = opened((tmp_path / "a" / "records" / "00000000.json").read_bytes())
    assert record["failures"] == [made.failures[0]]
    found = verify(tmp_path / "a")
    assert found.complete and found.failures == made.failures


def test_what_does_not_arrive_is_a_failure(tmp_path: Path) -> None:
    made = generate(tmp_path / "a", SDE, SCORE, 20, method="rk45", rtol=1e-3, max_steps=5, max_failures=1.0, **SIZES)
    assert 0 < len(made.failures) < 20 and {f["reason"] for f in made.failures} == {"max_steps"}
    assert all(SDE.t_min < f["t"] < SDE.t_max for f in made.failures)
    bad = ~torch.isfinite(everything(tmp_path / "a")["x"]).all(1)
    assert bad.nonzero()[:, 0].tolist() == [f["index"] for f in made.failures]


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    given: dict[str, Any] = {"score": Labelled(), "shape": (2,), "identity": "s", "context": some_fail}
    with pytest.raises(SolveFailedError, match=r"2 of 40 samples failed, the last: sample 17 at t=1: non_finite"):
        draw(tmp_path / "a", 40, **given, max_failures=0.03)
    assert sorted(contents(tmp_path / "a" / "shards")) == [f"0000000{i}.safetensors" for i in range(3)]
    with pytest.raises(SolveFailedError, match=r"1 of 40 samples failed.*max_failures=0 allows 0\."):
        draw(tmp_path / "a", 40, **given)
    assert len(contents(tmp_path / "a" / "shards")) == 3
    assert len(draw(tmp_path / "a", 40, **given, max_failures=0.1).failures) == 4


def test_an_error_of_the_score_function_stops_the_run(tmp_path: Path) -> None:
    """It is no failure of a sample, and the next run goes on."""
    armed: list[bool] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        if armed:
            raise RuntimeError("a mistake")
        return SCORE(x, t)

    given: dict[str, Any] = {"score": score, "shape": (2,), "identity": "s"}
    with pytest.raises((RuntimeError, ScoreFnError), match="a mistake"):
        draw(tmp_path / "a", **given, show=lambda done: armed.append(True) if done == 8 else None)
    assert list((tmp_path / "a" / "leases").iterdir()) == []
    armed.clear()
    assert draw(tmp_path / "a", **given).made == 2
    draw(tmp_path / "b", **given)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# Little memory


def limited(most: int, sizes: list[int], error: Callable[[], Exception]) -> Callable[..., Tensor]:
    def score(x: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > most:
            raise error()
        return SCORE(x, t)

    return score


ERRORS: list[Callable[[], Exception]] = [
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cpu", "cuda", "python"])
@pytest.mark.parametrize("most", [1, 2, 3, 4, 7])
def test_batches_are_halved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int, error: Callable[[], Exception]
) -> None:
    sizes: list[int] = []
    size = next(size for size in (8, 4, 2, 1) if size <= most)
    given: dict[str, Any] = {"shape": (2,), "identity": "s", "batch_size": 8}
    made = draw(tmp_path / "a", score=limited(most, sizes, error), **given)
    assert made.made == 3 and sizes[:4] == [8, 4, 2, 1][: sizes[:4].index(size) + 1] + [size] * (3 - sizes.index(size))
    assert f"its batches become {size}" in capsys.readouterr().err
    store = Store.of(tmp_path / "a")
    assert [store.batch_size(shard) for shard in range(3)] == [size] * 3
    draw(tmp_path / "b", score=limited(99, [], error), **{**given, "batch_size": size})
    assert torch.equal(everything(tmp_path / "a")["x"], everything(tmp_path / "b")["x"])
    # who has more memory makes the same bytes
    before = contents(tmp_path / "a")
    (tmp_path / "a" / "shards" / "00000001.safetensors").unlink()
    sizes.clear()
    assert draw(tmp_path / "a", score=limited(99, sizes, error), **given).made == 1 and set(sizes) == {size}
    assert contents(tmp_path / "a") == before


def test_the_smaller_size_is_on_the_disk_before_the_shard_is_made(tmp_path: Path) -> None:
    found: list[list[str]] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        found.append(sorted(contents(tmp_path / "a")))
        if len(x) > 2:
            raise MemoryError
        return SCORE(x, t)

    draw(tmp_path / "a", 8, score=score, shape=(2,), identity="s")
    assert "records/00000000.batch.json" not in found[0]
    assert "records/00000000.batch.json" in found[1] and "shards/00000000.safetensors" not in found[1]


@pytest.mark.parametrize(("when", "made"), [("at work", {3}), ("writing", {4, 5})])
def test_a_shard_of_larger_batches_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, made: set[int]
) -> None:
    """Another process marks all shards while this one, which has memory enough, is at work on the first, or about to
    write it, when the second may have been begun."""
    given: dict[str, Any] = {"shape": (2,), "identity": "s"}
    draw(tmp_path / "half", score=limited(2, [], MemoryError), **given)
    marked: list[int] = []
    write = Store.write

    def mark(now: str) -> None:
        if now == when and not marked:
            marked.append(0)
            for shard in range(3):
                Store.of(tmp_path / "a").halve(shard, 2)

    def score(x: Tensor, t: Tensor) -> Tensor:
        mark("at work")
        return SCORE(x, t)

    def marking(self: Store, *args: Any, **kwargs: Any) -> None:
        mark("writing")
        write(self, *args, **kwargs)

    monkeypatch.setattr(Store, "write", marking)
    assert draw(tmp_path / "a", score=score, **given).made in made
    assert contents(tmp_path / "a") == contents(tmp_path / "half")


def test_the_memory_of_the_failed_batch_is_free(tmp_path: Path) -> None:
    """Nothing holds the tensors of the error when the shard is made again."""
    import weakref

    held: list[Any] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        if len(x) > 2:
            large = torch.zeros(1000)
            held.append(weakref.ref(large))
            raise MemoryError
        assert all(ref() is None for ref in held)
        return SCORE(x, t)

    draw(tmp_path / "a", 8, score=score, shape=(2,), identity="s")
    assert len(held) == 1


def test_memory_that_does_not_suffice_for_one_sample(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="for one sample"):
        draw(tmp_path / "a", score=limited(0, [], MemoryError), shape=(2,), identity="s")
    assert list((tmp_path / "a" / "leases").iterdir()) == []


# Bad arguments


class Strange(list[int]):
    """A score function that does not declare its shape."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return -x


BAD: list[tuple[dict[str, Any], str]] = [
    ({"count": 0}, "`count` must be at least 1"),
    ({"count": 2.5}, "`count` must be an integer"),
    ({"count": 2**63}, "`first` . `count` must be at most"),
    ({"first": -1}, "`first` must be at least 0"),
    ({"first": 2**63 - 5}, "`first` . `count` must be at most"),
    ({"seed": -1}, "`seed` must be at least 0"),
    ({"seed": "a"}, "`seed` must be an integer"),
    ({"shard_size": 0}, "`shard_size` must be at least 1"),
    ({"batch_size": 0}, "`batch_size` must be at least 1"),
    ({"container": "zip"}, "`container`: unknown name 'zip'"),
    ({"container": "png"}, "`container`='png' is for images"),
    ({"container": "tar"}, "`container`='tar' is for images"),
    ({"data_range": (1, 0)}, "`data_range`"),
    ({"extend": 1}, "`extend` must be"),
    ({"max_failures": 1.5}, r"`max_failures` must be in \[0, 1\]"),
    ({"max_failures": float("nan")}, r"`max_failures` must be in \[0, 1\]"),
    ({"patience": -1}, "`patience` must be in"),
    ({"patience": float("inf")}, "`patience` must be in"),
    ({"device": "nope"}, "`device` must be a device"),
    ({"show": 1}, "`show` must be callable"),
    ({"context": {"label": 1}}, "`context` must be callable"),
    ({"context": lambda indices: 7}, "`context` must return a mapping"),
    ({"context": lambda indices: {7: 7}}, "`context` must return a mapping"),
    ({"shape": (0,)}, "`shape` must be at least 1"),
    ({"shape": "2"}, "`shape` must be the shape of one sample"),
    ({"score": Strange(), "identity": "s"}, "`shape`, that of one sample, is missing"),
    ({"score": operator.itemgetter(0), "shape": (2,)}, "`identity` is missing"),
    ({"score": 7}, "score_fn"),
    ({"method": "nosuch"}, "`method`: unknown name 'nosuch'"),
    ({"steps": 0}, "`steps` must be at least 1"),
    ({"steps": "many"}, "`steps` must be"),
    ({"rtol": 1e-3}, "`rtol` does not apply to 'ddim'"),
    ({"nonsense": 1}, "Unknown option 'nonsense'"),
    ({"dtype": "float32"}, "`dtype` must have a floating-point dtype"),
    ({"grid": "nosuch", "steps": 3}, "`grid`"),
    ({"folder": ""}, "`folder` must be a path"),
    ({"folder": 7}, "`folder` must be a path"),
    ({"folder": "a\0b"}, "`folder` must be a path"),
    *(({name: None}, f"`{name}` is not for `generate`") for name in ("x", "seeds", "noise", "callback", "throw")),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=lambda value: str(value)[:24])
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    given = {"folder": tmp_path / "a", **change}
    with pytest.raises((InvalidArgumentError, InvalidTypeError), match=said):
        draw(**given)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_no_sets(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for folder in (tmp_path, tmp_path / "file", tmp_path / "file" / "set"):
        with pytest.raises(OutputError):
            draw(folder)
        with pytest.raises(CorruptCheckpointError):
            verify(folder)
        with pytest.raises(CorruptCheckpointError):
            Samples(folder)
    assert contents(tmp_path) == {"file": b"mine"}


# Reading


def test_samples_by_their_place(tmp_path: Path) -> None:
    draw(tmp_path / "a", 11, first=5)
    data, arrays = Samples(tmp_path / "a"), everything(tmp_path / "a")
    assert len(data) == 11
    for i in (0, 2, 3, 10, -1, -11):
        assert data[i]["index"].item() == 5 + i % 11
        assert torch.equal(data[i]["x"], arrays["x"][i])
    for i in (11, 100, -12):
        with pytest.raises(IndexError, match="11 samples"):
            data[i]
    with pytest.raises(InvalidArgumentError, match="`shard` must be from 0 to 1"):
        data.arrays(2)
    assert [row["index"].item() for row in data] == list(range(5, 16))  # type: ignore[attr-defined]
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    assert torch.equal(torch.cat([batch["x"] for batch in loader]), arrays["x"])


def test_damaged_samples_are_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "a", 11)
    path = tmp_path / "a" / "shards" / "00000001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 128]))
    data = Samples(tmp_path / "a")
    assert data[7]["index"].item() == 7
    with pytest.raises(CorruptCheckpointError, match="Shard 1 of"):
        data[8]
    assert Samples(tmp_path / "a", check=False)[8]["index"].item() == 8
    path.unlink()
    with pytest.raises(CorruptCheckpointError, match="Shard 1 of"):
        Samples(tmp_path / "a", check=False)[8]
    found = verify(tmp_path / "a")
    assert not found.complete and found.missing == (1,) and "complete=False" in repr(found)


def test_pictures_are_no_arrays(tmp_path: Path) -> None:
    draw(tmp_path / "a", 3, GREY, container="png")
    with pytest.raises(InvalidArgumentError, match=r"has pictures \(png\)"):
        Samples(tmp_path / "a")[0]


def test_a_finished_set_is_not_written_to(tmp_path: Path) -> None:
    """Reading and continuing it change nothing."""
    draw(tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    verify(tmp_path / "a")
    everything(tmp_path / "a")
    draw(tmp_path / "a")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()} == before


def test_a_context_is_asked_for_the_last_batch_before_any_work(tmp_path: Path) -> None:
    """A table as long as the set fails where the last batch is filled up: at once, not after the other shards."""
    sde = scoresde.VPSDE()
    score = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(sde)
    labels = torch.arange(10)
    options: dict[str, Any] = {"method": "ddim", "steps": 2, "shard_size": 8, "batch_size": 4}
    with pytest.raises(InvalidArgumentError, match="`context` failed for the indices 8 to 11 of the last batch"):
        scoresde.generate(tmp_path / "set", sde, score, 10, context=lambda i: {"label": labels[i]}, **options)
    with pytest.raises(InvalidArgumentError, match="must not have the name 'index'"):
        scoresde.generate(tmp_path / "set", sde, score, 10, context=lambda i: {"index": i}, **options)
    assert not (tmp_path / "set").exists()


def bounded(x: Tensor, t: Tensor) -> Tensor:
    """A score that knows no process."""
    return -torch.tanh(x)


def test_processes_that_print_alike_are_told_apart(tmp_path: Path) -> None:
    one, other = (scoresde.GaussianSDE(torch.cos, sigma, 1e-3, 1.2) for sigma in (torch.sin, torch.tanh))
    options: dict[str, Any] = {"method": "euler_maruyama", "steps": 2, "shape": (2,)}
    scoresde.generate(tmp_path / "set", one, bounded, 4, **options)
    with pytest.raises(InvalidArgumentError, match="its functions, networks or process are not the same"):
        scoresde.generate(tmp_path / "set", other, bounded, 4, **options)


SCALE = 1.0


def scaled(x: Tensor, t: Tensor) -> Tensor:
    """A score with a number of its module."""
    return -SCALE * x


class Hidden:
    """A score with parts that are nobody's business."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return -self._factor * x


def times(factor: float) -> Any:
    return lambda x, t: -factor * x


def table(labels: Tensor) -> Any:
    return lambda indices: {"label": labels[indices % len(labels)]}


class TestIdentity:
    def test_what_decides_a_score_is_part_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        linear = torch.nn.Linear(2, 2)
        switched = copy.deepcopy(linear).eval()
        pairs = [
            (Hidden(1.0), Hidden(2.0)),
            (times(1.0), times(2.0)),
            (table(torch.arange(3)), table(torch.arange(3) + 1)),
            (linear, switched),
            (linear, torch.nn.Linear(2, 2)),
            (functools.partial(scaled, t=1), functools.partial(scaled, t=2)),
            (Hidden(1.0).__call__, Hidden(2.0).__call__),
        ]
        for one, other in pairs:
            assert identity_of(one) == identity_of(one) != identity_of(other)
        assert identity_of(times(1.0)) == identity_of(times(1.0))
        assert identity_of(Hidden(1.0)) == identity_of(Hidden(1.0))
        before = identity_of(scaled)
        monkeypatch.setitem(scaled.__globals__, "SCALE", 2.0)
        assert identity_of(scaled) != before

    def test_defaults_by_name_and_attributes_of_a_function(self) -> None:
        def score(x: Any, t: Any, *, scale: float = 1.0) -> Any:
            return scale * x

        before = identity_of(score)
        score.data_std = 2.0  # type: ignore[attr-defined]
        between = identity_of(score)
        score.__kwdefaults__ = {"scale": 2.0}
        assert len({before, between, identity_of(score)}) == 3

    def test_code_that_has_no_module(self) -> None:
        """As `exec` makes it."""
        made: list[Any] = []
        for factor in (1.0, 1.0, 2.0):
            names: dict[str, Any] = {}
            exec(f"def score(x, t):\n    return {factor} * x", names)
            assert names["score"].__module__ in (None, "builtins")
            made.append(identity_of(names["score"]))
        assert made[0] == made[1] != made[2]

    def test_it_is_the_same_in_every_process_and_after_use(self) -> None:
        model = scoresde.load("digits")
        score = scoresde.guidance.classifier_free(model.score(label=3), model.score(), 2.0)
        before = identity_of([score, model.sde])
        scoresde.solve(model.sde, score, shape=(2, 1, 8, 8), method="unipc2", steps=3)
        assert identity_of([score, model.sde]) == before
        code = (
            "import scoresde; from scoresde.generation.identity import identity_of; m = scoresde.load('digits');"
            "s = scoresde.guidance.classifier_free(m.score(label=3), m.score(), 2.0); print(identity_of([s, m.sde]))"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == before

    def test_what_goes_round_in_circles_ends(self) -> None:
        one: list[object] = [1]
        one.append(one)
        assert len(identity_of(one)) == 64


def test_another_context_is_another_set(tmp_path: Path) -> None:
    model = scoresde.load("digits")
    options: dict[str, Any] = {"method": "ddim", "steps": 2, "shard_size": 4, "batch_size": 4}
    for labels, accepted in ((torch.arange(10), True), (torch.arange(10), True), (torch.zeros(10).long(), False)):
        context = table(labels)
        if accepted:
            scoresde.generate(tmp_path / "set", model.sde, model.score(), 8, context=context, **options)
        else:
            with pytest.raises(InvalidArgumentError, match="its functions, networks or process are not the same"):
                scoresde.generate(tmp_path / "set", model.sde, model.score(), 8, context=context, **options)


class DropsOutside(torch.nn.Module):
    """A network with dropout outside the part that is called ``net``."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop = torch.nn.Identity(), torch.nn.Dropout()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        dropped: Tensor = self.drop(self.net(x))
        return -dropped


def test_scores_that_depend_on_more_than_the_index_are_refused(tmp_path: Path) -> None:
    model = scoresde.load("digits")
    with pytest.raises(InvalidArgumentError, match="one for each place in a batch"):
        scoresde.generate(tmp_path / "set", model.sde, model.score(label=torch.arange(4)), 4, steps=2, method="ddim")
    guided = scoresde.guidance.classifier_free(model.score(label=torch.arange(4)), model.score(), 2.0)
    with pytest.raises(InvalidArgumentError, match="one for each place in a batch"):
        scoresde.generate(tmp_path / "set", model.sde, guided, 4, steps=2, method="ddim")
    net = torch.nn.Sequential(torch.nn.Dropout())
    outside = DropsOutside().eval()
    outside.drop.train()
    for score in (net, lambda x, t: net(x), outside):
        with pytest.raises(InvalidArgumentError, match="training mode"):
            scoresde.generate(tmp_path / "set", model.sde, score, 4, shape=(1, 8, 8), steps=2, method="ddim")
    assert not (tmp_path / "set").exists()


def test_bfloat16_is_kept_as_float32(tmp_path: Path) -> None:
    model = scoresde.load("digits")
    scoresde.generate(tmp_path / "set", model.sde, model.score(), 3, steps=2, method="ddim", dtype=torch.bfloat16)
    x = scoresde.generation.Samples(tmp_path / "set")[0]["x"]
    assert x.dtype == torch.float32 and torch.equal(x, x.bfloat16().float())


def test_a_context_that_fits_gives_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    sde = scoresde.VPSDE()
    exact = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(sde)

    def score(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return exact(x, t)

    labels = torch.arange(16) % 3
    tuned = scoresde.tune(sde, score, 4, shape=(16, 2), context={"label": labels}, candidates=[("ddim", None)])
    scoresde.generate(tmp_path / "set", sde, score, 8, shape=(2,), method=tuned, context=table(labels))
    assert not [w for w in recwarn if issubclass(w.category, scoresde.ScoreSDEWarning)]


def test_a_complete_set_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scoresde.load("digits")
    options: dict[str, Any] = {"method": "ddim", "steps": 2}
    scoresde.generate(tmp_path / "set", model.sde, model.score(), 3, **options)

    def refused(*args: object) -> None:
        raise OutputError(30, "Read-only file system", "set")

    monkeypatch.setattr("scoresde.files.leases.make_folder", refused)
    assert scoresde.generate(tmp_path / "set", model.sde, model.score(), 3, **options).made == 0


def test_a_lost_set_is_not_begun_again_as_a_smaller_one(tmp_path: Path) -> None:
    model = scoresde.load("digits")
    options: dict[str, Any] = {"method": "ddim", "steps": 2, "shard_size": 4, "batch_size": 4}
    scoresde.generate(tmp_path / "set", model.sde, model.score(), 12, **options)
    (tmp_path / "set" / "set.json").unlink()
    with pytest.raises(OutputError, match="files that are no set"):
        scoresde.generate(tmp_path / "set", model.sde, model.score(), 4, **options)
    assert scoresde.generate(tmp_path / "set", model.sde, model.score(), 12, **options).made == 0


def test_a_sample_does_not_drag_its_shard_along(tmp_path: Path) -> None:
    model = scoresde.load("digits")
    scoresde.generate(tmp_path / "set", model.sde, model.score(), 8, method="ddim", steps=2)
    data = scoresde.generation.Samples(tmp_path / "set")
    assert data[3]["x"].untyped_storage().nbytes() == 4 * 64
    kept = data[3]["x"].clone()
    data[3]["x"].zero_()
    assert torch.equal(data[3]["x"], kept)
