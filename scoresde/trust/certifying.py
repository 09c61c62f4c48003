"""`certify`: a bound on the error of every sample, measured on a pilot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, SolveFailedError, check_choice, short
from ..core.noise import check_seed
from ..core.sdes import SDE
from ..core.support.checks import MOST_DRAWS, check_integer, check_kind, check_positive, warn_caller
from ..grids import Grid
from ..scores.bare import check_complete, check_context
from ..scores.high_noise import warn_of_high_noise
from ..scores.networks import check_evaluating
from ..sets.computing import told
from ..solvers import Solver, make_solver
from ..solvers.registry.config import to_text
from ..solvers.registry.rows import MethodName
from .certificate import Certificate, Identity
from .conformal import Coverage, check_confidence
from .coupling import Task, rows_of
from .indicators import INDICATORS, Indicator
from .law import Law
from .norms import Norm
from .running import PilotRun

_LARGEST = 1e30  # a target
_FEW = 8  # draws at which the score function is evaluated twice
_EVALUATIONS = (5, 8, 10, 15, 20, 30, 50)  # of which a target chooses, where no list is given
_TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)


def certify(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    method: MethodName | str | Solver | Grid | Sequence[str | Solver | Grid] = "auto",
    *,
    evaluations: int | Sequence[int] | None = None,
    steps: int | Sequence[int] | None = None,
    grid: Any = None,
    rtol: float | Sequence[float] | None = None,
    atol: float | None = None,
    target: float | None = None,
    pilot: int = 256,
    confidence: float = 0.95,
    confidence_in_pilot: float | None = None,
    indicator: str = "auto",
    norm: str | Callable[[Tensor], Tensor] = "rms",
    by: str | None = None,
    reference: tuple[int, int] | tuple[Tensor, Tensor] | None = None,
    shape: Sequence[int] | None = None,
    context: Mapping[str, object] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    identity: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Certificate:
    r"""Measure the errors of a method on a pilot, and bound those of all further samples.

    The pilot's draws are solved by the method and by an accurate reference. With the error :math:`e_i` of a draw (and
    what the reference is uncertain by, added) and its indicator :math:`I_i`, which is known without a reference, the
    bound of a new sample is :math:`q I`, where q is the k-th smallest of the n numbers :math:`e_i/I_i`, with
    :math:`k = \lceil (n+1)c \rceil`. As the draws are exchangeable, it holds with a probability of at least k/(n+1),
    whatever the network, the process and the method.

    Args:
        sde: an affine process.
        score_fn: as for `solve`.
        method, evaluations, steps, grid, rtol, atol, options: as for `solve`; ``options`` may also have ``t_end``,
            ``denoise``, ``start``, ``stochasticity`` and ``max_steps``. With ``target``, `method`, `evaluations`,
            `steps` and `rtol` may be lists. A method that draws noise must have a ``strong_order``; its error is that
        on the same Brownian path. target: a bound that is wanted. The cheapest of all combinations in the lists whose
            bound is at most the target is chosen on one half of the pilot, and certified on the other.
        pilot: the number of draws.
        confidence: c.
        confidence_in_pilot: if given, this pilot itself covers a share of at least ``confidence`` of all further
            samples, with this probability over pilots. The bound is larger, and takes at least 59 draws at 95 %.
        indicator: what the bound of a sample is made of: ``"constant"`` (the same bound for all), ``"embedded"``
            (differences between each step and one of first order, at no evaluation), ``"half"`` (the difference from
            half as many steps, for half as many evaluations more), ``"embedded_half"``, or ``"auto"``, the one with the
            smallest bounds. All but the constant are fitted on a half of the pilot, and calibrated on the other.
        norm: of the error: ``"rms"`` (root mean square over dimensions), ``"max"`` (the largest entry), ``"pixel"``
            (each entry has a bound, and all of a sample hold together), or a function ``f(x)`` of states with a row for
            each, whose values are compared.
        by: the name of an entry of ``context`` with classes, ``(pilot,)`` integers: each class is then calibrated by
            its own draws, if there are enough of them, and otherwise by all (with a warning).
        reference: by default an adaptive solve with rising accuracy. Two numbers of steps (tight, loose), such as
            ``(500, 250)``, take `scoresde.solvers.UniPC3` with so many steps instead, for networks that are no smooth
            function of time, such as those of integer labels. Or the end states of the pilot's draws by a tight and a
            looser solve, ``(pilot, *event)``, from the starts of ``solve(…, seeds=seeds_of(seed, pilot, 1))`` with
            ``scoresde.trust.coupling.seeds_of``.
        shape: ``(pilot, *event)``, where the score function does not declare the shape of its events.
        context: of the pilot, as for `solve`: tensors with a row for each draw, drawn as those of later samples will
            be, or one row for all. The statement is over the distribution of these rows.
        seed: of the pilot.
        batch_size: draws that are solved together. The levels of the reference are chosen on the first of these
            batches, so that bounds differ a little between batch sizes.
        identity: a text that names the code of ``score_fn``, ``sde`` and ``norm``, as far as it is not of this
            package. It is compared when the certificate is used after it was loaded.
        dtype, device: of the states; as of `solve`.

    Returns:
        A `Certificate`, whose ``solve`` draws samples with their bounds.

    Raises:
        InvalidArgumentError: an argument does not fit, or there are too few draws for the confidence.
        SolveFailedError: the reference does not agree with itself, more draws fail than the confidence allows, or
            nothing in the lists reaches the target.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> certificate = certify(
        ...     sde, target.score(sde), "dpmpp_2m", evaluations=[5, 10, 20], target=0.03
        ... )
        >>> certificate.identity.settings["evaluations"], certificate.met
        (20, True)

    References:
        Papadopoulos et al. (2002), Inductive confidence machines for regression.
        Lei et al. (2018), Distribution-free predictive inference for regression. https://arxiv.org/abs/1604.04173
    """
    count = check_integer("pilot", pilot, low=2, high=MOST_DRAWS)
    check_confidence("confidence", confidence)
    if confidence_in_pilot is not None:
        check_confidence("confidence_in_pilot", confidence_in_pilot)
    check_choice("indicator", indicator, ("auto", *INDICATORS))
    check_evaluating("score_fn", score_fn)
    seed, size = check_seed("seed", seed), Norm(norm)
    if target is not None:
        target = check_positive("target", target, high=_LARGEST)
    if target is not None and indicator not in ("auto", "constant"):
        raise InvalidArgumentError("A `target` is one bound for all samples; leave `indicator` out.")
    lists = {"method": method, "evaluations": evaluations, "steps": steps, "rtol": rtol}
    several = [_one(lists)] if target is None else _combinations(lists)
    listed = [{**each, "grid": grid, "atol": atol, **options} for each in several]
    tasks = [Task.of(sde, score_fn, settings, shape, count, dtype, device) for settings in listed]
    split = count // 2 if target is not None or indicator != "constant" else 0
    wanted = Coverage.of(count - split, confidence, confidence_in_pilot)
    fixed = check_context(context, tasks[0].score, count)
    check_complete(fixed, tasks[0].score)
    labels = _labels(by, fixed, count)
    run = PilotRun(tasks, size, count, split, seed, fixed, batch_size, wanted.rank / wanted.draws, reference, target)
    first = slice(0, min(_FEW, count))
    tasks[0].check_repeatable(first.stop, rows_of(fixed, first, count))
    made_for = Identity.of(tasks[0], fixed, count, identity)  # or an error, before the pilot
    run.begin()
    chosen, fitted = 0, Indicator("constant", 0.0, (), (), 0.0)
    if target is not None:
        chosen = run.cheapest(target, confidence)
    elif indicator != "constant":
        fitted = run.indicator(list(INDICATORS) if indicator == "auto" else [indicator])
    run.complete(chosen, fitted)
    task, column = tasks[chosen], run.columns[chosen]
    made = Identity.of(task, fixed, count, identity)
    like = torch.zeros((first.stop, *task.event), dtype=task.dtype, device=task.device)
    std = task.score.traits.data_std or run.unit
    warn_of_high_noise(task.score, task.sde, like, rows_of(fixed, first, count), std, task.sde.t_max)
    if made.network != made_for.network:
        raise InvalidArgumentError(
            "`score_fn` has changed during the pilot: its weights or buffers have other values, so that no certificate "
            "would hold for it."
        )
    scores, values = run.scores(chosen, fitted)
    _check_failures(scores, wanted, confidence)
    certificate = Certificate(
        method=_method_of(task),
        confidence=float(confidence),
        confidence_in_pilot=confidence_in_pilot,
        norm=size.name,
        norm_identity=size.identity,
        indicator=fitted,
        scores=tuple(scores.tolist()),
        labels=() if labels is None else tuple(labels[split:]),
        by=by,
        law=Law(run.distances(chosen), run.unit),
        reference=run.worth(chosen),
        target=target,
        evaluations=column.evaluations,
        extra_evaluations=column.extra if fitted.parts[1] else 0.0,
        pilot=count,
        seed=seed,
        scale=run.scale,
        level=float(values.median()),
        identity=made,
        _task=task,
        _norm=size,
    )
    _warn_of(certificate)
    return certificate


def _check_failures(scores: Tensor, wanted: Coverage, confidence: float) -> None:
    """Refuse a pilot in which more draws failed than a bound may leave out."""
    failed, allowed = int((~torch.isfinite(scores)).sum()), wanted.draws - wanted.rank
    if failed > allowed:
        raise SolveFailedError(
            f"{failed} of {len(scores)} draws failed, or have no reference, and a confidence of {confidence:g} allows "
            f"{allowed}. Examine the network with scoresde.check_score, or take more steps."
        )


def _warn_of(certificate: Certificate) -> None:
    """Warn of a target that is missed, and of classes without a bound of their own."""
    if not certificate.met:
        warn_caller(
            f"The bound of {certificate.target:g} is not certified: {certificate.method}, which one half of the pilot "
            f"chose, has a bound of {certificate.pooled.quantile:.3g} on the other. Take a larger `pilot`, or a longer "
            "list."
        )
    few = [str(label) for label, group in certificate.groups.items() if not group.own]
    if few:
        warn_caller(
            f"The classes {', '.join(few)} have too few draws to be calibrated by themselves at a confidence of "
            f"{certificate.confidence:g}, and take the bound of all, which may not cover them; take a larger `pilot`."
        )


def _one(lists: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, of which none is a list."""
    for name, value in lists.items():
        if isinstance(value, list | tuple):
            raise InvalidArgumentError(
                f"`{name}` is a list, of which a `target` chooses; pass `target`, or one {name}."
            )
    return dict(lists)


