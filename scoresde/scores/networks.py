"""The networks that a function holds, and whether they are ready to be evaluated."""

from __future__ import annotations

import contextlib
import functools
import re
import types
from collections.abc import Iterator

import torch

from ..core.errors import InvalidArgumentError


def networks_of(score_fn: object) -> list[torch.nn.Module]:
    """The networks of a score function, of a combination those of its parts.

    Example:
        >>> len(networks_of(scoresde.load("digits").score())), networks_of(lambda x, t: -x)
        (1, [])
    """
    found = [net for part in getattr(score_fn, "score_fns", ()) for net in networks_of(part)]
    net = getattr(score_fn, "net", score_fn)
    return [*found, *([net] if isinstance(net, torch.nn.Module) and net not in found else [])]


def held_by(function: object) -> list[torch.nn.Module]:
    """The networks that a function holds: itself, its arguments and defaults, what it encloses, and the attributes of
    the object that it is, or is a method of, and of layers. Networks that it names, or that are deeper inside, are not
    among them.

    Example:
        >>> net = torch.nn.Linear(2, 2)
        >>> [found is net for found in held_by(net.forward)]
        [True]
    """
    found: list[torch.nn.Module] = []
    seen: dict[int, object] = {}  # they are kept, so that no two have the same number
    left = [function]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, torch.nn.Module):
            found.append(part)
        left += _parts(part)
    return found


def enclosed(function: types.FunctionType) -> list[object]:
    """What a function encloses, and its defaults.

    Example:
        >>> def make(scale):
        ...     return lambda x, power=2: scale * x**power
        >>> enclosed(make(3))
        [3, 2]
    """
    found: list[object] = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            found.append(cell.cell_contents)
    return [*found, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _parts(part: object) -> list[object]:
    """What something consists of, as far as it may be called, in the order of names."""
    held: list[object] = []
    if isinstance(part, types.FunctionType):
        held = enclosed(part)
    elif isinstance(part, types.MethodType):
        held = [part.__func__, part.__self__, *_attributes(part.__self__)]
    elif isinstance(part, functools.partial):
        held = [part.func, *part.args, part.keywords]
    elif isinstance(part, torch.nn.Module):
        held = [value for layer in part.modules() for value in _attributes(layer)]
    elif isinstance(part, dict):
        held = [part[name] for name in sorted(part, key=text_of)]
    elif isinstance(part, list | tuple | set):
        held = list(part)
    if callable(part) and not isinstance(part, types.FunctionType | types.MethodType | torch.nn.Module | type):
        held += _attributes(part)
    return [value for value in held if callable(value) or isinstance(value, list | tuple | set | dict)]


def text_of(value: object) -> str:
    """What an object prints, without its address.

    Example:
        >>> text_of([1, object()])
        '[1, <object object>]'
    """
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _attributes(value: object) -> list[object]:
    """The attributes of an object, but for the layers and tensors of a network, in the order of names."""
    found: dict[str, object] = {}
    for base in type(value).__mro__:
        slots = getattr(base, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            own = f"_{base.__name__.lstrip('_')}{name}" if private else name
            if hasattr(value, own):
                found[own] = getattr(value, own)
    found |= getattr(value, "__dict__", {})
    inner = ("_parameters", "_buffers", "_modules") if isinstance(value, torch.nn.Module) else ()
    return [found[name] for name in sorted(found) if name not in inner]


def check_evaluating(name: str, function: object) -> None:
    """Refuse a function that holds a network with dropout, or with statistics of batches, in training mode; of other
    layers the mode does not matter, or `check_quiet` finds what it does."""
    for layer in filter(None, map(training_layer, held_by(function))):
        raise InvalidArgumentError(
            f"A network of `{name}` is in training mode ({type(layer).__name__}), and computes something else than "
            "in evaluation; call .eval()."
        )


def training_layer(net: torch.nn.Module) -> torch.nn.Module | None:
    """The first layer of a network that computes something else because it is in training mode.

    Example:
        >>> training_layer(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.1)))
        Dropout(p=0.1, inplace=False)
    """
    for layer in net.modules():
        dropout = isinstance(layer, torch.nn.modules.dropout._DropoutNd) and layer.p > 0
        if layer.training and (dropout or getattr(layer, "track_running_stats", False)):
            return layer
    return None


@contextlib.contextmanager
def check_quiet(name: str, device: torch.device) -> Iterator[None]:
    """Refuse a function that draws from torch's global generator, as dropout does in training mode; one that seeds the
    generator may.

    Example:
        >>> with check_quiet("score_fn", torch.device("cpu")):
        ...     x = torch.nn.Dropout()(torch.ones(2))
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `score_fn` draws random numbers, as dropout in training mode ...
    """
    before = _generator(device)
    yield
    after = _generator(device)
    if before[0] == after[0] and not torch.equal(before[1], after[1]):
        raise InvalidArgumentError(
            f"`{name}` draws random numbers, as dropout in training mode does: call .eval() on its network, and draw "
            "what is wanted from a generator of its own."
        )


def _generator(device: torch.device) -> tuple[int, torch.Tensor]:
    """The seed and the state of the global generator of a device."""
    if device.type == "cuda":
        return torch.cuda.initial_seed(), torch.cuda.get_rng_state(device)
    return torch.initial_seed(), torch.get_rng_state()
