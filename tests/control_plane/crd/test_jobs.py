"""Jobs that the API server takes: what it makes of them, and what they may become."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_operator.api import JobSpec, load_job
from distill_operator.api.document import read_documents
from distill_operator.api.fields import field_names
from distill_operator.api.load import job_of
from distill_operator.api.rules import CHANGEABLE
from distill_operator.api.structural import structural_schema
from tests.control_plane.crd.conftest import Jobs, Object
from tests.unit.api.manifest import SMALLEST
from tests.unit.api.test_status import FULL

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[2] / "examples"
EVERYTHING = read_documents((HERE / "everything.yaml").read_text())
CLUSTER_JOBS = sorted(EXAMPLES.glob("*-cluster.yaml"))
FIXED = "can't change once the job has started; make a new job"
PAUSED = "can't change while the job runs; set spec.suspend to true first, or with it"


def paths(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields in a schema. The roles' pods have the same fields, so they count as one."""
    for name, field in schema.get("properties", {}).items():
        below = (*path, "ROLE" if path == ("pods",) else name)
        yield below
        yield from paths(field, below)
        yield from paths(field.get("items", {}), below)


def set_paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields in a document."""
    if isinstance(value, dict):
        for name, item in value.items():
            below = (*path, "ROLE" if path == ("pods",) else name)
            yield below
            yield from set_paths(item, below)
    if isinstance(value, list):
        for item in value:
            yield from set_paths(item, path)


def by_name_in_affinity(path: tuple[str, ...]) -> tuple[str, ...]:
    """Affinity has the same fields at many places: there the name alone counts."""
    return ("affinity", path[-1]) if "affinity" in path else path


def test_the_manifests_that_set_everything_set_every_field() -> None:
    given = {by_name_in_affinity(path) for document in EVERYTHING for path in set_paths(document["spec"])}
    known = {by_name_in_affinity(path) for path in paths(structural_schema(JobSpec))}
    assert len(known) > 150
    assert known - given == set()


@pytest.mark.parametrize("document", EVERYTHING, ids=lambda document: document["metadata"]["name"])
def test_a_job_that_sets_everything_is_taken_as_it_is(document: Object, jobs: Jobs) -> None:
    jobs.create(document)
    stored = job_of(jobs.get(document["metadata"]["name"]), "stored")
    assert stored.spec == job_of(document, "given").spec


def test_the_smallest_job_gets_the_defaults_of_the_types(jobs: Jobs) -> None:
    jobs.create(SMALLEST)
    stored = jobs.get("job")
    assert job_of(stored, "stored").spec == job_of(SMALLEST, "given").spec
    assert stored["spec"]["training"]["optimizer"]["betas"] == [0.9, 0.95]
    assert stored["spec"]["policy"]["backoffLimit"] == 3
    assert "pods" not in stored["spec"], "what is empty stays unset"


@pytest.mark.parametrize("manifest", CLUSTER_JOBS, ids=lambda manifest: manifest.name)
def test_the_jobs_of_the_documents_are_taken(checked: Jobs, manifest: Path) -> None:
    load_job(manifest.read_text(), manifest.name)
    document = yaml.safe_load(manifest.read_text())
    document["metadata"]["namespace"] = checked.namespace
    assert checked.check(document) is None


def test_a_job_that_has_not_started_may_change_in_everything(jobs: Jobs) -> None:
    jobs.create(SMALLEST)
    jobs.report("job", {"phase": "Pending"})
    assert jobs.edit("job", data={"train": ["hf://a/b"]}, managedBy="a/b", pods={"teacher": {"cpu": 8}}) is None
    assert jobs.edit("job", teacher={"model": "hf://a/b"}, training={"steps": 5}) is None


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"teacher": {"model": "hf://other/model"}}, "spec.teacher.model"),
        ({"teacher": {"engine": "transformers"}}, "spec.teacher.engine"),
        ({"teacher": {"dtype": "float32"}}, "spec.teacher.dtype"),
        ({"teacher": {"trustRemoteCode": True}}, "spec.teacher.trustRemoteCode"),
        ({"student": {"model": "hf://other/model"}}, "spec.student.model"),
        ({"student": {"model": None, "initialise": {"fromTeacher": {"every": 2}}}}, "spec.student.initialise"),
        ({"student": {"gpusPerWorker": 2}}, "spec.student.gpusPerWorker"),
        ({"student": {"trustRemoteCode": True}}, "spec.student.trustRemoteCode"),
        ({"data": {"train": "s3://other"}}, "spec.data"),
        ({"data": {"train": ["s3://bucket/*.jsonl"]}}, "spec.data"),
        ({"data": {"evaluation": "s3://other"}}, "spec.data"),
        ({"data": {"columns": {"text": "body"}}}, "spec.data"),
        ({"storage": {"region": "eu-1"}}, "spec.storage"),
        ({"signal": {"mode": "offline"}}, "spec.signal"),
        ({"objective": {"temperature": 2}}, "spec.objective"),
        ({"training": {"optimizer": {"learningRate": 0.1}}}, "spec.training"),
        ({"training": {"steps": 7}}, "spec.training"),
        ({"evaluation": {"tasks": [{"kind": "classification", "name": "t", "data": "s3://t"}]}}, "spec.evaluation"),
        ({"output": {"uri": "s3://out"}}, "spec.output"),
        ({"managedBy": "a/b"}, "spec.managedBy"),
    ],
)
def test_what_makes_another_job_may_not_change_once_it_has_started(
    spec: dict[str, Any], field: str, started: Jobs
) -> None:
    refusal = started.edit("job", **spec)
    assert refusal is not None
    assert f"{field}: Forbidden: {FIXED}" in refusal


@pytest.mark.parametrize(
    "spec",
    [
        {"teacher": {"replicas": 0}},
        {"teacher": {"gpus": 2}},
        {"teacher": {"maxBatchTokens": 1024}},
        {"student": {"workers": 4}},
        {"policy": {"backoffLimit": 9, "ttlSecondsAfterFinished": 60}},
        {"suspend": True},
        {"suspend": True, "pods": {"teacher": {"nodeSelector": {"pool": "a"}}}},
    ],
)
def test_how_a_job_runs_may_change_at_any_time(spec: dict[str, Any], started: Jobs) -> None:
    assert started.edit("job", **spec) is None


def test_what_may_change_is_tested_field_by_field() -> None:
    assert CHANGEABLE["Teacher"] == {"replicas", "gpus", "maxBatchTokens"}
    assert CHANGEABLE["Student"] == {"workers"}
    assert set(field_names(JobSpec)) - CHANGEABLE["JobSpec"] == {
        *("data", "storage", "signal", "transport", "objective", "training", "evaluation", "output", "managedBy")
    }


def test_pods_may_change_while_the_job_is_suspended(started: Jobs) -> None:
    refusal = started.edit("job", pods={"teacher": {"memory": "1Gi"}})
    assert refusal is not None
    assert f"spec.pods: Forbidden: {PAUSED}" in refusal
    assert started.edit("job", suspend=True) is None
    assert started.edit("job", pods={"teacher": {"memory": "1Gi"}}) is None
    assert started.edit("job", suspend=False, pods={"teacher": {"memory": "2Gi"}}) is None
    assert started.edit("job", pods=None) is not None


@pytest.fixture
def started(jobs: Jobs) -> Jobs:
    """A namespace with one job, which has started."""
    jobs.create(SMALLEST)
    jobs.start("job")
    return jobs


@pytest.mark.parametrize("document", [SMALLEST, *EVERYTHING], ids=lambda document: document["metadata"]["name"])
def test_a_status_is_stored_as_it_is_written_and_leaves_the_spec_alone(document: Object, jobs: Jobs) -> None:
    name = document["metadata"]["name"]
    jobs.create(document)
    before = jobs.get(name)
    for phase in ("Preparing", "Distilling", "Succeeded"):
        stored = jobs.report(name, {**FULL, "phase": phase})
        assert stored["status"] == {**FULL, "phase": phase}
    after = jobs.get(name)
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])


def test_a_status_is_not_written_with_the_spec_nor_the_spec_with_the_status(jobs: Jobs) -> None:
    jobs.create({**SMALLEST, "status": {"phase": "Succeeded"}})
    assert "status" not in jobs.get("job")
    job = jobs.get("job")
    job["spec"]["suspend"] = True
    jobs.api.request("PUT", jobs.path("job", "status"), {**job, "status": {"phase": "Pending"}})
    assert jobs.get("job")["spec"]["suspend"] is False


def test_a_started_job_is_applied_again_without_a_change(started: Jobs) -> None:
    before = started.get("job")
    started.api.patch(started.path("job"), SMALLEST)
    assert started.get("job")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def largest_job() -> Object:
    """As many and as long entries as the schema takes, where a rule looks at them."""
    names = [f"{'k' * 240}/{'k' * 60}{number:02}" for number in range(32)]
    values = [f"{number:0252}" for number in range(64)]
    term = {"matchExpressions": [{"key": "k" * 317, "operator": "In", "values": values} for _ in range(16)]}
    pods = {
        "nodeSelector": dict.fromkeys(names, "v" * 63),
        "labels": dict.fromkeys(names, "v" * 63),
        "annotations": dict.fromkeys(names, "v" * 1000),
        "tolerations": [{"key": name, "value": "v" * 63} for name in names],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
        "extraResources": dict.fromkeys(names[:16], "1" * 15),
        "cpu": "1" * 15,
        "cpuLimit": "2" * 15,
        "environment": [{"name": f"{'N' * 250}{number:02}", "value": "v" * 2000} for number in range(64)],
        "volumes": [
            {"name": f"volume-{number}", "mountPath": f"/{'p' * 1000}{number:02}", "emptyDir": "1Gi"}
            for number in range(16)
        ],
    }
    tasks = [
        {"kind": "classification", "name": f"task-{number}", "data": "s3://t", "labels": [f"{n}" for n in range(100)]}
        for number in range(32)
    ]
    return {
        **SMALLEST,
        "spec": {
            **SMALLEST["spec"],
            "student": {"initialise": {"fromTeacher": {"layers": list(range(1024))}}},
            "data": {"train": [f"s3://bucket/{'d' * 1000}" for _ in range(256)]},
            "evaluation": {"tasks": tasks},
            "pods": {"teacher": pods, "student": pods},
        },
    }


def test_rules_are_quick_enough_for_the_largest_job(jobs: Jobs) -> None:
    """The API server gives rules a budget; a job that uses it up would be refused whatever it says."""
    jobs.create(largest_job())
    jobs.start("job")
    assert jobs.edit("job", suspend=True) is None
    assert jobs.edit("job", pods={"student": {"cpu": "3"}}) is None
    refusal = jobs.edit("job", training={"steps": 1})
    assert refusal is not None
    assert f"spec.training: Forbidden: {FIXED}" in refusal


def test_null_stands_for_not_given(jobs: Jobs) -> None:
    document = {**SMALLEST, "spec": {**SMALLEST["spec"], "training": {"globalBatch": None}, "evaluation": None}}
    jobs.create(document)
    assert jobs.get("job")["spec"]["training"]["globalBatch"] == 32
