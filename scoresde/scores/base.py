r"""The score function as an object.

A `Score` gives :math:`\hat x = E[x_0|x_t]` and :math:`\hat\varepsilon`, with :math:`x_t = \alpha\hat x +
\sigma\hat\varepsilon`, at every node of a process; the score, v and the velocity of the flow follow. It declares in
its `Traits` what it was made for and what else it can do; wrappers merge these. A bare callable becomes a
`Score` by `scoresde.scores.as_score`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import SDE, AffineSDE, Estimate, Node
from ..core.sdes.base import check_sde
from ..core.sdes.records import PARTS, SCORE, LinearEstimate, times_of
from ..core.support.checks import check_kind, check_state
from ..core.support.tensors import Scalar, compute_dtype, expand, has_graph


@dataclass(frozen=True)
class Traits:
    """What a score function declares.

    Attributes:
        sde: the process that it was made for; None if it is not known.
        event_shape: the shape of one sample; None if it is not known.
        rowwise: whether samples do not depend on each other, so that finished ones may leave the batch.
        noise_limit: whether it has a value where alpha = 0.
        variance: whether its estimates carry a learned variance of reverse steps.
        shift: whether guidance can be separated from what it guides; see `Score.twisted`.
        network_parts: the parts of its estimates that may be a network's own output, which the next call may overwrite,
            as a CUDA graph does; what is kept beyond that is copied.
        twist: whether everything that guides is the gradient of a known log-density at every time.
        data_std: the data's standard deviation, RMS over dimensions; None if it is not known.
        prediction: what its network predicts, as `ScoreModel.prediction`; None if it is not known.

    Example:
        >>> Traits(rowwise=True).event_shape is None
        True
    """

    sde: AffineSDE | None = None
    event_shape: tuple[int, ...] | None = None
    rowwise: bool = False
    noise_limit: bool = False
    variance: bool = False
    network_parts: tuple[str, ...] = PARTS
    shift: bool = False
    twist: bool = True
    data_std: float | None = None
    prediction: str | None = None

    @classmethod
    def merged(cls, parts: Sequence[Traits], sde: AffineSDE | None = None) -> Traits:
        """The traits of a score function made of others: those of the first, and of all parts what must hold for all.

        Args:
            parts: one or more.
            sde: the process, if none of them declares it.

        Raises:
            InvalidArgumentError: the parts were made for different processes or events.

        Example:
            >>> both = Traits.merged([Traits(rowwise=True, event_shape=(2,)), Traits()])
            >>> both.event_shape, both.rowwise
            ((2,), False)
        """
        check_kind("parts", parts, Sequence, "a sequence of Traits")
        for i, part in enumerate(parts):
            check_kind(f"parts[{i}]", part, Traits, "a Traits")
        if not parts:
            raise InvalidArgumentError("`parts` must hold at least one Traits.")
        process = _common_process([part.sde for part in parts if part.sde is not None], sde)
        shapes = {part.event_shape for part in parts if part.event_shape is not None}
        if len(shapes) > 1:
            raise InvalidArgumentError(f"The score functions are for events of different shapes: {sorted(shapes)}.")
        # not merged: `network_parts`, `shift` and `twist`, which a wrapper declares of what it returns itself
        return cls(
            sde=process,
            event_shape=shapes.pop() if shapes else None,
            rowwise=all(part.rowwise for part in parts),
            noise_limit=all(part.noise_limit for part in parts),
            variance=process is not None and parts[0].variance,
            data_std=parts[0].data_std,
            prediction=parts[0].prediction,
        )


class Split(NamedTuple):
    r"""The estimate without guidance; :math:`v`, shaped like ``x``, and :math:`\ln\psi = w\ln p(y|x_t)`, ``(batch,)``,
    of what guides, None where nothing does.

    Example:
        >>> Split(Estimate(torch.zeros(1, 2), torch.zeros(1, 2))).shift is None
        True
    """

    estimate: Estimate
    shift: Tensor | None = None
    log_twist: Tensor | None = None

    def detached(self) -> Split:
        """The same, detached from the graph of what guides."""
        return Split(self.estimate, *(None if v is None else v.detach() for v in self[1:]))


_MOST_TIMES = 1 << 20  # numbers of a table of times


class Direct(NamedTuple):
    """The evaluation of a score function at the nodes of a fixed grid, with all that does not depend on the state
    computed before.

    Fields: ``output(x, node, time)``, what the network returns, which the caller checks for writes to ``x``;
    ``read(x, out, node)``, the estimate that this is; by the time of the process, what the network gets as its time,
    ``(batch,)``, or a function that makes it, either of which the network may write to; what else it gets; what the
    score function is called in the text of an error; and whether ``output`` is checked already.
    """

    output: Callable[[Tensor, Node[float], Tensor], Tensor]
    read: Callable[[Any, Any, Node[float]], LinearEstimate]
    rows: dict[float, Tensor | Callable[[], Tensor]]
    extra: Mapping[str, object]
    what: str
    checked: bool


def time_rows(nodes: Sequence[Node[float]], values: Tensor, like: Tensor) -> dict[float, Any]:
    """The rows of a `Direct`, given the numbers at the nodes ``(n,)``: one table, unless it were too large.

    Example:
        >>> time_rows([scoresde.VPSDE().node(0.5)], torch.tensor([0.5]), torch.zeros(2, 1))
        {0.5: tensor([0.5000, 0.5000])}
    """
    times = [node.t for node in nodes]
    if len(times) * len(like) > _MOST_TIMES:
        kind = values.dtype
        return dict(
            zip(times, (partial(like.new_full, (len(like),), v, dtype=kind) for v in values.tolist()), strict=True)
        )
    table = values.to(like.device).repeat_interleave(len(like))
    rows = table.unsafe_split(len(like)) if len(like) else [table] * len(times)  # no views: each is written by itself
    return dict(zip(times, rows, strict=True))


def changed(score: Score, cls: type) -> bool:
    """Whether a score function is of a class derived from one, or has a method of its own, and so may differ from it.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: -x, scoresde.VPSDE(), "noise")
        >>> changed(model, scoresde.ScoreModel)
        False
    """
    return type(score) is not cls or not _METHODS.isdisjoint(vars(score))


_METHODS = frozenset({"estimate", "score", "twisted", "direct"})


class Score(abc.ABC):
    r"""A score function: an object with `estimate` at a node, callable as ``score(x, t)``.

    A subclass gives `estimate`, sets ``traits``, and says by `accepts` which context it takes.

    Attributes:
        traits: what it declares.

    Example:
        >>> class Standard(Score):  # of data N(0, I) on a variance-preserving process
        ...     traits = Traits(sde=scoresde.VPSDE(), event_shape=(2,), rowwise=True)
        ...
        ...     def estimate(self, x, node):
        ...         return Estimate(data=node.alpha * x, noise=node.sigma * x)
        >>> score_fn = Standard()
        >>> score_fn(torch.ones(1, 2), 0.5)
        tensor([[-1., -1.]])
        >>> scoresde.solve(score_fn.sde, score_fn, method="ddim", steps=5, seed=0).x.shape
        torch.Size([1, 2])
    """

    traits: Traits = Traits()
    takes_host_nodes: ClassVar[bool] = False  # whether a node of samples may be on the CPU where the state is not

    @abc.abstractmethod
    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        r""":math:`\hat x` and :math:`\hat\varepsilon` at a node of the process; what solvers call."""

    def score(self, x: Tensor, node: Node, **context: object) -> Tensor:
        r"""The score :math:`-\hat\varepsilon/\sigma` at a node, shaped like ``x``."""
        return self.estimate(x, node, **context).noise / expand(-node.sigma, x)

    def twisted(self, x: Tensor, node: Node, **context: object) -> Split:
        """The estimate without guidance, and what guides it; one evaluation."""
        return Split(self.estimate(x, node, **context))

    def direct(self, like: Tensor, nodes: Sequence[Node[float]], context: Mapping[str, object]) -> Direct | None:
        """The evaluation of states like ``like`` at the nodes of a fixed grid, prepared; None if it has none."""
        return None

    @property
    def kind(self) -> Hashable | None:
        """What `Direct.read` depends on besides the node; None if it has no name."""
        return None

    def accepts(self, name: str) -> bool:
        """Whether a context of this name can be given."""
        return False

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """What it takes besides x and t, and whether it must be given, as far as that is known."""
        return {}

    @property
    def only_scores(self) -> bool:
        """Whether it gives scores alone, from which the estimate is computed."""
        return False

    @property
    def network_device(self) -> torch.device | None:
        """Where its network is, and where states are drawn for it by default; None if it is not known."""
        return device_of(self)

    @property
    def network_dtype(self) -> torch.dtype | None:
        """The narrowest dtype that a network computes in; None if it is not known."""
        return dtype_of(self)

    @property
    def bound_names(self) -> frozenset[str]:
        """The names of the context that are bound already."""
        return frozenset()

    def made_for(self, sde: SDE) -> bool:
        """Whether it was made for the process, or for none that is known."""
        own = self.traits.sde
        return own is None or (isinstance(sde, AffineSDE) and sde.same_schedule(own))

    def for_process(self, sde: SDE) -> Score:
        """Itself, if it was made for the process; otherwise the same network on that process, or an error."""
        if not self.made_for(sde):
            raise InvalidArgumentError(
                f"`score_fn` was made for {self.traits.sde!r}, but `sde` is {sde!r}; make it again with .score(sde) or "
                f"ScoreModel(net, sde, …)."
            )
        return self

    def unbound(self, context: Mapping[str, object]) -> tuple[Score, dict[str, object]]:
        """The score function without its own labels, and the whole context to call that with."""
        check_kind("context", context, Mapping, "a mapping of names to values")
        return self, dict(context)

    def same_network(self, other: Score) -> bool:
        """Whether both evaluate one network in the same way, so that one call can serve both."""
        return self is other and self.rowwise  # if not row-wise, it may hold what belongs to the batch

    @property
    def sde(self) -> AffineSDE | None:
        """The process that it was made for."""
        return self.traits.sde

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one sample; there is no such attribute where it is not known.

        :meta private:
        """
        if self.traits.event_shape is None:
            raise AttributeError(f"this {type(self).__name__} does not declare the shape of its events")
        return self.traits.event_shape

    @property
    def rowwise(self) -> bool:
        """See `Traits`."""
        return self.traits.rowwise

    @property
    def has_noise_limit(self) -> bool:
        """See `Traits`."""
        return self.traits.noise_limit

    @property
    def has_variance(self) -> bool:
        """See `Traits`."""
        return self.traits.variance

    def check(self, x: Tensor) -> None:
        """Refuse what is not a state."""
        check_state("x", x)

    def _at(self, x: Tensor, t: Scalar) -> tuple[Tensor, Node]:
        """The state in the dtype of computation, and the nodes of its times."""
        self.check(x)
        state = x.to(compute_dtype(x.dtype))
        times = times_of(state, t)
        return state, nameless(times) if self.traits.sde is None else self.traits.sde.nodes(times)

    def _estimated(self, x: Tensor, t: Scalar, context: Mapping[str, object]) -> tuple[Estimate, Tensor, Node]:
        if self.traits.sde is None:
            raise InvalidArgumentError(
                f"This {type(self).__name__} does not declare its process, and gives scores only; wrap the network in "
                "ScoreModel(net, sde, prediction='score')."
            )
        state, node = self._at(x, t)
        return self.estimate(state, node, **context), state, node

    @final
    def __call__(self, x: Tensor, t: Scalar, **context: object) -> Tensor:
        r"""The score :math:`-\hat\varepsilon/\sigma`, shaped like ``x``; ``t`` is a float, 0-d or ``(batch,)``."""
        state, node = self._at(x, t)
        return self.score(state, node, **context).to(x.dtype)

    @final
    def noise(self, x: Tensor, t: Scalar, **context: object) -> Tensor:
        r"""The noise prediction :math:`\hat\varepsilon = -\sigma s`."""
        return self._estimated(x, t, context)[0].noise.to(x.dtype, copy=True)

    @final
    def data(self, x: Tensor, t: Scalar, **context: object) -> Tensor:
        r"""The data prediction :math:`\hat x = E[x_0|x_t]` (Tweedie's formula)."""
        return self._estimated(x, t, context)[0].data.to(x.dtype, copy=True)

    @final
    def v(self, x: Tensor, t: Scalar, **context: object) -> Tensor:
        r"""The v prediction :math:`\alpha\hat\varepsilon - \sigma\hat x`."""
        (data, noise), state, node = self._estimated(x, t, context)
        return (expand(node.alpha, state) * noise - expand(node.sigma, state) * data).to(x.dtype)

    @final
    def flow(self, x: Tensor, t: Scalar, **context: object) -> Tensor:
        r"""The velocity of the probability flow, :math:`\alpha'\hat x + \sigma'\hat\varepsilon`, with t growing
        towards noise."""
        (data, noise), state, node = self._estimated(x, t, context)
        return (expand(node.dalpha, state) * data + expand(node.dsigma, state) * noise).to(x.dtype)


