"""Results of the variational bounds: terms with their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from ...core.support.checks import check_number
from ...core.support.tensors import as_array
from ..bits import bits_of


@dataclass(frozen=True)
class Term:
    """A part of a bound.

    Attributes:
        value: nats.
        std_error: the standard error of each value from its draws: 0 where it is exact, NaN where there was one draw
            only. Its square is right in the mean.
        deviation: the standard deviation that an interval takes: where the weights of the draws are known, no less than
            they imply; None is the standard error.
        freedom: the degrees of freedom of the deviation; None is infinity.

    Example:
        >>> Term(torch.tensor([1.0]), torch.tensor([0.0])).value
        tensor([1.])
    """

    value: Tensor
    std_error: Tensor
    deviation: Tensor | None = None
    freedom: Tensor | None = None

    @property
    def variance(self) -> tuple[Tensor, Tensor]:
        """The variance for an interval, and its degrees of freedom."""
        known = torch.full_like(self.std_error, math.inf) if self.freedom is None else self.freedom
        return (self.std_error if self.deviation is None else self.deviation).square(), known


def pooled_freedom(variances: Tensor, freedom: Tensor) -> Tensor:
    r"""The degrees of freedom of a sum of estimated variances along axis 0, by Satterthwaite's formula; 1 at least.

    .. math:: \nu = \frac{(\sum_j v_j)^2}{\sum_j v_j^2/(\nu_j+2)} - 2,

    since :math:`E[v_j^2]` is :math:`1 + 2/\nu_j` times the square of what it estimates.

    Example:
        >>> pooled_freedom(torch.ones(4, 1), torch.full((4, 1), 10.0))
        tensor([46.])
    """
    total = variances.sum(0)
    found = total.square() / (variances.square() / (freedom + 2)).sum(0) - 2
    return torch.where(total > 0, found.clamp_min(1.0), torch.full_like(found, math.inf))


@dataclass(frozen=True)
class Bound:
    r"""A variational bound, term by term.

    Attributes:
        prior: :math:`KL(q(z_T|x)\,\|\,\pi)`, DDPM's :math:`L_T`.
        diffusion: the divergences of the steps, or their integral.
        reconstruction: the data given the cleanest state, DDPM's :math:`L_0`; or the entropy of that state, for the
            bound of its density.
        event_shape, levels: those of the data.
        nfe: evaluations per sample.
        steps: of a `chain_bound` over all steps: the divergence of each, ``(batch, n)``. Column i belongs to the step
            from level i to the next cleaner one; column 0 is the reconstruction.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> bound = scoresde.variational_bound(
        ...     sde, target.score(sde), torch.zeros(3, 2, dtype=torch.float64), seed=0
        ... )
        >>> bool(
        ...     (
        ...         bound.total
        ...         == bound.prior.value + bound.diffusion.value + bound.reconstruction.value
        ...     ).all()
        ... )
        True
    """

    prior: Term
    diffusion: Term
    reconstruction: Term
    event_shape: tuple[int, ...]
    levels: int | None
    nfe: int
    steps: Term | None = None

    @property
    def total(self) -> Tensor:
        """The sum of the terms in nats, ``(batch,)``: an upper bound of the negative log-likelihood."""
        return self.prior.value + self.diffusion.value + self.reconstruction.value

    @property
    def std_error(self) -> Tensor:
        """The standard error of the total, from all draws. Its square is right in the mean, but single ones may be too
        small: `interval` makes up for it."""
        return torch.stack([part.std_error.square() for part in self._parts]).sum(0).sqrt()

    @property
    def _parts(self) -> tuple[Term, Term, Term]:
        return self.prior, self.diffusion, self.reconstruction

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        r"""Bounds of the mean of ``total`` over the draws that hold with about this probability; NaN for one draw.

        By Student's t, with degrees of freedom that Satterthwaite's formula finds from the draws. With
        ``clock="time"`` the deviation is no less than the known weights imply. Squares of noise are skewed: in one or
        two dimensions the intervals hold the mean less often.
        """
        level = check_number("level", level, low=0.0, high=1.0, strict=True)
        variances, each = (torch.stack(values) for values in zip(*(part.variance for part in self._parts), strict=True))
        freedom = pooled_freedom(variances, each)
        quantile = torch.from_numpy(special.stdtrit(as_array(freedom), 0.5 * (1 + level))).to(self.total)
        half = quantile * variances.sum(0).sqrt()
        return self.total - half, self.total + half

    @property
    def bits_per_dim(self) -> Tensor:
        """Bits per dimension of the grey values: the total over D ln 2."""
        return bits_of(self.total, self.event_shape, self.levels, "-bound.total")
