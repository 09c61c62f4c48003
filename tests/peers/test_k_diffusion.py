"""scoresde against k-diffusion, on the same noise levels with the same draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks._wide import Wide
from tests.peers.common import RhoABToTheEnd, TreePath, different, estimate, normals, ours, same

pytest.importorskip("k_diffusion", exc_type=ImportError)
from k_diffusion import sampling

pytestmark = pytest.mark.peers

STEPS = 11
LEVELS = sampling.get_sigmas_karras(STEPS, 0.02, 20.0).double()  # STEPS levels, then 0
LEVELS = torch.cat([LEVELS[LEVELS > 0], LEVELS.new_zeros(1)])
ENDS = {"to zero": LEVELS, "to sigma_min": LEVELS[:-1]}
both_ends = pytest.mark.parametrize("end", ENDS)


def denoiser(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """What k-diffusion calls a model: the data's mean at x = x0 + sigma eps."""
    return estimate(x, 1.0, sigma[:, None]).data


def start() -> Tensor:
    """A state at the first level."""
    return LEVELS[0] * normals(1, seed=7)[0]


def theirs(name: str, sigmas: Tensor, **options: Any) -> Tensor:
    """k-diffusion's end state."""
    return getattr(sampling, f"sample_{name}")(denoiser, start(), sigmas, disable=True, **options)


def one_a_step(draws: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A noise sampler that hands out the draws in order."""
    left = iter(draws)
    return lambda sigma, sigma_next: next(left)


@pytest.fixture
def churn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The draws of the samplers with churn, which take them from torch in every step, used or not."""
    draws = normals(STEPS)

    class Torch(Wide):
        left = iter(draws)

        def randn_like(self, x: Tensor) -> Tensor:
            return next(self.left)

    monkeypatch.setattr(sampling, "torch", Torch(torch))
    return draws


@both_ends
@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("euler", "ddim", {}),
        ("heun", "rho_heun", {}),
        ("dpm_2", "dpm_2s", {"form": "dpmsolver"}),
        ("dpmpp_2m", "dpmpp_2m", {}),
    ],
)
def test_deterministic(name: str, method: str, options: dict[str, Any], end: str) -> None:
    """sample_dpm_2 looks half-way in ln(sigma) and steps in sigma with what it saw there: DPM-Solver-2 with r = 1/2."""
    same(f"sample_{name} = {method}", ours(method, ENDS[end], start(), **options), theirs(name, ENDS[end]))


@both_ends
@pytest.mark.parametrize("s_noise", [1.0, 1.007])
@pytest.mark.parametrize("s_churn", [3.0, 40.0])
def test_heun_with_churn(churn: list[Tensor], s_churn: float, s_noise: float, end: str) -> None:
    options = {"s_churn": s_churn, "s_noise": s_noise}
    band = {"s_tmin": 0.05, "s_tmax": 15.0}
    other = theirs("heun", ENDS[end], **options, **band)
    mine = ours("edm", ENDS[end], start(), churn, s_min=band["s_tmin"], s_max=band["s_tmax"], **options)
    same("sample_heun(s_churn) = edm", mine, other)


@pytest.mark.parametrize(("name", "method"), [("euler", "ddim"), ("dpm_2", "dpm_2s")])
def test_churn_before_other_steps(churn: list[Tensor], name: str, method: str) -> None:
    """EDM's sampler is churn with a step of order 2 in sigma (Heun, midpoint, Ralston, by ``a``), and so is ``edm``.
    k-diffusion also puts churn before Euler's step and before DPM-Solver-2, for which there is no method here: put
    together by hand they are the same."""
    options = {"form": "dpmsolver"} if method == "dpm_2s" else {}
    x = start()
    gamma = min(40.0 / STEPS, math.sqrt(2) - 1)
    for k, z in enumerate(churn):
        hat = (1 + gamma) * LEVELS[k]
        x = x + (hat**2 - LEVELS[k] ** 2).sqrt() * z
        x = ours(method, torch.stack([hat, LEVELS[k + 1]]), x, **options)
    other = theirs(name, LEVELS, s_churn=40.0)
    same(f"sample_{name}(s_churn) = churn by hand, {method}", x, other)
    different(f"sample_{name}(s_churn) and edm", ours("edm", LEVELS, start(), churn, s_churn=40.0), other)


