"""A solve whose network its caller evaluates: `Stepper`."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..grids import Grid
from ..scores import Score, ScoreModel, as_score
from ..scores.wrapper import Wrapper
from ..solvers import Solver
from ..solvers.registry.rows import MethodName
from ..targets import GaussianStart
from .arguments import GridChoice, SolveOptions
from .errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MaxStepsError,
    NonFiniteError,
    ScoreFnError,
    ScoreSDEError,
    StepSizeUnderflowError,
)
from .loop import Loop
from .noise import Noise
from .processes import Asking, Process, Request
from .processes.requests import refuse_request
from .recorder.plan import Evaluate
from .sdes import SDE, Node
from .setup import Setup, set_up
from .solution import Solution
from .support.checks import as_torch, check_callable, check_kind, check_state, form
from .support.snapshot import digest, pack, unpack
from .support.tensors import version_of


class Question(tuple[Tensor, Tensor]):
    r"""What a `Stepper` requests: the network's output at ``x, t = question``.

    Attributes:
        x: the network's input, ``(batch, *event)``. It is not to be written to.
        t: its time, ``(batch,)``.
        node: the process there: t, :math:`\alpha`, :math:`\sigma` and more; numbers on a fixed grid, tensors
            ``(batch,)`` where each sample has its own time.
        state: the process's own x there, ``(batch, *event)``, which a `ScoreModel` may scale for its network.

    Example:
        >>> stepper = Stepper(scoresde.EDMSDE(), "euler", torch.ones(1, 2), steps=4)
        >>> x, t = stepper.ask()
        >>> x.shape, t, round(stepper.ask().sigma, 9)
        (torch.Size([1, 2]), tensor([80.]), 80.0)
    """

    node: Node[Any]
    state: Tensor

    def __new__(cls, x: Tensor, t: Tensor, node: Node[Any], state: Tensor) -> Question:
        question = super().__new__(cls, (x, t))
        question.node, question.state = node, state
        return question

    @property
    def x(self) -> Tensor:
        return self[0]

    @property
    def t(self) -> Tensor:
        return self[1]

    @property
    def sigma(self) -> float | Tensor:
        r""":math:`\sigma` of the process at this level."""
        return self.node.sigma

    @property
    def log_snr(self) -> float | Tensor:
        r""":math:`\ln(\alpha^2/\sigma^2)` of this level."""
        return 2 * self.node.lam


class _Unanswered(Exception):
    """The network's output is not known yet."""


class _Caller:
    """Stands for the network in an evaluation: it returns the outputs that it was given, in order, and then requests
    one. An evaluation with a request is made again when the output is there, so it may call the network several
    times."""

    def __init__(self) -> None:
        self.told: list[Tensor] = []
        self.read = 0
        self.asked: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, t: Tensor, **context: object) -> Tensor:
        if self.read == len(self.told):
            self.asked = x, t
            raise _Unanswered
        self.read += 1
        return self.told[self.read - 1]

    def accepts(self, name: str) -> bool:
        """It has no context."""
        return False


