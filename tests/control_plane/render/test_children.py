"""What is rendered is taken by a real API server, under `restricted` Pod Security, and taken again without a change."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from distill_operator.api import DistillJob
from distill_operator.api.load import job_of
from distill_operator.constants import FIELD_MANAGER, JOB_LABEL, ROLE_LABEL
from distill_operator.lifecycle.decision import Children
from distill_operator.render import Manifest, config_map, read_config_map, render_attempt, select
from distill_runtime.contract import environment
from tests.control_plane.jobs.installation import install_definition
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.kubectl import Kubectl
from tests.unit.render.golden import ATTEMPTS, all_wanted, configuration_of, job_named

SECONDS_TO_SETTLE = 90.0
CLUSTER_WIDE: list[Manifest] = [
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "training"}, "value": 1000},
]
"""What the job that sets everything names."""


@pytest.fixture
def place(control_plane: ControlPlane, namespace: str, kubectl: Kubectl) -> str:
    """A namespace that also warns of workloads whose pods would be refused, with what the jobs refer to."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    install_definition(control_plane)
    account: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "teacher"}}
    kubectl.apply([*CLUSTER_WIDE, account], "--server-side", "-n", namespace)
    # Without it pods are refused.
    until(lambda: kubectl("get", "serviceaccount", "default", "--ignore-not-found", "-n", namespace))
    return namespace


@pytest.fixture(params=ATTEMPTS)
def job(request: pytest.FixtureRequest, place: str, kubectl: Kubectl) -> DistillJob:
    """A job that the API server holds: without its owner the garbage collector would remove every child."""
    named = job_named(request.param)
    document = named.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["metadata"] = {"name": named.metadata.name, "namespace": place}
    stored = json.loads(kubectl("create", "-f", "-", "-o", "json", input_text=json.dumps(document)))
    return job_of(stored, named.metadata.name)


@pytest.fixture
def apply(kubectl: Kubectl) -> Callable[[list[Manifest]], list[Manifest]]:
    """Applies as the operator does; a warning fails the test."""

    def apply(manifests: list[Manifest]) -> list[Manifest]:
        applied = kubectl.json(
            "apply",
            "--server-side",
            f"--field-manager={FIELD_MANAGER}",
            "--warnings-as-errors",
            "-f",
            "-",
            input_text=as_list(manifests),
        )
        return applied["items"]

    return apply


def as_list(manifests: list[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def rendered_children(job: DistillJob, attempt: int) -> list[Manifest]:
    rendered = render_attempt(job, configuration_of(job.metadata.name), attempt)
    return [config_map(job, rendered, attempt), *select(rendered, all_wanted(job, attempt))]


def versions(kubectl: Kubectl, manifests: list[Manifest]) -> dict[str, str]:
    found = kubectl.json("get", "-f", "-", input_text=as_list(manifests))["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}


def generations(manifests: list[Manifest]) -> dict[str, int | None]:
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get("generation") for one in manifests}


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS_TO_SETTLE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


def pods_of(kubectl: Kubectl, job: DistillJob) -> list[Manifest]:
    selector = f"{JOB_LABEL}={job.metadata.name}"
    return kubectl.json("get", "pods", "-n", job.metadata.namespace, "-l", selector)["items"]


def wanted_pods(job: DistillJob) -> int:
    return job.spec.teacher.replicas + job.spec.student.workers + len(["prepare", "evaluate"])


def test_pods_of_every_role_are_restricted(job: DistillJob, kubectl: Kubectl) -> None:
    for manifest in rendered_children(job, 1):
        template = manifest.get("spec", {}).get("template")
        if template is None:
            continue
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**template["metadata"], "name": "one", "namespace": job.metadata.namespace}
        # A worker's claim is added by the StatefulSet's controller.
        for claim in manifest["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            volume = {"name": name, "persistentVolumeClaim": {"claimName": name}}
            pod["spec"] = {**pod["spec"], "volumes": [*pod["spec"]["volumes"], volume]}
        kubectl("create", "--dry-run=server", "--warnings-as-errors", "-f", "-", input_text=json.dumps(pod))


def test_controllers_make_all_pods_and_workers_know_their_number(
    job: DistillJob, kubectl: Kubectl, apply: Callable[[list[Manifest]], list[Manifest]]
) -> None:
    apply(rendered_children(job, 1))
    until(lambda: len(pods_of(kubectl, job)) == wanted_pods(job))
    students = [pod for pod in pods_of(kubectl, job) if pod["metadata"]["labels"][ROLE_LABEL] == "student"]
    numbers = sorted(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] for pod in students)
    assert numbers == [str(number) for number in range(job.spec.student.workers)]
    for pod in students:
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (
            pod["metadata"]["name"],
            f"{job.metadata.name}-student",
        )
        (address,) = [
            variable["value"]
            for variable in pod["spec"]["containers"][0]["env"]
            if variable["name"] == environment.MASTER_ADDRESS
        ]
        assert address == f"{job.metadata.name}-student-0.{pod['spec']['subdomain']}"


def test_applying_again_changes_nothing(
    job: DistillJob, kubectl: Kubectl, apply: Callable[[list[Manifest]], list[Manifest]]
) -> None:
    manifests = rendered_children(job, 1)
    first = generations(apply(manifests))
    until(lambda: len(pods_of(kubectl, job)) == wanted_pods(job))

    def nothing_changes() -> bool:
        before = versions(kubectl, manifests)
        assert generations(apply(manifests)) == first
        return versions(kubectl, manifests) == before

    # Controllers write statuses for a while, perhaps in this moment.
    until(nothing_changes)


def test_the_next_attempt_is_applied_over_the_last_one(
    job: DistillJob, kubectl: Kubectl, apply: Callable[[list[Manifest]], list[Manifest]]
) -> None:
    first, second = apply(rendered_children(job, 1)), apply(rendered_children(job, 2))
    kept = {one["metadata"]["uid"] for one in first} & {one["metadata"]["uid"] for one in second}
    per_attempt = ("ConfigMap", "Job")
    assert len(kept) == len([one for one in first if one["kind"] not in per_attempt])


def test_the_attempt_is_read_back_as_it_was_rendered(
    job: DistillJob, kubectl: Kubectl, apply: Callable[[list[Manifest]], list[Manifest]]
) -> None:
    rendered = render_attempt(job, configuration_of(job.metadata.name), 1)
    stored, _ = apply([config_map(job, rendered, 1), *select(rendered, Children(attempt=1, teachers=0))])
    assert read_config_map(stored) == rendered
