"""The module that DeepSpeed wraps: the student and the objective in one, so that ZeRO-3 gathers the head for both."""

from typing import Any, Literal, cast

import torch
from torch import nn

from distill_runtime.contract.sections import Objective
from distill_runtime.losses.fused_linear import fused_linear_objective
from distill_runtime.signals.head import HeadDescription
from distill_runtime.signals.teacher_rows import TeacherRows

STUDENT_PREFIX = "student."
"""What the wrapper puts before the names of the model's own parameters."""

Sums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Loss (scaled, differentiable), divergence and cross entropy (sums over targets, not weighted)."""


class DistilledStudent(nn.Module):
    """A causal language model that is asked for an objective and not for logits.

    The forward pass stops at the last hidden state; only states before targets meet the output heads.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        head: HeadDescription,
        objective: Objective,
    ) -> None:
        super().__init__()
        self.student = student
        self.head = head
        self.objective = objective

    def forward(
        self, ask: Literal["objective", "states", "logits"], inputs: dict[str, Any], **batch: Any
    ) -> Sums | torch.Tensor:
        """What is asked for, of `inputs` (input_ids [rows, length] and the attention's own arguments).

        - `objective`: `_objective`'s sums; `batch` is its arguments.
        - `states`: last hidden states [rows, length, hidden].
        - `logits`: the model's own logits [rows, length, vocabulary], for a few tokens.
        """
        if ask == "logits":
            return self.student(**inputs, use_cache=False).logits
        body = cast(nn.Module, cast(Any, self.student).base_model)
        states = body(**inputs, use_cache=False).last_hidden_state
        return states if ask == "states" else self._objective(states, **batch)

    def _objective(
        self,
        states: torch.Tensor,
        state_index: torch.Tensor,
        targets: torch.Tensor,
        teacher: TeacherRows | None,
        scale: float,
    ) -> Sums:
        """The objective of the states [rows, length, hidden] at `state_index` [targets], times `scale`.

        The teacher's head comes with its rows and is neither a parameter nor a buffer: DeepSpeed must not cast, divide,
        reduce or save it.

        With a scale of 0 the pass is a real one whose sums and gradients are 0.
        """
        output = cast(Any, self.student).get_output_embeddings()
        sums = fused_linear_objective(
            states.flatten(0, 1)[state_index],
            output.weight,
            teacher,
            targets,
            student_head=self.head,
            student_bias=output.bias if self.head.bias else None,
            objective=self.objective,
            chunk_tokens=self.objective.chunk_tokens,
        )
        present = 0.0 if scale == 0 else 1.0
        return sums.total * scale, sums.divergence * present, sums.cross_entropy * present
