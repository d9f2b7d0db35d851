"""Where an output head comes from: `config.json` and the safetensors files of a checkpoint, no model and no engine.

The list below says how each understood architecture makes logits of its last normed state. It was read off the
modelling files of transformers and is held by a test for each entry: hidden states times the head read here equal the
model's own logits. What is not on the list is refused, since a forgotten softcap or scale would teach the student a
wrong distribution without any error.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from distill_runtime.errors import UserError
from distill_runtime.signals.head import HeadDescription, OutputHead

FLOATING = (torch.float32, torch.bfloat16, torch.float16)
"""Precisions of a head that is not quantised."""
TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale", "logit_softcap")
"""Fields of configurations by which some architecture changes its logits."""


@dataclass(frozen=True)
class HeadRule:
    """How one architecture makes logits: the fields of its (text) configuration and the names of its tensors.

    No understood architecture has both a scale and a softcap, so their order is the one of `HeadDescription`.
    """

    multiplier: str | None = None
    """Field that multiplies the logits."""
    divisor: str | None = None
    """Field that divides the logits."""
    softcap: str | None = None
    """Field with the softcap; unset in the configuration: none."""
    bias: bool = False
    """Does the head have a bias, `lm_head.bias`?"""
    weights: tuple[str, ...] = ("lm_head.weight",)
    """Names under which checkpoints hold the weight."""
    embeddings: tuple[str, ...] = ("model.embed_tokens.weight",)
    """Names under which checkpoints hold the input embedding."""


_PLAIN = HeadRule()
_SOFTCAP = HeadRule(softcap="final_logit_softcapping")
_MULTIPLIED = HeadRule(multiplier="logit_scale")
_DIVIDED = HeadRule(divisor="logits_scaling")
_NESTED = HeadRule(
    weights=("lm_head.weight", "language_model.lm_head.weight"),
    embeddings=(
        "model.language_model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
    ),
)

UNDERSTOOD_HEADS: dict[str, HeadRule] = {
    "ApertusForCausalLM": _PLAIN,
    "ArceeForCausalLM": _PLAIN,
    "Cohere2ForCausalLM": _MULTIPLIED,
    "CohereForCausalLM": _MULTIPLIED,
    "DeepseekV3ForCausalLM": _PLAIN,
    "Ernie4_5ForCausalLM": _PLAIN,
    "Exaone4ForCausalLM": _PLAIN,
    "Gemma2ForCausalLM": _SOFTCAP,
    "Gemma3ForCausalLM": _SOFTCAP,
    # The wrapper's own head applies no softcap, whatever its text configuration says: a set one is refused.
    "Gemma3ForConditionalGeneration": _NESTED,
    "Gemma4ForCausalLM": _SOFTCAP,
    "GemmaForCausalLM": _PLAIN,
    "Glm4ForCausalLM": _PLAIN,
    "Glm4MoeForCausalLM": _PLAIN,
    "GlmForCausalLM": _PLAIN,
    "GPT2LMHeadModel": HeadRule(embeddings=("transformer.wte.weight", "wte.weight")),
    "GPTNeoXForCausalLM": HeadRule(
        weights=("lm_head.weight", "embed_out.weight"), embeddings=("gpt_neox.embed_in.weight",)
    ),
    "GptOssForCausalLM": _PLAIN,
    "GraniteForCausalLM": _DIVIDED,
    "GraniteMoeForCausalLM": _DIVIDED,
    "GraniteMoeSharedForCausalLM": _DIVIDED,
    "HunYuanDenseV1ForCausalLM": _PLAIN,
    "Lfm2ForCausalLM": _PLAIN,
    "LlamaForCausalLM": _PLAIN,
    "LlavaForConditionalGeneration": _NESTED,
    "MiniMaxM2ForCausalLM": _PLAIN,
    "Ministral3ForCausalLM": _PLAIN,
    "MistralForCausalLM": _PLAIN,
    "MixtralForCausalLM": _PLAIN,
    "NemotronForCausalLM": _PLAIN,
    "Olmo2ForCausalLM": _PLAIN,
    "Olmo3ForCausalLM": _PLAIN,
    "OlmoeForCausalLM": _PLAIN,
    "OlmoForCausalLM": _PLAIN,
    "Phi3ForCausalLM": _PLAIN,
    "PhiForCausalLM": HeadRule(bias=True),
    "Qwen2ForCausalLM": _PLAIN,
    "Qwen2MoeForCausalLM": _PLAIN,
    "Qwen3_5ForCausalLM": _PLAIN,
    "Qwen3ForCausalLM": _PLAIN,
    "Qwen3MoeForCausalLM": _PLAIN,
    "Qwen3NextForCausalLM": _PLAIN,
    "SeedOssForCausalLM": _PLAIN,
    "SmolLM3ForCausalLM": _PLAIN,
    "StableLmForCausalLM": _PLAIN,
    "Starcoder2ForCausalLM": _PLAIN,
}
"""Architectures whose head is understood."""


def architecture_of(folder: Path) -> str:
    """The architecture that a checkpoint's `config.json` names.

    Raises
    ------
    UserError
        There is no readable `config.json`, or it names none.
    """
    path = folder / "config.json"
    try:
        document = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}): a model's folder needs it.", reason="BadModel") from error
    architectures = document.get("architectures") if isinstance(document, dict) else None
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        raise UserError(
            f"{path}: architectures is {architectures!r}: it must name the model's one architecture.", reason="BadModel"
        )
    return architectures[0]


def describe_head(folder: Path, vocabulary: int) -> HeadDescription:
    """How the checkpoint in `folder` makes logits, over its first `vocabulary` ids; reads no model.

    Where `tie_word_embeddings` is set and the checkpoint holds both tensors with different values, the head is not
    tied: so does transformers.

    Raises
    ------
    UserError
        The head is not understood (reason HeadUnknown), is smaller than the vocabulary (VocabularyMismatch), or the
        folder is no checkpoint in safetensors (BadModel).
    """
    return _find_head(folder, vocabulary).description


def read_head(folder: Path, vocabulary: int, dtype: torch.dtype | None = None) -> OutputHead:
    """The head's weights from the safetensors files, cut to the real vocabulary.

    weight [vocabulary, hidden_size] and bias [vocabulary], in `dtype` or the checkpoint's own.

    Raises
    ------
    UserError
        As `describe_head`; or the tensor has another shape than the configuration says, is quantised, or not finite.
    """
    found = _find_head(folder, vocabulary)
    weight = _cut(found.checkpoint, found.weight, vocabulary, dtype)
    bias = _cut(found.checkpoint, found.bias, vocabulary, dtype) if found.bias is not None else None
    return OutputHead(description=found.description, weight=weight, bias=bias)


class _Checkpoint:
    """The tensors of a folder with safetensors files, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        if index.exists():
            try:
                weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{index} is not an index of safetensors files.", reason="BadModel") from error
            self._files = {name: folder / file for name, file in weight_map.items()}
        elif single.exists():
            self._files = dict.fromkeys(self._names(single), single)
        else:
            raise UserError(
                f"{folder} has neither model.safetensors nor model.safetensors.index.json: convert the model's weights "
                "to safetensors.",
                reason="BadModel",
            )

    @staticmethod
    def _names(path: Path) -> list[str]:
        try:
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} can't be read ({error}): fetch the model again.", reason="BadModel") from error

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def first_of(self, names: tuple[str, ...]) -> str | None:
        """The first of these names that the checkpoint holds."""
        return next((name for name in names if name in self._files), None)

    def shape(self, name: str) -> list[int]:
        """Shape of a tensor, from its file's header."""
        with self._open(name) as file:
            return list(file.get_slice(name).get_shape())

    def rows(self, name: str, count: int | None = None) -> torch.Tensor:
        """The first `count` rows of a tensor, or all."""
        with self._open(name) as file:
            part = file.get_slice(name)
            # A slice of a memory-mapped file keeps the mapping: a copy lets it go.
            return part[: part.get_shape()[0] if count is None else count].clone()

    def _open(self, name: str) -> Any:
        path = self._files[name]
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} can't be read ({error}): fetch the model again.", reason="BadModel") from error


