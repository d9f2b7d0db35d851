"""What a shard wants stored, made of the teacher's states beside the engine."""

from collections.abc import Callable, Iterable
from functools import cached_property

import torch

from distill_runtime.losses.vocabulary import GPU_CHUNK_BYTES
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import encode_rows
from distill_runtime.transport.interface import ShardWork

Encode = Callable[[ShardWork, list[torch.Tensor]], list[torch.Tensor]]
"""From states [targets, hidden_size] of each sequence of a shard to the rows [targets, columns] to store."""
BUFFER_BYTES = 4 * GPU_CHUNK_BYTES
"""Of a chunk: two buffers of logits, cumulated probabilities in float64, and what sorting and choosing need."""


class RowEncoder:
    """Encodes with the teacher's head, on the GPU where the engine has one. Hidden states need no head and stay where
    they are; only what does need it brings it to the GPU."""

    def __init__(self, head: OutputHead, *, gpu: bool) -> None:
        self._published = head
        self._device = torch.device("cuda" if gpu else "cpu")

    def gpu_bytes(self, rows: Iterable[RowFormat]) -> int:
        """Memory of the GPU that rows of these formats will need beside the engine."""
        if self._device.type == "cpu" or all(row.kind == "hidden" for row in rows):
            return 0
        return self._published.weight.nbytes + BUFFER_BYTES

    def __call__(self, work: ShardWork, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """The rows of each sequence. Raises what `encode_rows` does."""
        if work.row.kind == "hidden":
            return states
        return [
            encode_rows(sequence, rows, work.row, self._head)
            for sequence, rows in zip(work.sequences, states, strict=True)
        ]

    @cached_property
    def _head(self) -> OutputHead:
        return self._published.on(self._device)
