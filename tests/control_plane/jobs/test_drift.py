"""What others do to a job's children: repaired where the fields are ours, left alone where they are not."""

import time
from collections.abc import Callable

import pytest

from distill_operator.constants import DIGEST_ANNOTATION
from tests.control_plane.jobs.job import Job
from tests.control_plane.jobs.place import Place
from tests.fixtures.api_server import ApiServer, Object, path_of
from tests.fixtures.pod_acts import Play, prepared, runs
from tests.fixtures.watched_job import revision

pytestmark = pytest.mark.usefixtures("operator")

REPAIR_SECONDS = 20.0
"""A moment, and what a busy machine adds: far from the minutes between two looks at all jobs. The benchmark measures
it."""
QUIET_SECONDS = 3.0
REST_SECONDS = 15.0
NUDGE_SECONDS = 0.3


@pytest.fixture(scope="module")
def job(place: Place) -> Job:
    """A job whose halves run; it runs through the whole module."""
    job = place.job("steady").create({"teacher": {"replicas": 2}}, Play(teacher=runs, student=runs))
    job.wait_for_running("student", 2)
    job.wait_for_running("teacher", 2)
    at_rest(job)
    return job


def at_rest(job: Job, *resources: str) -> dict[str, str]:
    """Waits until the job and its children of some kinds have stood still for a while. Returns their versions."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        before = versions(job, *resources)
        time.sleep(QUIET_SECONDS)
        if versions(job, *resources) == before:
            return before
    raise AssertionError(f"{job.name} never comes to rest: {job.statuses()[-3:]}")


def versions(job: Job, *resources: str) -> dict[str, str]:
    return {**job.versions(*resources), job.uid: job.item["metadata"]["resourceVersion"]}


CHILDREN = [
    ("services", "student"),
    ("services", "teacher"),
    ("networkpolicies", "pods"),
    ("poddisruptionbudgets", "teacher"),
    ("configmaps", "1"),
    ("deployments", "teacher"),
]


@pytest.mark.parametrize(("resource", "name"), CHILDREN, ids=lambda value: value)
def test_a_deleted_child_is_made_again_at_once(job: Job, api: ApiServer, resource: str, name: str) -> None:
    before = job.child(resource, name)
    assert before is not None
    students = {pod["metadata"]["uid"] for pod in job.pods("student")}
    began = time.monotonic()
    api.delete(path_of(resource, job.namespace, f"{job.name}-{name}"))

    def another() -> Object | None:
        child = job.child(resource, name)
        return child if child and child["metadata"]["uid"] != before["metadata"]["uid"] else None

    after = job.wait(f"another {resource}", another)
    assert time.monotonic() - began < REPAIR_SECONDS
    assert after["metadata"]["annotations"][DIGEST_ANNOTATION] == before["metadata"]["annotations"][DIGEST_ANNOTATION]
    assert after.get("data") == before.get("data")
    job.wait_for_running("teacher", 2)
    assert {pod["metadata"]["uid"] for pod in job.pods("student")} == students
    assert job.attempt == 1


EDITS: dict[str, tuple[str, str, Object, Callable[[Object], object]]] = {
    "replicas": ("deployments", "teacher", {"spec": {"replicas": 2}}, lambda item: item["spec"]["replicas"]),
    "selector": (
        "services",
        "student",
        {"spec": {"selector": {"distill-operator.io/job": "other"}}},
        lambda item: item["spec"]["selector"],
    ),
    "label": (
        "deployments",
        "teacher",
        {"metadata": {"labels": {"distill-operator.io/job": "other"}}},
        lambda item: item["metadata"]["labels"]["distill-operator.io/job"],
    ),
    "network policy": (
        "networkpolicies",
        "pods",
        {"spec": {"podSelector": {"matchLabels": {"distill-operator.io/job": "other"}}}},
        lambda item: item["spec"]["podSelector"],
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_child_is_put_right_at_once(place: Place, api: ApiServer, edit: str) -> None:
    resource, name, change, field = EDITS[edit]
    job = place.job(f"edited-{edit.replace(' ', '-')}").create(play=Play(teacher=runs, student=runs))
    job.wait_for_running("student", 2)
    child = job.child(resource, name)
    assert child is not None
    wanted = field(child)
    began = time.monotonic()
    path = path_of(resource, job.namespace, child["metadata"]["name"])
    # Under the label that it had: one that is taken away hides the child from the watch of this test too.
    broken = api.patch(path, change, fieldManager="kubectl-edit")
    assert field(broken) != wanted

    def right() -> bool:
        found = api.get(path)
        assert found is not None
        return field(found) == wanted

    while not right():
        assert time.monotonic() - began < REPAIR_SECONDS, f"{edit} was not put right"
        time.sleep(0.05)
    job.delete()


def nudge(job: Job, api: ApiServer, seconds: float) -> None:
    """Makes the operator look again and again: each change of a pod is news to it."""
    pod = path_of("pods", job.namespace, job.pods("student")[0]["metadata"]["name"])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        api.patch(pod, {"metadata": {"annotations": {"example.com/nudge": str(time.monotonic())}}})
        time.sleep(NUDGE_SECONDS)


def test_fields_of_others_are_left_alone(job: Job, place: Place, api: ApiServer) -> None:
    workload = path_of("statefulsets", job.namespace, f"{job.name}-student")
    deployment = path_of("deployments", job.namespace, f"{job.name}-teacher")
    sidecar = {
        "name": "mesh",
        "image": "registry.example/mesh:1",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    injected = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"annotations": {"mesh.example/injected": "yes"}},
        "spec": {"template": {"spec": {"containers": [sidecar]}}},
    }
    api.patch(workload, injected, "apply", fieldManager="mesh")
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    api.patch(
        deployment, {"spec": {"template": {"metadata": {"annotations": restarted}}}}, fieldManager="kubectl-rollout"
    )
    api.patch(f"{deployment}/scale", {"spec": {"replicas": 3}}, fieldManager="horizontal-pod-autoscaler")
    job.wait(
        "that the restart is over", lambda: [_annotated(pod, restarted) for pod in job.pods("teacher")] == [True] * 3
    )
    watched = ("deployments", "statefulsets", "services", "configmaps", "networkpolicies", "poddisruptionbudgets")
    before = at_rest(job, *watched)
    nudge(job, api, REST_SECONDS)
    place.world.catch_up(place.namespace)
    assert versions(job, *watched) == before
    assert job.replicas("teacher") == 3
    stateful_set = job.child("statefulsets", "student")
    assert stateful_set is not None
    assert [c["name"] for c in stateful_set["spec"]["template"]["spec"]["containers"]][-1:] == ["mesh"]


def _annotated(pod: Object, annotations: Object) -> bool:
    return annotations.items() <= pod["metadata"].get("annotations", {}).items()


@pytest.mark.parametrize(
    ("resource", "name", "manifest"),
    [
        (
            "services",
            "student",
            {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}},
        ),
        ("configmaps", "1", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "yes"}}),
    ],
    ids=["service", "config-map"],
)
def test_an_object_of_somebody_else_is_never_adopted(
    place: Place, api: ApiServer, resource: str, name: str, manifest: Object
) -> None:
    job = place.job(f"name-taken-{resource}")
    child = f"{job.name}-{name}"
    path = path_of(resource, place.namespace, child)
    theirs = api.create(path_of(resource, place.namespace), {**manifest, "metadata": {"name": child}})
    job.create(play=Play(teacher=runs, student=runs))
    job.wait("that it is stalled", lambda: job.condition("Stalled").get("status") == "True")
    assert job.condition("Stalled")["reason"] == "NameTaken"
    assert child in job.condition("Stalled")["message"]
    found = api.get(path)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    assert "ownerReferences" not in found["metadata"]
    api.delete(path)
    job.wait_for_running("student", 2)
    job.wait("that it is stalled no longer", lambda: job.condition("Stalled").get("status") != "True")
    job.delete()


@pytest.mark.parametrize("phase", ["Preparing", "Distilling", "Evaluating"])
def test_a_job_made_again_under_the_same_name_starts_anew(place: Place, phase: str) -> None:
    plays = {
        "Preparing": Play(prepare=runs),
        "Distilling": Play(teacher=runs, student=runs),
        "Evaluating": Play(evaluate=runs),
    }
    job = place.job(f"again-{phase.lower()}").create(play=plays[phase])
    job.wait_for_phase(phase)
    job.wait("pods", lambda: any(pod["status"].get("phase") == "Running" for pod in job.pods()))
    first, before = job.uid, job.uids()
    job.delete()
    # What the pods of the first job still say is nothing to the second one.
    old, new = prepared(shards=4), prepared(shards=7, missing=7)
    job.create(play=Play(prepare=lambda pod: (old if pod.uid in before else new)(pod)))

    def over() -> bool:
        return job.uid not in ("", first) and job.phase in ("Succeeded", "Failed")

    job.wait("the second job's end", over)
    assert job.phase == "Succeeded"
    assert job.attempt == 1
    assert job.status["attempts"].get("failed", 0) == 0
    assert job.status["prepared"]["signalShards"] == 7
    begun = next(
        revision(change.item)
        for change in place.world.changes("distilljobs", place.namespace)
        if change.item["metadata"]["uid"] == job.uid and change.item.get("status", {}).get("startTime")
    )
    ends = [change for change in place.world.changes("pods", place.namespace) if change.kind == "DELETED"]
    gone = {change.item["metadata"]["uid"]: revision(change.item) for change in ends}
    assert all(gone[uid] < begun for uid in before), "it began beside pods of the first job"
    owners = {owner["uid"] for item in job.children("configmaps") for owner in item["metadata"]["ownerReferences"]}
    assert owners == {job.uid}
