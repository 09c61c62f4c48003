r"""The variational bound of discrete chains, as DDPM, improved DDPM and NCSN's levels have it.

For levels 0 … n - 1, from the cleanest on, and the data x,

.. math::
    -\ln p(x) \le \underbrace{KL(q(x_{n-1}|x)\,\|\,\pi)}_{L_T} +
    \sum_{i=1}^{n-1}\underbrace{E\,KL(q(x_{i-1}|x_i,x)\,\|\,p(x_{i-1}|x_i))}_{L_i} +
    \underbrace{E[-\ln p(x|x_0)]}_{L_0}.

With :math:`\tilde\sigma` the deviation of q and s that of p, both normal distributions, and :math:`r =
\tilde\sigma^2/s^2`,

.. math:: KL = \tfrac12\sum_d\big[(e^{\gamma_i-\gamma_{i-1}}-1)\,r\,(\varepsilon-\hat\varepsilon)_d^2 +
          r - 1 - \ln r\big],

for every affine process; :math:`\gamma` is the negative log-SNR.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ...core.arguments import affine_model
from ...core.errors import InvalidArgumentError
from ...core.noise import Noise
from ...core.processes import Network, node_list
from ...core.sdes import Estimate, Node, NormalPrior
from ...core.support.checks import MOST_DRAWS, check_integer, check_times, check_weights
from ...core.support.declared import checked, one_of
from ...core.support.tensors import Scalar, expand, expm1
from ...discrete import Chain
from ...scores import Clip
from ...solvers.ancestral import AMPLITUDES, NONE_LEARNED
from ..bits import cell
from .levels import DESIGNS, choose, independent_mean
from .result import Bound, Term, pooled_freedom
from .terms import Given, by_denoising, estimated, prepare, prior_term


@checked
def chain_bound(
    chain: Chain,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    *,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    variance: Annotated[str, one_of(*AMPLITUDES)] = "small",
    clip: bool = False,
    steps: Literal["all", "random"] = "all",
    weights: Sequence[float] | Tensor | None = None,
    draws: int | None = None,
    prior: NormalPrior | None = None,
    context: Mapping[str, object] | None = None,
    seed: int | None = None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
) -> Bound:
    r"""The bound of DDPM and improved DDPM, for any chain of `scoresde.discrete` and its parts.

    It bounds the likelihood of ancestral sampling on the chain with the given variance, whose last step draws the
    data from :math:`N(\hat x(x_0), s_0^2)`. For grey values the last step gives the mass of the value's cell; the
    outermost two cells extend to infinity.

    Args:
        chain: a `scoresde.discrete.BetaChain` or `scoresde.discrete.NoiseScales`, or a part of one,
            ``chain.respace(n)``.
        score_fn: a score function of ``chain.sde()``, most often ``ScoreModel(net, chain.sde(), …)``.
        x: data, ``(batch, *event)``; with ``levels`` the integers 0 … L - 1.
        levels: L of data in grey levels, which stand at the middle of their cells: :math:`x = lo + w(v+\tfrac12)`. None
            for a density.
        data_range: lo and hi of the cells. Networks trained on :math:`x = 2v/255 - 1`, as DDPM's, have
            ``levels=256, data_range=(-256 / 255, 256 / 255)``.
        variance: ``"small"``, ``"large"`` or ``"learned"``, as of `scoresde.solvers.Ancestral`: :math:`\tilde\beta`,
            :math:`\beta`, or what the network predicts. For :math:`s_0` the small one, 0, is replaced by that of the
            step before, and the large one likewise, as in the published code.
        clip: clip the data estimate to the outermost grey levels, or to ``data_range``, as `scoresde.scores.Clip`. The
            published evaluations do so; the bound is then that of a sampler that does so, too.
        steps: ``"all"``, or ``"random"``: ``draws`` steps per sample, drawn with replacement in strata of their
            ``weights``, each divided by its probability. The part of a step that does not involve the network is added
            exactly.
        weights: n - 1 positive numbers, for the steps to levels 0, 1, …: to which the probabilities of random steps are
            proportional; by default those of :math:`\|\varepsilon-\hat\varepsilon\|^2`. The least variance have root
            mean squares of the divergences, ``bound.steps.value[:, 1:].square().mean(0).sqrt()`` of other data.
        draws: of noise for each of all steps (default 1), or of steps and noise (2 or more, default 32); and as many
            for :math:`L_0`. With one draw the standard errors are NaN.
        prior: the distribution of the noisiest level; default that of ``chain.sde()``.
        context: as for `scoresde.solve`.
        seed: the seed of the draws; None is torch's global generator.
        noise: a source of the normal draws, as for `scoresde.solve`: those of :math:`L_0` first, then from level 1 up.

    Raises:
        InvalidArgumentError: an argument does not fit, or the variance is ``"learned"`` and the network has none.

    Differs from:
        improved DDPM's ``calc_bpd_loop``: the mass of a cell is exact, where that code takes a tanh for the normal
        integral and 1e-12 for its floor; the first level's variance is not repeated but kept apart.

    Example:
        >>> import scoresde
        >>> chain = scoresde.discrete.BetaChain.linear().respace(20)
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> v = torch.randint(0, 256, (3, 2), generator=torch.Generator().manual_seed(0))
        >>> bound = chain_bound(
        ...     chain, target.score(chain.sde()), v, levels=256, draws=2, seed=0
        ... )
        >>> bound.steps.value.shape, bound.nfe, bool((bound.bits_per_dim > 0).all())
        (torch.Size([3, 20]), 40, True)

    References:
        Ho, Jain, Abbeel (2020), Denoising Diffusion Probabilistic Models, equations 5 and 13.
        https://arxiv.org/abs/2006.11239
        Nichol, Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, equations 15 and 17.
        https://arxiv.org/abs/2102.09672
    """
    sde, score = affine_model(chain.sde(prior=prior), score_fn)
    every = steps == "all"
    least, usual = (1, 1) if every else (2, 32)
    count = check_integer("draws", usual if draws is None else draws, low=least, high=MOST_DRAWS)
    if weights is not None and every:
        raise InvalidArgumentError('`weights` choose among random steps; set steps="random" too.')
    shares = None if weights is None else check_weights(check_times("weights", weights, "numbers"), len(chain) - 1)
    model = Clip(score, *_range(levels, data_range), sde=sde) if clip else score
    given = prepare(model, x, levels, data_range, context, seed, noise)
    if variance == "learned" and not given.network.traits.variance:
        raise InvalidArgumentError(NONE_LEARNED)
    nodes = node_list(sde, chain.times)
    with torch.no_grad():
        last = prior_term(given.data, nodes[-1], sde.prior)
        reconstruction = _reconstruction(given, nodes, variance, count)
        if every:
            table = _every_step(given, nodes, variance, count)
            variances = table.std_error.square()
            freedom = pooled_freedom(variances.T, torch.full_like(variances.T, count - 1.0))
            diffusion = Term(table.value.sum(1), variances.sum(1).sqrt(), freedom=freedom)
            values = torch.cat([reconstruction.value[:, None], table.value], 1)
            shown = Term(values, torch.cat([reconstruction.std_error[:, None], table.std_error], 1))
        else:
            diffusion, shown = _random_steps(given, sde.nodes(chain.times), variance, shares, count), None
    return Bound(last, diffusion, reconstruction, tuple(given.data.shape[1:]), levels, given.network.calls, shown)


def divergence(
    network: Network, x: Tensor, noise: Tensor, start: Node[Tensor], stop: Node[Tensor], variance: str
) -> Tensor:
    r"""One draw of :math:`KL(q(x_{stop}|x_{start},x)\,\|\,p(x_{stop}|x_{start}))`, ``(batch,)``."""
    estimate, missed = estimated(network, x, noise, start)
    ratio = _log_ratio(start, stop, estimate, variance, missed)
    gap = expm1(2 * (stop.lam - start.lam))  # the quotient of the SNRs, less 1
    gain = expand(gap, missed) * torch.exp(ratio)
    return 0.5 * (gain * missed.square() + (torch.expm1(ratio) - ratio)).flatten(1).sum(1)


def _log_ratio(start: Node[Tensor], stop: Node[Tensor], estimate: Any, variance: str, like: Tensor) -> Tensor:
    """ln r, which broadcasts against an event in float64."""
    amplitude = AMPLITUDES[variance](start, stop, estimate)
    a, b = (torch.as_tensor(expand(v, like), dtype=torch.float64).log() for v in (stop.sigma, amplitude))
    return 2 * (a - b)


def _every_step(given: Given, nodes: Sequence[Node[Tensor]], variance: str, count: int) -> Term:
    """``(batch, n - 1)``."""
    x, terms = given.data, []
    for stop, start in itertools.pairwise(nodes):
        draws = [divergence(given.network, x, given.noise.normal(x), start, stop, variance) for _ in range(count)]
        terms.append(independent_mean(torch.stack(draws)))
    return Term(torch.stack([term.value for term in terms], 1), torch.stack([term.std_error for term in terms], 1))


def _random_steps(given: Given, nodes: Node[Tensor], variance: str, shares: Tensor | None, count: int) -> Term:
    x = given.data
    stops, starts = (Node(*(v[part] for v in nodes)) for part in (slice(None, -1), slice(1, None)))
    gaps, known = expm1(2 * (stops.lam - starts.lam)), torch.zeros_like(stops.lam)
    if variance != "learned":  # the part without the network's error is exact
        flat = stops.lam[:, None]
        ratio = _log_ratio(starts, stops, None, variance, flat)[:, 0]
        gaps, known = gaps * torch.exp(ratio), 0.5 * math.prod(x.shape[1:]) * (torch.expm1(ratio) - ratio)
    pick = choose((gaps if shares is None else shares).to(x.device))
    design = DESIGNS["stratified"]
    values = []
    for u in design.draw(count, len(x), given.generator, x.device):
        index, inverse = pick(u)
        start, stop = (Node(*(v.to(x.device)[index] for v in part)) for part in (starts, stops))
        value = divergence(given.network, x, given.noise.normal(x), start, stop, variance)
        values.append((value - known.to(x.device)[index]) * inverse)
    term = design.mean(torch.stack(values))
    return replace(term, value=term.value + known.sum())


def _reconstruction(given: Given, nodes: Sequence[Node[Tensor]], variance: str, count: int) -> Term:
    """The last step; its small variance is that of the step before it."""
    x, first = given.data, nodes[0]
    before = first.sigma * (-expm1(2 * (nodes[1].lam - first.lam))) ** 0.5
    amplitude = AMPLITUDES["learned" if variance == "learned" else "small"]

    def std(estimate: Estimate) -> Scalar:
        return amplitude(first, first._replace(sigma=before), estimate)

    draws = [by_denoising(given.network, given.grey, x, first, given.noise.normal(x), std) for _ in range(count)]
    return independent_mean(torch.stack(draws))


def _range(levels: int | None, data_range: tuple[float, float]) -> tuple[float, float]:
    """The range of the data estimates."""
    if levels is None:
        return data_range
    low, width = cell(levels, data_range)
    return low + 0.5 * width, low + width * (levels - 0.5)
