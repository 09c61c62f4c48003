r"""The schedulers of diffusers in the terms of this package.

A scheduler is a process, a convention of what the network predicts and receives, and a sampler with a grid, in one
object. `conventions` takes the first two and the grid out of its config, so that any method of this package can take
the sampler's place. diffusers is not imported.

Where the schedulers differ from each other, for the same config:

================================ ====================================================================================
scheduler                        difference
================================ ====================================================================================
DDPM, DDIM, PNDM                 ``"linspace"`` has n timesteps from N - 1 to 0; ``"leading"`` steps by
                                 :math:`\lfloor N/n\rfloor`, so that the noisiest levels are left out.
DPM-Solver, UniPC, DEIS, SA      ``"linspace"`` and ``"leading"`` divide the chain into n + 1 parts and leave out
                                 the last timestep: they never evaluate at timestep 0 (``"leading"``: at the offset).
Euler, Heun, LMS, KDPM2          ``"linspace"`` is not rounded: :math:`\sigma/\alpha` is linear between two levels, and
                                 the network receives a fractional timestep.
all, with ``"trailing"``         At some n (61, 103, 121, … for 1000 levels) a rounding error makes one timestep too
                                 many, -1, at which they take the noisiest level; the grid leaves it out.
DDIM, PNDM                       A step ends :math:`\lfloor N/n\rfloor` below its timestep, whatever the next one is.
                                 With ``"linspace"``, and with ``"trailing"`` where n does not divide N, it ends
                                 elsewhere than the next begins, and no solve does this; `Conventions.grid` goes from
                                 each timestep to the next.
DDIM, PNDM                       ``set_alpha_to_one=False`` ends at level 0. If the last timestep is 0 (``"leading"``
                                 with ``steps_offset=0``), the last step has no length; the grid leaves it out.
DEIS, SA                         The last step ends at level 0, never at the data. With the noise levels of Karras and
                                 the like it has no length (UniPC's neither, with ``final_sigmas_type="sigma_min"``).
Karras's and other noise levels  Their range is the whole chain for DPM-Solver, UniPC, DEIS and SA, and that of the
                                 timesteps of the spacing for Euler, Heun, LMS and KDPM2.
their timesteps                  Linear in :math:`\ln(\sigma/\alpha)` between two levels for Euler, Heun, LMS; rounded
                                 for Karras's levels in DPM-Solver, UniPC, DEIS, SA, KDPM2 (but not in
                                 DPMSolverMultistep with ``"squaredcos_cap_v2"``); cut to the integer below for the
                                 others in these schedulers.
Euler and the like               They hold :math:`x/\alpha` and scale it for the network. The state here is
                                 :math:`x`, which the network receives as it is.
FlowMatchEuler, FlowMatchHeun    The end of the grid is shifted twice, as a level and as part of the grid: with
                                 shift s the last level is s/N shifted again, not 1/N shifted.
DDPM, DDIM                       With ``rescale_betas_zero_snr`` the last :math:`\bar\alpha` is 0; elsewhere it is
                                 :math:`2^{-24}`, which for ``"linear"`` betas is more signal than the level before
                                 has, and is refused.
UniPC with ``use_flow_sigmas``   The first :math:`\sigma` is 1 - 1e-6. (Up to diffusers 0.35 its levels were those of
                                 DPM-Solver, which begin at 1 - 1/N.)
================================ ====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, InvalidTypeError, check_choice, short
from ...core.sdes import EDMSDE, AffineSDE, FlowSDE, NormalPrior
from ...core.support.checks import (
    MOST_LEVELS,
    MOST_STEPS,
    check_flag,
    check_integer,
    check_kind,
    check_number,
    check_times,
)
from ...discrete import BetaChain
from ...grids import check_times as check_falling
from ...scores import Clip, DynamicThreshold, Score
from .labels import Label, LogSigma, NearestTimestep, ScaledTime, Timestep
from .levels import FAINT, alphas_bar
from .process import TimestepSDE
from .spacing import CURVES, Array, curve_of, shifted, stretched, timesteps

# Our names of what a network predicts.
PREDICTIONS = {
    "epsilon": "noise",
    "sample": "data",
    "original_sample": "data",
    "v_prediction": "v",
    "flow_prediction": "flow",
}


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler reads of a config.

    Args:
        family: of a chain one of `spacing.SPACINGS`; ``"edm"`` or ``"flow"`` for processes without a chain.
        fields: the fields that it has, with its defaults. A config may have others, of the scheduler that it was made
            from, which mean nothing.
        fixed: values that it has no field for.
    """

    family: str
    fields: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config, of the kinds that they should have; null is the default."""
        given = {name: config[name] for name in self.fields if config.get(name) is not None}
        for name, value in given.items():
            _KINDS[_OPTIONAL.get(name, type(self.fields[name]))](name, value)
        values = {**self.fields, **given, **self.fixed}
        if "set_alpha_to_one" in values:
            values["final_sigmas_type"] = "zero" if values["set_alpha_to_one"] else "sigma_min"
        return values


def _check_float(name: str, value: object) -> None:
    """Refuse what is no number; a bound may be infinite."""
    if not (isinstance(value, float) and math.isinf(value)):
        check_number(name, value)


# The checks of a field by the kind of its default, and the kinds of fields whose default is None.
_KINDS: dict[type, Callable[[str, Any], object]] = {
    bool: check_flag,
    str: lambda name, value: check_kind(name, value, str, "a name"),
    int: lambda name, value: check_integer(name, value, low=0, high=MOST_LEVELS),
    float: _check_float,
    list: lambda name, value: check_times(name, value, "numbers"),
}
_OPTIONAL: dict[str, type] = {
    "trained_betas": list,
    "variance_type": str,
    "sigma_min": float,
    "sigma_max": float,
    "shift_terminal": float,
}

_CHAIN = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_RESCALED = {"rescale_betas_zero_snr": False}
_CURVES = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_LEADING = {"timestep_spacing": "leading"}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_LATENT = {"beta_start": 0.00085, "beta_end": 0.012}
_DYNAMIC = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0}
_TO_ZERO, _TO_LEVEL = {"final_sigmas_type": "zero"}, {"final_sigmas_type": "sigma_min"}
_VARIANCE = {"variance_type": None}
_CLIPPED = {"lambda_min_clipped": -math.inf}
_RANGE = {"sigma_min": None, "sigma_max": None}
_MULTISTEP = {**_CHAIN, **_THRESHOLD, **_CURVES, **_FLOW}
_WHOLE = {"whole": True, "flow_levels": "from_below"}
_EDM = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "prediction_type": "epsilon",
    "rho": 7.0,
    **_TO_ZERO,
}
_MATCHING = {"num_train_timesteps": 1000, "shift": 1.0}
_MATCHED = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_levels": "twice_shifted", **_TO_ZERO}
_DDPM = {**_CHAIN, **_LEADING, **_RESCALED, **_CLIP, **_THRESHOLD}
_DDIM = Scheduler("posterior", {**_DDPM, "set_alpha_to_one": True})
_POSTERIOR = Scheduler("posterior", {**_DDPM, "variance_type": "fixed_small"}, _TO_ZERO)

SCHEDULERS: dict[str, Scheduler] = {
    "DDPMScheduler": _POSTERIOR,
    "DDPMParallelScheduler": _POSTERIOR,
    "DDIMScheduler": _DDIM,
    "DDIMParallelScheduler": _DDIM,
    "PNDMScheduler": Scheduler("posterior", {**_CHAIN, **_LEADING, "set_alpha_to_one": False}),
    "DPMSolverMultistepScheduler": Scheduler(
        "multistep",
        {**_MULTISTEP, **_TO_ZERO, **_RESCALED, **_CLIPPED, **_VARIANCE, **_DYNAMIC, "use_lu_lambdas": False},
        {**_WHOLE, "rounded_unless": "squaredcos_cap_v2"},
    ),
    "DPMSolverSinglestepScheduler": Scheduler(
        "multistep",
        {**_MULTISTEP, **_TO_ZERO, **_CLIPPED, **_VARIANCE, **_DYNAMIC},
        {**_WHOLE, "timestep_spacing": "linspace", "steps_offset": 0},
    ),
    "UniPCMultistepScheduler": Scheduler(
        "multistep",
        {**_MULTISTEP, **_TO_ZERO, **_RESCALED, **_RANGE, **_DYNAMIC, "shift_terminal": None},
        {**_WHOLE, "repeats_last": True, "flow_levels": "below_one"},
    ),
    "DEISMultistepScheduler": Scheduler(
        "multistep", {**_MULTISTEP, **_DYNAMIC}, {**_WHOLE, **_TO_LEVEL, "repeats_last": True}
    ),
    "SASolverScheduler": Scheduler(
        "multistep", {**_MULTISTEP, **_CLIPPED, **_VARIANCE}, {**_WHOLE, **_TO_LEVEL, "repeats_last": True}
    ),
    "EulerDiscreteScheduler": Scheduler(
        "sigma",
        {
            **_CHAIN,
            **_CURVES,
            **_TO_ZERO,
            **_RESCALED,
            **_RANGE,
            "timestep_type": "discrete",
            "interpolation_type": "linear",
        },
    ),
    "EulerAncestralDiscreteScheduler": Scheduler("sigma", {**_CHAIN, **_RESCALED}, _TO_ZERO),
    "HeunDiscreteScheduler": Scheduler(
        "sigma", {**_CHAIN, **_LATENT, **_CURVES, **_CLIP, "clip_sample": False}, _TO_ZERO
    ),
    "LMSDiscreteScheduler": Scheduler("sigma", {**_CHAIN, **_CURVES}, _TO_ZERO),
    "KDPM2DiscreteScheduler": Scheduler("sigma", {**_CHAIN, **_LATENT, **_CURVES}, {**_TO_ZERO, "rounded": True}),
    "KDPM2AncestralDiscreteScheduler": Scheduler(
        "sigma", {**_CHAIN, **_LATENT, **_CURVES}, {**_TO_ZERO, "rounded": True}
    ),
    "DPMSolverSDEScheduler": Scheduler("sigma", {**_CHAIN, **_LATENT, **_CURVES}, _TO_ZERO),
    "EDMEulerScheduler": Scheduler("edm", _EDM),
    "EDMDPMSolverMultistepScheduler": Scheduler("edm", {**_EDM, **_THRESHOLD}),
    "FlowMatchEulerDiscreteScheduler": Scheduler(
        "flow", {**_MATCHING, **_CURVES, **_DYNAMIC, "shift_terminal": None, "invert_sigmas": False}, _MATCHED
    ),
    "FlowMatchHeunDiscreteScheduler": Scheduler("flow", _MATCHING, _MATCHED),
}


# Grids: times of a process from a config. Each takes the arguments of `Conventions.grid`.


@dataclass(frozen=True)
class _Request:
    """The arguments of `Conventions.grid`, checked; one of the first three is given."""

    n: int | None
    timesteps: Array | None
    sigmas: Array | None
    mu: float | None

    @property
    def steps(self) -> int:
        """The number of timesteps."""
        given = [len(v) for v in (self.timesteps, self.sigmas) if v is not None]
        return given[0] if given else self.n  # type: ignore[return-value]


def _ended(levels: Array, config: Mapping[str, Any], cleanest: float, repeats: bool) -> Array:
    """Noise levels with the last one that the scheduler steps to."""
    kind = config["final_sigmas_type"]
    check_choice("final_sigmas_type", kind, ("zero", "sigma_min"))
    last = 0.0 if kind == "zero" else levels[-1] if repeats else cleanest
    return np.append(levels, last)


@dataclass(frozen=True)
class _ChainGrid:
    """Levels of a chain, or between them."""

    family: str
    config: Mapping[str, Any]
    sde: AffineSDE
    rho: Array  # of the chain's levels

    def __call__(self, request: _Request) -> Array:
        config, size = self.config, len(self.rho)
        curve = curve_of(config)
        if request.mu is not None:
            raise InvalidArgumentError("`mu` must be left out: it shifts the noise levels of a flow.")
        if request.sigmas is not None:
            return self._times(request.sigmas)
        if request.timesteps is not None:
            if curve is not None:
                raise InvalidArgumentError(f"`timesteps` must be left out: `{curve}` chooses the noise levels.")
            base = request.timesteps
        else:
            usable = int((-np.log(self.rho) >= config.get("lambda_min_clipped", -math.inf)).sum())
            n, offset = request.steps, config["steps_offset"]
            base = timesteps(self.family, config["timestep_spacing"], size, usable, n, offset)
        if base.min() < 0 or base.max() > size - 1:
            raise InvalidArgumentError(
                f"`timesteps` must be in [0, {size - 1}], got {base.min():g} to {base.max():g}; take fewer steps, or "
                "another `timestep_spacing` or `steps_offset`."
            )
        levels = np.interp(base, np.arange(size), self.rho)
        if curve is not None:
            ends = self.rho[[0, -1]] if self.family == "multistep" else levels[[-1, 0]]
            low, high = (
                float(end) if config.get(name) is None else check_number(name, config[name], low=0.0, strict=True)
                for name, end in zip(("sigma_min", "sigma_max"), ends, strict=True)
            )
            levels = CURVES[curve](low, high, request.steps)
        repeats = curve is not None and config.get("repeats_last", False)
        return self._times(_ended(levels, config, float(self.rho[0]), repeats))

    def _times(self, rho: Array) -> Array:
        with np.errstate(divide="ignore"):
            log_snrs = torch.from_numpy(-2 * np.log(rho))
        times = self.sde.time(log_snrs)
        near = times.round()
        return torch.where((times - near).abs() < _ROUNDING * near, near, times).numpy()


_ROUNDING = 1e-10  # of a time that is that of a level


@dataclass(frozen=True)
class _EDMGrid:
    """EDM's levels, whose time is the level."""

    config: Mapping[str, Any]

    def __call__(self, request: _Request) -> Array:
        config = self.config
        if request.mu is not None or request.timesteps is not None:
            raise InvalidArgumentError("`mu` and `timesteps` must be left out: EDM's grid follows from n or `sigmas`.")
        if request.sigmas is not None:
            return request.sigmas
        low, high, shape = (check_number(name, config[name], low=0.0, strict=True) for name in _EDM_NUMBERS)
        check_choice("sigma_schedule", config["sigma_schedule"], ("karras", "exponential"))
        if config["sigma_schedule"] == "karras":
            levels = np.linspace(high ** (1 / shape), low ** (1 / shape), request.steps) ** shape
        else:
            levels = CURVES["use_exponential_sigmas"](low, high, request.steps)
        levels[0] = high
        return _ended(levels, config, low, True)


