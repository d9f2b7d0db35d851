"""The objective through both output heads, chunk by chunk: [targets, vocabulary] never exists.

Equal to `reference` in loss and gradient, for every option. Gradients are made together with the loss, as in the fused
linear cross entropy of Liger Kernel (Hsu et al. 2024, arXiv:2410.10989): the logits of a chunk are there once and never
again. The backward pass only multiplies what was kept, so it reads no weight; under ZeRO-3 none is there by then.

Legend of shapes: T targets, C targets of a chunk, R rows of a block inside it, V the real vocabulary, H a hidden size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from distill_runtime.contract.sections import Objective
from distill_runtime.losses.vocabulary import (
    Head,
    add_weight_gradient,
    block_rows,
    chosen,
    chunk_length,
    computing_dtype,
    finish_logits_,
    hidden_gradient_into,
    log_softmax_into,
    product_into,
    slices,
)
from distill_runtime.signals.head import HeadDescription, OutputHead


@dataclass(frozen=True)
class ObjectiveSums:
    """The objective and its parts: scalars, summed over targets."""

    total: torch.Tensor
    """distillation_weight · T² · Σ KL + cross_entropy_weight · Σ cross entropy. Differentiable."""
    divergence: torch.Tensor
    """T² · Σ KL(teacher || student), unweighted, detached. NaN where it has no weight: then it is not computed."""
    cross_entropy: torch.Tensor
    """Σ cross entropy at temperature 1, unweighted, detached. NaN where it was neither weighted nor asked for."""


def fused_linear_objective(
    student_hidden: torch.Tensor,
    student_weight: torch.Tensor,
    teacher_hidden: torch.Tensor | None,
    teacher_head: OutputHead | None,
    targets: torch.Tensor,
    *,
    student_head: HeadDescription,
    student_bias: torch.Tensor | None = None,
    objective: Objective,
    chunk_tokens: int | None = None,
    report: bool = True,
) -> ObjectiveSums:
    """Divergence from the teacher and cross entropy on the data, summed over targets.

    Peak memory above the inputs: two buffers of [C, V] and two of [R, V] in float32 (on GPUs R is C), the gradient of
    the hidden states in float32 and, where the head is trained, the whole gradient of its weight in float32. Without
    gradients, only the buffers.
    Gradients come back in the precision of their inputs. Sums and exponentials are float32; inputs in bfloat16 are
    multiplied as such on GPUs (the gradient of the logits is then rounded to bfloat16 too), else converted block by
    block. All in float64 for float64 states. Autocast has no effect.

    Parameters
    ----------
    student_hidden
        [T, H] states that predict the targets. T may be 0: the sums are 0, with gradients of 0.
    student_weight
        [V or more, H] of the student's head; rows from V on are padding and get no probability and no gradient.
    teacher_hidden
        [T, H of the teacher] in any precision. None only where `objective.distillation_weight` is 0.
    teacher_head
        The teacher's head, on the same device, over the same vocabulary.
    targets
        [T] int64: the ids that follow.
    student_head
        How the student makes logits.
    student_bias
        [V or more] of the student's head.
    objective
        Temperature and weights.
    chunk_tokens
        At most so many targets at a time. By default what 96 MiB (GPU: 512 MiB) hold. Doesn't change the result.
    report
        Compute the cross entropy for its value, where it has no weight.

    Raises
    ------
    ValueError
        Shapes, vocabularies or descriptions don't fit each other, or the teacher is missing.
    """
    student = Head.of(student_weight, student_head, student_bias)
    teacher = _teacher_side(teacher_hidden, teacher_head, objective)
    _check(student_hidden, student, teacher, targets)
    recording = torch.is_grad_enabled()
    work = _Work(
        student=student,
        teacher=teacher,
        targets=targets,
        objective=objective,
        chunk_tokens=chunk_tokens,
        counts_cross_entropy=report or objective.cross_entropy_weight > 0,
        for_hidden=recording and student_hidden.requires_grad,
        for_weight=recording and student_weight.requires_grad,
        for_bias=recording and student_bias is not None and student_bias.requires_grad,
    )
    # The type says what the checker can't see of `apply`.
    apply: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = _FusedLinearObjective.apply
    return ObjectiveSums(*apply(student_hidden, student_weight, student_bias, work))


@dataclass(frozen=True)
class _Work:
    """Everything of one call but the tensors that autograd watches."""

    student: Head
    teacher: tuple[torch.Tensor, Head] | None
    """Its states [T, H] and its head."""
    targets: torch.Tensor
    objective: Objective
    chunk_tokens: int | None
    counts_cross_entropy: bool
    for_hidden: bool
    for_weight: bool
    for_bias: bool

    @property
    def for_any(self) -> bool:
        """Is any gradient wanted?"""
        return self.for_hidden or self.for_weight or self.for_bias


@dataclass
class _Sums:
    """What the chunks add up to."""

    divergence: torch.Tensor
    cross_entropy: torch.Tensor
    hidden: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None


@dataclass
class _Buffers:
    """Memory that all chunks share."""

    student: torch.Tensor
    """[C, V] logits of the student."""
    other: torch.Tensor
    """[C, V] logits of the teacher, and then the gradient of the student's."""
    first: torch.Tensor
    """[R, V]"""
    second: torch.Tensor
    """[R, V]"""

    @property
    def rows(self) -> int:
        """R"""
        return self.first.shape[0]

    def block(self, rows: slice) -> "_Block":
        """The parts for these rows of the chunk."""
        count = rows.stop - rows.start
        return _Block(self.student[rows], self.other[rows], self.first[:count], self.second[:count])


