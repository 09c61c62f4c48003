"""Grids: ends, direction, spacing, published formulas, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scoresde import (
    EDMSDE,
    SDE,
    VDMSDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    FlowSDE,
    GaussianSDE,
    InvalidArgumentError,
    InvalidTypeError,
    NormalPrior,
    ScoreSDEError,
    SigmoidVPSDE,
    SubVPSDE,
    grids,
)
from tests.unit.strategies import PROCESSES, schedules

NAMES = ["log_snr", "time", "karras", "quadratic", "cosine", "tangent"]
MADE = {
    "beta": grids.Beta(),
    "beta, dense at the data": grids.Beta(1.0, 0.5),
    "levels": grids.Levels((30.0, 5.0, 1.0, 0.2, 0.01)),
    "shifted": grids.Shifted(3.0),
    "shifted back, in the log-SNR": grids.Shifted(0.5, grids.log_snr),
}
F64 = torch.float64


class Brownian(SDE):
    def drift(self, x: Tensor, t: Any) -> Tensor:
        return torch.zeros_like(x)

    def diffusion(self, t: Any) -> Tensor:
        return torch.tensor(1.0)


def brownian() -> Brownian:
    return Brownian(t_min=0.0, t_max=2.0, prior=NormalPrior())


def is_grid(times: Tensor, start: float, end: float, steps: int, where: object = "") -> None:
    assert times.dtype == F64 and times.shape == (steps + 1,), where
    assert float(times[0]) == start and float(times[-1]) == end, where
    assert bool((times.diff() * math.copysign(1, end - start) > 0).all()), where


def test_grids_end_exactly_and_are_monotone_both_ways() -> None:
    for process, name, steps in itertools.product(PROCESSES, [*NAMES, *MADE], (1, 20)):
        sde = PROCESSES[process]()
        for start, end in ((sde.t_max, sde.t_min), (sde.t_min, sde.t_max)):
            times = grids.resolve(MADE.get(name, name), sde, start, end, steps)
            is_grid(times, start, end, steps, f"{name} of {steps} steps on {process}")


@given(
    schedule=schedules,
    name=st.sampled_from(NAMES),
    steps=st.integers(1, 60),
    a=st.floats(0.0, 1.0),
    b=st.floats(0.0, 1.0),
)
@settings(max_examples=50)
def test_grids_of_random_processes(schedule: Any, name: str, steps: int, a: float, b: float) -> None:
    sde = schedule.sde
    start, end = (sde.t_min + (sde.t_max - sde.t_min) * u for u in (a, b))
    if abs(start - end) < 1e-3 * (sde.t_max - sde.t_min):
        end = sde.t_max if start < 0.5 * (sde.t_min + sde.t_max) else sde.t_min
    times = grids.resolve(name, sde, start, end, steps)
    is_grid(times, start, end, steps)
    quantity = {
        "time": lambda t: t,
        "quadratic": lambda t: t.sqrt(),
        "log_snr": sde.log_snr,
        "cosine": lambda t: torch.atan(torch.exp(-sde.log_snr(t) / 2)),
        "tangent": lambda t: torch.atan(torch.exp(-sde.log_snr(t) / 4)),
        "karras": lambda t: torch.exp(-sde.log_snr(t) / 14),
    }[name](times)
    line = torch.linspace(float(quantity[0]), float(quantity[-1]), steps + 1, dtype=F64)
    torch.testing.assert_close(quantity, line, rtol=1e-8, atol=1e-8 * float(line.abs().max()))


def test_karras_is_the_published_formula() -> None:
    for low, high, steps, rho in itertools.product((0.002, 0.02), (50.0, 80.0), (1, 17), (7.0, 3.0)):
        times = grids.karras(EDMSDE(low, high), high, low, steps, **({} if rho == 7 else {"exponent": rho}))
        for i, t in enumerate(times.tolist()):
            sigma = (high ** (1 / rho) + i / steps * (low ** (1 / rho) - high ** (1 / rho))) ** rho
            assert t == pytest.approx(sigma, rel=1e-12), (low, high, steps, rho)


def test_spacings_written_out() -> None:
    edm = EDMSDE(0.01, 100.0)
    torch.testing.assert_close(
        grids.log_snr(edm, 100.0, 0.01, 4), torch.tensor([100.0, 10.0, 1.0, 0.1, 0.01], dtype=F64), rtol=1e-12, atol=0
    )
    assert grids.time(edm, 4.0, 1.0, 3).tolist() == [4.0, 3.0, 2.0, 1.0]
    assert grids.quadratic(edm, 16.0, 1.0, 3).tolist() == [16.0, 9.0, 4.0, 1.0]
    assert grids.quadratic(brownian(), 1.0, 0.0, 2).tolist() == [1.0, 0.25, 0.0]


def test_the_default_is_even_in_log_snr_where_it_has_ends() -> None:
    vp = VPSDE()
    assert torch.equal(grids.resolve(None, vp, 1.0, 1e-3, 5), grids.log_snr(vp, 1.0, 1e-3, 5))
    for sde, start, end in ((brownian(), 2.0, 0.0), (FlowSDE(t_max=1.0), 1.0, 0.1), (FlowSDE(t_min=0.0), 0.9, 0.0)):
        assert torch.equal(grids.resolve(None, sde, start, end, 5), grids.time(sde, start, end, 5))
    inside = FlowSDE(t_min=0.0, t_max=1.0)
    assert torch.equal(grids.resolve(None, inside, 0.9, 0.1, 5), grids.log_snr(inside, 0.9, 0.1, 5))


def power(p: float, low: float = 0.0) -> GaussianSDE:
    """sigma = (t - low)^p."""
    return GaussianSDE(lambda t: (1 - (t - low) ** (2 * p)).sqrt(), lambda t: (t - low) ** p, low, low + 0.99)


def test_the_default_fits_how_signal_and_noise_vanish() -> None:
    tangent = [
        VPSDE(t_min=0.0),
        SubVPSDE(t_min=0.0),
        EDMSDE(t_min=0.0),
        CosineVPSDE(t_min=0.0),
        CosineVPSDE(t_min=0.0, t_max=1.0),
        SigmoidVPSDE(t_min=0.0),
        *(power(p) for p in (0.5, 0.8, 1.0, 2.0)),
        power(0.5, 0.1),
        VDMSDE(lambda t: t.log() + 6 * t),
        VDMSDE(lambda t: 2 * t.log() + 6 * t),
    ]
    time = [
        VDMSDE(lambda t: 2 * torch.logit(t)),
        GaussianSDE(lambda t: torch.cos(1.5 * t), lambda t: torch.sin(1.5 * t), 0.0, 1.0),
        FlowSDE(t_min=0.0, t_max=1.0),
        FlowSDE(t_min=0.0),
        FlowSDE(t_max=1.0),
        CosineVPSDE(t_max=1.0),
    ]
    for expected, processes in ((grids.tangent, tangent), (grids.time, time), (grids.log_snr, [CosineVPSDE()])):
        for sde in processes:
            for start, end in ((sde.t_max, sde.t_min), (sde.t_min, sde.t_max)):
                assert torch.equal(grids.resolve(None, sde, start, end, 7), expected(sde, start, end, 7)), sde


def test_the_tangent_grid_is_even_in_the_angle_of_a_root() -> None:
    for sde in (FlowSDE(t_min=0.0, t_max=1.0), VPSDE(t_min=0.0), VPSDE()):
        times = grids.tangent(sde, sde.t_max, sde.t_min, 9)
        u = torch.exp(-0.25 * sde.log_snr(times)).atan()
        torch.testing.assert_close(u, torch.linspace(float(u[0]), float(u[-1]), 10, dtype=F64), rtol=1e-9, atol=1e-12)
        assert float(times[0]) == sde.t_max and float(times[-1]) == sde.t_min


def test_a_function_is_a_grid() -> None:
    times = grids.resolve(lambda sde, start, end, steps: [start, 0.9, end], VPSDE(), 1.0, 0.25, 2)
    assert times.dtype == F64 and times.tolist() == [1.0, 0.9, 0.25]


def test_invalid_grids_are_refused() -> None:
    cases = [
        ("logsnr", InvalidArgumentError, "did you mean 'log_snr'"),
        (5, InvalidTypeError, "a name or a function"),
        (lambda *a: [1.0, 0.5], InvalidArgumentError, r"4 times from 1 to 0.1, got 2 from 1 to 0.5"),
        (lambda *a: [0.1, 0.5, 0.8, 1.0], InvalidArgumentError, r"4 times from 1 to 0.1, got 4 from 0.1 to 1"),
        (lambda *a: [1.0, 0.2, 0.5, 0.1], InvalidArgumentError, "monotone; entries 1 and 2 are 0.2 and 0.5"),
        (lambda *a: [1.0, math.nan, 0.5, 0.1], InvalidArgumentError, "must be finite; entry 1"),
        (lambda *a: [1.0, 1.2, 0.5, 0.1], InvalidArgumentError, r"must lie in .*; entry 1"),
        (lambda *a: [[1.0, 0.1]], InvalidArgumentError, r"got shape \(1, 2\)"),
        (lambda *a: None, InvalidTypeError, "`grid`"),
    ]
    for grid, error, message in cases:
        with pytest.raises(error, match=message):
            grids.resolve(grid, VPSDE(), 1.0, 0.1, 3)
    for make in (
        lambda: grids.Beta(0.0, 1.0),
        *(lambda v=v: grids.Levels(v) for v in ((1.0,), (1.0, 2.0), (1.0, 0.0), (math.inf, 1.0))),
        *(lambda v=v: grids.Shifted(*v) for v in ((-1.0,), (2.0, "time"))),
        *(lambda v=v: grids.VPTime(*v) for v in ((0.0,), (1.0, math.nan))),
    ):
        with pytest.raises(ScoreSDEError):
            make()


def test_grids_in_signal_to_noise_need_it() -> None:
    for name in ("log_snr", "karras"):
        with pytest.raises(InvalidArgumentError, match=f"grid='{name}' needs a process with alpha and sigma"):
            grids.resolve(name, brownian(), 2.0, 0.0, 5)
        with pytest.raises(InvalidArgumentError, match=f"grid='{name}' has no end at t=1, where the log-SNR is inf"):
            grids.resolve(name, FlowSDE(t_max=1.0), 1.0, 0.1, 5)
        with pytest.raises(InvalidArgumentError, match=f"grid='{name}' has no end at t=0, where the log-SNR is inf"):
            grids.resolve(name, CosineVPSDE(t_min=0.0), 0.5, 0.0, 5)


@given(
    times=st.lists(
        st.one_of(st.floats(0.0, 1.0), st.floats(-0.5, 1.5), st.sampled_from([math.nan, math.inf])),
        min_size=2,
        max_size=6,
    )
)
def test_checked_times_are_inside_finite_and_strictly_monotone(times: list[float]) -> None:
    tensor = torch.tensor(times, dtype=F64)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    good = all(0.0 <= t <= 1.0 for t in times) and (all(g > 0 for g in gaps) or all(g < 0 for g in gaps))
    if good:
        assert grids.check_times(tensor, 0.0, 1.0) is tensor
    else:
        with pytest.raises(ScoreSDEError, match="`grid` must"):
            grids.check_times(tensor, 0.0, 1.0)


def test_a_shift_multiplies_rho_on_the_whole_flow() -> None:
    flow = FlowSDE(t_min=0.0, t_max=1.0)
    plain, shifted = grids.time(flow, 1.0, 0.0, 8), grids.Shifted(3.0)(flow, 1.0, 0.0, 8)
    rho = plain[1:-1] / (1 - plain[1:-1])
    torch.testing.assert_close(shifted[1:-1] / (1 - shifted[1:-1]), 3 * rho)
    torch.testing.assert_close(grids.Shifted(1.0)(flow, 1.0, 0.0, 8), plain)


def test_levels_are_met_and_stretched() -> None:
    sde = EDMSDE()
    levels = grids.Levels((80.0, 10.0, 1.0, 0.1, 0.002))
    torch.testing.assert_close(levels(sde, 80.0, 0.002, 4), torch.tensor(levels.rho, dtype=F64))
    finer = levels(sde, 80.0, 0.002, 8)
    torch.testing.assert_close(finer[::2], torch.tensor(levels.rho, dtype=F64))
    torch.testing.assert_close(finer[1], (finer[0] * finer[2]).sqrt())


def test_beta_with_parameters_one_is_even_in_time() -> None:
    sde = VPSDE()
    torch.testing.assert_close(grids.Beta(1.0, 1.0)(sde, 1.0, 0.1, 9), grids.time(sde, 1.0, 0.1, 9))


def test_vp_time_is_even_in_its_clock() -> None:
    for sde in (VPSDE(), EDMSDE(), FlowSDE(), VESDE()):
        for scale, exponent in itertools.product((0.3, 1.0, 5.0), (0.25, 0.5, 1.0)):
            times = grids.VPTime(scale, exponent)(sde, sde.t_max, sde.t_min, 9)
            clock = torch.log1p(torch.exp(-sde.log_snr(times)) / scale**2) ** exponent
            assert (times[0], times[-1]) == (sde.t_max, sde.t_min)
            torch.testing.assert_close(clock.diff(), ((clock[-1] - clock[0]) / 9).expand(9), rtol=1e-6, atol=1e-9)
            back = grids.VPTime(scale, exponent)(sde, sde.t_min, sde.t_max, 9)
            torch.testing.assert_close(back.flip(0), times, rtol=1e-9, atol=1e-12)
    sde = VPSDE(beta_min=1e-9, beta_max=20.0, t_min=0.1)
    for name, known in (("vp_time", "time"), ("vp_quadratic", "quadratic")):
        ours, theirs = (grids.resolve(grid, sde, 1.0, 0.1, 7) for grid in (name, known))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    flow = FlowSDE(t_min=0.0, t_max=1.0)
    with pytest.raises(InvalidArgumentError, match="infinite"):
        grids.VPTime()(flow, 1.0, 0.0, 4)
    assert grids.VPTime()(flow, 0.9, 0.0, 4)[-1] == 0.0


@pytest.mark.parametrize(("scale", "power"), [(1.0, 1.0), (3.0, 0.25), (0.3, 0.5)])
def test_the_angle_grid_is_even_in_the_angle_of_a_power(scale: float, power: float) -> None:
    sde = EDMSDE()
    rho = grids.Angle(scale, power)(sde, 80.0, 0.002, 7)  # t is sigma, and alpha 1
    angles = ((rho / scale) ** power).atan().diff()
    assert torch.allclose(angles, angles.mean().expand(7), rtol=1e-6)
