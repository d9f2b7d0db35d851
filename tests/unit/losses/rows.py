"""Sparse signals of a teacher whose logits are known, for the tests of the losses."""

import torch

from distill_runtime.signals.teacher_rows import SampledRows, TopKRows


def top_k_rows(teacher_logits: torch.Tensor, k: int, temperature: float = 1.0) -> TopKRows:
    """The exact top-k rows of logits [targets, vocabulary]."""
    log_p = torch.log_softmax(teacher_logits / temperature, -1)
    top = log_p.topk(k, dim=-1)
    rest = log_p.scatter(1, top.indices, -torch.inf).logsumexp(-1)
    return TopKRows(ids=top.indices, log_probabilities=top.values, log_tail=rest)


def sampled_rows(
    teacher_logits: torch.Tensor, draws: int, temperature: float = 1.0, *, generator: torch.Generator
) -> SampledRows:
    """Draws with replacement from the teacher's own distribution; each draw is an entry."""
    p = torch.softmax(teacher_logits / temperature, -1)
    drawn = torch.multinomial(p, draws, replacement=True, generator=generator)
    counts = torch.zeros_like(p).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=p.dtype))
    most = int((counts > 0).sum(-1).max())
    found = counts.topk(most, dim=-1)
    return SampledRows(ids=found.indices.where(found.values > 0, 0), weights=found.values / draws)
