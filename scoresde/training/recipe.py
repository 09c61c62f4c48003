"""The numbers of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_integer, check_number, shown
from ..core.support.declared import (
    Kind,
    NonNegative,
    Positive,
    Probability,
    Steps,
    checked,
    integer,
    one_of,
)

# The learning rate after the warm-up, over its peak, at a share of the steps.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "linear": lambda share: 1 - share,
    "none": lambda share: 1.0,
}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_Many = Annotated[int, integer(low=1, high=1 << 40)]


def _check_betas(name: str, betas: Any) -> None:
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise InvalidArgumentError(f"`{name}` must be two numbers, got {shown(betas)}.")
    for i, beta in enumerate(betas):
        check_number(f"{name}[{i}]", beta, low=0.0, high=math.nextafter(1.0, 0.0))


@checked
@dataclass(frozen=True)
class Recipe:
    r"""How to train: Adam, linear warm-up then decay, gradient clipping, averaged weights.

    Args:
        steps: optimiser steps.
        batch_size: samples per step, over all ranks and micro-batches.
        learning_rate: the peak of the schedule.
        warmup: steps until the peak.
        weight_decay: of the optimiser.
        ema: decay of the exponential moving average of the weights, per step.
        clip: largest norm of the gradient.
        ema_power: None, or :math:`\gamma` of a power-function average, whose memory is a share of the run: the decay of
            step n is :math:`\min(ema, (1 - 1/n)^{\gamma+1})`. Such an average is good at any step and in short runs.
        decay: ``"cosine"`` (to 0), ``"linear"`` (to 0) or ``"none"``.
        optimizer: ``"adamw"`` or ``"adam"``.
        betas: of the optimiser.
        precision: ``"float32"``, or ``"bfloat16"`` or ``"float16"`` for what ``torch.autocast`` takes; ``"float16"``
            scales the loss, on CUDA only.
        process_rate: the learning rate of learned parts of the process, such as VDM's schedule, over that of the
            network.
        accumulate: micro-batches per step, whose gradients are averaged.
        compile: use ``torch.compile`` for the network.

    Example:
        >>> Recipe(steps=100).learning_rate_at(99) < Recipe(steps=100).learning_rate_at(0)
        True
        >>> (
        ...     round(Recipe(ema_power=9.0).ema_at(100), 3),
        ...     Recipe(ema_power=9.0).ema_at(1_000_000),
        ... )
        (0.904, 0.999)

    References:
        Karras et al. (2024), Analyzing and Improving the Training Dynamics of Diffusion Models, eq. 127
        (power-function average). https://arxiv.org/abs/2312.02696
    """

    steps: Steps = 10_000
    batch_size: _Many = 128
    learning_rate: Positive = 4e-3
    warmup: Annotated[int, integer(low=0, high=1 << 40)] = 300
    weight_decay: NonNegative = 0.0
    ema: Probability = 0.999
    clip: float = 1.0
    ema_power: NonNegative | None = None
    decay: Annotated[str, one_of(*DECAYS)] = "cosine"
    optimizer: Annotated[str, one_of(*OPTIMIZERS)] = "adamw"
    betas: Annotated[tuple[float, float], Kind(_check_betas)] = (0.9, 0.99)
    precision: Annotated[str, one_of(*PRECISIONS)] = "float32"
    process_rate: NonNegative = 1.0
    accumulate: _Many = 1
    compile: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.clip, bool) or not isinstance(self.clip, int | float) or not self.clip > 0:
            raise InvalidArgumentError(f"`clip` must be positive, or math.inf for none, got {shown(self.clip)}.")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        check_integer("step", step, low=0, high=self.steps)
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * warm * DECAYS[self.decay](step / self.steps)

    def ema_at(self, n: int) -> float:
        """The decay of the n-th average, counted from 1 (the first one is the weights themselves)."""
        check_integer("n", n, low=1)
        return self.ema if self.ema_power is None else min(self.ema, (1 - 1 / n) ** (self.ema_power + 1))

    def optimizer_of(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, object]]) -> torch.optim.Optimizer:
        """The optimiser of parameters, or of groups of them."""
        kind: Any = OPTIMIZERS[self.optimizer]
        try:
            return kind(parameters, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"`parameters` must be a network's, or groups of them: {error}") from error

    def average_of(self, module: nn.Module) -> AveragedModel:
        """The average of a module's weights, torch's own."""

        @torch.no_grad()
        def update(averaged: Any, current: Any, count: Tensor | int) -> None:
            get_ema_multi_avg_fn(self.ema_at(int(count) + 1))(averaged, current, count)

        return AveragedModel(module, multi_avg_fn=update)