_EDM_NUMBERS = ("sigma_min", "sigma_max", "rho")

# The levels of n steps of a flow before they are shifted, from 1 on; ``last`` is 1/N.
FLOW_LEVELS: dict[str, Callable[[int, float, float], Array]] = {
    "twice_shifted": lambda n, last, shift: np.linspace(1, shifted(np.array(last), shift), n),
    "from_below": lambda n, last, shift: (1 - np.linspace(1, last, n + 1))[:0:-1],
    "below_one": lambda n, last, shift: np.linspace(1, last, n + 1)[:-1],
}


@dataclass(frozen=True)
class _FlowGrid:
    """Levels of a flow, whose time is the level."""

    config: Mapping[str, Any]
    cleanest: float  # where a sampler that does not go to the data ends

    def __call__(self, request: _Request) -> Array:
        config, curve = self.config, curve_of(self.config)
        if request.timesteps is not None:
            raise InvalidArgumentError("`timesteps` must be left out: pass the noise levels of the flow as `sigmas`.")
        shift = check_number("shift", config.get("shift", config.get("flow_shift", 1.0)), low=0.0, strict=True)
        dynamic = bool(config.get("use_dynamic_shifting", False))
        if dynamic == (request.mu is None):
            wanted = "be given, since `use_dynamic_shifting` is set" if dynamic else "be left out"
            raise InvalidArgumentError(f"`mu` must {wanted}, got {request.mu}.")
        if request.mu is not None:
            kinds = {"exponential": math.exp, "linear": float}
            check_choice("time_shift_type", config["time_shift_type"], kinds)
            factor = kinds[config["time_shift_type"]](request.mu)
        else:
            factor = shift
        levels, last = request.sigmas, 1 / config["num_train_timesteps"]
        if levels is None:
            levels = FLOW_LEVELS[config["flow_levels"]](request.steps, last, 1.0 if dynamic else shift)
        levels = stretched(shifted(levels, factor), config.get("shift_terminal"))
        if config["flow_levels"] == "below_one":
            levels[0] = min(levels[0], 1 - 1e-6)
        if curve is not None:
            levels = CURVES[curve](float(levels[-1]), float(levels[0]), request.steps)
        return _ended(levels, config, self.cleanest, config.get("repeats_last", False))


