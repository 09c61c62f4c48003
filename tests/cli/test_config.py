"""`--config FILE.toml`: the values of options from a file; and flags that have one spelling in all commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

Run = Callable[..., Result]
FILE = """
seed = 3
[sample]
steps = 7
method = "dpm_2m"
out = "a.npz"
count = 2
denoise = true
quiet = true
"""


def test_values_of_a_file_are_those_of_the_command_line(typed: Run, fake: Any) -> None:
    Path("run.toml").write_text(FILE)
    result = typed("sample", "--config", "run.toml")
    assert result.exit_code == 0 and not result.output
    flags = ("--seed", 3, "--steps", 7, "--method", "dpm_2m", "--count", 2, "--denoise")
    assert typed("sample", *flags, "--out", "b.npz").exit_code == 0
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()


def test_the_command_line_comes_first(typed: Run, fake: Any) -> None:
    Path("run.toml").write_text(FILE)
    assert typed("sample", "--steps", 4, "--config", "run.toml", "--no-denoise", "--out", "c.npz").exit_code == 0
    assert np.load("c.npz")["nfe"].tolist() == [4, 4] and not Path("a.npz").exists()


def test_tables_of_other_commands_do_not_matter(typed: Run, fake: Any) -> None:
    Path("run.toml").write_text(FILE + '[train]\npreset = "ddpm"\n[sample.option]\norder = 2\n')
    assert typed("sample", "--config", "run.toml", "--method", "unipc").exit_code == 0
    Path("other.toml").write_text(
        'data = "digits"\ndata-range = [-1, 1]\nsteps = 2\nmethod = "rk4"\nseed = 1\n[sample]\ncount = 3\n'
    )
    assert typed("encode", "--config", "other.toml").exit_code == 0
    assert len(np.load("latents.npz")["latent"]) == 360


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stepz = 3", "no option 'stepz'"),
        ("[sampel]\nsteps = 3", "no option 'sampel'"),
        ("sample = 3", "must be a table"),
        ("steps = 7.5", "--steps"),
        ("steps = [1, 2]", "--steps"),
        ("denoise = 'perhaps'", "--denoise"),
        ("steps = 2020-01-01", "must be a number"),
        ("config = 'b.toml'", "no option 'config'"),
        ("steps = ", "'run.toml'"),
        ("method = 'nosuch'", "unknown name 'nosuch'"),
        (b"\xff\xfe", "'run.toml'"),
        (None, "No such file"),
    ],
)
def test_what_is_wrong_in_a_file(typed: Run, fake: Any, content: str | bytes | None, said: str) -> None:
    if content is not None:
        Path("run.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = typed("sample", "--config", "run.toml", "--out", "a.png")
    assert result.exit_code == 2 and said in result.output, result.output
    assert fake.calls == 0 and not Path("a.png").exists()


@pytest.mark.parametrize(
    "command", ["sample", "measure", "likelihood", "encode", "train", "methods", "presets", "check"]
)
def test_every_command_takes_a_file(typed: Run, command: str) -> None:
    assert "--config FILE.toml" in typed(command, "--help").output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("sample", "--num", 2, "--out", "{}"), ("sample", "--count", 2, "--out", "{}")),
        (
            ("encode", "digits", "--method", "rk4", "--steps", 2, "--out", "{}"),
            ("encode", "--data", "digits", "--method", "rk4", "--steps", 2, "--out", "{}"),
        ),
        (
            ("measure", "digits", "--operator", "grey", "--out", "{}"),
            ("measure", "--data", "digits", "--operator", "grey", "--out", "{}"),
        ),
    ],
)
def test_old_spellings_mean_the_same(typed: Run, fake: Any, old: Any, new: Any) -> None:
    for name, command in (("a.npz", old), ("b.npz", new)):
        assert typed(*[str(word).format(name) for word in command]).exit_code == 0
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("likelihood",), "`data` is missing; give --data DATA."),
        (("likelihood", "digits", "--data", "a.npz"), "`data` is given twice, 'digits' and 'a.npz'."),
        (("check",), "`model` is missing; give --model MODEL."),
        (("check", "digits", "--model", "mnist"), "`model` is given twice, 'digits' and 'mnist'."),
        (("measure", "digits"), "`operator` is missing; give one, such as --operator block_average:factor=2."),
    ],
)
def test_what_is_missing_or_given_twice(typed: Run, fake: Any, command: tuple[str, ...], said: str) -> None:
    result = typed(*command)
    assert result.exit_code == 2 and said in result.output, result.output


def test_the_range_of_data_is_the_models_unless_another_is_given(typed: Run, fake: Any) -> None:
    fake.config.data_range = (0.0, 1.0)
    np.savez("data.npz", x=np.full((2, 1, 8, 8), 255, dtype=np.uint8))
    common = ("encode", "--data", "data.npz", "--levels", 256, "--method", "rk4", "--steps", 2, "--force")
    for told, expected in (((), [0.0, 1.0]), (("--data-range", -1, 1), [-1.0, 1.0])):
        assert typed(*common, *told).exit_code == 0
        with np.load("latents.npz") as content:
            assert json.loads(str(content["metadata"]))["data_range"] == expected