class Stepper:
    r"""A solve whose network the caller evaluates: it requests the network's outputs, one by one, and receives them.

    .. code-block:: python

        stepper = Stepper(sde, "dpm_3m", x, prediction="noise", steps=20)
        while not stepper.done:
            x, t = stepper.ask()
            stepper.tell(net(x, t))
        stepper.x

    The result, and every number on the way, is that of ``solve(sde, ScoreModel(net, sde, prediction), x, …)``, and
    so is the number of calls of the network. All methods whose steps yield what they want evaluated work: those that
    evaluate several times in a step, and adaptive ones, whose number of evaluations is not known beforehand. A
    method that calls the network itself is refused: a method of another library (``"scipy:RK45"``; take ``"rk45"``), or
    one that differentiates the network.

    An output that is refused, or an exception in what reads it, leaves the question open. What ends a solve (a state
    that is not finite, ``max_steps``) ends the stepper: it raises this error again, until an earlier state is loaded.

    Args:
        sde, method, x: see `scoresde.solve`, as for all other arguments that are not described here.
        prediction: what the caller passes to `tell`: ``"score"``, ``"noise"``, ``"data"``, ``"v"``, ``"flow"`` or
            ``"edm"``. Or a `ScoreModel`, or ``Clip(model)`` of one, whose network is not called: `ask` then returns the
            inputs of this network, such as integer labels, and `tell` takes its output. Or a function that makes such a
            model from a network, such as ``lambda net: Clip(ScoreModel(net, sde, "noise"))``.
        save_at: see `scoresde.solve`; the states are in the ``solution``.

    Raises:
        InvalidArgumentError: an argument does not fit.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> def net(x, t):
        ...     return 0.1 * x
        >>> x = torch.ones(2, 3)
        >>> stepper = Stepper(sde, "dpm_3m", x, prediction="noise", steps=10)
        >>> while not stepper.done:
        ...     stepper.tell(net(*stepper.ask()))
        >>> model = scoresde.ScoreModel(net, sde, "noise")
        >>> bool(
        ...     (
        ...         stepper.x == scoresde.solve(sde, model, x, method="dpm_3m", steps=10).x
        ...     ).all()
        ... )
        True
    """

    def __init__(
        self,
        sde: SDE,
        method: MethodName | str | Solver | Grid,
        x: Tensor | None = None,
        *,
        prediction: str | ScoreModel | Callable[..., Score] = "score",
        shape: Sequence[int] | None = None,
        evaluations: int | None = None,
        steps: int | None = None,
        grid: GridChoice = None,
        rtol: float | None = None,
        atol: float | None = None,
        t_start: float | None = None,
        t_end: float | None = None,
        start: GaussianStart | None = None,
        stochasticity: float | None = None,
        seed: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
        denoise: bool = False,
        save_at: Sequence[float] | Tensor | str | None = None,
        max_steps: int | None = None,
        throw: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **solver_options: object,
    ) -> None:
        given = SolveOptions.of(locals())
        self._caller = _Caller()
        if device is None and x is None and isinstance(prediction, Score):
            given = replace(given, device=prediction.network_device)  # the caller, who evaluates it, is nowhere
        with _quiet():
            self._setup = set_up(sde, _read_as(prediction, sde, self._caller), x, given, compact=False)
        self._network = self._setup.process.network
        self._network.remembers = True
        self._turn: Asking[Any] | None = None  # of the loop, or the end of the solve, under way
        self._request: Request | None = None  # that it waits for
        self._drawn: list[Any] = []  # its draws, where it has no plan
        self._place = 0  # among them, where it is made again
        self._calls = 0  # of the network before it
        self._question: Question | None = None
        self._asked = False  # whether the caller has seen it
        self._version = self._state_version = 0
        self._failure: ScoreSDEError | None = None
        self._arrived: Solution | None = None
        self._solution: Solution | None = None
        self._last = -1  # the last step of a plan with an evaluation
        loop = self._setup.loop
        self._prediction = prediction
        if loop is None:
            self._arrived = self._setup.arrived()
        elif loop.run is not None:
            asks = [any(isinstance(i, Evaluate) for i in step) for step in loop.run.plan.steps]
            self._last = max((k for k, asked in enumerate(asks) if asked), default=-1)
        self._keep(self._arrived.x if loop is None else loop.x)  # type: ignore[union-attr]
        self._go()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Functions that call it cannot be copied."""
        raise InvalidTypeError(
            "A Stepper cannot be copied or pickled; make another one with the same arguments, and give its "
            "`load_state_dict` what `state_dict` of this one returns."
        )

    @property
    def done(self) -> bool:
        """Whether the solve is complete."""
        return self._solution is not None

    @property
    def solution(self) -> Solution:
        """What `scoresde.solve` would return, once all questions are answered."""
        if self._solution is None:
            raise InvalidArgumentError("The solve is not done; call `ask` and `tell` until `done`.")
        return self._solution

    @property
    def x(self) -> Tensor:
        """The state after the last step, ``(batch, *event)``, and in the end the result. It may be set between two
        steps: before `ask`, or after the first `ask` of a step and before `tell`, unless the method has moved the state
        or added noise to it by then. Adaptive methods evaluate the derivative of the new state; others go on with what
        they remember of earlier steps. Do not write into it."""
        return self._state if self._solution is None else self._solution.x

    @x.setter
    def x(self, value: Tensor) -> None:
        check_state("x", value)
        if value.shape != self._state.shape:
            raise InvalidArgumentError(f"`x` must have the shape {tuple(self._state.shape)}, got {tuple(value.shape)}.")
        loop = self._setup.loop
        if loop is None or self._arrived is not None:
            raise InvalidArgumentError("The last step is made, and `x` can be set no more.")
        if self._failure is not None:
            raise self._failure
        if not self.between:
            raise InvalidArgumentError("A step has begun; set `x` before `ask`.")
        self._leave()
        with _quiet():
            self._keep(value.detach().to(self._state, copy=True))
        loop.replace(self._state)
        if loop.run is None:
            self._go()

    @property
    def t(self) -> float | Tensor:
        """The time of `x`, ``(batch,)`` where each sample has its own."""
        loop = self._setup.loop
        return self._setup.t_end if loop is None or self._arrived is not None else loop.t

    def ask(self) -> Question:
        """The next ``(x, t)`` at which the network is to be evaluated; the same until `tell` receives its output."""
        self._check()
        if self._question is None and not self.done:
            self._go(pause=False)
        if self._question is None:
            raise InvalidArgumentError("The solve is done; its result is `solution`.")
        self._asked = True
        return self._question

    @property
    def between(self) -> bool:
        """Whether the solve is between two steps, so that `x` can be set."""
        loop = self._setup.loop
        if loop is None or self._arrived is not None:
            return False
        return not self._caller.told and (loop.run is None or not loop.run.at)

    @property
    def denoised(self) -> Tensor | None:
        r"""Tweedie's estimate :math:`E[x_0|x_t]` of the last evaluation, ``(batch, *event)``, which costs none; None
        before the first, or where alpha and sigma are not known."""
        return self._network.denoised() if self._setup.process.sde.affine else None

    def tell(self, output: Tensor, x: Tensor | None = None) -> None:
        """Go on with the network's output at the last question, once.

        Args:
            output: what the network returned.
            x: where it was evaluated, if that was not the x of the question; for methods whose steps are known before
                the first one, which adaptive ones are not.

        Raises:
            InvalidArgumentError: there is no question since the last output; or x is given, and the method does not
                take it.
            InvalidTypeError: it is no tensor.
            ScoreFnError: it has not the shape of the question's x, or that x was written to.
            NonFiniteError: it, or the state that follows, is not finite.
        """
        question = self._question
        if question is not None and version_of(question.x) != self._version:
            raise ScoreFnError("The network modified its input in place; work on x.clone() inside it.")
        self._check()
        if question is None or not self._asked:
            raise InvalidArgumentError("There is no question since the last output; call `ask` before each `tell`.")
        if not isinstance(output, Tensor):
            raise InvalidTypeError(f"`output` must be a tensor, got {form(output)}; try {as_torch('output', output)}.")
        if x is not None:
            self._move(x)
        caller = self._caller
        caller.told.append(output.detach().clone() if self._planless else output.detach())
        self._question, self._asked = None, False
        try:
            self._go()
        except BaseException:
            if caller.told and self._failure is None:  # it was not taken: the question stays open
                caller.told.pop()
                self._question, self._asked = question, True
            raise

    def state_dict(self) -> dict[str, Any]:
        """Where the solve is, in tensors, numbers, strings, lists and dicts: ``torch.save`` keeps it, and
        ``torch.load`` reads it with ``weights_only=True``. It may be taken at any time, an open question included."""
        self._check()
        loop, ends = self._setup.loop, (self._arrived, self._solution)
        state: dict[str, Any] = {"made_with": dict(self._made_with)}
        state |= {"told": pack(self._caller.told), "drawn": pack(self._drawn)}
        state |= {"network": self._network.calls, "calls": self._calls}
        state |= {"ends": [None if end is None else pack(vars(end)) for end in ends], "x": pack(self._state)}
        state |= {} if loop is None else {"loop": loop.state_dict()}
        return state | {"sha256": digest(state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stepper was, which was made with the same arguments. Its draws go on where they were,
        whatever the seed of this one.

        Raises:
            InvalidArgumentError: it was made with others, or is damaged.
        """
        check_kind("state", state, Mapping, "what `state_dict` returned")
        made = state.get("made_with")
        content = {name: value for name, value in state.items() if name != "sha256"}
        if not isinstance(made, Mapping) or state.get("sha256") != digest(content):
            raise InvalidArgumentError("`state` must be what `state_dict` returned, and nothing else.")
        for name, own in self._made_with.items():
            if made.get(name) != own:
                raise InvalidArgumentError(
                    f"`state` is that of a stepper made with another {name}: {made.get(name)}, not {own}."
                )
        loop = self._setup.loop
        with _quiet():
            self._keep(unpack(state["x"]))
            if loop is not None:
                loop.load_state_dict(state["loop"])
            self._caller.told, self._drawn = unpack(state["told"]), unpack(state["drawn"])
            self._network.calls, self._calls = state["network"], state["calls"]
            ends = [None if end is None else Solution(**unpack(end)) for end in state["ends"]]
        self._arrived, self._solution = ends
        self._failure = None
        self._leave()
        if self._planless and not self.done:
            self._go()

    def _keep(self, x: Tensor) -> None:
        """Keep the state after a step."""
        self._state = x.detach()
        self._state_version = version_of(self._state)

    def _check(self) -> None:
        """Refuse to go on after a failure, or from a state that was written to."""
        if self._failure is not None:
            raise self._failure
        if not self.done and version_of(self._state) != self._state_version:
            raise InvalidArgumentError("`x` was written to in place; set it, as in `stepper.x = torch.zeros(2, 3)`.")

    def _move(self, x: Tensor) -> None:
        """Put another x in the place of that of the question."""
        loop, shape = self._setup.loop, self._state.shape
        check_state("x", x)
        if self._planless or loop is None or loop.run is None:
            raise InvalidArgumentError("`x` cannot be given: the steps of this method are not known beforehand.")
        if x.shape != shape:
            raise InvalidArgumentError(f"`x` must have the shape {tuple(shape)}, got {tuple(x.shape)}.")
        with _quiet():
            loop.run.move(loop.step, x.detach().to(self._state, copy=True))
        self._leave()

    @functools.cached_property
    def _made_with(self) -> dict[str, str]:
        """What its states fit."""
        return _made_with(self._setup, self._prediction, self._state)

    @property
    def _planless(self) -> bool:
        """Whether what it does next has no plan."""
        loop = self._setup.loop
        return loop is None or loop.run is None or self._arrived is not None

    def _leave(self) -> None:
        """Leave the turn under way; it is made again up to here, with the same draws and outputs."""
        self._turn = self._request = self._question = None
        self._asked = False

    def _go(self, pause: bool = True) -> None:
        """Go on to the next question or to the end; with ``pause``, a plan stops between its steps."""
        with _quiet():
            try:
                while self._solution is None:
                    if pause and self._turn is None and self._between_steps:
                        return
                    if not self._on():
                        return
            except BaseException as failure:
                self._leave()  # what has raised is a generator that is over
                if isinstance(failure, NonFiniteError | MaxStepsError | StepSizeUnderflowError):
                    self._failure = failure
                raise

    @property
    def _between_steps(self) -> bool:
        """Whether a plan is between two steps, and requests an evaluation in one of those that follow."""
        loop = self._setup.loop
        return not self._planless and self.between and loop.step <= self._last  # type: ignore[union-attr]

    def _on(self) -> bool:
        """Go on with a turn of the loop, or with the end of the solve: True where that is done, False at a question."""
        setup, caller, answer = self._setup, self._caller, None
        loop = setup.loop if self._arrived is None else None
        process = setup.process if loop is None else loop.process
        if self._turn is None:
            self._turn = setup.finished(self._arrived) if loop is None else loop.turn()  # type: ignore[arg-type]
            self._place, caller.read, self._network.calls = 0, 0, self._calls
        while True:
            if self._request is None:
                try:
                    request = self._turn.send(answer)
                except StopIteration as end:
                    self._ended(loop, end.value)
                    return True
                except _Unanswered:
                    solver: Any = setup.loop.solver  # type: ignore[union-attr]
                    name, native = solver.name, getattr(solver, "native", "heun")
                    raise InvalidArgumentError(
                        f"{name!r} calls the network itself, and has no questions for a caller; take {native!r} or "
                        "another method whose steps yield what they want evaluated."
                    ) from None
                if not isinstance(request, Request):
                    refuse_request(request)
                if not request.evaluates:
                    answer = self._drawing(process, request)
                    continue
                self._request = request
            begun, caller.asked = caller.read, None
            with suppress(_Unanswered):
                answer = self._request.answer(process)
            if caller.asked is not None:
                caller.read = begun
                self._question = Question(*caller.asked, self._network.node, self._network.given)
                self._version = version_of(self._question.x)
                return False
            self._request = None
            if not self._planless:  # a plan keeps what it has computed
                caller.told, caller.read, self._calls = [], 0, self._network.calls

    def _drawing(self, process: Process, request: Request) -> Any:
        """A draw, or the one that was made before."""
        if self._place == len(self._drawn):
            self._drawn.append(request.answer(process))
        self._place += 1
        return self._drawn[self._place - 1]

    def _ended(self, loop: Loop | None, result: Any) -> None:
        """Keep the state after a turn of the loop, if another one follows, or else the solution."""
        self._caller.told, self._drawn, self._turn, self._calls = [], [], None, self._network.calls
        if loop is None:
            self._solution = result
            return
        self._keep(loop.x)
        if not result:
            self._arrived = loop.finish()


