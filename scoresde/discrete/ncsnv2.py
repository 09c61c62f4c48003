r"""NCSNv2's techniques: noise levels and a Langevin step chosen from the data, not by hand.

Five recommendations, in the paper's order, and where they are here:

1. The noisiest level is the largest distance between two data: `largest_distance`.
2. The levels are a geometric list, near enough that each covers the next one's shell: `overlap`, `ratio`.
3. The network receives no level, its output is divided by it, :math:`s(x, \sigma) = f(x)/\sigma`. This is a noise
   prediction :math:`\hat\varepsilon = -f(x)`: train with ``prediction="noise"`` a network with ``time="constant"``.
4. The step of annealed Langevin dynamics keeps the spread of the samples near :math:`\sigma`: `spread`, `best_step`.
5. The weights are averaged, with a decay of 0.999: `scoresde.training.Recipe`.

`scoresde.discrete.NoiseScales.ncsnv2` puts the first two together, its method ``langevin_step`` is the fourth.

References:
    Song, Ermon (2020), Improved Techniques for Training Score-Based Generative Models.
    https://arxiv.org/abs/2006.09011
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, NonFiniteError
from ..core.support.checks import MOST_NUMBERS, MOST_STEPS, check_generator, check_integer, check_number, check_state

_LARGEST_RATIO = 1e100  # of two levels, or of two variances


def largest_distance(
    data: Tensor, *, sample: int | None = None, chunk: int = 1024, generator: torch.Generator | None = None
) -> float:
    r"""The largest Euclidean distance between two data, :math:`\max_{ij}\lVert x^{(i)}-x^{(j)}\rVert`: technique 1.

    It is exact to float64's rounding. The data are sorted by their distance from the mean, and pairs that the triangle
    inequality excludes are not compared; the work is :math:`n^2/2` products of vectors at most.

    Args:
        data: ``(n, *event)``, two or more.
        sample: use that many data only, drawn without replacement; the result is then a lower bound.
        chunk: data a block; a block of distances has ``chunk`` squared numbers.
        generator: for ``sample``; None is torch's global one.

    Raises:
        InvalidArgumentError: there are fewer than two data, or all are the same.
        NonFiniteError: a value is NaN or infinite.

    Example:
        >>> largest_distance(torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]))
        5.0

    References:
        Song, Ermon (2020), section 3.1.
    """
    check_state("data", data)
    check_generator(generator)
    if len(data) < 2:
        raise InvalidArgumentError(f"`data` must have at least two entries, got {len(data)}.")
    size = check_integer("chunk", chunk, low=1, high=MOST_NUMBERS)
    rows = data.detach().flatten(1)
    if sample is not None:
        n = check_integer("sample", sample, low=2, high=MOST_NUMBERS)
        where = rows.device if generator is None else generator.device
        rows = rows[torch.randperm(len(rows), generator=generator, device=where)[:n].to(rows.device)]
    mean = rows.mean(0, dtype=torch.float64)
    radius = torch.cat([(block.to(torch.float64) - mean).norm(dim=1) for block in rows.split(size)])
    bad = (~torch.isfinite(radius)).nonzero().flatten()
    if len(bad):
        raise NonFiniteError("`data` has values that are NaN or infinite.", stage="input", indices=bad[:5].tolist())
    order = radius.argsort(descending=True)
    blocks = [(radius[i], rows[i]) for i in order.split(size)]
    largest = 0.0  # squared
    for k, (r, x) in enumerate(blocks):
        first = x.to(torch.float64) - mean
        for other_r, other in blocks[k:]:
            if float(r[0] + other_r[0]) ** 2 <= largest:
                break
            second = other.to(torch.float64) - mean
            squares = r.square()[:, None] + other_r.square() - 2 * first @ second.T
            largest = max(largest, float(squares.max()))
    if not largest > 0.0:
        raise InvalidArgumentError("`data` must have two different entries, but all are the same.")
    return math.sqrt(largest)


def overlap(dimension: int, ratio: float) -> float:
    r"""How much of a level lies in the shell of the next noisier one: technique 2.

    In D dimensions the radii of :math:`N(0, \sigma^2 I)` are close to :math:`N(\sqrt D\sigma, \sigma^2/2)`. With
    :math:`\gamma` the ratio of two levels, the share of the cleaner one's radii that are within three deviations of the
    noisier one's is

    .. math:: C = \Phi(\sqrt{2D}(\gamma-1)+3\gamma) - \Phi(\sqrt{2D}(\gamma-1)-3\gamma).

    Args:
        dimension: D, the numbers in one datum.
        ratio: :math:`\gamma \ge 1`, the noisier level over the cleaner one.

    Example:
        >>> round(overlap(3072, (50 / 0.01) ** (1 / 231)), 3)
        0.567

    References:
        Song, Ermon (2020), section 3.2.
    """
    d = check_integer("dimension", dimension, low=1, high=MOST_NUMBERS)
    gamma = check_number("ratio", ratio, low=1.0, high=_LARGEST_RATIO)
    from scipy.special import ndtr  # takes long to import

    middle = math.sqrt(2 * d) * (gamma - 1)
    return float(ndtr(3 * gamma - middle) - ndtr(-3 * gamma - middle))  # of -radius, which keeps the digits of a tail


def ratio(dimension: int, target: float = 0.5) -> float:
    r"""The ratio :math:`\gamma > 1` of neighbouring levels at which the `overlap` is ``target``; about :math:`1 +
    3/\sqrt{2D}` for 0.5.

    The published lists overlap by 0.566 to 0.567, all five of them; the paper recommends 0.5.

    Args:
        dimension: D, 5 or more: below, shells are too wide for the overlap to fall.
        target: the overlap, from 1e-6 to 0.99.

    Example:
        >>> round(ratio(3072), 6)
        1.039796

    References:
        Song, Ermon (2020), section 3.2.
    """
    d = check_integer("dimension", dimension, low=1, high=MOST_NUMBERS)
    wanted = check_number("target", target, low=1e-6, high=0.99)
    root = math.sqrt(2 * d)
    if root <= 3:
        raise InvalidArgumentError(
            f"`dimension` must be 5 or more, got {d}: in fewer dimensions levels of any ratio overlap; choose the "
            "levels yourself, as in NoiseScales.geometric(10, 0.01, 1.0)."
        )
    from scipy.optimize import brentq

    far = (root + 10) / (root - 3)  # where the lower end of the interval is at ten deviations
    return float(brentq(lambda gamma: overlap(d, gamma) - wanted, 1.0, far, xtol=1e-15, rtol=1e-14))


def spread(step: float, moves: int, ratio: float, start: float = 1.0) -> float:
    r"""The variance of annealed Langevin samples after a level, over that of the level: technique 4.

    On a datum at 0, T moves :math:`x \leftarrow x + a\,s + \sqrt{2a}\,z` with :math:`a = \eta\sigma_i^2`, from samples
    with ``start`` times the variance of the level before, leave

    .. math:: s_T^2/\sigma_i^2 = (1-\eta)^{2T}(\gamma^2 v - K) + K, \qquad K = \frac{2}{2-\eta}.

    This is above 1 for every step; the paper takes v = 1, samples that have left the level before with its own
    variance. Along a long list the variance settles at v = spread(step, moves, ratio, v), which is more:
    :math:`K(1-q)/(1-q\gamma^2)` with :math:`q = (1-\eta)^{2T}` where :math:`q\gamma^2 < 1`, and grows without end
    elsewhere.

    Args:
        step: :math:`\eta = \epsilon/\sigma_L^2`, in (0, 2), with :math:`\epsilon` that of
            `scoresde.solvers.AnnealedLangevin`; predictor-corrector samplers write :math:`\eta = 2\,snr^2`.
        moves: T, moves per level.
        ratio: :math:`\gamma`, the level before over this one.
        start: v.

    Example:
        >>> round(spread(6.2e-6 / 0.01**2, 5, (50 / 0.01) ** (1 / 231)), 4)
        1.0555

    References:
        Song, Ermon (2020), proposition 3 and section 3.4.
    """
    eta = check_number("step", step, low=0.0, high=2.0, strict=True)
    keep = (1 - eta) ** (2 * check_integer("moves", moves, low=1, high=MOST_STEPS))
    rest = 2 / (2 - eta)
    gamma = check_number("ratio", ratio, low=1.0, high=_LARGEST_RATIO)
    return keep * (gamma**2 * check_number("start", start, low=0.0, high=_LARGEST_RATIO) - rest) + rest


def best_step(moves: int, ratio: float) -> float:
    r"""The step :math:`\eta = \epsilon/\sigma_L^2` in (0, 1) with the least `spread` from a right start: technique 4.

    The derivative of the spread has one zero, before K reaches :math:`\gamma^2`; it is found by bracketing.

    Args:
        moves: T, moves per level.
        ratio: :math:`\gamma > 1`, the noisier level over the cleaner one.

    Example:
        >>> f"{best_step(5, (50 / 0.01) ** (1 / 231)) * 0.01**2:.2g}"
        '6.2e-06'

    References:
        Song, Ermon (2020), section 3.4.
    """
    t = check_integer("moves", moves, low=1, high=MOST_STEPS)
    gamma = check_number("ratio", ratio, low=1.0, high=_LARGEST_RATIO, strict=True)
    from scipy.optimize import brentq

    def slope(eta: float) -> float:
        rest, grows = 2 / (2 - eta), 2 / (2 - eta) ** 2
        falls = 2 * t * (1 - eta) ** (2 * t - 1) * (gamma**2 - rest)
        return -math.expm1(2 * t * math.log1p(-eta)) * grows - falls

    equal = 2 * (1 - gamma**-2)  # where K is gamma^2
    return float(brentq(slope, 0.0, min(equal, 1 - 1e-12), xtol=1e-300, rtol=1e-14))
