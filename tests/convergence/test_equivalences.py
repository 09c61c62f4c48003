"""Methods that are the same step under different names, and steps that do not depend on the process's clock or scale.

Equal means to rounding: both sides are solved on the same grid with the same noise.
"""

from __future__ import annotations

import functools
import itertools
import math
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import solvers
from scoresde.solvers.dpmpp_sde import split
from scoresde.solvers.er_sde import published_scale

from .problems import MIXTURE, PROCESSES, STARTS

F64 = torch.float64
LEVELS = torch.tensor([-4.0, -2.2, -0.6, 0.1, 1.7, 3.0, 4.4], dtype=F64)  # log-SNR, uneven


def draws(k: int, like: Tensor) -> Tensor:
    """The k-th draw, the same for every method."""
    return torch.randn(like.shape, dtype=F64, generator=torch.Generator().manual_seed(k))


def end(method: str | scoresde.Solver, sde: scoresde.AffineSDE, levels: Tensor = LEVELS, **options: Any) -> Tensor:
    times = sde.time(levels)
    x = STARTS * float((sde.alpha(times[0]) ** 2 + sde.sigma(times[0]) ** 2) ** 0.5)
    options = {"noise": draws, **options}
    return scoresde.solve(sde, MIXTURE.score(sde), x, method=method, grid=times, **options).x


def same(got: Tensor, wanted: Tensor, name: str = "", rtol: float = 1e-10) -> None:
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=rtol, msg=lambda text: f"{name}: {text}")


ONE_STEP = LEVELS[[1, 3]]
OFF = {"start_up": "published"}  # a multistep method's first step is then of first order

FULL = {"variant": "full", **OFF}
# Equal over the first step of the method on the left, which is of first order.
FIRST_STEPS = {
    "DPM-Solver-1": (solvers.DPM2M(**OFF), "ddim"),
    "DPM-Solver++(1)": (solvers.DPMpp2M(**OFF), "ddim"),
    "UniP-1": (solvers.UniP2(order=1), "ddim"),
    "tAB-1": (solvers.TAB2(**OFF), "ddim"),
    "rhoAB-1": (solvers.RhoAB2(**OFF), "ddim"),
    "DDIM(1)": (solvers.DDIMEta(eta=1.0), "ancestral"),
    "SDE-DPM-Solver++(1)": (solvers.DPMpp2MSDE(**OFF), "ancestral"),
}
PAIRS = {
    "UniP-3 is the corrected DPM-Solver++(3M)": (solvers.UniP3(**FULL), solvers.DPMpp3M(**OFF)),
    "UniP-3 of the noise is the corrected DPM-Solver(3M)": (
        solvers.UniP3(prediction="noise", **FULL),
        solvers.DPM3M(**OFF),
    ),
    "UniP-2 with B2 is DPM-Solver++(2M)": (solvers.UniP2(variant="bh2", **OFF), solvers.DPMpp2M(**OFF)),
    "UniP-2 of the noise with B2 is DPM-Solver(2M)": (solvers.UniP2(prediction="noise", **OFF), solvers.DPM2M(**OFF)),
    "UniP-2 in full is DPM-Solver++(2M), taylor": (solvers.UniP2(**FULL), solvers.DPMpp2M(form="taylor", **OFF)),
    "rhoAB-2 is the Adams-Bashforth method LMS(2)": (solvers.RhoAB2(**OFF), solvers.RhoAB4(order=2, **OFF)),
    "RES-2S is DPM-Solver++(2S), taylor": (solvers.RES2S(c2=0.3), solvers.DPMpp2S(r=0.3, form="taylor")),
    "RES-3S is DPM-Solver++(3S), dpmsolver": (
        solvers.RES3S(c2=1 / 3, c3=2 / 3),
        solvers.DPMpp3S(r1=1 / 3, form="dpmsolver"),
    ),
    "DDIM(0) is DDIM": (solvers.DDIMEta(eta=0.0), solvers.DDIM()),
    "DPM-Solver++(2M) SDE without noise": (solvers.DPMpp2MSDE(eta=0.0), solvers.DPMpp2M()),
    "DPM-Solver++(3M) SDE without noise": (solvers.DPMpp3MSDE(eta=0.0), solvers.DPMpp3M(**OFF)),
    "DPM-Solver++ SDE without noise": (solvers.DPMppSDE(eta=0.0), solvers.DPMpp2S(form="dpmsolver")),
    "DPM-Solver++(2S) ancestral without noise": (solvers.DPMpp2SAncestral(eta=0.0), solvers.DPMpp2S(form="dpmsolver")),
    "SA-Solver's predictor without noise": (
        solvers.SASolver(tau=0.0, predictor_order=3, corrector_order=0),
        solvers.DPMpp3M(**OFF),
    ),
    "EDM without churn is Heun in sigma/alpha": (solvers.EDM(s_churn=0.0), solvers.RhoHeun()),
    "Restart nowhere is Heun in sigma/alpha": (solvers.Restart(intervals=()), solvers.RhoHeun()),
    "CAS that removes less than a step is DDIM": (solvers.CAS(epsilon=1e-9), solvers.DDIM()),
    "DDIM(1) is ancestral": (solvers.DDIMEta(eta=1.0), solvers.Ancestral()),
    "The prediction does not matter to DDIM's noise": (solvers.DPMpp2MSDE(**OFF), solvers.DPMpp2MSDE()),
}


