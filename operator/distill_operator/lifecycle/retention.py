"""How long an ended job is kept."""

from datetime import datetime

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, seconds


def retention(case: Case, status: DistillJobStatus) -> tuple[bool, datetime | None]:
    """Whether the job's time to live is over, and else when it will be. Unset, it is kept for ever."""
    kept = case.policy.ttl_seconds_after_finished
    if not status.ended or kept is None or status.completion_time is None:
        return False, None
    due = status.completion_time + seconds(kept)
    if due > case.now:
        return False, due
    # Its end is stored before the job goes.
    return (True, None) if case.stored.ended else (False, case.now + seconds(1))
