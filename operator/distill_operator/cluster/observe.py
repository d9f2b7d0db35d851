"""What objects of the API server say about a job, as `lifecycle` reads it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast, get_args

from pydantic import ValidationError

from distill_operator.api import DistillJob
from distill_operator.cluster.objects import (
    Object,
    annotations_of,
    controller_of,
    is_deleting,
    labels_of,
    metadata_of,
    name_of,
    part_of,
    uid_of,
)
from distill_operator.cluster.resources import BATCH_JOBS, DEPLOYMENTS, STATEFUL_SETS, Resource
from distill_operator.constants import ATTEMPT_LABEL, DIGEST_ANNOTATION, JOB_UID_LABEL, ROLE_LABEL
from distill_operator.lifecycle.observed import Foreign, Observed, Pod, Workload
from distill_operator.render.names import CHILDREN, ChildName
from distill_operator.render.names import name_of as child_name
from distill_runtime.contract.outcome import Outcome, Progress
from distill_runtime.contract.run import Role

Child = tuple[Resource, Object]

POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
"""Number of a StatefulSet's pod."""
OUT_OF_MEMORY = "OOMKilled"


@dataclass(frozen=True)
class Sight:
    """All that was seen of a job in one pass."""

    children: Sequence[Child] = ()
    """Objects that say that they belong to the job, but for pods."""
    pods: Sequence[Object] = ()
    gone: Sequence[Object] = ()
    """Last states of pods that were removed."""
    progress: Mapping[str, Progress] = field(default_factory=dict[str, Progress])
    """By pod name."""
    warnings: Mapping[str, str] = field(default_factory=dict[str, str])
    """By uid of a workload: why its controller can't make pods."""
    in_the_way: Sequence[Foreign] = ()
    """Objects with a child's name that were met when it was to be applied."""
    refused: str = ""
    running_jobs: int = 0


def observe(job: DistillJob, sight: Sight) -> Observed:
    """The part of what was seen that is this job's, in the words of `lifecycle`."""
    uid = job.metadata.uid or ""
    attempt = job.status.attempt.number if job.status and job.status.attempt else 0
    own = [(resource, item) for resource, item in sight.children if controller_of(item).get("uid") == uid]
    found = {ChildName(resource.api_version, resource.kind, name_of(item)): item for resource, item in own}

    def workload(kind: Literal["teacher", "student", "prepare", "evaluate"]) -> Workload | None:
        name = child_name(kind, job.metadata.name, attempt)
        return _workload(name.kind, found[name], sight.warnings) if name in found else None

    config_map = found.get(child_name("configMap", job.metadata.name, attempt))
    pods = [
        *(pod_of(item) for item in sight.pods if _is_pod_of(job, item)),
        *(pod_of(item, gone=True) for item in sight.gone if _is_pod_of(job, item)),
    ]
    return Observed(
        teacher=workload("teacher"),
        student=workload("student"),
        prepare=workload("prepare"),
        evaluate=workload("evaluate"),
        pods=tuple(pods),
        progress=dict(sight.progress),
        stored_digest=annotations_of(config_map).get(DIGEST_ANNOTATION) if config_map else None,
        foreign=_foreign(job, attempt, sight),
        earlier_pods=tuple(sorted(name_of(item) for item in sight.pods if _is_pod_of_another(job, item))),
        running_jobs=sight.running_jobs,
        refused=sight.refused,
    )


