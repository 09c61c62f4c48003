"""`compute`: the results of any function in a folder, made like a set of samples."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..core.errors import InvalidArgumentError, InvalidTypeError, check_choice, short
from ..core.noise import SampleNoise, check_seed
from ..core.solution import Info, Status
from ..core.support.checks import check_callable, check_device, check_flag, check_integer, check_kind, check_number
from ..core.support.display import Displayed
from ..core.support.files.paths import check_path
from ..core.support.files.shards import SetPlan, Store
from ..core.support.registries import ARRAY_CONTAINERS, CONTAINERS
from ..grids import Grid
from ..scores.networks import check_evaluating, check_quiet
from ..solvers import Solver
from ..solvers.registry.config import to_text
from .containers import Files, Rows
from .identity import Made
from .making import Failure, Work, place
from .teams import Alone, ProcessTeam, Team
from .transfers import Transfers

STREAM = "philox4x32-10, version 1"
_TAKEN = ("index", "file")  # by the set, and by the format of NumPy
_STORED = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What a function of `compute` gets.

    Attributes:
        indices: of the samples, ``(batch,)``, int64. The last batch of a set goes on beyond it.
        noise: that of these samples, for ``noise=`` of `scoresde.solve` and `scoresde.log_likelihood`.
        callback: for their ``callback=``: it shows other processes that the work goes on.

    Example:
        >>> data = torch.arange(6.0).reshape(3, 2)
        >>> batch = Batch(torch.tensor([2, 3]), SampleNoise(0, indices=[2, 3]))
        >>> batch.rows(data)
        tensor([[4., 5.],
                [0., 1.]])
    """

    indices: Tensor
    noise: SampleNoise
    callback: Callable[[Info], None] = lambda info: None

    def rows(self, table: Tensor) -> Tensor:
        """The rows of a table that belong to the samples: sample i has row i modulo the table's length."""
        check_kind("table", table, Tensor, "a tensor with a row for each sample")
        if table.ndim == 0 or not len(table):
            raise InvalidArgumentError(f"`table` must have at least one row, got the shape {tuple(table.shape)}.")
        return table[self.indices % len(table)]


