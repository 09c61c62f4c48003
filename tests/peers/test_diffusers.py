"""scoresde against the schedulers of diffusers, on the same noise levels with the same draws."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.solvers.base import StepResult
from scoresde.solvers.dpm_singlestep import minus, third_order
from scoresde.solvers.families.exponential import adams_weights, frame, interpolation_weights, moments, positions
from tests.peers.common import FLOW, SDE, Make, RhoABToTheEnd, TreePath, different, estimate, normals, ours, same

diffusers = pytest.importorskip("diffusers", exc_type=ImportError)
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler  # noqa: E402

pytestmark = [
    pytest.mark.peers,
    # diffusers would like its "dpmsolver" and "sde-dpmsolver" to be forgotten
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
LONG = 20  # from 15 steps on the "lower order at the end" of diffusers is off


def start() -> Tensor:
    """A state of x/alpha at the first level, in units of the level."""
    return normals(1, seed=7)[0]


def vp(rho: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha and sigma of a variance preserving process with sigma/alpha = rho."""
    alpha = (1 + rho * rho).rsqrt()
    return alpha, rho * alpha


def run_vp(scheduler: Any, prediction: str = "epsilon") -> tuple[Tensor, Tensor]:
    """The end state of a scheduler whose state is that of a VP process, as x/alpha, and its noise levels."""
    rho = scheduler.sigmas
    scheduler.set_begin_index(0)
    x = vp(rho[0])[0] * rho[0] * start()
    for k, t in enumerate(scheduler.timesteps):
        alpha, sigma = vp(rho[k])
        data, noise = estimate(x, alpha, sigma)
        said = {"epsilon": noise, "sample": data, "v_prediction": alpha * noise - sigma * data}
        x = scheduler.step(said[prediction], t, x).prev_sample
    return x / vp(rho[-1])[0], rho


def run_edm(scheduler: Any, levels: Tensor | None = None, stop: int | None = None) -> Tensor:
    """The end state of a scheduler whose state is x/alpha; ``levels`` are where it evaluates."""
    levels = scheduler.sigmas if levels is None else levels
    scheduler.set_begin_index(0)
    x = levels[0] * start()
    for k, t in enumerate(scheduler.timesteps[:stop]):
        scheduler.scale_model_input(x, t)
        x = scheduler.step(estimate(x, 1.0, levels[k]).noise, t, x).prev_sample
    return x


