"""Operators made from physics, on stand-ins with the attributes of deepinv's; tests/interop has the package's own."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import scoresde
from scoresde import inverse
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError
from scoresde.inverse import LinearOperator, Nonlinear, from_deepinv
from tests.unit.refusals import assert_refused

F64 = torch.float64
SHAPE = (1, 4, 4)


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class GaussianNoise(nn.Module):
    def __init__(self, sigma):
        super().__init__()
        self.register_buffer("sigma", torch.as_tensor(sigma))


class PoissonNoise(nn.Module):
    pass


class Linear(nn.Module):
    """Any matrix, in the buffer's precision."""

    def __init__(self, matrix, shape=SHAPE, noise=None, factor=1.0):
        super().__init__()
        self.register_buffer("weight", matrix)
        self.shape, self.factor = shape, factor
        if noise is not None:
            self.noise_model = noise

    def A(self, x):
        return x.flatten(1) @ self.weight.mT

    def A_adjoint(self, y):
        return self.factor * (y @ self.weight).reshape(len(y), *self.shape)

    def A_dagger(self, y):
        return (y @ torch.linalg.pinv(self.weight).mT).reshape(len(y), *self.shape)


class Masked(nn.Module):
    """A mask, with its decomposition or a wrong one."""

    def __init__(self, mask, gain=1.0):
        super().__init__()
        self.register_buffer("mask", mask)
        self.gain = gain

    def A(self, x):
        return self.mask * x

    def A_adjoint(self, y):
        return self.mask * y

    def V(self, x):
        return self.gain * x

    def V_adjoint(self, x):
        return x / self.gain


def half():
    return (draw(1, 1, 4, 4, seed=3) > 0).float()


def test_a_matrix_is_the_matrix():
    matrix = draw(6, 16)
    got, want = from_deepinv(Linear(matrix.double()), SHAPE), inverse.Matrix(matrix, SHAPE)
    assert isinstance(got, LinearOperator) and got.measurement_shape == (6,) and got.event_shape == SHAPE
    x, y = draw(5, *SHAPE, seed=1, dtype=F64), draw(5, 6, seed=2, dtype=F64)
    for name, argument in (("forward", x), ("adjoint", y), ("pseudo_inverse", y)):
        torch.testing.assert_close(getattr(got, name)(argument), getattr(want, name)(argument), rtol=1e-9, atol=1e-9)
    assert got.forward(x.float()).dtype == torch.float32


def test_singular_values_of_zero_in_single_precision_stay_zero():
    deficient = torch.cat([draw(3, 16), draw(2, 3, seed=1) @ draw(3, 16)])
    got = from_deepinv(Linear(deficient), SHAPE)
    assert got.rank == 3
    y = got.forward(draw(2, *SHAPE, seed=4))
    torch.testing.assert_close(got.forward(got.pseudo_inverse(y)), y, rtol=1e-4, atol=1e-4)


def test_a_decomposition_is_used_if_it_is_one(monkeypatch):
    mask = half()
    large = torch.ones(1, 1, 128, 128)
    got = from_deepinv(Masked(large), (1, 128, 128))  # too large for a dense
    assert got.rank == 128 * 128
    assert from_deepinv(Masked(mask), SHAPE).rank == int(mask.sum())
    for wrong in (Masked(mask, gain=2.0), Masked(mask)):
        if wrong.gain == 1.0:
            monkeypatch.setattr(wrong, "A", lambda x: 3 * mask * x)
            monkeypatch.setattr(wrong, "A_adjoint", lambda y: 3 * mask * y)
        operator = from_deepinv(wrong, SHAPE)
        x = draw(2, *SHAPE)
        torch.testing.assert_close(operator.pseudo_inverse(operator.forward(x)), mask * x, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidArgumentError, match="too large for a dense"):
        _ = from_deepinv(Masked(large, gain=2.0), (1, 128, 128)).svd


def test_where_there_are_no_singular_values_the_physics_inverts():
    shape = (1, 128, 128)  # too large for a dense decomposition
    physics = SimpleNamespace(A=lambda x: 2 * x, A_adjoint=lambda y: 2 * y, A_dagger=lambda y: y / 2 + 1)
    y = draw(2, *shape, seed=1)
    torch.testing.assert_close(from_deepinv(physics, shape).pseudo_inverse(y), y / 2 + 1)


def test_the_noise_of_the_physics_is_that_of_the_measurement():
    for noise, expected in (
        (None, 0.0),
        (GaussianNoise(0.25), 0.25),
        (GaussianNoise([0.25, 0.25]), 0.25),
        (type("Mine", (GaussianNoise,), {})(0.5), 0.5),
        (GaussianNoise([0.25, 0.5]), None),
        (PoissonNoise(), None),
        (lambda x: x, None),
    ):
        physics = Linear(draw(6, 16))
        physics.noise_model = noise
        operator, y = from_deepinv(physics, SHAPE), torch.zeros(6)
        assert operator.noise_std == expected
        if expected is None:
            with pytest.raises(InvalidArgumentError, match="`noise_std` must be given"):
                inverse.Measurement(operator, y)
        else:
            assert inverse.Measurement(operator, y).std == expected
        assert inverse.Measurement(operator, y, 0.75).std == 0.75  # what is given holds
        assert inverse.Measurement(operator, y, torch.eye(6)).std == 1.0
    assert inverse.Measurement(torch.eye(2), torch.ones(2)).std == 0.0  # other operators have none
    assert inverse.Measurement(lambda x: x, torch.ones(2)).std == 0.0


