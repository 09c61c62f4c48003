r"""Small DDPM networks of MNIST that are trained too little, and err at high noise.

They take the integer labels of the linear chain of 1,000 levels, by sinusoids or by a table, and predict the noise of
images in [-1, 1]. An error in the data estimate is the root of the mean square over pixels and images, in standard
deviations of the data; that of a constant, the mean image, is 1.

``python -m benchmarks._high_noise_networks --images t10k-images-idx3-ubyte.gz --folder FOLDER`` trains every one of
`SETTINGS`, keeps it, and prints its errors.
"""

from __future__ import annotations

import argparse
import gzip
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import scoresde
from scoresde.discrete import BetaChain

CHAIN = BetaChain.linear(1000)
TRAINED = 8000  # images; the others are held out
LEVELS = (3.0, 7.0, 12.0, 20.0, 33.0, 60.0, 90.0, 156.0)  # sigma / alpha


def images(path: Path) -> Tensor:
    """All images in [-1, 1], ``(n, 1, 28, 28)``."""
    with gzip.open(path) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return torch.from_numpy(pixels.copy()).float() / 127.5 - 1


class Block(nn.Module):
    """A residual block to which the embedded time is added."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)])
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)]
        )
        self.time = nn.Linear(width, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``(batch, outputs, height, width)``."""
        h = self.convolutions[0](F.silu(self.norms[0](x))) + self.time(F.silu(time))[:, :, None, None]
        skipped: Tensor = self.skip(x)
        return skipped + self.convolutions[1](F.silu(self.norms[1](h)))


class DDPM(nn.Module):
    """The noise in an image of 28 x 28, given an integer label."""

    def __init__(self, channels: int = 32, table: bool = False, width: int = 64) -> None:
        super().__init__()
        c, self.width = channels, width
        self.table = nn.Embedding(1000, width) if table else None
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.stem = nn.Conv2d(1, c, 3, padding=1)
        self.down = nn.ModuleList([Block(c, c, width), Block(c, 2 * c, width), Block(2 * c, 2 * c, width)])
        self.up = nn.ModuleList([Block(4 * c, 2 * c, width), Block(4 * c, c, width), Block(2 * c, c, width)])
        self.middle = Block(2 * c, 2 * c, width)
        self.head = nn.Sequential(nn.GroupNorm(8, c), nn.SiLU(), nn.Conv2d(c, 1, 3, padding=1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Shaped like ``x``; ``label`` ``(batch,)``, int64."""
        if self.table is None:
            rates = torch.exp(-math.log(10_000) * torch.arange(self.width // 2) / (self.width // 2)).to(x)
            phase = label[:, None].to(x.dtype) * rates
            time = torch.cat([phase.sin(), phase.cos()], 1)
        else:
            time = self.table(label)
        time, h, kept = self.embed(time), self.stem(x), []
        for i, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if i else h, time)
            kept.append(h)
        h = self.middle(h, time)
        for i, block in enumerate(self.up):
            h = block(torch.cat([h, kept.pop()], 1), time)
            h = F.interpolate(h, scale_factor=2.0) if i < 2 else h
        found: Tensor = self.head(h)
        return found


class Setting(NamedTuple):
    """How a network is trained: its size, its embedding, batches, rate and seed."""

    channels: int
    table: bool
    steps: int
    rate: float
    seed: int


SETTINGS = {
    f"{channels} channels, {'table' if table else 'sinusoids'}, {steps} steps, seed {seed}": Setting(
        channels, table, steps, 1e-3, seed
    )
    for channels, table, steps, seed in (
        (32, False, 300, 0), (32, True, 300, 0), (32, False, 1000, 1), (32, True, 1000, 1), (16, False, 600, 2),
        (16, True, 600, 2),
    )
}  # fmt: skip


def train(setting: Setting, data: Tensor) -> DDPM:
    """Minimise the plain loss of the noise over the labels."""
    torch.manual_seed(setting.seed)
    net = DDPM(setting.channels, setting.table)
    optimiser = torch.optim.Adam(net.parameters(), lr=setting.rate)
    alpha_bar = torch.cumprod(1 - CHAIN.betas, 0).float()
    for _ in range(setting.steps):
        x, label = data[torch.randint(len(data), (64,))], torch.randint(1000, (64,))
        noise, share = torch.randn_like(x), alpha_bar[label][:, None, None, None]
        loss = (net(share.sqrt() * x + (1 - share).sqrt() * noise, label) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


def model(net: nn.Module) -> Any:
    """The score of such a network."""
    return scoresde.ScoreModel(net, CHAIN.sde(), "noise", "index", chain=CHAIN, event_shape=(1, 28, 28))


def errors(score: Any, held: Tensor, levels: tuple[float, ...] = LEVELS, sde: Any = None) -> dict[float, float]:
    """The errors of the data estimate at levels of noise, in data deviations."""
    sde, source, found = sde or score.traits.sde, torch.Generator().manual_seed(1), {}
    unit = float(held.std(0).square().mean().sqrt())
    for level in levels:
        node = sde.node(float(sde.time(torch.tensor(-2 * math.log(level), dtype=torch.float64))))
        noisy = node.alpha * held + node.sigma * torch.randn(held.shape, generator=source)
        with torch.no_grad():
            missed = score.estimate(noisy, node).data - held
        found[level] = float(missed.square().mean().sqrt()) / unit
    return found


def trained(name: str, data: Tensor, folder: Path) -> DDPM:
    """A network of `SETTINGS`, read or trained and kept."""
    setting, file = SETTINGS[name], folder / f"{name.replace(', ', '_').replace(' ', '_')}.pt"
    if not file.exists():
        torch.save(train(setting, data).state_dict(), file)
    net = DDPM(setting.channels, setting.table)
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval().requires_grad_(False)


def main() -> None:
    """Train all, and print their errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = images(options.images)
    print(f"{'':45}", *(f"{level:>7g}" for level in LEVELS))
    for name in SETTINGS:
        found = errors(model(trained(name, data[:TRAINED], options.folder)), data[TRAINED : TRAINED + 256])
        print(f"{name:45}", *(f"{error:7.2f}" for error in found.values()), flush=True)


if __name__ == "__main__":
    main()
