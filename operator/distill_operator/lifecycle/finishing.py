"""The word of a pod that finished: its facts make the next status."""

from collections.abc import Callable, Iterable

from pydantic import ValidationError

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case
from distill_operator.lifecycle.ends import fail
from distill_operator.lifecycle.observed import Pod
from distill_operator.lifecycle.outcomes import verdicts
from distill_runtime.contract.outcome import Outcome

ANOTHER_VERSION = "AnotherVersion"


def finished_pod(pods: Iterable[Pod]) -> Pod | None:
    """A pod whose container said that its role's work is done."""
    return next((one.pod for one in verdicts(pods) if one.kind == "finished"), None)


def take_facts(
    case: Case, status: DistillJobStatus, pod: Pod, take: Callable[[Case, DistillJobStatus, Outcome], DistillJobStatus]
) -> DistillJobStatus:
    """What a finished pod's facts make of the status; the job fails where they can't be read."""
    assert pod.outcome is not None, "a finished pod has said so"
    try:
        return take(case, status, pod.outcome)
    except ValidationError as error:
        fields = sorted({str(details["loc"][0]) for details in error.errors() if details["loc"]})
        message = (
            f"{pod.name} finished, but its facts can't be read ({', '.join(fields)}): the image of {pod.role} is of "
            "another version than the operator."
        )
        return fail(case, status, ANOTHER_VERSION, message)