@both_ends
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "method"), [("euler_ancestral", "ddim_eta"), ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral")]
)
def test_ancestral(name: str, method: str, eta: float, end: str) -> None:
    draws = normals(STEPS)
    other = theirs(name, ENDS[end], eta=eta, noise_sampler=one_a_step(draws))
    same(f"sample_{name} = {method}", ours(method, ENDS[end], start(), draws, eta=eta), other)


def test_euler_ancestral_is_ancestral_sampling() -> None:
    draws = normals(STEPS)
    other = theirs("euler_ancestral", LEVELS, noise_sampler=one_a_step(draws))
    same("sample_euler_ancestral = ancestral", ours("ancestral", LEVELS, start(), draws), other)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpm_2_ancestral(eta: float) -> None:
    """Its deterministic part is DPM-Solver-2 in the noise, that of ``dpmpp_2s_ancestral`` DPM-Solver++ 2S in the data,
    which bears large steps better. There is no method here for the former: by hand it is ``dpm_2s`` to the lower level,
    and the noise."""
    draws = normals(STEPS)
    other = theirs("dpm_2_ancestral", LEVELS, eta=eta, noise_sampler=one_a_step(draws))
    x = start()
    for k, z in enumerate(draws):
        down, up = sampling.get_ancestral_step(LEVELS[k], LEVELS[k + 1], eta=eta)
        x = ours("dpm_2s", torch.stack([LEVELS[k], down]), x, form="dpmsolver") + up * z
    same("sample_dpm_2_ancestral = dpm_2s, noise by hand", x, other)
    mine = ours("dpmpp_2s_ancestral", LEVELS, start(), draws, eta=eta)
    different("sample_dpm_2_ancestral and dpmpp_2s_ancestral", mine, other)


@both_ends
@pytest.mark.parametrize("r", [0.5, 0.3])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_sde(eta: float, r: float, end: str) -> None:
    """Both take the noise of half a step and of the whole from one Brownian path over sigma, as k-diffusion's own
    sampler of noise does."""
    draws = normals(2 * STEPS)
    calls = iter(range(2 * STEPS))
    seen: list[Tensor] = []

    def path(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        i = next(calls)
        seen.append(sigma_next)
        if i % 2 == 0:
            return draws[i]
        before = (sigma - seen[i - 1]) / (sigma - sigma_next)
        return before.sqrt() * draws[i - 1] + (1 - before).sqrt() * draws[i]

    other = theirs("dpmpp_sde", ENDS[end], eta=eta, r=r, noise_sampler=path)
    same("sample_dpmpp_sde = dpmpp_sde", ours("dpmpp_sde", ENDS[end], start(), draws, eta=eta, r=r), other)


@both_ends
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("solver_type", "form"), [("midpoint", "dpmsolver"), ("heun", "taylor")])
def test_dpmpp_2m_sde(solver_type: str, form: str, eta: float, end: str) -> None:
    """Their eta is our eta^2: it multiplies h where ours is the reverse SDE's."""
    draws = normals(STEPS)
    other = theirs("dpmpp_2m_sde", ENDS[end], eta=eta, solver_type=solver_type, noise_sampler=one_a_step(draws))
    mine = ours("dpmpp_2m_sde", ENDS[end], start(), draws, eta=math.sqrt(eta), form=form)
    same(f"sample_dpmpp_2m_sde({solver_type}) = dpmpp_2m_sde", mine, other)


