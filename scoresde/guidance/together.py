"""Several estimates of one network in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.sdes import Estimate, Node
from ..core.sdes.records import PARTS
from ..core.support.context import is_rows, per_row, repeated, stackable, stacked
from ..scores import Score, ScoreModel

Ask = Callable[..., Estimate]  # of `Wrapper.ask`


class _Question(NamedTuple):
    """A score function without its labels, and all labels that it is called with."""

    root: Score
    context: dict[str, object]

    def joins(self, other: _Question, x: Tensor) -> bool:
        """Whether one call can answer both."""
        return (
            self.root.same_network(other.root)
            and self.context.keys() == other.context.keys()
            and not self.shares_unclear(other, len(x))
            and stackable(self.rows(x), other.rows(x), len(x))
        )

    def shares_unclear(self, other: _Question, batch: int) -> bool:
        """Whether both have a bound tensor of which it is not known whether it is to be repeated."""
        ours, theirs = unclear(self.root, self.context, batch), unclear(other.root, other.context, batch)
        return any(value is theirs.get(name) for name, value in ours.items())

    def rows(self, x: Tensor) -> dict[str, Any]:
        """Its labels, one entry per sample."""
        return per_row(self.context, x, tables=True)


def ask_together(
    ask: Ask, score_fns: Sequence[Score], x: Tensor, node: Node, contexts: Sequence[Mapping[str, object]]
) -> list[Estimate]:
    """The estimates of score functions; those of one network that differ in their labels are one call, of as many
    batches."""
    questions = [_Question(*f.unbound(c)) for f, c in zip(score_fns, contexts, strict=True)]
    groups: list[list[int]] = []
    for i, question in enumerate(questions):
        group = next((g for g in groups if questions[g[0]].joins(question, x)), None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    answers: dict[int, Estimate] = {}
    for group in groups:
        if len(group) == 1:
            answers[group[0]] = ask(score_fns[group[0]], x, node, contexts[group[0]], keep=group is not groups[-1])
            continue
        count, asked = len(group), [questions[i] for i in group]
        context = stacked([question.rows(x) for question in asked], len(x))
        nodes = Node(*(repeated(v, count) for v in node))
        whole = ask(asked[0].root, torch.cat([x] * count), nodes, context, keep=group is not groups[-1])
        answers.update(zip(group, _cut(whole, count), strict=True))
    return [answers[i] for i in range(len(questions))]


def unclear(root: Score, context: Mapping[str, object], batch: int) -> dict[str, Tensor]:
    """The bound tensors in a context that are as long as the batch: labels of its samples, or a table that they share.

    Example:
        >>> tables = {"table": torch.zeros(3, 2), "more": torch.zeros(4)}
        >>> model = scoresde.ScoreModel(
        ...     lambda x, t, **c: x, scoresde.VPSDE(), "noise", context=tables
        ... )
        >>> (
        ...     list(unclear(model, model.context, 4)),
        ...     list(unclear(model, {"more": torch.zeros(4)}, 4)),
        ... )
        (['more'], [])
    """
    bound = root.context if isinstance(root, ScoreModel) and batch > 1 else {}
    own = {name: value for name, value in context.items() if value is bound.get(name)}
    return {name: value for name, value in own.items() if isinstance(value, Tensor) and is_rows(value, batch)}


def _cut(whole: Estimate, count: int) -> list[Estimate]:
    pieces = {name: getattr(whole, name).chunk(count) for name in PARTS if hasattr(whole, name)}
    return [whole._replace(**{name: piece[i] for name, piece in pieces.items()}) for i in range(count)]
