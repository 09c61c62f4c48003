r"""The variational bound of a diffusion model, in continuous time or on a grid of steps.

With :math:`\gamma = -\ln(\alpha^2/\sigma^2)` the negative log-SNR and z the diffused data,

.. math::
    -\ln p(x) \le \underbrace{KL(q(z_T|x)\,\|\,\pi)}_{prior} +
    \underbrace{\tfrac12\int_{\gamma_0}^{\gamma_T} E\|\varepsilon-\hat\varepsilon\|^2\,d\gamma}_{diffusion} +
    \underbrace{E[-\ln p(x|z_0)]}_{reconstruction}.

It bounds the likelihood of the reverse SDE, from z at :math:`t_{max}` to z at :math:`t_{min}`, and depends on the
process by the ends of :math:`\gamma` only. The density of the probability flow is another one where the score is not
exact; no inequality between the two is known.

The bound that follows from Girsanov's theorem and denoising score matching,

.. math::
    -\ln p_{t_{min}} \le -E\ln\pi(x_T) + \tfrac12\int E\big[g^2\|s-\nabla\ln p_{0t}\|^2 - g^2\|\nabla\ln p_{0t}\|^2 -
    2\nabla\!\cdot f\big]\,dt,

is the same number: :math:`g^2\,dt = \sigma^2 d\gamma`, :math:`E\|\nabla\ln p_{0t}\|^2 = D/\sigma^2`, and what remains
integrates to :math:`D\ln(\sigma_0/\sigma_T)`, the difference of the entropies of :math:`q(z_0|x)` and
:math:`q(z_T|x)`. The two differ as estimators: in how levels are drawn, and in whether known terms are drawn too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from ...core.arguments import affine_model, check_finite_ends
from ...core.errors import InvalidArgumentError
from ...core.noise import Noise
from ...core.processes import Network
from ...core.sdes import SDE, AffineSDE, Node
from ...core.support.checks import MOST_LEVELS, check_integer, check_times
from ...core.support.declared import checked, one_of
from ..bits import Several
from .levels import CLOCKS, DESIGNS, BoundLevels, BoundWeights, continuous, discrete, independent_mean, stratum_edges
from .result import Bound, Term
from .terms import Given, by_denoising, by_likelihood, entropy, estimated, prepare, prior_term


@checked
def variational_bound(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    *,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    steps: int | Tensor | None = None,
    decoder: bool = False,
    draws: Several = 32,
    clock: Annotated[str, one_of(*CLOCKS)] = "log_snr",
    times: Annotated[str, one_of(*DESIGNS)] = "stratified",
    context: Mapping[str, object] | None = None,
    seed: int | None = None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
) -> Bound:
    r"""The bound of variational diffusion models and of score-based models, which is one bound, for any affine process
    and any score function.

    In continuous time the two are one quantity. On a grid the diffusion term is that of ancestral sampling with the
    small variance on it,

    .. math:: \tfrac12\sum_i\mathrm{expm1}(\gamma_i-\gamma_{i-1})\,E\|\varepsilon-\hat\varepsilon(z_{t_i})\|^2 =
              \tfrac12\sum_i(\mathrm{SNR}_{i-1}-\mathrm{SNR}_i)\,E\|x-\hat x(z_{t_i})\|^2,

    which tends to the integral as O(1/steps). `scoresde.likelihood.chain_bound` has other variances, and every step.

    Args:
        sde: an affine process with a finite log-SNR at both ends, and a normal prior.
        score_fn: as for `scoresde.solve`.
        x: data, ``(batch, *event)``; with ``levels`` the integers 0 … L - 1.
        levels: L, for data in grey levels, each of which becomes the middle of its cell of ``data_range``:
            :math:`x = lo + w(v+\tfrac12)`. None for a density.
        data_range: lo and hi.
        steps: None for continuous time; a number of steps even in time; or the times of a grid, two or more, falling or
            rising, whose ends take the place of t_min and t_max.
        decoder: the last step, from :math:`z_0` at t_min to the data. False leaves the network out: grey values have
            :math:`p(v|z_0) \propto q(z_0|v)` over the levels of each dimension; for a density the reconstruction is the
            entropy of :math:`q(z_0|x)`, and the bound that of :math:`E[-\ln p_{t_{min}}(z_0)]`. True denoises:
            :math:`p(x|z_0) = N(\hat x(z_0), \sigma_0^2/\alpha_0^2)`, and its mass in the cell of a grey value; the
            bound is then one of :math:`p(x)` itself, at the cost of ``draws`` more evaluations.
        draws: the number of noise levels, with noise, per sample; at least 2.
        clock: how the levels are drawn: ``"log_snr"`` is importance sampling, with the density of t proportional to
            :math:`g^2/\sigma^2`, and draws the steps of a grid in proportion to their weights; ``"time"`` draws
            uniformly in time, and the steps of a grid in proportion to their length.
        times: ``"stratified"``, in strata of two draws; ``"even"``, a grid with one uniform shift for all samples (low
            discrepancy), whose standard errors are a little too large; ``"independent"``.
        context: as for `scoresde.solve`.
        seed: the seed of the draws; None is torch's global generator.
        noise: a source of the normal draws, as for `scoresde.solve`; the draws of the diffusion term come first.

    Raises:
        InvalidArgumentError: an argument does not fit.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = target.sample(2000, generator=torch.Generator().manual_seed(0))
        >>> bound = variational_bound(sde, target.score(sde), x, draws=8, seed=0)
        >>> entropy = 1 + math.log(2 * math.pi * 0.3)  # of the data; at t_min a little more
        >>> bool((bound.total.mean() - entropy).abs() < 0.05)
        True
        >>> coarse = variational_bound(sde, target.score(sde), x, steps=20, draws=8, seed=0)
        >>> bool(coarse.total.mean() > bound.total.mean())
        True

    References:
        Kingma, Salimans, Poole, Ho (2021), Variational Diffusion Models, equations 11-18.
        https://arxiv.org/abs/2107.00630
        Song, Durkan, Murray, Ermon (2021), Maximum Likelihood Training of Score-Based Diffusion Models, theorem 3 and
        appendix B. https://arxiv.org/abs/2101.09258
    """
    sde, score = affine_model(sde, score_fn)
    grid = None if steps is None else _grid(sde, steps)
    ends = (sde.t_min, sde.t_max) if grid is None else (float(grid[0]), float(grid[-1]))
    first, last = map(sde.node, ends)
    check_finite_ends(2 * first.lam, 2 * last.lam)
    given = prepare(score, x, levels, data_range, context, seed, noise)
    with torch.no_grad():
        place = continuous(sde, clock) if grid is None else discrete(sde, grid.to(given.data.device), clock)
        prior = prior_term(given.data, last, sde.prior)
        diffusion = _diffusion(given, place, times, draws)
        reconstruction = _reconstruction(given, first, decoder, draws)
    return Bound(prior, diffusion, reconstruction, tuple(given.data.shape[1:]), levels, given.network.calls)


def _grid(sde: AffineSDE, steps: int | Tensor | None) -> Tensor:
    """The times of the levels, rising."""
    if not isinstance(steps, Tensor):
        count = check_integer("steps", steps, low=1, high=MOST_LEVELS, hint=" Times are given as a tensor.")
        return torch.linspace(sde.t_min, sde.t_max, count + 1, dtype=torch.float64)
    times = check_times("steps", steps).sort().values
    if len(times) < 2 or not bool((times.diff() > 0).all()):
        raise InvalidArgumentError(f"`steps` must have at least two different times, got {steps.tolist()}.")
    if not (sde.t_min <= float(times[0]) and float(times[-1]) <= sde.t_max):
        raise InvalidArgumentError(f"`steps` must be within [{sde.t_min:g}, {sde.t_max:g}], got {steps.tolist()}.")
    return times


def squares(network: Network, x: Tensor, noise: Tensor, place: BoundLevels, u: Tensor) -> Tensor:
    r"""One draw of the diffusion term, ``(batch,)``: :math:`\tfrac12 w(u)\|\varepsilon-\hat\varepsilon\|^2`."""
    node, weight = place.at(u)
    _, missed = estimated(network, x, noise, node)
    return 0.5 * weight * missed.flatten(1).square().sum(1)


def _diffusion(given: Given, place: BoundLevels, times: str, count: int) -> Term:
    x, design = given.data, DESIGNS[times]
    levels = design.draw(count, len(x), given.generator, x.device)
    values = torch.stack([squares(given.network, x, given.noise.normal(x), place, u) for u in levels])
    if place.moments is None or not design.strata:
        return design.mean(values)
    drawn = place.at(levels.flatten())[1].reshape(levels.shape)
    return design.mean(values, BoundWeights(drawn, *place.moments(stratum_edges(count, x.device))))


def _reconstruction(given: Given, node: Node[Any], decoder: bool, count: int) -> Term:
    x, grey = given.data, given.grey
    if not decoder and grey is None:
        return entropy(x, node)

    def draw() -> Tensor:
        z = given.noise.normal(x)
        if decoder or grey is None:
            return by_denoising(given.network, grey, x, node, z, node.sigma / node.alpha)
        return by_likelihood(grey, x, node, z)

    return independent_mean(torch.stack([draw() for _ in range(count)]))
