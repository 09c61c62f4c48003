"""Networks trained on a discrete chain: scoresde against the published code of improved DDPM, in guided-diffusion's
version (DDPM's ported, with learned variances, respacing and DDIM), and against the schedulers of diffusers. The
network is a small one with random weights, told integer labels. Whole trajectories are compared; as the states of an
untrained network grow where nothing is clipped, the largest state is the unit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from benchmarks._wide import Wide
from scoresde.discrete import BetaChain
from scoresde.scores import Clip
from tests.peers.common import Make, different, same

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # guided_diffusion uses an old name of torch.amp
    published = pytest.importorskip("guided_diffusion.gaussian_diffusion", exc_type=ImportError)
    respace = pytest.importorskip("guided_diffusion.respace", exc_type=ImportError)
diffusers = pytest.importorskip("diffusers", exc_type=ImportError)

pytestmark = pytest.mark.peers

SHAPE = (3, 2, 8, 8)
LEVELS = 1000


class Net(torch.nn.Module):
    """Two convolutions with an embedding of the label between them."""

    def __init__(self, parts: int = 1) -> None:
        super().__init__()
        channels, hidden = SHAPE[1], 8
        generator = torch.Generator().manual_seed(5)

        def weights(*shape: int) -> torch.nn.Parameter:
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter(values / values[0].numel() ** 0.5)

        self.enter, self.leave = weights(hidden, channels, 3, 3), weights(parts * channels, hidden, 3, 3)
        self.labels = weights(LEVELS, hidden)
        self.seen: list[int] = []

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        assert label.dtype == torch.int64
        self.seen.append(int(label[0]))
        h = torch.nn.functional.conv2d(x, self.enter, padding=1) + 9 * self.labels[label][..., None, None]
        return torch.nn.functional.conv2d(torch.sin(h), self.leave, padding=1)


def normals(count: int) -> list[Tensor]:
    """Standard normal draws, the same for both sides."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def start() -> Tensor:
    """A state at the noisiest level."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def trajectory(
    chain: BetaChain,
    net: torch.nn.Module,
    grid: Tensor,
    method: str,
    draws: Sequence[Tensor] = (),
    prediction: str = "noise",
    clip: bool = False,
    **options: Any,
) -> Tensor:
    """Our states after every step, the last one the data's estimate."""
    sde = chain.sde()
    learned = "learned_range" if options.get("variance") == "learned" else None
    model: Any = scoresde.ScoreModel(net, sde, prediction, time_input="index", chain=chain, variance=learned)
    model = Clip(model) if clip else model
    noise = (lambda k, like: draws[k]) if draws else None
    more = {"grid": grid, "noise": noise, "save_at": "steps", "denoise": True}
    solution = scoresde.solve(sde, model, start(), method=method, **more, **options)
    return torch.cat([solution.xs[1:], solution.x[None]])


def same_path(name: str, mine: Tensor, other: Tensor) -> None:
    """Both are one trajectory, to rounding of its largest state."""
    size = other.abs().max().clamp(min=1.0)
    same(f"{name}, trajectory", mine / size, other / size)


Published = Callable[..., Any]


@pytest.fixture
def diffusion(monkeypatch: pytest.MonkeyPatch) -> Published:
    """Makes the published sampler, with given draws and without its rounding of tables to single precision."""

    def build(schedule: str, variance: str, use: str, draws: Sequence[Tensor] = (), levels: int = LEVELS) -> Any:
        left = iter(draws)

        class Torch(Wide):
            def randn_like(self, x: Tensor) -> Tensor:
                return next(left)

        def extract(table: Any, t: Tensor, shape: Sequence[int]) -> Tensor:
            return torch.from_numpy(table)[t].view(-1, *[1] * (len(shape) - 1)).expand(shape)

        monkeypatch.setattr(published, "th", Torch(torch))
        monkeypatch.setattr(published, "_extract_into_tensor", extract)
        return respace.SpacedDiffusion(
            use_timesteps=respace.space_timesteps(levels, use),
            betas=published.get_named_beta_schedule(schedule, levels),
            model_mean_type=published.ModelMeanType.EPSILON,
            model_var_type=published.ModelVarType[variance],
            loss_type=published.LossType.MSE,
        )

    return build


