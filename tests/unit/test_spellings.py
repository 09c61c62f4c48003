"""Methods and arguments are found, or named, however people type them."""

from __future__ import annotations

import pytest
import torch

import scoresde
from scoresde.core.errors import InvalidArgumentError
from scoresde.solvers import make_solver
from scoresde.solvers.registry.rows import BY_NAME
from scoresde.solvers.registry.spellings import ARGUMENTS, CLOSEST, FOREIGN, find, plain

# As they are listed by AUTOMATIC1111's user interface (modules/sd_samplers_kdiffusion.py), ComfyUI
# (comfy/samplers.py), k-diffusion (sampling.py), diffusers (schedulers), azula (sample.py), EDM (generate.py),
# score_sde (sampling.py), DPM-Solver (dpm_solver_pytorch.py), torchdiffeq and SciPy.
FOUND = {
    "dpmpp_2m": "DPM++ 2M, dpm++2m, sample_dpmpp_2m, DPMSolverMultistepScheduler, dpmsolver++, DPM-Solver++(2M)",
    "dpmpp_sde": "DPM++ SDE, sample_dpmpp_sde, DPMSolverSDEScheduler",
    "dpmpp_2m_sde": "DPM++ 2M SDE, dpmpp_2m_sde",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_2s_ancestral": "DPM++ 2S a, dpmpp_2s_ancestral",
    "euler": "Euler, FlowMatchEulerDiscreteScheduler",
    "euler_ancestral": "Euler a, euler_a, euler_ancestral, sample_euler_ancestral, EulerAncestralDiscreteScheduler",
    "heun": "Heun, FlowMatchHeunDiscreteScheduler",
    "lms": "LMS",
    "ddim": "DDIM, DDIMScheduler, EulerDiscreteScheduler, EDMEulerScheduler, DDIMSampler",
    "plms": "PLMS, PNDMScheduler",
    "unipc": "UniPC, uni_pc",
    "restart": "Restart",
    "unipc2": "uni_pc_bh2, UniPCMultistepScheduler",
    "ancestral": "ddpm, DDPMScheduler",
    "ipndm": "ipndm",
    "er_sde3": "er_sde",
    "seeds2": "seeds_2",
    "seeds3": "seeds_3",
    "sa_solver": "sa_solver, SASolverScheduler",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
    "rho_heun": "HeunDiscreteScheduler",
    "edm": "edm_sampler",
    "pc": "pc_sampler, PC, predictor_corrector",
    "dpm_2m": "DPM-Solver",
    "scipy:RK45": "scipy:rk45",
    "rk45": "RK45",
    "rk4": "rk-4",
    "tsit5": "Tsit5",
    "dop853": "DOP853",
    "euler_maruyama": "Euler-Maruyama, euler maruyama",
    "reverse_diffusion": "Reverse Diffusion",
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


def test_names_of_other_libraries_are_found_or_named() -> None:
    for method, spellings in FOUND.items():
        for name in spellings.split(", "):
            assert find(name) == method, name
            assert isinstance(make_solver(name, {}), scoresde.Solver), name
    for name, said in NAMED.items():
        with pytest.raises(InvalidArgumentError) as error:
            make_solver(name, {})
        assert said in str(error.value), name


def test_every_name_here_is_itself() -> None:
    assert all(find(name) == name for name in BY_NAME)
    assert all(find(name.upper()) in BY_NAME for name in BY_NAME)
    plains = [plain(name) for name in BY_NAME]
    assert len(set(plains)) == len(plains) and not set(plains) & {*FOREIGN, *CLOSEST}


def test_every_spelling_can_be_solved_and_every_argument_is_named() -> None:
    for key, meant in [*FOREIGN.items(), *CLOSEST.items()]:
        assert plain(key) == key
        make_solver(meant.method, dict(meant.options))
    for name in ARGUMENTS:
        with pytest.raises(InvalidArgumentError, match=f"`{name}` is "):
            scoresde.solve(scoresde.VPSDE(), lambda x, t: -x, torch.zeros(1, 2), method="ddim", **{name: 3})
