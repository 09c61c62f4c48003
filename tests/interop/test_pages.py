"""Examples of the pages that need other packages, with small networks in the place of the user's."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde
from scoresde import inverse
from scoresde.interop import from_arrays
from tests.pages import program

pytestmark = pytest.mark.peers
SDE = scoresde.VPSDE()


@pytest.mark.filterwarnings("ignore:.*samples leave the range of the data")  # of a network that is not trained
def test_diffusers_on_the_readme(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
    monkeypatch.setattr(diffusers.DDPMPipeline, "from_pretrained", classmethod(lambda cls, name: pipe))
    exec(program("README.md", "diffusers"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("Solution(x=(4, 3, 32, 32) float32") and "4 × SUCCESS" in shown


def test_jax() -> None:
    jax = pytest.importorskip("jax")
    names: dict[str, Any] = {"jax": jax, "from_arrays": from_arrays, "net": lambda x, t: -jax.numpy.tanh(x)}
    exec(program("docs/calling_networks.md", "jax"), names)
    x = torch.linspace(-1, 1, 8).reshape(4, 2)
    t = torch.full((4,), 0.5)
    assert torch.allclose(names["score_fn"](x, t), -x.tanh(), atol=1e-6)
    solved = [
        scoresde.solve(SDE, score, x, method="dpm_3m", steps=8).x
        for score in (names["score_fn"], lambda x, t: -x.tanh())
    ]
    assert torch.allclose(*solved, rtol=1e-4, atol=1e-4)
    options: dict[str, Any] = {"divergence": "exact", "rtol": 1e-3, "atol": 1e-3}
    got, wanted = (
        scoresde.log_likelihood(SDE, score, x, **options).log_prob
        for score in (names["score_fn"], lambda x, t: -x.tanh())
    )
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) * (1 + t[:, None])

    net = Net()
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            net,
            (torch.zeros(3, 2), torch.zeros(3)),
            "net.onnx",
            dynamo=False,
            input_names=["x", "t"],
            dynamic_axes={"x": {0: "batch"}, "t": {0: "batch"}},
        )
    names: dict[str, Any] = {
        **{"onnxruntime": onnxruntime, "scoresde": scoresde, "torch": torch},
        **{"from_arrays": from_arrays, "sde": SDE},
    }
    exec(program("docs/calling_networks.md", "onnx"), names)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    models = (names["model"], scoresde.ScoreModel(net, SDE, "noise"))
    got, wanted = (scoresde.solve(SDE, model, x, method="dpm_3m", steps=8).x for model in models)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_deepinv() -> None:
    deepinv = pytest.importorskip("deepinv", exc_type=ImportError)
    digits = scoresde.load("digits")
    names: dict[str, Any] = {
        **{"deepinv": deepinv, "inverse": inverse, "model": digits, "sde": SDE},
        **{"x": torch.zeros(1, 1, 8, 8), "filter": torch.ones(1, 1, 3, 3) / 9},
    }
    exec(program("docs/operators.md", "deepinv"), names)
    assert names["got"].x.shape == (1, 1, 8, 8) and bool(names["got"].x.isfinite().all())
