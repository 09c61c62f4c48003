"""Sets of samples: what each sample is, in whatever part it is made; failures, little memory, and what is refused."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import scoresde
from scoresde.core.errors import (
    CorruptCheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    OutOfMemoryError,
    OutputError,
    ScoreFnError,
    SolveFailedError,
)
from scoresde.core.noise import SampleNoise
from scoresde.core.support.files import leases as leases_module
from scoresde.core.support.files.shards import Store, opened
from scoresde.sets import Generated, Samples, generate, verify
from scoresde.sets import making as making_module
from scoresde.sets.identity import Made
from scoresde.sets.making import place
from tests.refusals import refuses

SDE = scoresde.VPSDE()
SCORE = scoresde.targets.Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.3], [0.3, 0.5]])).score(SDE)
IMAGE = scoresde.targets.Gaussian(torch.zeros(3, 4, 4), 0.3).score(SDE)
GREY = scoresde.targets.Gaussian(torch.zeros(1, 4, 4), 0.3).score(SDE)
DDIM: dict[str, Any] = {"method": "ddim", "steps": 3}
SIZES: dict[str, Any] = {"shard_size": 8, "batch_size": 4}
OTHER = "its weights, or settings of its functions or process, are not the same"


class Labelled:
    """A score that depends on a label, and is not finite where the label is negative."""

    def __init__(self, score: Any = SCORE) -> None:
        self.score = score

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        label = label.reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(label < 0, torch.nan, self.score(x, t) - 0.1 * label)


LABELLED: dict[str, Any] = {"score": Labelled(), "shape": (2,), "identity": "s"}


def labels(indices: Tensor) -> dict[str, Tensor]:
    return {"label": (indices % 5).float()}


def some_fail(indices: Tensor) -> dict[str, Tensor]:
    return {"label": torch.where(indices % 10 == 7, -1.0, 1.0)}


def draw(folder: Path, count: int = 20, score: Any = SCORE, **options: Any) -> Generated:
    solver = {} if "method" in options and "steps" not in options else DDIM
    return generate(folder, SDE, score, count, **{**SIZES, **solver, **options})


def everything(folder: Path) -> dict[str, Tensor]:
    data = Samples(folder)
    parts = [data.arrays(shard) for shard in data.store.plan.shards]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# What a sample is

METHODS: list[tuple[dict[str, Any], bool]] = [  # and whether there is a context
    ({"method": "ddim", "steps": 4}, False),
    ({"method": "dpmpp_2m", "steps": 4}, True),
    ({"method": "rk45", "rtol": 1e-3}, False),
    ({"method": "euler_maruyama", "steps": 4}, True),
    ({"method": "pc", "steps": 3}, False),
    ({"method": "dpmpp_2m_sde", "steps": 4}, True),
    ({"method": "ggf", "rtol": 0.5}, True),
    ({"method": "ddim", "steps": 4, "denoise": True, "dtype": torch.float64}, False),
]


@pytest.mark.parametrize(("options", "labelled"), METHODS, ids=lambda value: str(value))
def test_a_sample_is_that_of_solve_in_any_part(tmp_path: Path, options: dict[str, Any], labelled: bool) -> None:
    """A batch is that of `solve` with the same indices, and a part of the set has the same bits as the whole."""
    given: dict[str, Any] = {"seed": 11, **options}
    given |= {**LABELLED, "context": labels} if labelled else {}
    draw(tmp_path / "whole", 14, **given)
    whole = everything(tmp_path / "whole")
    assert whole["index"].tolist() == list(range(14)) and whole["x"].shape == (14, 2)
    for first in (0, 8):
        indices = range(first, first + 4)
        context = labels(torch.tensor(indices)) if labelled else None
        noise = SampleNoise(11, indices=indices)
        score = given.get("score", SCORE)
        alone = scoresde.solve(SDE, score, shape=(4, 2), noise=noise, context=context, **options)
        assert torch.equal(alone.x, whole["x"][first : first + 4])
        assert alone.nfe.tolist() == whole["nfe"][first : first + 4].tolist()
    for first, count in ((5, 1), (3, 9)):
        draw(tmp_path / f"{first}", count, first=first, **given)
        part = everything(tmp_path / f"{first}")
        assert all(torch.equal(part[name], whole[name][first : first + count]) for name in whole)
    assert not labelled or whole["label"].tolist() == [i % 5 for i in range(14)]


def test_a_larger_set_is_the_one_that_was_larger_at_once(tmp_path: Path) -> None:
    draw(tmp_path / "once", 30)
    draw(tmp_path / "grown", 5, first=10)
    with pytest.raises(InvalidArgumentError, match="extend=True"):
        draw(tmp_path / "grown", 30)
    assert draw(tmp_path / "grown", 12, first=8, extend=True).made == 2
    assert draw(tmp_path / "grown", 30, extend=True).made == 3
    assert contents(tmp_path / "grown") == contents(tmp_path / "once")


def test_a_seed_is_a_set_and_indices_may_be_large(tmp_path: Path) -> None:
    for seed in (0, 1, 2**62):
        draw(tmp_path / str(seed), seed=seed)
    x = [everything(tmp_path / str(seed))["x"] for seed in (0, 1, 2**62)]
    assert not any(torch.equal(x[i], x[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert len(torch.unique(x[0][:, 0])) == 20
    asked: list[list[int]] = []

    def context(indices: Tensor) -> dict[str, Tensor]:
        asked.append(indices.tolist())
        return labels(indices)

    draw(tmp_path / "part", 5, first=5, **LABELLED, context=context)
    assert asked[1:] == [[4, 5, 6, 7], [8, 9, 10, 11]]  # the batches of the shards, after the last one as a trial
    first = 2**62 + 3
    draw(tmp_path / "far", 5, first=first, shard_size=4)
    found, noise = everything(tmp_path / "far"), SampleNoise(0, indices=range(first + 1, first + 5))
    assert found["index"].tolist() == list(range(first, first + 5))
    assert torch.equal(found["x"][1:], scoresde.solve(SDE, SCORE, shape=(4, 2), noise=noise, **DDIM).x)


# Continuing


def test_a_complete_set_costs_no_evaluation(tmp_path: Path) -> None:
    calls: list[int] = []
    shown: list[int] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return SCORE(x, t)

    given: dict[str, Any] = {"score": score, "shape": (2,), "identity": "s"}
    made = draw(tmp_path / "a", **given, show=shown.append)
    assert (made.count, made.shards, made.made, made.failures) == (20, 3, 3, ())
    assert shown == [4, 8, 12, 16, 20] and set(calls) == {4} and len(calls) == 5 * 3
    before = contents(tmp_path / "a")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    calls.clear()
    everything(tmp_path / "a")
    assert verify(tmp_path / "a").complete and draw(tmp_path / "a", **given).made == 0 and not calls
    assert {path: path.stat().st_mtime_ns for path in times} == times  # nothing is written again
    (tmp_path / "a" / "shards" / "00000001.safetensors").unlink()
    assert draw(tmp_path / "a", **given).made == 1 and len(calls) == 2 * 3
    assert contents(tmp_path / "a") == before and not (tmp_path / "a" / "leases").exists()


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    draw(tmp_path / "a")
    before = contents(tmp_path / "a")
    for kind in ("shards/00000001.safetensors", "records/00000001.json", "set.json"):
        for damage in ("flip", "empty", "gone"):
            path = tmp_path / "a" / kind
            whole = path.read_bytes()
            path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:] if damage == "flip" else b"")
            if damage == "gone":
                path.unlink()
            if kind == "set.json":
                with pytest.raises(CorruptCheckpointError):
                    verify(tmp_path / "a")
            else:
                assert verify(tmp_path / "a").missing == (1,), (kind, damage)
            assert draw(tmp_path / "a").made == (0 if kind == "set.json" else 1), (kind, damage)
            assert contents(tmp_path / "a") == before and verify(tmp_path / "a").complete, (kind, damage)


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "its seed is 0, not 1"),
    ({"method": "euler", "steps": 3}, "its method is 'ddim', not 'euler'"),
    ({"steps": 4}, "its steps is 3, not 4"),
    ({"score": IMAGE, "shape": (3, 4, 4)}, OTHER),
    ({"container": "npz"}, "its container is 'safetensors', not 'npz'"),
    ({"shard_size": 4}, "its shard_size is 8, not 4"),
    ({"batch_size": 2}, "its batch_size is 4, not 2"),
    ({"denoise": True}, "its denoise is None, not True"),
    ({"context": lambda indices: {"label": indices}}, r"its context is \[\], not \['label'\]"),
]


def test_another_set_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "a")
    before = contents(tmp_path / "a")
    folder = tmp_path / "a"
    refuses((functools.partial(draw, folder, **change), InvalidArgumentError, said) for change, said in CHANGES)
    assert contents(folder) == before
    one, other = (scoresde.GaussianSDE(torch.cos, sigma, 1e-3, 1.2) for sigma in (torch.sin, torch.tanh))
    score = scoresde.targets.Gaussian(torch.zeros(2), 0.3).score
    options: dict[str, Any] = {"method": "euler_maruyama", "steps": 2}
    generate(tmp_path / "c", one, score(one), 4, **options)
    with pytest.raises(InvalidArgumentError, match=OTHER):  # processes that print alike
        generate(tmp_path / "c", other, score(other), 4, **options)


def test_ranks_begin_at_places_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, and the last does it all: each finds what the others left."""
    draw(tmp_path / "plain", 40, shard_size=4)
    order: list[int] = []
    write = Store.write
    monkeypatch.setattr(
        Store, "write", lambda self, shard, *args, **kwargs: order.append(shard) or write(self, shard, *args, **kwargs)
    )
    for world in (2, 3, 5):
        order.clear()
        monkeypatch.setenv("WORLD_SIZE", str(world))
        monkeypatch.setenv("RANK", str(world - 1))
        assert draw(tmp_path / str(world), 40, shard_size=4).made == 10
        begin = (world - 1) * 10 // world
        assert order == [*range(begin, 10), *range(begin)]
        monkeypatch.setenv("RANK", "0")
        assert draw(tmp_path / str(world), 40, shard_size=4).made == 0
        assert contents(tmp_path / str(world)) == contents(tmp_path / "plain")
    for rank, world, found in ((0, 1, (0, 1)), (2, 3, (2, 3)), (3, 3, (0, 1)), (-1, 3, (0, 1)), ("a", 3, (0, 1))):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        assert place() == found, (rank, world)