@dataclass(frozen=True)
class _Block:
    """Rows of a chunk that are worked on together, [R, V] each: the student's logits, the teacher's (which become the
    gradient), and two spare ones."""

    student: torch.Tensor
    other: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


def _teacher_side(
    hidden: torch.Tensor | None, head: OutputHead | None, objective: Objective
) -> tuple[torch.Tensor, Head] | None:
    if objective.distillation_weight == 0:
        return None
    if hidden is None or head is None:
        raise ValueError("objective.distillationWeight is above 0, which needs the teacher's states and head")
    return hidden.detach(), Head.of_teacher(head)


def _check(
    hidden: torch.Tensor, student: Head, teacher: tuple[torch.Tensor, Head] | None, targets: torch.Tensor
) -> None:
    if hidden.ndim != 2 or hidden.shape[1] != student.weight_vh.shape[1]:
        raise ValueError(f"states {list(hidden.shape)} don't fit the head {list(student.weight_vh.shape)}")
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(f"{list(targets.shape)} targets of {targets.dtype} for {hidden.shape[0]} states; want int64")
    if teacher is None:
        return
    states, head = teacher
    if states.ndim != 2 or states.shape[1] != head.weight_vh.shape[1]:
        raise ValueError(f"the teacher's states {list(states.shape)} don't fit its head {list(head.weight_vh.shape)}")
    if states.shape[0] != hidden.shape[0]:
        raise ValueError(f"{states.shape[0]} states of the teacher for {hidden.shape[0]} of the student")
    if head.vocabulary != student.vocabulary:
        raise ValueError(f"the teacher's vocabulary is {head.vocabulary}, the student's {student.vocabulary}")


class _FusedLinearObjective(torch.autograd.Function):
    """Makes loss and gradients in one go, and scales the gradients in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, work: _Work
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            sums = _run(hidden, weight, bias, work)
        objective = work.objective
        dtype = computing_dtype(hidden)
        total = torch.zeros_like(sums.divergence)
        if work.teacher is not None:
            total = total + objective.distillation_weight * sums.divergence
        if objective.cross_entropy_weight > 0:
            total = total + objective.cross_entropy_weight * sums.cross_entropy
        ctx.save_for_backward(sums.hidden, sums.weight, sums.bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        outputs = total.to(dtype), sums.divergence.to(dtype), sums.cross_entropy.to(dtype)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator makes ctx positional
        ctx: Any, *grad_outputs: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        scaled = (
            None if kept is None else (kept * grad_outputs[0]).to(dtype)
            for kept, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return *scaled, None


def _run(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, work: _Work) -> _Sums:
    """All chunks of a call."""
    tokens, vocabulary = hidden.shape[0], work.student.vocabulary
    dtype, device = computing_dtype(hidden), hidden.device
    unknown = torch.full((), math.nan, dtype=torch.float64, device=device)
    zero = torch.zeros_like(unknown)
    sums = _Sums(
        divergence=zero.clone() if work.teacher is not None else unknown.clone(),
        cross_entropy=zero.clone() if work.counts_cross_entropy else unknown.clone(),
        hidden=torch.empty(hidden.shape, dtype=dtype, device=device) if work.for_hidden else None,
        weight=torch.zeros(weight.shape, dtype=dtype, device=device) if work.for_weight else None,
        bias=torch.zeros(bias.shape, dtype=dtype, device=device) if bias is not None and work.for_bias else None,
    )
    if tokens == 0:
        return sums
    chunk = chunk_length(tokens, vocabulary, dtype, device, work.chunk_tokens)
    rows = block_rows(chunk, vocabulary, device)
    buffers = _Buffers(*(torch.empty(n, vocabulary, dtype=dtype, device=device) for n in (chunk, chunk, rows, rows)))
    for at in slices(tokens, chunk):
        _add_chunk(sums, buffers, hidden.detach()[at], at, work)
    return sums


def _add_chunk(sums: _Sums, buffers: _Buffers, hidden_ch: torch.Tensor, at: slice, work: _Work) -> None:
    """Adds one chunk's losses and gradients."""
    count, vocabulary = hidden_ch.shape[0], work.student.vocabulary
    student_cv, other_cv = buffers.student[:count], buffers.other[:count]
    targets_c = work.targets[at]
    product_into(student_cv, hidden_ch, work.student.weight_vh)
    if work.teacher is not None:
        product_into(other_cv, work.teacher[0][at], work.teacher[1].weight_vh)
    for rows in slices(count, buffers.rows):
        block = buffers.block(rows)
        finish_logits_(block.student, work.student)
        if work.teacher is not None:
            finish_logits_(block.other, work.teacher[1])
        _add_block(sums, block, targets_c[rows], work)
    if sums.hidden is not None:
        hidden_gradient_into(sums.hidden[at], other_cv, work.student.weight_vh)
    if sums.weight is not None:
        add_weight_gradient(sums.weight[:vocabulary], other_cv, hidden_ch)
    if sums.bias is not None:
        sums.bias[:vocabulary] += other_cv.sum(0)


