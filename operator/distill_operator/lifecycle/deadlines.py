"""The longest time that a job may be active, over all attempts since it was last resumed."""

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, Step, seconds
from distill_operator.lifecycle.ends import fail

DEADLINE_EXCEEDED = "DeadlineExceeded"


def active_deadline(case: Case, status: DistillJobStatus) -> Step:
    """Fails a job that has been active for too long. Time in suspension doesn't count."""
    longest = case.policy.active_deadline_seconds
    since = status.resume_time or status.start_time
    if status.ended or status.phase == "Suspended" or longest is None or since is None:
        return Step(status)
    due = since + seconds(longest)
    if case.now < due:
        return Step(status, due)
    message = f"The job was active for {longest} s (spec.policy.activeDeadlineSeconds) and had not ended."
    return Step(fail(case, status, DEADLINE_EXCEEDED, message))