by_process = pytest.mark.parametrize("process", PROCESSES)


@by_process
def test_names_of_one_method_are_the_same_step(process: str) -> None:
    sde = PROCESSES[process]
    for levels, table in ((ONE_STEP, FIRST_STEPS), (LEVELS, PAIRS)):
        for name, (one, other) in table.items():
            same(end(one, sde, levels), end(other, sde, levels), name)


@by_process
def test_er_sde_with_the_scale_of_the_flow_draws_nothing(process: str) -> None:
    """And with scale rho^2 it has ancestral's noise."""
    sde = PROCESSES[process]
    same(end(solvers.ERSDE1(scale=lambda rho: rho), sde), end("ddim", sde))
    same(end(solvers.ERSDE1(scale=lambda rho: rho**2), sde), end("ancestral", sde))
    for order, method in ((2, "dpmpp_2m"), (3, "dpmpp_3m")):
        flow = solvers.ERSDE3(order=order, scale=lambda rho: rho)
        difference = (end(flow, sde) - end(method, sde)).abs().max()
        assert 1e-6 < difference < 0.2, order  # interpolates in rho, not in lambda


def test_er_sde_refuses_an_invalid_scale() -> None:
    assert published_scale(2.0) == pytest.approx(2 * (math.exp(2**0.3) + 10))
    for scale in (lambda r: r**0.5, lambda r: r**400, lambda r: 0 * r, lambda r: -r, lambda r: float("nan")):
        with pytest.raises(scoresde.InvalidArgumentError, match="scale"):
            end(solvers.ERSDE2(scale=scale), PROCESSES["vp"])


STEPPED = [m for m in scoresde.methods() if not m.adaptive and m.kind != "backend"]
DRIFTS = {"euler_maruyama": "euler", "heun_sde": "heun"}


@by_process
def test_stochasticity_zero_is_the_probability_flow(process: str) -> None:
    """The same step as the deterministic method's where there is one; otherwise no draw reaches the result."""
    sde = PROCESSES[process]
    for name in (m.name for m in STEPPED if m.solver().takes_stochasticity):
        got = end(name, sde, stochasticity=0.0)
        if name in DRIFTS:
            same(got, end(DRIFTS[name], sde), name)
        else:
            same(got, end(name, sde, stochasticity=0.0, noise=lambda k, like: torch.ones_like(like)), name)


