"""What one target's signal is, and how it is stored: so many bytes, the same for every target of a plan.

| kind | a stored row | bytes |
| --- | --- | --- |
| hidden | `width` values: the teacher's state | `width` · value |
| topk | `width` ids, their log-probabilities, that of all others together | `width` · (id + value) + value |
| sampled | `width` ids, in rising order, each as often as it was drawn | `width` · id |

A value has 2 bytes in bfloat16 and float16, 4 in float32. An id has 1 byte where the vocabulary has at most 256 ids, 2
up to 65,536, else 4. Rows of hidden states are tensors of their precision, all others are bytes (uint8), little-endian.

No torch: `prepare` counts bytes with it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from distill_runtime.contract.run import Work

VALUE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of one value in each stored precision."""
BYTE = "uint8"
"""Stored type of rows that are no plain tensors."""


class RowFormat(BaseModel):
    """What a row says, and in which form. Part of a signal's address, but for `vocabulary` and `temperature` of kind
    hidden, which has none of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hidden", "topk", "sampled"]
    dtype: Literal["bfloat16", "float16", "float32"] | None
    """Precision of the values; None where there are none (sampled)."""
    width: int
    """The teacher's hidden size, the ids kept, or the draws made."""
    vocabulary: int | None = None
    """Real size of the vocabulary that ids are from; None for kind hidden."""
    temperature: float | None = None
    """What the teacher's logits were divided by; None for kind hidden, whose states are before the head."""

    @property
    def id_bytes(self) -> int:
        """Bytes of one id; 0 where there are none."""
        if self.vocabulary is None:
            return 0
        return next((size for size in (1, 2) if self.vocabulary <= 256**size), 4)

    @property
    def row_bytes(self) -> int:
        """Bytes of one target's signal."""
        value = VALUE_BYTES[self.dtype] if self.dtype is not None else 0
        tail = value if self.kind == "topk" else 0
        return self.width * (self.id_bytes + value) + tail

    @property
    def stored_dtype(self) -> str:
        """Type of the stored tensor."""
        return self.dtype if self.kind == "hidden" and self.dtype is not None else BYTE

    @property
    def columns(self) -> int:
        """Elements of a stored row, each of `stored_dtype`."""
        return self.width if self.kind == "hidden" else self.row_bytes


def training_row(work: Work, *, hidden_size: int, vocabulary: int) -> RowFormat:
    """What is stored of each target of the training data.

    Parameters
    ----------
    hidden_size
        Width of the teacher's states.
    vocabulary
        Real size of the vocabulary.
    """
    signal, temperature = work.signal, work.objective.temperature
    match signal.kind:
        case "hidden":
            return held_out_row(work, hidden_size=hidden_size)
        case "topk":
            dtype = "float32" if signal.dtype == "float32" else "float16"
            return RowFormat(kind="topk", dtype=dtype, width=signal.k, vocabulary=vocabulary, temperature=temperature)
        case "sampled":
            return RowFormat(
                kind="sampled", dtype=None, width=signal.samples, vocabulary=vocabulary, temperature=temperature
            )


def held_out_row(work: Work, *, hidden_size: int) -> RowFormat:
    """What is stored of each target of held-out data and tasks: always the state, whatever the training reads."""
    dtype = "float32" if work.signal.dtype == "float32" else "bfloat16"
    return RowFormat(kind="hidden", dtype=dtype, width=hidden_size)
