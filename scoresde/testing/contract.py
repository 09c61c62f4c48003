"""The contracts of a solver and of a score function, as checks that your own can run too."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..core.arguments import context_of
from ..core.controllers import FixedGrid
from ..core.errors import InvalidArgumentError, ScoreFnError
from ..core.loop import Loop
from ..core.noise import CallableNoise, Noise, SampleNoise
from ..core.processes import Network, ReverseProcess
from ..core.recorder.tracing import NothingDrawn, traced
from ..core.sdes import SDE, VPSDE, AffineSDE, FlowSDE, Node
from ..core.sdes.base import check_sde
from ..core.solution import Solution
from ..core.support.checks import check_state, output_problem
from ..core.support.context import mapped, named
from ..core.support.tensors import compute_dtype
from ..scores import ScoreModel, as_score
from ..solvers import Solver, make_solver
from ..targets import Gaussian
from .run import run

_SDE = VPSDE()
_MOST_DRAWS = 60  # by which a map is differentiated


def _score(x: Tensor, t: Tensor) -> Tensor:
    """Elementwise and smooth, so that results do not depend on how a batch is cut, to the last digit."""
    time = t.reshape(-1, *[1] * (x.ndim - 1))
    return -x / (0.3 + time) + 0.1 * x / (1 + x * x)


def _states(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def _solve(
    solver: Solver,
    x: Tensor,
    steps: int = 6,
    seeds: range | list[int] | None = None,
    noise: Noise | None = None,
    score_fn: Callable[..., Tensor] = _score,
) -> Solution:
    times = grids.resolve("log_snr", _SDE, _SDE.t_max, _SDE.t_min, steps)
    return run(solver, _SDE, score_fn, x, times, noise or SampleNoise(range(len(x)) if seeds is None else seeds))


def _hold(true: bool, what: object = "") -> None:
    """An ``assert`` that python -O keeps."""
    if not true:
        raise AssertionError(what)


def dtype_is_kept(solver: Solver) -> None:
    """float32 and float64 states stay what they are, on their device, and agree to float32's precision. (Draws that do
    not come from ``noise``, as those of ``torch.randn``, do not agree.)"""
    single, double = (_solve(solver, _states(4, 3, dtype=d)).x for d in (torch.float32, torch.float64))
    _hold(single.dtype == torch.float32 and double.dtype == torch.float64)
    _hold(single.device == double.device == torch.device("cpu"))
    scale = float(double.abs().max())
    _hold(float((single.double() - double).abs().max()) <= 1e-3 * scale)


def input_is_untouched(solver: Solver) -> None:
    """The state that is handed in does not change, and no step writes into the one before."""
    x = _states(3, 2)
    before = x.clone()
    _solve(solver, x)
    _hold(torch.equal(x, before))


def samples_do_not_feel_their_batch_mates(solver: Solver) -> None:
    """A permuted batch gives permuted results, and a part of a batch the same as the whole, bitwise."""
    if solver.batch_coupled:
        return
    x = _states(5, 2)
    whole = _solve(solver, x).x
    order = [3, 0, 4, 1, 2]
    _hold(torch.equal(_solve(solver, x[order], seeds=order).x, whole[order]))
    _hold(torch.equal(_solve(solver, x[1:3], seeds=[1, 2]).x, whole[1:3]))


def event_ranks(solver: Solver) -> None:
    """Events of rank 1 to 4 with the same numbers give the same numbers."""
    x = _states(3, 16)
    draws = _states(3, 16)

    def draw(k: int, like: Tensor) -> Tensor:
        return (draws if like.numel() == draws.numel() else draws[:, 0]).reshape(like.shape) * (k % 3 - 1.1)

    flat = _solve(solver, x, noise=CallableNoise(draw)).x
    for event in ((4, 4), (2, 2, 4), (2, 2, 2, 2)):
        shaped = _solve(solver, x.reshape(3, *event), noise=CallableNoise(draw)).x
        _hold(shaped.shape == (3, *event))
        _hold(torch.allclose(shaped.reshape(3, 16), flat, rtol=1e-12, atol=1e-12))


def one_step(solver: Solver) -> None:
    """A grid of one step works."""
    _hold(bool(torch.isfinite(_solve(solver, _states(2, 2), steps=1).x).all()))


def same_seed_same_result(solver: Solver) -> None:
    """Twice the same, and with other seeds another result if the method draws noise. A method that draws is a subclass
    of `SDESolver`, and takes all draws from ``noise``."""
    x = _states(3, 2)
    first = _solve(solver, x, steps=60).x
    _solve(solver, _states(7, 4))  # nothing is kept from one solve to the next
    _hold(torch.equal(_solve(solver, x, steps=60).x, first))
    _hold(torch.equal(_solve(solver, x, steps=60, seeds=[10, 11, 12]).x, first) != solver.stochastic)


def value_semantics(solver: Solver) -> None:
    """It is equal to its copies, hashable, and its repr names its class, as with ``@dataclass(frozen=True)``."""
    twin = copy.deepcopy(solver)
    _hold(twin == solver and hash(twin) == hash(solver))
    _hold(type(solver).__name__ in repr(solver))
    x = _states(2, 2)
    _hold(torch.equal(_solve(twin, x).x, _solve(solver, x).x))


def evaluations_are_as_declared(solver: Solver) -> None:
    """Steps times ``evaluations``, and ``extra_evaluations``; no evaluation is outside the interval."""
    solution = _solve(solver, _states(2, 2))
    detours = solution.steps - 6  # a method may visit more than the grid
    used = solution.evaluations - solver.extra_evaluations
    least, most = 6 * solver.evaluations, (6 + detours) * solver.evaluations
    _hold(least <= used <= most, f"Six steps took {used}, and {least} to {most} are declared.")


def the_network_may_reuse_its_memory(solver: Solver) -> None:
    """A network that writes every output to the same memory, as a CUDA graph does, gives what another one gives."""
    x = _states(3, 2)
    memory = torch.empty_like(x)
    for prediction in ("noise", "data"):
        wanted, got = (
            _solve(solver, x, score_fn=ScoreModel(net, _SDE, prediction)).x
            for net in (_score, lambda x, t: memory.copy_(_score(x, t)))
        )
        memory.fill_(torch.nan)
        _hold(torch.equal(got, wanted), prediction)


def the_ends(solver: Solver) -> None:
    """It starts where there is no signal, and ends where there is no noise, if it declares that it can."""
    sde = FlowSDE(t_min=0.0, t_max=1.0)
    score = Gaussian(torch.ones(2, dtype=torch.float64), 0.5).score(sde)
    for possible, times in ((solver.noise_limit, [1.0, 0.7, 0.4, 0.2]), (solver.data_limit, [0.8, 0.5, 0.2, 0.0])):
        if possible:
            grid = torch.tensor(times, dtype=torch.float64)
            _hold(bool(torch.isfinite(run(solver, sde, score, _states(3, 2), grid, SampleNoise(range(3))).x).all()))


def densities_of_steps(solver: Solver) -> None:
    """If it declares ``gaussian_step``, recording a path changes no state, and where there are as many random states as
    draws, their density is that of the draws over the determinant of the map from draws to states."""
    if not solver.gaussian_step:
        return
    times = grids.resolve("log_snr", _SDE, _SDE.t_max, 0.1, 3)
    x, draws = _states(1, 1), _states(1000, 1, 1).mul(0.5)

    def recorded(draws: Tensor) -> tuple[Tensor, Tensor, int]:
        noise = CallableNoise(lambda k, like: draws[k])
        network = Network(as_score(_score), copies=solver.keeps_estimates)
        process = ReverseProcess(_SDE, network, eta=solver.default_stochasticity)
        grid = FixedGrid(solver.visit(_SDE, times))
        loop = Loop(process, solver, grid, x.clone(), noise, planner=traced)
        loop.complete()
        told: Any = loop.run
        return torch.stack(told.states).flatten(), sum(told.densities.values()), noise.count

    with torch.no_grad():
        try:
            states, density, count = recorded(draws)
        except NothingDrawn:
            return
        except InvalidArgumentError as error:
            raise AssertionError(str(error)) from error
        plain = run(solver, _SDE, _score, x, times, lambda k, like: draws[k]).x
        _hold(bool(states[-1] == plain.flatten()[0]), "The last state is not that of a plain solve.")
        if len(states) != count or count > _MOST_DRAWS:
            return
        units = 1e-3 * torch.eye(count, dtype=torch.float64)[:, :, None, None]
        moved = [[recorded(draws[:count] + k * unit)[0] for k in (1, -1, 2, -2)] for unit in units]
        slopes = torch.stack([(8 * (a - b) - (c - d)) / 12e-3 for a, b, c, d in moved], 1)
    normal = -0.5 * (draws[:count].square().sum() + count * math.log(2 * math.pi))
    expected = float(normal - torch.linalg.slogdet(slopes)[1])
    _hold(abs(float(density) - expected) < 1e-6, f"Its log-density is {float(density):.9g}, not {expected:.9g}.")


CHECKS: dict[str, Callable[[Solver], None]] = {
    check.__name__: check
    for check in (
        dtype_is_kept,
        input_is_untouched,
        samples_do_not_feel_their_batch_mates,
        event_ranks,
        one_step,
        same_seed_same_result,
        value_semantics,
        evaluations_are_as_declared,
        the_network_may_reuse_its_memory,
        the_ends,
        densities_of_steps,
    )
}


def check_solver(method: Solver | str) -> None:
    """Run the contract of a fixed-step method: every check of `CHECKS`.

    Dtype and device are kept, the input is untouched, samples do not depend on their batch, all event ranks work, so
    does a grid of one step, the same seed gives the same result, the solver is a value that can be copied and hashed,
    it evaluates what it declares, works with a network that writes every output to the same memory, reaches the ends
    that it declares, and its steps have the densities that it declares.

    Raises:
        AssertionError: a check failed; its name is in the message.

    Example:
        >>> check_solver("dpmpp_2m")
    """
    solver = make_solver(method, {})
    for name, check in CHECKS.items():
        try:
            check(solver)
        except AssertionError as error:
            raise AssertionError(f"{solver!r} breaks a rule, {name}. The rule: {check.__doc__} {error}") from error


# ---- score functions

_LEVELS = 3
_SAME = 1e-3  # of an answer's RMS: what the same question may change by rounding


def check_score_fn(
    sde: SDE, score_fn: Callable[..., Any], x: Tensor, *, context: Mapping[str, object] | None = None
) -> None:
    """Check what solvers rely on in a score function, at three times of a process.

    - It returns a floating-point tensor shaped like ``x``, on its device.
    - It writes to none of its inputs. Copies are compared, so that writes to ``x.data`` or to a NumPy array on the same
      memory are seen. A solve does not see those, since it reads autograd's count of writes.
    - The same question has the same answer, up to rounding.

    A score function with ``estimate(x, node)`` is called by both. It may return the same memory at every call: that is
    allowed.

    Args:
        sde: the process.
        score_fn: as for `scoresde.solve`.
        x: states of a few samples, ``(batch, *event)``; they are not changed.
        context: as for `scoresde.solve`; it is not changed either.

    Raises:
        InvalidTypeError, InvalidArgumentError: the arguments do not fit.
        ScoreFnError: the score function does not keep this.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> check_score_fn(sde, lambda x, t: -x, torch.ones(2, 3))
        >>> def halves(x, t):
        ...     x.numpy()[:] *= 0.5
        ...     return -x
        >>> check_score_fn(sde, halves, torch.ones(2, 3))
        Traceback (most recent call last):
        scoresde.core.errors.ScoreFnError: The score function changed `x` in place (t=0.25075); ...
    """
    check_sde(sde)
    score = as_score(score_fn)
    check_state("x", x)
    given = context_of(context, score, x)
    state = x.detach().to(compute_dtype(x.dtype))
    for t in torch.linspace(sde.t_min, sde.t_max, _LEVELS + 2, dtype=torch.float64)[1:-1].tolist():
        times = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
        _check(score_fn, state, {"t": times.to(state.dtype)}, given, t)
        if not score.only_scores and isinstance(sde, AffineSDE):
            node = {f"node.{name}": value for name, value in sde.nodes(times)._asdict().items()}
            _check(score.estimate, state, node, given, t)


@torch.no_grad()
def _check(
    function: Callable[..., Any], x: Tensor, moment: Mapping[str, Tensor], context: Mapping[str, object], t: float
) -> None:
    """Call twice at one time, or node."""
    answers, names = [], {"x": x, **moment, **named(context)}
    for _ in range(2):
        beside = mapped(Tensor.clone, context)
        lent = {"x": x.clone(), **{name: value.clone() for name, value in moment.items()}, **named(beside)}
        at = lent["t"] if "t" in moment else Node(*(lent[k] for k in moment))
        out = function(lent["x"], at, **beside)
        for name, value in lent.items():
            kept = names[name]
            if not bool(((value == kept) | ((value != value) & (kept != kept))).all()):
                raise ScoreFnError(
                    f"The score function changed `{name}` in place (t={t:g}); work on {name}.clone() inside it."
                )
        parts = tuple(out) if isinstance(out, tuple) else (out,)
        for part in parts:
            problem = output_problem(part, x)
            if problem is not None:
                raise ScoreFnError(f"The score function {problem} (t={t:g}).")
        answers.append(torch.stack([part.to(torch.float64) for part in parts]).nan_to_num())
    first, second = answers
    size = float(first.square().mean().sqrt()) if first.numel() else 0.0
    if first.numel() and float((first - second).abs().max()) > _SAME * size:
        raise ScoreFnError(
            f"The score function is not deterministic (t={t:g}): called twice, it answers differently (dropout? "
            f"net.eval())."
        )
