"""Which students are trained.

The objective reads the body's last state and the output layer's weight; that both together are the model's own logits
is held by a test for each name on the list, in loss and in every parameter's gradient.
"""

from pathlib import Path

from distill_runtime.errors import UserError
from distill_runtime.signals.head_source import UNDERSTOOD_HEADS, architecture_of

EXPERTS = "is a mixture of experts, whose router would be trained without its balance loss"
BUFFERS = "keeps a part of its weights in buffers, which are neither trained nor exported"
WRAPPER = "is no causal language model of transformers"
REFUSED: dict[str, str] = {
    "ApertusForCausalLM": BUFFERS,
    "DeepseekV3ForCausalLM": EXPERTS,
    # Also a mixture of experts, by a field of its configuration.
    "Gemma4ForCausalLM": BUFFERS,
    "Glm4MoeForCausalLM": EXPERTS,
    "GptOssForCausalLM": EXPERTS,
    "GraniteMoeForCausalLM": EXPERTS,
    "GraniteMoeSharedForCausalLM": EXPERTS,
    "LlavaForConditionalGeneration": WRAPPER,
    "MiniMaxM2ForCausalLM": EXPERTS,
    "MixtralForCausalLM": EXPERTS,
    "OlmoeForCausalLM": EXPERTS,
    "Qwen2MoeForCausalLM": EXPERTS,
    "Qwen3MoeForCausalLM": EXPERTS,
    "Qwen3NextForCausalLM": EXPERTS,
}
"""Architectures that a teacher may have but no student, and why."""

STUDENT_PROVEN = frozenset(UNDERSTOOD_HEADS) - REFUSED.keys()
"""Architectures that a student may have."""

UNPACKED = frozenset({"Lfm2ForCausalLM", "Qwen3_5ForCausalLM"})
"""Students whose layers read on from one packed sequence into the next."""


def check_student(folder: Path, *, packing: bool) -> None:
    """Refuses a student, the checkpoint in `folder`, whose architecture isn't proven, or not with packed rows.

    Raises
    ------
    UserError
        With the reason UnsupportedStudent or PackingCrosses.
    """
    architecture = architecture_of(folder)
    if architecture not in STUDENT_PROVEN:
        why = REFUSED.get(architecture, "is not proven")
        raise UserError(
            f"student: {architecture} {why}: choose another student, one of {', '.join(sorted(STUDENT_PROVEN))}.",
            reason="UnsupportedStudent",
        )
    if packing and architecture in UNPACKED:
        raise UserError(
            f"training.packing: {architecture} reads across packed sequences: set training.packing to false.",
            reason="PackingCrosses",
        )