def test_a_shard_of_another_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shard is taken over when the process has made no progress for long enough, and not before."""
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


# Containers


KINDS = ("safetensors", "npz", "png", "tar")
ELSEWHERE = """
import os, sys, time
os.umask(0o077)
time.time, time.localtime = lambda: 1e9 + 7, lambda *seconds: time.gmtime(0)
import torch, scoresde
from scoresde.sets.identity import Made
torch.set_num_threads(1)
sde = scoresde.VPSDE()
score = scoresde.targets.Gaussian(torch.zeros(1, 4, 4), 0.3).score(sde)
sizes = {"shard_size": 8, "batch_size": 4}
for kind in sys.argv[2:]:
    scoresde.generate(f"{sys.argv[1]}/{kind}", sde, score, 11, container=kind, method="ddim", steps=3, **sizes)
torch.manual_seed(0)
net = scoresde.nets.MLP((2,), labels=4, channels=8, blocks=1, width=8).eval()
bound = scoresde.ScoreModel(net, sde, "noise", context={"label": 3})
print(Made.of([scoresde.guidance.classifier_free(bound, scoresde.ScoreModel(net, sde, "noise"), 2.0), sde]).digest)
"""


def test_the_bytes_do_not_depend_on_time_or_process(tmp_path: Path) -> None:
    """In another process, another year, time zone, folder, order of hashes, with another mask of permissions. The
    identity of a guided network is the same there, and after use."""
    for kind in KINDS:
        draw(tmp_path / "here" / kind, 11, GREY, container=kind)
        assert verify(tmp_path / "here" / kind).complete
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = scoresde.nets.MLP((2,), labels=4, channels=8, blocks=1, width=8).eval()
    bound = scoresde.ScoreModel(net, SDE, "noise", context={"label": 3})
    score = scoresde.guidance.classifier_free(bound, scoresde.ScoreModel(net, SDE, "noise"), 2.0)
    before = Made.of([score, SDE]).digest
    scoresde.solve(SDE, score, shape=(2, 2), method="unipc2", steps=3)
    assert Made.of([score, SDE]).digest == before
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "17", "LOGNAME": "somebody"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "there"), *KINDS]
    there = subprocess.run(command, env=environment, check=True, timeout=100, capture_output=True, text=True)
    assert contents(tmp_path / "here") == contents(tmp_path / "there") and there.stdout.strip() == before


def picture(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def wanted(x: Tensor) -> np.ndarray:
    """The grey levels of a sample with values in [-1, 1]."""
    levels = ((x.double().clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8)
    return (levels[0] if len(levels) == 1 else levels.movedim(0, -1)).numpy()


@pytest.mark.parametrize("score", [GREY, IMAGE], ids=["grey", "colour"])
def test_containers_hold_the_same_samples(tmp_path: Path, score: Any) -> None:
    for container in ("safetensors", "npz", "png"):
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
    with pytest.raises(InvalidArgumentError, match=r"has pictures \(png\)"):
        Samples(tmp_path / "png")[0]


def test_the_layout_of_webdataset(tmp_path: Path) -> None:
    """The files of a sample follow each other, and their names differ from the first dot on; nothing of the user."""
    options = {"shape": (1, 4, 4), "identity": "s", "context": some_fail, "max_failures": 0.2}
    for container in ("png", "tar"):
        draw(tmp_path / container, 20, Labelled(GREY), container=container, **options)
    pictures = contents(tmp_path / "png" / "shards")
    names: list[str] = []
    for path in sorted((tmp_path / "tar" / "shards").iterdir()):
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                content = archive.extractfile(member)
                assert member.isfile() and content is not None
                if member.name.endswith(".png"):
                    assert content.read() == pictures[member.name]
                else:
                    assert json.loads(content.read())["index"] == int(member.name.partition(".")[0])
                names.append(member.name)
    assert names == [f"{i:012d}.{end}" for i in range(20) if i % 10 != 7 for end in ("png", "json")]
    assert [f["index"] for f in verify(tmp_path / "tar").failures] == [7, 17]
    assert sorted(p for p in pictures if p.endswith("png")) == [f"{i:012d}.png" for i in range(20) if i % 10 != 7]


def test_bfloat16_is_kept_as_float32(tmp_path: Path) -> None:
    draw(tmp_path / "a", 3, dtype=torch.bfloat16)
    x = Samples(tmp_path / "a")[0]["x"]
    assert x.dtype == torch.float32 and torch.equal(x, x.bfloat16().float())


# Failures


@pytest.mark.parametrize("options", [DDIM, {"method": "rk45"}], ids=["ddim", "rk45"])
def test_samples_that_fail_are_named_and_the_others_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    given: dict[str, Any] = {**LABELLED, "seed": 5, **options}
    made = draw(tmp_path / "a", 20, context=some_fail, max_failures=0.1, **given)
    assert [f["index"] for f in made.failures] == [7, 17]
    for failure in made.failures:
        assert failure == {"index": failure["index"], "seed": 5, "t": SDE.t_max, "reason": "non_finite"}
    arrays = everything(tmp_path / "a")
    bad = ~torch.isfinite(arrays["x"]).all(1)
    assert bad.nonzero()[:, 0].tolist() == [7, 17]
    assert torch.equal(arrays["status"] != 0, bad)
    never = draw(tmp_path / "b", 20, context=lambda i: {"label": torch.ones(len(i))}, **given)
    assert never.failures == () and torch.equal(everything(tmp_path / "b")["x"][~bad], arrays["x"][~bad])
    assert draw(tmp_path / "c", 6, context=some_fail, **given).failures == ()  # sample 7 fills up
    record = opened((tmp_path / "a" / "records" / "00000000.json").read_bytes())
    assert record["failures"] == [made.failures[0]]
    found = verify(tmp_path / "a")
    assert found.complete and found.failures == made.failures


def test_what_does_not_arrive_is_a_failure(tmp_path: Path) -> None:
    made = draw(tmp_path / "a", method="rk45", rtol=1e-3, max_steps=5, max_failures=1.0)
    assert 0 < len(made.failures) < 20 and {f["reason"] for f in made.failures} == {"max_steps"}
    assert all(SDE.t_min < f["t"] < SDE.t_max for f in made.failures)
    bad = ~torch.isfinite(everything(tmp_path / "a")["x"]).all(1)
    assert bad.nonzero()[:, 0].tolist() == [f["index"] for f in made.failures]


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    given: dict[str, Any] = {**LABELLED, "context": some_fail}
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


def limited(most: int, sizes: list[int], error: Callable[[], Exception] = MemoryError) -> dict[str, Any]:
    """A score that has memory for so many samples, and notes the sizes of batches."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > most:
            raise error()
        return SCORE(x, t)

    return {"score": score, "shape": (2,), "identity": "s"}


