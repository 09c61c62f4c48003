r"""What the terms of the bounds are made of: the arguments, checked, and the data as a bound takes them; the prior's
divergence, the error of a network's estimate, and the reconstruction, the data given the cleanest state z.

- `entropy`: of :math:`q(z|x)`. The bound is then that of the density of z, and no decoder is needed.
- `by_likelihood`: :math:`p(v|z) \propto q(z|v)` over the grey values of each dimension; the network is not evaluated.
- `by_denoising`: :math:`N(x;\,\hat x(z), s^2)`, the last step of the reverse chain: its density, or its mass in the
  cells of the grey values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.arguments import check_events, context_of
from ...core.errors import InvalidArgumentError, InvalidTypeError
from ...core.noise import BatchNoise, Noise, resolve
from ...core.processes import Network
from ...core.sdes import Estimate, Node, NormalPrior
from ...core.support.checks import check_finite_rows, check_state, refuse_rows
from ...core.support.tensors import Scalar, compute_dtype, expand, row_finite
from ...losses import discretised_log_prob, prior_kl
from ...scores import Score
from ..bits import cell
from .result import Term


class GreyCells(NamedTuple):
    """Grey values, and the cells that they stand for."""

    values: Tensor  # int64 (batch, *event)
    levels: int
    low: float
    width: float

    def centres(self) -> Tensor:
        """The centres of all cells, float64 ``(levels,)``."""
        return self.low + self.width * (torch.arange(self.levels, dtype=torch.float64, device=self.values.device) + 0.5)


def read(x: Tensor, levels: int | None, data_range: tuple[float, float]) -> tuple[Tensor, GreyCells | None]:
    """The data, float32 or float64, and the grey values if there are some.

    Example:
        >>> read(torch.tensor([[0, 1]]), 2, (-1.0, 1.0))[0]
        tensor([[-0.5000,  0.5000]])
    """
    if levels is None:
        check_state("x", x)
        check_finite_rows("`x`", x)
        return x.to(compute_dtype(x.dtype)), None
    low, width = cell(levels, data_range)
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool or x.ndim < 2:
        raise InvalidTypeError("`x` must hold integers 0 … levels - 1, (batch, *event), where `levels` is given.")
    x = x.to(torch.int64)  # in a narrow type the number of levels would wrap
    if bool(((x < 0) | (x >= levels)).any()):
        raise InvalidArgumentError(f"`x` must hold integers 0 … {levels - 1}.")
    grey = GreyCells(x, levels, low, width)
    return grey.centres()[x].to(torch.get_default_dtype()), grey


class Given(NamedTuple):
    """Data, network and randomness, ready to use."""

    data: Tensor
    grey: GreyCells | None
    network: Network
    noise: Noise
    generator: torch.Generator | None  # of the levels


def prepare(
    score: Score,
    x: Tensor,
    levels: int | None,
    data_range: tuple[float, float],
    context: Mapping[str, object] | None,
    seed: int | None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None,
) -> Given:
    """Check the data and what belongs to them."""
    data, grey = read(x, levels, data_range)
    check_events(score, data)
    device, batch = data.device, len(data)
    generator = None if seed is None else BatchNoise.seeded(seed, device).generator
    source = resolve(seed=None, seeds=None, generator=None, noise=noise, device=device, batch=batch)
    if noise is None:
        source = BatchNoise(generator)  # one stream for levels and noise: two of one seed would be the same numbers
    return Given(data, grey, Network(score, context_of(context, score, data)), source, generator)


def prior_term(x: Tensor, node: Node, prior: NormalPrior) -> Term:
    r""":math:`KL(N(\alpha x, \sigma^2)\,\|\,N(m, s^2))`.

    Example:
        >>> import scoresde
        >>> prior_term(torch.ones(1, 2), scoresde.EDMSDE().node(2.0), NormalPrior(2.0)).value
        tensor([0.2500], dtype=torch.float64)
    """
    value = prior_kl(x.to(torch.float64), node.alpha, node.sigma, prior)
    return Term(value, torch.zeros_like(value))


def estimated(network: Network, x: Tensor, noise: Tensor, node: Node) -> tuple[Estimate, Tensor]:
    r"""The network's estimate of the data at a level of noise, and :math:`\hat\varepsilon-\varepsilon` in float64.

    Raises:
        NonFiniteError: the network returned NaN or infinity.

    Example:
        >>> import scoresde
        >>> x, noise = torch.zeros(1, 2), torch.ones(1, 2)
        >>> estimated(Network(lambda x, t: 0 * x), x, noise, scoresde.VPSDE().node(0.5))[1]
        tensor([[-1., -1.]], dtype=torch.float64)
    """
    state = expand(node.alpha, x) * x + expand(node.sigma, x) * noise
    estimate = network.estimate(state, node)
    missed = estimate.noise.to(torch.float64) - noise.to(torch.float64)
    bad = ~torch.stack([row_finite(part) for part in (missed, *network.last)]).all(0)
    refuse_rows(bad, "The score function returned NaN or infinity for", "", "score")
    return estimate, missed


def entropy(x: Tensor, node: Node[float]) -> Term:
    r""":math:`\tfrac D2\ln 2\pi e\sigma^2`.

    Example:
        >>> import scoresde
        >>> node = scoresde.EDMSDE().node(1.0)
        >>> round(float(entropy(torch.zeros(1, 1), node).value), 4)
        1.4189
    """
    each = 0.5 * math.log(2 * math.pi * math.e) + math.log(node.sigma)
    value = torch.full((len(x),), math.prod(x.shape[1:]) * each, dtype=torch.float64, device=x.device)
    return Term(value, torch.zeros_like(value))


def by_likelihood(grey: GreyCells, x: Tensor, node: Node[Tensor], noise: Tensor) -> Tensor:
    r""":math:`-\ln p(v|z)` for one draw of z, ``(batch,)``; :math:`p(v|z) \propto \exp(-(z/\alpha-x_v)^2
    \alpha^2/2\sigma^2)` over the levels of each dimension.

    Example:
        >>> import scoresde
        >>> grey = GreyCells(torch.zeros(1, 1, dtype=torch.int64), 2, -1.0, 1.0)
        >>> node = scoresde.EDMSDE().node(1.0)
        >>> by_likelihood(grey, torch.full((1, 1), -0.5), node, torch.full((1, 1), 0.5))
        tensor([0.6931], dtype=torch.float64)
    """
    rho = node.sigma / node.alpha
    seen = x.to(torch.float64) + rho * noise.to(torch.float64)
    logits = -0.5 * ((seen[..., None] - grey.centres()) / rho).square()
    return -logits.log_softmax(-1).gather(-1, grey.values[..., None])[..., 0].flatten(1).sum(1)


def by_denoising(
    network: Network, grey: GreyCells | None, x: Tensor, node: Node[Tensor], noise: Tensor, std: Any
) -> Tensor:
    r""":math:`-\ln` of the last step's density at x, or of its mass in the cells, for one draw of z, ``(batch,)``.

    Args:
        std: a function of the estimate, or a number: s.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> network = Network(lambda x, t: -x)
        >>> by_denoising(
        ...     network, None, torch.zeros(1, 1), sde.node(0.5), torch.zeros(1, 1), 1.0
        ... )
        tensor([0.9189], dtype=torch.float64)
    """
    estimate, _ = estimated(network, x, noise, node)
    mean = estimate.data.to(torch.float64)
    s = expand(std(estimate) if callable(std) else std, mean)
    if grey is not None:
        return -log_mass(grey, mean, s).flatten(1).sum(1)
    log_s = torch.as_tensor(s, dtype=torch.float64).log()
    density = 0.5 * ((x.to(torch.float64) - mean) / s).square() + log_s + 0.5 * math.log(2 * math.pi)
    return density.flatten(1).sum(1)


def log_mass(grey: GreyCells, mean: Tensor, std: Scalar) -> Tensor:
    r"""The logarithm of the mass of :math:`N(\mu, s^2)` in the cells of the grey values, whose outermost ones reach to
    infinity; float64, shaped like the mean. Exact in the tails, where the published code's floor is 1e-12.

    Example:
        >>> grey = GreyCells(torch.tensor([[0, 1]]), 2, -1.0, 1.0)
        >>> log_mass(grey, torch.zeros(1, 2, dtype=torch.float64), 1.0)
        tensor([[-0.6931, -0.6931]], dtype=torch.float64)
    """
    centres = grey.centres()[grey.values]
    span = grey.low, grey.low + grey.width * grey.levels
    log_variance = 2 * torch.as_tensor(std, dtype=mean.dtype).log()
    return discretised_log_prob(centres, mean, log_variance, levels=grey.levels, data_range=span, grid="cells")
