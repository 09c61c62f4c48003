"""Encoding, decoding, and what lies between latents."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import scoresde
from scoresde import decode, encode, interpolate, reconstruct, targets

F64 = torch.float64
TARGET = targets.GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.2], [1.0, -0.4]], dtype=F64), scales=torch.tensor([0.3, 0.2])
)
PROCESSES = {"vp": scoresde.VPSDE(), "ve": scoresde.VESDE(), "flow": scoresde.FlowSDE(t_max=1.0)}


@pytest.mark.parametrize("name", PROCESSES)
def test_the_round_trip(name: str) -> None:
    sde = PROCESSES[name]
    x = TARGET.sample(6, generator=torch.Generator().manual_seed(0)).to(F64)
    for tolerance in (1e-4, 1e-7):
        got = reconstruct(sde, TARGET.score(sde), x, rtol=tolerance, atol=tolerance)
        assert float(got.error.max()) < 200 * tolerance
        up = encode(sde, TARGET.score(sde), x, rtol=tolerance, atol=tolerance)
        assert torch.equal(got.latent, up.x) and bool((got.nfe > up.nfe).all())


def test_the_latent_is_the_exact_one() -> None:
    sde, gaussian = scoresde.VPSDE(), targets.Gaussian(torch.tensor([0.5, -1.0], dtype=F64), 0.3)
    x = gaussian.sample(5, generator=torch.Generator().manual_seed(0)).to(F64)
    z = encode(sde, gaussian.score(sde), x, rtol=1e-8, atol=1e-8).x
    torch.testing.assert_close(z, gaussian.flow_map(x, sde, sde.t_min, sde.t_max), rtol=0, atol=1e-6)


def test_a_latent_depends_on_the_law_and_not_on_the_prediction() -> None:
    """The exact network of each kind, to the solver's tolerance."""
    sde, exact = scoresde.VPSDE(), TARGET.score(scoresde.VPSDE())
    reader = scoresde.ScoreModel(exact, sde, prediction="score")  # turns it into the others
    x = TARGET.sample(5, sde, sde.t_min, generator=torch.Generator().manual_seed(0)).to(F64)
    options: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-7}
    wanted = encode(sde, exact, x, **options).x
    for prediction in ("noise", "data", "v", "flow"):
        model = scoresde.ScoreModel(getattr(reader, prediction), sde, prediction=prediction)
        torch.testing.assert_close(encode(sde, model, x, **options).x, wanted, rtol=0, atol=1e-5, msg=prediction)


def test_great_circles_keep_the_length_and_lines_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 4, 5, generator=generator, dtype=F64) for _ in range(2))
    a, b = (v / v.flatten(1).norm(dim=1)[:, None, None] for v in (a, b))
    w = torch.linspace(0, 1, 5, dtype=F64)
    circle, line = interpolate(a, b, w), interpolate(a, b, w, mode="linear")
    torch.testing.assert_close(circle.flatten(2).norm(dim=2), torch.ones(5, 3, dtype=F64))
    torch.testing.assert_close(line[2], 0.5 * (a + b))
    for got in (circle, line):
        torch.testing.assert_close(got[0], a)
        torch.testing.assert_close(got[-1], b)
    steps = (circle[1:] - circle[:-1]).flatten(2).norm(dim=2)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))  # even on the circle
    torch.testing.assert_close(interpolate(a, a, w), a.expand(5, 3, 4, 5))


def test_refusals() -> None:
    sde, one, net = scoresde.VPSDE(), torch.ones(1, 2), lambda x, t: -x
    for words, make in (
        ("shape", lambda: interpolate(one, torch.ones(1, 3), torch.ones(1))),
        ("weights", lambda: interpolate(one, one, torch.ones(1, 1))),
        ("weights", lambda: interpolate(one, one, torch.tensor([math.nan]))),
        ("opposite", lambda: interpolate(one, -one, torch.ones(1))),
        ("did you mean 'slerp'", lambda: interpolate(one, one, torch.ones(1), mode="slurp")),
        ("temperature", lambda: decode(sde, net, one, temperature=-1.0)),
        ("deterministic", lambda: encode(sde, net, one, method="pc")),
        ("deterministic", lambda: decode(sde, net, one, method="ancestral")),
        ("encode", lambda: decode(sde, net, one, t_start=0.1, t_end=1.0)),
        ("decode", lambda: encode(sde, net, one, t_start=1.0, t_end=0.1)),
        ("t_start", lambda: reconstruct(sde, net, one, t_start=0.1)),
    ):
        with pytest.raises(scoresde.InvalidArgumentError, match=words):
            make()


def test_temperature_tempers_gaussian_data_only() -> None:
    """The power 1/T^2 of the density: for Gaussian data exactly, for two modes not, whose weights it leaves."""
    sde, options = scoresde.VPSDE(), {"rtol": 1e-5, "atol": 1e-5}
    z = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    gaussian = targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([2.0, 0.1], dtype=F64))
    warm, cold = (decode(sde, gaussian.score(sde), z, temperature=t, **options).x for t in (1.0, 0.5))
    torch.testing.assert_close(cold, 0.5 * warm, rtol=1e-2, atol=1e-3)
    modes = decode(sde, TARGET.score(sde), z, temperature=0.5, **options).x
    share = float((modes[:, 0] > 0).double().mean())  # of the mode of weight 0.7; 0.7^4 to 0.3^4 is 0.967 of the whole
    assert 0.75 < share < 0.93


def test_temperature_is_about_the_priors_mean() -> None:
    data = targets.Gaussian(torch.tensor([5.0, -5.0], dtype=F64), 1.0)
    plain = scoresde.VPSDE()
    mean = float(plain.alpha(plain.t_max)) * data.mean
    sde = scoresde.VPSDE(prior=scoresde.NormalPrior(1.0, mean))
    x = decode(sde, data.score(sde), mean[None], temperature=0.5, rtol=1e-5, atol=1e-5).x
    torch.testing.assert_close(x, data.mean[None], rtol=0, atol=1e-2)
