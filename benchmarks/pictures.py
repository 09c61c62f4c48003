r"""Pictures of guidance, of inverse problems, and of trust for the documentation.

Digits of every class at several scales of guidance; half digits, small and blurred ones, each with samples of what they
may have been and the true digit; and grey digits coloured by a network of tinted digits, which is trained for it.

``python -m benchmarks pictures`` writes ``docs/assets/guidance.png``, ``inpainting.png``, ``super_resolution.png``,
``deblurring.png`` and ``colourisation.png``, and the figures of a certificate and of a diagnosis, ``certificate.png``
and ``diagnosis.png``; ``--check`` makes small versions and writes nothing; ``--only`` makes some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks.inverse_digits import NOISE, SAMPLER, upper_half
from scoresde import guidance, inverse
from scoresde.losses import NoiseLevels, edm
from scoresde.nets import build
from scoresde.plot import image_grid
from scoresde.training import Recipe, digits_split, fit, grey_to_x

SDE = scoresde.VPSDE()
ASSETS = Path("docs/assets")
SCALES = (0.0, 1.0, 1.5, 3.0, 8.0)
RING = scoresde.targets.GaussianMixture(
    torch.ones(4), torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), scales=0.3
)
SHOWN = {0: 3, 2: 3, 3: 3, 5: 2, 8: 3}  # legible held-out digits: classes, and which of them
SAMPLES = 6  # of each
TINTED: dict[str, Any] = {"event_shape": [3, 8, 8], "channels": 32, "blocks": 1, "width": 32}
LEVELS = NoiseLevels(mean=0.0, std=1.2, uniform=0.25, rho_min=1e-3, rho_max=1e2)


def guided(steps: int) -> Tensor:
    """A row of ten classes for each scale; a column has one seed."""
    network, rows = scoresde.load("digits"), []
    for scale in SCALES:
        score_fn = guidance.classifier_free(network.score(SDE), network.score(SDE), scale)
        context = {"label": torch.arange(10)}
        options: dict[str, Any] = {"method": "unipc3", "steps": steps, "denoise": True, "context": context}
        rows.append(scoresde.solve(SDE, score_fn, seeds=range(10), **options).x)
    return torch.cat(rows)


def restored(score_fn: Any, operator: inverse.LinearOperator, truth: Tensor, steps: int) -> Tensor:
    """A row for each digit: what was measured, as an image; samples; the digit itself."""
    y = operator.forward(truth)
    y = y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    count = len(truth)
    got = inverse.sample_posterior(
        SDE,
        score_fn,
        operator,
        y.repeat_interleave(SAMPLES, 0),
        NOISE,
        sampler=SAMPLER,
        steps=steps,
        seeds=range(count * SAMPLES),
        denoise=True,
    )
    samples = got.x.unflatten(0, (count, SAMPLES))
    return torch.cat([shown(operator, y)[:, None], samples, truth[:, None]], 1).flatten(0, 1)


def shown(operator: inverse.LinearOperator, y: Tensor) -> Tensor:
    """A measurement as an image of the data's size."""
    if isinstance(operator, inverse.Mask):
        grey = operator.adjoint(torch.ones_like(y))
        return operator.adjoint(y) - 0.4 * (1 - grey)
    if isinstance(operator, inverse.Grey):
        return y.expand(-1, *operator.event_shape)
    factor = operator.event_shape[-1] // y.shape[-1]
    return y.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def tint(x: Tensor, generator: torch.Generator) -> Tensor:
    """Digits ``(batch, 1, h, w)`` in ink of any bright hue, ``(batch, 3, h, w)``."""
    hue = torch.rand(len(x), generator=generator)[:, None]
    ink = (1 - 0.5 * (1 + torch.cos(2 * torch.pi * (hue - torch.tensor([0.0, 1 / 3, 2 / 3])))) * 0.9)[..., None, None]
    return -1 + (x + 1) * ink / ink.amax(1, keepdim=True)


def train_tinted(steps: int, *, progress: bool = True) -> scoresde.ScoreModel:
    """A network of tinted digits."""
    generator = torch.Generator().manual_seed(0)
    images = digits_split().train_images

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        rows = torch.randint(len(images), (count,), generator=generator)
        return tint(grey_to_x(images[rows], generator), generator), {}

    std = float(tint(grey_to_x(images, generator), generator).std())

    def loss(net: torch.nn.Module, x0: Tensor, generator: torch.Generator) -> Tensor:
        return edm(net, x0, generator, sigma_data=std, levels=LEVELS)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build("unet", TINTED)
    recipe = Recipe(steps=steps, batch_size=32, learning_rate=2e-3, warmup=100, ema_power=9.0)
    net = fit(net, loss, draw, recipe, generator, progress=progress)
    return scoresde.ScoreModel(net, SDE, prediction="edm", sigma_data=std)


def certificate(path: Path | None, draws: int) -> None:
    """Of a ring of four modes, in ten steps."""
    scoresde.certify(SDE, RING.score(SDE), "dpmpp_2m", steps=10, pilot=draws).plot(path)


def diagnosis(path: Path | None, draws: int) -> None:
    """Of the same ring, in six steps that end too early."""
    x = RING.sample(2000, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"held_out": x[1000:], "method": "ddim", "steps": 6, "t_end": 0.05, "pilot": draws}
    scoresde.diagnose(SDE, RING.score(SDE), x[:1000], **given).plot(path)


FIGURES = {"certificate": certificate, "diagnosis": diagnosis}


def main(arguments: Sequence[str]) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks pictures", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", nargs="+", choices=FIGURES, help="figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.only or FIGURES:
        FIGURES[name](None if options.check else ASSETS / f"{name}.png", 120 if options.check else 256)
    if options.only:
        return
    steps = 5 if options.check else 50
    split = digits_split()
    rows = torch.stack([(split.test_labels == k).nonzero()[i, 0] for k, i in SHOWN.items()])
    truth = grey_to_x(split.test_images[rows], torch.Generator().manual_seed(1))
    score_fn = scoresde.load("digits").score(SDE)
    shape = tuple(truth.shape[1:])
    columns = SAMPLES + 2

    def keep(name: str, x: Tensor, columns: int) -> None:
        path = None if options.check else ASSETS / f"{name}.png"
        picture = image_grid(x, path, columns=columns, scale=6)
        print(f"{name:18} {picture.width} x {picture.height}" + (f", {path.stat().st_size} bytes" if path else ""))

    keep("guidance", guided(steps), 10)
    for name, operator in (
        ("inpainting", upper_half()),
        ("super_resolution", inverse.block_average(shape, 2)),
        ("deblurring", inverse.gaussian_blur(shape, 1.0)),
    ):
        keep(name, restored(score_fn, operator, truth, steps), columns)
    colour = train_tinted(2 if options.check else 1200, progress=not options.check)
    inked = tint(truth, torch.Generator().manual_seed(2))
    keep("colourisation", restored(colour, inverse.Grey(tuple(inked.shape[1:])), inked, steps), columns)
