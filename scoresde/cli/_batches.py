"""Work on samples batch by batch, with a progress bar, in the batches that memory allows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..core.errors import out_of_memory, too_little_memory

T = TypeVar("T")
Show = Callable[[float], None]  # called with the share of a batch that is done


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
