"""What is seen of a job's children: frozen data, made by `cluster.observe` from objects of the API server."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from distill_runtime.contract.outcome import Outcome, Progress
from distill_runtime.contract.run import Role


@dataclass(frozen=True)
class Pod:
    """One pod of the job, of whatever attempt."""

    name: str
    uid: str
    role: Role
    attempt: int
    created: datetime
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    ordinal: int | None = None
    """Number of a student worker."""
    ready: bool = False
    """Its Ready condition."""
    node: str = ""
    """Empty until it is scheduled."""
    unschedulable: str = ""
    """The scheduler's own words, while it finds no node."""
    waiting_reason: str = ""
    """Why its container waits: `ImagePullBackOff`, `CreateContainerConfigError`, `CrashLoopBackOff` …"""
    waiting_message: str = ""
    """The kubelet's own words for it."""
    deleting_since: datetime | None = None
    """Its deletion timestamp: when its grace is over."""
    disrupted: str = ""
    """Reason of its DisruptionTarget condition: `EvictionByEvictionAPI`, `PreemptionByScheduler`,
    `DeletionByTaintManager` …"""
    outcome: Outcome | None = None
    """Its container's last word, also from before a restart in place."""
    exit_code: int | None = None
    """Of the container that ended last; None while none has."""
    ended: datetime | None = None
    """When that container ended, by its node's clock."""
    out_of_memory: bool = False
    """The kernel killed the container that ended last."""
    restarts: int = 0
    """Restarts in place."""
    reason: str = ""
    """Of a failed pod without a container's word: `Evicted`, `NodeAffinity`, `UnexpectedAdmissionError` …"""
    message: str = ""
    """The kubelet's own words for it."""
    gone: bool = False
    """It was removed; what it said last is still heard once."""


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or batch Job of the job."""

    kind: Literal["Deployment", "StatefulSet", "Job"]
    name: str
    attempt: int
    """From its label: the attempt that it was last applied for."""
    replicas: int = 0
    """Wanted by its spec."""
    pods: int = 0
    """That its controller still counts (status.replicas, or a Job's active pods)."""
    settled: bool = False
    """Its controller has seen the newest spec."""
    complete: bool = False
    """A Job that succeeded."""
    failed: str = ""
    """Reason of a Job that failed: `PodFailurePolicy`, `BackoffLimitExceeded` …"""
    failed_message: str = ""
    """The Job controller's own words for it."""
    warning: str = ""
    """Why its controller can't create pods: quota exceeded, refused by admission."""
    deleting: bool = False


@dataclass(frozen=True)
class Foreign:
    """An object that has a child's name and isn't the job's."""

    kind: str
    name: str
    deleting: bool
    """It is going away: wait for it. Else nothing can be done but say so."""


@dataclass(frozen=True)
class Observed:
    """All that is known of a job's children in one pass."""

    teacher: Workload | None = None
    """The Deployment."""
    student: Workload | None = None
    """The StatefulSet."""
    prepare: Workload | None = None
    """The batch Job of the current attempt."""
    evaluate: Workload | None = None
    """The batch Job of the current attempt."""
    pods: tuple[Pod, ...] = ()
    """Pods of every attempt that the API server still has, and those whose removal was seen and not yet acted on."""
    progress: dict[str, Progress] = field(default_factory=dict[str, Progress])
    """Newest answers of `/progress`, by pod name."""
    stored_digest: str | None = None
    """Digest of the children that the current attempt's ConfigMap holds; None where there is no such ConfigMap."""
    foreign: tuple[Foreign, ...] = ()
    """Objects in the way."""
    earlier_pods: tuple[str, ...] = ()
    """Names of pods of an earlier job of this name."""
    running_jobs: int = 0
    """Other jobs of the namespace that have started and not ended."""
    refused: str = ""
    """Why the API server refused a child that was applied last: one sentence; empty when none was."""

    def of(self, role: Role, attempt: int | None = None) -> tuple[Pod, ...]:
        """The pods of one role, of one attempt if it is given."""
        return tuple(pod for pod in self.pods if pod.role == role and attempt in (None, pod.attempt))
