"""The loops of other libraries for the methods of `benchmarks.overhead`, used as their documentation says.

Each is a function of the number of steps and of a `Task`, and returns what runs it and the levels (alpha, sigma) where
it begins and ends. Libraries that are not installed are left out.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Level = tuple[Any, Any]
MEAN, STD = 0.5, 0.25
BETAS = (0.1, 20.0)  # of the variance-preserving process


class Task:
    """Normal data, or a network that costs nothing.

    Args:
        constant: what the network returns; None for the exact estimates of the data.
    """

    def __init__(self, constant: Tensor | None = None) -> None:
        self.constant = constant

    def data(self, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
        """The data estimate."""
        if self.constant is not None:
            return self.constant
        return MEAN + STD**2 * alpha / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)

    def noise(self, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
        """The noise estimate."""
        if self.constant is not None:
            return self.constant
        return sigma / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)


class Loop(NamedTuple):
    """A loop: ``run(x)``, and the levels where it begins and ends."""

    run: Callable[[Tensor], Tensor]
    first: Level
    last: Level


def exact(x: Tensor, first: Level, last: Level) -> Tensor:
    """The flow of the data from one level to another."""
    (a, s), (b, r) = first, last
    ratio = math.sqrt((b**2 * STD**2 + r**2) / (a**2 * STD**2 + s**2))
    return b * MEAN + ratio * (x - a * MEAN)


def betas(t: Any) -> tuple[Any, Any, Any]:
    r""":math:`\beta`, :math:`\alpha` and :math:`\sigma` of the variance-preserving process, at a tensor."""
    low, high = BETAS
    whole = t * (low + 0.5 * (high - low) * t)
    return low + (high - low) * t, torch.exp(-0.5 * whole), torch.sqrt(-torch.expm1(-whole))


def level(t: float) -> Level:
    """Alpha and sigma there."""
    _, alpha, sigma = betas(torch.tensor(t, dtype=torch.float64))
    return float(alpha), float(sigma)


T0, T1 = 1.0, 1e-3


def drift(task: Task, eta: float) -> Callable[[Any, Tensor], Tensor]:
    """dx/dt of the probability flow, or of the reverse SDE for eta = 1, as one writes it for a library of ODEs."""

    def slope(t: Any, x: Tensor) -> Tensor:
        beta, alpha, sigma = betas(t)
        noise = task.noise(x, alpha, sigma)
        return -0.5 * beta * x + 0.5 * (1 + eta**2) * beta / sigma * noise

    return slope


# diffusers


def scheduler(kind: str, estimate: str, **options: Any) -> Callable[[int, Task], Loop]:
    """A scheduler of the variance-preserving chain with linear betas."""

    def make(steps: int, task: Task) -> Loop:
        diffusers = importlib.import_module("diffusers")
        given = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
        sampler = getattr(diffusers, kind)(**given, **options)
        sampler.set_timesteps(steps)
        shares = sampler.alphas_cumprod
        times = sampler.timesteps

        def run(x: Tensor) -> Tensor:
            sampler.set_timesteps(steps)
            for t in sampler.timesteps:
                a = shares[int(t)] if task.constant is None else None
                pair = (None, None) if a is None else (a.sqrt(), (1 - a).sqrt())
                x = sampler.step(getattr(task, estimate)(x, *pair), t, x).prev_sample
            return x

        def at(share: Any) -> Level:
            return math.sqrt(float(share)), math.sqrt(1 - float(share))

        return Loop(run, at(shares[int(times[0])]), at(shares[0]))

    return make


def rho_scheduler(kind: str, **options: Any) -> Callable[[int, Task], Loop]:
    """A scheduler of the state over alpha."""

    def make(steps: int, task: Task) -> Loop:
        diffusers = importlib.import_module("diffusers")
        given = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
        sampler = getattr(diffusers, kind)(**given, **options)
        sampler.set_timesteps(steps)
        rho = float(sampler.sigmas[0])

        def run(x: Tensor) -> Tensor:
            sampler.set_timesteps(steps)
            for t in sampler.timesteps:
                given = sampler.scale_model_input(x, t)
                sigma = None if task.constant is not None else float(sampler.sigmas[sampler.step_index])
                x = sampler.step(task.noise(x if sigma is not None else given, 1.0, sigma), t, x).prev_sample
            return x

        return Loop(run, (1.0, rho), (1.0, float(sampler.sigmas[-1])))

    return make


def flow_match(steps: int, task: Task) -> Loop:
    """Euler on the flow from data to noise."""
    diffusers = importlib.import_module("diffusers")
    sampler = diffusers.FlowMatchEulerDiscreteScheduler()
    sampler.set_timesteps(steps)
    sigma = float(sampler.sigmas[0])

    def run(x: Tensor) -> Tensor:
        sampler.set_timesteps(steps)
        for i, t in enumerate(sampler.timesteps):
            if task.constant is not None:
                velocity = task.constant
            else:
                s = float(sampler.sigmas[i])
                velocity = task.noise(x, 1 - s, s) - task.data(x, 1 - s, s)
            x = sampler.step(velocity, t, x).prev_sample
        return x

    return Loop(run, (1 - sigma, sigma), (1.0, 0.0))


# azula


def azula(kind: str, **options: Any) -> Callable[[int, Task], Loop]:
    """A sampler with azula's own schedule."""

    def make(steps: int, task: Task) -> Loop:
        sample, noise, denoise = (importlib.import_module(f"azula.{name}") for name in ("sample", "noise", "denoise"))
        schedule = noise.VPSchedule()

        class Own(denoise.Denoiser):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.schedule = schedule

            def forward(self, x: Tensor, t: Tensor, **context: Any) -> Any:
                pair = (None, None) if task.constant is not None else schedule(t)
                return denoise.DiracPosterior(mean=task.data(x, *pair))

        sampler = getattr(sample, kind)(Own(), steps=steps, start=1.0, stop=0.01, silent=True, **options)
        first, last = (tuple(float(v) for v in schedule(torch.tensor(t))) for t in (1.0, 0.01))
        return Loop(sampler, first, last)  # type: ignore[arg-type]

    return make


