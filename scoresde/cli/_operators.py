"""Measurement operators by name, as ``block_average:factor=2``, and ``scoresde measure``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..core.errors import InvalidArgumentError, InvalidTypeError, check_choice
from ..core.support.files.paths import readable
from ..core.support.registries import Registry
from ._data import NamedDataOptions, prepare, range_of, read
from ._options import parse_options, sample_seeds
from ._output import ARRAYS, check_output, write_arrays
from ._run import QuietOptions, command, flag

if TYPE_CHECKING:
    from torch import Tensor

    from ..inverse import LinearOperator

_MODES = ("1", "L", "P", "RGB")  # of pictures without transparency, one byte per channel at most


def parse_call(argument: str, text: str) -> tuple[str, dict[str, object]]:
    """Read ``NAME`` or ``NAME:key=value,key=value``.

    Example:
        >>> parse_call("operator", "gaussian_blur:std=1,radius=2")
        ('gaussian_blur', {'std': 1, 'radius': 2})
    """
    name, colon, rest = text.partition(":")
    try:
        return name, parse_options(rest.split(",")) if colon else {}
    except InvalidArgumentError:
        raise InvalidArgumentError(
            f"`{argument}` must be NAME or NAME:key=value,key=value such as block_average:factor=2, each key once, got "
            f"{text!r}."
        ) from None


def check_operator(name: str, options: dict[str, object]) -> None:
    """Refuse a name that is unknown, and options that do not fit, before anything is read.

    Example:
        >>> check_operator("block_average", {})
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `operator` 'block_average' needs factor; write block_average:factor=…
    """
    check_choice("operator", name, OPERATORS)
    known = dict(list(inspect.signature(OPERATORS[name]).parameters.items())[1:])
    for key in options:
        check_choice(f"option of the operator {name!r}", key, known)
    missing = [key for key, p in known.items() if p.default is p.empty and key not in options]
    if missing:
        raise InvalidArgumentError(
            f"`operator` {name!r} needs {', '.join(missing)}; write {name}:{','.join(f'{key}=…' for key in missing)}"
        )


def make_operator(name: str, options: dict[str, object], event: Sequence[int]) -> LinearOperator:
    """An operator on events of a shape.

    Example:
        >>> make_operator("block_average", {"factor": 2}, (1, 8, 8)).measurement_shape
        (1, 4, 4)
    """
    check_operator(name, options)
    try:
        return OPERATORS[name](tuple(event), **options)
    except (InvalidArgumentError, InvalidTypeError) as error:
        raise InvalidArgumentError(f"`operator` {name!r}: {error}") from None


def read_mask(path: Path, event: Sequence[int]) -> Tensor:
    """The observed pixels ``(h, w)``, True where a black-and-white picture is black."""
    import numpy as np
    import torch
    from PIL import Image

    shown = f"`mask` {str(path)!r}"
    if len(event) < 2:
        raise InvalidArgumentError(f"{shown} is for images, but the events have shape {tuple(event)}.")
    high, wide = event[-2:]
    with readable(path, "mask"), Image.open(path) as picture:
        mode, size = picture.mode, picture.size
        if mode not in _MODES:
            raise InvalidArgumentError(f"{shown} must be black and white, without transparency, got PIL's mode {mode}.")
        if size != (wide, high):
            raise InvalidArgumentError(
                f"{shown} must be {wide} x {high} pixels, as the images, got {size[0]} x {size[1]}; it is not resized."
            )
        array = np.asarray(picture.convert("RGB"))
    white, black = (array == 255).all(-1), (array == 0).all(-1)
    other = ~(white | black)
    if other.any():
        raise InvalidArgumentError(
            f"{shown} must be black (observed) and white (to be painted) only, but {other.sum()} of {other.size} "
            f"pixels are neither, such as {tuple(array[other][0].tolist())}; round them: "
            "image.convert('L').point(lambda v: 255 * (v > 127))."
        )
    if white.all() or black.all():
        what = "white: nothing is observed" if white.all() else "black: nothing is left to paint"
        raise InvalidArgumentError(f"{shown} is all {what}. Black pixels are observed, white ones are painted.")
    return torch.from_numpy(black.copy())


def centred(values: Tensor, levels: int | None, span: tuple[float, float]) -> Tensor:
    """Data as the model takes them, float32; grey levels are the middle of their cells.

    Example:
        >>> centred(torch.tensor([0, 1]), 2, (-1.0, 1.0))
        tensor([-0.5000,  0.5000])
    """
    import torch

    if levels is None or values.is_floating_point():
        return values.to(torch.float32)
    low, high = span
    return (low + (high - low) * (values.to(torch.float64) + 0.5) / levels).to(torch.float32)


def _inpaint(event: tuple[int, ...], mask: Any) -> LinearOperator:
    from ..inverse import Mask

    return Mask(read_mask(Path(str(mask)), event), event)


def _grey(event: tuple[int, ...]) -> LinearOperator:
    from ..inverse import Grey

    return Grey(event)


def _motion_blur(
    event: tuple[int, ...], length: int, angle: float = 0.0, border: Literal["periodic", "zero"] = "zero"
) -> LinearOperator:
    from ..inverse import Blur, motion_kernel

    return Blur(event, motion_kernel(length, angle), border=border)


def _random_projection(event: tuple[int, ...], rows: int, seed: int = 0) -> LinearOperator:
    from ..core.support.checks import check_integer
    from ..inverse import random_projection

    check_integer("rows", rows, low=1, high=math.prod(event), hint=" The model's events have so many numbers.")
    return random_projection(event, rows, seed=seed)


# By name: the place of the function that makes an operator of the events' shape and options, and options as an example.
_ROWS = {
    "inpaint": (f"{__name__}:_inpaint", "mask=MASK.png"),
    "grey": (f"{__name__}:_grey", ""),
    "block_average": ("scoresde.inverse:block_average", "factor=2"),
    "bicubic": ("scoresde.inverse:bicubic", "factor=2"),
    "gaussian_blur": ("scoresde.inverse:gaussian_blur", "std=1"),
    "motion_blur": (f"{__name__}:_motion_blur", "length=3,angle=45"),
    "random_projection": (f"{__name__}:_random_projection", "rows=20"),
}
OPERATORS: Registry[Callable[..., LinearOperator]] = Registry({name: place for name, (place, _) in _ROWS.items()})
EXAMPLES = ", ".join(f"{name}:{example}".rstrip(":") for name, (_, example) in _ROWS.items())


def operator_flag(help: str) -> Any:
    """The option ``--operator`` of a command."""
    text = help.format(EXAMPLES)
    return flag(None, text, metavar="NAME[:KEY=VALUE,...]", names=OPERATORS)


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(NamedDataOptions, QuietOptions):
    """The options of ``scoresde measure``."""

    operator: str | None = operator_flag("Operator of the measurement: {}.")
    noise: float = flag(0.0, "Standard deviation of the noise that is added.")
    index: int = flag(0, "Index of the sample of DATA to measure.", min=0)
    out: Path = flag(Path("measurement.npz"), f"Output file; its extension determines its format: {', '.join(ARRAYS)}.")
    seed: int = flag(0, "Seed of the noise.", min=0)
    force: bool = flag(False, "Replace an existing output.", "--force")


@command
def measure(options: MeasureOptions) -> None:
    """Make a measurement of an image, for `scoresde sample --measurement`.

    The output is an array y, with the operator and the noise as metadata for `scoresde sample`; an existing file is
    kept unless --force is given. A grey level becomes the middle of its cell.
    """
    from ..core.support.checks import check_number

    if options.operator is None:
        raise InvalidArgumentError("`operator` is missing; give one, such as --operator block_average:factor=2.")
    std = check_number("noise", options.noise, low=0.0)
    target, extension = check_output(options.out, ARRAYS, force=options.force)
    source, index = read(options.source, options.key), options.index
    if index >= len(source.names):
        raise InvalidArgumentError(f"`index` must be below {len(source.names)}, the number of samples, got {index}.")
    inputs = prepare(source, options.levels, range_of(None, options.data_range))
    x = centred(inputs.values[index : index + 1], inputs.levels, inputs.data_range)
    import torch

    y = make_operator(*parse_call("operator", options.operator), x.shape[1:]).forward(x)
    generator = torch.Generator().manual_seed(sample_seeds(options.seed, 0, 1)[0])
    y = y + std * torch.randn(y.shape, generator=generator)
    metadata = {
        "scoresde": __version__,
        "operator": options.operator,
        "noise": std,
        "data": source.digest,
        "name": source.names[index],
        "levels": inputs.levels,
        "data_range": list(inputs.data_range),
        "seed": options.seed,
    }
    what = write_arrays(target, extension, {"y": y}, metadata)
    options.say(f"{options.out}: {what}; {options.operator} of {source.names[index]}, noise {std:g}")
    options.say(f"Draw what it may have been: scoresde sample --measurement {options.out}")