_Grid = Callable[[_Request], Array]


@dataclass(frozen=True)
class Conventions:
    r"""What a scheduler of diffusers says of a network and of its own sampler; `conventions` makes it.

    Args:
        sde: the process. Of a chain it is a variance preserving one whose time is the timestep plus 1, with the data at
            0; of flow matching `scoresde.FlowSDE`, with :math:`\sigma` as time; of EDM `scoresde.EDMSDE`. The standard
            deviation of its prior is ``init_noise_sigma``, for the state of this process.
        prediction: what the network predicts, one of the predictions of `scoresde.ScoreModel`.
        timestep: what the network receives at times, ``timestep(t)``; and ``timestep.time(label)`` the other way.
        chain: the chain of the levels, where timesteps are those of the nearest level; None elsewhere.
        gain: a factor of the network's output, -1 where EDM's is called v.
        sigma_data: the data's standard deviation in EDM's preconditioning.
        variance: ``"learned_range"`` if the network predicts the variance of a step, as `ScoreModel` has it.
        step_variance: that of a step of DDPM, as `scoresde.solvers.Ancestral` names it; None for other schedulers.
        clip: the bound of the data estimate, None for none; see `limit`.
        threshold: the quantile and the bound of dynamic thresholding, None for none.
        state: ``"x"``, or ``"x/alpha"`` if the scheduler's own loop holds that. `sde` is a process of x.

    Example:
        >>> from types import SimpleNamespace
        >>> class DDIMScheduler:  # stands for that of diffusers
        ...     config = {
        ...         "num_train_timesteps": 1000,
        ...         "beta_schedule": "scaled_linear",
        ...         "beta_start": 0.00085,
        ...         "beta_end": 0.012,
        ...         "steps_offset": 1,
        ...         "set_alpha_to_one": False,
        ...         "clip_sample": False,
        ...     }
        >>> c = conventions(DDIMScheduler())
        >>> c.prediction, c.grid(4).tolist(), c.timestep(c.grid(4)).tolist()
        ('noise', [752.0, 502.0, 252.0, 2.0, 1.0], [751, 501, 251, 1, 0])
    """

    sde: AffineSDE
    prediction: str
    timestep: Label
    chain: BetaChain | None = None
    gain: float = 1.0
    sigma_data: float = 0.5
    variance: str | None = None
    step_variance: str | None = None
    clip: float | None = None
    threshold: tuple[float, float] | None = None
    state: str = "x"
    _grid: _Grid = field(repr=False, compare=False, default=lambda request: np.zeros(0))

    def grid(
        self,
        n: int | None = None,
        *,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> Tensor:
        """The times of the scheduler's sampler for n steps, for ``solve(..., grid=...)``.

        Args:
            n: the number of steps (``num_inference_steps``).
            timesteps: instead, the timesteps, falling; the last step is added.
            sigmas: instead, the noise levels: of a flow before they are shifted, and the last step is added; elsewhere
                sigma/alpha, the last one (0 for the data) among them. (EulerDiscreteScheduler's timesteps of such
                levels are linear in their logarithm, those of `timestep` as the config has it.)
            mu: the shift of ``use_dynamic_shifting``, which follows from the size of the image.

        Returns:
            float64, falling from the noisiest time to the end, with the jump to the data (time 0) where the scheduler
            makes it. There are n + 1 times; n where its last step has no length.

        Raises:
            InvalidArgumentError: none or several of the first three are given, the scheduler has no such grid, or two
                of its times are the same.

        Example:
            >>> config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
            >>> [round(t, 4) for t in conventions(config).grid(3).tolist()]
            [1.0, 0.7511, 0.0089, 0.0]
        """
        given = [name for name, value in (("n", n), ("timesteps", timesteps), ("sigmas", sigmas)) if value is not None]
        if len(given) != 1:
            raise InvalidArgumentError(f"One of `n`, `timesteps` and `sigmas` must be given, got {given or 'none'}.")
        count = None if n is None else check_integer("n", n, low=1, high=MOST_STEPS)
        levels = None if sigmas is None else _falling("sigmas", sigmas)
        labels = None if timesteps is None else _falling("timesteps", timesteps)
        times = self._grid(_Request(count, labels, levels, None if mu is None else check_number("mu", mu)))
        if times[-1] == times[-2]:
            times = times[:-1]
        return check_falling(torch.from_numpy(times), self.sde.t_min, self.sde.t_max)

    @property
    def time_input(self) -> str | Callable[[Tensor], Tensor]:
        """`timestep` as `ScoreModel` takes it."""
        return getattr(self.timestep, "name", self.timestep)

    def limit(self, model: Score) -> Score:
        """A score function with the limit that the scheduler puts on the data estimate; itself if there is none.

        Example:
            >>> c = conventions({"_class_name": "DDIMScheduler"})
            >>> type(c.limit(scoresde.ScoreModel(lambda x, t: x, c.sde, "noise"))).__name__
            'Clip'
        """
        check_kind("model", model, Score, "a score function such as a ScoreModel")
        if self.threshold is not None:
            return DynamicThreshold(model, *self.threshold)
        return model if self.clip is None else Clip(model, -self.clip, self.clip)


def _falling(name: str, values: Any) -> Array:
    """A list of numbers that falls."""
    numbers = check_times(name, values, "numbers")
    if len(numbers) < 1 or not bool((numbers.diff() < 0).all()) or not bool((numbers >= 0).all()):
        raise InvalidArgumentError(f"`{name}` must be numbers that fall and are not negative, got {short(values)}.")
    return numbers.numpy()


def conventions(scheduler: Any) -> Conventions:
    r"""Read a scheduler of diffusers, or its config.

    With :math:`\bar\alpha_k` of the config, :math:`x_t = \sqrt{\bar\alpha_k}\,x_0 + \sqrt{1-\bar\alpha_k}\,\varepsilon`
    at the time k + 1; :math:`x_t = (1-t)x_0 + t\varepsilon` for flow matching, :math:`x_t = x_0 + t\varepsilon` for
    EDM.

    Args:
        scheduler: an object with a ``config``, or the dict that ``scheduler_config.json`` holds, with its
            ``_class_name``.

    Raises:
        InvalidArgumentError: the scheduler is not among `SCHEDULERS`, or a field has a value that has no counterpart
            here; the message names the field.
        InvalidTypeError: it is neither a scheduler nor a config.

    Example:
        >>> c = conventions({"_class_name": "EDMEulerScheduler", "sigma_max": 80.0})
        >>> c.prediction, c.timestep, float(c.sde.prior.std) > 80
        ('edm', LogSigma(), True)

    References:
        The schedulers of diffusers 0.42. https://github.com/huggingface/diffusers
    """
    name, given = _named_config(scheduler)
    if name not in SCHEDULERS:
        raise InvalidArgumentError(
            f"`scheduler` must be one of {', '.join(sorted(SCHEDULERS))}, got {name}; make one of them from its "
            "config, as in diffusers.DDIMScheduler.from_config(scheduler.config)."
        )
    kind = SCHEDULERS[name]
    config = kind.read(given)
    for key, (value, reason) in _REFUSED:
        if config.get(key) == value:
            raise InvalidArgumentError(f"`{key}`={value!r} has no counterpart here: {reason}.")
    check_choice("prediction_type", config["prediction_type"], PREDICTIONS)
    shared = {"step_variance": STEP_VARIANCES.get(str(config.get("variance_type")))} if name in _DDPMS else {}
    shared |= {"variance": "learned_range" if config.get("variance_type") == "learned_range" else None}
    shared |= _limits(config)
    return _FAMILIES[kind.family](kind.family, config, shared)


_REFUSED: tuple[tuple[str, tuple[Any, str]], ...] = (
    ("invert_sigmas", (True, "its flow runs from data to noise, with the time turned round")),
    ("interpolation_type", ("log_linear", "its timesteps are not those of its noise levels")),
    ("variance_type", ("learned", "the variance must be predicted as that of 'learned_range'")),
    ("variance_type", ("fixed_large_log", "it is the root of a logarithm, which is negative")),
)
STEP_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "learned_range": "learned",
}
_DDPMS = ("DDPMScheduler", "DDPMParallelScheduler")


