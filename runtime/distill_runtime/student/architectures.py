"""Which students are trained.

The objective reads the body's last state and the output layer's weight; that both together are the model's own logits
is held by a test for each name on the list, in loss and in every parameter's gradient.
"""

from pathlib import Path

from distill_runtime.errors import UserError
from distill_runtime.signals.head_source import UNDERSTOOD_HEADS, architecture_of

EXPERTS = frozenset(
    {
        "DeepseekV3ForCausalLM",
        "Glm4MoeForCausalLM",
        "GptOssForCausalLM",
        "GraniteMoeForCausalLM",
        "GraniteMoeSharedForCausalLM",
        "MiniMaxM2ForCausalLM",
        "MixtralForCausalLM",
        "OlmoeForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM",
    }
)
"""Mixtures of experts: teachers, but no students yet: their routers' balance loss is not part of the objective."""

NOT_CAUSAL = frozenset({"LlavaForConditionalGeneration"})
"""Architectures that transformers doesn't load as a causal language model."""

STUDENT_PROVEN = frozenset(UNDERSTOOD_HEADS) - EXPERTS - NOT_CAUSAL
"""Architectures that a student may have."""


def check_student(folder: Path) -> None:
    """Refuses a student, the checkpoint in `folder`, whose architecture isn't proven.

    Raises
    ------
    UserError
        With the reason UnsupportedStudent.
    """
    architecture = architecture_of(folder)
    if architecture in STUDENT_PROVEN:
        return
    why = (
        "is a mixture of experts, whose router would be trained without its balance loss: choose a dense one,"
        if architecture in EXPERTS
        else "is not among the architectures that a student may have:"
    )
    raise UserError(
        f"student: {architecture} {why} {', '.join(sorted(STUDENT_PROVEN))}.",
        reason="UnsupportedStudent",
    )
