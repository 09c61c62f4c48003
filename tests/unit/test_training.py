"""The reference network, the EDM loss and the training loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde.core.errors import NonFiniteError
from scoresde.losses import NoiseLevels, edm
from scoresde.nets import UNet
from scoresde.training import DIGITS_LEVELS, Recipe, digits_split, fit, grey_to_x, train_digits
from scoresde.training.digits import main
from scoresde.zoo import load


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_edm_names_the_noise_level_of_a_nan() -> None:
    def net(x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.where((c_noise > 0.5)[:, None], torch.nan, x)

    levels = NoiseLevels(uniform=1.0, rho_min=0.1, rho_max=10.0)
    with pytest.raises(NonFiniteError, match="rho = ") as caught:
        edm(net, torch.zeros(64, 2), generator(), levels=levels)
    assert caught.value.t is not None and caught.value.t > math.exp(2.0)


def test_noise_levels_are_finite_at_the_ends() -> None:
    u = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    for share in (0.0, 0.25, 1.0):
        rho = NoiseLevels(uniform=share)(u)
        assert bool((torch.isfinite(rho) & (rho > 0)).all())


def test_digits_levels_cover_the_processes() -> None:
    """At least 3 % of the draws at each end: below ρ = 0.003 (sub-VP, flow, VDM start) and above 20 (VE, VP, flow)."""
    rho = DIGITS_LEVELS((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)
    assert (rho < 0.003).double().mean() > 0.03
    assert (rho > 20).double().mean() > 0.03


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


def test_a_run_is_its_seed() -> None:
    """Three steps: the same weights again, whatever the global generator; another seed gives others."""
    recipe = Recipe(steps=3, batch_size=4, warmup=1)
    first = train_digits(0, recipe, progress=False).net.state_dict()
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    again = train_digits(0, recipe, progress=False).net.state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    other = train_digits(1, recipe, progress=False).net.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_fit_stops_at_a_nan_with_step_and_noise_level() -> None:
    def draw(value: float):
        return lambda n, generator: (torch.full((n, 1, 2, 2), value), {})

    def infinite(net, x0, generator, **context):
        return net(x0, torch.zeros(len(x0))).flatten(1).mean(1) * math.inf

    net = UNet((1, 2, 2), channels=8, width=8)
    with pytest.raises(NonFiniteError, match=r"step 0: the loss is nan at noise level rho") as caught:
        fit(net, edm, draw(math.nan), Recipe(steps=3), generator(), progress=False)
    assert caught.value.step == 0 and caught.value.t is not None
    with pytest.raises(NonFiniteError, match="step 0"):
        fit(net, infinite, draw(1.0), Recipe(steps=3), generator(), progress=False)


def test_the_program_writes_a_model_that_loads(tmp_path, capsys) -> None:
    main(["digits", "--out", str(tmp_path / "model"), "--seed", "3", "--steps", "2", "--quiet"])
    model = load(tmp_path / "model")
    assert model.config.command == "python -m scoresde.training digits --out model --seed 3 --steps 2"
    assert "parameters" in capsys.readouterr().out
