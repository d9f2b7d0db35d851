"""The two ends of a signal's way. Trainer and teacher worker know nothing else of the transport."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Literal

import torch

from distill_runtime.data.sequence import Sequence
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.row_format import RowFormat

PlanName = Literal["train", "evaluation"] | str
"""Which of the job's plans: `train`, `evaluation`, or `task-<name>`."""


@dataclass(frozen=True)
class ShardWork:
    """A shard that this teacher replica has claimed."""

    plan: PlanName
    shard: int
    sequences: list[Sequence]
    """What the teacher reads of them."""
    row: RowFormat
    """What is to be stored of each target."""
    token: str
    """The transport's own note on the claim."""


class SignalSource(ABC):
    """The student's end."""

    waited_seconds: float
    """Time spent in `fetch` waiting for the teacher, not for the network."""

    @abstractmethod
    def head(self) -> OutputHead:
        """The teacher's output head; waits until it is published."""

    @abstractmethod
    def announce(self, plan: PlanName, sequences: Many[int]) -> None:
        """Sequences that will be fetched, in this order: what to bring along beforehand."""

    @abstractmethod
    def fetch(self, plan: PlanName, sequences: Many[int]) -> list[torch.Tensor]:
        """For each sequence the stored rows [targets, columns] on the CPU; `signals.rows` says what they mean.

        Waits for what is not there yet.

        Raises
        ------
        UserError
            A teacher said that this shard can't be scored.
        RetryError
            With `needs="signals"`: nobody is left who would make what is missing.
        """

    def position(self, step: int) -> None:  # noqa: B027 - a transport that holds nothing back has no use for it
        """Says that training is at this step; called before the first `fetch` of each step."""

    def training_finished(self, step: int) -> None:  # noqa: B027 - as above
        """Says that no step from `step` on will be trained, as after an early stop; everything before is durable."""

    @abstractmethod
    def checkpointed(self, step: int) -> None:
        """Says that everything before `step` is durable: in streaming mode, what only earlier steps read may go."""

    @abstractmethod
    def close(self) -> None:
        """Ends prefetching."""


class SignalSink(ABC):
    """The teacher's end."""

    @abstractmethod
    def publish_head(self, head: OutputHead) -> None:
        """Stores the output head unless it is there."""

    @abstractmethod
    def take(self) -> ShardWork | None:
        """Claims the next missing shard, in the order in which the student will need them. Waits while others hold all
        that is missing or the student is too far behind (streaming). None: nothing is left to do."""

    @abstractmethod
    def put(self, work: ShardWork, rows: list[torch.Tensor]) -> bool:
        """Stores the rows [targets, columns] of each sequence of the shard, in the form that the work asks for: parts
        first, manifest last.

        Returns False where another replica was first; its signals count.
        """

    @abstractmethod
    def fail(self, work: ShardWork, message: str) -> None:
        """Leaves an error marker in the shard's place, so that no reader waits for it."""

    @abstractmethod
    def close(self) -> None:
        """Says that this replica has ended."""
