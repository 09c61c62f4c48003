"""The files of a saved model, and what is refused in their place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.errors import CheckpointError, CorruptCheckpointError, UnsafeCheckpointError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")


def is_pickle(name: str) -> bool:
    """Whether a file is a pickle by its name.

    Example:
        >>> is_pickle("model.pt"), is_pickle("model.safetensors")
        (True, False)
    """
    return name.endswith(_PICKLES)


def pickle_error(path: object) -> UnsafeCheckpointError:
    """The error for a pickle.

    Example:
        >>> str(pickle_error("model.pt"))[:25]
        'model.pt is a pickle, whi'
    """
    return UnsafeCheckpointError(
        f"{path} is a pickle, which can run code when it is read, and is refused. If you trust it, read the weights "
        "with torch.load(..., weights_only=True), and write them with scoresde.save."
    )


def incomplete_error(where: str, missing: Iterable[str], there: Iterable[str]) -> CheckpointError:
    """The error for a place that lacks files of a saved model; it is another one if a pickle is there.

    Args:
        where: the place, for messages.
        missing: the files that it lacks.
        there: the files that it has.

    Example:
        >>> str(incomplete_error("a", ["config.json"], []))
        'a has no config.json: it is not a complete saved model.'
        >>> type(incomplete_error("a", ["model.safetensors"], ["model.bin"])).__name__
        'UnsafeCheckpointError'
    """
    pickles = sorted(filter(is_pickle, there))
    if pickles:
        return pickle_error(Path(where, pickles[0]))
    return CorruptCheckpointError(f"{where} has no {' and no '.join(missing)}: it is not a complete saved model.")
