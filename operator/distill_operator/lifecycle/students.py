"""The student's pods: finished by the word of worker 0 alone; the loss of any worker ends the attempt."""

from datetime import datetime

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, Step, seconds, working
from distill_operator.lifecycle.ends import end_attempt
from distill_operator.lifecycle.finishing import finished_pod, take_facts
from distill_operator.lifecycle.observed import Pod
from distill_operator.lifecycle.outcomes import DISRUPTED, Verdict, verdict, verdicts
from distill_operator.lifecycle.progress import finite, steps_done
from distill_runtime.contract.facts import StudentFacts
from distill_runtime.contract.outcome import Outcome

ECHO_SECONDS = 10
"""A worker crashes when it loses its peer, and is heard of first: why the peer was lost is told a little later. So long
after a crash other workers may say more about why."""


def students_finished(case: Case, status: DistillJobStatus) -> Step:
    """Stores that the training is finished, and what it came to."""
    if status.prepared is None or status.student.finished or status.ended:
        return Step(status)
    finished = finished_pod(pod for pod in case.pods("student") if pod.ordinal == 0)
    return Step(status if finished is None else take_facts(case, status, finished, _finished))


def _finished(case: Case, status: DistillJobStatus, outcome: Outcome) -> DistillJobStatus:
    facts = StudentFacts.read(outcome.facts)
    progress = status.progress.model_copy(
        update={
            **steps_done(facts.steps, status.progress.total_steps, finished=True),
            "stage": "finished",
            "loss": finite(facts.final_loss),
            "held_out_loss": finite(facts.held_out_loss),
            "wait_fraction": finite(facts.wait_fraction),
            "tokens_per_second": finite(facts.tokens_per_second),
            "eta": None,
        }
    )
    signal = status.signal
    if case.spec.signal.mode == "streaming":
        # What the student has read is dropped: nobody needs any more of it.
        signal = signal.model_copy(update={"complete": True, "shards_done": signal.shards})
    student = status.student.model_copy(update={"finished": True})
    return status.model_copy(update={"progress": progress, "signal": signal, "student": student})


def students_lost(case: Case, status: DistillJobStatus) -> Step:
    """Ends the attempt when a worker is lost: a group is never repaired in place."""
    if working(status) is None or not case.same_attempt(status) or not case.wanted.students or status.student.finished:
        return Step(status)
    pods = case.pods("student")
    lost = next((one for one in verdicts(pods) if one.kind != "finished"), None)
    lost = lost or next((one for one in (_replacement(status, pod) for pod in pods) if one is not None), None)
    if lost is None:
        return Step(status)
    due = _others_heard(case, lost)
    if due is not None:
        return Step(status, due)
    ended = end_attempt(
        case,
        status,
        lost.reason,
        lost.message,
        count="disrupted" if lost.kind == "disruption" else "failed",
        pod=lost.pod,
        needs_signals=lost.kind == "needsSignals",
    )
    return Step(ended)


def _others_heard(case: Case, lost: Verdict) -> datetime | None:
    """Until when a crash waits for the word of workers that still run; None where nothing is waited for."""
    ended = lost.pod.ended
    if lost.kind != "crash" or lost.pod.gone or ended is None:
        return None
    due = ended + seconds(ECHO_SECONDS)
    silent = any(verdict(pod) is None for pod in case.living("student"))
    return due if silent and ended <= case.now < due else None


def _replacement(status: DistillJobStatus, pod: Pod) -> Verdict | None:
    """A pod that is younger than the group: nobody saw how the one before it was lost."""
    attempt = status.attempt
    if attempt is None or attempt.students_made is None or pod.created <= attempt.students_made:
        return None
    message = f"{pod.name} was lost while the operator was away, and its StatefulSet has made another one."
    return Verdict(pod, "disruption", DISRUPTED, message)
