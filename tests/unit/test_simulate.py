"""The forward process as a path: its exact distribution by probing every draw, save times, dtypes, refusals."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scoresde import (
    EDMSDE,
    SDE,
    VPSDE,
    FlowSDE,
    InvalidArgumentError,
    InvalidTypeError,
    NonFiniteError,
    NormalPrior,
    ScoreSDEError,
    simulate,
)
from tests.unit.strategies import PROCESSES, schedules

F64 = torch.float64


def probe(sde: Any, draws: int, **options: Any) -> tuple[Tensor, Tensor, Any]:
    """How a path depends on its start and on each of its draws.

    Every sample of the batch switches one of them on: sample 0 none, sample 1 the start, sample 2 + k draw k. Returns
    the coefficients of the start ``(times,)`` and of the draws ``(times, draws)``, and the solution.
    """
    x0 = torch.zeros(draws + 2, 1, dtype=F64)
    x0[1] = 1.0
    used: list[int] = []

    def noise(k: int, like: Tensor) -> Tensor:
        used.append(k)
        z = torch.zeros_like(like)
        z[2 + k] = 1.0
        return z

    solution = simulate(sde, x0, noise=noise, **options)
    assert used == list(range(draws))
    xs = (solution.x[None] if solution.xs is None else solution.xs)[..., 0]
    assert not bool(xs[:, 0].any())  # nothing in, nothing out
    return xs[:, 1], xs[:, 2:], solution


def has_the_law(sde: Any, ts: Tensor, start: Tensor, draws: Tensor) -> None:
    """x_t = alpha x_0 + noise of covariance E[x_s x_t | x_0] = (alpha_t / alpha_s) sigma_s^2 for s < t."""
    alpha, sigma = sde.alpha(ts), sde.sigma(ts)
    torch.testing.assert_close(start, alpha, rtol=1e-12, atol=1e-14)
    n = len(ts)
    first = torch.minimum(torch.arange(n)[:, None], torch.arange(n)[None, :])
    last = torch.maximum(torch.arange(n)[:, None], torch.arange(n)[None, :])
    covariance = alpha[last] / alpha[first] * sigma[first] ** 2
    torch.testing.assert_close(draws @ draws.mT, covariance, rtol=1e-12, atol=1e-14)


def test_the_law_of_a_path_is_exact() -> None:
    for (process, make), steps, grid in product(PROCESSES.items(), (1, 2, 25), ("time", "log_snr")):
        sde = make()
        start, draws, solution = probe(sde, steps + 1, steps=steps, grid=grid, save_at="steps")
        assert float(solution.ts[0]) == sde.t_min and float(solution.ts[-1]) == sde.t_max, process
        has_the_law(sde, solution.ts, start, draws)
        # the end: mean alpha x0 and variance sigma^2, whatever the steps
        assert float(start[-1]) == pytest.approx(float(sde.alpha(sde.t_max)), rel=1e-12), process
        assert float(draws[-1].square().sum()) == pytest.approx(float(sde.sigma(sde.t_max)) ** 2, rel=1e-12), process
        assert torch.equal(solution.x, solution.xs[-1]), process


@given(schedule=schedules, steps=st.integers(1, 12))
@settings(max_examples=40)
def test_the_law_of_a_path_is_exact_on_random_processes(schedule: Any, steps: int) -> None:
    start, draws, solution = probe(schedule.sde, steps + 1, steps=steps, save_at="steps")
    has_the_law(schedule.sde, solution.ts, start, draws)


def test_a_path_from_a_state_follows_the_transition() -> None:
    for process, make in PROCESSES.items():
        sde = make()
        span = sde.t_max - sde.t_min
        s, t = sde.t_min + 0.2 * span, sde.t_min + 0.7 * span
        start, draws, solution = probe(sde, 6, steps=6, t_start=s, t_end=t)
        mean, std = sde.transition(torch.ones(1, 1, dtype=F64), s, t)
        assert float(start) == pytest.approx(float(mean), rel=1e-12), process
        assert float(draws.square().sum()) == pytest.approx(float(std) ** 2, rel=1e-12), process
        assert solution.t.tolist() == [t] * 8, process


def test_a_path_may_reach_both_ends_of_the_flow() -> None:
    sde = FlowSDE(t_min=0.0, t_max=1.0)
    start, draws, solution = probe(sde, 6, steps=5, save_at="steps")
    torch.testing.assert_close(start, 1 - solution.ts, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(draws.square().sum(1), solution.ts**2, rtol=1e-12, atol=1e-15)


def test_saved_states_are_those_of_the_path_at_their_times() -> None:
    sde = VPSDE()
    wanted = [0.123, 0.5, 0.77, 1.0]
    start, draws, solution = probe(sde, 13, steps=9, save_at=wanted)  # three of them are not on the grid
    assert solution.ts.tolist() == wanted
    assert solution.steps == 12
    has_the_law(sde, solution.ts, start, draws)


def test_save_times_may_come_in_any_order_and_twice() -> None:
    sde = EDMSDE()
    _, draws, solution = probe(sde, 5, steps=2, save_at=[60.0, 10.0])
    assert solution.ts.tolist() == [60.0, 10.0]
    assert (draws.square().sum(1).sqrt() / solution.ts).tolist() == pytest.approx([1.0, 1.0], rel=1e-12)
    twice = simulate(sde, torch.zeros(2, 1), steps=2, save_at=[10.0, 10.0], seed=0)
    assert torch.equal(twice.xs[0], twice.xs[1])
    assert twice.steps == 3  # one time more than the grid has, once


def test_saved_ends_and_steps() -> None:
    sde = VPSDE()
    x = torch.ones(2, 3, dtype=F64)
    given = {"t_start": 0.1, "t_end": 0.9, "steps": 3, "seed": 1}
    solution, every, none = (simulate(sde, x, save_at=save_at, **given) for save_at in ([0.1, 0.9], "steps", None))
    assert torch.equal(solution.xs[0], x) and torch.equal(solution.xs[1], solution.x)
    assert every.xs.shape == (4, 2, 3) and torch.equal(every.x, solution.x) and torch.equal(none.x, solution.x)
    torch.testing.assert_close(every.ts, torch.linspace(0.1, 0.9, 4, dtype=F64), rtol=1e-13, atol=0)
    assert (none.ts, none.xs) == (None, None)
    tensor = simulate(sde, x, steps=4, save_at=torch.tensor([0.2, 0.4], dtype=F64), seed=0)
    assert tensor.ts.tolist() == [0.2, 0.4] and bool(tensor.xs.isfinite().all())


class Decay(SDE):
    """dx = -a x dt + b sqrt(t) dw."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -0.7 * x

    def diffusion(self, t: Any) -> Tensor:
        return 0.3 * torch.as_tensor(t, dtype=F64).sqrt()


