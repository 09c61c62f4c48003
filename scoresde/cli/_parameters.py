"""Options that several commands share, and how the shell completes names: from tables that import nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from ..core.support.registries import ARRAY_CONTAINERS, GRIDS, SDES, shipped


def names(*tables: Iterable[str]) -> Callable[[str], list[str]]:
    """The completion of an option that takes a name from some tables.

    Example:
        >>> names(["vp", "ve"], ["flow"])("v")
        ['vp', 've']
    """

    def complete(incomplete: str) -> list[str]:
        return [name for table in tables for name in table if name.startswith(incomplete)]

    return complete


DATA_HELP = (
    "A .npz, .npy or .safetensors file, samples first; an image, or a folder of images in the order of their names; "
    "or digits, the held-out digits that the shipped model was not trained on. Integers are grey levels; "
    "floating-point numbers are used unchanged."
)

Data = Annotated[str | None, typer.Option("--data", help=DATA_HELP)]
DataArgument = Annotated[str | None, typer.Argument(metavar="DATA", help="The same as --data.")]
Key = Annotated[str | None, typer.Option(help="Name of the array in the file; default x, or the only array.")]
Levels = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Grey levels of integer data, 0 to LEVELS - 1, which are dequantised; default 256 for images, 17 for "
        "digits. For floating-point data: the grey levels before dequantisation.",
    ),
]
DataRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        help="Range of the model's data, from the darkest cell to the brightest; default the model's own, or -1 1.",
    ),
]
MODEL = typer.Option(
    "--model",
    help="Name of a shipped model, directory of a saved model, or hf:owner/name@revision.",
    autocompletion=names(shipped()),
)
Model = Annotated[str, MODEL]
Process = Annotated[
    str | None,
    typer.Option(
        "--sde",
        help=f"Forward process: {', '.join(SDES)}. Default: the process that the model was trained on. A model that "
        "serves every process, such as mnist, is on vp, but its own sampler, the default of `sample`, is on edm.",
        autocompletion=names(SDES),
    ),
]
Label = Annotated[int | None, typer.Option(help="Class of all samples; default: no class.")]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of the array in the file with the class of each sample: label for digits and MNIST; folders for a "
        "folder with a folder of images for each class of the model, in the order of their names (10 before 2).",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed; sample i depends on the seed and on i alone, not on the batch.")]
Device = Annotated[
    str, typer.Option(help="Device: auto, cpu, cuda, cuda:1, ...", autocompletion=names(("auto", "cpu", "cuda")))
]
Steps = Annotated[int | None, typer.Option(help="Steps of a fixed-step method; default 500 for pc, 50 for others.")]
Rtol = Annotated[float | None, typer.Option(help="Relative tolerance of an adaptive method.")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance of an adaptive method.")]
MaxSteps = Annotated[int | None, typer.Option(help="Largest number of steps of an adaptive method.")]
Grid = Annotated[
    str | None,
    typer.Option(help=f"Grid of a fixed-step method: {', '.join(GRIDS)}.", autocompletion=names(GRIDS)),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Option of the method, such as snr=0.16; repeatable."),
]
ShardSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Write a set into the folder --out, with so many samples in a shard (default 1024). The same command "
        "continues it, in as many processes as torchrun starts.",
    ),
]
Container = Annotated[
    str | None,
    typer.Option(
        "--format",
        help=f"Write a set into the folder --out, in files of this kind: {', '.join(ARRAY_CONTAINERS)}. Default: "
        f"{ARRAY_CONTAINERS[0]}.",
        autocompletion=names(ARRAY_CONTAINERS),
    ),
]
Patience = Annotated[
    float,
    typer.Option(min=0.0, help="Seconds after which a process takes over a shard that makes no progress elsewhere."),
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Number of samples that are solved together; halved if memory is short.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print neither a progress bar nor a summary.")]
