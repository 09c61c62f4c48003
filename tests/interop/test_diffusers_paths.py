"""Log-densities of single steps in the loops of trainers for diffusers' models."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from scoresde.core.errors import InvalidArgumentError

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
diffusers = pytest.importorskip("diffusers")

from scoresde.interop import DiffusersScheduler  # noqa: E402

SHAPE = (3, 1, 4, 4)


def scheduler(method: str = "ddim_eta", **options: Any) -> Any:
    config = diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False).config
    return DiffusersScheduler.from_config(config, method=method, options=options)


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.9 * torch.tanh(x) + 1e-4 * t


def loop(made: Any, steps: int = 5) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """What a trainer keeps: timesteps, states, the next states, log-densities."""
    made.set_timesteps(steps)
    made.generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    kept = []
    for t in made.timesteps:
        out = made.step(net(x, t), t, x, log_prob=True)
        kept.append((t, x, out.prev_sample, out.log_prob))
        x = out.prev_sample
    return kept


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_it_is_the_density_of_ddim_s_step(eta: float) -> None:
    """Written as trainers do, by the cumulative products of the schedule."""
    made = scheduler(eta=eta)
    products = diffusers.DDIMScheduler(num_train_timesteps=1000).alphas_cumprod.double()
    kept = loop(made)
    for (t, x, after, log_prob), (s, *_) in itertools.pairwise(kept):
        now, then, out = products[t], products[s], net(x, t).double()
        std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        data = (x.double() - (1 - now).sqrt() * out) / now.sqrt()
        mean = then.sqrt() * data + (1 - then - std**2).sqrt() * out
        expected = torch.distributions.Normal(mean, std).log_prob(after.double()).flatten(1).sum(1)
        torch.testing.assert_close(log_prob, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("method", ["ddim_eta", "ancestral", "euler_maruyama", "reverse_diffusion", "seeds1"])
def test_replayed_steps_have_the_same_densities_in_any_order_and_gradients(method: str) -> None:
    made = scheduler(method)
    kept = loop(made)
    for t, x, after, log_prob in reversed(kept):
        scale = torch.ones((), requires_grad=True)
        replayed = made.step(scale * net(x, t), t, x, prev_sample=after)
        assert torch.equal(replayed.log_prob, log_prob) and replayed.prev_sample is after
        if bool((log_prob != 0).any()):
            (gradient,) = torch.autograd.grad(replayed.log_prob.sum(), scale)
            assert bool(gradient.isfinite()) and gradient != 0
        state, value = made.step(net(x, t), t, x, prev_sample=after, return_dict=False)
        assert state is after and torch.equal(value, log_prob)


def test_samples_do_not_change() -> None:
    one, other = scheduler(), scheduler()
    kept = loop(one)
    other.set_timesteps(5)
    other.generator = torch.Generator().manual_seed(0)
    x = kept[0][1]
    for t in other.timesteps:
        (x,) = other.step(net(x, t), t, x, return_dict=False)
    assert torch.equal(x, kept[-1][2])


@pytest.mark.parametrize("method", ["dpmpp_2m_sde", "seeds2", "pc", "sa_solver"])
def test_methods_that_need_more_are_refused(method: str) -> None:
    made = scheduler(method)
    made.set_timesteps(4)
    x = torch.zeros(SHAPE)
    with pytest.raises(InvalidArgumentError, match="log-density of single steps"):
        made.step(net(x, made.timesteps[0]), made.timesteps[0], x, prev_sample=x)


def test_a_method_without_noise_has_none() -> None:
    made = scheduler("heun")
    made.set_timesteps(4)
    x = torch.zeros(SHAPE)
    with pytest.raises(InvalidArgumentError, match="log-density of single steps"):
        made.step(net(x, made.timesteps[0]), made.timesteps[0], x, prev_sample=x)
