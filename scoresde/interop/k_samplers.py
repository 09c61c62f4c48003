"""The methods of this package with the signature of k-diffusion's samplers, which is not imported."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..core.errors import InvalidArgumentError, ScoreFnError, short
from ..core.noise import BatchNoise, Noise
from ..core.sdes import EDMSDE
from ..core.stepper import Stepper
from ..core.support.checks import check_callable, check_flag, check_kind, check_number, check_state, check_times, form
from ..core.support.context import check_unwritten, versions
from ..core.support.signatures import accepts
from ..core.support.tensors import compute_dtype
from ..scores import Score, ScoreModel
from ..solvers import Solver, make_solver, methods
from ..solvers.registry.rows import MethodName
from .course import Course, Leg, legs_of

_ROOM = 2.0  # how far above the first level noise that is added may lead
# k-diffusion's own samplers: the method here that makes the same steps, and its options.
COUNTERPARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sample_euler": ("ddim", {}),
    "sample_euler_ancestral": ("ddim_eta", {"eta": 1.0}),
    "sample_heun": ("rho_heun", {}),
    "sample_dpm_2": ("dpm_2s", {"form": "dpmsolver"}),
    "sample_lms": ("rho_ab4", {"start_up": "published"}),
    "sample_dpmpp_2s_ancestral": ("dpmpp_2s_ancestral", {"eta": 1.0}),
    "sample_dpmpp_sde": ("dpmpp_sde", {}),
    "sample_dpmpp_2m": ("dpmpp_2m", {}),
    "sample_dpmpp_2m_sde": ("dpmpp_2m_sde", {"form": "dpmsolver"}),
    "sample_dpmpp_3m_sde": ("dpmpp_3m_sde", {"variant": "published", "start_up": "published"}),
}


class _Sampled(Noise):
    """Draws of a ``noise_sampler(sigma, sigma_next)``.

    Attributes:
        step: the levels between which the step goes, for draws that belong to no interval.
    """

    def __init__(self, sampler: Callable[[Tensor, Tensor], Tensor], step: Callable[[], tuple[float, float]]) -> None:
        self.sampler, self.step = sampler, step

    def normal(self, like: Tensor) -> Tensor:
        """See `Noise.normal`."""
        return self.increment(*self.step(), like)

    def increment(self, start: Any, stop: Any, like: Tensor) -> Tensor:
        """See `Noise.increment`."""
        levels = [torch.as_tensor(level, dtype=like.dtype, device=like.device) for level in (start, stop)]
        z = self.sampler(*levels)
        if not isinstance(z, Tensor) or z.shape != like.shape:
            raise InvalidArgumentError(
                f"`noise_sampler` must return a tensor of shape {tuple(like.shape)}, got {form(z)}."
            )
        return z.to(like)


class _Denoiser:
    """The caller's denoiser, with what it takes besides x and sigma."""

    def __init__(self, model: Callable[..., Tensor], extra_args: Mapping[str, Any] | None) -> None:
        check_callable("model", model, "model(x, sigma)")
        check_kind("extra_args", extra_args, (Mapping, type(None)), "a mapping of names to values")
        self.model, self.extra = model, dict(extra_args or {})
        for name in self.extra:
            if not isinstance(name, str) or not accepts(model, name):
                raise InvalidArgumentError(f"`extra_args` must have names that `model` takes, got {short(name)}.")

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        before = versions(x, {})
        denoised = self.model(x, sigma, **self.extra)
        check_unwritten("`model`", before, x, {})
        if not isinstance(denoised, Tensor) or not denoised.is_floating_point() or denoised.shape != x.shape:
            raise ScoreFnError(f"`model` must return a tensor of shape {tuple(x.shape)}, got {form(denoised)}.")
        return denoised


def _check_tolerances(solver: Solver, **tolerances: float | None) -> None:
    """Refuse tolerances of a method with given steps."""
    for name, tolerance in tolerances.items():
        if tolerance is not None:
            check_number(name, tolerance, low=0.0)
            if not solver.adaptive:
                raise InvalidArgumentError(f"`{name}` does not apply to {solver.name!r}, whose steps are `sigmas`.")


