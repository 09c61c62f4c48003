"""Half precision."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import torch

from ...core.support.tensors import row_finite
from ...scores import Score
from ...scores.wrapper import Wrapper
from .base import MATTERS, Repair, Rung, certain, number, root_mean_square
from .subject import Subject, rms

HALVES = (torch.float16, torch.bfloat16)


class Precision(Repair):
    """The network in half precision against the network in full precision, of the same draws.

    Where a half precision is requested, the states have that dtype, and the network runs under ``torch.autocast`` with
    it. A network whose parameters are in half precision is used as it is.

    Args:
        half: the dtype; None where nothing was requested and no network is in half precision.
        given: the score function as it was given, if networks in it are in half precision; None where they are not.
        requested: whether the states and autocast have the dtype.
    """

    name = "dtype"
    remedy = "Evaluate the network in float32 or bfloat16, at least the layers that overflow."

    def __init__(self, half: torch.dtype | None, given: Score | None = None, requested: bool = True) -> None:
        self.half, self.given, self.requested = half, given, requested

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        if self.half is None:
            return self.missing("No half precision was requested, and no network is in half precision.")
        half = subject.samples("method", score=self.given, **self._settings(subject, self.half))
        full = subject.samples("method")
        sound = row_finite(full)
        lost = sound & ~row_finite(half)
        good = sound & ~lost
        if bool(good.any()):
            apart = root_mean_square((half[good] - full[good]).flatten(1).square().mean(1), subject.confidence)
        else:
            apart = certain(math.inf, subject.confidence)
        share = float(lost.sum()) / max(1, int(sound.sum()))
        rounding = torch.finfo(self.half).eps * rms(full[sound])  # of the states
        name = str(self.half).removeprefix("torch.")
        of = f"{share:.0%} of the draws overflow to values that are not finite in {name}; the others"
        return self.found(
            apart,
            rounding,
            f"{of if share else f'Samples in {name}'} are {number(apart.value)} from those in full precision, RMS over "
            "the same draws.",
            matters=share > MATTERS or subject.large(apart.value),
            size=math.inf if share > MATTERS else apart.value,
            details={"not finite": share},
        )

    def _settings(self, subject: Subject, half: torch.dtype) -> dict[str, Any]:
        if not self.requested:
            return {}
        return {"dtype": half, "cast": functools.partial(torch.autocast, subject.task.device.type, dtype=half)}


def in_float32(score: Score, known: dict[int, torch.nn.Module] | None = None) -> tuple[Score, torch.dtype | None]:
    """A score function with float32 copies of its networks in half precision, and the dtype of these; the same score
    function and None where there are none. ``known`` are the copies that were made already, by the network's identity.

    Example:
        >>> net = torch.nn.Linear(2, 2).to(torch.bfloat16)
        >>> score = scoresde.ScoreModel(lambda x, t: net(x), scoresde.VPSDE(), "noise")
        >>> in_float32(score)[1] is None  # a function hides its network
        True
        >>> score.net = net
        >>> full, dtype = in_float32(score)
        >>> full.net.weight.dtype, dtype, score.net.weight.dtype
        (torch.float32, torch.bfloat16, torch.bfloat16)
    """
    changed, found, known = copy.copy(score), None, {} if known is None else known
    if isinstance(changed, Wrapper):
        parts, dtypes = zip(*(in_float32(part, known) for part in changed.score_fns), strict=True)
        changed.score_fns = parts
        found = next((dtype for dtype in dtypes if dtype is not None), None)
    for name, net in vars(score).items():
        dtype = _half(net)
        if dtype is not None:
            if id(net) not in known:
                known[id(net)] = copy.deepcopy(net).float()
            setattr(changed, name, known[id(net)])
            found = dtype
    return (score, None) if found is None else (changed, found)


def _half(net: object) -> torch.dtype | None:
    """The half precision of a module's parameters and buffers, None where it has none."""
    if not isinstance(net, torch.nn.Module):
        return None
    return next((v.dtype for v in (*net.parameters(), *net.buffers()) if v.dtype in HALVES), None)
