"""A network of diffusers as a score model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ...core.errors import InvalidArgumentError, InvalidTypeError
from ...core.support.checks import check_number
from ...grids import SamplerGrid
from ...scores import ScoreModel
from .._models import Data, described
from .config import conventions
from .network import DiffusersNetwork, channels_of, event_shape_of

_NETWORKS = ("unet", "transformer")  # of a pipeline
_ENCODERS = ("vae", "vqvae", "movq")  # of a pipeline that works on latents
_PIXELS = (1, 3)  # channels of images


def from_diffusers(
    model: Any,
    scheduler: Any = None,
    *,
    context: Mapping[str, object] | None = None,
    data_range: tuple[float, float] | None = None,
    data: Data | None = None,
    event_shape: tuple[int, ...] | None = None,
    time_scale: float = 1.0,
    mu: float | None = None,
) -> ScoreModel:
    r"""A network of diffusers as a score function, with the conventions of its scheduler.

    The scheduler's config determines the process, what the network predicts (``epsilon``, ``sample``, ``v_prediction``,
    ``flow_prediction``, EDM's output), what it receives as its time, and the sampler's grid; see
    `scoresde.interop.conventions`. Any method of this package then takes the place of the scheduler's:
    ``solve(model.sde, model, grid=model.grid, steps=20, method="ddim")`` makes the steps of ``num_inference_steps=20``.
    diffusers itself is not imported.

    **Latents.** The network of a pipeline with an autoencoder predicts latents, and so do the model and a solve: what
    ``solve`` returns is to be decoded with ``pipeline.vae``, after a division by its ``scaling_factor``. Prompts are
    encoded by the caller (``pipeline.encode_prompt``) and passed by the names that the network has,
    ``solve(..., context={"encoder_hidden_states": embeddings})``.

    **Limits.** The model does not clip the data estimate; ``conventions(scheduler).limit(model)`` does so where the
    scheduler does (``clip_sample``, ``thresholding``).

    Args:
        model: a pipeline with a ``unet`` or a ``transformer`` and a ``scheduler``, or a network such as
            ``UNet2DModel``, ``UNet2DConditionModel``, ``DiTTransformer2DModel`` or ``SD3Transformer2DModel``; it is
            called by name with its state, its ``timestep`` and the context. One that predicts twice the channels has a
            learned variance, which is left out unless the scheduler has it.
        scheduler: a scheduler, or its config with ``_class_name``; by default the pipeline's.
        context: what to pass to the network for every sample; see `scoresde.ScoreModel`. The context of a solve may
            have ``label`` for ``class_labels``.
        data_range: the range of the data. The default is (-1, 1) for pixels and None for latents: a pipeline without an
            autoencoder is one of pixels, and so is a network alone that takes 1 or 3 channels.
        data: clean samples, or a pair of them and their context, on which `scoresde.check_score` tests the model; it is
            refused where another convention fits better.
        event_shape: the shape of one sample; by default ``in_channels`` and ``sample_size`` of the network's config.
        time_scale: a factor of the timestep, :math:`10^{-3}` for ``FluxTransformer2DModel``.
        mu: the shift of a scheduler with ``use_dynamic_shifting``, which follows from the size of the image.

    Raises:
        InvalidArgumentError: the scheduler is missing or has no counterpart here, or the network takes other channels
            than it predicts (masks or images beside the state).
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> from types import SimpleNamespace
        >>> def unet(sample, timestep, class_labels=None):  # stands for a UNet2DModel
        ...     return SimpleNamespace(sample=0.1 * sample)
        >>> model = from_diffusers(
        ...     unet, {"_class_name": "DDIMScheduler"}, event_shape=(1, 8, 8)
        ... )
        >>> solution = scoresde.solve(
        ...     model.sde, model, grid=model.grid, steps=20, method="ddim", seed=0
        ... )
        >>> solution.x.shape, solution.evaluations
        (torch.Size([1, 1, 8, 8]), 20)

    References:
        The pipelines and schedulers of diffusers 0.42. https://github.com/huggingface/diffusers
    """
    net, latent = _network(model)
    if scheduler is None:
        scheduler = getattr(model, "scheduler", None)
    if scheduler is None:
        raise InvalidArgumentError(
            "`scheduler` must be given with a network alone; it has the conventions of the network. Write "
            'diffusers.DDIMScheduler.from_pretrained(path, subfolder="scheduler").'
        )
    found = conventions(scheduler)
    taken, predicted = channels_of(net)
    doubled = taken is not None and predicted == 2 * taken
    if not doubled and predicted != taken:
        raise InvalidArgumentError(
            f"`model` takes {taken} channels and predicts {predicted}: it needs more than the state, such as a mask. "
            "Write a function of (sample, timestep) that adds the rest."
        )
    learned = found.variance if doubled or taken is None else None
    network = DiffusersNetwork(net, time_scale=time_scale, gain=found.gain, halved=doubled and learned is None)
    made = ScoreModel(
        network,
        found.sde,
        found.prediction,
        found.time_input,
        chain=found.chain,
        variance=learned,
        sigma_data=found.sigma_data,
        context=context,
        event_shape=event_shape_of(net) if event_shape is None else event_shape,
    )
    shift = None if mu is None else check_number("mu", mu)
    pixels = taken in _PIXELS if latent is None else not latent
    extent = (-1.0, 1.0) if data_range is None and pixels else data_range
    grid = SamplerGrid(functools.partial(found.grid, mu=shift))
    return described(made, data_range=extent, grid=grid, data=data)


def _network(model: Any) -> tuple[Callable[..., Any], bool | None]:
    """The network of a pipeline, and whether it is one of latents; None for a network alone."""
    inside = [part for part in (getattr(model, name, None) for name in _NETWORKS) if part is not None]
    if inside:
        return inside[0], any(getattr(model, name, None) is not None for name in _ENCODERS)
    if not callable(model) or isinstance(model, type):
        raise InvalidTypeError(
            f"`model` must be a network or a pipeline of diffusers with a unet or a transformer, got "
            f"{type(model).__name__}."
        )
    return model, None
