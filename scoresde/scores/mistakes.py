"""Mistakes that a solve can see in the network it is given, and would otherwise keep to itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ..core.sdes import SDE, AffineSDE
from ..core.support.checks import warn_caller
from ..core.support.tensors import expand, transforming
from .bare import Bare
from .base import Score
from .networks import networks_of, training_layer

_NOISY = 0.1  # alpha / sigma at most, where a state is noise
_CLOSE = 4.0  # a factor: of a score from that of noise alone, and of a state from the prior's width
_FEWEST = 8  # numbers of a state


def warn_of_training(score: Score) -> None:
    """Warn of a network in training mode with layers that then compute something else."""
    function = score.function if isinstance(score, Bare) else score
    for layer in filter(None, map(training_layer, networks_of(function))):
        return warn_caller(
            f"The network is in training mode, and its {type(layer).__name__} computes something else than in "
            "evaluation; call net.eval() before you solve."
        )


@contextmanager
def first_output_read(score: Score, sde: SDE) -> Iterator[None]:
    r"""Warn where the first output of a bare module cannot be a score.

    At high noise :math:`\nabla\log p_t(x) \approx -x/\sigma_t^2`, whatever the data are.
    """
    net = score.function if type(score) is Bare else None  # one that offers estimates declares what it returns
    if (
        not isinstance(net, torch.nn.Module)
        or isinstance(net, torch.jit.ScriptModule)
        or not isinstance(sde, AffineSDE)
    ):
        yield
        return
    handle = net.register_forward_hook(partial(_read, sde, removed := []))
    removed.append(handle)
    try:
        yield
    finally:
        handle.remove()


def _read(
    sde: AffineSDE, handles: list[torch.utils.hooks.RemovableHandle], net: object, given: object, out: object
) -> None:
    handles[0].remove()
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(out, Tensor)) or transforming():
        return
    x, t = given
    if out.shape != x.shape or x.numel() < _FEWEST:
        return
    x, score = x.detach().float(), out.detach().float()
    alpha, sigma = expand(sde.alpha(t).detach(), x), expand(sde.sigma(t).detach(), x)
    width = float((x / sigma).square().mean().sqrt())
    if float((alpha / sigma).max()) > _NOISY or not 1 / _CLOSE < width < _CLOSE:
        return
    ratio = float(-(score * x).sum() / (x / sigma).square().sum())
    if math.isfinite(ratio) and not 1 / _CLOSE < ratio < _CLOSE:
        warn_caller(
            f"`score_fn` is a {type(net).__name__} that seems to return no score: at high noise a score is close to "
            f"-x / sigma², and its first output is {ratio:.2g} times that. Wrap a network that predicts noise, data, v "
            "or a velocity: ScoreModel(net, sde, prediction='noise'); scoresde.check_score(sde, net, data) names what "
            "it predicts, or that it is not trained yet."
        )
