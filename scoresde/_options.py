"""The arguments of a solve, as one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .grids import Grid, GridFunction
from .noise import Noise
from .solvers import Solver
from .targets import GaussianStart

GridChoice: TypeAlias = str | Grid | Tensor | GridFunction | None  # what `solve` takes as ``grid``


@dataclass(frozen=True, eq=False)
class SolveOptions:
    """What `scoresde.solve` takes besides the process, the score function and the state; see there.

    Attributes:
        solver_options: fields of the method's class.
        names: the arguments of the function that was called, which the texts of errors name.

    Example:
        >>> SolveOptions(method="ddim", steps=20).rtol is None
        True
    """

    method: str | Solver | Grid = "pc"
    shape: Sequence[int] | None = None
    steps: int | None = None
    grid: GridChoice = None
    rtol: float | None = None
    atol: float | None = None
    t_start: float | None = None
    t_end: float | None = None
    start: GaussianStart | None = None
    stochasticity: float | None = None
    context: Mapping[str, object] | None = None
    seed: int | None = None
    seeds: Sequence[int] | Tensor | None = None
    generator: torch.Generator | None = None
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None
    denoise: bool = False
    save_at: Sequence[float] | Tensor | str | None = None
    callback: Callable[[Any], object] | None = None
    progress: bool = False
    max_steps: int | None = None
    throw: bool = True
    differentiable: bool = False
    log_prob: Any = False
    path_log_prob: bool | str = False
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    solver_options: Mapping[str, object] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> SolveOptions:
        """Those among the arguments of a function, its ``locals()`` where it begins.

        Example:
            >>> def draw(sde, steps=5, **solver_options):
            ...     return SolveOptions.of(locals())
            >>> draw(None).steps, draw(None).names
            (5, ('sde', 'steps', 'solver_options'))
        """
        known = {name: value for name, value in arguments.items() if name in cls.__dataclass_fields__}
        return cls(**known, names=tuple(name for name in arguments if name not in ("self", "__class__")))

    @classmethod
    def named(cls, settings: Mapping[str, Any]) -> SolveOptions:
        """Settings by name, in which fields of the method's class stand beside the others.

        Example:
            >>> SolveOptions.named({"method": "pc", "snr": 0.2}).solver_options
            {'snr': 0.2}
        """
        own = {name: value for name, value in settings.items() if name not in cls.__dataclass_fields__}
        known = {name: value for name, value in settings.items() if name not in own}
        return cls(**known, solver_options=own, names=tuple(cls.__dataclass_fields__))
