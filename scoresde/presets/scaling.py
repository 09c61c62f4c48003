r"""Published settings scaled to small images.

The published numbers are those for CIFAR-10: 50,000 images of 32×32×3, networks of 128 channels. The presets are for
scikit-learn's digits, 1,437 images of 8×8, and networks of 32 channels. Four rules lead from one to the other, and no
number of a preset is changed otherwise:

1. What is counted in steps is counted in epochs: steps, warm-up, and the memory 1/(1 - decay) of the averaged weights
   are multiplied by 1437/50000. Batch sizes stay. Since shorter runs are the rule (``--steps``), an average with a
   memory starts as a power-function average, whose memory is a tenth of the steps done, until it has its own.
2. The learning rate is inversely proportional to the channels, as Adam's is: times 128/32.
3. The noisiest level of a variance exploding process, where it was the largest distance between two data, is that of
   the digits in [0, 1], 4.53; NCSNv2's other levels and its step follow by its own rules.
4. 256 grey levels become 17: in the cells of losses and bounds, and in the exponents of VDM's Fourier features, 7 and
   8 there and 3 and 4 here, so that the first wave has a period of two levels (of 16, the power of two nearest to 17).

References:
    Yang, Hu et al. (2021), Tensor Programs V, table 3 (the learning rate of a width). https://arxiv.org/abs/2203.03466
"""

from __future__ import annotations

from typing import Any

from ..core.support.checks import MOST_NUMBERS, check_integer, check_number
from ..training import Recipe

EPOCHS = 1437 / 50_000
WIDTH = 128 / 32
LARGEST_DISTANCE = 4.53  # between two of the training digits in [0, 1]
_POWER = 9.0


def scaled(
    steps: int, learning_rate: float, *, ema: float = 0.0, warmup: int = 0, clip: float = float("inf"), **more: Any
) -> Recipe:
    """The recipe for the digits, from published numbers; ``more`` are other arguments of `scoresde.training.Recipe`.

    Example:
        >>> recipe = scaled(800_000, 2e-4, ema=0.9999, warmup=5000, clip=1.0)
        >>> recipe.steps, recipe.warmup, recipe.learning_rate, round(recipe.ema, 4)
        (22992, 144, 0.0008, 0.9965)
    """
    steps = check_integer("steps", steps, low=1, high=MOST_NUMBERS)
    warmup = check_integer("warmup", warmup, low=0, high=MOST_NUMBERS)
    learning_rate = check_number("learning_rate", learning_rate, low=0.0, strict=True)
    ema = check_number("ema", ema, low=0.0, high=1.0)
    return Recipe(
        **{"optimizer": "adam", "betas": (0.9, 0.999), "decay": "none"}
        | more
        | {
            "steps": round(EPOCHS * steps),
            "learning_rate": WIDTH * learning_rate,
            "warmup": round(EPOCHS * warmup),
            "ema": max(0.0, 1 - (1 - ema) / EPOCHS) if ema else 0.0,
            "ema_power": _POWER if ema else None,
            "clip": clip,
        }
    )


def network(**more: Any) -> dict[str, object]:
    """The arguments of the U-Net that all published systems have here.

    Example:
        >>> network(dropout=0.1)["dropout"]
        0.1
    """
    return {"channels": 32, "blocks": 2, "width": 64, "labels": 0, **more}
