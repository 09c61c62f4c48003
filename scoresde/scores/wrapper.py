"""Score functions made from score functions: what limits and guidance share. They import from here what their
signatures name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE, Estimate, Node
from ..core.sdes.records import copied
from ..core.support.checks import check_output
from ..core.support.context import check_unwritten, versions
from .bare import ScoreFn, as_score
from .base import Score, Traits, estimate_of, nameless


class Wrapper(Score):
    """A score function made from others; a subclass gives `estimate`, in which it evaluates them by `ask`.

    It declares what the first of them does, and of all of them what must hold for all. Where none declares its process,
    it gives scores only.

    Args:
        score_fns: one or more; the first is the one that is changed.
        sde: the process, if none of them declares it.

    Attributes:
        score_fns: the same as `Score` objects.
    """

    needs_process = True

    def __init__(self, score_fns: Sequence[ScoreFn], sde: AffineSDE | None = None) -> None:
        self.score_fns = tuple(as_score(score_fn) for score_fn in score_fns)
        self.traits = Traits.merged([score_fn.traits for score_fn in self.score_fns], sde)
        if self.needs_process and self.traits.sde is None:
            raise InvalidArgumentError(
                "`sde` is missing, and this score function does not declare its own; pass sde=…."
            )

    def score(self, x: Tensor, node: Node, **context: object) -> Tensor:
        """See `Score.score`."""
        return super().score(x, nameless(node.t) if self.only_scores else node, **context)

    def ask(
        self, score_fn: Score, x: Tensor, node: Node, context: Mapping[str, object], *, keep: bool = False
    ) -> Estimate:
        """The estimate of one of the score functions, from its score where it gives nothing else; to ``keep`` while
        others are evaluated, which may overwrite the same memory, it is copied."""
        before = versions(x, context)
        if score_fn.only_scores:
            score = check_output("The score function", score_fn.score(x, node, **context), x)
            check_unwritten("The score function", before, x, context)
            return estimate_of(score, x, node)
        estimate = score_fn.estimate(x, node, **context)
        check_unwritten("The score function", before, x, context)
        return copied(estimate, score_fn.traits.network_parts) if keep else estimate

    def accepts(self, name: str) -> bool:
        """Whether one of the score functions takes a context of this name."""
        return any(score_fn.accepts(name) for score_fn in self.score_fns)

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """See `Score.context_arguments`."""
        ours = type(self).__module__.startswith(f"{__package__.partition('.')[0]}.")  # another may pass some itself
        found: dict[str, bool] = {}
        for score_fn in self.score_fns:
            for name, needed in score_fn.context_arguments.items():
                found[name] = (needed and ours) or found.get(name, False)
        return found

    @property
    def only_scores(self) -> bool:
        """See `Score.only_scores`."""
        return self.traits.sde is None

    @property
    def network_device(self) -> torch.device | None:
        """See `Score.network_device`."""
        return next((s.network_device for s in self.score_fns if s.network_device is not None), None)

    @property
    def network_dtype(self) -> torch.dtype | None:
        """See `Score.network_dtype`."""
        known = [s.network_dtype for s in self.score_fns]
        return max((d for d in known if d is not None), key=lambda d: torch.finfo(d).eps, default=None)

    @property
    def bound_names(self) -> frozenset[str]:
        """The names of the context that are bound in the score functions."""
        return frozenset().union(*(score_fn.bound_names for score_fn in self.score_fns))
