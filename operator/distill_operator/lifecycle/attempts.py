"""From the end of one attempt to the beginning of the next: nothing of the old one may be left."""

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.admission import begin_attempt, queue
from distill_operator.lifecycle.case import Case, Step, is_at_rest, is_left


def attempts(case: Case, status: DistillJobStatus) -> Step:
    """Begins the next attempt once the pods of the last one are gone, or suspends the job then."""
    attempt, stored = status.attempt, case.stored.attempt
    if status.ended or attempt is None or attempt.ending is None:
        return Step(status)
    if stored is None or stored.ending is None or not is_let_go(case):
        # Its end must be stored before anything goes, and its pods must go before anything begins.
        return Step(status)
    if case.spec.suspend:
        return Step(status.model_copy(update={"phase": "Suspended"}))
    if status.phase == "Suspended":
        if queue(case) is not None:
            return Step(status)
        return Step(begin_attempt(case, status.model_copy(update={"resume_time": case.now}), attempt.number + 1))
    retry = attempt.ending.retry_time
    if retry is not None and case.now < retry:
        return Step(status, retry)
    return Step(begin_attempt(case, status, attempt.number + 1))


def is_let_go(case: Case) -> bool:
    """Whether nothing of the attempt is left that could hold or write anything."""
    observed = case.observed
    return (
        not any(map(is_left, case.pods()))
        and is_at_rest(observed.teacher)
        and is_at_rest(observed.student)
        and observed.prepare is None
        and observed.evaluate is None
    )
