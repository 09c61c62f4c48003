"""``scoresde encode``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import SolveFailedError
from ._data import ModelDataOptions, NamedDataOptions, Rows
from ._options import Opened, SolveOptions, SolvePlan, check_named, effort, follow, sample_seeds, source_of, weights_of
from ._output import ARRAYS, write_arrays
from ._run import command, flag
from ._sets import ManyOptions, Show, batches, both, check_failures

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..core.solution import Info, Solution
    from ..sets import Batch


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(NamedDataOptions, ModelDataOptions, SolveOptions, ManyOptions):
    """The options of ``scoresde encode``."""

    method: str = flag("adams", "Deterministic solver; see `scoresde methods`.")
    batch_size: int = 256
    out: str = flag(
        "latents.npz",
        f"Output file; its extension determines its format: {', '.join(ARRAYS)}. A set has a folder.",
        metavar="FILE or FOLDER/",
    )
    force: bool = flag(False, "Replace an existing output.", "--force")


@command
def encode(options: EncodeOptions) -> None:
    """Compute latents of data: the states at the noise end of a model's probability flow.

    The output has the arrays latent, index (of the sample in DATA) and nfe, with the settings as metadata. The file is
    written as a whole, and an existing file is kept unless --force is given. Samples that fail are left out, and the
    exit code is then 3.

    With --shard-size or --format the output is a set in a folder, as `scoresde sample` makes it. It has all samples;
    those that fail are NaN and have a status.
    """
    source = options.source
    check_named(options.method)
    plan = options.plan(options.method)
    opened = options.opened()
    target, extension = options.target(ARRAYS, force=options.force)
    latents = _Latents(options, plan, opened, options.read(opened, source))
    if options.in_set:
        latents.into_set()
    else:
        latents.into_file(target, extension)


@dataclass(frozen=True)
class _Latents:
    """Latents of data, batch by batch."""

    options: EncodeOptions
    plan: SolvePlan
    opened: Opened
    rows: Rows

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        options = self.options
        told = {**self.plan.shown, "grid": options.grid, **options.accuracy, "seed": options.seed}
        return options.settings(self.rows, self.opened, **told)

    @property
    def title(self) -> str:
        """What is solved."""
        return f"{self.opened.title}, {self.options.method}"

    def of(self, rows: Tensor, first: int, show: Show | None, beat: Callable[[Info], object] | None = None) -> Solution:
        """Those of some of the data, the first of which is the sample ``first``."""
        from ..core.latents import encode

        shown = follow(show, self.plan.solver, self.opened.process, self.plan.steps, encodes=True)
        x = self.rows.inputs.rows(rows, sample_seeds(self.options.seed, first, len(rows))).to(self.opened.device)
        return encode(
            self.opened.process,
            self.rows.score_fn,
            x,
            context=self.rows.context(rows),
            callback=shown if beat is None else both(beat, shown),
            throw=False,
            **self.plan.told,
            **self.options.accuracy,
        )

    def into_set(self) -> None:
        """Write them into a set."""
        options, names = self.options, self.rows.data.names

        def solved(batch: Batch, show: Show) -> tuple[dict[str, Tensor], Tensor]:
            found = self.of(batch.indices % len(names), int(batch.indices[0]), show, batch.callback)
            return {"latent": found.x, "nfe": found.nfe, "status": found.status}, found.t

        settings = {**self.settings, "weights": weights_of(self.opened.network)}
        bar = f"{options.method} ({self.opened.title})"
        made = options.make(settings, solved, self.opened, len(names), title=bar)
        options.say(f"{len(names)} latents under {options.model}: {self.title}\n{options.made(made)}")
        check_failures(made, names, options.out)

    def into_file(self, target: Path, extension: str) -> None:
        """Write those that succeed into a file."""
        import torch

        options, names = self.options, self.rows.data.names
        num, size = len(names), min(options.batch_size, len(names))

        def run(first: int, count: int, show: Show | None) -> Solution:
            return self.of(torch.arange(first, first + count), first, show)

        with self.opened.threads(size):
            bar = f"{options.method} ({self.opened.title})"
            solutions = list(batches(run, num, size, bar, options.quiet))
        latent, nfe = (torch.cat([getattr(s, name).cpu() for s in solutions]) for name in ("x", "nfe"))
        good = torch.cat([s.success for s in solutions])
        index, failures = good.nonzero()[:, 0], (~good).nonzero()[:, 0].tolist()
        worst = ", ".join(names[i] for i in failures[:5]) + ", ..." * (len(failures) > 5)
        failed = f"{len(failures)} of {num} samples failed: {worst}"
        if not len(index):
            raise SolveFailedError(f"{failed}. Nothing was written.")
        metadata = {**self.settings, "model": source_of(self.opened.network, options.model), "names": names}
        what = write_arrays(target, extension, {"latent": latent[good], "index": index, "nfe": nfe[good]}, metadata)
        took = effort(self.plan, nfe.tolist())
        options.say(f"{len(index)} latents under {options.model}: {self.title}, {took}")
        options.say(f"{options.out}: {what}; {options.took}")
        if failures:
            raise SolveFailedError(f"{failed}. {options.out!r} is without them.")
