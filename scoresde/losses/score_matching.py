r"""Score matching: the objectives whose minimum is :math:`s = \nabla\log p_t`.

With the model's score s and the distribution :math:`p_t` of the states,

.. math::
    \tfrac12 E\|s - \nabla\log p_t\|^2
    = E[\mathrm{tr}\,\nabla s + \tfrac12\|s\|^2] + \tfrac12 E\|\nabla\log p_t\|^2
    = \tfrac12 E\|s - \nabla\log p(x_t|x_0)\|^2 - \tfrac12 E\|\nabla\log p_t - \nabla\log p(x_t|x_0)\|^2 .

The first needs the score, the second a trace of the Jacobian (exact, or of random probes), the third a kernel. All have
the same gradient in expectation. Sums over the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, ScoreFnError
from ..core.processes.divergence import PROBES, Backward, ExactTrace, Hutchinson, dot
from ..core.processes.general import drift_of
from ..core.sdes import SDE, Node
from ..core.sdes.base import check_sde
from ..core.sdes.records import times_of
from ..core.sdes.spread import Spread
from ..core.support.checks import (
    MOST_DRAWS,
    check_callable,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_output,
    check_score_fn,
    check_state,
    check_tensor,
)
from ..core.support.context import check_unwritten, versions
from ..core.support.tensors import Scalar, compute_dtype, expand, usable
from ..targets import Target
from .checks import check_context, check_model, check_node, gives_estimates, lost
from .core import Model, denoising, drawn, finish, look, normal, scaled
from .times import Times
from .weights import Weight, weigh


def explicit_at(
    model: Model,
    x0: Tensor,
    noise: Tensor,
    node: Node[Tensor],
    *,
    score: Callable[..., Tensor] | Target,
    weight: str | Weight = "constant",
    **context: object,
) -> Tensor:
    """`explicit_score_matching` with the noise and the noise levels given, ``(batch,)``.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 0.3)
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VESDE(), "noise")
        >>> explicit_at(
        ...     model,
        ...     torch.zeros(1, 2),
        ...     torch.zeros(1, 2),
        ...     model.sde.nodes(torch.ones(1)),
        ...     score=target,
        ... )
        tensor([0.])
    """
    check_model(model)
    if isinstance(score, Target):
        check_tensor("x0", x0, (-1, *score.event_shape))
    else:
        check_callable("score", score, "score(x, t), or a target")
    known: Any = score.score(model.sde) if isinstance(score, Target) else score
    seen = look(model, x0, noise, node, **context)
    sigma = expand(seen.node.sigma, x0)
    if gives_estimates(known):
        off = (seen.estimate.noise - known.estimate(seen.state, seen.node).noise) / sigma
    else:
        off = seen.estimate.noise / sigma + _called(known, seen.state, node.t, {})
    return scaled(0.5 * off.square().flatten(1).sum(1), weigh(weight, seen.node))


def explicit_score_matching(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    score: Callable[..., Tensor] | Target,
    weight: str | Weight = "constant",
    times: Times | None = None,
    importance: bool = True,
    **context: object,
) -> Tensor:
    r"""Score matching against a known score: :math:`\tfrac12 w(t)\,\|s(x_t, t) - \nabla\log p_t(x_t)\|^2`, summed over
    the event.

    Args:
        score: the score, ``score(x, t)``, or a target, as `scoresde.targets.GaussianMixture`.
        weight: of the score's error; ``"sigma2"`` makes all levels count alike.
        model, x0, generator, times, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 0.3)
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VPSDE(), "noise")
        >>> loss = explicit_score_matching(
        ...     model, target.sample(4), score=target, weight="sigma2"
        ... )
        >>> loss.shape
        torch.Size([4])

    References:
        Hyvärinen (2005), Estimation of Non-Normalized Statistical Models by Score Matching, eq. 2.
    """
    x0, draw, node, noise = drawn(model, x0, context, generator, times)
    value = explicit_at(model, x0, noise, node, score=score, weight=weight, **context)
    return finish(value, draw, node, x0, times, importance)


def implicit_at(
    score_fn: Any, x: Tensor, t: Tensor | Node[Tensor], probes: Tensor | None = None, **context: object
) -> Tensor:
    r""":math:`\mathrm{tr}\,\nabla s + \tfrac12\|s\|^2` at states, ``(batch,)``.

    Args:
        score_fn: a `ScoreModel`, or ``score_fn(x, t)``.
        x: states, ``(batch, *event)``.
        t: their times ``(batch,)``, or for a model a `Node`.
        probes: of Hutchinson's estimate, ``(batch, m, *event)``; None for the exact trace.

    Example:
        >>> implicit_at(lambda x, t: -x, torch.ones(1, 3), torch.zeros(1)).detach()
        tensor([-1.5000])
    """
    score, product = _field(score_fn, x, t, context)
    if probes is not None:
        check_tensor("probes", probes, (len(x), -1, *x.shape[1:]))
    trace = ExactTrace(x.new_zeros((len(x), 0, *x.shape[1:]))) if probes is None else Hutchinson(probes)
    value = trace(product).mean(1) + 0.5 * dot(score, score)
    return _kept(value.to(x.dtype))


def implicit_score_matching(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    divergence: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    t: Scalar | None = None,
    weight: str | Weight = "constant",
    times: Times | None = None,
    importance: bool = True,
    **context: object,
) -> Tensor:
    r"""Score matching without a score to compare with: :math:`w(t)\,[\mathrm{tr}\,\nabla s + \tfrac12\|s\|^2]`, summed
    over the event.

    Args:
        divergence: ``"exact"``, of D vector-Jacobian products, or ``"hutchinson"``.
        probes: products of ``"hutchinson"``.
        probe: ``"rademacher"`` or ``"gaussian"``.
        t: None; or the times of states, a number or ``(batch,)``: ``x0`` then holds states of any process at these
            times, and the model is any ``score_fn(x, t)``. Nothing is noised and ``weight`` is not used.
        model, x0, generator, weight, times, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, NonFiniteError: as `denoising`.
        ScoreFnError: gradients do not reach the input of the network.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.VPSDE(), "noise")
        >>> implicit_score_matching(model, torch.zeros(4, 2), weight="sigma2").shape
        torch.Size([4])

    References:
        Hyvärinen (2005), theorem 1.
    """
    check_choice("divergence", divergence, ("exact", "hutchinson"))

    def value(state: Tensor, at: Tensor | Node[Tensor], **context: object) -> Tensor:
        drawn = _probes(state, probes, probe, generator) if divergence == "hutchinson" else None
        return implicit_at(model, state, at, drawn, **context)

    return _of_states(value, model, x0, generator, t, weight, times, importance, context)


def sliced_at(
    score_fn: Any,
    x: Tensor,
    t: Tensor | Node[Tensor],
    probes: Tensor,
    *,
    variance_reduction: bool = True,
    **context: object,
) -> Tensor:
    r""":math:`v^T\nabla s\,v + \tfrac12\|s\|^2` or :math:`v^T\nabla s\,v + \tfrac12(v^Ts)^2` at states, the mean over
    probes ``(batch, m, *event)``; the rest as in `implicit_at`.

    Example:
        >>> v = torch.tensor([[[1.0, 1.0, -1.0]]])
        >>> x = torch.tensor([[1.0, 0.0, 2.0]])
        >>> sliced_at(lambda x, t: -x, x, torch.zeros(1), v).detach()
        tensor([-0.5000])
        >>> sliced_at(
        ...     lambda x, t: -x, x, torch.zeros(1), v, variance_reduction=False
        ... ).detach()
        tensor([-2.5000])
    """
    check_flag("variance_reduction", variance_reduction)
    score, product = _field(score_fn, x, t, context)
    check_tensor("probes", probes, (len(x), -1, *x.shape[1:]))
    value = Hutchinson(probes)(product).mean(1)
    if variance_reduction:
        value = value + 0.5 * dot(score, score)
    else:
        value = value + 0.5 * torch.stack([dot(v, score) for v in probes.unbind(1)]).square().mean(0)
    return _kept(value.to(x.dtype))


def sliced_score_matching(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    probes: int = 1,
    probe: str = "rademacher",
    variance_reduction: bool = True,
    t: Scalar | None = None,
    weight: str | Weight = "constant",
    times: Times | None = None,
    importance: bool = True,
    **context: object,
) -> Tensor:
    r"""Score matching along random directions v with the covariance I: :math:`w(t)\,[v^T\nabla s\,v +
    \tfrac12\|s\|^2]`, or with :math:`\tfrac12(v^Ts)^2` in place of :math:`\tfrac12\|s\|^2`, summed over the event.

    It needs neither a kernel nor D products, and so trains the score of any process from simulated states (``t``).

    Args:
        probes: directions per sample.
        probe: ``"rademacher"`` or ``"gaussian"``.
        variance_reduction: take :math:`\|s\|^2`, which is the mean of the other over v.
        t: None; or the times of states, a number or ``(batch,)``: ``x0`` then holds states of any process at these
            times, and the model is any ``score_fn(x, t)``. Nothing is noised and ``weight`` is not used.
        model, x0, generator, weight, times, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, NonFiniteError: as `denoising`.
        ScoreFnError: gradients do not reach the input of the network.

    Example:
        >>> states = torch.randn(4, 2)
        >>> sliced_score_matching(lambda x, t: -x, states, t=0.5).shape
        torch.Size([4])

    References:
        Song, Garg, Shi, Ermon (2019), Sliced Score Matching, eqs. 7-8. https://arxiv.org/abs/1905.07088
    """

    def value(state: Tensor, at: Tensor | Node[Tensor], **context: object) -> Tensor:
        v = _probes(state, probes, probe, generator)
        return sliced_at(model, state, at, v, variance_reduction=variance_reduction, **context)

    return _of_states(value, model, x0, generator, t, weight, times, importance, context)


def denoising_score_matching(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    weight: str | Weight = "sigma2",
    times: Times | None = None,
    importance: bool = True,
    **context: Any,
) -> Tensor:
    r"""Score matching against the score of the kernel: :math:`\tfrac12 w(t)\,\|s(x_t, t) + \varepsilon/\sigma\|^2`,
    summed over the event.

    On a `scoresde.discrete.NoiseScales` chain with :math:`w = \sigma^2` it is NCSN's objective, otherwise score-SDE's.

    Args:
        weight: of the score's error; ``"sigma2"`` is NCSN's and score-SDE's; :math:`g^2` is
            `likelihood_weighted`.
        model, x0, generator, times, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> chain = scoresde.discrete.NoiseScales.geometric(10, 0.01, 1.0)
        >>> net = lambda x, label: 0 * x
        >>> model = scoresde.ScoreModel(
        ...     net, chain.sde(), "score", time_input="index", chain=chain
        ... )
        >>> denoising_score_matching(model, torch.zeros(4, 2)).shape
        torch.Size([4])

    References:
        Vincent (2011), A Connection Between Score Matching and Denoising Autoencoders, eq. 11.
        Song, Ermon (2019), eqs. 5-6. https://arxiv.org/abs/1907.05600
        Song et al. (2021), eq. 7. https://arxiv.org/abs/2011.13456
    """
    return 0.5 * denoising(
        model,
        x0,
        generator,
        target="score",
        weight=weight,
        times=times,
        importance=importance,
        reduction="sum",
        **context,
    )


def transition_at(
    score_fn: Callable[..., Tensor], x: Tensor, noise: Tensor, *, sde: SDE, t: Scalar, step: float, **context: object
) -> Tensor:
    """`transition_score_matching` with the noise given, ``(batch,)``.

    Example:
        >>> sde = scoresde.VESDE()
        >>> transition_at(
        ...     lambda x, t: 0 * x,
        ...     torch.zeros(1, 2),
        ...     torch.ones(1, 2),
        ...     sde=sde,
        ...     t=0.5,
        ...     step=0.1,
        ... )
        tensor([1.])
    """
    check_score_fn(score_fn)
    check_state("x", x)
    check_tensor("noise", noise, x.shape)
    check_sde(sde)
    step = check_number("step", step, low=0.0, high=sde.t_max, strict=True)
    times = times_of(x, t)
    with torch.no_grad():
        drift = drift_of(sde, x, times.to(compute_dtype(x.dtype)))
        spread = Spread(sde)(x, times) * step**0.5
        state = x + step * drift + spread * noise
    off = spread * _called(score_fn, state, times + step, context) + noise
    return 0.5 * off.square().flatten(1).sum(1)


def transition_score_matching(
    score_fn: Callable[..., Tensor],
    x: Tensor,
    generator: torch.Generator | None = None,
    *,
    sde: SDE,
    t: Scalar,
    step: float,
    **context: object,
) -> Tensor:
    r"""Denoising for a process given by drift and diffusion only, against the kernel of one Euler step.

    With :math:`x' = x + hf + g\sqrt h\,z` the score of the kernel is :math:`-z/(g\sqrt h)`; weighted by its variance,

    .. math:: \tfrac12\,\|g\sqrt h\,s(x', t+h) + z\|^2, \qquad z \sim N(0, I),

    summed over the event. The minimum is the score of the distribution of :math:`x'`, which differs from that of the
    process by O(h) in the step of the loss, whatever made x. The variance of its gradient grows as 1/h.

    Args:
        score_fn: ``score_fn(x, t, **context)``, t as ``(batch,)``.
        x: states at ``t``, ``(batch, *event)``, for instance of `scoresde.simulate`.
        generator: source of z.
        sde: the process.
        t: a number or ``(batch,)``.
        step: h.

    Raises:
        InvalidTypeError, InvalidArgumentError: an argument does not fit.
        ScoreFnError: the score function returns something that is not a score.
        NonFiniteError: the loss of a sample is not finite.

    Example:
        >>> sde = scoresde.VESDE()
        >>> path = scoresde.simulate(
        ...     sde, torch.zeros(4, 2), steps=8, save_at="steps", seed=0
        ... )
        >>> loss = transition_score_matching(
        ...     lambda x, t: -x, path.xs[3], sde=sde, t=float(path.ts[3]), step=0.01
        ... )
        >>> loss.shape
        torch.Size([4])

    References:
        Vincent (2011), eq. 11, with the kernel of Euler and Maruyama.
    """
    x = _checked_states(score_fn, x, context)
    check_sde(sde)
    times = times_of(x, t)
    step = check_number("step", step)
    inside = (times >= sde.t_min) & (times + step <= sde.t_max * (1 + 1e-12))
    if not step > 0 or not bool(inside.all()):
        raise InvalidArgumentError(
            f"`t` and `t` + `step` must be in the process's [{sde.t_min:g}, {sde.t_max:g}] and the step positive, got "
            f"t from {times.min().item():g} to {times.max().item():g} and step={step}."
        )
    value = transition_at(score_fn, x, normal(x, generator), sde=sde, t=times, step=step, **context)
    return _finite_states(value, times)


def _called(score_fn: Callable[..., Tensor], x: Tensor, t: Tensor, context: Mapping[str, object]) -> Tensor:
    """A score function's score of states, checked."""
    before = versions(x, context)
    score = check_output("The score function", score_fn(x, t.to(x.dtype), **context), x).to(x.dtype)
    check_unwritten("The score function", before, x, context)
    return score


def _field(score_fn: Any, x: Tensor, t: Tensor | Node[Tensor], context: Mapping[str, object]) -> tuple[Tensor, Any]:
    """The score of states, and the products of vectors with its Jacobian."""
    if torch.is_inference_mode_enabled():
        raise InvalidArgumentError("This loss needs gradients, which torch.inference_mode() forbids; call it outside.")
    check_state("x", x)
    if isinstance(t, Node):
        check_model(score_fn)
        check_node(t)
    else:
        check_score_fn(score_fn)
        t = times_of(x, t)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        state = usable(x).detach().requires_grad_()
        if isinstance(t, Node):
            score = -score_fn.estimate(state, t, **context).noise / expand(t.sigma, state)
        else:
            score = _called(score_fn, state, t, context)
    if not score.requires_grad:
        raise ScoreFnError("Gradients do not reach the input of the network (torch.no_grad, .detach() or .numpy()?).")

    backward = Backward()

    def product(v: Tensor) -> Tensor:
        with torch.enable_grad():
            return backward(score, state, v, keep)

    return score, product


def _kept(value: Tensor) -> Tensor:
    """Without a graph where the caller wants none."""
    return value if torch.is_grad_enabled() else value.detach()


def _probes(x: Tensor, count: int, kind: str, generator: torch.Generator | None) -> Tensor:
    check_choice("probe", kind, PROBES)
    m = check_integer("probes", count, low=1, high=MOST_DRAWS)
    return PROBES[kind](normal(x.unsqueeze(1).expand(-1, m, *x.shape[1:]), generator))


def _of_states(
    value: Callable[..., Tensor],
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None,
    t: Scalar | None,
    weight: str | Weight,
    times: Times | None,
    importance: bool,
    context: Mapping[str, object],
) -> Tensor:
    """A loss of states: of given ones, or of data that are noised here."""
    if t is not None:
        x = _checked_states(model, x0, context)
        at = times_of(x, t)
        return _finite_states(value(x, at, **context), at)
    x0, draw, node, noise = drawn(model, x0, context, generator, times)
    state = expand(node.alpha, x0) * x0 + expand(node.sigma, x0) * noise
    return finish(scaled(value(state, node, **context), weigh(weight, node)), draw, node, x0, times, importance)


def _checked_states(score_fn: object, x: object, context: Mapping[str, object]) -> Tensor:
    check_score_fn(score_fn)
    x = check_state("x", x)
    check_context(score_fn, context, len(x))
    return x.to(compute_dtype(x.dtype))


def _finite_states(value: Tensor, t: Tensor) -> Tensor:
    bad = ~torch.isfinite(value.detach())
    if bool(bad.any()):
        rows = bad.nonzero()[:, 0].tolist()
        time = t[rows[0]].item()
        raise lost(value, rows, f"t = {time:.6g}", "the states or the score are not finite there", "score", time)
    return value
