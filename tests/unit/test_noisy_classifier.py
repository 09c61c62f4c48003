"""A classifier of noisy data: one for all processes, trained by the trainer, saved without a pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, ScoreSDEError
from scoresde.guidance import NoisyClassifier, classifier_guidance
from scoresde.losses import noisy_cross_entropy
from scoresde.nets import Classifier
from scoresde.training import CLASSIFIER, Arrays, digits_split, grey_to_x, read, train_classifier
from scoresde.zoo import load_classifier, save_classifier
from tests.unit.refusals import assert_refused

F64 = torch.float64
PROCESSES = [scoresde.VPSDE(), scoresde.VESDE(), scoresde.SubVPSDE(), scoresde.FlowSDE(), scoresde.EDMSDE()]


class Exact(nn.Module):
    """The logits of two points -1 and 1 under noise, for a network that sees EDM's input."""

    def __init__(self, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rho = (4 * t).exp()
        y = x[:, 0] * (rho.square() + self.sigma_data**2).sqrt()
        return torch.stack([-y, y], 1) / rho.square()[:, None]


def untrained() -> NoisyClassifier:
    """With logits that differ."""
    torch.manual_seed(0)
    model = NoisyClassifier(Classifier((1, 8, 8), classes=10, channels=8), 0.6)
    nn.init.normal_(model.net.head.weight)
    return model.eval()


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_it_is_the_posterior_of_every_process(sde: scoresde.AffineSDE) -> None:
    """Against the exact responsibilities of two points, the gradient too."""
    points = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=1e-9)
    model = NoisyClassifier(Exact(0.7), 0.7, rho_min=1e-6, rho_max=1e6)
    t = sde.time(torch.tensor([2.0, 0.0, -3.0], dtype=F64))
    x = (torch.tensor([[0.3], [-1.2], [2.0]], dtype=F64) * sde.alpha(t)[:, None]).requires_grad_()
    got, exact = model.log_prob(sde, 1)(x, t), points.log_responsibilities(x, sde, t)[:, 1]
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-9)
    slopes = [torch.autograd.grad(value.sum(), x)[0] for value in (got, exact)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-9)
    by_context = model.log_prob(sde)(x, t, torch.tensor([1, 1, 1]))
    assert torch.equal(by_context, got)


def test_the_loss_is_the_cross_entropy_at_its_levels() -> None:
    model, g = NoisyClassifier(Exact(0.7), 0.7), torch.Generator()
    x0, label = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=F64), torch.tensor([1, 0, 0, 1])
    got = noisy_cross_entropy(model, x0, g.manual_seed(2), label=label, levels=lambda u: torch.full_like(u, 0.8))
    g.manual_seed(2)
    torch.rand((), generator=g, dtype=F64)
    y = x0 + 0.8 * torch.randn(x0.shape, generator=g, dtype=F64)
    margin = torch.where(label == 1, 1.0, -1.0) * 2 * y[:, 0] / 0.64
    torch.testing.assert_close(got, nn.functional.softplus(-margin))
    with pytest.raises(InvalidArgumentError, match="one per sample"):
        noisy_cross_entropy(model, x0, label=label[:2])


def test_it_guides_a_score() -> None:
    """Of two narrow components the wanted one is sampled, by a label for all and by one of each."""
    sde = scoresde.FlowSDE()
    target = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=1e-2)
    model = NoisyClassifier(Exact(0.7), 0.7)
    one = classifier_guidance(target.score(sde), model.log_prob(sde, 0))
    x = scoresde.solve(sde, one, method="ddim", steps=30, shape=(20, 1), seed=0).x
    torch.testing.assert_close(x, -torch.ones_like(x), rtol=0.0, atol=0.1)
    each = classifier_guidance(target.score(sde), model.log_prob(sde))
    label = torch.arange(20) % 2
    x = scoresde.solve(sde, each, method="ddim", steps=30, shape=(20, 1), seed=0, context={"label": label}).x
    torch.testing.assert_close(x[:, 0], 2.0 * label - 1, rtol=0.0, atol=0.1)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    model = untrained()
    save_classifier(model, tmp_path)
    back = load_classifier(tmp_path)
    x, t, sde = torch.ones(3, 1, 8, 8), torch.full((3,), 0.5), scoresde.VPSDE()
    assert torch.equal(back.log_prob(sde, 4)(x, t), model.log_prob(sde, 4)(x, t))
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    file = tmp_path / "classifier.safetensors"
    raw = file.read_bytes()
    for broken in (raw[:-8], raw.replace(b"channels", b"chanels_"), raw.replace(b"0.6", b"-.6")):
        file.write_bytes(broken)
        with pytest.raises(CorruptCheckpointError, match="no readable classifier"):
            load_classifier(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"nets\.Classifier"):
        save_classifier(NoisyClassifier(Exact(1.0)), tmp_path)


def test_what_cannot_be_used_is_refused() -> None:
    bare, sde, x, t = Arrays(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)), scoresde.VPSDE(), torch.zeros(2, 1, 8, 8), 0.5
    guided = classifier_guidance(lambda x, t: -x, untrained().log_prob(sde), sde=sde)
    labels = (12, torch.tensor([3, 10]), torch.tensor([-1, 3]), torch.tensor([3]), torch.tensor([1.0, 2.0]), None)
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: NoisyClassifier(lambda x, t: x), InvalidTypeError, "module"),  # type: ignore[arg-type]
        (lambda: NoisyClassifier(Exact(1.0), rho_min=2.0, rho_max=1.0), InvalidArgumentError, "rho_min"),
        (lambda: untrained().log_prob(lambda t: t), InvalidTypeError, "affine"),  # type: ignore[arg-type]
        (lambda: train_classifier(bare), InvalidArgumentError, "labels"),
        (lambda: noisy_cross_entropy(untrained(), x, label=labels[1]), InvalidArgumentError, "label"),
        (lambda: scoresde.solve(sde, guided, x, method="ddim", steps=2), InvalidTypeError, "context="),
        *((lambda k=k: untrained().log_prob(sde)(x, torch.full((2,), t), k), ScoreSDEError, "label") for k in labels),
    ]
    assert_refused(cases)


def test_a_run_goes_on_and_leaves_a_classifier(tmp_path: Path) -> None:
    recipe = replace(CLASSIFIER, steps=4, batch_size=4)
    options = {"kwargs": {"channels": 8, "width": 8}, "checkpoint_every": 2, "progress": False}
    first = train_classifier(read("digits"), tmp_path, recipe, **options)  # type: ignore[arg-type]
    (tmp_path / "checkpoints" / "step-0000000004.safetensors").unlink()
    again = train_classifier(read("digits"), tmp_path, recipe, resume=True, **options)  # type: ignore[arg-type]
    loaded = load_classifier(tmp_path)
    for key, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[key], value) and torch.equal(loaded.state_dict()[key], value)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_recognises_held_out_digits() -> None:
    """Of 360 digits that it has not seen 95 % at least at low noise, fewer as the noise grows."""
    model = train_classifier(read("digits"), recipe=replace(CLASSIFIER, steps=1000), progress=False)
    split = digits_split()
    x0, shares = grey_to_x(split.test_images, torch.Generator().manual_seed(0)), []
    for rho in (0.05, 1.0, 20.0):
        x = x0 + rho * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
        level = torch.full((len(x),), rho, dtype=F64)
        with torch.no_grad():
            found = model(x, torch.ones_like(level), level).argmax(1)
        shares.append(float((found == split.test_labels).float().mean()))
    assert shares[0] >= 0.95 and shares[0] > shares[1] > shares[2] and shares[2] < 0.25
