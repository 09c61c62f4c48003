"""``scoresde measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..core.errors import InvalidArgumentError
from ._data import named, prepare, range_of, read
from ._inverse import centred
from ._operators import EXAMPLES, OPERATORS, check_operator, make_operator, parse_call
from ._options import sample_seeds
from ._output import ARRAYS, check_output, write_arrays
from ._parameters import Data, DataArgument, DataRange, Force, Key, Levels, Quiet, names
from ._run import command


@command
def measure(
    data_argument: DataArgument = None,
    data: Data = None,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help=f"Operator of the measurement: {EXAMPLES}.",
            autocompletion=names(OPERATORS),
        ),
    ] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise that is added.")] = 0.0,
    index: Annotated[int, typer.Option(min=0, help="Index of the sample of DATA to measure.")] = 0,
    out: Annotated[
        Path, typer.Option(help=f"Output file; its extension determines its format: {', '.join(ARRAYS)}.")
    ] = Path("measurement.npz"),
    levels: Levels = None,
    data_range: DataRange = None,
    key: Key = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make a measurement of an image, for `scoresde sample --measurement`.

    The output is an array y, with the operator and the noise as metadata for `scoresde sample`; an existing file is
    kept unless --force is given. A grey level becomes the middle of its cell.
    """
    from ..core.support.checks import check_number

    target, extension = check_output(out, ARRAYS, force=force)
    if operator is None:
        raise InvalidArgumentError("`operator` is missing; give one, such as --operator block_average:factor=2.")
    name, options = parse_call("operator", operator)
    check_operator(name, options)
    std = check_number("noise", noise, low=0.0)
    source = read(named("data", data, data_argument), key)
    if index >= len(source.names):
        raise InvalidArgumentError(f"`index` must be below {len(source.names)}, the number of samples, got {index}.")
    event = tuple(source.values.shape[1:])
    inputs = prepare(source, event, levels, range_of(None, data_range))
    x = centred(inputs.values[index : index + 1], inputs.levels, inputs.data_range)
    import torch

    y = make_operator(name, options, event).forward(x)
    generator = torch.Generator().manual_seed(sample_seeds(seed, 0, 1)[0])
    y = y + std * torch.randn(y.shape, generator=generator)
    metadata = {
        "scoresde": __version__,
        "operator": operator,
        "noise": std,
        "data": source.digest,
        "name": source.names[index],
        "levels": inputs.levels,
        "data_range": list(inputs.data_range),
        "seed": seed,
    }
    what = write_arrays(target, extension, {"y": y}, metadata)
    if not quiet:
        typer.echo(f"{out}: {what}; {operator} of {source.names[index]}, noise {std:g}")
        typer.echo(f"Draw what it may have been: scoresde sample --measurement {out}")