def test_other_processes_go_by_euler_maruyama() -> None:
    sde = Decay(t_min=0.5, t_max=2.5, prior=NormalPrior())
    start, draws, solution = probe(sde, 8, steps=8, save_at="steps")
    assert float(start[0]) == 1.0 and not bool(draws[0].any())  # from the state itself
    assert solution.ts.tolist() == [0.5 + 0.25 * i for i in range(9)]
    h = 0.25
    mean, variance = 1.0, 0.0
    for i in range(8):
        mean *= 1 - 0.7 * h
        variance = (1 - 0.7 * h) ** 2 * variance + 0.09 * (0.5 + i * h) * h
    assert float(start[-1]) == pytest.approx(mean, rel=1e-12)
    assert float(draws[-1].square().sum()) == pytest.approx(variance, rel=1e-12)


def test_seeds_make_a_path_of_each_sample_its_own() -> None:
    sde = VPSDE()
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    together = simulate(sde, x, steps=5, seeds=[3, 1, 4, 2], save_at="steps").xs
    for i, seed in enumerate([3, 1, 4, 2]):
        assert torch.equal(simulate(sde, x[i : i + 1], steps=5, seeds=[seed], save_at="steps").xs[:, 0], together[:, i])


def test_half_precision_is_not_computed_in_half_precision() -> None:
    """Steps too small for bfloat16 to see: the mean would stay at 1."""
    x, zero = torch.ones(1, 2, dtype=torch.bfloat16), lambda k, like: torch.zeros_like(like)
    x = simulate(VPSDE(beta_max=0.2), x, steps=100, noise=zero).x
    torch.testing.assert_close(x.double(), torch.full((1, 2), math.exp(-0.075), dtype=F64), rtol=5e-3, atol=0)


def test_inputs_layouts_and_modes() -> None:
    """Inputs and graphs are left alone; neither the layout of the start nor inference mode matters."""
    x = torch.ones(2, 3, requires_grad=True)
    solution = simulate(VPSDE(), x, steps=3, seed=0)
    assert not solution.x.requires_grad and x.requires_grad and x.grad is None
    from_state = simulate(VPSDE(), x, t_start=0.1, steps=1, noise=lambda k, like: torch.zeros_like(like))
    assert torch.equal(x.detach(), torch.ones(2, 3)) and not torch.equal(from_state.x, x)
    with torch.inference_mode():
        assert torch.equal(simulate(VPSDE(), torch.ones(2, 3), steps=3, seed=0).x, solution.x)
    empty = simulate(VPSDE(), torch.zeros(0, 3), steps=3, seed=0, save_at="steps")
    assert empty.x.shape == (0, 3) and empty.xs.shape == (4, 0, 3)


def test_bad_arguments_are_refused() -> None:
    x = torch.zeros(2, 2)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        (("vp", x), {}, InvalidTypeError, "`sde` must be a process"),
        ((VPSDE(), x.long()), {}, InvalidTypeError, "`x0` must have a floating-point dtype"),
        ((VPSDE(), x[0]), {}, InvalidArgumentError, r"`x0` must be \(batch, \*event\)"),
    ]
    options: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"t_start": 0.9, "t_end": 0.1}, InvalidArgumentError, "simulate runs forward: t_start=0.9"),
        ({"t_start": 0.0}, InvalidArgumentError, r"`t_start` must be in \[0.001, 1\], got 0.0"),
        ({"t_end": 1.5}, InvalidArgumentError, r"`t_end` must be in \[0.001, 1\], got 1.5"),
        ({"steps": 0}, InvalidArgumentError, "`steps` must be at least 1, got 0"),
        ({"grid": "tme"}, InvalidArgumentError, "did you mean 'time'"),
        ({"seed": 1, "seeds": [1, 2]}, InvalidArgumentError, "at most one of seed, seeds"),
        ({"save_at": [2.0]}, InvalidArgumentError, "`save_at` must be in .* got 2.0"),
        ({"save_at": 0.5}, ScoreSDEError, "`save_at`"),
    ]
    for arguments, given_options, error, message in [*cases, *(((VPSDE(), x), *case) for case in options)]:
        with pytest.raises(error, match=message):
            simulate(*arguments, **given_options)
    x = torch.zeros(3, 2)
    x[1, 0] = math.nan
    with pytest.raises(NonFiniteError) as caught:
        simulate(VPSDE(), x, steps=3, seed=0)
    assert caught.value.indices == [1] and caught.value.stage == "input"
