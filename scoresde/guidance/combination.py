r"""Weighted sums of scores.

A sum of scores with weights that sum to one is one of estimates, :math:`\hat x = \sum w_i\hat x_i` and
:math:`\hat\varepsilon = \sum w_i\hat\varepsilon_i`; what is missing to one is the weight of a flat distribution, of
score 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.support.checks import check_number
from ..core.support.tensors import expand, row_std, where
from ..scores.base import with_data
from ..scores.wrapper import AffineSDE, Estimate, Node, ScoreFn, Wrapper
from .interval import GuidanceInterval
from .scale import Scale, ScaleLike
from .together import ask_together


class Scaled(NamedTuple):
    """Weights that sum to one, of a scale that is not the same everywhere.

    Attributes:
        scale: w, by levels or by samples.
        of: the weights from w.
    """

    scale: Scale
    of: Callable[[Any], tuple[Any, Any]]


class WeightedScores(Wrapper):
    """A weighted sum of scores; outside the interval the first alone.

    Args:
        score_fns, weights: the score functions, and a weight for each.
        keeps: which of them keep their own labels when a solve gives others.
        interval: see `classifier_free`.
        rescale: see `classifier_free`.
        sde: the process.
    """

    def __init__(
        self,
        score_fns: Sequence[ScoreFn],
        weights: Sequence[float] | Scaled,
        keeps: Sequence[bool],
        interval: Sequence[float | None] | None = None,
        rescale: float = 0.0,
        sde: AffineSDE | None = None,
    ) -> None:
        self.scaled = weights if isinstance(weights, Scaled) else None
        self.weights = None if isinstance(weights, Scaled) else tuple(weights)
        self.keeps = tuple(keeps)
        self.interval = GuidanceInterval.of(interval)
        self.rescale = check_number("rescale", rescale, low=0.0, high=1.0)
        by_level = self.scaled is not None and self.scaled.scale.by_level
        self.needs_process = by_level or not self.interval.whole or self.rescale > 0
        super().__init__(tuple(score_fns), sde)
        if self.scaled is not None:
            self.scaled.scale.check_apart(self.score_fns)
        self.flat = 0.0 if self.weights is None else 1.0 - sum(self.weights)
        self.flat = 0.0 if abs(self.flat) < 1e-12 else self.flat  # what rounding leaves
        self.traits = replace(self.traits, noise_limit=self.has_noise_limit and not self.flat)

    @property
    def is_first(self) -> bool:
        """Whether it is the first score function, everywhere."""
        return self.weights is not None and self.weights[0] == 1 and not any(self.weights[1:])

    def accepts(self, name: str) -> bool:
        """Whether one of the score functions takes a context of this name from a solve, or the scale is under it."""
        named = self.scaled is not None and name == self.scaled.scale.name
        return named or any(self._takes(i, name) for i in range(len(self.score_fns)))

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """See `Score.context_arguments`."""
        found = dict.fromkeys(super().context_arguments, False)
        for i, score_fn in enumerate(self.score_fns):
            if self.weights is None or self.weights[i]:  # it is evaluated
                found |= {name: True for name, needed in score_fn.context_arguments.items() if needed}
        return {**found, **(self.scaled.scale.context_arguments if self.scaled else {})}

    def _takes(self, i: int, name: str) -> bool:
        score_fn = self.score_fns[i]
        return score_fn.accepts(name) and not (self.keeps[i] and name in score_fn.bound_names)

    def _asked(self, which: Sequence[int], x: Tensor, node: Node, context: dict[str, object]) -> list[Estimate]:
        contexts = [{k: v for k, v in context.items() if self._takes(i, k)} for i in which]
        return ask_together(self.ask, [self.score_fns[i] for i in which], x, node, contexts)

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        given, context = context, context if self.scaled is None else self.scaled.scale.rest(context)
        inside = self.interval.inside(node)
        if inside is False or (inside is not True and not bool(inside.any())):
            return self._asked([0], x, node, context)[0]
        weights: Sequence[float | Tensor] = self.weights or ()
        if self.scaled is not None:
            weights = self.scaled.of(self.scaled.scale.at(x, node, given))
        first = self.rescale > 0 or inside is not True
        which = [i for i, w in enumerate(weights) if isinstance(w, Tensor) or w or (first and i == 0)]
        if not which:
            return _flat(x, node)
        estimates = self._asked(which, x, node, context)
        base = estimates[0]
        rest = [(weights[i], e) for i, e in zip(which[1:], estimates[1:], strict=True)]
        if self.flat:
            rest.append((self.flat, _flat(x, node)))
        if not rest:
            return base
        data, noise = base.data, base.noise
        for w, e in rest:
            data, noise = _plus(data, e.data - base.data, w), _plus(noise, e.noise - base.noise, w)
        guided = base._replace(data=data, noise=noise)
        if self.rescale:
            guided = with_data(guided, _rescaled(guided.data, base.data, self.rescale), x, node)
        if inside is True:
            return guided
        return base._replace(data=where(inside, guided.data, base.data), noise=where(inside, guided.noise, base.noise))


def _plus(value: Tensor, change: Tensor, weight: float | Tensor) -> Tensor:
    """A value and so much of a change, which may be a number for each sample."""
    if isinstance(weight, Tensor):
        return value.addcmul(expand(weight, change), change)
    return value.add(change, alpha=weight)


def _flat(x: Tensor, node: Node) -> Estimate:
    """The estimate of a distribution whose score is 0."""
    return Estimate(data=x / expand(node.alpha, x), noise=torch.zeros_like(x))


def _rescaled(data: Tensor, like: Tensor, share: float) -> Tensor:
    """Partly with the standard deviation, over a sample's elements, of other data."""
    if data[0:1].numel() == 1:
        raise InvalidArgumentError(
            "`rescale` needs events of at least two elements: a single one has no standard deviation."
        )
    own, wanted = row_std(data), row_std(like)
    # what is the same everywhere but for rounding has no spread to change
    flat = own <= 8 * torch.finfo(data.dtype).eps * data.flatten(1).abs().amax(1)
    ratio = torch.where(flat, torch.ones_like(own), wanted / torch.where(flat, torch.ones_like(own), own))
    return data * expand(1 - share + share * ratio, data)


