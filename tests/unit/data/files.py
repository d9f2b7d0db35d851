"""Data files in a test's folder."""

import gzip
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO


@dataclass(frozen=True)
class Bytes:
    """A data file that is in memory."""

    uri: str
    content: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def json_lines(rows: Iterable[Any], uri: str = "file:///data/train.jsonl") -> Bytes:
    """A JSON Lines file; strings are lines as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return Bytes(uri, "".join(line + "\n" for line in lines).encode())


def packed(file: Bytes) -> Bytes:
    """The same file through gzip."""
    return Bytes(f"{file.uri}.gz", gzip.compress(file.content))


def parquet(rows: list[dict[str, Any]], uri: str = "file:///data/train.parquet") -> Bytes:
    """A Parquet file."""
    import pyarrow
    from pyarrow.parquet import write_table

    sink = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(rows), sink)
    return Bytes(uri, sink.getvalue())


def write_json_lines(path: Path, rows: Iterable[Any]) -> str:
    """Writes a JSON Lines file and returns its URI."""
    path.write_bytes(json_lines(rows).content)
    return f"file://{path}"