def _add_block(sums: _Sums, block: _Block, targets_r: torch.Tensor, work: _Work) -> None:
    """Adds one block's losses; leaves the gradient of the student's product (before scale and softcap) in `other`.

    With logits s and t, p = softmax(t / T), q = softmax(s / T) and the target y, the gradient of s is
    T · distillation_weight · (q − p) + cross_entropy_weight · (softmax(s) − onehot(y)).
    """
    temperature, scale = work.objective.temperature, work.student.scale
    distillation = work.objective.distillation_weight * temperature * scale
    cross_entropy = work.objective.cross_entropy_weight * scale
    student_rv, gradient_rv, spare_rv = block.student, block.other, block.second
    # At temperature 1 both terms need the same log-softmax.
    shared = work.teacher is not None and temperature == 1.0
    log_chosen_r = None
    if work.teacher is not None:
        _add_divergence(sums, block, temperature)
        if shared and work.counts_cross_entropy:
            log_chosen_r = chosen(gradient_rv, targets_r)
        if work.for_any:
            gradient_rv.exp_().mul_(distillation + cross_entropy if shared else distillation)
            gradient_rv.sub_(block.first, alpha=distillation)
    elif work.for_any:
        gradient_rv.zero_()
    if work.counts_cross_entropy:
        if log_chosen_r is None:
            log_softmax_into(spare_rv, student_rv)
            log_chosen_r = chosen(spare_rv, targets_r)
            if work.for_any and cross_entropy != 0:
                gradient_rv.add_(spare_rv.exp_(), alpha=cross_entropy)
        sums.cross_entropy -= log_chosen_r.sum(dtype=torch.float64)
    if work.for_any and cross_entropy != 0:
        at_r1 = targets_r[:, None]
        gradient_rv.scatter_add_(1, at_r1, torch.full_like(at_r1, -cross_entropy, dtype=gradient_rv.dtype))
    if work.for_any and work.student.softcap is not None:
        # d softcap(x) / dx = 1 − (softcap(x) / c)²; the logits are not needed any more.
        student_rv.div_(work.student.softcap).square_()
        gradient_rv.addcmul_(gradient_rv, student_rv, value=-1.0)


def _add_divergence(sums: _Sums, block: _Block, temperature: float) -> None:
    """Adds T² · KL(p || q); leaves p in `first` and log q in `other`, where the teacher's logits were."""
    if temperature == 1.0:
        log_softmax_into(block.first, block.other)
        log_softmax_into(block.other, block.student)
    else:
        log_softmax_into(block.first, block.other.div_(temperature))
        torch.div(block.student, temperature, out=block.second)
        log_softmax_into(block.other, block.second)
    torch.sub(block.first, block.other, out=block.second)
    block.second.mul_(block.first.exp_())
    sums.divergence += temperature**2 * block.second.sum(-1).sum(dtype=torch.float64)