@dataclass(frozen=True, repr=False)
class Generated(Displayed):
    """What `generate` or `compute` has made.

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


@dataclass(frozen=True)
class Manner:
    """How a set is made, which does not change what is in it.

    Args:
        max_failures, patience, show, group: as of `scoresde.generate`.
    """

    max_failures: float = 0.0
    patience: float = 120.0
    show: Callable[[int], None] | None = None
    group: Any = None

    def __post_init__(self) -> None:
        check_number("max_failures", self.max_failures, low=0.0, high=1.0)
        check_number("patience", self.patience, low=0.0)
        if self.show is not None:
            check_callable("show", self.show, "show(samples)")
        if self.group is not None and not hasattr(self.group, "rank"):
            raise InvalidTypeError(f"`group` must be a process group of torch.distributed, got {short(self.group)}.")

    def team(self) -> Team:
        """The processes that make a shard together."""
        return Alone() if self.group is None else ProcessTeam(self.group)


def sizes(first: int, count: int, shard_size: int, batch_size: int) -> dict[str, Any]:
    """The indices of a set and how they are divided, as `SetPlan` takes them.

    Example:
        >>> sizes(0, 10, 4, 100)
        {'first': 0, 'count': 10, 'shard_size': 4, 'batch_size': 4}
    """
    count = check_integer("count", count, low=1)
    first = check_integer("first", first, low=0)
    shard_size = check_integer("shard_size", shard_size, low=1)
    batch_size = check_integer("batch_size", batch_size, low=1)
    return {"first": first, "count": count, "shard_size": shard_size, "batch_size": min(batch_size, shard_size)}


def compute(
    folder: str | os.PathLike[str],
    function: Callable[[Batch], Values],
    count: int,
    *,
    first: int = 0,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    identity: str | None = None,
    shard_size: int = 1024,
    batch_size: int = 64,
    container: str = "safetensors",
    extend: bool = False,
    max_failures: float = 0.0,
    patience: float = 120.0,
    device: torch.device | str | None = None,
    show: Callable[[int], None] | None = None,
    group: Any = None,
) -> Generated:
    """Compute a row of numbers for each of many samples into a folder, in any number of processes: likelihoods or
    latents of data, samples of many posteriors.

    It is made, continued and checked like a set of `scoresde.generate`, whose page has the rules.

    Args:
        folder: of the set, made where it is missing.
        function: ``function(batch)`` for a `Batch` gives tensors by name, with a row for each of its samples, as a
            function of their indices alone. ``status`` (of a `scoresde.Solution`, say) marks which samples failed;
            without it those failed that are not finite.
        count: the number of samples.
        first: the index of the first one.
        seed: of the noise.
        settings: what the set shall say of itself, as JSON values; it is continued with the same only.
        identity: a text that names the code of the function, and its data. A set notices other weights and buffers of
            the networks that the function holds, other ``settings`` and another ``identity``, and nothing else: it is
            continued only with an ``identity``, and several processes need one.
        shard_size, batch_size, extend, max_failures, patience, show, group: as of `scoresde.generate`.
        container: ``"safetensors"`` or ``"npz"``.
        device: that the function uses, which belongs to the set.

    Returns:
        A `Generated`, when all samples are there.

    Raises:
        InvalidArgumentError: an argument does not fit, or the folder has another set.
        SolveFailedError: more samples failed than may.
        OutputError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)
        >>> data = torch.randn(10, 2)
        >>> def likelihoods(batch):
        ...     found = scoresde.log_likelihood(
        ...         sde, score, batch.rows(data), noise=batch.noise, throw=False
        ...     )
        ...     return {"log_prob": found.log_prob, "status": found.status}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = compute(Path(folder, "set"), likelihoods, 10)
        ...     x = scoresde.sets.Samples(Path(folder, "set")).all()["log_prob"]
        >>> made.count, x.shape
        (10, torch.Size([10]))
    """
    folder = Path(check_path("folder", folder))
    check_callable("function", function, "function(batch)")
    check_kind("settings", settings, (Mapping, type(None)), "a mapping by name")
    check_choice("container", container, ARRAY_CONTAINERS)
    check_flag("extend", extend)
    seed = check_seed("seed", seed)
    where = check_device(device)
    divided = sizes(first, count, shard_size, batch_size)
    manner = Manner(max_failures, patience, show, group)
    made = Made.of(function)
    own = {
        **belonging(made, identity, manner),
        "seed": seed,
        "container": container,
        **machine(where, manner.team().size),
    }
    for name in settings or {}:
        if not isinstance(name, str) or name in own:
            raise InvalidArgumentError(f"`settings` must not have the name {name!r}.")
    plan = SetPlan({**{name: told(name, value) for name, value in (settings or {}).items()}, **own}, **divided)

    check_evaluating("function", function)

    def solved(batch: Batch) -> tuple[Values, Tensor | None]:
        with check_quiet("function", where):
            values = function(batch)
        check_kind("function", values, Mapping, "one that returns a mapping from names to tensors")
        if not values:
            raise InvalidArgumentError("`function` returned no array.")
        return values, None

    return fill(begin(folder, plan, made, extend), solved, manner)


def belonging(made: Made, identity: str | None, manner: Manner) -> dict[str, object]:
    """What a set says of the networks and the code that it belongs to."""
    check_kind("identity", identity, (str, type(None)), "a text")
    return {"weights": manner.team().agreed(made.digest), "identity": identity}


def begin(folder: Path, plan: SetPlan, made: Made, extend: bool) -> Store:
    """The folder of a new set, or of one that is continued, by whom it belongs to."""

    def check(where: str) -> None:
        made.check_stated(plan.settings["identity"], where)

    if place()[1] > 1:
        check("several processes make the set")
    return Store.begin(folder, plan, extend=extend, continuing=lambda: check(f"{str(folder)!r} has a set"))


def fill(
    store: Store,
    solved: Callable[[Batch], tuple[Values, Tensor | None]],
    manner: Manner,
    data_range: tuple[float, float] = (-1.0, 1.0),
) -> Generated:
    """Make what is missing of a set.

    Args:
        store: its folder.
        solved: the arrays of a batch, one row per sample, and the times at which its samples ended, if they have one.
        manner: how it is made.
        data_range: the values of black and white, of pictures.
    """
    seed, container = store.plan.settings["seed"], store.plan.settings["container"]
    (rank, world), team = place(), manner.team()
    schema: dict[str, tuple[torch.dtype, torch.Size]] = {}
    transfers = Transfers()

    def made(indices: range, beat: Callable[[], None]) -> tuple[Rows, list[Failure]]:
        def going(info: Info) -> None:
            beat()

        index = torch.arange(indices.start, indices.stop)
        values, t = solved(Batch(index, SampleNoise(seed, indices=indices), going))
        _check_rows(values, len(index), schema)
        failures = _failures(values, indices, seed, t)
        return _rows(values, index, transfers), failures

    def pack(shard: int, rows: Rows) -> Files:
        return CONTAINERS[container](f"{shard:08d}", rows, data_range)

    work = Work(
        store, made, pack, manner.patience, manner.max_failures, rank // team.size, max(1, world // team.size),
        manner.show, team, transfers.wait,
    )  # fmt: skip
    try:
        shards = work.run()
    except (InvalidArgumentError, InvalidTypeError):  # nothing can come of it
        store.abandon()
        raise
    return Generated(store.folder, store.plan.count, len(store.plan.shards), shards, work.failures)


def _check_rows(values: Values, batch: int, schema: dict[str, tuple[torch.dtype, torch.Size]]) -> None:
    """Refuse what is no row of numbers for each sample, or other arrays than those of the batches before."""
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("__") or name in _TAKEN:
            raise InvalidArgumentError(
                f"The arrays of a set must have names like those of variables, other than {' and '.join(_TAKEN)}, got "
                f"{short(name)}."
            )
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != batch:
            raise InvalidTypeError(
                f"{name!r} must be a tensor with a row for each of the {batch} samples, got "
                f"{tuple(value.shape) if isinstance(value, Tensor) else short(value)}."
            )
        if value.dtype not in _STORED:
            raise InvalidTypeError(f"{name!r} must have real numbers of 8 to 64 bits, got {value.dtype}.")
    status = values.get("status")
    if status is not None and (status.ndim != 1 or status.is_floating_point() or not _known(status)):
        raise InvalidArgumentError("'status' must have one `scoresde.Status` for each sample.")
    found = {name: (value.dtype, value.shape[1:]) for name, value in values.items()}
    if schema and found != schema:
        raise InvalidArgumentError(f"All batches must have the same arrays: got {_told(found)} after {_told(schema)}.")
    schema.update(found)


def _known(status: Tensor) -> bool:
    return {int(code) for code in status.tolist()} <= {int(code) for code in Status}


def _told(schema: Mapping[str, tuple[torch.dtype, torch.Size]]) -> str:
    return ", ".join(f"{name} {tuple(shape)} {dtype}" for name, (dtype, shape) in sorted(schema.items()))


def _rows(values: Values, index: Tensor, transfers: Transfers) -> Rows:
    """The arrays of a batch, with the indices; see `Transfers`."""
    plain = {k: v.detach().float() if v.dtype == torch.bfloat16 else v.detach() for k, v in values.items()}
    return {"index": index.numpy(), **{name: transfers.start(value) for name, value in plain.items()}}


def _failures(values: Values, indices: range, seed: int, t: Tensor | None) -> list[Failure]:
    """What failed in a batch."""
    if "status" in values:
        codes = [int(code) for code in values["status"].tolist()]
    else:
        finite = torch.ones(len(indices), dtype=torch.bool)
        for value in values.values():
            if value.is_floating_point():
                finite &= value.detach().isfinite().reshape(len(indices), -1).all(1).cpu()
        codes = [Status.SUCCESS if good else Status.NON_FINITE for good in finite.tolist()]
    times = [None] * len(indices) if t is None else t.tolist()
    return [
        {"index": indices[i], "seed": seed, "t": times[i], "reason": Status(code).name.lower()}
        for i, code in enumerate(codes)
        if code != Status.SUCCESS
    ]


def told(name: str, value: object) -> object:
    """An option as a JSON value that is the same in every process.

    Example:
        >>> told("method", scoresde.solvers.DDIM()), told("steps", 5)
        ('DDIM()', 5)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no other
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Solver):
        return to_text(value)
    if isinstance(value, Grid):
        return [repr(value), list(value.times)]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [told(name, v) for v in value]
    if isinstance(value, Mapping):
        return {str(key): told(name, v) for key, v in value.items()}
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+", text):
        raise InvalidTypeError(
            f"`{name}` must be distinguished by what it prints, so that a set can be continued; got {text}."
        )
    return text


