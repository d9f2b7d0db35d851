"""Stored rows as one object, and back.

An encoded shard is a safetensors file with one tensor, `rows` [rows, columns], of the format's stored type: the rows of
one sequence after those of the one before, so that each sequence is one range of bytes. Each range has a checksum of
its own: who reads a range alone can verify it. What the rows say is another's business; see `row_format`.
"""

from collections.abc import Sequence as Many

import torch
from safetensors.torch import save

from distill_runtime.digests import digest_of_bytes
from distill_runtime.errors import RetryError
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.spans import EncodedShard, Span

TENSOR = "rows"
"""Name of the tensor in the file."""
DTYPES: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "uint8": torch.uint8,
}
"""Types of values and stored rows by their name in the format."""


class SpanCorrupt(Exception):
    """Bytes of one sequence are not those that were written."""


def encode_shard(
    rows: Many[torch.Tensor], targets: Many[int], row: RowFormat, *, name: str = "the shard"
) -> EncodedShard:
    """The rows of a shard's sequences, [targets[i], columns] each, as one object. States are cast to the stored
    precision; other rows are bytes already.

    Raises
    ------
    RetryError
        The teacher gave other rows than were asked for, or values that aren't finite (reason SignalRefused); the
        sentence names the sequence by its place in the shard, and the shard as `name`.
    """
    _check_shapes(rows, targets, row, name)
    stored = torch.empty((sum(targets), row.columns), dtype=DTYPES[row.stored_dtype])
    first = 0
    for place, block in enumerate(rows):
        part = stored[first : first + len(block)]
        part.copy_(block)
        # Looked at after the cast: a float32 may be larger than every bfloat16.
        if row.kind == "hidden" and not _finite(part):
            raise _refused(f"the states of sequence {place} of {name} aren't finite in {row.dtype}")
        first += len(block)
    data = save({TENSOR: stored})
    view = memoryview(data)
    start = len(data) - stored.nbytes
    spans: list[Span] = []
    for count in targets:
        length = count * row.row_bytes
        spans.append(Span(count, start, length, digest_of_bytes(view[start : start + length])))
        start += length
    return EncodedShard(data=data, sha256=digest_of_bytes(data), spans=spans)


def decode_span(data: bytes | memoryview, span: Span, row: RowFormat) -> torch.Tensor:
    """The rows [span.rows, columns] of one sequence, from exactly its bytes. The tensor owns its memory.

    Raises
    ------
    SpanCorrupt
        The bytes are not the ones that were written.
    """
    check_span(data, span)
    return copy_span(data, span, row)


def check_span(data: bytes | memoryview, span: Span) -> None:
    """Compares bytes with the checksum of their span. Raises SpanCorrupt."""
    if len(data) != span.length:
        raise SpanCorrupt(f"{len(data)} bytes at {span.start} where {span.length} were written")
    found = digest_of_bytes(data)
    if found != span.sha256:
        raise SpanCorrupt(f"bytes at {span.start} have sha256 {found[:12]}…, written as {span.sha256[:12]}…")


def copy_span(data: bytes | memoryview, span: Span, row: RowFormat) -> torch.Tensor:
    """The rows [span.rows, columns] in bytes that were verified already. The tensor owns its memory."""
    if span.rows == 0:
        return torch.empty((0, row.columns), dtype=DTYPES[row.stored_dtype])
    # bytearray copies: a tensor over the shard's bytes would keep all of them for one sequence.
    return torch.frombuffer(bytearray(data), dtype=DTYPES[row.stored_dtype]).view(span.rows, row.columns)


def _check_shapes(rows: Many[torch.Tensor], targets: Many[int], row: RowFormat, name: str) -> None:
    if len(rows) != len(targets):
        raise _refused(f"the teacher answered {len(rows)} of the {len(targets)} sequences of {name}")
    if not rows:
        raise ValueError("a shard has at least one sequence")
    for place, (block, count) in enumerate(zip(rows, targets, strict=True)):
        if tuple(block.shape) != (count, row.columns):
            raise _refused(
                f"sequence {place} of {name} has rows of shape {tuple(block.shape)}, not {(count, row.columns)}"
            )


def _finite(states: torch.Tensor) -> bool:
    # One pass without a mask in memory: NaN propagates through both ends, an infinity is one of them.
    if states.numel() == 0:
        return True
    low, high = torch.aminmax(states)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _refused(what: str) -> RetryError:
    return RetryError(f"{what}: the signal is not stored.", reason="SignalRefused")