def run_steps(scheduler: Any, final: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The same for schedulers that know alpha-bar at integer times only."""
    bars = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], final[None]])
    rho = ((1 - bars) / bars).sqrt()
    x = bars[0].sqrt() * rho[0] * start()
    for k, t in enumerate(scheduler.timesteps):
        eps = estimate(x, bars[k].sqrt(), (1 - bars[k]).sqrt()).noise
        more = {name: values[k] for name, values in options.items() if name != "eta"}
        more |= {"eta": options["eta"]} if "eta" in options else {}
        x = scheduler.step(eps, int(t), x, **more).prev_sample
    return x / final.sqrt(), rho


def levels_of(rho: Tensor) -> Tensor:
    """Without levels that come twice, as the last one does in some grids of diffusers."""
    keep = torch.ones(len(rho), dtype=torch.bool)
    keep[1:] = rho[1:] < rho[:-1] * (1 - 1e-9)
    return rho[keep]


# DDIM and DDPM


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim(make: Make, eta: float, steps: int, to_one: bool) -> None:
    """With "leading" spacing; with "linspace" its steps do not end where the next begin."""
    scheduler = make("DDIMScheduler", clip_sample=False, set_alpha_to_one=to_one, steps_offset=1, **BETAS, steps=steps)
    draws = normals(steps)
    noise = {"eta": eta, "variance_noise": draws} if eta else {}
    other, rho = run_steps(scheduler, scheduler.final_alpha_cumprod, **noise)
    x = rho[0] * start()
    mine = ours("ddim_eta", rho, x, draws, eta=eta) if eta else ours("ddim", rho, x)
    same("DDIM(eta) = ddim_eta" if eta else "DDIM = ddim", mine, other)
    if eta == 1.0:
        same("DDIM(eta=1) = ancestral", ours("ancestral", rho, x, draws), other)


def test_ddim_on_its_linspace_grid(make: Make) -> None:
    """There a step begins at 1000 (k-1)/(N-1) - 1 and ends 1000/N below, so that the end of a step is not the start of
    the next: no solver of one grid does this, and it is no solve of the process. Steps from there to there, with the
    state taken to be of the next level as it is, are the same."""
    scheduler = make("DDIMScheduler", clip_sample=False, timestep_spacing="linspace", **BETAS, steps=10)
    other, rho = run_steps(scheduler, scheduler.final_alpha_cumprod)
    different('DDIM(timestep_spacing="linspace")', ours("ddim", rho, rho[0] * start()), other)
    x = vp(rho[0])[0] * rho[0] * start()
    for t in scheduler.timesteps:
        ends = (
            scheduler.alphas_cumprod[t],
            scheduler.alphas_cumprod[t - 100] if t >= 100 else scheduler.final_alpha_cumprod,
        )
        alphas = torch.stack(ends).sqrt()
        x = alphas[1] * ours("ddim", (1 - alphas**2).sqrt() / alphas, x / alphas[0])
    same('DDIM(timestep_spacing="linspace"), step by step = ddim', x, other)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("theirs", "variance"), [("fixed_small", "small"), ("fixed_small_log", "small"), ("fixed_large", "large")]
)
def test_ddpm(make: Make, theirs: str, variance: str, spacing: str) -> None:
    """Ours is on the chain itself, as the large variance is not that of the same step of x/alpha. Their variance is
    never less than 1e-20, and a last step from t > 0 draws such a noise; with the large variance one of beta, where
    ours, as the published code, gives the data."""
    draws = normals(20)
    options = {"clip_sample": False, "timestep_spacing": spacing, "variance_type": theirs}
    scheduler = make("DDPMScheduler", draws, **options, **BETAS, steps=20)
    other, rho = run_steps(scheduler, scheduler.one)
    if variance == "large" and spacing == "trailing":
        other = other - vp(rho[-2])[1] * draws[-1]
    sde = scoresde.discrete.BetaChain(scheduler.betas).sde()
    x = vp(rho[0])[1] * start()
    more = {"sde": sde, "denoise": True, "variance": variance}
    mine = ours("ancestral", scheduler.timesteps.double(), x, draws, **more)
    same(f"DDPM({theirs}) = ancestral({variance})", mine, other)


# DPM-Solver in multiple steps

FORMS = {"midpoint": "dpmsolver", "heun": "taylor"}
ORDERS = [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "heun")]  # (3, "midpoint") has tests of its own
orders_and_types = pytest.mark.parametrize(("order", "solver_type"), ORDERS)
step_counts = pytest.mark.parametrize("steps", [8, LONG])


def label(order: int, solver_type: str) -> str:
    """Where the type makes a difference."""
    return f"{order}, {solver_type}" if order == 2 else f"{order}"


@pytest.mark.parametrize("grid", [{}, {"use_karras_sigmas": True}, {"use_lu_lambdas": True}])
@step_counts
@orders_and_types
def test_dpm_multistep(make: Make, order: int, solver_type: str, steps: int, grid: dict[str, Any]) -> None:
    """With fewer than 15 steps the last two have lower orders, as ours with ``lower_order_final``. Order 3 is the
    published one."""
    other, rho = run_vp(
        make("DPMSolverMultistepScheduler", solver_order=order, solver_type=solver_type, **grid, **BETAS, steps=steps)
    )
    mine = dpm("dpmpp", order, rho, FORMS[solver_type], short=steps < 15)
    same(f"DPMSolverMultistep(dpmsolver++, {label(order, solver_type)})", mine, other)


@step_counts
@orders_and_types
def test_dpm_multistep_in_the_noise(make: Make, order: int, solver_type: str, steps: int) -> None:
    """Their "dpmsolver" must end above sigma = 0."""
    options = {"algorithm_type": "dpmsolver", "solver_order": order, "solver_type": solver_type}
    other, rho = run_vp(
        make("DPMSolverMultistepScheduler", **options, final_sigmas_type="sigma_min", **BETAS, steps=steps)
    )
    mine = dpm("dpm", order, rho, FORMS[solver_type], short=steps < 15)
    same(f"DPMSolverMultistep(dpmsolver, {label(order, solver_type)})", mine, other)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_predictions(make: Make, prediction: str) -> None:
    """Their names of what a network says are our "noise", "data" and "v", with the same signs."""
    scheduler = make("DPMSolverMultistepScheduler", prediction_type=prediction, **BETAS, steps=8)
    other, rho = run_vp(scheduler, prediction)
    same("prediction types", dpm("dpmpp", 2, rho, "dpmsolver", short=True), other)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep"])
def test_flow_sigmas(make: Make, name: str, order: int) -> None:
    """The same methods where alpha = 1 - sigma; ours on `FlowSDE` itself."""
    options = {"solver_order": order, "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    options |= {"solver_type": "heun"} if name == "DPMSolverMultistep" else {}
    scheduler = make(f"{name}Scheduler", **options, **BETAS, steps=8)
    scheduler.set_begin_index(0)
    other = run_flow(scheduler)
    more: dict[str, Any] = {"start_up": "published", "lower_order_final": True}
    if name == "UniPCMultistep":
        method = f"unipc{order}"
    else:
        method = "ddim" if order == 1 else f"dpmpp_{order}m"
        more = {} if order == 1 else more | ({"form": "taylor"} if order == 2 else {"variant": "published"})
    same(f"{name}(use_flow_sigmas, {order})", ours(method, scheduler.sigmas, start(), sde=FLOW, **more), other)


def dpm(family: str, order: int, rho: Tensor, form: str, short: bool, **options: Any) -> Tensor:
    """The multistep method of an order, as published."""
    x = rho[0] * start()
    if order == 1:
        return ours("ddim", rho, x)
    options |= {"start_up": "published", "lower_order_final": short}
    options |= {"form": form} if order == 2 else {"variant": "published"}
    return ours(f"{family}_{order}m", rho, x, **options)


@dataclasses.dataclass(frozen=True)
class Midpoint3M(scoresde.solvers.DPMpp3M):
    """Steps of order 2 in the form that they do not have in a solve of order 3."""

    def advance(self, process: Any, x: Tensor, stop: Any, history: Any) -> Tensor:
        two = scoresde.solvers.DPMpp2M(form="dpmsolver")
        return (two if len(history.nodes) == 2 else super()).advance(process, x, stop, history)


@step_counts
def test_dpm_multistep_3_with_midpoint(make: Make, steps: int) -> None:
    """solver_type="midpoint" sets the form of the steps of order 2 at both ends of a solve of order 3: half phi_1 in
    place of phi_2. Ours, and the published code, take phi_2 there ("heun")."""
    other, rho = run_vp(
        make("DPMSolverMultistepScheduler", solver_order=3, final_sigmas_type="sigma_min", **BETAS, steps=steps)
    )
    short = steps < 15
    different("DPMSolverMultistep(3, midpoint)", dpm("dpmpp", 3, rho, "taylor", short), other, least=1e-6)
    method = Midpoint3M(variant="published", start_up="published", lower_order_final=short)
    same("DPMSolverMultistep(3, midpoint), with 1/2 phi_1", ours(method, rho, rho[0] * start()), other)


def test_dpm_multistep_3_lacks_half_of_the_second_derivative(make: Make) -> None:
    """In diffusers as in the official code, which makes the order 2; ours has all of it unless told otherwise."""
    other, rho = run_vp(make("DPMSolverMultistepScheduler", solver_order=3, solver_type="heun", **BETAS, steps=LONG))
    mine = ours("dpmpp_3m", rho, rho[0] * start(), start_up="published")
    different("DPMSolverMultistep(dpmsolver++, 3) and dpmpp_3m(corrected)", mine, other)


@step_counts
@pytest.mark.parametrize(("order", "solver_type"), ORDERS[:3])
@pytest.mark.parametrize("kind", ["sde-dpmsolver", "sde-dpmsolver++"])
def test_dpm_multistep_sde(make: Make, kind: str, order: int, solver_type: str, steps: int) -> None:
    end = "zero" if kind == "sde-dpmsolver++" else "sigma_min"
    options = {"algorithm_type": kind, "solver_order": order, "solver_type": solver_type, "final_sigmas_type": end}
    draws = normals(steps)
    other, rho = run_vp(make("DPMSolverMultistepScheduler", draws, **options, **BETAS, steps=steps))
    x = rho[0] * start()
    if order == 1:
        mine = ours("ancestral" if kind == "sde-dpmsolver++" else "seeds1", rho, x, draws)
    else:
        prediction = "data" if kind == "sde-dpmsolver++" else "noise"
        more = {"form": FORMS[solver_type], "lower_order_final": steps < 15}
        mine = ours("dpmpp_2m_sde", rho, x, draws, prediction=prediction, **more)
    same(f"DPMSolverMultistep({kind}, {label(order, solver_type)})", mine, other)


@dataclasses.dataclass(frozen=True)
class Minus3MSDE(scoresde.solvers.DPMpp3MSDE):
    """With alpha D2 less in a step, as diffusers has it."""

    def advance(self, process: Any, x: Tensor, stop: Any, history: Any) -> Tensor:
        moved = StepResult(super().advance(process, x, stop, history), None).x
        if len(history.nodes) < 3:
            return moved
        (m0, m1, m2), (n0, n1, n2) = history.values, history.nodes
        h = stop.lam - n0.lam
        r0, r1 = (n0.lam - n1.lam) / h, (n1.lam - n2.lam) / h
        return moved - stop.alpha * ((m0 - m1) / r0 - (m1 - m2) / r1) / (r0 + r1)


@step_counts
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_dpm_multistep_sde_3(make: Make, end: str, steps: int) -> None:
    """Their weight of D2 is alpha [(1 - e^(-2h) - 2h)/(2h)^2 - 1/2], which goes to -alpha as h goes to 0; integrating
    D2 gives + 1/2 in place of - 1/2, of order h. The difference in a step is therefore alpha D2."""
    draws = normals(steps)
    options = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun", "final_sigmas_type": end}
    other, rho = run_vp(make("DPMSolverMultistepScheduler", draws, **options, **BETAS, steps=steps))
    more = {"variant": "published", "start_up": "published", "lower_order_final": steps < 15}
    different(
        "DPMSolverMultistep(sde-dpmsolver++, 3)", ours("dpmpp_3m_sde", rho, rho[0] * start(), draws, **more), other
    )
    mine = ours(Minus3MSDE(**more), rho, rho[0] * start(), draws)
    same("DPMSolverMultistep(sde-dpmsolver++, 3), alpha D2 less", mine, other)


# DPM-Solver in single steps


@pytest.mark.parametrize("steps", [7, 13])
@orders_and_types
@pytest.mark.parametrize("kind", ["dpmsolver", "dpmsolver++"])
def test_dpm_singlestep(make: Make, kind: str, order: int, solver_type: str, steps: int) -> None:
    """Their inner nodes are the nodes of the grid, so that order p takes every p-th node of a grid even in the log-SNR,
    where they lie at 1/2, or at 1/3 and 2/3."""
    end = "zero" if kind == "dpmsolver++" else "sigma_min"
    other, rho = run_vp(singlestep(make, kind, order, solver_type, end, steps))
    family = "dpm" if kind == "dpmsolver" else "dpmpp"
    options = {"form": FORMS[solver_type]} if order > 1 else {}
    mine = ours("ddim" if order == 1 else f"{family}_{order}s", every(rho, order), rho[0] * start(), **options)
    same(f"DPMSolverSinglestep({kind}, {label(order, solver_type)})", mine, other)


def singlestep(make: Make, kind: str, order: int, solver_type: str, end: str, steps: int, **more: Any) -> Any:
    """A scheduler on a grid even in the log-SNR."""
    options = {"algorithm_type": kind, "solver_order": order, "solver_type": solver_type, "final_sigmas_type": end}
    options |= {"lower_order_final": True, "use_exponential_sigmas": True}
    scheduler = make("DPMSolverSinglestepScheduler", **options, **more, **BETAS, steps=steps)
    return scheduler


def every(rho: Tensor, order: int) -> Tensor:
    """Every p-th of the levels before the last, and the last."""
    return levels_of(torch.cat([rho[:-1:order], rho[-1:]]))


@dataclasses.dataclass(frozen=True)
class Midpoint3S(scoresde.solvers.DPMpp3S):
    """With half phi_1 in the second stage."""

    @property
    def tableau(self) -> Any:
        own = third_order(self.r1, 2 / 3, self.form)
        lift = ((1, 0.5 * (2 / 3) ** 2 / self.r1, 2 / 3),)
        return own._replace(a=(*own.a[:2], (((1, 2 / 3, 2 / 3), *minus(lift)), lift)))


@pytest.mark.parametrize("kind", ["dpmsolver", "dpmsolver++"])
def test_dpm_singlestep_3_with_midpoint(make: Make, kind: str) -> None:
    """The state at the second inner node is made by a step of order 2 of the same solver_type, with half phi_1 in place
    of phi_2 for "midpoint"; the paper has phi_2 there, in both forms, and so have we."""
    end = "zero" if kind == "dpmsolver++" else "sigma_min"
    other, rho = run_vp(singlestep(make, kind, 3, "midpoint", end, 7))
    prediction = "data" if kind == "dpmsolver++" else "noise"
    method = scoresde.solvers.DPMpp3S(form="dpmsolver", prediction=prediction)
    different(f"DPMSolverSinglestep({kind}, 3, midpoint)", ours(method, every(rho, 3), rho[0] * start()), other)
    method = Midpoint3S(form="dpmsolver", prediction=prediction)
    same(
        f"DPMSolverSinglestep({kind}, 3, midpoint), with 1/2 phi_1",
        ours(method, every(rho, 3), rho[0] * start()),
        other,
    )


@dataclasses.dataclass(frozen=True)
class Anywhere3S(scoresde.solvers.DPMpp3S):
    """With the second inner node where it is put; off 2/3 the order is 2."""

    form: str = "taylor"
    r2: float = 2 / 3

    @property
    def tableau(self) -> Any:
        return third_order(self.r1, self.r2, self.form)


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_singlestep_on_an_uneven_grid(make: Make, order: int) -> None:
    """Off grids even in the log-SNR their inner nodes lie elsewhere in every step; ours are always at the same place,
    for which order 3 is proven (2/3 is needed)."""
    options = {"solver_order": order, "solver_type": "heun", "lower_order_final": True}
    other, rho = run_vp(make("DPMSolverSinglestepScheduler", **options, **BETAS, steps=13))
    mine = ours(f"dpmpp_{order}s", every(rho, order), rho[0] * start(), form="taylor")
    different(f"DPMSolverSinglestep({order}), uneven grid", mine, other)
    # step by step, each with the places of its own inner nodes
    x, lam = rho[0] * start(), -rho.log()
    for k in range(0, 12, order):
        r = [float((lam[k + i] - lam[k]) / (lam[k + order] - lam[k])) for i in range(1, order)]
        method = scoresde.solvers.DPMpp2S(r=r[0]) if order == 2 else Anywhere3S(r1=r[0], r2=r[1])
        x = ours(method, rho[[k, k + order]], x)
    mine = ours("ddim", rho[[12, 13]], x)
    same(f"DPMSolverSinglestep({order}), uneven grid, step by step", mine, other)


def test_dpm_singlestep_sde(make: Make) -> None:
    """Order 1 is ancestral sampling. At order 2 they draw the noise of the stage and that of the whole step
    independently, which has weak order 1; with one Brownian path for both, as in ``dpmpp_sde`` and ``seeds2``, it is 2.
    With draws that undo the path the two are the same."""
    draws = normals(7)
    other, rho = run_vp(make_singlestep_sde(make, draws, 1))
    same("DPMSolverSinglestep(sde-dpmsolver++, 1) = ancestral", ours("ancestral", rho, rho[0] * start(), draws), other)
    other, rho = run_vp(make_singlestep_sde(make, draws, 2))
    mine = ours("dpmpp_sde", every(rho, 2), rho[0] * start(), draws)
    different("DPMSolverSinglestep(sde-dpmsolver++, 2)", mine, other)
    undone = [z for k in (0, 2, 4) for z in undo(rho[k : k + 3], draws[k : k + 2])]
    mine = ours("dpmpp_sde", every(rho, 2), rho[0] * start(), [*undone, draws[-1]])
    same("DPMSolverSinglestep(sde-dpmsolver++, 2) = dpmpp_sde, independent draws", mine, other)


def test_dpm_singlestep_sde_3(make: Make) -> None:
    """At order 3, too, every stage has a noise of its own. By hand: ancestral sampling to the first stage, the step of
    order 2 above to the second, and from there the step with a line through the estimates at its ends."""
    draws = normals(7)
    other, rho = run_vp(make_singlestep_sde(make, draws, 3))
    x = rho[0] * start()
    for k in (0, 3):
        middle = undo(rho[k : k + 3], draws[k : k + 2])
        second = ours("dpmpp_sde", rho[[k, k + 2]], x, middle)
        nodes = [SDE.node(float(rho[k + i])) for i in (0, 2, 3)]
        part = frame("data", nodes[0], nodes[2], 1.0)
        weights = adams_weights(positions([n.lam for n in nodes[:2]], nodes[0].lam, part.h), part.z)
        data = [estimate(x, 1.0, rho[k]).data, estimate(second, 1.0, rho[k + 2]).data]
        x = (
            part.keep * x
            + part.gain * part.h * (weights[0] * data[0] + weights[1] * data[1])
            + part.spread * draws[k + 2]
        )
    same("DPMSolverSinglestep(sde-dpmsolver++, 3), by hand", ours("ancestral", rho[-2:], x, draws), other)


def undo(rho: Tensor, draws: Sequence[Tensor]) -> list[Tensor]:
    """Draws with which the noise of the whole of a step is the second of the given ones, not a path's through the
    first."""
    before = (rho[0] - rho[1]) / (rho[0] - rho[2])
    return [draws[0], (draws[1] - before.sqrt() * draws[0]) / (1 - before).sqrt()]


def make_singlestep_sde(make: Make, draws: list[Tensor], order: int) -> Any:
    """The stochastic one."""
    options = {"algorithm_type": "sde-dpmsolver++", "solver_order": order, "lower_order_final": True}
    scheduler = make("DPMSolverSinglestepScheduler", draws, **options, use_exponential_sigmas=True, **BETAS, steps=7)
    return scheduler


# UniPC and DEIS


def unipc(make: Make, order: int, variant: str, prediction: str, steps: int, end: str, lower: bool) -> Any:
    """A scheduler on its default grid."""
    options = {"solver_order": order, "solver_type": variant, "predict_x0": prediction == "data"}
    options |= {"lower_order_final": lower, "final_sigmas_type": end}
    scheduler = make("UniPCMultistepScheduler", **options, **BETAS, steps=steps)
    return scheduler


def our_unipc(order: int, variant: str, prediction: str, rho: Tensor, lower: bool) -> Tensor:
    """The same, as published."""
    options = {"prediction": prediction, "variant": variant, "lower_order_final": lower, "start_up": "published"}
    return ours(f"unipc{order}", rho, rho[0] * start(), **options)


@step_counts
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_unipc(make: Make, prediction: str, order: int, variant: str, steps: int) -> None:
    other, rho = run_vp(unipc(make, order, variant, prediction, steps, "sigma_min", lower=False))
    same(f"UniPC({variant}, {prediction}, {order})", our_unipc(order, variant, prediction, rho, lower=False), other)


@dataclasses.dataclass(frozen=True)
class Lowered(scoresde.solvers.UniPC):
    """With a corrector of the order of the step that it corrects, near the end too."""

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> Any:
        left = process.nodes.steps_left(stop)
        history, _ = yield from self.look(process, x, start, state)
        few = type(history)(history.nodes[: left + 1], history.values[: left + 1])
        return (yield from super().step(process, x, start, stop, few))


@step_counts
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_unipc_with_lower_orders_at_the_end(make: Make, prediction: str, order: int, variant: str, steps: int) -> None:
    """At order 3 the last correction, in the last step but one, is with all nodes here, and with those of the lowered
    predictor there. It matters only above sigma = 0: a last step to 0 gives the data, whatever it starts from."""
    name = f"UniPC({variant}, {prediction}, {order}, lower orders at the end)"
    other, rho = run_vp(unipc(make, order, variant, prediction, steps, "sigma_min", lower=True))
    mine = our_unipc(order, variant, prediction, rho, lower=True)
    if order < 3:
        same(name, mine, other)
        return
    different(name, mine, other)
    options = {"prediction": prediction, "variant": variant, "lower_order_final": True, "start_up": "published"}
    same(f"{name}, of the corrector too", ours(Lowered(order=3, **options), rho, rho[0] * start()), other)


@step_counts
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_to_sigma_0(make: Make, order: int, steps: int) -> None:
    """Their "bh1" ends with inf times 0 there, ours with a step of DDIM in either variant."""
    other, rho = run_vp(unipc(make, order, "bh2", "data", steps, "zero", lower=True))
    same(f"UniPC(bh2, data, {order}, to sigma = 0)", our_unipc(order, "bh2", "data", rho, lower=True), other)
    other, rho = run_vp(unipc(make, order, "bh1", "data", steps, "zero", lower=True))
    assert bool(other.isnan().all())
    assert bool(our_unipc(order, "bh1", "data", rho, lower=True).isfinite().all())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unip(make: Make, order: int) -> None:
    """The predictor alone."""
    options = {"solver_order": order, "disable_corrector": list(range(LONG)), "final_sigmas_type": "zero"}
    other, rho = run_vp(make("UniPCMultistepScheduler", **options, **BETAS, steps=LONG))
    x = rho[0] * start()
    more = {"lower_order_final": True, "start_up": "published"}
    mine = ours("ddim", rho, x) if order == 1 else ours(f"unip{order}", rho, x, **more)
    same(f"UniPC(no corrector, {order}) = unip", mine, other)


@step_counts
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(make: Make, order: int, steps: int) -> None:
    """It interpolates the noise in ln(sigma/alpha), so it is the exponential Adams method in the noise: ``dpm_2m``
    in its "taylor" form, ``dpm_3m`` with all of the second derivative. ``tab`` interpolates in time and ``rho_ab`` in
    sigma/alpha, as the paper's tAB and rhoAB; they are other methods."""
    other, rho = run_vp(make("DEISMultistepScheduler", solver_order=order, **BETAS, steps=steps))
    x = rho[0] * start()
    if order == 1:
        same("DEIS(1) = ddim", ours("ddim", rho, x), other)
        return
    more = {"start_up": "published", "lower_order_final": steps < 15}
    more |= {"form": "taylor"} if order == 2 else {}
    same(f"DEIS({order}) = dpm_{order}m", ours(f"dpm_{order}m", rho, x, **more), other)
    mine = ours(f"rho_ab{order}", rho, x, start_up="published", lower_order_final=steps < 15)
    different(f"DEIS({order}) and rho_ab{order}", mine, other)


# Schedulers of x/alpha


def twice(make: Make, name: str, steps: int, **options: Any) -> tuple[Any, Tensor]:
    """A scheduler, and the levels of its grid, each once."""
    scheduler = make(name, **options, **BETAS, steps=steps)
    return scheduler, levels_of(scheduler.sigmas)


@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}])
def test_heun_discrete(make: Make, options: dict[str, Any]) -> None:
    scheduler, rho = twice(make, "HeunDiscreteScheduler", 12, **options)
    same("HeunDiscrete = rho_heun", ours("rho_heun", rho, rho[0] * start()), run_edm(scheduler))


