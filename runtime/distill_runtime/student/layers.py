"""A model with fewer layers: which are kept, and what becomes of a configuration and of tensors' names."""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from distill_runtime.contract.sections import TeacherLayers
from distill_runtime.errors import UserError

FIELD = "spec.student.initialise.fromTeacher"
"""Where the user asked for it."""
LAYER_PREFIXES = (
    "model.layers.",
    "model.language_model.layers.",
    "language_model.model.layers.",
    "transformer.h.",
    "h.",
    "gpt_neox.layers.",
    "layers.",
)
"""What stands before a layer's number in the checkpoints of the families that are understood."""
COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
"""Fields that hold the number of layers."""
LAYER_NUMBERS = ("mlp_only_layers", "full_attn_idxs")
"""Fields that list layers by their number."""
LEADING_LAYERS = ("first_k_dense_replace",)
"""Fields that say for how many of the first layers something holds."""
DROPPED_BLOCKS = ("num_nextn_predict_layers", "num_mtp_layers")
"""Fields that count blocks behind the last layer: transformers doesn't load them, and the copy has none."""
NUMBER_ATTRIBUTES = ("layer_idx", "layer_id", "layer_number")
"""Attributes of modules that are a layer's number and nothing else."""


@dataclass(frozen=True)
class LayerNames:
    """How a checkpoint's names become the copy's."""

    prefix: str
    kept: tuple[int, ...]

    def renamed(self, name: str) -> str | None:
        """The name in the copy; None for a tensor of a layer that isn't kept."""
        if (place := self.place(name)) is None:
            return name
        layer, inside = place
        return f"{self.prefix}{self.kept.index(layer)}.{inside}" if layer in self.kept else None

    def place(self, name: str) -> tuple[int, str] | None:
        """The layer of a tensor of the checkpoint, and its name inside; None for one outside of the layers."""
        found = re.match(rf"{re.escape(self.prefix)}(\d+)\.(.+)", name)
        return (int(found[1]), found[2]) if found else None


def kept_layers(wanted: TeacherLayers, layers: int) -> tuple[int, ...]:
    """The numbers of the layers to keep, of a teacher that has so many; `byInfluence` must have become `layers`. All,
    where none are named.

    Raises
    ------
    UserError
        It doesn't have one of them.
    """
    if wanted.every is not None:
        return tuple(range(0, layers, wanted.every))
    if wanted.layers is None:
        return tuple(range(layers))
    for layer in wanted.layers:
        if layer >= layers:
            raise UserError(
                f"{FIELD}.layers: {layer} is not a layer of the teacher, which has {layers} (0 to {layers - 1}).",
                reason="NoSuchLayer",
            )
    return tuple(wanted.layers)


def layer_names(names: Iterable[str], layers: int, kept: tuple[int, ...], model_type: str) -> LayerNames:
    """Finds the layers among a checkpoint's names.

    Raises
    ------
    UserError
        They aren't where the understood families have them.
    """
    names = list(names)
    for prefix in LAYER_PREFIXES:
        found = {int(match[1]) for name in names if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))}
        if found and found >= set(range(layers)):
            return LayerNames(prefix, kept)
    raise UserError(
        f"{FIELD}: the layers of {model_type} can't be told apart by the names of its weights: "
        "use student.model or student.initialise.fromConfig.",
        reason="UnknownLayers",
    )


def check_not_quantised(teacher: PreTrainedConfig) -> None:
    """Makes sure that the teacher's layers can be trained on.

    Raises
    ------
    UserError
        Its weights are quantised.
    """
    if getattr(teacher, "quantization_config", None) is not None:
        raise UserError(
            f"{FIELD}: the teacher's weights are quantised, which a student can't be trained from: "
            "use student.model or student.initialise.fromConfig.",
            reason="QuantisedTeacher",
        )


def layer_count(config: PreTrainedConfig) -> int:
    """Number of layers of a (text) configuration."""
    return cast(int, config.get_text_config().num_hidden_layers)


