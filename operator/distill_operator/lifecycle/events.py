"""What a user would want to be told, from the difference of two statuses: each once."""

from collections.abc import Iterator

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case
from distill_operator.lifecycle.decision import Event
from distill_operator.lifecycle.reasons import explain
from distill_operator.lifecycle.suspension import SUSPENDED


def events(case: Case, status: DistillJobStatus) -> tuple[Event, ...]:
    """What happened in this pass, in order."""
    return tuple(_all(case, case.stored, status))


def _all(case: Case, before: DistillJobStatus, after: DistillJobStatus) -> Iterator[Event]:
    yield from _work(before, after)
    yield from _attempts(before, after)
    yield from _holds(case, before, after)
    if after.phase == "Failed" and before.phase != "Failed":
        yield Event("Warning", "Failed", f"{after.reason}: {after.message}")
    if after.phase == "Succeeded" and before.phase != "Succeeded":
        yield Event("Normal", "Succeeded", after.message)


def _work(before: DistillJobStatus, after: DistillJobStatus) -> Iterator[Event]:
    """What the roles have done."""
    if after.prepared is not None and before.prepared is None:
        found = after.prepared
        message = (
            f"{found.targets} tokens to learn in {found.sequences} sequences, {found.total_steps} steps; "
            f"{found.signal_shards_missing} of {found.signal_shards + 1} signal shards are missing "
            "(the teacher's output head counts as one)."
        )
        yield Event("Normal", "Prepared", message)
    elif after.signal.complete and not before.signal.complete:
        yield Event("Normal", "SignalsComplete", f"All {after.signal.shards} signal shards are there.")
    if after.student.finished and not before.student.finished:
        yield Event("Normal", "StudentFinished", _trained(after))
    if after.teacher.restarts > before.teacher.restarts:
        message = "A teacher pod was lost, and another one takes its place; the student goes on."
        yield Event("Warning", "TeacherReplaced", message, key=str(after.teacher.restarts))


def _trained(after: DistillJobStatus) -> str:
    if after.prepared is not None and after.prepared.training_finished:
        return "The trained model was in the store."
    loss = "" if after.progress.loss is None else f", loss {after.progress.loss:.4g}"
    return f"The student is trained: {after.progress.step} steps{loss}."


def _attempts(before: DistillJobStatus, after: DistillJobStatus) -> Iterator[Event]:
    """Attempts that ended and began."""
    if after.attempt is None:
        return
    same = before.attempt is not None and before.attempt.number == after.attempt.number
    ending = after.attempt.ending
    if ending is not None and not (same and before.attempt and before.attempt.ending) and ending.reason != SUSPENDED:
        yield Event("Warning" if ending.counted else "Normal", ending.reason, ending.message)
    if not same:
        yield Event("Normal", "AttemptStarted", f"Attempt {after.attempt.number} begins.")


def _holds(case: Case, before: DistillJobStatus, after: DistillJobStatus) -> Iterator[Event]:
    """Suspension, queues, and what is in the way."""
    if after.phase == "Suspended" and before.phase != "Suspended":
        yield Event("Normal", "Suspended", "The job is suspended: no pod of it is left.")
    if after.resume_time != before.resume_time:
        yield Event("Normal", "Resumed", "The job goes on.", key=str(after.resume_time))
    if after.ended or after.reason == before.reason:
        return
    cause = explain(case, after)
    if cause.stalls or cause.reason == "Queued":
        yield Event("Warning" if cause.stalls else "Normal", cause.reason, cause.message)
