"""Networks of EDM and EDM2 as score models."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import EDMSDE
from ..core.support.checks import check_callable, check_number, form
from ..core.support.signatures import accepts
from ..scores import ScoreModel
from ._models import Data, described, number_of

_SAMPLER = (0.002, 80.0)  # the ends of the published sampler


class _Labelled(nn.Module):
    """A network with one-hot labels, or none, which refuses others. It skips in single precision, whatever its weights
    are: those of EDM2's checkpoints are in half precision, in which the state has lost the noise of low levels."""

    casts_itself = True

    def __init__(self, net: Callable[..., Tensor], classes: int | None) -> None:
        super().__init__()
        self.net = net
        self.classes = classes

    def accepts(self, name: str) -> bool:
        return (name != "class_labels" or self.classes != 0) and accepts(self.net, name)

    def forward(self, x: Tensor, sigma: Tensor, **context: Any) -> Tensor:
        labels = context.get("class_labels")
        known = labels is None or self.classes is None
        if not known and (not isinstance(labels, Tensor) or labels.shape != (len(x), self.classes)):
            raise InvalidArgumentError(
                f"`class_labels` must be one-hot, ({len(x)}, {self.classes}), as torch.nn.functional.one_hot(labels, "
                f"{self.classes}) gives it, got {form(labels)}."
            )
        return self.net(x, sigma, **context)


class _Rounded:
    """The Karras grid with its levels rounded to those of the network, after it was made between ends that are not."""

    def __init__(self, round_sigma: Callable[[Tensor], Tensor], low: float, high: float) -> None:
        self.round_sigma = round_sigma
        self.sde = EDMSDE(low, high)
        self.ends = {_rounded(round_sigma, end): end for end in (low, high)}

    def __call__(self, sde: Any, t_start: float, t_end: float, steps: int) -> Tensor:
        times = grids.karras(self.sde, self.ends.get(t_start, t_start), self.ends.get(t_end, t_end), steps)
        times[1:-1] = self.round_sigma(times[1:-1]).to(times)
        times[0], times[-1] = t_start, t_end
        return times


def from_edm(
    net: Callable[..., Tensor],
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    data: Data | None = None,
) -> ScoreModel:
    r"""A network of EDM or EDM2 as a score model.

    .. math:: D(x, \sigma) = c_{skip}(\sigma)\,x + c_{out}(\sigma)\,F(c_{in}(\sigma)\,x,\ c_{noise}(\sigma)),
              \qquad \nabla\log p_\sigma(x) = \frac{D(x, \sigma) - x}{\sigma^2},

    where the network object returns D. The process is `EDMSDE`, whose time is :math:`\sigma`. No file is opened here:
    the published checkpoints are pickles, which the published code loads.

    Facts:
        The published sampler (Heun's method, without churn) with n levels is ``solve(model.sde, model,
        method="rho_heun", steps=n - 1, grid=model.grid, denoise=True)``; with churn the method is ``edm``.

    Args:
        net: called as ``net(x, sigma, class_labels=None)``. Its attributes ``sigma_min``, ``sigma_max``,
            ``round_sigma``, ``sigma_data``, ``img_channels``, ``img_resolution`` and ``label_dim`` are read where it
            has them. Class labels are one-hot, ``(batch, label_dim)``, and belong to the ``context`` of a solve:
            ``context={"class_labels": labels}``; without them the network takes zeros. A network in half precision, as
            EDM2's checkpoints are, receives the state and the noise level in single precision and casts them itself.
        sigma_min, sigma_max: the noise levels; by default those of the published sampler, 0.002 and 80, or the
            network's own ends if these are closer together.
        event_shape: the shape of one sample; by default ``(img_channels, img_resolution, img_resolution)``.
        data_range: the range of the data; by default (-1, 1) for 1 or 3 channels, which are images. The latent codes
            of EDM2 have no such range.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.

    Returns:
        The model. Its ``data_std`` is the network's ``sigma_data``, and its ``grid`` is `scoresde.grids.karras`,
        rounded to the levels of a network that has only some (``round_sigma``).

    Raises:
        InvalidArgumentError: a noise level is beyond the network's own; in a call, the labels are not one-hot.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> class Network(torch.nn.Module):  # in place of an EDMPrecond
        ...     sigma_min, sigma_max, sigma_data = 0.0, float("inf"), 0.5
        ...     img_channels, img_resolution, label_dim = 3, 8, 10
        ...
        ...     def forward(self, x, sigma, class_labels=None):
        ...         return x / (1 + 4 * sigma.reshape(-1, 1, 1, 1) ** 2)
        >>> model = from_edm(Network())
        >>> model.event_shape, model.data_range, model.sde.sigma_max
        ((3, 8, 8), (-1.0, 1.0), 80.0)
        >>> labels = torch.eye(10)[[3, 7]]
        >>> options = {"steps": 4, "grid": model.grid, "denoise": True, "seed": 0}
        >>> scoresde.solve(
        ...     model.sde,
        ...     model,
        ...     method="rho_heun",
        ...     shape=(2, 3, 8, 8),
        ...     context={"class_labels": labels},
        ...     **options,
        ... ).x.shape
        torch.Size([2, 3, 8, 8])

    References:
        Karras et al. (2022), table 1 and algorithm 1. https://arxiv.org/abs/2206.00364
        https://github.com/NVlabs/edm (``training/networks.py``, ``generate.py``)
        Karras et al. (2024), EDM2. https://arxiv.org/abs/2312.02696, https://github.com/NVlabs/edm2
    """
    check_callable("net", net, "net(x, sigma, class_labels=None)")
    low, high = (_end(net, name, default) for name, default in (("sigma_min", 0.0), ("sigma_max", math.inf)))
    first = max(_SAMPLER[0], low) if sigma_min is None else _inside("sigma_min", sigma_min, low, high)
    last = min(_SAMPLER[1], high) if sigma_max is None else _inside("sigma_max", sigma_max, low, high)
    sde, grid, rounds = EDMSDE(first, last), grids.karras, getattr(net, "round_sigma", None)
    if callable(rounds):
        sde, grid = EDMSDE(_rounded(rounds, first), _rounded(rounds, last)), _Rounded(rounds, first, last)
    sizes = tuple(getattr(net, name, None) for name in ("img_channels", "img_resolution", "img_resolution"))
    known = all(isinstance(size, int) for size in sizes)
    if event_shape is None and known:
        event_shape = sizes  # type: ignore[assignment]
    if data_range is None and known and sizes[0] in (1, 3):
        data_range = (-1.0, 1.0)
    classes = getattr(net, "label_dim", None)
    model = ScoreModel(_Labelled(net, classes), sde, "data", "sigma", event_shape=event_shape)
    if hasattr(net, "sigma_data"):
        model.data_std = number_of("sigma_data", net, "net", low=0.0, strict=True)
    return described(model, data_range=data_range, grid=grid, data=data)


def _end(net: object, name: str, default: float) -> float:
    """The lowest or the highest noise level of a network, which may be infinite."""
    value = getattr(net, name, default)
    return value if value == math.inf else check_number(f"net.{name}", value, low=0.0)


def _inside(name: str, value: float, low: float, high: float) -> float:
    return check_number(name, value, low=low, high=high, hint=f" (the network's own levels: net.{name})")


def _rounded(round_sigma: Callable[[Tensor], Tensor], sigma: float) -> float:
    """The level of a network that is nearest to a noise level."""
    return float(round_sigma(torch.tensor(sigma, dtype=torch.float64)))
