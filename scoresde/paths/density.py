"""The density of a path under any network, and what follows from it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from ..core.arguments import check_limits, context_of
from ..core.errors import InvalidArgumentError
from ..core.processes import Network, ReverseProcess
from ..core.recorder.cells import Apply, Blend, Call, Cell, Normal, log_normal, total
from ..core.recorder.plan import Evaluate, Instruction, Sum
from ..core.recorder.tracing import NothingDrawn, TracedPlan, check_gaussian, traced
from ..core.sdes import SDE, AffineSDE
from ..core.support.checks import (
    MOST_STOCHASTICITY,
    check_finite_rows,
    check_flag,
    check_integers,
    check_kind,
    check_number,
    warn_caller,
)
from ..core.support.tensors import compute_dtype, row_sums, transforming
from ..scores import as_score
from ..solvers import Solver, make_solver
from .path import Path, places_of, table_of

Score = Callable[..., Tensor]


def log_prob(
    path: Path,
    sde: SDE,
    score_fn: Score,
    *,
    per_step: bool = False,
    steps: Sequence[int] | None = None,
    method: str | Solver | None = None,
    stochasticity: float | None = None,
    context: Mapping[str, object] | None = None,
    checkpoint: bool = True,
) -> Tensor:
    r"""The log-density of a recorded path: of its states, given its start, under any network.

    .. math:: \sum_i \ln N(V_i;\ \mu_i(\theta),\ S_i^2 I)

    over the random states :math:`V_i`, each given those before it. With the network that made the path it equals the
    recorded value bit for bit, provided that the network computes the same for the same batch (in evaluation mode:
    dropout makes another network of each call). It is differentiable in the network's parameters, but not in those of a
    schedule. The states are constants, while all that the method keeps from earlier steps is computed again.

    Args:
        path: of ``solve(..., path_log_prob=True)``.
        sde: the process of the path.
        score_fn: a network, or a score function built from it by guidance or a temperature.
        per_step: the density of each step in place of their sum.
        steps: which steps, from 0, in the order of the columns; by default all. The sum over m of n steps that are
            chosen at random, times n/m, is an unbiased estimate of the whole.
        method: another method with the same random states, such as ``DDIMEta(eta=0.5)`` for a path of ``DDIMEta()``;
            by default that of the path.
        stochasticity: another :math:`\eta` of the process than that of the path, for methods that take it.
        context: in place of that of the path, one entry per sample.
        checkpoint: where there is a gradient, keep one step at a time in memory, and call the network again in the
            backward pass. False keeps all steps in memory, and calls it once per step.

    Returns:
        ``(batch,)`` float64, or ``(batch, steps)`` with ``per_step``, in nats.

    Raises:
        InvalidArgumentError: the path is of another process, holds no states, or does not fit the method.
        NonFiniteError: a density is not finite, since the network is not.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> score_fn = target.score(sde)
        >>> solution = scoresde.solve(
        ...     sde,
        ...     score_fn,
        ...     method="ancestral",
        ...     steps=5,
        ...     shape=(4, 2),
        ...     seed=0,
        ...     path_log_prob=True,
        ... )
        >>> again = scoresde.paths.log_prob(solution.path, sde, score_fn)
        >>> bool((again == solution.path_log_prob).all())
        True

    References:
        Black et al. (2023), Training Diffusion Models with Reinforcement Learning, equation 5.
        https://arxiv.org/abs/2305.13301
    """
    replay = Replay(path, sde, score_fn, method=method, stochasticity=stochasticity, context=context)
    chosen = chosen_steps(path, steps)

    def density(laws: list[list[Normal]]) -> Tensor:
        return functools.reduce(torch.add, (log_normal(*law) for law in laws[0]))

    return gathered(path, chosen, along([replay], chosen, density, checkpoint=checkpoint), per_step=per_step)


def log_ratio(
    path: Path,
    new: Score,
    old: Score | None = None,
    *,
    sde: SDE | None = None,
    per_step: bool = False,
    steps: Sequence[int] | None = None,
    method: str | Solver | None = None,
    stochasticity: float | None = None,
    context: Mapping[str, object] | None = None,
    checkpoint: bool = True,
) -> Tensor:
    r"""The logarithm of the ratio of a path's densities under two networks, :math:`\ln p_{new} - \ln p_{old}`.

    Args:
        path: of ``solve(..., path_log_prob=True)``.
        new, old: networks; without ``old``, the one that made the path, whose densities are recorded.
        sde: the process, of a path that was loaded.
        per_step, steps, context, checkpoint: see `log_prob`.
        method, stochasticity: likewise, of ``new`` alone.

    Returns:
        ``(batch,)`` float64, or ``(batch, steps)`` with ``per_step``.

    Raises:
        InvalidArgumentError: see `log_prob`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> warm = scoresde.guidance.temperature(target.score(sde), 1.2)
        >>> path = scoresde.solve(
        ...     sde, target.score(sde), method="ancestral", steps=5, path_log_prob=True
        ... ).path
        >>> scoresde.paths.log_ratio(path, warm, per_step=True).shape
        torch.Size([1, 5])
    """
    process = process_of(path, sde)
    given: dict[str, Any] = {"per_step": per_step, "steps": steps, "context": context, "checkpoint": checkpoint}
    after = log_prob(path, process, new, method=method, stochasticity=stochasticity, **given)
    if old is not None:
        return after - log_prob(path, process, old, **given)
    chosen = chosen_steps(path, steps)
    before = path.log_probs[:, chosen]
    return after - (before if per_step else before.sum(1))


def kl(
    path: Path,
    new: Score,
    old: Score,
    *,
    sde: SDE | None = None,
    per_step: bool = False,
    steps: Sequence[int] | None = None,
    context: Mapping[str, object] | None = None,
    checkpoint: bool = True,
) -> Tensor:
    r"""The divergence of each step's distribution under one network from that under another, in closed form, along a
    path.

    .. math:: KL\big(N(\mu, S^2 I)\,\|\,N(\mu', S'^2 I)\big) = D\ln\frac{S'}{S} + \frac{D S^2 + \|\mu-\mu'\|^2}{2S'^2} -
        \frac D2

    summed over the random states. Its mean over paths of ``new`` is the divergence of the paths' distributions, which
    bounds that of the samples from above.

    Args:
        path: where it is taken.
        new, old: the networks :math:`\theta` and :math:`\theta'`; it is differentiable in both.
        sde: the process, of a path that was loaded.
        per_step, steps, context, checkpoint: see `log_prob`.

    Returns:
        ``(batch,)`` float64, or ``(batch, steps)`` with ``per_step``, in nats.

    Raises:
        InvalidArgumentError: see `log_prob`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> score_fn = target.score(sde)
        >>> path = scoresde.solve(
        ...     sde, score_fn, method="ancestral", steps=5, path_log_prob=True
        ... ).path
        >>> scoresde.paths.kl(path, score_fn, score_fn)
        tensor([0.], dtype=torch.float64)
    """
    process = process_of(path, sde)
    both = [Replay(path, process, score_fn, context=context) for score_fn in (new, old)]
    chosen = chosen_steps(path, steps)

    def divergence(laws: list[list[Normal]]) -> Tensor:
        return functools.reduce(torch.add, (_divergence(a, b) for a, b in zip(*laws, strict=True)))

    return gathered(path, chosen, along(both, chosen, divergence, checkpoint=checkpoint), per_step=per_step)


def _divergence(a: Normal, b: Normal) -> Tensor:
    """That of one state, ``(batch,)``."""
    own, other = (_spread(law.std, a.off) for law in (a, b))
    terms = (other / own).log() + 0.5 * ((own.square() + (a.off - b.off).square()) / other.square() - 1)
    return row_sums(terms)


def _spread(std: float | Tensor, like: Tensor) -> Tensor:
    value = torch.as_tensor(std, dtype=torch.float64, device=like.device)
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


class Replay:
    """A solve whose random states are known.

    Args:
        path: the states.
        sde, score_fn: the process and the network.
        method, stochasticity, context: see `log_prob`.

    Attributes:
        plan: its instructions.
        network: the network, as the loop sees it.
    """

    def __init__(
        self,
        path: Path,
        sde: SDE,
        score_fn: Score,
        *,
        method: str | Solver | None = None,
        stochasticity: float | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        check_kind("path", path, Path, "a Path, such as solve(..., path_log_prob=True).path")
        path.check(sde)
        if not path.states:
            raise InvalidArgumentError("`path` holds no states; solve with path_log_prob=True.")
        score = as_score(score_fn, sde)
        solver = path.solver if method is None else make_solver(method, {}, ())
        check_gaussian(sde, solver)
        eta = path.stochasticity if method is None or solver.takes_stochasticity else solver.default_stochasticity
        if stochasticity is not None:
            if not solver.takes_stochasticity:
                raise InvalidArgumentError(f"method={solver.name!r} has no `stochasticity`.")
            eta = check_number("stochasticity", stochasticity, low=0.0, high=MOST_STOCHASTICITY)
        event = score.traits.event_shape
        if event is not None and tuple(path.start.shape[1:]) != event:
            raise InvalidArgumentError(
                f"The score function is for events of shape {event}, but the path has {tuple(path.start.shape[1:])}."
            )
        if isinstance(sde, AffineSDE):
            check_limits(sde, score, solver, (float(path.times[0]), float(path.times[-1])))
        given = context_of(path.context if context is None else context, score, path.start)
        self.states, self.start = path.states, path.start.clone()
        self.network = Network(score, given, copies=True)
        process = ReverseProcess(sde, self.network, eta=eta)
        with torch.no_grad():
            self.plan: TracedPlan = traced(process, solver, path.times, self.start)
        found = [(cell.step, cell.t) for cell in self.plan.cells]
        kind = solver.looks_ahead == path.solver.looks_ahead  # whether a state is one that is corrected afterwards
        if found[: len(path.step_of)] != list(zip(path.step_of, path.levels, strict=True)) or not kind:
            raise InvalidArgumentError(
                f"`path` has other random states than method={solver.name!r} with these options: it was made by "
                f"{path.solver!r}."
            )

    def sliced(self, steps: Sequence[int]) -> list[list[Instruction]]:
        """The instructions of each step from which the distributions of the chosen steps' states follow."""
        chosen: set[int] = set(steps)
        needed: set[int] = set()
        kept: list[list[Instruction]] = []
        for index in reversed(range(len(self.plan.means))):
            own: list[Instruction] = []
            for instruction in reversed(self.plan.means[index]):
                to = instruction.to if isinstance(instruction.to, tuple) else (instruction.to,)
                cell = isinstance(instruction, Cell)
                if not ((cell and index in chosen) or needed & set(to)):
                    continue
                own.append(instruction)
                # a state that is only read needs nothing but its number
                plain = isinstance(instruction, Cell) and index not in chosen and instruction.draw not in needed
                needed |= set() if plain else set(_needs(instruction))
            kept.append(own[::-1])
        return kept[::-1]

    def step(self, instructions: list[Instruction], values: dict[int, Any], chosen: bool) -> list[Normal]:
        """Go through a step, and return the distributions of its states."""
        laws: list[Normal] = []
        for instruction in instructions:
            if isinstance(instruction, Cell):
                state = self.states[instruction.place].clone()  # which a network may write to, to be refused
                if chosen or (instruction.draw is not None and all(i in values for i in instruction.needs)):
                    laws.append(instruction.law(values, state))
                values[instruction.whole.to] = state
            else:
                _STEPS[type(instruction)](instruction, values, self)
        return laws if chosen else []


def _needs(instruction: Any) -> list[int]:
    return instruction.needs if isinstance(instruction, Cell) else list(instruction.read)


def _evaluate(instruction: Evaluate, values: Any, replay: Replay) -> None:
    instruction.evaluate(values, replay.network)


def _sum(instruction: Sum, values: dict[int, Any], replay: Replay) -> None:
    values[instruction.to] = total([*zip(instruction.weights, instruction.read, strict=True)], values, replay.start)


def _blend(instruction: Blend, values: dict[int, Any], replay: Replay) -> None:
    values[instruction.to] = total(instruction.terms, values, replay.start)


def _apply(instruction: Apply, values: dict[int, Any], replay: Replay) -> None:
    values[instruction.to] = instruction.value(values)


_STEPS: dict[type, Callable[[Any, dict[int, Any], Replay], None]] = {
    Evaluate: _evaluate,
    Call: _evaluate,
    Sum: _sum,
    Blend: _blend,
    Apply: _apply,
}
Reading = Callable[[list[list[Normal]]], Tensor]


def along(
    replays: Sequence[Replay], steps: Sequence[int], reading: Reading, *, checkpoint: bool = True
) -> Iterator[Tensor]:
    """A function of the distributions of its states at each chosen step, ``(batch,)``; with gradients one step at a
    time is in memory, unless ``checkpoint`` is False."""
    check_flag("checkpoint", checkpoint)
    chosen, ways = set(steps), [_Way(replay, steps) for replay in replays]
    values = [replay.start for replay in replays]
    zero = torch.zeros(len(values[0]), dtype=torch.float64, device=values[0].device)
    for index in range(max(chosen, default=-1) + 1):
        turn = functools.partial(_turn, ways, index, index in chosen, reading)
        again = checkpoint and torch.is_grad_enabled() and not transforming() and any(way.steps[index] for way in ways)
        value, *values = recompute(turn, *values, use_reentrant=False) if again else turn(*values)
        if index in chosen:
            yield zero if value is None else value
    for own in {replay.network.narrow for replay in replays} - {None}:
        warn_caller(
            f"The score function returns {own}, but the states are {replays[0].start.dtype}: the densities have the "
            f"rounding of {own}, and a ratio of two networks that are close is mostly rounding."
        )


class _Way:
    """The instructions that a replay needs for chosen steps.

    Attributes:
        replay: whose.
        steps: the instructions of each step.
        live: the numbers of the values that are there before each step and needed from then on.
    """

    def __init__(self, replay: Replay, steps: Sequence[int]) -> None:
        self.replay, self.steps = replay, replay.sliced(steps)
        later: list[set[int]] = [set()]
        for step in reversed(self.steps):
            later.append(later[-1] | {number for i in step for number in _needs(i)})
        made, self.live = {replay.plan.states[0]}, [[replay.plan.states[0]]]
        for step, needed in zip(self.steps, later[-2::-1], strict=True):
            made |= {number for i in step for number in (i.to if isinstance(i.to, tuple) else (i.to,))}
            self.live.append(sorted(made & needed))


def _turn(ways: list[_Way], index: int, chosen: bool, reading: Reading, *given: Tensor) -> tuple[Any, ...]:
    """A step: what is said of it, and the values that are needed afterwards."""
    rest, laws, left = list(given), [], []
    for way in ways:
        values = {number: rest.pop(0) for number in way.live[index]}
        laws.append(way.replay.step(way.steps[index], values, chosen))
        left += [values[number] for number in way.live[index + 1]]
    return (reading(laws) if laws[0] else None), *left


def chosen_steps(path: Path, steps: Sequence[int] | None) -> list[int]:
    """The requested steps, each once."""
    check_kind("path", path, Path, "a Path, such as solve(..., path_log_prob=True).path")
    count = path.log_probs.shape[1]
    if steps is None:
        return list(range(count))
    chosen = check_integers("steps", steps, low=0, high=count - 1)
    if len(set(chosen)) != len(chosen):
        raise InvalidArgumentError("`steps` must name each step once.")
    return list(chosen)


def gathered(path: Path, steps: Sequence[int], values: Iterator[Tensor], *, per_step: bool) -> Tensor:
    """The values of steps, ``(batch, steps)``, or their sum."""
    check_flag("per_step", per_step)
    found = dict(zip(sorted(steps), values, strict=True))
    columns = [found[step] for step in steps]
    table = torch.stack(columns, 1) if columns else path.log_probs.new_zeros((len(path), 0))
    if not transforming():
        check_finite_rows("The density of `path`", table.detach(), "check the network (scoresde.check_score)")
    return table if per_step else table.sum(1)


def process_of(path: Path, sde: SDE | None) -> SDE:
    """The process of a path, which is given for one that was loaded."""
    check_kind("path", path, Path, "a Path, such as solve(..., path_log_prob=True).path")
    if sde is not None:
        return path.check(sde)
    if path.sde is None:
        raise InvalidArgumentError("`path` was loaded, and a file does not hold the process; pass sde=.")
    return path.sde


def step_log_prob(sde: SDE, solver: Solver, score_fn: Score, times: Tensor, x: Tensor, after: Tensor) -> Tensor:
    """The log-density of the state after a single step, ``(batch,)``; 0 if the step draws nothing. Half precision is
    computed in float32.

    Args:
        sde, solver, score_fn: as of `log_prob`.
        times: where the step begins and ends, ``(2,)``.
        x, after: the states there.

    Example:
        >>> sde, x = scoresde.VPSDE(), torch.zeros(1, 2)
        >>> times = torch.tensor([0.5, 0.4], dtype=torch.float64)
        >>> step_log_prob(sde, scoresde.solvers.Ancestral(), lambda x, t: -x, times, x, x)
        tensor([-1.1846], dtype=torch.float64)
    """
    dtype = compute_dtype(x.dtype)
    zeros = torch.zeros((len(x), 1), dtype=torch.float64, device=x.device)
    path = Path(
        times,
        x.detach().to(dtype),
        (after.detach().to(x.device, dtype),),
        (0,),
        (float(times[-1]),),
        zeros,
        torch.ones(1, dtype=torch.bool),
        None,
        solver,
        solver.default_stochasticity,
        {},
        sde=sde,
        table=table_of(sde, places_of(times, times[-1:].tolist())),
    )
    try:
        return log_prob(path, sde, score_fn)
    except NothingDrawn:
        return zeros[:, 0]
