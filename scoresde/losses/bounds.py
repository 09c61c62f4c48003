r"""Objectives in nats: score flow's likelihood weighting and the bound of variational diffusion models.

With :math:`\gamma = -\ln\mathrm{SNR}`, :math:`\gamma' = g^2/\sigma^2`,

.. math:: -\ln p(x) \le KL(q(z_{t_{max}}|x)\,\|\,\pi) + \tfrac12\int\gamma'(t)\,E\|\hat\varepsilon-\varepsilon\|^2 dt
          + E[-\ln p(x|z_{t_{min}})].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.arguments import check_finite_ends
from ..core.errors import InvalidArgumentError
from ..core.sdes import VDMSDE, AffineSDE, Node
from ..core.support.checks import MOST_STEPS, check_flag, check_generator, check_integer, check_state, check_tensor
from ..core.support.tensors import sigmoid
from .checks import check_data, check_finite, check_model, check_node
from .core import Model, denoising, error, finish, law, look, normal, scaled
from .gaussian import grey_values, prior_kl
from .times import LogUniform, LowDiscrepancy, Times
from .weights import Weight, likelihood, weigh

_LIKELIHOOD = LowDiscrepancy(LogUniform())  # t in proportion to g^2 / sigma^2
_OFF_GRID = 1e-3  # how far from a grey value, in cells, data may be


def likelihood_weighted(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    times: Times = _LIKELIHOOD,
    importance: bool = True,
    **context: Any,
) -> Tensor:
    r"""Score flow's objective :math:`\tfrac12\int g^2\,E\|s - \nabla\log p(x_t|x_0)\|^2 dt` in nats, one drawn time per
    sample.

    Up to terms without the model it is the bound of :math:`-\ln p`, and, averaged over the data, the divergence of the
    data's distribution from that of the reverse SDE. Those terms are in `vdm`.

    Args:
        times: the distribution of times; by default :math:`t \propto g^2/\sigma^2` with low discrepancy, which makes
            the weight a constant.
        model, x0, generator, importance, context: see `denoising`.

    Raises:
        InvalidTypeError, InvalidArgumentError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VPSDE(), "noise")
        >>> likelihood_weighted(model, torch.zeros(4, 2)).shape
        torch.Size([4])

    References:
        Song, Durkan, Murray, Ermon (2021), Maximum Likelihood Training of Score-Based Diffusion Models, eqs. 7 and 11.
        https://arxiv.org/abs/2101.09258
    """
    value = denoising(
        model, x0, generator, weight=likelihood, times=times, importance=importance, reduction="sum", **context
    )
    return 0.5 * (model.sde.t_max - model.sde.t_min) * value


def diffusion_at(
    model: Model,
    x0: Tensor,
    noise: Tensor,
    u: Tensor,
    *,
    steps: int | None = None,
    weight: str | Weight = "constant",
    minimise_variance: bool = False,
    **context: object,
) -> Tensor:
    r"""The diffusion term of `vdm` with the noise and the times given, nats ``(batch,)``; its mean over u in [0, 1) and
    the noise is the term.

    Args:
        u: the place of the times in the interval, float64 ``(batch,)``.
        model, x0, noise, steps, weight, minimise_variance, context: see `vdm`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: 0 * x, scoresde.VDMSDE(), "noise")
        >>> u = torch.tensor([0.5], dtype=torch.float64)
        >>> # half the span of gamma, twice
        >>> diffusion_at(model, torch.zeros(1, 2), torch.ones(1, 2), u)
        tensor([18.3000])
    """
    check_model(model)
    check_state("x0", x0)
    check_tensor("u", u, (len(x0),))
    return _diffusion(model, x0, noise, u, steps, weight, minimise_variance, context)[0]


def _diffusion(
    model: Model,
    x0: Tensor,
    noise: Tensor,
    u: Tensor,
    steps: int | None,
    weight: str | Weight,
    minimise_variance: bool,
    context: Mapping[str, object],
) -> tuple[Tensor, Node[Tensor]]:
    """`diffusion_at`, and where the network was evaluated."""
    check_flag("minimise_variance", minimise_variance)
    sde = model.sde
    schedule = _ScheduleNodes(sde, minimise_variance)
    span = sde.t_max - sde.t_min
    if steps is None:
        node = schedule.node(sde.t_min + span * u)
        rate = span * likelihood(node)
    else:
        steps = check_integer("steps", steps, low=1, high=MOST_STEPS)
        count = ((u * steps).floor() + 1).clamp_max(steps)  # the ceiling, and 1 at u = 0
        node = schedule.node((sde.t_min + span * count / steps).clamp_max(sde.t_max))
        before = schedule.node(sde.t_min + span * (count - 1) / steps)
        rate = steps * torch.expm1(2 * (before.lam - node.lam))
    seen = look(model, x0, noise, node, **context)
    one = torch.ones_like(node.alpha)
    size = error(seen, one, 0 * one).square().flatten(1).sum(1)
    value = scaled(size, 0.5 * rate * weigh(weight, node))
    schedule.losses = value.detach()
    return value, node


def vdm(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    steps: int | None = None,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    weight: str | Weight = "constant",
    times: Times | None = None,
    minimise_variance: bool = False,
    **context: object,
) -> Tensor:
    r"""The bound of variational diffusion models in nats, summed over the event: prior, diffusion and reconstruction.

    The diffusion term of one drawn t and :math:`\varepsilon` per sample, :math:`e = \hat\varepsilon-\varepsilon`, is

    .. math:: \tfrac12\,(t_{max}-t_{min})\,w\,\gamma'(t)\,\|e\|^2 \qquad\text{or}\qquad
              \tfrac T2\,w\,\mathrm{expm1}(\gamma_t-\gamma_s)\,\|e\|^2

    in continuous time or in T steps from s to t. It is the same in expectation for every :math:`\gamma` with the same
    ends; a learned one (``VDMSDE(gamma=module)``) is trained through its ends by the bound, and in between by the
    variance if that is requested.

    Args:
        model: a `ScoreModel` on a process with a finite log-SNR at both ends and a normal prior.
        steps: T; None is continuous time.
        levels: L where the data are L grey values in the middle of their cells of ``data_range``,
            :math:`x = lo + w(v+\tfrac12)`: the reconstruction is :math:`-\ln p(v|z_0)`,
            :math:`p(v|z_0)\propto\exp(-(z_0/\alpha_0-x)^2\alpha_0^2/2\sigma_0^2)`, of another draw of the noise. None
            for a density: it is then the entropy of :math:`q(z_0|x)`, and the bound that of :math:`E[-\ln
            p_{t_{min}}(z_0)]`, in which the clean end of :math:`\gamma` must not be learned.
        data_range: lo and hi.
        weight: w, a name of `WEIGHTS` or a function of a `Node`; with anything but ``"constant"`` it is not a bound.
        times: the distribution of times, default uniform with low discrepancy, with its importance weights.
        minimise_variance: for a `VDMSDE` with a learned :math:`\gamma`: the gradient that reaches :math:`\gamma`
            between its ends is that of :math:`E[L^2]`, L the diffusion term of a sample: the plain one times 2L,
            without a second backward pass. Ends and network get the plain gradient. The loss must be averaged over the
            batch, and the network must depend on :math:`\gamma` through its inputs alone: one that evaluates the
            process itself, such as an exact score of `scoresde.targets`, passes on gradients without the factor.
        x0, generator, context: see `denoising`.

    Returns:
        ``(batch,)``; the mean over data, and draws, is the bound (divide by D ln 2 for bits per dimension).

    Raises:
        InvalidArgumentError: an end of the log-SNR is infinite, the data are not grey values, the variance of a fixed
            :math:`\gamma` is to be minimised; and as `denoising`.
        InvalidTypeError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 0.3)
        >>> sde = scoresde.VDMSDE()
        >>> exact = target.score(sde)
        >>> # a bad model
        >>> model = scoresde.ScoreModel(lambda x, t: -exact(x, t), sde, "score")
        >>> vdm(model, target.sample(4)).shape
        torch.Size([4])

    References:
        Kingma, Salimans, Poole, Ho (2021), Variational Diffusion Models, eqs. 11-20, appendices I.1 and I.2.
        https://arxiv.org/abs/2107.00630
    """
    x0 = check_data(model, x0, context)
    check_generator(generator, device=x0.device)
    sde = model.sde
    first, last = _ends(sde)
    draw = law(model, LowDiscrepancy() if times is None else times).draw(sde, len(x0), generator, x0.device)
    u = (draw.t - sde.t_min) / (sde.t_max - sde.t_min)
    value, node = _diffusion(model, x0, normal(x0, generator), u, steps, weight, minimise_variance, context)
    value = finish(value, draw, node, x0, times)
    value = value + prior_kl(x0, last.alpha.to(x0), last.sigma, sde.prior)
    rest = (
        _entropy(x0, first) if levels is None else reconstruction(x0, first, normal(x0, generator), levels, data_range)
    )
    check_finite(value + rest, last, x0)
    return value + rest


def reconstruction(
    x0: Tensor, node: Node[Tensor], noise: Tensor, levels: int, data_range: tuple[float, float] = (-1.0, 1.0)
) -> Tensor:
    r""":math:`-\ln p(v|z_0)` of grey values, nats ``(batch,)``, with :math:`z_0 = \alpha_0 x_0 + \sigma_0\varepsilon`.

    Args:
        x0: data in the middle of cells, ``(batch, *event)``.
        node: the clean end, 0-d tensors.
        noise: :math:`\varepsilon`, shaped like the data.
        levels, data_range: see `vdm`.

    Raises:
        InvalidArgumentError: the data are not in the middle of cells.

    Example:
        >>> node = scoresde.VDMSDE().nodes(torch.tensor(0.0))
        >>> x = torch.tensor([[-0.75, 0.25]])
        >>> bool(reconstruction(x, node, torch.zeros(1, 2), levels=4) < 1e-6)
        True

    References:
        Kingma et al. (2021), eq. 15. https://arxiv.org/abs/2107.00630
    """
    check_state("x0", x0)
    check_node(node)
    check_tensor("noise", noise, x0.shape)
    low, width, count = grey_values(levels, data_range)
    place = (x0.detach() - low) / width
    v = place.round()
    if not bool(((place - v).abs().le(_OFF_GRID) & (v >= 0) & (v < count)).logical_or(place.isnan()).all()):
        raise InvalidArgumentError(
            f"`x0` must hold the middles of {count} cells of {tuple(data_range)} where `levels` is given: write "
            f"{low:.6g} + {width:.6g} * v for integers v = 0 … {count - 1}; for a density leave `levels` out."
        )
    centres = low + width * torch.arange(count, dtype=x0.dtype, device=x0.device)
    rho = (node.sigma / node.alpha).to(x0)
    far = x0[..., None] - centres
    logits = -0.5 * (far / rho + noise[..., None]).square()
    chosen = v.nan_to_num().long()[..., None]
    return -logits.log_softmax(-1).gather(-1, chosen)[..., 0].flatten(1).sum(1)


class _ScheduleNodes:
    r"""The nodes of a process; with the gradient of :math:`\gamma` between its ends that of a variance, if requested.

    :math:`\gamma = \gamma_0 + (\gamma_1-\gamma_0)\,n(t)` splits any :math:`\gamma` into its ends and what is between,
    n, whose value does not depend on the ends. The gradient of n is multiplied by 2L when it is known.
    """

    def __init__(self, sde: AffineSDE, minimise_variance: bool) -> None:
        self.sde = sde
        self.losses: Tensor | None = None
        self.node: Callable[[Tensor], Node[Tensor]] = self._bent if minimise_variance else sde.nodes
        if not minimise_variance:
            return
        if not isinstance(sde, VDMSDE):
            raise InvalidArgumentError(
                f"`minimise_variance` needs a learned gamma, scoresde.VDMSDE(gamma=module), got {sde!r}."
            )
        self.low, self.high = (-sde.log_snr(t) for t in (sde.t_min, sde.t_max))

    def _bent(self, t: Tensor) -> Node[Tensor]:
        given = self.sde.nodes(t)
        if torch.is_grad_enabled() and not given.lam.requires_grad:
            raise InvalidArgumentError("`minimise_variance` needs a learned gamma: this one has no parameters.")
        span = self.high - self.low
        place, rate = (self._squared(v) for v in ((-2 * given.lam - self.low) / span, likelihood(given) / span))
        gamma, rate = self.low + span * place, span * rate
        alpha2, sigma2 = sigmoid(-gamma), sigmoid(gamma)
        alpha, sigma = alpha2.sqrt(), sigma2.sqrt()
        f = -0.5 * sigma2 * rate
        return Node(t, alpha, sigma, -0.5 * gamma, f, sigma2 * rate, alpha * f, 0.5 * alpha2 * sigma * rate)

    def _squared(self, value: Tensor) -> Tensor:
        """The same value, with its gradient times twice the loss of its sample."""
        if not value.requires_grad:
            return value
        out = value.view_as(value)
        out.register_hook(lambda g: g if self.losses is None else g * (2 * self.losses.to(g)))
        return out


def _ends(sde: AffineSDE) -> tuple[Node[Tensor], Node[Tensor]]:
    """Both ends of a process as 0-d tensors, with gradients of a learned schedule."""
    nodes = sde.nodes(torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64))
    check_finite_ends(*(2 * nodes.lam).tolist())
    return Node(*(v[0] for v in nodes)), Node(*(v[1] for v in nodes))


def _entropy(x0: Tensor, node: Node[Tensor]) -> Tensor:
    """The entropy of q(z_0|x), nats."""
    one = 0.5 * (math.log(2 * math.pi * math.e) + 2 * node.sigma.log())
    return (math.prod(x0.shape[1:]) * one).to(x0).expand(len(x0))
