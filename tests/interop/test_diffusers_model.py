"""Networks of diffusers as score models, with functions in the place of networks."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, ScoreFnError
from scoresde.interop import conventions, from_diffusers
from scoresde.interop.diffusers.network import DiffusersNetwork
from tests.refusals import refuses

DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "beta_schedule": "scaled_linear"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


def unet(sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True) -> Any:
    """Stands for a UNet2DModel."""
    shift = 0.0 if class_labels is None else class_labels.float().reshape(-1, *[1] * (sample.ndim - 1))
    scale = torch.cos(timestep.float() / 700).reshape(-1, *[1] * (sample.ndim - 1))
    return SimpleNamespace(sample=scale * sample.tanh() + shift)


class Weighted(nn.Module):
    """A module with a config, a dtype, and what it was called with."""

    def __init__(self, dtype: torch.dtype = torch.float32, factor: int = 1, **config: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.config = config
        self.factor = factor
        self.seen: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Any = None, timestep: Any = None) -> Any:
        self.seen = {"x": hidden_states, "text": encoder_hidden_states, "t": timestep}
        return (torch.cat([self.weight * hidden_states] * self.factor, dim=1),)


def noise(shape: tuple[int, ...] = (2, 1, 4, 4), seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alphas_bar() -> Tensor:
    """Of scaled linear betas, by the definition in single precision."""
    return (1 - torch.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2).cumprod(0).double()


# The loops of the papers


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_by_hand(prediction: str) -> None:
    """Equation 12 of DDIM at eta = 0, on leading timesteps with offset 1 that end at level 0."""
    config = {**DDIM, "prediction_type": prediction, "steps_offset": 1, "set_alpha_to_one": False}
    model = from_diffusers(unet, config)
    mine = scoresde.solve(model.sde, model, noise(), grid=model.grid, steps=10, method="ddim")
    bars = alphas_bar()
    x = noise()
    for t in range(901, 0, -100):
        now, then = bars[t], bars[max(t - 100, 0)]
        out = unet(x, torch.full((2,), t)).sample
        data = {
            "epsilon": (x - (1 - now).sqrt() * out) / now.sqrt(),
            "sample": out,
            "v_prediction": now.sqrt() * x - (1 - now).sqrt() * out,
        }[prediction]
        x = then.sqrt() * data + (1 - then).sqrt() * (x - now.sqrt() * data) / (1 - now).sqrt()
    assert mine.evaluations == 10
    assert torch.allclose(mine.x, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_by_hand(variance: str) -> None:
    """Equation 7 of DDPM on respaced levels, with beta of a step as 1 - bar_t / bar_s."""
    config = {**DDIM, "_class_name": "DDPMScheduler", "variance_type": f"fixed_{variance}"}
    model, found = from_diffusers(unet, config), conventions(config)
    draws = [noise(seed=k) for k in range(1, 11)]
    mine = scoresde.solve(
        model.sde,
        model,
        noise(),
        grid=model.grid,
        steps=10,
        method="ancestral",
        variance=found.step_variance,
        noise=lambda k, like: draws[k],
    )
    bars = alphas_bar()
    x = noise()
    for k, t in enumerate(range(900, -1, -100)):
        now, then = bars[t], bars[t - 100] if t else torch.ones((), dtype=torch.float64)
        beta = 1 - now / then
        data = (x - (1 - now).sqrt() * unet(x, torch.full((2,), t)).sample) / now.sqrt()
        mean = then.sqrt() * beta / (1 - now) * data + (now / then).sqrt() * (1 - then) / (1 - now) * x
        std = {"small": (1 - then) / (1 - now) * beta, "large": beta}[variance].sqrt() if t else 0.0
        x = mean + std * draws[k]
    assert torch.allclose(mine.x, x, rtol=1e-9, atol=1e-9)


def test_euler_in_the_noise_level_by_hand() -> None:
    """dx/dsigma = epsilon for x/alpha, with the network's input scaled by 1/(sigma^2 + 1)^(1/2)."""
    config = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "timestep_spacing": "linspace"}
    model = from_diffusers(unet, config)
    start = noise()
    mine = scoresde.solve(model.sde, model, start * model.sde.prior.std, grid=model.grid, steps=7, method="ddim")
    bars = alphas_bar()
    levels = ((1 - bars) / bars).sqrt()
    x = start * levels[-1]
    labels = [999 * (6 - k) / 6 for k in range(7)]
    between = [levels[int(t)] + (t - int(t)) * (levels[min(int(t) + 1, 999)] - levels[int(t)]) for t in labels]
    for label, s, s_next in zip(labels, between, [*between[1:], 0.0], strict=True):
        out = unet(x / (s**2 + 1).sqrt(), torch.full((2,), label)).sample
        x = x + (s_next - s) * out
    assert torch.allclose(mine.x, x, rtol=1e-6, atol=1e-6)  # the stand-in computes in single precision


