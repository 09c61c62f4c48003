"""`scoresde methods`, `scoresde check`, help, the version, files of options, and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import scoresde
from scoresde.presets import PRESETS
from tests.cli.common import Run, arrays, expect, metadata, near


def test_methods(run: Run) -> None:
    records = json.loads(run("methods", "--json").output)
    assert [r["name"] for r in records] == [m.name for m in scoresde.methods()]
    for record, method in zip(records, scoresde.methods(), strict=True):
        for key, value in method._asdict().items():
            assert record[key] == (method.solver.__name__ if key == "solver" else value), method.name
    options = {r["name"]: r["options"] for r in records}
    assert options["langevin"] == {"snr": 0.16, "moves": 1} and options["pc"]["order"] == "cp"
    lines = {row.split()[0]: row for row in run("methods").output.splitlines()[1:]}
    assert lines["rk45"].split()[:5] == ["rk45", "ode", "6", "5", "yes"]
    assert {m.name: lines[m.name].endswith(m.reference) for m in scoresde.methods()} == dict.fromkeys(lines, True)


def test_check_reads_data(run: Run, fake: Any) -> None:
    np.savez("float64.npz", x=near(fake, 24).astype(np.float64), y=np.arange(3))
    found = run("check", "any", "--data", "float64.npz")
    expect(found, 0, "denoises the data as a score should", "Gaussian denoiser")
    expect(run("sample", "--count", 24, "--method", "ddim", "--steps", 20, "--out", "a.npz"), 0)
    expect(run("check", "any", "--data", "a.npz"), 0)


def test_check_names_the_convention(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=near(fake, 24))
    fake.change = lambda s, x, t: -s
    expect(run("check", "any", "--data", "data.npz", "--sde", "ve"), 3, "sign")


def test_check_names_data_in_other_units(run: Run, fake: Any) -> None:
    """Which other commands refuse, and pictures are grey levels as elsewhere."""
    data = near(fake, 24)
    np.savez("data.npz", x=127.5 * (data + 1))
    expect(run("check", "any", "--data", "data.npz"), 3, "127.5")
    np.savez("data.npz", x=((data + 1) * 127.5).clip(0, 255).astype(np.uint8))
    expect(run("check", "any", "--data", "data.npz", "--levels", 256), 0)


def test_check_of_the_digits_uses_what_training_held_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    seen: dict[str, Any] = {}

    def check_score(sde: Any, score_fn: Any, data: torch.Tensor, **kwargs: Any) -> Any:
        seen.update(sde=sde, event_shape=score_fn.event_shape, data=data, **kwargs)
        return SimpleNamespace(ok=True)

    monkeypatch.setattr("scoresde.scores.conventions.check_score", check_score)
    expect(run("check", "digits", "--sde", "edm", "--seed", 3), 0)
    assert isinstance(seen["sde"], scoresde.EDMSDE) and seen["seed"] == 3
    cells = ((seen["data"] + 1) / 2 * 17).floor()
    assert torch.equal(cells, scoresde.training.digits_split().test_images.float())


def test_check_refuses_what_is_no_data(run: Run, fake: Any) -> None:
    expect(run("check", "any"), 2, "--data")
    expect(run("check", "any", "--data", "data.npz"), 2, "No such file")
    for shape, said in (((4, 8, 8), "samples of shape (1, 8, 8)"), ((1, 1, 8, 8), "at least 2")):
        np.savez("data.npz", x=np.zeros(shape))
        expect(run("check", "any", "--data", "data.npz"), 2, said)
    assert fake.calls == 0


def test_nan_in_data_is_the_same_error_everywhere(run: Run, fake: Any) -> None:
    data = np.zeros((4, 1, 8, 8))
    data[2, 0, 3, 3] = np.nan
    np.savez("data.npz", x=data)
    for command in (("check", "any", "--data"), ("likelihood",), ("encode",)):
        said = "`data` has NaN or infinite values in 1 of 4 samples (first: [2]); leave them out."
        expect(run(*command, "data.npz"), 3, said)
    assert fake.calls == 0


def test_help_names_what_a_command_takes(run: Run) -> None:
    sets = "--shard-size --format"
    data = f"--data DATA --key --levels --data-range LOW HIGH --label --labels --probe --method --option {sets}"
    expected = {
        "": "sample likelihood encode methods check --version",
        "sample": f"--model --sde --method --steps --count --guidance --seed --device --out --rtol --denoise {sets}",
        "likelihood": f"{data} --divergence --probes --plot --force",
        "encode": data.replace("--probe ", ""),
        "measure": "--operator --noise --index",
        "train": "--preset --steps --resume",
        "check": "--data --sde --seed",
        "methods": "--json",
        "presets": "",
        "diagnose": "--held-out --pilot",
        "certify": "--target --confidence",
        "verify": "",
    }
    for name, words in expected.items():
        for flag in ("--help", "-h"):
            text = expect(run(*name.split(), flag), 0, *words.split())
            assert not name or "--config FILE.toml" in text, name


def test_version_and_unknown_commands(run: Run) -> None:
    assert run("--version").output == f"scoresde {scoresde.__version__}\n"
    expect(run("sampel"), 2, "sampel")


# --config FILE.toml: the values of options from a file; and flags that have one spelling in all commands


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
        ("steps = ", "'run.toml'"),
        ("method = 'nosuch'", "unknown name 'nosuch'"),
        (b"\xff\xfe", "'run.toml'"),
        ("#" * (1 << 20) + "\n", "more than 1 MiB"),
        (f"a = {'[' * 20_000}{']' * 20_000}", "recursion depth"),
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


# What the shell is told when a command line is to be completed


ROOT = Path(__file__).resolve().parents[2]
# Completes each command line, as bash does, and shows the help of each command, all in one new interpreter; and tells
# what was imported for it.
CODE = """
import json, os, sys
from typer.testing import CliRunner
from scoresde.cli import app
answers = []
for line in json.loads(sys.argv[1]):
    words = ["scoresde", *line]
    asked = {"_SCORESDE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    answers.append(CliRunner().invoke(app, [], env=asked, prog_name="scoresde").output.split())
for command in ([], *([registered.callback.__name__] for registered in app.registered_commands)):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (command, result.output)
heavy = sorted({"torch", "numpy", "scipy", "PIL", "tqdm", "safetensors"} & set(sys.modules))
print(json.dumps([answers, heavy]))
"""
CASES: dict[tuple[str, ...], list[str]] = {
    ("sample", "--sde", "v"): ["vp", "ve", "vdm"],
    ("encode", "data.npz", "--sde", "fl"): ["flow"],
    ("sample", "--inverse", "dd"): ["ddnm", "ddrm", "ddnm_plus"],
    ("measure", "digits", "--operator", "g"): ["grey", "gaussian_blur"],
    ("train", "--preset", ""): [*PRESETS, "classifier"],
    ("sample", "--model", "dig"): ["digits"],
    ("sample", "--max"): ["--max-failures", "--max-steps"],
    ("pres",): ["presets"],
    ("methods", "--"): ["--json", "--config", "--help"],
}


def test_names_options_and_help_come_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, json.dumps(list(CASES))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    answers, heavy = json.loads(done.stdout)
    assert dict(zip(CASES, answers, strict=True)) == CASES
    assert heavy == []
