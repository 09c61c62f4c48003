"""The figures of a run, in a file that grows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import InvalidArgumentError
from ..core.support.files.writing import csv_text, make_folder, remove_temporaries, writable, write_bytes

HEADER = ("step", "name", "value")


class Log:
    """``log.csv``, one line per figure: step, name, value; and other writers of the same figures if requested.

    Args:
        folder: the folder of the file, or None for no file.
        step: the step that the run continues from; figures of later steps, of a run that was killed, are removed.
        tensorboard: write TensorBoard's events too.
        also: another writer, called as ``also(figures, step=step)``, or None.

    Raises:
        InvalidArgumentError: TensorBoard is not installed, or the folder has a ``log.csv`` of another kind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Log(Path(folder))
        ...     log.write(10, {"loss": 0.5})
        ...     Path(folder, "log.csv").read_text().splitlines()
        ['step,name,value', '10,loss,0.5']
    """

    def __init__(
        self,
        folder: Path | None,
        step: int = 0,
        *,
        tensorboard: bool = False,
        also: Callable[..., object] | None = None,
    ) -> None:
        self._also = also
        self.path = None if folder is None else folder / "log.csv"
        if self.path is not None:
            remove_temporaries(self.path)  # of a run that was killed
            make_folder(self.path.parent)
            with writable(self.path):
                rows = list(csv.reader(io.StringIO(self.path.read_text()))) if self.path.exists() else []
            if rows and tuple(rows[0]) != HEADER:
                raise InvalidArgumentError(f"{self.path} is not the log of a run, and was kept; use another folder.")
            kept = [row for row in rows if len(row) == len(HEADER) and row[0].isdigit() and int(row[0]) <= step]
            write_bytes(self.path, csv_text([HEADER, *kept]).encode())
        self._events: Any = None
        if tensorboard and folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InvalidArgumentError("`log`: TensorBoard is not installed: pip install tensorboard.") from None
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step."""
        if self.path is not None:
            text = csv_text([(step, name, float(value)) for name, value in figures.items()])
            with writable(self.path), self.path.open("a") as file:
                file.write(text)
        if self._events is not None:
            for name, value in figures.items():
                if math.isfinite(value):
                    self._events.add_scalar(name, value, step)
            self._events.flush()
        if self._also is not None and figures:
            self._also({name: float(value) for name, value in figures.items()}, step=step)
