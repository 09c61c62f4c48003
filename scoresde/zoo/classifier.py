"""A classifier of noisy data on the disk: one safetensors file whose header describes it, never a pickle."""

from __future__ import annotations

import json
import os

import safetensors.torch
from safetensors import SafetensorError, safe_open

from ..core.errors import CorruptCheckpointError, InvalidArgumentError, ScoreSDEError
from ..core.support.files.paths import check_path
from ..core.support.files.writing import make_folder, write_bytes
from ..guidance import NoisyClassifier
from ..nets import Classifier

FILE = "classifier.safetensors"
_NUMBERS = ("sigma_data", "rho_min", "rho_max")


def save_classifier(model: NoisyClassifier, path: str | os.PathLike[str]) -> None:
    """Write a classifier to a directory, so that `load_classifier` reads it back.

    Raises:
        InvalidArgumentError: its network is not a `scoresde.nets.Classifier`.
        OutputError: the directory cannot be written.

    Example:
        >>> import tempfile
        >>> model = scoresde.guidance.NoisyClassifier(
        ...     scoresde.nets.Classifier((1, 8, 8), classes=3, channels=8), 0.6
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_classifier(model, folder)
        ...     load_classifier(folder).sigma_data
        0.6
    """
    if not isinstance(model, NoisyClassifier) or type(model.net) is not Classifier:
        raise InvalidArgumentError("`model` must be a NoisyClassifier of a scoresde.nets.Classifier.")
    directory = check_path("path", path)
    content = {"kwargs": model.net.arguments, **{name: getattr(model, name) for name in _NUMBERS}}
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.net.state_dict().items()}
    make_folder(directory)
    write_bytes(directory / FILE, safetensors.torch.save(state, metadata={"scoresde": json.dumps(content)}))


def load_classifier(path: str | os.PathLike[str]) -> NoisyClassifier:
    """Read a classifier that `save_classifier` or ``scoresde train --preset classifier`` wrote; in evaluation mode and
    without gradients of its weights.

    Raises:
        CorruptCheckpointError: the classifier is missing, or was altered.

    Example:
        >>> load_classifier("no/such/folder")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.CorruptCheckpointError: no/such/folder has no readable classifier: ...
    """
    file = check_path("path", path) / FILE
    try:
        with safe_open(file, "pt") as opened:
            content = json.loads((opened.metadata() or {})["scoresde"])
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        net = Classifier(**content.pop("kwargs"))
        net.load_state_dict(state)
        model = NoisyClassifier(net, **content)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError, ScoreSDEError) as error:
        raise CorruptCheckpointError(f"{path} has no readable classifier: {error}") from None
    return model.eval().requires_grad_(False)