@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}])
def test_euler_discrete(make: Make, options: dict[str, Any]) -> None:
    """Without churn; with it see the k-diffusion tests."""
    scheduler, rho = twice(make, "EulerDiscreteScheduler", 12, **options)
    same("EulerDiscrete = ddim", ours("ddim", rho, rho[0] * start()), run_edm(scheduler))


def test_euler_ancestral_discrete(make: Make) -> None:
    draws = normals(12)
    scheduler = make("EulerAncestralDiscreteScheduler", draws, **BETAS, steps=12)
    rho = scheduler.sigmas
    mine = ours("ancestral", rho, rho[0] * start(), draws)
    same("EulerAncestralDiscrete = ancestral", mine, run_edm(scheduler))


def test_lms_discrete(make: Make) -> None:
    """Up to the last step, which goes to sigma = 0: theirs has full order, ours is one of DDIM."""
    scheduler, rho = twice(make, "LMSDiscreteScheduler", 12)
    mine = ours("rho_ab4", rho[:-1], rho[0] * start(), start_up="published")
    same("LMSDiscrete = rho_ab4", mine, run_edm(scheduler, stop=-1))
    scheduler, rho = twice(make, "LMSDiscreteScheduler", 12)
    other = run_edm(scheduler)
    different("LMSDiscrete to sigma = 0", ours("rho_ab4", rho, rho[0] * start(), start_up="published"), other)
    mine = ours(RhoABToTheEnd(order=4, start_up="published"), rho, rho[0] * start())
    same("LMSDiscrete to sigma = 0, with a step of full order", mine, other)


