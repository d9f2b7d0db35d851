"""What a rank reads for a step: its micro-batches as tensors, with the teacher's states."""

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from distill_runtime.data.plan import Plan
from distill_runtime.student.batches import Arrays, MicroBatch, assemble, divide, own_sequences
from distill_runtime.student.distributed import Ranks
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.grouping import Limits
from distill_runtime.student.module import Sums
from distill_runtime.transport.interface import PlanName, SignalSource


@dataclass(frozen=True)
class Loaded:
    """A micro-batch, ready to run."""

    arrays: Arrays
    teacher_hidden: torch.Tensor | None
    """[targets, hidden size of the teacher], on the CPU."""


class Reader:
    """Reads the own part of any set of sequences of one plan."""

    def __init__(
        self,
        name: PlanName,
        plan: Plan,
        source: SignalSource | None,
        ranks: Ranks,
        *,
        limits: Limits,
        row_tokens: int | None,
        varlen: bool,
    ) -> None:
        self._name: PlanName = name
        self._plan = plan
        self._source = source
        self._ranks = ranks
        self._limits = limits
        self._row_tokens = row_tokens
        self._varlen = varlen

    def micro_batches(self, sequences: Many[int]) -> list[MicroBatch]:
        """This rank's part of a set of sequences; as many micro-batches as on every other rank."""
        everyone = divide(
            sequences,
            self._plan.lengths,
            world=self._ranks.world,
            limits=self._limits,
            row_tokens=self._row_tokens,
        )
        return everyone[self._ranks.rank]

    def announce(self, sequences: Many[int]) -> None:
        """Tells the source what this rank will read of a set of sequences."""
        if self._source is not None:
            self._source.announce(self._name, own_sequences(self.micro_batches(sequences)))

    def load(self, sequences: Many[int]) -> list[Loaded]:
        """This rank's micro-batches of a set; waits for the teacher.

        Raises
        ------
        UserError, RetryError
            As `SignalSource.fetch`.
        """
        batches = self.micro_batches(sequences)
        own = own_sequences(batches)
        states = iter(self._source.fetch(self._name, own) if self._source is not None else [])
        found = {number: self._plan.sequence(number) for number in set(own)}
        loaded: list[Loaded] = []
        for batch in batches:
            arrays = assemble(batch, found, packed=self._row_tokens is not None)
            parts = [next(states) for _ in own_sequences([batch])] if self._source is not None else []
            loaded.append(Loaded(arrays, self._teacher_states(parts, arrays)))
        return loaded

    def _teacher_states(self, parts: list[torch.Tensor], arrays: Arrays) -> torch.Tensor | None:
        if self._source is None:
            return None
        if arrays.weight == 0:
            width = self._source.head().description.hidden_size
            return torch.zeros(len(arrays.targets), width)
        return torch.cat(parts)

    def forward(self, engine: StudentEngine, loaded: Loaded, scale: float) -> Callable[[], Sums]:
        """The forward pass of a micro-batch; its loss is `scale` times the sum over its targets."""

        def run() -> Sums:
            device = self._ranks.device
            hidden = loaded.teacher_hidden
            return engine(
                "objective",
                model_inputs(loaded.arrays, device, varlen=self._varlen),
                state_index=torch.from_numpy(loaded.arrays.state_index).to(device),
                targets=torch.from_numpy(loaded.arrays.targets).to(device),
                teacher_hidden=None if hidden is None else hidden.to(device),
                scale=scale * loaded.arrays.weight,
            )

        return run


def model_inputs(arrays: Arrays, device: torch.device, *, varlen: bool) -> dict[str, torch.Tensor | int]:
    """The model's arguments. No 2-d mask ever: with one, transformers doesn't see the segments of a packed row.

    `varlen` adds flash attention's own arguments: by itself it finds the segments in batches of one row only.
    """
    inputs: dict[str, torch.Tensor | int] = {"input_ids": torch.from_numpy(arrays.input_ids).to(device)}
    if arrays.position_ids is None or arrays.segment_starts is None:
        return inputs
    inputs["position_ids"] = torch.from_numpy(arrays.position_ids).to(device)
    if varlen:
        starts = torch.from_numpy(arrays.segment_starts).to(device)
        longest = int((arrays.segment_starts[1:] - arrays.segment_starts[:-1]).max())
        inputs |= {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}
    return inputs
