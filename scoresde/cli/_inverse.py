"""Inverse problems of the command line: what was measured, and the plan that draws the data given it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import InvalidArgumentError, NonFiniteError, ScoreSDEError, check_choice
from ..core.support.files.paths import readable
from ..core.support.registries import RULES, SAMPLERS
from ._data import Data, fits, prepare, read
from ._operators import centred, check_operator, make_operator, operator_flag, parse_call, read_mask
from ._options import SolvePlan, digest
from ._output import ARRAYS
from ._run import flag

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.sdes import AffineSDE
    from ..core.support.files.arrays import Check
    from ..inverse import LinearOperator

METHOD = "mmps"
_NEEDY = ("exact",)  # methods that need more than a command line can say


def methods(*tables: Iterable[str]) -> list[str]:
    """The names that ``--inverse`` takes, of all methods or of those in some tables.

    Example:
        >>> methods(SAMPLERS) == list(SAMPLERS), "exact" in methods()
        (True, False)
    """
    return [name for table in tables or (RULES, SAMPLERS) for name in table if name not in _NEEDY]


class InverseProblem(NamedTuple):
    """An inverse problem as the command line states it.

    Attributes:
        operator, options: the name of what measures, and its options.
        source: the file that holds what was measured, or of ``--inpaint`` the picture to be painted.
        painted: whether it is the picture.
        noise: the standard deviation of the measurement's noise.
        method, settings: the name of the method, and its options.
    """

    operator: str
    options: dict[str, object]
    source: str
    painted: bool
    noise: float
    method: str
    settings: dict[str, object]

    @property
    def sampler(self) -> str:
        """The solver that draws if nobody names one; for a method that is a solver itself, one that is not used."""
        from ..inverse import Rule

        return RULES.get(self.method, Rule).sampler


@dataclass(frozen=True, kw_only=True)
class InverseOptions:
    """What was measured, and how it is used."""

    inpaint: tuple[Path, str] | None = flag(
        None,
        "Inpaint IMAGE where MASK, a picture of the same size, is white; where it is black the image is observed.",
        metavar="MASK IMAGE",
    )
    measurement: str | None = flag(
        None,
        "Sample what the data may have been, given this measurement: a file of `scoresde measure`, an array y "
        "(.npz, .safetensors; samples first), or a picture.",
        metavar="FILE",
    )
    operator: str | None = operator_flag(
        "Operator of the measurement: {}. Default: the operator in the measurement's file."
    )
    noise: float | None = flag(
        None,
        "Standard deviation of the noise of the measurement, or of IMAGE, in the model's units. Default: the "
        "value in the measurement's file, or 0.",
    )
    inverse: str | None = flag(
        None,
        f"How a measurement is used: {', '.join(methods(RULES))}, which work with any --method; or "
        f"{', '.join(methods(SAMPLERS))}, which take the place of --method. Default: {METHOD}.",
        metavar="NAME[:KEY=VALUE,...]",
        names=methods(),
    )


def problem_of(options: InverseOptions) -> InverseProblem | None:
    """The problem of a command line, None if there is none. What the options leave open is taken from the measurement's
    file.

    Example:
        >>> masked = (Path("mask.png"), "digit.png")
        >>> problem_of(InverseOptions(inpaint=masked, inverse="ddrm")).method
        'ddrm'
        >>> problem_of(InverseOptions(noise=0.1))
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `noise` needs a measurement; give one, ...
    """
    inpaint, operator, noise = options.inpaint, options.operator, options.noise
    if inpaint is None and options.measurement is None:
        for name in ("operator", "noise", "inverse"):
            if getattr(options, name) is not None:
                raise InvalidArgumentError(
                    f"`{name}` needs a measurement; give one, such as --measurement y.npz or --inpaint MASK IMAGE."
                )
        return None
    if inpaint is not None and (operator is not None or options.measurement is not None):
        raise InvalidArgumentError("`inpaint` defines the measurement; leave --operator and --measurement out.")
    method, settings = parse_call("inverse", METHOD if options.inverse is None else options.inverse)
    check_choice("inverse", method, methods())
    from ..core.support.checks import check_number

    settled: dict[str, object]
    if inpaint is not None:
        mask, source = inpaint
        told, settled = "inpaint", {"mask": str(mask)}
    else:
        source = str(options.measurement)
        record = _record(Path(source))
        text = record.get("operator") if operator is None else operator
        if not isinstance(text, str):
            raise InvalidArgumentError(
                f"`operator` is missing, and {source!r} does not name it; say what made the measurement, as "
                "--operator block_average:factor=2."
            )
        told, settled = parse_call("operator", text)
        noise = record.get("noise") if noise is None else noise
    check_operator(told, settled)
    std = check_number("noise", 0.0 if noise is None else noise, low=0.0)
    return InverseProblem(told, settled, source, inpaint is not None, std, method, settings)


def posed(
    problem: InverseProblem, plan: SolvePlan, event: Sequence[int], process: AffineSDE, span: tuple[float, float]
) -> tuple[Callable[[range], SolvePlan], int]:
    """The plan that draws the data given what was measured: a rule changes the score, a solver takes the plan's place.

    Args:
        problem: as the command line states it.
        plan: the process and the solver that were given, or their defaults.
        event: the shape of the data.
        process: to be solved.
        span: the values of black and white.

    Returns:
        The plan for samples with these indices, and the number of measurements: sample i has measurement i modulo it.
    """
    from ..inverse import Measurement, condition
    from ..inverse.registry import make

    operator = _operator(problem, event)
    ys = _measured(problem, operator, span)
    if len(ys) > 1 and problem.method in SAMPLERS and SAMPLERS[problem.method].batch_coupled is True:
        raise InvalidArgumentError(
            f"`inverse`: {problem.method!r} couples the samples of a batch, which must be of one measurement, but "
            f"{problem.source!r} has {len(ys)}; take another method."
        )
    shown = {
        **plan.shown,
        "operator": {"name": problem.operator, **problem.options},
        "measurement": digest([("y", ys if len(ys) > 1 else ys[0])]),
        "noise": problem.noise,
        "inverse": {"name": problem.method, **problem.settings},
    }

    def at(indices: range) -> SolvePlan:
        y = ys[0] if len(ys) == 1 else ys[[i % len(ys) for i in indices]]
        if problem.method not in SAMPLERS:

            def conditioned(score_fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
                return condition(
                    score_fn, operator, y, problem.noise, method=problem.method, sde=process, **problem.settings
                )

            return plan._replace(name=f"{problem.method} by {plan.name}", model=conditioned, shown=shown)
        solver = make(SAMPLERS[problem.method], problem.settings, Measurement(operator, y, problem.noise))
        told = {**plan.told, "method": solver}
        return plan._replace(name=problem.method, solver=solver, told=told, shown={**shown, "method": None})

    return at, len(ys)


def _operator(problem: InverseProblem, event: Sequence[int]) -> LinearOperator:
    """The operator of a problem; of ``--inpaint`` whose files are in the wrong order, what to write instead."""
    try:
        return make_operator(problem.operator, problem.options, event)
    except InvalidArgumentError:
        if not problem.painted or not _is_mask(Path(problem.source), event):
            raise
        mask, size = problem.options["mask"], f"{event[-1]} x {event[-2]}"
        raise InvalidArgumentError(
            f"`inpaint` takes the mask first, then the image: {mask!r} is no black-and-white mask of {size} pixels, "
            f"but {problem.source!r} is one. Write --inpaint {problem.source} {mask}."
        ) from None


def _is_mask(path: Path, event: Sequence[int]) -> bool:
    try:
        read_mask(path, event)
    except ScoreSDEError:
        return False
    return True


def single(name: str, source: str, check: Check, key: str | None = None) -> Data:
    """The only sample of a file.

    Args:
        name: of the argument, for messages.
        source, key, check: see `read`.
    """

    def one(shape: tuple[int, ...]) -> None:
        if shape[0] != 1:
            raise InvalidArgumentError(f"{source!r} must hold one sample, got {shape[0]}.")
        check(shape)

    return _samples(name, source, one, key)


def _samples(name: str, source: str, check: Check, key: str | None = None) -> Data:
    """The samples of a file; errors name the argument."""
    try:
        return read(source, key, check)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"`{name}`: {error}") from None


def _measured(problem: InverseProblem, operator: LinearOperator, span: tuple[float, float]) -> Tensor:
    """What was measured, ``(n, *measurement)``."""
    if problem.painted:
        data = single("inpaint", problem.source, fits(operator.event_shape, problem.source))
        inputs = prepare(data, None, span)
        return operator.forward(centred(inputs.values, inputs.levels, span))
    source, wanted = problem.source, operator.measurement_shape

    def check(shape: tuple[int, ...]) -> None:
        if shape[1:] != wanted:
            raise InvalidArgumentError(
                f"{source!r} must be one of shape {wanted}, which is what {problem.operator!r} makes of the model's "
                f"{operator.event_shape}, got {shape[1:]}; another --operator, or another --model."
            )

    data = _samples("measurement", source, check, "y" if Path(source).suffix.lower() in ARRAYS else None)
    y = data.values
    if not y.is_floating_point() and data.levels is None:
        raise InvalidArgumentError(
            f"`measurement` {source!r} must be floating-point numbers in the model's range, or a picture, got integers."
        )
    y = centred(y, data.levels, span)
    if not bool(y.isfinite().all()):
        raise NonFiniteError(f"`measurement` {source!r} has NaN or infinite values.", stage="input")
    return y


def _record(path: Path) -> dict[str, Any]:
    """What `scoresde measure` wrote beside a measurement, nothing of another file."""
    suffix = path.suffix.lower()
    if suffix not in ARRAYS:
        return {}
    with readable(path, "measurement"):
        if suffix == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as content:
                text = str(content["metadata"]) if "metadata" in content.files else "{}"
        else:
            from safetensors import safe_open

            with safe_open(path, "np") as file:
                text = (file.metadata() or {}).get("scoresde", "{}")
        record = json.loads(text)
    return record if isinstance(record, dict) else {}
