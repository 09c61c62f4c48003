"""`scoresde methods`, `scoresde check`, help texts, and the version."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import scoresde
from tests.cli.common import Run, expect, near


def test_methods(run: Run) -> None:
    records = json.loads(run("methods", "--json").output)
    assert [r["name"] for r in records] == [m.name for m in scoresde.methods()]
    for record, method in zip(records, scoresde.methods(), strict=True):
        for key, value in method._asdict().items():
            assert record[key] == (method.solver.__name__ if key == "solver" else value), method.name
    options = {r["name"]: r["options"] for r in records}
    assert options["langevin"] == {"snr": 0.16, "moves": 1} and options["pc"]["order"] == "cp"
    head, *rows = run("methods").output.splitlines()
    assert head.split() == ["method", "kind", "evaluations", "ODE", "weak", "strong", "adaptive", "states", "reference"]
    lines = {row.split()[0]: row for row in rows}
    assert lines["rk45"].split()[:5] == ["rk45", "ode", "6", "5", "yes"]
    assert {m.name: lines[m.name].endswith(m.reference) for m in scoresde.methods()} == dict.fromkeys(lines, True)


# check


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
    for content, said in (
        (None, "No such file"),
        (b"PK\x03\x04 truncated", "cannot be read"),
        ({"a": np.zeros((4, 1, 8, 8)), "b": np.zeros(1)}, "called x"),
        ({"x": np.zeros((4, 1, 8, 8), dtype=int)}, "give the number of grey levels"),
        ({"x": np.zeros((4, 8, 8))}, "samples of shape (1, 8, 8)"),
        ({"x": np.array(1.0)}, "(samples, *event)"),
        ({"x": np.zeros((1, 1, 8, 8))}, "at least 2"),
    ):
        if isinstance(content, bytes):
            Path("data.npz").write_bytes(content)
        elif content is not None:
            np.savez("data.npz", **content)
        expect(run("check", "any", "--data", "data.npz"), 2, said)
    expect(run("check", "any"), 2, "--data")
    assert fake.calls == 0


def test_nan_in_data_is_the_same_error_everywhere(run: Run, fake: Any) -> None:
    data = np.zeros((4, 1, 8, 8))
    data[2, 0, 3, 3] = np.nan
    np.savez("data.npz", x=data)
    for command in (("check", "any", "--data"), ("likelihood",), ("encode",)):
        said = "`data` has NaN or infinite values in 1 of 4 samples (first: [2]); leave them out."
        expect(run(*command, "data.npz"), 3, said)
    assert fake.calls == 0


def test_check_of_an_unknown_model(run: Run) -> None:
    expect(run("check", "digit"), 5)
    expect(run("check", "digits", "--sde", "vpp"), 2)


# help


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
            assert name not in ("sample", "encode", "measure") or "kept unless --force is given" in text, name
    expect(run("--help"), 0, "75 interrupted")
    expect(run("sample", "--help"), 0, "vp, ve, subvp, cosine, sigmoid, vdm, edm, flow", "`scoresde methods`")
    expect(run("sample", "--help"), 0, "where MASK, a picture of the same size, is white")
    assert "Commands" in run().output


def test_version_and_unknown_commands(run: Run) -> None:
    assert run("--version").output == f"scoresde {scoresde.__version__}\n"
    expect(run("sampel"), 2, "sampel")
