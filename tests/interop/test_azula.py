"""Denoisers of azula through its own samplers and through ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError
from scoresde.interop import from_azula
from tests.interop.common import Net, same, solved, start

pytest.importorskip("azula", exc_type=ImportError)
from azula import denoise, noise, sample
from azula.linalg.covariance import IsotropicCovariance

pytestmark = pytest.mark.peers

STEPS = 12
ALPHA = 0.05  # at the noise end; azula's steps divide by it, which multiplies their rounding errors
SCHEDULES: dict[str, Any] = {
    "VE": noise.VESchedule(1e-2, 20.0),
    "VP": noise.VPSchedule(ALPHA),
    "cosine": noise.CosineSchedule(ALPHA),
    "rectified": noise.RectifiedSchedule(ALPHA),
    "decay": noise.DecaySchedule(ALPHA),
}


@pytest.mark.parametrize(("theirs", "method"), [("Euler", "ddim"), ("DDIM", "ddim"), ("Heun", "rho_heun")])
@pytest.mark.parametrize("kind", ["KarrasDenoiser", "SimpleDenoiser"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SCHEDULES)
def test_its_samplers(name: str, dtype: torch.dtype, kind: str, theirs: str, method: str) -> None:
    """Heun's second evaluation is at the end of a step, and azula makes it at t = 0 too. Times, noise levels and labels
    are in the state's precision in azula, and in double precision here."""
    denoiser = getattr(denoise, kind)(Net(classes=4, unit=5.0), SCHEDULES[name]).to(dtype)
    label = torch.eye(4, dtype=dtype)[[0, 3, 1]]
    model = from_azula(denoiser)
    assert type(model.sde) is (scoresde.VESDE if name == "VE" else scoresde.GaussianSDE)
    x = float(model.sde.prior.std) * start().to(dtype)
    other = getattr(sample, f"{theirs}Sampler")(denoiser, steps=STEPS, silent=True, dtype=dtype)(x, labels=label)
    mine = solved(model, x, method, STEPS, context={"labels": label})
    same(mine, other, 1e-10 if dtype is torch.float64 else 1e-5)


def test_its_start() -> None:
    """The deviation of the state from which its samplers start, of data with variance 1."""
    for schedule in SCHEDULES.values():
        model = from_azula(denoise.KarrasDenoiser(Net(), schedule))
        alpha, sigma = schedule(torch.ones((), dtype=torch.float64))
        assert abs(float(model.sde.prior.std) / float((alpha**2 + sigma**2).sqrt()) - 1) < 1e-12


def test_one_time_for_all_is_refused() -> None:
    exact = denoise.GaussianDenoiser(torch.zeros(2), IsotropicCovariance(torch.tensor(1.0)), noise.VPSchedule())
    with pytest.raises(InvalidArgumentError, match="azula's GaussianDenoiser"):
        from_azula(exact)
