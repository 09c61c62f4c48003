"""`scoresde encode`: latents that decode to the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

import scoresde
from tests.cli.common import Files, Run, arrays, expect, grey, loses, near

SDE = scoresde.VPSDE()


@pytest.fixture
def x(fake: Any, run: Run) -> torch.Tensor:
    """Data of the fake model, also in data.npz."""
    np.savez("data.npz", x=near(fake))
    return torch.from_numpy(near(fake))


def test_latents_are_those_of_encode(run: Run, fake: Any, x: torch.Tensor, files: Files) -> None:
    options = ("--rtol", 1e-3, "--atol", 1e-3, "--label", 1, "--seed", 4)
    for name in ("a.npz", "a.safetensors"):
        expect(
            run("encode", "data.npz", "--out", name, *options),
            0,
            "5 latents under digits: vp, adams, adaptive steps",
            f"{name}: arrays, latent is 5 x 1 x 8 x 8",
        )
    expected = scoresde.encode(SDE, fake.score(SDE, half=1), x, rtol=1e-3, atol=1e-3)
    npz, tensors = arrays("a.npz"), load_file("a.safetensors")
    metadata = json.loads(str(npz.pop("metadata")))
    with safe_open("a.safetensors", "np") as file:
        assert json.loads(file.metadata()["scoresde"]) == metadata
    assert npz.keys() == tensors.keys() == {"latent", "index", "nfe"}
    assert all(np.array_equal(npz[name], tensors[name]) for name in npz)
    assert np.array_equal(npz["latent"], expected.x.numpy())
    assert npz["nfe"].tolist() == expected.nfe.tolist() and npz["index"].tolist() == [0, 1, 2, 3, 4]
    assert metadata["names"] == ["0", "1", "2", "3", "4"] and metadata["label"] == 1 and metadata["seed"] == 4
    assert files() == ["a.npz", "a.safetensors", "data.npz"]


def test_batches_make_no_difference_and_latents_decode(run: Run, fake: Any, x: torch.Tensor) -> None:
    expect(run("encode", "data.npz"), 0)
    expect(run("encode", "data.npz", "--batch-size", 2, "--out", "b.npz"), 0)
    latent = arrays("latents.npz")["latent"]
    assert np.allclose(arrays("b.npz")["latent"], latent, atol=1e-4)
    back = scoresde.decode(SDE, fake.score(SDE), torch.from_numpy(latent)).x
    assert float((back - x).abs().max()) < 0.05


def test_grey_levels_are_dequantised_as_those_of_likelihood(run: Run, fake: Any, solved: list[Any]) -> None:
    np.savez("grey.npz", x=grey(fake, 3))
    expect(run("likelihood", "grey.npz", "--levels", 17, "--seed", 2), 0)
    command = ("encode", "grey.npz", "--levels", 17, "--seed", 2, "--method", "ddim", "--steps", 3)
    expect(run(*command, "--batch-size", 2), 0)
    expected = scoresde.encode(SDE, fake.score(SDE), solved[0].x, method="ddim", steps=3)
    assert np.allclose(arrays("latents.npz")["latent"], expected.x.numpy(), atol=1e-5)


@pytest.mark.parametrize("method", ["adams", "rk45"])
def test_failed_samples_are_left_out(run: Run, fake: Any, x: torch.Tensor, files: Files, method: str) -> None:
    fake.change = lambda s, x, t: loses(1)(s, x, t) if len(s) > 1 else s
    common = ("encode", "data.npz", "--batch-size", 4, "--method", method, "--rtol", 1e-3, "--atol", 1e-3)
    expect(run(*common), 3, "1 of 5 samples failed: 1. 'latents.npz' is without them")
    content = arrays("latents.npz")
    assert content["index"].tolist() == [0, 2, 3, 4] and len(content["nfe"]) == 4
    assert np.isfinite(content["latent"]).all()
    Path("latents.npz").unlink()
    expect(run("encode", "data.npz", "--max-steps", 1), 3, "5 of 5 samples failed", "Nothing was written")
    assert files() == ["data.npz"]


def test_what_does_not_fit(run: Run, fake: Any, x: torch.Tensor, files: Files) -> None:
    fake.labels = None
    for arguments, said, code in (
        (("--method", "euler_maruyama"), "deterministic", 2),
        (("--steps", 3), "`steps` does not apply", 2),
        (("--out", "a.csv"), "`out` must end in .npz or .safetensors", 2),
        (("--out", "missing/a.npz"), "does not exist", 4),
        (("--label", 1), "no labels", 2),
    ):
        expect(run("encode", "data.npz", *arguments), code, said)
    assert files() == ["data.npz"] and fake.calls == 0
