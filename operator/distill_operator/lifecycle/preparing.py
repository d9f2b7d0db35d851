"""The end of `prepare`: what it found decides which halves run."""

from distill_operator.api.status import DistillJobStatus, Prepared, ProgressStatus, SignalStatus
from distill_operator.lifecycle.batch_jobs import batch_job_failed
from distill_operator.lifecycle.case import Case, Step, working
from distill_operator.lifecycle.finishing import finished_pod, take_facts
from distill_operator.lifecycle.phases import enter_next_phase
from distill_operator.lifecycle.progress import steps_done
from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.contract.outcome import Outcome


def preparing(case: Case, status: DistillJobStatus) -> Step:
    """Stores what `prepare` found, once in the life of a job."""
    if status.prepared is not None or status.ended:
        return Step(status)
    finished = finished_pod(case.pods("prepare"))
    if finished is not None:
        return Step(take_facts(case, status, finished, _prepared))
    return Step(batch_job_failed(case, status, "prepare", case.observed.prepare))


def _prepared(case: Case, status: DistillJobStatus, outcome: Outcome) -> DistillJobStatus:
    facts = PrepareFacts.read(outcome.facts)
    common = Prepared.model_fields.keys() & PrepareFacts.model_fields.keys()
    prepared = Prepared.model_validate({name: getattr(facts, name) for name in common})
    missing = facts.signal_shards_missing
    there = max(0, facts.signal_shards - missing)
    # While the student trains, streamed signals come and go: they are complete when it has finished.
    complete = missing <= 0 and (case.spec.signal.mode != "streaming" or facts.training_finished)
    signal = SignalStatus(
        kind=facts.signal_kind or case.spec.signal.kind,
        choice=facts.signal_choice[:1024],
        shards=max(0, facts.signal_shards),
        shards_done=there,
        reused_shards=there,
        bytes=max(0, facts.signal_bytes),
        complete=complete,
    )
    progress = ProgressStatus.model_validate(steps_done(0, facts.total_steps))
    found = status.model_copy(
        update={
            "prepared": prepared,
            "signal": signal,
            "progress": progress,
            "student": status.student.model_copy(update={"finished": facts.training_finished}),
            "teacher": status.teacher.model_copy(
                update={"finished": complete and facts.teacher_evaluations_missing <= 0}
            ),
        }
    )
    return found if working(found) is None else enter_next_phase(case, found)