CHAINS = {"linear": BetaChain.linear, "cosine": BetaChain.cosine}
SPACINGS = [("50", "linspace", 50), ("ddim40", "leading", 40)]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("theirs", "variance"), [("FIXED_SMALL", "small"), ("FIXED_LARGE", "large"), ("LEARNED_RANGE", "learned")]
)
@pytest.mark.parametrize(("use", "spacing", "n"), SPACINGS)
@pytest.mark.parametrize("schedule", CHAINS)
def test_respaced(
    diffusion: Published, schedule: str, use: str, spacing: str, n: int, theirs: str, variance: str, clip: bool
) -> None:
    """DDPM and improved DDPM, on a part of the chain that the network was trained on."""
    net, draws = Net(2 if variance == "learned" else 1), normals(n)
    sampler = diffusion(schedule, theirs, use, draws)
    loop = sampler.p_sample_loop_progressive(net, SHAPE, noise=start(), clip_denoised=clip, device="cpu")
    other = torch.stack([step["sample"] for step in loop])
    labels, net.seen = net.seen, []
    chain = CHAINS[schedule](LEVELS)
    mine = trajectory(chain, net, chain.grid(n, spacing), "ancestral", draws, clip=clip, variance=variance)
    assert net.seen == labels
    limited = ", clipped" if clip else ""
    same_path(f"improved DDPM({theirs}{limited}) = ancestral({variance}{limited})", mine, other)


def test_the_whole_chain(diffusion: Published) -> None:
    """DDPM as published: a thousand steps, the large variance, clipped."""
    net, draws = Net(), normals(LEVELS)
    sampler = diffusion("linear", "FIXED_LARGE", str(LEVELS), draws)
    loop = sampler.p_sample_loop_progressive(net, SHAPE, noise=start(), clip_denoised=True, device="cpu")
    other = torch.stack([step["sample"] for step in loop])
    chain = BetaChain.linear()
    mine = trajectory(chain, net, chain.grid(), "ancestral", draws, clip=True, variance="large")
    same_path("DDPM(1000 steps, FIXED_LARGE, clipped) = ancestral(large, clipped)", mine, other)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("use", "spacing", "n"), SPACINGS)
def test_ddim(diffusion: Published, use: str, spacing: str, n: int, eta: float, clip: bool) -> None:
    net, draws = Net(), normals(n)
    sampler = diffusion("cosine", "FIXED_SMALL", use, draws)
    options = {"noise": start(), "clip_denoised": clip, "device": "cpu", "eta": eta}
    other = torch.stack([step["sample"] for step in sampler.ddim_sample_loop_progressive(net, SHAPE, **options)])
    chain = BetaChain.cosine()
    grid = chain.grid(n, spacing)
    if eta:
        mine = trajectory(chain, net, grid, "ddim_eta", draws, clip=clip, eta=eta)
    else:
        mine = trajectory(chain, net, grid, "ddim", clip=clip)
    same_path("improved DDPM, its DDIM = ddim, ddim_eta", mine, other)


def test_ddim_backwards(diffusion: Published) -> None:
    """Encoding: from the cleanest level up."""
    net, n = Net(), 50
    sampler = diffusion("linear", "FIXED_SMALL", str(n))
    x, states = 0.3 * start(), []
    for i in range(n - 1):
        with torch.no_grad():
            x = sampler.ddim_reverse_sample(net, x, torch.full(SHAPE[:1], i), clip_denoised=False)["sample"]
        states.append(x)
    chain = BetaChain.linear()
    sde, grid = chain.sde(), chain.grid(n, "linspace").flip(0)
    model = scoresde.ScoreModel(net, sde, "noise", time_input="index", chain=chain)
    mine = scoresde.solve(sde, model, 0.3 * start(), method="ddim", grid=grid, save_at="steps").xs[1:]
    same_path("improved DDPM, its DDIM backwards = ddim on a rising grid", mine, torch.stack(states))


@pytest.mark.parametrize("levels", [1000, 400])
@pytest.mark.parametrize("schedule", CHAINS)
def test_chains(diffusion: Published, schedule: str, levels: int) -> None:
    """Their levels, and which of them are kept; the linear schedule is scaled to its length there."""
    sampler = diffusion(schedule, "FIXED_SMALL", "30", levels=levels)
    scale = {"beta_min": 0.1 / levels, "beta_max": 20 / levels} if schedule == "linear" else {}
    part = CHAINS[schedule](levels, **scale).respace(30)
    assert part.labels.tolist() == sampler.timestep_map
    same(f"improved DDPM, {schedule} chain", part.alphas_bar, torch.from_numpy(sampler.alphas_cumprod))
    variances = torch.from_numpy(sampler.posterior_variance)
    same(f"improved DDPM, {schedule} chain, variances", part.posterior_variances, variances)


