"""Denoisers of azula as score models."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import VESDE, AffineSDE, NormalPrior
from ..core.support.checks import check_callable
from ..nets import External
from ..scores import ScoreModel
from ._models import Data, described, number_of, process_of


def from_azula(
    denoiser: Callable[..., Any],
    *,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    data: Data | None = None,
) -> ScoreModel:
    r"""A denoiser of azula as a score model.

    Its posterior's mean :math:`E[x_0|x_t]` is a data prediction, and its schedule, :math:`t \mapsto (\alpha_t,
    \sigma_t)` on [0, 1], the process. azula itself is not imported.

    Facts:
        azula's ``EulerSampler(denoiser, steps=n)``, and ``DDIMSampler`` with its default ``eta=0``, make the
        trajectory of ``solve(model.sde, model, x, method="ddim", steps=n, grid=model.grid)``; ``HeunSampler`` that of
        ``rho_heun``.

    Args:
        denoiser: called as ``denoiser(x, t, **context)``, returns a posterior with the attribute ``mean``; its
            ``schedule`` is called as ``schedule(t)`` and returns :math:`\alpha_t` and :math:`\sigma_t`. That is a
            ``KarrasDenoiser`` or a ``SimpleDenoiser`` with any schedule, or a denoiser of azula's plugins.
        event_shape: the shape of one sample, if known.
        data_range: the range of the data, if known.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.

    Returns:
        The model. Its process is a `VESDE` where the schedule is that, else a `GaussianSDE`, with the prior from which
        azula's samplers start by default, :math:`N(0, (\alpha_1^2 + \sigma_1^2) I)`. Its ``grid`` is
        `scoresde.grids.time`.

    Raises:
        InvalidArgumentError: there is no ``schedule``; or it is a ``GaussianDenoiser``, which takes one time for the
            whole batch.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> from types import SimpleNamespace
        >>> class Denoiser(torch.nn.Module):  # of data N(0, I), in place of one of azula
        ...     def schedule(self, t):
        ...         return 1 - 0.999 * t, 0.001 + 0.999 * t
        ...
        ...     def forward(self, x, t):
        ...         alpha, sigma = self.schedule(t[:, None])
        ...         return SimpleNamespace(mean=alpha * x / (alpha**2 + sigma**2))
        >>> model = from_azula(Denoiser(), event_shape=(2,))
        >>> scoresde.solve(
        ...     model.sde,
        ...     model,
        ...     method="ddim",
        ...     steps=8,
        ...     grid=model.grid,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).evaluations
        8

    References:
        https://github.com/probabilists/azula (``noise.py``, ``denoise.py``, ``sample.py``)
    """
    check_callable("denoiser", denoiser, "denoiser(x, t)")
    schedule = getattr(denoiser, "schedule", None)
    if not callable(schedule):
        raise InvalidArgumentError("`denoiser` must have a schedule, called as denoiser.schedule(t).")
    if hasattr(denoiser, "cov") and not hasattr(denoiser, "backbone"):
        raise InvalidArgumentError(
            "`denoiser` takes one time for the whole batch, as azula's GaussianDenoiser does; an exact Gaussian here "
            "is scoresde.targets.Gaussian(mean, cov).score(sde)."
        )
    sde = _process(schedule)
    model = ScoreModel(External(denoiser, output="mean"), sde, "data", event_shape=event_shape)
    return described(model, data_range=data_range, grid=grids.time, data=data)


def _process(schedule: Callable[[Tensor], Any]) -> AffineSDE:
    pair = functools.partial(_pair, schedule)
    with torch.no_grad():
        prior = NormalPrior(math.hypot(*map(float, pair(torch.ones((), dtype=torch.float64)))))
    known = []
    if hasattr(schedule, "sigma_max") and hasattr(schedule, "sigma_min"):
        levels = (number_of(name, schedule, "denoiser.schedule") for name in ("sigma_min", "sigma_max"))
        known.append(VESDE(*levels, t_min=0.0, t_max=1.0, prior=prior))
    return process_of(pair, 0.0, 1.0, *known, prior=prior)


def _pair(schedule: Callable[[Tensor], Any], t: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\alpha` and :math:`\sigma` of a schedule."""
    pair = schedule(t)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(v, Tensor) for v in pair):
        raise InvalidArgumentError("`denoiser.schedule` must return two tensors, alpha and sigma.")
    return pair[0], pair[1]
