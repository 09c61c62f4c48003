"""Sets of samples in a folder, as ``scoresde sample`` makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._registries import ARRAY_CONTAINERS, CONTAINERS
from ..errors import InvalidArgumentError, check_choice
from ._output import FOLDER

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..integrate import Info, Solution

SHARD = 1024  # samples
SET = "set.json"  # the file that says that a folder is a set
_PATIENCE = 120.0  # seconds


def check_set(out: str, container: str | None, force: bool, scale: int | None, animate: Path | None, tune: bool) -> str:
    """The container of a set; what does not go with one is refused."""
    container = check_choice("format", container or ARRAY_CONTAINERS[0], CONTAINERS)
    if Path(out).suffix and not out.endswith(FOLDER):
        raise InvalidArgumentError(f"`out` must be a folder for a set, such as {Path(out).stem}/, got {out!r}.")
    for name, given in (("force", force), ("scale", scale is not None), ("animate", animate is not None)):
        if given:
            raise InvalidArgumentError(f"`{name}` is not for sets; leave --{name} out.")
    if tune:
        raise InvalidArgumentError(
            "`tune` is not for sets, which every process would tune for; tune once, --tune --count 1 --save-tuned "
            "FILE.json, and give --method FILE.json."
        )
    return container


def make_set(
    folder: Path,
    settings: Mapping[str, Any],
    sizes: Mapping[str, int],
    run: Callable[..., Solution],
    device: torch.device,
    extend: bool,
    data_range: tuple[float, float],
    max_failures: float,
    labels: Callable[[int, int], Any],
    title: str | None,
) -> str:
    """Make a set, with a bar in the first process.

    Args:
        folder: of the set.
        settings: what decides the samples.
        sizes: first, count, shard_size, batch_size.
        run: ``(first, count, callback, throw=False) -> solution``.
        device: of the states.
        extend, data_range, max_failures: as of `scoresde.generate`.
        labels: ``(first, count)`` of the samples: their classes, kept where they are a tensor.
        title: of the bar; None for no bar.

    Returns:
        A sentence that says how many shards there are, and how many of them were made now.
    """
    from tqdm import tqdm

    from ..files.shards import Plan, Store
    from ..generation.making import place
    from ..generation.sets import fill, machine

    sizes = {**sizes, "batch_size": min(sizes["batch_size"], sizes["shard_size"])}
    store = Store.begin(folder, Plan({**settings, **machine(device)}, **sizes), extend=extend)

    def solved(indices: range, beat: Callable[[], None]) -> tuple[Solution, Mapping[str, np.ndarray]]:
        def going(info: Info) -> None:
            beat()

        classes = labels(indices.start, len(indices))
        beside = {"label": classes.numpy()} if hasattr(classes, "numpy") else {}
        return run(indices.start, len(indices), going, throw=False), beside

    hidden = True if title is None or place()[0] else None  # None: off where standard error is no terminal
    with tqdm(total=store.plan.count, desc=title, file=sys.stderr, disable=hidden, unit="sample") as bar:

        def show(done: int) -> None:
            bar.n = done
            bar.refresh()

        made = fill(
            store, solved, settings["container"], data_range=data_range, max_failures=max_failures, patience=_PATIENCE,
            show=show,
        )  # fmt: skip
    failed = f", {len(made.failures)} samples failed" if made.failures else ""
    return f"{folder}: {made.shards} shards, {made.made} of them made now{failed}"