ERRORS: dict[str, Callable[[], Exception]] = {
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "python": MemoryError,
}


@pytest.mark.parametrize(("most", "error"), [(1, "cpu"), (3, "cuda"), (7, "python")])
def test_batches_are_halved(tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int, error: str) -> None:
    sizes: list[int] = []
    size = next(size for size in (8, 4, 2, 1) if size <= most)
    made = draw(tmp_path / "a", **limited(most, sizes, ERRORS[error]), batch_size=8)
    assert made.made == 3 and sizes[:4] == [8, 4, 2, 1][: sizes[:4].index(size) + 1] + [size] * (3 - sizes.index(size))
    assert f"its batches become {size}" in capsys.readouterr().err
    store = Store.of(tmp_path / "a")
    assert [store.batch_size(shard) for shard in range(3)] == [size] * 3
    draw(tmp_path / "b", **limited(99, []), batch_size=size)
    assert torch.equal(everything(tmp_path / "a")["x"], everything(tmp_path / "b")["x"])
    # who has more memory makes the same bytes
    before = contents(tmp_path / "a")
    (tmp_path / "a" / "shards" / "00000001.safetensors").unlink()
    sizes.clear()
    assert draw(tmp_path / "a", **limited(99, sizes), batch_size=8).made == 1 and set(sizes) == {size}
    assert contents(tmp_path / "a") == before


