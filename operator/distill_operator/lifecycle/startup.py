"""The longest time until all pods of an attempt run. Then nothing of it is held any longer.

What nothing but a change can mend fails the job, as does a job that got no node at all. One that got a part of its
nodes holds them, and may be waiting for what another such job holds: it lets go and tries again, not at the same moment
as the other one. So does one that got all of them, maybe late, and whose containers don't run yet.
"""

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, Step, seconds, with_attempt, working
from distill_operator.lifecycle.causes import STARTING, Cause, Group, groups, main_cause
from distill_operator.lifecycle.ends import end_attempt, fail

HALF_ADMITTED = "HalfAdmitted"
STARTUP_DEADLINE = "StartupDeadlineExceeded"


def startup(case: Case, status: DistillJobStatus) -> Step:
    """Notes since when pods are waited for, and ends what waits for too long."""
    attempt = working(status)
    if attempt is None or not case.same_attempt(status) or status.phase != case.stored.phase:
        return Step(status)
    found = groups(case)
    status = _noting_students(status, found)
    if all(group.running for group in found):
        return Step(_noting_all(case, status, found))
    since = attempt.waiting_since or case.now
    status = with_attempt(status, waiting_since=since)
    due = since + seconds(case.policy.startup_deadline_seconds)
    return Step(status, due) if case.now < due else Step(_overdue(case, status, found))


def _noting_all(case: Case, status: DistillJobStatus, found: tuple[Group, ...]) -> DistillJobStatus:
    attempt = working(status)
    first = attempt is not None and attempt.running_time is None and status.phase == "Distilling" and bool(found)
    status = with_attempt(status, running_time=case.now) if first else status
    return with_attempt(status, waiting_since=None)


def _noting_students(status: DistillJobStatus, found: tuple[Group, ...]) -> DistillJobStatus:
    students = next((group for group in found if group.role == "student" and group.running), None)
    if students is None or status.attempt is None or status.attempt.students_made is not None:
        return status
    return with_attempt(status, students_made=max(pod.created for pod in students.pods))


def _overdue(case: Case, status: DistillJobStatus, found: tuple[Group, ...]) -> DistillJobStatus:
    cause = main_cause(case, status)
    after = f"{case.policy.startup_deadline_seconds} s (spec.policy.startupDeadlineSeconds)"
    scheduled, wanted = sum(group.scheduled for group in found), sum(group.wanted for group in found)
    if not cause.hard and 0 < scheduled < wanted:
        having = " and ".join(f"{group.scheduled} of {group.wanted} {group.role} pods" for group in found)
        message = f"After {after} {having} had a node; all are released and tried again{_words(cause)}"
        return end_attempt(case, status, HALF_ADMITTED, message, count="failed", apart=True)
    if cause.reason == STARTING:
        pods = [pod.name for group in found if not group.running for pod in group.pods]
        what = f"{', '.join(sorted(pods)[:3])} didn't run" if pods else "no pod was made"
        message = f"After {after} {what}, and nothing says why."
        if scheduled < wanted:
            return fail(case, status, STARTUP_DEADLINE, message)
        # They may have got their nodes a moment ago, from a job that ended.
        return end_attempt(case, status, STARTUP_DEADLINE, message, count="failed", apart=True)
    return fail(case, status, cause.reason, f"{cause.message.rstrip('.')}. It was waited for {after}.")


def _words(cause: Cause) -> str:
    return "." if cause.reason == STARTING else f": {cause.message}"
