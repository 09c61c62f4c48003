r"""What solvers step: a process in one direction, with a score network behind it.

`ReverseProcess` is the reverse family of an affine process, :math:`\eta = 0` being the probability flow;
`GeneralReverse` the same when only drift and diffusion are known; `ForwardProcess` the forward SDE. All offer
``drift(x, node)`` and ``diffusion(x, node)``; the first also ``estimate(x, node)`` and ``score(x, node)``.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ._signatures import parameters
from ._tensors import Scalar, expand, output_problem, warn_caller
from .errors import InvalidArgumentError, ScoreFnError
from .sdes import SDE, Estimate, Node
from .sdes.base import spread_over


class Network:
    """A score function as the loop sees it: checked, counted, and given its context.

    Attributes:
        calls: evaluations so far.
        last: the tensors that the last evaluation returned.
    """

    def __init__(self, score_fn: Callable[..., Any], context: Mapping[str, Any] | None = None) -> None:
        self.score_fn = score_fn
        self.context = dict(context or {})
        self.calls = 0
        self.last: tuple[Tensor, ...] = ()
        self._gives_estimates = _offers_estimates(score_fn)

    def score(self, x: Tensor, node: Node) -> Tensor:
        """The score, shaped like ``x``."""
        if self._gives_estimates:
            return self.estimate(x, node).noise / expand(-node.sigma, x)
        return self._evaluate(x, node)

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        r""":math:`\hat x` and :math:`\hat\varepsilon`, from the network itself where it offers them, else from its
        score."""
        if self._gives_estimates:
            return self._evaluate(x, node)
        sigma = expand(node.sigma, x)
        noise = self._evaluate(x, node) * -sigma
        return Estimate(data=(x - sigma * noise) / expand(node.alpha, x), noise=noise)

    def take(self, rows: Tensor) -> Network:
        """The same network for some samples; the count goes on."""
        part = Network(self.score_fn, {k: v[rows] for k, v in self.context.items()})
        part.calls, part.last = self.calls, self.last
        return part

    def _evaluate(self, x: Tensor, node: Node) -> Any:
        given = x.clone() if x.is_inference() else x  # inference tensors do not tell when they are written to
        version = None if x.is_inference() else x._version
        out: Any
        if self._gives_estimates:
            out = self._checked_estimate(self.score_fn.estimate(given, node, **self.context), x, node)  # type: ignore[attr-defined]
        else:
            t = node.t.to(x.dtype, copy=True) if isinstance(node.t, Tensor) else x.new_full((len(x),), node.t)
            out = self._checked(self.score_fn(given, t, **self.context), x, node)
        self.calls += 1
        if version is not None and x._version != version:
            raise ScoreFnError(
                f"The score function modified its input in place (call {self.calls}); work on x.clone() inside it."
            )
        self.last = tuple(out) if self._gives_estimates else (out,)
        return out

    def _checked(self, out: Any, x: Tensor, node: Node) -> Tensor:
        problem = output_problem(out, x)
        if problem is not None:
            raise ScoreFnError(f"The score function {problem} (call {self.calls + 1}, t={_first(node.t):.6g}).")
        if out.dtype == x.dtype:
            return out
        if torch.finfo(out.dtype).bits > torch.finfo(x.dtype).bits and not self.calls:
            warn_caller(
                f"The score function returns {out.dtype}, the state is {x.dtype}; scores are cast to the state's dtype."
                f" Pass dtype={out.dtype} to solve in that precision."
            )
        return out.to(x.dtype)

    def _checked_estimate(self, out: Any, x: Tensor, node: Node) -> Estimate:
        if not isinstance(out, tuple) or len(out) != 2:
            raise ScoreFnError(f"`estimate` of the score function must return an Estimate, got {type(out).__name__}.")
        return Estimate(*(self._checked(part, x, node) for part in out))


def _offers_estimates(score_fn: Any) -> bool:
    """Whether a score function has the method ``estimate(x, node, **context)``; another one of that name is its own."""
    method = getattr(score_fn, "estimate", None)
    return callable(method) and "node" in (parameters(method) or {})


def _first(value: Scalar) -> float:
    return (
        float(value.flatten()[0])
        if isinstance(value, Tensor) and value.numel()
        else float(value)
        if not isinstance(value, Tensor)
        else math.nan
    )


@dataclass(frozen=True)
class Process(abc.ABC):
    """A process that solvers step: drift, diffusion, and the nodes of time."""

    sde: SDE
    network: Network
    _inner: dict[tuple[float, float, float], Node] = field(default_factory=dict, repr=False)

    @abc.abstractmethod
    def drift(self, x: Tensor, node: Node) -> Tensor:
        """dx/dt without its noise, shaped like ``x``; multiply by a signed dt."""

    @abc.abstractmethod
    def diffusion(self, x: Tensor, node: Node) -> Any:
        """The noise's amplitude, broadcast against ``x``; multiply by the square root of |dt|."""

    def take(self, rows: Tensor) -> Process:
        """The same process for some samples of the batch."""
        return replace(self, network=self.network.take(rows))

    def between(self, start: Node, stop: Node, fractions: Sequence[float]) -> list[Node]:
        """Nodes inside a step, at the given fractions of its time."""
        if not fractions:
            return []
        if isinstance(start.t, Tensor):
            times = torch.stack([start.t + c * (stop.t - start.t) for c in fractions])
            rows = self.sde.nodes(times.flatten())
            return [Node(*parts) for parts in zip(*(v.reshape(times.shape) for v in rows), strict=True)]
        if (start.t, stop.t, fractions[0]) not in self._inner:
            self.prepare([start, stop], fractions)
        return [self._inner[start.t, stop.t, c] for c in fractions]

    def prepare(self, nodes: Sequence[Node], fractions: Sequence[float]) -> None:
        """Compute the inner nodes of a whole grid at once, so that a step only looks them up."""
        keys = [(a.t, b.t, c) for a, b in itertools.pairwise(nodes) for c in fractions]
        times = torch.tensor([a + c * (b - a) for a, b, c in keys], dtype=torch.float64)
        self._inner.update(zip(keys, node_list(self.sde, times), strict=True))


