"""The teacher's pods: finished once one of them found all work done; replaced when they are lost; given up when they
fail again and again."""

from distill_operator.api.status import Attempt, DistillJobStatus
from distill_operator.lifecycle.case import Case, Step, is_over, with_attempt, working
from distill_operator.lifecycle.ends import end_attempt
from distill_operator.lifecycle.finishing import finished_pod, take_facts
from distill_operator.lifecycle.observed import Pod
from distill_operator.lifecycle.outcomes import Verdict, is_taken_away, verdict
from distill_runtime.contract.facts import TeacherFacts
from distill_runtime.contract.outcome import Outcome

MOST_FAILURES = 10
"""Of teacher pods in one attempt, however many failures the backoff limit allows."""
MOST_REMEMBERED = 256
"""Lost pods whose uids a status holds."""


def teachers_finished(case: Case, status: DistillJobStatus) -> Step:
    """Stores that the teacher's work is done: signals and scores. One replica's word is enough."""
    if status.prepared is None or status.teacher.finished or status.ended:
        return Step(status)
    finished = finished_pod(case.pods("teacher"))
    return Step(status if finished is None else take_facts(case, status, finished, _finished))


def _finished(case: Case, status: DistillJobStatus, outcome: Outcome) -> DistillJobStatus:
    TeacherFacts.read(outcome.facts)
    signal = status.signal.model_copy(update={"complete": True, "shards_done": status.signal.shards})
    teacher = status.teacher.model_copy(update={"finished": True})
    return status.model_copy(update={"teacher": teacher, "signal": signal})


def teachers_lost(case: Case, status: DistillJobStatus) -> Step:
    """Counts each lost teacher pod once, and ends the attempt when too many of them failed by themselves."""
    attempt = working(status)
    if attempt is None or not case.same_attempt(status) or not case.wanted.teachers or status.teacher.finished:
        return Step(status)
    status = _noting_scale_down(case, status, attempt)
    new = [pod for pod in case.pods("teacher") if pod.uid not in attempt.lost_teachers and _is_lost(status, pod)]
    if not new:
        return Step(status)
    failures = [one for one in map(failure, new) if one is not None]
    failed = attempt.failed_teachers + len(failures)
    teacher = status.teacher.model_copy(update={"restarts": status.teacher.restarts + len(new)})
    counted = with_attempt(status, lost_teachers=_remembered(case, attempt, new), failed_teachers=failed)
    counted = counted.model_copy(update={"teacher": teacher})
    if failures and failed > min(case.policy.backoff_limit, MOST_FAILURES):
        last = failures[-1]
        return Step(end_attempt(case, counted, last.reason, last.message, count="failed", pod=last.pod))
    # Those that failed are replaced by the pass that finds them stored.
    return Step(counted, case.now if failures else None)


def failure(pod: Pod) -> Verdict | None:
    """How a teacher pod failed by itself. Teachers don't end each other: SIGTERM without a reason is a failure too."""
    one = verdict(pod)
    if one is None or one.kind == "finished":
        return None
    return None if one.kind == "disruption" and is_taken_away(pod) else one


def replaceable(case: Case) -> tuple[str, ...]:
    """Pods that only repeat their last word, which is stored: the Deployment makes others when they are deleted."""
    attempt = working(case.stored)
    if attempt is None or not case.wanted.teachers:
        return ()
    lost = [pod for pod in case.pods("teacher") if pod.uid in attempt.lost_teachers and failure(pod) is not None]
    return tuple(pod.uid for pod in lost if not (pod.gone or is_over(pod) or pod.deleting_since))


def _noting_scale_down(case: Case, status: DistillJobStatus, attempt: Attempt) -> DistillJobStatus:
    deployment = case.observed.teacher
    if deployment is None or deployment.attempt != attempt.number or attempt.teachers_lowered:
        return status
    return with_attempt(status, teachers_lowered=True) if deployment.replicas > (case.wanted.teachers or 0) else status


def _is_lost(status: DistillJobStatus, pod: Pod) -> bool:
    one = verdict(pod)
    if one is None or one.kind == "finished":
        return False
    if failure(pod) is not None or pod.disrupted or is_over(pod):
        return True
    # Deleted, and nobody says why: by a user, or because there were to be fewer.
    return status.attempt is not None and not status.attempt.teachers_lowered


def _remembered(case: Case, attempt: Attempt, new: list[Pod]) -> list[str]:
    uids = [*attempt.lost_teachers, *(pod.uid for pod in new)]
    if len(uids) <= MOST_REMEMBERED:
        return uids
    there = {pod.uid for pod in case.pods("teacher")}
    return [uid for uid in uids if uid in there][-MOST_REMEMBERED:]