def test_the_smaller_size_is_on_the_disk_and_the_memory_free_before_the_shard_is_made(tmp_path: Path) -> None:
    """Nothing holds the tensors of the error when the shard is made again."""
    found: list[list[str]] = []
    held: list[Any] = []

    def score(x: Tensor, t: Tensor) -> Tensor:
        found.append(sorted(contents(tmp_path / "a")))
        if len(x) > 2:
            large = torch.zeros(1000)
            held.append(weakref.ref(large))
            raise MemoryError
        assert held[0]() is None
        return SCORE(x, t)

    draw(tmp_path / "a", 8, score=score, shape=(2,), identity="s")
    assert len(held) == 1 and "records/00000000.batch.json" not in found[0]
    assert "records/00000000.batch.json" in found[1] and "shards/00000000.safetensors" not in found[1]
    with pytest.raises(OutOfMemoryError, match="for one sample"):
        draw(tmp_path / "b", **limited(0, []))
    assert list((tmp_path / "b" / "leases").iterdir()) == []


@pytest.mark.parametrize(("when", "made"), [("at work", {3}), ("writing", {4, 5})])
def test_a_shard_of_larger_batches_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, made: set[int]
) -> None:
    """Another process marks all shards while this one, which has memory enough, is at work on the first, or about to
    write it, when the second may have been begun."""
    draw(tmp_path / "half", **limited(2, []))
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
    assert draw(tmp_path / "a", score=score, shape=(2,), identity="s").made in made
    assert contents(tmp_path / "a") == contents(tmp_path / "half")