def cut_configuration(config: PreTrainedConfig, kept: tuple[int, ...]) -> PreTrainedConfig:
    """A copy for the kept layers alone: everything that the configuration says layer by layer is cut too.

    Reads the configuration as transformers has completed it, in which patterns ("every sixth layer is global") are
    lists of layers already.

    Raises
    ------
    UserError
        Transformers refuses it.
    """
    document = copy.deepcopy(config.to_dict())
    nested = config.get_text_config() is not config
    text = document["text_config"] if nested else document
    layers = layer_count(config)
    for name, value in text.items():
        text[name] = _cut_field(name, value, layers, kept)
    try:
        return type(config).from_dict(document)
    except (ValueError, StrictDataclassError) as error:
        raise UserError(
            f"{FIELD}: transformers refuses a {config.model_type} with these layers ({error}): "
            "use student.model or student.initialise.fromConfig.",
            reason="UnknownLayers",
        ) from error


def _cut_field(name: str, value: Any, layers: int, kept: tuple[int, ...]) -> Any:
    if name in COUNTS:
        return len(kept)
    if name in LAYER_NUMBERS and isinstance(value, list):
        return [place for place, layer in enumerate(kept) if layer in value]
    if name in LEADING_LAYERS and isinstance(value, int):
        return sum(layer < value for layer in kept)
    if name in DROPPED_BLOCKS and isinstance(value, int):
        return 0
    by_layer = "layer" in name or name.endswith(("_types", "_type", "pattern"))
    if by_layer and isinstance(value, list) and len(value) == layers:
        return [value[layer] for layer in kept]
    return value


def check_layers_alike(
    teacher: PreTrainedConfig, student: PreTrainedConfig, kept: tuple[int, ...], *, trust_remote_code: bool
) -> None:
    """Makes sure that each kept layer works under its new number as it did under the old one.

    Some families give layers their kind by number (a window here, no rotary embedding there). Both models are built
    without weights, and the layers' modules are compared in shapes and settings.

    Raises
    ------
    UserError
        A layer would change.
    """
    if (lost := _attention_kinds(teacher)) and not _attention_kinds(student):
        raise UserError(
            f"{FIELD}: of the layers with attention ({', '.join(sorted(lost))}) none is left among those that are "
            f"kept, and {teacher.model_type} needs one: keep other layers.",
            reason="UnknownLayers",
        )
    if getattr(teacher, "scale_attn_by_inverse_layer_idx", False):
        raise UserError(
            f"{FIELD}: {teacher.model_type} scales attention by the layer's number.", reason="UnknownLayers"
        )
    stacks = [empty_stack(config, trust_remote_code) for config in (teacher, student)]
    for place, layer in enumerate(kept):
        old, new = _traits(stacks[0][layer]), _traits(stacks[1][place])
        if difference := [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]:
            key = difference[0]
            raise UserError(
                f"{FIELD}: layer {layer} of {teacher.model_type} would not be the same as layer {place} of the student "
                f"({key}: {old.get(key)} and {new.get(key)}): keep other layers, or use student.model.",
                reason="UnknownLayers",
            )


def _attention_kinds(config: PreTrainedConfig) -> set[str]:
    """Kinds of layers that attend to all tokens or a window of them, where the configuration tells kinds apart."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or []
    return {kind for kind in kinds if "attention" in kind and "linear" not in kind}


def empty_stack(config: PreTrainedConfig, trust_remote_code: bool) -> nn.ModuleList:
    """The layers of the text model, without weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return layer_stack(model, config)


def layer_stack(model: nn.Module, config: PreTrainedConfig) -> nn.ModuleList:
    """The layers of the text model in a model.

    Raises
    ------
    UserError
        They can't be found.
    """
    layers = layer_count(config)
    stacks = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers and f"{name}.".endswith(("layers.", "h."))
        and "vision" not in name and "audio" not in name
    ]  # fmt: skip
    if len(stacks) != 1:
        raise UserError(
            f"{FIELD}: the layers of {config.model_type} can't be found in its model.", reason="UnknownLayers"
        )
    return stacks[0]


def _traits(layer: nn.Module) -> dict[str, Any]:
    """Shapes of the weights, and every plain setting of the modules but a layer's number."""
    traits: dict[str, Any] = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    for path, module in layer.named_modules():
        traits[f"{path}:"] = type(module).__name__
        for name, value in vars(module).items():
            if name not in NUMBER_ATTRIBUTES and not name.startswith("_") and _is_plain(value):
                traits[f"{path}.{name}".lstrip(".")] = value
    return traits


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
