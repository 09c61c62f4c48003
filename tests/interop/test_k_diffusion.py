"""Denoisers of k-diffusion through its own samplers and through ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.interop import from_k_diffusion
from tests.interop.common import Net, same, solved, start

pytest.importorskip("k_diffusion", exc_type=ImportError)
from k_diffusion import external, layers, sampling

pytestmark = pytest.mark.peers

LEVELS = 12  # none of which is half-way between two of the chain
PAIRS = [("euler", "ddim"), ("heun", "rho_heun"), ("dpmpp_2m", "dpmpp_2m")]


class Latent(torch.nn.Module):
    """What CompVis calls a model."""

    def __init__(self) -> None:
        super().__init__()
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        self.register_buffer("alphas_cumprod", torch.cumprod(1 - betas, 0))
        self.net = Net(classes=4, unit=1000.0)

    def apply_model(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, t, cond)


class Diffusion:
    """What OpenAI's denoiser reads of a diffusion."""

    alphas_cumprod = Latent().alphas_cumprod.tolist()


MODELS: dict[str, Any] = {
    "Denoiser": lambda: layers.Denoiser(Net(unit=10.0), sigma_data=0.5),
    "VDenoiser": lambda: external.VDenoiser(Net()),
    "OpenAIDenoiser": lambda: external.OpenAIDenoiser(Net(2, unit=1000.0), Diffusion()),
    "CompVisDenoiser": lambda: external.CompVisDenoiser(Latent()),
    "CompVisVDenoiser": lambda: external.CompVisVDenoiser(Latent(), quantize=True),
}


@pytest.mark.parametrize(("theirs", "method"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MODELS)
def test_its_samplers(name: str, dtype: torch.dtype, theirs: str, method: str) -> None:
    """On the library's own grid, which it computes in single precision, and on ours."""
    denoiser = MODELS[name]().to(dtype)
    discrete = hasattr(denoiser, "sigmas")
    sigmas = denoiser.get_sigmas(LEVELS) if discrete else sampling.get_sigmas_karras(LEVELS, 0.02, 20.0)
    grid = sigmas[:-1].to(torch.float64)
    model = from_k_diffusion(denoiser, sigma_min=float(grid[-1]), sigma_max=float(grid[0]))
    extra = {"cond": torch.eye(4, dtype=dtype)[[0, 3, 1]]} if name.startswith("CompVis") else {}
    x = float(grid[0]) * start().to(dtype)
    with torch.no_grad():
        other = getattr(sampling, f"sample_{theirs}")(denoiser, x, sigmas.to(dtype), extra_args=extra, disable=True)
    options: dict[str, Any] = {"denoise": True, "context": extra}
    mine = scoresde.solve(model.sde, model, x, method=method, grid=grid, **options).x
    same(mine, other, 1e-11 if dtype is torch.float64 else 1e-5)
    same(solved(model, x, method, LEVELS - 1, **options), other, 2e-5)
    if discrete:
        whole = from_k_diffusion(denoiser).sde
        assert (whole.t_min, whole.t_max) == (float(denoiser.sigmas[0]), float(denoiser.sigmas[-1]))
