"""What solvers rely on in a score function, as a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._arguments import context_of
from .._checks import check_state, output_problem
from .._tensors import compute_dtype
from ..errors import ScoreFnError
from ..scores import as_score
from ..sdes import SDE, AffineSDE, Node
from ..sdes.base import check_sde

_LEVELS = 3
_SAME = 1e-3  # of an answer's RMS: what the same question may change by rounding


def check_score_fn(
    sde: SDE, score_fn: Callable[..., Any], x: Tensor, *, context: Mapping[str, Tensor] | None = None
) -> None:
    """Check what solvers rely on in a score function, at three times of a process.

    - It returns a floating-point tensor shaped like ``x``, on its device.
    - It writes to none of its inputs. Copies are compared, so that writes to ``x.data`` or to a NumPy array on the same
      memory are seen. A solve does not see those, since it looks at autograd's count of writes.
    - The same question has the same answer, up to rounding.

    A score function with ``estimate(x, node)`` is asked by both. It may return the same memory at every call: that is
    allowed.

    Args:
        sde: the process.
        score_fn: as for `scoresde.solve`.
        x: states of a few samples, ``(batch, *event)``; they are not changed.
        context: ``{name: (batch, …) tensor}``, likewise.

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
        scoresde.errors.ScoreFnError: The score function changed `x` in place (t=0.25075); work on x.clone() inside it.
    """
    check_sde(sde)
    score = as_score(score_fn)
    check_state("x", x)
    given = context_of(context, score, len(x), x.device)
    state = x.detach().to(compute_dtype(x.dtype))
    for t in torch.linspace(sde.t_min, sde.t_max, _LEVELS + 2, dtype=torch.float64)[1:-1].tolist():
        times = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
        _check(score_fn, state, {"t": times.to(state.dtype)}, given, t)
        if not score.only_scores and isinstance(sde, AffineSDE):
            node = {f"node.{name}": value for name, value in sde.nodes(times)._asdict().items()}
            _check(score.estimate, state, node, given, t)


@torch.no_grad()
def _check(
    function: Callable[..., Any], x: Tensor, moment: Mapping[str, Tensor], context: Mapping[str, Tensor], t: float
) -> None:
    """Ask twice at one time, or node."""
    answers = []
    for _ in range(2):
        names = {"x": x, **moment, **{f"context[{k!r}]": v for k, v in context.items()}}
        lent = {name: value.clone() for name, value in names.items()}
        at = lent["t"] if "t" in moment else Node(*(lent[k] for k in moment))
        out = function(lent["x"], at, **{k: lent[f"context[{k!r}]"] for k in context})
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
            f"The score function is not deterministic (t={t:g}): asked twice, it answers differently (dropout? "
            f"net.eval())."
        )