def precision(device: torch.device) -> dict[str, str]:
    """What torch computes with: its default dtype, the formats of float32 products and convolutions on a device
    ("ieee", or such as "tf32"), and the dtype of ``torch.autocast`` where it is on.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     precision(torch.device("cpu"))["autocast"]
        'torch.bfloat16'
    """
    kind, backends = device.type, cast(Any, torch.backends)
    try:
        products, convolutions = (backends.cuda, backends.cudnn) if kind == "cuda" else (backends.mkldnn,) * 2
        units = products.matmul, convolutions.conv
        formats = [str(unit.fp32_precision).replace("none", "ieee") for unit in units]
        float32 = formats[:1] if len(set(formats)) == 1 else formats
    except AttributeError:  # before torch 2.9
        float32 = [torch.get_float32_matmul_precision(), *(["tf32"] if backends.cudnn.allow_tf32 else [])]
    return {
        "dtype": str(torch.get_default_dtype()),
        "float32": " ".join(float32),
        **({"autocast": str(torch.get_autocast_dtype(kind))} if torch.is_autocast_enabled(kind) else {}),
        **({"deterministic": "True"} if torch.are_deterministic_algorithms_enabled() else {}),
    }


def machine(device: torch.device, together: int = 1) -> dict[str, object]:
    """What results depend on in their last digits.

    Args:
        device: of the states.
        together: the processes that one network is spread over.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "device": f"{device.type} ({kind})",
        "precision": precision(device),
        **({"threads": torch.get_num_threads()} if device.type == "cpu" else {}),
        **({"group": together} if together > 1 else {}),
        "stream": STREAM,
        "scoresde": __version__,
        "torch": torch.__version__,
    }
