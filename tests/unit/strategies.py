"""Processes to test: one of each with its defaults, and hypothesis strategies for random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from scoresde import (
    EDMSDE,
    VDMSDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    FlowSDE,
    GaussianSDE,
    LinearGamma,
    SigmoidVPSDE,
    SubVPSDE,
)

PROCESSES: dict[str, Callable[[], Any]] = {
    "vp": VPSDE,
    "ve": VESDE,
    "subvp": SubVPSDE,
    "cosine": CosineVPSDE,
    "sigmoid": SigmoidVPSDE,
    "vdm": VDMSDE,
    "edm": EDMSDE,
    "flow": FlowSDE,
    "gaussian": lambda: GaussianSDE(lambda t: torch.cos(t), lambda t: torch.sin(t), t_min=1e-3, t_max=1.5),
}


def times(sde: Any, n: int = 9, margin: float = 0.02) -> Tensor:
    """Times inside the interval of a process, float64."""
    t = torch.linspace(margin, 1 - margin, n, dtype=torch.float64)
    return sde.t_min + (sde.t_max - sde.t_min) * t


def between(t: float) -> Any:
    """A grid of two steps that meet at t, or of one step."""

    def grid(sde: Any, start: float, end: float, steps: int) -> Tensor:
        return torch.tensor([start, t, end] if steps == 2 else [start, end], dtype=torch.float64)

    grid.__name__ = f"at {t}"
    return grid


@dataclass(frozen=True)
class Wave:
    """A smooth decreasing half log-SNR: a line and a few steps down, and its derivative written out."""

    top: float
    slope: float
    steps: tuple[tuple[float, float, float], ...]  # (height, place, width)

    def __call__(self, t: Tensor) -> Tensor:
        value = self.top - self.slope * t
        for height, place, width in self.steps:
            value = value - height * torch.tanh((t - place) / width)
        return value

    def rate(self, t: Tensor) -> Tensor:
        value = torch.full_like(t, -self.slope)
        for height, place, width in self.steps:
            value = value - height / width / torch.cosh((t - place) / width) ** 2
        return value


@dataclass(frozen=True)
class Schedule:
    """A process with, where known, its half log-SNR and the log of its total scale (and both derivatives)."""

    sde: Any
    lam: Wave | None = None
    scale: float = 0.0  # log of sqrt(alpha^2 + sigma^2) is scale * sin(3 t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """d ln(alpha)/dt and d ln(sigma)/dt, from the derivatives written out."""
        assert self.lam is not None
        value, rate = self.lam(t), self.lam.rate(t)
        swell = 3 * self.scale * torch.cos(3 * t)
        return swell + rate * torch.sigmoid(-2 * value), swell - rate * torch.sigmoid(2 * value)


def _floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


waves = st.builds(
    Wave,
    top=_floats(1.0, 7.0),
    slope=_floats(3.0, 12.0),
    steps=st.lists(st.tuples(_floats(0.0, 2.0), _floats(0.0, 1.0), _floats(0.1, 1.0)), max_size=3).map(tuple),
)


def _gaussian(lam: Wave, scale: float) -> Schedule:
    def alpha(t: Tensor) -> Tensor:
        return torch.exp(scale * torch.sin(3 * t)) * torch.sigmoid(2 * lam(t)).sqrt()

    def sigma(t: Tensor) -> Tensor:
        return torch.exp(scale * torch.sin(3 * t)) * torch.sigmoid(-2 * lam(t)).sqrt()

    return Schedule(GaussianSDE(alpha, sigma, t_min=0.0, t_max=1.0), lam, scale)


# Schedules of which the derivatives are known by hand: random monotone functions.
monotone = st.one_of(
    st.builds(_gaussian, waves, _floats(-0.5, 0.5)),
    waves.map(lambda lam: Schedule(VDMSDE(lambda t: -2 * lam(t)), lam)),
)

# The named processes with random parameters.
named = st.one_of(
    st.builds(VESDE, _floats(1e-3, 0.1), _floats(1.0, 1e3)),
    st.builds(VPSDE, _floats(0.01, 2.0), _floats(2.0, 40.0)),
    st.builds(SubVPSDE, _floats(0.01, 2.0), _floats(2.0, 40.0)),
    st.builds(CosineVPSDE, _floats(1e-3, 0.1), t_max=_floats(0.5, 0.9946)),
    st.builds(SigmoidVPSDE, _floats(-6.0, 0.0), _floats(0.5, 6.0), _floats(0.3, 3.0)),
    st.builds(lambda low, high: VDMSDE(LinearGamma(low, high)), _floats(-15.0, -5.0), _floats(1.0, 8.0)),
    st.builds(EDMSDE, _floats(1e-3, 0.1), _floats(1.0, 200.0)),
    st.builds(lambda low, high: FlowSDE(t_min=low, t_max=high), _floats(1e-5, 0.1), _floats(0.5, 0.999)),
)

schedules = st.one_of(named.map(Schedule), monotone)


@st.composite
def three_times(draw: st.DrawFn, sde: Any) -> tuple[float, float, float]:
    """r < s < t inside the interval, a twentieth of it apart at least."""
    gaps = [draw(_floats(0.05, 1.0)) for _ in range(4)]
    total = sum(gaps)
    r, s, t = (sde.t_min + (sde.t_max - sde.t_min) * sum(gaps[:k]) / total for k in (1, 2, 3))
    return r, s, t