def pod_of(item: Object, *, gone: bool = False) -> Pod:
    """One pod."""
    metadata, status = metadata_of(item), part_of(item, "status")
    labels = labels_of(item)
    role = cast("Role", labels[ROLE_LABEL])
    conditions = _conditions(status)
    container = _container(status, role)
    waiting = _waiting(status, container)
    ends = _ends(container)
    return Pod(
        name=name_of(item),
        uid=uid_of(item),
        role=role,
        attempt=_number(labels.get(ATTEMPT_LABEL)) or 0,
        created=_time(metadata["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        ordinal=_number(labels.get(POD_INDEX_LABEL)) if role == "student" else None,
        ready=conditions.get("Ready", {}).get("status") == "True",
        node=part_of(item, "spec").get("nodeName", ""),
        unschedulable=_unschedulable(conditions.get("PodScheduled", {})),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        deleting_since=_time(metadata["deletionTimestamp"]) if is_deleting(item) else None,
        disrupted=_true_reason(conditions.get("DisruptionTarget", {})),
        outcome=next((outcome for outcome in map(_outcome, ends) if outcome), None),
        exit_code=ends[0].get("exitCode") if ends else None,
        ended=_time(ends[0]["finishedAt"]) if ends and ends[0].get("finishedAt") else None,
        out_of_memory=any(end.get("reason") == OUT_OF_MEMORY for end in ends),
        restarts=container.get("restartCount", 0),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        gone=gone,
    )


def pods_wanted(resource: Resource, item: Object) -> int:
    """How many pods a workload is to have."""
    spec = part_of(item, "spec")
    if resource == BATCH_JOBS:
        return 0 if _finished(item) else spec.get("parallelism", 1)
    return spec.get("replicas", 1)


def pods_there(resource: Resource, item: Object) -> int:
    """How many pods a workload's controller counts."""
    status = part_of(item, "status")
    return status.get("active" if resource == BATCH_JOBS else "replicas", 0)


def _workload(kind: str, item: Object, warnings: Mapping[str, str]) -> Workload:
    resource = {"Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS, "Job": BATCH_JOBS}[kind]
    status = part_of(item, "status")
    conditions = _conditions(status)
    failed = conditions.get("Failed", {})
    return Workload(
        kind=cast("Literal['Deployment', 'StatefulSet', 'Job']", kind),
        name=name_of(item),
        attempt=_number(labels_of(item).get(ATTEMPT_LABEL)) or 0,
        replicas=pods_wanted(resource, item),
        pods=pods_there(resource, item),
        settled=_settled(resource, item),
        complete=conditions.get("Complete", {}).get("status") == "True",
        failed=_true_reason(failed),
        failed_message=failed.get("message", "") if _true_reason(failed) else "",
        warning=_replica_failure(conditions) or warnings.get(uid_of(item), ""),
        deleting=is_deleting(item),
    )


def _settled(resource: Resource, item: Object) -> bool:
    """Whether its controller has seen the newest spec. A batch Job's says so by writing its start time."""
    status = part_of(item, "status")
    if resource == BATCH_JOBS:
        return "startTime" in status
    return status.get("observedGeneration", 0) >= metadata_of(item).get("generation", 1)


def _finished(batch_job: Object) -> bool:
    conditions = _conditions(part_of(batch_job, "status"))
    return any(conditions.get(kind, {}).get("status") == "True" for kind in ("Complete", "Failed"))


def _replica_failure(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    condition = conditions.get("ReplicaFailure", {})
    return condition.get("message", "") if condition.get("status") == "True" else ""


def _foreign(job: DistillJob, attempt: int, sight: Sight) -> tuple[Foreign, ...]:
    """Objects that are in the way. What the store knows is newer than what was met earlier."""
    uid = job.metadata.uid
    names = {child_name(child, job.metadata.name, max(1, attempt)) for child in CHILDREN}
    found: dict[tuple[str, str], Foreign] = {(met.kind, met.name): met for met in sight.in_the_way}
    for resource, item in sight.children:
        name = name_of(item)
        if ChildName(resource.api_version, resource.kind, name) not in names:
            continue
        if controller_of(item).get("uid") == uid:
            found.pop((resource.kind, name), None)
        else:
            found[resource.kind, name] = Foreign(resource.kind, name, is_deleting(item))
    return tuple(found.values())


def _is_pod_of(job: DistillJob, pod: Object) -> bool:
    """Whether a pod is this job's, and not of an earlier job of the same name, whose pods outlive it by their grace."""
    return _has_role(pod) and labels_of(pod).get(JOB_UID_LABEL) == job.metadata.uid


def _is_pod_of_another(job: DistillJob, pod: Object) -> bool:
    return _has_role(pod) and labels_of(pod).get(JOB_UID_LABEL) != job.metadata.uid


def _has_role(pod: Object) -> bool:
    return labels_of(pod).get(ROLE_LABEL) in get_args(Role)


def _container(status: Mapping[str, Any], role: Role) -> Mapping[str, Any]:
    """The status of our own container, which has the role's name; others may have been added to the pod."""
    nothing: Mapping[str, Any] = {}
    return next((one for one in _statuses(status, "containerStatuses") if one.get("name") == role), nothing)


def _waiting(status: Mapping[str, Any], container: Mapping[str, Any]) -> Mapping[str, Any]:
    """Why the container waits; an init container that somebody added goes before it."""
    for one in (*_statuses(status, "initContainerStatuses"), container):
        waiting = part_of(part_of(one, "state"), "waiting")
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return waiting
    return {}


def _ends(container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """How the container ended: before its restart in place, and now. The first one did the work; a restarted container
    only repeats and waits, so what it is killed with says nothing."""
    states = (part_of(container, "lastState"), part_of(container, "state"))
    return [state["terminated"] for state in states if state.get("terminated")]


def _outcome(end: Mapping[str, Any]) -> Outcome | None:
    """The termination message, if it is one of ours: a container that was killed has none."""
    try:
        return Outcome.model_validate_json(end.get("message") or "")
    except ValidationError:
        return None


def _unschedulable(condition: Mapping[str, Any]) -> str:
    is_it = condition.get("status") == "False" and condition.get("reason") == "Unschedulable"
    return condition.get("message", "") if is_it else ""


def _true_reason(condition: Mapping[str, Any]) -> str:
    """The condition's reason while it is true."""
    return (condition.get("reason") or "Unknown") if condition.get("status") == "True" else ""


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    conditions: list[Mapping[str, Any]] = status.get("conditions") or []
    return {condition["type"]: condition for condition in conditions}


def _statuses(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return status.get(name) or []


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