def _weights(scale: ScaleLike, of: Callable[[Any], tuple[Any, Any]]) -> tuple[float, float] | Scaled:
    """Two weights that sum to one, from a scale."""
    found = Scale.of(scale)
    return Scaled(found, of) if found.constant is None else of(found.constant)


def _towards(w: Any) -> tuple[Any, Any]:
    return w, 1 - w


def _away(w: Any) -> tuple[Any, Any]:
    return 1 + w, -w


def classifier_free(
    conditional: ScoreFn,
    unconditional: ScoreFn,
    scale: ScaleLike,
    interval: Sequence[float | None] | None = None,
    rescale: float = 0.0,
    *,
    sde: AffineSDE | None = None,
) -> WeightedScores:
    r"""Classifier-free guidance, with c the conditional and u the unconditional score:

    .. math:: u + w\,(c - u).

    The scale w is 1 for the conditional, which alone is then evaluated, bitwise; 0 for the unconditional; above 1 it
    exaggerates. (Papers that write :math:`(1+w')c - w'u` mean :math:`w = 1 + w'`.) Where both are one network with
    different labels, as ``network.score(sde, label=3)`` and ``network.score(sde)``, or two `conditional` ones of one
    ``rowwise`` score function, they are one call of twice the batch.

    With :math:`w > 1` the samples have no simple distribution: see `scoresde.guidance`.

    Args:
        conditional, unconditional: score functions of one process. Of the ``context`` of a solve, labels go to the
            conditional; the unconditional keeps its own.
        scale: w, in one of three forms. A number. A function of the log-SNR :math:`\ln\alpha^2/\sigma^2`
            (`AffineSDE.log_snr`, the same for every process), called with a float64 tensor, ``()``, or ``(batch,)``
            where times are per sample: ``lambda log_snr: 1 + 4 * torch.sigmoid(log_snr)``. Or the name of an entry of
            the context of a solve, which has one number per sample, ``(batch,)``, or one for all, ``(1,)``:
            ``scale="guidance"`` and ``context={"guidance": tensor}``.
        interval: guide only where the log-SNR is in ``(low, high)``; elsewhere the conditional alone is evaluated. None
            is open.
        rescale: :math:`\phi` in [0, 1]: the guided :math:`\hat x` gets the standard deviation, over a sample's
            elements, of the conditional one, to this share.
        sde: the process, if neither declares it; needed for ``interval``, ``rescale`` and a scale by levels only.

    Raises:
        InvalidArgumentError: in a call, the entry of the context is missing or has another shape, or the function
            returned no number.

    Differs from:
        Lin et al. and diffusers rescale what the network predicts; here it is the data estimate, whatever is predicted.
        Kynkäänniemi et al. give the interval in EDM's :math:`\sigma`; its log-SNR is :math:`-2\ln\sigma`.

    Example:
        >>> sde, network = scoresde.VPSDE(), scoresde.load("digits")
        >>> guided = classifier_free(network.score(sde, label=3), network.score(sde), 2.0)
        >>> scoresde.solve(sde, guided, method="unipc", steps=5, seeds=range(4)).evaluations
        5
        >>> each = classifier_free(
        ...     network.score(sde, label=3), network.score(sde), "guidance"
        ... )
        >>> scales = {"guidance": torch.tensor([0.0, 1.0, 2.0, 5.0])}
        >>> scoresde.solve(
        ...     sde, each, method="unipc", steps=5, seeds=range(4), context=scales
        ... ).x.shape
        torch.Size([4, 1, 8, 8])

    References:
        Ho, Salimans (2022), Classifier-Free Diffusion Guidance, eq. 6. https://arxiv.org/abs/2207.12598
        Kynkäänniemi et al. (2024), Applying Guidance in a Limited Interval. https://arxiv.org/abs/2404.07724
        Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps are Flawed, section 3.4.
        https://arxiv.org/abs/2305.08891
    """
    weights = _weights(scale, _towards)
    _apart("conditional", conditional, "unconditional", unconditional)
    return WeightedScores((conditional, unconditional), weights, (False, True), interval, rescale, sde)


