"""Memory of a solve: it is used again when nobody holds it, and never before. Sums are written where there is room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import scoresde
from scoresde import ScoreModel, solvers
from scoresde._combination import Combination, combination, combine, sum_of, weighted, write, write_over
from scoresde._workspace import Workspace, exchange, working_in, workspace_for

SDE = scoresde.VPSDE()
HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "the tensor": lambda x: x,
    "a view of it": lambda x: x[:1],
    "a detached alias": lambda x: x.detach(),
    "a transposed view": lambda x: x.t(),
    "an array": lambda x: x.numpy(),
    "a part of an array": lambda x: x.numpy()[0],
    "its storage": lambda x: x.untyped_storage(),
    "a capsule": lambda x: torch.utils.dlpack.to_dlpack(x),
    "a parameter": lambda x: torch.nn.Parameter(x),
    "a graph": lambda x: (torch.ones(2, 3, requires_grad=True) * x).sum(),
}


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + 0.1 * torch.sin(3 * x)


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_that_somebody_holds_is_not_written(holder: str) -> None:
    workspace = Workspace(torch.zeros(2, 3))
    held = HOLDERS[holder](workspace.tensor().fill_(1.0))
    with working_in(workspace), torch.no_grad():
        for i in range(4):
            combine(1.0, torch.full((2, 3), float(i)), 1.0, (1.0,), (torch.ones(2, 3),))
    buffer = workspace.buffers[0]
    assert not buffer.free and bool((buffer.base == 1.0).all())
    del held
    assert buffer.free


def test_memory_that_another_process_may_hold_is_not_written() -> None:
    workspace = Workspace(torch.zeros(2, 3))
    workspace.tensor().share_memory_()
    assert not workspace.buffers[0].free


def test_few_buffers_serve_many_sums() -> None:
    workspace, ones = Workspace(torch.zeros(2, 3)), torch.ones(2, 3)
    with working_in(workspace), torch.no_grad():
        x = ones
        for _ in range(100):
            x = combine(0.5, x, 1.0, (0.5,), (ones,))
        kept = [combine(float(i), ones, 1.0, (), ()) for i in range(100)]
    assert bool((x == 1.0).all()) and all(bool((v == i).all()) for i, v in enumerate(kept))
    assert len(workspace.buffers) <= 16


def test_it_is_only_for_tensors_like_the_state_and_without_gradients() -> None:
    workspace = Workspace(torch.zeros(2, 3))
    with working_in(workspace):
        assert workspace_for(torch.zeros(2, 3)) is None  # a gradient is recorded
        with torch.no_grad():
            assert workspace_for(torch.zeros(2, 3)) is workspace
            for other in (torch.zeros(3, 2), torch.zeros(2, 3).double(), torch.zeros(2, 3, device="meta")):
                assert workspace_for(other) is None
    assert exchange(None) is None


def test_sums() -> None:
    a, b, c = (torch.randn(2, 3, dtype=torch.float64) for _ in range(3))
    wanted = 0.3 * a + 2.0 * (0.5 * b - 0.25 * (a + 3.0 * c))
    part = sum_of([(1.0, a), (3.0, c)])
    got = combination(0.3, a, 2.0, (0.5, -0.25), (b, part))
    assert isinstance(got, Combination)
    assert sum(v is a for v in got.values) == 1  # the terms of one tensor are added up
    for make in (got.tensor, lambda: weighted([(1.0, got)]), lambda: got.write(torch.empty_like(a))):
        assert torch.allclose(make(), wanted, rtol=1e-14)
    value = b.clone()
    since = got.since(Combination([1.0], [b]), value)
    assert torch.allclose(since.tensor(), wanted, rtol=1e-14)
    assert torch.allclose(combine(torch.tensor(0.3), a, 2.0, (0.5, -0.25), (b, part)), wanted, rtol=1e-6)
    assert bool((combine(0.0, a, 1.0, (0.0,), (b,)) == 0).all())
    weights, values = Combination([0.0, *got.weights], [c, *got.values]).terms()
    assert weights == got.weights and values[0] is a
    again = a.clone()
    written = write(weights, values, torch.empty_like(a))
    assert written.equal(write_over(weights, [again, *values[1:]]))
    assert written.equal(write(weights, values, torch.empty_like(a), torch.tensor(weights[0], dtype=torch.float64)))


class Made(TorchDispatchMode):
    """Counts the memory that is made for tensors of a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, Tensor)}
        if isinstance(out, Tensor) and out.numel() == self.size and not func.is_view:
            out_given = (kwargs or {}).get("out") is not None or out.untyped_storage()._cdata in given
            self.count += not out_given
        return out


