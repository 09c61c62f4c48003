"""`generate`: a set of samples in a folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, check_choice, short
from ..core.noise import SampleNoise, check_seed
from ..core.sdes import SDE
from ..core.solve import solve
from ..core.support.checks import (
    check_callable,
    check_device,
    check_flag,
    check_integer,
    check_interval,
    check_kind,
    check_score_fn,
)
from ..core.support.files.paths import check_path
from ..core.support.files.shards import SetPlan
from ..core.support.registries import CONTAINERS, PICTURE_CONTAINERS
from ..grids import GRIDS
from ..scores import as_score
from ..scores.bare import of_process
from ..scores.networks import check_evaluating, check_quiet, text_of
from .computing import Batch, Generated, Manner, begin, belonging, fill, machine, sizes, told
from .identity import Made

_OWN = ("x", "shape", "context", "seed", "seeds", "generator", "noise", "callback", "progress", "throw", "save_at",
        "differentiable", "device")  # fmt: skip
_ARRAYS = ("x", "index", "nfe", "status", "features")
Context = Callable[[Tensor], Mapping[str, object]]


def generate(
    folder: str | os.PathLike[str],
    sde: SDE,
    score_fn: Callable[..., Tensor],
    count: int,
    *,
    first: int = 0,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    context: Context | None = None,
    identity: str | None = None,
    shard_size: int = 1024,
    batch_size: int = 64,
    container: str = "safetensors",
    data_range: tuple[float, float] = (-1.0, 1.0),
    extend: bool = False,
    max_failures: float = 0.0,
    patience: float = 120.0,
    device: torch.device | str | None = None,
    show: Callable[[int], None] | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    group: Any = None,
    **options: Any,
) -> Generated:
    """Draw any number of samples into a folder, in any number of processes.

    Sample i, with its context, is a function of ``seed`` and i alone. The set comes in shards, which are written as a
    whole, each with a record of its length and SHA-256. The same call continues a set that was interrupted, and makes
    what is missing or damaged; several processes, on any machines with this folder, divide the work, and whoever is
    there makes what others have left. The bytes are the same whatever happened, because batches, too, are functions of
    the indices: they begin at multiples of ``batch_size`` in their shard, and the last is filled up.

    Args:
        folder: of the set, made where it is missing.
        sde, score_fn: as for `solve`.
        count: the number of samples.
        first: the index of the first one.
        seed: of the set.
        shape: of one sample, where the score function does not declare it.
        context: ``context(indices)`` gives the score function's context for samples, whose indices are ``(batch,)``
            int64: tensors or values as for `solve`. Those of shape (batch,) are kept beside the samples. The indices
            go on to the end of the last batch, beyond the set.
        identity: a text that names the code of ``score_fn``, of ``context`` and ``features``, and of whatever else is
            not of this package. A set notices other weights, buffers, settings and another ``identity``, and nothing
            else: where there is such code, it is continued only with an ``identity``, and several processes need one.
        shard_size: samples in a shard.
        batch_size: samples at once, also where fewer are requested. Where memory does not suffice for a shard, it is
            made with half of it.
        container: ``"safetensors"``, ``"npz"``, ``"png"`` (a picture of each sample), or ``"tar"`` (pictures, as
            WebDataset reads them).
        data_range: the values of black and white, of pictures.
        extend: whether the set in the folder may become larger.
        max_failures: the share of samples that may fail. They are NaN in arrays, have no picture, and are named in the
            shard's record.
        patience: seconds after which a process takes over a shard of another one that makes no progress.
        device: of the states; default that of the network's parameters, else torch's default.
        show: called with the number of samples that are made, in this set, by all processes.
        features: ``features(x) -> (batch, d)``, kept beside the samples, such as those of a network that a distance of
            distributions compares. Samples that failed have NaN.
        group: a process group of torch.distributed whose processes hold one network together (`fully_shard`, tensor
            parallel): they make each shard together, and the first one writes it. All processes of the group call
            `generate`.
        **options: of `solve`: ``method``, ``steps``, ``grid``, ``denoise``, ``dtype``, …

    Returns:
        A `Generated`, when all samples are there.

    Raises:
        InvalidArgumentError: an argument does not fit, or the folder has another set.
        SolveFailedError: more samples failed than may.
        OutputError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = generate(
        ...         Path(folder, "set"), sde, target.score(sde), 100, method="ddim", steps=5
        ...     )
        ...     x = scoresde.sets.Samples(Path(folder, "set"))[7]["x"]
        >>> made.count, made.shards, x.shape
        (100, 1, torch.Size([2]))
    """
    folder = Path(check_path("folder", folder))
    check_kind("sde", sde, SDE, "a process")
    score_fn = of_process(score_fn, sde)
    check_score_fn(score_fn)
    divided = sizes(first, count, shard_size, batch_size)
    seed = check_seed("seed", seed)
    check_choice("container", container, CONTAINERS)
    check_interval("data_range", data_range)
    check_flag("extend", extend)
    for name, value, form in (("context", context, "context(indices)"), ("features", features, "features(x)")):
        if value is not None:
            check_callable(name, value, form)
    for name in _OWN:
        if name in options:
            raise InvalidArgumentError(f"`{name}` is not for `generate`, where each sample follows from `seed` alone.")
    where = check_device(device, as_score(score_fn).network_device)
    manner = Manner(max_failures, patience, show, group)
    event = _event(shape, score_fn)
    if container in PICTURE_CONTAINERS and not (len(event) == 3 and event[0] in (1, 3)):
        raise InvalidArgumentError(f"`container`={container!r} is for images, but samples have the shape {event}.")
    check_evaluating("score_fn", score_fn)
    check_evaluating("features", features)
    _check_bound(score_fn)
    grids = [GRIDS[name] for name in options.values() if isinstance(name, str) and name in GRIDS]  # of the user's, too
    made = Made.of([score_fn, sde, context, features, options, grids])
    settings = {
        **belonging(made, identity, manner),
        "sde": text_of(sde),
        "shape": list(event),
        "seed": seed,
        **{name: told(name, value) for name, value in sorted(options.items())},
        "container": container,
        **({"data_range": list(data_range)} if container in PICTURE_CONTAINERS else {}),
        **machine(where, manner.team().size),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come with the first batch
        none = SampleNoise(seed, indices=())
        solve(sde, score_fn, shape=(0, *event), noise=none, throw=False, device=where, **options)  # checks the options
    plan = SetPlan(settings, **divided)
    plan = replace(plan, settings={**settings, "context": _names(context, plan)})

    def solved(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        given = None if context is None else dict(context(batch.indices))
        with check_quiet("score_fn", where):
            solution = solve(
                sde, score_fn, shape=(len(batch.indices), *event), noise=batch.noise, context=given,
                callback=batch.callback, throw=False, device=where, **options,
            )  # fmt: skip
        found = {"x": solution.x, "nfe": solution.nfe, "status": solution.status}
        extra = {} if features is None else {"features": _features(features, solution.x)}
        return {**found, **_beside(given, len(batch.indices)), **extra}, solution.t

    return fill(begin(folder, plan, made, extend), solved, manner, data_range)


def _features(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Those of the samples that are finite; NaN of the others."""
    finite = x.isfinite().flatten(1).all(1)
    with torch.no_grad():
        found = features(torch.where(finite.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x):
        got = tuple(found.shape) if isinstance(found, Tensor) else short(found)
        raise InvalidTypeError(f"`features` must return a tensor ({len(x)}, d), got {got}.")
    return torch.where(finite[:, None], found, torch.nan)


def _event(shape: Sequence[int] | None, score_fn: Callable[..., Tensor]) -> tuple[int, ...]:
    """The shape of one sample."""
    known = as_score(score_fn).traits.event_shape
    if shape is None and known is None:
        raise InvalidArgumentError("`shape`, that of one sample, is missing; this score function does not declare it.")
    if shape is None:
        return tuple(known or ())
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise InvalidTypeError(f"`shape` must be the shape of one sample, such as (3, 32, 32), got {short(shape)}.")
    return tuple(check_integer("shape", size, low=1) for size in shape)


def _check_bound(score_fn: object) -> None:
    """Refuse values that are bound to the places in a batch; of a combination examine each part."""
    for part in getattr(score_fn, "score_fns", ()):
        _check_bound(part)
    bound = getattr(score_fn, "context", None)
    for name, value in bound.items() if isinstance(bound, Mapping) else ():
        if isinstance(value, Tensor) and value.ndim and len(value) > 1:
            raise InvalidArgumentError(
                f"`score_fn` has {len(value)} values of {name!r} bound to it, one for each place in a batch; give one "
                f"for each index, context=lambda indices: {{{name!r}: …}}."
            )


def _names(context: Context | None, plan: SetPlan) -> list[str]:
    """The names of the context, which the last batch must have before any work is done."""
    if context is None:
        return []
    last = plan.batches(plan.shards[-1], plan.batch_size)[-1]
    try:
        found = context(torch.arange(last.start, last.stop))
    except (IndexError, KeyError) as error:
        raise InvalidArgumentError(
            f"`context` failed for the indices {last.start} to {last.stop - 1} of the last batch, which is filled up: "
            f"{error}. Take the indices modulo the length of your table."
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise InvalidTypeError(f"`context` must return a mapping by name, got {short(found)}.")
    for name in found:
        if name in _ARRAYS:
            raise InvalidArgumentError(
                f"`context` must not have the name {name!r}, which is that of an array of the set."
            )
    return sorted(found)


def _beside(context: Mapping[str, object] | None, batch: int) -> dict[str, Tensor]:
    """What is kept of the context: one number per sample."""
    found = {name: value for name, value in (context or {}).items() if isinstance(value, Tensor)}
    return {name: value for name, value in found.items() if value.shape == (batch,)}
