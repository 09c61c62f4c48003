"""`scoresde sample`: what it writes, and what it refuses to write."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from typer.testing import Result

import scoresde
from scoresde._registries import SDES
from scoresde.cli._options import label_of, make_sde, parse_options, sample_seeds
from scoresde.errors import CorruptCheckpointError

Run = Callable[..., Result]
Files = Callable[[], list[str]]


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


# What is written


def test_default_is_a_picture_of_30_samples(ddim: Run, fake: Any, files: Files) -> None:
    result = ddim()
    assert result.exit_code == 0, result.output
    assert files() == ["samples.png"]
    with Image.open("samples.png") as image:
        image.load()
        info = json.loads(image.text["scoresde"])  # type: ignore[attr-defined]
        pixels = np.asarray(image, dtype=float)
    assert image.mode == "L" and image.size == (6 * 34 - 2, 5 * 34 - 2)
    assert info["num"] == 30 and info["method"] == "ddim" and info["denoise"] is True
    tiles = [pixels[34 * i : 34 * i + 32, 34 * j : 34 * j + 32] for i in range(5) for j in range(6)]
    upper = [tile[:16].mean() > tile[16:].mean() for tile in tiles]
    dark, bright = 255 * 0.05, 255 * 0.95
    close = []
    for tile, up in zip(tiles, upper, strict=True):
        halves = (tile[:16], tile[16:]) if up else (tile[16:], tile[:16])
        assert halves[0].mean() == pytest.approx(bright, abs=30) and halves[1].mean() == pytest.approx(dark, abs=30)
        close.append(abs(halves[0].mean() - bright) < 6 and abs(halves[1].mean() - dark) < 6)
    assert sum(close) >= 26  # ten steps leave a sample that starts between the two modes a little short of its own
    assert 4 <= sum(upper) <= 26  # a fair coin leaves this interval with probability 1e-5


def test_summary_says_what_it_took(ddim: Run, fake: Any) -> None:
    output = ddim("--num", 3, "--out", "a.npz").output
    assert "3 samples of mnist: vp, ddim, 10 steps, 10 evaluations per sample" in output
    assert "a.npz: arrays, x is 3 x 1 x 8 x 8; 10 network calls" in output
    assert fake.calls == 10
    assert ddim("--num", 3, "--quiet").output == ""


def test_arrays_and_their_metadata(ddim: Run, fake: Any, files: Files) -> None:
    arguments = ("--num", 3, "--seed", 5, "--label", 1, "--sde", "ve")
    assert ddim(*arguments, "--out", "a.npz").exit_code == 0
    assert ddim(*arguments, "--out", "a.safetensors").exit_code == 0
    assert files() == ["a.npz", "a.safetensors"]
    npz, tensors = arrays("a.npz"), load_file("a.safetensors")
    metadata = json.loads(str(npz.pop("metadata")))
    with safe_open("a.safetensors", "np") as file:
        assert json.loads(file.metadata()["scoresde"]) == metadata
    assert npz.keys() == tensors.keys() == {"x", "index", "nfe"}
    for name in npz:
        assert npz[name].dtype == tensors[name].dtype
        assert np.array_equal(npz[name], tensors[name])
    assert npz["x"].dtype == np.float32 and npz["x"].shape == (3, 1, 8, 8)
    assert (npz["x"][:, :, 4:] > 0).all() and (npz["x"][:, :, :4] < 0).all()  # label 1, the lower half
    assert npz["nfe"].tolist() == [10, 10, 10]
    assert npz["index"].tolist() == [0, 1, 2]
    assert metadata["seed"] == 5 and metadata["label"] == 1 and metadata["sde"].startswith("VESDE")
    assert metadata["denoise"] is False


def test_guidance_towards_a_label(ddim: Run, run: Run, fake: Any, files: Files) -> None:
    def x(*arguments: object) -> np.ndarray:
        result = ddim("--num", 3, "--label", 1, "--out", "a.npz", "--denoise", *arguments)
        assert result.exit_code == 0, result.output
        return arrays("a.npz")["x"]

    plain = x()
    assert "guidance" not in json.loads(str(arrays("a.npz")["metadata"]))
    assert np.allclose(x("--guidance", 1), plain, rtol=0, atol=1e-5)
    fake.calls = 0
    guided = x("--guidance", 2)
    assert json.loads(str(arrays("a.npz")["metadata"]))["guidance"] == 2.0
    assert fake.calls == 22 and arrays("a.npz")["nfe"].tolist() == [11] * 3  # bare callables are asked one by one
    sde = scoresde.VPSDE()
    score_fn = scoresde.guidance.classifier_free(fake.score(sde, half=1), fake.score(sde), 2.0)
    options = {"method": "ddim", "steps": 10, "noise": scoresde.SampleNoise(0, indices=range(3)), "denoise": True}
    assert np.array_equal(guided, scoresde.solve(sde, score_fn, shape=(3, 1, 8, 8), **options).x.numpy())
    os.remove("a.npz")
    for arguments, message in ((("--guidance", 2), "--label 7"), (("--label", 1, "--guidance", "nan"), "scale")):
        result = ddim("--num", 2, *arguments)
        assert result.exit_code == 2 and message in result.output and not files()


def test_guidance_of_the_shipped_network(run: Run) -> None:
    """One call per step for both of its answers."""
    command = ("sample", "--label", 7, "--guidance", 2, "--num", 2, "--method", "unipc", "--steps", 4, "--out", "a.npz")
    result = run(*command)
    assert result.exit_code == 0 and "4 network calls" in result.output, result.output


def test_the_same_command_writes_the_same_bytes(ddim: Run, fake: Any) -> None:
    for extension in ("png", "npz", "safetensors"):
        for name in "ab":
            assert ddim("--num", 2, "--out", f"{name}.{extension}").exit_code == 0
        assert Path(f"a.{extension}").read_bytes() == Path(f"b.{extension}").read_bytes()


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45"])
def test_a_sample_depends_on_seed_and_index_alone(run: Run, fake: Any, method: str) -> None:
    def x(num: int, batch_size: int, seed: int = 0) -> np.ndarray:
        steps = () if method == "rk45" else ("--steps", 10)
        arguments = ("--num", num, "--batch-size", batch_size, "--seed", seed, "--out", "a.npz")
        assert run("sample", "--method", method, *steps, *arguments).exit_code == 0
        return arrays("a.npz")["x"]

    whole = x(7, 64)
    for num, batch_size in ((7, 1), (7, 3), (4, 64), (5, 2)):
        assert np.allclose(x(num, batch_size), whole[:num], atol=1e-5)
    assert len(np.unique(whole.reshape(7, -1), axis=0)) == 7
    other = x(7, 64, seed=1)
    assert not np.isclose(whole.reshape(7, -1), other.reshape(7, -1)).all(1).any()


def test_all_classes_in_turn(run: Run) -> None:
    common = ("sample", "--model", "digits", "--num", 13, "--method", "ddim", "--steps", 3)
    for name, more in {"all": ("--label", "all"), "cut": ("--label", "all", "--batch-size", 4)}.items():
        result = run(*common, *more, "--out", f"{name}.npz")
        assert result.exit_code == 0, result.output
    assert np.allclose(arrays("all.npz")["x"], arrays("cut.npz")["x"], atol=1e-4)
    for label in (2, 9):
        assert run(*common, "--label", label, "--out", "one.npz").exit_code == 0
        same = np.isclose(arrays("one.npz")["x"], arrays("all.npz")["x"], atol=1e-4).reshape(13, -1).all(1)
        assert np.flatnonzero(same).tolist() == [i for i in range(13) if i % 10 == label]


def test_solver_options_and_process_reach_the_solver(run: Run, fake: Any) -> None:
    command = ("sample", "--method", "pc", "--num", 2, "--steps", 3, "--out", "a.npz", "--grid", "time")
    result = run(*command, "--option", "moves=2", "--option", "predictor=ancestral", "--option", "snr=0.1")
    assert result.exit_code == 0, result.output
    assert arrays("a.npz")["nfe"].tolist() == [9, 9]
    assert run(*command, "--method", "euler_maruyama", "--stochasticity", 0.5).exit_code == 0


def test_adaptive_method(run: Run, fake: Any) -> None:
    command = ("sample", "--method", "rk45", "--num", 3, "--out", "a.npz")
    result = run(*command, "--rtol", 1e-2, "--atol", 1e-2)
    assert result.exit_code == 0, result.output
    loose = arrays("a.npz")["nfe"].mean()
    assert "adaptive steps" in result.output
    assert run(*command, "--rtol", 1e-5, "--atol", 1e-5).exit_code == 0
    assert arrays("a.npz")["nfe"].mean() > 1.5 * loose


def test_denoise_is_on_for_pictures(ddim: Run, fake: Any) -> None:
    for arguments, expected in (
        (("--out", "a.png"), 11),
        (("--out", "a.npz"), 10),
        (("--out", "a.png", "--no-denoise"), 10),
        (("--out", "a.npz", "--denoise"), 11),
    ):
        fake.calls = 0
        assert ddim("--num", 2, *arguments).exit_code == 0
        assert fake.calls == expected


@pytest.mark.parametrize("name", SDES)
def test_every_process(ddim: Run, fake: Any, name: str) -> None:
    result = ddim("--num", 4, "--sde", name, "--out", "a.npz", "--steps", 30, "--denoise")
    assert result.exit_code == 0, result.output
    x = torch.from_numpy(arrays("a.npz")["x"])
    assert bool(((x[:, None] - fake.means()).abs().amax((2, 3, 4)).amin(1) < 0.4).all())
    assert type(make_sde(name)) is SDES[name]


def test_colour_and_events_that_are_no_pictures(ddim: Run, fake: Any, files: Files) -> None:
    fake.event_shape = (3, 4, 4)
    assert ddim("--num", 2, "--out", "a.png").exit_code == 0
    with Image.open("a.png") as image:
        assert image.mode == "RGB"
    fake.event_shape, fake.calls = (5,), 0
    result = ddim("--num", 2, "--out", "b.png")
    assert result.exit_code == 2 and "--out b.npz" in result.output and fake.calls == 0
    assert ddim("--num", 2, "--out", "b.npz").exit_code == 0
    assert files() == ["a.png", "b.npz"]


# Seeds


def test_seeds_are_distinct_where_it_matters() -> None:
    many = sample_seeds(0, 0, 100_000)
    assert len({seed & 0xFFFFFFFF for seed in many}) == len(many)  # torch's CPU generator uses the low 32 bits
    assert all(0 <= seed < 2**64 for seed in many)
    other = {seed & 0xFFFFFFFF for seed in sample_seeds(1, 0, 1000)}
    assert len(other & {seed & 0xFFFFFFFF for seed in many[:1000]}) <= 2  # 1000^2 / 2^32 expected: P(3 or more) < 3e-12


def test_seeds_do_not_depend_on_how_they_are_asked_for() -> None:
    assert sample_seeds(7, 3, 4) == [sample_seeds(7, i, 1)[0] for i in range(3, 7)]
    assert sample_seeds(0, 2**32 - 1, 1)[0] < 2**64


def test_seeds_look_random() -> None:
    bits = np.array([[seed >> b & 1 for b in range(32)] for seed in sample_seeds(3, 0, 4000)])
    z = (bits.mean(0) - 0.5) * 2 * np.sqrt(len(bits))
    assert np.abs(z).max() < 5  # 32 bits: P < 2e-5
    flips = (bits[1:] != bits[:-1]).mean(0)
    assert np.abs(flips - 0.5).max() < 0.05


def test_option_values() -> None:
    assert parse_options(["a=1", "b=1e-3", "c=true", "d=none", "e=x=y", "f=-2"]) == {
        "a": 1,
        "b": 1e-3,
        "c": True,
        "d": None,
        "e": "x=y",
        "f": -2,
    }


# Refusals: nothing is evaluated, nothing is written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num", 0], "num"),
        (["--num", -1], "num"),
        (["--batch-size", 0], "batch"),
        (["--seed", -1], "seed"),
        (["--steps", 0], "`steps` must be at least 1"),
        (["--steps", 1.5], "steps"),
        (["--method", "eulr"], "did you mean 'euler'"),
        (["--method", "DPM2"], "is method='dpm_2s', form='dpmsolver' here"),
        (["--method", "ddimm"], "did you mean 'ddim'?"),
        (["--method", "DPM++ 2M Karras"], "is method='dpmpp_2m', grid='karras' here"),
        (["--method", ""], "`method`: unknown name ''"),
        (["--sde", "vpp"], "did you mean 'vp'"),
        (["--grid", "log_sn"], "log_snr"),
        (["--option", "snr"], "key=value"),
        (["--option", "snr=0.1", "--option", "snr=0.2"], "twice"),
        (["--method", "pc", "--option", "snrr=0.1"], "did you mean 'snr'"),
        (["--method", "pc", "--option", "snr=-1"], "snr"),
        (["--method", "pc", "--option", "snr=x"], "snr"),
        (["--method", "pc", "--option", "steps=3"], "steps"),
        (["--method", "ddim", "--rtol", "1e-3"], "rk45"),
        (["--option", "snr=0.1"], "give 'snr' with the name of a method"),
        (["--method", "rk45", "--rtol", "nan"], "rtol"),
        (["--method", "rk45", "--atol", "-1"], "atol"),
        (["--method", "rk45", "--steps", 5], "rtol"),
        (["--method", "rk45", "--max-steps", 0], "max_steps"),
        (["--stochasticity", 1], "stochasticity"),
        (["--device", "gpu9"], "got 'gpu9'"),
        (["--device", "meta"], "got 'meta'"),
        (["--out", "a.jpg"], ".png, .npz, .safetensors or /"),
        (["--out", "a"], ".png, .npz, .safetensors or /"),
        (["--out", ""], ".png, .npz, .safetensors or /"),
        (["--stepz", 3], "--steps"),
        (["more"], "more"),
    ],
)
def test_usage_is_exit_2(run: Run, fake: Any, files: Files, arguments: list[Any], said: str) -> None:
    result = run("sample", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert files() == [] and fake.calls == 0


def test_label_of_a_model_without_labels(run: Run, fake: Any, files: Files) -> None:
    fake.labels = None
    result = run("sample", "--label", 1)
    assert result.exit_code == 2 and "no labels" in result.output and files() == []


@pytest.mark.parametrize("out", ["missing/a.png", "file/a.png", "folder.png", "device.npz", f"{'n' * 300}.png"])
def test_output_is_checked_before_sampling(ddim: Run, fake: Any, files: Files, tmp_path: Path, out: str) -> None:
    Path("file").write_bytes(b"")
    Path("folder.png").mkdir()
    Path("device.npz").symlink_to("/dev/full")
    before = files()
    result = ddim("--out", out)
    assert result.exit_code == 4, result.output
    assert result.output.startswith("Error: ") and fake.calls == 0
    assert files() == before and not any(Path("folder.png").iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.safetensors"])
def test_a_failed_write_leaves_the_old_file(
    ddim: Run, fake: Any, files: Files, monkeypatch: pytest.MonkeyPatch, number: int, out: str
) -> None:
    Path(out).write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    result = ddim("--out", out)
    assert result.exit_code == 4, result.output
    assert os.strerror(number) in result.output and ("bytes are needed" in result.output) == (number != errno.EIO)
    assert files() == [out] and Path(out).read_bytes() == b"old"


# Numerical failures: exit 3, and nothing is written


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.safetensors"])
def test_a_nan_never_becomes_a_file(ddim: Run, fake: Any, files: Files, value: float, out: str) -> None:
    fake.change = lambda s, x, t: torch.full_like(s, value)
    result = ddim("--out", out)
    assert result.exit_code == 3, result.output
    assert files() == []


@pytest.mark.parametrize("method", ["pc", "rk45"])
def test_one_bad_value_is_enough(run: Run, fake: Any, files: Files, method: str) -> None:
    Path("samples.png").write_bytes(b"old")

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        s = s.clone()
        if fake.calls > 8 and len(s) > 2:
            s[2, 0, 3, 4] = torch.nan
        return s

    fake.change = change
    steps = () if method == "rk45" else ("--steps", 5)
    result = run("sample", "--method", method, *steps, "--num", 8, "--batch-size", 5)
    assert result.exit_code == 3, result.output
    assert "sample 2; --first 2 --count 1 draws the first of them alone" in result.output.replace("\n", " ")
    assert files() == ["samples.png"] and Path("samples.png").read_bytes() == b"old"


def test_a_failure_in_a_later_batch_is_counted_over_all(ddim: Run, fake: Any, files: Files) -> None:
    fake.change = lambda s, x, t: s.clone().index_fill(0, torch.tensor([1]), torch.nan) if fake.calls > 11 else s
    result = ddim("--num", 9, "--batch-size", 3)
    assert result.exit_code == 3
    assert "sample 4; --first 4 --count 1" in result.output
    assert files() == []


def test_nan_at_the_last_evaluation_only(ddim: Run, fake: Any, files: Files) -> None:
    fake.change = lambda s, x, t: s * torch.nan if fake.calls == 11 else s
    assert ddim("--num", 2).exit_code == 3
    assert files() == []


def test_a_score_that_is_none(ddim: Run, fake: Any, files: Files) -> None:
    fake.change = lambda s, x, t: s[:1]
    assert ddim("--num", 4).exit_code == 3
    assert files() == []


def test_a_solver_that_does_not_arrive(run: Run, fake: Any, files: Files) -> None:
    result = run("sample", "--method", "rk45", "--max-steps", 2)
    assert result.exit_code == 3 and "max_steps" in result.output
    assert files() == []


# Models: exit 5


def test_unknown_model(run: Run, files: Files) -> None:
    result = run("sample", "--model", "digit")
    assert result.exit_code == 5 and "did you mean 'digits'" in result.output
    assert files() == []


def test_pickles_are_refused(run: Run, files: Files) -> None:
    Path("model.pt").write_bytes(b"\x80\x04N.")
    result = run("sample", "--model", "model.pt")
    assert result.exit_code == 5 and "pickle" in result.output
    assert files() == ["model.pt"]


def test_corrupt_model(run: Run, monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    def load(name: str, device: Any = None) -> None:
        raise CorruptCheckpointError("altered")

    monkeypatch.setattr(scoresde.zoo, "load", load)
    assert run("sample").exit_code == 5
    assert files() == []


# Memory, interrupts, threads


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_batches_are_halved_if_memory_is_short(ddim: Run, fake: Any, error: RuntimeError) -> None:
    assert ddim("--num", 7, "--out", "a.npz").exit_code == 0

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise error
        return s

    fake.change = change
    result = ddim("--num", 7, "--out", "b.npz")
    assert result.exit_code == 0 and "batches of 1." in result.output
    a, b = arrays("a.npz"), arrays("b.npz")
    assert np.allclose(a["x"], b["x"], atol=1e-5) and a["index"].tolist() == b["index"].tolist()


def test_too_little_memory_for_one(ddim: Run, fake: Any, files: Files) -> None:
    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    fake.change = change
    result = ddim("--num", 3)
    assert result.exit_code == 1 and "too little memory for one sample" in result.output
    assert files() == []


def test_other_errors_of_a_network_are_not_hidden(ddim: Run, fake: Any, files: Files) -> None:
    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a bug")

    fake.change = change
    result = ddim("--num", 3)
    assert result.exit_code == 1 and str(result.exception) == "a bug"
    assert files() == []


def test_interrupt_is_exit_75(ddim: Run, fake: Any, files: Files) -> None:
    Path("samples.png").write_bytes(b"old")

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if fake.calls == 5:
            raise KeyboardInterrupt
        return s

    fake.change = change
    result = ddim("--num", 3)
    assert result.exit_code == 75 and "Interrupted" in result.output
    assert files() == ["samples.png"] and Path("samples.png").read_bytes() == b"old"


def test_interrupt_while_writing(ddim: Run, fake: Any, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    assert ddim("--num", 3).exit_code == 75
    assert files() == []


def test_the_number_of_threads_is_put_back(ddim: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert ddim("--num", 2).exit_code == 0
    assert seen == [1, 5]
    seen.clear()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert ddim("--num", 2).exit_code == 0
    assert seen == [5]


def test_progress_follows_the_solve(ddim: Run, run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []

    class Bar:
        def __init__(self, total: int, **kwargs: Any) -> None:
            self.total, self.n, self.disable = total, 0.0, False

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def refresh(self) -> None:
            shown.append(self.n)

    monkeypatch.setattr("tqdm.tqdm", Bar)
    assert ddim("--num", 6, "--batch-size", 4).exit_code == 0
    assert shown == sorted(shown) and shown[-1] == 6 and 4 in shown and len(shown) == 22
    shown.clear()
    assert run("sample", "--method", "rk45", "--num", 3).exit_code == 0
    assert shown == sorted(shown) and shown[-1] == 3 and 0 < shown[len(shown) // 2] < 3


# The model that ships


def test_digits(ddim: Run) -> None:
    for label in ((), ("--label", 3)):
        result = ddim("--model", "digits", "--num", 4, "--out", "a.npz", "--quiet", *label)
        assert result.exit_code == 0, result.output
        x = arrays("a.npz")["x"]
        assert x.shape == (4, 1, 8, 8) and np.isfinite(x).all()
    assert ddim("--model", "digits", "--num", 4, "--batch-size", 3, "--out", "b.npz", "--label", 3).exit_code == 0
    assert np.allclose(arrays("b.npz")["x"], x, atol=1e-3)


@pytest.mark.parametrize("label", [-1, 10])
def test_digits_know_their_labels(ddim: Run, files: Files, label: int) -> None:
    assert ddim("--label", label).exit_code == 2
    assert files() == []


def test_module_reads_labels_by_their_name() -> None:
    network = SimpleNamespace(labels=SimpleNamespace(name="half"))
    assert label_of(network, 1) == {"half": 1}
    assert label_of(network, None) == {}