def test_kdpm2_discrete(make: Make) -> None:
    scheduler, rho = twice(make, "KDPM2DiscreteScheduler", 12)
    levels = scheduler.sigmas.clone()
    levels[1::2] = scheduler.sigmas_interpol[1::2]
    mine = ours("dpm_2s", rho, rho[0] * start(), form="dpmsolver")
    same("KDPM2Discrete = dpm_2s", mine, run_edm(scheduler, levels))


def test_kdpm2_ancestral_discrete(make: Make) -> None:
    """As k-diffusion's ``sample_dpm_2_ancestral``: DPM-Solver-2 to the lower level, then the noise."""
    draws = normals(11)
    scheduler = make("KDPM2AncestralDiscreteScheduler", draws, **BETAS, steps=12)
    levels = scheduler.sigmas.clone()
    levels[1::2] = scheduler.sigmas_interpol[0::2]
    other = run_edm(scheduler, levels)
    rho = levels_of(scheduler.sigmas)
    x = rho[0] * start()
    for k, z in enumerate(draws):
        up = rho[k + 1] * (1 - (rho[k + 1] / rho[k]) ** 2).sqrt()
        down = rho[k + 1] ** 2 / rho[k]
        x = ours("dpm_2s", torch.stack([rho[k], down]), x, form="dpmsolver") + up * z
    same("KDPM2AncestralDiscrete = dpm_2s, noise by hand", ours("ddim", rho[-2:], x), other)
    mine = ours("dpmpp_2s_ancestral", rho, rho[0] * start(), normals(12))
    different("KDPM2AncestralDiscrete and dpmpp_2s_ancestral", mine, other)


