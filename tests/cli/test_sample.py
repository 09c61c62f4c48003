"""`scoresde sample`: what it writes, and what it refuses to write."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import scoresde
from scoresde.core.errors import CorruptCheckpointError
from tests.cli.common import Files, Run, arrays, expect, loses, metadata

PROCESSES = {
    **{"vp": scoresde.VPSDE, "ve": scoresde.VESDE, "subvp": scoresde.SubVPSDE, "cosine": scoresde.CosineVPSDE},
    **{
        "sigmoid": scoresde.SigmoidVPSDE,
        "vdm": scoresde.VDMSDE,
        "edm": scoresde.EDMSDE,
        "flow": scoresde.FlowSDE,
    },
}


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
    halves = np.array([[tile[:16].mean(), tile[16:].mean()] for tile in tiles]) / 255
    upper = halves[:, 0] > halves[:, 1]
    error = np.abs(np.sort(halves) - [0.05, 0.95]).max(1)
    # ten steps leave a sample that starts between the two modes a little short of its own
    assert error.max() < 0.12 and (error < 0.024).sum() >= 26
    assert 4 <= sum(upper) <= 26  # a fair coin leaves this interval with probability 1e-5


def test_where_samples_go_that_are_given_no_output(draw: Run, fake: Any, files: Files) -> None:
    """Beside those that are there; a film, with its last picture beside it."""
    for name in ("samples.png", "samples-2.png", "samples-3.png"):
        expect(draw("--num", 2), 0, f"{name}: picture")
    before = Path("samples.png").read_bytes()
    expect(draw("--num", 4, "--force"), 0, "samples.png: picture")
    assert Path("samples.png").read_bytes() != before
    expect(draw("--num", 2, "--out", "samples.png"), 4, "The file is there")
    expect(draw("--num", 2, "--shard-size", 2), 2, "a folder for a set, such as samples/")
    expect(draw("--num", 2, "--out", "a.gif"), 0, "a.png: picture", "animation a.gif")
    assert files() == ["a.gif", "a.png", "samples-2.png", "samples-3.png", "samples.png"]


def test_arguments_are_checked_before_the_output(typed: Run, fake: Any) -> None:
    """A misspelt one is named, not the file that an earlier command left."""
    for name in ("samples.png", "a.npz"):
        Path(name).write_bytes(b"")
    expect(typed("sample", "--method", "eulr", "--out", "samples.png"), 2, "unknown name 'eulr'")
    expect(typed("sample", "--sde", "vpp", "--out", "samples.png"), 2, "unknown name 'vpp'")
    expect(typed("encode", "--data", "digits", "--method", "eulr", "--out", "a.npz"), 2, "unknown name 'eulr'")
    expect(typed("measure", "digits", "--out", "a.npz"), 2, "`operator` is missing")
    expect(typed("sample", "--sde", "VP", "--method", "ddim", "--steps", 2, "--out", "b.png"), 0, ": vp, ddim")


def test_arrays_and_their_metadata(ddim: Run, fake: Any, files: Files) -> None:
    arguments = ("--num", 3, "--seed", 5, "--label", 1, "--sde", "ve")
    for name in ("a.npz", "a.safetensors"):
        said = "3 samples of mnist: ve, ddim, 10 steps, 10 evaluations per sample"
        expect(ddim(*arguments, "--out", name), 0, said, f"{name}: arrays, x is 3 x 1 x 8 x 8; 10 network calls")
    assert ddim(*arguments, "--quiet", "--out", "a.npz").output == ""
    assert fake.calls == 30 and files() == ["a.npz", "a.safetensors"]
    npz, tensors = arrays("a.npz"), load_file("a.safetensors")
    told = json.loads(str(npz.pop("metadata")))
    with safe_open("a.safetensors", "np") as file:
        assert json.loads(file.metadata()["scoresde"]) == told
    assert npz.keys() == tensors.keys() == {"x", "index", "nfe"}
    for name in npz:
        assert npz[name].dtype == tensors[name].dtype and np.array_equal(npz[name], tensors[name])
    assert npz["x"].dtype == np.float32 and npz["x"].shape == (3, 1, 8, 8)
    assert (npz["x"][:, :, 4:] > 0).all() and (npz["x"][:, :, :4] < 0).all()  # label 1, the lower half
    assert npz["nfe"].tolist() == [10, 10, 10] and npz["index"].tolist() == [0, 1, 2]
    assert told["seed"] == 5 and told["label"] == 1 and told["sde"].startswith("VESDE") and told["denoise"] is False


def test_guidance_towards_a_label(ddim: Run, fake: Any, files: Files) -> None:
    def x(*arguments: object) -> np.ndarray:
        expect(ddim("--num", 3, "--label", 1, "--out", "a.npz", "--denoise", *arguments), 0)
        return arrays("a.npz")["x"]

    plain = x()
    assert "guidance" not in metadata("a.npz")
    assert np.allclose(x("--guidance", 1), plain, rtol=0, atol=1e-5)
    fake.calls = 0
    guided = x("--guidance", 2)
    assert metadata("a.npz")["guidance"] == 2.0
    assert fake.calls == 22 and arrays("a.npz")["nfe"].tolist() == [11] * 3  # bare callables are asked one by one
    sde = scoresde.VPSDE()
    score_fn = scoresde.guidance.classifier_free(fake.score(sde, half=1), fake.score(sde), 2.0)
    options = {"method": "ddim", "steps": 10, "noise": scoresde.SampleNoise(0, indices=range(3)), "denoise": True}
    assert np.array_equal(guided, scoresde.solve(sde, score_fn, shape=(3, 1, 8, 8), **options).x.numpy())
    os.remove("a.npz")
    for arguments, message in ((("--guidance", 2), "--label 7"), (("--label", 1, "--guidance", "nan"), "scale")):
        expect(ddim("--num", 2, *arguments), 2, message)
    assert files() == []


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45"])
def test_a_sample_depends_on_seed_and_index_alone(run: Run, fake: Any, method: str) -> None:
    steps = ("--rtol", 1e-3, "--atol", 1e-3) if method == "rk45" else ("--steps", 5)

    def x(num: int, batch_size: int, seed: int = 0) -> np.ndarray:
        arguments = ("--num", num, "--batch-size", batch_size, "--seed", seed, "--out", "a.npz")
        expect(run("sample", "--method", method, *steps, *arguments), 0)
        return arrays("a.npz")["x"]

    whole = x(5, 64)
    for num, batch_size in ((5, 1), (5, 3), (4, 64)):
        assert np.allclose(x(num, batch_size), whole[:num], atol=1e-5)
    assert len(np.unique(whole.reshape(5, -1), axis=0)) == 5
    other = x(5, 64, seed=1)
    assert not np.isclose(whole.reshape(5, -1), other.reshape(5, -1)).all(1).any()


def test_all_classes_in_turn(run: Run, fake: Any) -> None:
    fake.labels.count = 3  # of which the last two are drawn alike
    common = ("sample", "--num", 7, "--method", "ddim", "--steps", 3)
    for name, more in {"all": (), "cut": ("--batch-size", 4)}.items():
        expect(run(*common, "--label", "all", *more, "--out", f"{name}.npz"), 0)
    x = arrays("all.npz")["x"]
    assert np.allclose(x, arrays("cut.npz")["x"], atol=1e-4)
    assert arrays("all.npz")["label"].tolist() == arrays("cut.npz")["label"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    expect(run(*common, "--label", 0, "--out", "one.npz"), 0)
    same = np.isclose(arrays("one.npz")["x"], x, atol=1e-4).reshape(7, -1).all(1)
    assert np.flatnonzero(same).tolist() == [0, 3, 6]


def test_solver_options_and_process_reach_the_solver(run: Run, fake: Any) -> None:
    given = ("sample", "--num", 2, "--steps", 3, "--out", "a.npz")
    options = ("--option", "moves=2", "--option", "predictor=ancestral", "--option", "snr=0.1")
    expect(run(*given, "--method", "pc", "--grid", "time", *options), 0)
    found = arrays("a.npz")
    assert found["nfe"].tolist() == [9, 9]
    expect(run(*given, "--method", "euler_maruyama", "--stochasticity", 0.5, "--out", "b.npz"), 0)
    sde = scoresde.VPSDE()
    pc = scoresde.solvers.make_solver("pc", {"moves": 2, "predictor": "ancestral", "snr": 0.1})
    for x, told in (
        (found["x"], {"method": pc, "grid": "time"}),
        (arrays("b.npz")["x"], {"method": "euler_maruyama", "stochasticity": 0.5}),
    ):
        noise = scoresde.SampleNoise(0, indices=range(2))
        expected = scoresde.solve(sde, fake.score(sde), steps=3, shape=(2, 1, 8, 8), noise=noise, **told).x
        assert np.array_equal(x, expected.numpy()), told
    for text, value in (("true", "True"), ("none", "None"), ("x=y", "'x=y'")):
        expect(run(*given, "--method", "ddim_eta", "--option", f"eta={text}"), 2, f"got {value}")


def test_denoise_is_on_for_pictures(ddim: Run, fake: Any) -> None:
    for arguments, expected in (
        (("--out", "a.png"), 11),
        (("--out", "a.npz"), 10),
        (("--out", "a.png", "--no-denoise"), 10),
        (("--out", "a.npz", "--denoise"), 11),
    ):
        fake.calls = 0
        expect(ddim("--num", 2, *arguments), 0)
        assert fake.calls == expected, arguments


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process(ddim: Run, fake: Any, name: str) -> None:
    expect(ddim("--num", 4, "--sde", name, "--out", "a.npz", "--steps", 20, "--denoise"), 0)
    x = torch.from_numpy(arrays("a.npz")["x"])
    assert bool(((x[:, None] - fake.means()).abs().amax((2, 3, 4)).amin(1) < 0.4).all())
    assert metadata("a.npz")["sde"] == repr(PROCESSES[name]())


def test_usage_is_exit_2(run: Run, fake: Any, files: Files) -> None:
    for arguments, said in (
        (["--evaluations", 0], "`evaluations` must be at least 1"),
        (["--method", "eulr"], "did you mean 'euler'"),
        (["--method", "DPM++ 2M Karras"], "is method='dpmpp_2m', grid='karras' here"),
        (["--sde", "vpp"], "did you mean 'vp'"),
        (["--option", "snr=0.1", "--option", "snr=0.2"], "twice"),
        (["--method", "pc", "--option", "snrr=0.1"], "did you mean 'snr'"),
        (["--method", "ddim", "--rtol", "1e-3"], "rk45"),
        (["--option", "snr=0.1"], "give 'snr' with the name of a method"),
        (["--method", "rk45", "--steps", 5], "rtol"),
        (["--device", "gpu9"], "got 'gpu9'"),
        (["--out", "a.jpg"], ".png, .npz, .safetensors or /"),
        (["--label", "three"], "`label` must be the number of a class, or all"),
    ):
        expect(run("sample", *arguments), 2, said)
    fake.labels = None
    for label in (1, "all"):
        expect(run("sample", "--label", label), 2, "no labels")
    assert files() == [] and fake.calls == 0


@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.safetensors"])
def test_a_failed_write_keeps_what_is_there(
    ddim: Run, fake: Any, files: Files, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    Path(out).write_bytes(b"old")
    for error, code in ((OSError(errno.ENOSPC, "No space left on device"), 4), (KeyboardInterrupt(), 75)):

        def failing(descriptor: int, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", failing)
        expect(ddim("--num", 2, "--out", out), code)
    assert files() == [out] and Path(out).read_bytes() == b"old"


@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.safetensors"])
def test_a_nan_never_becomes_a_file(ddim: Run, fake: Any, files: Files, out: str) -> None:
    for change in (
        lambda s, x, t: torch.full_like(s, torch.nan),
        lambda s, x, t: torch.full_like(s, torch.inf),
        lambda s, x, t: s * torch.nan if fake.calls == 11 else s,  # the last evaluation
        lambda s, x, t: s[:1],
    ):
        fake.change, fake.calls = change, 0
        expect(ddim("--num", 2, "--denoise", "--out", out), 3)
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
    expect(result, 3, "sample 2; --first 2 --count 1 draws the first of them alone")
    assert files() == ["samples.png"] and Path("samples.png").read_bytes() == b"old"


def test_a_failure_in_a_later_batch_is_counted_over_all(ddim: Run, run: Run, fake: Any, files: Files) -> None:
    fake.change = lambda s, x, t: loses(1)(s, x, t) if fake.calls > 11 else s
    expect(ddim("--num", 9, "--batch-size", 3), 3, "sample 4; --first 4 --count 1")
    fake.change = lambda s, x, t: s
    expect(run("sample", "--method", "rk45", "--max-steps", 2), 3, "max_steps")
    assert files() == []


def test_models_that_cannot_be_read(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(run("sample", "--model", "digit"), 5, "did you mean 'digits'")
    Path("model.pt").write_bytes(b"\x80\x04N.")
    expect(run("sample", "--model", "model.pt"), 5, "pickle")
    for label in (-1, 10):
        expect(run("sample", "--model", "digits", "--label", label), 2)

    def load(name: str, device: Any = None) -> None:
        raise CorruptCheckpointError("altered")

    monkeypatch.setattr(scoresde.zoo, "load", load)
    expect(run("sample"), 5, "altered")
    assert files() == ["model.pt"]


def test_the_number_of_threads_is_put_back(ddim: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    expect(ddim("--num", 2), 0)
    assert seen == [1, 5]
    seen.clear()
    fake.event_shape = (1, 300, 300)  # for which more threads are worth it
    expect(ddim("--num", 1, "--out", "a.npz"), 0)
    fake.event_shape = (1, 8, 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    expect(ddim("--num", 2), 0)
    assert seen == [5, 5]


def test_progress_follows_the_solve(ddim: Run, run: Run, fake: Any, shown: list[float]) -> None:
    expect(ddim("--num", 6, "--batch-size", 4), 0)
    assert shown == sorted(shown) and shown[-1] == 6 and 4 in shown and len(shown) == 22
    shown.clear()
    expect(run("sample", "--method", "rk45", "--num", 3), 0)
    assert shown == sorted(shown) and shown[-1] == 3 and 0 < shown[len(shown) // 2] < 3


def test_digits(run: Run) -> None:
    command = ("sample", "--model", "digits", "--num", 4, "--label", 3, "--method", "ddim", "--steps", 4)
    expect(run(*command, "--out", "a.npz"), 0, "4 network calls")
    x = arrays("a.npz")["x"]
    assert x.shape == (4, 1, 8, 8) and np.isfinite(x).all()
    expect(run(*command, "--out", "b.npz", "--batch-size", 3), 0)
    assert np.allclose(arrays("b.npz")["x"], x, atol=1e-3)
    expect(run(*command, "--guidance", 2, "--no-denoise"), 0, "4 network calls")  # one per step for both of its answers
