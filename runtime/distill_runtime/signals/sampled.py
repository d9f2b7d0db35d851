"""Ids drawn from the teacher's distribution for each target: as rows of bytes, and back.

Legend of shapes: T targets, C targets of a chunk, H the teacher's hidden size, V the real vocabulary, N draws.

Draws are with replacement, each from the teacher's own distribution at the objective's temperature. So the part of the
draws that fell on an id is an unbiased estimate of its probability, and whatever is linear in the teacher's
probabilities (forward KL, cross entropy) has an unbiased gradient; a renormalised top-k has not. See Anshumann et al.,
"Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs" (2025, arXiv:2503.16870), with proposal t = 1.
"""

import numpy as np
import torch

from distill_runtime.signals.distribution import log_probability_chunks
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.id_bytes import bytes_to_ids, ids_to_bytes
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.teacher_rows import SampledRows


def draws_of(sequence_digest: str, targets: int, samples: int) -> torch.Tensor:
    """Numbers in [0, 1), float64 [T, N]: those of the i-th target of a sequence, the same wherever and whenever they
    are asked for. So a target's draws don't change from epoch to epoch.

    Philox (Salmon et al. 2011) with the sequence's digest, which covers its ids and target mask, as its key.
    """
    bits = np.random.Philox(key=int(sequence_digest[:32], 16)).random_raw(targets * samples)
    # 53 bits, as a double has. Made here: numpy promises the bits to stay, but not its own way from them to a double.
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).view(targets, samples)


@torch.no_grad()
def encode_sampled(states: torch.Tensor, head: OutputHead, row: RowFormat, draws: torch.Tensor) -> torch.Tensor:
    """The stored rows (uint8) of the teacher's states: the ids where `draws` fall, at the temperature of the format.

    Ids are stored in rising order and as often as they were drawn, which takes less than ids with counts.

    Parameters
    ----------
    states
        [T, H], finite, on the device of the head.
    draws
        [T, N] float64, uniform in [0, 1); see `draws_of`.
    """
    assert row.temperature is not None
    parts: list[torch.Tensor] = []
    first = 0
    for log_cv in log_probability_chunks(states, head, row.temperature):
        uniform_cn = draws[first : first + len(log_cv)].to(log_cv.device)
        parts.append(ids_to_bytes(_drawn(log_cv, uniform_cn), row.id_bytes))
        first += len(log_cv)
    return torch.cat(parts) if parts else torch.empty(0, row.columns, dtype=torch.uint8, device=states.device)


def _drawn(log_cv: torch.Tensor, uniform_cn: torch.Tensor) -> torch.Tensor:
    """[C, N] ids in rising order: of each number the first id whose cumulated probability is above it."""
    # In float64: a sum over the vocabulary in float32 would shift the likelihood of late ids.
    cumulated = log_cv.exp_().double().cumsum(-1)
    ids = torch.searchsorted(cumulated, uniform_cn * cumulated[:, -1:], right=True)
    return ids.clamp_(max=log_cv.shape[-1] - 1).sort(dim=-1).values


def decode_sampled(stored: torch.Tensor, row: RowFormat) -> SampledRows:
    """The rows in stored bytes, on their device: each id once, with the part of the draws that fell on it."""
    ids = bytes_to_ids(stored, row.id_bytes)
    first = torch.ones_like(ids, dtype=torch.bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    place = first.cumsum(-1) - 1
    counts = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    counts.scatter_add_(1, place, torch.ones_like(counts))
    return SampledRows(ids=torch.zeros_like(ids).scatter_(1, place, ids), weights=counts / row.width)
