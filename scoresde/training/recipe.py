"""The numbers of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..core.errors import InvalidArgumentError, InvalidTypeError, check_choice
from ..core.support.checks import MOST_STEPS, check_flag, check_integer, check_kind, check_number, shown

# The learning rate after the warm-up, over its peak, at a share of the steps.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "linear": lambda share: 1 - share,
    "none": lambda share: 1.0,
}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
_MOST = 1 << 40  # steps, samples
PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


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
        ema_power: None, or :math:`\gamma` of a power-law average, whose memory is a share of the run: the decay of step
            n is :math:`\min(ema, (1 - 1/n)^{\gamma+1})`. Such an average is good at any step, and for short runs too.
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
        Karras et al. (2024), Analyzing and Improving the Training Dynamics of Diffusion Models, eq. 127 (power-law
        average). https://arxiv.org/abs/2312.02696
    """

    steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 4e-3
    warmup: int = 300
    weight_decay: float = 0.0
    ema: float = 0.999
    clip: float = 1.0
    ema_power: float | None = None
    decay: str = "cosine"
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    precision: str = "float32"
    process_rate: float = 1.0
    accumulate: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, low=1, high=MOST_STEPS)
        check_integer("batch_size", self.batch_size, low=1, high=_MOST)
        check_integer("warmup", self.warmup, low=0, high=_MOST)
        check_integer("accumulate", self.accumulate, low=1, high=_MOST)
        check_number("learning_rate", self.learning_rate, low=0.0, strict=True)
        check_number("process_rate", self.process_rate, low=0.0)
        check_number("weight_decay", self.weight_decay, low=0.0)
        check_number("ema", self.ema, low=0.0, high=1.0)
        if self.ema_power is not None:
            check_number("ema_power", self.ema_power, low=0.0)
        if isinstance(self.clip, bool) or not isinstance(self.clip, int | float) or not self.clip > 0:
            raise InvalidArgumentError(f"`clip` must be positive, or math.inf for none, got {shown(self.clip)}.")
        if not isinstance(self.betas, list | tuple) or len(self.betas) != 2:
            raise InvalidArgumentError(f"`betas` must be two numbers, got {shown(self.betas)}.")
        for i, beta in enumerate(self.betas):
            check_number(f"betas[{i}]", beta, low=0.0, high=math.nextafter(1.0, 0.0))
        check_flag("compile", self.compile)
        check_choice("decay", self.decay, DECAYS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("precision", self.precision, PRECISIONS)

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
            given = [] if isinstance(parameters, str | bytes) else list(parameters)
        except (TypeError, ValueError, RuntimeError):
            given = []
        if not given or not all(isinstance(p, dict) or (isinstance(p, Tensor) and p.is_leaf) for p in given):
            raise InvalidTypeError(f"`parameters` must be those of a module, or groups, got {shown(parameters)}.")
        return kind(given, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)

    def average_of(self, module: nn.Module) -> AveragedModel:
        """The average of a module's weights, torch's own."""

        check_kind("module", module, nn.Module, "a torch.nn.Module")

        @torch.no_grad()
        def update(averaged: Any, current: Any, count: Tensor | int) -> None:
            get_ema_multi_avg_fn(self.ema_at(int(count) + 1))(averaged, current, count)

        return AveragedModel(module, multi_avg_fn=update)
