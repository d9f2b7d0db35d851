"""Low-rank adapters of the student, made by peft: put into the model for training, merged on a processor for export.

For training the adapter's layers are put into the model itself, which stays what transformers made it: its body, head
and the names of its own parameters are where all else looks for them.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig
from transformers.pytorch_utils import Conv1D

from distill_runtime.contract.sections import Adapter
from distill_runtime.errors import UserError
from distill_runtime.student.folder import READABLE, read_json, write_json

FIELD = "spec.student.adapter"
"""Where the user asked for it."""
FOLDER = "adapter"
"""Folder of the adapter beside the exported model's files."""
LINEAR = (nn.Linear, Conv1D)
"""Layers that can be adapted; GPT-2's are of the second kind."""
PEFT_PREFIX = "base_model.model."
"""What peft's own wrapper puts before the model's names."""

log = logging.getLogger(__name__)


def add_adapter(model: PreTrainedModel, adapter: Adapter, *, zero3: dict[str, Any] | None = None) -> None:
    """Puts an adapter into the model's linear layers and leaves nothing else to be trained.

    Its weights have the precision of the model's own: DeepSpeed trains one precision. They depend on the seed alone,
    not on the rank or the device.

    Parameters
    ----------
    zero3
        DeepSpeed's settings where the model's weights are divided between the ranks already.

    Raises
    ------
    UserError
        A target isn't there, is no linear layer, or is the output head or the input embedding.
    """
    _check_targets(model, adapter)
    dtype = next(model.parameters()).dtype
    try:
        with torch.random.fork_rng(devices=[]), _gathering(zero3):
            torch.manual_seed(adapter.seed)
            inject_adapter_in_model(_peft_config(adapter), model)
    except (ValueError, TypeError) as error:
        raise UserError(f"{FIELD}.targetModules: peft refuses them: {error}", reason="BadAdapter") from error
    adapted = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.to(dtype)
    log.info("the adapter has %d weights in %d layers", sum(p.numel() for p in trained), len(adapted))


@contextmanager
def _gathering(zero3: dict[str, Any] | None) -> Iterator[None]:
    """While peft reads divided weights (DoRA's lengths), it must know that they are.

    It asks transformers, which knows it while this object lives. Models that are loaded later, to be exported and
    checked, are whole ones.
    """
    kept = HfDeepSpeedConfig(zero3) if zero3 is not None else None
    yield
    del kept


def _peft_config(adapter: Adapter) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.rank_stabilised,
        use_dora=adapter.kind == "dora",
        target_modules=adapter.target_modules or "all-linear",
    )


def _check_targets(model: PreTrainedModel, adapter: Adapter) -> None:
    """peft takes a list of which one name is there, and adapts the head too if it is named."""
    modules = dict(model.named_modules())
    kept = (model.get_output_embeddings(), model.get_input_embeddings())
    for target in adapter.target_modules or []:
        found = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not found or not any(isinstance(modules[name], (*LINEAR, nn.Embedding)) for name in found):
            linear = sorted({name.rpartition(".")[2] for name, m in modules.items() if isinstance(m, LINEAR)})
            raise UserError(
                f"{FIELD}.targetModules: the student has no linear layer {target}; it has {', '.join(linear)}.",
                reason="BadAdapter",
            )
        if any(modules[name] is module for name in found for module in kept):
            raise UserError(
                f"{FIELD}.targetModules: {target} is the output head or the input embedding, which an adapter can't "
                "train here, since the objective reads the head's own weight: leave it out.",
                reason="BadAdapter",
            )


def merge_adapter(
    source_folder: Path,
    target: Path,
    adapter: Adapter,
    weights: Iterable[tuple[str, torch.Tensor]],
    *,
    base: str,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The model with the adapter merged into it, whole in float32 on the processor; and the adapter in peft's format.

    Parameters
    ----------
    source_folder
        The student before training.
    target
        The exported folder; the adapter is written to `adapter` in it.
    weights
        The adapter's trained weights by their names in the model of `add_adapter`.
    base
        What the adapter's configuration says of the model it belongs to.

    Raises
    ------
    ValueError
        The weights are not those of the adapter.
    """
    model = cast(
        PreTrainedModel,
        AutoModelForCausalLM.from_pretrained(source_folder, dtype=torch.float32, trust_remote_code=trust_remote_code),
    )
    wrapped = cast(PeftModel, get_peft_model(model, _peft_config(adapter)))
    _fill(wrapped, dict(weights))
    _save(wrapped, target / FOLDER, base)
    return cast(PreTrainedModel, cast(Any, wrapped).merge_and_unload())


def _fill(wrapped: PeftModel, weights: Mapping[str, torch.Tensor]) -> None:
    own = {
        name.removeprefix(PEFT_PREFIX): parameter
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    if odd := sorted(own.keys() ^ weights.keys()):
        raise ValueError(f"{len(odd)} weights of the adapter are missing or unknown, among them {odd[0]}")
    for name, parameter in own.items():
        parameter.data.copy_(weights[name])


def _save(wrapped: PeftModel, folder: Path, base: str) -> None:
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    # The model card beside the model describes both; peft's is an empty form.
    (folder / "README.md").unlink()
    config = read_json(folder / "adapter_config.json")
    # peft keeps the targets as a set, whose order differs from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    write_json(folder / "adapter_config.json", config)
    (folder / "adapter_model.safetensors").chmod(READABLE)
