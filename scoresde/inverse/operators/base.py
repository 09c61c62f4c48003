"""The protocol of measurement operators, matrices, and one operator after another."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.noise import BatchNoise, check_seed
from ...core.support.checks import MOST_LEVELS, check_batch, check_matrix, check_shape, check_tensor
from ...core.support.declared import Kind, checked, integer
from ...core.support.tensors import compute_dtype


def check_image(name: str, event_shape: object) -> tuple[int, ...]:
    """The shape of an image, ``(..., H, W)`` with at least two entries."""
    shape = check_shape(name, event_shape, rank=2)
    if not all(shape):
        raise InvalidArgumentError(f"`{name}` must have no dimension of size 0, got {shape}.")
    return shape


EventShape = Annotated[Sequence[int], Kind(functools.partial(check_shape, rank=1))]
ImageShape = Annotated[Sequence[int], Kind(check_image)]
FiniteMatrix = Annotated[Tensor, Kind(check_matrix)]  # which becomes float64

_DENSE_ELEMENTS = 2**24  # of the matrix that a decomposition is made from, where an operator has none of its own


class SVD(NamedTuple):
    r"""The singular values of :math:`A = U\,\mathrm{diag}(s)\,V^H`, and V as two maps. U follows: :math:`U = AV/s`.

    Fields: ``values``, s, float64, one for each coordinate (0 for those that A does not measure); ``into``,
    :math:`x \mapsto V^Hx`, from ``(batch, *event)`` to ``(batch, *values.shape)``; ``back``, :math:`c \mapsto Vc`. The
    coordinates may be complex, as Fourier ones are; s is then the same for both of a conjugate pair, so that a function
    of s takes real states to real ones.

    Example:
        >>> SVD(torch.ones(2), lambda x: x, lambda c: c).values
        tensor([1., 1.])
    """

    values: Tensor
    into: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


class LinearOperator(abc.ABC):
    r"""A linear map A from events to measurements. A subclass gives `_forward` and `_adjoint`, and where it is cheap
    `_decompose`.

    Attributes:
        event_shape: the shape of the events, without the batch.
        measurement_shape: the shape of a measurement, without the batch.
        noise_std: the standard deviation of the noise of a measurement for which none is given; 0, or None if it must
            be given.
        shared: whether all samples are measured alike.

    Example:
        >>> from scoresde.inverse import Matrix
        >>> operator = Matrix(torch.tensor([[3.0, 4.0]]))
        >>> operator.forward(torch.ones(1, 2)), operator.svd.values.round(decimals=6)
        (tensor([[7.]]), tensor([5., 0.], dtype=torch.float64))
    """

    noise_std: float | None = 0.0
    shared = True
    selects = False  # whether what it measures are elements of the event
    factors: Tensor | None = None  # of each element, where it only multiplies
    _eps = torch.finfo(torch.float64).eps  # of the numbers that it computes with

    @checked
    def __init__(self, event_shape: EventShape, measurement_shape: EventShape) -> None:
        self.event_shape, self.measurement_shape = tuple(event_shape), tuple(measurement_shape)

    @abc.abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    def _decompose(self) -> SVD:
        rows, columns = self.size, math.prod(self.event_shape)
        if max(rows, columns) * columns > _DENSE_ELEMENTS:
            raise InvalidArgumentError(
                f"The matrix of {type(self).__name__}, {rows} x {columns}, is too large for a dense singular value "
                "decomposition; take a method without one, such as 'mmps', 'tmpd' or 'dps'."
            )
        return dense_svd(self.matrix(), self.event_shape)

    @property
    def size(self) -> int:
        """The number of measured values."""
        return math.prod(self.measurement_shape)

    def forward(self, x: Tensor) -> Tensor:
        """A x, ``(batch, *measurement)``."""
        return self._forward(_checked("x", x, self.event_shape))

    def adjoint(self, y: Tensor) -> Tensor:
        r""":math:`A^Ty`, ``(batch, *event)``."""
        return self._adjoint(_checked("y", y, self.measurement_shape))

    def __matmul__(self, first: LinearOperator) -> LinearOperator:
        """The operator that measures what ``first`` measures, `Composed`."""
        return Composed(self, first)

    def __rmatmul__(self, second: Tensor) -> LinearOperator:
        """The operator that measures the products of a matrix ``(M, size)`` with what this one measures."""
        return Composed(Matrix(second, self.measurement_shape), self)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        r""":math:`A^+y`, the shortest of the events that come closest to y, ``(batch, *event)``."""
        return self.filter(self.adjoint(y), lambda s: 1 / s**2)

    @functools.cached_property
    def svd(self) -> SVD:
        """The singular value decomposition; values that are 0 up to rounding are 0.

        Raises:
            InvalidArgumentError: there is no cheap decomposition.
        """
        values, into, back = self._decompose()
        values = values.to(torch.float64)
        largest = float(values.max()) if values.numel() else 0.0
        floor = max(self.size, math.prod(self.event_shape)) * torch.finfo(torch.float64).eps * largest
        return SVD(torch.where(values > floor, values, torch.zeros_like(values)), into, back)

    @property
    def rank(self) -> int:
        """How many singular values are not 0."""
        return int((self.svd.values > 0).sum())

    def filter(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        r""":math:`V\,\mathrm{diag}(f(s))\,V^Hx`, with 0 for f where s = 0, shaped like ``x``. The function gets s as
        ``(1, *coordinates)``, and may give one value per sample."""
        values = self.svd.values.to(x.device).unsqueeze(0)
        seen = values > 0
        weights = function(torch.where(seen, values, torch.ones_like(values)))
        weights = torch.where(seen, weights, torch.zeros_like(weights))
        turned = self.svd.into(x)
        return self.svd.back(weights.to(turned.real.dtype) * turned)

    def matrix(self) -> Tensor:
        """A as a dense matrix ``(M, D)`` over the flattened event, float64.

        Raises:
            InvalidArgumentError: the samples of a batch are not measured alike.
        """
        if not self.shared:
            raise InvalidArgumentError(
                f"The parameters of {type(self).__name__}, or `noise_std`, differ between the samples: take a method "
                "that needs no matrix, such as 'mmps', 'tmpd' or 'dps', with a noise_std above 0."
            )
        size = math.prod(self.event_shape)
        unit = torch.eye(size, dtype=torch.float64).reshape(size, *self.event_shape)
        return self._forward(unit).reshape(size, self.size).mT.contiguous()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.event_shape} -> {self.measurement_shape})"


def dense_svd(matrix: Tensor, event_shape: tuple[int, ...]) -> SVD:
    """The singular value decomposition of a matrix ``(M, D)`` over the flattened event.

    Example:
        >>> dense_svd(torch.eye(2), (2,)).values.round(decimals=6)
        tensor([1., 1.], dtype=torch.float64)
    """
    values, vh = full_right(matrix)
    return SVD(
        values,
        lambda x: x.flatten(1) @ vh.to(x).mT,
        lambda c: (c @ vh.to(c)).reshape(len(c), *event_shape),
    )


def full_right(matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""All D singular values ``(D,)`` of ``(M, D)``, zeros included, and :math:`V^T` ``(D, D)``.

    Example:
        >>> full_right(torch.zeros(1, 2))[0]
        tensor([0., 0.], dtype=torch.float64)
    """
    matrix = matrix.to(torch.float64)
    size = matrix.shape[1]
    if not len(matrix):
        return torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    _, values, vh = torch.linalg.svd(matrix, full_matrices=True)
    return torch.cat([values, values.new_zeros(size - len(values))]), vh