def _named_config(scheduler: Any) -> tuple[str, Mapping[str, Any]]:
    """The name of the first known class of a scheduler, and its config."""
    if isinstance(scheduler, type):
        raise InvalidTypeError(f"`scheduler` must be an object, got the class {scheduler.__name__}; call it.")
    if isinstance(scheduler, Mapping):
        name = scheduler.get("_class_name")
        if not isinstance(name, str):
            raise InvalidArgumentError("`scheduler` must have the key _class_name, as scheduler_config.json has it.")
        return name, scheduler
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise InvalidTypeError(
            f"`scheduler` must be a scheduler of diffusers or its config, got {type(scheduler).__name__}."
        )
    names = [cls.__name__ for cls in type(scheduler).__mro__]
    if "DiffusersScheduler" in names:  # the levels are those of the scheduler that it stands for
        names = [config["source"]]
    return next((name for name in names if name in SCHEDULERS), names[0]), config


def _limits(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the data estimate."""
    if config.get("thresholding"):
        return {"threshold": (config["dynamic_thresholding_ratio"], config["sample_max_value"])}
    return {"clip": config["clip_sample_range"]} if config.get("clip_sample") else {}


def _of_chain(family: str, config: dict[str, Any], shared: dict[str, Any]) -> Conventions:
    if config.get("use_flow_sigmas"):
        return _of_flow(family, config, shared)
    prediction = PREDICTIONS[config["prediction_type"]]
    if prediction == "flow":
        raise InvalidArgumentError(
            "`prediction_type`='flow_prediction' needs the process of a flow; set `use_flow_sigmas`, or take "
            "FlowMatchEulerDiscreteScheduler."
        )
    rescaled = bool(config.get("rescale_betas_zero_snr"))
    if rescaled and prediction == "noise":
        raise InvalidArgumentError(
            "`rescale_betas_zero_snr` with `prediction_type`='epsilon' has no counterpart here: the noisiest level has "
            "no signal, and there the noise does not determine the data; such networks predict v or the sample."
        )
    levels = alphas_bar(config)
    if rescaled and family != "posterior":
        levels[-1] = FAINT
        if not levels[-1] < levels[-2]:
            raise InvalidArgumentError(
                f"`rescale_betas_zero_snr` with these betas has no counterpart here: this scheduler gives the noisiest "
                f"level an alpha-bar of {FAINT:.2g}, more than the level before it has, {float(levels[-2]):.2g}; take "
                "DDIMScheduler, where it is 0."
            )
    known = torch.cat([levels[:-1], torch.where(levels[-1:] > 0, levels[-1:], 1e-3 * levels[-2:-1])])
    chain = BetaChain(1 - known / torch.cat([known.new_ones(1), known[:-1]]))
    log_snrs = levels.log() - torch.log1p(-levels)
    rho = (-0.5 * log_snrs).exp().numpy()
    sampled = config["timestep_spacing"] == "leading" or family != "sigma"
    if config.get("timestep_type") == "continuous" and prediction == "v":
        return _continuous(family, config, shared, rho)
    sde = TimestepSDE(log_snrs, prior=None if sampled else NormalPrior(float((1 - levels[-1]).sqrt())))
    label = _label(family, config, sde, chain)
    return Conventions(
        sde,
        prediction,
        label,
        chain=chain if isinstance(label, NearestTimestep) else None,
        state="x/alpha" if family == "sigma" else "x",
        _grid=_ChainGrid(family, config, sde, rho),
        **shared,
    )


def _label(family: str, config: Mapping[str, Any], sde: TimestepSDE, chain: BetaChain) -> Label:
    """What the network receives: the table in the text of this module."""
    curve = curve_of(config)
    if curve is None:
        return Timestep(sde, "rho") if family == "sigma" else NearestTimestep(sde, chain)
    whole = config.get("whole", False)
    rounded = config.get("rounded", whole) and config["beta_schedule"] != config.get("rounded_unless")
    if rounded and curve in ("use_karras_sigmas", "use_lu_lambdas"):
        return NearestTimestep(sde, chain)
    return Timestep(sde, "log_rho", whole=whole)


def _continuous(family: str, config: dict[str, Any], shared: dict[str, Any], rho: Array) -> Conventions:
    """EDM with the v prediction of a variance preserving process, which is minus EDM's with sigma_data = 1."""
    high = float(rho[-1]) if config["sigma_max"] is None else check_number("sigma_max", config["sigma_max"])
    std = math.hypot(high, 1.0) if config["timestep_spacing"] == "leading" else high
    sde = EDMSDE(float(rho[0]), high, t_min=0.0, prior=NormalPrior(std))
    grid = _ChainGrid(family, config, sde, rho)
    return Conventions(sde, "edm", LogSigma(), gain=-1.0, sigma_data=1.0, _grid=grid, **shared)


def _of_edm(family: str, config: dict[str, Any], shared: dict[str, Any]) -> Conventions:
    gains = {"epsilon": 1.0, "v_prediction": -1.0}
    check_choice("prediction_type", config["prediction_type"], gains)
    low, high, data = (
        check_number(name, config[name], low=0.0, strict=True) for name in ("sigma_min", "sigma_max", "sigma_data")
    )
    sde = EDMSDE(low, high, t_min=0.0, prior=NormalPrior(math.hypot(high, 1.0)))
    gain = gains[config["prediction_type"]]
    return Conventions(sde, "edm", LogSigma(), gain=gain, sigma_data=data, _grid=_EDMGrid(config), **shared)


def _of_flow(family: str, config: dict[str, Any], shared: dict[str, Any]) -> Conventions:
    curve = curve_of(config)
    if family != "flow" and curve is not None:
        raise InvalidArgumentError(
            f"`use_flow_sigmas` with `{curve}` has no counterpart here: it takes the noise levels of the chain for "
            "those of the flow."
        )
    prediction = PREDICTIONS[config["prediction_type"]]
    if prediction == "v":
        raise InvalidArgumentError(
            "`use_flow_sigmas` with `prediction_type`='v_prediction' has no counterpart here: v belongs to a variance "
            "preserving process."
        )
    factor = check_integer("num_train_timesteps", config["num_train_timesteps"], low=1)
    cleanest = 0.0
    if config["final_sigmas_type"] != "zero":
        bar = float(alphas_bar(config)[0])
        cleanest = math.sqrt((1 - bar) / bar)
    sde = FlowSDE(t_min=0.0, t_max=1.0)
    label = ScaledTime(float(factor), whole=config.get("whole", False))
    return Conventions(sde, prediction, label, _grid=_FlowGrid(config, cleanest), **shared)


_FAMILIES: dict[str, Callable[[str, dict[str, Any], dict[str, Any]], Conventions]] = {
    "posterior": _of_chain,
    "multistep": _of_chain,
    "sigma": _of_chain,
    "edm": _of_edm,
    "flow": _of_flow,
}
