"""From the teacher's states to stored rows, and from stored rows to what an objective reads, for every kind."""

import torch

from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import RetryError
from distill_runtime.signals.codec import DTYPES
from distill_runtime.signals.distribution import LogitsNotFinite
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.id_bytes import ids_to_bytes
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.sampled import decode_sampled, draws_of, encode_sampled
from distill_runtime.signals.teacher_rows import HiddenRows, TeacherRows, TopKRows
from distill_runtime.signals.topk import decode_topk, encode_topk, pack_topk


def encode_rows(sequence: Sequence, states: torch.Tensor, row: RowFormat, head: OutputHead) -> torch.Tensor:
    """The stored rows [targets, columns] of one sequence, on the CPU.

    Parameters
    ----------
    states
        [targets, hidden_size], finite, on any device: the states before its targets.
    head
        The teacher's; its device computes.

    Raises
    ------
    RetryError
        The states are finite, but the logits that the head makes of them are not (reason SignalRefused).
    """
    if row.kind == "hidden":
        return states
    beside_head = states.to(head.weight.device)
    try:
        if row.kind == "topk":
            return encode_topk(beside_head, head, row).cpu()
        draws = draws_of(sequence.digest, len(states), row.width)
        return encode_sampled(beside_head, head, row, draws).cpu()
    except LogitsNotFinite as error:
        position = int(sequence.signal_positions[error.target])
        raise RetryError(
            f"the teacher's logits at position {position} of sequence {sequence.digest[:12]} are not finite, its state "
            "is: the signal is not stored.",
            reason="SignalRefused",
        ) from error


def decode_rows(stored: torch.Tensor, row: RowFormat, head: OutputHead | None) -> TeacherRows:
    """What the stored rows [targets, columns] say, on their device. Only kind hidden needs the head."""
    match row.kind:
        case "hidden":
            assert head is not None, "hidden states say nothing without the head"
            return HiddenRows(states=stored, head=head)
        case "topk":
            return decode_topk(stored, row)
        case "sampled":
            return decode_sampled(stored, row)


def stand_in_rows(row: RowFormat, targets: int) -> torch.Tensor:
    """Stored rows [targets, columns] that say something valid and mean nothing: for passes whose divergence doesn't
    count, but whose numbers must be finite."""
    if row.kind == "hidden":
        return torch.zeros(targets, row.columns, dtype=DTYPES[row.stored_dtype])
    ids = torch.arange(row.width).repeat(targets, 1)
    if row.kind == "sampled":
        return ids_to_bytes(ids.clamp_(max=(row.vocabulary or 1) - 1), row.id_bytes)
    # No more than there is: a tail without ids would be infinitely far from every student.
    tail = torch.full((targets,), float("-inf") if row.width == row.vocabulary else 0.0)
    return pack_topk(TopKRows(ids=ids, log_probabilities=torch.zeros(targets, row.width), log_tail=tail), row)
