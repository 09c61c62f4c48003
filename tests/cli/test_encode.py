"""`scoresde encode`: latents that decode to the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from typer.testing import Result

import scoresde
from scoresde.cli._options import sample_seeds

Run = Callable[..., Result]
Files = Callable[[], list[str]]


def arrays(path: str = "latents.npz") -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


@pytest.fixture
def x(fake: Any, run: Run) -> torch.Tensor:
    """Data of the fake model, also in data.npz."""
    generator = torch.Generator().manual_seed(0)
    x = fake.means()[[0, 1, 0, 1, 1]] + 0.05 * torch.randn((5, 1, 8, 8), generator=generator)
    np.savez("data.npz", x=x.numpy())
    return x


def test_latents_are_those_of_encode(run: Run, fake: Any, x: torch.Tensor, files: Files) -> None:
    options = ("--rtol", 1e-4, "--atol", 1e-4, "--label", 1, "--seed", 4)
    for name in ("a.npz", "a.safetensors"):
        result = run("encode", "data.npz", "--out", name, *options)
        assert result.exit_code == 0, result.output
        assert "5 latents under digits: vp, adams, adaptive steps" in result.output
        assert f"{name}: arrays, latent is 5 x 1 x 8 x 8" in result.output
    sde = scoresde.VPSDE()
    expected = scoresde.encode(sde, fake.score(sde, half=1), x, rtol=1e-4, atol=1e-4)
    npz, tensors = arrays("a.npz"), load_file("a.safetensors")
    metadata = json.loads(str(npz.pop("metadata")))
    with safe_open("a.safetensors", "np") as file:
        assert json.loads(file.metadata()["scoresde"]) == metadata
    assert npz.keys() == tensors.keys() == {"latent", "index", "nfe"}
    for name in npz:
        assert np.array_equal(npz[name], tensors[name])
    assert np.array_equal(npz["latent"], expected.x.numpy())
    assert npz["nfe"].tolist() == expected.nfe.tolist() and npz["index"].tolist() == [0, 1, 2, 3, 4]
    assert metadata["names"] == ["0", "1", "2", "3", "4"] and metadata["label"] == 1 and metadata["seed"] == 4
    assert files() == ["a.npz", "a.safetensors", "data.npz"]


def test_batches_make_no_difference_and_latents_decode(run: Run, fake: Any, x: torch.Tensor) -> None:
    assert run("encode", "data.npz").exit_code == 0
    assert run("encode", "data.npz", "--batch-size", 2, "--out", "b.npz").exit_code == 0
    latent = arrays()["latent"]
    assert np.allclose(arrays("b.npz")["latent"], latent, atol=1e-4)
    sde = scoresde.VPSDE()
    back = scoresde.decode(sde, fake.score(sde), torch.from_numpy(latent)).x
    assert float((back - x).abs().max()) < 0.05


def test_grey_levels_are_dequantised_with_the_seeds_of_likelihood(run: Run, fake: Any) -> None:
    v = np.where(fake.means().numpy() > 0, 16, 0)
    np.savez("grey.npz", x=v)
    assert run("encode", "grey.npz", "--levels", 17, "--method", "ddim", "--steps", 5).exit_code == 0
    cells = [
        scoresde.dequantize(torch.from_numpy(row), levels=17, generator=torch.Generator().manual_seed(seed))
        for row, seed in zip(v, sample_seeds(0, 0, 2), strict=True)
    ]
    sde = scoresde.VPSDE()
    expected = scoresde.encode(sde, fake.score(sde), torch.stack(cells), method="ddim", steps=5)
    assert np.array_equal(arrays()["latent"], expected.x.numpy())


def test_the_held_out_digits(run: Run) -> None:
    pytest.importorskip("sklearn")
    result = run("encode", "digits", "--method", "euler", "--steps", 1)
    assert result.exit_code == 0, result.output
    assert arrays()["latent"].shape == (360, 1, 8, 8)


@pytest.mark.parametrize("method", ["adams", "rk45"])
def test_failed_samples_are_left_out(run: Run, fake: Any, x: torch.Tensor, files: Files, method: str) -> None:
    fake.change = lambda s, x, t: s.index_fill(0, torch.tensor([1]), torch.nan) if len(s) > 1 else s
    result = run("encode", "data.npz", "--batch-size", 4, "--method", method)
    assert result.exit_code == 3, result.output
    assert "1 of 5 samples failed: 1. 'latents.npz' is without them" in result.output
    content = arrays()
    assert content["index"].tolist() == [0, 2, 3, 4] and len(content["nfe"]) == 4
    assert np.isfinite(content["latent"]).all()


def test_all_samples_fail(run: Run, fake: Any, x: torch.Tensor, files: Files) -> None:
    result = run("encode", "data.npz", "--max-steps", 1)
    assert result.exit_code == 3 and "5 of 5 samples failed" in result.output and "Nothing was written" in result.output
    assert files() == ["data.npz"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--method", "euler_maruyama"), "deterministic", 2),
        (("--method", "eulr"), "did you mean 'euler'", 2),
        (("--method", ""), "`method`: unknown name ''", 2),
        (("--steps", 3), "`steps` does not apply", 2),
        (("--out", "a.csv"), "`out` must end in .npz or .safetensors", 2),
        (("--out", "missing/a.npz"), "does not exist", 4),
        (("--out", "data.npz/a.npz"), "is a file", 4),
        (("--label", 1), "no labels", 2),
    ],
)
def test_what_does_not_fit(
    run: Run, fake: Any, x: torch.Tensor, files: Files, arguments: Any, said: str, code: int
) -> None:
    fake.labels = None
    result = run("encode", "data.npz", *arguments)
    assert result.exit_code == code and said in result.output, result.output
    assert files() == ["data.npz"] and fake.calls == 0


def test_an_interrupt_leaves_nothing(run: Run, fake: Any, x: torch.Tensor, files: Files) -> None:
    Path("latents.npz").write_bytes(b"old")

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    fake.change = change
    result = run("encode", "data.npz")
    assert result.exit_code == 75 and "Interrupted" in result.output
    assert files() == ["data.npz", "latents.npz"] and Path("latents.npz").read_bytes() == b"old"


def test_progress_follows_the_solve(run: Run, fake: Any, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert run("encode", "data.npz", "--batch-size", 3).exit_code == 0
    assert shown == sorted(shown) and shown[-1] == 5 and 3 in shown and len(shown) > 8
    assert run("encode", "data.npz", "--method", "ddim", "--steps", 10).exit_code == 0
    assert shown[-11:] == [pytest.approx(0.5 * min(i, 10)) for i in range(1, 12)]
