"""Narrower feed-forward blocks: which of a layer's inner neurons are kept, and what becomes of its tensors.

A block adds Σ_i a_i · w_i to its layer's states: a_i is the activation of its inner neuron i, w_i the neuron's column
in the block's last matrix. Over all tokens t, a neuron does

    importance_i = Σ_t ‖a_i[t] · w_i‖² = ‖w_i‖² · Σ_t a_i[t]²,

the squared error of the block's output without it. That is |W|·‖X‖ of Wanda (Sun et al. 2023, arXiv 2306.11695),
squared and summed over a whole column; choosing neurons by their activations is Minitron's width pruning (Muralidharan
et al. 2024, arXiv 2407.14679).
"""

import logging
from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from distill_runtime.contract.sections import ActiveNeurons
from distill_runtime.errors import UserError
from distill_runtime.student.layers import FIELD, check_not_quantised, empty_stack, layer_stack
from distill_runtime.student.measuring import check_finite, read_hooked

INNER = ("gate_proj", "up_proj", "fc1", "dense_h_to_4h")
"""Linear layers that make the inner neurons' activations: a neuron is a row of their weights, and of their biases."""
OUTER = ("down_proj", "fc2", "dense_4h_to_h")
"""Linear layers that add the neurons up: a neuron is a column."""
WIDTH = "intermediate_size"
"""The field of configurations that holds the number of inner neurons."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """Where a layer's feed-forward block is, by the names of its linear layers inside the layer."""

    inner: tuple[str, ...]
    outer: str


@dataclass(frozen=True)
class KeptNeurons:
    """The neurons that stay, of each layer that stays, by the number of the layer in the teacher."""

    keep: int
    blocks: dict[int, Block]
    numbers: dict[int, torch.Tensor]
    """[keep] int64 of each layer, rising."""

    def cut(self, layer: int, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A layer's tensor (`name` inside the layer) without what belongs to the neurons that go."""
        block, numbers = self.blocks[layer], self.numbers[layer]
        module, _, kind = name.rpartition(".")
        if module in block.inner:
            return tensor.index_select(0, numbers)
        return tensor.index_select(1, numbers) if module == block.outer and kind == "weight" else tensor


def find_blocks(wanted: ActiveNeurons, folder: Path, *, trust_remote_code: bool = False) -> dict[int, Block]:
    """The feed-forward block of each layer of the model in `folder`, by the layer's number; reads no weights.

    Raises
    ------
    UserError
        The layers have fewer neurons than are to be kept, are quantised, or their blocks can't be found.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    check_not_quantised(config)
    width = inner_width(config)
    if width < wanted.keep:
        raise UserError(
            f"{FIELD}.neurons.keep: {wanted.keep} neurons are to be kept of layers that have {width}: keep fewer.",
            reason="NoSuchNeurons",
        )
    stack = empty_stack(config, trust_remote_code)
    return {number: find_block(layer, width, config.model_type) for number, layer in enumerate(stack)}


def choose_neurons(
    wanted: ActiveNeurons,
    model: PreTrainedModel,
    blocks: Mapping[int, Block],
    sequences: Many[NDArray[np.int32]],
) -> KeptNeurons:
    """The neurons to keep of a model.

    Parameters
    ----------
    blocks
        What `find_blocks` found, of the layers that are kept.
    sequences
        Token ids of each sequence.

    Raises
    ------
    UserError
        The activations are not finite.
    """
    importance = neuron_importance(model, blocks, sequences)
    check_finite((one.sum() for one in importance.values()), model)
    numbers = {layer: most_important(one, wanted.keep) for layer, one in importance.items()}
    told = ", ".join(f"{n}: {float(one[numbers[n]].sum() / one.sum()):.4f}" for n, one in importance.items())
    log.info(
        "share of the feed-forward blocks' importance that %d of %d neurons keep, over %d sequences: %s",
        *(wanted.keep, len(next(iter(importance.values()))), len(sequences), told),
    )
    return KeptNeurons(wanted.keep, dict(blocks), numbers)


def inner_width(config: PreTrainedConfig) -> int:
    """Inner neurons of every layer's feed-forward block.

    Raises
    ------
    UserError
        The configuration doesn't say one number for all layers.
    """
    width = getattr(config.get_text_config(), WIDTH, None)
    if not isinstance(width, int):
        raise _unknown(config.model_type)
    return width


def find_block(layer: nn.Module, width: int, model_type: str) -> Block:
    """The feed-forward block of a layer, whose inner width is known.

    Raises
    ------
    UserError
        It isn't where the understood families have it.
    """
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    inner = tuple(name for name, module in linears.items() if _last(name) in INNER and module.out_features == width)
    outer = [name for name, module in linears.items() if _last(name) in OUTER and module.in_features == width]
    alone = len({name.rpartition(".")[0] for name in (*inner, *outer)}) == 1
    if not inner or len(outer) != 1 or not alone:
        raise _unknown(model_type)
    return Block(inner, outer[0])


@torch.no_grad()
def neuron_importance(
    model: PreTrainedModel, blocks: Mapping[int, Block], sequences: Many[NDArray[np.int32]]
) -> dict[int, torch.Tensor]:
    """The importance [width] in float64 of the neurons of each layer, over all tokens of the sequences."""
    stack = layer_stack(model, model.config)
    squares: dict[int, torch.Tensor] = {}
    columns: dict[int, torch.Tensor] = {}

    def watch(layer: int) -> Any:
        def add(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            squares[layer] = squares.get(layer, 0) + arguments[0].float().square().sum((0, 1), dtype=torch.float64)

        return add

    hooks = []
    for layer, block in blocks.items():
        outer = cast(nn.Linear, stack[layer].get_submodule(block.outer))
        columns[layer] = outer.weight.float().square().sum(0, dtype=torch.float64)
        hooks.append(outer.register_forward_pre_hook(watch(layer)))
    read_hooked(model, hooks, sequences)
    return {layer: squares[layer] * columns[layer] for layer in blocks}


def most_important(importance: torch.Tensor, keep: int) -> torch.Tensor:
    """The numbers of the `keep` most important neurons, in rising order; of equal ones the first."""
    return importance.sort(descending=True, stable=True).indices[:keep].sort().values


def narrow_configuration(config: PreTrainedConfig, width: int) -> None:
    """Sets the number of inner neurons."""
    setattr(config.get_text_config(), WIDTH, width)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _unknown(model_type: str) -> UserError:
    return UserError(
        f"{FIELD}.neurons: the feed-forward blocks of {model_type} can't be told apart by the names of its weights: "
        "leave neurons out, and choose layers.",
        reason="UnknownNeurons",
    )