# What depends on the clock or on alpha: steps of drift and diffusion in t, x kept between levels, polynomials in t.
CLOCKED = {"euler_maruyama", "heun_sde", "sra1", "shark", "euler", "heun", "midpoint", "rk4", "rk45"}
CLOCKED |= {"reverse_diffusion", "pc", "langevin", "annealed_langevin", "ncsn", "tab2", "tab3", "tab4"}
CLOCKED |= {m.name for m in scoresde.methods() if m.kind == "backend"}  # other libraries step in time
FREE: dict[str, dict[str, Any]] = {m.name: {"method": m.name} for m in STEPPED if m.name not in CLOCKED}
FREE["pc with ancestral"] = {"method": "pc", "predictor": "ancestral"}
FREE["pc with ddim, then corrected"] = {"method": "pc", "predictor": "ddim", "order": "pc", "moves": 2}


def rescaled(sde: scoresde.AffineSDE, **options: Any) -> Tensor:
    """The end in y = x / alpha, from the same y, on the same levels."""
    times = sde.time(LEVELS)
    x = STARTS * float(torch.exp(-LEVELS[0] / 2)) * float(sde.alpha(times[0]))
    return scoresde.solve(sde, MIXTURE.score(sde), x, grid=times, noise=draws, **options).x / sde.alpha(times[-1])


@functools.cache
def on_ve(name: str) -> Tensor:
    return rescaled(PROCESSES["ve"], **FREE[name])


@pytest.mark.parametrize("process", [name for name in PROCESSES if name != "ve"])
def test_a_step_in_log_snr_is_the_same_on_every_process(process: str) -> None:
    """x / alpha on the same levels of log-SNR does not depend on alpha or on the clock."""
    for name, options in FREE.items():
        same(rescaled(PROCESSES[process], **options), on_ve(name), name, 1e-8)


@by_process
def test_edm_heun_is_its_published_loop(process: str) -> None:
    """Karras et al. (2022), algorithm 1 with their s(t) = alpha: Heun's method for dy/d rho = (y - D)/rho."""
    sde = PROCESSES[process]
    score = MIXTURE.score(sde)
    times = sde.time(LEVELS)
    rhos = torch.exp(-LEVELS / 2)

    def slope(y: Tensor, i: int) -> Tensor:
        alpha, sigma = float(sde.alpha(times[i])), float(sde.sigma(times[i]))
        denoised = (alpha * y + sigma**2 * score(alpha * y, float(times[i]))) / alpha
        return (y - denoised) / rhos[i]

    y = STARTS * rhos[0]
    for i in range(len(times) - 1):
        h = rhos[i + 1] - rhos[i]
        d = slope(y, i)
        y = y + 0.5 * h * (d + slope(y + h * d, i + 1))
    same(rescaled(sde, method="edm_heun"), y, rtol=1e-9)


def test_er_sde_of_a_process_with_much_noise() -> None:
    """Where the published scale overflows, rho being 2e9 or more, nothing is left of what was before."""
    for sde in (scoresde.VPSDE(beta_max=100.0), scoresde.FlowSDE(t_max=1 - 1e-10)):
        for method in ("er_sde1", "er_sde2", "er_sde3"):
            x = scoresde.solve(sde, lambda x, t: -x, method=method, steps=20, shape=(4, 3), seed=0).x
            assert bool(x.isfinite().all())


def test_the_ancestral_split_keeps_its_digits() -> None:
    """rho_dn^2 = rho_t^2 (1 - eta^2 + eta^2 e^{-2h})."""
    node = scoresde.EDMSDE().node(1.0)
    for h, eta in itertools.product([1e-3, 1.0, 13.8, 18.41, 50.0], [0.5, 0.999, 1.0]):
        got = split(node._replace(lam=-h), node._replace(lam=0.0), eta)[1]
        with localcontext() as context:
            context.prec = 60
            square = Decimal(eta) ** 2
            exact = -(1 - square + square * (-2 * Decimal(h)).exp()).ln() / 2
        assert got == pytest.approx(float(exact), rel=1e-13), (h, eta)


def test_the_third_order_sde_method_without_noise_starts_as_published() -> None:
    sde = PROCESSES["vp"]
    same(end(solvers.DPMpp3MSDE(eta=0.0), sde), end(solvers.DPMpp3M(start_up="published"), sde))
    with pytest.raises(scoresde.InvalidArgumentError, match="start_up"):
        solvers.DPMpp3MSDE(start_up="single")