@dataclass(frozen=True)
class _FoundHead:
    description: HeadDescription
    checkpoint: _Checkpoint
    weight: str
    bias: str | None


def _find_head(folder: Path, vocabulary: int) -> _FoundHead:
    architecture = architecture_of(folder)
    rule = UNDERSTOOD_HEADS.get(architecture)
    if rule is None:
        raise UserError(
            f"{folder}: the output head of {architecture} is not understood: use one of "
            f"{', '.join(sorted(UNDERSTOOD_HEADS))}.",
            reason="HeadUnknown",
        )
    config = _load_config(folder)
    text = config.get_text_config()
    padded = int(text.vocab_size)
    if vocabulary > padded:
        raise UserError(
            f"{folder}: the tokenizer has {vocabulary} ids, but the output head has only {padded} rows "
            "(vocab_size in config.json): they don't belong together.",
            reason="VocabularyMismatch",
        )
    _refuse_foreign_transforms(folder, architecture, rule, text)
    checkpoint = _Checkpoint(folder)
    tie = bool(getattr(config, "tie_word_embeddings", False))
    weight, tied = _locate_weight(checkpoint, architecture, rule, tie)
    bias = _locate_bias(checkpoint, architecture, rule)
    wanted = [padded, int(text.hidden_size)]
    if checkpoint.shape(weight) != wanted:
        raise UserError(
            f"{folder}: {weight} has the shape {checkpoint.shape(weight)}, config.json says {wanted}.",
            reason="BadModel",
        )
    description = HeadDescription(
        hidden_size=int(text.hidden_size),
        padded_vocabulary=padded,
        vocabulary=vocabulary,
        scale=_scale(folder, rule, text),
        softcap=None if rule.softcap is None else _positive_or_none(folder, rule.softcap, text),
        bias=bias is not None,
        tied=tied,
    )
    return _FoundHead(description=description, checkpoint=checkpoint, weight=weight, bias=bias)


