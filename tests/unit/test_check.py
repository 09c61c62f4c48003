"""`check_score` names planted convention errors and keeps quiet about right wrappings."""

from __future__ import annotations

import pytest
import torch

import scoresde
from scoresde import ScoreModel, check_score, targets
from scoresde.training import digits_split, grey_to_x

SDES = {
    "ve": scoresde.VESDE(),
    "vp": scoresde.VPSDE(),
    "subvp": scoresde.SubVPSDE(),
    "cosine": scoresde.CosineVPSDE(),
    "vdm": scoresde.VDMSDE(),
    "edm": scoresde.EDMSDE(),
    "flow": scoresde.FlowSDE(),
}


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def correlated():
    root = torch.randn(16, 16, generator=generator())
    return targets.Gaussian(torch.full((16,), 0.3), root @ root.T / 30)


TARGETS = {
    "correlated": correlated(),
    "modes": targets.GaussianMixture(torch.ones(3), torch.randn(3, 2, generator=generator()), scales=0.2),
    "scalar": targets.GaussianMixture(torch.ones(2), torch.tensor([[-0.5], [0.5]]), scales=0.1),
}


def sigma(sde, t, x):
    return sde.sigma(t).reshape(-1, *[1] * (x.ndim - 1))


# What a user gets wrong, as a map from the right score function to the wrong one.
WRONG = {
    "noise": lambda f, sde: lambda x, t: -f(x, t) * sigma(sde, t, x),
    "missing sigma": lambda f, sde: lambda x, t: f(x, t) * sigma(sde, t, x),
    "sign": lambda f, sde: lambda x, t: -f(x, t),
    "time x 1000": lambda f, sde: lambda x, t: f(x, 1000 * t),
    "time / 1000": lambda f, sde: lambda x, t: f(x, t / 1000),
    "reversed time": lambda f, sde: lambda x, t: f(x, sde.t_min + sde.t_max - t),
    "data": lambda f, sde: (
        lambda x, t: (x + sigma(sde, t, x) ** 2 * f(x, t)) / sde.alpha(t).reshape(-1, *[1] * (x.ndim - 1))
    ),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("process", ["ve", "vp", "flow"])
@pytest.mark.parametrize("mistake", WRONG)
def test_names_the_mistake(target, process, mistake):
    sde, law = SDES[process], TARGETS[target]
    data = law.sample(600, generator=generator())
    report = check_score(sde, WRONG[mistake](law.score(sde), sde), data)
    assert (report.ok, report.convention) == (False, mistake)
    assert mistake in str(report)


@pytest.mark.parametrize("process", SDES)
@pytest.mark.parametrize("change", [lambda x: (x + 1) / 2, lambda x: 127.5 * (x + 1)], ids=["to [0, 1]", "to [0, 255]"])
def test_names_the_data_range(process, change):
    sde, law = SDES[process], TARGETS["modes"]
    report = check_score(sde, law.score(sde), change(law.sample(600, generator=generator())))
    assert (report.ok, report.convention) == (False, "data range")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("process", SDES)
def test_no_false_alarm_on_exact_scores(target, process):
    sde, law = SDES[process], TARGETS[target]
    score_fn = law.score(sde)
    for seed in range(3):
        report = check_score(sde, score_fn, law.sample(400, generator=generator(seed)), seed=seed)
        assert report.ok, str(report)
        assert report.convention == "score"


def wrappings():
    """Right ways to wrap the shipped network and networks made from an exact denoiser."""
    digits = scoresde.load("digits")
    cases = {f"digits on {name}": (SDES[name], digits.score(SDES[name]), "digits") for name in ("vp", "flow")}
    law, sde = TARGETS["modes"], SDES["vp"]
    exact = law.score(sde)

    def noise(x, t):
        return exact.estimate(x, sde.nodes(t)).noise

    def denoise(y, rho):  # a k-diffusion denoiser: x0 from y = x0 + rho z
        edm = scoresde.EDMSDE()
        return law.score(edm).estimate(y, edm.nodes(rho)).data

    cases["noise"] = (sde, ScoreModel(noise, sde, "noise"), "modes")
    cases["denoiser of x / alpha"] = (sde, ScoreModel(denoise, sde, "data", "rho", "x/alpha"), "modes")
    cases["noise with time labels in 0 ... 1000"] = (
        sde,
        ScoreModel(lambda x, t: noise(x, t / 1000), sde, "noise", lambda t: 1000 * t),
        "modes",
    )
    return cases


WRAPPINGS = [
    "digits on vp",
    "digits on flow",
    "noise",
    "denoiser of x / alpha",
    "noise with time labels in 0 ... 1000",
]


@pytest.fixture(scope="module")
def right_wrappings():
    return wrappings()


@pytest.mark.parametrize("name", WRAPPINGS)
def test_no_false_alarm_on_right_wrappings(right_wrappings, name):
    sde, score_fn, where = right_wrappings[name]
    data = digits_data() if where == "digits" else TARGETS[where].sample(500, generator=generator())
    report = check_score(sde, score_fn, data)
    assert report.ok, str(report)


@pytest.mark.parametrize("mistake", ["missing sigma", "time x 1000"])
def test_names_mistakes_with_the_shipped_network(mistake):
    sde = SDES["vp"]
    report = check_score(sde, WRONG[mistake](scoresde.load("digits").score(sde), sde), digits_data())
    assert report.convention == mistake, str(report)


def test_names_the_data_range_with_the_shipped_network():
    report = check_score(SDES["vp"], scoresde.load("digits").score(SDES["vp"]), (digits_data() + 1) / 2)
    assert report.convention == "data range", str(report)


@pytest.mark.parametrize("process", ["ve", "vp", "flow"])
@pytest.mark.parametrize("size", [0.0, 0.1, 1.0, 5.0])
def test_a_meaningless_score_is_unknown(size, process):
    """Some reading always comes close to the Gaussian denoiser without the network's help; it must not be named."""
    law = TARGETS["modes"]
    data = law.sample(300, generator=generator())
    report = check_score(SDES[process], lambda x, t: size * torch.sin(7 * x), data)
    assert (report.ok, report.convention) == (False, "unknown")


def digits_data():
    return grey_to_x(digits_split(seed=0).test_images, generator())


def test_refuses_bad_input():
    sde = SDES["vp"]
    with pytest.raises(scoresde.InvalidArgumentError, match="data"):
        check_score(sde, lambda x, t: x, torch.full((4, 2), torch.nan))
    with pytest.raises(scoresde.InvalidTypeError, match="score_fn"):
        check_score(sde, 3, torch.zeros(4, 2))
    with pytest.raises(scoresde.InvalidArgumentError, match="context"):
        check_score(sde, lambda x, t, label: x, torch.zeros(4, 2), context={"label": torch.zeros(3)})
    with pytest.raises(scoresde.ScoreFnError, match="shape"):
        check_score(sde, lambda x, t: x[:, :1], torch.randn(4, 2, generator=generator()))
