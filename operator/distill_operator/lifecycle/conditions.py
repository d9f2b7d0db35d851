"""`Ready`, `Reconciling` and `Stalled`, as kstatus reads them.

Their messages change with the phase or the reason, never with a step: progress has a place of its own.
"""

from typing import Literal

from distill_operator.api.status import Condition, DistillJobStatus
from distill_operator.lifecycle.case import Case, Step
from distill_operator.lifecycle.reasons import explain

DOES = {
    "Pending": "The job is about to begin.",
    "Preparing": "The data is tokenised, and what is missing is found.",
    "Distilling": "The teacher and the student are at work.",
    "Evaluating": "The student is scored.",
    "Succeeded": "The job has succeeded.",
    "Failed": "The job has failed.",
    "Suspended": "The job is suspended.",
}
"""What happens in each phase."""

OWN = ("Ready", "Reconciling", "Stalled")


def conditions(case: Case, status: DistillJobStatus) -> Step:
    """Sets the conditions and the generation that they are about; conditions of others stay."""
    stalled = status.phase == "Failed" or (not status.ended and explain(case, status).stalls)
    works = not status.ended and not stalled and status.phase != "Suspended"
    facts = {"Ready": status.phase == "Succeeded", "Reconciling": works, "Stalled": stalled}
    others = [condition for condition in status.conditions if condition.type not in OWN]
    own = [_condition(case, status, kind, "True" if facts[kind] else "False") for kind in OWN]
    changes = {"conditions": [*own, *others], "observed_generation": case.job.metadata.generation}
    return Step(status.model_copy(update=changes))


def _condition(case: Case, status: DistillJobStatus, kind: str, value: Literal["True", "False"]) -> Condition:
    before = next((condition for condition in status.conditions if condition.type == kind), None)
    same = before is not None and before.status == value
    return Condition(
        type=kind,
        status=value,
        reason=status.reason or status.phase,
        message=status.message or DOES[status.phase],
        last_transition_time=before.last_transition_time if before is not None and same else case.now,
        observed_generation=case.job.metadata.generation,
    )
