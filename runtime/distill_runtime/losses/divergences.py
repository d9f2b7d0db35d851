"""Divergences of rows of outcomes and their slopes, from log-probabilities alone: dense and sparse signals share them.

With p the teacher's and q the student's distribution over O outcomes (the vocabulary, or some ids and a tail), every
function gives the divergence D of each of R rows and its slope aⱼ = ∂D / ∂ log qⱼ with all log qⱼ taken as free. The
gradient of the logits s of q = softmax(s) is then aⱼ − qⱼ · Σ a. Formulas, sources and bounds are in `reference`.

An outcome without probability on either side (−inf and −inf) counts nothing.
"""

import math
from collections.abc import Callable, Iterable

import torch

from distill_runtime.contract.sections import Divergence, DivergenceKind

Rows = tuple[torch.Tensor, torch.Tensor]
"""Divergence of each row, [R], and slopes, [R, O]."""


def divergences_and_slopes(
    terms: Iterable[Divergence], log_p: torch.Tensor, log_q: torch.Tensor, *, tail: bool
) -> Rows:
    """The weighted sum of divergences of each row, [R], and its slopes, [R, O].

    Parameters
    ----------
    log_p, log_q
        [R, O] of teacher and student.
    tail
        The last outcome stands for several ids together: it can't be the most likely one.
    """
    rows: Rows | None = None
    for term in terms:
        value, slope = _TERMS[term.kind](term, log_p, log_q, tail)
        value, slope = term.weight * value, slope.mul_(term.weight)
        rows = (value, slope) if rows is None else (rows[0] + value, rows[1].add_(slope))
    assert rows is not None, "an objective has at least one divergence"
    return rows


def _expected(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """weights · values, and 0 where the weight is 0, whatever the value."""
    return torch.where(weights > 0, weights * values, 0.0)


def _log_mixture(log_one: torch.Tensor, log_other: torch.Tensor, share: float) -> torch.Tensor:
    """log(share · one + (1 − share) · other), with 0 ≤ share < 1."""
    if share == 0:
        return log_other
    return torch.logaddexp(log_one + math.log(share), log_other + math.log(1 - share))


def _forward_kl(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    p = log_p.exp()
    return _expected(p, log_p - log_q).sum(-1), p.neg_()


def _reverse_kl(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    q = log_q.exp()
    parts = _expected(q, log_q - log_p)
    return parts.sum(-1), parts + q


def _jensen_shannon(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    beta, q = term.beta, log_q.exp()
    log_m = _log_mixture(log_p, log_q, beta)
    of_student = _expected(q, log_q - log_m).mul_(1 - beta)
    of_teacher = _expected(log_p.exp(), log_p - log_m).mul_(beta)
    return (of_student + of_teacher).sum(-1), of_student


def _skewed_forward_kl(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    p = log_p.exp()
    log_m = _log_mixture(log_p, log_q, term.alpha)
    slope = _expected(p, (log_q - log_m).exp_()).mul_(term.alpha - 1)
    return _expected(p, log_p - log_m).sum(-1), slope


def _skewed_reverse_kl(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    q = log_q.exp()
    log_m = _log_mixture(log_q, log_p, term.alpha)
    parts = _expected(q, log_q - log_m)
    share = _expected(q, (log_q - log_m).exp_().mul_(-term.alpha).add_(1))
    return parts.sum(-1), share.add_(parts)


def _adaptive_kl(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    share = head_share(log_p.exp(), log_q.exp(), term.head_mass)
    forward, forward_slope = _forward_kl(term, log_p, log_q, tail)
    reverse, reverse_slope = _reverse_kl(term, log_p, log_q, tail)
    value = share * forward + (1 - share) * reverse
    return value, torch.lerp(reverse_slope, forward_slope, share[:, None])


def head_share(p: torch.Tensor, q: torch.Tensor, head_mass: float) -> torch.Tensor:
    """[R]: the part of Σ |p − q| that lies in the teacher's head, the fewest outcomes that have at least `head_mass`
    together; a half where both are equal. The weight of the forward KL in the adaptive KL (Wu et al. 2024,
    arXiv:2404.02657)."""
    sorted_p, order = p.sort(dim=-1, descending=True, stable=True)
    in_head = sorted_p.cumsum(-1) - sorted_p < head_mass
    gaps = (p - q).abs_().gather(-1, order)
    head, whole = (gaps * in_head).sum(-1), gaps.sum(-1)
    return torch.where(whole > 0, head / whole, 0.5)


def _total_variation(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    q = log_q.exp()
    gaps = q - log_p.exp()
    return gaps.abs().sum(-1).mul_(0.5), gaps.sign_().mul_(q).mul_(0.5)


def _teacher_top1(term: Divergence, log_p: torch.Tensor, log_q: torch.Tensor, tail: bool) -> Rows:
    top_r1 = (log_p[:, :-1] if tail else log_p).argmax(-1, keepdim=True)
    slope = torch.zeros_like(log_q).scatter_(1, top_r1, -1.0)
    return -log_q.gather(1, top_r1)[:, 0], slope


_TERMS: dict[DivergenceKind, Callable[[Divergence, torch.Tensor, torch.Tensor, bool], Rows]] = {
    "forwardKL": _forward_kl,
    "reverseKL": _reverse_kl,
    "jensenShannon": _jensen_shannon,
    "skewedForwardKL": _skewed_forward_kl,
    "skewedReverseKL": _skewed_reverse_kl,
    "adaptiveKL": _adaptive_kl,
    "totalVariation": _total_variation,
    "teacherTop1": _teacher_top1,
}
