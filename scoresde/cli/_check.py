"""``scoresde check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .._registries import shipped
from ..errors import InvalidArgumentError
from ._data import DIGITS, fits, read
from ._options import open_model
from ._parameters import Device, Key, Process, names
from ._run import NUMERICAL, command

if TYPE_CHECKING:
    from torch import Tensor

    from ..files.arrays import Check
    from ..zoo import Pretrained


@command
def check(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a shipped model, the directory of a saved one, or hf:owner/name@revision.",
            autocompletion=names(shipped()),
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Clean data to denoise, samples first, floating point: a .npz, .npy or .safetensors file."),
    ] = None,
    key: Key = None,
    sde: Process = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise.")] = 0,
    device: Device = "auto",
) -> None:
    """Check that a model denoises data as a score should.

    The report has its error at several noise levels beside that of a Gaussian denoiser, and names the convention that
    is likely wrong. A model of the digits is checked on the digits held out of its training; others need --data. Exit
    code 3 means that the model fails.
    """
    network, where, process, _, event = open_model(model, device, sde)
    fitting = fits(event, data)
    clean = _digits(network, seed, fitting) if data is None else _floating(data, key, fitting)
    from ..scores.conventions import check_score

    report = check_score(process, network.score(process), clean.to(where), seed=seed)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(NUMERICAL)


def _floating(data: str, key: str | None, check: Check) -> Tensor:
    """The data, in the model's units."""
    import torch

    from .._checks import check_finite_rows

    source = read(data, key, check)
    dtype = source.values.dtype
    if not dtype.is_floating_point:
        raise InvalidArgumentError(f"`data` {data!r} must be floating point, in the model's units, got {dtype}.")
    check_finite_rows("`data`", source.values)
    return source.values.to(torch.float32)


def _digits(network: Pretrained, seed: int, check: Check) -> Tensor:
    """The digits that training held out, if the model is one of the digits."""
    if not network.config.data.startswith("scikit-learn digits"):
        raise InvalidArgumentError("`data`: only models of the digits come with data; give --data FILE.npz.")
    import torch

    from ..training import grey_to_x

    return grey_to_x(read(DIGITS, check=check).values, torch.Generator().manual_seed(seed))
