"""Files as rows: JSON Lines, CSV and Parquet. What can't be read as a row is named with its file and line."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from distill_runtime.errors import UserError

PARQUET_BATCH_ROWS = 1024
"""Rows of a Parquet file that are held at a time."""
CSV_FIELD_CHARACTERS = 2**31 - 1
"""Longest field of a CSV file; Python's own limit of 131,072 is shorter than some documents."""
FORMATS = {
    ".jsonl": "JSON Lines",
    ".json.l": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".csv": "CSV",
    ".parquet": "Parquet",
}
"""File name extension -> format."""
UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What Python's `surrogateescape` makes of bytes that are not UTF-8."""


class DataSource(Protocol):
    """A file of rows, wherever it is."""

    @property
    def uri(self) -> str:
        """Where it is."""
        ...

    def open(self) -> BinaryIO:
        """Its bytes, from the beginning."""
        ...


@dataclass(frozen=True)
class Row:
    """One row that could be read."""

    source: str
    """URI of its file."""
    number: int
    """Line of a text file, row of a Parquet file; from 1."""
    values: dict[str, Any]

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        return f"{self.source}:{self.number}"


@dataclass(frozen=True)
class BadRow:
    """One row that can't be used."""

    source: str
    number: int
    reason: str
    """What is wrong with it: a clause without a full stop."""

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        return f"{self.source}:{self.number}"


def read_rows(files: Iterable[DataSource], *, columns: Collection[str] | None = None) -> Iterator[Row | BadRow]:
    """All rows of the files, in order. Of a Parquet file only `columns` are read, where given.

    Raises
    ------
    UserError
        A file as a whole is not what its name says.
    """
    for file in files:
        name = file.uri.lower()
        packed = name.endswith(".gz")
        extension = _extension(name.removesuffix(".gz"))
        kind = FORMATS.get(extension)
        if kind is None or (packed and kind == "Parquet"):
            raise UserError(
                f"{file.uri}: unknown format {extension + '.gz' * packed or 'without an extension'}; "
                "data files end in .jsonl, .ndjson, .csv (each also with .gz behind it) or .parquet.",
                reason="UnknownFormat",
            )
        with file.open() as stream:
            if kind == "Parquet":
                yield from _parquet(file.uri, stream, columns)
            else:
                lines = _lines(file.uri, stream, packed=packed)
                yield from _json_lines(file.uri, lines) if kind == "JSON Lines" else _csv(file.uri, lines)


def _extension(name: str) -> str:
    for extension in FORMATS:
        if name.endswith(extension):
            return extension
    last = name.rsplit("/", 1)[-1]
    return f".{last.rsplit('.', 1)[1]}" if "." in last else ""


def _lines(uri: str, stream: BinaryIO, *, packed: bool) -> Iterator[str]:
    """The lines of a text file, each with its end; bytes that are not UTF-8 become surrogates."""
    raw: Iterable[bytes] = gzip.GzipFile(fileobj=stream) if packed else stream
    first = True
    try:
        for line in raw:
            yield line.decode("utf-8-sig" if first else "utf-8", errors="surrogateescape")
            first = False
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{uri} is no whole gzip file: {error}.", reason="BrokenFile") from error


def _json_lines(uri: str, lines: Iterator[str]) -> Iterator[Row | BadRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if UNDECODABLE.search(line):
            yield BadRow(uri, number, "the line is not UTF-8")
            continue
        try:
            values = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            yield BadRow(uri, number, f"broken JSON ({error.msg}, column {error.colno})")
        except (ValueError, RecursionError) as error:
            yield BadRow(uri, number, f"broken JSON ({error})")
        else:
            if isinstance(values, dict):
                yield Row(uri, number, values)
            else:
                yield BadRow(uri, number, f"the line holds a JSON {_json_type(values)}, not an object")


def _json_type(value: Any) -> str:
    names: dict[type, str] = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _csv(uri: str, lines: Iterator[str]) -> Iterator[Row | BadRow]:
    csv.field_size_limit(CSV_FIELD_CHARACTERS)
    reader = csv.reader(lines, strict=True)
    header = _csv_header(uri, reader)
    begin = reader.line_num + 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(uri, begin, f"broken CSV ({error})")
        else:
            if any(UNDECODABLE.search(field) for field in fields):
                yield BadRow(uri, begin, "the row is not UTF-8")
            elif fields and len(fields) != len(header):
                yield BadRow(uri, begin, f"the row has {len(fields)} fields, the header has {len(header)}")
            elif fields:
                yield Row(uri, begin, dict(zip(header, fields, strict=True)))
        begin = reader.line_num + 1


def _csv_header(uri: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(f"{uri}:1: the CSV header is broken ({error}).", reason="BrokenFile") from error
    for name in header:
        if UNDECODABLE.search(name):
            raise UserError(f"{uri}:1: the CSV header is not UTF-8.", reason="BrokenFile")
        if header.count(name) > 1:
            raise UserError(f"{uri}:1: the CSV header names the column {name!r} twice.", reason="BrokenFile")
    return header


def _parquet(uri: str, stream: BinaryIO, columns: Collection[str] | None) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    source = stream if stream.seekable() else io.BytesIO(stream.read())
    try:
        file = ParquetFile(source)
        present = [name for name in file.schema_arrow.names if columns is None or name in columns]
        number = 0
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=present):
            # A batch without any column still knows its rows: each is reported as one that lacks its columns.
            for values in batch.to_pylist() if present else [{} for _ in range(batch.num_rows)]:
                number += 1
                yield Row(uri, number, {name: _without_nulls(value) for name, value in values.items()})
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{uri} is no readable Parquet file: {str(error).splitlines()[0]}", reason="BrokenFile"
        ) from error


def _without_nulls(value: Any) -> Any:
    """Parquet gives every object of a column the fields of all of them: those that one lacks are null there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
