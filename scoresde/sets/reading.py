"""Reading a set, and looking whether all of it is there."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..core.errors import CorruptCheckpointError, InvalidArgumentError
from ..core.support.checks import check_flag, check_integer
from ..core.support.display import Displayed
from ..core.support.files.paths import check_path
from ..core.support.files.shards import Store
from .making import Failure

_FAR = 2**63  # of any place


class Samples(Dataset[dict[str, Tensor]]):
    """The samples of a set in arrays, by their place in it.

    Of safetensors single rows are read, in any order. A shard of ``npz`` is read as a whole, and the last one kept: go
    through such a set in order, or shuffle within shards. Pictures are read by what reads pictures.

    Args:
        folder: of the set.
        check: compare the SHA-256 of each shard when it is first read.

    Raises:
        CorruptCheckpointError: a shard is missing or damaged.

    Example:
        >>> import tempfile
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     where = Path(folder, "set")
        ...     made = scoresde.generate(where, sde, score, 10, method="ddim", steps=2)
        ...     data = Samples(where)
        ...     (len(data), data[9]["index"].item(), data.arrays(0)["x"].shape)
        (10, 9, torch.Size([10, 2]))
    """

    def __init__(self, folder: str | os.PathLike[str], *, check: bool = True) -> None:
        check_flag("check", check)
        self.store, self.check = Store.of(Path(check_path("folder", folder))), check
        self._last: tuple[int, dict[str, Tensor]] | None = None
        self._files: dict[int, Path] = {}  # of the shards that were read

    def __len__(self) -> int:
        return self.store.plan.count

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        place = check_integer("place", place, low=-_FAR)
        if not -len(self) <= place < len(self):
            raise IndexError(f"The set has {len(self)} samples, got {place}.")
        index = self.store.plan.first + place % len(self)
        shard = index // self.store.plan.shard_size
        at = index - self.store.plan.span(shard).start
        if self._container() == "safetensors" and not (self._last and self._last[0] == shard):
            path = self._file(shard)
            with self._whole(shard):
                return _row(path, at)
        return {name: values[at].clone() for name, values in self._arrays(shard).items()}

    def __repr__(self) -> str:
        return f"Samples({str(self.store.folder)!r}, count={len(self)})"

    def arrays(self, shard: int) -> dict[str, Tensor]:
        """The arrays of a shard, one row per sample."""
        shard = check_integer("shard", shard, low=0)
        return {name: values.clone() for name, values in self._arrays(shard).items()}

    def _arrays(self, shard: int) -> dict[str, Tensor]:
        if self._last is None or self._last[0] != shard:
            self._last = (shard, self._read(shard))
        return self._last[1]

    def _read(self, shard: int) -> dict[str, Tensor]:
        path, rows = self._file(shard), len(self.store.plan.span(shard))
        with self._whole(shard):
            found = _READERS[self._container()](path.read_bytes())
            if not all(values.ndim and len(values) == rows for values in found.values()):
                raise ValueError(f"its arrays do not have {rows} rows")
            return found

    @contextlib.contextmanager
    def _whole(self, shard: int) -> Iterator[None]:
        """Name a shard whose record fits, but which does not hold what a shard holds."""
        from safetensors import SafetensorError

        try:
            yield
        except (SafetensorError, BadZipFile, ValueError, TypeError, RuntimeError, LookupError) as error:
            raise CorruptCheckpointError(
                f"Shard {shard} of {str(self.store.folder)!r} cannot be read: {error}"
            ) from None

    def all(self) -> dict[str, Tensor]:
        """The arrays of the whole set, one row per sample, in memory."""
        found: dict[str, Tensor] = {}
        done = 0
        for shard in self.store.plan.shards:
            part = self._read(shard)
            if not found:
                found = {name: torch.empty((len(self), *v.shape[1:]), dtype=v.dtype) for name, v in part.items()}
            size = len(self.store.plan.span(shard))
            schemas = [{name: (v.dtype, v.shape[1:]) for name, v in one.items()} for one in (part, found)]
            if schemas[0] != schemas[1]:
                raise CorruptCheckpointError(f"Shard {shard} of {str(self.store.folder)!r} has arrays of its own.")
            for name, values in part.items():
                found[name][done : done + size] = values
            done += size
        return found

    def _container(self) -> str:
        container = str(self.store.plan.settings.get("container"))
        if container not in _READERS:
            raise InvalidArgumentError(
                f"{str(self.store.folder)!r} has pictures ({container}), which WebDataset or PIL read; `Samples` reads "
                f"{' and '.join(_READERS)}."
            )
        return container

    def _file(self, shard: int) -> Path:
        """The file of a shard that is there and, when it is first requested, whole."""
        shards = self.store.plan.shards
        if shard not in shards:
            raise InvalidArgumentError(f"`shard` must be from {shards.start} to {shards.stop - 1}, got {shard}.")
        if shard not in self._files:
            record = self.store.record(shard, content=self.check)
            if record is None:
                raise CorruptCheckpointError(
                    f"Shard {shard} of {str(self.store.folder)!r} is missing or damaged; continue the set to make it "
                    "again."
                )
            self._files[shard] = self.store.file(next(iter(record.files)))
        return self._files[shard]


def _row(path: Path, at: int) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name)[at].clone() for name in sorted(file.keys())}


def _safetensors(content: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return dict(sorted(load(content).items()))  # which come in any order


def _npz(content: bytes) -> dict[str, Tensor]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


_READERS: dict[str, Callable[[bytes], dict[str, Tensor]]] = {"safetensors": _safetensors, "npz": _npz}


@dataclass(frozen=True, repr=False)
class Verified(Displayed):
    """What `verify` has found.

    Attributes:
        count: of the samples that the set is to have.
        missing: the shards that are missing or damaged.
        failures: index, seed, time and reason of each sample that failed.
    """

    count: int
    missing: tuple[int, ...]
    failures: tuple[Failure, ...]

    @property
    def complete(self) -> bool:
        """Whether every shard is there, as it was made."""
        return not self.missing

    def _summary(self) -> dict[str, str]:
        return {
            "count": str(self.count),
            "complete": str(self.complete),
            "missing": str(list(self.missing)),
            "failures": str(len(self.failures)),
        }


def verify(folder: str | os.PathLike[str]) -> Verified:
    """Read all of a set, and compare it with its records.

    Args:
        folder: of the set.

    Raises:
        CorruptCheckpointError: it does not say what it is.

    Example:
        >>> import tempfile
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     where = Path(folder, "set")
        ...     made = scoresde.generate(where, sde, score, 10, method="ddim", steps=2)
        ...     verify(where)
        Verified(count=10, complete=True, missing=[], failures=0)
    """
    store = Store.of(Path(check_path("folder", folder)))
    records = dict(store.read())
    missing = tuple(shard for shard, record in records.items() if record is None)
    failures = tuple(f for record in records.values() if record is not None for f in record.failures)
    return Verified(store.plan.count, missing, failures)
