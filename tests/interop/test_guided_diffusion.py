"""Networks of guided-diffusion: its convention derived by hand, and its own U-Net, classifier and samplers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, ScoreFnError
from scoresde.discrete import BetaChain
from scoresde.guidance import classifier_guidance
from scoresde.interop import from_guided_classifier, from_guided_diffusion
from tests.interop.common import Net, normals, same, solved, start
from tests.refusals import refuses

pytestmark = pytest.mark.filterwarnings("ignore:.*leave the range of the data")  # of a network that is not trained
LEVELS = 40
BETAS = torch.linspace(1e-3, 0.2, LEVELS, dtype=torch.float64)
KEPT = [0, 4, 9, 17, 18, 30, 39]


def declared(mean: str = "EPSILON", variance: str = "LEARNED_RANGE", **changes: Any) -> Any:
    """The attributes of a diffusion of the published code."""
    names = {"model_mean_type": SimpleNamespace(name=mean), "model_var_type": SimpleNamespace(name=variance)}
    return SimpleNamespace(**{"betas": BETAS.numpy(), "rescale_timesteps": False, **names, **changes})


def spaced(mean: str = "EPSILON", rescaled: bool = False) -> Any:
    """Those of a ``SpacedDiffusion``: betas between the levels that are kept, and their labels."""
    kept = torch.cumprod(1 - BETAS, 0)[KEPT]
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    places = {"timestep_map": KEPT, "original_num_steps": LEVELS, "rescale_timesteps": rescaled}
    return declared(mean, "FIXED_LARGE", betas=betas.numpy(), **places)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("mean", ["EPSILON", "START_X"])
def test_ddim_on_a_spaced_chain(mean: str, rescaled: bool) -> None:
    """The network receives the labels of the whole chain, from 0 to 1000 where they are rescaled."""
    net = Net(unit=1000.0 if rescaled else LEVELS)
    seen: list[Tensor] = []

    def noted(x: Tensor, timesteps: Tensor) -> Tensor:
        seen.append(timesteps)
        return net(x, timesteps)

    model = from_guided_diffusion(noted, spaced(mean, rescaled))
    mine = solved(model, start(), "ddim", len(KEPT) - 1, denoise=True)
    labels = [1000 * i / LEVELS if rescaled else i for i in reversed(KEPT)]
    assert [float(label[0]) for label in seen] == labels and seen[0].is_floating_point() is rescaled
    kept, x = torch.cumprod(1 - BETAS, 0)[KEPT], start()
    with torch.no_grad():
        for k, label in zip(reversed(range(len(KEPT))), labels, strict=True):
            below = kept[k - 1] if k else torch.ones((), dtype=torch.float64)
            out = net(x, torch.full((len(x),), label))
            data = out if mean == "START_X" else (x - (1 - kept[k]).sqrt() * out) / kept[k].sqrt()
            noise = (x - kept[k].sqrt() * data) / (1 - kept[k]).sqrt()
            x = below.sqrt() * data + (1 - below).sqrt() * noise
    same(mine, x, 1e-10)


@pytest.mark.parametrize("rescaled", [False, True])
def test_chains_and_betas_do_as_well(rescaled: bool) -> None:
    """Where labels are rescaled the unit is the whole chain, of which respacing keeps a part."""
    net, options = Net(unit=1000.0 if rescaled else LEVELS), {"rescale_timesteps": rescaled}
    first = from_guided_diffusion(net, spaced(rescaled=rescaled))
    second = from_guided_diffusion(net, BetaChain(BETAS).respace(KEPT), **options)
    third = from_guided_diffusion(net, BETAS, **options)
    for k, i in enumerate(KEPT):
        out = first.noise(start(), float(k))
        assert torch.equal(out, second.noise(start(), float(i))) and torch.equal(out, third.noise(start(), float(i)))


def test_learned_variances() -> None:
    """The second half of the channels is 2v - 1, and the variance of a step beta^v (the smallest one)^(1-v)."""
    net, draws = Net(2, unit=LEVELS), normals(LEVELS)
    model = from_guided_diffusion(net, declared())
    assert model.has_variance and from_guided_diffusion(net, BETAS, learn_sigma=True).has_variance
    mine = solved(model, start(), "ancestral", LEVELS - 1, variance="learned", denoise=True, draws=draws)
    bar, x = torch.cumprod(1 - BETAS, 0), start()
    with torch.no_grad():
        for k, i in enumerate(reversed(range(LEVELS))):
            noise, share = net(x, torch.full((len(x),), i)).chunk(2, dim=1)
            x = (x - BETAS[i] / (1 - bar[i]).sqrt() * noise) / (1 - BETAS[i]).sqrt()
            if i:
                small = BETAS[i] * (1 - bar[i - 1]) / (1 - bar[i])
                share = 0.5 * (share + 1)
                x = x + (0.5 * (share * BETAS[i].log() + (1 - share) * small.log())).exp() * draws[k]
    same(mine, x, 1e-10)


def classifier(x: Tensor, timesteps: Tensor) -> Tensor:
    """Logits of three classes, linear in the state, with a smooth dependence on the label."""
    weights = torch.arange(3.0, dtype=x.dtype)[:, None] * torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype)
    return x.flatten(1) @ weights.mT / (1 + timesteps.to(x.dtype)[:, None] / LEVELS)


def test_classifier_guidance() -> None:
    """The published ``condition_score``: the noise minus the gradient times the deviation of the noise."""
    net, y, scale = Net(unit=LEVELS), torch.tensor([2, 0, 1]), 3.0
    model = from_guided_diffusion(net, spaced())
    guided = classifier_guidance(model, from_guided_classifier(classifier, model), scale)
    options: dict[str, Any] = {"grid": model.grid, "denoise": True, "context": {"y": y}}
    mine = scoresde.solve(model.sde, guided, start(), method="ddim", steps=len(KEPT) - 1, **options).x
    kept, x = torch.cumprod(1 - BETAS, 0)[KEPT], start()
    for k in reversed(range(len(KEPT))):
        below = kept[k - 1] if k else torch.ones((), dtype=torch.float64)
        label = torch.full((len(x),), KEPT[k])
        y_x = x.clone().requires_grad_()
        chosen = classifier(y_x, label).log_softmax(-1)[torch.arange(len(x)), y].sum()
        slope = torch.autograd.grad(chosen, y_x)[0]
        with torch.no_grad():
            noise = net(x, label) - (1 - kept[k]).sqrt() * scale * slope
            data = (x - (1 - kept[k]).sqrt() * noise) / kept[k].sqrt()
            x = below.sqrt() * data + (1 - below).sqrt() * noise
    same(mine, x, 1e-10)


class Declares(torch.nn.Module):
    """A network with the attributes of the published U-Net."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.image_size = channels, out, 16

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return x.repeat(1, self.out_channels // self.in_channels, 1, 1)


class Enlarges(Declares):
    """One that gets the enlarged image beside the state."""

    def forward(self, x: Tensor, timesteps: Tensor, low_res: Tensor | None = None) -> Tensor:
        return x


def test_what_is_read_from_the_network() -> None:
    model = from_guided_diffusion(Declares(3, 6), BETAS)
    assert model.event_shape == (3, 16, 16) and model.has_variance and model.data_range == (-1.0, 1.0)
    assert not from_guided_diffusion(Declares(3, 3), BETAS).has_variance
    model = from_guided_diffusion(Enlarges(6, 3), BETAS)
    assert model.event_shape == (3, 16, 16) and not model.has_variance and model.accepts("low_res")


V, T = InvalidArgumentError, InvalidTypeError
PLAIN = scoresde.ScoreModel(Net(), scoresde.VPSDE(), "noise")


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: from_guided_diffusion(3, BETAS), T, "`model` must be callable"),  # type: ignore[arg-type]
    (lambda: from_guided_diffusion(Net(), "linear"), T, "`betas`"),
    (lambda: from_guided_diffusion(Net(), declared("PREVIOUS_X")), V, "model_mean_type.*PREVIOUS_X"),
    (lambda: from_guided_diffusion(Net(), declared(variance="LEARNED")), V, "model_var_type.*LEARNED"),
    (lambda: from_guided_diffusion(Net(), declared(model_mean_type=None)), V, "enumeration"),
    (lambda: from_guided_diffusion(Net(), declared(), prediction="noise"), V, "`prediction` is declared"),
    (lambda: from_guided_diffusion(Net(), BETAS, prediction="v"), V, "`prediction`"),
    (lambda: from_guided_diffusion(Net(), BETAS, learn_sigma=1), T, "`learn_sigma`"),  # type: ignore[arg-type]
    (lambda: from_guided_diffusion(Declares(3, 6), declared(variance="FIXED_SMALL")), V, "out_channels=6"),
    (lambda: from_guided_classifier(classifier, PLAIN), V, "`model` must be what"),
    (lambda: from_guided_classifier(3, PLAIN), T, "`classifier`"),  # type: ignore[arg-type]
]


