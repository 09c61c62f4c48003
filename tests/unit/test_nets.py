"""The networks that come with the package: shapes, conditioning, what they start as, and what they are told."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, ScoreFnError, ScoreModel, nets
from scoresde.discrete import BetaChain
from scoresde.losses import NoiseLevels, edm
from scoresde.nets import MLP, Classifier, External, NoiseEmbedding, UNet, fourier_features, from_diffusers
from scoresde.training import Recipe, fit
from scoresde.zoo import Config, Labels, Pretrained, load, save

from .refusals import assert_refused

V, T = InvalidArgumentError, InvalidTypeError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(net: nn.Module, seed: int = 0, std: float = 0.2) -> Any:
    """The network with random parameters everywhere, so that no branch is 0 as it is at the start."""
    g = generator(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=std, generator=g)
    return net.eval()


# One of each, with classes; the arguments are JSON values.
BASE = {"channels": 8, "blocks": 1, "width": 8, "labels": 3}
DEEP = {"blocks": 2, "multipliers": [1, 2, 2, 3], "heads": 4, "time": "gaussian", "fourier": [1, 2]}
SCORES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "unet": (UNet, {"event_shape": [1, 8, 8], **BASE}),
    "unet deep": (UNet, {"event_shape": [3, 12, 10], **BASE, **DEEP}),
    "unet plain": (UNet, {"event_shape": [2, 5, 6], **BASE, "heads": 0}),
    "mlp": (MLP, {"event_shape": [2], **BASE, "channels": 16, "blocks": 2}),
    "mlp image": (MLP, {"event_shape": [2, 3, 3], **BASE, "channels": 16, "time": "log_gaussian"}),
}
NAMES = {"unet": "unet", "unet deep": "unet", "unet plain": "unet", "mlp": "mlp", "mlp image": "mlp"}


@pytest.fixture(params=SCORES)
def net(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    kind, arguments = SCORES[request.param]
    net = kind(**arguments)
    assert bool((net(*inputs(net)) == 0).all())  # as it starts
    return filled(net)


def inputs(net: Any, n: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(n, *net.event_shape, generator=generator(1))
    return x, torch.linspace(0.3, 1.2, n), torch.arange(n) % 3


def test_every_pixel_is_seen_and_answered() -> None:
    """Odd sizes lose neither their last row nor their last column, on the way down nor on the way up."""
    for size in ((7, 9), (8, 8), (13, 5), (3, 1), (1, 1)):
        torch.manual_seed(0)
        net = filled(UNet((1, *size), channels=8, blocks=1, width=4, labels=0, multipliers=(1, 1, 1)))
        x = torch.randn(2, 1, *size, generator=generator()).requires_grad_()
        out = net(x, torch.zeros(2))
        (whole,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
        assert bool((whole != 0).all()), size
        corner = torch.autograd.grad(out[0, 0, -1, -1], x, retain_graph=True)[0]
        assert float(corner[0, 0, -1, -1].abs()) > 0, size
        # far pixels are coupled through the lowest resolution
        assert float(corner[0, 0, 0, 0].abs()) > 0, size


@pytest.mark.parametrize(
    ("net", "event"),
    [(UNet((2, 6, 6), 8, labels=0, learned_variance=True), (2, 6, 6)), (MLP((3,), learned_variance=True), (3,))],
)
def test_twice_the_channels_for_a_learned_variance(net: nn.Module, event: tuple[int, ...]) -> None:
    filled(net)
    chain = BetaChain.cosine(20)
    sde = chain.sde()
    x = torch.randn(3, *event, generator=generator())
    assert net(x, torch.zeros(3)).shape == (3, 2 * event[0], *event[1:])
    model = ScoreModel(net, sde, "noise", time_input="index", chain=chain, variance="learned_range")
    assert model(x, 5.0).shape == model.variance(x, 5.0).shape == x.shape
    options: dict[str, Any] = {"method": "ancestral", "variance": "learned", "grid": chain.grid(4), "seed": 0}
    solution = scoresde.solve(sde, model, shape=(2, *event), **options)
    assert bool(torch.isfinite(solution.x).all())


def test_everything_that_is_told_changes_the_output(net: Any) -> None:
    x, t, label = inputs(net)
    base = net(x, t, label)
    for other in (net(x + 0.1, t, label), net(x, t + 0.2, label), net(x, t, (label + 1) % 3), net(x, t)):
        assert bool(((other - base).flatten(1).abs().max(1).values > 1e-4).all())
    assert torch.equal(net(x, t), net(x, t, torch.full((4,), 3)))  # the null class
    assert torch.equal(net(x, t, 2), net(x, t, torch.full((4,), 2, dtype=torch.int32)))


def test_a_sample_does_not_depend_on_its_batch(net: Any) -> None:
    x, t, label = inputs(net)
    together = net(x, t, label)
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=2e-5, atol=2e-5)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net(x[order], t[order], label[order]), together[order], rtol=2e-5, atol=2e-5)
    # and by its derivative: exactly nothing of a batch mate's
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(y, t, label)[0].sum(), y)
    assert bool((gradient[1:] == 0).all()) and bool((gradient[0] != 0).any())


def test_networks_are_deterministic_in_evaluation_and_drop_in_training() -> None:
    for kind, arguments in SCORES.values():
        torch.manual_seed(0)
        net = filled(kind(**arguments, dropout=0.3))
        x, t, label = inputs(net)
        state = torch.random.get_rng_state()
        assert torch.equal(net(x, t, label), net(x, t, label))
        assert torch.equal(state, torch.random.get_rng_state())
        net.train()
        assert not torch.equal(net(x, t, label), net(x, t, label))


def test_gradients_are_finite_and_reach_every_parameter(net: Any) -> None:
    x, t, label = inputs(net)
    net(x, t, label).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("name", SCORES)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    """With a config, and by the arguments that the network itself knows."""
    kind, arguments = SCORES[name]
    torch.manual_seed(0)
    net, shape = filled(kind(**arguments)), tuple(arguments["event_shape"])
    config = Config(NAMES[name], arguments, sigma_data=0.5, event_shape=shape, labels=Labels("label", 3, 3))
    save(Pretrained(net, config), tmp_path / "model")
    save(ScoreModel(net, scoresde.VPSDE(), "noise", event_shape=shape), tmp_path / "bare")
    torch.manual_seed(99)  # what a network draws when it is made is replaced
    x, t, label = inputs(net)
    back, bare = load(tmp_path / "model"), load(tmp_path / "bare")
    for loaded in (back, bare):
        assert torch.equal(loaded.net(x, t, label), net(x, t, label))
        assert loaded.config.kwargs.items() >= arguments.items()
    sde = scoresde.VPSDE()
    drawn = scoresde.solve(sde, back.score(sde, label=1), method="ddim", steps=2, shape=(2, *shape), seed=0)
    assert drawn.x.shape == (2, *shape)
    assert {NAMES[n] for n in SCORES} == set(nets.ARCHITECTURES)


def test_arguments_by_position_are_known_too_but_not_those_of_a_subclass() -> None:
    class Scaled(MLP):
        def __init__(self, gain: float) -> None:
            super().__init__((2,))

    assert UNet((3, 16, 16), 8, heads=1).arguments == UNet(event_shape=[3, 16, 16], channels=8, heads=1).arguments
    assert MLP((2,), 16).arguments["channels"] == 16 and not hasattr(Scaled(2.0), "arguments")


def test_the_digits_network_is_the_one_written_here() -> None:
    """From the shipped weights alone, by functions: bitwise."""
    model = load("digits").net
    w = model.state_dict()

    def norm(h: Tensor, name: str) -> Tensor:
        return F.group_norm(h, 8, w[f"{name}.weight"], w[f"{name}.bias"])

    def conv(h: Tensor, name: str, padding: int = 1, stride: int = 1) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], stride=stride, padding=padding)

    def linear(h: Tensor, name: str) -> Tensor:
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def block(h: Tensor, name: str) -> Tensor:
        skip = conv(h, f"{name}.skip", padding=0) if f"{name}.skip.weight" in w else h
        scale, shift = linear(embedding, f"{name}.film")[:, :, None, None].chunk(2, dim=1)
        h = conv(F.silu(norm(h, f"{name}.norm1")), f"{name}.conv1")
        return skip + conv(F.silu(norm(h, f"{name}.norm2") * (1 + scale) + shift), f"{name}.conv2")

    x, c = torch.randn(6, 1, 8, 8, generator=generator()), torch.linspace(-2, 2, 6)
    label = torch.tensor([0, 9, 10, 3, 4, 5])
    phase = c[:, None] * (2 * math.pi * torch.logspace(-1, math.log10(4.0), 16))
    waves = torch.cat([phase.sin(), phase.cos()], dim=1)
    embedding = F.silu(linear(F.silu(linear(waves, "noise.layers.0")), "noise.layers.2") + w["label.weight"][label])
    fine = block(conv(x, "stem"), "encoder")
    h = block(conv(fine, "down", padding=0, stride=2), "middle.0")
    qkv = conv(norm(h, "attention.norm"), "attention.qkv", padding=0).reshape(6, 3, 2, 32, 16).transpose(-1, -2)
    mixed = F.scaled_dot_product_attention(*qkv.unbind(1)).transpose(-1, -2).reshape(h.shape)
    h = h + conv(mixed, "attention.out", padding=0)
    h = block(block(h, "middle.1"), "middle.2")
    h = torch.cat([F.conv_transpose2d(h, w["up.weight"], w["up.bias"], stride=2), fine], dim=1)
    wanted = conv(F.silu(norm(block(h, "decoder"), "norm")), "head")
    assert torch.equal(model(x, c, label), wanted)


def test_fourier_features_are_those_of_vdm() -> None:
    x = torch.rand(2, 3, 4, dtype=torch.float64, generator=generator()) * 2 - 1
    out = fourier_features(x, (7, 8))
    wanted = [x, *(torch.sin(2**n * math.pi * x) for n in (7, 8)), *(torch.cos(2**n * math.pi * x) for n in (7, 8))]
    torch.testing.assert_close(out, torch.cat(wanted, 1), rtol=0, atol=0)
    # the released code's n = 6, 7 with 2^n 2 pi
    torch.testing.assert_close(out[:, 3:6], torch.sin(2**6 * 2 * math.pi * x), rtol=1e-12, atol=1e-12)
    # neighbouring grey levels of 256 in [-1, 1] are half a period apart
    torch.testing.assert_close(fourier_features(x + 2 / 256, (7,))[:, 3:6], -out[:, 3:6], rtol=1e-9, atol=1e-11)
    assert torch.equal(fourier_features(x, ()), x)


def test_sinusoidal_times_are_those_of_ddpm() -> None:
    net = NoiseEmbedding(16, "sinusoidal")
    labels = torch.tensor([0, 1, 500, 999])
    phase = labels[:, None] * torch.exp(-math.log(10_000) * torch.arange(64) / 64)
    wanted = net.layers(torch.cat([phase.sin(), phase.cos()], dim=1))
    torch.testing.assert_close(net(labels), wanted)
    torch.testing.assert_close(net(labels.float()), wanted)


def test_log_gaussian_times_are_gaussian_times_of_the_logarithm() -> None:
    torch.manual_seed(0)
    plain, log = NoiseEmbedding(16, "gaussian"), NoiseEmbedding(16, "log_gaussian")
    log.load_state_dict(plain.state_dict())
    sigma = torch.tensor([0.01, 1.0, 50.0])
    assert torch.equal(log(sigma), plain(sigma.log()))
    assert "frequencies" in plain.state_dict() and "frequencies" not in NoiseEmbedding(16).state_dict()
    # N(0, (2 pi 16)^2): |z| < 4.5 of the spread's error, a false alarm in 1e5; seeded
    assert abs(float(plain.frequencies.std()) / (2 * math.pi * 16) - 1) < 4.5 / math.sqrt(2 * 64)


def test_a_constant_time_is_not_seen() -> None:
    """Nor where it is infinite: rho where alpha is 0, the log-SNR where sigma is."""
    net = filled(UNet((1, 4, 4), 8, labels=0, time="constant"))
    x = torch.randn(5, 1, 4, 4, generator=generator())
    assert torch.equal(net(x, torch.tensor([0.0, 1.0, 50.0, math.inf, -math.inf])), net(x, torch.zeros(5)))


class Diffusers(nn.Module):
    """Called as a UNet2DModel of diffusers is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.seen: list[tuple[Any, ...]] = []

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> Any:
        self.seen.append((sample.dtype, timestep.clone(), class_labels))
        out = self.scale * sample
        return SimpleNamespace(sample=out) if return_dict else (out,)


