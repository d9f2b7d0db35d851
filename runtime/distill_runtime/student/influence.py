"""How much each layer of a model does: the block influence of ShortGPT (Men et al. 2024, arXiv 2403.03853).

With X_i[t] the state of token t before layer i and X_{i+1}[t] the one behind it,

    BI_i = 1 - mean over t of cos(X_i[t], X_{i+1}[t])

A layer of low influence hands its states on nearly as they came, so a student can do without it.
"""

import logging
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from distill_runtime.contract.sections import InfluentialLayers
from distill_runtime.errors import UserError
from distill_runtime.student.layers import FIELD, check_not_quantised, layer_count, layer_stack
from distill_runtime.student.measuring import check_finite, read_hooked

log = logging.getLogger(__name__)


def spread(count: int, wanted: int) -> list[int]:
    """Numbers of `wanted` of `count` sequences, evenly spread over them; all where there are no more."""
    few = min(count, wanted)
    return [number * count // few for number in range(few)]


def influential_layers(influences: Many[float], keep: int) -> tuple[int, ...]:
    """The numbers of the `keep` layers with the most influence, in rising order; of equal ones the first."""
    ranked = sorted(range(len(influences)), key=lambda layer: (-influences[layer], layer))
    return tuple(sorted(ranked[:keep]))


def check_layers(wanted: InfluentialLayers, folder: Path, *, trust_remote_code: bool = False) -> None:
    """Makes sure, without weights, that the model in `folder` has so many layers.

    Raises
    ------
    UserError
        It has fewer, or is quantised.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    check_not_quantised(config)
    if (count := layer_count(config)) < wanted.keep:
        raise UserError(
            f"{FIELD}.byInfluence.keep: {wanted.keep} layers are to be kept of a teacher that has {count}: keep fewer.",
            reason="NoSuchLayer",
        )


def choose_layers(
    wanted: InfluentialLayers, model: PreTrainedModel, sequences: Many[NDArray[np.int32]]
) -> tuple[int, ...]:
    """The layers to keep of a model that `check_layers` let pass, by sequences of token ids.

    Raises
    ------
    UserError
        Its layers can't be found, or its states are not finite.
    """
    influences = block_influences(model, sequences)
    check_finite(influences, model)
    kept = influential_layers(influences, wanted.keep)
    told = ", ".join(f"{layer}: {influence:.4f}" for layer, influence in enumerate(influences))
    log.info("influence of the teacher's layers over %d sequences: %s", len(sequences), told)
    return kept


@torch.no_grad()
def block_influences(model: PreTrainedModel, sequences: Many[NDArray[np.int32]]) -> list[float]:
    """The block influence of each layer over all tokens of the sequences, each read alone."""
    stack = layer_stack(model, model.config)
    cosines = torch.zeros(len(stack), dtype=torch.float64)

    def watch(layer: int) -> Any:
        def add(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            before = arguments[0] if arguments else named["hidden_states"]
            behind = output[0] if isinstance(output, tuple) else output
            cosine = torch.nn.functional.cosine_similarity(before.float(), behind.float(), dim=-1)
            cosines[layer] += cosine.sum(dtype=torch.float64).cpu()

        return add

    hooks = [module.register_forward_hook(watch(layer), with_kwargs=True) for layer, module in enumerate(stack)]
    read_hooked(model, hooks, sequences)
    tokens = sum(len(ids) for ids in sequences)
    return (1 - cosines / tokens).tolist()