def test_dpm_solver_sde(make: Make) -> None:
    """The noises of half a step and of the whole from one path over sigma, as in ``dpmpp_sde``; theirs is the Brownian
    tree that it uses by default."""
    scheduler, rho = twice(make, "DPMSolverSDEScheduler", 12)
    path = TreePath(BrownianTreeNoiseSampler, rho[0])
    scheduler.noise_sampler = path
    levels = scheduler.sigmas.clone()
    levels[1:-1:2] = (scheduler.sigmas[:-2:2] * scheduler.sigmas[1:-1:2]).sqrt()
    other = run_edm(scheduler, levels)
    same("DPMSolverSDE = dpmpp_sde", ours("dpmpp_sde", rho, rho[0] * start(), path.draws()), other)


@pytest.mark.parametrize("steps", [8, LONG])
def test_cosine_dpm_multistep(make: Make, steps: int) -> None:
    """A scheduler of 2M SDE alone, with its Brownian tree over sigma."""
    scheduler = make("CosineDPMSolverMultistepScheduler", prediction_type="epsilon", steps=steps)
    rho = scheduler.sigmas
    path = TreePath(BrownianTreeNoiseSampler, rho[0])
    scheduler.noise_sampler = path
    scheduler.set_begin_index(0)
    x = rho[0] * start()
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.step(raw_output(scheduler, x, rho[k]), t, x).prev_sample
    more = {"form": "dpmsolver", "lower_order_final": steps < 15}
    mine = ours("dpmpp_2m_sde", rho, rho[0] * start(), path.draws(), **more)
    same("CosineDPMSolverMultistep = dpmpp_2m_sde", mine, x)


