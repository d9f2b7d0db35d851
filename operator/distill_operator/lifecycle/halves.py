"""How many pods of each half are wanted and ready."""

from distill_operator.api.status import DistillJobStatus, HalfStatus
from distill_operator.lifecycle.case import Case, Step
from distill_operator.lifecycle.wanted import wanted
from distill_runtime.contract.run import Role


def halves(case: Case, status: DistillJobStatus) -> Step:
    """Counts the pods of both halves."""
    children = wanted(status, case.spec)
    changes = {
        "teacher": _counted(case, status, status.teacher, "teacher", children.teachers or 0),
        "student": _counted(case, status, status.student, "student", children.students or 0),
    }
    return Step(status.model_copy(update=changes))


def _counted(case: Case, status: DistillJobStatus, half: HalfStatus, role: Role, desired: int) -> HalfStatus:
    ready = sum(pod.ready for pod in case.living(role)) if case.same_attempt(status) else 0
    return half.model_copy(update={"desired": desired, "ready": ready, "text": f"{ready}/{desired}"})
