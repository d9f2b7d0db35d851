"""What `prepare` found and made: the one document that teacher, student and evaluation start from.

Nothing in it depends on the number of workers, the micro-batch or anything else that a later attempt may change.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from distill_runtime import layout
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.order import Share
from distill_runtime.errors import RetryError
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.store.base import ObjectMissing, ObjectStore

ResolvedPrecision = Literal["float32", "bfloat16", "float16"]
"""A precision with nothing left to choose."""


class Record(BaseModel):
    """A frozen document in the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPin(Record):
    """A model, resolved once: every container of the job uses exactly these files."""

    uri: str
    """The URI with its revision pinned; `store://models/<digest>` for an initial student that `prepare` made."""
    digest: str
    """Digest over the names and contents of its files."""


class PlanReference(Record):
    """A plan in the store, and its numbers."""

    key: str
    """Key of its folder; see `data.plan`."""
    data_digest: str
    """Digest of its sequences in the order of the data: ids and target masks, nothing else."""
    shards: int
    sequences: int
    tokens: int
    targets: int


class StoredSignal(Record):
    """What of the teacher is stored about the targets of a plan."""

    digest: str
    """Digest of the teacher and the row's format: names the folder of these signals."""
    row: RowFormat
    """What is stored of one target."""


class SourceCounts(Record):
    """What became of the rows of one source of a plan."""

    rows: int
    """Rows read, bad ones included."""
    sequences: int
    """Rows that became a sequence. A source's sequences follow those of the one before."""
    tokens: int
    targets: int
    dropped_rows: int
    truncated_rows: int
    bad_rows: int


class SourceShare(SourceCounts):
    """One of `data.sources`, and its share in an epoch."""

    uri: str
    weight: float
    epoch_sequences: int
    """Sequences of it that one epoch reads; one that is read twice counts twice."""

    @property
    def share(self) -> Share:
        """For the order of training."""
        return Share(self.sequences, self.weight)


class TaskReference(Record):
    """An evaluation task whose examples `prepare` has read and checked, or the samples."""

    name: str
    kind: Literal["classification", "questionAnswering", "samples"]
    digest: str
    """Digest of the examples, the template and everything else that changes a score."""
    examples_key: str
    """JSON document with the examples; see `evaluation.tasks`."""
    plan: PlanReference | None
    """For classification: one sequence for each (example, label), whose targets are the label's tokens."""


class Prepared(Record):
    """The result of `prepare`."""

    fingerprint: str
    """Digest of all inputs; an equal one says that nothing need be done again."""
    train: PlanReference
    evaluation: PlanReference | None
    tasks: list[TaskReference]
    samples: TaskReference | None = None
    """The held-out rows whose answers the report shows."""
    teacher: ModelPin
    teacher_dtype: ResolvedPrecision
    """The teacher's precision with `auto` resolved; part of every signal's key."""
    student: ModelPin
    """The student before training."""
    training_precision: ResolvedPrecision
    """The student's precision with `auto` resolved."""
    vocabulary: int
    """Real size of the vocabulary: ids at and above it are padding on either side."""
    train_signal: StoredSignal
    """The signals of the training data."""
    held_out_signal: StoredSignal
    """The signals of held-out data and tasks: hidden states, whatever the training reads."""
    learns_from_teacher: bool = True
    """Are there to be signals of the training data?"""
    compares_with_teacher: bool = True
    """Are there to be signals of held-out data and tasks, and answers of the teacher?"""
    teacher_canary: list[int]
    """Token ids of a short text that every teacher replica scores before it takes work."""
    total_steps: int
    """Optimizer steps of the whole job."""
    training_digest: str
    """Digest of all that determines the trained weights; not workers, micro-batch, packing or ZeRO stage."""
    report: dict[str, int | float | str]
    """Counts for the report: rows read, dropped, truncated, bad."""
    sources: list[SourceShare] = []
    """Those of `data.sources`, in the order of the data; none where there is `data.train`."""


def read_prepared(store: ObjectStore, config: RunConfig) -> Prepared:
    """What `prepare` made for this job.

    Raises
    ------
    RetryError
        `prepare` has not run for this job.
    """
    key = layout.prepared_key(config)
    try:
        return Prepared.model_validate_json(store.get(key))
    except ObjectMissing:
        raise RetryError(
            f"{store.uri}/{key} is missing: run prepare first for {config.namespace}/{config.name}.",
            reason="NotPrepared",
        ) from None
