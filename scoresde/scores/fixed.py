"""What is fixed in a network that was exported or frozen: the sizes of its input, and constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ScoreFnError


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


def constants_of(graph: Any) -> Iterator[Tensor]:
    """The tensors that are constants of a script."""
    for node in graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            yield node.t("value")
