r"""The objective of a classifier of noisy data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_callable, check_generator, check_kind, check_state, check_tensor
from ..core.support.tensors import expand
from ..guidance import NoisyClassifier
from ..guidance.noisy import check_labels
from .core import normal
from .times import LowDiscrepancy, NoiseLevels

_LEVELS = NoiseLevels(-1.0, 1.2, uniform=0.2)


def noisy_cross_entropy(
    model: NoisyClassifier,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    label: Tensor,
    levels: Callable[[Tensor], Tensor] = _LEVELS,
) -> Tensor:
    r""":math:`-\ln p(y|x_0 + \rho\varepsilon)` at drawn noise levels :math:`\rho`, nats ``(batch,)``.

    Its minimum is the posterior of the labels at every level, whose gradient is what guidance adds to the score.

    Args:
        model: a `scoresde.guidance.NoisyClassifier`.
        x0: data, ``(batch, *event)``, floating.
        generator: source of the noise levels, then of the noise; None is torch's global one.
        label: integers ``(batch,)``.
        levels: from uniform numbers to noise levels, such as `NoiseLevels`.

    Raises:
        InvalidArgumentError: there is not one label per sample, or one is not a class.
        InvalidTypeError: the labels are not integers.

    Example:
        >>> model = scoresde.guidance.NoisyClassifier(
        ...     scoresde.nets.Classifier((1, 8, 8), classes=10)
        ... )
        >>> x0, label = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> # at the start all classes are equally likely: ln 10
        >>> noisy_cross_entropy(model, x0, label=label)
        tensor([2.3026, 2.3026, 2.3026, 2.3026], grad_fn=...)

    References:
        Dhariwal, Nichol (2021), section 4. https://arxiv.org/abs/2105.05233
    """
    check_state("x0", x0)
    check_kind("model", model, NoisyClassifier, "a scoresde.guidance.NoisyClassifier")
    check_callable("levels", levels, "levels(u), such as scoresde.losses.NoiseLevels()")
    check_kind("label", label, Tensor, f"integers ({len(x0)},)")
    if label.shape != (len(x0),):
        raise InvalidArgumentError(f"`label` must be ({len(x0)},), one per sample, got {tuple(label.shape)}.")
    check_generator(generator, device=x0.device)
    rho = levels(LowDiscrepancy().uniforms(len(x0), generator, x0.device))
    check_tensor("levels(u)", rho, (len(x0),), finite=True)
    x = x0 + expand(rho, x0) * normal(x0, generator)
    logits = model(x, torch.ones_like(rho), rho)
    return F.cross_entropy(logits, check_labels(label, x, logits.shape[1]), reduction="none")
