"""A device that is not there, whose use is counted.

Tensors on ``"cuda"`` are torch's fake tensors: they have shapes, but no numbers. All others are real. Where the host
would wait for a number of the device, the wait is counted, and the number is 1 or True.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Use(TorchDispatchMode):
    """What is done with the device.

    Attributes:
        reads: how often the host waits for a number, by operation.
        wide: how many tensors of float64 are made on the device, by operation.
        sent: how many tensors, but for single numbers, are copied to the device, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: collections.Counter[str] = collections.Counter()
        self.wide: collections.Counter[str] = collections.Counter()
        self.sent: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [value for value in given if isinstance(value, FakeTensor)]
        device, name = kwargs.get("device"), func.overloadpacket.__name__
        to_host = device is not None and torch.device(device).type == "cpu"
        if not there and (device is None or to_host):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if there and (to_host or name in ("_local_scalar_dense", "is_nonzero", "equal")):
            self.reads[name] += 1
            read = some_value(there[0], kwargs.get("dtype"))
            return read if to_host else read.flatten()[:1].item()
        if there and name == "nonzero":
            self.reads[name] += 1
            return there[0].new_empty((0, there[0].ndim), dtype=torch.int64)
        if any(value.ndim and not isinstance(value, FakeTensor) for value in given):
            self.sent[name] += 1
        out = func(*args, **kwargs)
        self.wide[name] += sum(isinstance(v, Tensor) and v.dtype == torch.float64 for v in tree_leaves(out))
        return out


class _Reads(TorchFunctionMode):
    """The reads that torch makes without its dispatcher, and indices, which need a device that is there.

    Args:
        use: counts them.
    """

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.use = use

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING and isinstance(args[0], FakeTensor):
            self.use.reads[func.__name__] += 1
            return func(some_value(args[0]), *args[1:], **(kwargs or {}))
        if func is Tensor.to and args[0].device.type == "cpu":
            place = [v for v in (*args[1:], *(kwargs or {}).values()) if isinstance(v, torch.device | str)]
            if place and torch.device(place[0]).type == "cuda":
                self.use.sent["to"] += 1
                kinds = [v for v in (*args[1:], *(kwargs or {}).values()) if isinstance(v, torch.dtype)]
                return torch.empty(args[0].shape, dtype=(*kinds, args[0].dtype)[0], device=place[0])
            if len(args) > 1 and isinstance(args[1], FakeTensor):
                self.use.sent["to"] += 1
                return torch.empty(args[0].shape, dtype=args[1].dtype, device="cuda")
        if func is Tensor.__setitem__ and isinstance(args[0], FakeTensor):
            return None
        if func is Tensor.__getitem__ and isinstance(args[0], FakeTensor):
            return item(args[0], args[1] if isinstance(args[1], tuple) else (args[1],))
        if func in GUARDED and isinstance(args[0], FakeTensor):
            return GUARDED[func](*args)
        return func(*args, **(kwargs or {}))


READING = {Tensor.tolist, Tensor.numpy, Tensor.item, Tensor.__float__, Tensor.__int__, Tensor.__bool__}
# Methods that need a device that is there, and what they do.
GUARDED: dict[Any, Callable[..., Any]] = {
    Tensor.__invert__: torch.ops.aten.bitwise_not,
    Tensor.copy_: torch.ops.aten.copy_,
    Tensor.nonzero: torch.ops.aten.nonzero,
    Tensor.new_tensor: lambda like, values: torch.tensor(values, dtype=like.dtype, device=like.device),
}


def item(value: Tensor, places: tuple[Any, ...]) -> Tensor:
    """``value[places]`` by the operations that torch would choose."""
    taken = sum(place is not None and place is not Ellipsis for place in places)
    dim, tensors = 0, {}
    for place in places:
        if place is Ellipsis:
            dim += value.ndim - dim - taken
            continue
        if place is None:
            value = value.unsqueeze(dim)
        elif isinstance(place, int):
            value, dim = value.select(dim, place), dim - 1
        elif isinstance(place, slice):
            value = torch.ops.aten.slice(value, dim, place.start, place.stop, place.step or 1)
        else:
            tensors[dim] = torch.as_tensor(place)
        dim, taken = dim + 1, taken - (place is not None)
    if not tensors:
        return value
    return torch.ops.aten.index(value, [tensors.get(i) for i in range(max(tensors) + 1)])


def some_value(value: FakeTensor, dtype: torch.dtype | None = None) -> Tensor:
    """Ones, or True, like a tensor of the device."""
    with unset_fake_temporarily():
        return torch.ones(value.shape, dtype=dtype or value.dtype)


@contextlib.contextmanager
def device() -> Iterator[Use]:
    """Run with the device; yields what counts its use.

    Example:
        >>> with device() as use:
        ...     x = torch.ones(3, device="cuda")
        ...     found = bool(x.sum() > 0)
        >>> found, dict(use.reads)
        (True, {'_local_scalar_dense': 1})
    """
    use = Use()
    with FakeTensorMode(allow_non_fake_inputs=True), use, _Reads(use):
        yield use