def test_what_is_not_linear_is_a_function():
    score_fn = scoresde.targets.Gaussian(torch.zeros(SHAPE), 1.0).score(scoresde.VPSDE())
    for function in (lambda x: x.square(), lambda x: x + 1, lambda x: x.abs().sum(1)):
        physics = SimpleNamespace(A=function, A_adjoint=lambda y: y, noise_model=GaussianNoise(0.5))
        operator = from_deepinv(physics, SHAPE)
        assert isinstance(operator, Nonlinear) and operator.noise_std == 0.5
        x = draw(2, *SHAPE, dtype=F64)
        assert operator.measurement_shape == tuple(function(x).shape[1:])
        torch.testing.assert_close(operator.forward(x), function(x.float()).double())
        y = operator.forward(x)[0]
        assert inverse.condition(score_fn, operator, y, method="dps")(x, torch.tensor(0.5)).isfinite().all()
        with pytest.raises(InvalidArgumentError, match="needs a linear operator"):
            inverse.condition(score_fn, operator, y, method="mmps")
    gains = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    each = from_deepinv(SimpleNamespace(A=lambda x: (gains * x).tanh()), SHAPE)  # a function of each sample
    assert isinstance(each, Nonlinear) and not each.shared
    assert not inverse.condition(score_fn, each, torch.zeros(SHAPE), 0.1, method="dps").traits.rowwise
    operator = from_deepinv(SimpleNamespace(A=lambda x: 2 * x), SHAPE)  # linear, but without an adjoint
    assert isinstance(operator, Nonlinear)
    pulled = operator.pull(torch.ones(2, *SHAPE), torch.ones(2, *SHAPE))
    torch.testing.assert_close(pulled, torch.full((2, *SHAPE), 2.0))


def test_masks_of_each_sample():
    masks = (draw(3, 1, 4, 4, seed=5) > 0).float()
    operator = from_deepinv(Masked(masks), SHAPE)
    x = draw(3, *SHAPE)
    torch.testing.assert_close(operator.forward(x), masks * x)
    assert not operator.shared
    for call in (lambda: operator.svd, operator.matrix, lambda: operator.pseudo_inverse(x)):
        with pytest.raises(InvalidArgumentError, match="differ between the samples"):
            call()
    with pytest.raises(InvalidArgumentError, match=r"whole one|fails for a tensor"):
        operator.forward(torch.ones(2, *SHAPE))
    sde = scoresde.VPSDE()
    score_fn = scoresde.targets.Gaussian(torch.zeros(SHAPE), 1.0).score(sde)
    options = {"steps": 10, "shape": (3, *SHAPE), "seed": 0, "method": "mmps"}
    together = inverse.sample_posterior(sde, score_fn, operator, masks * x, 0.1, **options).x
    for i in range(3):
        alone = from_deepinv(Masked(masks[i : i + 1]), SHAPE)
        single = inverse.sample_posterior(sde, score_fn, alone, masks * x, 0.1, **options).x
        torch.testing.assert_close(together[i], single[i], rtol=1e-5, atol=1e-5)
    adaptive = inverse.condition(score_fn, operator, torch.zeros(SHAPE), 0.1, method="mmps")
    assert not adaptive.traits.rowwise  # a sample that has arrived may not leave the batch
    assert scoresde.solve(sde, adaptive, method="rk45", shape=(3, *SHAPE), seed=0).x.isfinite().all()


def test_kernels_of_each_sample():
    """A convolution refuses a batch of another size than that of its kernels."""

    class Blurs(Masked):
        def A(self, x):
            if len(x) != len(self.mask):
                raise ValueError("batch sizes differ")
            return self.mask * x

    operator = from_deepinv(Blurs(draw(3, *SHAPE)), SHAPE)
    assert not operator.shared and operator.measurement_shape == SHAPE


def test_the_operator_keeps_the_parameters_of_its_making():
    physics = Masked(half())
    physics.clone = lambda: Masked(physics.mask.clone())
    operator, x = from_deepinv(physics, SHAPE), draw(1, *SHAPE)
    before = operator.forward(x)
    physics.mask.zero_()
    assert torch.equal(operator.forward(x), before)


def test_what_cannot_be_used_is_refused():
    cases = (
        (Linear, InvalidTypeError, "deepinv.physics.Physics"),
        (Linear(draw(6, 12)), InvalidArgumentError, "the A of Linear fails for a tensor"),
        (Linear(draw(6, 16), factor=1.01), InvalidArgumentError, "is not the adjoint"),
        (SimpleNamespace(A=lambda x: x.to(torch.complex64)), InvalidArgumentError, "two channels"),
        (SimpleNamespace(A=lambda x: [x, x]), InvalidArgumentError, "stacked"),
        (SimpleNamespace(A=lambda x: x, sensor_model=lambda y: y.clamp(0, 1)), InvalidArgumentError, "sensor"),
    )
    assert_refused((partial(from_deepinv, physics, SHAPE), error, words) for physics, error, words in cases)


def test_a_measurement_of_nothing_is_one_and_a_sensor_that_does_nothing_is_none():
    operator = from_deepinv(Linear(torch.zeros(0, 16)), SHAPE)
    assert operator.measurement_shape == (0,) and operator.rank == 0
    physics = SimpleNamespace(A=lambda x: x, A_adjoint=lambda y: y, sensor_model=lambda y: y)
    assert from_deepinv(physics, (16,)).rank == 16
