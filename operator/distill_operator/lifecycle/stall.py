"""A hung rank leaves all pods running and gets nowhere: after a while the attempt ends, and the next one goes on from
the last checkpoint."""

from distill_operator.api.status import DistillJobStatus
from distill_operator.constants import DEFAULT_STARTUP_SECONDS
from distill_operator.lifecycle.case import Case, Step, seconds, working
from distill_operator.lifecycle.ends import end_attempt
from distill_operator.lifecycle.progress import SHOWN, answer_of, mark_of

STALLED = "Stalled"
LEAST_LOOKS = 3
"""Looks at the pods' progress before anybody is called stalled, however short the time-out is."""


def stall(case: Case, status: DistillJobStatus) -> Step:
    """Ends an attempt of which no pod gets on though all run.

    Pods that never answered in this attempt are unknown, not stalled. A teacher that loads its model has the time that
    its startup probe gives it, also when it loads late because there was nothing to do before.
    """
    attempt = working(status)
    progress = status.progress
    last = progress.last_change_time
    if attempt is None or not case.same_attempt(status) or attempt.waiting_since is not None:
        return Step(status)
    if last is None or not progress.mark or status.phase != case.stored.phase:
        return Step(status)
    if mark_of(case) not in ("", progress.mark):
        return Step(status)
    timeout = case.policy.stall_timeout_seconds
    patience = max(timeout, LEAST_LOOKS * case.configuration.progress_seconds, _load_seconds(case))
    due = last + seconds(patience)
    if case.now < due:
        return Step(status, due)
    message = (
        f"No pod got on for {patience:.0f} s (spec.policy.stallTimeoutSeconds is {timeout}){_where(case, status)}. The "
        "logs have the stacks of all processes."
    )
    return Step(end_attempt(case, status, STALLED, message, count="failed"))


def _load_seconds(case: Case) -> float:
    """The time that a model may take to load, where a teacher loads one now."""
    if not case.wanted.teachers or all(pod.ready for pod in case.living("teacher")):
        return 0
    budgets = (case.spec.pods.teacher.startup_seconds, case.configuration.pods.teacher.startup_seconds)
    return next((budget for budget in budgets if budget is not None), DEFAULT_STARTUP_SECONDS)


def _where(case: Case, status: DistillJobStatus) -> str:
    shown = answer_of(case, SHOWN.get(status.phase, ()))
    if shown is None:
        return ""
    pod, answer = shown
    of = "" if answer.total is None else f" of {answer.total}"
    return f"; {pod.name} stands at {answer.stage}, {answer.done}{of} {answer.unit}"