def _checked(name: str, x: object, shape: tuple[int, ...]) -> Tensor:
    x = check_tensor(name, x)
    check_batch(name, x, shape)
    return x.to(compute_dtype(x.dtype))


class Matrix(LinearOperator):
    r"""Any matrix, over the flattened event.

    Args:
        matrix: ``(M, D)``.
        event_shape: of D elements, ``(D,)`` by default.
        measurement_shape: of M elements, ``(M,)`` by default.

    Example:
        >>> Matrix(torch.tensor([[1.0, 1.0]])).pseudo_inverse(torch.tensor([[4.0]])).round()
        tensor([[2., 2.]])
    """

    @checked
    def __init__(
        self,
        matrix: FiniteMatrix,
        event_shape: EventShape | None = None,
        measurement_shape: EventShape | None = None,
    ) -> None:
        rows, columns = matrix.shape
        super().__init__(event_shape or (columns,), measurement_shape or (rows,))
        for name, size in (("event_shape", columns), ("measurement_shape", rows)):
            if math.prod(getattr(self, name)) != size:
                raise InvalidArgumentError(f"`{name}` must have {size} elements, got {getattr(self, name)}.")
        self._matrix = matrix

    def _forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self._matrix.to(x).mT).reshape(len(x), *self.measurement_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self._matrix.to(y)).reshape(len(y), *self.event_shape)

    def _decompose(self) -> SVD:
        return dense_svd(self._matrix, self.event_shape)


