"""A network with what is needed to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._tensors import check_integer
from ..errors import InvalidArgumentError, InvalidTypeError, unknown
from ..fit import FittedGrid
from ..models import ScoreModel
from ..sdes import AffineSDE
from .config import Config, Labels

__all__ = ["Pretrained"]


@dataclass(frozen=True)
class Pretrained:
    """A network and its `Config`, as `load` returns and `save` takes it.

    Args:
        net: the raw network, called as ``net(c_in * y, c_noise, **context)``.
        config: what it is.

    Example:
        >>> from scoresde.zoo import load
        >>> model = load("digits")
        >>> model.event_shape
        (1, 8, 8)
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(sde, model.score(sde, label=3), method="ddim", steps=2, shape=(5, 1, 8, 8)).x.shape
        torch.Size([5, 1, 8, 8])
    """

    net: nn.Module
    config: Config

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.config.event_shape

    @property
    def labels(self) -> Labels | None:
        """The class labels that the network takes, or None."""
        return self.config.labels

    def grid(self, sde: AffineSDE, steps: int) -> FittedGrid:
        """The grid that was fitted to the network for a process and a number of steps, for ``grid=`` of a solve by
        its ``method``.

        Raises:
            InvalidArgumentError: there is none; `scoresde.fit_grid` makes one.

        Example:
            >>> from scoresde.zoo import load
            >>> model = load("digits")
            >>> grid = model.grid(scoresde.VPSDE(), 10)
            >>> grid.steps, grid.fitted.median < grid.default.median
            (10, True)
        """
        for grid in self.config.grids:
            if grid.steps == steps and grid.fits(sde):
                return grid
        there = sorted({f"{grid.steps} steps of {grid.process}" for grid in self.config.grids})
        raise InvalidArgumentError(
            f"No grid was fitted for {steps} steps of {sde!r}; there are {'; '.join(there) or 'none'}. Fit one with "
            f"fit_grid(sde, score_fn, {steps})."
        )

    def score(self, sde: AffineSDE, **context: Any) -> ScoreModel:
        """The score function of the network for an affine process.

        Args:
            sde: any affine process; the network is asked through the process's signal-to-noise ratio.
            context: the class label, if the network has one (``label=`` for the digits): an integer 0 … count − 1 for
                all samples; None, the default, for the null class; or integers ``(batch,)``, one a sample, where the
                null class is written as its number. With one a sample, the score function is no longer marked
                ``rowwise``; labels in the ``context`` of a solve keep that.
        """
        labels = self.config.labels
        for name in context:
            if labels is None:
                raise InvalidArgumentError(f"This network takes no context, got `{name}`.")
            if name != labels.name:
                raise unknown("context", name, [labels.name])
        value = context.get(labels.name) if labels else None
        per_sample = isinstance(value, Tensor) and value.ndim > 0
        checked = {} if labels is None or value is None else {labels.name: _check_label(labels, value)}
        model = ScoreModel(
            self.net,
            sde,
            prediction=self.config.prediction,
            sigma_data=self.config.sigma_data,
            context=checked,
            event_shape=self.config.event_shape,
        )
        if per_sample:
            model.rowwise = False  # the labels belong to a batch, which must stay whole
        return model


def _check_label(labels: Labels, value: Any) -> int | Tensor:
    hint = f" Write {labels.name}=0 … {labels.count - 1}, or None for the null class."
    if not isinstance(value, Tensor) or value.ndim == 0:
        if isinstance(value, Tensor):
            value = value.item()
        number = check_integer(labels.name, value, low=0, hint=hint)
        if number >= labels.count:
            raise InvalidArgumentError(f"`{labels.name}` must be at most {labels.count - 1}, got {number}.{hint}")
        return number
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise InvalidTypeError(f"`{labels.name}` must be integers, got {value.dtype}; write label.long().")
    if value.ndim > 1:
        raise InvalidArgumentError(f"`{labels.name}` must be (batch,), got shape {tuple(value.shape)}.")
    bad = (value < 0) | ((value >= labels.count) & (value != labels.null))
    if bool(bad.any()):
        raise InvalidArgumentError(
            f"`{labels.name}` must be 0 … {labels.count - 1}, or {labels.null} for the null class, "
            f"got {value[bad][:5].tolist()} at {bad.nonzero().flatten()[:5].tolist()}."
        )
    return value
