"""A status is read whoever wrote it, and written so that the API server takes it."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_operator.api.job import DistillJob
from distill_operator.api.load import job_of
from distill_operator.api.status import DistillJobStatus, Phase, ProgressStatus
from tests.unit.api.manifest import SMALLEST

FULL: dict[str, Any] = {
    "phase": "Distilling",
    "observedGeneration": 3,
    "conditions": [
        {
            "type": "Reconciling",
            "status": "True",
            "reason": "Distilling",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 3,
        }
    ],
    "startTime": "2026-01-01T00:00:00Z",
    "reason": "",
    "message": "",
    "attempt": {
        "number": 2,
        "startTime": "2026-01-01T01:00:00Z",
        "workers": 2,
        "teachers": 1,
        "generation": 3,
        "ending": {"reason": "WorkerLost", "message": "gone", "time": "2026-01-01T02:00:00Z", "counted": True},
    },
    "attempts": {"failed": 1},
    "prepared": {"sequences": 10},
    "progress": {"step": 120, "totalSteps": 1000, "loss": 2, "text": "120/1000", "percentText": "12%"},
    "teacher": {"desired": 1, "ready": 1, "text": "1/1"},
    "evaluation": {"studentAfter": {"perplexity": 7.5, "tasks": {"desks": {"accuracy": 0.5}}}},
}


def from_api_server(status: dict[str, Any]) -> DistillJob:
    metadata = {
        "name": "job",
        "namespace": "team",
        "uid": "0b5c",
        "generation": 3,
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        "ownerReferences": [],
    }
    return job_of({**SMALLEST, "metadata": metadata, "status": status}, "team/job")


def test_an_object_of_the_api_server_is_read_with_its_status() -> None:
    job = from_api_server(FULL)
    assert job.status is not None
    assert job.status.attempt is not None
    assert job.status.attempt.ending is not None
    assert job.status.attempt.ending.counted
    assert job.status.progress.loss == 2.0
    assert job.metadata.creation_timestamp is not None
    assert (job.metadata.generation, job.metadata.resource_version) == (3, "7")


def test_what_is_written_is_read_again() -> None:
    status = from_api_server(FULL).status
    assert status is not None
    assert from_api_server(json.loads(json.dumps(status.dump()))).status == status


def test_a_newer_operators_fields_are_left_aside_at_every_depth() -> None:
    newer = json.loads(json.dumps(FULL))
    for place in (newer, newer["attempt"], newer["attempt"]["ending"], newer["progress"], newer["conditions"][0]):
        place["ofTheFuture"] = {"a": [1]}
    assert from_api_server(newer).status == from_api_server(FULL).status


@pytest.mark.parametrize(
    ("done", "phase"),
    [
        ({}, "Pending"),
        ({"startTime": "2026-01-01T00:00:00Z"}, "Preparing"),
        ({"startTime": "2026-01-01T00:00:00Z", "prepared": {}}, "Preparing"),
        ({"startTime": "2026-01-01T00:00:00Z", "prepared": {"sequences": 1}}, "Distilling"),
        ({"prepared": {"sequences": 1}, "evaluation": {"teacher": {"perplexity": 2.0}}}, "Evaluating"),
        ({"prepared": {"sequences": 1}, "completionTime": "2026-01-02T00:00:00Z"}, "Failed"),
    ],
)
def test_a_phase_of_a_newer_operator_is_read_as_the_nearest_known_one(done: dict[str, Any], phase: Phase) -> None:
    status = from_api_server({"phase": "Publishing", **done}).status
    assert status is not None
    assert status.phase == phase


@pytest.mark.parametrize("phase", get_args(Phase))
def test_known_phases_stay(phase: Phase) -> None:
    assert DistillJobStatus.model_validate_json(json.dumps({"phase": phase})).phase == phase


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_measured_numbers_are_written_as_json_and_do_not_change_when_read_again(value: float) -> None:
    status = DistillJobStatus(progress=ProgressStatus(loss=value))
    text = json.dumps(status.dump(), allow_nan=False)
    assert DistillJobStatus.model_validate_json(text) == status


def test_measured_numbers_have_six_digits() -> None:
    assert ProgressStatus(loss=2.34567891234).loss == 2.34568
