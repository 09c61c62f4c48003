"""``config.json``: what a saved network is. Reading is strict: every key is known, present once, and of its type."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import CorruptCheckpointError
from ..fit import FittedGrid
from ..nets import ARCHITECTURES

__all__ = ["Config", "Labels"]

FORMAT = 1
MAX_BYTES = 1 << 20  # a config is a few hundred bytes, with grids some thousands


@dataclass(frozen=True)
class Labels:
    """The class labels that a network takes: ``name=`` 0 … count − 1, and the null class, "none given"."""

    name: str
    count: int
    null: int


@dataclass(frozen=True)
class Config:
    """What a network is, and what made it.

    Args:
        architecture: its name in `scoresde.nets.ARCHITECTURES`.
        kwargs: its arguments, JSON values.
        sigma_data: the standard deviation of the data that its preconditioning uses.
        event_shape: shape of one sample.
        labels: its class labels, or None.
        data: what it was trained on, and in which units.
        command: the command that made it.
        prediction: what it predicts, as in `scoresde.ScoreModel`; only ``"edm"`` so far.
        grids: fitted to the network, see `scoresde.fit_grid`.

    Example:
        >>> config = Config("unet", {"channels": 8}, sigma_data=0.5, event_shape=(1, 8, 8))
        >>> Config.from_json(config.to_json({"sha256": "0" * 64, "bytes": 9}))[0] == config
        True
    """

    architecture: str
    kwargs: dict[str, Any]
    sigma_data: float
    event_shape: tuple[int, ...]
    labels: Labels | None = None
    data: str = ""
    command: str = ""
    prediction: str = field(default="edm", kw_only=True)
    grids: tuple[FittedGrid, ...] = field(default=(), kw_only=True)

    def to_json(self, weights: dict[str, Any]) -> bytes:
        """The bytes of ``config.json``, with the digest and size of the weights, and a digest of the config itself."""
        content = {
            "format": FORMAT,
            "architecture": {"name": self.architecture, "kwargs": self.kwargs},
            "prediction": self.prediction,
            "sigma_data": float(self.sigma_data),
            "event_shape": list(self.event_shape),
            "labels": None if self.labels is None else vars(self.labels),
            "data": self.data,
            "command": self.command,
            "weights": weights,
        }
        if self.grids:
            content["grids"] = [grid.fields() for grid in self.grids]
        content["sha256"] = _digest(content)
        return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes, *, verify: bool = True) -> tuple[Config, dict[str, Any]]:
        """Read the bytes of ``config.json``: the config, and the digest and size of the weights.

        Raises:
            CorruptCheckpointError: the bytes are no such config.
        """
        content = _parse(raw)
        _check("", content, _SCHEMA | {"grids": list} if "grids" in content else _SCHEMA)
        if content["format"] != FORMAT:
            _fail("format", f"is {content['format']}, this version of scoresde reads {FORMAT}")
        digest = content.pop("sha256")
        if verify and digest != _digest(content):
            _fail(
                "sha256", "does not match the content: the file was altered. If you edited it, load with verify=False"
            )
        if content["architecture"]["name"] not in ARCHITECTURES:
            _fail("architecture.name", f"is {content['architecture']['name']!r}, known are {sorted(ARCHITECTURES)}")
        if content["prediction"] != "edm":
            _fail("prediction", f"is {content['prediction']!r}, known is 'edm'")
        if not 0 < content["sigma_data"] < math.inf:
            _fail("sigma_data", f"is {content['sigma_data']}, it must be positive")
        shape = content["event_shape"]
        if not shape or any(type(size) is not int or not 0 < size < 1 << 20 for size in shape):
            _fail("event_shape", "must be a list of positive integers")
        if content["architecture"]["kwargs"].get("event_shape", shape) != shape:
            _fail("event_shape", f"is {shape}, but the architecture's is another")
        labels = content["labels"]
        if labels is not None:
            _check("labels.", labels, _LABELS)
            if not (labels["name"].isidentifier() and 0 < labels["count"] <= labels["null"] < 1 << 31):
                _fail("labels", "must have an identifier as name, and 0 < count <= null")
        return cls(
            architecture=content["architecture"]["name"],
            kwargs=content["architecture"]["kwargs"],
            prediction=content["prediction"],
            sigma_data=content["sigma_data"],
            event_shape=tuple(shape),
            labels=None if labels is None else Labels(**labels),
            data=content["data"],
            command=content["command"],
            grids=tuple(
                FittedGrid.of(grid, f"config.json: `grids[{i}]`") for i, grid in enumerate(content.get("grids", ()))
            ),
        ), content["weights"]


_LABELS: dict[str, Any] = {"name": str, "count": int, "null": int}
_SCHEMA: dict[str, Any] = {
    "format": int,
    "architecture": {"name": str, "kwargs": dict},
    "prediction": str,
    "sigma_data": float,
    "event_shape": list,
    "labels": (dict, type(None)),
    "data": str,
    "command": str,
    "weights": {"sha256": str, "bytes": int},
    "sha256": str,
}


def _fail(key: str, reason: str) -> NoReturn:
    raise CorruptCheckpointError(f"config.json: `{key}` {reason}.")


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check(prefix: str, content: dict[str, Any], schema: dict[str, Any]) -> None:
    missing, unknown = sorted(schema.keys() - content.keys()), sorted(content.keys() - schema.keys())
    if missing or unknown:
        where = f" in `{prefix[:-1]}`" if prefix else ""
        raise CorruptCheckpointError(f"config.json{where}: missing keys {missing}, unknown keys {unknown}.")
    for key, kind in schema.items():
        value = content[key]
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                _fail(prefix + key, f"must be an object, got {type(value).__name__}")
            _check(f"{prefix}{key}.", value, kind)
        elif not isinstance(value, kind) or isinstance(value, bool):
            names = getattr(kind, "__name__", "object or null")
            _fail(prefix + key, f"must be of type {names}, got {type(value).__name__}")


def _parse(raw: bytes) -> dict[str, Any]:
    """Strict JSON: no NaN or Infinity, no overflow to infinity, no key twice, and a limited size and depth."""
    if len(raw) > MAX_BYTES:
        raise CorruptCheckpointError(f"config.json has {len(raw):,} bytes; a config has fewer than {MAX_BYTES:,}.")

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not JSON")

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text[:40]} is too large a number")
        return value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
        return content

    try:
        content = json.loads(raw.decode("utf-8"), parse_constant=constant, parse_float=number, object_pairs_hook=unique)
    except RecursionError:
        raise CorruptCheckpointError("config.json is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CorruptCheckpointError(f"config.json is not valid: {str(error)[:200]}.") from None
    if not isinstance(content, dict):
        raise CorruptCheckpointError(f"config.json must be an object, got {type(content).__name__}.")
    return content
