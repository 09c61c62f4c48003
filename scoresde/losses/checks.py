"""What losses refuse: models, nodes, data and contexts that do not fit, and results that are not finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.sdes import Node
from ..core.support.checks import check_kind, check_not_empty, check_state, check_tensor, form
from ..core.support.context import places
from ..core.support.signatures import accepts
from ..core.support.tensors import compute_dtype, row_finite
from ..scores import Score
from ..scores.bare import offers_estimates, traits_of


def gives_estimates(model: object) -> bool:
    """Whether a model gives estimates itself, not only a score or a network's raw output."""
    return not model.only_scores if isinstance(model, Score) else offers_estimates(model)


def check_model(model: object) -> None:
    """Refuse a model without estimates for a process."""
    if not gives_estimates(model) or traits_of(model).sde is None:
        raise InvalidTypeError(
            f"`model` must be a ScoreModel, got {type(model).__name__}; write scoresde.ScoreModel(net, sde, 'noise')."
        )


def check_node(node: Node[Tensor]) -> None:
    """Refuse what is not a node of tensors, as a process gives for times."""
    check_kind("node", node, Node, "a Node, such as sde.nodes(t) for a tensor of times")
    for name, value in zip(node._fields, node, strict=True):
        check_tensor(f"node.{name}", value)


def check_data(model: object, x0: object, context: Mapping[str, object]) -> Tensor:
    """The data in the dtype of computation, if model, data and context fit."""
    check_model(model)
    x0 = check_state("x0", x0)
    check_context(model, context, len(x0))
    check_not_empty("x0", x0)
    shape = traits_of(model).event_shape
    if shape is not None and tuple(x0.shape[1:]) != shape:
        raise InvalidArgumentError(f"`x0` must hold events of shape {shape}, got {tuple(x0.shape[1:])}.")
    return x0.to(compute_dtype(x0.dtype))


def check_context(model: object, context: Mapping[str, object], batch: int) -> None:
    """Refuse what is neither an option of the loss nor an argument of the network, and what does not fit the batch."""
    for name, value in context.items():
        if not accepts(model, name):
            raise InvalidArgumentError(f"{name!r} is neither an option of this loss nor an argument of the network.")
        for place, leaf in places(value):
            if leaf.ndim and len(leaf) != batch:
                raise InvalidArgumentError(
                    f"`{name}{place}` must have one entry per sample, ({batch}, …), got {form(leaf)}."
                )


def check_finite(value: Tensor, node: Node[Tensor], x0: Tensor) -> None:
    """Refuse a loss that is not finite, and say at which noise level."""
    bad = ~torch.isfinite(value.detach())
    if not bool(bad.any()):
        return
    rows = bad.nonzero()[:, 0].tolist()
    i = rows[0]
    t, alpha, sigma = (v.detach().expand(len(value))[i].item() for v in (node.t, node.alpha, node.sigma))
    given = row_finite(x0.detach()).tolist()
    data = [j for j in rows if not given[j]][:5]
    hint = (
        f"`x0` has NaN or infinite values in samples {data}"
        if data
        else "the network or the weight is not finite there; lower the learning rate, or narrow `times`"
    )
    rho = sigma / alpha if alpha else float("inf")
    raise lost(value, rows, f"noise level rho = {rho:.4g}, t = {t:.6g}", hint, "input" if data else "score", t)


def lost(value: Tensor, rows: list[int], place: str, why: str, stage: str, t: float) -> NonFiniteError:
    """The error of the losses of some samples, which are not finite; ``t`` is the time of the first."""
    which = f"({len(rows)} of {len(value)} samples, first {rows[:5]})"
    text = f"the loss is {value[rows[0]].item()} at {place} {which}: {why}."
    return NonFiniteError(text, stage=stage, t=t, indices=rows[:5])
