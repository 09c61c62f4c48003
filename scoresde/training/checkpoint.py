"""Checkpoints of a run: one file each, written completely or not at all, never a pickle.

A checkpoint is a safetensors file with the weights, their average and the state of the optimiser, whose header holds
JSON: the step, the other numbers, the whole settings of the run, and a digest of all tensors.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.errors import CheckpointMismatchError, CorruptCheckpointError, InvalidArgumentError
from ..core.support.files.writing import make_folder, write_bytes
from ..zoo.store import mismatches

FORMAT = 1
_NAME = re.compile(r"step-(\d{10})\.safetensors")


def write(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, object],
    settings: Mapping[str, object],
    keep: int,
) -> Path:
    """Write the checkpoint of a step, and remove all but the last few.

    Raises:
        OutputError: it cannot be written; the earlier ones are kept.
    """
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = {"format": FORMAT, "step": step, "state": state, "settings": settings, "tensors": _digest(held)}
    text = json.dumps(content | {"sha256": _text_digest(content)}, allow_nan=False, sort_keys=True)
    raw = safetensors.torch.save(held, metadata={"scoresde": text})  # one entry: the order of several is random
    path = folder / f"step-{step:010d}.safetensors"
    make_folder(folder)
    write_bytes(path, raw)
    prune(folder, keep)
    return path


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the last few."""
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)


def latest(folder: Path) -> Path | None:
    """The checkpoint of the last step, or None."""
    return next(reversed(_all(folder)), None)


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its name.

    Example:
        >>> step_of(Path("step-0000000012.safetensors"))
        12
    """
    return int(path.stem.removeprefix("step-"))


def clean(folder: Path) -> None:
    """Remove what a killed process left half written, of a run that nobody else is at."""
    for debris in folder.glob(".step-*.tmp"):
        debris.unlink(missing_ok=True)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint and its JSON, after their digests are checked.

    Raises:
        CorruptCheckpointError: the file is no checkpoint, or was altered.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = json.loads(header["scoresde"])
        written = content.pop("sha256"), content["format"], content["tensors"]
        if written != (_text_digest(content), FORMAT, _digest(tensors)):
            raise ValueError("a digest does not match")
    except (OSError, SafetensorError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CorruptCheckpointError(
            f"The checkpoint {path} cannot be used: {error}. Remove it to go on from the one before."
        ) from None
    return tensors, content


def differences(old: object, new: object, key: str = "") -> list[str]:
    """Where two settings differ: key, old and new value.

    Example:
        >>> differences(
        ...     {"recipe": {"steps": 10}, "seed": 0}, {"recipe": {"steps": 20}, "seed": 0}
        ... )
        ['recipe.steps: 10, now 20']
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{key}.{k}" if key else str(k))]
    return [] if old == new else [f"{key}: {json.dumps(old)[:80]}, now {json.dumps(new)[:80]}"]


def check_settings(path: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Refuse to go on with a run that was started with other settings."""
    if found := differences(old, new):
        listing = "\n".join(f"  {line}" for line in found[:10])
        raise InvalidArgumentError(
            f"The run in {path.parent.parent} was started with other settings:\n{listing}\nUse those settings, or "
            "another folder; nothing was overwritten."
        )


def check_tensors(path: Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Refuse the checkpoint of another network."""
    if lines := mismatches(expected, got):
        listing = "\n".join(lines[:20])
        raise CheckpointMismatchError(f"The checkpoint {path} is that of another network:\n{listing}")


def _text_digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, allow_nan=False, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
