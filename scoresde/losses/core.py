r"""The core of all denoising losses: a noise level, a noised sample, one call of the model, one error.

Every denoising objective measures a linear combination of :math:`e = \hat\varepsilon-\varepsilon` and
:math:`d = \hat x-x_0`, whatever the network predicts. Since :math:`\alpha d + \sigma e = 0` either follows from the
other; the accurate one is e where the signal is stronger, and d where the noise is:

.. math:: a\,e + b\,d = \begin{cases} (a - b\,\sigma/\alpha)\,e & \sigma \le \alpha\\
                                      (b - a\,\alpha/\sigma)\,d & \sigma > \alpha. \end{cases}

So nothing that has a limit becomes NaN where :math:`\alpha` or :math:`\sigma` is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, ScoreFnError
from ..core.sdes import AffineSDE, Estimate, Node
from ..core.support.checks import (
    check_choice,
    check_flag,
    check_generator,
    check_kind,
    check_number,
    check_state,
    check_tensor,
)
from ..core.support.tensors import expand, row_means, row_sums
from ..discrete import Chain
from ..scores import ScoreModel
from .checks import check_data, check_finite, check_model, check_node
from .indices import UniformIndex
from .times import LowDiscrepancy, Times
from .weights import Weight, weigh

# (node, sigma_data) -> (a, b): the error of the target is a e + b d.
Target = Callable[[Node[Tensor], float], tuple[Tensor, Tensor]]


def _edm(n: Node[Tensor], sigma_data: float) -> tuple[Tensor, Tensor]:
    # d = (sigma_d sigma / q) F and e = -(sigma_d alpha / q) F, solved for F by the combination that never divides by 0
    scale = (n.sigma**2 + (sigma_data * n.alpha) ** 2).sqrt() / (sigma_data * (n.alpha**2 + n.sigma**2))
    return -n.alpha * scale, n.sigma * scale


TARGETS: dict[str, Target] = {
    "noise": lambda n, sigma_data: (torch.ones_like(n.alpha), torch.zeros_like(n.alpha)),
    "data": lambda n, sigma_data: (torch.zeros_like(n.alpha), torch.ones_like(n.alpha)),
    "score": lambda n, sigma_data: (-1 / n.sigma, torch.zeros_like(n.alpha)),
    "v": lambda n, sigma_data: (n.alpha, -n.sigma),
    "flow": lambda n, sigma_data: (n.dsigma, n.dalpha),
    "edm": _edm,
}

# From squared errors (batch, *event) to one number per sample: nats add up, "simple" losses are means.
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": row_sums,
    "mean": row_means,
}


class Model(Protocol):
    """What a loss takes as a model: a `ScoreModel`, or what else has ``estimate`` and ``sde``."""

    @property
    def sde(self) -> AffineSDE: ...

    def estimate(self, x: Tensor, node: Node[Tensor], **context: object) -> Estimate: ...


class Noised(NamedTuple):
    """Samples at a noise level, and the model's estimates of them.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.VPSDE(), "noise")
        >>> node = model.sde.nodes(torch.tensor([0.5]))
        >>> look(model, torch.zeros(1, 2), torch.ones(1, 2), node).state.shape
        torch.Size([1, 2])
    """

    x0: Tensor
    noise: Tensor
    node: Node[Tensor]
    state: Tensor
    estimate: Estimate


def look(model: Model, x0: Tensor, noise: Tensor, node: Node[Tensor], **context: object) -> Noised:
    r"""Evaluate a model at :math:`\alpha x_0 + \sigma\varepsilon` at a node of its process, once.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.FlowSDE(), "noise")
        >>> seen = look(
        ...     model,
        ...     torch.zeros(1, 2),
        ...     torch.ones(1, 2),
        ...     model.sde.nodes(torch.tensor([0.5])),
        ... )
        >>> seen.state, seen.estimate.noise
        (tensor([[0.5000, 0.5000]]), tensor([[0.5000, 0.5000]]))
    """
    check_model(model)
    check_state("x0", x0)
    check_tensor("noise", noise, x0.shape)
    check_node(node)
    tiny = torch.finfo(x0.dtype).tiny ** 0.8  # an infinite error stays one when it is squared, a finite one finite
    node = node._replace(alpha=node.alpha.clamp_min(tiny), sigma=node.sigma.clamp_min(tiny))
    state = expand(node.alpha, x0) * x0 + expand(node.sigma, x0) * noise
    estimate = model.estimate(state, node, **context)
    if estimate.noise.shape != x0.shape:
        raise ScoreFnError(
            f"the model returned shape {tuple(estimate.noise.shape)} for an input of shape {tuple(x0.shape)}."
        )
    return Noised(x0, noise, node, state, estimate)


def error(seen: Noised, of_noise: Tensor, of_data: Tensor) -> Tensor:
    r""":math:`a\,e + b\,d`, shaped like the data, from the more accurate of the two.

    Args:
        seen: what `look` returned.
        of_noise: a, float64 ``(batch,)``.
        of_data: b, float64 ``(batch,)``.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.FlowSDE(), "noise")
        >>> seen = look(
        ...     model,
        ...     torch.zeros(1, 2),
        ...     torch.ones(1, 2),
        ...     model.sde.nodes(torch.tensor([0.5])),
        ... )
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> error(seen, one, 0 * one)
        tensor([[-0.5000, -0.5000]])
    """
    check_kind("seen", seen, Noised, "what scoresde.losses.look returns")
    for name, value in (("of_noise", of_noise), ("of_data", of_data)):
        check_tensor(name, value)
        if value.shape not in ((), (len(seen.x0),)):
            raise InvalidArgumentError(
                f"`{name}` must be a number per sample ({len(seen.x0)},), got {tuple(value.shape)}."
            )
    alpha, sigma = seen.node.alpha, seen.node.sigma
    clean = sigma <= alpha
    ratio = torch.minimum(alpha, sigma) / torch.maximum(alpha, sigma)
    factor = torch.where(clean, of_noise - ratio * of_data, of_data - ratio * of_noise)
    rows = clean.reshape(clean.shape + (1,) * (seen.x0.ndim - clean.ndim))
    known = torch.where(rows, seen.estimate.noise - seen.noise, seen.estimate.data - seen.x0)
    return expand(factor, known) * known


def denoising_at(
    model: Model,
    x0: Tensor,
    noise: Tensor,
    node: Node[Tensor],
    *,
    target: str | Target = "noise",
    weight: str | Weight = "constant",
    reduction: str = "mean",
    sigma_data: float | None = None,
    **context: object,
) -> Tensor:
    """`denoising` with the noise and the noise levels given, ``(batch,)``, for a quadrature.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VPSDE(), "noise")
        >>> denoising_at(
        ...     model,
        ...     torch.zeros(1, 2),
        ...     torch.ones(1, 2),
        ...     model.sde.nodes(torch.tensor([0.1])),
        ... )
        tensor([1.])
    """
    seen = look(model, x0, noise, node, **context)
    default = model.sigma_data if isinstance(model, ScoreModel) else 0.5
    known = default if sigma_data is None else check_number("sigma_data", sigma_data, low=0.0, strict=True)
    off = error(seen, *named("target", target, TARGETS)(seen.node, known))
    size = named("reduction", reduction, REDUCTIONS)(off.square())
    check_tensor("reduction(errors)", size, (len(x0),))
    return scaled(size, weigh(weight, seen.node))


def denoising(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    target: str | Target = "noise",
    weight: str | Weight = "constant",
    times: Times | None = None,
    importance: bool = True,
    reduction: str = "mean",
    sigma_data: float | None = None,
    **context: object,
) -> Tensor:
    r"""Any denoising objective: :math:`w(t)\,\|a\,(\hat\varepsilon-\varepsilon) + b\,(\hat x-x_0)\|^2`, per sample.

    All other objectives with one term are special cases. The target and the network's prediction are independent: a
    network that predicts the noise can be trained for v.

    Args:
        model: a `ScoreModel` (or an object with ``estimate(x, node, **context)`` and ``sde``).
        x0: data, ``(batch, *event)``, floating.
        generator: source of the noise levels, then of the noise; None is torch's global one.
        target: the quantity whose error is taken: a name of `TARGETS`, ``"noise"``, ``"data"``, ``"score"``, ``"v"``,
            ``"flow"``, ``"edm"``, or a function ``(node, sigma_data) -> (a, b)``.
        weight: a name of `WEIGHTS` or a function of a `Node`, of the squared error of the target.
        times: the distribution of noise levels; default: uniform, with low discrepancy, over the levels of the model's
            chain if it has one, and over [t_min, t_max] otherwise.
        importance: multiply by the importance weights of the distribution, so that the mean is that over uniform times;
            False makes the distribution a part of the objective.
        reduction: ``"mean"`` or ``"sum"`` over the event.
        sigma_data: of the target ``"edm"``; default the model's.
        context: passed on to the network, for example ``label=``.

    Returns:
        ``(batch,)`` in the dtype of ``x0`` (float32 or wider), to be averaged.

    Raises:
        InvalidTypeError: the model is not a `ScoreModel`, ``x0`` is not a floating-point tensor, ``times`` is no
            distribution of noise levels, or ``weight`` no weight.
        InvalidArgumentError: ``x0`` has no event, a name is unknown, or the network does not take a ``context``.
        ScoreFnError: the network returns something that is not a prediction.
        NonFiniteError: the loss of a sample is not finite; the message names its noise level, ``t`` holds its time.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VPSDE(), "noise")
        >>> denoising(
        ...     model, torch.zeros(3, 2), torch.Generator().manual_seed(0), target="v"
        ... ).shape
        torch.Size([3])
    """
    x0, draw, node, noise = drawn(model, x0, context, generator, times)
    value = denoising_at(
        model, x0, noise, node, target=target, weight=weight, reduction=reduction, sigma_data=sigma_data, **context
    )
    return finish(value, draw, node, x0, times, importance)


# ---- what losses share -----------------------------------------------------------------------------------------------


def drawn(
    model: Model, x0: Tensor, context: Mapping[str, object], generator: torch.Generator | None, times: Times | None
) -> tuple[Tensor, Any, Node[Tensor], Tensor]:
    """The data, checked; the draw of noise levels, their nodes, and the noise."""
    x0 = check_data(model, x0, context)
    check_generator(generator, device=x0.device)
    draw = law(model, times).draw(model.sde, len(x0), generator, x0.device)
    return x0, draw, model.sde.nodes(draw.t), normal(x0, generator)


def law(model: object, times: Times | None) -> Times:
    """The distribution of noise levels, or the default of a model."""
    if times is None:
        chain = chain_of(model)
        return LowDiscrepancy() if chain is None else LowDiscrepancy(UniformIndex(chain))
    check_kind("times", times, Times, "a distribution such as scoresde.losses.UniformTimes()")
    return times


def chain_of(model: object) -> Chain | None:
    """The chain that a model was made for, if any."""
    return model.chain if isinstance(model, ScoreModel) else None


def normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise like a tensor."""
    check_generator(generator, device=x.device)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def named(argument: str, value: object, registry: Mapping[str, object]) -> Any:
    """The entry with a name; a function is returned as it is."""
    if callable(value) and not isinstance(value, type):
        return value
    return registry[check_choice(argument, value, registry)]


def scaled(value: Tensor, weight: Tensor) -> Tensor:
    """Values ``(batch,)`` times float64 weights, in the dtype of the values."""
    return (value.to(torch.float64) * weight).to(value.dtype)


def finish(
    value: Tensor, draw: Any, node: Node[Tensor], x0: Tensor, times: Times | None = None, importance: bool = True
) -> Tensor:
    """A finished loss: checked, reported to the distribution of times, and with the importance weights."""
    check_flag("importance", importance)
    check_finite(value, node, x0)
    if times is not None and torch.is_grad_enabled():
        times.observe(draw, value.detach())
    return scaled(value, draw.weight) if importance else value
