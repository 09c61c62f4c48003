"""`--config FILE.toml`: the values of options from a file; and flags that have one spelling in all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.cli.common import Run, arrays, expect, metadata, near

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


def test_values_of_a_file_are_those_of_the_command_line_which_comes_first(typed: Run, fake: Any) -> None:
    Path("run.toml").write_text(FILE)
    assert expect(typed("sample", "--config", "run.toml"), 0) == ""
    flags = ("--seed", 3, "--steps", 7, "--method", "dpm_2m", "--count", 2, "--denoise")
    expect(typed("sample", *flags, "--out", "b.npz"), 0)
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    expect(typed("sample", "--steps", 4, "--config", "run.toml", "--no-denoise", "--out", "c.npz"), 0)
    assert arrays("c.npz")["nfe"].tolist() == [4, 4]


def test_tables_of_other_commands_do_not_matter(typed: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 3))
    Path("run.toml").write_text(FILE + '[train]\npreset = "ddpm"\n[sample.option]\norder = 2\n')
    expect(typed("sample", "--config", "run.toml", "--method", "unipc"), 0)
    assert metadata("a.npz")["options"] == {"order": 2}
    shared = 'data = "x.npz"\ndata-range = [-1, 1]\nsteps = 2\nmethod = "rk4"\nseed = 1\n[sample]\ncount = 3\n'
    Path("other.toml").write_text(shared)
    expect(typed("encode", "--config", "other.toml"), 0)
    assert len(arrays("latents.npz")["latent"]) == 3


def test_what_is_wrong_in_a_file(typed: Run, fake: Any) -> None:
    for content, said in (
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
    ):
        Path("run.toml").unlink(missing_ok=True)
        if content is not None:
            Path("run.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
        expect(typed("sample", "--config", "run.toml", "--out", "a.png"), 2, said)
    assert fake.calls == 0 and not Path("a.png").exists()


def test_what_is_missing_or_given_twice(typed: Run, fake: Any) -> None:
    for command, said in (
        (("likelihood",), "`data` is missing; give --data DATA."),
        (("likelihood", "digits", "--data", "a.npz"), "`data` is given twice, 'digits' and 'a.npz'."),
        (("check",), "`model` is missing; give --model MODEL."),
        (("check", "digits", "--model", "mnist"), "`model` is given twice, 'digits' and 'mnist'."),
        (("measure", "digits"), "`operator` is missing; give one, such as --operator block_average:factor=2."),
    ):
        expect(typed(*command), 2, said)


def test_the_range_of_data_is_the_models_unless_another_is_given(typed: Run, fake: Any) -> None:
    fake.config.data_range = (0.0, 1.0)
    np.savez("data.npz", x=np.full((2, 1, 8, 8), 255, dtype=np.uint8))
    common = ("encode", "--data", "data.npz", "--levels", 256, "--method", "rk4", "--steps", 2, "--force")
    for told, expected in (((), [0.0, 1.0]), (("--data-range", -1, 1), [-1.0, 1.0])):
        expect(typed(*common, *told), 0)
        assert metadata("latents.npz")["data_range"] == expected
