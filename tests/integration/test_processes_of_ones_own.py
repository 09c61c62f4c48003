"""Processes of one's own, learned schedules, and draws when samples leave the batch."""

from __future__ import annotations

import math

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, NormalPrior, ScoreModel


class Channels(scoresde.SDE):
    """An Ornstein-Uhlenbeck process with another noise in each channel; g broadcasts against (batch, 3, 2, 2)."""

    noise = torch.tensor([0.5, 1.0, 2.0])

    def drift(self, x, t):
        return -x

    def diffusion(self, t):
        return self.noise.reshape(1, 3, 1, 1) * torch.exp(-0 * torch.as_tensor(t)).reshape(-1, 1, 1, 1)


def channels():
    return Channels(t_min=0.0, t_max=4.0, prior=NormalPrior())


@pytest.mark.parametrize("batch", [3, 5])
def test_noise_of_each_channel_is_its_own(batch):
    path = scoresde.simulate(
        channels(), torch.zeros(batch, 3, 2, 2), steps=1, noise=lambda k, like: torch.ones_like(like)
    )
    assert torch.allclose(path.x, 2 * channels().noise.reshape(1, 3, 1, 1).expand(batch, 3, 2, 2))


@pytest.mark.parametrize("method", ["euler_maruyama", "heun", "rk45"])
def test_a_diffusion_may_use_torch_functions_of_its_time(method):
    extra = {} if method == "rk45" else {"steps": 4}
    solution = scoresde.solve(channels(), lambda x, t: -x, torch.ones(3, 3, 2, 2), method=method, seed=0, **extra)
    assert solution.x.dtype == torch.float32 and bool(solution.success.all())


def test_a_drift_of_another_shape_is_refused():
    class Wrong(Channels):
        def drift(self, x, t):
            return -x.sum(1, keepdim=True)

    with pytest.raises(InvalidArgumentError, match=r"Wrong.drift must return a tensor of shape \(2, 3, 2, 2\)"):
        scoresde.simulate(Wrong(t_min=0.0, t_max=1.0, prior=NormalPrior()), torch.zeros(2, 3, 2, 2))


GENERAL = [m.name for m in scoresde.methods() if m.name == m.solver.name and not m.solver().affine]


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


@pytest.mark.parametrize(("batch", "event"), [(1, (2,)), (2, (2,)), (3, (2,)), (3, (3, 2))], ids=str)
@pytest.mark.parametrize("method", GENERAL)
def test_a_diffusion_of_the_shape_of_the_event_is_one_value_per_dimension(method, event, batch):
    g = torch.linspace(0.5, 2.0, math.prod(event)).double().reshape(event)
    x = torch.linspace(-1.0, 1.0, batch * g.numel()).double().reshape(batch, *event)
    assert torch.equal(run(lambda t: g, x, method), run(lambda t: g[None], x, method))


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("method", [None, "heun_sde", "sra1", "shark"])
def test_a_path_has_the_noise_of_each_dimension(method, batch):
    g, x = torch.tensor([0.5, 2.0]), torch.zeros(batch, 2)
    paths = [
        scoresde.simulate(own(diffusion), x, steps=5, method=method, seed=0).x
        for diffusion in (lambda t: g, lambda t: g[None], lambda t: torch.as_tensor(1.0))
    ]
    assert torch.equal(paths[0], paths[1])
    torch.testing.assert_close(paths[0], g * paths[2])  # linear in the noise


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("method", ["euler_maruyama", "heun", "rk45", "scipy:RK45", "torchsde:srk"])
def test_values_per_dimension_may_change_with_time(method, batch):
    g, x = torch.tensor([0.5, 2.0]).double(), torch.ones(batch, 2).double()
    changing = run(lambda t: torch.exp(-t)[..., None] * g, x, method)
    assert torch.equal(changing, run(lambda t: torch.exp(-t).reshape(-1, 1) * g, x, method))


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("method", ["euler_maruyama", "rk45"])
def test_one_value_for_all_dimensions_changes_with_the_time_of_each_sample(method, batch):
    x = torch.linspace(-2, 2, 2 * batch).double().reshape(batch, 2)
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


