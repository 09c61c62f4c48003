"""Names of methods as people type them: in another case, with other signs, or as other libraries call them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ...core.errors import InvalidArgumentError, short, unknown
from .rows import BY_NAME


class Spelling(NamedTuple):
    """What a name of another library is here.

    Fields:
        method: the method.
        options: its options, where it is not the method as it is by default.
        grid: the grid that belongs to the name; None for any.

    Example:
        >>> str(Spelling("dpm_2s", {"form": "dpmsolver"}))
        "method='dpm_2s', form='dpmsolver'"
    """

    method: str
    options: Mapping[str, object] = MappingProxyType({})
    grid: str | None = None

    def __str__(self) -> str:
        given = {"method": self.method, **self.options} | ({} if self.grid is None else {"grid": self.grid})
        return ", ".join(f"{name}={value!r}" for name, value in given.items())


_LMS = Spelling("lms", {"start_up": "published"})
_DPM2 = Spelling("dpm_2s", {"form": "dpmsolver"})
_DEIS = Spelling("dpm_2m", {"form": "taylor"})

# By `plain` names. k-diffusion's samplers and what user interfaces call them; diffusers' schedulers, with their default
# options; azula's samplers; what papers write. The first column of docs/peers.md has the comparisons.
FOREIGN: dict[str, Spelling] = {
    "eulera": Spelling("euler_ancestral"),
    "dpm2": _DPM2,
    "dpmpp2sa": Spelling("dpmpp_2s_ancestral"),
    "dpmpp2msdeheun": Spelling("dpmpp_2m_sde", {"form": "taylor"}),
    "dpmpp": Spelling("dpmpp_2m"),
    "dpmsolver": Spelling("dpm_2m"),
    "dpmsolverpp": Spelling("dpmpp_2m"),
    "dpmsolverpp2m": Spelling("dpmpp_2m"),
    "dpmsolverpp3m": Spelling("dpmpp_3m"),
    "dpmsolverpp2s": Spelling("dpmpp_2s"),
    "dpmsolver2": Spelling("dpm_2s"),
    "dpmsolver3": Spelling("dpm_3s"),
    "unipcbh2": Spelling("unipc2"),
    "deis": _DEIS,
    "ddpm": Spelling("ancestral"),
    "rungekutta4": Spelling("rk4"),
    "odesampler": Spelling("rk45"),
    "pcsampler": Spelling("pc"),
    "predictorcorrector": Spelling("pc"),
    "seedspp2": Spelling("seeds2"),
    "ersde": Spelling("er_sde3"),
    "saddpm": Spelling("sa_solver"),
    "edmsampler": Spelling("edm"),
    "edmstochastic": Spelling("edm"),
    # diffusers
    "ddimscheduler": Spelling("ddim"),
    "ddpmscheduler": Spelling("ancestral"),
    "pndmscheduler": Spelling("plms"),
    "pndm": Spelling("plms"),
    "dpmsolvermultistepscheduler": Spelling("dpmpp_2m"),
    "dpmsolvermultistep": Spelling("dpmpp_2m"),
    "dpmsolversinglestepscheduler": Spelling("dpmpp_2s"),
    "dpmsolversinglestep": Spelling("dpmpp_2s"),
    "dpmsolversdescheduler": Spelling("dpmpp_sde"),
    "unipcmultistepscheduler": Spelling("unipc2"),
    "unipcmultistep": Spelling("unipc2"),
    "deismultistepscheduler": _DEIS,
    "eulerdiscretescheduler": Spelling("ddim"),
    "eulerdiscrete": Spelling("ddim"),
    "eulerancestraldiscretescheduler": Spelling("euler_ancestral"),
    "heundiscretescheduler": Spelling("rho_heun"),
    "lmsdiscretescheduler": _LMS,
    "kdpm2discretescheduler": _DPM2,
    "sasolverscheduler": Spelling("sa_solver"),
    "edmeulerscheduler": Spelling("ddim"),
    "edmdpmsolvermultistepscheduler": Spelling("dpmpp_2m"),
    "flowmatcheulerdiscretescheduler": Spelling("euler"),
    "flowmatchheundiscretescheduler": Spelling("heun"),
    # azula
    "ddpmsampler": Spelling("ancestral"),
    "ddimsampler": Spelling("ddim"),
    "eulersampler": Spelling("ddim"),
    "heunsampler": Spelling("rho_heun"),
}
# Arguments of other libraries' samplers: what they are here.
ARGUMENTS: dict[str, str] = {
    **dict.fromkeys(("num_inference_steps", "num_steps", "n_steps", "num_sampling_steps", "sampling_steps"), "`steps`"),
    **dict.fromkeys(("nfe", "n_evaluations", "num_evaluations", "budget"), "`evaluations`"),
    **dict.fromkeys(("n", "num", "batch"), "the first number of `shape` (samples), or `steps`,"),
    **dict.fromkeys(("sampler", "sampler_name", "solver", "solver_type", "integrator"), "`method`"),
    **dict.fromkeys(("schedule", "spacing", "timestep_spacing", "time_grid"), "`grid`"),
    **dict.fromkeys(("timesteps", "ts", "step_size"), "`grid`, times of the process,"),
    "sigmas": "`grid`, whose times are the noise levels on an EDMSDE,",
    **dict.fromkeys(
        ("cfg_scale", "guidance_scale", "guidance", "cond_scale", "w"),
        "the scale of scoresde.guidance.classifier_free, which makes the score function,",
    ),
    **dict.fromkeys(("latents", "x_T", "x_init", "x0", "noise_latents", "y0"), "`x`"),
    **dict.fromkeys(("batch_size", "num_samples", "n_samples"), "the first number of `shape`"),
    **dict.fromkeys(("rng", "rng_key"), "`generator`, or an integer as `seed`"),
    **dict.fromkeys(("callback_on_step_end", "callback_steps", "on_step"), "`callback`"),
    **dict.fromkeys(
        ("model_kwargs", "extra_args", "cond", "condition", "conditioning", "y", "label", "labels", "class_labels"),
        "`context`, by the names of the network's arguments, such as context={'label': labels},",
    ),
    "eta": "`stochasticity`, or an option of method='ddim_eta', which is 'ddim' with noise,",
    **dict.fromkeys(("disable", "disable_pbar", "verbose"), "`progress`"),
    **dict.fromkeys(("denoise_to_zero", "last_denoise", "noise_removal"), "`denoise`"),
    **dict.fromkeys(("return_intermediates", "return_trajectory", "return_intermediate"), 'save_at="steps"'),
    **dict.fromkeys(("s_tmin", "s_tmax"), "an option of EDM's sampler, `s_min` and `s_max` of method='edm',"),
}
# Methods that are not here, and what comes closest.
CLOSEST: dict[str, Spelling] = {
    **dict.fromkeys(
        ("dpm2a", "dpm2ancestral", "kdpm2ancestraldiscretescheduler", "kdpm2ancestral"), Spelling("dpmpp_2s_ancestral")
    ),
    "dpmadaptive": Spelling("dpm23"),
    "dpmfast": Spelling("dpm_3s", {"form": "dpmsolver"}),
    "heunpp2": Spelling("rho_heun"),
    **dict.fromkeys(("resmultistep", "resmultistepancestral"), Spelling("dpmpp_2m")),
    "ipndmv": Spelling("ipndm"),
    **dict.fromkeys(("lcm", "lcmscheduler", "tcdscheduler", "turbo"), Spelling("ancestral")),
    "vpsdescheduler": Spelling("euler_maruyama"),
    **dict.fromkeys(("scoresdevescheduler", "scoresdevpscheduler"), Spelling("pc")),
    **dict.fromkeys(("eulercfgpp", "euleracfgpp", "ddimcfgpp"), Spelling("ddim")),
}
# What user interfaces put behind the name of a sampler: its noise levels.
GRIDS = {"karras": "karras", "exponential": "log_snr", "logsnr": "log_snr"}


def plain(name: str) -> str:
    """A name without its case and signs; ``+`` is p, as in DPM-Solver++.

    Example:
        >>> plain("DPM++ 2M SDE"), plain("dpmpp_2m_sde")
        ('dpmpp2msde', 'dpmpp2msde')
    """
    return "".join(c for c in name.lower().replace("+", "p") if c.isalnum() or c == ":")


def find(name: str, extra: tuple[str, ...] = (), argument: str = "method") -> str:
    """The method of a name, however it is spelt; ``extra`` are names that belong to no method. Errors name the
    ``argument``.

    Raises:
        InvalidArgumentError: no method has this name, or it stands for a method with options or a grid; the text says
            which.

    Example:
        >>> find("DPM++ 2M"), find("UniPCMultistepScheduler"), find("euler_a")
        ('dpmpp_2m', 'unipc2', 'euler_ancestral')
    """
    if name in BY_NAME or name in extra:
        return name
    key, grid = plain(name.removeprefix("sample_")), None
    for ending, own in GRIDS.items():
        if key.endswith(ending) and key != ending:
            key, grid = key.removesuffix(ending), own
    ours = {plain(known): known for known in (*BY_NAME, *extra)}
    meant = Spelling(ours[key]) if key in ours else FOREIGN.get(key)
    if meant is None and key in CLOSEST:
        near = CLOSEST[key]._replace(grid=grid)
        raise InvalidArgumentError(
            f"`{argument}`: {short(name)} is not one of the methods here; the closest is {near}."
        )
    if meant is None:
        raise _unknown(name, key, ours, extra, argument)
    if meant.options or grid is not None:
        raise InvalidArgumentError(f"`{argument}`: {short(name)} is {meant._replace(grid=grid)} here.")
    return meant.method


def _unknown(
    name: str, key: str, ours: Mapping[str, str], extra: tuple[str, ...], argument: str
) -> InvalidArgumentError:
    """The error for a name of no method, with those that are spelt most alike."""
    if any(known.endswith(f":{key}") for known in ours):  # a method of another library
        return unknown(argument, name, [*BY_NAME, *extra])
    alike = difflib.get_close_matches(key, [*ours, *FOREIGN], n=3, cutoff=0.8)
    meant = [Spelling(ours[k]) if k in ours else FOREIGN[k] for k in alike]
    if not meant:
        text = unknown(argument, name, [*BY_NAME, *extra])
        return InvalidArgumentError(
            f"{text} scoresde.methods() has all names. In Python, a solver of your own is passed as an object, not by "
            "a name."
        )
    hint = " or ".join(
        dict.fromkeys(str(spelling) if spelling.options else repr(spelling.method) for spelling in meant)
    )
    return InvalidArgumentError(
        f"`{argument}`: unknown name {short(name)}; did you mean {hint}? scoresde.methods() has all names."
    )
