"""Networks that are functions of arrays: of NumPy, JAX, CuPy, or any library that exchanges arrays by DLPack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..core.errors import InvalidTypeError, ScoreFnError
from ..core.support.checks import check_callable
from ..core.support.context import mapped
from ..core.support.signatures import accepts


def from_arrays(
    net: Callable[..., Any], library: Any = np, *, vjp: Callable[..., Any] | None = None
) -> Callable[..., Tensor]:
    r"""A network that is a function of arrays, as a function of tensors: a score function, or the ``net`` of a
    `ScoreModel`.

    Arrays and tensors share their memory (DLPack), in the dtype of the state, on its device. Copied is what is not
    contiguous, what NumPy returns as read-only, and double precision where JAX has none (``jax_enable_x64``).

    Args:
        net: called as ``net(x, time, **context)`` with arrays ``(batch, *event)``, ``(batch,)`` and those of the
            context; it returns an array like x. It must not write to its inputs, which NumPy refuses.
        library: the library of these arrays, an object with ``from_dlpack``: ``numpy``, ``jax.numpy``, ``cupy``.
        vjp: ``vjp(x, time, v, **context)``, the array :math:`v^T\,\partial net/\partial x` like x, which likelihoods,
            gradient guidance and some rules of inverse problems need. Without it they raise an error.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        ScoreFnError: in a call, the library cannot read the tensor, the network returned something that is not an
            array, or a gradient is needed and ``vjp`` is missing.

    Example:
        >>> import numpy
        >>> score_fn = from_arrays(lambda x, t: -numpy.tanh(x))
        >>> score_fn(torch.zeros(2, 3), torch.ones(2)).shape
        torch.Size([2, 3])
        >>> model = scoresde.ScoreModel(score_fn, scoresde.VPSDE(), "score")
        >>> scoresde.solve(
        ...     model.sde, model, method="ddim", steps=4, shape=(2, 3), seed=0
        ... ).x.dtype
        torch.float32

    References:
        https://dmlc.github.io/dlpack/latest/
    """
    check_callable("net", net, "net(x, time)")
    if vjp is not None:
        check_callable("vjp", vjp, "vjp(x, time, v)")
    if not callable(getattr(library, "from_dlpack", None)):
        raise InvalidTypeError(f"`library` must have from_dlpack, as numpy and jax.numpy do, got {library!r:.100}.")
    return _OfArrays(net, library, vjp)


class _OfArrays:
    """A function of tensors that calls one of arrays."""

    def __init__(self, net: Callable[..., Any], library: Any, vjp: Callable[..., Any] | None) -> None:
        self.net, self.array_library, self.vjp = net, library, vjp

    def accepts(self, name: str) -> bool:
        """Whether the network has an argument of this name, for the ``context`` of a solve."""
        return accepts(self.net, name)

    def __call__(self, x: Tensor, time: Tensor, **context: Any) -> Tensor:
        out: Tensor = _Called.apply(x, time, self, context)
        return out

    def call(self, function: Callable[..., Any], *given: Tensor, context: dict[str, Any]) -> Tensor:
        """The tensor of the array that a function returns for the arrays of tensors."""
        named = mapped(self._array, context)
        return _tensor(function(*map(self._array, given), **named))

    def _array(self, x: Tensor) -> Any:
        try:
            array = self.array_library.from_dlpack(x.detach().contiguous())
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            name = getattr(self.array_library, "__name__", self.array_library)
            raise ScoreFnError(f"{name} cannot read a {x.dtype} tensor on {x.device}: {error}") from error
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
        return array


def _tensor(array: Any) -> Tensor:
    """The tensor of an array."""
    if isinstance(array, np.ndarray):
        array = np.require(array, array.dtype.newbyteorder("="), ("C_CONTIGUOUS", "WRITEABLE"))
    elif hasattr(array, "block_until_ready"):  # JAX computes later, and the state may be written over by then
        array.block_until_ready()
    try:
        return torch.from_dlpack(array)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ScoreFnError(f"The network must return an array like x, got {type(array).__name__}: {error}.") from error


class _Called(torch.autograd.Function):
    """A call of a network of arrays, with the gradient that comes with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, time: Tensor, made: _OfArrays, context: dict[str, Any]) -> Tensor:
        ctx.save_for_backward(x, time)
        ctx.made, ctx.context = made, context
        return made.call(made.net, x, time, context=context)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        made, (x, time) = ctx.made, ctx.saved_tensors
        if made.vjp is None:
            raise ScoreFnError(
                "The network is a function of arrays, which has no gradient of its own; pass from_arrays(net, library, "
                "vjp=...), which returns v^T times its Jacobian, or take a method without gradients."
            )
        return made.call(made.vjp, x, time, v, context=ctx.context), None, None, None