def test_a_unet_of_diffusers() -> None:
    unet = Diffusers()
    chain = BetaChain.linear(100)
    sde = chain.sde()
    model = ScoreModel(from_diffusers(unet), sde, "noise", time_input="index", chain=chain)
    label = torch.tensor([3, 1])
    options: dict[str, Any] = {"method": "ddim", "grid": chain.grid(5), "context": {"label": label}, "seed": 0}
    solution = scoresde.solve(sde, model, shape=(2, 1, 4, 4), dtype=torch.float64, **options)
    assert solution.x.dtype == torch.float64 and len(unet.seen) == 4
    assert all(dtype == torch.float32 and torch.equal(given, label) for dtype, _, given in unet.seen)
    assert [time.tolist() for _, time, _ in unet.seen] == [[t, t] for t in (99, 79, 59, 39)]
    plain = ScoreModel(lambda x, t: 0.5 * x, sde, "noise")
    x = torch.randn(2, 3, generator=generator())
    torch.testing.assert_close(model(x, 50.0), plain(x, 50.0))
    assert model.accepts("label") and not model.accepts("encoder_hidden_states")


def test_external_networks() -> None:
    x, t = torch.ones(2, 3), torch.zeros(2)
    assert torch.equal(External(lambda x, t: x + 1)(x, t), x + 1)
    assert torch.equal(External(lambda x: x + 1, takes_time=False, gain=-2.0)(x, t), -2 * (x + 1))
    assert torch.equal(External(lambda x, t, y: x * y, names={"label": "y"})(x, t, label=3.0), 3 * x)
    shifted = External(lambda x, t: x * t[:, None], time=lambda t: (t + 2).double())
    assert shifted(x, t).dtype == torch.float32 and torch.equal(shifted(x, t), 2 * x)
    assert External(lambda x, t: x + t.is_floating_point(), time=lambda t: t.long() + 7)(x, t).max() == 1
    inner = nn.Linear(3, 3).double()
    assert next(External(inner, takes_time=False).parameters()) is inner.weight
    assert External(inner, takes_time=False).train(False).net.training is False


