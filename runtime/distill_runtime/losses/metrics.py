"""What held-out evaluation needs of the logits, chunk by chunk and without gradients: temperature 1, sums, float32."""

from dataclasses import dataclass

import torch

from distill_runtime.losses.vocabulary import (
    Head,
    block_rows,
    chosen,
    chunk_length,
    computing_dtype,
    finish_logits_,
    log_softmax_into,
    product_into,
    slices,
)
from distill_runtime.signals.head import HeadDescription, OutputHead

CALIBRATION_BINS = 15
"""Bins of equal width over the confidence, (0, 1/15] to (14/15, 1]: as many as in Guo et al. 2017, arXiv:1706.04599."""


@dataclass(frozen=True)
class MetricSums:
    """Sums over targets, as float64 scalars on the states' device: they can be added up over batches and ranks."""

    kl: torch.Tensor
    """Σ KL(teacher || student), in nats."""
    cross_entropy: torch.Tensor
    """Σ −log probability of the target under the student."""
    teacher_cross_entropy: torch.Tensor
    """The same under the teacher."""
    agreements: torch.Tensor
    """Targets where both find the same token the most likely."""
    targets: torch.Tensor
    """Number of targets."""
    calibration: torch.Tensor
    """The student's `calibration_sums`. [3, CALIBRATION_BINS]"""

    def stacked(self) -> torch.Tensor:
        """[5 + 3 · CALIBRATION_BINS], in the order of the fields: for one all-reduce."""
        scalars = [self.kl, self.cross_entropy, self.teacher_cross_entropy, self.agreements, self.targets]
        return torch.cat([torch.stack(scalars), self.calibration.flatten()])

    @staticmethod
    def unstacked(stacked: torch.Tensor) -> "MetricSums":
        """The opposite of `stacked`."""
        kl, cross_entropy, teacher_cross_entropy, agreements, targets = stacked[:5].unbind()
        calibration = stacked[5:].view(3, CALIBRATION_BINS)
        return MetricSums(kl, cross_entropy, teacher_cross_entropy, agreements, targets, calibration)

    def __add__(self, other: "MetricSums") -> "MetricSums":
        return MetricSums.unstacked(self.stacked() + other.stacked())


