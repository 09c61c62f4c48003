"""The physics of deepinv as operators, beside operators of this package that measure the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import scoresde
from scoresde import inverse
from scoresde.inverse import from_deepinv

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    physics = pytest.importorskip("deepinv.physics", exc_type=ImportError)

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
STD = 0.25
KERNEL = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
KERNEL /= KERNEL.sum()
FILTER = KERNEL.float()[None, None]
SEEN = torch.rand(8, 8, generator=torch.Generator().manual_seed(2)) < 0.5
ROUNDING = 2e-4  # of float32 through 20 steps, whose slopes are up to 1/STD² times as large as their errors


def noise() -> Any:
    return physics.GaussianNoise(STD)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PAIRS: dict[str, Callable[[], tuple[Any, tuple[int, ...], inverse.LinearOperator]]] = {
    "inpainting": lambda: (
        physics.Inpainting(GREY, mask=SEEN[None].float(), noise_model=noise()),
        GREY,
        inverse.Matrix(torch.diag(SEEN.double().flatten()), GREY, GREY),
    ),
    "blur": lambda: (
        physics.Blur(filter=FILTER, padding="circular", noise_model=noise()),
        GREY,
        inverse.Blur(GREY, KERNEL),
    ),
    "blur, zeros": lambda: (
        physics.Blur(filter=FILTER, padding="constant", noise_model=noise()),
        GREY,
        inverse.Blur(GREY, KERNEL, border="zero"),
    ),
    "blur by fft": lambda: (
        physics.BlurFFT(img_size=GREY, filter=FILTER, noise_model=noise()),
        GREY,
        inverse.Blur(GREY, KERNEL),
    ),
    "downsampling": lambda: (
        physics.Downsampling(GREY, filter=torch.ones(1, 1, 2, 2) / 4, factor=2, padding="valid", noise_model=noise()),
        GREY,
        inverse.block_average(GREY, 2),
    ),
    "denoising": lambda: (physics.Denoising(noise()), GREY, inverse.Matrix(torch.eye(64), GREY, GREY)),
    "decolorize": lambda: (physics.Decolorize(srf="average", noise_model=noise()), COLOUR, inverse.Grey(COLOUR)),
}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, tuple[int, ...], inverse.LinearOperator]:
    return PAIRS[request.param]()


def test_both_measure_the_same(pair):
    theirs, shape, ours = pair
    operator = from_deepinv(theirs, shape)
    assert operator.measurement_shape == ours.measurement_shape and operator.noise_std == pytest.approx(STD)
    x = drawn(4, *shape)
    y = drawn(4, *ours.measurement_shape, seed=1)
    torch.testing.assert_close(operator.forward(x), theirs.A(x))
    torch.testing.assert_close(operator.forward(x), ours.forward(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.adjoint(y), ours.adjoint(y), rtol=1e-5, atol=1e-5)
    assert operator.rank == ours.rank
    torch.testing.assert_close(operator.pseudo_inverse(y), ours.pseudo_inverse(y), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", ["dps", "dps_step", "pigdm", "mmps", "ddnm", "ddrm"])
def test_both_have_the_same_posterior(pair, method):
    """Samples of a mixture's posterior, with the same draws, given the same measurement."""
    theirs, shape, ours = pair
    sde = scoresde.VPSDE()
    means = torch.stack([drawn(*shape, seed=3), drawn(*shape, seed=4)])
    score_fn = scoresde.targets.GaussianMixture(torch.ones(2), means, scales=0.5).score(sde)
    y = theirs.A(means[:1])[0].detach()
    y = y + STD * drawn(*y.shape, seed=5)
    options = {"method": method, "steps": 20, "shape": (3, *shape), "seed": 0}
    got = inverse.sample_posterior(sde, score_fn, from_deepinv(theirs, shape), y, **options).x
    want = inverse.sample_posterior(sde, score_fn, ours, y, STD, **options).x
    assert float((got - want).abs().max()) < ROUNDING * max(1.0, float(want.abs().max()))


