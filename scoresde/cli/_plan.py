"""Which solver, where it steps, and how it ends: as the command line says, or as the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._options import choose_method

if TYPE_CHECKING:
    from torch import Tensor

    from ..solvers import Solver
    from ..zoo import Pretrained


class Plan(NamedTuple):
    """A solver with the other arguments of `scoresde.solve`.

    Attributes:
        name: the method's.
        steps: how many it takes, None for the method's default.
        told: steps, grid and end, as arguments of `scoresde.solve`.
        denoise: how it ends if nobody says; None leaves it to the output.
        shown: for the metadata, plain values.
        model: the score function to solve with, made from the network's.
    """

    name: str
    solver: Solver
    steps: int | None
    told: Mapping[str, Any]
    denoise: bool | None
    shown: Mapping[str, object]
    model: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda score_fn: score_fn


def asked(name: str, steps: int | None, grid: str | None, options: dict[str, object]) -> Plan:
    """The plan of a command line.

    Example:
        >>> asked("ddim", 10, None, {}).told
        {'steps': 10, 'grid': None}
    """
    solver, steps = choose_method(name, steps, options)
    told = {"steps": steps, "grid": grid}
    return Plan(name, solver, steps, told, None, {"method": name, "options": options, **told})


def saved(network: Pretrained) -> Plan | None:
    """The plan that a model came with, if it has one.

    Example:
        >>> saved(scoresde.load("digits")) is None
        True
    """
    sampler = getattr(network.config, "sampler", None)
    if sampler is None:
        return None
    told = sampler.arguments(network.chain)
    for key in ("method", "denoise", *sampler.options):
        told.pop(key)
    solver, steps = choose_method(sampler.method, sampler.steps, dict(sampler.options))
    if sampler.levels is None:
        told["steps"] = steps
    else:
        steps = sampler.levels - 1
    return Plan(sampler.method, solver, steps, told, sampler.denoise, sampler.to_config(), sampler.model)