def run_preconditioned(scheduler: Any) -> tuple[Tensor, Tensor]:
    """The end state of a scheduler that wants EDM's raw output F: D = c_skip x + c_out F."""
    rho = scheduler.sigmas
    scheduler.set_begin_index(0)
    x = rho[0] * start()
    for k, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, t)
        x = scheduler.step(raw_output(scheduler, x, rho[k]), t, x).prev_sample
    return x, rho


def raw_output(scheduler: Any, x: Tensor, sigma: Tensor) -> Tensor:
    """EDM's F at a state."""
    q2 = sigma**2 + scheduler.config.sigma_data**2
    skip, out = scheduler.config.sigma_data**2 / q2, sigma * scheduler.config.sigma_data / q2.sqrt()
    return (estimate(x, 1.0, sigma).data - skip * x) / out


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm_euler(make: Make, schedule: str) -> None:
    other, rho = run_preconditioned(make("EDMEulerScheduler", sigma_schedule=schedule, steps=12))
    same("EDMEuler = ddim", ours("ddim", rho, rho[0] * start()), other)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EDMEulerScheduler"])
def test_churn(make: Make, name: str) -> None:
    """Their churn comes after the network was asked, at the level and the state before it; EDM, k-diffusion and we ask
    at the churned state. Asked there, they are churn before a step of DDIM."""

    def run(churned: bool) -> tuple[Tensor, Tensor]:
        scheduler = make(name, normals(12), **({} if name.startswith("EDM") else BETAS), steps=12)
        scheduler.set_begin_index(0)
        rho = scheduler.sigmas
        x, y = rho[0] * start(), rho[0] * start()
        for k, (t, z) in enumerate(zip(scheduler.timesteps, normals(12), strict=True)):
            scheduler.scale_model_input(x, t)
            hat = rho[k] * (1 + min(3.0 / 12, 2**0.5 - 1))
            spread = (hat**2 - rho[k] ** 2).sqrt() * z
            at = (x + spread, hat) if churned else (x, rho[k])
            said = raw_output(scheduler, *at) if name.startswith("EDM") else estimate(at[0], 1.0, at[1]).noise
            x = scheduler.step(said, t, x, s_churn=3.0).prev_sample
            y = ours("ddim", torch.stack([hat, rho[k + 1]]), y + spread)
        return y, x

    short = name.removesuffix("Scheduler")
    different(f"{short}(s_churn)", *run(churned=False))
    same(f"{short}(s_churn), evaluated after the churn = churn by hand, ddim", *run(churned=True))


@step_counts
@orders_and_types
def test_edm_dpm_multistep(make: Make, order: int, solver_type: str, steps: int) -> None:
    other, rho = run_preconditioned(
        make("EDMDPMSolverMultistepScheduler", solver_order=order, solver_type=solver_type, steps=steps)
    )
    mine = dpm("dpmpp", order, rho, FORMS[solver_type], short=steps < 15)
    same(f"EDMDPMSolverMultistep(dpmsolver++, {label(order, solver_type)})", mine, other)


