"""A cluster in memory, for stories about `decide`: an API server that stores, controllers that make pods, a kubelet
that runs them. Nothing happens by itself: a test takes each step, in whatever order it likes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from distill_operator.api.job import DistillJob
from distill_operator.api.load import job_of
from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.decide import decide
from distill_operator.lifecycle.decision import Children, Decision, Event
from distill_operator.lifecycle.observed import Foreign, Observed, Pod, Workload
from distill_runtime.contract.outcome import ExitCode, Progress
from distill_runtime.contract.run import Role
from tests.unit.api.manifest import SMALLEST

START = datetime.fromisoformat("2026-01-01T00:00:00Z")
GRACE_SECONDS = 30
MOST_PASSES = 60

Kubelet = Callable[[Pod], Pod]
"""What a kubelet makes of a pod that was just made."""


def runs(pod: Pod) -> Pod:
    """It gets a node, runs and is ready."""
    return replace(pod, node="node-1", phase="Running", ready=True)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, section by section."""
    result = dict(base)
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


@dataclass
class Controlled:
    """A workload and what its controller does."""

    workload: Workload
    seen: int = 0
    """Replicas of the spec that its controller has seen."""
    failures: int = 0
    """Of a Job's pods."""


@dataclass(frozen=True)
class Snapshot:
    """What the API server held at a moment."""

    workloads: dict[str, Workload]
    pods: tuple[Pod, ...]
    digests: dict[int, str]