# k-diffusion, smalldiffusion, flow_matching


def k_diffusion(kind: str) -> Callable[[int, Task], Loop]:
    """A sampler of data plus noise, on Karras's levels."""

    def make(steps: int, task: Task) -> Loop:
        sampling = importlib.import_module("k_diffusion.sampling")
        sigmas = sampling.get_sigmas_karras(steps + 1, 0.01, 80.0)[:-1]

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            return task.data(x, 1.0, sigma[:, None] if task.constant is None else None)

        def run(x: Tensor) -> Tensor:
            return getattr(sampling, kind)(model, x, sigmas, disable=True)

        return Loop(run, (1.0, float(sigmas[0])), (1.0, float(sigmas[-1])))

    return make


def smalldiffusion(steps: int, task: Task) -> Loop:
    """Its only sampler, as DDIM."""
    library = importlib.import_module("smalldiffusion.diffusion")
    sigmas = library.ScheduleLogLinear(1000, sigma_min=0.01, sigma_max=80.0).sample_sigmas(steps)

    class Network(torch.nn.Module):
        def rand_input(self, batch: int) -> Tensor:
            return torch.zeros(())

        def predict_eps_cfg(self, x: Tensor, sigma: Tensor, cond: Any, scale: float) -> Tensor:
            return task.noise(x, 1.0, sigma)

    network = Network()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            *_, last = library.samples(network, sigmas, xt=x)
        return last

    return Loop(run, (1.0, float(sigmas[0])), (1.0, float(sigmas[-1])))


def flow_matching(kind: str) -> Callable[[int, Task], Loop]:
    """Its solver of the flow from noise to data."""

    def make(steps: int, task: Task) -> Loop:
        solver = importlib.import_module("flow_matching.solver").ODESolver
        last = 1.0 - 1e-3

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            if task.constant is not None:
                return task.constant
            return task.data(x, t, 1 - t) - task.noise(x, t, 1 - t)

        sampler, times = solver(velocity_model=velocity), torch.linspace(0.0, last, steps + 1)

        def run(x: Tensor) -> Tensor:
            return sampler.sample(x_init=x, step_size=None, method=kind, time_grid=times)

        return Loop(run, (0.0, 1.0), (last, 1 - last))

    return make


# libraries of differential equations


def torchdiffeq(kind: str) -> Callable[[int, Task], Loop]:
    """A method on a fixed grid."""

    def make(steps: int, task: Task) -> Loop:
        odeint = importlib.import_module("torchdiffeq").odeint
        times, slope = torch.linspace(T0, T1, steps + 1), drift(task, 0.0)

        def run(x: Tensor) -> Tensor:
            with torch.no_grad():
                return odeint(slope, x, times, method=kind)[-1]

        return Loop(run, level(T0), level(T1))

    return make


