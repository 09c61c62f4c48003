"""Pictures one after another, as GIF or MP4."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.support.files.paths import check_path
from ..core.support.files.writing import check_target, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEO = ".mp4"


def check_film(path: str | os.PathLike[str] | None) -> Path | None:
    """Return where to write an animation, or say why nothing can be written there, or what is missing for it."""
    if path is None:
        return None
    target = Path(check_target(check_path("path", path)))
    if target.suffix.lower() == VIDEO:
        try:
            import av  # noqa: F401
            import imageio.v3  # noqa: F401
        except ImportError as error:
            raise ImportError("MP4 needs imageio and PyAV: pip install 'scoresde[video]'.") from error
    return target


def write_film(frames: Sequence[Image], target: Path | None, seconds: float) -> None:
    """Write pictures in so many seconds; the last one then stands for half as long."""
    if target is None:
        return
    each = max(20, round(1000 * seconds / len(frames)))  # milliseconds; viewers slow down what is shorter
    film = _mp4 if target.suffix.lower() == VIDEO else _gif
    write_bytes(target, film(frames, each, round(500 * seconds)))


def _gif(frames: Sequence[Image], each: int, rest: int) -> bytes:
    buffer = io.BytesIO()
    times = [each] * (len(frames) - 1) + [each + rest]
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return buffer.getvalue()


def _mp4(frames: Sequence[Image], each: int, rest: int) -> bytes:
    import imageio.v3

    height, width = (n + n % 2 for n in reversed(frames[0].size))  # the format wants even sides
    pictures = [np.asarray(frame.convert("RGB")) for frame in frames]
    pictures += pictures[-1:] * (rest // each)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), "edge") for p in pictures]
    made = imageio.v3.imwrite(
        "<bytes>", np.stack(padded), extension=VIDEO, plugin="pyav", codec="libx264", fps=round(1000 / each, 2)
    )
    return bytes(made or b"")
