"""`scoresde sample` given a measurement, and `scoresde measure`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

import scoresde
from scoresde import inverse
from scoresde.cli._operators import EXAMPLES, OPERATORS, make_operator, parse_call
from scoresde.cli._options import sample_seeds

Run = Callable[..., Result]
Files = Callable[[], list[str]]


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def picture(name: str, array: np.ndarray) -> None:
    Image.fromarray(array.astype(np.uint8)).save(name)


@pytest.fixture
def half(fake: Any, run: Run) -> None:
    """mask.png observes the upper half; image.png is dark, which only the upper half of picture 1 is."""
    mask = np.full((8, 8), 255)
    mask[:4] = 0
    picture("mask.png", mask)
    picture("image.png", np.full((8, 8), 12))


# Painting


@pytest.mark.parametrize("method", ["mmps", "pigdm:data_std=0.5", "ddnm", "ddrm:eta=0.85", "replacement:repeats=2"])
def test_white_is_painted_and_black_is_observed(run: Run, half: None, method: str) -> None:
    result = run(
        *("sample", "--inpaint", "mask.png", "image.png", "--inverse", method),
        *("--steps", 30, "--num", 6, "--out", "a.npz", "--denoise"),
    )
    assert result.exit_code == 0, result.output
    x = arrays("a.npz")["x"]
    assert np.abs(x[:, :, :4] - (-1 + 2 * 12.5 / 256)).max() < 0.1  # as in the picture
    assert x[:, :, 4:].mean() > 0.8 and x[:, :, 4:].min() > 0.3  # not as in the picture: what must be there


def test_a_rule_is_that_of_condition(run: Run, fake: Any, half: None) -> None:
    command = ("sample", "--inpaint", "mask.png", "image.png", "--noise", 0.1, "--inverse", "mmps:iterations=2")
    result = run(*command, "--method", "ddim", "--steps", 8, "--num", 3, "--out", "a.npz", "--seed", 4, "--sde", "ve")
    assert result.exit_code == 0, result.output
    assert "mmps by ddim, 8 steps" in result.output
    sde, seen = scoresde.VESDE(), torch.zeros(1, 8, 8, dtype=torch.bool)
    seen[:, :4] = True
    y = torch.full((32,), -1 + 2 * 12.5 / 256)
    posterior = inverse.condition(fake.score(sde), inverse.Mask(seen), y, 0.1, sde=sde, iterations=2)
    options = {"method": "ddim", "steps": 8, "noise": scoresde.SampleNoise(4, indices=range(3))}
    expected = scoresde.solve(sde, posterior, shape=(3, 1, 8, 8), **options).x
    content = arrays("a.npz")
    assert np.array_equal(content["x"], expected.numpy())
    metadata = json.loads(str(content["metadata"]))
    assert metadata["operator"] == {"name": "inpaint", "mask": "mask.png"} and metadata["noise"] == 0.1
    assert metadata["inverse"] == {"name": "mmps", "iterations": 2} and metadata["method"] == "ddim"


def test_a_solver_takes_the_place_of_the_method(run: Run, fake: Any, half: None) -> None:
    command = ("sample", "--inpaint", "mask.png", "image.png", "--inverse", "ddrm:eta=0.5", "--noise", 0.1)
    result = run(*command, "--steps", 8, "--num", 3, "--out", "a.npz")
    assert result.exit_code == 0 and "vp, ddrm, 8 steps, 8 evaluations per sample" in result.output, result.output
    sde, seen = scoresde.VPSDE(), torch.zeros(1, 8, 8, dtype=torch.bool)
    seen[:, :4] = True
    method = inverse.DDRM(inverse.Measurement(inverse.Mask(seen), torch.full((32,), -1 + 2 * 12.5 / 256), 0.1), eta=0.5)
    expected = scoresde.solve(
        sde,
        fake.score(sde),
        method=method,
        steps=8,
        shape=(3, 1, 8, 8),
        noise=scoresde.SampleNoise(0, indices=range(3)),
    )
    assert np.array_equal(arrays("a.npz")["x"], expected.x.numpy())


def test_labels_and_batches(run: Run, fake: Any, half: None) -> None:
    command = ("sample", "--inpaint", "mask.png", "image.png", "--num", 5, "--steps", 8, "--out", "a.npz")
    assert run(*command).exit_code == 0
    whole = arrays("a.npz")["x"]
    assert run(*command, "--batch-size", 2).exit_code == 0
    assert np.allclose(arrays("a.npz")["x"], whole, atol=1e-4)
    picture("mask.png", np.where(np.arange(64).reshape(8, 8) == 0, 0, 255))  # a corner alone does not tell
    picture("image.png", np.full((8, 8), 128))
    for label, lower in ((0, -1), (1, 1)):
        assert run(*command, "--noise", 1, "--label", label).exit_code == 0
        assert (lower * arrays("a.npz")["x"][:, :, 4:] > 0).all()


def test_a_saved_sampler_does_not_answer_for_a_measurement(run: Run, fake: Any, half: None) -> None:
    fake.config.sampler = object()  # asking it for its plan fails
    result = run("sample", "--inpaint", "mask.png", "image.png", "--num", 1, "--out", "a.npz")
    assert result.exit_code == 0 and "mmps by dpmpp_2m_sde, 50 steps" in result.output, result.output


def test_a_rule_may_have_a_default_solver_of_its_own(run: Run, fake: Any, half: None) -> None:
    command = ("sample", "--inpaint", "mask.png", "image.png", "--noise", 1, "--inverse", "dps", "--num", 1)
    result = run(*command, "--out", "a.npz")
    assert result.exit_code == 0 and "dps by ancestral, " in result.output, result.output
    result = run(*command, "--method", "ddim", "--out", "b.npz")
    assert result.exit_code == 0 and "dps by ddim, " in result.output, result.output


# Measuring


def test_measure_then_sample(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=fake.means().numpy())
    command = ("measure", "data.npz", "--index", 1, "--operator", "block_average:factor=4", "--noise", 0.1)
    for name in ("y.npz", "y.safetensors"):
        result = run(*command, "--seed", 3, "--out", name)
        assert result.exit_code == 0 and f"{name}: arrays, y is 1 x 1 x 2 x 2" in result.output, result.output
    clean = inverse.block_average((1, 8, 8), 4).forward(fake.means()[1:])
    generator = torch.Generator().manual_seed(sample_seeds(3, 0, 1)[0])
    expected = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    assert np.array_equal(arrays("y.npz")["y"], expected.numpy())
    assert run("measure", "data.npz", "--operator", "grey", "--out", "z.npz").exit_code == 0
    assert np.array_equal(arrays("z.npz")["y"], fake.means()[:1].numpy())  # without noise, of the first
    written = []
    for name in ("y.npz", "y.safetensors"):
        command = ("sample", "--measurement", name, "--steps", 20, "--num", 4, "--out", "a.npz", "--denoise")
        assert run(*command).exit_code == 0
        written.append(arrays("a.npz"))
    metadata = json.loads(str(written[0]["metadata"]))
    assert metadata["operator"] == {"name": "block_average", "factor": 4} and metadata["noise"] == 0.1
    assert np.array_equal(written[0]["x"], written[1]["x"]) and written[0]["metadata"] == written[1]["metadata"]
    assert np.abs(written[0]["x"] - fake.means()[1].numpy()).max() < 0.5
    assert run("sample", "--measurement", "y.npz", "--steps", 3, "--noise", 0.2, "--out", "a.npz").exit_code == 0
    assert json.loads(str(arrays("a.npz")["metadata"]))["noise"] == 0.2
    assert files() == ["a.npz", "data.npz", "y.npz", "y.safetensors", "z.npz"]


def test_a_picture_is_a_measurement_too(run: Run, fake: Any) -> None:
    picture("small.png", np.array([[10, 10], [245, 245]]))
    command = ("sample", "--measurement", "small.png", "--operator", "block_average:factor=4", "--noise", 0.05)
    result = run(*command, "--steps", 20, "--num", 4, "--out", "a.npz", "--denoise")
    assert result.exit_code == 0, result.output
    assert np.abs(arrays("a.npz")["x"] - fake.means()[1].numpy()).max() < 0.5


def test_grey_levels_are_the_middle_of_their_cells(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=np.arange(4).reshape(1, 1, 2, 2))
    command = ("measure", "data.npz", "--operator", "grey", "--levels", 4, "--data-range", 0, 4)
    assert run(*command).exit_code == 0
    assert arrays("measurement.npz")["y"].tolist() == [[[[0.5, 1.5], [2.5, 3.5]]]]


# Operators


def test_the_examples_are_the_operators(run: Run) -> None:
    picture("MASK.png", np.where(np.arange(64).reshape(8, 8) < 9, 0, 255))
    calls = [parse_call("operator", text) for text in EXAMPLES.split(", ")]
    assert [name for name, _ in calls] == list(OPERATORS)
    for name, options in calls:
        operator = make_operator(name, options, (3, 8, 8))
        assert operator.event_shape == (3, 8, 8) and 0 < operator.size <= 192
    assert make_operator(*calls[0], (3, 8, 8)).measurement_shape == (27,)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_masks_of_every_mode(run: Run, mode: str) -> None:
    array = np.where(np.arange(6).reshape(2, 3) < 2, 0, 255).astype(np.uint8)
    Image.fromarray(array).convert(mode).save("mask.png")
    mask = make_operator("inpaint", {"mask": "mask.png"}, (1, 2, 3))
    assert isinstance(mask, inverse.Mask) and mask.mask.tolist() == [[[True, True, False], [False, False, False]]]


# Refusals: nothing is evaluated, nothing is overwritten

MASKED = ("--inpaint", "mask.png", "image.png")
MEASURED = ("--measurement", "y.npz")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--inpaint", "mask.png"), "2 arguments"),
        (("--inpaint", "grey.png", "image.png"), "64 of 64 pixels are neither, such as (12, 12, 12)"),
        (("--inpaint", "white.png", "image.png"), "nothing is observed. Black pixels are observed, white ones are"),
        (("--inpaint", "black.png", "image.png"), "nothing is left to paint"),
        (("--inpaint", "large.png", "image.png"), "must be 8 x 8 pixels, as the images, got 16 x 12"),
        (("--inpaint", "clear.png", "image.png"), "without transparency, got PIL's mode RGBA"),
        (("--inpaint", "none.png", "image.png"), "`mask` 'none.png' cannot be read: No such file"),
        (("--inpaint", "mask.png", "none.png"), "`inpaint`: `data` 'none.png' cannot be read: No such file"),
        (("--inpaint", "mask.png", "large.png"), "samples of shape (1, 8, 8), as the model"),
        (("--inpaint", "mask.png", "two.npz"), "must hold one sample, got 2"),
        (("--inpaint", "image.png", "mask.png"), "Write --inpaint mask.png image.png."),
        (
            ("--inpaint", "large.png", "mask.png"),
            "'large.png' is no black-and-white mask of 8 x 8 pixels, but 'mask.png'",
        ),
        ((*MASKED, "--operator", "grey"), "leave --operator"),
        ((*MASKED, *MEASURED), "leave --operator and --measurement out"),
        ((*MASKED, "--noise", "nan"), "`noise` must be in [0, inf), got nan"),
        ((*MASKED, "--noise", "-1"), "`noise`"),
        ((*MASKED, "--inverse", "mmmps"), "did you mean 'mmps'"),
        ((*MASKED, "--inverse", "exact"), "unknown name 'exact'"),
        ((*MASKED, "--inverse", "mmps:iteration=3"), "did you mean 'iterations'"),
        ((*MASKED, "--inverse", "mmps:iterations"), "NAME:key=value"),
        ((*MASKED, "--inverse", "dps:scale=nan", "--noise", "0.1"), "`scale`"),
        ((*MASKED, "--inverse", "dps_step:zeta=nan"), "`zeta`"),
        ((*MASKED, "--inverse", "dps"), "`noise_std` is 0"),
        ((*MASKED, "--inverse", "ddrm", "--method", "ddim"), "leave --method out"),
        ((*MASKED, "--inverse", "ddrm", "--option", "eta=1"), "--inverse ddrm:key=value"),
        ((*MASKED, "--method", "eulr"), "did you mean 'euler'"),
        (("--noise", "0.1"), "`noise` needs a measurement"),
        (("--inverse", "mmps"), "`inverse` needs a measurement"),
        (("--operator", "grey"), "`operator` needs a measurement"),
        (MEASURED, "`operator` is missing"),
        ((*MEASURED, "--operator", "gray"), "did you mean 'grey'"),
        ((*MEASURED, "--operator", "block_average"), "write block_average:factor=…"),
        ((*MEASURED, "--operator", "block_average:factr=2"), "did you mean 'factor'"),
        ((*MEASURED, "--operator", "block_average:factor=3"), "`operator` 'block_average': `factor` must divide"),
        ((*MEASURED, "--operator", "gaussian_blur:std=nan"), "`operator` 'gaussian_blur': `std`"),
        ((*MEASURED, "--operator", "block_average:factor=2"), "must be one of shape (1, 4, 4)"),
        (("--measurement", "two.npz", "--operator", "grey"), "has no array 'y'"),
        (("--measurement", "rank.npz", "--operator", "random_projection:rows=80"), "`rows` must be at most 64, got 80"),
        (("--measurement", "none.npz"), "`measurement` 'none.npz' cannot be read"),
        (("--measurement", "broken.npz", "--operator", "grey"), "`measurement` 'broken.npz' cannot be read"),
        (("--measurement", "whole.npz", "--operator", "grey"), "got integers"),
    ],
)
def test_what_does_not_fit(run: Run, fake: Any, half: None, files: Files, arguments: Any, said: str) -> None:
    picture("grey.png", np.full((8, 8), 12))
    picture("white.png", np.full((8, 8), 255))
    picture("black.png", np.zeros((8, 8)))
    picture("large.png", np.eye(12, 16) * 255)
    picture("clear.png", np.full((8, 8, 4), 255))
    np.savez("two.npz", x=np.zeros((2, 1, 8, 8)))
    np.savez("y.npz", y=np.zeros((1, 1, 2, 2)))
    np.savez("rank.npz", y=np.zeros((1, 80)))
    np.savez("whole.npz", y=np.zeros((1, 1, 8, 8), dtype=np.int64))
    Path("broken.npz").write_bytes(b"PK")
    Path("samples.png").write_bytes(b"old")
    before = files()
    result = run("sample", *arguments)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split()), result.output
    assert files() == before and Path("samples.png").read_bytes() == b"old" and fake.calls == 0


def test_nan_in_a_measurement_is_exit_3(run: Run, fake: Any, files: Files) -> None:
    np.savez("y.npz", y=np.full((1, 1, 2, 2), np.nan))
    result = run("sample", "--measurement", "y.npz", "--operator", "block_average:factor=4")
    assert result.exit_code == 3 and "`measurement` 'y.npz' has NaN" in result.output, result.output
    assert files() == ["y.npz"] and fake.calls == 0


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--operator", "gray"), "did you mean 'grey'", 2),
        (("--operator", "block_average:factor=3"), "`factor` must divide", 2),
        (("--operator", "grey", "--noise", "nan"), "`noise`", 2),
        (("--operator", "grey", "--index", 2), "`index` must be below 2", 2),
        (("--operator", "grey", "--out", "a.png"), "`out` must end in .npz or .safetensors", 2),
        (("--operator", "grey", "--out", "missing/a.npz"), "does not exist", 4),
        ((), "--operator", 2),
    ],
)
def test_what_measure_refuses(run: Run, files: Files, arguments: Any, said: str, code: int) -> None:
    np.savez("data.npz", x=np.zeros((2, 1, 8, 8)))
    result = run("measure", "data.npz", *arguments)
    assert result.exit_code == code and said in result.output, result.output
    assert files() == ["data.npz"]


def test_help_says_which_colour_is_painted(run: Run) -> None:
    assert "where MASK, a picture of the same size, is white" in " ".join(run("sample", "--help").output.split())
