"""What a rank reads for a step: its micro-batches as tensors, with what the teacher says of their targets."""

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import lru_cache

import torch

from distill_runtime.data.plan import Plan
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import decode_rows, stand_in_rows
from distill_runtime.signals.teacher_rows import TeacherRows
from distill_runtime.student.batches import Arrays, MicroBatch, assemble, divide, own_sequences
from distill_runtime.student.distributed import Ranks
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.grouping import Limits
from distill_runtime.student.module import Sums
from distill_runtime.transport.interface import PlanName, SignalSource

SETS_KEPT = 8
"""Sets of sequences whose division is remembered: more than are announced ahead of the step that reads."""


@dataclass(frozen=True)
class Loaded:
    """A micro-batch, ready to run."""

    arrays: Arrays
    stored: torch.Tensor | None
    """Rows of the teacher as they are stored [targets, columns], on the CPU."""


@dataclass(frozen=True)
class TeacherSide:
    """Where what the teacher says comes from, and how it is read."""

    source: SignalSource
    row: RowFormat
    """What is stored of each target of the plan."""
    head: OutputHead | None
    """On the device of the student; None where no hidden states are read."""

    def decoded(self, stored: torch.Tensor, device: torch.device) -> TeacherRows:
        """Stored rows as the objective reads them, on the device."""
        return decode_rows(stored.to(device), self.row, self.head)


class Reader:
    """Reads the own part of any set of sequences of one plan."""

    def __init__(
        self,
        name: PlanName,
        plan: Plan,
        teacher: TeacherSide | None,
        ranks: Ranks,
        *,
        limits: Limits,
        row_tokens: int | None,
        varlen: bool,
    ) -> None:
        self._name: PlanName = name
        self._plan = plan
        self._teacher = teacher
        self._ranks = ranks
        self._limits = limits
        self._row_tokens = row_tokens
        self._varlen = varlen
        # A set is asked for when it is announced and when it is loaded.
        self._divided = lru_cache(maxsize=SETS_KEPT)(self._divide)

    def micro_batches(self, sequences: Many[int]) -> list[MicroBatch]:
        """This rank's part of a set of sequences; as many micro-batches as on every other rank."""
        return self._divided(tuple(sequences))

    def _divide(self, sequences: tuple[int, ...]) -> list[MicroBatch]:
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
        if self._teacher is not None:
            self._teacher.source.announce(self._name, own_sequences(self.micro_batches(sequences)))

    def load(self, sequences: Many[int]) -> list[Loaded]:
        """This rank's micro-batches of a set; waits for the teacher.

        Raises
        ------
        UserError, RetryError
            As `SignalSource.fetch`.
        """
        batches = self.micro_batches(sequences)
        own = own_sequences(batches)
        rows = iter(self._teacher.source.fetch(self._name, own) if self._teacher is not None else [])
        found = {number: self._plan.sequence(number) for number in set(own)}
        loaded: list[Loaded] = []
        for batch in batches:
            arrays = assemble(batch, found, packed=self._row_tokens is not None)
            parts = [next(rows) for _ in own_sequences([batch])] if self._teacher is not None else []
            loaded.append(Loaded(arrays, self._stored(parts, arrays)))
        return loaded

    def _stored(self, parts: list[torch.Tensor], arrays: Arrays) -> torch.Tensor | None:
        if self._teacher is None:
            return None
        return stand_in_rows(self._teacher.row, len(arrays.targets)) if arrays.weight == 0 else torch.cat(parts)

    def stand_in(self, targets: int) -> TeacherRows | None:
        """Valid rows that mean nothing, for passes whose divergence doesn't count; None without a teacher."""
        if self._teacher is None:
            return None
        return self._teacher.decoded(stand_in_rows(self._teacher.row, targets), self._ranks.device)

    def forward(self, engine: StudentEngine, loaded: Loaded, scale: float) -> Callable[[], Sums]:
        """The forward pass of a micro-batch; its loss is `scale` times the sum over its targets."""

        def run() -> Sums:
            device = self._ranks.device
            stored, side = loaded.stored, self._teacher
            return engine(
                "objective",
                model_inputs(loaded.arrays, device, varlen=self._varlen),
                state_index=torch.from_numpy(loaded.arrays.state_index).to(device),
                targets=torch.from_numpy(loaded.arrays.targets).to(device),
                teacher=None if stored is None or side is None else side.decoded(stored, device),
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
