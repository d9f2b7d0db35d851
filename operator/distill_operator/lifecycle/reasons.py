"""Why a job waits, is tried again, or can't go on: one word and one sentence."""

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.admission import queue
from distill_operator.lifecycle.case import Case, Step
from distill_operator.lifecycle.causes import Cause, main_cause, obstacle
from distill_operator.lifecycle.ends import LONGEST_REASON, fitting
from distill_operator.lifecycle.suspension import SUSPENDED

ALL_IS_WELL = Cause("", "")


def reasons(case: Case, status: DistillJobStatus) -> Step:
    """Sets `reason` and `message`; those of an ended job stay."""
    if status.ended:
        return Step(status)
    cause = explain(case, status)
    return Step(
        status.model_copy(update={"reason": fitting(cause.reason, LONGEST_REASON), "message": fitting(cause.message)})
    )


def explain(case: Case, status: DistillJobStatus) -> Cause:
    """Why the job is where it is. Nothing in it changes from step to step, since watchers would be woken."""
    attempt = status.attempt
    if status.phase == "Suspended":
        suspended = Cause(SUSPENDED, "No pod is left of the suspended job; set spec.suspend to false to go on.")
        return suspended if case.spec.suspend else queue(case) or suspended
    if attempt is None:
        return obstacle(case) or queue(case) or ALL_IS_WELL
    if attempt.ending is not None:
        return Cause(attempt.ending.reason, attempt.ending.message)
    blocked = obstacle(case)
    if blocked is not None:
        return blocked
    return main_cause(case, status) if attempt.waiting_since is not None else ALL_IS_WELL