def _module_of(net: object) -> torch.nn.Module | None:
    """A module, or that which a method or a partial belongs to."""
    while isinstance(net, partial):
        net = net.func
    module = getattr(net, "__self__", net)
    return module if isinstance(module, torch.nn.Module) else None


def dtype_of(net: object) -> torch.dtype | None:
    """The dtype of the parameters of a module, or of the one that a method or a partial belongs to; None if there are
    none.

    Example:
        >>> dtype_of(torch.nn.Linear(2, 2).half().forward), dtype_of(torch.nn.SiLU())
        (torch.float16, None)
    """
    module = _module_of(net)
    parameters = () if module is None else torch.nn.Module.parameters(module)
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


def device_of(net: object) -> torch.device | None:
    """Where the parameters and buffers of a module are, or of the one that a method or a partial belongs to; None if
    there are none, or if they are moved to a device for each call.

    Example:
        >>> net = torch.nn.Linear(2, 2)
        >>> device_of(net), device_of(net.forward), device_of(torch.nn.SiLU())
        (device(type='cpu'), device(type='cpu'), None)
    """
    module = _module_of(net)
    if module is None:
        return None
    tensors = chain(torch.nn.Module.parameters(module), torch.nn.Module.buffers(module))
    return next((tensor.device for tensor in tensors if tensor.device.type != "meta"), None)


