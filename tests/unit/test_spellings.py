"""Methods and arguments are found, or named, however people type them."""

from __future__ import annotations

import pytest
import torch

import scoresde
from scoresde.errors import InvalidArgumentError
from scoresde.solvers import make_solver
from scoresde.solvers.registry.rows import BY_NAME
from scoresde.solvers.registry.spellings import ARGUMENTS, CLOSEST, FOREIGN, find, plain

# As they are listed by AUTOMATIC1111's user interface (modules/sd_samplers_kdiffusion.py), ComfyUI
# (comfy/samplers.py), k-diffusion (sampling.py), diffusers (schedulers), azula (sample.py), EDM (generate.py),
# score_sde (sampling.py), DPM-Solver (dpm_solver_pytorch.py), torchdiffeq and SciPy.
FOUND = {
    "DPM++ 2M": "dpmpp_2m",
    "dpm++2m": "dpmpp_2m",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DPM++ 2S a": "dpmpp_2s_ancestral",
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "euler_a": "euler_ancestral",
    "euler_ancestral": "euler_ancestral",
    "Heun": "heun",
    "LMS": "lms",
    "DDIM": "ddim",
    "PLMS": "plms",
    "UniPC": "unipc",
    "Restart": "restart",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc2",
    "dpmpp_2s_ancestral": "dpmpp_2s_ancestral",
    "dpmpp_2m_sde": "dpmpp_2m_sde",
    "ddpm": "ancestral",
    "ipndm": "ipndm",
    "er_sde": "er_sde3",
    "seeds_2": "seeds2",
    "seeds_3": "seeds3",
    "sa_solver": "sa_solver",
    "sample_dpmpp_2m": "dpmpp_2m",
    "sample_euler_ancestral": "euler_ancestral",
    "sample_dpmpp_sde": "dpmpp_sde",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ancestral",
    "PNDMScheduler": "plms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "DPMSolverSinglestepScheduler": "dpmpp_2s",
    "DPMSolverSDEScheduler": "dpmpp_sde",
    "UniPCMultistepScheduler": "unipc2",
    "EulerDiscreteScheduler": "ddim",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "rho_heun",
    "SASolverScheduler": "sa_solver",
    "EDMEulerScheduler": "ddim",
    "EDMDPMSolverMultistepScheduler": "dpmpp_2m",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
    "DDIMSampler": "ddim",
    "edm_sampler": "edm",
    "pc_sampler": "pc",
    "PC": "pc",
    "predictor_corrector": "pc",
    "dpmsolver++": "dpmpp_2m",
    "DPM-Solver++(2M)": "dpmpp_2m",
    "DPM-Solver": "dpm_2m",
    "scipy:rk45": "scipy:RK45",
    "RK45": "rk45",
    "rk-4": "rk4",
    "Tsit5": "tsit5",
    "DOP853": "dop853",
    "Euler-Maruyama": "euler_maruyama",
    "euler maruyama": "euler_maruyama",
    "Reverse Diffusion": "reverse_diffusion",
}
# A method with options or a grid: the error says what to write.
NAMED = {
    "DPM++ 2M Karras": "method='dpmpp_2m', grid='karras' here",
    "DPM++ SDE Karras": "method='dpmpp_sde', grid='karras' here",
    "Euler a Karras": "method='euler_ancestral', grid='karras' here",
    "DPM++ 2M Exponential": "method='dpmpp_2m', grid='log_snr' here",
    "DPM2": "method='dpm_2s', form='dpmsolver' here",
    "dpm_2": "method='dpm_2s', form='dpmsolver' here",
    "KDPM2DiscreteScheduler": "method='dpm_2s', form='dpmsolver' here",
    "LMSDiscreteScheduler": "method='lms', start_up='published' here",
    "DEISMultistepScheduler": "method='dpm_2m', form='taylor' here",
    "DPM2 a": "the closest is method='dpmpp_2s_ancestral'",
    "DPM adaptive": "the closest is method='dpm23'",
    "dpm_fast": "the closest is method='dpm_3s', form='dpmsolver'",
    "heunpp2": "the closest is method='rho_heun'",
    "LCM": "the closest is method='ancestral'",
    "dpmpp_3m_sde_gpu": "did you mean 'dpmpp_3m_sde'",
    "dopri5": "did you mean 'torchdiffeq:dopri5'",
    "eular": "did you mean 'euler'",
    "dpm+2m": "or 'dpm_2m'",
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    assert find(name) == FOUND[name] and isinstance(make_solver(name, {}), scoresde.Solver)


@pytest.mark.parametrize("name", NAMED)
def test_named(name: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        make_solver(name, {})
    assert NAMED[name] in str(error.value)


def test_every_name_here_is_itself() -> None:
    assert all(find(name) == name for name in BY_NAME)
    assert all(find(name.upper()) in BY_NAME for name in BY_NAME)
    plains = [plain(name) for name in BY_NAME]
    assert len(set(plains)) == len(plains) and not set(plains) & {*FOREIGN, *CLOSEST}


@pytest.mark.parametrize("table", [FOREIGN, CLOSEST], ids=["foreign", "closest"])
def test_every_spelling_can_be_solved(table: dict) -> None:  # type: ignore[type-arg]
    for key, meant in table.items():
        assert plain(key) == key
        make_solver(meant.method, dict(meant.options))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_other_libraries(name: str) -> None:
    sde = scoresde.VPSDE()
    with pytest.raises(InvalidArgumentError, match=f"`{name}` is "):
        scoresde.solve(sde, lambda x, t: -x, torch.zeros(1, 2), method="ddim", **{name: 3})


def test_a_solve_takes_them() -> None:
    sde, x = scoresde.VPSDE(), torch.ones(2, 2)
    a = scoresde.solve(sde, lambda x, t: -x, x, method="DPM++ 2M", steps=4).x
    assert torch.equal(a, scoresde.solve(sde, lambda x, t: -x, x, method="dpmpp_2m", steps=4).x)


def test_a_name_like_none_says_how_a_solver_of_ones_own_is_passed() -> None:
    own = "In Python, a solver of your own is passed as an object"
    with pytest.raises(InvalidArgumentError, match=own):
        find("my_method")
    with pytest.raises(InvalidArgumentError) as caught:
        find("unipcc")
    assert own not in str(caught.value) and "did you mean" in str(caught.value)
