"""The identity of a training run, and the state of its loss."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import nn

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE
from ..losses import Times
from ..zoo.processes import modules_of
from .recipe import Recipe
from .stream import described

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function, in its repr
_SHARES = tuple(i / 16 for i in range(17))  # of a process's interval


def conventions(model: Any) -> dict[str, object]:
    """A model as JSON values that identify it.

    Example:
        >>> net = scoresde.nets.build("mlp", {"event_shape": (2,)})
        >>> flow, vp = (
        ...     scoresde.ScoreModel(net, sde, "noise")
        ...     for sde in (scoresde.FlowSDE(), scoresde.VPSDE())
        ... )
        >>> conventions(flow) == conventions(vp), conventions(vp)["prediction"]
        (False, 'noise')
    """
    if isinstance(model, nn.Module):
        return {"net": type(model).__name__}
    names = ("prediction", "time_input", "input_scale", "variance_name", "sigma_data")
    process = _process(model.native) if not modules_of(model.native) else {"process": type(model.native).__name__}
    return {"net": type(model.net).__name__} | process | {n: described(getattr(model, n)) for n in names}


def _process(sde: AffineSDE) -> dict[str, object]:
    """A process as JSON values: its name, and its schedule at some times, which distinguishes functions and chains."""
    nodes = [sde.node(sde.t_min + share * (sde.t_max - sde.t_min)) for share in _SHARES]
    schedule = [[described(float(f"{value:.6g}")) for value in (node.alpha, node.lam)] for node in nodes]
    return {"process": _ADDRESS.sub("", repr(sde)), "schedule": schedule}


def samples_per_batch(recipe: Recipe, world: int) -> int:
    """The samples of a micro-batch on one of several ranks.

    Example:
        >>> samples_per_batch(Recipe(batch_size=12, accumulate=2), 3)
        2
    """
    shares = world * recipe.accumulate
    if recipe.batch_size % shares:
        given = f"{shares} = ranks x micro-batches, got {recipe.batch_size}"
        raise InvalidArgumentError(f"`batch_size` must be a multiple of {given}.")
    return recipe.batch_size // shares


def check_size(stream: object, recipe: Recipe, world: int) -> None:
    """Refuse a recipe whose batch size is not that of the data."""
    size = getattr(getattr(stream, "batches", stream), "size", None)
    if size is not None and size * recipe.accumulate * world != recipe.batch_size:
        given = f"{size} samples x {recipe.accumulate} micro-batches x {world} ranks"
        raise InvalidArgumentError(f"`recipe.batch_size` is {recipe.batch_size}, but the stream gives {given}.")


def remembering(loss: Any) -> dict[str, Any]:
    """The stateful parts of a loss, by option: distributions of noise levels that learn from losses.

    A loss is searched through ``functools.partial``; a loss that has ``state_dict`` and ``load_state_dict`` itself is
    listed under the name "own".

    Example:
        >>> law = scoresde.losses.LossSecondMoment(scoresde.discrete.BetaChain.linear(10))
        >>> list(remembering(partial(scoresde.losses.ddpm_vlb, times=law, unit="bits")))
        ['times']
    """
    parts = {"own": loss} if hasattr(loss, "state_dict") and hasattr(loss, "load_state_dict") else {}
    if isinstance(loss, partial):
        known = {name: value for name, value in loss.keywords.items() if isinstance(value, Times)}
        parts |= remembering(loss.func) | known
    return parts
