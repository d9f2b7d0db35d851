"""Which teachers an engine is trusted with.

A head multiplies the state *after* the final norm. Not every architecture's pooling in vLLM yields that one: MiMo and
Step 3.5 norm later, MiniCPM scales behind the norm. So each name on these lists is held by a test, which runs a tiny
random model through the engine and compares states times head with the model's own logits.
"""

from pathlib import Path

from distill_runtime.errors import UserError
from distill_runtime.signals.head_source import UNDERSTOOD_HEADS, architecture_of

TRANSFORMERS_PROVEN = frozenset(UNDERSTOOD_HEADS)
"""Architectures whose AutoModel returns states after the final norm: a head is on its list only with that test."""

VLLM_PROVEN = frozenset(
    {
        "ArceeForCausalLM",
        "Cohere2ForCausalLM",
        "CohereForCausalLM",
        "Ernie4_5ForCausalLM",
        "Exaone4ForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "GemmaForCausalLM",
        "Glm4ForCausalLM",
        "Glm4MoeForCausalLM",
        "GlmForCausalLM",
        "GPT2LMHeadModel",
        "GptOssForCausalLM",
        "GraniteForCausalLM",
        "GraniteMoeForCausalLM",
        "GraniteMoeSharedForCausalLM",
        "HunYuanDenseV1ForCausalLM",
        "LlamaForCausalLM",
        "Ministral3ForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "NemotronForCausalLM",
        "Olmo2ForCausalLM",
        "Olmo3ForCausalLM",
        "OlmoeForCausalLM",
        "OlmoForCausalLM",
        "Phi3ForCausalLM",
        "PhiForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "SeedOssForCausalLM",
        "SmolLM3ForCausalLM",
        "StableLmForCausalLM",
        "Starcoder2ForCausalLM",
    }
)
"""Architectures whose token_embed pooling in vLLM returns states after the final norm."""


def check_engine(engine: str, folder: Path) -> None:
    """Refuses an engine (`vllm` or `transformers`) that isn't proven for the checkpoint in `folder`.

    Raises
    ------
    UserError
        With the reason EngineUnproven where another engine is proven, HeadUnknown where none is.
    """
    architecture = architecture_of(folder)
    if architecture not in TRANSFORMERS_PROVEN:
        raise UserError(
            f"{folder}: {architecture} is not among the architectures that a teacher may have: "
            f"{', '.join(sorted(TRANSFORMERS_PROVEN))}.",
            reason="HeadUnknown",
        )
    if engine != "vllm":
        return
    if architecture not in VLLM_PROVEN:
        raise UserError(
            f"{folder}: vLLM is not proven to return the last normed states of {architecture}: "
            "set teacher.engine to transformers.",
            reason="EngineUnproven",
        )
    if (folder / "modules.json").exists():
        # vLLM would send the states through the projections that such a folder brings along.
        raise UserError(
            f"{folder}/modules.json makes this a sentence embedding model, whose states vLLM projects: "
            "remove the file, or set teacher.engine to transformers.",
            reason="EngineUnproven",
        )