def _quiet() -> AbstractContextManager[object]:
    """Without gradients; and, since a stepper may outlive the caller's `torch.inference_mode`, without that."""
    return _left() if torch.is_inference_mode_enabled() else torch.no_grad()


@contextmanager
def _left() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield


def _made_with(setup: Setup, prediction: object, x: Tensor) -> dict[str, str]:
    """What the states of a stepper fit, by the names that errors give. Times and levels are rounded, since their last
    digits depend on the processor, and addresses are left out."""
    process, loop = setup.process, setup.loop
    sde, read_as = process.sde, prediction if isinstance(prediction, str) else process.network.score_fn
    made: dict[str, Any] = {"process": sde, "prediction": read_as, "stochasticity": process.eta}  # type: ignore[attr-defined]
    if sde.affine:
        nodes = sde.nodes(torch.linspace(sde.t_min, sde.t_max, 5, dtype=torch.float64))
        made["schedule"] = [f"{v:.9g}" for v in (*nodes.alpha.tolist(), *nodes.sigma.tolist())]
    if loop is not None:
        controller, recorder = loop.controller, loop.recorder
        made |= {"method": loop.solver, "noise": type(loop.process.noise).__name__, "max_steps": loop.limit}
        made["grid"] = [f"{t:.9g}" for t in (*loop.first_t[:1], *controller.targets)]
        made["tolerance"] = [getattr(controller, name, None) for name in ("rtol", "atol")]
        made["save_at"] = None if recorder is None else "steps" if recorder.every else recorder.wanted
    made |= {"shape": tuple(x.shape), "dtype": x.dtype, "device": x.device, "dtype of the result": setup.dtype}
    made |= {"t_end": setup.t_end, "denoise": setup.denoise, "throw": setup.throw}
    return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", str(value)) for name, value in made.items()}


