"""A table that is written batch by batch, and continues where it was interrupted.

While it is made its rows are in a journal beside it, ``FILE.partial``: a line with the settings, then one line per row.
Each batch is brought to the disk before the next begins. When all rows are there, the settings with the table's digest
go to ``FILE.json``, the table to ``FILE``, each completely or not at all; then the journal is removed. The same command
continues from any of these states.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InvalidArgumentError, OutputError
from ..core.support.files.locks import locked
from ..core.support.files.writing import csv_text, extend, remove_temporaries, write_bytes

CSV, PARQUET = ".csv", ".parquet"
TABLES = (CSV, PARQUET)
Row = dict[str, Any]  # column -> value, None where there is none


@dataclass
class Table:
    """Rows in order, the first of them on the disk already.

    Args:
        path: of the table.
        columns: their names and types; the first counts the rows.
        settings: what the rows depend on, plain values.
        num: the rows that it is to have.
        block: rows are taken up again at a multiple of this.
    """

    path: Path
    columns: Mapping[str, type]
    settings: Mapping[str, object]
    num: int
    block: int
    rows: list[Row] = field(default_factory=list)
    _size: int = 0

    @property
    def journal(self) -> Path:
        """Where the rows are while the table is made."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def sidecar(self) -> Path:
        """Where the settings of the finished table are."""
        return self.path.with_name(self.path.name + ".json")

    @contextlib.contextmanager
    def writing(self, overwrite: bool = False) -> Iterator[None]:
        """Take up what is there, and finish the table if all rows came.

        Raises:
            InvalidArgumentError: what is there was made with other settings, or by something else.
            OutputError: it cannot be written, or another process does.
        """
        with locked(self.journal):
            body = None if overwrite else self._body()
            if body is None and not overwrite and self.path.exists():
                self.journal.unlink()
                self._open_finished()
                yield
                return
            try:
                self._begin(body)
                yield
                self._finish()
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"Interrupted; {self._kept()}.") from None
            except OutputError as error:
                raise OutputError(error.errno, f"{error.strerror} ({self._kept()})", error.filename) from error
            finally:
                if not self.rows:
                    self.journal.unlink(missing_ok=True)

    def append(self, rows: Sequence[Row]) -> None:
        """Bring rows to the disk."""
        content = self._text(rows).encode()
        extend(self.journal, self._size, content)
        self._size += len(content)
        self.rows += rows

    def _kept(self) -> str:
        if not self.rows:
            return "no row is kept, the same command starts again"
        return f"{len(self.rows)} of {self.num} rows are kept, the same command resumes"

    def _open_finished(self) -> None:
        """Read a table that is complete."""
        content = self.path.read_bytes()
        try:
            record = json.loads(self.sidecar.read_bytes())
            settings, told = record["settings"], record["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InvalidArgumentError(
                f"`out`: {str(self.path)!r} exists, and no {self.sidecar.name} records what made it; write to another "
                f"file, or give --force."
            ) from None
        self._compare(settings)
        if hashlib.sha256(content).hexdigest() != told:
            raise InvalidArgumentError(
                f"`out`: {str(self.path)!r} was changed since it was written; write to another file, or give --force."
            )
        if self.path.suffix.lower() == PARQUET:
            self.rows = pyarrow_parquet().read_table(io.BytesIO(content)).to_pylist()
        else:
            self.rows = [self._values(cells) for cells in list(csv.reader(io.StringIO(content.decode())))[1:]]

    def _body(self) -> bytes | None:
        """What follows the first line of a journal with these settings; None if there is no such line yet."""
        head, newline, body = self.journal.read_bytes().partition(b"\n")
        if not newline:  # nothing, or a part of the line
            return None
        try:
            settings = json.loads(head)["settings"]
        except (ValueError, KeyError, TypeError):
            raise InvalidArgumentError(
                f"`out`: {str(self.journal)!r} is not a journal of this command; remove it, or give --force."
            ) from None
        self._compare(settings)
        return body

    def _begin(self, body: bytes | None) -> None:
        """Take the rows that a run before this one left, to the last whole block, or write the first line."""
        for path in (self.path, self.sidecar):
            remove_temporaries(path)
        head = json.dumps({"settings": self.settings}).encode() + b"\n"
        if body is None:
            extend(self.journal, 0, head)
        rows: list[Row] = []
        ends = [len(head)]
        for line in (body or b"").split(b"\n")[:-1]:
            row = self._parsed(line, len(rows))
            if row is None:
                break
            rows.append(row)
            ends.append(ends[-1] + len(line) + 1)
        kept = len(rows) if len(rows) == self.num else len(rows) // self.block * self.block
        self.rows, self._size = rows[:kept], ends[kept]

    def _compare(self, there: object) -> None:
        here = json.loads(json.dumps(self.settings))
        if here == there:
            return
        old = there if isinstance(there, dict) else {}
        keys = [key for key in {**here, **old} if here.get(key) != old.get(key)]
        listed = ", ".join(f"{key}: old {json.dumps(old.get(key))}, new {json.dumps(here.get(key))}" for key in keys)
        raise InvalidArgumentError(
            f"`out`: {str(self.path)!r} was made or begun with other settings: {listed}. Write to another file, or "
            f"give --force."
        )

    def _finish(self) -> None:
        if len(self.rows) != self.num:
            return
        if self.path.suffix.lower() == PARQUET:
            content = self._parquet_bytes()
        else:
            content = (csv_text([self.columns]) + self._text(self.rows)).encode()
        record = {"settings": self.settings, "sha256": hashlib.sha256(content).hexdigest()}
        write_bytes(self.sidecar, (json.dumps(record, indent=2) + "\n").encode())
        write_bytes(self.path, content)
        self.journal.unlink()

    def _parquet_bytes(self) -> bytes:
        parquet = pyarrow_parquet()
        import pyarrow

        types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
        schema = pyarrow.schema([(name, types[kind]) for name, kind in self.columns.items()])
        table = pyarrow.Table.from_pylist(self.rows, schema=schema)
        buffer = io.BytesIO()
        parquet.write_table(table.replace_schema_metadata({"scoresde": json.dumps(self.settings)}), buffer)
        return buffer.getvalue()

    def _text(self, rows: Sequence[Row]) -> str:
        return csv_text([row[name] for name in self.columns] for row in rows)

    def _values(self, cells: Sequence[str]) -> Row:
        parts = zip(self.columns.items(), cells, strict=True)
        return {name: None if not cell and kind is not str else kind(cell) for (name, kind), cell in parts}

    def _parsed(self, line: bytes, index: int) -> Row | None:
        """The row of a journal's line, None where it is not the one that belongs there."""
        try:
            row = self._values(next(csv.reader([line.decode()], strict=True)))
        except (ValueError, csv.Error, StopIteration):
            return None
        return row if row[next(iter(self.columns))] == index else None


def pyarrow_parquet() -> Any:
    """The package of Parquet tables, or an error with the command that installs it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise InvalidArgumentError(
            "`out`: .parquet needs pyarrow: pip install 'scoresde[parquet]'; or write .csv."
        ) from None
    return pyarrow.parquet