def test_an_mlp_learns_two_points() -> None:
    """In 80 steps the error of its noise, against the exact one of two points of the plane, falls to a half; what
    comes back is the average of the weights."""
    torch.manual_seed(0)
    net, sde = MLP((2,), channels=32, blocks=2, width=16), scoresde.EDMSDE()
    points = torch.tensor([[0.5, 0.5], [-0.5, -0.5]])
    exact = scoresde.targets.Empirical(points).score(sde)

    def draw(n: int, g: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        return points[torch.randint(2, (n,), generator=g)], {}

    t = torch.linspace(0.2, 1.5, 500)
    x, _ = sde.perturb(draw(500, generator(8))[0], t, torch.randn(500, 2, generator=generator(9)))

    def error(net: nn.Module) -> float:
        with torch.no_grad():
            return (t[:, None] * (ScoreModel(net, sde, "edm")(x, t) - exact(x, t))).square().mean().item()

    before, loss = error(net), partial(edm, levels=NoiseLevels(mean=-0.5, std=0.8))
    averaged = fit(net, loss, draw, Recipe(80, 64, warmup=10, ema=0.9), generator(), progress=False)
    assert error(averaged) < 0.5 * before
    assert not any(torch.equal(a, b) for a, b in zip(averaged.parameters(), net.parameters(), strict=True))


X = torch.zeros(2, 2)
IMAGES = UNet(channels=8, labels=0)
BAD = [
    (lambda: UNet((8, 8)), V, ("`event_shape`", "(8, 8)", "event_shape=(1, 8, 8)")),
    (lambda: UNet(channels=12), V, ("`channels`", "12")),
    (lambda: UNet(blocks=0), V, ("`blocks`", "0")),
    (lambda: UNet(dropout=1.5), V, ("`dropout`", "1.5")),
    (lambda: UNet(multipliers=2), T, ("`multipliers`", "(1, 2)", "2")),  # type: ignore
    (lambda: UNet(multipliers=(1, 0)), V, ("`multipliers[1]`", "0")),
    (lambda: UNet(heads=3), V, ("`heads`", "64", "3")),
    (lambda: UNet(time="sinusoid"), V, ("`time`", "did you mean 'sinusoidal'")),
    (lambda: UNet(fourier=(7, 99)), V, ("`fourier[1]`", "99")),
    (lambda: UNet(labels=-1), V, ("`labels`", "-1")),
    (lambda: IMAGES(torch.zeros(2, 1, 8, 8), torch.zeros(2), 3), V, ("`label`", "no classes")),
    (lambda: MLP(()), V, ("`event_shape`", "()")),
    (lambda: MLP(channels=1), V, ("`channels`", "1")),
    (lambda: MLP((3,))(X, torch.zeros(2)), V, ("`x`", "(3,)", "(2, 2)")),
    (lambda: MLP(labels=3)(X, torch.zeros(2), torch.tensor([0, 4])), V, ("`label`", "0 … 2", "[0, 4]")),
    (lambda: MLP(labels=3)(X, torch.zeros(2), torch.zeros(2)), T, ("`label`", "float32")),
    (lambda: MLP(labels=3)(X, torch.zeros(2), torch.zeros(3).long()), V, ("`label`", "shape")),
    (lambda: Classifier(classes=1), V, ("`classes`", "1")),
    (lambda: External(3), T, ("`net`", "int")),
    (lambda: External(torch.tanh, names=["label"]), T, ("`names`", "list")),
    (lambda: External(lambda x, t: None)(X, X), ScoreFnError, ("a tensor", "NoneType")),
    (lambda: from_diffusers(lambda x, t: (x,))(X, X), ScoreFnError, ("'sample'", "tuple")),
    (lambda: nets.build("unt", {}), V, ("did you mean 'unet'",)),
]


def test_refuses_bad_input() -> None:
    assert_refused(BAD)
