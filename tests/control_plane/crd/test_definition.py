"""The definition itself on a real API server: applied, applied again, explained, shown, replaced by a newer one."""

import copy
import json
from typing import Any

import pytest

from distill_operator.api.crd import NAME, custom_resource_definition
from tests.control_plane.crd.conftest import Jobs, in_newest_words
from tests.control_plane.jobs.installation import DEFINITION
from tests.fixtures.api_server import ApiError, ApiServer, path_of
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.waiting import wait_until
from tests.unit.api.manifest import SMALLEST, changed

STATUS = {
    "phase": "Distilling",
    "startTime": "2026-01-01T00:00:00Z",
    "reason": "WorkerLost",
    "progress": {"text": "120/1000", "percentText": "12%", "loss": 2.34568},
    "teacher": {"text": "1/1"},
    "student": {"text": "1/2"},
    "attempt": {"number": 3, "startTime": "2026-01-01T00:00:00Z", "workers": 2, "generation": 1},
    "attempts": {"failed": 2},
}


def explained(kubectl: Kubectl, path: str) -> str:
    """`kubectl explain` on one line, once the API server publishes the schema."""

    def words() -> str:
        try:
            return " ".join(kubectl("explain", path).split())
        except TestClusterError:
            return ""

    return wait_until(f"kubectl explain {path}", words)


def cells(table: str) -> list[list[str]]:
    """The rows of `kubectl get`; columns are two spaces or more apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]


def test_kubectl_explain_tells_what_each_field_is_for(jobs: Jobs, kubectl: Kubectl) -> None:
    teacher = explained(kubectl, "dj.spec.teacher")
    assert "The model that is imitated. It only reads: one prefill over each sequence, no generation." in teacher
    assert "engine <string> enum: vllm, transformers The engine that runs the teacher." in teacher
    assert "model <string> -required- Where the teacher's weights and tokenizer are." in teacher
    assert "Training data: JSON Lines, CSV or Parquet files" in explained(kubectl, "dj.spec.data.train")
    assert "For questionAnswering only. Default: 64." in explained(kubectl, "dj.spec.evaluation.tasks.maxNewTokens")
    assert "Optimizer steps done." in explained(kubectl, "dj.status.progress")


def test_kubectl_get_shows_how_far_jobs_are(jobs: Jobs, kubectl: Kubectl) -> None:
    jobs.create(SMALLEST)
    jobs.create({**SMALLEST, "metadata": {"name": "new"}})
    jobs.report("job", STATUS)
    head, job, new = cells(kubectl("get", "dj", "-n", jobs.namespace))
    assert head == ["NAME", "PHASE", "STEP", "PROGRESS", "LOSS", "TEACHER", "STUDENT", "AGE"]
    assert job[:-1] == ["job", "Distilling", "120/1000", "12%", "2.34568", "1/1", "1/2"]
    assert new[0] == "new"
    head, job, _ = cells(kubectl("get", "distill", "-o", "wide", "-n", jobs.namespace))
    assert head[7:] == ["REASON", "ATTEMPT", "FAILED", "AGE"]
    assert job[7:-1] == ["WorkerLost", "3", "2"]
    failed = kubectl("get", "dj", "-n", jobs.namespace, "--field-selector=status.phase=Distilling", "-o", "name")
    assert failed.split() == [f"distilljob.{NAME.split('.', 1)[1]}/job"]


def test_kubectl_tells_the_user_the_field_and_the_sentence(jobs: Jobs, kubectl: Kubectl) -> None:
    with pytest.raises(TestClusterError) as caught:
        kubectl.apply(changed("spec.training", {"steps": 3, "epochs": 1}), "-n", jobs.namespace)
    told = in_newest_words(str(caught.value))
    assert 'The DistillJob "job" is invalid: spec.training: Invalid value: give at most one of steps and epochs' in told


def test_entries_of_server_side_applies_by_two_managers_stand_side_by_side(jobs: Jobs, kubectl: Kubectl) -> None:
    for name, owner in (("A", "team"), ("B", "platform")):
        job = changed("spec.pods", {"teacher": {"environment": [{"name": name, "value": owner}]}})
        kubectl.apply(job, "--server-side", f"--field-manager={owner}", "-n", jobs.namespace)
    environment = jobs.get("job")["spec"]["pods"]["teacher"]["environment"]
    assert sorted(variable["name"] for variable in environment) == ["A", "B"]


def older_definition() -> dict[str, Any]:
    """As a first version might have been: no rules, no policy, no pods, no bounds on tasks."""
    definition = copy.deepcopy(custom_resource_definition())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for field in ("policy", "pods"):
        del schema["properties"]["spec"]["properties"][field]
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = without_rules(schema)
    return definition


def without_rules(value: Any) -> Any:
    if isinstance(value, dict):
        ruled = ("x-kubernetes-validations", "anyOf", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")
        return {key: without_rules(item) for key, item in value.items() if key not in ruled}
    return [without_rules(item) for item in value] if isinstance(value, list) else value


def test_client_side_apply_replaces_an_older_definition_and_its_jobs_go_on(fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl.apply(older_definition())
    api = ApiServer(fresh_control_plane.kubeconfig)
    wait_until("the older definition", lambda: _served(api))
    jobs = Jobs(api, "default")
    tasks = [{"kind": "classification", "name": "t", "data": "s3://t"}] * 2
    jobs.create(SMALLEST)
    # The older definition took what the newer one refuses, at every depth and at the root.
    broken = changed("spec", {**SMALLEST["spec"], "student": {}, "output": {"select": "best"}})
    broken["spec"]["evaluation"] = {"tasks": tasks}
    long_name = "a-name-that-is-longer-than-forty-characters"
    jobs.create({**broken, "metadata": {"name": long_name}})
    for name in ("job", long_name):
        jobs.start(name)

    assert "configured" in kubectl("apply", "-f", str(DEFINITION))
    assert "unchanged" in kubectl("apply", "-f", str(DEFINITION))
    wait_until("the newer definition", lambda: jobs.check(changed("spec.student", {})) is not None)

    assert jobs.get("job")["spec"]["policy"]["backoffLimit"] == 3, "stored jobs get the defaults of new fields"
    for name in ("job", long_name):
        assert jobs.report(name, {**STATUS, "phase": "Failed"})["status"]["phase"] == "Failed"
        jobs.api.patch(jobs.path(name), {"metadata": {"labels": {"team": "a"}}})
    assert jobs.edit("job", suspend=True, policy={"backoffLimit": 1}) is None
    refusal = jobs.edit("job", data={"train": "s3://other"})
    assert refusal is not None
    assert "spec.data: Forbidden" in refusal


def _served(api: ApiServer) -> bool:
    try:
        return api.get(path_of("distilljobs")) is not None
    except ApiError:
        return False


def test_the_definition_is_stored_as_it_was_written(jobs: Jobs) -> None:
    """Nothing in it was dropped as unknown."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}"
    stored = jobs.api.request("GET", path)["spec"]["versions"]
    written = custom_resource_definition()["spec"]["versions"]
    assert json.loads(json.dumps(stored)) == json.loads(json.dumps(written))
