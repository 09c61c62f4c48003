r"""Objectives of one target and one weight: EDM, v, flow matching, min-SNR, P2. Means over the event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidTypeError
from ..core.sdes import EDMSDE
from ..core.support.checks import check_number, check_state
from ..scores import ScoreModel
from .checks import check_context, gives_estimates
from .core import Model, denoising
from .times import FromLevels, LowDiscrepancy, NoiseLevels, Times
from .weights import P2, MinSNR

_EDM = NoiseLevels()
_ALL_LEVELS = EDMSDE(1e-12, 1e12)  # the process of a raw network, which has no ends


def edm(
    model: Any,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    sigma_data: float | None = None,
    levels: Times | Callable[[Tensor], Tensor] = _EDM,
    **context: Any,
) -> Tensor:
    r"""EDM's denoising loss of the raw output F, per sample, averaged over the event.

    With :math:`y = x_0 + \rho \varepsilon` and the denoiser :math:`D = c_{skip} y + c_{out} F(c_{in} y, c_{noise})`,

    .. math::
        \lambda(\rho) \lVert D - x_0 \rVert^2 = \lVert F(c_{in} y, c_{noise}) - (x_0 - c_{skip} y)/c_{out} \rVert^2,
        \qquad \lambda = \frac{\rho^2 + \sigma_d^2}{(\rho \sigma_d)^2},

    .. math::
        c_{skip} = \frac{\sigma_d^2}{\rho^2 + \sigma_d^2}, \quad c_{out} = \frac{\rho \sigma_d}{\sqrt{\rho^2 +
        \sigma_d^2}}, \quad c_{in} = \frac1{\sqrt{\rho^2 + \sigma_d^2}}, \quad c_{noise} = \tfrac14 \ln \rho.

    It is the target ``"edm"`` of `denoising`, so that a model that predicts something else can be trained with it too.
    The distribution of noise levels is a part of the objective: there are no importance weights.

    Differs from:
        EDM's code: the levels of a batch are stratified (`LowDiscrepancy`), and the loss is a mean over the event, not
        a sum.

    Args:
        model: a `ScoreModel`, or a raw network ``model(x_in, c_noise, **context)``, taken as one that predicts F.
        x0: data, ``(batch, *event)``, floating.
        generator: source of the noise levels and of the noise; None is torch's global one.
        sigma_data: standard deviation of the data, :math:`\sigma_d`; default that of the model, 0.5 for a raw network.
        levels: a distribution such as `NoiseLevels` (the default is EDM's) or `LogNormal`, or a function from uniform
            numbers ``(batch,)`` to noise levels ρ.
        context: passed on to the network, for example ``label=``.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError: as `denoising`.
        NonFiniteError: the loss of a sample is not finite; the message names its noise level.

    Example:
        >>> data = torch.zeros(6, 2)
        >>> edm(
        ...     lambda x, c_noise: torch.zeros_like(x),
        ...     data,
        ...     torch.Generator().manual_seed(0),
        ... ).shape
        torch.Size([6])

    References:
        Karras, Aittala, Aila, Laine (2022), eq. 8 and table 1. https://arxiv.org/abs/2206.00364
        Kingma, Salimans, Poole, Ho (2021), Variational Diffusion Models, appendix I.1. https://arxiv.org/abs/2107.00630
    """
    if sigma_data is not None:
        sigma_data = check_number("sigma_data", sigma_data, low=0.0, strict=True, hint=" (write x0.std().item())")
    if not callable(levels) and not isinstance(levels, Times):
        raise InvalidTypeError(
            f"`levels` must be a distribution such as NoiseLevels(), or a function of u, got {levels!r}."
        )
    if not gives_estimates(model):
        model = ScoreModel(model, _ALL_LEVELS, "edm", sigma_data=0.5 if sigma_data is None else sigma_data)
    check_context(model, context, len(check_state("x0", x0)))
    law = levels if isinstance(levels, Times) else FromLevels(levels)
    return denoising(
        model,
        x0,
        generator,
        target="edm",
        times=law if isinstance(law, LowDiscrepancy) else LowDiscrepancy(law),
        importance=False,
        sigma_data=sigma_data,
        **context,
    )


def v_prediction(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    times: Times | None = None,
    importance: bool = False,
    **context: Any,
) -> Tensor:
    r""":math:`\|\hat v - v\|^2` with :math:`v = \alpha\varepsilon - \sigma x_0`, a mean over the event.

    For a variance preserving process it is :math:`\|\hat x-x_0\|^2` with the weight SNR + 1.

    Args:
        model, x0, generator, times, importance, context: see `denoising`; the distribution of times is a part of the
            objective unless ``importance`` is set.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.CosineVPSDE(), "v")
        >>> v_prediction(model, torch.zeros(4, 2)).shape
        torch.Size([4])

    References:
        Salimans, Ho (2022), section 4. https://arxiv.org/abs/2202.00512
    """
    return denoising(model, x0, generator, target="v", times=times, importance=importance, **context)


def flow_matching(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    times: Times | None = None,
    importance: bool = False,
    **context: Any,
) -> Tensor:
    r""":math:`\|\hat u - (\alpha' x_0 + \sigma'\varepsilon)\|^2`, a mean over the event; on `FlowSDE` the velocity is
    :math:`\varepsilon - x_0`.

    Args:
        model, x0, generator, times, importance, context: see `denoising`; the distribution of times is a part of the
            objective unless ``importance`` is set (Stable Diffusion 3: ``times=LogitNormal()``).

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.FlowSDE(), "flow")
        >>> flow_matching(
        ...     model, torch.zeros(4, 2), times=scoresde.losses.LogitNormal()
        ... ).shape
        torch.Size([4])

    References:
        Lipman et al. (2023), eq. 9. https://arxiv.org/abs/2210.02747
        Liu, Gong, Liu (2023), eq. 1. https://arxiv.org/abs/2209.03003
    """
    return denoising(model, x0, generator, target="flow", times=times, importance=importance, **context)


def min_snr(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    gamma: float = 5.0,
    times: Times | None = None,
    importance: bool = True,
    **context: Any,
) -> Tensor:
    r""":math:`\min(\mathrm{SNR},\gamma)\,\|\hat x-x_0\|^2`, a mean over the event, for any prediction.

    Args:
        gamma: where the weight is cut.
        model, x0, generator, times, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VPSDE(), "v")
        >>> min_snr(model, torch.zeros(4, 2)).shape
        torch.Size([4])

    References:
        Hang et al. (2023), section 3.4. https://arxiv.org/abs/2303.09556
    """
    return denoising(model, x0, generator, weight=MinSNR(gamma), times=times, importance=importance, **context)


def p2(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    k: float = 1.0,
    gamma: float = 1.0,
    times: Times | None = None,
    importance: bool = True,
    **context: Any,
) -> Tensor:
    r""":math:`(k+\mathrm{SNR})^{-\gamma}\,\|\hat\varepsilon-\varepsilon\|^2`, a mean over the event.

    Args:
        k, gamma: of the weight.
        model, x0, generator, times, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VPSDE(), "noise")
        >>> p2(model, torch.zeros(4, 2)).shape
        torch.Size([4])

    References:
        Choi et al. (2022), eq. 8. https://arxiv.org/abs/2204.00227
    """
    return denoising(model, x0, generator, weight=P2(k, gamma), times=times, importance=importance, **context)
