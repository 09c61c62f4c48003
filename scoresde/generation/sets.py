"""`generate`: a set of samples in a folder."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from .._checks import (
    check_callable,
    check_device,
    check_flag,
    check_integer,
    check_interval,
    check_kind,
    check_number,
    check_score_fn,
)
from .._display import Displayed
from .._registries import CONTAINERS, PICTURE_CONTAINERS
from ..errors import InvalidArgumentError, InvalidTypeError, check_choice, short
from ..files.paths import check_path
from ..files.shards import Plan, Store
from ..grids import Grid
from ..integrate import Info, Solution, Status
from ..noise import SampleNoise, check_seed
from ..scores import as_score
from ..sdes import SDE
from ..solvers import Solver
from ..solvers.registry.config import to_text
from ..solving import solve
from .containers import Files, Rows
from .identity import identity_of
from .making import Failure, Work, place

STREAM = "philox4x32-10, version 1"
_OWN = ("x", "shape", "context", "seed", "seeds", "generator", "noise", "callback", "progress", "throw", "save_at",
        "differentiable", "device")  # fmt: skip
_MOST = 2**63 - 1
_ARRAYS = ("x", "index", "nfe", "status")
Context = Callable[[Tensor], Mapping[str, object]]


@dataclass(frozen=True, repr=False)
class Generated(Displayed):
    """What `generate` has made.

    Attributes:
        folder: of the set; read it with `Samples`.
        count: of the samples.
        shards: how many there are.
        made: how many of them this call made; the others were there, or made by other processes.
        failures: index, seed, time and reason of each sample that failed.
    """

    folder: Path
    count: int
    shards: int
    made: int
    failures: tuple[Failure, ...] = field(default=())

    def _summary(self) -> dict[str, str]:
        return {
            "folder": repr(str(self.folder)),
            "count": str(self.count),
            "shards": str(self.shards),
            "made": str(self.made),
            "failures": str(len(self.failures)),
        }


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
        identity: what tells the score function, the process and the context from others, such as the digest of a file;
            by default the SHA-256 of what they were made of. A set is continued with the same identity only.
        shard_size: samples in a shard.
        batch_size: samples at once, also where fewer are asked for. Where memory does not suffice for a shard, it is
            made with half of it.
        container: ``"safetensors"``, ``"npz"``, ``"png"`` (a picture of each sample), or ``"tar"`` (pictures, as
            WebDataset reads them).
        data_range: the values of black and white, of pictures.
        extend: whether the set in the folder may become larger.
        max_failures: the share of samples that may fail. They are NaN in arrays, have no picture, and are named in the
            shard's record.
        patience: seconds after which a process takes over a shard of another one that makes no progress.
        device: of the states.
        show: called with the number of samples that are complete.
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
        ...     x = scoresde.generation.Samples(Path(folder, "set"))[7]["x"]
        >>> made.count, made.shards, x.shape
        (100, 1, torch.Size([2]))
    """
    folder = Path(check_path("folder", folder))
    check_score_fn(score_fn)
    check_kind("sde", sde, SDE, "a process")
    count = check_integer("count", count, low=1)
    first = check_integer("first", first, low=0)
    if first + count > _MOST:
        raise InvalidArgumentError(f"`first` + `count` must be at most {_MOST}, got {first + count}.")
    seed = check_seed("seed", seed)
    shard_size = check_integer("shard_size", shard_size, low=1)
    batch_size = check_integer("batch_size", batch_size, low=1)
    check_choice("container", container, CONTAINERS)
    check_interval("data_range", data_range)
    check_flag("extend", extend)
    max_failures = check_number("max_failures", max_failures, low=0.0, high=1.0)
    patience = check_number("patience", patience, low=0.0)
    for name, value in (("context", context), ("show", show)):
        if value is not None:
            check_callable(name, value, f"{name}({'indices' if name == 'context' else 'samples'})")
    for name in _OWN:
        if name in options:
            raise InvalidArgumentError(f"`{name}` is not for `generate`, where each sample follows from `seed` alone.")
    where = check_device(device)
    event = _event(shape, score_fn)
    if container in PICTURE_CONTAINERS and not (len(event) == 3 and event[0] in (1, 3)):
        raise InvalidArgumentError(f"`container`={container!r} is for images, but samples have the shape {event}.")
    _check_settled(score_fn)
    settings = {
        "identity": identity_of([score_fn, sde, context]) if identity is None else str(identity),
        "sde": repr(sde),
        "shape": list(event),
        "seed": seed,
        **{name: told(name, value) for name, value in sorted(options.items())},
        "container": container,
        **({"data_range": list(data_range)} if container in PICTURE_CONTAINERS else {}),
        **machine(where),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come with the first batch
        none = SampleNoise(seed, indices=())
        solve(sde, score_fn, shape=(0, *event), noise=none, throw=False, device=where, **options)  # checks the options
    plan = Plan(settings, first=first, count=count, shard_size=shard_size, batch_size=min(batch_size, shard_size))
    plan = replace(plan, settings={**settings, "context": _names(context, plan)})
    store = Store.begin(folder, plan, extend=extend)

    def solved(indices: range, beat: Callable[[], None]) -> tuple[Solution, Mapping[str, np.ndarray]]:
        def going(info: Info) -> None:
            beat()

        given = None if context is None else dict(context(torch.arange(indices.start, indices.stop)))
        solution = solve(
            sde, score_fn, shape=(len(indices), *event), noise=SampleNoise(seed, indices=indices), context=given,
            callback=going, throw=False, device=where, **options,
        )  # fmt: skip
        return solution, _beside(given, len(indices))

    return fill(
        store, solved, container, data_range=data_range, max_failures=max_failures, patience=patience,
        show=show or (lambda done: None),
    )  # fmt: skip


def fill(
    store: Store,
    solved: Callable[[range, Callable[[], None]], tuple[Solution, Mapping[str, np.ndarray]]],
    container: str,
    *,
    data_range: tuple[float, float],
    max_failures: float,
    patience: float,
    show: Callable[[int], None],
) -> Generated:
    """Make what is missing of a set.

    Args:
        store: its folder.
        solved: ``(indices, beat) -> (solution, arrays)`` of a batch, with what is kept beside its samples.
        container, data_range, max_failures, patience, show: as of `generate`.
    """

    seed = store.plan.settings["seed"]

    def compute(indices: range, beat: Callable[[], None]) -> tuple[Rows, list[Failure]]:
        solution, beside = solved(indices, beat)
        index = np.arange(indices.start, indices.stop, dtype=np.int64)
        rows = {"x": solution.x, "nfe": solution.nfe, "status": solution.status}
        failures: list[Failure] = [
            {"index": indices[i], "seed": seed, "t": float(solution.t[i]), "reason": Status(code).name.lower()}
            for i, code in enumerate(solution.status.tolist())
            if code != Status.SUCCESS
        ]
        arrays = {k: (v.float() if v.dtype == torch.bfloat16 else v).cpu().numpy() for k, v in rows.items()}
        return {**arrays, "index": index, **beside}, failures

    def pack(shard: int, rows: Rows) -> Files:
        return CONTAINERS[container](f"{shard:08d}", rows, data_range)

    made = Work(store, compute, pack, patience, max_failures, *place(), show).run()
    records = [store.record(shard) for shard in store.plan.shards]
    failures = tuple(failure for record in records if record is not None for failure in record.failures)
    return Generated(store.folder, store.plan.count, len(store.plan.shards), made, failures)


def told(name: str, value: object) -> object:
    """An option as a JSON value that is the same in every process.

    Example:
        >>> told("method", scoresde.solvers.DDIM()), told("steps", 5)
        ('DDIM()', 5)
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Solver):
        return to_text(value)
    if isinstance(value, Grid):
        return [repr(value), list(value.times)]
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [told(name, v) for v in value]
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+", text):
        raise InvalidTypeError(
            f"`{name}` must be told apart by what it prints, so that a set can be continued; got {text}."
        )
    return text


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


def _check_settled(score_fn: object) -> None:
    """Refuse a score function whose samples would depend on more than their indices; of a combination each part."""
    for part in getattr(score_fn, "score_fns", ()):
        _check_settled(part)
    net = getattr(score_fn, "net", score_fn)
    if isinstance(net, torch.nn.Module) and net.training:
        raise InvalidArgumentError("The network is in training mode, so that dropout would draw noise; call .eval().")
    bound = getattr(score_fn, "context", None)
    for name, value in bound.items() if isinstance(bound, Mapping) else ():
        if isinstance(value, Tensor) and value.ndim and len(value) > 1:
            raise InvalidArgumentError(
                f"`score_fn` has {len(value)} values of {name!r} bound to it, one for each place in a batch; give one "
                f"for each index, context=lambda indices: {{{name!r}: …}}."
            )


def _names(context: Context | None, plan: Plan) -> list[str]:
    """The names of the context, which the last batch is asked for before any work is done."""
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


def _beside(context: Mapping[str, object] | None, batch: int) -> dict[str, np.ndarray]:
    """What is kept of the context: one number per sample."""
    found = {name: value for name, value in (context or {}).items() if isinstance(value, Tensor)}
    return {name: value.cpu().numpy() for name, value in found.items() if value.shape == (batch,)}


def machine(device: torch.device) -> dict[str, object]:
    """What results depend on in their last digits."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "device": f"{device.type} ({kind})",
        **({"threads": torch.get_num_threads()} if device.type == "cpu" else {}),
        "stream": STREAM,
        "scoresde": __version__,
        "torch": torch.__version__,
    }
