"""Solves of the same draws: by a method, by it with half the steps, and by references."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.arguments import SolveOptions, shape_to_draw
from ..core.errors import InvalidArgumentError
from ..core.noise import BrownianPath, Noise, SampleNoise, check_seed
from ..core.noise.sources import check_seeds
from ..core.sdes import AffineSDE
from ..core.sdes.base import check_affine
from ..core.setup import is_times, set_up
from ..core.solution import Solution
from ..core.solve import solve
from ..core.support.checks import check_device, check_dtype, check_integer
from ..core.support.context import mapped
from ..core.support.tensors import expand
from ..grids import Grid
from ..scores import Score, as_score
from ..scores.bare import of_process
from ..scores.networks import check_quiet
from ..solvers import Solver
from ..tuning.records import FittedGrid, FittedSolver

Settings = Mapping[str, Any]
_FAR = 10.0  # log-SNRs, beyond which rounding shows in estimates of the noise
_REPEATABLE = 1e-3  # of the values: what kernels that are not deterministic may change
_SHARED = ("t_end", "denoise")  # of the settings, those that belong to the problem, and not to the method
_OWN = ("x", "shape", "t_start", "context", "seed", "seeds", "generator", "noise", "callback", "progress", "throw",
        "save_at", "differentiable", "log_prob", "path_log_prob", "dtype", "device")  # fmt: skip


def check_settings(settings: Settings) -> dict[str, Any]:
    """What is given for `solve`, without None; what a certificate decides is refused."""
    for name in settings:
        if name in _OWN:
            raise InvalidArgumentError(f"`{name}` cannot be set here.")
    return {name: value for name, value in settings.items() if value is not None}


def seeds_of(seed: int, count: int, purpose: int) -> list[int]:
    """Seeds of 64 bits, one per draw; those of different seeds and purposes have nothing in common.

    Example:
        >>> (
        ...     seeds_of(0, 2, 1) == seeds_of(0, 3, 1)[:2],
        ...     seeds_of(0, 1, 1) == seeds_of(0, 1, 2),
        ... )
        (True, False)
    """
    state = np.random.SeedSequence([check_seed("seed", seed), purpose]).generate_state(count, np.uint64)
    return [int(value) for value in state]


@dataclass(frozen=True)
class Task:
    """What is solved, and how.

    Args:
        sde, score_fn: of `solve`.
        settings: the method and its arguments, as `solve` takes them.
        event: the shape of an event.
        dtype, device: of the states.
    """

    sde: AffineSDE
    score_fn: Callable[..., Tensor]
    settings: Settings
    event: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(
        cls,
        sde: object,
        score_fn: Callable[..., Tensor],
        settings: Settings,
        shape: Sequence[int] | None,
        count: int,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Task:
        """What the arguments of `certify` say, checked."""
        process = check_affine(sde)
        score_fn = of_process(score_fn, process)
        score = as_score(score_fn, process)
        full = shape_to_draw(shape, score.traits.event_shape, count, "pilot")
        if full[0] != count:
            raise InvalidArgumentError(f"`shape` must be (pilot, *event) with pilot={count}, got {full}.")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        check_dtype("dtype", dtype)
        return cls(
            process, score_fn, check_settings(settings), full[1:], dtype, check_device(device, score.network_device)
        )

    @property
    def score(self) -> Score:
        """The score function as an object."""
        return as_score(self.score_fn)

    @functools.cached_property
    def solver(self) -> Solver:
        """The method, as `solve` would take it; arguments that do not fit are errors."""
        draw = {"shape": (1, *self.event), "seed": 0, "dtype": self.dtype, "device": self.device}
        setup = set_up(self.sde, self.score, None, SolveOptions.named({**self.settings, **draw}))
        if setup.loop is None:
            raise InvalidArgumentError("`t_end` is t_max, where there is nothing to solve.")
        return setup.loop.solver

    def check(self) -> None:
        """Refuse arguments that do not fit."""
        _ = self.solver

    @property
    def stochastic(self) -> bool:
        """Whether the method draws noise."""
        return self.solver.stochastic

    def noise(self, seeds: Sequence[int]) -> Callable[[], Noise]:
        """Makes sources that all have the same draws: of each sample its own, and one Brownian path for all solves."""
        solver = self.solver
        if not solver.stochastic:
            return lambda: SampleNoise(seeds)
        order = solver.strong_order
        path = BrownianPath(check_seeds(seeds), self.sde.t_min, self.sde.t_max, areas=order is not None and order > 1)
        return lambda: path

    def solve(
        self, noise: Callable[[], Noise], count: int, context: Mapping[str, Any], settings: Settings | None = None,
        **options: Any,
    ) -> Solution:  # fmt: skip
        """Solve some draws; those that fail are marked."""
        given = {"noise": noise(), "shape": (count, *self.event), "context": context or None, "throw": False, **options}
        given |= {"dtype": self.dtype, "device": self.device, **(self.settings if settings is None else settings)}
        with check_quiet("score_fn", self.device):
            return solve(self.sde, self.score_fn, **given)

    def start(self, noise: Callable[[], Noise], count: int) -> Tensor:
        """The states at t_max."""
        source = noise().begin()
        like = torch.empty(
            (count, *self.event), dtype=torch.promote_types(self.dtype, torch.float32), device=self.device
        )
        return self.sde.prior.from_normal(source.normal(like))

    def check_repeatable(self, count: int, context: Mapping[str, Any]) -> None:
        """Refuse a random score function, by two evaluations of normal data with noise, each at a level of its own."""
        score, times = self.score, spread_times(self.sde, count)
        node = self.sde.nodes(times)
        size = (node.alpha**2 * (score.traits.data_std or 1.0) ** 2 + node.sigma**2).sqrt()
        z = torch.randn((count, *self.event), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = (expand(size, z) * z).to(self.device, self.dtype)
        node = self.sde.nodes(times.to(self.device))
        check_repeatable(lambda: score.estimate(x, node, **context).noise)

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that belong to the problem, which a reference has as well."""
        return {name: value for name, value in self.settings.items() if name in _SHARED}

    def steps(self, otherwise: int) -> int:
        """The number of steps, as far as the settings determine it."""
        given, paid = self.settings.get("steps"), self.settings.get("evaluations")
        return int(given or otherwise) if paid is None else self.solver.steps_for(paid)

    def halved(self, steps: int) -> Settings | None:
        """The settings with at most half of the evaluations of so many steps; None where the method has no others."""
        solver = self.solver
        if solver.adaptive:
            return None
        count = solver.steps_for(solver.cost(steps) // 2)
        return self._with_times(lambda times: _subset(times, count), count) if count >= 1 else None

    def refined(self, factor: int, steps: int) -> Settings | None:
        """The settings with each of so many steps divided; None where the method has no others."""
        return self._with_times(lambda times: self._divided(times, factor), self.steps(steps) * factor)

    def _with_times(self, changed: Callable[[Tensor], Tensor], count: int) -> Settings | None:
        """The settings with other times: those of a grid changed, or as many steps."""
        settings = dict(self.settings)
        method, grid = settings.get("method"), settings.get("grid")
        if isinstance(method, FittedSolver):
            return None
        if isinstance(method, FittedGrid):
            times = changed(torch.tensor(method.times, dtype=torch.float64))
            with torch.no_grad():
                levels = tuple(self.sde.log_snr(times).tolist())
            return {**settings, "method": replace(method, times=tuple(times.tolist()), log_snr=levels)}
        if is_times(grid):
            given = grid.times_for(self.sde) if isinstance(grid, Grid) else grid
            return {**settings, "grid": changed(torch.as_tensor(given, dtype=torch.float64))}
        settings.pop("evaluations", None)
        return settings | ({"evaluations": self.solver.cost(count)} if method == "auto" else {"steps": count})

    def _divided(self, times: Tensor, factor: int) -> Tensor:
        """Times with more between them, at equal distances of the log-SNR, or of time where that is infinite."""
        with torch.no_grad():
            levels = self.sde.log_snr(times)
        fractions = torch.arange(1, factor, dtype=torch.float64) / factor
        parts = [times[:1]]
        for i in range(len(times) - 1):
            if bool(levels[i : i + 2].isfinite().all()):
                inner = self.sde.time(levels[i] + fractions * (levels[i + 1] - levels[i]))
            else:
                inner = times[i] + fractions * (times[i + 1] - times[i])
            parts += [inner, times[i + 1 : i + 2]]
        return torch.cat(parts)


def spread_times(sde: AffineSDE, count: int) -> Tensor:
    """Times from t_max to t_min at equal distances of the log-SNR, within -10 and 10, float64 ``(count,)``.

    Example:
        >>> spread_times(scoresde.EDMSDE(), 3)
        tensor([8.0000e+01, 7.3419e-01, 6.7379e-03], dtype=torch.float64)
    """
    with torch.no_grad():
        first, last = sde.log_snr(torch.tensor([sde.t_max, sde.t_min], dtype=torch.float64)).clamp(-_FAR, _FAR).tolist()
        return sde.time(torch.linspace(first, last, count, dtype=torch.float64)).clamp(sde.t_min, sde.t_max)


def check_repeatable(evaluate: Callable[[], Tensor]) -> None:
    """Refuse a score function that has other values when it is evaluated again.

    Example:
        >>> check_repeatable(lambda: torch.ones(2, 1))
    """
    with torch.no_grad():
        first, second = (evaluate().to(torch.float64, copy=True).nan_to_num() for _ in range(2))
    apart = float((first - second).flatten(1).square().mean(1).sqrt().max())  # of the draw where it is the largest
    size = float(first.square().mean().sqrt())
    if apart > _REPEATABLE * size:
        raise InvalidArgumentError(
            f"The score function is random: two evaluations at the same states are {apart:.2g} apart, of {size:.2g}. "
            "Make it deterministic; a network with dropout needs .eval()."
        )


def _subset(times: Tensor, count: int) -> Tensor:
    """So many steps of a grid, with its ends."""
    return times[torch.linspace(0, len(times) - 1, count + 1, dtype=torch.float64).round().long()]


def parts(count: int, size: int, edge: int = 0) -> Iterator[slice]:
    """The rows of batches, none of which is on both sides of an edge.

    Example:
        >>> list(parts(5, 2, 3))
        [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    size = check_integer("batch_size", size, low=1)
    for low, high in ((0, min(edge, count)), (edge, count)):
        for first in range(low, high, size):
            yield slice(first, min(first + size, high))


def rows_of(context: Mapping[str, Any], rows: slice, count: int) -> dict[str, Any]:
    """The context of some draws; what is the same for all stays."""

    def some(value: Tensor) -> Tensor:
        if value.ndim == 0 or len(value) == 1:
            return value
        if len(value) != count:
            raise InvalidArgumentError(
                f"The tensors of `context` must have 1 or {count} rows, one for each draw, got {tuple(value.shape)}."
            )
        return value[rows]

    return mapped(some, context)