OTHERS: dict[str, Callable[[], tuple[Any, tuple[int, ...]]]] = {
    "tomography": lambda: (physics.Tomography(angles=6, img_width=8, noise_model=noise()), GREY),
    "mri": lambda: (physics.MRI(mask=SEEN.float(), img_size=(2, 8, 8), noise_model=noise()), (2, 8, 8)),
    "compressed sensing": lambda: (physics.CompressedSensing(m=20, img_size=GREY, noise_model=noise()), GREY),
    "blur, valid": lambda: (physics.Blur(filter=FILTER, padding="valid", noise_model=noise()), GREY),
    "single pixel": lambda: (physics.SinglePixelCamera(m=20, img_size=GREY, noise_model=noise()), GREY),
    "composed": lambda: (
        physics.Denoising(noise()) * physics.Blur(filter=FILTER, padding="circular"),
        GREY,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("method", ["mmps", "pigdm"])
def test_others_agree_with_their_matrix(name, method):
    theirs, shape = OTHERS[name]()
    operator = from_deepinv(theirs, shape)
    ours = inverse.Matrix(operator.matrix(), shape, operator.measurement_shape)
    sde = scoresde.VPSDE()
    mean = drawn(*shape, seed=3)
    score_fn = scoresde.targets.Gaussian(mean, 0.25).score(sde)
    y = theirs.A(mean[None])[0].detach()
    options = {"method": method, "steps": 20, "shape": (3, *shape), "seed": 0}
    got = inverse.sample_posterior(sde, score_fn, operator, y, **options).x
    want = inverse.sample_posterior(sde, score_fn, ours, y, STD, **options).x
    assert float((got - want).abs().max()) < 1e-3 * max(1.0, float(want.abs().max()))


def test_masks_of_each_sample_are_those_of_the_physics():
    masks = (drawn(3, 1, 8, 8) > 0).float()
    theirs = physics.Inpainting(GREY, mask=masks, noise_model=noise())
    operator = from_deepinv(theirs, GREY)
    x = drawn(3, *GREY, seed=1)
    assert not operator.shared
    torch.testing.assert_close(operator.forward(x), theirs.A(x))
    kernels = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    blurs = physics.Blur(filter=kernels, padding="circular")
    torch.testing.assert_close(from_deepinv(blurs, GREY).forward(x), blurs.A(x))


def test_updates_of_the_physics_need_a_new_operator():
    theirs = physics.Inpainting(GREY, mask=SEEN[None].float())
    operator = from_deepinv(theirs, GREY)
    x = drawn(2, *GREY)
    before = operator.forward(x)
    theirs.update(mask=(~SEEN)[None, None].float())
    assert torch.equal(operator.forward(x), before)
    torch.testing.assert_close(from_deepinv(theirs, GREY).forward(x), x - before)


def test_a_nonlinear_physics():
    theirs = physics.Physics(A=torch.tanh, noise_model=noise())
    operator = from_deepinv(theirs, GREY)
    sde = scoresde.VPSDE()
    mean = drawn(*GREY, seed=3)
    score_fn = scoresde.targets.Gaussian(mean, 0.25).score(sde)
    y = mean.tanh()
    options = {"method": "dps", "steps": 20, "shape": (3, *GREY), "seed": 0}
    got = inverse.sample_posterior(sde, score_fn, operator, y, **options).x
    want = inverse.sample_posterior(sde, score_fn, torch.tanh, y, STD, **options).x
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: physics.PoissonNoise(0.1), lambda: physics.UniformNoise(0.1)])
def test_other_noises_have_to_be_given(make):
    operator = from_deepinv(physics.Denoising(make()), GREY)
    with pytest.raises(scoresde.InvalidArgumentError, match="`noise_std` must be given"):
        inverse.Measurement(operator, torch.zeros(GREY))


def test_a_stack_and_complex_numbers_are_refused():
    stacked = physics.stack(physics.Denoising(noise()), physics.Denoising(noise()))
    for theirs, words in ((stacked, "stacked"), (physics.RandomPhaseRetrieval(m=20, img_size=GREY), "fails")):
        with pytest.raises(scoresde.InvalidArgumentError, match=words):
            from_deepinv(theirs, GREY)
