"""Exit code 65 from any pod ends the job: the user's data, spec or credentials are wrong, and a retry would end the
same."""

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, Step
from distill_operator.lifecycle.ends import fail
from distill_operator.lifecycle.outcomes import verdicts
from distill_runtime.contract.run import Role


def user_errors(case: Case, status: DistillJobStatus) -> Step:
    """Fails the job with the pod's own reason. Of a role whose end is stored nothing more is heard."""
    pods = [pod for pod in case.pods() if not _is_done(case.stored, pod.role)]
    error = next((one for one in verdicts(pods) if one.kind == "userError"), None)
    return Step(status if error is None else fail(case, status, error.reason, error.message))


def _is_done(stored: DistillJobStatus, role: Role) -> bool:
    match role:
        case "prepare":
            return stored.prepared is not None
        case "teacher":
            return stored.teacher.finished
        case "student":
            return stored.student.finished
        case "evaluate":
            return stored.evaluation is not None