@pytest.mark.parametrize(
    ("diffusion", "event", "method"),
    [
        (lambda t: torch.ones(3), (2,), "euler_maruyama"),  # a value per sample of one batch: the times do not know it
        (lambda t: torch.ones(3), (2, 3), "euler_maruyama"),  # of the last axis, or of a sample?
        (lambda t: torch.ones(3), (3, 2), "rk45"),
        (lambda t: torch.ones(2, 2), (2,), "euler_maruyama"),
        (lambda t: t.reshape(-1, 1) * torch.ones(1, 1), (3, 3), "rk45"),  # rows of the event, or samples?
        (lambda t: [1.0, 2.0], (2,), "heun"),
        (lambda t: 1j, (2,), "heun"),
    ],
)
def test_a_diffusion_that_can_be_read_in_two_ways_is_refused_before_the_first_evaluation(diffusion, event, method):
    def score(x, t):
        pytest.fail("evaluated")

    with pytest.raises(InvalidArgumentError, match=r"Own.diffusion must return .* one value per dimension, \([23]"):
        scoresde.solve(own(diffusion), score, torch.ones(3, *event), method=method, seed=0)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_diffusion_that_fails_for_another_batch_says_what_to_write(batch):
    g = torch.tensor([0.5, 2.0]).double()
    with pytest.raises(InvalidArgumentError, match=r"failed for 3 .* write t\[..., None\] \* g"):
        run(lambda t: t * g, torch.ones(batch, 2), "rk45")


def test_a_score_of_an_affine_process_does_not_fit_another_kind():
    model = ScoreModel(lambda x, t: x, scoresde.VPSDE(), "noise")
    with pytest.raises(InvalidArgumentError, match="was made for VPSDE"):
        scoresde.solve(channels(), model, torch.zeros(2, 3, 2, 2), method="heun")


class LearnedGamma(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(18.0, dtype=torch.float64))

    def forward(self, t):
        return -13.0 + self.slope * t


@pytest.mark.parametrize("method", ["ddim", "heun", "rk4", "ancestral", "pc"])
def test_the_gradient_reaches_a_learned_schedule_on_a_fixed_grid(method):
    gamma = LearnedGamma()
    sde = scoresde.VDMSDE(gamma)
    target = scoresde.targets.Gaussian(torch.zeros(2).double(), torch.tensor([1.0, 0.1]).double())
    x = torch.tensor([[1.0, -0.5]], dtype=torch.float64)

    def final(differentiable):
        with torch.set_grad_enabled(differentiable):
            return scoresde.solve(
                sde, target.score(sde), x, method=method, steps=6, grid="time", seed=0, differentiable=differentiable
            ).x.sum()

    (slope,) = torch.autograd.grad(final(True), gamma.slope)
    with torch.no_grad():
        gamma.slope += 1e-5
        up = final(False)
        gamma.slope -= 2e-5
        down = final(False)
    assert float(slope) == pytest.approx(float(up - down) / 2e-5, rel=1e-5)


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


@pytest.mark.parametrize(
    "grid",
    [
        lambda sde, a, b, n: torch.linspace(a, b, n + 1),
        lambda sde, a, b, n: torch.linspace(a ** (1 / 7), b ** (1 / 7), n + 1) ** 7,
    ],
    ids=["float32", "powers"],
)
def test_a_grid_function_may_round_its_ends(grid):
    sde = scoresde.VPSDE()
    solution = scoresde.solve(sde, lambda x, t: -x, torch.ones(2, 2), method="ddim", steps=10, grid=grid)
    assert solution.t.tolist() == [sde.t_min] * 2


@pytest.mark.parametrize(("sign", "name"), [(1, "flow"), (-1, "minus flow")])
def test_a_velocity_taken_for_a_score_is_named(sign, name):
    sde = scoresde.FlowSDE()
    target = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), scales=0.2)
    data = target.sample(500, generator=torch.Generator().manual_seed(0))
    score = target.score(sde)

    def velocity(x, t):
        node = sde.nodes(t)
        data, noise = score.estimate(x, node)
        return sign * (noise - data)

    assert scoresde.check_score(sde, velocity, data).convention == name
