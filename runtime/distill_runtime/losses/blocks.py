"""Some rows of a chunk: their losses, and the gradient of the student's logits, in memory that is given.

Legend of shapes: R rows of a block, V the real vocabulary, K ids that a sparse signal names.
"""

from dataclasses import dataclass

import torch

from distill_runtime.contract.sections import Divergence, Objective
from distill_runtime.losses.divergences import divergences_and_slopes
from distill_runtime.losses.vocabulary import Head, chosen, log_softmax_into
from distill_runtime.signals.teacher_rows import SampledRows, TopKRows

NEVER = float("-inf")


@dataclass(frozen=True)
class Block:
    """The rows, [R, V] each: the student's logits, the teacher's (which become the gradient), and two spare ones."""

    student: torch.Tensor
    other: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


@dataclass(frozen=True)
class Factors:
    """What an objective multiplies by."""

    temperature: float
    divergence: float
    """Of the divergences' value: T², or 1."""
    distillation: float
    """Of the divergences' gradient, in terms of the student's product before scale and softcap."""
    cross_entropy: float
    """The same for the cross entropy on the data."""

    @staticmethod
    def of(objective: Objective, scale: float) -> "Factors":
        """The factors of an objective for a student whose logits are scaled by `scale`."""
        squared = objective.temperature**2 if objective.temperature_factor == "squared" else 1.0
        return Factors(
            temperature=objective.temperature,
            divergence=squared,
            distillation=objective.distillation_weight * squared / objective.temperature * scale,
            cross_entropy=objective.cross_entropy_weight * scale,
        )


@dataclass(frozen=True)
class DenseTeacher:
    """The teacher's logits are in the block's `other`."""


@dataclass(frozen=True)
class RowLosses:
    """Sums over the block's rows, float64 scalars; None where it wasn't asked for."""

    divergence: torch.Tensor | None
    cross_entropy: torch.Tensor | None


def block_losses(
    block: Block,
    teacher: DenseTeacher | TopKRows | SampledRows | None,
    targets_r: torch.Tensor,
    student: Head,
    objective: Objective,
    *,
    counts_cross_entropy: bool,
    wants_gradient: bool,
) -> RowLosses:
    """The losses of a block; with `wants_gradient` the gradient of the student's product (before scale and softcap) is
    in `other` then.

    With logits s and t, p = softmax(t / T), q = softmax(s / T), slopes a and the target y, the gradient of s is
    T · distillation_weight · (a − q · Σ a) + cross_entropy_weight · (softmax(s) − onehot(y)); for the forward KL
    a = −p.
    """
    factors = Factors.of(objective, student.scale)
    # At temperature 1 both terms need the same log-softmax.
    shared = teacher is not None and factors.temperature == 1.0
    divergence = log_chosen_r = None
    if teacher is not None:
        slopes = _slopes(block, teacher, objective.divergences, factors.temperature)
        divergence = factors.divergence * slopes.value.sum(dtype=torch.float64)
        if shared and counts_cross_entropy:
            log_chosen_r = chosen(block.other, targets_r)
        if wants_gradient:
            _distillation_gradient(block, slopes, factors, of_q=factors.cross_entropy if shared else 0.0)
    elif wants_gradient:
        block.other.zero_()
    if counts_cross_entropy and log_chosen_r is None:
        log_softmax_into(block.second, block.student)
        log_chosen_r = chosen(block.second, targets_r)
        if wants_gradient and factors.cross_entropy != 0:
            block.other.add_(block.second.exp_(), alpha=factors.cross_entropy)
    if wants_gradient and factors.cross_entropy != 0:
        at_r1 = targets_r[:, None]
        block.other.scatter_add_(1, at_r1, torch.full_like(at_r1, -factors.cross_entropy, dtype=block.other.dtype))
    if wants_gradient and student.softcap is not None:
        # d softcap(x) / dx = 1 − (softcap(x) / c)²; the logits are not needed any more.
        block.student.div_(student.softcap).square_()
        block.other.addcmul_(block.other, block.student, value=-1.0)
    return RowLosses(
        divergence=divergence,
        cross_entropy=None if log_chosen_r is None else -log_chosen_r.sum(dtype=torch.float64),
    )


