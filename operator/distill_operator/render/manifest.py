"""What the manifests of all children have in common: owner, labels, digest."""

import hashlib
import json
from typing import Any, TypeAlias

from distill_operator.api import DistillJob
from distill_operator.constants import ATTEMPT_LABEL, JOB_LABEL, JOB_UID_LABEL, MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from distill_operator.render.names import Child, name_of
from distill_runtime.contract.run import Role

Manifest: TypeAlias = dict[str, Any]
"""An object, or a part of one, as plain data."""


def child_manifest(child: Child, job: DistillJob, attempt: int, *, role: Role | None = None) -> Manifest:
    """The beginning of a child's manifest: who it is and whose. Its `spec` or `data` is added by its own file."""
    api_version, kind, name = name_of(child, job.metadata.name, attempt)
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": job.metadata.namespace,
            "labels": labels(job, attempt, role=role),
            "ownerReferences": [owner_reference(job)],
        },
    }


def labels(job: DistillJob, attempt: int, *, role: Role | None = None) -> dict[str, str]:
    """Our labels of a child, or of a pod of one role."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_LABEL: job.metadata.name,
        JOB_UID_LABEL: uid_of(job),
        ATTEMPT_LABEL: str(attempt),
        **({ROLE_LABEL: role} if role else {}),
    }


def selector(job: DistillJob, role: Role | None = None) -> dict[str, str]:
    """What selects the job's pods, or those of one role, of whatever attempt."""
    return {JOB_LABEL: job.metadata.name, **({ROLE_LABEL: role} if role else {})}


def owner_reference(job: DistillJob) -> Manifest:
    """Children go when their job goes; they never hold up its deletion."""
    return {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "name": job.metadata.name,
        "uid": uid_of(job),
        "controller": True,
        "blockOwnerDeletion": False,
    }


def uid_of(job: DistillJob) -> str:
    """The job's uid.

    Raises
    ------
    ValueError
        It has none: it doesn't come from an API server, so nothing in a cluster can be owned by it.
    """
    if job.metadata.uid is None:
        raise ValueError(
            f"{job.metadata.namespace}/{job.metadata.name} has no uid: only a job of a cluster has children"
        )
    return job.metadata.uid


def canonical_json(value: Any) -> str:
    """The one text of this data: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
