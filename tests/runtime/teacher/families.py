"""Tiny random models of every architecture on the lists, shaped so that both engines take them."""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from tests.fixtures.models import save_tiny_model, tiny_tokenizer

VOCABULARY = 380
"""Real ids of the tests; the tiny tokenizer has a few more, which stand for padding."""

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "CohereForCausalLM": ("cohere", {"logit_scale": 0.5, "tie_word_embeddings": True}),
    "Cohere2ForCausalLM": ("cohere2", {"logit_scale": 0.5, "tie_word_embeddings": True}),
    "GPT2LMHeadModel": ("gpt2", {"n_embd": 128, "n_head": 4, "n_layer": 2, "tie_word_embeddings": True}),
    "GPTNeoXForCausalLM": ("gpt_neox", {}),
    "GemmaForCausalLM": ("gemma", {"tie_word_embeddings": True}),
    "Gemma2ForCausalLM": ("gemma2", {"tie_word_embeddings": True, "final_logit_softcapping": 2.0}),
    "Gemma3ForCausalLM": ("gemma3_text", {"tie_word_embeddings": True, "final_logit_softcapping": 2.0}),
    "GraniteForCausalLM": ("granite", {"logits_scaling": 3.0}),
    "GraniteMoeForCausalLM": ("granitemoe", {"logits_scaling": 3.0, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "LlamaForCausalLM": ("llama", {}),
    "MistralForCausalLM": ("mistral", {}),
    "MixtralForCausalLM": ("mixtral", {"num_local_experts": 4}),
    "OlmoForCausalLM": ("olmo", {}),
    "Olmo2ForCausalLM": ("olmo2", {}),
    "Olmo3ForCausalLM": ("olmo3", {}),
    "PhiForCausalLM": ("phi", {}),
    "Phi3ForCausalLM": ("phi3", {}),
    "Qwen2ForCausalLM": ("qwen2", {}),
    "Qwen2MoeForCausalLM": ("qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 64}),
    "Qwen3ForCausalLM": ("qwen3", {}),
    "Qwen3MoeForCausalLM": ("qwen3_moe", _EXPERTS),
    "SmolLM3ForCausalLM": ("smollm3", {}),
    "Starcoder2ForCausalLM": ("starcoder2", {"bos_token_id": 0, "eos_token_id": 2}),
}
"""Architecture -> transformers' name of the family, and what differs from the usual tiny model."""

NESTED = ("Gemma3ForConditionalGeneration", "LlavaForConditionalGeneration")
"""Architectures with a text model inside."""

_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def save_family(folder: Path, architecture: str, **overrides: Any) -> Path:
    """A tiny random model of the architecture, float32, with a hidden size of 128."""
    family, own = FAMILIES[architecture]
    return save_tiny_model(folder, family, layers=2, hidden=128, **{"head_dim": 32, **own, **overrides})


def save_nested(folder: Path, architecture: str, **text: Any) -> Path:
    """A tiny random model with a vision tower around its text model."""
    tokenizer = tiny_tokenizer()
    family, inner, vision = {
        "Gemma3ForConditionalGeneration": ("gemma3", "gemma3_text", "siglip_vision_model"),
        "LlavaForConditionalGeneration": ("llava", "llama", "clip_vision_model"),
    }[architecture]
    text_config: dict[str, Any] = {
        "model_type": inner,
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        **text,
    }
    make_config: Any = CONFIG_MAPPING[family]
    config = make_config(
        text_config=text_config, vision_config={"model_type": vision, **_VISION}, image_token_index=len(tokenizer) - 1
    )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return folder


def load_reference(folder: Path) -> PreTrainedModel:
    """The whole model in float32, as transformers runs it."""
    nested = (folder / "config.json").read_text().count("ForConditionalGeneration")
    kind = AutoModelForImageTextToText if nested else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def reference_logits(folder: Path, sequences: list[list[int]], vocabulary: int = VOCABULARY) -> list[torch.Tensor]:
    """The model's own logits [length, vocabulary] of each sequence, run alone."""
    model = load_reference(folder)
    return [model(input_ids=torch.tensor([ids])).logits[0, :, :vocabulary] for ids in sequences]


def some_sequences(seed: int = 0, lengths: tuple[int, ...] = (5, 17, 40, 3, 64, 31)) -> list[list[int]]:
    """Random ids of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