def _combinations(lists: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All combinations; where there is no list at all, those of a list of steps, or of tolerances."""
    given = {name: list(value) if isinstance(value, list | tuple) else [value] for name, value in lists.items()}
    for name, values in given.items():
        if not values:
            raise InvalidArgumentError(f"`{name}` must not be an empty list.")
    kinds = {_adaptive(method) for method in given["method"] if method != "auto"}
    if len(kinds) > 1:
        raise InvalidArgumentError(
            "`method` must not mix adaptive methods, which take tolerances, with others, which take steps; certify "
            "each kind by itself."
        )
    if given["evaluations"] == given["steps"] == given["rtol"] == [None]:
        adaptive = all(method != "auto" and _adaptive(method) for method in given["method"])
        given.update({"rtol": list(_TOLERANCES)} if adaptive else {"evaluations": list(_EVALUATIONS)})
    return [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]


def _adaptive(method: Any) -> bool:
    return not isinstance(method, Grid) and make_solver(method, {}, ()).adaptive


def _labels(by: str | None, context: Mapping[str, Any], count: int) -> list[int] | None:
    """The class of each draw."""
    if by is None:
        return None
    check_kind("by", by, str, "the name of an entry of `context`")
    if by not in context:
        raise InvalidArgumentError(f"`by` must name an entry of `context`, got {by!r}.")
    value = context[by]
    if not isinstance(value, Tensor) or value.is_floating_point() or value.numel() != count:
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else short(value)
        raise InvalidTypeError(f"`context[{by!r}]` must have one integer for each of the {count} draws, got {got}.")
    return [int(label) for label in value.reshape(-1).tolist()]


def _method_of(task: Task) -> str:
    """The method and its steps, as text."""
    given = {name: told(name, value) for name, value in task.settings.items() if name not in ("method", "grid")}
    method = task.settings.get("method")
    name = method if isinstance(method, str) else _name_of(method) if isinstance(method, Solver) else "a fitted record"
    return ", ".join([str(name), *(f"{key}={value}" for key, value in given.items())])


def _name_of(solver: Solver) -> str:
    """The name of a method that has its defaults; with other options as text."""
    try:
        plain = make_solver(solver.name, {}, ())
    except InvalidArgumentError:
        return to_text(solver)
    return solver.name if plain == solver else to_text(solver)