def test_flow_matching_by_hand() -> None:
    model = from_diffusers(unet, {**FLOW, "shift": 2.0})
    mine = scoresde.solve(model.sde, model, noise(), grid=model.grid, steps=5, method="euler")
    move = lambda s: 2 * s / (1 + s)  # noqa: E731
    levels = [move(1 + k / 4 * (move(0.001) - 1)) for k in range(5)]
    x = noise()
    for s, s_next in zip(levels, [*levels[1:], 0.0], strict=True):
        x = x + (s_next - s) * unet(x, torch.full((2,), 1000 * s)).sample
    assert torch.allclose(mine.x, x, rtol=1e-6, atol=1e-6)


def test_a_start_without_signal() -> None:
    """At alpha = 0 the data estimate of v is -v, and the noise estimate the state."""
    config = {**DDIM, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    model = from_diffusers(unet, config)
    x = noise()
    estimate = model.estimate(x, model.sde.node(1000.0))
    assert torch.allclose(estimate.data, -unet(x, torch.full((2,), 999)).sample)
    assert torch.allclose(estimate.noise, x)
    solution = scoresde.solve(model.sde, model, x, grid=model.grid, steps=10, method="ddim")
    assert bool(solution.x.isfinite().all())


# The grid of the model


def test_a_solve_draws_its_start_where_the_sampler_begins() -> None:
    """ "leading" begins at timestep 950, with the noise of the prior."""
    model = from_diffusers(unet, DDIM, event_shape=(1, 4, 4))
    options = {"grid": model.grid, "steps": 20, "method": "ddim"}
    drawn = scoresde.solve(model.sde, model, shape=(2, 1, 4, 4), noise=lambda k, like: noise().float(), **options)
    given = scoresde.solve(model.sde, model, noise().float(), **options)
    assert drawn.evaluations == 20 and torch.equal(drawn.x, given.x)
    with pytest.raises(InvalidArgumentError, match="t_start"):
        scoresde.solve(model.sde, model, grid=model.grid, steps=20, method="ddim", t_start=500.0)


def test_the_grid_has_a_number_of_steps_and_auto_takes_it() -> None:
    model = from_diffusers(unet, DDIM, event_shape=(1, 4, 4))
    assert scoresde.solve(model.sde, model, grid=model.grid, method="ddim", seed=0).evaluations == 50
    with pytest.raises(InvalidArgumentError, match="steps"):
        scoresde.solve(model.sde, model, grid=model.grid, steps=0, method="ddim", seed=0)
    given, chosen = (
        scoresde.solve(model.sde, model, method="pc", grid=grid, seed=0, x=noise((1, 1, 4, 4)), steps=steps)
        for grid, steps in ((conventions(DDIM).grid(12), None), (model.grid, 12))
    )
    assert torch.equal(given.x, chosen.x) and given.evaluations == chosen.evaluations


def test_mu_shifts_the_grid() -> None:
    config = {**FLOW, "use_dynamic_shifting": True}
    model = from_diffusers(unet, config, mu=1.1, event_shape=(1, 4, 4))
    assert model.grid is not None
    times = model.grid(model.sde, 1.0, 0.0, 4)
    assert times.tolist() == conventions(config).grid(4, mu=1.1).tolist()
    model = from_diffusers(unet, config, event_shape=(1, 4, 4))
    with pytest.raises(InvalidArgumentError, match="`mu` must be given"):
        scoresde.solve(model.sde, model, grid=model.grid, steps=4, method="euler", seed=0)


# What the network receives and returns


def test_arguments_go_by_name() -> None:
    net = Weighted()
    model = from_diffusers(net, FLOW)
    text = torch.ones(2, 3, 5)
    scoresde.solve(
        model.sde, model, noise(), grid=model.grid, steps=2, method="euler", context={"encoder_hidden_states": text}
    )
    assert torch.equal(net.seen["text"], text)
    assert net.seen["t"].tolist() == pytest.approx([1.0, 1.0], rel=1e-5)  # 1000 times the last level, 1/1000


def test_labels_are_class_labels_and_a_context_is_passed_as_it_is() -> None:
    model = from_diffusers(unet, DDIM)
    x, label = noise(), torch.tensor([2, 5])
    wanted = unet(x, torch.full((2,), 499), label).sample
    assert torch.allclose(model.noise(x, 500.0, label=label), wanted)
    assert model.accepts("label") and model.accepts("class_labels") and not model.accepts("other")
    net, ids = Weighted(), torch.ones(7, 3)
    model = from_diffusers(net, FLOW, context={"encoder_hidden_states": ids})
    model.estimate(noise(), model.sde.node(0.5))
    assert net.seen["text"] is ids


def test_the_times_that_the_network_receives() -> None:
    """They keep their digits beside a network in half precision, whole ones are integers, and a factor is applied."""
    net = Weighted(torch.bfloat16)
    model = from_diffusers(net, {**DDIM, "_class_name": "EulerDiscreteScheduler"})
    out = model.noise(noise().float(), 938.25)
    assert net.seen["x"].dtype == torch.bfloat16 and out.dtype == torch.float32
    assert net.seen["t"].dtype == torch.float32
    assert net.seen["t"].tolist() == pytest.approx([937.25] * 2, abs=0.01)
    net = Weighted()
    from_diffusers(net, DDIM).noise(noise(), 938.0)
    assert net.seen["t"].tolist() == [937, 937] and net.seen["t"].dtype == torch.int64
    from_diffusers(net, FLOW, time_scale=1e-3).estimate(noise(), scoresde.FlowSDE().node(0.25))
    assert net.seen["t"].tolist() == pytest.approx([0.25, 0.25])


def test_outputs() -> None:
    wraps: tuple[Any, ...] = (lambda x: x, lambda x: (x, 1), lambda x: SimpleNamespace(sample=x))
    for wrap in wraps:
        net = DiffusersNetwork(lambda sample, timestep, wrap=wrap: wrap(sample))
        assert torch.equal(net(noise(), torch.ones(2)), noise())
    for out in (None, (), [1], SimpleNamespace(images=1)):
        with pytest.raises(ScoreFnError, match="must return a tensor"):
            DiffusersNetwork(lambda sample, timestep, out=out: out)(noise(), torch.ones(2))


def test_minus_edm() -> None:
    config = {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}
    model = from_diffusers(Weighted(), config)
    x, s = noise(), 2.0
    skip, out, size = 0.25 / (s**2 + 0.25), 0.5 * s / math.hypot(s, 0.5), math.hypot(s, 0.5)
    wanted = skip * x - out * (x / size)
    assert torch.allclose(model.data(x, s), wanted, rtol=1e-5, atol=1e-6)


# Learned variances


LEARNED = {**DDIM, "_class_name": "DDPMScheduler", "variance_type": "learned_range"}


def test_a_learned_variance() -> None:
    net = Weighted(factor=2, in_channels=1, out_channels=2)
    model = from_diffusers(net, LEARNED)
    assert model.has_variance and model.variance_name == "learned_range"
    assert torch.allclose(model.variance(noise().float(), 500.0), 0.5 * (noise().float() + 1))
    assert not from_diffusers(Weighted(in_channels=1, out_channels=1), LEARNED).has_variance
    # one that the scheduler does not use is left out
    model = from_diffusers(Weighted(factor=2, in_channels=4, out_channels=8, sample_size=2), DDIM)
    x = noise((2, 4, 2, 2)).float()
    assert not model.has_variance and torch.equal(model.noise(x, 500.0), x)


# What the model knows of its data


def test_shapes_and_ranges() -> None:
    configs: list[tuple[dict[str, Any], object, object]] = [
        ({"in_channels": 3, "sample_size": 32}, (3, 32, 32), (-1.0, 1.0)),
        ({"in_channels": 1, "sample_size": (8, 16)}, (1, 8, 16), (-1.0, 1.0)),
        ({"in_channels": 4, "sample_size": 64}, (4, 64, 64), None),
        ({"in_channels": 64}, None, None),
        ({}, None, None),
    ]
    for config, shape, data_range in configs:
        model = from_diffusers(Weighted(**config), DDIM)
        assert (model.traits.event_shape, model.data_range) == (shape, data_range), config
        model = from_diffusers(Weighted(**config), DDIM, event_shape=(2, 2), data_range=(0.0, 1.0))
        assert (model.traits.event_shape, model.data_range) == ((2, 2), (0.0, 1.0)), config


def scheduler(config: dict[str, Any]) -> Any:
    """Stands for a scheduler."""
    return type(config["_class_name"], (), {"config": config})()


def test_pipelines() -> None:
    net = Weighted(in_channels=3, sample_size=8)
    pixels = from_diffusers(SimpleNamespace(unet=net, scheduler=scheduler(DDIM)))
    assert pixels.data_range == (-1.0, 1.0) and pixels.net.net is net
    latents = from_diffusers(SimpleNamespace(unet=net, vae=object(), scheduler=scheduler(DDIM)))
    assert latents.data_range is None
    flow = from_diffusers(SimpleNamespace(transformer=net, unet=None, scheduler=scheduler(FLOW), vae=object()))
    assert flow.prediction == "flow"
    other = from_diffusers(SimpleNamespace(unet=net, scheduler=scheduler(DDIM)), FLOW)
    assert other.prediction == "flow"


def test_what_is_no_network_of_a_state_and_a_timestep_is_refused() -> None:
    more = Weighted(in_channels=9, out_channels=4)
    cases: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((unet,), InvalidArgumentError, "`scheduler` must be given"),
        ((more, DDIM), InvalidArgumentError, "takes 9 channels and predicts 4"),
        ((lambda x, t: x, DDIM), InvalidArgumentError, "`timestep`"),
        *(((model, DDIM), InvalidTypeError, "`model`") for model in (3, "unet", SimpleNamespace(), Weighted)),
    ]
    refuses((functools.partial(from_diffusers, *given), error, said) for given, error, said in cases)
