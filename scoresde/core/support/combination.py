r"""Linear combinations :math:`\sum_j w_j v_j` of tensors that are shaped like a state. They are written late, in as few
passes over the memory as it takes."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from .tensors import Scalar, expand, times, transforming


class Recorded(abc.ABC):
    """Stands for a tensor while the steps of a solve are recorded, before there are numbers."""

    @abc.abstractmethod
    def apply(self, function: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        """Stands for the value of a `formula`."""

    @abc.abstractmethod
    def sum(self, combination: Combination) -> Any:
        """Stands for the value of a `Combination` of which it is the first term."""


Function = TypeVar("Function", bound=Callable[..., Any])


def formula(function: Function) -> Function:
    """A function of tensors and numbers that may be recorded as a whole, as one instruction.

    Example:
        >>> formula(lambda a, b: a + b)(torch.ones(1), 2.0)
        tensor([3.])
    """

    @functools.wraps(function)
    def call(*values: Any) -> Any:
        for value in values:
            if isinstance(value, Recorded):
                return value.apply(function, values)
        return function(*values)

    return cast(Function, call)


class Combination:
    r""":math:`\sum_j w_j v_j` with numbers for weights, not computed yet. Terms with weight 0 cost nothing.

    Like the output of the network that it may be made of, it holds until the next evaluation.

    Args:
        weights, values: the terms.

    Example:
        >>> ones = torch.ones(1, 2)
        >>> Combination([2.0, 1.0], [ones, 3 * ones]).tensor()
        tensor([[5., 5.]])
    """

    __slots__ = ("values", "weights")

    def __init__(self, weights: list[float], values: list[Tensor]) -> None:
        self.weights, self.values = weights, values

    @property
    def shape(self) -> torch.Size:
        """The shape of the sum."""
        return self.values[0].shape

    def since(self, other: Combination, value: Tensor) -> Combination:
        """The same sum, made from the value of another one, by the difference of both."""
        weights, values = [1.0], [value]
        add(weights, values, 1.0, self)
        add(weights, values, -1.0, other)
        left = [(w, v) for w, v in zip(weights, values, strict=True) if w]  # the state cancels
        return Combination([w for w, _ in left], [v for _, v in left])

    def tensor(self) -> Tensor:
        """A new tensor."""
        first = self.values[0]
        if isinstance(first, Recorded):
            return first.sum(self)
        weights, values = self.terms()
        if not weights:
            return torch.zeros_like(first)
        if torch.is_grad_enabled() or transforming():
            return _apart(weights, values)
        return written(weights, values)

    def terms(self) -> tuple[list[float], list[Tensor]]:
        """Weights and values, without those of weight 0."""
        if all(self.weights):
            return self.weights, self.values
        kept = [i for i, w in enumerate(self.weights) if w]
        return [self.weights[i] for i in kept], [self.values[i] for i in kept]


def _apart(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """A sum without operations in place, which gradients and functional transforms refuse."""
    if weights == [1.0]:
        return values[0].clone()
    out = values[0] if weights[0] == 1.0 else values[0] * weights[0]
    for w, v in zip(weights[1:], values[1:], strict=True):
        out = out.add(v, alpha=w)
    return out


def written(weights: Sequence[float], values: Sequence[Tensor], first: Scalar | None = None) -> Tensor:
    """A sum without terms of weight 0, in new memory. The first weight, if it is not 1, may be given as a 0-d tensor
    too, which takes less time to multiply with."""
    done = 1
    if weights[0] != 1.0:
        out = values[0] * (weights[0] if first is None else first)
    elif len(weights) > 1:
        out, done = torch.add(values[0], values[1], alpha=weights[1]), 2
    else:
        out = values[0].clone()
    for i in range(done, len(weights)):
        out.add_(values[i], alpha=weights[i])
    return out


def written_over(weights: Sequence[float], values: Sequence[Tensor], first: Scalar | None = None) -> Tensor:
    """Such a sum, in the memory of its first term."""
    out = values[0]
    if weights[0] != 1.0:
        out.mul_(weights[0] if first is None else first)
    for i in range(1, len(weights)):
        out.add_(values[i], alpha=weights[i])
    return out


Term: TypeAlias = Tensor | Combination


def add(weights: list[float], values: list[Tensor], factor: float, term: Combination) -> None:
    """Add a multiple of a combination to terms."""
    for w, v in zip(term.weights, term.values, strict=True):
        for i, known in enumerate(values):
            if known is v:
                weights[i] += factor * w
                break
        else:
            weights.append(factor * w)
            values.append(v)


def tensor_of(term: Term) -> Tensor:
    """A term as a tensor; a tensor is itself.

    Example:
        >>> tensor_of(Combination([2.0], [torch.ones(1)]))
        tensor([2.])
    """
    return term if isinstance(term, Tensor) else term.tensor()


def combination(keep: Scalar, x: Tensor, gain: Scalar, weights: Sequence[Scalar], values: Sequence[Term]) -> Term:
    r"""A step in most methods: :math:`keep\,x + gain\sum_j w_j v_j`.

    Where all weights are numbers it is a `Combination`, else a tensor.

    Example:
        >>> ones = torch.ones(1, 2)
        >>> combination(1.0, ones, 2.0, (0.5, 0.0), (ones, ones)).weights
        [1.0, 1.0]
    """
    if isinstance(keep, Tensor) or isinstance(gain, Tensor) or any(isinstance(w, Tensor) for w in weights):
        return _by_tensors(keep, x, gain, weights, values)
    sums, terms = [keep], [x]
    for w, v in zip(weights, values, strict=True):
        if not w:
            continue
        if isinstance(v, Combination):
            add(sums, terms, gain * w, v)  # type: ignore[arg-type]
        else:
            sums.append(gain * w)  # type: ignore[arg-type]
            terms.append(v)
    return Combination(sums, terms)


def combine(keep: Scalar, x: Tensor, gain: Scalar, weights: Sequence[Scalar], values: Sequence[Term]) -> Tensor:
    r"""The same, computed.

    Example:
        >>> combine(
        ...     1.0, torch.ones(1, 2), 2.0, (0.5, 0.0), (torch.ones(1, 2), torch.zeros(1, 2))
        ... )
        tensor([[2., 2.]])
    """
    return tensor_of(combination(keep, x, gain, weights, values))


def _by_tensors(keep: Scalar, x: Tensor, gain: Scalar, weights: Sequence[Scalar], values: Sequence[Term]) -> Tensor:
    """The same with weights of which one or more are tensors, one per sample or with a gradient."""
    pairs = [(w, tensor_of(v)) for w, v in zip(weights, values, strict=True) if isinstance(w, Tensor) or w]
    out = x if not isinstance(keep, Tensor) and keep == 1.0 else x * expand(keep, x)
    if isinstance(gain, Tensor):
        return torch.addcmul(out, expand(gain, x), _total(pairs)) if pairs else out
    for w, v in pairs:
        if isinstance(w, Tensor):
            out = torch.addcmul(out, expand(times(gain, w), v), v)
        else:
            out = out.add(v, alpha=gain * w) if out is x else out.add_(v, alpha=gain * w)
    return out


def weighted(pairs: Sequence[tuple[Scalar, Term]]) -> Tensor:
    r""":math:`\sum_j w_j v_j`, a new tensor even where it is one of the values.

    Example:
        >>> value = torch.ones(1, 2)
        >>> weighted([(1.0, value), (0.0, value)]) is value
        False
    """
    total = sum_of(pairs)
    return total.clone() if isinstance(total, Tensor) and total is pairs[0][1] else tensor_of(total)


def sum_of(pairs: Sequence[tuple[Scalar, Term]]) -> Term:
    r""":math:`\sum_j w_j v_j`, not computed where all weights are numbers."""
    if any(isinstance(w, Tensor) for w, _ in pairs):
        return _total([(w, tensor_of(v)) for w, v in pairs if isinstance(w, Tensor) or w])
    sums: list[float] = []
    terms: list[Tensor] = []
    for w, v in pairs:
        if not w:
            continue
        if isinstance(v, Combination):
            add(sums, terms, w, v)  # type: ignore[arg-type]
        else:
            sums.append(w)  # type: ignore[arg-type]
            terms.append(v)
    if not terms:
        return Combination([0.0], [tensor_of(pairs[0][1])])
    return Combination(sums, terms)


def with_noise(moved: Term, x: Tensor, draws: Sequence[tuple[Scalar, Term]]) -> Term:
    r"""What a step has made of x, plus :math:`\sum_j w_j z_j`. Three terms or more are summed from the last to the
    first, which is that of x, the largest where little noise is left. So the others are summed without its rounding,
    and in the memory of the oldest estimate.

    Example:
        >>> x, now, before, z = (torch.ones(1) for _ in range(4))
        >>> with_noise(Combination([1.5, 2.0, 3.0], [x, now, before]), x, [(4.0, z)]).weights
        [3.0, 2.0, 1.5, 4.0]
    """
    if not isinstance(moved, Combination) or len(moved.values) < 3:
        return sum_of([(1.0, moved), *draws])
    return sum_of([*zip(moved.weights[::-1], moved.values[::-1], strict=True), *draws])


def _total(pairs: Sequence[tuple[Scalar, Tensor]]) -> Tensor:
    r""":math:`\sum_j w_j v_j`; the first value itself where nothing is added to it."""
    if len(pairs) == 1 and isinstance(pairs[0][0], float) and pairs[0][0] == 1.0:
        return pairs[0][1]
    weights, values = zip(*pairs, strict=True)
    return combine(weights[0], values[0], 1.0, weights[1:], values[1:])
