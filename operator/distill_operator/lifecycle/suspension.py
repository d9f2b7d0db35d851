"""A suspended job holds no pod; a resumed one goes on with another attempt."""

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, Step
from distill_operator.lifecycle.ends import end_attempt

SUSPENDED = "Suspended"


def suspension(case: Case, status: DistillJobStatus) -> Step:
    """Ends the attempt of a job that is to be held. `attempts` notices when its pods are gone, and resumes."""
    if status.ended or not case.spec.suspend:
        return Step(status)
    if status.attempt is None:
        return Step(status.model_copy(update={"phase": "Suspended"}))
    message = "The job was suspended by spec.suspend."
    return Step(end_attempt(case, status, SUSPENDED, message, count="suspended"))
