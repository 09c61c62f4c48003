"""``config.json``: what a saved network is. Reading is strict: every key is known, present once, and of its type."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import torch

from ..core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, ScoreSDEError
from ..core.sdes import EDMSDE, AffineSDE
from ..core.support.checks import (
    MOST_GREY,
    check_flag,
    check_integer,
    check_interval,
    check_kind,
    check_number,
    check_shape,
)
from ..discrete import Chain
from ..nets import ARCHITECTURES
from ..scores import ScoreModel
from ..tuning import FittedGrid
from .processes import from_config
from .sampler import Sampler

FORMAT = 2  # 1 had EDM networks only; it is read. What a network needs is a new format, with a row of `_SCHEMAS`
_MOST_LABELS = (1 << 31) - 1
MAX_BYTES = 1 << 20  # a config is a few hundred bytes, with grids some thousands


Content: TypeAlias = dict[str, Any]  # of a JSON file, whose types are checked where it is read


@dataclass(frozen=True)
class Labels:
    """The class labels that a network takes: ``name=`` 0 … count − 1, and the null class, "none given"."""

    name: str
    count: int
    null: int

    def __post_init__(self) -> None:
        check_kind("name", self.name, str, "an identifier, such as 'label'")
        check_integer("count", self.count, low=1, high=_MOST_LABELS)
        check_integer("null", self.null, low=self.count, high=_MOST_LABELS, hint=" The classes are below it.")


@dataclass(frozen=True)
class Config:
    """The description of a saved network, and its origin.

    Args:
        architecture: its name in `scoresde.nets.ARCHITECTURES`.
        kwargs: its arguments, JSON values.
        sigma_data: the standard deviation of the data that its preconditioning uses.
        event_shape: shape of one sample.
        labels: its class labels, or None.
        data: the training data and their units.
        command: the command that made it.
        prediction: what it predicts, as in `scoresde.ScoreModel`.
        time_input, input_scale, variance: likewise.
        process: the process that it is meant for, as `scoresde.zoo.to_config` describes it. None, for an EDM prediction
            only, means all processes.
        chain: the discrete chain that it was trained on, as its ``to_config`` describes it, or None.
        levels: how many grey levels a value of the data has, or None for data that are continuous.
        data_range: the low end of the first level and the high end of the last in the network's units, or None.
        grids: grids fitted to the network, see `scoresde.fit_grid`.
        sampler: the sampler to use, or None.
        data_std: `scoresde.ScoreModel.data_std` if it was set, else None.

    Example:
        >>> config = Config("unet", {"channels": 8}, sigma_data=0.5, event_shape=(1, 8, 8))
        >>> Config.from_json(config.to_json({"sha256": "0" * 64, "bytes": 9}))[0] == config
        True
    """

    architecture: str
    kwargs: Content
    sigma_data: float
    event_shape: tuple[int, ...]
    labels: Labels | None = None
    data: str = ""
    command: str = ""
    prediction: str = field(default="edm", kw_only=True)
    time_input: str | None = field(default=None, kw_only=True)
    input_scale: str = field(default="x", kw_only=True)
    variance: str | None = field(default=None, kw_only=True)
    process: Content | None = field(default=None, kw_only=True)
    chain: Content | None = field(default=None, kw_only=True)
    levels: int | None = field(default=None, kw_only=True)
    data_range: tuple[float, float] | None = field(default=None, kw_only=True)
    grids: tuple[FittedGrid, ...] = field(default=(), kw_only=True)
    sampler: Sampler | None = field(default=None, kw_only=True)
    data_std: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("architecture", "prediction", "input_scale", "data", "command"):
            check_kind(name, getattr(self, name), str, "a string")
        for name in ("time_input", "variance"):
            check_kind(name, getattr(self, name), (str, type(None)), "a name, or None")
        check_kind("kwargs", self.kwargs, dict, "a dictionary of JSON values")
        for name in ("process", "chain"):
            check_kind(name, getattr(self, name), (dict, type(None)), "what to_config gives, or None")
        check_number("sigma_data", self.sigma_data, low=0.0, strict=True)
        object.__setattr__(self, "event_shape", check_shape("event_shape", self.event_shape, rank=1))
        check_kind("labels", self.labels, (Labels, type(None)), "a scoresde.zoo.Labels, or None")
        if self.levels is not None:
            check_integer("levels", self.levels, low=2, high=MOST_GREY)
        if self.data_range is not None:
            object.__setattr__(self, "data_range", check_interval("data_range", self.data_range))
        check_kind("grids", self.grids, tuple, "a tuple of fitted grids")
        for i, grid in enumerate(self.grids):
            check_kind(f"grids[{i}]", grid, FittedGrid, "a fitted grid")
        check_kind("sampler", self.sampler, (Sampler, type(None)), "a scoresde.zoo.Sampler, or None")
        if self.data_std is not None:
            check_number("data_std", self.data_std, low=0.0, strict=True)

    def to_json(self, weights: Content) -> bytes:
        """The bytes of ``config.json``, with the digest and size of the weights, and a digest of the config itself."""
        content = {
            "format": FORMAT,
            "architecture": {"name": self.architecture, "kwargs": self.kwargs},
            **{key: getattr(self, key) for key in _KEYS},
            "sigma_data": float(self.sigma_data),
            "labels": None if self.labels is None else vars(self.labels),
            "weights": weights,
        }
        if self.grids:
            content["grids"] = [grid.fields() for grid in self.grids]
        if self.sampler is not None:
            content["sampler"] = self.sampler.to_config()
        if self.data_std is not None:
            content["data_std"] = float(self.data_std)
        try:
            content["sha256"] = _digest(content)
            return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"The config holds what JSON cannot: {error}.") from None

    @classmethod
    def from_json(cls, raw: bytes, *, verify: bool = True) -> tuple[Config, Content]:
        """Read the bytes of ``config.json``: the config, and the digest and size of the weights.

        Raises:
            CorruptCheckpointError: the bytes are not such a config.
        """
        check_kind("raw", raw, bytes, "the bytes of a file")
        check_flag("verify", verify)
        content = _content(raw, verify)
        labels, grids = content["labels"], enumerate(content.get("grids", ()))
        known = {key: content[key] for key in _KEYS if key in content} | {
            "labels": None if labels is None else Labels(**labels),
            "grids": tuple(FittedGrid.of(grid, f"config.json: `grids[{i}]`") for i, grid in grids),
            "sampler": Sampler.of(content["sampler"], "config.json: `sampler`") if "sampler" in content else None,
            "data_std": content.get("data_std"),
        }
        try:
            config = cls(content["architecture"]["name"], content["architecture"]["kwargs"], **known)
            process, chain = config.natives()
            config.model(lambda x, t: x, process, chain)
            if config.sampler is not None:
                config.sampler.arguments(chain)
        except (InvalidArgumentError, InvalidTypeError) as error:
            raise CorruptCheckpointError(f"config.json: {str(error)[:500]}") from None
        return config, content["weights"]

    def natives(self) -> tuple[AffineSDE | None, Chain | None]:
        """The process and the chain that it names; a learned part of the process has its initial parameters.

        Raises:
            CorruptCheckpointError: they cannot be made.
        """
        if self.process is None and (self.prediction != "edm" or self.chain is not None):
            _fail("prediction", f"is {str(self.prediction)[:40]!r}, which needs a `process`; null is for 'edm' alone")
        key = "chain"
        try:
            chain = None if self.chain is None else Chain.from_config(self.chain)
            key = "process"
            if self.process is None:
                return None, chain
            with torch.random.fork_rng(devices=[]):  # initial values, drawn and replaced, leave no trace
                process = from_config(self.process, chain)
        except (ScoreSDEError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            _fail(key, f"cannot be used: {str(error)[:500].rstrip('.')}")
        return process, chain

    def model(self, net: Any, process: AffineSDE | None, chain: Chain | None, **more: Any) -> ScoreModel:
        """The network as a `scoresde.ScoreModel` of its process.

        Raises:
            InvalidArgumentError, InvalidTypeError: its conventions do not fit together.
        """
        model = ScoreModel(
            net,
            EDMSDE() if process is None else process,
            self.prediction,
            self.time_input,
            self.input_scale,
            chain=chain,
            variance=self.variance,
            sigma_data=self.sigma_data,
            event_shape=self.event_shape,
            **more,
        )
        if self.data_std is not None:
            model.data_std = self.data_std
        return model


# What the file holds under the names that the config has, in its order; an older format lacks some.
_KEYS: tuple[str, ...] = ("prediction", "time_input", "input_scale", "variance", "process", "chain", "levels")
_KEYS += ("data_range", "sigma_data", "event_shape", "labels", "data", "command")
_LABELS: Content = {"name": str, "count": int, "null": int}
_OPTIONAL: Content = {
    "grids": list,
    "sampler": dict,
    "data_std": float,
}  # of every format: what a network can do without
_COMMON: Content = {
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
_SCHEMAS: dict[int, Content] = {
    1: _COMMON,
    2: _COMMON
    | {
        "time_input": (str, type(None)),
        "input_scale": str,
        "variance": (str, type(None)),
        "process": (dict, type(None)),
        "chain": (dict, type(None)),
        "levels": (int, type(None)),
        "data_range": (list, type(None)),
    },
}


def _content(raw: bytes, verify: bool) -> dict[str, Any]:
    """The keys and values of ``config.json``, all of which are known and of their types, without its digest."""
    content = _parse(raw)
    version = content.get("format")
    if type(version) is not int or version not in _SCHEMAS:
        _fail("format", f"is {str(version)[:40]}, this version of scoresde reads 1 to {FORMAT}")
    schema = _SCHEMAS[version]
    _check("", content, schema | {key: kind for key, kind in _OPTIONAL.items() if key in content})
    digest = content.pop("sha256")
    if verify and digest != _digest(content):
        _fail("sha256", "does not match the content: the file was altered. If you edited it, load with verify=False")
    _check_values(content, version)
    return content


def _check_values(content: dict[str, Any], version: int) -> None:
    """Refuse values that a type cannot tell from good ones."""
    if content["architecture"]["name"] not in ARCHITECTURES:
        _fail("architecture.name", f"is {content['architecture']['name']!r}, known are {sorted(ARCHITECTURES)}")
    if version == 1 and content["prediction"] != "edm":
        _fail("prediction", f"is {content['prediction']!r}, format 1 has 'edm' only")
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
    span = content.get("data_range")
    if span is not None and not (
        len(span) == 2 and all(type(v) is float for v in span) and span[0] < span[1] < math.inf
    ):
        _fail("data_range", "must be two growing floating-point numbers, or null")
    levels = content.get("levels")
    if levels is not None and not (2 <= levels <= MOST_GREY and span is not None):
        _fail("levels", f"must be from 2 to {MOST_GREY}, with a data_range, or null")


def _fail(key: str, reason: str) -> NoReturn:
    raise CorruptCheckpointError(f"config.json: `{key}` {reason}.")


def _digest(content: Content) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check(prefix: str, content: Content, schema: Content) -> None:
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
            names = " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__
            _fail(prefix + key, f"must be of type {names}, got {type(value).__name__}")


def _parse(raw: bytes) -> Content:
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

    def unique(pairs: list[tuple[str, Any]]) -> Content:
        content = dict(pairs)
        if len(content) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
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
