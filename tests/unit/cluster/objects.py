"""Objects as the API server gives them, cut down to what tests vary."""

import json
from typing import Any

from distill_operator.api import DistillJob
from distill_operator.api.load import job_of
from distill_operator.constants import ATTEMPT_LABEL, JOB_LABEL, JOB_UID_LABEL, MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from distill_runtime.contract.outcome import ExitCode, Outcome
from distill_runtime.contract.run import Role

Object = dict[str, Any]
UID = "job-uid"
BORN = "2026-11-25T10:00:00Z"


def job(*, uid: str = UID, attempt: int | None = 1, born: str = BORN, **status: Any) -> DistillJob:
    running = {"number": attempt, "startTime": born, "workers": 2, "generation": 1}
    return job_of(
        {
            "apiVersion": "distill-operator.io/v1alpha1",
            "kind": "DistillJob",
            "metadata": {"name": "j", "namespace": "n", "uid": uid, "generation": 1, "creationTimestamp": born},
            "spec": {
                "teacher": {"model": "hf://big/model"},
                "student": {"model": "hf://small/model", "workers": 2},
                "data": {"train": "s3://bucket/*.jsonl"},
                "storage": {"uri": "s3://bucket"},
            },
            "status": {"phase": "Distilling", **({"attempt": running} if attempt else {}), **status},
        },
        "n/j",
    )


def owner(kind: str, uid: str, name: str = "j") -> list[Object]:
    api = "distill-operator.io/v1alpha1" if kind == "DistillJob" else "apps/v1"
    return [{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True}]


def child(name: str, *, owner_uid: str = UID, version: int = 1, **parts: Any) -> Object:
    metadata = {
        "name": name,
        "namespace": "n",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "generation": 1,
        "labels": {MANAGED_BY_LABEL: MANAGED_BY, JOB_LABEL: "j", ATTEMPT_LABEL: "1"},
        "ownerReferences": owner("DistillJob", owner_uid),
        **parts.pop("metadata", {}),
    }
    return {"metadata": metadata, **parts}


def pod(
    name: str = "j-student-0",
    *,
    role: Role | str = "student",
    attempt: int = 1,
    job_uid: str = UID,
    status: Object | None = None,
    version: int = 1,
    **metadata: Any,
) -> Object:
    labels = {
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_LABEL: "j",
        JOB_UID_LABEL: job_uid,
        ATTEMPT_LABEL: str(attempt),
        ROLE_LABEL: role,
    }
    if role == "student":
        labels["apps.kubernetes.io/pod-index"] = name.rpartition("-")[2]
    return {
        "metadata": {
            "name": name,
            "namespace": "n",
            "uid": f"uid-{name}-{attempt}",
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": "2026-11-25T10:05:00Z",
            "labels": labels,
            "ownerReferences": owner("StatefulSet", "uid-j-student", "j-student"),
            **metadata,
        },
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", **(status or {})},
    }


def container(state: Object, *, last: Object | None = None, name: str = "student", restarts: int = 0) -> Object:
    return {
        "containerStatuses": [
            {"name": name, "restartCount": restarts, "ready": False, "state": state, "lastState": last or {}}
        ]
    }


def ended(code: int, message: str = "", reason: str = "Error", time: str | None = None) -> Object:
    when = {} if time is None else {"finishedAt": time}
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, **when}}


def word(code: ExitCode = ExitCode.RETRY, reason: str = "PeerLost", role: Role = "student") -> str:
    return Outcome(role=role, code=code, reason=reason, message="it ended").termination_message()


def as_json(item: Object) -> str:
    return json.dumps(item, sort_keys=True)
