"""Memory of a solve is used again when nobody holds it, and never before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel

SDE = scoresde.VPSDE()
# How a network may keep the state that it is given.
HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "the tensor": lambda x: x,
    "a view of it": lambda x: x[:1],
    "a detached alias": lambda x: x.detach(),
    "an array": lambda x: x.numpy(),
    "a part of an array": lambda x: x.numpy()[0],
}


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + 0.1 * torch.sin(3 * x)


def states() -> Tensor:
    return torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def test_what_a_network_a_callback_or_the_recorder_keeps_does_not_change() -> None:
    for method in ("ddim", "heun", "dpmpp_2m", "unipc3", "pc", "euler_maruyama"):
        options: dict[str, Any] = {"method": method, "steps": 20, "seed": 1}
        plain = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), states(), **options, save_at="steps")
        for name, view in HOLDERS.items():
            seen: list[Any] = []
            kept: list[tuple[Any, np.ndarray]] = []

            def network(x: Tensor, t: Tensor, view: Any = view, kept: Any = kept) -> Tensor:
                kept.append((view(x), np.asarray(view(x)).copy()))
                return net(x, t)

            model = ScoreModel(network, SDE, "noise")
            solution = scoresde.solve(SDE, model, states(), callback=seen.append, **options)
            assert torch.equal(solution.x, plain.x), (method, name)
            assert all(torch.equal(i.x, v) for i, v in zip(seen, plain.xs[1:], strict=True)), (method, name)
            assert all(np.array_equal(np.asarray(held), values) for held, values in kept), (method, name)


def test_what_a_network_returns_and_keeps_does_not_change() -> None:
    for method in ("ddim", "heun", "dpmpp_2m", "unipc3", "pc"):
        kept: list[tuple[Tensor, Tensor]] = []

        def network(x: Tensor, t: Tensor, kept: Any = kept) -> Tensor:
            out = net(x, t)
            kept.append((out, out.clone()))
            return out

        x = scoresde.solve(SDE, ScoreModel(network, SDE, "data"), states(), method=method, steps=10, seed=1).x
        assert all(torch.equal(a, b) for a, b in kept), method
        kept[-1][0].zero_()
        wanted = scoresde.solve(SDE, ScoreModel(net, SDE, "data"), states(), method=method, steps=10, seed=1).x
        assert torch.equal(x, wanted), method
