"""Measurement operators: adjoints, pseudo-inverses, singular values."""

from __future__ import annotations

import math

import pytest
import torch

import scoresde
from scoresde import inverse
from tests.unit.refusals import assert_refused

F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def some(*shape, seed=0, share=0.4):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


KERNEL = draw(3, 5, seed=5)
DEFICIENT = torch.cat([draw(3, 12, seed=1), draw(1, 12, seed=2), torch.zeros(1, 12)]) * torch.ones(1)
DEFICIENT[3] = DEFICIENT[0] - 2 * DEFICIENT[1]
OPERATORS = {
    "mask": lambda: inverse.Mask(some(3, 4, 5)),
    "mask of nothing": lambda: inverse.Mask(torch.zeros(4, dtype=torch.bool)),
    "mask of pixels": lambda: inverse.Mask(some(4, 5), event_shape=(3, 4, 5)),
    "grey": lambda: inverse.Grey((3, 4, 5)),
    "luma": lambda: inverse.Grey((3, 4, 5), (0.299, 0.587, 0.114)),
    "block average": lambda: inverse.block_average((2, 6, 9), 3),
    "bicubic": lambda: inverse.bicubic((2, 8, 12), 2),
    "bicubic, 4": lambda: inverse.bicubic((1, 8, 8), 4),
    "gaussian blur, zero": lambda: inverse.gaussian_blur((2, 7, 6), 0.7),
    "gaussian blur, periodic": lambda: inverse.Blur((2, 7, 6), inverse.gaussian_kernel(0.7, radius=2)),
    "motion blur, periodic": lambda: inverse.Blur((1, 9, 8), inverse.motion_kernel(5, 30.0)),
    "motion blur, zero": lambda: inverse.Blur((1, 9, 8), inverse.motion_kernel(5, 30.0), border="zero"),
    "any kernel, periodic": lambda: inverse.Blur((1, 6, 7), KERNEL),
    "any kernel, zero": lambda: inverse.Blur((1, 6, 7), KERNEL, border="zero"),
    "random projection": lambda: inverse.random_projection((2, 3, 4), 7, seed=3),
    "partial fourier": lambda: inverse.PartialFourier((2, 6, 5), some(6, 5)),
    "partial fourier, even": lambda: inverse.PartialFourier((1, 8, 8), some(8, 8, seed=1)),
    "matrix": lambda: inverse.Matrix(draw(6, 12), (3, 4), (2, 3)),
    "tall matrix": lambda: inverse.Matrix(draw(9, 4)),
    "deficient matrix": lambda: inverse.Matrix(DEFICIENT),
    "diagonal": lambda: inverse.Diagonal(draw(2, 3, 4)),
    "diagonal with zeros": lambda: inverse.Diagonal(draw(7) * some(7, share=0.6)),
    "mask after blur": lambda: inverse.Mask(some(2, 7, 6)) @ inverse.gaussian_blur((2, 7, 6), 0.7),
    "three": lambda: (
        inverse.Diagonal(draw(2, 3)) @ inverse.Matrix(draw(6, 12), (12,), (2, 3)) @ inverse.Diagonal(draw(12))
    ),
    "no rows": lambda: inverse.Matrix(torch.zeros(0, 3, dtype=F64)),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


def test_the_adjoint_the_matrix_and_the_dtype(operator):
    x, y = draw(4, *operator.event_shape), draw(4, *operator.measurement_shape, seed=1)
    left = (operator.forward(x) * y).flatten(1).sum(1)
    right = (x * operator.adjoint(y)).flatten(1).sum(1)
    assert operator.forward(x).shape == (4, *operator.measurement_shape)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    got = x.flatten(1) @ operator.matrix().mT
    torch.testing.assert_close(got, operator.forward(x).flatten(1), rtol=1e-12, atol=1e-12)
    y = operator.forward(x.float())
    assert y.dtype == operator.adjoint(y).dtype == operator.pseudo_inverse(y).dtype == torch.float32
    torch.testing.assert_close(y.double(), operator.forward(x), rtol=1e-4, atol=1e-5)


def test_moore_and_penrose(operator):
    x, y = draw(4, *operator.event_shape), draw(4, *operator.measurement_shape, seed=1)
    a, plus = operator.forward, operator.pseudo_inverse
    torch.testing.assert_close(a(plus(a(x))), a(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plus(a(plus(y))), plus(y), rtol=1e-10, atol=1e-10)
    z, w = draw(4, *operator.event_shape, seed=2), draw(4, *operator.measurement_shape, seed=3)
    dot = lambda u, v: (u * v).flatten(1).sum(1)  # noqa: E731
    torch.testing.assert_close(dot(plus(a(x)), z), dot(x, plus(a(z))), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dot(a(plus(y)), w), dot(y, a(plus(w))), rtol=1e-10, atol=1e-10)


def test_the_singular_values_reconstruct(operator):
    svd, x, y = operator.svd, draw(4, *operator.event_shape), draw(4, *operator.measurement_shape, seed=1)
    torch.testing.assert_close(svd.back(svd.into(x)), x, rtol=1e-11, atol=1e-11)
    norm = lambda v: v.abs().square().flatten(1).sum(1)  # noqa: E731
    torch.testing.assert_close(norm(svd.into(x)), norm(x), rtol=1e-12, atol=1e-12)  # V is unitary
    # A^T A = V s^2 V^H, and with U = A V / s also A = U s V^H
    squared = svd.back(svd.values**2 * svd.into(x))
    torch.testing.assert_close(operator.adjoint(operator.forward(x)), squared, rtol=1e-10, atol=1e-10)
    whole = operator.forward(svd.back((svd.values > 0) * svd.into(x)))
    torch.testing.assert_close(whole, operator.forward(x), rtol=1e-10, atol=1e-10)
    dense = torch.linalg.svdvals(operator.matrix()) if operator.size else torch.zeros(0, dtype=F64)
    own = svd.values.flatten().sort(descending=True).values[: len(dense)]
    torch.testing.assert_close(own, dense[: len(own)], rtol=1e-10, atol=1e-10)
    assert operator.rank == int((dense > 1e-10).sum())
    assert torch.equal(svd.back(svd.into(operator.pseudo_inverse(y))).isfinite().all(), torch.tensor(True))


def test_operators_do_what_they_say():
    x = draw(1, 3, 8, 8)
    torch.testing.assert_close(inverse.Grey((3, 8, 8)).forward(x), x.mean(1, keepdim=True))
    torch.testing.assert_close(inverse.block_average((3, 8, 8), 2).forward(x), torch.nn.functional.avg_pool2d(x, 2))
    blur = inverse.Blur((1, 8, 8), KERNEL[:, :3])
    point = torch.zeros(1, 1, 8, 8, dtype=F64)
    point[0, 0, 4, 4] = 1.0
    torch.testing.assert_close(blur.forward(point)[0, 0, 3:6, 3:6], KERNEL[:, :3])  # the response to a point
    zero = inverse.Blur((1, 8, 8), KERNEL[:, :3], border="zero")
    torch.testing.assert_close(zero.forward(point), blur.forward(point))
    corner = torch.zeros(1, 1, 8, 8, dtype=F64)
    corner[0, 0, 0, 0] = 1.0
    assert zero.forward(corner)[0, 0, -1].abs().max() == 0.0 < blur.forward(corner)[0, 0, -1].abs().max()
    gaussian = inverse.gaussian_blur((3, 8, 8), 0.8)
    same = inverse.Blur((3, 8, 8), inverse.gaussian_kernel(0.8), border="zero")
    torch.testing.assert_close(gaussian.forward(x), same.forward(x))


def test_bicubic_is_that_of_pillow():
    from PIL import Image

    x = draw(1, 1, 16, 16).float()
    wanted = Image.fromarray(x[0, 0].numpy()).resize((8, 8), Image.Resampling.BICUBIC)
    got = inverse.bicubic((1, 16, 16), 2).forward(x)[0, 0]
    inside = slice(2, 6)  # Pillow cuts the kernel at the border, and does not repeat pixels
    pixels = torch.tensor([[wanted.getpixel((j, i)) for j in range(8)] for i in range(8)])
    torch.testing.assert_close(got[inside, inside], pixels[inside, inside], rtol=1e-5, atol=1e-5)


def test_motion_keeps_its_sum_and_direction():
    for angle in (0.0, 30.0, 90.0, 135.0):
        kernel = inverse.motion_kernel(7, angle)
        assert math.isclose(float(kernel.sum()), 1.0, rel_tol=1e-12)
        torch.testing.assert_close(kernel, kernel.flip(0, 1))  # symmetric about its centre
    up = inverse.motion_kernel(3, 90.0)
    torch.testing.assert_close(up[:, 1], torch.full((3,), 1 / 3, dtype=F64))


def test_the_grey_transform_is_orthogonal_with_grey_first():
    operator = inverse.Grey((3, 1, 1))
    turned = operator.svd.into(torch.ones(1, 3, 1, 1, dtype=F64)).flatten().abs()
    torch.testing.assert_close(turned, torch.tensor([3**0.5, 0, 0], dtype=F64))
    torch.testing.assert_close(operator.svd.values.flatten(), torch.tensor([3**-0.5, 0, 0], dtype=F64))


V, T = scoresde.InvalidArgumentError, scoresde.InvalidTypeError
EYE, EACH = torch.eye(2), inverse.Diagonal(torch.ones(5, 2, 3), event_shape=(2, 3))
REFUSED = [
    (lambda: inverse.Mask(torch.ones(3)), T, "boolean"),
    (lambda: inverse.Mask(some(3), event_shape=(4,)), V, "broadcast"),
    (lambda: inverse.Matrix(torch.full((2, 2), math.nan)), V, "finite"),
    (lambda: inverse.Matrix(torch.ones(2, 4), (5,)), V, "4 elements"),
    (lambda: inverse.Grey((3, 2, 2), (1.0, 2.0)), V, "3 finite"),
    (lambda: inverse.block_average((1, 8, 8), 3), V, "divide"),
    (lambda: inverse.Blur((1, 8, 8), torch.ones(2, 2)), V, "odd"),
    (lambda: inverse.Blur((1, 8, 8), KERNEL, border="zeros"), V, "did you mean"),
    (lambda: inverse.PartialFourier((1, 4, 4), some(4, 5)), V, "shape"),
    (lambda: inverse.Diagonal(torch.tensor([1.0, math.nan])), V, "factors"),
    (lambda: inverse.Diagonal(torch.tensor(2.0)), V, "measurement|event"),
    (lambda: inverse.Matrix(EYE) @ inverse.Matrix(torch.eye(3)), V, "shape"),
    (lambda: inverse.Matrix(EYE) @ EYE, T, "first"),
    (lambda: torch.eye(3) @ inverse.Matrix(EYE), V, "must have 3 elements"),
    (lambda: inverse.Matrix(EYE).forward(torch.ones(2)), V, "batch"),
    (lambda: inverse.Blur((1, 96, 96), KERNEL, border="zero").svd, V, "too large"),
    (lambda: EACH.forward(torch.ones(4, 2, 3)), V, "those of 5 samples, but the batch has 4"),
    (lambda: EACH.svd, V, "differ between the samples"),
    (lambda: (inverse.Diagonal(torch.ones(3, 2), event_shape=(2,)) @ inverse.Mask(some(2) < 2)).svd, V, "differ"),
    (lambda: inverse.Diagonal(torch.ones(5, 2, 3), event_shape=(3, 2)), V, "must have the shape"),
    (lambda: inverse.Measurement(noisy(), torch.ones(2)), V, "must be given"),
]


def noisy():
    """The noise of the first operator is not lost."""
    first = inverse.Matrix(EYE)
    first.noise_std = 0.1
    assert (inverse.Matrix(EYE) @ first).noise_std is None
    return inverse.Matrix(EYE) @ first


def test_nonsense_is_refused():
    assert_refused(REFUSED)


def test_operators_are_composed_as_matrices_are():
    second, first = inverse.Matrix(draw(3, 4)), inverse.Matrix(draw(4, 5, seed=1))
    x = draw(2, 5, seed=2)
    torch.testing.assert_close((second @ first).forward(x), second.forward(first.forward(x)))
    torch.testing.assert_close((second @ first).matrix(), second.matrix() @ first.matrix())
    torch.testing.assert_close((draw(3, 4) @ first).matrix(), (second @ first).matrix())
    assert (draw(3, 6) @ inverse.Grey((2, 2, 3))).measurement_shape == (3,)


def test_factors_of_each_sample():
    factors, x, y = some(5, 2, 3).double(), draw(5, 2, 3), draw(5, 2, 3, seed=1)
    each = inverse.Diagonal(factors, event_shape=(2, 3))
    for i in range(5):
        one = inverse.Diagonal(factors[i])
        assert torch.equal(each.forward(x)[i], one.forward(x[i : i + 1])[0])
        assert torch.equal(each.adjoint(y)[i], one.adjoint(y[i : i + 1])[0])
    assert not each.shared and inverse.Diagonal(factors).shared


def test_particles_of_a_set_have_one_operator():
    """Particles are weighed against each other, so that they must be measured alike."""
    score = scoresde.targets.Gaussian(torch.zeros(2), torch.ones(2)).score(scoresde.VPSDE())
    factors = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).repeat_interleave(10, 0)
    problem = score, inverse.Diagonal(factors, event_shape=(2,)), torch.tensor([2.0, 0.0]), 0.3
    how = {"method": "twisted_smc", "twist": inverse.DPS(), "steps": 5, "shape": (20, 2), "seed": 0}
    with pytest.raises(scoresde.InvalidArgumentError, match="`operator` must be the same for all 20 particles"):
        inverse.sample_posterior(scoresde.VPSDE(), *problem, **how)
    assert bool(inverse.sample_posterior(scoresde.VPSDE(), *problem, particles=10, **how).x.isfinite().all())


def test_a_product_has_the_rank_that_its_parts_leave():
    first, second = torch.zeros(4, 6, dtype=F64), torch.zeros(3, 4, dtype=F64)
    first[:2], second[:, 2:] = draw(2, 6), draw(3, 2, seed=1)
    turn = torch.linalg.qr(draw(4, 4, seed=2)).Q
    composed = inverse.Matrix(second @ turn.mT) @ inverse.Matrix(turn @ first)  # 0 up to rounding
    assert composed.rank == 0


def test_a_product_of_single_precision_has_no_rank_by_its_rounding():
    class Single(inverse.LinearOperator):
        _eps = torch.finfo(torch.float32).eps

        def __init__(self):
            super().__init__((8,), (6,))
            self.left, self.right = draw(6, 3).float(), draw(3, 8, seed=1).float()

        def _forward(self, x):
            return (x.float() @ self.right.mT @ self.left.mT).to(x.dtype)

        def _adjoint(self, y):
            return (y.float() @ self.left @ self.right).to(y.dtype)

    assert (inverse.Diagonal(torch.ones(6)) @ Single()).rank == 3


def test_a_product_of_what_differs_between_samples_has_no_matrix():
    class Each(inverse.LinearOperator):
        shared = False

        def _forward(self, x):
            return x * torch.arange(len(x))[:, None]

        _adjoint = _forward

    composed = inverse.Diagonal(torch.ones(2)) @ Each((2,), (2,))
    assert not composed.shared and composed.forward(torch.ones(3, 2)).sum() == 6
    for call in (composed.matrix, lambda: composed.pseudo_inverse(torch.ones(3, 2))):
        with pytest.raises(scoresde.InvalidArgumentError, match="differ between the samples"):
            call()


def test_factors_after_a_mask_have_cheap_singular_values_and_are_copied():
    factors = torch.ones(4000, dtype=F64)
    mask = torch.zeros(1, 80, 100, dtype=torch.bool)
    mask[:, ::2] = True
    weighed = inverse.Diagonal(factors) @ inverse.Mask(mask)
    factors[0] = 7.0
    assert weighed.rank == 4000 and float(weighed.svd.values.max()) == 1.0
    assert weighed.noise_std == 0.0