def _load_config(folder: Path) -> PreTrainedConfig:
    try:
        # Every understood architecture is transformers' own: code from the folder is never needed for its head.
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}/config.json is no configuration of transformers: {error}", reason="BadModel"
        ) from error


def _positive_or_none(folder: Path, field: str, text: PreTrainedConfig) -> float | None:
    value = getattr(text, field, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UserError(f"{folder}/config.json: {field} is {value!r}: it must be above 0.", reason="HeadUnknown")
    return float(value)


def _scale(folder: Path, rule: HeadRule, text: PreTrainedConfig) -> float:
    field = rule.multiplier or rule.divisor
    if field is None:
        return 1.0
    value = _positive_or_none(folder, field, text)
    if value is None:
        raise UserError(f"{folder}/config.json: {field} is not set: the head needs it.", reason="HeadUnknown")
    return value if rule.multiplier is not None else 1.0 / value


def _refuse_foreign_transforms(folder: Path, architecture: str, rule: HeadRule, text: PreTrainedConfig) -> None:
    """Refuses a transform that the configuration sets and the architecture doesn't apply: which of the two is meant?"""
    own = {rule.multiplier, rule.divisor, rule.softcap}
    for field in TRANSFORMS:
        value = getattr(text, field, None)
        if field not in own and value is not None and value != 1.0:
            raise UserError(
                f"{folder}/config.json sets {field} to {value!r}, which {architecture} does not apply to its logits: "
                "remove the field, or name the architecture that does.",
                reason="HeadUnknown",
            )


def _locate_weight(checkpoint: _Checkpoint, architecture: str, rule: HeadRule, tie: bool) -> tuple[str, bool]:
    """Name of the head's weight, and whether it is the input embedding's."""
    head = checkpoint.first_of(rule.weights)
    embedding = checkpoint.first_of(rule.embeddings)
    if tie and head is not None and embedding is not None:
        return head, torch.equal(checkpoint.rows(head), checkpoint.rows(embedding))
    found = head if head is not None else embedding if tie else None
    if found is None:
        looked = " or ".join(rule.weights + (rule.embeddings if tie else ()))
        raise UserError(
            f"{checkpoint.folder} holds no {looked}, where {architecture} has its output head: "
            "the checkpoint is incomplete or of another architecture.",
            reason="HeadUnknown",
        )
    return found, tie


def _locate_bias(checkpoint: _Checkpoint, architecture: str, rule: HeadRule) -> str | None:
    name = next(
        (n.removesuffix("weight") + "bias" for n in rule.weights if n.removesuffix("weight") + "bias" in checkpoint),
        None,
    )
    if name is not None and not rule.bias:
        raise UserError(
            f"{checkpoint.folder} holds {name}, but the output head of {architecture} has no bias.",
            reason="HeadUnknown",
        )
    if name is None and rule.bias:
        raise UserError(
            f"{checkpoint.folder} holds no lm_head.bias, which the output head of {architecture} has.",
            reason="HeadUnknown",
        )
    return name


def _cut(checkpoint: _Checkpoint, name: str, vocabulary: int, dtype: torch.dtype | None) -> torch.Tensor:
    tensor = checkpoint.rows(name, vocabulary)
    if tensor.dtype not in FLOATING:
        raise UserError(
            f"{checkpoint.folder}: {name} is {tensor.dtype}: a quantised output head is not understood.",
            reason="HeadUnknown",
        )
    if not torch.isfinite(tensor).all():
        raise UserError(f"{checkpoint.folder}: {name} holds values that are not finite.", reason="BadModel")
    return tensor.to(dtype) if dtype is not None else tensor
