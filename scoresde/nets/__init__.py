"""Small reference networks. They are meant to be read, and replaced by yours: any callable can be a score network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated

from torch import nn

from ..core.errors import check_choice
from ..core.support.declared import Kind, checked
from .classifier import Classifier
from .embeddings import EMBEDDINGS, NoiseEmbedding, fourier_features
from .external import External, from_diffusers
from .gamma import MonotoneGamma
from .mlp import MLP
from .unet import UNet

__all__ = [
    "ARCHITECTURES",
    "EMBEDDINGS",
    "MLP",
    "Classifier",
    "External",
    "MonotoneGamma",
    "NoiseEmbedding",
    "UNet",
    "build",
    "fourier_features",
    "from_diffusers",
]

# The networks that a saved model may name. To save yours, add it here: its arguments must be JSON values.
ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet, "mlp": MLP}
Architecture = Annotated[str, Kind(lambda name, value: check_choice(name, value, ARCHITECTURES))]


@checked
def build(architecture: Architecture, kwargs: Mapping[str, object]) -> nn.Module:
    """Make a network from its name in `ARCHITECTURES` and its arguments.

    Raises:
        InvalidArgumentError: there is no such architecture, or it has no such argument; and as its class.

    Example:
        >>> sum(
        ...     p.numel()
        ...     for p in build("unet", {"channels": 8, "blocks": 1, "width": 8}).parameters()
        ... )
        11169
    """
    return made(ARCHITECTURES[architecture], kwargs)


@checked
def made(kind: type[nn.Module], kwargs: Mapping[str, object]) -> nn.Module:
    """A network of a class; names of arguments that the class does not have are refused.

    Example:
        >>> made(Classifier, {"classes": 10}).classes
        10
    """
    known = inspect.signature(kind).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for name in kwargs:
            check_choice("kwargs", name, known)
    return kind(**kwargs)
