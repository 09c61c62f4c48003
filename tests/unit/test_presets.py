"""The published systems: their numbers against the published ones, their losses, what they leave, how it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import scoresde
from scoresde.cli import app
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError
from scoresde.core.sdes import Estimate, Node
from scoresde.core.sdes.records import LearnedEstimate
from scoresde.discrete import BetaChain, NoiseScales
from scoresde.discrete.ncsnv2 import best_step, largest_distance, spread
from scoresde.losses import NoiseLevels
from scoresde.nets import MonotoneGamma
from scoresde.presets import PRESETS, edm, ncsn, scaling
from scoresde.scores import ScoreModel
from scoresde.training import Batches, Preset, Stateless, Trainer, digits_split, read, train
from scoresde.training.data import Unlabelled
from scoresde.zoo import Config, Sampler

from .refusals import assert_refused

NAMES = list(PRESETS)
OWN = ["edm-wide", "mnist"]  # the recipes of the networks that come with the package
PUBLISHED = [name for name in NAMES if name not in OWN]
EPOCHS, WIDTH = 1437 / 50_000, 128 / 32  # what is counted in steps, and learning rates
SMALL: dict[str, Any] = {"channels": 8, "blocks": 1, "width": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(name: str, steps: int = 1, batch_size: int = 8) -> Preset:
    """A preset with a tiny network."""
    preset = PRESETS[name]
    kwargs = {**preset.kwargs, **SMALL}
    kwargs.pop("multipliers", None)
    return replace(preset, kwargs=kwargs, recipe=replace(preset.recipe, steps=steps, batch_size=batch_size))


# steps, learning rate, EMA, warm-up, clip, batch, dropout, as published for CIFAR-10
RECIPES: dict[str, tuple[float, float, float, float, float, int, float]] = {
    "ncsn": (200_000, 1e-3, 0.0, 0, math.inf, 128, 0.0),
    "ncsnv2": (300_000, 1e-4, 0.999, 0, math.inf, 128, 0.0),
    "ddpm": (800_000, 2e-4, 0.9999, 5000, 1.0, 128, 0.1),
    "iddpm": (500_000, 1e-4, 0.9999, 0, math.inf, 128, 0.3),
    "score-sde-ve": (1_300_000, 2e-4, 0.999, 5000, 1.0, 128, 0.1),
    "score-sde-vp": (1_300_000, 2e-4, 0.9999, 5000, 1.0, 128, 0.1),
    "score-sde-subvp": (1_300_000, 2e-4, 0.9999, 5000, 1.0, 128, 0.1),
    "vdm": (10_000_000, 2e-4, 0.9999, 100, math.inf, 128, 0.1),
    "edm": (200e6 / 512, 1e-3, 0.5 ** (512 / 0.5e6), 10e6 / 512, math.inf, 512, 0.13),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_the_published_ones_by_the_stated_rules(name: str) -> None:
    steps, rate, ema, warmup, clip, batch, dropout = RECIPES[name]
    recipe, kwargs = PRESETS[name].recipe, PRESETS[name].kwargs
    assert recipe.steps == pytest.approx(EPOCHS * steps, abs=0.51)
    assert recipe.learning_rate == pytest.approx(WIDTH * rate)
    assert recipe.warmup == pytest.approx(EPOCHS * warmup, abs=0.51)
    if ema:
        assert 1 / (1 - recipe.ema) == pytest.approx(EPOCHS / (1 - ema))  # the memory
    else:
        assert recipe.ema == 0.0 and recipe.ema_at(1000) == 0.0
    assert recipe.clip == clip and recipe.batch_size == batch
    assert recipe.decay == "none" and recipe.learning_rate_at(recipe.steps - 1) == recipe.learning_rate
    assert kwargs.get("dropout", 0.0) == dropout and kwargs["channels"] == 128 / WIDTH
    assert kwargs["labels"] == 0 and not PRESETS[name].labelled
    vdm = name == "vdm"
    assert recipe.betas == ((0.9, 0.99) if vdm else (0.9, 0.999)) and recipe.weight_decay == (0.01 if vdm else 0.0)
    assert recipe.optimizer == ("adamw" if name in ("vdm", "iddpm") else "adam")


def test_largest_distance_is_that_of_the_digits() -> None:
    x = (digits_split().train_images.double() + 0.5) / 17
    assert round(largest_distance(x), 2) == scaling.LARGEST_DISTANCE


def test_ncsn() -> None:
    preset = PRESETS["ncsn"]
    chain = preset.process()  # type: ignore[misc]
    assert isinstance(chain, NoiseScales) and len(chain) == 10
    torch.testing.assert_close(chain.sigmas, torch.logspace(-2, 0, 10, dtype=torch.float64))
    assert preset.prediction == "score" and preset.data_range == (0.0, 1.0) and preset.dequantise
    assert preset.sampler == Sampler("annealed_langevin", levels=10, options={"epsilon": 2e-5, "moves": 100})


def test_ncsnv2_follows_its_techniques() -> None:
    preset = PRESETS["ncsnv2"]
    chain = preset.process()  # type: ignore[misc]
    x = (digits_split().train_images.double() + 0.5) / 17
    by_rule = NoiseScales.ncsnv2(x, 0.01, 0.5)
    assert isinstance(chain, NoiseScales) and len(chain) == len(by_rule) == ncsn.LEVELS
    torch.testing.assert_close(chain.sigmas, by_rule.sigmas, rtol=1e-3, atol=0.0)
    assert float(chain.sigmas[0]) == pytest.approx(0.01)
    moves, ratio = preset.sampler.options["moves"], float(chain.sigmas[1] / chain.sigmas[0])
    assert preset.sampler.options["epsilon"] == pytest.approx(chain.langevin_step(moves), rel=5e-3)
    published = spread(6.2e-6 / 0.01**2, 5, (50 / 0.01) ** (1 / 231))  # the fewest moves that do not spread more
    enough, fewer = (spread(best_step(n, ratio), n, ratio) for n in (moves, moves - 1))
    assert enough <= published < fewer
    assert preset.sampler.denoise
    assert preset.kwargs["time"] == "constant" and preset.prediction == "noise"  # s = f(x) / sigma


def test_ddpm() -> None:
    preset = PRESETS["ddpm"]
    chain = preset.process()  # type: ignore[misc]
    assert isinstance(chain, BetaChain) and len(chain) == 1000
    torch.testing.assert_close(chain.betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    assert float(chain.alphas_bar[-1]) == pytest.approx(4.04e-5, rel=2e-3)
    assert preset.prediction == "noise" and preset.data_range == (-1.0, 1.0)
    large = {"variance": "large"}
    assert preset.sampler == Sampler("ancestral", levels=1000, denoise=True, options=large, clip=(-1, 1))


def test_iddpm() -> None:
    preset = PRESETS["iddpm"]
    chain = preset.process()  # type: ignore[misc]
    assert isinstance(chain, BetaChain) and len(chain) == 4000
    assert float(chain.betas[0]) == pytest.approx(9.9e-6, rel=0.01)
    assert float(chain.betas[-1]) == pytest.approx(0.999)
    assert float(chain.alphas_bar[-1]) == pytest.approx(1.5e-10, rel=0.05)
    assert preset.variance == "learned_range" and preset.kwargs["learned_variance"]
    assert preset.sampler.levels == 50 and preset.sampler.spacing == "linspace"
    assert preset.sampler.options == {"variance": "learned"} and preset.sampler.clip == (-1.0, 1.0)


def test_score_sde() -> None:
    ve, vp, subvp = (PRESETS[f"score-sde-{kind}"] for kind in ("ve", "vp", "subvp"))
    process = ve.process()  # type: ignore[misc]
    assert isinstance(process, scoresde.VESDE)
    assert (process.sigma_min, process.sigma_max, process.t_min) == (0.01, scaling.LARGEST_DISTANCE, 1e-5)
    assert ve.data_range == (0.0, 1.0) and ve.time_input == "sigma" and ve.kwargs["time"] == "log_gaussian"
    assert (ve.sampler.method, ve.sampler.steps, ve.sampler.grid) == ("pc", 1000, "time")
    assert ve.sampler.options == {"predictor": "reverse_diffusion", "snr": 0.16}
    for preset, kind in ((vp, scoresde.VPSDE), (subvp, scoresde.SubVPSDE)):
        made = preset.process()  # type: ignore[misc]
        assert type(made) is kind and (made.beta_min, made.beta_max, made.t_min, made.t_max) == (0.1, 20.0, 1e-5, 1.0)
        assert preset.data_range == (-1.0, 1.0)
        assert preset.sampler == Sampler("euler_maruyama", steps=1000, grid="time", t_end=1e-3, denoise=True)


def test_vdm() -> None:
    preset = PRESETS["vdm"]
    process = preset.process()  # type: ignore[misc]
    assert isinstance(process, scoresde.VDMSDE) and isinstance(process.gamma, MonotoneGamma)
    log_snrs = process.log_snr(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
    assert log_snrs == pytest.approx([13.3, (13.3 - 5.0) / 2, -5.0])  # a line, b + |w| t
    period = 2 / 2.0 ** preset.kwargs["fourier"][0]  # of sin(2^n pi x), published: two of 256 levels
    assert period / (2 / 17) == pytest.approx(2.0, rel=0.1) and preset.kwargs["fourier"] == [3, 4]
    assert preset.grey_loss and not preset.dequantise
    assert preset.sampler == Sampler("ancestral", steps=1000, grid="time", options={"variance": "small"})


def test_edm() -> None:
    preset = PRESETS["edm"]
    process = preset.process()  # type: ignore[misc]
    assert isinstance(process, scoresde.EDMSDE) and (process.t_min, process.t_max) == (0.002, 80.0)
    assert NoiseLevels(-1.2, 1.2, 0.0) == edm.LEVELS
    model = preset.model(read("digits"), 0.5)
    model.net.eval()
    drawn = scoresde.solve(process, model, shape=(1, 1, 8, 8), seed=0, save_at="steps", **preset.sampler.arguments())
    assert drawn.nfe.tolist() == [35] and drawn.ts is not None
    i = torch.arange(18, dtype=torch.float64)
    levels = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(drawn.ts.double().flatten()[:18], levels)


@pytest.mark.parametrize(("name", "evaluations"), [("ncsn", 1000), ("ncsnv2", 526), ("iddpm", 50), ("edm-wide", 20)])
def test_evaluations_of_the_samplers(name: str, evaluations: int) -> None:
    model = small(name).model(read("digits"), 0.6)
    channels = 2 if model.has_variance else 1
    model.net = lambda x, time: torch.zeros_like(x).repeat(1, channels, 1, 1)
    drawn = scoresde.solve(model.sde, model, shape=(1, 1, 8, 8), seed=0, **PRESETS[name].sampler.arguments(model.chain))
    assert drawn.nfe.tolist() == [evaluations]


class Exact(ScoreModel):
    """The exact model of Gaussian data, with its noise estimate off by a factor and a shift; a learned variance has the
    share 0.5 + off."""

    target: Any
    factor: float
    shift: float
    share: float | None

    def estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate:
        a, s = (v.reshape(-1, *(1,) * (x.ndim - 1)).to(x) for v in (node.alpha, node.sigma))
        noise = s * (x - a * self.target.mean) / (a * a * self.target.cov + s * s)
        noise = self.factor * noise + self.shift
        made = Estimate(data=(x - s * noise) / a, noise=noise)
        return made if self.share is None else LearnedEstimate(*made, variance=torch.full_like(x, self.share))


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_score_minimises_the_loss(name: str) -> None:
    """Against models off by 30 % or by 0.3, with the same draws of 4,000 normal data; the losses differ by much more
    than the spread of the difference (6 standard errors, of differences cut at their largest percent, which makes the
    mean smaller)."""
    preset = PRESETS[name]
    law = SimpleNamespace(mean=0.2, cov=0.3)
    model = preset.model(read("digits"), math.sqrt(law.cov))
    options: dict[str, Any] = {"chain": model.chain, "variance": model.variance_name, "sigma_data": model.sigma_data}
    exact = Exact(model.net, model.sde, model.prediction, model.time_input, **options)
    exact.target = law
    x0 = law.mean + math.sqrt(law.cov) * torch.randn(4000, 3, generator=generator(), dtype=torch.float64)
    loss: Callable[..., Tensor] = preset.loss
    if name in OWN:  # made for the raw network
        loss = edm.EDM.loss
    found = []
    for factor, shift in ((1.0, 0.0), (1.3, 0.0), (0.7, 0.0), (1.0, 0.3), (1.0, -0.3)):
        exact.factor, exact.shift = factor, shift
        exact.share = 0.5 if model.has_variance else None
        with torch.no_grad():
            found.append(loss(exact, x0, generator(1)))
    for other in found[1:]:
        gap = other - found[0]
        gap = gap.clamp_max(float(gap.quantile(0.99)))
        assert float(gap.mean()) > 6 * float(gap.std()) / len(gap) ** 0.5


@pytest.mark.parametrize("name", ["ncsn", "iddpm", "vdm", "edm-wide"])
def test_a_training_step_is_finite_and_moves_all_parts(name: str) -> None:
    preset = small(name, batch_size=4)
    source = preset.source(read("digits"))
    batches = Batches(source, 4, 0, preset.data_range, dequantise=preset.dequantise)
    model = preset.model(source, 0.6)
    trainer = Trainer(model, preset.loss_on(source), Stateless(batches), preset.recipe, progress=False)
    before = {k: v.clone() for k, v in trainer.modules.state_dict().items()}
    trainer.run()
    after = trainer.modules.state_dict()
    assert all(bool(v.isfinite().all()) for v in after.values())
    assert not torch.equal(before["net.head.weight"], after["net.head.weight"])
    if name == "vdm":
        assert not torch.equal(before["process_gamma.gamma_0"], after["process_gamma.gamma_0"])


def test_hybrid_decodes_the_cells_of_the_data() -> None:
    """The last step's mass is that of the cells of data in their middle: equal to the loss in the units of DDPM, where
    the grey values are both ends of the range. The chain is coarse, so that the mass is not 1."""
    from scoresde.losses import WeightedIndex, iddpm_hybrid
    from scoresde.presets.ddpm import hybrid

    chain = BetaChain([0.1, 0.3])
    zero = lambda x, i: torch.zeros_like(x).repeat(1, 2, 1, 1)  # noqa: E731
    model = ScoreModel(zero, chain.sde(), "noise", "index", chain=chain, variance="learned_range")
    last = WeightedIndex(chain, [1.0, 1e-9])  # draws the step to the data
    v = torch.randint(0, 17, (6, 1, 8, 8), generator=generator())
    x = -1 + 2 * (v + 0.5) / 17
    ours = hybrid(model, x, generator(1), levels=17, data_range=(-1.0, 1.0), times=last)
    theirs = iddpm_hybrid(model, x, generator(1), levels=17, data_range=(-16 / 17, 16 / 17), times=last)
    torch.testing.assert_close(ours, theirs)
    density = hybrid(model, x, generator(1), times=last)
    assert torch.equal(density, iddpm_hybrid(model, x, generator(1), times=last))
    assert not torch.allclose(ours, density)


@pytest.mark.parametrize("name", NAMES)
def test_saved_loaded_and_sampled(name: str, tmp_path: Path) -> None:
    """The same samples before and after, by the sampler that came along; chains are cut short for time."""
    preset = small(name)
    cut = {"levels": 5} if preset.sampler.levels and name != "ncsn" else {}
    cut |= {"steps": 5} if preset.sampler.steps else {}
    options = {"options": {**preset.sampler.options, "moves": 2}} if "moves" in preset.sampler.options else {}
    sampler = replace(preset.sampler, **cut, **options)
    made = train(replace(preset, sampler=sampler), read("digits"), tmp_path, progress=False)
    again = scoresde.load(tmp_path)
    assert again.config.sampler == sampler and (again.labels is None) == (name not in OWN)
    x = made.sample(2, seed=0).x
    assert x.shape == (2, 1, 8, 8) and bool(x.isfinite().all()) and torch.equal(x, again.sample(2, seed=0).x)
    if sampler.clip is not None:  # the last step ends at the data estimate
        assert float(x.abs().max()) <= 1.0


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"method": "ddmi"}, "did you mean 'ddim'"),
    ({"steps": 0}, "steps"),
    ({"grid": "karass"}, "karras"),
    ({"levels": 5}, "leave those out"),
    ({"options": {"eta": 1.0}}, "eta"),
    ({"more": 1}, "must be an object"),
    ({"clip": [1.0, -1.0]}, "low < high"),
]


def test_a_broken_sampler_is_refused() -> None:
    network = scoresde.load("digits")
    weights = {"sha256": "0" * 64, "bytes": 9}
    good = replace(network.config, grids=(), sampler=Sampler("ddim", steps=5))
    assert Config.from_json(good.to_json(weights))[0].sampler == Sampler("ddim", steps=5)

    def changed(change: dict[str, Any]) -> bytes:
        content = json.loads(good.to_json(weights))
        content["sampler"] |= change
        return json.dumps(content).encode()

    read_back = lambda change: Config.from_json(changed(change), verify=False)  # noqa: E731
    assert_refused([(lambda c=c: read_back(c), CorruptCheckpointError, word) for c, word in BROKEN])


def test_what_a_sampler_tells_solve() -> None:
    chain = BetaChain.linear()
    for spacing in ("leading", "linspace", "trailing"):
        told = Sampler("ddim", levels=7, spacing=spacing).arguments(chain)
        assert set(told) == {"method", "denoise", "grid"} and torch.equal(told["grid"], chain.grid(7, spacing))
    told = Sampler("pc", steps=3, grid="time", t_end=0.1, denoise=True, options={"snr": 0.1}).arguments()
    assert told == {"method": "pc", "steps": 3, "grid": "time", "t_end": 0.1, "denoise": True, "snr": 0.1}
    with pytest.raises(InvalidArgumentError, match="chain"):
        Sampler("ancestral", levels=5).arguments()


def test_iddpm_bound_of_25_steps_with_learned_variance() -> None:
    preset = PRESETS["iddpm"]
    model = small("iddpm").model(Unlabelled(read("digits")), 0.6)
    images = digits_split().test_images[:4]
    few = replace(preset.bound, levels=25)  # type: ignore[type-var]
    bound = few(model, images, levels=17, data_range=preset.data_range, seed=0)  # type: ignore[misc]
    assert bound.nfe == 25 and bound.steps is not None and bound.steps.value.shape == (4, 25)
    assert bool(bound.bits_per_dim.isfinite().all()) and bool((bound.bits_per_dim > 0).all())
    chain = model.chain.respace(25)  # type: ignore[union-attr]
    plain = scoresde.chain_bound(chain, model, images, levels=17, variance="small", clip=True, seed=0)
    assert not torch.allclose(plain.total, bound.total)


def test_bits_of_a_density_and_of_grey_levels() -> None:
    """On data of one level everywhere the exact model of the density, or of the level, is known: what it says is near
    log2 of the cells that the density covers, and nothing where the level is certain."""
    v = torch.full((64, 1, 8, 8), 8)
    vp, vdm = PRESETS["score-sde-vp"], PRESETS["vdm"]
    process = scoresde.VPSDE(t_min=1e-5)
    broad = scoresde.targets.Gaussian(torch.zeros(1, 8, 8), 1 / 3)  # the moments of a uniform density on [-1, 1]
    bits = vp.bits(broad.score(process), v, levels=17, draws=8)  # type: ignore[arg-type]
    width, cov = 2 / 17, 1 / 3 + float(process.sigma(1e-5)) ** 2
    wanted = 0.5 * (math.log(2 * math.pi * cov) + width**2 / 12 / cov) / math.log(2) - math.log2(width)
    assert float(bits.mean()) == pytest.approx(wanted, abs=0.05)
    sde = scoresde.VDMSDE()
    sure = scoresde.targets.Gaussian(torch.zeros(1, 8, 8), 1e-12).score(sde)
    assert float(vdm.bits(sure, v, levels=17, draws=8).mean()) < 0.02  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="no bound"):
        PRESETS["edm-wide"].bits(sure, v, levels=17)  # type: ignore[arg-type]


def test_batches_without_dequantisation_are_the_middles_of_cells() -> None:
    source = Unlabelled(read("digits"))
    plain, noisy = (Batches(source, 8, 0, (0.0, 1.0), dequantise=flag)[0][0] for flag in (False, True))
    v = 17 * plain - 0.5
    assert torch.allclose(v, v.round(), atol=1e-5) and torch.equal(v.round(), (17 * noisy).floor())


def test_presets_are_shown_and_a_network_says_how_its_data_were_mapped() -> None:
    lines = CliRunner().invoke(app, ["presets"]).output.splitlines()
    assert {line.split()[0] for line in lines if line} >= set(NAMES)
    assert "BetaChain(1000 levels" in CliRunner().invoke(app, ["presets", "ddpm"]).output
    told = {name: PRESETS[name].told(read("digits")).partition(" mapped by ")[2] for name in ("ncsn", "vdm")}
    assert told == {"ncsn": "x = 0 + 1 (v + u) / 17, u ~ U[0, 1)", "vdm": "x = -1 + 2 (v + 1/2) / 17"}
    assert train(small("vdm"), read("digits"), progress=False).config.data == PRESETS["vdm"].told(read("digits"))


def test_sample_takes_the_models_own_sampler_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sampler = Sampler("ancestral", levels=4, denoise=True, options={"variance": "large"}, clip=(-1, 1))
    monkeypatch.setitem(PRESETS, "ddpm", replace(small("ddpm", 2), sampler=sampler))

    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    sample = "sample", "--model", "m", "--num", 2
    run("train", "--data", "digits", "--preset", "ddpm", "--out", "m", "--quiet", "--sample-every", 1)
    assert Path("m/samples/step-0000000001.png").exists()
    own = run(*sample, "--out", "a.npz")
    assert "its own process, ancestral, 3 steps, 4 evaluations" in own
    saved = np.load("a.npz")
    network = scoresde.load("m")
    again = network.sample(2, noise=scoresde.SampleNoise(0, indices=saved["index"]))
    assert np.array_equal(saved["x"], again.x.numpy())
    metadata = json.loads(str(saved["metadata"]))
    assert metadata["method"] == "ancestral" and metadata["levels"] == 4 and metadata["denoise"] is True
    assert "3 steps, 3 evaluations" in run(*sample, "--out", "b.npz", "--no-denoise")
    other = run(
        "sample", "--model", "m", "--num", 2, "--out", "c.npz", "--sde", "flow", "--method", "ddim", "--steps", 3
    )
    assert "ddim, 3 steps, 3 evaluations" in other
    assert "its own process, auto, 3 of 3 evaluations" in run(*sample, "--out", "d.npz", "--evaluations", 3)
