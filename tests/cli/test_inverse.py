"""`scoresde sample` given a measurement, and `scoresde measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import scoresde
from scoresde import inverse
from tests.cli.common import Files, Run, arrays, expect, metadata

MASKED = ("--inpaint", "mask.png", "image.png")
MEASURED = ("--measurement", "y.npz")
GREY = -1 + 2 * 12.5 / 256  # the middle of the cell of grey level 12


def picture(name: str, array: np.ndarray) -> None:
    Image.fromarray(array.astype(np.uint8)).save(name)


@pytest.fixture
def half(fake: Any, run: Run) -> None:
    """mask.png observes the upper half; image.png is dark, which only the upper half of picture 1 is."""
    mask = np.full((8, 8), 255)
    mask[:4] = 0
    picture("mask.png", mask)
    picture("image.png", np.full((8, 8), 12))


@pytest.fixture
def mask() -> inverse.Mask:
    """That of mask.png."""
    seen = torch.zeros(1, 8, 8, dtype=torch.bool)
    seen[:, :4] = True
    return inverse.Mask(seen)


@pytest.mark.parametrize("method", ["mmps", "pigdm:data_std=0.5", "ddnm", "ddrm:eta=0.85", "replacement:repeats=2"])
def test_white_is_painted_and_black_is_observed(run: Run, half: None, method: str) -> None:
    options = ("--inverse", method, "--steps", 20, "--count", 3, "--out", "a.npz", "--denoise")
    expect(run("sample", *MASKED, *options), 0)
    x = arrays("a.npz")["x"]
    assert np.abs(x[:, :, :4] - GREY).max() < 0.1  # as in the picture
    assert x[:, :, 4:].mean() > 0.8 and x[:, :, 4:].min() > 0.3  # not as in the picture: what must be there


def test_a_rule_is_that_of_condition(run: Run, fake: Any, half: None, mask: inverse.Mask) -> None:
    command = ("sample", *MASKED, "--noise", 0.1, "--inverse", "mmps:iterations=2", "--method", "ddim")
    options = ("--steps", 8, "--count", 3, "--out", "a.npz", "--seed", 4, "--sde", "ve")
    expect(run(*command, *options), 0, "mmps by ddim, 8 steps")
    sde = scoresde.VESDE()
    posterior = inverse.condition(fake.score(sde), mask, torch.full((32,), GREY), 0.1, sde=sde, iterations=2)
    noise = scoresde.SampleNoise(4, indices=range(3))
    expected = scoresde.solve(sde, posterior, shape=(3, 1, 8, 8), method="ddim", steps=8, noise=noise).x
    assert np.array_equal(arrays("a.npz")["x"], expected.numpy())
    told = metadata("a.npz")
    assert told["operator"] == {"name": "inpaint", "mask": "mask.png"} and told["noise"] == 0.1
    assert told["inverse"] == {"name": "mmps", "iterations": 2} and told["method"] == "ddim"


def test_a_solver_takes_the_place_of_the_method(run: Run, fake: Any, half: None, mask: inverse.Mask) -> None:
    command = ("sample", *MASKED, "--inverse", "ddrm:eta=0.5", "--noise", 0.1, "--steps", 8, "--count", 3)
    expect(run(*command, "--out", "a.npz"), 0, "vp, ddrm, 8 steps, 8 evaluations per sample")
    sde = scoresde.VPSDE()
    method = inverse.DDRM(inverse.Measurement(mask, torch.full((32,), GREY), 0.1), eta=0.5)
    noise = scoresde.SampleNoise(0, indices=range(3))
    expected = scoresde.solve(sde, fake.score(sde), method=method, steps=8, shape=(3, 1, 8, 8), noise=noise)
    assert np.array_equal(arrays("a.npz")["x"], expected.x.numpy())


def test_labels_and_batches(run: Run, fake: Any, half: None) -> None:
    command = ("sample", *MASKED, "--count", 5, "--steps", 8, "--out", "a.npz")
    expect(run(*command), 0)
    whole = arrays("a.npz")["x"]
    expect(run(*command, "--batch-size", 2), 0)
    assert np.allclose(arrays("a.npz")["x"], whole, atol=1e-4)
    picture("mask.png", np.where(np.arange(64).reshape(8, 8) == 0, 0, 255))  # a corner alone does not tell
    picture("image.png", np.full((8, 8), 128))
    for label, lower in ((0, -1), (1, 1)):
        expect(run(*command, "--noise", 1, "--label", label), 0)
        assert (lower * arrays("a.npz")["x"][:, :, 4:] > 0).all()


def test_the_default_solver_is_that_of_the_rule(run: Run, fake: Any, half: None) -> None:
    """And not a sampler that the model came with."""
    fake.config.sampler = object()  # asking it for its plan fails
    command = ("sample", *MASKED, "--noise", 1, "--count", 1, "--out", "a.npz")
    expect(run(*command), 0, "mmps by dpmpp_2m_sde, 50 steps")
    expect(run(*command, "--inverse", "dps"), 0, "dps by ancestral, ")
    expect(run(*command, "--inverse", "dps", "--method", "ddim", "--steps", 5), 0, "dps by ddim, ")


def test_measure_then_sample(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=fake.means().numpy())
    command = ("measure", "data.npz", "--index", 1, "--operator", "block_average:factor=4", "--noise", 0.1)
    for name in ("y.npz", "y.safetensors"):
        expect(run(*command, "--seed", 3, "--out", name), 0, f"{name}: arrays, y is 1 x 1 x 2 x 2")
    written = []
    for name in ("y.npz", "y.safetensors"):
        command = ("sample", "--measurement", name, "--steps", 20, "--count", 4, "--out", "a.npz", "--denoise")
        expect(run(*command), 0)
        written.append(arrays("a.npz"))
    told = metadata("a.npz")
    assert told["operator"] == {"name": "block_average", "factor": 4} and told["noise"] == 0.1
    assert np.array_equal(written[0]["x"], written[1]["x"]) and written[0]["metadata"] == written[1]["metadata"]
    assert np.abs(written[0]["x"] - fake.means()[1].numpy()).max() < 0.5
    expect(run("sample", "--measurement", "y.npz", "--steps", 3, "--noise", 0.2, "--out", "a.npz"), 0)
    assert metadata("a.npz")["noise"] == 0.2
    assert files() == ["a.npz", "data.npz", "y.npz", "y.safetensors"]


def test_a_measurement_has_noise_of_its_own_seed(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=fake.means().numpy())

    def y(*options: object) -> np.ndarray:
        expect(run("measure", "data.npz", "--operator", "grey", *options), 0)
        return arrays("measurement.npz")["y"] - fake.means()[:1].numpy()  # the first is measured

    assert (y() == 0).all()
    noise = y("--noise", 0.1, "--seed", 3)
    # of 64 elements: false alarms 1e-5 for a free seed, of which none here; sees a factor of 1.5
    assert abs(noise.mean()) < 0.055 and 0.065 < noise.std() < 0.14
    assert np.allclose(y("--noise", 0.2, "--seed", 3), 2 * noise, atol=1e-6)
    assert np.abs(y("--noise", 0.1) - noise).min() > 1e-5


def test_a_picture_is_a_measurement_too(run: Run, fake: Any) -> None:
    picture("small.png", np.array([[10, 10], [245, 245]]))
    command = ("sample", "--measurement", "small.png", "--operator", "block_average:factor=4", "--noise", 0.05)
    expect(run(*command, "--steps", 20, "--count", 4, "--out", "a.npz", "--denoise"), 0)
    assert np.abs(arrays("a.npz")["x"] - fake.means()[1].numpy()).max() < 0.5


def test_grey_levels_are_the_middle_of_their_cells(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=np.arange(4).reshape(1, 1, 2, 2))
    expect(run("measure", "data.npz", "--operator", "grey", "--levels", 4, "--data-range", 0, 4), 0)
    assert arrays("measurement.npz")["y"].tolist() == [[[[0.5, 1.5], [2.5, 3.5]]]]


def test_the_operators_are_those_of_the_package(run: Run) -> None:
    """Those of the examples in the help."""
    picture("MASK.png", np.where(np.arange(64).reshape(8, 8) < 9, 0, 255))
    x = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
    np.savez("data.npz", x=x.numpy())
    seen = torch.arange(64).reshape(8, 8).expand(3, 8, 8) < 9
    shape = (3, 8, 8)
    expected = {
        "inpaint:mask=MASK.png": inverse.Mask(seen),
        "grey": inverse.Grey(shape),
        "block_average:factor=2": inverse.block_average(shape, 2),
        "bicubic:factor=2": inverse.bicubic(shape, 2),
        "gaussian_blur:std=1": inverse.gaussian_blur(shape, 1),
        "motion_blur:length=3,angle=45": inverse.Blur(shape, inverse.motion_kernel(3, 45), border="zero"),
        "random_projection:rows=20": inverse.random_projection(shape, 20, seed=0),
    }
    expect(run("sample", "--help"), 0, ", ".join(expected))
    for call, operator in expected.items():
        expect(run("measure", "data.npz", "--operator", call), 0)
        assert np.array_equal(arrays("measurement.npz")["y"], operator.forward(x).numpy()), call


REFUSED = (
    (("--inpaint", "grey.png", "image.png"), "64 of 64 pixels are neither, such as (12, 12, 12)"),
    (("--inpaint", "white.png", "image.png"), "nothing is observed. Black pixels are observed, white ones are"),
    (("--inpaint", "large.png", "image.png"), "must be 8 x 8 pixels, as the images, got 16 x 12"),
    (("--inpaint", "clear.png", "image.png"), "without transparency, got PIL's mode RGBA"),
    (("--inpaint", "mask.png", "two.npz"), "must hold one sample, got 2"),
    (("--inpaint", "image.png", "mask.png"), "Write --inpaint mask.png image.png."),
    ((*MASKED, "--operator", "grey"), "leave --operator"),
    ((*MASKED, *MEASURED), "leave --operator and --measurement out"),
    ((*MASKED, "--noise", "nan"), "`noise` must be in [0, inf), got nan"),
    ((*MASKED, "--inverse", "exact"), "unknown name 'exact'"),
    ((*MASKED, "--inverse", "mmps:iteration=3"), "did you mean 'iterations'"),
    ((*MASKED, "--inverse", "dps"), "divides by `noise_std`, which is 0"),
    ((*MASKED, "--inverse", "ddrm", "--method", "ddim"), "leave --method out"),
    ((*MASKED, "--inverse", "ddrm", "--option", "eta=1"), "--inverse ddrm:key=value"),
    (("--noise", "0.1"), "`noise` needs a measurement"),
    (MEASURED, "`operator` is missing"),
    ((*MEASURED, "--operator", "block_average"), "write block_average:factor=…"),
    ((*MEASURED, "--operator", "block_average:factor=3"), "`operator` 'block_average': `factor` must divide"),
    ((*MEASURED, "--operator", "block_average:factor=2"), "must be one of shape (1, 4, 4)"),
    (("--measurement", "two.npz", "--operator", "grey"), "has no array 'y'"),
    (("--measurement", "rank.npz", "--operator", "random_projection:rows=80"), "`rows` must be at most 64, got 80"),
    (("--measurement", "broken.npz", "--operator", "grey"), "`measurement` 'broken.npz' cannot be read"),
    (("--measurement", "whole.npz", "--operator", "grey"), "got integers"),
)


def test_what_does_not_fit(run: Run, fake: Any, half: None, files: Files) -> None:
    picture("grey.png", np.full((8, 8), 12))
    picture("white.png", np.full((8, 8), 255))
    picture("large.png", np.eye(12, 16) * 255)
    picture("clear.png", np.full((8, 8, 4), 255))
    np.savez("two.npz", x=np.zeros((2, 1, 8, 8)))
    np.savez("y.npz", y=np.zeros((1, 1, 2, 2)))
    np.savez("nan.npz", y=np.full((1, 1, 2, 2), np.nan))
    np.savez("rank.npz", y=np.zeros((1, 80)))
    np.savez("whole.npz", y=np.zeros((1, 1, 8, 8), dtype=np.int64))
    Path("broken.npz").write_bytes(b"PK")
    Path("samples.png").write_bytes(b"old")
    before = files()
    for arguments, said in REFUSED:
        expect(run("sample", *arguments), 2, said)
    expect(run("sample", "--measurement", "nan.npz", "--operator", "block_average:factor=4"), 3, "'nan.npz' has NaN")
    assert files() == before and Path("samples.png").read_bytes() == b"old" and fake.calls == 0


def test_what_measure_refuses(run: Run, files: Files) -> None:
    np.savez("data.npz", x=np.zeros((2, 1, 8, 8)))
    for arguments, said in (
        (("--operator", "gray"), "did you mean 'grey'"),
        (("--operator", "grey", "--index", 2), "`index` must be below 2"),
        (("--operator", "grey", "--out", "a.png"), "`out` must end in .npz or .safetensors"),
        (("--operator", "random_projection:rows=65"), "`rows` must be at most 64"),
    ):
        expect(run("measure", "data.npz", *arguments), 2, said)
    assert files() == ["data.npz"]
    expect(run("measure", "data.npz", "--operator", "random_projection:rows=64"), 0)
