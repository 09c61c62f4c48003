"""``scoresde verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import CorruptCheckpointError
from ._parameters import Quiet
from ._run import command

_NAMED = 10  # shards that a message names


@command
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a set, as `scoresde sample --shard-size` makes it.")],
    quiet: Quiet = False,
) -> None:
    """Read all of a set of samples, and say whether everything is there, as it was made.

    The exit code is 0 if it is, and 5 if a shard is missing or damaged; the command that made the set makes it again.
    """
    from ..sets import verify as look

    found = look(folder)
    if found.missing:
        named = ", ".join(map(str, found.missing[:_NAMED])) + ", ..." * (len(found.missing) > _NAMED)
        raise CorruptCheckpointError(
            f"{len(found.missing)} shards of {str(folder)!r} are missing or damaged: {named}. Run "
            f"the command again that made the set."
        )
    if not quiet:
        failed = f"; {len(found.failures)} samples failed" if found.failures else ""
        typer.echo(f"{folder}: all {found.count} samples are there{failed}")
