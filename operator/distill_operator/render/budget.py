"""The teachers' PodDisruptionBudget. Students have none: with two of them on a drained node it would never empty."""

from distill_operator.api import DistillJob
from distill_operator.render.manifest import Manifest, child_manifest, selector


def teacher_budget(job: DistillJob, attempt: int) -> Manifest:
    """One replica may go at a time; one that isn't ready may always go, since it does no work."""
    return {
        **child_manifest("teacherBudget", job, attempt, role="teacher"),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(job, "teacher")},
        },
    }
