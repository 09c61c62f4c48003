"""Processes of one's own, learned schedules, and draws when samples leave the batch."""

from __future__ import annotations

import math

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, NormalPrior
from tests.parameters import own_methods


class Channels(scoresde.SDE):
    """An Ornstein-Uhlenbeck process with another noise in each channel; g broadcasts against (batch, 3, 2, 2)."""

    noise = torch.tensor([0.5, 1.0, 2.0])

    def drift(self, x, t):
        return -x

    def diffusion(self, t):
        return self.noise.reshape(1, 3, 1, 1) * torch.exp(-0 * torch.as_tensor(t)).reshape(-1, 1, 1, 1)


def channels():
    return Channels(t_min=0.0, t_max=4.0, prior=NormalPrior())


def test_noise_of_each_channel_is_its_own():
    for batch in (3, 5):
        x, noise = torch.zeros(batch, 3, 2, 2), lambda k, like: torch.ones_like(like)
        path = scoresde.simulate(channels(), x, steps=1, noise=noise)
        assert torch.allclose(path.x, 2 * channels().noise.reshape(1, 3, 1, 1).expand(batch, 3, 2, 2))


def test_a_drift_of_another_shape_is_refused():
    class Wrong(Channels):
        def drift(self, x, t):
            return -x.sum(1, keepdim=True)

    with pytest.raises(InvalidArgumentError, match=r"Wrong.drift must return a tensor of shape \(2, 3, 2, 2\)"):
        scoresde.simulate(Wrong(t_min=0.0, t_max=1.0, prior=NormalPrior()), torch.zeros(2, 3, 2, 2))


GENERAL = [m.name for m in own_methods() if not m.solver().affine]


def own(diffusion):
    """dx = -x dt + g(t) dw with the given g."""

    class Own(scoresde.SDE):
        def drift(self, x, t):
            return -x

        def diffusion(self, t):
            return diffusion(t)

    return Own(t_min=0.0, t_max=1.0, prior=NormalPrior())


def run(diffusion, x, method):
    adaptive = next(m.adaptive for m in scoresde.methods() if m.name == method)
    options = {"rtol": 0.05, "atol": 0.05} if adaptive else {"steps": 4}
    return scoresde.solve(own(diffusion), lambda x, t: -x, x, method=method, seed=0, **options).x


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_diffusion_of_the_shape_of_the_event_is_one_value_per_dimension(batch):
    for event in ((2,), (3, 2)):
        g = torch.linspace(0.5, 2.0, math.prod(event)).double().reshape(event)
        x = torch.linspace(-1.0, 1.0, batch * g.numel()).double().reshape(batch, *event)
        for method in GENERAL if (batch, event) == (2, (2,)) else ("euler_maruyama", "heun_sde", "rk45", "sra1"):
            assert torch.equal(run(lambda t, g=g: g, x, method), run(lambda t, g=g: g[None], x, method)), method


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_path_has_the_noise_of_each_dimension(batch):
    g, x = torch.tensor([0.5, 2.0]), torch.zeros(batch, 2)
    for method in (None, "heun_sde", "sra1", "shark"):
        paths = [
            scoresde.simulate(own(diffusion), x, steps=5, method=method, seed=0).x
            for diffusion in (lambda t: g, lambda t: g[None], lambda t: torch.as_tensor(1.0))
        ]
        assert torch.equal(paths[0], paths[1]), method
        torch.testing.assert_close(paths[0], g * paths[2])  # linear in the noise


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_values_per_dimension_may_change_with_time(batch):
    g, x = torch.tensor([0.5, 2.0]).double(), torch.ones(batch, 2).double()
    for method in ("euler_maruyama", "heun", "rk45", "scipy:RK45", "torchsde:srk"):
        changing = run(lambda t: torch.exp(-t)[..., None] * g, x, method)
        assert torch.equal(changing, run(lambda t: torch.exp(-t).reshape(-1, 1) * g, x, method)), method


@pytest.mark.parametrize("method", ["euler_maruyama", "rk45"])
def test_one_value_for_all_dimensions_changes_with_the_time_of_each_sample(method):
    x = torch.linspace(-2, 2, 6).double().reshape(3, 2)
    each = [run(lambda t: 0.3 + torch.sin(t), row[None], method)[0] for row in x]
    together = run(lambda t: 0.3 + torch.sin(t), x, method)
    if method == "rk45":
        assert torch.equal(together, torch.stack(each))
    wide = run(lambda t: (0.3 + torch.sin(t)).reshape(-1, 1), x, method)
    assert torch.equal(together, wide)


