"""What the tests of other libraries' networks share: a small network, states and draws, and a verdict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import scoresde

SHAPE = (3, 2, 8, 8)  # of a batch


class Net(torch.nn.Module):
    """Two convolutions with a smooth embedding of the time between them; float64, random weights.

    Args:
        parts: how many times the channels of the input the output has.
        classes: of one-hot labels, 0 for none.
        unit: the time at which the embedding turns once.
    """

    def __init__(self, parts: int = 1, classes: int = 0, unit: float = 1.0, channels: int = SHAPE[1]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)

        def weights(*shape: int) -> torch.nn.Parameter:
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter(values / values[0].numel() ** 0.5)

        self.enter, self.leave = weights(8, channels, 3, 3), weights(parts * channels, 8, 3, 3)
        self.waves, self.labels = weights(8), weights(max(classes, 1), 8)
        self.unit = unit

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        h = torch.sin(3 * time.to(x.dtype).reshape(-1, 1) / self.unit * self.waves)
        if labels is not None:
            h = h + 3 * labels.to(x.dtype) @ self.labels
        h = torch.nn.functional.conv2d(x, self.enter, padding=1) + h[..., None, None]
        return torch.nn.functional.conv2d(torch.sin(h), self.leave, padding=1)


def normals(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> list[Tensor]:
    """Standard normal draws, the same for both sides."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def start(shape: tuple[int, ...] = SHAPE) -> Tensor:
    """A standard normal state."""
    return normals(1, shape, seed=8)[0]


def solved(model: Any, x: Tensor, method: str, steps: int, **options: Any) -> Tensor:
    """Our end state on the model's own process and grid."""
    draws = options.pop("draws", None)
    noise = None if draws is None else (lambda k, like: draws[k].to(like))
    options = {"grid": model.grid, "noise": noise, **options}
    return scoresde.solve(model.sde, model, x, method=method, steps=steps, **options).x


def same(mine: Tensor, other: Tensor, tolerance: float) -> None:
    """Both are one state, to a tolerance in units of its largest element."""
    assert mine.shape == other.shape and mine.dtype == other.dtype
    size = float(other.abs().max().clamp(min=1.0))
    gap = float((mine - other).abs().max()) / size
    assert gap <= tolerance, f"ours and theirs differ by {gap:.2e} of the largest element"
