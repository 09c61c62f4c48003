"""``config.json``: what a saved network is. Reading is strict: every key is known, present once, and of its type."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any, NoReturn, TypeAlias

import torch

from ..core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, ScoreSDEError, check_choice
from ..core.sdes import EDMSDE, AffineSDE
from ..core.support.checks import MOST_GREY, check_integer, check_kind, check_shape
from ..core.support.declared import Interval, Kind, Positive, checked, instance, integer
from ..discrete import Chain
from ..nets import ARCHITECTURES
from ..scores import ScoreModel
from ..tuning import FittedGrid
from .processes import check_keys, from_config
from .sampler import Sampler

FORMAT = 2  # a new key that networks need is a new format
MAX_BYTES = 1 << 20  # a config is a few hundred bytes, with grids some thousands


Content: TypeAlias = dict[str, Any]  # of a JSON file, whose types are checked where it is read
Described = Annotated[Content, instance(dict, "a dictionary of JSON values")]
_Number = Annotated[int, integer(low=1, high=(1 << 31) - 1)]  # of labels


@checked
@dataclass(frozen=True)
class Labels:
    """The class labels that a network takes: ``name=`` 0 … count − 1, and the null class, "none given"."""

    name: str
    count: _Number
    null: _Number

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.null < self.count:
            raise InvalidArgumentError(f"`labels` must have an identifier as name, and count <= null, got {self}.")


@checked
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
    kwargs: Described
    sigma_data: Positive
    event_shape: Annotated[tuple[int, ...], Kind(partial(check_shape, rank=1))]
    labels: Labels | None = None
    data: str = ""
    command: str = ""
    _: KW_ONLY
    prediction: str = "edm"
    time_input: str | None = None
    input_scale: str = "x"
    variance: str | None = None
    process: Described | None = None
    chain: Described | None = None
    levels: Annotated[int, integer(low=2, high=MOST_GREY)] | None = None
    data_range: Interval | None = None
    grids: tuple[FittedGrid, ...] = ()
    sampler: Sampler | None = None
    data_std: Positive | None = None

    def __post_init__(self) -> None:
        check_kind("grids", self.grids, tuple, "a tuple of fitted grids")
        for i, grid in enumerate(self.grids):
            check_kind(f"grids[{i}]", grid, FittedGrid, "a fitted grid")
        if self.levels is not None and self.data_range is None:
            raise InvalidArgumentError(f"`levels` = {self.levels} need a data_range, such as (-1.0, 1.0).")

    def to_json(self, weights: Content) -> bytes:
        """The bytes of ``config.json``, with the digest and size of the weights, and a digest of the config itself."""
        content = {
            "format": FORMAT,
            "architecture": {"name": self.architecture, "kwargs": self.kwargs},
            **{key: getattr(self, key) for key in _KEYS},
            "labels": self.labels and vars(self.labels),
            "weights": weights,
        }
        optional = {
            "grids": [grid.fields() for grid in self.grids],
            "sampler": self.sampler and self.sampler.to_config(),
            "data_std": self.data_std,
        }
        content |= {key: value for key, value in optional.items() if value}
        try:
            content["sha256"] = _digest(content)
            return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"The config holds what JSON cannot: {error}.") from None

    @classmethod
    @checked
    def from_json(
        cls, raw: Annotated[bytes, instance(bytes, "the bytes of a file")], *, verify: bool = True
    ) -> tuple[Config, Content]:
        """Read the bytes of ``config.json``: the config, and the digest and size of the weights.

        Raises:
            CorruptCheckpointError: the bytes are not such a config.
        """
        try:
            content = _content(raw, verify)
            config = cls._of(content)
            process, chain = config.natives()
            config.model(lambda x, t: x, process, chain)
            if config.sampler is not None:
                config.sampler.arguments(chain)
            check_integer("weights.bytes", content["weights"]["bytes"], low=0)
        except (InvalidArgumentError, InvalidTypeError) as error:
            raise CorruptCheckpointError(f"config.json: {str(error)[:500]}") from None
        return config, content["weights"]

    @classmethod
    def _of(cls, content: Content) -> Config:
        name, kwargs = content["architecture"]["name"], content["architecture"]["kwargs"]
        check_choice("architecture.name", name, ARCHITECTURES)
        grids = content.get("grids", [])
        check_kind("grids", grids, list, "a list of fitted grids")
        labels = content["labels"]
        known = {key: content[key] for key in _KEYS} | {
            "labels": None if labels is None else Labels(**labels),
            "grids": tuple(FittedGrid.of(grid, f"config.json: `grids[{i}]`") for i, grid in enumerate(grids)),
            "sampler": Sampler.of(content["sampler"], "config.json: `sampler`") if "sampler" in content else None,
            "data_std": content.get("data_std"),
        }
        config = cls(name, kwargs, **known)
        if kwargs.get("event_shape", content["event_shape"]) != content["event_shape"]:
            raise InvalidArgumentError(f"`event_shape` is {config.event_shape}, but the architecture's is another.")
        return config

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


# What the file holds under the names that the config has, in its order.
_KEYS: tuple[str, ...] = ("prediction", "time_input", "input_scale", "variance", "process", "chain", "levels")
_KEYS += ("data_range", "sigma_data", "event_shape", "labels", "data", "command")
_REQUIRED = {"format", "architecture", "weights", "sha256", *_KEYS}
_OPTIONAL = {"grids", "sampler", "data_std"}  # what a network can do without


def _content(raw: bytes, verify: bool) -> Content:
    """The content of ``config.json``, all of whose keys are known, without its digest."""
    content = _parse(raw)
    if content.get("format") != FORMAT:
        _fail("format", f"is {str(content.get('format'))[:40]}, this version of scoresde reads {FORMAT}")
    check_keys("the content", content, _REQUIRED | (_OPTIONAL & content.keys()))
    check_keys("`architecture`", content["architecture"], {"name", "kwargs"})
    check_keys("`weights`", content["weights"], {"sha256", "bytes"})
    if content["labels"] is not None:
        check_keys("`labels`", content["labels"], {"name", "count", "null"})
    digest = content.pop("sha256")
    if verify and digest != _digest(content):
        _fail("sha256", "does not match the content: the file was altered. If you edited it, load with verify=False")
    return content


def _fail(key: str, reason: str) -> NoReturn:
    raise CorruptCheckpointError(f"config.json: `{key}` {reason}.")


def _digest(content: Content) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


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
