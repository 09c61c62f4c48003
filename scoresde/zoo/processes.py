r"""Processes and chains as JSON values: ``to_config(process)`` and ``from_config(config)``.

A process is its class's name, the arguments of its constructor, its interval and its prior. The arguments are read from
attributes of the same names, or from a mapping ``arguments``; a class that keeps them so is added with one line,
``PROCESSES["Mine"] = Mine``, and a :math:`\gamma` likewise in `FUNCTIONS`. The parameters of a learned :math:`\gamma`
are tensors, which a saved model keeps in its safetensors file; `modules_of` finds them.

Example:
    >>> config = to_config(scoresde.VESDE(sigma_max=10.0))
    >>> config["name"], config["arguments"]
    ('VESDE', {'sigma_min': 0.01, 'sigma_max': 10.0})
    >>> from_config(config).sigma_max
    10.0
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidArgumentError, check_choice
from ..core.sdes import AffineSDE, LinearGamma, NormalPrior, ShiftedGamma
from ..core.support import registries as _registries
from ..core.support.checks import as_tensor, check_kind, check_number
from ..core.support.declared import checked
from ..core.support.registries import Registry
from ..discrete import Chain
from ..nets import MonotoneGamma

PROCESSES: Registry[Callable[..., AffineSDE]] = _registries.PROCESSES
FUNCTIONS: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (LinearGamma, ShiftedGamma, MonotoneGamma)}
_FLOATS = {"float32": torch.float32, "float64": torch.float64}
_OWN = ("t_min", "t_max", "prior")  # arguments that every process has


@checked
def to_config(process: AffineSDE, chain: Chain | None = None) -> dict[str, object]:
    """A process as JSON values; that of the chain is called ``"chain"``, described by `Chain.to_config`.

    Raises:
        InvalidArgumentError: its class, or that of an argument, is not registered, or its prior is not a `NormalPrior`.

    Example:
        >>> to_config(scoresde.GaussianSDE(torch.cos, torch.sin, 0.1, 1.5))
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: GaussianSDE cannot be saved: only CosineVPSDE, ... A class of yours
        that keeps its arguments as attributes is added with scoresde.zoo.PROCESSES["GaussianSDE"] = GaussianSDE.
    """
    if chain is not None and process.same_schedule(chain.sde()):
        config: dict[str, object] = {"name": "chain", "arguments": {}}
    else:
        config = _described(process, PROCESSES, "PROCESSES", _OWN)
    prior = process.prior
    if type(prior) is not NormalPrior:
        raise InvalidArgumentError(f"The prior {prior!r} cannot be saved, only a NormalPrior.")
    mean = prior.mean.tolist() if isinstance(prior.mean, Tensor) else float(prior.mean)
    return config | {
        "t_min": process.t_min,
        "t_max": process.t_max,
        "prior": {"std": float(prior.std), "mean": mean},
    }


@checked
def from_config(config: Mapping[str, Any], chain: Chain | None = None) -> AffineSDE:
    """The process that `to_config` described; a learned part of it has its initial parameters.

    Raises:
        InvalidArgumentError, InvalidTypeError: there is no such process.
    """
    check_keys("a process", config, {"name", "arguments", "t_min", "t_max", "prior"})
    check_keys("`prior`", config["prior"], {"std", "mean"})
    own = {name: check_number(name, config[name]) for name in ("t_min", "t_max")}
    known = PROCESSES if chain is None else {**PROCESSES, "chain": chain.sde}
    return _made(config, known, own | {"prior": _prior(config["prior"])})


def modules_of(process: AffineSDE) -> dict[str, nn.Module]:
    """The learned parts of a process, by the name of the argument.

    Example:
        >>> modules_of(scoresde.VDMSDE())
        {}
    """
    return {name: value for name, value in vars(process).items() if isinstance(value, nn.Module)}


def _described(value: Any, registry: Mapping[str, Any], name: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    kind = type(value)
    if registry.get(kind.__name__) is not kind:
        raise InvalidArgumentError(
            f"{kind.__name__} cannot be saved: only {', '.join(sorted(registry))}. A class of yours that keeps its "
            f'arguments as attributes is added with scoresde.zoo.{name}["{kind.__name__}"] = {kind.__name__}.'
        )
    names = [key for key in inspect.signature(kind).parameters if key not in without]
    kept = getattr(value, "arguments", None)
    known = kept if isinstance(kept, Mapping) else {key: getattr(value, key) for key in names if hasattr(value, key)}
    if missing := [key for key in names if key not in known]:
        raise InvalidArgumentError(f"{kind.__name__} cannot be saved: it has no attributes {missing}, its arguments.")
    config = {"name": kind.__name__, "arguments": {key: _value(known[key]) for key in names}}
    if isinstance(value, nn.Module):
        parameter = next(value.parameters(), None)
        config["dtype"] = str(torch.float32 if parameter is None else parameter.dtype).removeprefix("torch.")
    return config


def _value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, AffineSDE):
        if learned := ", ".join(modules_of(value)):
            why = f"its {learned} is learned; save a network of {value!r} itself, and serve it with model.on(sde)"
            raise InvalidArgumentError(f"{value!r} cannot be saved inside another process: {why}.")
        return to_config(value)
    return _described(value, FUNCTIONS, "FUNCTIONS")


def _made(config: Mapping[str, Any], registry: Mapping[str, Callable[..., Any]], more: Mapping[str, Any]) -> Any:
    name, arguments = config["name"], config["arguments"]
    check_choice("name", name, registry)
    check_kind("arguments", arguments, Mapping, "an object")
    known = inspect.signature(registry[name]).parameters.keys() - set(more)
    if set(arguments) != known:
        raise InvalidArgumentError(f"{name} must have the arguments {sorted(known)}, got {sorted(arguments)}.")
    return registry[name](**{key: _read(value) for key, value in arguments.items()}, **more)


def _read(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "t_min" in value:
        return from_config(value)
    module = "dtype" in value
    check_keys("a function", value, {"name", "arguments", "dtype"} if module else {"name", "arguments"})
    made = _made(value, FUNCTIONS, {})
    if isinstance(made, nn.Module) != module or (module and value["dtype"] not in _FLOATS):
        raise InvalidArgumentError(f"`dtype` must be one of {sorted(_FLOATS)} for modules, and is for those only.")
    return made.to(_FLOATS[value["dtype"]]) if module else made


def _prior(config: Mapping[str, Any]) -> NormalPrior:
    mean = config["mean"]
    listed = isinstance(mean, list)
    mean = as_tensor("prior.mean", mean, torch.float64).cpu() if listed else check_number("prior.mean", mean)
    return NormalPrior(check_number("prior.std", config["std"]), mean)


def check_keys(what: str, content: Any, keys: set[str]) -> None:
    """Refuse what is not an object with some keys."""
    found = set(map(str, content)) if isinstance(content, Mapping) else set()
    if found != keys:
        wrong = f"missing keys {sorted(keys - found)}, unknown keys {sorted(found - keys)}"
        raise InvalidArgumentError(f"{what} must be an object with the right keys: {wrong}.")