class Composed(LinearOperator):
    r"""One operator after another, :math:`A = A_2 A_1`; ``second @ first`` is the same, where second may be a matrix.

    Its singular values are those of its matrix, for small events (but for factors after a `Mask`, of any size); with
    noise above 0, methods that need none, such as ``"mmps"``, take any size. The noise of a measurement must be given
    where ``first`` declares any.

    Args:
        second: acts on the measurements of ``first``, whose shape its events have.
        first: acts on the data.

    Example:
        >>> from scoresde.inverse import Mask, gaussian_blur
        >>> seen = Mask(torch.arange(16).reshape(1, 4, 4) % 2 == 0)
        >>> camera = seen @ gaussian_blur((1, 4, 4), 1.0)
        >>> camera.forward(torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 8])
    """

    @checked
    def __init__(self, second: LinearOperator, first: LinearOperator) -> None:
        if second.event_shape != (shape := first.measurement_shape):
            raise InvalidArgumentError(f"`second` takes the shape {second.event_shape}, `first` measures {shape}.")
        super().__init__(first.event_shape, second.measurement_shape)
        self.second, self.first = second, first
        self.shared = second.shared and first.shared
        self.noise_std = second.noise_std if first.noise_std == 0.0 else None
        self._eps = max(second._eps, first._eps)

    def _forward(self, x: Tensor) -> Tensor:
        return self.second._forward(self.first._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first._adjoint(self.second._adjoint(y))

    def _decompose(self) -> SVD:
        if self.shared and self.second.factors is not None and self.first.selects:
            return SVD(self.first._adjoint(self.second.factors.abs()[None])[0], lambda x: x, lambda c: c)
        values, into, back = super()._decompose()
        largest = self.second.svd.values.max() * self.first.svd.values.max()  # which may cancel in the product
        floor = max(self.size, math.prod(self.event_shape)) * self._eps * largest
        return SVD(torch.where(values > floor, values, torch.zeros_like(values)), into, back)

    def __repr__(self) -> str:
        return f"{self.second!r} @ {self.first!r}"


_Rows = Annotated[int, integer(low=1, high=MOST_LEVELS)]


@checked
def random_projection(event_shape: EventShape, rows: _Rows, *, seed: int = 0) -> Matrix:
    """Measure ``rows`` random directions: entries N(0, 1/rows), as in compressed sensing.

    Args:
        event_shape: of the events.
        rows: the number of measurements.
        seed: of the matrix.

    Example:
        >>> from scoresde.inverse import random_projection
        >>> random_projection((1, 4, 4), rows=3, seed=1).forward(
        ...     torch.zeros(2, 1, 4, 4)
        ... ).shape
        torch.Size([2, 3])
    """
    check_seed("seed", seed)
    like = torch.empty(rows, math.prod(event_shape), dtype=torch.float64)
    return Matrix(BatchNoise.seeded(seed, like.device).normal(like) / math.sqrt(rows), event_shape)
