"""A score function as the loop sees it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...scores import ScoreFn, Split, Traits, as_score
from ...scores.base import Direct, estimate_of
from ..errors import ScoreFnError
from ..sdes import Estimate, Node
from ..sdes.records import LearnedEstimate, LinearEstimate, copied
from ..support.checks import fits, output_problem, warn_caller
from ..support.combination import Combination, Term
from ..support.context import check_unwritten, cut, tensors, versions
from ..support.tensors import Scalar, expand, row_finite, where


class Network:
    """A score function as the loop sees it: every evaluation is checked and counted.

    Args:
        score_fn: ``score_fn(x, t, **context)``.
        context: what the score function gets besides x and t, with one entry per sample in every tensor.
        copies: return copies of tensors that the network may overwrite at its next call (a CUDA graph writes every
            output to the same memory); False is for callers that use each evaluation before the next one.

    Attributes:
        score_fn: the score function.
        context: the context of every call.
        calls: evaluations so far.
        warned: whether the warning about a cast to the state's dtype has been given.
        narrow: the dtype of outputs that have fewer bits than the state, if there were any.
        last, node: the tensors that the last evaluation returned, and where it is made.
        remembers: whether somebody may read what the last evaluation says of the data, and ``given``, its state.
    """

    def __init__(self, score_fn: ScoreFn, context: Mapping[str, Any] | None = None, *, copies: bool = True) -> None:
        self.score_fn = as_score(score_fn)
        self.context = dict(context or {})
        self.copies = copies
        self.calls = 0
        self.warned = False
        self.narrow: torch.dtype | None = None
        self.last: tuple[Tensor, ...] = ()
        self.node: Node[Any] = None  # type: ignore[assignment]
        self.remembers = False
        self.given: Tensor = None  # type: ignore[assignment]
        self._data: Callable[[], Tensor] | None = None
        self._nodes: Sequence[Node[Any]] = ()  # where evaluations are prepared
        self._like: tuple[torch.Size, torch.dtype] | None = None  # of states
        self._direct: Direct | None = None
        self._given: list[Tensor] = []  # what it gets besides the state and its time

    def plan(self, like: Tensor, nodes: Sequence[Node[Any]]) -> None:
        """Prepare evaluations of states at the nodes of a fixed grid."""
        self._nodes, self._like = nodes, (like.shape, like.dtype)
        self._direct = self.score_fn.direct(like, nodes, self.context)
        if self._direct is not None:
            self._given = [v for v in tensors(self._direct.extra.values()) if not v.is_inference()]

    @property
    def prepared(self) -> Direct | None:
        """The evaluations that `plan` has prepared."""
        return self._direct

    @property
    def traits(self) -> Traits:
        """What the score function declares."""
        return self.score_fn.traits

    def linear(self, x: Tensor, node: Node[Any]) -> LinearEstimate | Estimate:
        """The estimate, of which nothing is computed before it is requested, where the network gives it so. It holds
        until the next evaluation."""
        return self._planned(x, node) or self.estimate(x, node)

    def linear_score(self, x: Tensor, node: Node[Any]) -> Term:
        """The score, likewise."""
        planned = self._planned(x, node)
        return Combination([1.0], [self.score(x, node)]) if planned is None else planned.score()

    def _planned(self, x: Tensor, node: Node[Any]) -> LinearEstimate | None:
        """A prepared evaluation; None where there is none."""
        if self._direct is None and len(self._nodes):  # some samples have left
            self.plan(x, self._nodes)
        direct = self._direct
        if direct is None or node.t not in direct.rows or (x.shape, x.dtype) != self._like:
            return None
        out = self.output(x, node)
        estimate = direct.read(x, out, node)
        estimate.keep = self.copies
        return estimate

    def output(self, x: Tensor, node: Node[float]) -> Tensor:
        """What the network returns at a node for which it is prepared. It holds until the next evaluation."""
        direct: Any = self._direct
        time = direct.rows[node.t]
        if not isinstance(time, Tensor):
            time = time()
        self.last, self.node, graph, inference = (), node, torch.is_grad_enabled(), x.is_inference()
        given = self._lent(x, node) if inference or graph else x.detach()
        if self.remembers:
            self.given = given
        if inference:
            time = time.clone()  # a write to it would not be noticed
        version, stamp = (0, 0) if inference else (x._version, time._version)
        before = [v._version for v in self._given] if self._given else ()
        out = direct.output(given, node, time)
        wrote = not inference and (x._version != version or time._version != stamp)
        if wrote or torch.is_grad_enabled() != graph or (before and [v._version for v in self._given] != before):
            where_ = f" (call {self.calls + 1})" if self.score_fn.only_scores else ""
            had = [int(graph), *([] if inference else [version]), *before]
            check_unwritten(direct.what, had, x, direct.extra, where_)
            # it wrote to its time, which it may
            direct.rows.update(self.score_fn.direct(x, [node], self.context).rows)  # type: ignore[union-attr]
        if not (direct.checked or fits(out, x)):
            out = self._checked(out, x, node)
        self.calls += 1
        self.last = (out,)
        if self.remembers:
            kept = x.detach()
            self._data = lambda: direct.read(kept, out, node).part("data")
        if graph:
            out = out.clone() if self.copies else out  # a graph keeps it
            self._remember(x, given, (out,))
        return out

    def score(self, x: Tensor, node: Node) -> Tensor:
        """The score, shaped like ``x``."""
        if not self.score_fn.only_scores:
            return self.estimate(x, node).noise / expand(-node.sigma, x)
        given, before = self._lent(x, node), versions(x, self.context)
        out = self._checked(self.score_fn.score(given, self._beside(x, node), **self.context), x, node)
        self._count(x, before)
        if self.remembers:
            kept = x.detach()
            self._data = lambda: estimate_of(out, kept, node).data
        out = out.clone() if self.copies else out
        self._remember(x, given, (out,))
        return out

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        r""":math:`\hat x` and :math:`\hat\varepsilon`, from the network itself where it offers them, else from its
        score."""
        if self.score_fn.only_scores:
            return estimate_of(self.score(x, node), x, node)
        given, before = self._lent(x, node), versions(x, self.context)
        out = self._checked_estimate(self.score_fn.estimate(given, self._beside(x, node), **self.context), x, node)
        return self._finished(out, x, given, before)

    def twisted(self, x: Tensor, node: Node) -> Split:
        """The estimate without guidance, and what guides it; one evaluation."""
        given, before = self._lent(x, node), versions(x, self.context)
        split = self.score_fn.twisted(given, self._beside(x, node), **self.context)
        out = self._checked_estimate(split.estimate, x, node)
        return split._replace(estimate=self._finished(out, x, given, before))

    def denoised(self) -> Tensor | None:
        """What the last evaluation says of the data; None if there was none."""
        return None if self._data is None else self._data()

    def take(self, rows: Tensor) -> Network:
        """The same network for some samples; the count continues."""
        part = copy.copy(self)
        part.context = cut(self.context, rows)
        part._direct, part._given = None, []
        return part

    def _finished(self, out: Estimate, x: Tensor, given: Tensor, before: list[int]) -> Estimate:
        """Count an evaluation, and copy what is to be kept."""
        self._count(x, before)
        if self.remembers:
            data = out.data
            self._data = lambda: data.clone()
        out = copied(out, self.traits.network_parts) if self.copies else out
        self._remember(x, given, _parts(out))
        return out

    def _lent(self, x: Tensor, node: Node[Any]) -> Tensor:
        """The state as the score function gets it; what it gave before is let go."""
        self.last, self.node = (), node
        if x.is_inference():
            given = x.clone()
        elif torch.is_grad_enabled() and x.requires_grad:
            given = x.view_as(x)  # a place for a hook
        else:
            given = x.detach()  # the callee may set the flag of gradients of its own
        if self.remembers:
            self.given = given
        return given

    def _beside(self, x: Tensor, node: Node[Any]) -> Node[Any]:
        """A node of samples as the score function gets it: on the state's device, unless it takes one of the CPU."""
        if self.score_fn.takes_host_nodes or not isinstance(node.t, Tensor) or node.t.device == x.device:
            return node
        return Node(*torch.stack(node).to(x.device).unbind())

    def _count(self, x: Tensor, before: list[int]) -> None:
        """Count an evaluation, and refuse one that wrote to what it was given."""
        self.calls += 1
        check_unwritten("The score function", before, x, self.context, f" (call {self.calls})")

    def _remember(self, x: Tensor, given: Tensor, out: tuple[Tensor, ...]) -> None:
        """Keep what an evaluation gave."""
        self.last = out
        if torch.is_grad_enabled() and x.requires_grad:
            _cut(given, out)

    def _checked(self, out: Tensor, x: Tensor, node: Node) -> Tensor:
        problem = output_problem(out, x)
        if problem is not None:
            raise ScoreFnError(f"The score function {problem} (call {self.calls + 1}, t={_first(node.t):.6g}).")
        if out.dtype == x.dtype:
            return out
        own, wanted = torch.finfo(out.dtype).bits, torch.finfo(x.dtype).bits
        if own < wanted:
            self.narrow = out.dtype
        if own > wanted and not (self.calls or self.warned):
            self.warned = True
            warn_caller(
                f"The score function returns {out.dtype}, but the state is {x.dtype}; scores are cast to the state's "
                f"dtype. Pass dtype={out.dtype} to solve in that precision."
            )
        return out.to(x.dtype)

    def _checked_estimate(self, out: object, x: Tensor, node: Node) -> Estimate:
        if not isinstance(out, tuple) or len(out) != 2:
            raise ScoreFnError(f"`estimate` of the score function must return an Estimate, got {type(out).__name__}.")
        parts = [self._checked(part, x, node) for part in _parts(out)]
        return LearnedEstimate(*parts) if isinstance(out, LearnedEstimate) else Estimate(*parts)


def _cut(x: Tensor, outputs: tuple[Tensor, ...]) -> None:
    """Samples whose output is not finite are not stepped, and send no gradient (0 times infinity) to their input."""
    good = torch.stack([row_finite(out.detach()) for out in outputs]).all(0)
    if not bool(good.all()):
        x.register_hook(lambda slope: where(good, slope, torch.zeros_like(slope)))


def _parts(estimate: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The tensors of an estimate, a learned variance included."""
    return (*estimate, estimate.variance) if isinstance(estimate, LearnedEstimate) else tuple(estimate)


def _first(value: Scalar) -> float:
    if not isinstance(value, Tensor):
        return value
    return float(value.flatten()[0]) if value.numel() else math.nan
