"""What a variational bound is told in: terms with their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidArgumentError


@dataclass(frozen=True)
class Term:
    """A part of a bound: nats, and the standard error of each from its draws: 0 where it is exact, NaN where there was
    one draw only.

    Example:
        >>> Term(torch.tensor([1.0]), torch.tensor([0.0])).value
        tensor([1.])
    """

    value: Tensor
    std_error: Tensor


@dataclass(frozen=True)
class Bound:
    r"""A variational bound, term by term.

    Attributes:
        prior: :math:`KL(q(z_T|x)\,\|\,\pi)`, DDPM's :math:`L_T`.
        diffusion: the divergences of the steps, or their integral.
        reconstruction: the data given the cleanest state, DDPM's :math:`L_0`; or the entropy of that state, for the
            bound of its density.
        event_shape, levels: of the data.
        nfe: evaluations a sample.
        steps: of a `chain_bound` over all steps: the divergence of each, ``(batch, n)``. Column i belongs to the step
            from level i to the next cleaner one; column 0 is the reconstruction.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> bound = scoresde.variational_bound(sde, target.score(sde), torch.zeros(3, 2, dtype=torch.float64), seed=0)
        >>> bool((bound.total == bound.prior.value + bound.diffusion.value + bound.reconstruction.value).all())
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
        """Nats, ``(batch,)``: an upper bound of the negative log-likelihood."""
        return self.prior.value + self.diffusion.value + self.reconstruction.value

    @property
    def std_error(self) -> Tensor:
        """Of the total, from all draws."""
        parts = (self.prior, self.diffusion, self.reconstruction)
        return torch.stack([part.std_error.square() for part in parts]).sum(0).sqrt()

    @property
    def bits_per_dim(self) -> Tensor:
        """Of the grey values: the total over D ln 2."""
        if self.levels is None:
            raise InvalidArgumentError(
                "This is the bound of a density; for data from dequantize(v, levels=L) its bits are "
                "bits_per_dim(-bound.total, event_shape, levels=L)."
            )
        return self.total / (math.prod(self.event_shape) * math.log(2))
