"""Small U-Nets of diffusers, trained briefly on the digits, one for each prediction."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.interop.diffusers.config import Conventions, conventions
from scoresde.scores import PREDICTIONS
from scoresde.training.digits_data import digits_split, grey_to_x

STEPS, BATCH, RATE = 150, 32, 2e-3


def unet(channels: tuple[int, int], seed: int = 0) -> nn.Module:
    """An untrained U-Net for images of 8 by 8 pixels."""
    diffusers = importlib.import_module("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=channels,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            add_attention=False,
        ).eval()


def trained(scheduler: Any, channels: tuple[int, int] = (16, 32), steps: int = STEPS, seed: int = 0) -> nn.Module:
    """A U-Net that predicts what a scheduler expects, from what the network of that scheduler receives."""
    net, found = unet(channels, seed).train(), conventions(scheduler)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    images = digits_split().train_images
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        x0 = grey_to_x(images[chosen], generator)
        times = _times(found, generator)
        noise = torch.randn(x0.shape, generator=generator)
        loss = _loss(net, found, x0, times, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def _times(found: Conventions, generator: torch.Generator) -> Tensor:
    """Times of a batch: of levels of a chain, of a flow, or of EDM's distribution."""
    if found.chain is not None:
        return found.timestep.time(torch.randint(len(found.chain), (BATCH,), generator=generator))
    if found.prediction == "edm":
        normal = torch.randn(BATCH, generator=generator, dtype=torch.float64)
        return (1.2 * normal - 1.2).exp().clamp(0.002, 80.0)
    return torch.rand(BATCH, generator=generator, dtype=torch.float64).clamp(1e-3, 1.0)


def _loss(net: nn.Module, found: Conventions, x0: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """The squared error of the prediction; of EDM's output, the error of what it should be."""
    node = type(n := found.sde.nodes(times))(*(v.float()[:, None, None, None] for v in n))
    x = node.alpha * x0 + node.sigma * noise
    label = found.timestep(times).float()
    if found.prediction != "edm":
        wanted = {
            "noise": noise,
            "data": x0,
            "v": node.alpha * noise - node.sigma * x0,
            "flow": node.dalpha * x0 + node.dsigma * noise,
        }
        return (net(x, label).sample - wanted[found.prediction]).square().mean()
    keep, scale = PREDICTIONS["edm"].data(node, found.sigma_data)
    size = (node.sigma**2 + found.sigma_data**2).sqrt()
    return (found.gain * net(x / size, label).sample - (x0 - keep * x) / scale).square().mean()