def _read_as(prediction: str | ScoreModel | Callable[..., Score], sde: SDE, caller: _Caller) -> Score:
    """The caller's outputs as a score function."""
    if isinstance(prediction, str) and prediction == "score":
        return as_score(caller)
    if isinstance(prediction, str):
        return ScoreModel(caller, sde, prediction)  # type: ignore[arg-type]
    if isinstance(prediction, Wrapper) and len(prediction.score_fns) == 1:  # such as Clip(model)
        limited = copy.copy(prediction)
        limited.score_fns = (as_score(_read_as(prediction.score_fns[0], sde, caller)),)
        return limited
    if isinstance(prediction, Score) and not isinstance(prediction, ScoreModel):
        raise InvalidArgumentError(
            f"`prediction` is a score function already, {type(prediction).__name__}; the caller evaluates one network: "
            "give its ScoreModel, or a function of it such as lambda net: Clip(ScoreModel(net, sde, 'noise'))."
        )
    if not isinstance(prediction, ScoreModel):
        check_callable("prediction", prediction, "prediction(net), or be a name or a ScoreModel")
        score = prediction(caller)
        check_kind("prediction(net)", score, Score, "a score function such as a ScoreModel")
        return score
    model = copy.copy(prediction)
    model.net, model.context = caller, {}
    return model
