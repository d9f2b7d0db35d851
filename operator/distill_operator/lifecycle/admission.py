"""When a job, or its next attempt, may begin."""

from distill_operator.api.status import Attempt, DistillJobStatus
from distill_operator.lifecycle.case import Case, Step
from distill_operator.lifecycle.causes import Cause
from distill_operator.lifecycle.edits import spec_digest
from distill_operator.lifecycle.phases import enter_next_phase

QUEUED = "Queued"
EARLIER_PODS = "EarlierPods"


def admission(case: Case, status: DistillJobStatus) -> Step:
    """Begins the first attempt."""
    if status.ended or status.attempt is not None or case.spec.suspend:
        return Step(status)
    if case.observed.refused or queue(case) is not None:
        return Step(status)
    if status.phase == "Suspended":
        status = status.model_copy(update={"resume_time": case.now})
    started = status.model_copy(update={"start_time": status.start_time or case.now})
    return Step(begin_attempt(case, started, 1))


def queue(case: Case) -> Cause | None:
    """Why a job that doesn't run yet must wait for others.

    Pods of an earlier job of its name may still write. And as long as one of them is on a node, its kubelet gives the
    earlier job's ConfigMap to whoever asks for one of that name: it never reads an immutable one again.
    """
    if case.observed.earlier_pods:
        names = ", ".join(case.observed.earlier_pods[:3])
        return Cause(EARLIER_PODS, f"Pods of an earlier job of this name are still there ({names}); this one waits.")
    most = case.configuration.max_running_jobs
    if most is None or case.observed.running_jobs < most:
        return None
    message = f"The operator lets {most} jobs of a namespace run at a time (maxRunningJobs); this one waits."
    return Cause(QUEUED, message)


def begin_attempt(case: Case, status: DistillJobStatus, number: int) -> DistillJobStatus:
    """Begins an attempt from the spec as it is now, in the phase of the work that is left."""
    before = status.attempt
    needs_signals = before is not None and before.ending is not None and before.ending.needs_signals
    streams = case.spec.signal.mode == "streaming" and status.prepared is not None and not status.student.finished
    if needs_signals or streams:
        status = status.model_copy(
            update={
                "signal": status.signal.model_copy(update={"complete": False}),
                "teacher": status.teacher.model_copy(update={"finished": False}),
            }
        )
    attempt = Attempt(
        number=number,
        start_time=case.now,
        workers=case.spec.student.workers,
        generation=case.job.metadata.generation,
        spec_digest=spec_digest(case.spec),
    )
    return enter_next_phase(case, status.model_copy(update={"attempt": attempt}))
