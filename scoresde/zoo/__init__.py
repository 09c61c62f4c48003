"""Saved networks: ``save(model, path)`` and ``load(path_or_name)``.

A saved model is a directory with ``config.json`` (the network's description and its origin) and ``model.safetensors``
(its weights). Neither can run code. `load` checks the digests of both before it uses them.
"""

from .classifier import load_classifier, save_classifier
from .config import Config, Labels
from .pretrained import Pretrained
from .processes import FUNCTIONS, PROCESSES, from_config, to_config
from .sampler import Sampler
from .store import load, names, save

__all__ = [
    "FUNCTIONS",
    "PROCESSES",
    "Config",
    "Labels",
    "Pretrained",
    "Sampler",
    "from_config",
    "load",
    "load_classifier",
    "names",
    "save",
    "save_classifier",
    "to_config",
]
