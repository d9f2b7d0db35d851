"""The held-out loss: the objective over the evaluation plan, through the same module, by all ranks."""

from dataclasses import dataclass

import numpy as np
import torch

from distill_runtime.data.plan import Plan
from distill_runtime.student.distributed import Ranks, StopRequest, gather_numbers, wait_together
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.reader import Reader


@dataclass(frozen=True)
class HeldOutLoss:
    """Means over the held-out targets."""

    loss: float
    divergence: float
    cross_entropy: float


class HeldOut:
    """The evaluation plan, in sets as large as a training step so that no more is read at a time."""

    def __init__(self, plan: Plan, reader: Reader, ranks: Ranks, *, set_size: int) -> None:
        self._reader = reader
        self._ranks = ranks
        self._targets = int(plan.target_counts.sum())
        numbers = np.arange(len(plan))
        self._sets = [numbers[at : at + set_size].tolist() for at in range(0, len(plan), set_size)]

    def loss(self, engine: StudentEngine, stop: StopRequest) -> HeldOutLoss | None:
        """The means with the weights as they are; None if SIGTERM came on some rank.

        Raises
        ------
        UserError, RetryError
            A signal is missing (see `SignalSource.fetch`), on whatever rank.
        """
        for numbers in self._sets:
            self._reader.announce(numbers)
        total = torch.zeros(3, dtype=torch.float64)
        engine.evaluating(True)
        with torch.no_grad():
            for numbers in self._sets:
                batches = wait_together(lambda numbers=numbers: self._reader.load(numbers), self._ranks, stop)
                if batches is None:
                    return None
                for batch in batches:
                    sums = self._reader.forward(engine, batch, 1.0)()
                    total += torch.stack(list(sums)).to("cpu", torch.float64)
        engine.evaluating(False)
        means = (gather_numbers(total.tolist(), self._ranks).sum(0) / self._targets).tolist()
        return HeldOutLoss(*means)
