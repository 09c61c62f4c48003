"""Operators made from the physics of deepinv, which is not imported."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, InvalidTypeError, out_of_memory
from ...core.noise import BatchNoise
from ...core.support.checks import form, named
from ...core.support.declared import checked
from .base import SVD, EventShape, LinearOperator
from .nonlinear import Nonlinear

_NOISES = {"ZeroNoise": lambda noise: 0.0, "GaussianNoise": lambda noise: noise.sigma}  # by deepinv's names
_ROWS = 3  # of a probe


@checked
def from_deepinv(physics: Any, event_shape: EventShape) -> LinearOperator | Nonlinear:
    r"""The operator of a physics of deepinv: a `LinearOperator` where its ``A`` is linear and has an ``A_adjoint``, a
    `Nonlinear` one otherwise. A random probe decides this, and checks that the adjoint is one.

    The physics is copied; make a new operator after ``physics.update``. Its buffers decide the precision, float32
    unless ``physics.double()`` was called. Parameters may differ between the samples, as masks ``(batch, 1, H, W)`` do.
    The operator then measures whole batches and has no singular values; ``"mmps"``, ``"tmpd"`` and ``"dps"`` need none.

    The singular values are those of a ``DecomposablePhysics`` if its ``V`` is orthogonal, and otherwise those of the
    matrix, if it is small. The pseudo-inverse is made of them; where there are none, it is ``A_dagger``.

    The attribute ``noise_std`` is the standard deviation of ``physics.noise_model``, which `condition` and
    `sample_posterior` take if none is given: 0 for ``ZeroNoise``, ``sigma`` for ``GaussianNoise``. Any other noise
    (Poisson, or a ``sigma`` that differs between samples) has to be given to these functions as that of a Gaussian: one
    standard deviation, one for each measured value, or a covariance.

    Args:
        physics: a ``deepinv.physics.Physics``, or any object with ``A``, ``A_adjoint`` and ``A_dagger``; the last two
            may be missing.
        event_shape: the shape of one event, without the batch.

    Raises:
        InvalidArgumentError: the physics cannot measure such events; its measurement is no real tensor, or altered by a
            ``sensor_model``; or its ``A_adjoint`` is not the adjoint of its ``A``.

    Example:
        >>> class Sum:  # in place of a deepinv.physics.LinearPhysics
        ...     def A(self, x):
        ...         return x.sum(1, keepdim=True)
        ...
        ...     def A_adjoint(self, y):
        ...         return y.expand(-1, 4)
        >>> from_deepinv(Sum(), (4,)).pseudo_inverse(torch.tensor([[4.0]])).round(decimals=3)
        tensor([[1., 1., 1., 1.]])

    References:
        Tachella et al. (2025), DeepInverse: A Python package for solving imaging inverse problems with deep learning.
        https://arxiv.org/abs/2505.20160
    """
    shape = tuple(event_shape)
    if not all(shape):
        raise InvalidArgumentError(f"`event_shape` must have no dimension of size 0, got {shape}.")
    if isinstance(physics, type) or not callable(getattr(physics, "A", None)):
        raise InvalidTypeError(f"`physics` must be a deepinv.physics.Physics, with a function A, got {named(physics)}.")
    maps = _Maps(physics)
    rows = _batch_of(maps, shape)
    noise = BatchNoise.seeded(0, torch.device("cpu"))
    u, v = (noise.normal(torch.empty(rows if rows > 1 else _ROWS, *shape, dtype=maps.dtype)) for _ in range(2))
    au, av, both = maps("A", u), maps("A", v), maps("A", u + 2 * v)
    sensor = getattr(physics, "sensor_model", None)
    if callable(sensor) and not torch.equal(sensor(au), au):
        raise InvalidArgumentError("`physics` has a sensor_model, which acts after the noise; leave it out.")
    allowed = torch.finfo(maps.dtype).eps ** 0.5
    linear = float((both - au - 2 * av).norm()) <= allowed * float(both.norm())
    operator: LinearOperator | Nonlinear
    if linear and callable(getattr(physics, "A_adjoint", None)):
        w = noise.normal(au)
        gap = ((au * w).double().flatten(1).sum(1) - (u * maps("A_adjoint", w)).double().flatten(1).sum(1)).abs()
        if bool((gap > allowed * au.double().flatten(1).norm(dim=1)).any()):
            raise InvalidArgumentError(
                "`physics`: its A_adjoint is not the adjoint of its A; take LinearPhysics(A=physics.A, "
                "img_size=event_shape), which derives it."
            )
        operator = Physics(maps, shape, tuple(au.shape[1:]), shared=rows == 1)
    else:
        operator = Nonlinear(lambda x: maps("A", x), tuple(au.shape[1:]))
        operator.shared = rows == 1
    operator.noise_std = _noise_std(physics)
    return operator


class Physics(LinearOperator):
    """A linear physics; see `from_deepinv`."""

    def __init__(
        self, maps: _Maps, event_shape: tuple[int, ...], measurement_shape: tuple[int, ...], *, shared: bool
    ) -> None:
        super().__init__(event_shape, measurement_shape)
        self._maps, self.shared = maps, shared
        self._eps = torch.finfo(maps.dtype).eps

    def _forward(self, x: Tensor) -> Tensor:
        return self._fitting(self._maps("A", x), x, self.measurement_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._fitting(self._maps("A_adjoint", y), y, self.event_shape)

    def _fitting(self, out: Tensor, given: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(out.shape) != (len(given), *shape):
            raise InvalidArgumentError(
                f"The physics must make {(len(given), *shape)} of {tuple(given.shape)}, got {tuple(out.shape)}; with "
                "parameters for each sample, the batch must be the whole one."
            )
        return out

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """See `LinearOperator.pseudo_inverse`."""
        if self._spectral or not callable(getattr(self._maps.physics, "A_dagger", None)):
            return super().pseudo_inverse(y)
        return self._fitting(self._maps("A_dagger", y), y, self.event_shape)

    @functools.cached_property
    def _spectral(self) -> bool:
        try:
            return self.svd.values.numel() > 0
        except InvalidArgumentError:
            return False

    def _decompose(self) -> SVD:
        if (own := self._own()) is not None:
            return own
        values, into, back = super()._decompose()
        floor = max(self.size, math.prod(self.event_shape)) * self._eps * values.max()
        return SVD(torch.where(values > floor, values, torch.zeros_like(values)), into, back)

    def _own(self) -> SVD | None:
        """The decomposition of a ``DecomposablePhysics``, if it is one of real events with an orthogonal V."""
        maps = self._maps
        if not all(hasattr(maps.physics, name) for name in ("V", "V_adjoint", "mask")):
            return None
        x = BatchNoise.seeded(1, torch.device("cpu")).normal(torch.empty(1, *self.event_shape, dtype=maps.dtype))
        try:
            turned = maps("V_adjoint", x)
            values = torch.as_tensor(maps.physics.mask).detach().cpu().double().abs().expand(turned.shape)[0]
            found = SVD(values, lambda x: maps("V_adjoint", x), lambda c: maps("V", c))
            pairs = (
                (found.back(turned), x),
                (turned.norm(), x.norm()),
                (found.back(values.to(turned)[None] ** 2 * turned), self._adjoint(self._forward(x))),
            )
            allowed = torch.finfo(maps.dtype).eps ** 0.5
            right = all(float((got - want).abs().max()) <= allowed * float(want.abs().max()) for got, want in pairs)
        except (InvalidArgumentError, RuntimeError):  # a mask of another shape
            return None
        return found if right else None


class _Maps:
    """The maps of a copy of a physics, for tensors of any dtype on any device."""

    def __init__(self, physics: Any) -> None:
        self.physics = physics.clone() if callable(getattr(physics, "clone", None)) else copy.deepcopy(physics)
        self.buffers: list[Tensor] = list(physics.buffers()) if isinstance(physics, torch.nn.Module) else []
        floating = [buffer.dtype for buffer in self.buffers if buffer.is_floating_point()]
        self.dtype = floating[0] if floating else torch.get_default_dtype()

    def __call__(self, name: str, x: Tensor) -> Tensor:
        if isinstance(self.physics, torch.nn.Module):
            self.physics.to(x.device)
        try:
            out: Any = getattr(self.physics, name)(x.to(self.dtype))
        except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
            if out_of_memory(error):
                raise
            raise InvalidArgumentError(
                f"`physics`: the {name} of {type(self.physics).__name__} fails for a tensor {tuple(x.shape)}, by "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(out, Tensor) or not out.is_floating_point():
            raise InvalidArgumentError(
                f"`physics`: its {name} must return a real tensor, got {form(out)}; complex numbers are two channels, "
                "and a stacked physics must be taken apart."
            )
        return out.to(x.dtype)


def _batch_of(maps: _Maps, shape: tuple[int, ...]) -> int:
    """How many samples the parameters are for; 1 if for any number."""
    sizes = sorted({len(buffer) for buffer in maps.buffers if buffer.ndim > len(shape)} - {1})
    for rows in (1, *sizes):
        with contextlib.suppress(InvalidArgumentError):
            return len(maps("A", torch.zeros(rows, *shape, dtype=maps.dtype)))
    return len(maps("A", torch.zeros(1, *shape, dtype=maps.dtype)))  # says why it fails


def _noise_std(physics: Any) -> float | None:
    """The standard deviation of a Gaussian noise that is the same for all samples; None for other noises."""
    noise = getattr(physics, "noise_model", None)
    if noise is None:
        return 0.0
    for kind in type(noise).__mro__:
        if kind.__name__ in _NOISES:
            values = torch.as_tensor(_NOISES[kind.__name__](noise)).double().flatten()
            return float(values[0]) if len(values) and bool((values == values[0]).all()) else None
    return None