@both_ends
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_3m_sde(eta: float, end: str) -> None:
    """As published, with half of the second derivative and lower orders at the start; ours by default has the whole of
    it, which is another method."""
    draws = normals(STEPS)
    other = theirs("dpmpp_3m_sde", ENDS[end], eta=eta, noise_sampler=one_a_step(draws))
    options = {"eta": math.sqrt(eta), "start_up": "published"}
    mine = ours("dpmpp_3m_sde", ENDS[end], start(), draws, variant="published", **options)
    same("sample_dpmpp_3m_sde = dpmpp_3m_sde(published)", mine, other)
    mine = ours("dpmpp_3m_sde", ENDS[end], start(), draws, variant="corrected", **options)
    different("sample_dpmpp_3m_sde, corrected", mine, other)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms(order: int) -> None:
    """Above sigma = 0. There our multistep methods make a step of DDIM, k-diffusion one of full order: its polynomial
    in sigma has a value there, and at sigma = 0 the answer should be the data's mean alone."""
    options = {"method": f"rho_ab{order}" if order > 1 else "ddim", "x": start()}
    options |= {"start_up": "published"} if order > 1 else {}
    other = theirs("lms", ENDS["to sigma_min"], order=order)
    same("sample_lms = rho_ab(published)", ours(rho=ENDS["to sigma_min"], **options), other)
    if order > 1:
        other = theirs("lms", LEVELS, order=order)
        different("sample_lms to sigma = 0", ours(rho=LEVELS, **options), other)
        mine = ours(RhoABToTheEnd(order=order, start_up="published"), LEVELS, start())
        same("sample_lms to sigma = 0, with a step of full order", mine, other)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("evaluations", [9, 10, 11])
def test_dpm_fast(evaluations: int, eta: float) -> None:
    """Single steps of orders 3, …, 3, then what is left, on a grid even in ln(sigma). With noise the step goes to the
    lower level of the ancestral split, but never below the last level of the grid, and the noise fills up the rest;
    there is no method here for that, by hand it is the same steps."""
    high, low, draws = 20.0, 0.02, normals(STEPS)
    options = {"eta": eta, "noise_sampler": one_a_step(draws), "s_noise": 1.007}
    other = sampling.sample_dpm_fast(denoiser, start(), low, high, evaluations, disable=True, **options)
    orders = [3] * (evaluations // 3 - 1) + [2, 1] if evaluations % 3 == 0 else [3] * (evaluations // 3)
    orders += [evaluations % 3] if evaluations % 3 else []
    grid = torch.linspace(math.log(high), math.log(low), len(orders) + 1).exp()
    x = start()
    for k, order in enumerate(orders):
        options = {"form": "dpmsolver"} if order > 1 else {}
        down, _ = sampling.get_ancestral_step(grid[k], grid[k + 1], eta=eta)
        down = torch.clamp(torch.as_tensor(down), min=low)
        x = ours(("ddim", "dpm_2s", "dpm_3s")[order - 1], torch.stack([grid[k], down]), x, **options)
        x = x + 1.007 * (grid[k + 1] ** 2 - down**2).clamp_min(0).sqrt() * draws[k]
    same(f"sample_dpm_fast({'eta' if eta else ''}) = dpm_3s, dpm_2s, ddim", x, other)


@both_ends
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("euler_ancestral", {}),
        ("dpmpp_2s_ancestral", {}),
        ("dpmpp_2m_sde", {"form": "dpmsolver"}),
        ("dpmpp_3m_sde", {"variant": "published", "start_up": "published"}),
    ],
)
def test_s_noise(name: str, options: dict[str, Any], end: str) -> None:
    """Their s_noise is a factor on the noise, here one on the draws."""
    draws = normals(STEPS)
    extra = {"solver_type": "midpoint"} if name == "dpmpp_2m_sde" else {}
    other = theirs(name, ENDS[end], s_noise=1.1, noise_sampler=one_a_step(draws), **extra)
    method = {"euler_ancestral": "ancestral"}.get(name, name)
    same(
        "s_noise is a factor on the draws", ours(method, ENDS[end], start(), [1.1 * z for z in draws], **options), other
    )


@both_ends
@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_their_default_noise(name: str, end: str) -> None:
    """The sampler of noise that these take by default is a Brownian tree over sigma, of the kind that ``dpmpp_sde``
    takes for granted; with what it gives as our draws they are the same."""
    path = TreePath(sampling.BrownianTreeNoiseSampler, LEVELS[0])
    options: dict[str, dict[str, Any]] = {
        "dpmpp_sde": {},
        "dpmpp_2m_sde": {"form": "dpmsolver"},
        "dpmpp_3m_sde": {"variant": "published", "start_up": "published"},
    }
    other = theirs(name, ENDS[end], noise_sampler=path)
    mine = ours(name, ENDS[end], start(), path.draws(), **options[name])
    same(f"sample_{name}, noise of its Brownian tree", mine, other)
