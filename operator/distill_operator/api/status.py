"""What the operator reports of a job. Everything that a decision rests on is here or can be observed again."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, PlainSerializer, StringConstraints

from distill_runtime.contract.sections import Section


def _whole_seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0)


Time = Annotated[
    datetime,
    AfterValidator(_whole_seconds),
    PlainSerializer(lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str, when_used="json"),
]
"""A moment in UTC, in whole seconds, as Kubernetes writes it."""


def _written(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


Measured = Annotated[float, AfterValidator(_written)]
"""A measured number with six digits. JSON has no number for what isn't finite, so nothing stands for it."""

Phase = Literal["Pending", "Preparing", "Distilling", "Evaluating", "Succeeded", "Failed", "Suspended"]
"""Where the job is."""
ENDED: tuple[Phase, ...] = ("Succeeded", "Failed")

Uid = Annotated[str, StringConstraints(max_length=63)]
"""Identity of an object of the API server."""

Fact = str | int | float | bool | None


class Reported(Section):
    """A part of the status. Unknown fields are kept out of the way: a newer operator may have written them."""

    model_config = ConfigDict(extra="ignore")


class Condition(Reported):
    """A condition after Kubernetes' conventions."""

    type: str = Field(max_length=316)
    """`Ready`, `Reconciling` or `Stalled`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = Field(max_length=1024)
    """One CamelCase word."""
    message: str = Field(default="", max_length=32768)
    """One sentence."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: int = Field(default=0, ge=0)
    """The generation of the spec that this is about."""


class Ending(Reported):
    """How an attempt ended."""

    reason: str = Field(max_length=64)
    """One CamelCase word: `BadRow`, `WorkerLost`, `Disrupted`, `Stalled`, `OutOfMemory`, `Suspended`, `Edited` …"""
    message: str = Field(default="", max_length=4096)
    """One sentence."""
    time: Time
    """When it was seen."""
    counted: bool = False
    """Whether it counts against the backoff limit."""
    needs_signals: bool = False
    """The next attempt must run teachers, since signals are missing."""
    pod: str | None = Field(default=None, max_length=253)
    """The pod that ended it."""
    retry_time: Time | None = None
    """The next attempt doesn't begin before this."""


class Attempt(Reported):
    """The current attempt: rendered once, never repaired in place."""

    number: int = Field(ge=1)
    """Its number, from 1."""
    start_time: Time
    """When it began."""
    workers: int = Field(ge=1)
    """Student workers it was rendered with."""
    teachers: int = Field(default=0, ge=0)
    """Teacher replicas that its students were told of: 0 says that nobody will make a missing signal."""
    generation: int = Field(ge=0)
    """Newest generation of the spec that its pods are right for."""
    digest: str | None = Field(default=None, max_length=128)
    """Digest of the rendered children, once they are stored in its ConfigMap."""
    spec_digest: str | None = Field(default=None, max_length=128)
    """Digest of the part of the spec that its pods are made from: another one ends it."""
    waiting_since: Time | None = None
    """Since when pods that are wanted are not running; unset while all of them run."""
    running_time: Time | None = None
    """When all pods ran for the first time."""
    students_made: Time | None = None
    """When the youngest of its student pods was made, once all of them ran. A younger pod has replaced a lost one."""
    lost_teachers: list[Uid] = Field(default=[], max_length=256)
    """Teacher pods that were lost, by uid: each counts once."""
    failed_teachers: int = Field(default=0, ge=0)
    """Those of them that failed by themselves."""
    teachers_lowered: bool = False
    """Its teachers were scaled down while it ran: from then on a deleted teacher pod isn't a lost one."""
    ending: Ending | None = None
    """How it ended; its pods are being removed."""


class AttemptCounts(Reported):
    """Attempts so far, by how they ended."""

    failed: int = Field(default=0, ge=0)
    """Counted against the backoff limit."""
    disrupted: int = Field(default=0, ge=0)
    """Ended by evictions, preemptions and lost nodes."""
    suspended: int = Field(default=0, ge=0)
    """Ended by suspension or by an edit."""


class Prepared(Reported):
    """What `prepare` found."""

    sequences: int = 0
    """Sequences to learn from."""
    targets: int = 0
    """Tokens to learn."""
    bad_rows: int = 0
    """Rows that couldn't be used."""
    dropped_rows: int = 0
    """Rows that were too long."""
    truncated_rows: int = 0
    """Rows that were cut."""
    signal_shards: int = 0
    """Shards of signals that the job needs in all."""
    signal_shards_missing: int = 0
    """Those of them that were not in the store."""
    signal_bytes: int = 0
    """Size of all signals."""
    teacher_evaluations_missing: int = 0
    """Scores of the teacher that were not in the store."""
    training_finished: bool = False
    """The trained model was in the store."""
    total_steps: int = 0
    """Optimizer steps of the whole job."""
    training_digest: str = Field(default="", max_length=128)
    """Digest of all that determines the weights."""
    signal_digest: str = Field(default="", max_length=128)
    """Digest of all that determines the training data's signals."""
    reused_plan: bool = False
    """The data had been tokenised by an earlier job."""


