"""Names of a job's children. They follow from the job's name and the attempt's number alone."""

from typing import Literal, NamedTuple

Child = Literal[
    "configMap",
    "networkPolicy",
    "studentService",
    "teacherService",
    "teacherBudget",
    "prepare",
    "teacher",
    "student",
    "evaluate",
]
"""What tells the children of one attempt apart."""


class ChildName(NamedTuple):
    """Where a child is found in the job's namespace."""

    api_version: str
    """Group and version, as in its manifest."""
    kind: str
    """Its kind."""
    name: str
    """Its name."""


def name_of(child: Child, job_name: str, attempt: int) -> ChildName:
    """The name of one child."""
    match child:
        case "configMap":
            return ChildName("v1", "ConfigMap", f"{job_name}-{attempt}")
        case "networkPolicy":
            return ChildName("networking.k8s.io/v1", "NetworkPolicy", f"{job_name}-pods")
        case "studentService":
            return ChildName("v1", "Service", f"{job_name}-student")
        case "teacherService":
            return ChildName("v1", "Service", f"{job_name}-teacher")
        case "teacherBudget":
            return ChildName("policy/v1", "PodDisruptionBudget", f"{job_name}-teacher")
        case "prepare":
            return ChildName("batch/v1", "Job", f"{job_name}-prepare-{attempt}")
        case "teacher":
            return ChildName("apps/v1", "Deployment", f"{job_name}-teacher")
        case "student":
            return ChildName("apps/v1", "StatefulSet", f"{job_name}-student")
        case "evaluate":
            return ChildName("batch/v1", "Job", f"{job_name}-evaluate-{attempt}")


CHILDREN: tuple[Child, ...] = (
    "configMap",
    "networkPolicy",
    "studentService",
    "teacherService",
    "teacherBudget",
    "prepare",
    "teacher",
    "student",
    "evaluate",
)
"""All of them, in the order in which they are made: what pods need comes before the pods."""


def child_names(job_name: str, attempt: int) -> tuple[ChildName, ...]:
    """All objects that a job can own in this attempt, whether it has them now or not."""
    return tuple(name_of(child, job_name, attempt) for child in CHILDREN)
