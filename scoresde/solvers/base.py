"""The protocol of a solver: an immutable object that makes one step. Methods import from here what the signature of a
step names."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from ..core.errors import NonFiniteError, SolveFailedError
from ..core.processes import TIME, Coordinate, Process
from ..core.processes.requests import Asking
from ..core.sdes import SDE, Node
from ..core.support.combination import Term, tensor_of
from .registry.rows import aliases_of, name_of


class Estimates(NamedTuple):
    """Error estimates of one step at several orders, for methods that choose theirs.

    Attributes:
        values: ``(batch, m, *event)``.
        powers: p of each, ``(m,)``: the error is proportional to :math:`h^p`.
        used: which of them is that of the step, ``(batch,)``.
        usable: which of them the next step may use, ``(batch, m)`` bool.
        factors: factors of the values, ``(batch, m)``; None stands for 1.
        size: what the error is a share of, shaped like x or ``(batch,)``: ``max(atol, rtol * size)`` is allowed; None
            allows ``atol + rtol * max(abs(x), abs(x_new))``, with the states before and after the step.

    All but the values may be NumPy arrays, which saves the device the arithmetic.

    Example:
        >>> import torch
        >>> Estimates(
        ...     torch.ones(1, 1, 2),
        ...     torch.tensor([2.0]),
        ...     torch.tensor([0]),
        ...     torch.tensor([[True]]),
        ... ).values.shape
        torch.Size([1, 1, 2])
    """

    values: Tensor
    powers: Tensor | np.ndarray
    used: Tensor | np.ndarray
    usable: Tensor | np.ndarray
    factors: Tensor | np.ndarray | None = None
    size: Tensor | None = None


def of_power(error: Tensor, power: float, size: Tensor | None = None) -> Estimates:
    r"""A single estimate, proportional to :math:`h^p` with any p.

    Example:
        >>> of_power(torch.ones(4, 2), 1.5).values.shape
        torch.Size([4, 1, 2])
    """
    used = np.zeros(len(error), dtype=np.int64)
    return Estimates(error[:, None], np.array([power]), used, used[:, None] == 0, size=size)


class _Result(NamedTuple):
    x: Term
    state: Any = None
    error: Tensor | Estimates | None = None
    rejected: Any = None


class StepResult(_Result):
    """The result of a step: the new x, the new solver state, and an error estimate (adaptive methods; see
    `Estimates` for several). ``rejected`` is the solver state of a sample whose step is rejected; None leaves it as it
    was.

    The new x may be given as a linear combination that is not computed yet; the loop then writes it where there is
    room. Whoever reads ``x`` gets a tensor.

    Example:
        >>> import torch
        >>> StepResult(torch.zeros(1, 2)).error is None
        True
    """

    __slots__ = ()

    @property
    def x(self) -> Tensor:
        """The new state."""
        return tensor_of(self[0])

    @property
    def moved(self) -> Term:
        """The new state as the step gave it."""
        return self[0]


Step: TypeAlias = "Asking[StepResult]"  # what a step is: it yields requests and returns its result


class StepControl(NamedTuple):
    r"""How the steps of an adaptive method follow its errors.

    Attributes:
        first_step: the longest first step, as a share of the whole way; pairs that begin with a derivative take a
            shorter one where the state changes fast.
        growth: the largest ratio of a step to the one before.
        longest: the longest step, on the method's clock.
        safety: the share that is taken of a step that would just meet the tolerance.
        gains: a and b of the next step's factor :math:`e^{-a/p}\,e_{last}^{b/p}`.
        many: the number of steps after which the later ones may err less.

    Example:
        >>> StepControl(growth=5.0).safety
        0.9
    """

    first_step: float = 0.01
    growth: float = 10.0
    longest: float = math.inf
    safety: float = 0.9
    gains: tuple[float, float] = (0.7, 0.4)
    many: float = math.inf


class StepFailed(Exception):
    """A step that cannot be made: `integrate` raises the error, or with ``throw=False`` marks the samples.

    Attributes:
        error: the error to raise.
        samples: the samples concerned, ``(batch,)`` bool; the others cannot continue without them.

    Example:
        >>> import torch
        >>> str(
        ...     StepFailed(
        ...         SolveFailedError("max_steps=3 is used up"),
        ...         torch.ones(2, dtype=torch.bool),
        ...     )
        ... )
        'max_steps=3 is used up'
    """

    def __init__(self, error: NonFiniteError | SolveFailedError, samples: Tensor) -> None:
        super().__init__(str(error))
        self.error, self.samples = error, samples


# Why a step is not Gaussian though its draws are.
THROUGH_NETWORK = (
    "the state at the end of a step is a function of the network at a state that holds the draw of the step already, "
    "so that its density would need a Jacobian"
)


class _FromRow:
    """An attribute that is found by the row of the solver or of the class."""

    def __init__(self, find: Callable[[type, object], object]) -> None:
        self.find = find

    def __get__(self, solver: object, cls: type) -> object:
        return self.find(cls, solver)


class Solver(abc.ABC):
    r"""One method. Subclasses are frozen dataclasses whose fields are the method's options.

    A class declares its properties by class variables or, where it depends on the options, by properties;
    `scoresde.methods` shows them, `scoresde.solve` refuses arguments that do not fit, and the convergence tests measure
    the orders.

    Attributes:
        name: its name, and ``aliases``, other names of it, from its row in the list of methods. Your own solver may
            set a name for messages; `solve` takes it as an object only.
        kind: ``"ode"``, ``"sde"``, ``"mcmc"`` or ``"backend"``.
        stochastic: whether it draws noise.
        adaptive: whether it chooses its own steps (its steps then carry an error estimate).
        own_steps: whether a step is a whole interval, inside which a library makes its own steps: `solve` then passes
            it the tolerances or the number of steps, which are fields of it.
        evaluations: score evaluations per step; ``extra_evaluations``: those of the first steps beyond that;
            ``limit_evaluations``: those of a step that begins or ends where the log-SNR is infinite. `cost` follows
            from them, where a method does not give its own.
        ode_order: the order on the probability flow, None where there is none; ``weak_order`` and ``strong_order``,
            those in the distribution and along the path.
        batch_coupled: whether samples depend on the others of their batch.
        reference: the publication.
        affine: whether it needs a process with alpha and sigma.
        takes_stochasticity: whether it steps a general drift and diffusion, so that eta is free.
        keeps_estimates: whether an estimate or a score is read again after a later evaluation. It is then a copy, since
            a network may write every output to the same memory, as a CUDA graph does. A method that uses each of them
            before the next evaluation declares False, and saves the copies; drifts are new tensors anyway. Leave it
            True: that is right for every method, and a class with a `step` of its own does not inherit False.
        noise_limit: whether it can start where alpha = 0; ``data_limit``: whether it can end where sigma = 0.
        looks_ahead: whether a step leaves something about the state at its end for the next, so that nothing else may
            move the state in between; such a method cannot be a predictor.
        default_steps: the number of steps that `solve` takes if none is given.
        stages: the fractions of a step at which it evaluates, on the clock of its ``coordinate``; an adaptive method
            chooses its steps on this clock.
        control: how the steps of an adaptive method follow its errors.
        gaussian_step: whether the state after a step, or after each of its stages that draw, is Gaussian given the
            states before, so that a path has a density (see `scoresde.paths`); ``not_gaussian`` says why it is not.
    """

    name: ClassVar[str] = _FromRow(name_of)  # type: ignore[assignment]
    aliases: ClassVar[tuple[str, ...]] = _FromRow(aliases_of)  # type: ignore[assignment]
    kind: ClassVar[str] = "ode"
    stochastic: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    own_steps: ClassVar[bool] = False
    strong_order: ClassVar[float | None] = None
    default_steps: ClassVar[int] = 50
    control: ClassVar[StepControl] = StepControl()
    not_gaussian: ClassVar[str] = (
        "they are not declared Gaussian given the states before (set gaussian_step = True if they are)"
    )

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "step" in vars(cls) and "keeps_estimates" not in vars(cls):
            cls.keeps_estimates = Solver.keeps_estimates  # type: ignore[method-assign]

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def extra_evaluations(self) -> int:
        return 0

    @property
    def limit_evaluations(self) -> int:
        return self.evaluations

    def cost(self, steps: int, limits: int = 0) -> int:
        """The evaluations of so many steps, of which some begin or end where the log-SNR is infinite."""
        spared = (self.evaluations - self.limit_evaluations) * min(limits, steps)
        return steps * self.evaluations - spared + self.extra_evaluations

    def steps_for(self, evaluations: int, limits: int = 0) -> int:
        """The largest number of steps that takes no more than so many evaluations; 0 if there is none."""
        steps = evaluations // self.evaluations + limits
        while steps > 0 and self.cost(steps, limits) > evaluations:
            steps -= 1
        return steps

    @property
    def ode_order(self) -> int | None:
        return None

    @property
    def weak_order(self) -> int | None:
        return None

    @property
    def batch_coupled(self) -> bool:
        return False

    @property
    def reference(self) -> str:
        return ""

    @property
    def gaussian_step(self) -> bool:
        return False

    @property
    def affine(self) -> bool:
        return True

    @property
    def takes_stochasticity(self) -> bool:
        return False

    @property
    def keeps_estimates(self) -> bool:
        return True

    @property
    def noise_limit(self) -> bool:
        return False

    @property
    def data_limit(self) -> bool:
        return False

    @property
    def looks_ahead(self) -> bool:
        return False

    @property
    def stages(self) -> tuple[float, ...]:
        return ()

    @property
    def coordinate(self) -> Coordinate:
        return TIME

    @property
    def default_stochasticity(self) -> float:
        """The eta of the process that the method steps unless given: 0 for the probability flow, else 1."""
        return 1.0 if self.stochastic else 0.0

    def follows(self, eta: float) -> float | None:
        """The stochasticity of the reverse SDE that a method with a strong order converges to, given that of the
        process that it steps; None where there is none, or the method follows another process."""
        return None if self.strong_order is None else eta

    def for_data(self, std: float) -> Solver:
        """The method for data of a standard deviation > 0 that the score function declares; most return themselves."""
        return self

    def prepare(self, process: Process, nodes: Sequence[Node[Any]]) -> None:
        """Called once before the first step on a fixed grid: look up the nodes that steps will need."""
        if self.stages:
            process.nodes.prepare_between(nodes, self.stages, self.coordinate)

    def noise_clock(self, sde: SDE, times: Tensor) -> Tensor:
        """The clock of the Brownian path that an adaptive method draws from: the increment over a step has the variance
        of the clock's difference."""
        return times

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The times that the method goes through, given those of the grid; most go straight."""
        return times

    def init(self, process: Process, x: Tensor, start: Node[Any]) -> Any:
        """The solver state before the first step: None, a tensor or an array ``(batch, ...)`` or a NamedTuple of
        those. It may yield requests, as a step does."""
        return None

    def land(
        self, process: Process, x: Tensor, start: Node[Any], stop: Node[Any], state: Any
    ) -> Asking[StepResult | None]:
        """The step to the end of the solve from the solver state, without an evaluation, and its error estimate; None
        for the methods that have none. It is called before every step but the first, whether that is the last or not;
        the step itself follows with the same ``stop`` and draws."""
        yield from ()
        return None

    @abc.abstractmethod
    def step(self, process: Process, x: Tensor, start: Node[Any], stop: Node[Any], state: Any) -> Step | StepResult:
        """One step from ``start`` to ``stop``: a generator, which yields what it wants evaluated or drawn, as in ``data
        = (yield process.estimate(x, start)).data``, and returns its result. Inputs are not changed."""


class EstimateSolver(Solver):
    """A method whose steps are made of both estimates, and so have a limit where alpha = 0 and where sigma = 0."""

    noise_limit: ClassVar[bool] = True
    data_limit: ClassVar[bool] = True
    limit_evaluations: ClassVar[int] = 1


class MCMCSolver(Solver):
    """A method of the kind ``"mcmc"``: Langevin moves at the levels of the grid."""

    kind: ClassVar[str] = "mcmc"
    stochastic: ClassVar[bool] = True


class SDESolver(Solver):
    r"""A method of the kind ``"sde"``, which draws noise; subclasses give ``step`` and declare their orders.

    A step draws by ``yield process.increment(start.t, stop.t, x)``, a standard normal draw shaped like x, which is the
    normalised increment of the Brownian path over the step.

    Example:
        >>> from typing import ClassVar
        >>> from scoresde.solvers import SDESolver, StepResult
        >>> class Ancestral(SDESolver):
        ...     weak_order: ClassVar[int] = 1
        ...
        ...     def step(self, process, x, start, stop, state):
        ...         data = (yield process.estimate(x, start)).data
        ...         kept = (stop.sigma / start.sigma * start.alpha / stop.alpha) ** 2
        ...         mean = kept * stop.alpha / start.alpha * x
        ...         mean = mean + stop.alpha * (1 - kept) * data
        ...         z = yield process.increment(start.t, stop.t, x)
        ...         return StepResult(mean + stop.sigma * (1 - kept) ** 0.5 * z, None)
        >>> round(scoresde.testing.weak_order(Ancestral()).order(), 1)
        1.0
    """

    kind: ClassVar[str] = "sde"
    stochastic: ClassVar[bool] = True


class EstimateSDESolver(SDESolver, EstimateSolver):
    """Such a method, made of both estimates."""


class DriftSolver(SDESolver):
    """Such a method of any process, by its drift and diffusion."""

    affine: ClassVar[bool] = False
    takes_stochasticity: ClassVar[bool] = True