class ProgressStatus(Reported):
    """How far the student is."""

    stage: str = Field(default="", max_length=64)
    """What it does: `load`, `train`, `export` …"""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps in all."""
    percent: int = Field(default=0, ge=0, le=100)
    """Part of the steps that is done."""
    tokens_per_second: Measured | None = None
    """Tokens a second."""
    loss: Measured | None = None
    """The training loss of the last step."""
    held_out_loss: Measured | None = None
    """The last held-out loss."""
    wait_fraction: Measured | None = None
    """Part of the time that the student waited for signals."""
    eta: Time | None = None
    """When training is expected to end."""
    last_change_time: Time | None = None
    """When any pod of the attempt last got on: a step, a shard, an example."""
    text: str = Field(default="", max_length=64)
    """`120/1000`, for the printer column."""
    percent_text: str = Field(default="", max_length=8)
    """`12%`, for the printer column."""
    mark: str = Field(default="", max_length=64)
    """Digest of how far all pods said they were: while it is the same, none got on."""


class HalfStatus(Reported):
    """One half of the job: the teacher's pods or the student's."""

    desired: int = 0
    """Pods that are wanted now."""
    ready: int = 0
    """Pods that are ready."""
    restarts: int = 0
    """Containers that were lost and replaced, over all attempts."""
    text: str = Field(default="0/0", max_length=32)
    """`2/2`, for the printer column."""
    finished: bool = False
    """Its work is done."""


class SignalStatus(Reported):
    """What the teacher says, and how much of it is there."""

    kind: str = Field(default="", max_length=32)
    """Kind of the signal."""
    shards: int = 0
    """Shards in all."""
    shards_done: int = 0
    """Shards that are in the store."""
    reused_shards: int = 0
    """Shards that were there before this job."""
    bytes: int = 0
    """Size of all signals."""
    complete: bool = False
    """All of it is there."""


class SubjectScores(Reported):
    """Scores of one model."""

    kl_to_teacher: float | None = None
    """Mean KL(teacher || model) over the held-out tokens, in nats."""
    top1_agreement: float | None = None
    """Part of the held-out tokens where the most likely token is the teacher's."""
    perplexity: float | None = None
    """Perplexity on the held-out tokens."""
    expected_calibration_error: float | None = None
    """Expected calibration error on the held-out tokens, over 15 bins of confidence."""
    parameters: int | None = None
    """Number of weights."""
    tasks: dict[str, dict[str, float]] = Field(default={}, max_length=32)
    """Scores by task: `accuracy` and `macroF1`, or `exactMatch` and `tokenF1`."""


class EvaluationStatus(Reported):
    """Scores of the three models."""

    teacher: SubjectScores | None = None
    """The teacher."""
    student_before: SubjectScores | None = None
    """The student before training."""
    student_after: SubjectScores | None = None
    """The student after training."""


class OutputStatus(Reported):
    """Where the results are."""

    model: str = Field(default="", max_length=2048)
    """URI of the distilled model."""
    report: str = Field(default="", max_length=2048)
    """URI of the report."""


class DistillJobStatus(Reported):
    """What became of the job so far."""

    phase: Phase = "Pending"
    """Where the job is."""
    observed_generation: int = Field(default=0, ge=0)
    """The newest generation of the spec that was acted on."""
    conditions: list[Condition] = Field(default=[], max_length=16)
    """`Ready`, `Reconciling` and `Stalled`, as kstatus reads them."""
    start_time: Time | None = None
    """When the job first left Pending."""
    resume_time: Time | None = None
    """When the job was last resumed."""
    completion_time: Time | None = None
    """When the job ended."""
    reason: str = Field(default="", max_length=64)
    """Why the job ended, waits or is tried again: one CamelCase word."""
    message: str = Field(default="", max_length=4096)
    """The same in one sentence."""
    attempt: Attempt | None = None
    """The current attempt."""
    attempts: AttemptCounts = AttemptCounts()
    """Attempts by how they ended."""
    prepared: Prepared | None = None
    """What `prepare` found."""
    progress: ProgressStatus = ProgressStatus()
    """How far the student is."""
    teacher: HalfStatus = HalfStatus()
    """The teacher's pods."""
    student: HalfStatus = HalfStatus()
    """The student's pods."""
    signal: SignalStatus = SignalStatus()
    """What the teacher said so far."""
    evaluation: EvaluationStatus | None = None
    """Scores of the teacher, the student before and the student after."""
    output: OutputStatus | None = None
    """Where the results are."""

    def dump(self) -> dict[str, Any]:
        """As plain data for the API server, without nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def ended(self) -> bool:
        """Whether the job has ended for good."""
        return self.phase in ENDED


def with_known_phase(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status as the API server has it, with a phase that this operator knows.

    A newer operator may have others: the nearest one stands for it, by what was already done. A job that has a
    completion time has ended, however that is called.
    """
    if "phase" not in status or status["phase"] in get_args(Phase):
        return status
    return {**status, "phase": _nearest_phase(status)}


def _nearest_phase(status: Mapping[str, Any]) -> Phase:
    if status.get("completionTime"):
        return "Failed"
    if status.get("evaluation"):
        return "Evaluating"
    if status.get("prepared"):
        return "Distilling"
    return "Preparing" if status.get("startTime") else "Pending"
