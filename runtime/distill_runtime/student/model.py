"""The student's model: built from its folder, on every rank, whole (ZeRO 0 to 2) or divided from the start (ZeRO-3)."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.initialization import no_init_weights

from distill_runtime.contract.sections import Training
from distill_runtime.errors import UserError
from distill_runtime.prepared import ResolvedPrecision
from distill_runtime.signals.head import HeadDescription

DTYPES: dict[ResolvedPrecision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

log = logging.getLogger(__name__)


def read_config(folder: Path, *, tied: bool, trust_remote_code: bool) -> PreTrainedConfig:
    """The model's configuration without dropout."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    silenced = [name for name, value in vars(text).items() if _is_dropout(name) and isinstance(value, float) and value]
    for name in silenced:
        setattr(text, name, 0.0)
    if silenced:
        log.info("dropout is off (%s): results don't depend on the division of the work", ", ".join(silenced))
    config.tie_word_embeddings = text.tie_word_embeddings = tied
    return config


def build_model(
    folder: Path,
    config: PreTrainedConfig,
    training: Training,
    *,
    dtype: torch.dtype,
    settings: dict[str, Any],
    trust_remote_code: bool,
) -> PreTrainedModel:
    """The model with its weights. With ZeRO-3 no rank ever holds more than a tensor beyond its own part.

    Raises
    ------
    UserError
        The folder doesn't hold all the weights, or the attention isn't supported.
    """
    attention = None if training.attention == "auto" else training.attention
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    if attention is not None:
        options["attn_implementation"] = attention
    try:
        if training.zero_stage == 3:
            with no_init_weights(), deepspeed.zero.Init(config_dict_or_path=settings):
                model = AutoModelForCausalLM.from_config(config, **options)
            model.tie_weights()
            fill(model, folder_weights(folder, model))
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, config=config, **options)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"the student can't be built with training.attention {training.attention}: {error}",
            reason="UnsupportedStudent",
        ) from error
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def fill(model: nn.Module, weights: Iterable[tuple[str, Callable[[], torch.Tensor]]]) -> None:
    """Copies weights into the model, one at a time; with ZeRO-3 rank 0 reads and the others get their part."""
    parameters = dict(model.named_parameters())
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    for name, read in weights:
        parameter = parameters[name]
        if not hasattr(parameter, "ds_id"):
            parameter.data.copy_(read())
            continue
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if rank == 0:
                parameter.data.copy_(read().to(parameter.dtype))


def assert_head_fits(model: Any, head: HeadDescription) -> None:
    """Checks that the model's output layer is the one that its files describe.

    Raises
    ------
    UserError
        It isn't: the objective would train something else than the model.
    """
    output = model.get_output_embeddings()
    shape = list(getattr(output.weight, "ds_shape", output.weight.shape))
    wanted = [head.padded_vocabulary, head.hidden_size]
    if shape != wanted or (getattr(output, "bias", None) is not None) != head.bias:
        raise UserError(
            f"student: the output layer is {shape}, its files describe {wanted}: this architecture is not supported.",
            reason="UnsupportedStudent",
        )


def _is_dropout(name: str) -> bool:
    return "dropout" in name or name.endswith("_pdrop")


def folder_weights(folder: Path, model: PreTrainedModel) -> Iterable[tuple[str, Callable[[], torch.Tensor]]]:
    """Readers of all the model's parameters in the folder's safetensors files."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.exists():
        files: dict[str, Path] = {n: folder / f for n, f in json.loads(index.read_text())["weight_map"].items()}
    else:
        with safe_open(single, framework="pt") as file:
            files = dict.fromkeys(file.keys(), single)
    stored = _stored_names(model, files)
    names = [name for name, _ in model.named_parameters()]
    missing = [name for name in names if name not in stored]
    if missing:
        raise UserError(
            f"student: {folder} has no weight {missing[0]} ({len(missing)} are missing): train it with "
            "training.zeroStage 2.",
            reason="BadModel",
        )
    return [(name, _reader(files[stored[name]], stored[name])) for name in names]


def _stored_names(model: PreTrainedModel, files: Iterable[str]) -> dict[str, str]:
    """The name in the files of each parameter that is there as it is, by the renaming that transformers does when it
    loads them."""
    parameters = dict(model.named_parameters())
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    stored: dict[str, str] = {}
    for name in sorted(files):
        renamed, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
        if converter is None and renamed in parameters:
            stored[renamed] = name
        elif name in parameters:
            stored[name] = name
    return stored


def _reader(path: Path, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    return read
