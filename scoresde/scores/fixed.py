"""What is fixed in a network that was exported, frozen or quantised: the sizes of its input, and its dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ScoreFnError


def fixed_sizes(net: object) -> tuple[int | None, ...]:
    """The sizes of x for which ``torch.export`` made a program, None where any will do; empty for other networks.

    Example:
        >>> fixed_sizes(torch.nn.ReLU())
        ()
    """
    graph = getattr(net, "graph", None) if isinstance(net, nn.Module) else None  # a compiled one has it too
    if not isinstance(graph, torch.fx.Graph):
        return ()
    first = next((node for node in graph.nodes if node.op == "placeholder"), None)
    value = None if first is None else first.meta.get("val")
    return tuple(n if isinstance(n, int) else None for n in value.shape) if isinstance(value, Tensor) else ()


def check_sizes(sizes: tuple[int | None, ...], x: Tensor) -> None:
    """Refuse a state of sizes for which a program was not made."""
    if sizes and (len(sizes) != x.ndim or any(size not in (None, n) for size, n in zip(sizes, x.shape, strict=True))):
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ScoreFnError(
            f"The network was exported for x of shape ({wanted}), got {tuple(x.shape)}; solve batches of that size, or "
            "export it with dynamic_shapes=({0: torch.export.Dim('batch')}, {0: torch.export.Dim('batch')})."
        )


def packed_dtype(net: object) -> torch.dtype | None:
    """The dtype of what a module without floating-point parameters computes in, where its weights are quantised
    (float32), or constants of frozen TorchScript; None where they are neither.

    Example:
        >>> packed_dtype(torch.nn.ReLU()) is None
        True
    """
    if not isinstance(net, nn.Module) or any(p.is_floating_point() for p in net.parameters()):
        return None
    if isinstance(net, torch.jit.ScriptModule):
        return _script_dtype(net.inlined_graph)
    packed = any(part.is_quantized for value in net.state_dict().values() for part in _tensors(value))
    return torch.float32 if packed else None


def _script_dtype(graph: Any) -> torch.dtype | None:
    """The dtype of the operations of a script: that of its first constant that is no number, float32 if quantised."""
    if "quantized::" in str(graph):
        return torch.float32
    return next((value.dtype for value in constants_of(graph) if value.ndim and value.is_floating_point()), None)


def constants_of(graph: Any) -> Iterator[Tensor]:
    """The tensors that are constants of a script."""
    for node in graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            yield node.t("value")


def _tensors(value: object) -> Iterator[Tensor]:
    """A tensor, or those in a tuple."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, Tensor):
            yield part
