"""Faults that are planted in samplers, and sound samplers, by the authors of `scoresde.diagnose`.

Each case has the arguments of `scoresde.diagnose` and the names that may come first in what it finds; () stands for a
sampler that nothing limits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from benchmarks._planted_blind import Case, _mlp, _seeded, _train
from scoresde import guidance, targets
from scoresde.training import digits_split, grey_to_x

MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]])


def _three(scale: float = 1.0, shift: float = 0.0) -> targets.GaussianMixture:
    return targets.GaussianMixture(torch.ones(3), shift + scale * MEANS, scales=0.2 * scale)


def _halves(target: Any, seed: int, rows: int = 1000) -> dict[str, Any]:
    data, held_out = target.sample(2 * rows, generator=_seeded(seed)).split(rows)
    return {"data": data, "held_out": held_out, "pilot": 192, "seed": seed}


def _digits(seed: int) -> dict[str, Any]:
    split = digits_split()
    noise = _seeded(seed)
    data, held_out = grey_to_x(split.train_images, noise), grey_to_x(split.test_images, noise)
    return {
        "data": data,
        "held_out": (held_out, {"label": split.test_labels}),
        "context": {"label": split.train_labels},
        "pilot": 128,
        "seed": seed,
    }


def alpha_too_large() -> dict[str, Any]:
    """At t_max a fifth of the data is left, and their mean is 3."""
    sde, target = scoresde.VPSDE(0.1, 6.0), _three(3.0, 3.0)
    return {"sde": sde, "score_fn": target.score(sde), "method": "dpmpp_2m", "steps": 25, **_halves(target, 1)}


def five_steps() -> dict[str, Any]:
    """DDIM in five steps."""
    sde, target = scoresde.VPSDE(), _three()
    return {"sde": sde, "score_fn": target.score(sde), "method": "ddim", "steps": 5, **_halves(target, 2)}


def wrong_sigma_data() -> dict[str, Any]:
    """A network that was trained with sigma_data 0.8 has 0.3."""
    sde, given = scoresde.EDMSDE(), _halves(_three(), 3, 3000)
    net = _train(_mlp(3, 2), given["data"], 0.8, 1500, seed=3)
    model = scoresde.ScoreModel(net, sde, "edm", sigma_data=0.3, event_shape=(2,))
    return {"sde": sde, "score_fn": model, "method": "heun", "steps": 20, **given}


def untrained() -> dict[str, Any]:
    """A U-Net that was never trained."""
    sde = scoresde.VPSDE()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = scoresde.nets.UNet((1, 8, 8), channels=16, blocks=1, labels=10)
    model = scoresde.ScoreModel(net.eval().requires_grad_(False), sde, "v", event_shape=(1, 8, 8))
    return {"sde": sde, "score_fn": model, "method": "dpmpp_2m", "steps": 20, **_digits(4)}


def trained_too_long() -> dict[str, Any]:
    """Forty points, and 3,000 steps."""
    sde, given = scoresde.FlowSDE(), _halves(_three(), 5)
    few = given["data"][:40]
    net = _train(_mlp(5, 2, channels=128), few, 0.8, 3000, seed=5)
    model = scoresde.ScoreModel(net, sde, "edm", sigma_data=0.8, event_shape=(2,))
    return {"sde": sde, "score_fn": model, "method": "unipc2", "steps": 20, **given, "data": few}


def clipped_range() -> dict[str, Any]:
    """The data estimate is clipped to [-0.5, 0.5]."""
    sde, target = scoresde.VPSDE(), _three()
    given = {"method": "dpmpp_2m", "steps": 20, "clip": (-0.5, 0.5)}
    return {"sde": sde, "score_fn": target.score(sde), **given, **_halves(target, 6)}


def strong_guidance() -> dict[str, Any]:
    """Guidance of scale 4 towards a Gaussian."""
    sde = scoresde.VPSDE()
    one, whole = targets.Gaussian(torch.tensor([0.0, 1.0]), 0.5), targets.Gaussian(torch.zeros(2), 1.0)
    score = guidance.classifier_free(one.score(sde), whole.score(sde), 4.0)
    return {"sde": sde, "score_fn": score, "method": "dpmpp_2m", "steps": 20, **_halves(one, 7)}


class _Large(nn.Module):
    """The exact noise of a state that is multiplied by 5e4, and divided again."""

    def __init__(self, score: Any) -> None:
        super().__init__()
        self.up, self.down, self.score = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), score
        with torch.no_grad():
            self.up.weight.copy_(5e4 * torch.eye(2))
            self.down.weight.copy_(torch.eye(2) / 5e4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.score.noise(self.down(self.up(x)).float(), t)


def overflow() -> dict[str, Any]:
    """Activations that overflow in float16."""
    sde, target = scoresde.VPSDE(), _three()
    net = _Large(target.score(sde)).requires_grad_(False)
    model = scoresde.ScoreModel(net, sde, "noise", event_shape=(2,))
    given = {"method": "dpmpp_2m", "steps": 20, "half_precision": torch.float16}
    return {"sde": sde, "score_fn": model, **given, **_halves(target, 8)}


def late_end() -> dict[str, Any]:
    """The solve ends at t = 0.1."""
    sde, target = scoresde.VPSDE(), _three()
    given = {"method": "dpmpp_2m", "steps": 20, "t_end": 0.1}
    return {"sde": sde, "score_fn": target.score(sde), **given, **_halves(target, 9)}


def shuffled_labels() -> dict[str, Any]:
    """The digits are asked for with the labels of other digits."""
    sde, given = scoresde.VPSDE(), _digits(10)
    order = torch.randperm(10, generator=_seeded(10))
    held_out, labels = given["held_out"]
    given["held_out"], given["context"] = (
        (held_out, {"label": order[labels["label"]]}),
        {"label": order[given["context"]["label"]]},
    )
    score = scoresde.load("digits").score(sde)
    return {"sde": sde, "score_fn": score, "method": "dpmpp_2m", "steps": 20, "denoise": True, **given}


def sound_digits() -> dict[str, Any]:
    """The shipped network."""
    sde = scoresde.VPSDE()
    score = scoresde.load("digits").score(sde)
    return {"sde": sde, "score_fn": score, "method": "dpmpp_2m", "steps": 20, "denoise": True, **_digits(11)}


def sound_stochastic() -> dict[str, Any]:
    """A method that draws noise, with enough steps."""
    sde, target = scoresde.VPSDE(), _three()
    return {"sde": sde, "score_fn": target.score(sde), "method": "dpmpp_2m_sde", "steps": 60, **_halves(target, 12)}


def sound_flow() -> dict[str, Any]:
    """A flow with a step to the data at its end."""
    sde, target = scoresde.FlowSDE(), _three(0.1, 5.0)
    given = {"method": "heun", "steps": 30, "denoise": True}
    return {"sde": sde, "score_fn": target.score(sde), **given, **_halves(target, 13)}


def sound_bfloat16() -> dict[str, Any]:
    """bfloat16 where it does no harm."""
    sde, target = scoresde.VPSDE(), _three()
    given = {"method": "unipc2", "steps": 20, "half_precision": torch.bfloat16}
    return {"sde": sde, "score_fn": target.score(sde), **given, **_halves(target, 14)}


def sound_training() -> dict[str, Any]:
    """A network that was trained for long enough on 5,000 points."""
    sde, given = scoresde.EDMSDE(), _halves(_three(), 15, 5000)
    net = _train(_mlp(15, 2), given["data"], 0.8, 2500, seed=15)
    model = scoresde.ScoreModel(net, sde, "edm", sigma_data=0.8, event_shape=(2,))
    return {"sde": sde, "score_fn": model, "method": "heun", "steps": 30, **given}


FAULTS: dict[str, Case] = {
    "alpha(t_max) too large": Case(alpha_too_large, ("prior",)),
    "five steps": Case(five_steps, ("steps",)),
    "wrong sigma_data": Case(wrong_sigma_data, ("network",)),
    "untrained network": Case(untrained, ("network",)),
    "overtrained network": Case(trained_too_long, ("overfitting", "memorisation")),
    "clipped range": Case(clipped_range, ("range",)),
    "guidance too strong": Case(strong_guidance, ("guidance",)),
    "overflow in float16": Case(overflow, ("dtype",)),
    "t_min too large": Case(late_end, ("t_min",)),
    "labels shuffled": Case(shuffled_labels, ("labels",)),
}

SOUND: dict[str, Case] = {
    "digits": Case(sound_digits, ()),
    "stochastic": Case(sound_stochastic, ()),
    "flow": Case(sound_flow, ()),
    "bfloat16": Case(sound_bfloat16, ()),
    "trained network": Case(sound_training, ()),
}