# Bad arguments


class Strange(list[int]):
    """A score function that does not declare its shape."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return -x


BAD: list[tuple[dict[str, Any], str]] = [
    ({"count": 0}, "`count` must be at least 1"),
    ({"count": 2.5}, "`count` must be an integer"),
    ({"first": 2**63 - 5}, "A set ends before the index"),
    ({"seed": -1}, "`seed` must be at least 0"),
    ({"batch_size": 0}, "`batch_size` must be at least 1"),
    ({"container": "zip"}, "`container`: unknown name 'zip'"),
    ({"container": "png"}, "`container`='png' is for images"),
    ({"max_failures": 1.5}, r"`max_failures` must be in \[0, 1\]"),
    ({"patience": -1}, "`patience` must be in"),
    ({"device": "nope"}, "`device` must be a device"),
    ({"context": {"label": 1}}, "`context` must be callable"),
    ({"context": lambda indices: 7}, "`context` must return a mapping"),
    ({"context": lambda indices: {"label": torch.arange(18)[indices]}, "count": 18}, "failed for the indices 16 to 19"),
    ({"context": lambda indices: {"index": indices}}, "must not have the name 'index'"),
    ({"shape": "2"}, "`shape` must be the shape of one sample"),
    ({"score": Strange(), "identity": "s"}, "`shape`, that of one sample, is missing"),
    ({"method": "nosuch", "steps": 3}, "`method`: unknown name 'nosuch'"),
    ({"rtol": 1e-3}, "`rtol` does not apply to 'ddim'"),
    ({"nonsense": 1}, "Unknown option 'nonsense'"),
    ({"dtype": "float32"}, "`dtype` must have a floating-point dtype"),
    ({"folder": ""}, "`folder` must be a path"),
    *(({name: None}, f"`{name}` is not for `generate`") for name in ("x", "seeds", "noise", "callback", "throw")),
]


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    errors = (InvalidArgumentError, InvalidTypeError)
    refuses((functools.partial(draw, **{"folder": tmp_path / "a", **change}), errors, said) for change, said in BAD)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_no_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for folder in (tmp_path, tmp_path / "file", tmp_path / "file" / "set"):
        with pytest.raises(OutputError):
            draw(folder)
        for read in (verify, Samples):
            with pytest.raises(CorruptCheckpointError):
                read(folder)
    assert contents(tmp_path) == {"file": b"mine"}


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
    bound = model.score(label=torch.arange(4))
    net, outside = torch.nn.Sequential(torch.nn.Dropout()), DropsOutside().eval()
    outside.drop.train()
    guided = scoresde.guidance.classifier_free(bound, model.score(), 2.0)
    cases = [(score, "one for each place in a batch") for score in (bound, guided)]
    cases += [(score, "training mode") for score in (net, lambda x, t: net(x), outside)]
    given: dict[str, Any] = {"count": 4, "shape": (1, 8, 8)}
    refuses(
        (functools.partial(draw, tmp_path / "a", score=score, **given), InvalidArgumentError, s) for score, s in cases
    )
    assert not (tmp_path / "a").exists()


# Reading


@pytest.mark.parametrize("container", ["safetensors", "npz"])
def test_samples_by_their_place(tmp_path: Path, container: str) -> None:
    """In any order, each as a copy of its own."""
    draw(tmp_path / "a", 11, first=5, container=container)
    data, arrays = Samples(tmp_path / "a"), everything(tmp_path / "a")
    assert len(data) == 11 and "count=11" in repr(data)
    for i in (10, 0, 3, 2, -1, -11):
        row = data[i]
        assert row["index"].item() == 5 + i % 11 and row["x"].untyped_storage().nbytes() == 4 * 2
        assert all(torch.equal(row[name], arrays[name][i]) for name in arrays)
    for change in (data[3]["x"], data.arrays(0)["x"]):
        change.zero_()
        assert torch.equal(data[3]["x"], arrays["x"][3])
    for i in (11, 10**12, -12):
        with pytest.raises(IndexError, match="11 samples"):
            data[i]
    with pytest.raises(InvalidArgumentError, match="`shard` must be from 0 to 1"):
        data.arrays(2)
    assert [row["index"].item() for row in data] == list(range(5, 16))  # type: ignore[attr-defined]
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    assert torch.equal(torch.cat([batch["x"] for batch in loader]), arrays["x"])
    assert all(torch.equal(value, arrays[name]) for name, value in data.all().items())


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
