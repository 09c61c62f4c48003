"""The random states of a solve, and their file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from ..core.errors import CorruptCheckpointError, InvalidArgumentError
from ..core.recorder.tracing import TracedRun
from ..core.sdes import SDE
from ..core.support.checks import check_device, check_integers, check_kind
from ..core.support.context import cut, mapped, named
from ..core.support.display import Displayed, kind, span
from ..core.support.files.paths import check_path, readable
from ..core.support.files.writing import write_bytes
from ..solvers import Solver, from_config, to_config

FORMAT = 1
_SAME = 1e-6  # relative, of the values of a process


@dataclass(frozen=True, eq=False, repr=False)
class Path(Displayed):
    r"""The random states of a solve with ``path_log_prob=True``, and what their density under another network needs.

    Most steps have one random state, the one at their end. Some have several, at the stages where they evaluate the
    network, and a predictor-corrector step has one per move. Of ``"sa_solver"`` they are the predicted states.

    Attributes:
        times: of the grid, ``(steps + 1,)`` float64; a solve that a callback has stopped has fewer states and
            densities.
        start: the state at the start, ``(batch, *event)``.
        states: the random states in order, each ``(batch, *event)``; none with ``path_log_prob="sums"``.
        step_of: the step of each of them.
        levels: the time of each of them.
        log_probs: the log-density of each step given what came before, ``(batch, steps)`` float64, in nats; 0 where a
            step draws nothing.
        noisy: which steps have a density, ``(steps,)`` bool. The last step onto :math:`\sigma = 0` has none.
        prior_log_prob: the log-density of the start under the prior, ``(batch,)``; None if ``x`` or ``start`` was
            given.
        solver, stochasticity: the method, and :math:`\eta` of the process that it stepped.
        context: what the score function received besides x and t, one entry per sample.
        seeds: the ``seed`` or the list of ``seeds`` of the solve, if one was given.
        sde: the process; None of a path that was loaded, until `on` gives it.
        table: the values of the process by which it is recognised, :math:`\alpha`, :math:`\sigma` and :math:`g^2` at
            the times and the levels, ``(steps + 1 + states, 3)``.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde, target.score(sde), method="ancestral", steps=5, path_log_prob=True
        ... )
        >>> path = solution.path
        >>> (
        ...     path.log_probs.shape,
        ...     len(path.states),
        ...     bool((path.states[-1] == solution.x).all()),
        ... )
        (torch.Size([1, 5]), 5, True)
    """

    times: Tensor
    start: Tensor
    states: tuple[Tensor, ...]
    step_of: tuple[int, ...]
    levels: tuple[float, ...]
    log_probs: Tensor
    noisy: Tensor
    prior_log_prob: Tensor | None
    solver: Solver
    stochasticity: float
    context: Mapping[str, Any]
    seeds: Any = None
    sde: SDE | None = None
    table: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    __iter__ = None  # of samples: take path[rows]

    @property
    def log_prob(self) -> Tensor:
        """The log-density of all steps together, ``(batch,)``, without the prior."""
        return self.log_probs.sum(1)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.start)

    def __getitem__(self, rows: Sequence[int] | slice | Tensor) -> Path:
        """The path of some samples."""
        every = range(len(self))[rows] if isinstance(rows, slice) else rows
        keep = torch.tensor(check_integers("rows", every, low=0, high=len(self) - 1), dtype=torch.int64)
        here = keep.to(self.start.device)
        prior = None if self.prior_log_prob is None else self.prior_log_prob[here]
        seeds = [self.seeds[i] for i in keep.tolist()] if isinstance(self.seeds, list) else self.seeds
        return replace(
            self,
            start=self.start[here],
            states=tuple(state[here] for state in self.states),
            log_probs=self.log_probs[here],
            prior_log_prob=prior,
            context=cut(self.context, here),
            seeds=seeds,
        )

    def to(self, device: torch.device | str) -> Path:
        """The path on another device, such as that of the network: `load` reads it to the CPU."""
        there = check_device(device)
        return replace(
            self,
            start=self.start.to(there),
            states=tuple(state.to(there) for state in self.states),
            log_probs=self.log_probs.to(there),
            prior_log_prob=None if self.prior_log_prob is None else self.prior_log_prob.to(there),
            context=mapped(lambda value: value.to(there), self.context),
        )

    def on(self, sde: SDE) -> Path:
        """The path with its process, which a file does not hold.

        Raises:
            InvalidArgumentError: the process is another one.
        """
        return replace(self, sde=self.check(sde))

    def check(self, sde: SDE) -> SDE:
        """A process, if it is that of the path."""
        check_kind("sde", sde, SDE, "a process")
        places = places_of(self.times, self.levels)
        inside = sde.affine and sde.t_min <= float(places.min()) and float(places.max()) <= sde.t_max
        if not inside or not torch.allclose(table_of(sde, places), self.table, rtol=_SAME, atol=0.0, equal_nan=True):
            raise InvalidArgumentError(
                f"`path` was made by another process than `sde`, {sde!r}, or before its schedule changed."
            )
        return sde

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the path as safetensors; `load` reads it.

        Raises:
            InvalidArgumentError: the method has a function as an option, or is your own; or the context has other
                values than tensors.
            OutputError: the file cannot be written.
        """
        import safetensors.torch

        known = {"format": FORMAT, "solver": to_config(self.solver), "stochasticity": self.stochasticity}
        arrays = {"times": self.times, "table": self.table, "start": self.start, "log_probs": self.log_probs}
        arrays |= {f"state.{i}": state for i, state in enumerate(self.states)}
        if self.prior_log_prob is not None:
            arrays["prior_log_prob"] = self.prior_log_prob
        for name, value in self.context.items():
            if not isinstance(value, Tensor):
                raise InvalidArgumentError(f"`context` has {name!r}, which is no tensor; the file takes tensors only.")
            arrays[f"context.{name}"] = value
        known |= {"steps": list(self.step_of), "levels": list(self.levels)}
        known |= {"noisy": self.noisy.tolist(), "seeds": self.seeds}
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in arrays.items()}
        write_bytes(check_path("path", path), safetensors.torch.save(tensors, {"scoresde.path": json.dumps(known)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Path:
        """Read what `save` wrote; the process is given to `log_prob`, or to `on`.

        Raises:
            InvalidArgumentError: the file cannot be read.
            CorruptCheckpointError: it holds no path.
        """
        from safetensors import safe_open

        file = check_path("path", path)
        with readable(FilePath(file), "path"), safe_open(file, "pt") as content:
            known = dict(content.metadata() or {})
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        try:
            return cls._read(json.loads(known["scoresde.path"]), arrays)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            raise CorruptCheckpointError(f"{str(path)!r} holds no path of scoresde ({error}).") from error

    @classmethod
    def _read(cls, known: dict[str, Any], arrays: dict[str, Tensor]) -> Path:
        if known["format"] != FORMAT:
            raise ValueError(f"format {known['format']!r}, expected {FORMAT}")
        start, times = arrays["start"], arrays["times"]
        count, batch, steps = len(known["steps"]), len(start), len(known["noisy"])
        kept = sum(name.startswith("state.") for name in arrays)
        states = tuple(arrays[f"state.{i}"] for i in range(kept))
        shapes = {"times": (len(times),), "log_probs": (batch, steps), "table": (len(times) + count, 3)}
        if "prior_log_prob" in arrays:
            shapes["prior_log_prob"] = (batch,)
        seeds, eta = known["seeds"], float(known["stochasticity"])
        many = len(seeds) == batch and all(isinstance(seed, int) for seed in seeds) if isinstance(seeds, list) else True
        wrong = (
            kept not in (0, count)
            or not all(isinstance(known[name], list) for name in ("steps", "levels", "noisy"))
            or not all(isinstance(step, int) and 0 <= step < steps for step in known["steps"])
            or len(known["levels"]) != count
            or not steps < len(times)
            or not all(isinstance(flag, bool) for flag in known["noisy"])
            or any(state.shape != start.shape or state.dtype != start.dtype for state in states)
            or start.dtype not in (torch.float32, torch.float64)
            or any(arrays[name].shape != shape or arrays[name].dtype != torch.float64 for name, shape in shapes.items())
            or not all(bool(value.isfinite().all()) for value in (times, start, *states, arrays["log_probs"]))
            or not 0.0 <= eta < math.inf
            or not (many and isinstance(seeds, int | list | None))
        )
        if wrong:
            raise ValueError("its parts do not fit together")
        context = {name.removeprefix("context."): v for name, v in arrays.items() if name.startswith("context.")}
        return cls(
            times,
            start,
            states,
            tuple(int(step) for step in known["steps"]),
            tuple(float(t) for t in known["levels"]),
            arrays["log_probs"],
            torch.tensor(known["noisy"], dtype=torch.bool),
            arrays.get("prior_log_prob"),
            from_config(known["solver"]),
            eta,
            context,
            seeds,
            table=arrays["table"],
        )

    def _summary(self) -> dict[str, str]:
        return {
            "start": kind(self.start),
            "method": self.solver.name,
            "steps": str(len(self.times) - 1),
            "states": str(len(self.states)),
            "log_prob": span(self.log_prob),
            **({"context": ", ".join(named(self.context))} if self.context else {}),
        }


def places_of(times: Tensor, levels: Sequence[float]) -> Tensor:
    """Where a process is compared: at the times of a grid, and at those of the states."""
    return torch.cat([times, torch.tensor(levels, dtype=torch.float64)])


def table_of(sde: Any, times: Tensor) -> Tensor:
    r""":math:`\alpha`, :math:`\sigma` and :math:`g^2` at some times, ``(n, 3)`` float64."""
    with torch.no_grad():
        nodes = sde.nodes(times.to(torch.float64))
    return torch.stack([nodes.alpha, nodes.sigma, nodes.g2], 1).to(torch.float64).cpu()


def path_of(
    run: TracedRun,
    context: Mapping[str, Any],
    sde: SDE,
    solver: Solver,
    eta: float,
    prior: Tensor | None,
    seeds: Any,
) -> Path:
    """The path of a solve, up to the last completed step."""
    plan, done = run.plan, run.reached
    times = torch.tensor([node.t for node in plan.nodes], dtype=torch.float64)
    zero = torch.zeros(len(run.begin), dtype=torch.float64, device=run.begin.device)
    columns = [run.densities.get(step, zero) for step in range(done)]
    log_probs = torch.stack(columns, 1) if columns else zero.new_zeros((len(zero), 0))
    made = [cell for cell in plan.cells if cell.step < done]
    levels = tuple(cell.t for cell in made)
    states = [*run.states[:-1], *(state.clone() for state in run.states[-1:])]  # the solution has the last one too
    return Path(
        times,
        run.begin,
        tuple(states),
        tuple(cell.step for cell in made),
        levels,
        log_probs,
        torch.tensor(plan.noisy[:done]),
        prior,
        solver,
        eta,
        mapped(torch.clone, context),
        seeds,
        sde,
        table_of(sde, places_of(times, levels)),
    )
