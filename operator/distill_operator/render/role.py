"""What the pods of one role in one attempt are rendered from."""

from dataclasses import dataclass

from distill_operator.api import DistillJob
from distill_operator.api.pods import Pods
from distill_runtime.contract.run import Role


@dataclass(frozen=True)
class RoleInAttempt:
    """One role of one attempt of a job."""

    job: DistillJob
    attempt: int
    role: Role
    pods: Pods
    """As `merge.role_pods` gives them: the job's own and the configured defaults."""

    @property
    def gpus(self) -> int:
        """GPUs of one pod. Scoring the student takes at most one."""
        spec = self.job.spec
        match self.role:
            case "prepare":
                return 0
            case "teacher":
                return spec.teacher.gpus
            case "student":
                return spec.student.gpus_per_worker
            case "evaluate":
                return min(1, spec.student.gpus_per_worker)
