"""Measurements: an operator, the measured values, and their noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.support.checks import check_batch, check_number, check_state, check_tensor
from ..core.support.declared import checked, tensor
from ..core.support.tensors import expand, row_sums
from ..targets.bayes import LARGEST_STD, noise_covariance
from .operators import Diagonal, LinearOperator, Matrix, Nonlinear
from .operators.base import EventShape


class Measurement:
    r"""The data of an inverse problem, :math:`y = A x_0 + n`, :math:`n \sim N(0, R)`.

    A covariance R is divided out: the operator becomes :math:`L^{-1}A` with :math:`R = LL^T` (a matrix, or a function),
    y becomes :math:`L^{-1}y`, and the noise standard. So methods see one standard deviation.

    Args:
        operator: a `LinearOperator`, a matrix ``(M, D)``, a `Nonlinear` one, or any function of the data.
        y: ``(*measurement)``, the same for all samples, or ``(batch, *measurement)``; for a bare function the former.
        noise_std: the noise's standard deviation, one for each measured value, ``(*measurement)``, one for each value
            of each sample, shaped like y, or the covariance as a matrix ``(M, M)`` or ``(1, M, M)``; by default the
            operator's own, which is 0 but for one of `from_deepinv`.
        event_shape: the shape of the data, where the operator is a bare matrix.

    Attributes:
        operator: the operator after R is divided out.
        y: likewise; ``shared`` is True where it is the same for all samples.
        std: the noise's standard deviation.

    Example:
        >>> from scoresde.inverse import Measurement
        >>> measurement = Measurement(
        ...     torch.eye(2), torch.ones(2), torch.diag(torch.tensor([4.0, 1.0]))
        ... )
        >>> measurement.y, measurement.std
        (tensor([0.5000, 1.0000]), 1.0)
    """

    @checked
    def __init__(
        self,
        operator: object,
        y: Annotated[Tensor, tensor()],
        noise_std: Tensor | float | None = None,
        *,
        event_shape: EventShape | None = None,
    ) -> None:
        if not bool(torch.isfinite(y).all()):
            raise NonFiniteError(f"`y` has {int((~torch.isfinite(y)).sum())} NaN or infinite values.", stage="input")
        if isinstance(operator, Tensor):
            operator = Matrix(operator, event_shape)
        elif not isinstance(operator, LinearOperator | Nonlinear):
            if not callable(operator):
                kind = type(operator).__name__
                raise InvalidTypeError(f"`operator` must be an operator, a matrix (M, D) or a function, got {kind}.")
            operator = Nonlinear(operator, tuple(y.shape))
        shape = operator.measurement_shape
        self.shared = tuple(y.shape) == shape
        if not self.shared and (y.ndim != len(shape) + 1 or tuple(y.shape[1:]) != shape):
            event = getattr(operator, "event_shape", None)
            data = event in (tuple(y.shape), tuple(y.shape[1:]))
            hint = "; that is the shape of the data, which operator.forward(data) measures" if data else ""
            raise InvalidArgumentError(
                f"`y` must have shape {shape}, or (batch, {', '.join(map(str, shape))}), got {tuple(y.shape)}{hint}."
            )
        self.operator: LinearOperator | Nonlinear = operator
        self.y = y.detach().clone()
        size = math.prod(shape)
        noise_std = operator.noise_std if noise_std is None else noise_std
        if noise_std is None:
            raise InvalidArgumentError("`noise_std` must be given: the operator's noise has no single deviation.")
        self.log_volume = 0.0  # ln |det L|
        if isinstance(noise_std, Tensor):
            check_tensor("noise_std", noise_std, kind="real")
        if isinstance(noise_std, Tensor) and self._of_values(noise_std, size):
            self._divide(noise_std)
        elif isinstance(noise_std, Tensor) and noise_std.ndim:
            whole = noise_std[0] if noise_std.shape == (1, size, size) else noise_std
            self._whiten(noise_covariance(whole, size))
        else:
            self.std = check_number("noise_std", noise_std, low=0.0, high=LARGEST_STD)

    def _of_values(self, noise: Tensor, size: int) -> bool:
        """Whether these are standard deviations of the values, of all samples or of each."""
        if noise.shape != (size, size):
            return noise.shape in (self.operator.measurement_shape, self.y.shape)
        if self.shared or noise.shape != self.y.shape:
            return False
        if torch.allclose(noise, noise.mT):
            raise InvalidArgumentError(
                f"`noise_std` of shape {tuple(noise.shape)} may be a covariance or the deviations of {size} samples. "
                f"Give a covariance as (1, {size}, {size}), and equal deviations as a number."
            )
        return True

    def _divide(self, stds: Tensor) -> None:
        stds = stds.detach().to("cpu", torch.float64).clone()
        if not bool(((stds > 0) & (stds <= LARGEST_STD)).all()):
            raise InvalidArgumentError(f"`noise_std` must be above 0 and at most {LARGEST_STD:g} for every value.")
        y = (self.y.to(torch.float64) / stds.to(self.y.device)).to(self.y.dtype)
        if not bool(y.isfinite().all() & (1 / stds).isfinite().all()):
            raise InvalidArgumentError(f"`noise_std` is too small for `y` in {y.dtype}: their ratio is infinite.")
        operator = self.operator
        self.operator = (
            Diagonal(1 / stds, operator.measurement_shape) @ operator
            if isinstance(operator, LinearOperator)
            else _then(operator, lambda v: v / stds.to(v), shared=stds.shape == operator.measurement_shape)
        )
        self.y, self.std = y, 1.0
        self.log_volume = float(stds.log().sum()) if stds.shape == operator.measurement_shape else math.nan

    def _whiten(self, cov: Tensor) -> None:
        factor, failed = torch.linalg.cholesky_ex(cov)
        if int(failed):
            raise InvalidArgumentError("`noise_std` is a singular covariance; add to its diagonal.")
        operator, shape = self.operator, self.operator.measurement_shape

        def white(v: Tensor) -> Tensor:  # (n, *measurement)
            flat = v.flatten(1)
            return torch.linalg.solve_triangular(factor.to(flat), flat.mT, upper=False).mT.reshape(v.shape)

        self.operator = (
            Matrix(white(operator.matrix().mT).mT, operator.event_shape, shape)
            if isinstance(operator, LinearOperator)
            else _then(operator, white)
        )
        each = self.y.unsqueeze(0) if self.shared else self.y
        self.y = white(each.to(torch.float64)).reshape(self.y.shape).to(self.y.dtype)
        self.std, self.log_volume = 1.0, float(factor.diagonal().log().sum())

    @property
    def log_normaliser(self) -> float:
        r""":math:`-\ln\sqrt{\det 2\pi R}`, what the logarithm of the density of y given :math:`Ax_0` has besides the
        square; infinite where the noise is 0, and NaN where it differs between the samples.

        Example:
            >>> round(Measurement(torch.eye(2), torch.zeros(2), 0.1).log_normaliser, 6)
            2.767293
        """
        if self.std == 0.0:
            return math.inf
        size = math.prod(self.operator.measurement_shape)
        return -size * math.log(self.std * math.sqrt(2 * math.pi)) - self.log_volume

    def linear(self, name: str) -> LinearOperator:
        """The operator, if it is a linear one, which ``name`` needs."""
        if not isinstance(self.operator, LinearOperator):
            raise InvalidArgumentError(f"{name!r} needs a linear operator; 'dps' and 'dps_step' take any function.")
        return self.operator

    def spectral(self, name: str) -> None:
        """Refuse an operator without singular values, which ``name`` needs."""
        self.linear(name).svd  # noqa: B018 - it is this that refuses

    def noisy(self, name: str) -> float:
        """The noise's standard deviation, if it is above 0, which ``name`` needs."""
        if self.std == 0.0:
            raise InvalidArgumentError(
                f"{name!r} divides by `noise_std`, which is 0; 'pigdm', 'mmps' and 'ddnm' have the limit."
            )
        return self.std

    def solvable(self, name: str) -> None:
        r"""Refuse a noise of 0 with linearly dependent rows, where ``name`` needs the inverse of
        :math:`A C A^T + R`."""
        operator = self.linear(name)
        if self.std == 0.0 and operator.rank < operator.size:
            raise InvalidArgumentError(
                f"{name!r} inverts A C Aᵀ + noise_std², but `noise_std` is 0 and the operator has rank {operator.rank} "
                f"with {operator.size} rows; 'pigdm' and 'ddnm' take the pseudo-inverse."
            )

    def of(self, x: Tensor) -> Tensor:
        """y for each sample of a batch, ``(batch, *measurement)``, in its dtype."""
        check_batch("x", check_state("x", x), getattr(self.operator, "event_shape", tuple(x.shape[1:])))
        y = self.y.to(x)
        if self.shared:
            return y.expand(len(x), *y.shape)
        if len(y) != len(x):
            raise InvalidArgumentError(f"`y` has {len(y)} measurements for a batch of {len(x)}.")
        return y

    def residual(self, x: Tensor) -> Tensor:
        r"""How far data are from the measurement, in standard deviations of its noise, ``(batch,)``.

        .. math:: r = \frac{\|y - A x\|}{\sigma \sqrt M}.

        For draws x of the posterior, over all measurements, :math:`y - Ax` has the distribution of the noise, so that r
        is about 1. It is infinite or NaN where the noise is 0.

        Example:
            >>> Measurement(torch.eye(2), torch.zeros(2), 0.1).residual(torch.full((1, 2), 0.1))
            tensor([1.])
        """
        away = (self.of(x) - self.operator.forward(x)).flatten(1) / self.std
        return row_sums(away.square() / away.shape[1]).sqrt()

    def pull(self, data: Tensor, v: Tensor) -> Tensor:
        r""":math:`A^Tv`, or the transposed Jacobian of a function at ``data`` times v."""
        return self.operator.pull(data, v) if isinstance(self.operator, Nonlinear) else self.operator.adjoint(v)

    def __repr__(self) -> str:
        return f"Measurement({self.operator!r}, noise_std={self.std:g})"


def _then(operator: Nonlinear, change: Callable[[Tensor], Tensor], *, shared: bool = True) -> Nonlinear:
    """A function of the data, with its values changed."""
    changed = Nonlinear(lambda x: change(operator.forward(x)), operator.measurement_shape)
    changed.shared = operator.shared and shared
    return changed


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner products of samples ``(batch,)``.

    Example:
        >>> dot(torch.ones(2, 3), torch.ones(2, 3))
        tensor([3., 3.])
    """
    return row_sums(a * b)


def scaled(factor: Tensor, x: Tensor) -> Tensor:
    """Multiply each sample by its own factor.

    Example:
        >>> scaled(torch.tensor([2.0]), torch.ones(1, 2))
        tensor([[2., 2.]])
    """
    return expand(factor, x) * x
