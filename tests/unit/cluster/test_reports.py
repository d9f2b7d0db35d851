"""What users are told: Events, conditions of a job that can't be read, warnings, an older definition."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from distill_operator.api import InvalidJob
from distill_operator.api.crd import custom_resource_definition
from distill_operator.cluster.events import event_manifest
from distill_operator.cluster.index import JobIndex
from distill_operator.cluster.installed import missing_fields
from distill_operator.cluster.objects import JobKey
from distill_operator.cluster.unreadable import with_complaint
from distill_operator.cluster.warnings import newest_message
from distill_operator.lifecycle.decision import Event
from tests.unit.cluster.objects import Object, job

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 25, 13, 0, tzinfo=UTC)
KEY = JobKey("n", "j")


def name_of(event: Event, attempt: int = 1, **metadata: Any) -> str:
    return event_manifest(job(**metadata), attempt, event, NOW)["metadata"]["name"]


def test_the_same_event_of_an_attempt_has_the_same_name() -> None:
    lost = Event("Warning", "WorkerLost", "j-student-0 was lost", key="pod-uid")
    assert name_of(lost) == name_of(Event("Warning", "WorkerLost", "other words", key="pod-uid"))
    others = {
        name_of(Event("Warning", "WorkerLost", "", key="another")),
        name_of(Event("Warning", "Stalled", "", key="pod-uid")),
        name_of(lost, attempt=2),
        name_of(lost, uid="made-again"),
    }
    assert len(others | {name_of(lost)}) == 5


def test_an_event_is_about_the_job_and_fits() -> None:
    manifest = event_manifest(job(), 1, Event("Normal", "Prepared", "x" * 5000), NOW)
    assert manifest["involvedObject"]["uid"] == "job-uid"
    assert manifest["lastTimestamp"] == "2026-11-25T12:00:00Z"
    assert len(manifest["message"]) == 1024
    assert manifest["message"].endswith("…")


def document(**status: Any) -> Object:
    return {"metadata": {"name": "j", "namespace": "n", "generation": 3}, "spec": {}, "status": status}


def test_what_cannot_be_read_is_said_in_the_conditions() -> None:
    error = InvalidJob("n/j", ["spec.teacher.gpus: must be at least 0, got -1", "spec.x: is not a known field"])
    status = with_complaint(document(phase="Distilling", attempt={"number": 2}), error, NOW)["status"]
    assert status["message"].endswith("spec.teacher.gpus: must be at least 0, got -1; spec.x: is not a known field")
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Stalled": "True",
        "Reconciling": "False",
        "Ready": "False",
    }
    assert (status["phase"], status["attempt"], status["observedGeneration"]) == ("Distilling", {"number": 2}, 3)


def test_a_complaint_is_written_once() -> None:
    error = InvalidJob("n/j", ["spec.x: is not a known field"])
    first = with_complaint(document(), error, NOW)
    assert with_complaint(first, error, LATER) is first


def test_news_are_worth_a_pass_when_the_spec_or_the_deletion_changed() -> None:
    index = JobIndex()

    def told(generation: int = 1, uid: str = "a", **rest: Any) -> bool:
        metadata = {"uid": uid, "generation": generation, **rest.pop("metadata", {})}
        return index.heard(KEY, {"metadata": metadata, **rest})

    assert told()
    assert not told()
    assert not told(status={"phase": "Preparing"})
    assert told(generation=2)
    assert not told(generation=1), "older news"
    assert told(generation=2, metadata={"deletionTimestamp": "2026-11-25T12:00:00Z"})
    assert told(uid="b"), "made again"
    index.gone(KEY)
    assert index.jobs() == []


def test_the_newest_event_tells_why_pods_cannot_be_made() -> None:
    events = [
        {"message": "old", "lastTimestamp": "2026-11-25T12:00:00Z"},
        {"message": "new", "lastTimestamp": "2026-11-25T12:00:05Z"},
        {"message": "undated"},
    ]
    assert newest_message(events) == "new"
    assert newest_message([]) == ""


@pytest.fixture
def published() -> Object:
    """The API server's OpenAPI document for our own definition."""
    schema = copy.deepcopy(custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["x-kubernetes-group-version-kind"] = [{"kind": "DistillJob"}]
    return {"components": {"schemas": {"job": schema, "other": {"properties": {}}}}}


def test_our_own_definition_lacks_nothing(published: Object) -> None:
    assert missing_fields(published) == []


def test_an_older_definition_lacks_what_it_lacks(published: Object) -> None:
    spec = published["components"]["schemas"]["job"]["properties"]["spec"]["properties"]
    del spec["policy"]
    del spec["pods"]["properties"]["student"]["properties"]["nodeSelector"]
    assert missing_fields(published) == ["spec.pods.student.nodeSelector", "spec.policy"]
