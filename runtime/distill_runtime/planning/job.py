"""The plan of a job that is being prepared."""

from dataclasses import dataclass
from pathlib import Path

from distill_runtime.contract.plan import JobPlan, KindPlan, MemoryPlan, SignalPlan, StoredKind
from distill_runtime.contract.run import SAMPLED_NEEDS, Work
from distill_runtime.contract.sections import DRAWN_DIVERGENCES
from distill_runtime.models import resolve_model
from distill_runtime.planning.choice import moving_seconds, signal_plan, training_seconds
from distill_runtime.planning.link import measure_bandwidth
from distill_runtime.planning.memory import Shape, student_memory, teacher_memory
from distill_runtime.planning.shapes import read_shape
from distill_runtime.prepared import ModelPin, PlanReference, Prepared
from distill_runtime.signals.addresses import student_reads_states
from distill_runtime.signals.head import HeadDescription
from distill_runtime.signals.row_format import training_row
from distill_runtime.store.base import ObjectStore
from distill_runtime.student.optimizer import optimizer_states

EXACT_FIRST: tuple[StoredKind, ...] = ("hidden", "topk", "sampled")


@dataclass(frozen=True)
class Known:
    """What `prepare` knows of a job when it chooses the signal."""

    work: Work
    train: PlanReference
    total_steps: int
    head: HeadDescription
    student: Shape
    store: ObjectStore

    @property
    def epochs(self) -> float:
        """How often training reads the data."""
        return self.total_steps * self.work.training.global_batch / self.train.sequences

    @property
    def processes(self) -> int:
        """Of the student."""
        return self.work.student.workers * max(1, self.work.student.gpus_per_worker)


def known_of(
    store: ObjectStore,
    work: Work,
    train: PlanReference,
    total_steps: int,
    head: HeadDescription,
    student: ModelPin,
    cache: Path,
) -> Known:
    """What is known, with the shape of the student that is trained. `cache` takes it where it must be fetched."""
    folder = resolve_model(student.uri, work.storage, cache=cache, store=store).folder
    return Known(
        work=work,
        train=train,
        total_steps=total_steps,
        head=head,
        student=read_shape(folder, trust_remote_code=work.trusts_student, student=work.student),
        store=store,
    )


def plan_signal(known: Known) -> SignalPlan:
    """The kind of the training data's signal. Measures the store where the spec doesn't say how fast it is."""
    signal = known.work.signal
    bandwidth = signal.bandwidth or measure_bandwidth(known.store)
    kinds = [_kind(known, kind, bandwidth) for kind in EXACT_FIRST]
    return signal_plan(
        kinds,
        wanted=None if signal.kind == "auto" else signal.kind,
        targets=known.train.targets,
        epochs=known.epochs,
        reuses=signal.reuses,
        bandwidth=bandwidth,
        bandwidth_measured=signal.bandwidth is None,
        least_seconds=training_seconds(
            parameters=known.student.parameters,
            tokens=known.train.tokens,
            epochs=known.epochs,
            processes=known.processes,
            gpus=known.work.student.gpus_per_worker > 0,
        ),
    )


def _kind(known: Known, kind: StoredKind, bandwidth: float) -> KindPlan:
    work, vocabulary = known.work, known.head.vocabulary
    row = training_row(work, kind=kind, hidden_size=known.head.hidden_size, vocabulary=vocabulary)
    refused = ""
    if kind == "topk" and row.width > vocabulary:
        refused = f"signal.k is above the vocabulary of {vocabulary} ids"
    if kind == "sampled" and any(term.kind not in DRAWN_DIVERGENCES for term in work.objective.divergences):
        refused = SAMPLED_NEEDS
    total = known.train.targets * row.row_bytes
    return KindPlan(
        kind=kind,
        row_bytes=row.row_bytes,
        total_bytes=total,
        seconds=moving_seconds(total, epochs=known.epochs, reuses=work.signal.reuses, bandwidth=bandwidth),
        refused=refused,
    )


def plan_job(known: Known, prepared: Prepared, *, teacher: Path) -> JobPlan:
    """The whole plan of a job that is prepared. `teacher` is its folder."""
    work, training = known.work, known.work.training
    kind = prepared.train_signal.row.kind
    signal = plan_signal(known).model_copy(update={"kind": kind, "why": prepared.signal_choice})
    shape = read_shape(teacher, trust_remote_code=work.teacher.trust_remote_code)
    rows = training.micro_batch * work.data.max_length
    reads_states = work.learns_from_teacher and student_reads_states(prepared)
    of_student = student_memory(
        known.student,
        training,
        prepared.training_precision,
        processes=known.processes,
        gpus=work.student.gpus_per_worker > 0,
        optimizer_states=len(optimizer_states(training.optimizer).tensors),
        tokens=training.micro_batch_tokens or rows,
        teacher_head=known.head.vocabulary * known.head.hidden_size if reads_states else 0,
    )
    of_teacher = teacher_memory(
        shape, prepared.teacher_dtype, gpus=work.teacher.gpus, batch_tokens=work.teacher.max_batch_tokens
    )
    return JobPlan(
        signal=signal,
        memory=[
            MemoryPlan(
                role="teacher",
                processes=work.teacher.replicas * max(1, work.teacher.gpus),
                gpus=work.teacher.gpus > 0,
                parameters=shape.parameters,
                parts=of_teacher,
            ),
            MemoryPlan(
                role="student",
                processes=known.processes,
                gpus=work.student.gpus_per_worker > 0,
                parameters=known.student.parameters,
                parts=of_student,
            ),
        ],
    )
