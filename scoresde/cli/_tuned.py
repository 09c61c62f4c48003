"""``--tune``: a method and a grid that are chosen by measuring, and files of such a choice in the place of a method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidArgumentError
from ..core.support.registries import SDES

if TYPE_CHECKING:
    import torch

    from ..core.sdes import AffineSDE
    from ..tuning import FittedGrid, Tuned

RECORD = ".json"
PILOT = 16  # samples that are tuned on


def is_record(method: str | None) -> bool:
    """Whether a method is a file of what was tuned, fitted or learned.

    Example:
        >>> is_record("tuned.json"), is_record("ddim")
        (True, False)
    """
    return method is not None and method.lower().endswith(RECORD)


def check_left_out(reason: str, hint: str = "", **given: Any) -> None:
    """Refuse options that another one leaves no room for.

    Example:
        >>> check_left_out("--tune chooses the grid", grid="karras")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `grid`: --tune chooses the grid; leave --grid out.
    """
    for name, value in given.items():
        if value is not None:
            raise InvalidArgumentError(f"`{name}`: {reason}; leave --{name.replace('_', '-')} out.{hint}")


def read_record(path: str) -> FittedGrid:
    """What `tune`, `fit_grid` or `fit_solver` made, from its file."""
    from ..tuning import FittedGrid

    if not Path(path).is_file():
        raise InvalidArgumentError(f"`method`: there is no file {path!r}; --tune --save-tuned {path} makes one.")
    record = FittedGrid.load(path)
    if not record.method:
        raise InvalidArgumentError(f"`method`: {path!r} has a grid and no method; use it from Python, as grid=.")
    return record


def check_named(method: str, example: str) -> None:
    """Refuse a file for what goes from data to noise."""
    if is_record(method):
        raise InvalidArgumentError(
            f"`method`: what is in {method!r} goes from noise to data; give a name of `scoresde methods`, such as "
            f"{example}."
        )


def check_process(path: str, record: FittedGrid, process: AffineSDE) -> None:
    """Refuse a record that was made for another process than the one to be solved."""
    if record.fits(process):
        return
    name = next((name for name, cls in SDES.items() if record.fits(cls())), None)
    first = "" if name is None else f"pass --sde {name}, or "
    raise InvalidArgumentError(
        f"`method`: {path!r} was made for {record.process}, but the process here is {process!r}; {first}make a file "
        f"for this one, with --tune --save-tuned {path}."
    )


def announcement(model: str, steps: int) -> str:
    """What is about to take a while."""
    from ..tuning.tuning import most_calls

    calls = most_calls(steps)
    return f"Tuning {model} for {steps} evaluations, by about {calls} network calls with {PILOT} samples ..."


def tuned(
    process: AffineSDE, score_fn: Callable[..., Any], steps: int, event: Sequence[int], seed: int, where: torch.device
) -> Tuned:
    """The choice for a number of evaluations."""
    from ..tuning import tune

    return tune(process, score_fn, steps, pilot=PILOT, shape=(PILOT, *event), seed=seed, device=where)


def summary(record: Tuned) -> str:
    """The choice in a line: what it is, its error and that of ``auto``, and its cost.

    Example:
        >>> from scoresde.tuning import Cost, PilotErrors, Ranked, Tuned
        >>> summary(
        ...     Tuned(
        ...         (1.0, 0.1),
        ...         evaluations=1,
        ...         fitted=PilotErrors(0.2, 0.1),
        ...         cost=Cost(48, 0, 48.0),
        ...         ranking=(Ranked("DDIM()", "karras", 0.2, 0.1, 1.0, 0.0),),
        ...     )
        ... )
        'tuned for 1 evaluation: DDIM() on karras, pilot median error 0.1; 48 network calls with 16 samples'
    """
    best, auto = record.ranking[0], record.default.median
    other = "" if math.isnan(auto) else f" (auto {auto:.2g})"
    return (
        f"tuned for {record.evaluations} evaluation{'s' * (record.evaluations != 1)}: {best.method} on {best.grid}, "
        f"pilot median error {record.fitted.median:.2g}{other}; {record.cost.calls} network calls with {PILOT} samples"
    )
