"""Kubernetes Events about jobs, each told once: its name follows from what it says."""

import hashlib
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime

from distill_operator.api import DistillJob
from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import CONFLICT, ClusterError
from distill_operator.cluster.objects import Object
from distill_operator.cluster.resources import EVENTS
from distill_operator.constants import FIELD_MANAGER
from distill_operator.lifecycle.decision import Event

logger = logging.getLogger(__name__)

LONGEST_MESSAGE = 1024
"""Most that the API server takes."""


async def tell(client: Client, job: DistillJob, attempt: int, events: Iterable[Event]) -> None:
    """Writes events. One that can't be written is only logged: the status says what matters."""
    for event in events:
        logger.info("%s: %s", event.reason, event.message)
        try:
            await client.create(EVENTS, job.metadata.namespace, event_manifest(job, attempt, event, datetime.now(UTC)))
        except ClusterError as error:
            if error.status != CONFLICT:
                logger.warning("event %s was not written: %s", event.reason, error)


def event_manifest(job: DistillJob, attempt: int, event: Event, now: datetime) -> Object:
    """The object. The same event of the same attempt has the same name."""
    metadata = job.metadata
    identity = "/".join((metadata.uid or "", str(attempt), event.reason, event.key))
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            "namespace": metadata.namespace,
        },
        "involvedObject": {
            "apiVersion": job.api_version,
            "kind": job.kind,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": _fitting(event.message),
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": os.environ.get("HOSTNAME", FIELD_MANAGER),
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _fitting(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 1]}…"
