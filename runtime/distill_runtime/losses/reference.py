"""The objective as plain formulas over full logits: what `fused_linear` must equal, in loss and in gradient.

Readable before fast: every function holds [targets, vocabulary]. For tests, notebooks and benchmarks.
"""

import math
from collections.abc import Callable

import torch

from distill_runtime.contract.sections import Divergence, DivergenceKind, Objective
from distill_runtime.signals.head import HeadDescription
from distill_runtime.signals.teacher_rows import SampledRows, TopKRows


def logits_of(
    hidden: torch.Tensor, weight: torch.Tensor, head: HeadDescription, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits [targets, vocabulary] of states [targets, hidden_size] under a head [padded_vocabulary, hidden_size].

    softcap(scale · (hidden · weightᵀ + bias)) over the real vocabulary, in the precision of the inputs: rows of the
    weight at and above `head.vocabulary` are padding and get no logit.
    """
    logits = hidden @ weight[: head.vocabulary].T
    if bias is not None:
        logits = logits + bias[: head.vocabulary]
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


def forward_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) = Σⱼ pⱼ · log(pⱼ / qⱼ), of each row, in nats; outcomes with pⱼ = 0 count nothing.

    The distillation loss of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015,
    arXiv:1503.02531), as a divergence: their cross entropy less the teacher's entropy, which has no gradient. At least
    0, and 0 where both are equal; not bounded above. Covers all that the teacher finds possible.
    """
    return (log_p.exp() * (log_p - log_q).masked_fill(log_p == -math.inf, 0.0)).sum(-1)


def reverse_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(q || p), of each row, in nats: the objective of Gu et al., "MiniLLM" (2023, arXiv:2306.08543), on the data's
    tokens. At least 0, and 0 where both are equal; not bounded above. Prefers one of the teacher's modes to all."""
    return forward_kl(log_q, log_p)


def mixture(log_one: torch.Tensor, log_other: torch.Tensor, share: float) -> torch.Tensor:
    """log(share · one + (1 − share) · other), with 0 ≤ share < 1."""
    if share == 0:
        return log_other
    return torch.logaddexp(log_one + math.log(share), log_other + math.log(1 - share))


def jensen_shannon(log_p: torch.Tensor, log_q: torch.Tensor, beta: float) -> torch.Tensor:
    """β · KL(p || m) + (1 − β) · KL(q || m) with m = β · p + (1 − β) · q, of each row, in nats.

    Generalised Jensen–Shannon divergence of Agarwal et al., "On-Policy Distillation of Language Models" (2023,
    arXiv:2306.13649, section 2), with 0 < β < 1. At least 0, 0 where both are equal, at most the entropy of (β, 1 − β)
    and so log 2. Divided by β it tends to the forward KL as β → 0; divided by 1 − β to the reverse KL as β → 1.
    """
    log_m = mixture(log_p, log_q, beta)
    return beta * forward_kl(log_p, log_m) + (1 - beta) * forward_kl(log_q, log_m)


def skewed_forward_kl(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    """KL(p || α · p + (1 − α) · q), of each row, in nats, with 0 ≤ α < 1.

    Skew KL divergence of Ko et al., "DistiLLM" (2024, arXiv:2402.03898, section 3.1), after Lee (1999). At least 0, and
    at most −log α; α = 0 is the forward KL.
    """
    return forward_kl(log_p, mixture(log_p, log_q, alpha))


def skewed_reverse_kl(log_p: torch.Tensor, log_q: torch.Tensor, alpha: float) -> torch.Tensor:
    """KL(q || (1 − α) · p + α · q), of each row, in nats, with 0 ≤ α < 1: the skew reverse KL of the same paper. At
    least 0, and at most −log α; α = 0 is the reverse KL."""
    return forward_kl(log_q, mixture(log_q, log_p, alpha))


def adaptive_kl(log_p: torch.Tensor, log_q: torch.Tensor, head_mass: float) -> torch.Tensor:
    """w · KL(p || q) + (1 − w) · KL(q || p), of each row, in nats, where w is the part of Σ |p − q| in the teacher's
    head: the fewest outcomes with at least `head_mass` of p together. No gradient flows through w.

    Wu et al., "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models" (2024,
    arXiv:2404.02657, section 4). At least 0, and 0 where both are equal; not bounded above. No f-divergence: of top-k
    rows it is that of their outcomes, and no lower bound of the whole one.
    """
    with torch.no_grad():
        p, q = log_p.exp(), log_q.exp()
        sorted_p, order = p.sort(dim=-1, descending=True, stable=True)
        gaps = (p - q).abs().gather(-1, order)
        head = sorted_p.cumsum(-1) - sorted_p < head_mass
        whole = gaps.sum(-1)
        w = torch.where(whole > 0, (gaps * head).sum(-1) / whole, 0.5)
    return w * forward_kl(log_p, log_q) + (1 - w) * reverse_kl(log_p, log_q)


def total_variation(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """½ Σⱼ |pⱼ − qⱼ|, of each row: Wen et al., "f-Divergence Minimization for Sequence-Level Knowledge Distillation"
    (2023, arXiv:2307.15190). Between 0, where both are equal, and 1. Its gradient is 0 where both are equal and jumps
    beside it."""
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


def teacher_top1(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """−log q of the teacher's most likely outcome (the first of several), of each row, in nats: word-level distillation
    (Kim and Rush, "Sequence-Level Knowledge Distillation", 2016, arXiv:1606.07947) on its mode. At least 0; not 0 where
    both are equal."""
    return -log_q.gather(-1, log_p.argmax(-1, keepdim=True))[:, 0]


def divergence(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, *, tail: bool = False) -> torch.Tensor:
    """The divergence of a term, without its weight, of each row: [rows] of log-probabilities [rows, outcomes]. `tail`:
    the last outcome is no token, and never the teacher's most likely one."""
    found: dict[DivergenceKind, Callable[[], torch.Tensor]] = {
        "forwardKL": lambda: forward_kl(log_p, log_q),
        "reverseKL": lambda: reverse_kl(log_p, log_q),
        "jensenShannon": lambda: jensen_shannon(log_p, log_q, term.beta),
        "skewedForwardKL": lambda: skewed_forward_kl(log_p, log_q, term.alpha),
        "skewedReverseKL": lambda: skewed_reverse_kl(log_p, log_q, term.alpha),
        "adaptiveKL": lambda: adaptive_kl(log_p, log_q, term.head_mass),
        "totalVariation": lambda: total_variation(log_p, log_q),
        "teacherTop1": lambda: teacher_top1(log_p[:, :-1] if tail else log_p, log_q),
    }
    return found[term.kind]()


def distillation(
    student_logits: torch.Tensor, teacher: torch.Tensor | TopKRows | SampledRows, objective: Objective
) -> torch.Tensor:
    """F · Σ over targets and terms of weight · D(p, q), with p = softmax(teacher / T), q = softmax(student / T) and
    F = T² or 1 (`objective.temperatureFactor`).

    With T² the gradient of the forward KL, T · (q − p), keeps its size between temperatures (Hinton et al., section
    2.1); as T grows that divergence tends to half the squared difference of the centred logits, divided by the
    vocabulary. Unchanged by a constant that is added to all logits of a row.

    Parameters
    ----------
    student_logits
        [targets, vocabulary]
    teacher
        Logits [targets, vocabulary] over the same ids. Or top-k rows: both sides are then distributions over the K ids
        and all others together. Or sampled rows: −Σ w · log q, the forward KL but for the teacher's entropy.
    """
    log_q = torch.log_softmax(student_logits / objective.temperature, dim=-1)
    factor = objective.temperature**2 if objective.temperature_factor == "squared" else 1.0
    if isinstance(teacher, SampledRows):
        weight = sum(term.weight for term in objective.divergences)
        return -factor * weight * (teacher.weights.to(log_q.dtype) * log_q.gather(1, teacher.ids)).sum()
    tail = isinstance(teacher, TopKRows) and teacher.ids.shape[1] < log_q.shape[1]
    if isinstance(teacher, TopKRows):
        log_p, log_q = top_k_outcomes(teacher, log_q)
    else:
        log_p = torch.log_softmax(teacher / objective.temperature, dim=-1)
    terms = [term.weight * divergence(term, log_p, log_q, tail=tail).sum() for term in objective.divergences]
    return factor * torch.stack(terms).sum()


def top_k_outcomes(teacher: TopKRows, log_q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the K ids and of all others together, [targets, K + 1], of the teacher and of the student
    with log q [targets, vocabulary]; only those of the K ids where there are no others."""
    of_ids = teacher.log_probabilities.to(log_q.dtype), log_q.gather(1, teacher.ids)
    if teacher.ids.shape[1] == log_q.shape[1]:
        return of_ids
    rest = log_q.scatter(1, teacher.ids, -math.inf).logsumexp(-1)
    tails = teacher.log_tail.to(log_q.dtype), rest
    return torch.cat([of_ids[0], tails[0][:, None]], -1), torch.cat([of_ids[1], tails[1][:, None]], -1)


def cross_entropy(student_logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Σ over targets of −log softmax(student)[target], in nats; always at temperature 1. At least 0, not bounded above.

    Parameters
    ----------
    student_logits
        [targets, vocabulary]
    targets
        [targets] int64, the ids that follow.
    """
    return -torch.log_softmax(student_logits, dim=-1).gather(1, targets[:, None]).sum()


def objective_total(
    student_logits: torch.Tensor,
    teacher: torch.Tensor | TopKRows | SampledRows | None,
    targets: torch.Tensor,
    objective: Objective,
) -> torch.Tensor:
    """The weighted sum of divergences and cross entropy over all targets: a sum, never a mean.

    Raises
    ------
    ValueError
        The divergences are weighted, and there is no teacher.
    """
    total = student_logits.new_zeros(())
    if objective.distillation_weight > 0:
        if teacher is None:
            raise ValueError("objective.distillationWeight is above 0, which needs the teacher's logits or rows")
        total = total + objective.distillation_weight * distillation(student_logits, teacher, objective)
    if objective.cross_entropy_weight > 0:
        total = total + objective.cross_entropy_weight * cross_entropy(student_logits, targets)
    return total