def autoguidance(
    score_fn: ScoreFn,
    weak: ScoreFn,
    scale: ScaleLike,
    interval: Sequence[float | None] | None = None,
    *,
    sde: AffineSDE | None = None,
) -> WeightedScores:
    r"""Guidance of a network by a weaker one of the same data, smaller or less trained:
    :math:`s_{weak} + w\,(s - s_{weak})`.

    Args:
        score_fn, weak: score functions of one process; the ``context`` of a solve goes to both.
        scale: w, 1 for the network alone, in the forms of `classifier_free`.
        interval, sde: as in `classifier_free`.

    Example:
        >>> good, weak = lambda x, t: -x, lambda x, t: -0.5 * x
        >>> autoguidance(good, weak, 2.0)(torch.ones(1, 1), 0.5)
        tensor([[-1.5000]])

    References:
        Karras et al. (2024), Guiding a Diffusion Model with a Bad Version of Itself. https://arxiv.org/abs/2406.02507
    """
    weights = _weights(scale, _towards)
    _apart("score_fn", score_fn, "weak", weak)
    return WeightedScores((score_fn, weak), weights, (False, False), interval, sde=sde)


def product(
    *score_fns: ScoreFn,
    weights: Sequence[float] | None = None,
    base: ScoreFn | None = None,
    sde: AffineSDE | None = None,
) -> WeightedScores:
    r"""Product of concepts: with b the score without any,

    .. math:: b + \sum_i w_i(s_i - b),\qquad p_b\prod_i (p_i/p_b)^{w_i}.

    Without a base it is the product of experts :math:`\prod_i p_i^{w_i}`. Where noise dominates, this does not have the
    width of the process's prior, unless the weights sum to one; the base mends that.

    The products at different times are not a diffusion of the last one: use Langevin moves, or take it as a heuristic.

    Args:
        score_fns: one or more, of one process; each keeps its labels.
        weights: one each, by default 1.
        base: the score of the data without a concept.
        sde: the process, if none declares it.

    Example:
        >>> left, right = lambda x, t: -(x - 1), lambda x, t: -(x - 3)
        >>> product(left, right, base=lambda x, t: -x)(torch.zeros(1, 1), 0.5)
        tensor([[4.]])

    References:
        Liu et al. (2022), Compositional Visual Generation with Composable Diffusion Models, eq. 11.
        https://arxiv.org/abs/2206.01714
        Du et al. (2023), Reduce, Reuse, Recycle. https://arxiv.org/abs/2302.11552
    """
    if not score_fns:
        raise InvalidArgumentError("`score_fns` are missing: write product(first, second).")
    w = weights_of(score_fns, weights)
    if base is None:
        return WeightedScores(score_fns, w, [True] * len(w), sde=sde)
    return WeightedScores((base, *score_fns), (1 - sum(w), *w), [True] * (len(w) + 1), sde=sde)


def negation(
    base: ScoreFn, concept: ScoreFn, scale: ScaleLike = 1.0, *, sde: AffineSDE | None = None
) -> WeightedScores:
    r"""Negation of a concept: :math:`b + w(b - s)`, :math:`p_b(p_b/p)^w`.

    Args:
        base: the score of the data; the ``context`` of a solve goes to it.
        concept: the score of what to stay away from; it keeps its labels.
        scale: w, 0 for the base alone, in the forms of `classifier_free`.
        sde: the process, if neither declares it.

    Example:
        >>> negation(lambda x, t: -x, lambda x, t: -(x - 1))(torch.zeros(1, 1), 0.5)
        tensor([[-1.]])

    References:
        Liu et al. (2022), eq. 13. https://arxiv.org/abs/2206.01714
    """
    weights = _weights(scale, _away)
    _apart("base", base, "concept", concept)
    return WeightedScores((base, concept), weights, (False, True), sde=sde)


def _apart(name: str, a: ScoreFn, other: str, b: ScoreFn) -> None:
    if a is b:
        raise InvalidArgumentError(
            f"`{name}` and `{other}` are the same score function, so their difference is 0; bind other labels, "
            f"as scoresde.guidance.conditional(score_fn, label=3) does."
        )


def weights_of(score_fns: Sequence[ScoreFn], weights: Any, **limits: Any) -> tuple[float, ...]:
    """One number for each score function, 1 by default, within limits (of `check_number`)."""
    if weights is None:
        return (1.0,) * len(score_fns)
    given = listed("weights", weights)
    if len(given) != len(score_fns):
        raise InvalidArgumentError(
            f"`weights` must be {len(score_fns)} numbers, one per score function, got {len(given)}."
        )
    return tuple(check_number(f"weights[{i}]", w, **limits) for i, w in enumerate(given))


def listed(name: str, values: Any) -> list[Any]:
    """A sequence given by a user, as a list."""
    try:
        return list(values)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTypeError(f"`{name}` must be a sequence, got {type(values).__name__}.") from None
