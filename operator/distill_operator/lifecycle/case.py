"""What a rule reads, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from distill_operator.api import DistillJob, JobSpec
from distill_operator.api.policy import Policy
from distill_operator.api.status import Attempt, DistillJobStatus
from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.decision import Children
from distill_operator.lifecycle.observed import Observed, Pod, Workload
from distill_operator.lifecycle.wanted import wanted
from distill_runtime.contract.run import Role


@dataclass(frozen=True)
class Case:
    """One job in one pass."""

    job: DistillJob
    observed: Observed
    now: datetime
    """In whole seconds, as all times of a status."""
    configuration: OperatorConfiguration
    stored: DistillJobStatus
    """The status that the API server has."""
    wanted: Children
    """What should exist by the stored status."""

    @classmethod
    def of(cls, job: DistillJob, observed: Observed, now: datetime, configuration: OperatorConfiguration) -> "Case":
        """The case of a job as it was read."""
        stored = job.status or DistillJobStatus()
        return cls(job, observed, now.replace(microsecond=0), configuration, stored, wanted(stored, job.spec))

    @property
    def spec(self) -> JobSpec:
        """What the user wants."""
        return self.job.spec

    @property
    def policy(self) -> Policy:
        """How failures and ends are treated."""
        return self.job.spec.policy

    def pods(self, role: Role | None = None) -> tuple[Pod, ...]:
        """Pods of the stored attempt, also those that were removed and not heard yet; older ones are history."""
        attempt = self.stored.attempt
        if attempt is None:
            return ()
        return tuple(pod for pod in self.observed.pods if pod.attempt == attempt.number and role in (None, pod.role))

    def living(self, role: Role) -> tuple[Pod, ...]:
        """Pods of the stored attempt that are meant to stay."""
        return tuple(pod for pod in self.pods(role) if not pod.gone and pod.deleting_since is None and not is_over(pod))

    def same_attempt(self, status: DistillJobStatus) -> bool:
        """Whether this pass has begun no other attempt: pods that were seen are of the stored one."""
        return (
            status.attempt is not None
            and self.stored.attempt is not None
            and status.attempt.number == self.stored.attempt.number
        )


@dataclass(frozen=True)
class Step:
    """What one rule makes of the status."""

    status: DistillJobStatus
    again: datetime | None = None
    """When the rule must be asked again although nothing happens."""


Rule = Callable[[Case, DistillJobStatus], Step]
"""One rule of `decide`. It never waits, and given its own result it changes nothing."""


def with_attempt(status: DistillJobStatus, **changes: object) -> DistillJobStatus:
    """The status with changes to the current attempt."""
    assert status.attempt is not None, "there is an attempt to change"
    return status.model_copy(update={"attempt": status.attempt.model_copy(update=changes)})


def working(status: DistillJobStatus) -> Attempt | None:
    """The current attempt, unless it or the job has ended."""
    attempt = status.attempt
    return None if attempt is None or attempt.ending is not None or status.ended else attempt


def is_over(pod: Pod) -> bool:
    """Whether a pod has ended for good: it holds nothing any more, and may stay listed for long."""
    return pod.phase in ("Succeeded", "Failed")


def is_left(pod: Pod) -> bool:
    """Whether something of a pod must still go. One that has ended and that nobody deletes, as an evicted teacher, may
    stay listed for ever."""
    return not pod.gone and (pod.deleting_since is not None or not is_over(pod))


def is_at_rest(workload: Workload | None) -> bool:
    """Whether a workload is gone, or scaled to zero with all that follows from it."""
    return workload is None or (workload.replicas == 0 and workload.pods == 0 and workload.settled)


def seconds(count: float) -> timedelta:
    """A time span."""
    return timedelta(seconds=count)
