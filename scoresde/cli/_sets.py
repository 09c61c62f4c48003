"""Sets of results in a folder, as ``scoresde sample``, ``likelihood`` and ``encode`` make them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import InvalidArgumentError, NonFiniteError, OutputError, SolveFailedError, check_choice
from ..core.support.files.locks import owned
from ..core.support.registries import ARRAY_CONTAINERS
from ._output import FOLDER, check_output

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..core.solution import Info
    from ..sets import Batch, Generated

SHARD = 1024  # samples
SET = "set.json"  # the file that says that a folder is a set
PATIENCE = 120.0  # seconds
_NAMED = 8  # letters of a digest
_WORST = 5  # failures that a message names

Show = Callable[[float], None]
Solved = Callable[["Batch", Show], "tuple[Mapping[str, Tensor], Tensor | None]"]


class Sharding(NamedTuple):
    """The options of a set.

    Attributes:
        shard_size, container, max_failures, patience, extend: as of `scoresde.generate`.
    """

    shard_size: int | None
    container: str | None
    patience: float
    max_failures: float = 0.0
    extend: bool = False

    @property
    def wanted(self) -> bool:
        """Whether there is to be a set."""
        return self.shard_size is not None or self.container is not None


def check_set(out: str, sharding: Sharding, containers: Iterable[str], **given: object) -> str:
    """The container of a set; what does not go with one is refused.

    Args:
        out: the folder.
        sharding: the options of the set.
        containers: that the command has.
        **given: options that are not for sets.
    """
    container = check_choice("format", sharding.container or ARRAY_CONTAINERS[0], containers)
    if Path(out).suffix and not out.endswith(FOLDER):
        raise InvalidArgumentError(f"`out` must be a folder for a set, such as {Path(out).stem}/, got {out!r}.")
    for name, value in given.items():
        if value:
            raise InvalidArgumentError(f"`{name}` is not for sets; leave --{name} out.")
    return container


def check_file(out: str | Path, sharding: Sharding, need: str = "--shard-size or --format") -> None:
    """Refuse options of sets where there is none, the folder of a set, and several processes with one file."""
    from ..sets.making import place

    if sharding.extend or sharding.max_failures:
        raise InvalidArgumentError(f"`extend` and `max-failures` are for sets; give {need}, too.")
    if sharding.patience != PATIENCE:
        raise InvalidArgumentError(f"`patience` is for sets; give {need}, too.")
    if Path(out, SET).exists():
        raise InvalidArgumentError(
            f"`out`: {str(out)!r} is a set; continue it with its --shard-size, or take another --out."
        )
    rank, world = place()
    if world > 1:
        raise InvalidArgumentError(
            f"`out`: {world} processes, of which this is number {rank}, cannot write one output together; make a set, "
            f"--out FOLDER/ with {need}."
        )


def check_output_of_data(
    out: str, sharding: Sharding, formats: Sequence[str], *, force: bool, replaced: bool = False
) -> tuple[Path, str]:
    """Where the output of a command for data will be and its format: `FOLDER` for a set.

    Args:
        out: as the user wrote it.
        sharding: the options of a set.
        formats: of other outputs.
        force: as the user said; it is not for sets.
        replaced: whether the command itself knows what to do with an output that is there.
    """
    if sharding.wanted:
        check_set(out, sharding, ARRAY_CONTAINERS, force=force)
        return Path(out), FOLDER
    check_file(out, sharding._replace(max_failures=0.0))
    if out.endswith(FOLDER):
        raise InvalidArgumentError(f"`out`: {out!r} is a folder, for a set; give --shard-size or --format, too.")
    return check_output(out, formats, force=force or replaced)


def make_set(
    folder: Path,
    settings: Mapping[str, Any],
    sizes: Mapping[str, int],
    solved: Solved,
    device: torch.device,
    sharding: Sharding,
    *,
    data_range: tuple[float, float] = (-1.0, 1.0),
    title: str | None,
) -> Generated:
    """Make a set, with a bar in the first process.

    Args:
        folder: of the set.
        settings: what decides the results.
        sizes: first, count, batch_size and, where it is not that of ``sharding``, shard_size.
        solved: the arrays of a batch and the times at which its samples ended; its second argument shows how much of
            the batch is done.
        device: of the states.
        sharding: the options of the set.
        data_range: the values of black and white, of pictures.
        title: of the bar; None for no bar.
    """
    from tqdm import tqdm

    from ..core.support.files.shards import SetPlan, Store
    from ..sets.computing import Manner, fill, machine
    from ..sets.computing import sizes as divided
    from ..sets.making import place

    shard_size = sizes.get("shard_size", sharding.shard_size or SHARD)
    plan = SetPlan(
        {**settings, **machine(device)},
        **divided(sizes["first"], sizes["count"], shard_size, sizes["batch_size"]),
    )
    manner = Manner(sharding.max_failures, sharding.patience)
    store = Store.begin(folder, plan, extend=sharding.extend)
    hidden = True if title is None or place()[0] else None  # None: off where standard error is no terminal
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


def leads() -> bool:
    """Whether this is the first of the processes that torchrun has started, which speaks for all."""
    from ..sets.making import place

    return place()[0] == 0


def made_of(made: Generated, out: object) -> str:
    """Return a sentence that says what the folder has now."""
    failed = f"; failed samples: {len(made.failures)}" if made.failures else ""
    return f"{out}: shards: {made.shards}, of which {made.made} were made now{failed}"


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
    from ..sets.computing import machine

    told = json.dumps([settings, machine(device), dict(sizes)], sort_keys=True).encode()
    parts = parts_of(target)
    folder = parts / hashlib.sha256(told).hexdigest()[:_NAMED]
    with _alone(parts, target):
        try:
            sharding = Sharding(sizes["batch_size"], ARRAY_CONTAINERS[0], PATIENCE)
            whole = {**settings, "container": ARRAY_CONTAINERS[0]}
            make_set(folder, whole, sizes, solved, device, sharding, title=title)
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