class Keeping:
    """A network that keeps what it is given, as it is or as a view, and the values that it had.

    Args:
        view: what is kept of it.
    """

    def __init__(self, view: Callable[[Tensor], Any]) -> None:
        self.view = view
        self.kept: list[tuple[Any, np.ndarray]] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        kept = self.view(x)
        self.kept.append((kept, kept.copy() if isinstance(kept, np.ndarray) else kept.numpy().copy()))
        return net(x, t)


@pytest.mark.parametrize("method", ["ddim", "euler", "heun", "dpmpp_2m", "unipc3", "pc", "euler_maruyama", "ancestral"])
def test_what_a_network_a_callback_or_the_recorder_keeps_does_not_change(method: str) -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"method": method, "steps": 20, "seed": 1}
    plain = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, **options, save_at="steps")
    for view in (lambda v: v, lambda v: v[:1], lambda v: v.numpy()):
        network, seen = Keeping(view), []
        solution = scoresde.solve(SDE, ScoreModel(network, SDE, "noise"), x, callback=seen.append, **options)
        assert torch.equal(solution.x, plain.x)
        assert plain.xs is not None and all(torch.equal(info.x, v) for info, v in zip(seen, plain.xs[1:], strict=True))
        for kept, values in network.kept:
            assert np.array_equal(np.asarray(kept), values)


def test_a_method_of_ones_own_may_keep_its_state() -> None:
    class Delayed(solvers.DDIM):
        """Keeps all the states that it was given."""

        name = "delayed"

        def init(self, process: Any, x: Tensor, start: Any) -> Any:
            return ()

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any, noise: Any) -> Any:
            kept.append((x, x.clone()))
            return super().step(process, x, start, stop, None, noise)._replace(state=state)

    kept: list[tuple[Tensor, Tensor]] = []
    x = torch.randn(2, 3)
    solution = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, method=Delayed(), steps=20)
    assert torch.equal(solution.x, scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, method="ddim", steps=20).x)
    assert len(kept) == 20 and all(torch.equal(a, b) for a, b in kept)


def test_a_network_may_solve_on_its_own() -> None:
    """The memory of the outer solve is not that of the inner one, also for states of one shape."""
    x = torch.randn(2, 3)

    def inner(x: Tensor, t: Tensor) -> Tensor:
        return scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, method="heun", steps=3).x

    solved = scoresde.solve(SDE, ScoreModel(inner, SDE, "noise"), x, method="dpmpp_2m", steps=6).x
    copied = ScoreModel(lambda x, t: inner(x, t).clone(), SDE, "noise")
    assert torch.equal(solved, scoresde.solve(SDE, copied, x, method="dpmpp_2m", steps=6).x)


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_one_result_in_every_mode(where: Any) -> None:
    x = torch.randn(2, 3)
    wanted = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, method="unipc3", steps=20).x
    with where():
        assert torch.equal(scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, method="unipc3", steps=20).x, wanted)


def test_a_network_may_write_to_its_time() -> None:
    def writes(x: Tensor, t: Tensor) -> Tensor:
        out = net(x, t) * t[:, None]
        t.fill_(torch.nan)
        return out

    x = torch.randn(2, 3)
    got, wanted = (
        scoresde.solve(SDE, ScoreModel(f, SDE, "noise"), x, method="heun", steps=20).x  # which evaluates nodes twice
        for f in (writes, lambda x, t: net(x, t) * t[:, None])
    )
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("method", ["ddim", "euler", "heun", "dpmpp_2m", "dpm_3m", "unipc2"])
def test_steps_make_no_memory(method: str) -> None:
    x = torch.randn(4, 50)
    constant = torch.full_like(x, 0.1)
    counts = []
    for steps in (20, 60):
        scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), x, method=method, steps=steps)  # its plan is kept
        with Made(x.numel()) as made:
            scoresde.solve(SDE, ScoreModel(lambda x, t: constant, SDE, "noise"), x, method=method, steps=steps)
        counts.append(made.count)
    assert counts[0] == counts[1] < 15