def sample_k_diffusion(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], object] | None = None,
    disable: bool | None = None,
    *,
    method: MethodName | str | Solver = "dpm_3m",
    noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    **options: Any,
) -> Tensor:
    r"""A sampler of k-diffusion that makes the steps of a method of this package.

    .. math:: x_\sigma = x_0 + \sigma\varepsilon, \qquad D(x, \sigma) = E[x_0|x_\sigma = x].

    The process is `scoresde.EDMSDE`, whose time is :math:`\sigma`; the result is that of ``solve(sde, ScoreModel(model,
    sde, "data", "sigma"), x, grid=sigmas, method=method)``. Where the method has no limit at :math:`\sigma = 0`, DDIM
    makes the last step: it returns the denoiser's output. Adaptive methods go from the first level to the last one and
    choose the levels between them.

    Args:
        model: called as ``model(x, sigma, **extra_args)`` with ``sigma`` of shape ``(batch,)``; it returns D.
        x: the state at the first level, ``(batch, *event)``: noise times ``sigmas[0]``.
        sigmas: the noise levels, falling; the last one may be 0.
        extra_args: what the model gets besides.
        callback: called after the first evaluation of each step with ``{"x", "i", "sigma", "sigma_hat", "denoised"}``:
            the state that was evaluated, the step's number, the level where the step began, the level of the
            evaluation, and D.
        disable: whether to show no progress bar; None shows one in a terminal.
        method: a name from `scoresde.methods`, or a solver object.
        noise_sampler: ``noise_sampler(sigma, sigma_next)``, standard normal noise for a step between two levels, such
            as k-diffusion's ``BrownianTreeNoiseSampler``; by default independent noise.
        generator: of that independent noise; by default torch's global one.
        rtol, atol: tolerances of an adaptive method.
        **options: fields of the method's class, as ``eta`` of ``"ddim_eta"``.

    Returns:
        The state at the last level, in the dtype of ``x``.

    Raises:
        InvalidArgumentError: the levels do not fall, or an argument does not fit.
        InvalidTypeError: an argument has the wrong type.
        ScoreFnError: the model returned something that is not shaped like ``x``, or wrote to its input.
        NonFiniteError: NaN or infinity in the input, in what the model returned, or in a state.

    Example:
        >>> def model(x, sigma):  # of data N(0, I)
        ...     return x / (1 + sigma[:, None] ** 2)
        >>> sigmas = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0])
        >>> x = 10 * torch.ones(2, 3)
        >>> bool(
        ...     (sample_k_diffusion(model, x, sigmas, method="dpm_3m") - x / 101**0.5)
        ...     .abs()
        ...     .max()
        ...     < 0.1
        ... )
        True

    References:
        Karras et al. (2022). https://arxiv.org/abs/2206.00364
        https://github.com/crowsonkb/k-diffusion (``sampling.py``)
    """
    check_state("x", x)
    network = _Denoiser(model, extra_args)
    if disable is not None:
        check_flag("disable", disable)
    for name, function, call in (
        ("callback", callback, "callback(info)"),
        ("noise_sampler", noise_sampler, "noise_sampler(sigma, sigma_next)"),
    ):
        if function is not None:
            check_callable(name, function, call)
    levels = _levels(sigmas)
    high, low = float(levels[0]), float(levels[-1])
    sde = EDMSDE(low or 0.5 * float(levels[-2]), _ROOM * high, t_min=low)
    solver = make_solver(method, options, _parameters())
    _check_tolerances(solver, rtol=rtol, atol=atol)
    step = [high, high]  # where it goes from and to

    def score(net: Callable[..., Tensor]) -> Score:
        return ScoreModel(net, sde, "data", "sigma")

    def begin(leg: Leg, x: Tensor, noise: Noise) -> Stepper:
        where: dict[str, Any] = {"grid": leg.times}
        if leg.solver.adaptive:
            where = {"t_start": float(leg.times[0]), "t_end": float(leg.times[-1]), "rtol": rtol, "atol": atol}
        return Stepper(sde, leg.solver, x, prediction=score, noise=noise, **where)

    def works(legs: Sequence[Leg]) -> None:
        """Go through the legs with one number, up to an adaptive one."""
        quiet = BatchNoise.seeded(0, torch.device("cpu"))
        trial = Course(lambda leg, x: begin(leg, x, quiet), legs, torch.ones(1, 1, dtype=torch.float64))
        while not (trial.done or trial.leg.solver.adaptive):
            trial.tell(0.5 * trial.ask().x)

    legs, _ = legs_of(solver, levels, works, (False, low == 0.0))
    noise = BatchNoise(generator) if noise_sampler is None else _Sampled(noise_sampler, lambda: (step[0], step[1]))
    course = Course(lambda leg, x: begin(leg, x, noise), legs, x.to(compute_dtype(x.dtype)))
    total = None if solver.adaptive else len(levels) - 1
    steps = 0
    with tqdm(total=total, disable=disable, file=sys.stderr) as bar, torch.no_grad():
        while not course.done:
            first, sigma = course.between, torch.as_tensor(course.t, dtype=torch.float64)
            if first:
                now = float(sigma.max())
                step[:] = now, float(max((level for level in levels.tolist() if level < now), default=low))
            question = course.ask()
            given, at = question.x.to(x.dtype), question.t.to(x.dtype)
            denoised, before = network(given, at), versions(given, {})
            if first and callback is not None:
                levels_here = {"sigma": sigma.to(x), "sigma_hat": at if sigma.ndim else at[0]}
                place = min(steps, len(levels) - 2)  # some methods make more steps than there are
                callback({"x": given, "i": place, **levels_here, "denoised": denoised})
                check_unwritten("`callback`", before, given, {})
            steps += first
            bar.update(int(first))
            course.tell(denoised.to(question.x.dtype))
        bar.update(max((total or 0) - steps, 0))  # a last step may need no evaluation
    return course.x.to(x.dtype)


# All methods as k-diffusion's samplers, by the names that user interfaces use; those of k-diffusion itself make
# its own steps.
K_SAMPLERS: Mapping[str, Callable[..., Tensor]] = {
    f"sample_{row.name}": functools.partial(sample_k_diffusion, method=row.name)
    for row in methods()
    if row.kind not in ("backend", "forward")
} | {
    name: functools.partial(sample_k_diffusion, method=method, **options)
    for name, (method, options) in COUNTERPARTS.items()
}


def _levels(sigmas: Any) -> Tensor:
    """The noise levels, float64."""
    levels = check_times("sigmas", sigmas, "noise levels").to("cpu", torch.float64)
    if len(levels) < 2 or not bool((levels.diff() < 0).all()) or float(levels[-1]) < 0:
        raise InvalidArgumentError(
            f"`sigmas` must be at least two noise levels that fall, the last of which may be 0, got {levels.tolist()}."
        )
    return levels


@functools.cache
def _parameters() -> tuple[str, ...]:
    """The names of what `sample_k_diffusion` takes."""
    return tuple(inspect.signature(sample_k_diffusion).parameters)
