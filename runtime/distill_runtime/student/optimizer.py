"""The optimizer, its parameter groups and the states it keeps, all from the spec at every start."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distill_runtime.contract.sections import Optimizer
from distill_runtime.errors import UserError


@dataclass(frozen=True)
class States:
    """What an optimizer keeps for every weight."""

    tensors: tuple[str, ...]
    """Names of those that have the weight's shape."""
    scalars: tuple[str, ...]
    """Names of those that are one number, the same for all weights (`step` above all)."""


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

    Raises
    ------
    UserError
        torch refuses the arguments.
    """
    if spec.torch is not None:
        made: type[torch.optim.Optimizer] = getattr(torch.optim, spec.torch.name)
        arguments = spec.torch.arguments.model_dump(exclude_none=True)
        try:
            return made(groups, lr=spec.learning_rate, **arguments)  # pyright: ignore[reportCallIssue]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"spec.training.optimizer.torch: torch refuses the arguments of {spec.torch.name}: {error}",
                reason="BadOptimizer",
            ) from error
    if spec.kind == "adamw":
        return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=spec.betas, eps=spec.epsilon)
    return torch.optim.SGD(groups, lr=spec.learning_rate)


def optimizer_states(spec: Optimizer) -> States:
    """What the optimizer of the spec keeps, found out by a step over a small weight.

    Raises
    ------
    UserError
        torch refuses the arguments, or the optimizer keeps something that is neither a tensor of the weight's shape nor
        one number, which no checkpoint here can carry to another number of workers.
    """
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = make_optimizer(parameter_groups([("weight", weight)], spec.weight_decay), spec)
    weight.grad = torch.full((2, 3), 0.5)
    optimizer.step()
    tensors: list[str] = []
    scalars: list[str] = []
    for name, value in optimizer.state[weight].items():
        if isinstance(value, torch.Tensor) and value.shape == weight.shape:
            tensors.append(name)
        elif isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.ndim == 0):
            scalars.append(name)
        elif value is not None:
            raise UserError(
                f"spec.training.optimizer: {type(optimizer).__name__} keeps {name}, which checkpoints can't carry to "
                "another number of workers: use another optimizer.",
                reason="BadOptimizer",
            )
    return States(tuple(tensors), tuple(scalars))
