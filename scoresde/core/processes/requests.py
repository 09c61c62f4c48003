"""What a step requests by ``yield``: evaluations of the network, and draws.

A step is a generator. It yields requests, receives their answers, and returns its result; who drives it decides where
the answers come from: `scoresde.solve` evaluates the network, a `scoresde.Stepper` hands the question to its caller,
and a recorder answers with symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, TypeVar

from torch import Tensor

from ..errors import InvalidTypeError, short
from ..sdes import Node

if TYPE_CHECKING:
    from .base import Process

Result = TypeVar("Result")
Asking: TypeAlias = "Generator[Request, Any, Result]"  # what yields requests and returns a result


class Request:  # no ABC, since its instance checks would slow every answer
    """What a step yields; ``yield`` returns its answer. A subclass gives `answer` and `then`.

    Example:
        >>> import torch, scoresde
        >>> from scoresde.core.processes import Network, ReverseProcess
        >>> process = ReverseProcess(scoresde.VPSDE(), Network(lambda x, t: -x))
        >>> request = process.score(torch.ones(1, 2), scoresde.VPSDE().node(0.5))
        >>> process.answer(request)
        tensor([[-1., -1.]])
    """

    __slots__ = ()
    evaluates: ClassVar[bool] = False  # whether the network is called

    def answer(self, process: Process) -> Any:
        """What a process answers."""
        raise NotImplementedError

    def then(self, function: Callable[[Any], Any]) -> Request:
        """The same request, with a function of its answer."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"a request has no {name!r}; its answer has, which a step gets by yield: "
            f"(yield process.estimate(x, start)).{name}"
        )


def _same(value: Any) -> Any:
    return value


class Evaluation(Request):
    """An evaluation of the network.

    Args:
        form: the method of `Network` that makes it.
        x, node: the state, and where.
        read: makes the answer of what the network returns.
    """

    __slots__ = ("form", "node", "read", "x")
    evaluates = True

    def __init__(self, form: str, x: Tensor, node: Node[Any], read: Callable[[Any], Any] = _same) -> None:
        self.form, self.x, self.node, self.read = form, x, node, read

    def answer(self, process: Process) -> Any:
        return self.read(getattr(process.network, self.form)(self.x, self.node))

    def then(self, function: Callable[[Any], Any]) -> Evaluation:
        """See `Request.then`."""
        read = self.read
        return Evaluation(self.form, self.x, self.node, function if read is _same else lambda v: function(read(v)))


class Computation(Request):
    """What a process computes by itself.

    Args:
        function: of nothing.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def answer(self, process: Process) -> Any:
        return self.function()

    def then(self, function: Callable[[Any], Any]) -> Computation:
        """See `Request.then`."""
        return Computation(lambda: function(self.function()))


class Drawing(Request):
    """A draw.

    Args:
        method: of `scoresde.Noise`.
        times: its first arguments.
        like: the state.
    """

    __slots__ = ("like", "method", "times")

    def __init__(self, method: str, times: tuple[Any, ...], like: Tensor) -> None:
        self.method, self.times, self.like = method, times, like

    def answer(self, process: Process) -> Any:
        return getattr(process.noise, self.method)(*self.times, self.like)


def result_of(made: Asking[Result] | Result) -> Asking[Result]:
    """The result of a step, or of a part of one, that may be a generator or a plain value: ``yield from
    result_of(...)``.

    Example:
        >>> drive(result_of(1.0), None)
        1.0
    """
    if isinstance(made, GeneratorType):
        return (yield from made)
    return made  # type: ignore[return-value]


def drive(made: Asking[Result] | Result, answer: Callable[[Request], Any]) -> Result:
    """Run a step to its end; ``answer`` gives the answers.

    Example:
        >>> def step():
        ...     z = yield Drawing("normal", (), torch.ones(2))
        ...     return 2 * z
        >>> drive(step(), lambda request: request.like)
        tensor([2., 2.])
    """
    if not isinstance(made, GeneratorType):
        return made  # type: ignore[return-value]
    given = None
    while True:
        try:
            request = made.send(given)
        except StopIteration as end:
            return end.value
        if not isinstance(request, Request):
            refuse_request(request)
        given = answer(request)


def refuse_request(request: object) -> NoReturn:
    """Refuse what a step yields, if that is no request."""
    raise InvalidTypeError(
        f"A step must yield requests such as process.estimate(x, start), got {short(request)}; a part of a step that "
        "is a generator itself is used with `yield from`."
    )
