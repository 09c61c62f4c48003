"""What a likelihood tells of data and score functions that look wrong, and that it is quiet about right ones."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import EDMSDE, VDMSDE, VESDE, VPSDE, CosineVPSDE, FlowSDE, SubVPSDE, log_likelihood, targets
from scoresde.core.processes import Network, ReverseProcess
from scoresde.core.processes.density import LogDensityFlow
from scoresde.core.processes.divergence import ExactTrace
from scoresde.likelihood.checks import on_a_lattice, told_of_denoising, told_of_lattice
from scoresde.training import digits_split, grey_to_x

F64 = torch.float64
LOOSE: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2}
SDES = (VESDE(), VPSDE(), SubVPSDE(), CosineVPSDE(), VDMSDE(), EDMSDE(), FlowSDE(t_max=1.0))
PROCESSES: dict[str, scoresde.AffineSDE] = {type(sde).__name__: sde for sde in SDES}
QUICK = ("VPSDE", "EDMSDE", "FlowSDE")
by_process = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PROCESSES]
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def told(sde: Any, score_fn: Any, x: Tensor) -> list[str]:
    """What is said before a likelihood."""
    network, event = Network(score_fn), tuple(x.shape[1:])
    parts = {"flow": ReverseProcess(sde, network), "divergence": ExactTrace(x.new_zeros((len(x), 0, *event)))}
    process = LogDensityFlow(sde, network, **parts, event_shape=event, dtype=x.dtype)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        told_of_lattice(x)
        told_of_denoising(process, x, sde.t_min, sde.t_max)
    assert network.calls == 0
    return [str(one.message) for one in found]


def laws(size: int) -> dict[str, Any]:
    centres = torch.randn(3, size, generator=generator(1), dtype=F64)
    return {
        "narrow": targets.Gaussian(torch.zeros(size, dtype=F64), 1e-4),
        "far": targets.Gaussian(torch.full((size,), 2.0, dtype=F64), 1e-2),
        "wide": targets.Gaussian(torch.zeros(size, dtype=F64), 16.0),
        "spectrum": targets.Gaussian(torch.zeros(size, dtype=F64), torch.logspace(-4, 1, size, dtype=F64)),
        "modes": targets.GaussianMixture(torch.ones(3), centres, scales=0.01),
        "blobs": targets.GaussianMixture(torch.ones(3), centres, scales=0.7),
        "points": targets.Empirical(torch.randn(20, size, generator=generator(2), dtype=F64)),
    }


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("sizes", "seeds"), [((1, 16), 4), pytest.param((1, 2, 16, 100), 14, marks=pytest.mark.slow)])
def test_exact_scores_are_passed_over(name: str, sizes: tuple[int, ...], seeds: int) -> None:
    """Data of a distribution, and data at t_min, one and eight, of float64 and float32. Where the chance of an alarm is
    largest (one sample of 16 numbers, nothing denoised), it is 3e-5."""
    sde = PROCESSES[name]
    for size in sizes:
        for law in laws(size).values():
            for seed in range(seeds):
                place = (sde, sde.t_min) if seed % 2 else ()
                x = law.sample(8, *place, generator=generator(seed))
                for given in (x, x[:1].float()):
                    assert told(sde, law.score(sde), given) == []


@by_process
@pytest.mark.parametrize("images", [24, pytest.param(96, marks=pytest.mark.slow)])
def test_the_shipped_network_on_held_out_digits_is_passed_over(name: str, images: int) -> None:
    sde, model = PROCESSES[name], scoresde.load("digits")
    for first in range(0, images, 8):
        for count in (1, 8):
            x = grey_to_x(digits_split().test_images[first : first + count], generator(first))
            assert told(sde, model.score(sde), x) == []


def test_points_of_a_grid_and_far_points_are_passed_over() -> None:
    sde, law = scoresde.VPSDE(), laws(2)["modes"]
    line = torch.linspace(-4, 4, 20, dtype=F64)
    assert told(sde, law.score(sde), torch.cartesian_prod(line, line)) == []
    for x in (torch.zeros(3, 2), torch.full((1, 2), 30.0), torch.tensor([[0.1, 0.2], [0.3, -0.1]])):
        assert told(sde, law.score(sde), x.to(F64)) == []


def test_a_guided_score_is_passed_over() -> None:
    sde, model = scoresde.VPSDE(), scoresde.load("digits")
    free, one = model.score(sde), model.score(sde, label=1)
    x = grey_to_x(digits_split().test_images[digits_split().test_labels == 1][:8], generator())
    assert told(sde, lambda x, t: free(x, t) + 1.5 * (one(x, t) - free(x, t)), x) == []


def test_numbers_with_noise_are_on_no_lattice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(200):
            told_of_lattice(torch.rand(1 + seed % 4, 16 + seed % 9, generator=generator(seed)))
        for x in (
            torch.rand(70, 64, generator=generator()),
            torch.zeros(3, 64),
            torch.ones(3, 64) * torch.arange(3.0)[:, None],
        ):
            told_of_lattice(x)
        told_of_lattice(torch.arange(8.0)[:, None])  # few dimensions: a grid, perhaps
        told_of_lattice(torch.zeros(0, 64))


GREY = torch.randint(0, 256, (4, 3, 6, 6), generator=generator())
LATTICES = {
    "integers": GREY.float(),
    "to [0, 1]": GREY.float() / 255,
    "one sample": GREY[:1].float() / 255,
    "black and white": (GREY > 127).float(),
    "sixteen numbers": GREY.flatten()[:16].reshape(1, 16).float() / 255,
}


def test_data_that_are_not_dequantised() -> None:
    for x in LATTICES.values():
        with pytest.warns(scoresde.ScoreSDEWarning, match="not dequantised.*dequantize"):
            told_of_lattice(x)
    assert on_a_lattice(torch.tensor([0.0, 2.0, 5.0, 7.0], dtype=F64), 1e-16)  # the width is none of the gaps
    assert not on_a_lattice(torch.tensor([0.0, 1.0, 2.5, 2.5 + math.sqrt(2)], dtype=F64), 1e-16)


def sigma(sde: Any, t: Tensor, x: Tensor) -> Tensor:
    return sde.sigma(t).reshape(-1, *[1] * (x.ndim - 1)).to(x)


def perceptron() -> Any:
    torch.manual_seed(0)
    layers = nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 64)
    net = nn.Sequential(nn.Flatten(), *layers, nn.Unflatten(1, (1, 8, 8)))
    return lambda x, t: net(x)


WRONG: dict[str, Any] = {
    "untrained noise": lambda f, sde: scoresde.ScoreModel(perceptron(), sde, prediction="noise"),
    "untrained data": lambda f, sde: scoresde.ScoreModel(perceptron(), sde, prediction="data"),
    "untrained score": lambda f, sde: perceptron(),
    "zero": lambda f, sde: lambda x, t: 0 * x,
    "noise for a score": lambda f, sde: lambda x, t: -f(x, t) * sigma(sde, t, x),
    "sign": lambda f, sde: lambda x, t: -f(x, t),
    "reversed time": lambda f, sde: lambda x, t: f(x, sde.t_min + sde.t_max - t),
}


RANGES: dict[str, Any] = {
    "[0, 1]": lambda x: (x + 1) / 2,
    "[0, 16]": lambda x: 8.5 * (x + 1),
    "[0, 255]": lambda x: 127.5 * (x + 1),
    "divided by 255": lambda x: x / 255,
}


@by_process
def test_score_functions_that_do_not_denoise_and_data_of_another_range(name: str) -> None:
    sde, score = PROCESSES[name], scoresde.load("digits").score(PROCESSES[name])
    x = grey_to_x(digits_split().test_images[:8], generator())
    for mistake, wrong in WRONG.items():
        found = told(sde, wrong(score, sde), x)
        assert len(found) == 1 and "does not denoise" in found[0] and "check_score" in found[0], mistake
    for change, moved in RANGES.items():
        found = told(sde, score, moved(x))
        assert len(found) == 1 and "another range" in found[0], change


class Counted:
    rowwise = True

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.calls: list[int] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls.append(len(x))
        return -self.factor * x


def test_a_likelihood_tells_and_is_the_same() -> None:
    sde, x = scoresde.VPSDE(), torch.randn(10, 16, generator=generator(), dtype=F64)
    with pytest.warns(scoresde.ScoreSDEWarning, match="does not denoise") as found:
        loud = log_likelihood(sde, Counted(-1.0), x, seed=0, **LOOSE)
    assert found[0].filename == __file__
    quiet = log_likelihood(sde, Counted(-1.0), x, seed=0, check=False, **LOOSE)
    assert torch.equal(loud.log_prob, quiet.log_prob) and torch.equal(loud.nfe, quiet.nfe)
    levels = torch.randint(0, 9, (4, 16), generator=generator()).double() / 4 - 1
    with pytest.warns(scoresde.ScoreSDEWarning, match="not dequantised"):
        log_likelihood(sde, Counted(), levels, seed=0, **LOOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_likelihood(sde, Counted(), levels, seed=0, check=False, **LOOSE)


@pytest.mark.parametrize(("batch", "calls"), [(10, [8] * 15), (24, [24] * 4 + [8] * 3)])
def test_the_check_costs_what_the_docstring_says(batch: int, calls: list[int]) -> None:
    """Fifteen evaluations of eight samples at most, or seven of up to 24 where the batch is as large."""
    sde, score = scoresde.VPSDE(), Counted()
    x = torch.randn(batch, 16, generator=generator(), dtype=F64)
    taken = {}
    for check in (True, False):
        score.calls.clear()
        got = log_likelihood(sde, score, x, seed=0, check=check, **LOOSE)
        taken[check] = len(score.calls)
    assert taken[True] - taken[False] == len(calls) and set(score.calls[:1]) == {batch}
    score.calls.clear()
    log_likelihood(sde, score, x, seed=0, **LOOSE)
    assert score.calls[: len(calls)] == calls and bool((got.nfe > 0).all())


def mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True).expand(x.shape)


BLOCKED: dict[str, Any] = {
    "all": lambda x, t: -x.detach(),
    "the mean": lambda x, t: -mean(x.detach()),  # no sum of alternating signs sees it
    "differences": lambda x, t: -x - x.detach().roll(1, -1),
    "some samples": lambda x, t: torch.where(x[:, :1] > 0, -x.detach(), -x),
    "a part": lambda x, t: -0.6 * x - 0.4 * x.detach(),
    "copied": lambda x, t: -torch.tensor(x.tolist(), dtype=x.dtype),
}


def test_gradients_that_are_blocked() -> None:
    x = torch.randn(6, 4, generator=generator(), dtype=F64)
    for score_fn in BLOCKED.values():
        with pytest.raises(scoresde.ScoreFnError, match="blocks gradients"):
            log_likelihood(scoresde.VPSDE(), score_fn, x, divergence="exact")


OPEN: dict[str, Any] = {
    "no x": lambda x, t: 0.1 * t[:, None].expand(x.shape),
    "constant with a graph": lambda x, t: 0 * x + 0.1,
    "the mean": lambda x, t: -mean(x),
    "one of the numbers": lambda x, t: torch.cat([-x[:, :1], torch.zeros_like(x[:, 1:])], 1),
    "rotation": lambda x, t: -x + torch.stack([x[:, 1], -x[:, 0], x[:, 3], -x[:, 2]], 1),
    "bfloat16": lambda x, t: -x.bfloat16(),
}


@pytest.mark.filterwarnings("ignore::scoresde.ScoreSDEWarning")
def test_gradients_that_are_not() -> None:
    x = torch.randn(6, 4, generator=generator(), dtype=F64)
    for case, score_fn in OPEN.items():
        got = log_likelihood(scoresde.VPSDE(), score_fn, x, divergence="exact", rtol=0.1, atol=0.1)
        assert bool(got.log_prob.isfinite().all()), case


@pytest.mark.parametrize("unit", [1e-4, 1e6])
def test_blocked_gradients_in_any_units(unit: float) -> None:
    sde = scoresde.VESDE(0.01 * min(unit, 1), 100 * unit)
    law = targets.Gaussian(torch.zeros(4, dtype=F64), 0.3 * unit**2)
    score, x = law.score(sde), law.sample(4, generator=generator()).to(F64)
    got = log_likelihood(sde, score, x, divergence="exact", rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.log_prob, law.log_prob(x, sde, sde.t_min), rtol=1e-2, atol=0.1)
    blocked = lambda x, t: score(x, t).detach()  # noqa: E731
    with pytest.raises(scoresde.ScoreFnError, match="blocks gradients"):
        log_likelihood(sde, blocked, x, divergence="exact")
    wrong = log_likelihood(sde, blocked, x, divergence="exact", check=False, rtol=1e-4, atol=1e-4).log_prob
    assert float((wrong - got.log_prob).abs().min()) > 1.0  # without the check it goes by
