"""What a job will need, as `distillctl plan` shows it: sizes of its signals, and memory of both roles."""

from typing import Literal

from pydantic import Field

from distill_runtime.contract.sections import Section

StoredKind = Literal["hidden", "topk", "sampled"]

PLAN_FILE = "plan.json"
"""In the state folder of `prepare`, where it was asked for."""


class KindPlan(Section):
    """One kind of signal for the training data."""

    kind: StoredKind
    row_bytes: int = Field(ge=1)
    """Bytes of a target."""
    total_bytes: int = Field(ge=0)
    """Bytes of all targets."""
    seconds: float = Field(ge=0)
    """To move them: written once for all jobs that read them, read once an epoch."""
    refused: str = ""
    """Why this job can't have it."""


class SignalPlan(Section):
    """What is stored of the training data, and what else could be."""

    kind: StoredKind
    """What is stored."""
    why: str
    """A sentence."""
    kinds: list[KindPlan]
    targets: int
    """Of one epoch."""
    epochs: float
    """How often the training reads them."""
    reuses: int
    """Other jobs that are expected to read them too."""
    bandwidth: float
    """Bytes a second to and from the store."""
    bandwidth_measured: bool
    """Not given, but measured."""
    training_seconds: float
    """The shortest time in which this student could be trained on fast GPUs (or processors): an estimate."""


class MemoryPart(Section):
    """Something that takes memory."""

    name: str
    bytes: int = Field(ge=0)


class MemoryPlan(Section):
    """Memory of one process of a role: an estimate."""

    role: Literal["teacher", "student"]
    processes: int = Field(ge=0)
    """How many there are, each with a GPU of its own where the job asks for GPUs."""
    gpus: bool
    """On GPUs, or on processors."""
    parameters: int = Field(ge=0)
    """Weights of the model."""
    parts: list[MemoryPart]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)


class JobPlan(Section):
    """The document."""

    signal: SignalPlan
    memory: list[MemoryPlan]