# diffusers


def unet(channels: int) -> torch.nn.Module:
    """A small U-Net of theirs, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        net = diffusers.UNet2DModel(
            sample_size=SHAPE[-1],
            in_channels=SHAPE[1],
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=8,
        )
    return net.double().eval()


def loop(scheduler: Any, net: torch.nn.Module, **options: Any) -> Tensor:
    """The loop of their pipelines, state by state."""
    x, states = start(), []
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(net(x, t).sample, int(t), x, **options).prev_sample
        states.append(x)
    return torch.stack(states)


SCHEDULES = {"linear": BetaChain.linear, "squaredcos_cap_v2": BetaChain.cosine}
KINDS = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_diffusers_ddpm(make: Make, schedule: str, variance: str, kind: str, clip: bool) -> None:
    """``DDPMScheduler`` with a network of diffusers, on its "leading" grid."""
    net, draws, n = unet(SHAPE[1]), normals(20), 20
    options = {"variance_type": f"fixed_{variance}", "prediction_type": kind, "clip_sample": clip}
    scheduler = make("DDPMScheduler", draws, beta_schedule=schedule, **options, steps=n)
    other = loop(scheduler, net)
    chain = SCHEDULES[schedule]()
    grid = chain.grid(n, "leading")
    assert grid.tolist() == scheduler.timesteps.tolist()
    options = {"prediction": KINDS[kind], "clip": clip, "variance": variance}
    mine = trajectory(chain, Called(net), grid, "ancestral", draws, **options)
    same_path(f"DDPMScheduler({kind}), U-Net = ancestral", mine, other)


class Called(torch.nn.Module):
    """A network of theirs as a function of state and label."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.net(x, label).sample


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_diffusers_learned_variance(make: Make, schedule: str, clip: bool) -> None:
    net, draws = unet(2 * SHAPE[1]), normals(20)
    options = {"beta_schedule": schedule, "variance_type": "learned_range", "clip_sample": clip}
    scheduler = make("DDPMScheduler", draws, **options, steps=20)
    chain = SCHEDULES[schedule]()
    grid = chain.grid(20, "leading")
    mine = trajectory(chain, Called(net), grid, "ancestral", draws, clip=clip, variance="learned")
    same_path("DDPMScheduler(learned_range), U-Net = ancestral(learned)", mine, loop(scheduler, net))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_diffusers_ddim(make: Make, spacing: str, eta: float, clip: bool) -> None:
    """With clipping theirs keeps the noise as the network gave it, unless told otherwise; ours, as the published code,
    takes the noise that belongs to the clipped data."""
    net, n = unet(SHAPE[1]), 20
    draws = normals(n)

    def theirs(**options: Any) -> Tensor:
        scheduler = make("DDIMScheduler", draws, clip_sample=clip, timestep_spacing=spacing, steps=n)
        return loop(scheduler, net, eta=eta, **options)

    chain = BetaChain.linear()
    more = {"eta": eta, "draws": draws} if eta else {}
    mine = trajectory(chain, Called(net), chain.grid(n, spacing), "ddim_eta" if eta else "ddim", clip=clip, **more)
    other = theirs(use_clipped_model_output=clip)
    same_path("DDIMScheduler, U-Net = ddim, ddim_eta", mine, other)
    if clip:
        different("DDIMScheduler(clip_sample), the noise as it was", mine, theirs())


def test_single_precision() -> None:
    """Schedulers of diffusers make their tables in single precision. As they are, in a loop in double precision, that
    is what they differ by."""
    net, n = unet(SHAPE[1]), 20
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    assert scheduler.alphas_cumprod.dtype == torch.float32
    scheduler.set_timesteps(n)
    other = loop(scheduler, net)
    chain = BetaChain.linear()
    mine = trajectory(chain, Called(net), chain.grid(n, "leading"), "ddim")
    assert other.dtype == mine.dtype == torch.float64
    different("DDIMScheduler, tables in single precision", mine, other, least=1e-9)
    assert float((mine - other).abs().max()) < 1e-4 * float(mine.abs().max())
