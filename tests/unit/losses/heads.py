"""Random states and heads of both sides, for the tests of the losses."""

from dataclasses import dataclass

import torch

from distill_runtime.contract.sections import Objective
from distill_runtime.losses import reference
from distill_runtime.losses.fused_linear import ObjectiveSums, fused_linear_objective
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.teacher_rows import HiddenRows


@dataclass
class Sides:
    """One call's inputs."""

    student_hidden: torch.Tensor
    student_weight: torch.Tensor
    student_bias: torch.Tensor | None
    student_head: HeadDescription
    teacher_hidden: torch.Tensor
    teacher_head: OutputHead
    targets: torch.Tensor

    @property
    def teacher(self) -> HiddenRows:
        return HiddenRows(self.teacher_hidden, self.teacher_head)

    def as_teacher_head(self) -> OutputHead:
        """The student's head, as a teacher's that is the same."""
        bias = None if self.student_bias is None else self.student_bias.detach()
        return OutputHead(self.student_head, self.student_weight.detach(), bias)

    @property
    def trained(self) -> list[torch.Tensor]:
        return [
            tensor
            for tensor in (self.student_hidden, self.student_weight, self.student_bias)
            if tensor is not None and tensor.requires_grad
        ]

    def fused(self, objective: Objective, *, chunk_tokens: int | None = None, report: bool = True) -> ObjectiveSums:
        return fused_linear_objective(
            self.student_hidden,
            self.student_weight,
            self.teacher,
            self.targets,
            student_head=self.student_head,
            student_bias=self.student_bias,
            objective=objective,
            chunk_tokens=chunk_tokens,
            report=report,
        )

    def logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's and the teacher's, in float64, connected to the graph."""
        student = reference.logits_of(
            self.student_hidden.double(), self.student_weight.double(), self.student_head, _double(self.student_bias)
        )
        head = self.teacher_head
        teacher = reference.logits_of(
            self.teacher_hidden.double(), head.weight.double(), head.description, _double(head.bias)
        )
        return student, teacher

    def plain(self, objective: Objective) -> torch.Tensor:
        """The objective by the plain formula in float64."""
        student, teacher = self.logits()
        return reference.objective_total(student, teacher, self.targets, objective)


def _double(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.double()


def random_sides(
    *,
    tokens: int = 7,
    vocabulary: int = 11,
    width: int = 5,
    teacher_width: int = 3,
    padding: int = 0,
    scale: float = 1.0,
    softcap: float | None = None,
    bias: bool = False,
    frozen_head: bool = False,
    size: float = 1.0,
    dtype: torch.dtype = torch.float32,
    teacher_dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Sides:
    """Both sides at random; scale, softcap and bias hold for both, with other values for the teacher."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    def describe(hidden_size: int, padded: int, factor: float) -> HeadDescription:
        return HeadDescription(
            hidden_size=hidden_size,
            padded_vocabulary=padded,
            vocabulary=vocabulary,
            scale=scale if scale == 1.0 else scale * factor,
            softcap=None if softcap is None else softcap * factor,
            bias=bias,
        )

    padded = vocabulary + padding
    return Sides(
        student_hidden=(normal(tokens, width, dtype=dtype) * size).requires_grad_(),
        student_weight=normal(padded, width, dtype=dtype).requires_grad_(not frozen_head),
        student_bias=normal(padded, dtype=dtype).requires_grad_(not frozen_head) if bias else None,
        student_head=describe(width, padded, 1.0),
        teacher_hidden=normal(tokens, teacher_width, dtype=teacher_dtype) * size,
        teacher_head=OutputHead(
            description=describe(teacher_width, vocabulary, 0.75),
            weight=normal(vocabulary, teacher_width, dtype=teacher_dtype),
            bias=normal(vocabulary, dtype=teacher_dtype) if bias else None,
        ),
        targets=torch.randint(0, vocabulary, (tokens,), generator=generator),
    )
