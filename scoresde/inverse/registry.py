"""The list of methods, and methods made from it by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from ..core.errors import InvalidArgumentError, unknown
from ..core.sdes import AffineSDE
from ..core.support.checks import check_choice, check_kind
from ..scores import as_score
from .conditioned import ConditionedScore
from .measurement import Measurement
from .rules import RULES, Rule
from .samplers import SAMPLERS, InverseSolver

# The names of all methods, which editors complete; a test compares them.
RuleName: TypeAlias = Literal["mmps", "tmpd", "pigdm", "dps", "ddnm", "diffpir", "exact"]
SamplerName: TypeAlias = Literal["replacement", "dps_step", "mcg", "ddrm", "ddnm_plus", "twisted_smc", "split_gibbs"]


class InverseMethod(NamedTuple):
    """One method.

    Fields: ``name``; ``kind``, ``"rule"`` (a score function, for any solver) or ``"solver"``; ``cls``; ``options``,
    their names; ``gradients``, whether it differentiates the network; ``batch_coupled``; ``reference``.

    Example:
        >>> from scoresde import inverse
        >>> {m.name: m.batch_coupled for m in inverse.methods()}["twisted_smc"]
        True
    """

    name: str
    kind: str
    cls: type[Rule] | type[InverseSolver]
    options: tuple[str, ...]
    gradients: bool
    batch_coupled: bool
    reference: str


def methods() -> tuple[InverseMethod, ...]:
    """All methods for inverse problems.

    Example:
        >>> from scoresde import inverse
        >>> kinds = {m.name: m.kind for m in inverse.methods()}
        >>> kinds["mmps"], kinds["ddrm"]
        ('rule', 'solver')
    """
    return tuple(
        InverseMethod(name, kind, cls, options_of(cls), cls.gradients, cls.batch_coupled is True, str(cls.reference))
        for kind, table in (("rule", RULES), ("solver", SAMPLERS))
        for name, cls in table.items()
    )


def options_of(cls: type) -> tuple[str, ...]:
    """The options of a method's class.

    Example:
        >>> options_of(RULES["mmps"])
        ('iterations', 'radius')
    """
    return tuple(f.name for f in dataclasses.fields(cls) if f.name not in ("measurement", "tally", "scores"))


def make(cls: type, options: Mapping[str, object], *fixed: Any) -> Any:
    """A method of a class with its options; one that it does not have is refused.

    Example:
        >>> make(RULES["mmps"], {"iterations": 3})
        MMPS(iterations=3, radius=4.0)
    """
    known = options_of(cls)
    for name in options:
        check_choice(f"option of {cls.name!r}", name, known)  # type: ignore[attr-defined]
    try:
        return cls(*fixed, **options)
    except TypeError as error:
        if "missing" not in str(error):
            raise
        raise InvalidArgumentError(f"{cls.name!r} needs an option: {error}.") from error  # type: ignore[attr-defined]


def condition(
    score_fn: Callable[..., Tensor],
    operator: object,
    y: Tensor,
    noise_std: Tensor | float | None = None,
    *,
    method: RuleName | str | Rule = "mmps",
    sde: AffineSDE | None = None,
    **options: object,
) -> ConditionedScore:
    r"""The score function of the data given a measurement :math:`y = Ax_0 + n`, for any solver.

    Args:
        score_fn: the score function of the data: a `ScoreModel`, a target's score, or any other.
        operator: one of `scoresde.inverse`, a matrix ``(M, D)``, or (``"dps"``) any function of the data.
        y: ``(*measurement)``, or one per sample, ``(batch, *measurement)``.
        noise_std: the noise's standard deviation, one for each measured value, ``(*measurement)``, one for each value
            of each sample, shaped like y, or the covariance ``(M, M)`` or ``(1, M, M)``; by default the operator's
            own, which is 0 but for one of `from_deepinv`.
        method: a name of a rule (`methods`), or a `Rule`.
        sde: the process, if the score function does not declare it.
        **options: of the rule, such as ``iterations=5`` of ``"mmps"``.

    Raises:
        InvalidArgumentError: a shape does not fit, or the method cannot use this measurement.
        InvalidTypeError, NonFiniteError: y or the operator has the wrong type, or is not finite.

    Example:
        >>> from scoresde import inverse
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), scales=0.1
        ... )
        >>> posterior = inverse.condition(
        ...     target.score(sde), torch.tensor([[1.0, 0.0]]), torch.tensor([0.9]), 0.1
        ... )
        >>> x = scoresde.solve(sde, posterior, method="ancestral", shape=(9, 2), seed=0).x
        >>> bool((x[:, 0] > 0).all())
        True
    """
    if isinstance(method, str) and method in SAMPLERS:
        raise InvalidArgumentError(f"{method!r} is a solver; take sample_posterior(..., method={method!r}).")
    if isinstance(method, str) and method not in RULES:
        raise unknown("method", method, (*RULES, *SAMPLERS))
    if isinstance(method, Rule) and options:
        raise InvalidArgumentError(f"`method` is already a rule; set {', '.join(options)} there.")
    check_kind("method", method, (str, Rule), "a name or a Rule")
    rule = method if isinstance(method, Rule) else make(RULES[method], options)
    return ConditionedScore(score_fn, measured(score_fn, operator, y, noise_std), rule, sde=sde)


def measured(
    score_fn: Callable[..., Tensor], operator: object, y: Tensor, noise_std: Tensor | float | None
) -> Measurement:
    """A `Measurement`; a bare matrix has the events of the score function.

    Example:
        >>> measured(lambda x, t: -x, torch.eye(2), torch.ones(2), 1.0).std
        1.0
    """
    return Measurement(operator, y, noise_std, event_shape=as_score(score_fn).traits.event_shape)
