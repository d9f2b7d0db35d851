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
from distill_runtime.losses.blocks import Block, DenseTeacher, block_losses, rows_of
from distill_runtime.losses.vocabulary import (
    Head,
    add_weight_gradient,
    block_rows,
    chunk_length,
    computing_dtype,
    finish_logits_,
    hidden_gradient_into,
    product_into,
    slices,
)
from distill_runtime.signals.head import HeadDescription
from distill_runtime.signals.teacher_rows import HiddenRows, SampledRows, TeacherRows, TopKRows


@dataclass(frozen=True)
class ObjectiveSums:
    """The objective and its parts: scalars, summed over targets."""

    total: torch.Tensor
    """distillation_weight · divergence + cross_entropy_weight · cross entropy. Differentiable."""
    divergence: torch.Tensor
    """Σ over targets and divergences, each with its weight, times the temperature's factor; detached. Of sampled rows:
    the cross entropy on the draws, which is the forward KL but for the teacher's entropy. NaN where it has no weight in
    the objective: then it is not computed."""
    cross_entropy: torch.Tensor
    """Σ cross entropy at temperature 1, unweighted, detached. NaN where it was neither weighted nor asked for."""


def fused_linear_objective(
    student_hidden: torch.Tensor,
    student_weight: torch.Tensor,
    teacher: TeacherRows | None,
    targets: torch.Tensor,
    *,
    student_head: HeadDescription,
    student_bias: torch.Tensor | None = None,
    objective: Objective,
    chunk_tokens: int | None = None,
    report: bool = True,
) -> ObjectiveSums:
    """Divergences from the teacher and cross entropy on the data, summed over targets.

    Peak memory above the inputs: two buffers of [C, V] and two of [R, V] in float32, some more of [R, V] for other
    divergences of hidden rows than the forward KL alone, the gradient of the hidden states in float32 and, where the
    head is trained, the whole gradient of its weight in float32. Without gradients, only the buffers.
    Gradients come back in the precision of their inputs. Sums and exponentials are float32; inputs in bfloat16 are
    multiplied as such on GPUs (the gradient of the logits is then rounded to bfloat16 too), else converted block by
    block. All in float64 for float64 states. Autocast has no effect.

    Parameters
    ----------
    student_hidden
        [T, H] states that predict the targets. T may be 0: the sums are 0, with gradients of 0.
    student_weight
        [V or more, H] of the student's head; rows from V on are padding and get no probability and no gradient.
    teacher
        What the teacher said of these targets, on the same device, over the same vocabulary. `TopKRows` must be those
        of `objective.temperature`; their divergences are those of K + 1 outcomes: lower bounds of the whole ones, but
        for the adaptive KL, and equal to them where K is V. `SampledRows` must be too, and define the forward KL
        alone. None only where `objective.distillation_weight` is 0.
    targets
        [T] int64: the ids that follow.
    student_head
        How the student makes logits.
    student_bias
        [V or more] of the student's head.
    objective
        Divergences, temperature and weights.
    chunk_tokens
        At most so many targets at a time. By default what 96 MiB (GPU: 512 MiB) hold. Doesn't change the result.
    report
        Compute the cross entropy for its value, where it has no weight.

    Raises
    ------
    ValueError
        Shapes, vocabularies or descriptions don't fit each other, the teacher is missing, or its rows don't define a
        divergence.
    """
    student = Head.of(student_weight, student_head, student_bias)
    side = _teacher_side(teacher, objective)
    _check(student_hidden, student, side, targets)
    recording = torch.is_grad_enabled()
    work = _Work(
        student=student,
        teacher=side,
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
class _Dense:
    """A teacher that is known by its states."""

    states: torch.Tensor
    """[T, H]"""
    head: Head


_Side = _Dense | TopKRows | SampledRows


@dataclass(frozen=True)
class _Work:
    """Everything of one call but the tensors that autograd watches."""

    student: Head
    teacher: _Side | None
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

    def block(self, rows: slice) -> Block:
        """The parts for these rows of the chunk."""
        count = rows.stop - rows.start
        return Block(self.student[rows], self.other[rows], self.first[:count], self.second[:count])


def _teacher_side(teacher: TeacherRows | None, objective: Objective) -> _Side | None:
    if objective.distillation_weight == 0:
        return None
    if teacher is None:
        raise ValueError("objective.distillationWeight is above 0, which needs the teacher's rows")
    if isinstance(teacher, HiddenRows):
        return _Dense(teacher.states.detach(), Head.of_teacher(teacher.head))
    others = [term.kind for term in objective.divergences if term.kind != "forwardKL"]
    if isinstance(teacher, SampledRows) and others:
        raise ValueError(f"sampled rows define the forward KL alone, not {others[0]}")
    return teacher


def _check(hidden: torch.Tensor, student: Head, teacher: _Side | None, targets: torch.Tensor) -> None:
    if hidden.ndim != 2 or hidden.shape[1] != student.weight_vh.shape[1]:
        raise ValueError(f"states {list(hidden.shape)} don't fit the head {list(student.weight_vh.shape)}")
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(f"{list(targets.shape)} targets of {targets.dtype} for {hidden.shape[0]} states; want int64")
    if isinstance(teacher, _Dense):
        _check_dense(teacher, student)
    rows = None if teacher is None else len(teacher.states) if isinstance(teacher, _Dense) else len(teacher)
    if rows is not None and rows != hidden.shape[0]:
        raise ValueError(f"{rows} rows of the teacher for {hidden.shape[0]} states of the student")


def _check_dense(teacher: _Dense, student: Head) -> None:
    states, head = teacher.states, teacher.head
    if states.ndim != 2 or states.shape[1] != head.weight_vh.shape[1]:
        raise ValueError(f"the teacher's states {list(states.shape)} don't fit its head {list(head.weight_vh.shape)}")
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
    product_into(student_cv, hidden_ch, work.student.weight_vh)
    if isinstance(work.teacher, _Dense):
        product_into(other_cv, work.teacher.states[at], work.teacher.head.weight_vh)
    for rows in slices(count, buffers.rows):
        _add_block(sums, buffers.block(rows), slice(at.start + rows.start, at.start + rows.stop), work)
    if sums.hidden is not None:
        hidden_gradient_into(sums.hidden[at], other_cv, work.student.weight_vh)
    if sums.weight is not None:
        add_weight_gradient(sums.weight[:vocabulary], other_cv, hidden_ch)
    if sums.bias is not None:
        sums.bias[:vocabulary] += other_cv.sum(0)


def _add_block(sums: _Sums, block: Block, at: slice, work: _Work) -> None:
    """Adds the losses of the targets `at`, whose products are in the block, and leaves their gradient in `other`."""
    finish_logits_(block.student, work.student)
    teacher: DenseTeacher | TopKRows | SampledRows | None = None
    if isinstance(work.teacher, _Dense):
        finish_logits_(block.other, work.teacher.head)
        teacher = DenseTeacher()
    elif work.teacher is not None:
        teacher = rows_of(work.teacher, at)
    found = block_losses(
        block,
        teacher,
        work.targets[at],
        work.student,
        work.objective,
        counts_cross_entropy=work.counts_cross_entropy,
        wants_gradient=work.for_any,
    )
    if found.divergence is not None:
        sums.divergence += found.divergence
    if found.cross_entropy is not None:
        sums.cross_entropy += found.cross_entropy
