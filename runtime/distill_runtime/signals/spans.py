"""An encoded shard and its ranges of bytes, one a sequence. `codec` makes and reads them, with torch."""

from dataclasses import dataclass


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
    spans: list[Span]
