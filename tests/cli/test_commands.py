"""`scoresde methods`, `scoresde check`, help texts, and the version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

import scoresde

Run = Callable[..., Result]


# methods


def test_methods_as_json(run: Run) -> None:
    result = run("methods", "--json")
    assert result.exit_code == 0
    records = json.loads(result.output)
    assert [r["name"] for r in records] == [m.name for m in scoresde.methods()]
    for record, method in zip(records, scoresde.methods(), strict=True):
        for key, value in method._asdict().items():
            assert record[key] == (method.solver.__name__ if key == "solver" else value)
        assert isinstance(record["options"], dict)


def test_options_that_are_listed_can_be_given(run: Run) -> None:
    records = {r["name"]: r for r in json.loads(run("methods", "--json").output)}
    assert records["langevin"]["options"] == {"snr": 0.16, "moves": 1}
    assert records["pc"]["options"]["order"] == "cp"


def test_methods_as_a_table(run: Run) -> None:
    result = run("methods")
    assert result.exit_code == 0
    head, *rows = result.output.splitlines()
    assert head.split() == ["method", "kind", "evaluations", "ODE", "weak", "strong", "adaptive", "states", "reference"]
    assert len(rows) == len(scoresde.methods())
    lines = {row.split()[0]: row for row in rows}
    assert lines["rk45"].split()[:5] == ["rk45", "ode", "6", "5", "yes"]
    for method in scoresde.methods():
        assert lines[method.name].endswith(method.reference)


# check


def good_data(fake: Any, n: int = 300) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(2, (n,), generator=generator)
    return (fake.means()[rows] + 0.05 * torch.randn((n, 1, 8, 8), generator=generator)).numpy()


@pytest.mark.parametrize("form", ["npz", "npz, other name", "npy", "float64"])
def test_check_reads_data(run: Run, fake: Any, form: str) -> None:
    data = good_data(fake)
    path = "data.npy" if form == "npy" else "data.npz"
    if form == "npy":
        np.save(path, data)
    elif form == "npz, other name":
        np.savez(path, images=data)
    else:
        np.savez(path, x=data.astype("float64" if form == "float64" else "float32"), y=np.arange(3))
    result = run("check", "any", "--data", path)
    assert result.exit_code == 0, result.output
    assert "denoises the data as a score should" in result.output
    assert "Gaussian denoiser" in result.output


def test_check_names_the_convention(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=good_data(fake))
    fake.change = lambda s, x, t: -s
    result = run("check", "any", "--data", "data.npz", "--sde", "ve")
    assert result.exit_code == 3 and "sign" in result.output


def test_check_reads_what_sample_writes(run: Run, fake: Any) -> None:
    assert run("sample", "--num", 300, "--method", "ddim", "--steps", 20, "--out", "a.npz").exit_code == 0
    assert run("check", "any", "--data", "a.npz").exit_code == 0


def test_check_of_the_digits_uses_what_training_held_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    seen: dict[str, Any] = {}

    def check_score(sde: Any, score_fn: Any, data: torch.Tensor, **kwargs: Any) -> Any:
        seen.update(sde=sde, event_shape=score_fn.event_shape, data=data, **kwargs)
        return SimpleNamespace(ok=True)

    monkeypatch.setattr("scoresde.scores.conventions.check_score", check_score)
    result = run("check", "digits", "--sde", "edm", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert isinstance(seen["sde"], scoresde.EDMSDE) and seen["seed"] == 3
    assert seen["data"].shape == (360, 1, 8, 8) and -1 <= seen["data"].min() < seen["data"].max() <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 truncated", "cannot be read"),
        (b"\x80\x04N.", "cannot be read"),
        ({"a": np.zeros((4, 1, 8, 8)), "b": np.zeros(1)}, "called x"),
        ({"x": np.zeros((4, 1, 8, 8), dtype=int)}, "give the number of grey levels"),
        ({"x": np.array([None])}, "cannot be read"),
        ({"x": np.zeros((4, 8, 8))}, "samples of shape (1, 8, 8)"),
        ({"x": np.array(1.0)}, "(samples, *event)"),
        ({"x": np.zeros((1, 1, 8, 8))}, "at least 2"),
    ],
)
def test_check_refuses_data_that_is_none(run: Run, fake: Any, content: Any, said: str) -> None:
    if isinstance(content, bytes):
        Path("data.npz").write_bytes(content)
    elif content is not None:
        np.savez("data.npz", **content)
    result = run("check", "any", "--data", "data.npz")
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert fake.calls == 0


@pytest.mark.parametrize("command", [("check", "any", "--data"), ("likelihood",), ("encode",)])
def test_nan_in_data_is_the_same_error_everywhere(run: Run, fake: Any, command: tuple[str, ...]) -> None:
    data = np.zeros((4, 1, 8, 8))
    data[2, 0, 3, 3] = np.nan
    np.savez("data.npz", x=data)
    result = run(*command, "data.npz")
    assert result.exit_code == 3, result.output
    assert (
        "`data` has NaN or infinite values in 1 of 4 samples (first: [2]); leave them out." in result.output
        and fake.calls == 0
    )


def test_check_needs_data_for_other_models(run: Run, fake: Any) -> None:
    result = run("check", "any")
    assert result.exit_code == 2 and "--data" in result.output


def test_check_of_an_unknown_model(run: Run) -> None:
    assert run("check", "digit").exit_code == 5
    assert run("check", "digits", "--sde", "vpp").exit_code == 2
    assert run("check").exit_code == 2


# help


@pytest.mark.parametrize("command", [(), ("sample",), ("likelihood",), ("encode",), ("methods",), ("check",)])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(run: Run, command: tuple[str, ...], flag: str) -> None:
    result = run(*command, flag)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    expected = {
        (): ["sample", "likelihood", "encode", "methods", "check", "--version", "75 interrupted"],
        ("sample",): [
            *(
                "--model",
                "--sde",
                "--method",
                "--steps",
                "--num",
                "--label",
                "--guidance",
                "--seed",
                "--device",
                "--out",
                "--rtol",
            ),
            *("--atol", "--denoise", "--no-denoise", "--grid", "--batch-size", "--quiet", "--option", "KEY=VALUE"),
            *("vp, ve, subvp, cosine, sigmoid, vdm, edm, flow", ".png, .npz, .safetensors", "on for pictures"),
        ],
        ("likelihood",): [
            *("DATA", "--model", "--sde", "--label", "--divergence", "--probes", "--probe", "--method", "--rtol"),
            *("--atol", "--option", "--levels", "--data-range", "LOW HIGH", "--key", "--seed", "--device", "--out"),
            *("--plot", "--force", "--batch-size", "--quiet", ".csv, .parquet", "exit code is then 3"),
        ],
        ("encode",): [
            *("DATA", "--out", "--model", "--sde", "--label", "--method", "--steps", "--rtol", "--atol", "--option"),
            *(
                "--levels",
                "--data-range",
                "--key",
                "--seed",
                "--device",
                "--batch-size",
                "--quiet",
                ".npz, .safetensors",
            ),
        ],
        ("methods",): ["--json", "orders of convergence"],
        ("check",): ["MODEL", "--data", "--sde", "--seed", "Exit code 3"],
    }[command]
    for word in expected:
        assert word.lower() in text.lower()
    assert "`scoresde methods`" in text or command != ("sample",)


@pytest.mark.parametrize("command", ["sample", "encode", "measure"])
def test_help_says_that_an_existing_file_is_kept(run: Run, command: str) -> None:
    text = " ".join(run(command, "--help").output.split())
    assert "kept unless --force is given" in text


def test_without_a_command_it_shows_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 2 or result.exit_code == 0
    assert "Commands" in result.output


def test_unknown_command(run: Run) -> None:
    result = run("sampel")
    assert result.exit_code == 2 and "sampel" in result.output


def test_version(run: Run) -> None:
    result = run("--version")
    assert result.exit_code == 0 and result.output == f"scoresde {scoresde.__version__}\n"


def test_check_names_data_in_other_units(run: Run, tmp_path: Path) -> None:
    """Which other commands refuse, and pictures are grey levels as elsewhere."""
    held_out = scoresde.training.digits_split().test_images[:120]
    images = scoresde.training.grey_to_x(held_out, torch.Generator().manual_seed(0))
    np.savez("data.npz", x=(127.5 * (images + 1)).numpy())
    result = run("check", "--model", "digits", "--data", "data.npz")
    assert result.exit_code == 3 and "127.5" in result.output, result.output
    np.savez("data.npz", x=held_out.numpy())
    result = run("check", "digits", "--data", "data.npz", "--levels", 17)
    assert result.exit_code == 0, result.output
