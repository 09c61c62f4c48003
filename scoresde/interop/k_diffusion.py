"""Denoisers of k-diffusion as score models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import EDMSDE
from ..core.support.checks import check_callable, check_number, check_times
from ..scores import ScoreModel
from ._models import Data, described

_ROUNDING = 1e-6  # of levels that were computed in single precision


def from_k_diffusion(
    model: Callable[..., Tensor],
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    data: Data | None = None,
) -> ScoreModel:
    r"""A denoiser of k-diffusion as a score model.

    .. math:: D(x, \sigma) = E[x_0 \,|\, x_0 + \sigma\varepsilon = x], \qquad
              \nabla\log p_\sigma(x) = \frac{D(x, \sigma) - x}{\sigma^2}.

    The process is `EDMSDE`, whose time is :math:`\sigma`. k-diffusion itself is not imported.

    Facts:
        k-diffusion's samplers append a last level of 0, where a step returns the denoiser's output. With n levels
        above it they make the trajectory of ``solve(model.sde, model, steps=n - 1, grid=model.grid, denoise=True)``
        with the methods ``ddim`` (``sample_euler``), ``rho_heun`` (``sample_heun``), ``dpmpp_2m``
        (``sample_dpmpp_2m``) and others.

    Args:
        model: called as ``model(x, sigma, **context)``: a ``Denoiser``, ``VDenoiser``, ``OpenAIDenoiser``,
            ``CompVisDenoiser``, … of k-diffusion, or any function that returns D. Its other arguments, such as
            ``cond``, belong to the ``context`` of a solve, under their names.
        sigma_min, sigma_max: the noise levels between which the network was trained; by default the ends of
            ``model.sigmas``, which the denoisers of discrete chains have.
        event_shape: the shape of one sample, if known.
        data_range: the range of the data, if known.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.

    Returns:
        The model. Its ``grid`` is `scoresde.grids.karras`; for a denoiser with ``sigmas`` its own ``get_sigmas``:
        levels evenly spaced in their position, between neighbours in :math:`\ln\sigma`.

    Raises:
        InvalidArgumentError: a noise level is missing, or not among those of ``model.sigmas``.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> def denoiser(x, sigma):  # of data N(0, I)
        ...     return x / (1 + sigma[:, None] ** 2)
        >>> model = from_k_diffusion(
        ...     denoiser, sigma_min=0.01, sigma_max=10.0, event_shape=(2,)
        ... )
        >>> x = torch.ones(1, 2)
        >>> bool((model(x, 2.0) + x / 5).abs().max() < 1e-6)
        True

    References:
        Karras et al. (2022), eq. 3. https://arxiv.org/abs/2206.00364
        https://github.com/crowsonkb/k-diffusion (``external.py``, ``layers.py``, ``sampling.py``)
    """
    check_callable("model", model, "model(x, sigma)")
    levels = _levels(model)
    if levels is None:
        ends = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        missing = next((name for name, value in ends.items() if value is None), None)
        if missing is not None:
            raise InvalidArgumentError(
                f"`{missing}` is missing, and the denoiser has no `sigmas`; give the noise levels between which it was "
                "trained, as in from_k_diffusion(model, sigma_min=0.01, sigma_max=80.0)."
            )
        sde, grid = EDMSDE(**ends), grids.karras  # type: ignore[arg-type]
    else:
        low, high = float(levels[-1]), float(levels[0])
        limits = {
            "low": (1 - _ROUNDING) * low,
            "high": (1 + _ROUNDING) * high,
            "hint": " (the levels of `model.sigmas`)",
        }
        sde = EDMSDE(
            low if sigma_min is None else check_number("sigma_min", sigma_min, **limits),  # type: ignore[arg-type]
            high if sigma_max is None else check_number("sigma_max", sigma_max, **limits),  # type: ignore[arg-type]
        )
        grid = grids.Levels(tuple(levels.tolist()))
    score = ScoreModel(model, sde, "data", "sigma", event_shape=event_shape)
    return described(score, data_range=data_range, grid=grid, data=data)


def _levels(model: object) -> Tensor | None:
    """The noise levels of a discrete denoiser, falling; None for others."""
    sigmas = getattr(model, "sigmas", None)
    if sigmas is None:
        return None
    levels = check_times("model.sigmas", sigmas, "noise levels").to("cpu", torch.float64).flip(0)
    if len(levels) < 2 or not bool((levels.diff() < 0).all()) or not float(levels[-1]) > 0:
        raise InvalidArgumentError("`model.sigmas` must be at least two rising positive noise levels.")
    return levels
