"""Many samples: in batches with a progress bar, and in sets in a folder, as ``scoresde sample``, ``likelihood`` and
``encode`` make them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import (
    InvalidArgumentError,
    NonFiniteError,
    OutputError,
    SolveFailedError,
    check_choice,
    out_of_memory,
    too_little_memory,
)
from ..core.support.files.locks import owned
from ..core.support.registries import ARRAY_CONTAINERS
from ._options import MethodOptions, Opened
from ._output import FOLDER, check_output
from ._run import flag, leads

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..core.solution import Info
    from ..sets import Batch, Generated
    from ..sets.computing import Manner

SHARD = 1024  # samples
SET = "set.json"  # the file by which a folder is a set
PATIENCE = 120.0  # seconds
_NAMED = 8  # letters of a digest
_WORST = 5  # failures that a message names

T = TypeVar("T")
Show = Callable[[float], None]  # called with the share of a batch that is done
Solved = Callable[["Batch", Show], "tuple[Mapping[str, Tensor], Tensor | None]"]


def container_flag(names: Iterable[str], more: str = "") -> Any:
    """The option ``--format`` of a command that has some containers."""
    return flag(
        None,
        f"Write a set into the folder --out, in files of this kind: {', '.join(names)}{more}. Default: "
        f"{ARRAY_CONTAINERS[0]}.",
        "--format",
        names=names,
    )


@dataclass(frozen=True, kw_only=True)
class ManyOptions(MethodOptions):
    """Where many samples go: into one file or, in shards, into a set."""

    max_steps: int | None = flag(None, "Largest number of steps of an adaptive method.")
    out: str = ""
    shard_size: int | None = flag(
        None,
        "Write a set into the folder --out, with so many samples in a shard (default 1024). The same command "
        "continues it, in as many processes as torchrun starts.",
        min=1,
    )
    container: str | None = container_flag(ARRAY_CONTAINERS)
    patience: float = flag(
        PATIENCE, "Seconds after which a process takes over a shard that makes no progress elsewhere.", min=0.0
    )

    @property
    def in_set(self) -> bool:
        """Whether there is to be a set."""
        return self.shard_size is not None or self.container is not None

    @property
    def accuracy(self) -> dict[str, Any]:
        """The tolerances, and the steps that they may take."""
        return {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}

    def target(self, formats: Sequence[str], *, force: bool, replaced: bool = False) -> tuple[Path, str]:
        """Where the output of a command for data will be and its format: `FOLDER` for a set.

        Args:
            formats: of other outputs.
            force: as the user said; it is not for sets.
            replaced: whether the command itself handles an output that is there.
        """
        if self.in_set:
            self.check_set(ARRAY_CONTAINERS, force=force)
            return Path(self.out), FOLDER
        self.check_file()
        if self.out.endswith(FOLDER):
            raise InvalidArgumentError(
                f"`out`: {self.out!r} is a folder, for a set; give --shard-size or --format, too."
            )
        return check_output(self.out, formats, force=force or replaced)

    def check_set(self, containers: Iterable[str], **given: object) -> str:
        """The container of a set; options that are given and do not go with one are refused."""
        container = check_choice("format", self.container or ARRAY_CONTAINERS[0], containers)
        if Path(self.out).suffix and not self.out.endswith(FOLDER):
            example = f"{Path(self.out).stem}/"
            raise InvalidArgumentError(f"`out` must be a folder for a set, such as {example}, got {self.out!r}.")
        for name, value in given.items():
            if value:
                raise InvalidArgumentError(f"`{name}` is not for sets; leave --{name} out.")
        return container

    def check_file(self) -> None:
        """Refuse options of sets where there is none, the folder of a set, and several processes with one file."""
        from ..sets.making import place

        if self.patience != PATIENCE:
            raise InvalidArgumentError("`patience` is for sets; give --shard-size or --format, too.")
        if Path(self.out, SET).exists():
            raise InvalidArgumentError(
                f"`out`: {self.out!r} is a set; continue it with its --shard-size, or take another --out."
            )
        rank, world = place()
        if world > 1:
            raise InvalidArgumentError(
                f"`out`: {world} processes, of which this is number {rank}, cannot write one output together; make a "
                "set, --out FOLDER/ with --shard-size or --format."
            )

    def make(
        self,
        settings: Mapping[str, Any],
        solved: Solved,
        opened: Opened,
        count: int,
        *,
        title: str,
        first: int = 0,
        extend: bool = False,
        max_failures: float = 1.0,
        data_range: tuple[float, float] = (-1.0, 1.0),
    ) -> Generated:
        """Make a set of results, with a bar in the first process; see `make_set`."""
        from ..sets.computing import Manner

        sizes = {"first": first, "count": count, "batch_size": self.batch_size, "shard_size": self.shard_size or SHARD}
        whole = {**settings, "container": self.container or ARRAY_CONTAINERS[0]}
        manner = Manner(max_failures, self.patience)
        bar = None if self.quiet else title
        with opened.threads(self.batch_size):
            return make_set(
                Path(self.out), whole, sizes, solved, opened.device, manner, bar, extend=extend, data_range=data_range
            )

    def made(self, made: Generated) -> str:
        """Return a sentence about what the folder has now."""
        failed = f"; failed samples: {len(made.failures)}" if made.failures else ""
        return f"{self.out}: shards: {made.shards}, of which {made.made} were made now{failed}; {self.took}"


def batches(
    run: Callable[[int, int, Show | None], T], num: int, size: int, title: str, quiet: bool, done: int = 0
) -> Iterator[T]:
    """The results of ``run(first, count, show)`` for the samples from ``done`` to ``num``.

    A batch that does not fit into memory is tried again in halves, and so are those after it. None reaches over a
    multiple of ``size``, so that work which is taken up again at one has the same batches.

    Example:
        >>> list(batches(lambda first, count, show: (first, count), 7, 3, "", True))
        [(0, 3), (3, 3), (6, 1)]
    """
    from tqdm import tqdm

    block = size
    with tqdm(
        total=num,
        desc=title,
        file=sys.stderr,
        disable=True if quiet else None,  # None: off where standard error is no terminal
        bar_format="{desc} {bar} {percentage:3.0f}% [{elapsed}<{remaining}]",
    ) as bar:

        def show(share: float) -> None:
            bar.n = done + count * min(share, 1.0)
            bar.refresh()

        while done < num:
            count = min(size, block - done % block, num - done)
            try:
                result = run(done, count, None if bar.disable else show)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if count == 1:
                    raise too_little_memory("for one sample", error) from error
                size = count // 2
                tqdm.write(f"Too little memory; continuing in batches of {size}.", file=sys.stderr)
                continue
            done += count
            bar.n = done
            bar.refresh()
            yield result


def make_set(
    folder: Path,
    settings: Mapping[str, Any],
    sizes: Mapping[str, int],
    solved: Solved,
    device: torch.device,
    manner: Manner,
    title: str | None,
    *,
    extend: bool = False,
    data_range: tuple[float, float] = (-1.0, 1.0),
) -> Generated:
    """Make a set, with a bar in the first process.

    Args:
        folder: of the set.
        settings: what decides the results.
        sizes: first, count, batch_size and shard_size.
        solved: the arrays of a batch and the times at which its samples ended; its second argument shows how much of
            the batch is done.
        device: of the states.
        manner: how to go on after failures, and beside other processes.
        title: of the bar; None for no bar.
        extend: whether a set that is there may become larger.
        data_range: the values of black and white, of pictures.
    """
    from tqdm import tqdm

    from ..core.support.files.shards import SetPlan, Store
    from ..sets.computing import fill, machine
    from ..sets.computing import sizes as divided

    ranges = divided(sizes["first"], sizes["count"], sizes["shard_size"], sizes["batch_size"])
    store = Store.begin(folder, SetPlan({**settings, **machine(device)}, **ranges), extend=extend)
    hidden = None if title is not None and leads() else True  # None: off where standard error is no terminal
    with tqdm(total=store.plan.count, desc=title, file=sys.stderr, disable=hidden, unit="sample") as bar:
        done = 0

        def show(samples: float) -> None:
            bar.n = min(samples, bar.total)
            bar.refresh()

        def complete(samples: int) -> None:
            nonlocal done
            done = samples
            show(samples)

        def shown(batch: Batch) -> tuple[Mapping[str, Tensor], Tensor | None]:
            return solved(batch, lambda share: show(done + len(batch.indices) * min(share, 1.0)))

        seen = None if bar.disable else complete
        try:
            return fill(store, shown, replace(manner, show=seen), data_range)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Interrupted; what is complete is kept in {folder}, and the same command goes on with it."
            ) from None


def check_failures(made: Generated, names: Sequence[str], out: object) -> None:
    """Say which samples of a set of data failed, if any did.

    Raises:
        SolveFailedError: some did.
    """
    if made.failures:
        worst = ", ".join(f"{names[f['index']]} ({f['reason']})" for f in made.failures[:_WORST])
        raise SolveFailedError(
            f"{len(made.failures)} of {made.count} samples failed: {worst}{', ...' * (len(made.failures) > _WORST)}. "
            f"They are in {str(out)!r} with their status."
        )


@contextlib.contextmanager
def in_parts(
    target: Path,
    settings: Mapping[str, Any],
    sizes: Mapping[str, int],
    solved: Solved,
    device: torch.device,
    title: str | None,
) -> Iterator[dict[str, Tensor]]:
    """The arrays of all samples, made batch by batch into a folder beside the target, from which the same command goes
    on. The folder is removed when the block has ended, and after a sample has failed, which it would do again.
    """
    from ..sets import Samples
    from ..sets.computing import Manner, machine

    told = json.dumps([settings, machine(device), dict(sizes)], sort_keys=True).encode()
    parts = parts_of(target)
    folder = parts / hashlib.sha256(told).hexdigest()[:_NAMED]
    with _alone(parts, target):
        try:
            whole = {**settings, "container": ARRAY_CONTAINERS[0]}
            make_set(folder, whole, sizes, solved, device, Manner(0.0, PATIENCE), title)
        except (NonFiniteError, SolveFailedError, InvalidArgumentError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield Samples(folder, check=False).all()
        shutil.rmtree(folder)


def parts_of(target: Path) -> Path:
    """The folder of the parts of an output.

    Example:
        >>> parts_of(Path("samples.npz")).name
        'samples.npz.parts'
    """
    return target.with_name(f"{target.name}.parts")


def clear_parts(target: Path) -> None:
    """Remove what an earlier command has left that wanted to write an output, which is there now."""
    parts = parts_of(target)
    if parts.is_dir():
        with contextlib.suppress(OutputError), _alone(parts, target):
            for path in [path for path in parts.iterdir() if path.is_dir()]:
                shutil.rmtree(path)


@contextlib.contextmanager
def _alone(parts: Path, target: Path) -> Iterator[None]:
    """Hold a folder of parts; it is removed in the end if nothing is in it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(owned(parts))
        except OutputError as error:
            if error.errno != errno.EBUSY:
                raise
            text = "Another command makes this output; let it finish, or give another --out"
            raise OutputError(errno.EBUSY, text, str(target)) from None
        yield
    with contextlib.suppress(OSError):
        parts.rmdir()


def both(beat: Callable[[Info], object], show: Callable[[Info], None] | None) -> Callable[[Info], None]:
    """One callback of two."""

    def called(info: Info) -> None:
        beat(info)
        if show is not None:
            show(info)

    return called