def calibration_sums(confidence: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    """What an expected calibration error is made of: of the predictions in each bin of confidence their number, Σ
    confidence and Σ correct (Guo et al. 2017, arXiv:1706.04599, section 2). They can be added up.

    Parameters
    ----------
    confidence
        Probability of the most likely outcome. [predictions]
    correct
        Whether that is the right one. [predictions]

    Returns
    -------
    torch.Tensor
        [3, CALIBRATION_BINS], float64
    """
    confidence = confidence.double()
    bins = (confidence * CALIBRATION_BINS).ceil_().long().sub_(1).clamp_(0, CALIBRATION_BINS - 1)
    of_each = torch.stack([torch.ones_like(confidence), confidence, correct.double()])
    return of_each.new_zeros(3, CALIBRATION_BINS).index_add_(1, bins, of_each)


@torch.no_grad()
def linear_metrics(
    student_hidden: torch.Tensor,
    student_weight: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_head: OutputHead,
    targets: torch.Tensor,
    *,
    student_head: HeadDescription,
    student_bias: torch.Tensor | None = None,
    chunk_tokens: int | None = None,
) -> MetricSums:
    """KL to the teacher, both cross entropies, top-1 agreement and the student's calibration, summed over targets;
    [T, V] never exists.

    The parameters are those of `fused_linear_objective`.

    Raises
    ------
    ValueError
        Shapes, vocabularies or descriptions don't fit each other.
    """
    student = Head.of(student_weight, student_head, student_bias)
    teacher = Head.of_teacher(teacher_head)
    if not len(student_hidden) == len(teacher_hidden) == len(targets):
        raise ValueError(
            f"{len(student_hidden)} states of the student, {len(teacher_hidden)} of the teacher, {len(targets)} targets"
        )
    if teacher.vocabulary != student.vocabulary:
        raise ValueError(f"the teacher's vocabulary is {teacher.vocabulary}, the student's {student.vocabulary}")
    sums = torch.zeros(4, dtype=torch.float64, device=student_hidden.device)
    calibration = sums.new_zeros(3, CALIBRATION_BINS)
    chunks = _Chunks(student_hidden, student.vocabulary, buffers=2, wanted=chunk_tokens)
    with torch.autocast(student_hidden.device.type, enabled=False):
        for at in chunks:
            student_cv, teacher_cv = (buffer[: at.stop - at.start] for buffer in chunks.buffers)
            product_into(student_cv, student_hidden[at], student.weight_vh)
            product_into(teacher_cv, teacher_hidden[at], teacher.weight_vh)
            for rows in slices(len(student_cv), chunks.rows):
                finish_logits_(student_cv[rows], student)
                finish_logits_(teacher_cv[rows], teacher)
                block, calibrated = _block_metrics(
                    student_cv[rows], teacher_cv[rows], chunks.scratch(rows), targets[at][rows]
                )
                sums += block
                calibration += calibrated
    return MetricSums(*sums.unbind(), targets=sums.new_tensor(len(targets)), calibration=calibration)


@torch.no_grad()
def linear_log_probabilities(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    description: HeadDescription,
    targets: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    chunk_tokens: int | None = None,
) -> torch.Tensor:
    """log softmax(logits)[target] of each target, [T], in float32 (float64 for float64 states); [T, V] never exists.

    Raises
    ------
    ValueError
        Shapes or description don't fit each other.
    """
    head = Head.of(weight, description, bias)
    if len(hidden) != len(targets):
        raise ValueError(f"{len(hidden)} states, {len(targets)} targets")
    chunks = _Chunks(hidden, head.vocabulary, buffers=1, wanted=chunk_tokens)
    result = torch.empty(len(targets), dtype=computing_dtype(hidden), device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        for at in chunks:
            logits_cv = chunks.buffers[0][: at.stop - at.start]
            product_into(logits_cv, hidden[at], head.weight_vh)
            for rows in slices(len(logits_cv), chunks.rows):
                finish_logits_(logits_cv[rows], head)
                log_softmax_into(chunks.scratch(rows), logits_cv[rows])
                result[at][rows] = chosen(chunks.scratch(rows), targets[at][rows])
    return result


class _Chunks:
    """The chunks of so many states, and the memory that they share."""

    def __init__(self, hidden: torch.Tensor, vocabulary: int, *, buffers: int, wanted: int | None) -> None:
        dtype, device = computing_dtype(hidden), hidden.device
        self._tokens = len(hidden)
        self._length = chunk_length(self._tokens, vocabulary, dtype, device, wanted)
        self.rows = block_rows(self._length, vocabulary, device)
        self._scratch = torch.empty(self.rows, vocabulary, dtype=dtype, device=device)
        self.buffers = [torch.empty(self._length, vocabulary, dtype=dtype, device=device) for _ in range(buffers)]

    def __iter__(self):
        return slices(self._tokens, self._length)

    def scratch(self, rows: slice) -> torch.Tensor:
        """[R, V] for a block of these rows."""
        return self._scratch[: rows.stop - rows.start]


def _block_metrics(
    student_rv: torch.Tensor, teacher_rv: torch.Tensor, scratch_rv: torch.Tensor, targets_r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[4]: KL, the student's and the teacher's cross entropy, agreements; and the student's `calibration_sums`. The
    logits are overwritten."""
    top_r = student_rv.argmax(-1)
    agreements = (top_r == teacher_rv.argmax(-1)).sum(dtype=torch.float64)
    log_softmax_into(scratch_rv, teacher_rv)
    log_softmax_into(teacher_rv, student_rv)
    calibration = calibration_sums(chosen(teacher_rv, top_r).exp(), top_r == targets_r)
    student_log = chosen(teacher_rv, targets_r).sum(dtype=torch.float64)
    teacher_log = chosen(scratch_rv, targets_r).sum(dtype=torch.float64)
    torch.sub(scratch_rv, teacher_rv, out=student_rv)
    kl = student_rv.mul_(scratch_rv.exp_()).sum(-1).sum(dtype=torch.float64)
    return torch.stack([kl, -student_log, -teacher_log, agreements]), calibration