@dataclass
class PlayedCluster:
    """One job, its children, and an operator that looks after it."""

    spec: dict[str, Any] = field(default_factory=dict[str, Any])
    configuration: OperatorConfiguration = field(default_factory=OperatorConfiguration)
    kubelets: dict[Role, Kubelet] = field(default_factory=dict[Role, Kubelet])
    """By role; `runs` where none is given."""
    now: datetime = START

    def __post_init__(self) -> None:
        manifest = merged(SMALLEST, {"metadata": {"uid": "uid", "generation": 1}, "spec": self.spec})
        self.job: DistillJob = job_of(manifest, "job")
        self.controlled: dict[str, Controlled] = {}
        self.digests: dict[int, str] = {}
        self.pods: dict[str, Pod] = {}
        self.unheard: list[Pod] = []
        self.progress: dict[str, Progress] = {}
        self.foreign: tuple[Foreign, ...] = ()
        self.refused = ""
        self.running_jobs = 0
        self.earlier_pods: tuple[str, ...] = ()
        self.warnings: dict[str, str] = {}
        self.events: list[Event] = []
        self.deleted = False
        self.due: datetime | None = None
        """When the operator wants to look again."""
        self.dirty = True
        """There is news that the operator hasn't seen."""
        self._made = 0

    # What the user does.

    def edit(self, **changes: Any) -> None:
        """Changes the spec."""
        document = self.job.model_dump(mode="json", by_alias=True, exclude_none=True)
        document["spec"] = merged(document["spec"], changes)
        document["metadata"]["generation"] += 1
        self.job = job_of(document, "job")
        self.dirty = True

    # What the operator does.

    def snapshot(self) -> Snapshot:
        """What there is now."""
        workloads = {name: one.workload for name, one in self.controlled.items()}
        return Snapshot(workloads, tuple(self.pods.values()), dict(self.digests))

    def observe(self, seen: Snapshot | None = None) -> Observed:
        """What the operator sees: all, or what there was once."""
        seen = seen or self.snapshot()
        attempt = self.status.attempt.number if self.status and self.status.attempt else 0
        return Observed(
            teacher=seen.workloads.get("teacher"),
            student=seen.workloads.get("student"),
            prepare=seen.workloads.get(f"prepare-{attempt}"),
            evaluate=seen.workloads.get(f"evaluate-{attempt}"),
            pods=(*seen.pods, *self.unheard),
            progress=dict(self.progress),
            stored_digest=seen.digests.get(attempt),
            foreign=self.foreign,
            running_jobs=self.running_jobs,
            earlier_pods=self.earlier_pods,
            refused=self.refused,
        )

    def reconcile(self, seen: Snapshot | None = None) -> Decision:
        """One pass: observe, decide, store, tell, act."""
        heard = list(self.unheard)
        decision = decide(self.job, self.observe(seen), self.now, self.configuration)
        self.decision = decision
        # What was seen was old: the news is still on its way.
        self.dirty = decision.children_changed or seen is not None
        self.due = None
        if decision.again_after is not None:
            self.due = self.now + timedelta(seconds=decision.again_after)
        self.job = self.job.model_copy(update={"status": decision.status})
        self.events += decision.events
        self.unheard = [pod for pod in self.unheard if pod not in heard]
        for uid in decision.remove_now:
            if uid in self.pods:
                self._vanish(uid)
        for uid in decision.replace:
            self.delete(uid)
        self._apply(decision.children)
        self.deleted = self.deleted or decision.delete_job
        return decision

    def _apply(self, wanted: Children) -> None:
        if wanted.attempt is not None:
            self.digests.setdefault(wanted.attempt, f"digest-{wanted.attempt}")
        replicas = {
            f"prepare-{wanted.attempt}": int(wanted.prepare) or None,
            f"evaluate-{wanted.attempt}": int(wanted.evaluate) or None,
            "teacher": wanted.teachers,
            "student": wanted.students,
        }
        for name in [name for name in self.controlled if replicas.get(name) is None]:
            del self.controlled[name]
            for uid in [uid for uid, pod in self.pods.items() if self._maker(pod) == name]:
                self.delete(uid)
            self.dirty = True
        for name, count in replicas.items():
            if count is not None and wanted.attempt is not None:
                self._apply_one(name, count, wanted.attempt)

    def _apply_one(self, name: str, count: int, attempt: int) -> None:
        kind = "Deployment" if name == "teacher" else "StatefulSet" if name == "student" else "Job"
        controlled = self.controlled.setdefault(name, Controlled(Workload(kind, f"job-{name}", attempt)))
        if kind == "Job" and controlled.seen:
            return
        wanted = replace(controlled.workload, replicas=count, attempt=attempt)
        if wanted != controlled.workload or not controlled.seen:
            controlled.workload = replace(wanted, settled=False)
            self.dirty = True

    @staticmethod
    def _maker(pod: Pod) -> str:
        return pod.role if pod.role in ("teacher", "student") else f"{pod.role}-{pod.attempt}"

    # What controllers do.

    def control(self) -> None:
        """Each controller has looked once."""
        for name, controlled in list(self.controlled.items()):
            before = (controlled.workload, dict(self.pods))
            match controlled.workload.kind:
                case "Job":
                    self._control_batch_job(name, controlled)
                case "Deployment":
                    self._control_deployment(controlled)
                case "StatefulSet":
                    self._control_stateful_set(controlled)
            if before != (controlled.workload, self.pods):
                self.dirty = True

    def _of(self, name: str) -> list[Pod]:
        return [pod for pod in self.pods.values() if self._maker(pod) == name]

    def _control_batch_job(self, name: str, controlled: Controlled) -> None:
        controlled.seen = 1
        workload = controlled.workload
        role: Role = "prepare" if name.startswith("prepare") else "evaluate"
        pods = self._of(name)
        failed = [pod for pod in pods if pod.phase == "Failed" and not pod.disrupted]
        complete = workload.complete or any(pod.phase == "Succeeded" for pod in pods)
        reason = workload.failed
        if any(pod.exit_code == 65 for pod in failed):
            reason = "PodFailurePolicy"
        elif len(failed) > self.job.spec.policy.backoff_limit:
            reason = "BackoffLimitExceeded"
        active = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
        if not (complete or reason or active or self.warnings.get(name)):
            active = [self._make(role, workload.attempt, f"job-{name}-{self._made}")]
        controlled.workload = replace(
            workload,
            replicas=0 if complete or reason else 1,
            pods=len(active),
            settled=True,
            complete=complete,
            failed=reason,
            failed_message=reason and "the Job has failed",
            warning=self.warnings.get(name, ""),
        )

    def _control_deployment(self, controlled: Controlled) -> None:
        workload = controlled.workload
        active = [pod for pod in self._of("teacher") if _is_active(pod)]
        for pod in active[workload.replicas :]:
            self.delete(pod.uid)
        if not self.warnings.get("teacher"):
            for _ in range(workload.replicas - len(active)):
                self._make("teacher", workload.attempt, f"job-teacher-{self._made}")
        self._seen(controlled, "teacher", sum(map(_is_active, self._of("teacher"))))

    def _control_stateful_set(self, controlled: Controlled) -> None:
        workload = controlled.workload
        pods = {pod.ordinal: pod for pod in self._of("student")}
        for ordinal, pod in pods.items():
            if (ordinal or 0) >= workload.replicas or pod.phase in ("Succeeded", "Failed"):
                self.delete(pod.uid)
        if not self.warnings.get("student"):
            for ordinal in range(workload.replicas):
                if ordinal not in pods:
                    self._make("student", workload.attempt, f"job-student-{ordinal}", ordinal)
        self._seen(controlled, "student", len(self._of("student")))

    def _seen(self, controlled: Controlled, name: str, pods: int) -> None:
        controlled.seen = 1
        controlled.workload = replace(controlled.workload, pods=pods, settled=True, warning=self.warnings.get(name, ""))

    def _make(self, role: Role, attempt: int, name: str, ordinal: int | None = None) -> Pod:
        self._made += 1
        pod = Pod(name, f"uid-{self._made}", role, attempt, self.now, ordinal=ordinal)
        self.pods[pod.uid] = self.kubelets.get(role, runs)(pod)
        return pod

    # What happens to pods.

    def change(self, uid: str, **changes: Any) -> None:
        """A pod's status becomes another."""
        self.pods[uid] = replace(self.pods[uid], **changes)
        self.dirty = True

    def delete(self, uid: str) -> None:
        """A pod is to be deleted, with its grace."""
        pod = self.pods[uid]
        if pod.deleting_since is None:
            self.change(uid, deleting_since=self.now + timedelta(seconds=GRACE_SECONDS))

    def _vanish(self, uid: str) -> None:
        pod = self.pods.pop(uid)
        self.progress.pop(pod.name, None)
        self.unheard.append(replace(pod, gone=True))
        self.dirty = True

    def remove_deleted(self) -> None:
        """The kubelets have ended all pods that were to be deleted; lost nodes have none."""
        for uid, pod in list(self.pods.items()):
            if pod.deleting_since is not None and pod.node != "lost":
                self._vanish(uid)

    def pod(self, name: str) -> Pod:
        """The pod with this end of its name; of several the newest one that stays."""
        found = [pod for pod in self.pods.values() if pod.name.removeprefix("job-").startswith(name)]
        assert found, f"there is no {name} among {[pod.name for pod in self.pods.values()]}"
        return max(found, key=lambda pod: (_is_active(pod), int(pod.uid.removeprefix("uid-"))))

    def end(self, name: str, **word: Any) -> None:
        """A pod's container ends with a word: see `words`. Pods of batch Jobs end with it, others start again."""
        pod = self.pod(name)
        if pod.role in ("prepare", "evaluate"):
            phase = "Succeeded" if word.get("exit_code") == ExitCode.FINISHED else "Failed"
            self.change(pod.uid, **word, phase=phase, ready=False)
        else:
            self.change(pod.uid, **word, restarts=pod.restarts + 1)

    # Time.

    def settle(self) -> "PlayedCluster":
        """Lets everybody do what is left to do at this moment. The operator looks only when it has a reason to."""
        for _ in range(MOST_PASSES):
            self.control()
            self.remove_deleted()
            if not self.dirty and (self.due is None or self.due > self.now):
                return self
            self.reconcile()
        raise AssertionError(f"it doesn't come to rest: {self.status}")

    def wait(self, seconds: float) -> "PlayedCluster":
        """Lets time go by; the operator looks when it wanted to."""
        until = self.now + timedelta(seconds=seconds)
        self.settle()
        while self.due is not None and self.due <= until:
            self.now = max(self.now, self.due)
            self.settle()
        self.now = until
        return self.settle()

    # What is there.

    @property
    def status(self) -> Any:
        """The stored status. Rows read deep into it; a part that isn't there fails the row."""
        return self.job.status

    def ending(self) -> Any:
        """How the current attempt ended; None while it goes on."""
        return self.status.attempt.ending

    def reasons(self) -> list[str]:
        """Reasons of all events."""
        return [event.reason for event in self.events]

    def names(self, role: Role | None = None) -> list[str]:
        """Names of the pods that stay, without the job's."""
        return sorted(
            pod.name.removeprefix("job-")
            for pod in self.pods.values()
            if role in (None, pod.role) and pod.deleting_since is None
        )

    def replicas(self, role: Role) -> int | None:
        """What the role's workload wants."""
        controlled = self.controlled.get(role)
        return None if controlled is None else controlled.workload.replicas


def _is_active(pod: Pod) -> bool:
    return pod.deleting_since is None and pod.phase not in ("Succeeded", "Failed")
