"""The files of a saved model: where they are, and what is refused in their place."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import CheckpointError, CorruptCheckpointError, UnsafeCheckpointError, closest
from ..core.support.checks import check_kind
from ..core.support.registries import SHIPPED, shipped

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


def find(path_or_name: str | os.PathLike[str]) -> Path:
    """The directory of a network that comes with the package, by its name, or of a saved model."""
    check_kind("path_or_name", path_or_name, (str, os.PathLike), "a name or a path")
    name = os.fspath(path_or_name)
    if isinstance(path_or_name, str) and name in shipped():
        return SHIPPED / name
    path = Path(name)
    try:
        if not name:
            raise FileNotFoundError
        kind = path.stat().st_mode
    except (OSError, ValueError):
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).parent.exists():
            raise CheckpointError(
                f"No directory is called {name!r}. A network on the Hugging Face Hub that scoresde saved is "
                f"'hf:{name}@REVISION'; one of diffusers is scoresde.interop.from_diffusers(pipe) with pipe = "
                f"DiffusionPipeline.from_pretrained({name!r}), in Python."
            ) from None
        close = closest(name, shipped())
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise CheckpointError(
            f"No directory and no shipped network is called {name!r}{hint} Shipped: {', '.join(shipped())}."
        ) from None
    if stat.S_ISDIR(kind):
        missing = [file for file in (CONFIG, WEIGHTS) if not (path / file).exists()]
        if missing:
            raise incomplete_error(str(path), missing, [file.name for file in path.iterdir()])
        return path
    if is_pickle(path.name):
        raise pickle_error(path)
    refuse_pickle(read(path, 1 << 10), path)
    raise CheckpointError(f"{path} is a file, but a saved model is a directory with {CONFIG} and {WEIGHTS}; give that.")


def read(path: Path, expected: int) -> bytes:
    """Read a regular file, one byte more than expected at most."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CorruptCheckpointError(f"{path} is not a regular file.")
        with path.open("rb") as file:
            return file.read(min(expected, path.stat().st_size) + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def refuse_pickle(raw: bytes, path: Path) -> None:
    """Refuse the bytes of a pickle, which starts with 0x80, its protocol, and an opcode, or those of torch's zip, which
    starts with PK. Safetensors starts with the length of its header, 8 bytes: 0x80 0x02 0x00 … is a header of 640
    bytes."""
    pickle = len(raw) > 2 and raw[0] == 0x80 and raw[1] <= 5 and raw[2] != 0
    if pickle or raw[:4] == b"PK\x03\x04":
        raise pickle_error(path)
