"""The children that should exist: a function of the stored status and the spec alone."""

from dataclasses import replace
from typing import Literal

from distill_operator.api import JobSpec
from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.decision import Children

TeacherWork = Literal["signals", "scores"]


def teacher_work(status: DistillJobStatus) -> TeacherWork | None:
    """What the teacher is still needed for; None before `prepare` has said it, and once all is done."""
    if status.prepared is None or status.teacher.finished:
        return None
    if not status.signal.complete:
        return "signals"
    return "scores" if status.prepared.teacher_evaluations_missing > 0 else None


def teacher_replicas(status: DistillJobStatus, spec: JobSpec) -> int:
    """Teacher pods that have something to do. Scores alone are one replica's work; others would start for nothing."""
    match teacher_work(status):
        case "signals":
            return spec.teacher.replicas
        case "scores":
            return min(1, spec.teacher.replicas)
        case None:
            return 0


def announced_teachers(status: DistillJobStatus, spec: JobSpec) -> int:
    """Teacher replicas that the students of an attempt that begins are told of."""
    return 0 if spec.signal.mode == "offline" else teacher_replicas(status, spec)


def both_finished(status: DistillJobStatus) -> bool:
    """Whether neither half has anything left to do."""
    return status.prepared is not None and status.student.finished and teacher_work(status) is None


def wanted(status: DistillJobStatus, spec: JobSpec) -> Children:
    """What should exist for a job with this status."""
    attempt = status.attempt
    if attempt is None:
        return Children()
    if status.ended:
        return Children(attempt=attempt.number)
    kept = Children(attempt=attempt.number, running=True, announced_teachers=attempt.teachers)
    if attempt.ending is not None:
        # Scaled down and kept: a StatefulSet that is removed takes its pods' own claims along.
        has_halves = status.phase in ("Distilling", "Suspended") and status.prepared and not both_finished(status)
        return replace(kept, teachers=0, students=0) if has_halves else kept
    match status.phase:
        case "Preparing":
            return replace(kept, prepare=True)
        case "Distilling":
            return replace(kept, teachers=teacher_replicas(status, spec), students=student_pods(status, spec))
        case "Evaluating":
            return replace(kept, evaluate=True)
        case _:
            return kept


def student_pods(status: DistillJobStatus, spec: JobSpec) -> int:
    """Student pods that have something to do: all workers of the attempt, or none."""
    waits = spec.signal.mode == "offline" and not status.signal.complete
    if status.attempt is None or status.student.finished or waits:
        return 0
    return status.attempt.workers
