"""A DistillJob that the API server holds and this operator can't read: said in its conditions, nothing else is done.

It happens when the installed definition of the resource is of another version, or a rule is not known to the API
server.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from distill_operator.api import InvalidJob
from distill_operator.cluster.objects import Object, metadata_of

REASON = "InvalidSpec"
LONGEST_MESSAGE = 4096


def with_complaint(document: Object, error: InvalidJob, now: datetime) -> Object:
    """The document with what is wrong in its status; the same if it is there already.

    Children and phase stay as they are: what runs may well run to its end.
    """
    message = f"The operator can't read this job: {'; '.join(error.errors)}"[:LONGEST_MESSAGE]
    status: Mapping[str, Any] = document.get("status") or {}
    generation = metadata_of(document).get("generation", 0)
    old = {condition["type"]: condition for condition in _conditions(status)}
    new = {
        **old,
        "Stalled": _condition("Stalled", "True", message, generation, now, old),
        "Reconciling": _condition("Reconciling", "False", message, generation, now, old),
        "Ready": _condition("Ready", "False", message, generation, now, old),
    }
    complaint = {
        "phase": "Pending",
        **status,
        "reason": REASON,
        "message": message,
        "observedGeneration": generation,
        "conditions": list(new.values()),
    }
    return document if complaint == status else {**document, "status": complaint}


def _condition(
    kind: str, value: str, message: str, generation: int, now: datetime, old: Mapping[str, Mapping[str, Any]]
) -> Object:
    before = old.get(kind, {})
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    return {
        "type": kind,
        "status": value,
        "reason": REASON,
        "message": message,
        "lastTransitionTime": since or now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": generation,
    }


def _conditions(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return status.get("conditions") or []
