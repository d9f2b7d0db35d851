"""An edit of what pods are made from ends the attempt; the next one is made from the new spec.

Policy, suspension and the number of teacher replicas are no such edit. A generation is judged once, when it is first
seen: a newer operator, whose digest of the same spec may differ, restarts nothing.
"""

import hashlib
import json

from distill_operator.api import JobSpec
from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, Step, with_attempt, working
from distill_operator.lifecycle.ends import end_attempt

EDITED = "Edited"
RENDERED_ANEW = "RenderedAnew"


def edits(case: Case, status: DistillJobStatus) -> Step:
    """Ends an attempt whose spec was edited."""
    attempt = working(status)
    generation = case.job.metadata.generation
    if attempt is None or not case.same_attempt(status) or generation == attempt.generation:
        return Step(status)
    if attempt.spec_digest in (None, spec_digest(case.spec)):
        return Step(with_attempt(status, generation=generation))
    workers = case.spec.student.workers
    what = (
        f"spec.student.workers was changed from {attempt.workers} to {workers}"
        if workers != attempt.workers
        else "the spec of the pods was changed"
    )
    message = f"Attempt {attempt.number} ends since {what}; the next one has the new spec."
    return Step(end_attempt(case, status, EDITED, message, count="suspended"))


def spec_digest(spec: JobSpec) -> str:
    """Digest of what pods are made from. Defaults are left out, so that a new field with a default changes nothing."""
    fields = spec.model_dump(mode="json", exclude_defaults=True, exclude={"policy", "suspend", "managed_by"})
    fields.get("teacher", {}).pop("replicas", None)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def rendered(case: Case, status: DistillJobStatus) -> Step:
    """Pins what the attempt was rendered to. A ConfigMap with something else was made anew: the attempt ends."""
    attempt = working(status)
    digest = case.observed.stored_digest
    if attempt is None or not case.same_attempt(status) or digest in (None, attempt.digest):
        return Step(status)
    if attempt.digest is None:
        return Step(with_attempt(status, digest=digest))
    message = (
        f"The ConfigMap of attempt {attempt.number} was removed, and what was rendered anew differs; the next attempt "
        "begins."
    )
    return Step(end_attempt(case, status, RENDERED_ANEW, message, count="suspended"))
