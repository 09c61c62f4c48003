"""``scoresde check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ._options import SDES, make_device, make_sde
from ._run import NUMERICAL, command

if TYPE_CHECKING:
    from torch import Tensor


@command
def check(
    model: Annotated[str, typer.Argument(help="Name of a shipped model, or the directory of a saved one.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Clean data to denoise: a .npz or .npy file, with the array x (samples first)."),
    ] = None,
    sde: Annotated[str, typer.Option(help=f"Forward process: {', '.join(SDES)}.")] = "vp",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Check that a model denoises data as a score should.

    Prints its error at a range of noise levels beside that of a Gaussian denoiser, and names the convention that is
    likely wrong. A model of the digits is checked on the digits that its training held out; others need --data. Exit
    code 3 if the model fails.
    """
    process = make_sde(sde)
    clean = None if data is None else read_array(data)
    from ..check import check_score
    from ..zoo import load

    where = make_device(device)
    network = load(model, device=where)
    if clean is None:
        clean = _digits(network, seed)
    event = tuple(network.event_shape)
    if tuple(clean.shape[1:]) != event:
        raise InvalidArgumentError(
            f"`data` must have samples of shape {event}, as the model, got an array {tuple(clean.shape)}."
        )
    report = check_score(process, network.score(process), clean.to(where), seed=seed)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(NUMERICAL)


def read_array(path: Path) -> Tensor:
    """The array ``x`` of an .npz file, its only array, or an .npy file; floating point.

    Example:
        >>> read_array(Path("missing.npz"))
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `data` 'missing.npz' cannot be read: No such file or directory.
    """
    import zipfile

    import numpy as np
    import torch

    try:
        with path.open("rb") as file:
            array = _array(np.load(file, allow_pickle=False), path)
    except InvalidArgumentError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InvalidArgumentError(f"`data` {str(path)!r} cannot be read: {reason.rstrip('.')}.") from None
    if array.dtype.kind != "f":
        raise InvalidArgumentError(
            f"`data` {str(path)!r} must be floating point, in the model's units, got {array.dtype}."
        )
    return torch.from_numpy(array.astype("float32"))


def _array(content: Any, path: Path) -> Any:
    if not hasattr(content, "files"):
        return content
    name = "x" if "x" in content.files else content.files[0] if len(content.files) == 1 else None
    if name is None:
        raise InvalidArgumentError(f"`data` {str(path)!r} must hold an array called x, it has {content.files}.")
    return content[name]


def _digits(network: Any, seed: int) -> Tensor:
    """The digits that training held out, if the model is one of the digits."""
    if not network.config.data.startswith("scikit-learn digits"):
        raise InvalidArgumentError("`data`: only models of the digits bring their data; give --data FILE.npz.")
    import torch

    from ..training import digits_split, grey_to_x

    try:
        split = digits_split()
    except ImportError as error:
        raise InvalidArgumentError(f"`data`: {error} Or give --data FILE.npz.") from None
    return grey_to_x(split.test_images, torch.Generator().manual_seed(seed))