@dataclass(frozen=True)
class ReverseProcess(Process):
    r"""The reverse family of an affine process, in the form that stays finite at both ends:

    .. math::
        dx = \Big[\alpha'\hat x + \Big(\sigma' + \frac{\eta^2 g^2}{2\sigma}\Big)\hat\varepsilon\Big] dt +
            \eta g\,d\bar w,

    which is :math:`[fx - \tfrac12(1+\eta^2)g^2 s]\,dt + \eta g\,d\bar w`.
    """

    eta: float = 0.0

    def drift(self, x: Tensor, node: Node) -> Tensor:
        data, noise = self.network.estimate(x, node)
        rate = node.dsigma + 0.5 * self.eta**2 * node.g2 / node.sigma if self.eta else node.dsigma
        return expand(node.dalpha, x) * data + expand(rate, x) * noise

    def diffusion(self, x: Tensor, node: Node) -> Scalar:
        return expand(self.eta * node.g2**0.5, x)

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        r""":math:`\hat x` and :math:`\hat\varepsilon`."""
        return self.network.estimate(x, node)

    def score(self, x: Tensor, node: Node) -> Tensor:
        r""":math:`\nabla\log p_t(x)`."""
        return self.network.score(x, node)


@dataclass(frozen=True)
class GeneralReverse(Process):
    r"""The reverse family of a process of which only drift and diffusion are known:
    :math:`[f(x,t)-\tfrac12(1+\eta^2)g^2s]\,dt + \eta g\,d\bar w`."""

    eta: float = 0.0

    def drift(self, x: Tensor, node: Node) -> Tensor:
        g = _g(self.sde, x, node)
        return _drift(self.sde, x, node) - 0.5 * (1 + self.eta**2) * g * g * self.network.score(x, node)

    def diffusion(self, x: Tensor, node: Node) -> Any:
        return self.eta * _g(self.sde, x, node)

    def score(self, x: Tensor, node: Node) -> Tensor:
        r""":math:`\nabla\log p_t(x)`."""
        return self.network.score(x, node)


@dataclass(frozen=True)
class ForwardProcess(Process):
    """The forward SDE; it has no network."""

    def drift(self, x: Tensor, node: Node) -> Tensor:
        return _drift(self.sde, x, node)

    def diffusion(self, x: Tensor, node: Node) -> Any:
        return _g(self.sde, x, node)


def _drift(sde: SDE, x: Tensor, node: Node) -> Tensor:
    """The forward drift, checked."""
    t = node.t.to(x.dtype) if isinstance(node.t, Tensor) else x.new_full((len(x),), node.t)
    out = sde.drift(x, t)
    problem = output_problem(out, x)
    if problem is not None:
        raise InvalidArgumentError(f"{type(sde).__name__}.drift {problem}.")
    return out.to(x.dtype)


def _g(sde: SDE, x: Tensor, node: Node) -> Any:
    """The diffusion, broadcast against the state."""
    t = node.t if isinstance(node.t, Tensor) else torch.tensor(node.t, dtype=torch.float64)
    return spread_over(x, sde.diffusion(t))


def node_list(sde: SDE, times: Tensor) -> list[Node]:
    """The nodes of a grid, computed at once: Python floats, or 0-d tensors where a learned schedule has a gradient."""
    nodes = sde.nodes(times)
    clock = times.tolist()
    if torch.is_grad_enabled() and any(v.requires_grad for v in nodes):
        return [Node(t, *(v[i] for v in nodes[1:])) for i, t in enumerate(clock)]
    return [Node(*row) for row in zip(clock, *(v.tolist() for v in nodes[1:]), strict=True)]