@step_counts
@pytest.mark.parametrize("solver_type", FORMS)
def test_edm_dpm_multistep_sde(make: Make, solver_type: str, steps: int) -> None:
    draws = normals(steps)
    options = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": solver_type}
    other, rho = run_preconditioned(make("EDMDPMSolverMultistepScheduler", draws, **options, steps=steps))
    more = {"form": FORMS[solver_type], "lower_order_final": steps < 15}
    mine = ours("dpmpp_2m_sde", rho, rho[0] * start(), draws, **more)
    same(f"EDMDPMSolverMultistep(sde-dpmsolver++, 2, {solver_type})", mine, other)


def test_edm_dpm_multistep_sde_3(make: Make) -> None:
    """There is no formula for it, and a step fails."""
    options = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"}
    with pytest.raises(UnboundLocalError):
        run_preconditioned(make("EDMDPMSolverMultistepScheduler", normals(8), **options, steps=8))


# SA-Solver


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
def test_sa_solver_of_order_1(make: Make, tau: float) -> None:
    draws = normals(LONG)
    options = {"predictor_order": 1, "corrector_order": 1, "tau_func": lambda t: torch.tensor(tau)}
    other, rho = run_vp(make("SASolverScheduler", draws, **options, **BETAS, steps=LONG))
    same("SASolver(1, 1)", ours("sa_solver", rho, rho[0] * start(), draws, tau=tau, **orders(1, 1)), other)


def orders(p: int, c: int) -> dict[str, int]:
    """The options of ``sa_solver``."""
    return {"predictor_order": p, "corrector_order": c}


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sa_solver_weights(make: Make, order: int, tau: float) -> None:
    """The weights of a step, at every order. Solves of order 2 and more are not the same, see the next test."""
    scheduler = make("SASolverScheduler", **BETAS)
    nodes = [SDE.node(rho) for rho in (1.0, 1.3, 2.0, 3.2)[:order]]
    stop, tau_ = SDE.node(0.7), torch.tensor(tau)
    part = frame("data", nodes[0], stop, tau)
    weights = adams_weights(positions([n.lam for n in nodes], nodes[0].lam, part.h), part.z)
    lams = [torch.tensor(n.lam) for n in nodes]
    other = scheduler.get_coefficients_fn(order, lams[0], torch.tensor(stop.lam), lams, tau_)
    scale = (1 + tau**2) * stop.sigma * np.exp(-(tau**2) * stop.lam)
    mine = torch.tensor([part.gain * part.h * w for w in weights])
    same(f"SASolver, weights of order {order}", mine, scale * torch.stack(other))


@dataclasses.dataclass(frozen=True)
class HalvedSA(scoresde.solvers.SASolver):
    """With 1/2 in place of phi_2 in the steps with two nodes, and correctors that are lowered near the end too."""

    def weights(self, r: Any, z: Any) -> Any:
        return super().weights(r, z) if len(r) != 2 else interpolation_weights(r, [moments(1, z)[0], 0.5])

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> Any:
        left = process.nodes.steps_left(stop)
        history, _ = yield from self.look(process, x, start, state)
        few = type(history)(history.nodes[: left + 1], history.values[: left + 1])
        return (yield from super().step(process, x, start, stop, few))


@step_counts
@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("p", "c"), [(2, 2), (3, 3), (3, 4)])
def test_sa_solver_of_higher_order(make: Make, p: int, c: int, tau: float, steps: int) -> None:
    """In steps with two nodes their code replaces the integral of e^(..) (lambda - lambda_s), which is h^2 phi_2 up to
    a factor, by h^2/2, as UniPC's "bh1" does; ours keeps it, as at the other orders and as in the paper's formula.
    Solves of higher order begin and end with such steps."""
    draws = normals(steps)
    options = {"predictor_order": p, "corrector_order": c, "tau_func": lambda t: torch.tensor(tau)}
    other, rho = run_vp(make("SASolverScheduler", draws, **options, **BETAS, steps=steps))
    method = {"tau": tau, "lower_order_final": True, **orders(p, c)}
    different(f"SASolver({p}, {c})", ours("sa_solver", rho, rho[0] * start(), draws, **method), other)
    mine = ours(HalvedSA(**method), rho, rho[0] * start(), draws)
    same(f"SASolver({p}, {c}), with 1/2 in place of phi_2", mine, other)


# Flow matching, PNDM


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(make: Make, shift: float) -> None:
    """On a straight path Euler's step in time and DDIM's are the same; only the latter is defined to the end."""
    scheduler = make("FlowMatchEulerDiscreteScheduler", shift=shift, steps=12)
    x = run_flow(scheduler)
    same("FlowMatchEuler = ddim", ours("ddim", scheduler.sigmas, start(), sde=FLOW), x)
    x = run_flow(make("FlowMatchEulerDiscreteScheduler", shift=shift, steps=12), stop=-1)
    same("FlowMatchEuler = euler", ours("euler", scheduler.sigmas[:-1], start(), sde=FLOW), x)


def run_flow(scheduler: Any, stop: int | None = None) -> Tensor:
    """The end state of a scheduler that steps dx/dt = eps - x0."""
    x, levels = start(), scheduler.sigmas
    for k, t in enumerate(scheduler.timesteps[:stop]):
        data, noise = estimate(x, 1 - levels[k], levels[k])
        x = scheduler.step(noise - data, t, x).prev_sample
    return x


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_heun(make: Make, shift: float) -> None:
    """``heun`` would evaluate at sigma = 0, so the last step is one of ``ddim``, as it is there."""
    scheduler = make("FlowMatchHeunDiscreteScheduler", shift=shift, steps=12)
    other = run_flow(scheduler)
    times = levels_of(scheduler.sigmas)
    x = ours("heun", times[:-1], start(), sde=FLOW)
    same("FlowMatchHeun = heun, ddim at the end", ours("ddim", times[-2:], x, sde=FLOW), other)


