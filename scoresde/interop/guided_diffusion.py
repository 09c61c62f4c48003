"""Networks of guided-diffusion and improved-diffusion as score models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from ..core.errors import InvalidArgumentError, ScoreFnError
from ..core.support.checks import check_callable, check_choice, check_flag, check_integers, check_kind, form
from ..core.support.signatures import parameters
from ..discrete import BetaChain
from ..nets import External
from ..scores import ScoreModel
from ..scores.predictions import prediction_of
from ._models import Data, described, whole_levels

_PREDICTIONS = {"EPSILON": "noise", "START_X": "data"}
_VARIANCES = {"FIXED_SMALL": False, "FIXED_LARGE": False, "LEARNED_RANGE": True}
_UNIT = 1000.0  # the labels of rescaled timesteps, whatever the number of levels


class _Timesteps:
    """The label of a level, as the network receives it."""

    def __init__(self, places: Sequence[int] | None, scale: float | None) -> None:
        self.places = None if places is None else torch.tensor(places)
        self.scale = scale

    def __call__(self, level: Tensor) -> Tensor:
        label = level if self.places is None else self.places.to(level.device)[level]
        return label if self.scale is None else label.float() * self.scale


def from_guided_diffusion(
    model: Callable[..., Tensor],
    diffusion: Any,
    *,
    prediction: str | None = None,
    learn_sigma: bool | None = None,
    rescale_timesteps: bool | None = None,
    event_shape: tuple[int, ...] | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    data: Data | None = None,
) -> ScoreModel:
    r"""A U-Net of OpenAI's guided-diffusion or improved-diffusion as a score model.

    With :math:`x_i = \sqrt{\bar\alpha_i}\,x_0 + \sqrt{1-\bar\alpha_i}\,\varepsilon` the network predicts
    :math:`\varepsilon`, or :math:`x_0`, at the label i. A network with learned variances returns twice the channels:
    first the prediction, then :math:`2v - 1` with the logarithm of the variance of a reverse step,
    :math:`v\ln\beta_i + (1-v)\ln\tilde\beta_i`. Neither package is imported.

    Facts:
        ``p_sample_loop`` is ``solve(model.sde, model, method="ancestral", variance="learned", grid=model.chain.grid(),
        denoise=True)`` (``"large"`` and ``"small"`` for fixed variances), ``ddim_sample_loop`` is ``method="ddim"``.
        Both clip the data estimate to [-1, 1] unless ``clip_denoised=False``: ``Clip(model)`` does.

    Args:
        model: called as ``model(x, timesteps, **context)``. Class labels are the entry ``y`` of the ``context`` of a
            solve, an image to enlarge is ``low_res``.
        diffusion: a ``GaussianDiffusion`` or a ``SpacedDiffusion``, whose attributes are read; or a
            `scoresde.discrete.BetaChain`, for instance ``BetaChain.cosine(4000).respace(250)``; or the betas of all
            levels.
        prediction: with a chain or betas, ``"noise"`` (the default) or ``"data"``.
        learn_sigma: with a chain or betas, whether the channels are doubled; by default what ``model.out_channels``
            and ``model.in_channels`` say, or else False.
        rescale_timesteps: with a chain or betas, whether labels are numbers from 0 to 1000, i times 1000/N; default
            False.
        event_shape: the shape of one sample; by default ``(in_channels, image_size, image_size)``.
        data_range: the range of the data.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.

    Returns:
        The model, with its ``chain``. Its ``grid`` takes whole levels, evenly spaced, which is the published respacing.

    Raises:
        InvalidArgumentError: the diffusion predicts :math:`x_{i-1}` or learns a variance without range (neither can be
            represented), declares what an argument also gives, or the channels of the model contradict it.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> class UNetModel(torch.nn.Module):  # in place of guided_diffusion.unet.UNetModel
        ...     in_channels, out_channels, image_size = 3, 6, 8
        ...
        ...     def forward(self, x, timesteps, y=None):
        ...         return torch.cat([x, torch.zeros_like(x)], dim=1)
        >>> model = from_guided_diffusion(
        ...     UNetModel(), scoresde.discrete.BetaChain.linear(1000)
        ... )
        >>> model.event_shape, model.has_variance
        ((3, 8, 8), True)
        >>> scoresde.solve(
        ...     model.sde,
        ...     model,
        ...     method="ddim",
        ...     steps=9,
        ...     grid=model.grid,
        ...     denoise=True,
        ...     shape=(2, 3, 8, 8),
        ...     seed=0,
        ... ).evaluations
        10

    References:
        Nichol, Dhariwal (2021), eq. 15 and section 4. https://arxiv.org/abs/2102.09672
        Dhariwal, Nichol (2021). https://arxiv.org/abs/2105.05233
        https://github.com/openai/guided-diffusion (``gaussian_diffusion.py``, ``respace.py``)
    """
    check_callable("model", model, "model(x, timesteps)")
    given = {"prediction": prediction, "learn_sigma": learn_sigma, "rescale_timesteps": rescale_timesteps}
    for name in ("learn_sigma", "rescale_timesteps"):
        if given[name] is not None:
            check_flag(name, given[name])
    shape, doubled = _channels(model)
    if not isinstance(diffusion, BetaChain) and hasattr(diffusion, "betas"):
        chain, prediction, learn_sigma, time = _declared(diffusion, given)
    else:
        chain = diffusion if isinstance(diffusion, BetaChain) else BetaChain(diffusion)
        prediction = check_choice(
            "prediction", "noise" if prediction is None else prediction_of(prediction), _PREDICTIONS.values()
        )
        learn_sigma = bool(doubled) if learn_sigma is None else learn_sigma
        levels = len(chain.to_config()["log_snrs"])  # type: ignore[arg-type] # those that respacing left out, too
        time = _Timesteps(None, _UNIT / levels if rescale_timesteps else None)
    if doubled is not None and doubled is not learn_sigma:
        raise InvalidArgumentError(
            f"`learn_sigma` is {learn_sigma}, but the model has in_channels={getattr(model, 'in_channels', None)} and "
            f"out_channels={getattr(model, 'out_channels', None)}."
        )
    score = ScoreModel(
        External(model, time=time),
        chain.sde(),
        prediction,
        "index",
        chain=chain,
        variance="learned_range" if learn_sigma else None,
        event_shape=shape if event_shape is None else event_shape,
    )
    return described(score, data_range=data_range, grid=whole_levels, data=data)


def from_guided_classifier(classifier: Callable[..., Tensor], model: ScoreModel) -> Callable[..., Tensor]:
    r"""The log-probability of a noisy classifier of guided-diffusion, for `scoresde.guidance.classifier_guidance`.

    .. math:: \log p(y|x_i) = \ln\mathrm{softmax}(f(x_i, i))_y,

    where i is the label that the score model's network receives.

    Facts:
        With the ``scale`` of `classifier_guidance` for ``classifier_scale``, ``ddim`` makes the trajectory of
        ``ddim_sample_loop(cond_fn=…)``, and ``ancestral`` with ``condition="mean"`` that of ``p_sample_loop``.

    Args:
        classifier: called as ``classifier(x, timesteps)``, returns logits ``(batch, classes)``.
        model: what `from_guided_diffusion` returned, whose levels and labels it shares.

    Returns:
        ``log_prob(x, t, y)`` with t a time of ``model.sde`` and y integer classes, both ``(batch,)``; y is an entry
        of the ``context`` of a solve.

    Raises:
        InvalidArgumentError: the model is not one of `from_guided_diffusion`; in a call, y is not one class per sample.
        ScoreFnError: in a call, the classifier did not return logits.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> model = from_guided_diffusion(
        ...     lambda x, t: x, scoresde.discrete.BetaChain.linear(1000)
        ... )
        >>> # classes are the larger element
        >>> log_prob = from_guided_classifier(lambda x, t: x, model)
        >>> guided = scoresde.guidance.classifier_guidance(model, log_prob, scale=3.0)
        >>> y = torch.tensor([0, 1])
        >>> log_prob(torch.zeros(2, 2), torch.tensor([5.0, 5.0]), y=y).exp()
        tensor([0.5000, 0.5000])

    References:
        Dhariwal, Nichol (2021), section 4. https://arxiv.org/abs/2105.05233
        https://github.com/openai/guided-diffusion (``scripts/classifier_sample.py``)
    """
    check_callable("classifier", classifier, "classifier(x, timesteps)")
    check_kind("model", model, ScoreModel, "what from_guided_diffusion returned")
    time = getattr(model.net, "time", None)
    if model.chain is None or not isinstance(time, _Timesteps):
        raise InvalidArgumentError("`model` must be what from_guided_diffusion returned, for its levels and labels.")
    return _LogProb(classifier, model, time)


class _LogProb:
    """See `from_guided_classifier`."""

    rowwise = True

    def __init__(self, classifier: Callable[..., Tensor], model: ScoreModel, time: _Timesteps) -> None:
        self.classifier = External(classifier, time=time)
        self.model = model

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if not isinstance(y, Tensor) or y.numel() != len(x) or y.is_floating_point():
            raise InvalidArgumentError(f"`y` must be one class per sample, {len(x)} integers, got {form(y)}.")
        level = self.model.chain.label(self.model.native.log_snr(t.to(torch.float64)))  # type: ignore[union-attr]
        parameters = self.classifier.parameters() if isinstance(self.classifier, nn.Module) else ()
        logits = self.classifier(x.to(next((p.dtype for p in parameters if p.is_floating_point()), x.dtype)), level)
        if logits.ndim != 2 or len(logits) != len(x):
            raise ScoreFnError(f"The classifier must return logits ({len(x)}, classes), got {form(logits)}.")
        return log_softmax(logits, dim=-1).gather(1, y.reshape(-1, 1))[:, 0].to(x.dtype)


def _declared(diffusion: Any, given: Mapping[str, object]) -> tuple[BetaChain, str, bool, _Timesteps]:
    """What a diffusion of the published code declares."""
    twice = next((name for name, value in given.items() if value is not None), None)
    if twice is not None:
        raise InvalidArgumentError(f"`{twice}` is declared by the diffusion; leave it out, or pass the betas.")
    mean, variance = (_name(diffusion, field) for field in ("model_mean_type", "model_var_type"))
    if mean not in _PREDICTIONS:
        raise InvalidArgumentError(
            f"`diffusion.model_mean_type` must be one of {', '.join(_PREDICTIONS)}, got {mean}: a prediction of the "
            "next state belongs to the steps of one chain."
        )
    if variance not in _VARIANCES:
        raise InvalidArgumentError(
            f"`diffusion.model_var_type` must be one of {', '.join(_VARIANCES)}, got {variance}: a variance that is "
            "learned without range cannot be used; pass the betas, and a network that returns the prediction alone."
        )
    chain = BetaChain(diffusion.betas)
    places = check_integers("diffusion.timestep_map", getattr(diffusion, "timestep_map", range(len(chain))), low=0)
    original = getattr(diffusion, "original_num_steps", len(chain))
    rescaled = bool(getattr(diffusion, "rescale_timesteps", False))
    return chain, _PREDICTIONS[mean], _VARIANCES[variance], _Timesteps(places, _UNIT / original if rescaled else None)


def _name(diffusion: Any, field: str) -> str:
    """The name of a member of an enumeration of the published code."""
    member = getattr(diffusion, field, None)
    name = getattr(member, "name", None)
    if not isinstance(name, str):
        raise InvalidArgumentError(f"`diffusion.{field}` must be a member of an enumeration, got {member!r}.")
    return name


def _channels(model: Any) -> tuple[tuple[int, ...] | None, bool | None]:
    """The shape of the events, and whether the output has twice their channels, where a model declares them."""
    channels, out, size = (getattr(model, name, None) for name in ("in_channels", "out_channels", "image_size"))
    if not isinstance(channels, int):
        return None, None
    if "low_res" in (parameters(model) or ()):  # whose input is the state beside the enlarged image
        channels //= 2
    shape = (channels, size, size) if isinstance(size, int) else None
    return shape, (out == 2 * channels if isinstance(out, int) else None)
