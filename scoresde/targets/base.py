"""The protocol of targets."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE, Estimate
from ..core.sdes.base import check_sde
from ..core.support.checks import MOST_NUMBERS, check_batch, check_generator, check_integer, check_state
from ..core.support.tensors import Scalar, compute_dtype, expand
from .exact import ExactScore


class Target(abc.ABC):
    """A data distribution whose diffused score, density and samples are exact.

    A subclass gives `_estimate`, `_log_prob` and `_draw` as functions of the kernel's :math:`\\alpha` and
    :math:`\\sigma`.
    """

    event_shape: tuple[int, ...]
    dtype: torch.dtype

    @abc.abstractmethod
    def _estimate(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate: ...

    @abc.abstractmethod
    def _log_prob(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor: ...

    @abc.abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor: ...

    @property
    def data_std(self) -> float | None:
        """The standard deviation, RMS over dimensions; None where it is not known."""
        return None

    def _covariance(self) -> Tensor | None:
        """The covariance ``(D, D)`` over the flattened event, float64; None where it is not known."""
        return None

    def _check(self, x: Tensor) -> None:
        check_batch("x", check_state("x", x), self.event_shape)

    def score(self, sde: AffineSDE) -> ExactScore:
        """The exact score function of this target diffused by an affine process."""
        check_sde(sde, affine=True)
        return ExactScore(self._estimate, sde, self.event_shape, self.data_std)

    def log_prob(self, x: Tensor, sde: AffineSDE | None = None, t: Scalar | None = None) -> Tensor:
        """The log-density in nats, ``(batch,)``: of the data, or of the data diffused to time ``t`` of ``sde``."""
        return self._log_prob(*self._diffused(x, sde, t))

    def _diffused(self, x: Tensor, sde: AffineSDE | None, t: Scalar | None) -> tuple[Tensor, Scalar, Scalar]:
        """States, checked, and the kernel's scales, broadcast against them."""
        self._check(x)
        x = x.to(compute_dtype(x.dtype))
        alpha, sigma = _kernel(sde, t)
        return x, expand(alpha, x), expand(sigma, x)

    def sample(
        self, n: int, sde: AffineSDE | None = None, t: Scalar | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw ``(n, *event_shape)`` from the data's distribution, or from the distribution at time ``t`` of
        ``sde``."""
        check_generator(generator)
        x0 = self._draw(check_integer("n", n, low=0, high=MOST_NUMBERS), generator)
        if sde is None and t is None:
            return x0
        alpha, sigma = _kernel(sde, t)
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        return expand(alpha, x0) * x0 + expand(sigma, x0) * z


def _kernel(sde: AffineSDE | None, t: Scalar | None) -> tuple[Any, Any]:
    if (sde is None) != (t is None):
        raise InvalidArgumentError("Give both `sde` and `t`, or neither.")
    if sde is None or t is None:
        return 1.0, 0.0
    check_sde(sde, affine=True)
    return sde.alpha(t), sde.sigma(t)