def test_the_reverse_form_and_the_loss_read_a_diffusion_in_the_same_way():
    g, x, t = torch.tensor([0.5, 2.0]), torch.ones(2, 2), torch.tensor([0.2, 0.3])
    flat, full = own(lambda t: g), own(lambda t: g[None])
    for time in (0.2, t):
        forms = [sde.reverse(lambda x, t: -x).drift(x, time) for sde in (flat, full)]
        assert torch.equal(*forms) and torch.equal(forms[0], -x + g**2 * x)
    losses = [
        scoresde.losses.transition_score_matching(
            lambda x, t: -x, x, torch.Generator().manual_seed(0), sde=sde, t=t, step=0.1
        )
        for sde in (flat, full)
    ]
    assert torch.equal(*losses)


def test_a_diffusion_that_can_be_read_in_two_ways_is_refused_before_the_first_evaluation():
    def score(x, t):
        pytest.fail("evaluated")

    for diffusion, event, method in (
        (lambda t: torch.ones(3), (2,), "euler_maruyama"),  # a value per sample of one batch: the times do not know it
        (lambda t: torch.ones(3), (2, 3), "euler_maruyama"),  # of the last axis, or of a sample?
        (lambda t: torch.ones(3), (3, 2), "rk45"),
        (lambda t: torch.ones(2, 2), (2,), "euler_maruyama"),
        (lambda t: torch.ones(3, 2, 1), (2,), "euler_maruyama"),
        (lambda t: t.reshape(-1, 1) * torch.ones(1, 1), (3, 3), "rk45"),  # rows of the event, or samples?
        (lambda t: [1.0, 2.0], (2,), "heun"),
        (lambda t: 1j, (2,), "heun"),
    ):
        with pytest.raises(InvalidArgumentError, match=r"Own.diffusion must return .* one value per dimension, \([23]"):
            scoresde.solve(own(diffusion), score, torch.ones(3, *event), method=method, seed=0)
    g = torch.tensor([0.5, 2.0]).double()
    for batch in (1, 2):  # one that fails for another batch says what to write
        with pytest.raises(InvalidArgumentError, match=r"failed for 3 .* write t\[..., None\] \* g"):
            run(lambda t: t * g, torch.ones(batch, 2), "rk45")


class LearnedGamma(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(18.0, dtype=torch.float64))

    def forward(self, t):
        return -13.0 + self.slope * t


def test_the_gradient_reaches_a_learned_schedule_on_a_fixed_grid():
    gamma = LearnedGamma()
    sde = scoresde.VDMSDE(gamma)
    score = scoresde.targets.Gaussian(torch.zeros(2).double(), torch.tensor([1.0, 0.1]).double()).score(sde)
    x = torch.tensor([[1.0, -0.5]], dtype=torch.float64)

    def final(method, differentiable, moved=0.0):
        options = {"method": method, "steps": 6, "grid": "time", "seed": 0, "differentiable": differentiable}
        with torch.set_grad_enabled(differentiable):
            gamma.slope.data += moved
            end = scoresde.solve(sde, score, x, **options).x.sum()
            gamma.slope.data -= moved
        return end

    for method in ("ddim", "heun", "rk4", "ancestral", "pc"):
        (slope,) = torch.autograd.grad(final(method, True), gamma.slope)
        difference = (final(method, False, 1e-5) - final(method, False, -1e-5)) / 2e-5
        assert float(slope) == pytest.approx(float(difference), rel=1e-5), method


@pytest.mark.parametrize("rowwise", [False, True])
def test_a_failed_mate_does_not_change_the_draws_of_the_others(rowwise):
    def score(x, t):
        bad = (x[:, :1] > 100) & (t[:, None] < 0.5)
        return torch.where(bad, torch.full_like(x, torch.nan), torch.where(x.abs() > 100, torch.zeros_like(x), -x))

    score.rowwise = rowwise
    x = torch.ones(4, 2, dtype=torch.float64)
    sick = x.clone()
    sick[0] = 1e6
    arguments = {"method": "ancestral", "steps": 20, "seed": 0, "throw": False}
    sde = scoresde.VPSDE()
    with_mate, alone = (scoresde.solve(sde, score, start, **arguments) for start in (sick, x))
    assert not bool(with_mate.success[0]) and bool(alone.success.all())
    assert torch.allclose(with_mate.x[1:], alone.x[1:], rtol=1e-12, atol=1e-12)


def test_a_grid_function_may_round_its_ends():
    sde = scoresde.VPSDE()
    powers = lambda sde, a, b, n: torch.linspace(a ** (1 / 7), b ** (1 / 7), n + 1) ** 7  # noqa: E731
    for grid in (lambda sde, a, b, n: torch.linspace(a, b, n + 1), powers):
        solution = scoresde.solve(sde, lambda x, t: -x, torch.ones(2, 2), method="ddim", steps=10, grid=grid)
        assert solution.t.tolist() == [sde.t_min] * 2
