"""A student on one process without DeepSpeed, for tests of what is asked of an engine."""

from typing import Any

import torch
from torch import nn

from distill_runtime.student.distributed import Ranks

CPU = torch.device("cpu")
RANKS = Ranks(rank=0, world=1, device=CPU)


class OneProcess:
    """What the checks ask of an engine, on one process without DeepSpeed."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def evaluating(self, on: bool) -> None:
        self._module.train(not on)

    def __call__(self, ask: str, inputs: dict[str, Any]) -> torch.Tensor:
        return self._module(ask, inputs)