def test_what_fits_no_convention_is_refused() -> None:
    refuses(REFUSED)


def test_a_classifier_in_use() -> None:
    model = from_guided_diffusion(Net(unit=LEVELS), BETAS)
    t = torch.full((3,), 5.0, dtype=torch.float64)
    log_prob = from_guided_classifier(classifier, model)
    same(sum(log_prob(start(), t, y=torch.full((3,), y)).exp() for y in range(3)), torch.ones_like(t), 1e-12)
    with pytest.raises(InvalidArgumentError, match="`y` must be one class per sample, 3 integers"):
        log_prob(start(), t, y=torch.tensor([1, 2]))
    with pytest.raises(ScoreFnError, match=r"logits \(3, classes\)"):
        from_guided_classifier(lambda x, t: x, model)(start(), t, y=torch.tensor([0, 1, 2]))


@pytest.fixture
def published() -> Any:
    """The modules of the package, which uses old names of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusion = pytest.importorskip("guided_diffusion.gaussian_diffusion", exc_type=ImportError)
        respace = pytest.importorskip("guided_diffusion.respace", exc_type=ImportError)
        unet = pytest.importorskip("guided_diffusion.unet", exc_type=ImportError)
    return SimpleNamespace(diffusion=diffusion, respace=respace, unet=unet)


def weighted(net: torch.nn.Module) -> torch.nn.Module:
    """With random weights, some of which the package sets to zero."""
    generator = torch.Generator().manual_seed(4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return net.eval()


@pytest.mark.peers
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_its_unet_and_samplers(published: Any, schedule: str, rescaled: bool) -> None:
    """A conditional U-Net with learned variances in single precision, a classifier, ten levels of 1000."""
    shape, y, scale = (3, 3, 16, 16), torch.tensor([2, 0, 1]), 2.0
    sizes = {"image_size": 16, "in_channels": 3, "num_res_blocks": 1, "attention_resolutions": (2,)}
    sizes |= {"model_channels": 32, "channel_mult": (1, 2), "num_heads": 2}
    net = weighted(published.unet.UNetModel(out_channels=6, num_classes=4, **sizes))
    judge = weighted(published.unet.EncoderUNetModel(out_channels=4, pool="attention", num_head_channels=32, **sizes))
    diffusion = published.respace.SpacedDiffusion(
        use_timesteps=published.respace.space_timesteps(1000, "10"),
        betas=published.diffusion.get_named_beta_schedule(schedule, 1000),
        model_mean_type=published.diffusion.ModelMeanType.EPSILON,
        model_var_type=published.diffusion.ModelVarType.LEARNED_RANGE,
        loss_type=published.diffusion.LossType.MSE,
        rescale_timesteps=rescaled,
    )

    def slope(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            chosen = judge(x, t).log_softmax(-1)[range(len(x)), y].sum()
            return scale * torch.autograd.grad(chosen, x)[0]

    model = from_guided_diffusion(net, diffusion)
    assert model.event_shape == shape[1:] and model.has_variance
    guided = classifier_guidance(model, from_guided_classifier(judge, model), scale)
    x = start(shape).float()
    given: dict[str, Any] = {"noise": x, "clip_denoised": False, "model_kwargs": {"y": y}, "device": "cpu"}
    options: dict[str, Any] = {"steps": 9, "grid": model.grid, "denoise": True, "context": {"y": y}}
    for cond_fn, ours in ((None, model), (slope, guided)):
        other = diffusion.ddim_sample_loop(net, shape, cond_fn=cond_fn, **given)
        mine = scoresde.solve(model.sde, ours, x, method="ddim", **options).x
        same(mine, other, 1e-5)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            draws = [torch.randn(shape) for _ in range(10)]
            torch.manual_seed(0)
            other = diffusion.p_sample_loop(net, shape, cond_fn=cond_fn, **given)
        more: dict[str, Any] = {"variance": "learned", "noise": lambda k, like, draws=draws: draws[k]}
        more |= {} if cond_fn is None else {"condition": "mean"}
        mine = scoresde.solve(model.sde, ours, x, method="ancestral", **options, **more).x
        same(mine, other, 1e-5)