def test_flow_match_euler_with_noise(make: Make) -> None:
    """stochastic_sampling draws all of the noise anew, (1 - s) x0 + s z, whatever the step; ``ddim_eta`` and
    ``ancestral`` keep the share that the posterior keeps, and have the distribution of the reverse SDE."""
    draws = normals(12)
    scheduler = make("FlowMatchEulerDiscreteScheduler", draws, stochastic_sampling=True, steps=12)
    other = run_flow(scheduler)
    mine = ours("ancestral", scheduler.sigmas, start(), draws, sde=FLOW)
    different("FlowMatchEuler(stochastic_sampling)", mine, other)
    x = start()
    for (here, there), z in zip(itertools.pairwise(scheduler.sigmas), draws, strict=True):
        x = (1 - there) * estimate(x, 1 - here, here).data + there * z
    same("FlowMatchEuler(stochastic_sampling), all of the noise anew", x, other)


@pytest.mark.parametrize("steps", [10, 25])
def test_pndm(make: Make, steps: int) -> None:
    """Without Runge-Kutta steps at the start ("skip_prk_steps"), for which there is no method here. With the default
    steps_offset=0 the last step goes from t = 0 to t = 0."""
    scheduler = make("PNDMScheduler", skip_prk_steps=True, steps_offset=1, **BETAS, steps=steps)
    bars = scheduler.alphas_cumprod
    times = scheduler.timesteps
    at = torch.cat([times[:1], times[2:]])  # the second node comes twice
    ends = torch.cat([bars[at], scheduler.final_alpha_cumprod[None]])
    rho = ((1 - ends) / ends).sqrt()
    x = ends[0].sqrt() * rho[0] * start()
    for t in times:
        eps = estimate(x, bars[t].sqrt(), (1 - bars[t]).sqrt()).noise
        x = scheduler.step(eps, int(t), x).prev_sample
    same("PNDM(skip_prk_steps) = plms", ours("plms", rho, rho[0] * start()), x / ends[-1].sqrt())


@pytest.mark.parametrize("steps", [10, 25])
def test_pndm_with_its_start(make: Make, steps: int) -> None:
    """Its first three steps are of the classical Runge-Kutta method in sigma/alpha, with the inner node half-way in
    time; then come the weights of ``plms``. There is no method here that begins so; by hand they are the same."""
    scheduler = make("PNDMScheduler", steps_offset=1, **BETAS, steps=steps)
    other, _ = run_steps(scheduler, scheduler.final_alpha_cumprod)
    length = 1000 // steps
    bars = torch.cat([scheduler.final_alpha_cumprod[None], scheduler.alphas_cumprod])  # so that t = -1 is there
    rho = ((1 - bars) / bars).sqrt()

    def noise(x: Tensor, t: int) -> Tensor:
        return estimate(x, 1.0, rho[t + 1]).noise

    times = range(1 + (steps - 1) * length, 0, -length)
    x, said = rho[times[0] + 1] * start(), []
    for k, t in enumerate(times):
        full = rho[max(t - length, -1) + 1] - rho[t + 1]
        half = rho[t - length // 2 + 1] - rho[t + 1] if k < 3 else full
        said.append(noise(x, t))
        if k < 3:
            e1 = said[-1]
            e2 = noise(x + half * e1, t - length // 2)
            e3 = noise(x + half * e2, t - length // 2)
            e4 = noise(x + full * e3, t - length)
            x = x + full * (e1 + 2 * e2 + 2 * e3 + e4) / 6
        else:
            x = x + full * sum(w * e for w, e in zip((-9, 37, -59, 55), said[-4:], strict=True)) / 24
    same("PNDM, its Runge-Kutta start by hand", x, other)


def test_ipndm(make: Make) -> None:
    """On given levels."""
    sigma = torch.linspace(0.99, 0.05, 13)
    scheduler = make("IPNDMScheduler", trained_betas=sigma.tolist(), steps=12)
    rho = sigma / (1 - sigma**2).sqrt()
    alpha = vp(rho)[0]
    x = alpha[0] * rho[0] * start()
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.step(v_output(x, alpha[k], sigma[k]), t, x).prev_sample
    same("IPNDM = ipndm", ours("ipndm", rho, rho[0] * start()), x / alpha[-1])


def test_ipndm_on_its_own_levels(make: Make) -> None:
    """They begin at alpha = 0, where its first step takes the data to be (x - x)/1e-8 = 0. The network says what they
    are; the step of DDIM has alpha times that more."""
    scheduler = make("IPNDMScheduler", steps=12)
    alpha, sigma = scheduler.alphas, scheduler.betas
    assert alpha[0] == 0
    x = start()
    said = v_output(x, alpha[0], sigma[0])
    other = scheduler.step(said, scheduler.timesteps[0], x).prev_sample
    times = torch.stack([torch.ones(()), sigma[1] / (alpha[1] + sigma[1])])
    mine = ours("ddim", times, x, sde=FLOW) * (alpha[1] + sigma[1])
    different("IPNDM, first step from alpha = 0", mine, other)
    same("IPNDM, first step from alpha = 0, with the data = ddim", mine, other - alpha[1] * said)


def v_output(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network says that predicts v."""
    data, noise = estimate(x, alpha, sigma)
    return alpha * noise - sigma * data


# What lets all of these run on one process


DETERMINISTIC = ["ddim", "dpm_3m", "dpmpp_2m", "dpmpp_3s", "unipc3", "rho_heun", "rho_ab4", "ipndm", "plms"]
STOCHASTIC = ["ancestral", "seeds2", "dpmpp_2m_sde", "dpmpp_sde", "dpmpp_2s_ancestral", "sa_solver", "er_sde3", "edm"]


@pytest.mark.parametrize("method", DETERMINISTIC + STOCHASTIC)
def test_the_process_does_not_matter(method: str) -> None:
    """The same solve on a VP process, at the times with the same sigma/alpha."""
    rho = torch.logspace(1.6, -1.7, 13)
    sde = scoresde.VPSDE(t_max=2.0)
    times = sde.time(-2 * rho.log())
    draws = normals(24)
    alpha = sde.alpha(times)
    x = ours(method, times, alpha[0] * rho[0] * start(), draws, sde=sde)
    same("EDMSDE = VPSDE", ours(method, rho, rho[0] * start(), draws), x / alpha[-1])
