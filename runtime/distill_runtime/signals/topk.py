"""The K most likely ids of each target, and the mass of all others: as rows of bytes, and back.

Legend of shapes: T targets, C targets of a chunk, H the teacher's hidden size, V the real vocabulary, K ids that are
kept, B bytes of a row.
"""

import torch

from distill_runtime.signals.codec import DTYPES
from distill_runtime.signals.distribution import log_probability_chunks
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.id_bytes import bytes_to_ids, ids_to_bytes
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.teacher_rows import TopKRows


@torch.no_grad()
def encode_topk(states: torch.Tensor, head: OutputHead, row: RowFormat) -> torch.Tensor:
    """The stored rows [T, B] (uint8) of the teacher's states, at the temperature of the format.

    The tail is the logarithm of the summed probabilities of the V − K other ids, and not of one minus the sum of those
    that are kept: exact however little is left. It is −inf where K = V.

    Parameters
    ----------
    states
        [T, H], finite, on the device of the head.
    """
    assert row.temperature is not None
    parts = [
        pack_topk(_most_likely(log_cv, row.width), row)
        for log_cv in log_probability_chunks(states, head, row.temperature)
    ]
    return torch.cat(parts) if parts else torch.empty(0, row.columns, dtype=torch.uint8, device=states.device)


def _most_likely(log_cv: torch.Tensor, k: int) -> TopKRows:
    """Overwrites the chunk."""
    log_probabilities, ids = log_cv.topk(k, dim=-1)
    log_tail = log_cv.scatter_(-1, ids, float("-inf")).logsumexp(-1)
    return TopKRows(ids=ids, log_probabilities=log_probabilities, log_tail=log_tail)


def pack_topk(rows: TopKRows, row: RowFormat) -> torch.Tensor:
    """[T, B] uint8: ids, log-probabilities, tail. What is below the lowest finite number of the stored precision (a
    probability of e^−65504 in float16) is stored as that number; a tail of −inf stays."""
    assert row.dtype is not None
    dtype = DTYPES[row.dtype]
    logs = torch.cat([rows.log_probabilities, rows.log_tail[:, None]], dim=1)
    clipped = torch.where(logs == float("-inf"), logs, logs.clamp(min=torch.finfo(dtype).min))
    return torch.cat([ids_to_bytes(rows.ids, row.id_bytes), clipped.to(dtype).view(torch.uint8)], dim=1)


def decode_topk(stored: torch.Tensor, row: RowFormat) -> TopKRows:
    """The rows in stored bytes [T, B], on their device.

    The K + 1 outcomes are renormalised in float32: rounding to the stored precision left their sum beside 1. In float16
    a log-probability l is off by at most 2^−11 · |l| before that.
    """
    assert row.dtype is not None
    ids, logs = stored.split([row.width * row.id_bytes, stored.shape[1] - row.width * row.id_bytes], dim=1)
    # A copy, since a view of another type needs aligned memory.
    values = logs.clone(memory_format=torch.contiguous_format).view(DTYPES[row.dtype])
    normalised = torch.log_softmax(values.float(), dim=-1)
    return TopKRows(
        ids=bytes_to_ids(ids, row.id_bytes), log_probabilities=normalised[:, :-1], log_tail=normalised[:, -1]
    )
