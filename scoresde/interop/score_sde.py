"""Networks of score_sde_pytorch as score models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import VESDE, VPSDE, AffineSDE, SubVPSDE
from ..core.support.checks import MOST_LEVELS, check_callable, check_flag, check_integer
from ..discrete import BetaChain, Chain, NoiseScales
from ..nets import External
from ..scores import ScoreModel
from ._models import Data, described, number_of, whole_levels

_LEVELS = 1000  # the published N


def from_score_sde(
    model: Callable[..., Tensor],
    sde: Any,
    *,
    continuous: bool = True,
    levels: int | None = None,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] | None = None,
    data: Data | None = None,
) -> ScoreModel:
    r"""A network of score_sde_pytorch, the code of Song et al. (2021), as a score model.

    What the network f receives as its label, and what it returns:

    ============ ========== =================================== ==============================================
    process      continuous label                               output
    ============ ========== =================================== ==============================================
    VP, sub-VP   yes        :math:`999\,t`                      :math:`-\sigma` times the score, the noise
    VP           no         i = 0 … N - 1, from the cleanest    likewise, of :math:`\beta_i` of DDPM
    VE           yes        :math:`\sigma`                      the score; the network divides by
                                                                :math:`\sigma` itself (``scale_by_sigma``)
    VE           no         N - 1 … 0, 0 for the noisiest       likewise
    ============ ========== =================================== ==============================================

    Facts:
        The model is called as it is; the published samplers first switch off dropout, with ``model.eval()``.

    Args:
        model: called as ``model(x, labels)``, a ``NCSNpp`` or a ``DDPM``, for instance in a ``DataParallel``. No
            checkpoint is opened here.
        sde: an object of ``sde_lib`` (with ``beta_0`` and ``beta_1``, or ``sigma_min`` and ``sigma_max``, ``N``, and
            ``marginal_prob``), or a `VPSDE`, `SubVPSDE` or `VESDE`.
        continuous: ``config.training.continuous``.
        levels: N of a network that is not continuous; by default that of the ``sde``, or 1000.
        event_shape: the shape of one sample; by default that of ``model.config.data``, where it has one.
        data_range: the range of the data; by default that of ``model.config.data.centered`` or ``model.centered``, else
            the one of the published configurations: (0, 1) for VE, (-1, 1) for the others.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.

    Returns:
        The model. A continuous one has our `VPSDE`, `SubVPSDE` or `VESDE` with the published ends, and the ``grid``
        `scoresde.grids.time`; another one has a ``chain``, `scoresde.discrete.BetaChain` or
        `scoresde.discrete.NoiseScales`, its process, and whole levels for a grid.

    Raises:
        InvalidArgumentError: the ``sde`` is not one of these, or it is sub-VP and not continuous, which was never
            published.
        InvalidTypeError: an argument has the wrong type.

    Differs from:
        The published samplers of discrete networks, which visit ``torch.linspace(1, eps, N)`` and pass labels that
        are not whole to VP networks. Here a label is that of the nearest level, and the times are those of the levels.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> def network(x, labels):  # the noise in data N(0, I)
        ...     return sde.sigma(labels / 999)[:, None] * x
        >>> model = from_score_sde(network, sde)
        >>> x = torch.ones(1, 2)
        >>> bool((model(x, 0.3) + x).abs().max() < 1e-6)
        True

    References:
        Song et al. (2021), appendix C. https://arxiv.org/abs/2011.13456
        https://github.com/yang-song/score_sde_pytorch (``models/utils.py``, ``sde_lib.py``)
    """
    check_callable("model", model, "model(x, labels)")
    check_flag("continuous", continuous)
    if continuous and levels is not None:
        raise InvalidArgumentError("`levels` are those of a network with continuous=False; leave it out.")
    process = sde if isinstance(sde, VPSDE | SubVPSDE | VESDE) else _process(sde)
    shape, centered = _data(model)
    exploding = isinstance(process, VESDE)
    if data_range is None:
        data_range = (0.0, 1.0) if (exploding if centered is None else not centered) else (-1.0, 1.0)
    options: dict[str, Any] = {"event_shape": shape if event_shape is None else event_shape}
    if continuous and exploding:
        score = ScoreModel(model, process, "score", "sigma", **options)
    elif continuous:
        score = ScoreModel(External(model, time=_label), process, "noise", **options)
    else:
        count = check_integer(
            "levels", getattr(sde, "N", _LEVELS) if levels is None else levels, low=2, high=MOST_LEVELS
        )
        chain = _chain(process, count)
        net = model if exploding else External(model, time=Tensor.float)
        prediction = "score" if exploding else "noise"
        score = ScoreModel(net, chain.sde(), prediction, "index", chain=chain, **options)
    return described(score, data_range=data_range, grid=grids.time if continuous else whole_levels, data=data)


def _label(t: Tensor) -> Tensor:
    return 999 * t


def _process(sde: Any) -> AffineSDE:
    """Our process for one of ``sde_lib``, the one that has its standard deviations."""
    kinds: tuple[type[VESDE | VPSDE | SubVPSDE], ...]
    if hasattr(sde, "sigma_min"):
        kinds, names = (VESDE,), ("sigma_min", "sigma_max")
    elif hasattr(sde, "beta_0"):
        kinds, names = (VPSDE, SubVPSDE), ("beta_0", "beta_1")
    else:
        raise InvalidArgumentError(
            "`sde` must be a process of sde_lib with beta_0 and beta_1, or sigma_min and sigma_max, or one such as "
            f"scoresde.VPSDE(), got {type(sde).__name__}."
        )
    numbers = [number_of(name, sde, "sde", low=0.0, strict=True) for name in names]
    if not callable(getattr(sde, "marginal_prob", None)):
        raise InvalidArgumentError("`sde` must have the method marginal_prob, which distinguishes the processes.")
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    wanted = sde.marginal_prob(t.new_zeros(5, 1, 1, 1), t)[1].reshape(-1).to(t)
    for process in (kind(*numbers) for kind in kinds):
        if torch.allclose(process.sigma(t), wanted, rtol=1e-5):
            return process
    raise InvalidArgumentError(
        f"`sde`: its marginal_prob has other standard deviations than {' or '.join(k.__name__ for k in kinds)} with "
        f"{names[0]}={numbers[0]:g} and {names[1]}={numbers[1]:g}."
    )


def _chain(process: AffineSDE, levels: int) -> Chain:
    """The chain of a network that was trained on the levels of a process."""
    if isinstance(process, VESDE):
        return NoiseScales.geometric(levels, process.sigma_min, process.sigma_max)
    if not isinstance(process, VPSDE):
        raise InvalidArgumentError("`continuous` must be True for the sub-VP process, of which there is no chain.")
    return BetaChain.linear(levels, process.beta_min / levels, process.beta_max / levels)


def _data(model: Any) -> tuple[tuple[int, ...] | None, bool | None]:
    """The shape of the events, and whether they are centred, where a model declares them."""
    inner = getattr(model, "module", model)
    data = getattr(getattr(inner, "config", None), "data", None)
    channels, size = getattr(data, "num_channels", None), getattr(data, "image_size", None)
    known = isinstance(channels, int) and isinstance(size, int)
    centered = getattr(inner, "centered", getattr(data, "centered", None))
    return ((channels, size, size) if known else None), centered  # type: ignore[return-value]