@dataclass(frozen=True)
class _Slopes:
    """Divergence and slopes of a block's rows, whose log q is in `other`."""

    value: torch.Tensor
    """[R]"""
    total: torch.Tensor | float
    """Σ a of each row, [R, 1] or the same for all."""
    dense: torch.Tensor | None = None
    """[R, V]"""
    ids: torch.Tensor | None = None
    """[R, K] of `sparse`."""
    sparse: torch.Tensor | None = None
    """[R, K]"""
    tail: torch.Tensor | None = None
    """[R, 1]: slope of all other ids together; the log of their part in it is in `second`, [R, V]."""


def _slopes(
    block: Block, teacher: DenseTeacher | TopKRows | SampledRows, terms: list[Divergence], temperature: float
) -> _Slopes:
    if isinstance(teacher, DenseTeacher):
        log_softmax_into(block.first, block.other if temperature == 1.0 else block.other.div_(temperature))
    student_rv = block.student
    if temperature != 1.0:
        student_rv = torch.div(block.student, temperature, out=block.second)
    log_softmax_into(block.other, student_rv)
    if isinstance(teacher, DenseTeacher):
        return _dense_slopes(block, terms)
    if isinstance(teacher, SampledRows):
        return _sampled_slopes(block, teacher, terms)
    return _top_k_slopes(block, teacher, terms)


def _dense_slopes(block: Block, terms: list[Divergence]) -> _Slopes:
    if len(terms) == 1 and terms[0].kind == "forwardKL":
        # The usual case, without other memory: logits of finite states are finite.
        torch.sub(block.first, block.other, out=block.second)
        block.second.mul_(block.first.exp_())
        weight = terms[0].weight
        return _Slopes(value=weight * block.second.sum(-1), total=-weight, dense=block.first.mul_(-weight))
    value, slope = divergences_and_slopes(terms, block.first, block.other, tail=False)
    return _Slopes(value=value, total=slope.sum(-1, keepdim=True), dense=slope)


def _top_k_slopes(block: Block, teacher: TopKRows, terms: list[Divergence]) -> _Slopes:
    log_q_rk = block.other.gather(1, teacher.ids)
    others_rv = block.second.copy_(block.other).scatter_(1, teacher.ids, NEVER)
    log_rest_r1 = others_rv.logsumexp(-1, keepdim=True)
    log_p = torch.cat([teacher.log_probabilities, teacher.log_tail[:, None]], -1).to(log_q_rk.dtype)
    value, slope = divergences_and_slopes(terms, log_p, torch.cat([log_q_rk, log_rest_r1], -1), tail=True)
    # Where no id is left there is nothing to divide by.
    others_rv.sub_(log_rest_r1.masked_fill(log_rest_r1 == NEVER, 0.0))
    return _Slopes(
        value=value,
        total=slope.sum(-1, keepdim=True),
        ids=teacher.ids,
        sparse=slope[:, :-1],
        tail=slope[:, -1:],
    )


def _sampled_slopes(block: Block, teacher: SampledRows, terms: list[Divergence]) -> _Slopes:
    """Σ over draws of −w · log q: the forward KL but for the teacher's entropy, which nobody knows here."""
    weights_rk = teacher.weights.to(block.other.dtype) * sum(term.weight for term in terms)
    value = -(weights_rk * block.other.gather(1, teacher.ids)).sum(-1)
    return _Slopes(value=value, total=-weights_rk.sum(-1, keepdim=True), ids=teacher.ids, sparse=-weights_rk)


def _distillation_gradient(block: Block, slopes: _Slopes, factors: Factors, *, of_q: float) -> None:
    """distillation · (a − q · Σ a) + of_q · q, where log q was."""
    block.other.exp_().mul_(of_q - factors.distillation * slopes.total)
    if slopes.dense is not None:
        block.other.add_(slopes.dense, alpha=factors.distillation)
    if slopes.tail is not None:
        block.other.addcmul_(block.second.exp_(), slopes.tail, value=factors.distillation)
    if slopes.ids is not None and slopes.sparse is not None:
        block.other.scatter_add_(1, slopes.ids, factors.distillation * slopes.sparse)


def rows_of(teacher: TopKRows | SampledRows, at: slice) -> TopKRows | SampledRows:
    """The part of a sparse signal for some targets."""
    if isinstance(teacher, SampledRows):
        return SampledRows(teacher.ids[at], teacher.weights[at])
    return TopKRows(teacher.ids[at], teacher.log_probabilities[at], teacher.log_tail[at])
