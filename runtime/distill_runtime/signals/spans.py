"""An encoded shard and its ranges of bytes, one a sequence. `codec` makes and reads them, with torch."""

from dataclasses import dataclass

VALUE_BYTES = {"bfloat16": 2, "float32": 4}
"""Bytes of one value in each stored precision."""


@dataclass(frozen=True)
class Span:
    """Where one sequence's rows are in an encoded shard."""

    rows: int
    start: int
    """First byte in the object."""
    length: int
    """Bytes."""
    sha256: str
    """Of these bytes."""


@dataclass(frozen=True)
class EncodedShard:
    """A shard's rows as one object."""

    data: bytes
    sha256: str
    hidden_size: int
    spans: list[Span]


def row_bytes(hidden_size: int, dtype: str) -> int:
    """Bytes of one target's signal."""
    return hidden_size * VALUE_BYTES[dtype]
