"""One call for every sampler: `solve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..grids import Grid
from ..scores.bare import check_complete
from ..scores.mistakes import first_output_read, warn_of_training
from ..solvers import Solver
from ..solvers.registry.rows import MethodName
from ..targets import GaussianStart
from .arguments import GridChoice, SolveOptions
from .errors import explained
from .loop import progress_bar
from .noise import Noise
from .sdes import SDE
from .setup import set_up
from .solution import Info, Solution
from .support.checks import check_flag


def solve(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor | None = None,
    *,
    method: MethodName | str | Solver | Grid = "auto",
    shape: Sequence[int] | None = None,
    evaluations: int | None = None,
    steps: int | None = None,
    grid: GridChoice = None,
    rtol: float | None = None,
    atol: float | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    start: GaussianStart | None = None,
    stochasticity: float | None = None,
    context: Mapping[str, object] | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
    denoise: bool = False,
    save_at: Sequence[float] | Tensor | str | None = None,
    callback: Callable[[Info], object] | None = None,
    progress: bool = False,
    max_steps: int | None = None,
    throw: bool = True,
    differentiable: bool = False,
    log_prob: bool | Mapping[str, object] | Callable[[Tensor, Tensor], Tensor] = False,
    path_log_prob: bool | str = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **solver_options: object,
) -> Solution:
    r"""Solve the reverse-time SDE or the probability-flow ODE of a forward process.

    .. math:: dx = [f(x, t) - \tfrac12(1+\eta^2) g(t)^2 s(x, t)]\,dt + \eta\, g(t)\,d\bar w.

    From ``t_start`` to ``t_end``: downwards generates (by default from the prior at ``sde.t_max`` to ``sde.t_min``),
    upwards encodes (deterministic methods only); equal times return ``x``.

    Args:
        sde: the forward process.
        score_fn: ``score_fn(x, t, **context)``, the score :math:`\nabla\log p_t(x)` shaped like x, with t as
            ``(batch,)``; a `ScoreModel`, a target's score, or any callable. A network that `load` returned, and a
            `ScoreModel` of another affine process, mean their score on ``sde``.
        x: the state at ``t_start``, ``(batch, *event)``; if it is missing, it is drawn from the prior.
        method: a name from `methods`, a solver object, what `tune`, `fit_solver` or `fit_grid` made, which is a method
            on its grid, or ``"auto"``. With a number of ``evaluations``, ``"auto"`` is the method with the smallest
            measured errors: up to 6 ``"unipc2"`` with ``lower_order_final=True`` on the grid ``VPTime(0.3,
            0.25)``, up to 8 ``"dpm_2m"`` on ``Angle(1.0, 0.35)``, up to 29 ``"dpm_3m"`` with ``start_up="published"``
            on ``Angle(3.0, 0.25)``, begun at :math:`\sigma/\alpha` = 100 (up to 14) or 300 (all in units of the data,
            where the score function declares them, else of 1), beyond that ``"unipc3"``; with a fitted grid it is the
            method that the grid was fitted for; otherwise ``"adams"``.
        shape: ``(batch, *event)`` when ``x`` is missing; not needed if ``score_fn`` has an ``event_shape`` (then one
            sample, or one per seed).
        evaluations: the number of calls of the network per sample, ``denoise`` included: a fixed-step method makes the
            largest number of steps that they pay for (default 20 for ``"auto"`` without tolerances).
        steps: in place of ``evaluations``, the number of steps of a fixed-step method (default 500 for ``"pc"``, 50 for
            others).
        grid: the nodes of a fixed-step method: ``"log_snr"`` (default for affine processes with a finite log-SNR),
            ``"tangent"`` or ``"time"`` (default for others, depending on the schedule), ``"karras"``, ``"cosine"``,
            ``"quadratic"``, a function ``(sde, t_start, t_end, steps) -> (steps + 1,)``, a `SamplerGrid`, which has
            ends of its own, or a `Grid` or tensor of times, which replace steps, t_start and t_end. With
            ``differentiable=True`` a tensor that requires a gradient gets one.
        rtol, atol: tolerances of an adaptive method, 1e-3 by default.
        t_start, t_end: the interval, inside [t_min, t_max].
        start: a warm start, such as `fit_start` finds: ``x``, or the draw from the prior, is the state at ``t_max``,
            the flow of a Gaussian takes it to ``start.t``, and the method continues from there. It sets ``t_start``.
        stochasticity: :math:`\eta \ge 0`, for methods that step a general drift and diffusion; None is the method's
            own.
        context: the inputs of the score function besides x and t, by name: tensors ``(batch, …)`` with one entry per
            sample, or ``(1, …)`` with one for all; dicts, lists and tuples of such tensors, nested as the network takes
            them, in which numbers, flags, names and None are the same for all samples; or None. Each entry stays with
            its sample when samples leave the batch or the batch is repeated.
        seed: one seed for the batch.
        seeds: one seed per sample: the noise of sample i then depends on seed i alone, not on the batch.
        generator: a torch generator.
        noise: a `Noise`, or a callable ``(k, like) -> tensor`` giving the k-th standard normal draw (k = 0 is the
            prior's when x is missing). Without any of the four, torch's global generator.
        denoise: return :math:`E[x_0|x_{t_{end}}]` instead of the state, at the cost of one evaluation.
        save_at: times to keep the state at, each hit exactly (a fixed grid gets them as additional nodes), or
            ``"steps"``.
        callback: ``callback(info)`` after each step, with ``step, t, x, nfe``; returning True stops the solve.
        progress: show a progress bar.
        max_steps: the largest number of steps of the loop (default 10,000 for adaptive methods).
        throw: raise at a failure; False lets the other samples finish and marks failed ones by NaN and ``status``.
            Samples of ``x`` with NaN or infinity are failures too, and never evaluated; methods that step samples
            together (``batch_coupled``) refuse them in any case, except methods of other libraries.
        differentiable: keep the graph, so that the result can be differentiated; by default no gradient is recorded.
            The steps that were taken are differentiated. Those of adaptive methods follow the error of the result, not
            that of the gradient: where a result is exact by chance, gradients in parameters may be far off.
        log_prob: also the log-density of each sample under the probability flow, integrated beside it by ``"adams"`` or
            an adaptive pair, with tolerances of 1e-5 by default. A mapping sets how the divergence is estimated:
            ``divergence``, ``probes``, ``probe``, ``chunk`` and ``check`` as of `scoresde.log_likelihood`, which has
            the density of given data. One probe, the default, has no error bar. (A function is the option of this name
            of the corrector ``"mala"``.)
        path_log_prob: of a stochastic method whose steps are Gaussian given the past, keep the random states and their
            log-density, for `scoresde.paths`; the samples do not change. ``"sums"`` keeps the densities alone.
        dtype: of the state; default that of ``x``, else torch's default. Half precision is computed in float32.
        device: of the state; default that of ``x``, else that of the network's parameters, else torch's default.
        **solver_options: fields of the method's class, such as ``snr=0.16`` for ``"pc"``.

    Returns:
        A `Solution`: ``x``, and the cost of each sample.

    Raises:
        InvalidArgumentError: an argument does not fit, before the first evaluation.
        ScoreFnError: the score function returned something that is not a score.
        NonFiniteError: NaN or infinity in the input, a score or a state.
        MaxStepsError, StepSizeUnderflowError: an adaptive method could not arrive.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.1
        ... )
        >>> sde = scoresde.VPSDE()
        >>> score_fn = target.score(sde)
        >>> solution = solve(sde, score_fn, method="pc", shape=(64, 1), seed=0)
        >>> bool((solution.x.abs() < 2).all()), solution.evaluations
        (True, 1000)

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations.
        https://arxiv.org/abs/2011.13456
    """
    given = SolveOptions.of(locals())
    for name, flag in (("progress", progress), ("differentiable", differentiable)):
        check_flag(name, flag)
    if callable(log_prob):
        given = replace(given, solver_options=solver_options | {"log_prob": log_prob}, log_prob=False)
    if given.log_prob is not False:
        from ..likelihood import sampling  # which takes a while to import

        given, settings = sampling.check_log_prob(given, sde)
    with nullcontext() if differentiable else torch.no_grad(), explained(x, shape):
        setup = set_up(sde, score_fn, x, given)
        if setup.loop is not None:
            score = setup.process.network.score_fn
            check_complete(context, score)
            warn_of_training(score)
        if given.log_prob is not False:
            return sampling.with_log_prob(setup, settings, progress=progress)
        if setup.loop is not None:
            bar = progress_bar(setup.loop.solver.name if progress else None)
            with first_output_read(score, sde), bar as setup.loop.progress:
                setup.loop.complete()
        result: Solution = setup.process.run(setup.finished(setup.arrived()))
        return result
