"""Why wanted pods are not running, in the words of whoever knows best: the scheduler, the kubelet, the API server."""

from collections.abc import Iterator
from dataclasses import dataclass

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, is_over
from distill_operator.lifecycle.decision import Children
from distill_operator.lifecycle.observed import Pod, Workload
from distill_operator.lifecycle.outcomes import told
from distill_operator.lifecycle.wanted import wanted
from distill_runtime.contract.run import Role

NAME_TAKEN = "NameTaken"
REFUSED = "Refused"
UNSCHEDULABLE = "Unschedulable"
QUOTA_EXCEEDED = "QuotaExceeded"
FAILED_CREATE = "FailedCreate"
STARTING = "Starting"

SOFT_WAITS = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Waiting reasons of containers that are on their way."""


@dataclass(frozen=True)
class Cause:
    """Why something that is wanted isn't there."""

    reason: str
    message: str
    hard: bool = False
    """Room doesn't help: somebody must change something."""
    stalls: bool = False
    """Nothing can be done here but say so."""


@dataclass(frozen=True)
class Group:
    """The pods of one role that are wanted now."""

    role: Role
    wanted: int
    needed: int
    """How many of them must run, so that the group counts as running."""
    pods: tuple[Pod, ...]
    """Those that are there and stay."""
    workload: Workload | None
    ended_before: bool
    """A batch Job's pod has ended: what comes next is the Job's back-off."""

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.ended_before or sum(map(is_running, self.pods)) >= self.needed

    @property
    def scheduled(self) -> int:
        """How many of its pods have a node, and with it what they asked for."""
        return sum(bool(pod.node) for pod in self.pods)


def is_running(pod: Pod) -> bool:
    """Whether its container runs. One that only repeats its last word does."""
    return pod.phase == "Running" and pod.waiting_reason in SOFT_WAITS


def groups(case: Case) -> tuple[Group, ...]:
    """The groups of pods that are wanted by the stored status."""
    observed, attempt = case.observed, case.stored.attempt
    # Once all have run, lost teachers are replaced while the others go on.
    teachers = min(1, case.wanted.teachers or 0) if attempt and attempt.running_time else case.wanted.teachers or 0
    needed: dict[Role, int] = {**pods_by_role(case.wanted), "teacher": teachers}
    workloads: dict[Role, Workload | None] = {
        "prepare": observed.prepare,
        "teacher": observed.teacher,
        "student": observed.student,
        "evaluate": observed.evaluate,
    }
    return tuple(
        Group(role, count, needed[role], case.living(role), workloads[role], _has_ended(case, role))
        for role, count in pods_by_role(case.wanted).items()
        if count
    )


def pods_by_role(children: Children) -> dict[Role, int]:
    """How many pods of each role are wanted."""
    return {
        "prepare": int(children.prepare),
        "teacher": children.teachers or 0,
        "student": children.students or 0,
        "evaluate": int(children.evaluate),
    }


def obstacle(case: Case) -> Cause | None:
    """What keeps children from being made at all."""
    for foreign in case.observed.foreign:
        whose = f"{foreign.kind} {foreign.name} is in the way: it isn't this job's"
        if not foreign.deleting:
            message = f"{whose}, and a child must have that name; remove or rename it, or give the job another name."
            return Cause(NAME_TAKEN, message, hard=True, stalls=True)
        return Cause(NAME_TAKEN, f"{whose}, and it is being deleted.", hard=True)
    if case.observed.refused:
        return Cause(REFUSED, case.observed.refused, hard=True, stalls=True)
    return None


def causes(case: Case) -> Iterator[Cause]:
    """Why groups that are wanted don't run; what room can't help comes first."""
    found = obstacle(case)
    if found is not None:
        yield found
    waiting = [group for group in groups(case) if not group.running]
    pods = [pod for group in waiting for pod in sorted(group.pods, key=lambda pod: pod.name)]
    for pod in pods:
        if pod.waiting_reason not in SOFT_WAITS:
            yield Cause(pod.waiting_reason, told(pod, pod.waiting_message or pod.waiting_reason), hard=True)
    for pod in pods:
        if pod.unschedulable and not pod.node:
            yield Cause(UNSCHEDULABLE, told(pod, pod.unschedulable))
    for group in waiting:
        if group.workload is not None and group.workload.warning:
            warning = group.workload.warning
            reason = QUOTA_EXCEEDED if "exceeded quota" in warning else FAILED_CREATE
            yield Cause(reason, f"{group.workload.kind} {group.workload.name} can't make its pods: {warning}")


def main_cause(case: Case, status: DistillJobStatus) -> Cause:
    """The first cause; where there is none yet, what is waited for."""
    roles = [role for role, count in pods_by_role(wanted(status, case.spec)).items() if count]
    starting = Cause(STARTING, f"Waiting until the pods of {' and '.join(roles) or 'the job'} run.")
    if not case.same_attempt(status) or status.phase != case.stored.phase:
        # What is seen are pods of an earlier time.
        return starting
    return next(causes(case), starting)


def _has_ended(case: Case, role: Role) -> bool:
    return role in ("prepare", "evaluate") and any(pod.gone or is_over(pod) for pod in case.pods(role))
