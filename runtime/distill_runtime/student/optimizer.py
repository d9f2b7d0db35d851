"""The optimizer and its parameter groups, rebuilt from the spec at every start."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from distill_runtime.contract.sections import Optimizer

STATES: dict[str, tuple[str, ...]] = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}
"""Tensors that each kind of optimizer keeps for every weight, beside the number of its steps."""


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters in at most two groups: matrices with weight decay, vectors (biases, norms) without.

    ZeRO-3 leaves empty tensors in the model; their true shape is in `ds_shape`.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (matrices if len(getattr(parameter, "ds_shape", parameter.shape)) >= 2 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(groups: list[dict[str, Any]], spec: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of the spec over these groups.

    Without momentum SGD's weight decay is the decoupled one: w - lr · (g + d·w).
    """
    if spec.kind == "adamw":
        return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=spec.betas, eps=spec.epsilon)
    return torch.optim.SGD(groups, lr=spec.learning_rate)