def estimate_of(score: Tensor, x: Tensor, node: Node) -> Estimate:
    r"""The estimate that belongs to a score: :math:`\hat\varepsilon = -\sigma s`, :math:`\hat x =
    (x-\sigma\hat\varepsilon)/\alpha`.

    Example:
        >>> estimate_of(
        ...     torch.full((1, 1), -2.0), torch.ones(1, 1), scoresde.EDMSDE().node(0.5)
        ... ).noise
        tensor([[1.]])
    """
    return SCORE(x, score.clone() if has_graph(*node) else score, node, 1.0)


def with_data(given: Estimate, data: Tensor, x: Tensor, node: Node) -> Estimate:
    r"""An estimate with other data, such that :math:`x = \alpha\hat x + \sigma\hat\varepsilon` still holds.

    Example:
        >>> given = Estimate(data=torch.zeros(1, 1), noise=torch.ones(1, 1))
        >>> with_data(
        ...     given, torch.ones(1, 1), torch.ones(1, 1), scoresde.EDMSDE().node(1.0)
        ... ).noise
        tensor([[0.]])
    """
    return given._replace(
        data=data, noise=given.noise + (given.data - data) * (expand(node.alpha, x) / expand(node.sigma, x))
    )


def nameless(times: Scalar) -> Node:
    """A node of no process: with alpha = sigma = 1 the algebra of estimates is that of scores.

    Example:
        >>> nameless(0.5).alpha
        1.0
    """
    return Node(times, 1.0, 1.0, *[math.nan] * 5)


def _common_process(known: Sequence[AffineSDE], sde: AffineSDE | None) -> AffineSDE | None:
    """The process that is given, or known to one of the parts; the same for all."""
    if sde is not None:
        check_sde(sde, affine=True)
    process = sde
    for own in known:
        if process is not None and not process.same_schedule(own):
            if sde is None:
                raise InvalidArgumentError(f"The score functions were made for {process!r} and {own!r}.")
            raise InvalidArgumentError(f"`score_fn` was made for {own!r}, but `sde` is {sde!r}; leave `sde` out.")
        process = own if process is None else process
    return process