def torchode(kind: str) -> Callable[[int, Task], Loop]:
    """A method with a fixed step; the state is flat."""

    def make(steps: int, task: Task) -> Loop:
        to = importlib.import_module("torchode")
        flat = Task(None if task.constant is None else task.constant.flatten(1))
        slope = drift(flat, 0.0)
        term = to.ODETerm(lambda t, y: slope(t[:, None], y))
        solver = to.AutoDiffAdjoint(getattr(to, kind)(term=term), to.FixedStepController())

        def run(x: Tensor) -> Tensor:
            ends = torch.tensor([[T0, T1]]).expand(len(x), -1)
            problem = to.InitialValueProblem(y0=x.flatten(1), t_eval=ends)
            with torch.no_grad():
                solution = solver.solve(problem, dt0=torch.full((len(x),), (T1 - T0) / steps))
            return solution.ys[:, -1].reshape(x.shape)

        return Loop(run, level(T0), level(T1))

    return make


def torchsde(steps: int, task: Task) -> Loop:
    """Euler-Maruyama; the state is flat, and time runs upwards."""
    sdeint = importlib.import_module("torchsde").sdeint
    flat = Task(None if task.constant is None else task.constant.flatten(1))
    slope = drift(flat, 1.0)

    class Reverse(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Any, y: Tensor) -> Tensor:
            return -slope(T0 + T1 - t, y)

        def g(self, t: Any, y: Tensor) -> Tensor:
            return betas(T0 + T1 - t)[0].sqrt().expand_as(y)

    times = torch.linspace(T1, T0, steps + 1)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return sdeint(Reverse(), x.flatten(1), times, method="euler", dt=(T0 - T1) / steps)[-1].reshape(x.shape)

    return Loop(run, level(T0), level(T1))


# By our method: the library, its name for it, and the loop. Loops of random steps are checked by their moments.
PEERS: dict[str, dict[str, tuple[str, Callable[[int, Task], Loop]]]] = {
    "euler": {
        "diffusers FlowMatchEuler": ("diffusers", flow_match),
        "torchdiffeq euler": ("torchdiffeq", torchdiffeq("euler")),
        "torchode Euler": ("torchode", torchode("Euler")),
        "flow_matching euler": ("flow_matching", flow_matching("euler")),
    },
    "ddim": {
        "diffusers DDIM": ("diffusers", scheduler("DDIMScheduler", "noise", clip_sample=False, set_alpha_to_one=False)),
        "diffusers Euler": ("diffusers", rho_scheduler("EulerDiscreteScheduler")),
        "azula DDIM": ("azula", azula("DDIMSampler")),
        "azula Euler": ("azula", azula("EulerSampler")),
        "k-diffusion sample_euler": ("k_diffusion", k_diffusion("sample_euler")),
        "smalldiffusion": ("smalldiffusion", smalldiffusion),
    },
    "dpmpp_2m": {
        "diffusers DPM-Solver++ (2M)": (
            "diffusers",
            scheduler("DPMSolverMultistepScheduler", "data", prediction_type="sample", final_sigmas_type="sigma_min"),
        ),
        "k-diffusion sample_dpmpp_2m": ("k_diffusion", k_diffusion("sample_dpmpp_2m")),
    },
    "dpm_3m": {
        "diffusers DPM-Solver-3": (
            "diffusers",
            scheduler(
                "DPMSolverMultistepScheduler",
                "noise",
                algorithm_type="dpmsolver",
                solver_order=3,
                final_sigmas_type="sigma_min",
            ),
        ),
    },
    "unipc2": {
        "diffusers UniPC": (
            "diffusers",
            scheduler("UniPCMultistepScheduler", "data", prediction_type="sample", final_sigmas_type="sigma_min"),
        ),
    },
    "heun": {
        "azula Heun": ("azula", azula("HeunSampler")),
        "torchdiffeq heun2": ("torchdiffeq", torchdiffeq("heun2")),
        "torchode Heun": ("torchode", torchode("Heun")),
        "k-diffusion sample_heun": ("k_diffusion", k_diffusion("sample_heun")),
        "flow_matching heun2": ("flow_matching", flow_matching("heun2")),
    },
    "euler_maruyama": {"torchsde euler": ("torchsde", torchsde)},
    "pc": {"azula PC": ("azula", azula("PCSampler"))},
}
RANDOM = ("euler_maruyama", "pc")
