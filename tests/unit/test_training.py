"""The reference network, the EDM loss and the training loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError
from scoresde.losses import NoiseLevels, edm
from scoresde.nets import UNet, build
from scoresde.training import DIGITS_LEVELS, Recipe, digits_split, fit, grey_to_x, main, train_digits
from scoresde.training.seeds import WEIGHTS, seed_of
from scoresde.zoo import load


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net() -> UNet:
    """A small network none of whose outputs or branches is zero, as it is at the start."""
    torch.manual_seed(0)
    net = UNet(channels=8, width=8)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


# ---- the network -----------------------------------------------------------------------------------------------------


def test_unet_starts_at_zero() -> None:
    x = torch.randn(2, 1, 8, 8, generator=generator())
    assert bool((UNet(channels=8)(x, torch.zeros(2)) == 0).all())


def test_unet_reads_image_noise_level_and_label(net: UNet) -> None:
    x = torch.randn(2, 1, 8, 8, generator=generator())
    base = net(x, torch.zeros(2))
    assert not torch.allclose(base, net(x + 0.1, torch.zeros(2)))
    assert not torch.allclose(base, net(x, torch.ones(2)))
    assert not torch.allclose(base, net(x, torch.zeros(2), torch.tensor([3, 3])))


def test_unet_label_forms_agree(net: UNet) -> None:
    x = torch.randn(3, 1, 8, 8, generator=generator())
    c = torch.full((3,), 0.2)
    assert torch.equal(net(x, c), net(x, c, torch.tensor([10, 10, 10])))
    assert torch.equal(net(x, c, 4), net(x, c, torch.tensor([4, 4, 4])))
    assert torch.equal(net(x, c, 4), net(x, torch.tensor(0.2), torch.tensor([4, 4, 4], dtype=torch.int32)))


def test_unet_is_rowwise(net: UNet) -> None:
    x = torch.randn(5, 1, 8, 8, generator=generator())
    c, label = torch.linspace(-1, 1, 5), torch.arange(5)
    together = net(x, c, label)
    alone = torch.cat([net(x[i : i + 1], c[i : i + 1], label[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", [11, -1, torch.tensor([0, 11])])
def test_unet_refuses_a_label_out_of_range(net: UNet, label: int | Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match="label"):
        net(torch.zeros(2, 1, 8, 8), torch.zeros(2), label)


def test_unet_refuses_other_labels(net: UNet) -> None:
    x, c = torch.zeros(2, 1, 8, 8), torch.zeros(2)
    with pytest.raises(InvalidTypeError, match="integers"):
        net(x, c, torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match="shape"):
        net(x, c, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    "arguments",
    [
        {"event_shape": (8, 8)},
        {"event_shape": (0, 8, 8)},
        {"channels": 12},
        {"channels": 10**9},
        {"blocks": 0},
        {"blocks": 10**9},
        {"width": 0},
        {"labels": 10**12},
        {"dropout": 1.5},
    ],
)
def test_unet_refuses_sizes(arguments: dict) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
        UNet(**arguments)


def test_build_suggests_a_name() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'unet'"):
        build("unt", {})


# ---- the loss --------------------------------------------------------------------------------------------------------


def levels_at(rho: float):
    return lambda u: torch.full_like(u, rho)


@pytest.mark.parametrize("rho", [1e-3, 0.3, 5.0, 50.0])
def test_edm_is_the_weighted_denoising_error(rho: float) -> None:
    """λ(ρ) |D − x0|², by EDM's formulas as printed, in float64."""
    x0 = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    sd = 0.7

    def net(x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.tanh(x) + c_noise[:, None]

    got = edm(net, x0, generator(1), sigma_data=sd, levels=levels_at(rho))
    g = generator(1)
    torch.rand((), generator=g, dtype=torch.float64)
    y = x0 + rho * torch.randn(x0.shape, generator=g, dtype=torch.float64)
    c_noise = torch.full((4,), math.log(rho) / 4, dtype=torch.float64)
    c_skip, c_out = sd**2 / (rho**2 + sd**2), rho * sd / math.sqrt(rho**2 + sd**2)
    denoised = c_skip * y + c_out * net(y / math.sqrt(rho**2 + sd**2), c_noise)
    weight = (rho**2 + sd**2) / (rho * sd) ** 2
    torch.testing.assert_close(got, weight * (denoised - x0).square().mean(1), rtol=1e-9, atol=1e-12)


def test_edm_of_the_exact_denoiser_is_the_posterior_variance() -> None:
    """For data N(0, sd²) the optimal F is 0 and the loss is 1 at every level: 40,000 draws, 4 standard errors."""
    x0 = 0.7 * torch.randn(20_000, 2, generator=generator(), dtype=torch.float64)
    loss = edm(lambda x, c: torch.zeros_like(x), x0, generator(1), sigma_data=0.7)
    assert abs(loss.mean().item() - 1) < 4 * math.sqrt(2 / 40_000)


def test_edm_passes_context_and_uses_the_generator_alone() -> None:
    seen = {}

    def net(x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        seen["label"] = label
        return x

    label = torch.arange(6)
    first = edm(net, torch.zeros(6, 2), generator(3), label=label)
    assert seen["label"] is label
    state = torch.random.get_rng_state()
    assert torch.equal(first, edm(net, torch.zeros(6, 2), generator(3), label=label))
    assert torch.equal(state, torch.random.get_rng_state())


def test_edm_names_the_noise_level_of_a_nan() -> None:
    def net(x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.where((c_noise > 0.5)[:, None], torch.nan, x)

    levels = NoiseLevels(uniform=1.0, rho_min=0.1, rho_max=10.0)
    with pytest.raises(NonFiniteError, match="rho = ") as caught:
        edm(net, torch.zeros(64, 2), generator(), levels=levels)
    assert caught.value.t is not None and caught.value.t > math.exp(2.0)


def test_edm_refuses() -> None:
    zero = lambda x, c: torch.zeros_like(x)  # noqa: E731
    with pytest.raises(InvalidTypeError, match="float"):
        edm(zero, torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(InvalidArgumentError, match="batch"):
        edm(zero, torch.zeros(2))
    with pytest.raises(InvalidArgumentError, match="sigma_data"):
        edm(zero, torch.zeros(2, 2), sigma_data=0.0)
    with pytest.raises(ScoreFnError, match="shape"):
        edm(lambda x, c: x[:1], torch.zeros(2, 2))
    assert edm(zero, torch.zeros(0, 2)).shape == (0,)


def test_noise_levels_follow_their_law() -> None:
    """Quantiles of the mixture, from its own distribution function."""
    levels = NoiseLevels(mean=-0.5, std=1.5, uniform=0.3, rho_min=0.01, rho_max=100.0)
    log = levels((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).log()
    for point in (-4.0, -1.0, 0.0, 2.0, 4.0):
        normal = 0.5 * (1 + math.erf((point + 0.5) / 1.5 / math.sqrt(2)))
        uniform = (point - math.log(0.01)) / math.log(1e4)
        assert abs((log < point).double().mean().item() - (0.7 * normal + 0.3 * uniform)) < 1e-4


def test_noise_levels_are_finite_at_the_ends() -> None:
    u = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    for share in (0.0, 0.25, 1.0):
        rho = NoiseLevels(uniform=share)(u)
        assert bool((torch.isfinite(rho) & (rho > 0)).all())


@pytest.mark.parametrize(
    "arguments", [{"std": 0.0}, {"uniform": 1.1}, {"rho_min": 2.0, "rho_max": 1.0}, {"std": math.nan}]
)
def test_noise_levels_refuse(arguments: dict) -> None:
    with pytest.raises(InvalidArgumentError, match="distribution of noise levels"):
        NoiseLevels(**arguments)


def test_digits_levels_cover_the_processes() -> None:
    """At least 3 % of the draws at each end: below ρ = 0.003 (sub-VP, flow, VDM start) and above 20 (VE, VP, flow)."""
    rho = DIGITS_LEVELS((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)
    assert (rho < 0.003).double().mean() > 0.03
    assert (rho > 20).double().mean() > 0.03


# ---- the data and the loop -------------------------------------------------------------------------------------------


def test_digits_split_is_a_partition_by_seed() -> None:
    split = digits_split()
    assert [len(part) for part in split] == [1437, 1437, 360, 360]
    assert split.train_images.dtype == split.train_labels.dtype == torch.long
    assert split.train_labels.unique().tolist() == split.test_labels.unique().tolist() == list(range(10))
    total = split.train_images.sum() + split.test_images.sum()
    assert total == digits_split(1).train_images.sum() + digits_split(1).test_images.sum()
    assert all(torch.equal(a, b) for a, b in zip(split, digits_split(), strict=True))
    assert not torch.equal(split.test_images, digits_split(1).test_images)


def test_grey_to_x_fills_the_cells() -> None:
    v = torch.arange(17).repeat(200)
    x = grey_to_x(v, generator())
    assert bool((((x + 1) / 2 * 17).floor() == v).all())
    assert x.min() >= -1 and x.max() < 1
    assert x.unique().numel() > 3000


def test_a_run_is_its_seed(tmp_path) -> None:
    """20 steps: the same weights again, whatever the global generator; another seed gives others."""
    recipe = Recipe(steps=20, batch_size=16, warmup=5)
    first = train_digits(0, recipe, progress=False).net.state_dict()
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    again = train_digits(0, recipe, progress=False).net.state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    other = train_digits(1, recipe, progress=False).net.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_a_seed_may_be_a_tensor() -> None:
    assert seed_of(torch.tensor(3), WEIGHTS) == seed_of(3, WEIGHTS)  # type: ignore[arg-type]


def test_fit_learns_and_averages() -> None:
    """On a point mass the optimal F is known; the loss falls to a tenth of its start."""
    torch.manual_seed(0)
    net = UNet((1, 2, 2), channels=8, width=8)
    levels = NoiseLevels(mean=0.0, std=0.5)

    def draw(n: int, generator: torch.Generator):
        return torch.full((n, 1, 2, 2), 0.5), {}

    def mean_loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return edm(model, draw(2000, generator())[0], generator(9), levels=levels).mean().item()

    def loss(net, x0, generator, **context):
        return edm(net, x0, generator, levels=levels, **context)

    before = mean_loss(net)
    averaged = fit(net, loss, draw, Recipe(steps=150, batch_size=32, warmup=10, ema=0.9), generator(), progress=False)
    assert mean_loss(averaged) < 0.1 * before
    assert averaged is not net and not averaged.training
    assert not torch.equal(averaged.stem.weight, net.stem.weight)


def test_fit_stops_at_a_nan_with_step_and_noise_level() -> None:
    def draw(n: int, generator: torch.Generator):
        return torch.full((n, 1, 2, 2), math.nan), {}

    with pytest.raises(NonFiniteError, match=r"step 0: the loss is nan at noise level rho") as caught:
        fit(UNet((1, 2, 2), channels=8, width=8), edm, draw, Recipe(steps=3), generator(), progress=False)
    assert caught.value.step == 0 and caught.value.t is not None

    def bad(net, x0, generator, **context):
        return net(x0, torch.zeros(len(x0))).flatten(1).mean(1) * math.inf

    def good_draw(n: int, generator: torch.Generator):
        return torch.ones(n, 1, 2, 2), {}

    with pytest.raises(NonFiniteError, match="step 0"):
        fit(UNet((1, 2, 2), channels=8, width=8), bad, good_draw, Recipe(steps=3), generator(), progress=False)


def test_recipe_warms_up_and_decays() -> None:
    recipe = Recipe(steps=1000, warmup=100, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(1000)]
    assert rates[0] < 0.02 and max(rates) > 0.97 and rates[-1] < 1e-4
    assert rates.index(max(rates)) == 99
    with pytest.raises(InvalidArgumentError, match="steps"):
        Recipe(steps=0)


def test_the_program_writes_a_model_that_loads(tmp_path, capsys) -> None:
    main(["digits", "--out", str(tmp_path / "model"), "--seed", "3", "--steps", "2", "--quiet"])
    model = load(tmp_path / "model")
    assert model.config.command == "python -m scoresde.training digits --out model --seed 3 --steps 2"
    assert "parameters" in capsys.readouterr().out
