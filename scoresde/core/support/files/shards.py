"""A set of results in a folder: shards that any processes make in any order, and records that say what is there.

The folder has ``set.json``, which describes the set; ``shards/``; ``records/``, one for each shard that is complete,
written after it, with the length and SHA-256 of its files; and ``leases/`` while the set is made. Every file is written
under a temporary name, brought to the disk and renamed. What a shard holds is a function of ``set.json`` alone, so that
two processes which make the same shard write the same bytes: whatever is missing or damaged is made again.

The files are JSON of one form, `sealed`: their own SHA-256 is in them, so that a damaged one is never believed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import CorruptCheckpointError, InvalidArgumentError, OutputError, short
from .fields import read_as
from .writing import make_folder, writable, write_bytes, write_together

FORMAT = 2
_SET, _SHARDS, _RECORDS, _LEASES = "set.json", "shards", "records", "leases"
_READERS = 8  # threads
_AT_ONCE = 1024  # shards that they are given
_INDICES, _FILES = 2**63 - 1, 10**7
_FAILURE = {"index": int, "seed": int, "t": float | None, "reason": str}
_CHECK = "sha256 of the rest"
_LENGTH = 2 * hashlib.sha256().digest_size
_DIGESTS = {"weights": "weights, or settings of its functions or process,", "data": "data"}


def sealed(content: Mapping[str, Any]) -> bytes:
    """JSON that can be checked when it is read.

    Example:
        >>> opened(sealed({"a": 1}))
        {'a': 1}
    """
    return (json.dumps({**content, _CHECK: _digest(content)}, indent=1) + "\n").encode()


def opened(content: bytes) -> dict[str, Any]:
    """What `sealed` wrote.

    Raises:
        ValueError: it is damaged.

    Example:
        >>> opened(sealed({"a": 1}).replace(b"1", b"2"))
        Traceback (most recent call last):
        ...
        ValueError: its check does not hold
    """
    try:
        found = json.loads(content)
        del found[_CHECK]
        same = sealed(found) == content  # spaces and the order of names included
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no JSON with a check: {error}") from None
    if not same:
        raise ValueError("its check does not hold")
    return dict(found)


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class SetPlan:
    """What a set is.

    Args:
        settings: what decides the results, as JSON values; ``identity``, a text that names the code, may come later.
        first, count: the indices of the set.
        shard_size, batch_size: of the shards, whose ends are multiples of it, and of the batches, which begin where
            their shard begins.

    Example:
        >>> plan = SetPlan({"seed": 0}, first=150, count=100, shard_size=100, batch_size=64)
        >>> [(shard, plan.span(shard)) for shard in plan.shards]
        [(1, range(150, 200)), (2, range(200, 250))]
        >>> plan.batches(1, 64)
        [range(100, 164), range(164, 228)]
    """

    settings: Mapping[str, Any]
    first: int = field(kw_only=True)
    count: int = field(kw_only=True)
    shard_size: int = field(kw_only=True)
    batch_size: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if not (0 <= self.first < self.first + self.count and 1 <= self.batch_size <= self.shard_size):
            raise ValueError("its first, count, shard_size and batch_size are no numbers that they can be")
        if self.first + self.count > _INDICES or self.count > _FILES * self.shard_size:
            raise InvalidArgumentError(
                f"A set ends before the index {_INDICES} and has at most {_FILES} shards, got `first`={self.first}, "
                f"`count`={self.count} and `shard_size`={self.shard_size}."
            )

    @property
    def digest(self) -> str:
        """Of all that decides a result: the settings, and the sizes of shards and batches."""
        sizes = {"shard_size": self.shard_size, "batch_size": self.batch_size}
        return _digest({**self.settings, "identity": None, **sizes})

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(self.first // self.shard_size, -(-(self.first + self.count) // self.shard_size))

    def span(self, shard: int) -> range:
        """The indices of a shard."""
        start = shard * self.shard_size
        return range(max(start, self.first), min(start + self.shard_size, self.first + self.count))

    def samples(self, shards: Collection[int]) -> int:
        """How many samples these shards have."""
        ends = {self.shards[0], self.shards[-1]}.intersection(shards)
        return (len(shards) - len(ends)) * self.shard_size + sum(len(self.span(shard)) for shard in ends)

    def batches(self, shard: int, size: int) -> list[range]:
        """The batches that the indices of a shard are in. All have the same size and begin at the same indices, however
        much of the shard is in the set: results for which there is no index are dropped."""
        start, span = shard * self.shard_size, self.span(shard)
        firsts = range(start + (span.start - start) // size * size, span.stop, size)
        return [range(first, first + size) for first in firsts]

    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "format": FORMAT,
            "first": self.first,
            "count": self.count,
            "shard_size": self.shard_size,
            "batch_size": self.batch_size,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class Record:
    """What is known of a complete shard.

    Args:
        files: the length and the SHA-256 of each of its files.
        batch_size: with which it was made.
        failures: the samples that failed: index, seed, time and reason.
    """

    files: Mapping[str, tuple[int, str]]
    batch_size: int
    failures: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.files or any(name != Path(name).name for name in self.files):
            raise ValueError("it must have files, which are in the folder of the shards")


class Store:
    """The folder of a set.

    Args:
        folder: of the set.
        plan: of the set.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plan = SetPlan({}, first=0, count=5, shard_size=3, batch_size=2)
        ...     store = Store.begin(Path(folder, "set"), plan)
        ...     store.write(1, {"00000001.txt": b"34"}, batch_size=2)
        ...     [store.record(shard) is not None for shard in plan.shards]
        [False, True]
    """

    def __init__(self, folder: Path, plan: SetPlan) -> None:
        self.folder, self.plan = folder, plan

    @classmethod
    def begin(
        cls, folder: Path, plan: SetPlan, *, extend: bool = False, continuing: Callable[[], None] = lambda: None
    ) -> Store:
        """The folder of a new set, or of one that is to be continued. Where ``set.json`` is missing or damaged, it is
        written again if nothing else is there, or if all records say that they are of this set. Before a set is
        continued, ``continuing`` is called.

        Raises:
            InvalidArgumentError: the folder has another set, or a smaller one without ``extend``.
            CorruptCheckpointError: it has a set, but no description of it.
            OutputError: the folder has other files, or cannot be written.
        """
        path = folder / _SET
        with writable(folder):
            make_folder(folder)
            begun = path.exists() or (folder / _RECORDS).is_dir()
            try:
                store = cls.of(folder)
            except CorruptCheckpointError:
                if cls(folder, plan)._fits():
                    write_bytes(path, sealed(plan.fields()))  # first of all: a kill leaves this or an empty folder
                elif not path.exists():
                    text = "The folder has files that are no set; give another one"
                    raise OutputError(errno.EEXIST, text, str(folder)) from None
                store = cls.of(folder)  # which another process may have begun at the same time
        plan = _continued(store.plan, plan, folder, extend)
        if begun:
            continuing()
        if plan.fields() != store.plan.fields():
            write_bytes(path, sealed(plan.fields()))
        return cls(folder, plan)

    def _fits(self) -> bool:
        """Whether a folder that does not say what it is may be one of this set."""
        others = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        folders = {path.relative_to(self.folder).parts[0] for path in others} - {_SET, _LEASES}
        if not folders:
            return True
        found = set()
        for path in (self.folder / _RECORDS).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                record, shard = opened(path.read_bytes()), int(path.name.partition(".")[0])
                span = self.plan.span(shard)
                # Of a batch size, which has no range, the set and the shard count.
                same = (record.get("first", span.start), record.get("count", len(span))) == (span.start, len(span))
                known = record.get("identity") in (None, self.plan.settings.get("identity"))
                found.add(record["set"] if same and known and shard in self.plan.shards else None)
        return folders <= {_SHARDS, _RECORDS} and found == {self.plan.digest}

    @classmethod
    def of(cls, folder: Path) -> Store:
        """The folder of a set that is there.

        Raises:
            CorruptCheckpointError: what it is cannot be read.
        """
        path = folder / _SET
        if not path.is_file() and not (folder / _RECORDS).is_dir():
            raise CorruptCheckpointError(f"There is no set in {str(folder)!r}.")
        try:
            found = opened(path.read_bytes())
            if found.pop("format") != FORMAT:
                raise ValueError("it is of another version of scoresde")
            plan = read_as(SetPlan, found, "content")
        except (OSError, ValueError, KeyError, OverflowError) as error:
            raise CorruptCheckpointError(f"{str(path)!r} does not say what the set is: {error}") from None
        for name in (_SHARDS, _RECORDS):
            make_folder(folder / name)
        return cls(folder, plan)

    @property
    def leases(self) -> Path:
        """The folder of leases."""
        return self.folder / _LEASES

    def file(self, name: str) -> Path:
        """A file of a shard."""
        return self.folder / _SHARDS / name

    def batch_size(self, shard: int) -> int:
        """Of a shard: that of the set, or what was left of it when memory did not suffice."""
        try:
            found = opened(self._halved(shard).read_bytes())
            size = read_as(int, found["batch_size"], "batch_size")
        except (OSError, ValueError, KeyError):
            return self.plan.batch_size
        known = found.get("set") == self.plan.digest and 0 < size < self.plan.batch_size
        return int(size) if known else self.plan.batch_size

    def halve(self, shard: int, size: int) -> None:
        """Say that a shard is to be made with batches of this size, before it is made; those of another process that
        had still less memory stay."""
        size = min(size, self.batch_size(shard))
        self._write({self._halved(shard): sealed({"set": self.plan.digest, "batch_size": size})})

    def write(
        self,
        shard: int,
        contents: Mapping[str, bytes],
        *,
        batch_size: int,
        failures: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        """Write the files of a shard, and then its record."""
        span = self.plan.span(shard)
        files = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in contents.items()}
        self._write({self.file(name): content for name, content in contents.items()})
        record = {
            "format": FORMAT,
            "set": self.plan.digest,
            "identity": self.plan.settings.get("identity"),
            "first": span.start,
            "count": len(span),
            "batch_size": batch_size,
            "files": files,
            "failures": list(failures),
        }
        self._write({self._record(shard): sealed(record)})

    def record(self, shard: int, *, content: bool = False) -> Record | None:
        """The record of a shard that is there; None where it must be made: there is no record, or it is damaged, or of
        another range or batch size, or a file of it is missing or has another length.

        Args:
            shard: its number.
            content: also read the files, and compare their SHA-256.
        """
        span = self.plan.span(shard)
        try:
            found = opened(self._record(shard).read_bytes())
            wanted = (FORMAT, self.plan.digest, span.start, len(span), self.batch_size(shard))
            if wanted != tuple(found[name] for name in ("format", "set", "first", "count", "batch_size")):
                return None
            record = read_as(Record, {name: found[name] for name in ("files", "batch_size", "failures")}, "record")
            for failure in record.failures:
                read = {name: read_as(kind, failure[name], name) for name, kind in _FAILURE.items()}
                if read["index"] not in span:
                    return None
            for name, (size, digest) in record.files.items():
                path = self.file(name)
                if path.stat().st_size != size or (content and file_digest(path) != digest):
                    return None
            return record
        except (OSError, ValueError, KeyError):
            return None

    def read(self) -> Iterator[tuple[int, Record | None]]:
        """Each shard with its record, as `record` finds it when the files are read, several at once."""
        shards = self.plan.shards
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(shards), _AT_ONCE):
                some = shards[start : start + _AT_ONCE]
                yield from zip(some, pool.map(lambda shard: self.record(shard, content=True), some), strict=True)

    def recorded(self) -> list[int]:
        """The shards that have a record, by the names of the files alone: how far the set is."""
        names = (path.name for path in (self.folder / _RECORDS).glob("[0-9]*.json"))
        found = {int(number) for number, _, rest in (name.partition(".") for name in names) if rest == "json"}
        return sorted(found.intersection(self.plan.shards))

    def abandon(self) -> None:
        """Remove a set of which nothing is there yet."""
        if not self.recorded() and not any((self.folder / _SHARDS).iterdir()):
            self.clean()
            (self.folder / _SET).unlink(missing_ok=True)
            for path in (*self.folder.glob(f"{_RECORDS}/*.batch.json"), self.folder / _SHARDS, self.folder / _RECORDS):
                with contextlib.suppress(OSError):
                    path.unlink() if path.is_file() else path.rmdir()
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def clean(self) -> None:
        """Remove the leases and what killed processes left; for a complete set, of which slower processes may be at
        work on shards that are there already: see `_write`."""
        shutil.rmtree(self.leases, ignore_errors=True)
        for folder in (self.folder / _SHARDS, self.folder / _RECORDS, self.folder):
            for path in list(folder.glob(".*.tmp")):
                path.unlink(missing_ok=True)

    def _write(self, contents: dict[str | os.PathLike[str], bytes]) -> None:
        """Write files, once more if another process that had completed the set removed them under their first names."""
        try:
            write_together(contents)
        except OutputError as error:
            if error.errno != errno.ENOENT:
                raise
            write_together(contents)

    def _record(self, shard: int) -> Path:
        return self.folder / _RECORDS / f"{shard:08d}.json"

    def _halved(self, shard: int) -> Path:
        return self.folder / _RECORDS / f"{shard:08d}.batch.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slowly(file)


def _slowly(file: Any) -> str:
    total = hashlib.sha256()
    while block := file.read(2**20):
        total.update(block)
    return total.hexdigest()


def _differs(name: str, old: object, new: object) -> str:
    """Say in words how a setting differs."""
    if name in _DIGESTS and all(isinstance(value, str) and len(value) == _LENGTH for value in (old, new)):
        return f"its {_DIGESTS[name]} are not the same"
    return f"its {name} is {short(old)}, not {short(new)}"


def _continued(known: SetPlan, plan: SetPlan, folder: Path, extend: bool) -> SetPlan:
    """The plan of a set that is there, if that is the requested one."""
    old, new = known.fields(), plan.fields()
    old.update(old.pop("settings"))
    new.update(new.pop("settings"))
    if old.get("identity") is None and "identity" in new:  # it vouches for a set without one
        old["identity"] = new["identity"]
        known = replace(known, settings={**known.settings, "identity": old["identity"]})
    sizes = ("first", "count")
    differ = [name for name in sorted({*old, *new} - {*sizes}) if old.get(name) != new.get(name)]
    if differ:
        named = "; ".join(_differs(name, old.get(name), new.get(name)) for name in differ)
        raise InvalidArgumentError(
            f"{str(folder)!r} has another set: {named}. Continue it with its own settings, or give another folder."
        )
    if all(old[name] == new[name] for name in sizes):
        return known
    there = f"{str(folder)!r} has {old['count']} samples from {old['first']} on"
    if new["first"] > old["first"] or old["first"] + old["count"] > new["first"] + new["count"]:
        raise InvalidArgumentError(f"A set can only become larger: {there}.")
    if not extend:
        raise InvalidArgumentError(
            f"{there}, not {new['count']} from {new['first']} on; `extend` (extend=True, --extend) makes it larger."
        )
    return replace(known, first=new["first"], count=new["count"])
