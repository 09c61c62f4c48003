r"""The objectives of DDPM and improved DDPM, on the levels of a `scoresde.discrete.BetaChain`.

With i = 0 … T - 1 from the cleanest level on (the papers' t - 1), the bound of a chain is

.. math:: -\ln p(x_0) \le KL(q(x_{T-1}|x_0)\,\|\,\pi) + \sum_{i\ge1} KL(q(x_{i-1}|x_i,x_0)\,\|\,p(x_{i-1}|x_i))
          - E\ln p(x_0|x_{i=0}),

and one i is drawn: T times its term is the sum in expectation. The mean of a reverse step is the posterior's with
:math:`\hat x` for :math:`x_0`, so that means differ by :math:`c_i(\hat x-x_0)`, :math:`c_i =
\sqrt{\bar\alpha_{i-1}}\beta_i/(1-\bar\alpha_i)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes.records import LearnedEstimate
from ..core.support.checks import check_choice, check_flag, check_kind, check_number, check_tensor
from ..core.support.tensors import expand
from ..discrete import BetaChain
from ..scores.bare import traits_of
from .checks import check_model
from .core import Model, Noised, chain_of, denoising, drawn, error, finish, look, named, scaled
from .gaussian import discretised_log_prob, gaussian_kl, prior_kl
from .times import Times
from .weights import Weight, weigh


class Level(NamedTuple):
    r"""What a reverse step needs of the levels of the samples, float64 ``(batch,)``: :math:`c_i`,
    :math:`\ln\beta_i`, :math:`\ln\tilde\beta_i` (at the first level that of the second, for it is :math:`-\infty`), and
    whether the step is the last, to the data.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear(10)
        >>> level_of(chain, torch.tensor([0, 3])).last
        tensor([ True, False])
    """

    of_data: Tensor
    log_large: Tensor
    log_small: Tensor
    last: Tensor


def level_of(chain: BetaChain, index: Tensor) -> Level:
    """The levels of places ``(batch,)``.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear(10)
        >>> cleanest = level_of(chain, torch.tensor([0]))
        >>> round(float(cleanest.of_data), 6)  # the mean is the data estimate
        1.0
    """
    check_kind("chain", chain, BetaChain, "a scoresde.discrete.BetaChain")
    check_tensor("index", index, (-1,), kind="integer")
    if not bool(((index >= 0) & (index < len(chain))).all()):
        raise InvalidArgumentError(f"`index` must hold places 0 … {len(chain) - 1}, got {index.tolist()[:5]}.")
    betas, small = chain.betas, chain.posterior_variances
    before = torch.cat([betas.new_ones(1), chain.alphas_bar[:-1]])
    of_data = before.sqrt() * betas / torch.sigmoid(-chain.log_snrs)
    log_small = torch.cat([small[1:2], small[1:]]).log()
    where = index.to(betas.device)
    of_data, large, small = (v[where].to(index.device) for v in (of_data, betas.log(), log_small))
    return Level(of_data, large, small, index == 0)


# ln of the variance of a reverse step, elementwise: (level expanded to x, what the model said).
VARIANCES: dict[str, Callable[[Level, Noised], Tensor]] = {
    "large": lambda level, seen: torch.where(level.last, level.log_small, level.log_large),
    "small": lambda level, seen: level.log_small,
    "learned": lambda level, seen: level.log_small + _share(seen) * (level.log_large - level.log_small),
}

# From nats per sample to a unit, given the event's size.
UNITS: dict[str, Callable[[int], float]] = {"nats": lambda size: 1.0, "bits": lambda size: 1 / (size * math.log(2))}


def chain_term(
    seen: Noised,
    level: Level,
    *,
    variance: str = "large",
    form: str = "kl",
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    freeze_mean: bool = False,
) -> Tensor:
    r"""The term of the bound at the level of each sample, nats ``(batch,)``.

    Args:
        seen: what `scoresde.losses.look` returned at the levels.
        level: see `level_of`.
        variance, form, levels, data_range: see `ddpm_vlb`.
        freeze_mean: no gradient through the mean (improved DDPM's hybrid).

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear(10)
        >>> model = scoresde.ScoreModel(
        ...     lambda x, i: 0 * x, chain.sde(), "noise", time_input="index", chain=chain
        ... )
        >>> index = torch.tensor([4])
        >>> seen = look(
        ...     model,
        ...     torch.zeros(1, 2),
        ...     torch.ones(1, 2),
        ...     model.sde.nodes(chain.times[index]),
        ... )
        >>> chain_term(seen, level_of(chain, index)).shape
        torch.Size([1])
    """
    check_kind("seen", seen, Noised, "what scoresde.losses.look returns")
    check_kind("level", level, Level, "what scoresde.losses.level_of returns")
    check_flag("freeze_mean", freeze_mean)
    x0 = seen.x0
    last = level.last.reshape(level.last.shape + (1,) * (x0.ndim - 1))
    spread = Level(level.of_data, expand(level.log_large, x0), expand(level.log_small, x0), last)
    log_variance = named("variance", variance, VARIANCES)(spread, seen)
    zero = torch.zeros_like(level.of_data)
    off = error(seen, zero, level.of_data)
    off = off.detach() if freeze_mean else off
    posterior = gaussian_kl(off, spread.log_small, log_variance)
    if named("form", form, FORMS):
        posterior = 0.5 * off.square() * torch.exp(-log_variance)
    # from the cleanest level c is 1: the mean is the data estimate
    if levels is None:
        decoder = 0.5 * (off.square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))
    else:
        decoder = -discretised_log_prob(x0, x0 + off, log_variance, levels=levels, data_range=data_range)
    return torch.where(last, decoder, posterior).flatten(1).sum(1)


# Whether only what depends on the mean is kept of a divergence.
FORMS: dict[str, bool] = {"kl": False, "weighted": True}


def ddpm_simple(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    weight: str | Weight = "constant",
    times: Times | None = None,
    importance: bool = True,
    **context: Any,
) -> Tensor:
    r"""DDPM's simple objective :math:`\|\hat\varepsilon-\varepsilon\|^2` at uniform levels of the model's chain, a mean
    over the event.

    It is not the bound, nor the bound up to a constant: the weights of the levels are left out.

    Args:
        model: a `ScoreModel` with a ``chain``.
        weight: of the levels, ``"constant"`` in DDPM.
        x0, generator, times, importance, context: see `denoising`; distributions of the levels are `UniformIndex` and
            others.

    Raises:
        InvalidArgumentError: the model has no chain; and as `denoising`.
        InvalidTypeError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear()
        >>> model = scoresde.ScoreModel(
        ...     lambda x, i: 0 * x, chain.sde(), "noise", time_input="index", chain=chain
        ... )
        >>> ddpm_simple(model, torch.zeros(4, 2)).shape
        torch.Size([4])

    References:
        Ho, Jain, Abbeel (2020), eq. 14. https://arxiv.org/abs/2006.11239
    """
    _chain(model)
    return denoising(model, x0, generator, weight=weight, times=times, importance=importance, **context)


def ddpm_vlb(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    variance: str | None = None,
    form: str = "kl",
    unit: str = "nats",
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    times: Times | None = None,
    **context: object,
) -> Tensor:
    r"""The variational bound of a chain, in full in expectation: the prior's divergence and T times the term of a drawn
    level.

    Args:
        model: a `ScoreModel` with a ``chain``, a `scoresde.discrete.BetaChain`.
        variance: of reverse steps: ``"large"`` :math:`\beta_i`, ``"small"`` :math:`\tilde\beta_i`, or ``"learned"``
            between both in the logarithm; default learned if the model has it, else large. The last step, to the data,
            has :math:`\tilde\beta` of the step before it with the large variance too, as in the published code and in
            `scoresde.likelihood.chain_bound`: grey values have a better bound with it than with :math:`\beta` of the
            first level, which is exact for normal data.
        form: ``"kl"``, or ``"weighted"``: of each divergence only :math:`\frac{\beta_i^2}{2v_i\alpha_i(1-\bar\alpha_i)}
            \|\hat\varepsilon-\varepsilon\|^2` with the variance v, which for a fixed variance differs by a constant.
        unit: ``"nats"``, summed over the event, or ``"bits"`` per dimension.
        levels: L where the data are L grey values from lo to hi, both included, as DDPM has them
            (:math:`x = -1 + 2v/255`): the last step is then a probability of values, otherwise a density.
        data_range: lo and hi.
        times: a distribution of the levels, as `LossSecondMoment` (improved DDPM); default uniform. Importance weights
            are always applied.
        x0, generator, context: see `denoising`.

    Raises:
        InvalidArgumentError: the model has no chain of betas, or no learned variance where that is requested; and as
            `denoising`.
        InvalidTypeError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear()
        >>> model = scoresde.ScoreModel(
        ...     lambda x, i: 0 * x, chain.sde(), "noise", time_input="index", chain=chain
        ... )
        >>> ddpm_vlb(model, torch.zeros(4, 2), unit="bits").shape
        torch.Size([4])

    References:
        Ho, Jain, Abbeel (2020), eqs. 5-8 and 12. https://arxiv.org/abs/2006.11239
        Nichol, Dhariwal (2021), eqs. 4-7. https://arxiv.org/abs/2102.09672
    """
    chain, kind = _chain(model), _variance(model, variance)
    x0, draw, node, noise = drawn(model, x0, context, generator, times)
    scale = named("unit", unit, UNITS)(math.prod(x0.shape[1:]))
    index = _index(draw, chain)
    seen = look(model, x0, noise, node, **context)
    term = chain_term(seen, level_of(chain, index), variance=kind, form=form, levels=levels, data_range=data_range)
    last = model.sde.node(float(chain.times[-1]))
    prior = prior_kl(x0, last.alpha, last.sigma, model.sde.prior)
    return scale * (len(chain) * finish(term, draw, node, x0, times) + prior)


def iddpm_hybrid(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    vlb_weight: float = 0.001,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    weight: str | Weight = "constant",
    times: Times | None = None,
    **context: object,
) -> Tensor:
    r"""Improved DDPM's hybrid :math:`L_{simple} + \lambda L_{vlb}`: the mean of reverse steps learns from the simple
    objective alone, their variance from the bound alone.

    :math:`L_{simple}` is a mean over the event; :math:`L_{vlb}`, in bits per dimension and without the prior's
    constant, is T times the term of the drawn level, its mean frozen.

    Args:
        model: a `ScoreModel` with a chain of betas and ``variance="learned_range"``.
        vlb_weight: :math:`\lambda`; the published code's T/1000 on the term of one level is 0.001 here for every T.
        levels, data_range: see `ddpm_vlb`.
        weight: of the simple objective.
        times: a distribution of the levels; default uniform. Importance weights are always applied.
        x0, generator, context: see `denoising`.

    Raises:
        InvalidArgumentError: the model has no chain of betas or no learned variance; and as `denoising`.
        InvalidTypeError, ScoreFnError, NonFiniteError: as `denoising`.

    Example:
        >>> chain = scoresde.discrete.BetaChain.cosine(100)
        >>> net = lambda x, i: torch.cat([x, 0 * x], dim=1)
        >>> model = scoresde.ScoreModel(
        ...     net,
        ...     chain.sde(),
        ...     "noise",
        ...     time_input="index",
        ...     chain=chain,
        ...     variance="learned_range",
        ... )
        >>> iddpm_hybrid(model, torch.zeros(4, 3)).shape
        torch.Size([4])

    References:
        Nichol, Dhariwal (2021), eq. 16. https://arxiv.org/abs/2102.09672
    """
    chain, kind = _chain(model), _variance(model, "learned")
    share = check_number("vlb_weight", vlb_weight, low=0.0)
    x0, draw, node, noise = drawn(model, x0, context, generator, times)
    seen = look(model, x0, noise, node, **context)
    one = torch.ones_like(seen.node.alpha)
    simple = error(seen, one, 0 * one).square().flatten(1).mean(1)
    level = level_of(chain, _index(draw, chain))
    term = chain_term(seen, level, variance=kind, levels=levels, data_range=data_range, freeze_mean=True)
    bound = share * len(chain) * UNITS["bits"](math.prod(x0.shape[1:])) * term
    return finish(scaled(simple, weigh(weight, seen.node)) + bound, draw, node, x0, times)


def _share(seen: Noised) -> Tensor:
    """v of a learned variance."""
    if not isinstance(seen.estimate, LearnedEstimate):
        raise InvalidArgumentError("This model has no learned variance; make it with variance='learned_range'.")
    return seen.estimate.variance


def _chain(model: Model) -> BetaChain:
    """The model's chain, if it is DDPM's."""
    check_model(model)
    chain = chain_of(model)
    if not isinstance(chain, BetaChain):
        got = "none" if chain is None else type(chain).__name__
        raise InvalidArgumentError(
            f"This loss needs a discrete.BetaChain, and `model` has {got}; write ScoreModel(net, chain.sde(), 'noise', "
            "time_input='index', chain=chain)."
        )
    return chain


def _variance(model: Model, variance: str | None) -> str:
    learned = traits_of(model).variance
    if variance is None:
        return "learned" if learned else "large"
    check_choice("variance", variance, VARIANCES)
    if variance == "learned" and not learned:
        raise InvalidArgumentError(
            "`variance` is learned here, and `model` has none; write ScoreModel(..., variance='learned_range')."
        )
    return variance


def _index(draw: Any, chain: BetaChain) -> Tensor:
    """The places of a draw in the model's chain."""
    if draw.index is None:
        raise InvalidTypeError(
            "`times` must be a distribution of the chain's levels, such as losses.UniformIndex(chain)."
        )
    times = chain.times.to(draw.t.device)
    if bool((draw.index >= len(times)).any()) or bool((times[draw.index.clamp_max(len(times) - 1)] != draw.t).any()):
        raise InvalidArgumentError(
            f"`times` is a distribution of the levels of another chain than the model's, {chain!r}."
        )
    return draw.index
