"""Guidance by the gradient of a classifier."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core.sdes import AffineSDE, Estimate, Node
from ..core.support.checks import check_callable
from ..core.support.context import mapped
from ..core.support.signatures import accepts, extras
from ..core.support.tensors import expand, row_times, usable
from ..scores import ScoreFn, Split, Wrapper
from .gradient import gradient_of
from .interval import GuidanceInterval
from .scale import Scale, ScaleLike


class ShiftedScore(Wrapper):
    r"""A score with a gradient added; subclasses give it.

    With :math:`v = w\,\nabla\log p(y|x_t)`: :math:`\hat\varepsilon \leftarrow \hat\varepsilon - \sigma v` and
    :math:`\hat x \leftarrow \hat x + (\sigma^2/\alpha)\,v`.

    Attributes:
        takes: how many arguments the function has besides the context.
    """

    takes: int = 2

    def __init__(
        self,
        score_fn: ScoreFn,
        name: str,
        function: Callable[..., Tensor],
        scale: ScaleLike,
        interval: Sequence[float | None] | None,
        sde: AffineSDE | None,
    ) -> None:
        check_callable(name, function, f"{name}(x, …)")
        self.name, self.function = name, function
        self.scale = Scale.of(scale)
        self.interval = GuidanceInterval.of(interval)
        self.needs_process = self.needs_process or self.scale.by_level or not self.interval.whole
        super().__init__((score_fn,), sde)
        self.traits = replace(
            self.traits,
            rowwise=self.rowwise and bool(getattr(function, "rowwise", True)),
            # where alpha = 0 the shift of the data would be infinite, if there is one
            noise_limit=self.has_noise_limit and self.interval.low > -math.inf,
            shift=self.traits.sde is not None,
            # with an interval, or a scale by levels, the twist at the last level, which weights aim at, is another one
            twist=self.interval.whole and not self.scale.by_level and self.score_fns[0].traits.twist,
        )
        self.scale.check_apart(self.score_fns, extras(function, self.takes))

    def accepts(self, name: str) -> bool:
        """Whether the score function, or what guides it, takes a context of this name, or the scale is under it."""
        return name == self.scale.name or super().accepts(name) or accepts(self.function, name)

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """See `Score.context_arguments`."""
        known = extras(self.function, self.takes)
        if self.scale.constant == 0:  # it is not called
            known = dict.fromkeys(known, False)
        return {**known, **super().context_arguments, **self.scale.context_arguments}

    def twisted(self, x: Tensor, node: Node, **context: object) -> Split:
        """The estimate without guidance, and :math:`v`, shaped like ``x``, and the logarithm of what guides; None
        where nothing guides."""
        inside = self.interval.inside(node)
        given, context = context, self.scale.rest(context)
        if inside is False or (inside is not True and not bool(inside.any())):
            return self._base(x, node, context)
        scale = self.scale.at(x, node, given)
        if not isinstance(scale, Tensor) and not scale:
            return self._base(x, node, context)
        below, slope, value = self._slope(x, node, context)
        shift, log_twist = expand(scale, slope) * slope.to(x.dtype), expand(scale, value) * value.to(torch.float64)
        if inside is not True:
            shift = torch.where(expand(inside.to(x.device), shift).bool(), shift, torch.zeros_like(shift))
        if below.shift is not None and below.log_twist is not None:
            shift, log_twist = below.shift + shift, below.log_twist + log_twist
        return Split(below.estimate, shift, log_twist)

    @abc.abstractmethod
    def _slope(self, x: Tensor, node: Node, context: dict[str, object]) -> tuple[Split, Tensor, Tensor]:
        """What `_base` gives, the gradient, and the value it is of."""

    def _base(self, x: Tensor, node: Node, context: dict[str, object]) -> Split:
        """The estimate of the score function, and what guides it itself."""
        score_fn = self.score_fns[0]
        given = {name: value for name, value in context.items() if score_fn.accepts(name)}
        if isinstance(score_fn, ShiftedScore):
            return score_fn.twisted(x, node, **given)
        return Split(self.ask(score_fn, x, node, given))

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        estimate, shift, _ = self.twisted(x, node, **context)
        return estimate if shift is None else moved(estimate, shift, x, node)


def moved(estimate: Estimate, shift: Tensor, x: Tensor, node: Node) -> Estimate:
    """The estimate whose score is larger by ``shift``."""
    alpha, sigma = expand(node.alpha, x), expand(node.sigma, x)
    return estimate._replace(data=estimate.data + (sigma * sigma / alpha) * shift, noise=estimate.noise - sigma * shift)


def taken(function: Callable[..., Tensor], context: dict[str, object]) -> dict[str, object]:
    """The part of a context that a callable takes."""
    return {k: v for k, v in context.items() if accepts(function, k)}


class ClassifierGuidance(ShiftedScore):
    """See `classifier_guidance`."""

    needs_process = False

    def _slope(self, x: Tensor, node: Node, context: dict[str, object]) -> tuple[Split, Tensor, Tensor]:
        given, t = taken(self.function, context), row_times(node.t, x)

        def value(y: Tensor) -> tuple[Tensor, None]:
            return self.function(y.clone(), t.clone(), **mapped(usable, given)), None

        slope, _, values = gradient_of(value, x, self.name)
        return self._base(x, node, context), slope, values


def classifier_guidance(
    score_fn: ScoreFn,
    log_prob: Callable[..., Tensor],
    scale: ScaleLike = 1.0,
    interval: Sequence[float | None] | None = None,
    *,
    sde: AffineSDE | None = None,
) -> ClassifierGuidance:
    r"""Guidance by a classifier of noisy data:

    .. math:: s(x_t, t) + w\,\nabla_{x_t}\log p(y|x_t).

    With w = 1 and the classifier that belongs to the score this is the score of :math:`p_t(x|y)`, and every solver
    samples :math:`p(x|y)`. For other scales see `scoresde.guidance`, and `scoresde.sample_tilted`. An evaluation calls
    the score function once, and the classifier once forwards and once backwards; nothing is kept from step to step.

    Of DDPM's two forms, this is ``condition_score``; ``condition_mean``, which shifts the mean of a reverse step by
    :math:`w\,\Sigma\,\nabla\log p(y|x_t)` instead, is the option ``condition="mean"`` of `scoresde.solvers.Ancestral`.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        log_prob: ``log_prob(x, t, **context) -> (batch,)``, differentiable in x by autograd, up to a constant of x; it
            gets x in the dtype of the state, t as ``(batch,)``, and the entries of the solve's ``context`` that it
            takes. Labels of each sample belong there. A function that holds per-sample values itself should have an
            attribute ``rowwise = False``; finished samples then stay in the batch.
        scale: w, in the forms of `classifier_free`; the number 0 does not call ``log_prob``.
        interval: guide only where the log-SNR :math:`\ln\alpha^2/\sigma^2` is in ``(low, high)``; None is open.
        sde: the process, if the score function does not declare it; needed for ``interval`` and a scale by levels only.

    Raises:
        ScoreFnError: in a call, ``log_prob`` did not return one value per sample, or its gradient is blocked.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.3
        ... )
        >>> right = lambda x, t: target.log_responsibilities(x, sde, t)[:, 1]
        >>> x = scoresde.solve(
        ...     sde,
        ...     classifier_guidance(target.score(sde), right),
        ...     method="pc",
        ...     seeds=range(50),
        ... ).x
        >>> bool((x.mean() - 1).abs() < 0.2)
        True

    References:
        Dhariwal, Nichol (2021), Diffusion Models Beat GANs on Image Synthesis, section 4.
        https://arxiv.org/abs/2105.05233
    """
    return ClassifierGuidance(score_fn, "log_prob", log_prob, scale, interval, sde)
