"""Orders where the log-SNR is infinite at an end: on the default grid, and on the grid that keeps them."""

from __future__ import annotations

from typing import Any

import pytest

import scoresde
from scoresde import testing
from tests.parameters import pairs

from .problems import MIXTURE, STARTS

# The first two took part in the choice of the default; the others did not.
PROCESSES = {
    "vp": scoresde.VPSDE(t_min=0.0),
    "sub-vp": scoresde.SubVPSDE(t_min=0.0),
    "edm": scoresde.EDMSDE(t_min=0.0),
    "cosine": scoresde.CosineVPSDE(t_min=0.0, t_max=1.0),
    "sigmoid": scoresde.SigmoidVPSDE(t_min=0.0),
    "root": scoresde.GaussianSDE(lambda t: (1 - t).sqrt(), lambda t: t.sqrt(), 0.0, 0.99),
    "line": scoresde.GaussianSDE(lambda t: (1 - t * t).sqrt(), lambda t: t, 0.0, 0.99),
    "gamma": scoresde.VDMSDE(lambda t: t.log() + 6 * t),
}
FLOW = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
ORDERS = {"ddim": 1, "dpm_2m": 2, "dpm_3m": 3, "dpm_3s": 3, "unipc3": 4}


def order(sde: Any, method: str, grid: str | None, steps: tuple[int, int] = (100, 200)) -> float:
    x = STARTS * sde.prior.std
    exact = testing.mixture_flow_map(MIXTURE, x, sde, sde.t_max, sde.t_min)

    def error(count: int) -> float:
        got = scoresde.solve(sde, MIXTURE.score(sde), x, method=method, steps=count, grid=grid).x
        return float((got - exact).abs().mean())

    return testing.converge(error, steps).order()


@pytest.mark.cells(8)
@pytest.mark.parametrize(("process", "method"), pairs(PROCESSES, ORDERS))
def test_the_default_keeps_orders_where_the_log_snr_is_infinite(process: str, method: str) -> None:
    assert order(PROCESSES[process], method, None) > ORDERS[method] - 0.3


@pytest.mark.parametrize("method", ORDERS)
def test_steps_even_in_time_have_order_two_at_most_on_the_whole_flow(method: str) -> None:
    """And the grid that keeps orders is one word away."""
    assert order(FLOW, method, None) == pytest.approx(min(ORDERS[method], 2), abs=0.3)
    assert order(FLOW, method, "tangent") > ORDERS[method] - 0.3
