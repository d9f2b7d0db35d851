"""Children on the real API server: made, kept, removed; nobody else's object is touched."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from distill_operator.api import DistillJob
from distill_operator.api.load import job_of
from distill_operator.cluster.children import ChildrenOfJobs, Settled
from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import CONFLICT, ClusterError
from distill_operator.cluster.objects import JobKey, Object
from distill_operator.cluster.resources import CHILDREN, DISTILL_JOBS
from distill_operator.cluster.store import Store
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import MANAGED_BY, MANAGED_BY_LABEL
from distill_operator.lifecycle.decision import Children
from distill_operator.lifecycle.observed import Foreign
from tests.control_plane.operator.conftest import Run
from tests.control_plane.quota import hold_to_quota
from tests.testcluster.kubectl import Kubectl

ALL = Children(attempt=1, running=True, prepare=True, teachers=2, students=0, announced_teachers=2)
NAMES = {
    "configmap/j-1",
    "deployment.apps/j-teacher",
    "job.batch/j-prepare-1",
    "networkpolicy.networking.k8s.io/j-pods",
    "poddisruptionbudget.policy/j-teacher",
    "service/j-student",
    "service/j-teacher",
    "statefulset.apps/j-student",
}
KINDS = "configmap,service,deployment,statefulset,job,networkpolicy,poddisruptionbudget"

pytestmark = pytest.mark.usefixtures("definition")


class Jobs:
    """One job and its children, as a process that has just started sees them."""

    def __init__(self, client: Client, namespace: str, job: DistillJob, image: str) -> None:
        self._client = client
        self.key = JobKey(namespace, job.metadata.name)
        self.job = job
        self._store = Store(changed=lambda _: None, departed=lambda _, __: None)
        self._children = ChildrenOfJobs(client, self._store, OperatorConfiguration(runtime_image=image))

    async def look(self) -> None:
        """Reads what there is, as the informers would."""
        for resource in CHILDREN:
            listed = await self._client.list(resource, self.key.namespace, labels=f"{MANAGED_BY_LABEL}={MANAGED_BY}")
            self._store.replaced(resource, self.key.namespace, listed.items, int(listed.version))

    async def settle(self, wanted: Children = ALL) -> Settled:
        """Begins again where a controller wrote in between, as a pass does."""
        while True:
            await self.look()
            try:
                return await self._children.settle(self.key, self.job, wanted)
            except ClusterError as error:
                if error.status != CONFLICT:
                    raise


Start = Callable[..., Awaitable[Jobs]]
Scenario = Callable[[Start], Awaitable[None]]


@pytest.fixture
def in_namespace(run: Run, namespace: str) -> Callable[[Scenario], None]:
    """Runs a scenario that starts operators on one job."""

    def run_it(scenario: Scenario) -> None:
        async def whole(client: Client) -> None:
            made = await client.create(DISTILL_JOBS, namespace, document())

            async def start(
                image: str = "registry.example/runtime:1",
                again: bool = False,
                status: Object | None = None,
                **pods: Any,
            ) -> Jobs:
                item = await client.create(DISTILL_JOBS, namespace, document("j2")) if again else made
                found = {**item, "spec": {**item["spec"], **({"pods": pods} if pods else {})}}
                found |= {"status": status} if status else {}
                found["metadata"] = {**found["metadata"], "name": "j"}
                return Jobs(client, namespace, job_of(found, "j"), image)

            await scenario(start)

        run(whole)

    return run_it


def document(name: str = "j") -> Object:
    return {
        "apiVersion": DISTILL_JOBS.api_version,
        "kind": DISTILL_JOBS.kind,
        "metadata": {"name": name},
        "spec": {
            "teacher": {"model": "hf://big/model", "replicas": 2},
            "student": {"model": "hf://small/model"},
            "data": {"train": "s3://bucket/*.jsonl"},
            "storage": {"uri": "s3://bucket"},
        },
    }


@pytest.fixture
def versions(kubectl: Kubectl, namespace: str) -> Callable[[], dict[str, str]]:
    """resourceVersions of all children by name. Controllers write their status, so specs are compared for workloads."""

    def read() -> dict[str, str]:
        items = kubectl.json("get", KINDS, "-n", namespace, "-l", f"{MANAGED_BY_LABEL}={MANAGED_BY}")["items"]
        return {
            f"{item['kind']} {item['metadata']['name']}": str(
                item["metadata"].get("generation") or item["metadata"]["resourceVersion"]
            )
            + item["metadata"]["uid"]
            for item in items
        }

    return read


@pytest.fixture
def names(kubectl: Kubectl, namespace: str) -> Callable[[], set[str]]:
    selector = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
    return lambda: set(kubectl("get", KINDS, "-n", namespace, "-l", selector, "-o", "name").split())


def test_all_that_is_wanted_is_made_and_what_is_not_wanted_is_removed(
    in_namespace: Callable[[Scenario], None], names: Callable[[], set[str]]
) -> None:
    async def scenario(start: Start) -> None:
        jobs = await start()
        assert (await jobs.settle()).reported == Settled().reported
        assert names() == NAMES
        await jobs.settle(Children(attempt=1, running=True, teachers=0))
        assert names() == NAMES - {
            "job.batch/j-prepare-1",
            "statefulset.apps/j-student",
            "poddisruptionbudget.policy/j-teacher",
        }
        await jobs.settle(Children(attempt=1))
        assert names() == {"configmap/j-1"}
        await jobs.settle(Children())
        assert names() == set()

    in_namespace(scenario)


def test_an_operator_that_starts_anew_changes_nothing_even_if_it_renders_otherwise(
    in_namespace: Callable[[Scenario], None], versions: Callable[[], dict[str, str]]
) -> None:
    async def scenario(start: Start) -> None:
        await (await start()).settle()
        before = versions()
        newer = await start(image="registry.example/runtime:2")
        await newer.settle()
        await newer.settle()
        assert versions() == before

    in_namespace(scenario)


def attempt_of_another_digest(phase: str) -> Object:
    attempt = {"number": 1, "startTime": "2026-01-01T00:00:00Z", "workers": 1, "generation": 1, "digest": "another"}
    return {"phase": phase, "attempt": attempt}


def test_another_render_of_a_running_attempt_is_reported_and_nothing_else_is_written(
    in_namespace: Callable[[Scenario], None], versions: Callable[[], dict[str, str]]
) -> None:
    async def scenario(start: Start) -> None:
        await (await start()).settle()
        before = versions()
        newer = await start(status=attempt_of_another_digest("Distilling"))
        assert (await newer.settle(Children(attempt=1, running=True, teachers=0))).rendered_anew
        assert versions() == before

    in_namespace(scenario)


def test_what_an_ended_job_leaves_is_removed_even_if_its_record_is_another(
    in_namespace: Callable[[Scenario], None], names: Callable[[], set[str]]
) -> None:
    async def scenario(start: Start) -> None:
        await (await start()).settle()
        ended = await start(status=attempt_of_another_digest("Succeeded"))
        assert not (await ended.settle(Children(attempt=1))).rendered_anew
        assert names() == {"configmap/j-1"}

    in_namespace(scenario)


def test_what_is_removed_or_changed_by_hand_is_taken_back(
    in_namespace: Callable[[Scenario], None], names: Callable[[], set[str]], kubectl: Kubectl, namespace: str
) -> None:
    async def scenario(start: Start) -> None:
        jobs = await start()
        await jobs.settle()
        kubectl("delete", "service", "j-student", "-n", namespace)
        kubectl("scale", "statefulset", "j-student", "--replicas=3", "-n", namespace)
        kubectl("scale", "deployment", "j-teacher", "--replicas=5", "-n", namespace)
        kubectl("label", "networkpolicy", "j-pods", "distill-operator.io/attempt=9", "--overwrite", "-n", namespace)
        selector = '{"spec": {"selector": {"distill-operator.io/job": "other"}}}'
        kubectl("patch", "service", "j-teacher", "--type=merge", "-p", selector, "-n", namespace)
        await jobs.settle()
        assert names() == NAMES
        items = kubectl.json("get", KINDS, "-n", namespace)["items"]
        found = {f"{item['kind']} {item['metadata']['name']}": item for item in items}
        assert found["StatefulSet j-student"]["spec"]["replicas"] == 0
        assert found["Deployment j-teacher"]["spec"]["replicas"] == 2
        assert found["NetworkPolicy j-pods"]["metadata"]["labels"]["distill-operator.io/attempt"] == "1"
        assert found["Service j-teacher"]["spec"]["selector"]["distill-operator.io/job"] == "j"

    in_namespace(scenario)


def test_what_others_add_is_left_and_written_over_never(
    in_namespace: Callable[[Scenario], None], versions: Callable[[], dict[str, str]], kubectl: Kubectl, namespace: str
) -> None:
    async def scenario(start: Start) -> None:
        jobs = await start()
        await jobs.settle()
        kubectl("rollout", "restart", "deployment/j-teacher", "-n", namespace)
        kubectl("annotate", "service", "j-teacher", "example.com/team=a", "-n", namespace)
        await jobs.settle()
        before = versions()
        await jobs.settle()
        await (await start()).settle()
        assert versions() == before
        template = kubectl.json("get", "deployment", "j-teacher", "-n", namespace)["spec"]["template"]
        assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]

    in_namespace(scenario)


def test_an_autoscalers_number_of_teachers_is_left_until_none_is_wanted(
    in_namespace: Callable[[Scenario], None], kubectl: Kubectl, namespace: str
) -> None:
    def replicas() -> int:
        return kubectl.json("get", "deployment", "j-teacher", "-n", namespace)["spec"]["replicas"]

    async def scenario(start: Start) -> None:
        jobs = await start()
        await jobs.settle()
        scale = '{"spec": {"replicas": 4}}'
        patch = ["patch", "deployment", "j-teacher", "--subresource=scale", "--type=merge", "-p", scale]
        kubectl(*patch, "--field-manager=horizontal-pod-autoscaler", "-n", namespace)
        await jobs.settle()
        await (await start()).settle()
        assert replicas() == 4
        await jobs.settle(Children(attempt=1, running=True, teachers=0))
        assert replicas() == 0
        await jobs.settle()
        assert replicas() == 2

    in_namespace(scenario)


@pytest.mark.parametrize("labelled", [True, False])
def test_an_object_of_somebody_else_is_reported_and_not_touched(
    in_namespace: Callable[[Scenario], None],
    names: Callable[[], set[str]],
    kubectl: Kubectl,
    namespace: str,
    labelled: bool,
) -> None:
    labels = {MANAGED_BY_LABEL: MANAGED_BY, "distill-operator.io/job": "j"} if labelled else {}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "j-teacher", "labels": labels},
        "spec": {"ports": [{"port": 1}]},
    }
    kubectl.create(service, "-n", namespace)

    def version() -> str:
        return kubectl.json("get", "service", "j-teacher", "-n", namespace)["metadata"]["resourceVersion"]

    async def scenario(start: Start) -> None:
        before = version()
        jobs = await start()
        settled = await jobs.settle()
        assert settled.foreign == [Foreign("Service", "j-teacher", False)]
        assert names() >= NAMES - {"service/j-teacher"}
        await jobs.settle(Children())
        assert version() == before

    in_namespace(scenario)


def test_children_of_an_earlier_job_of_the_same_name_are_waited_for(
    in_namespace: Callable[[Scenario], None], versions: Callable[[], dict[str, str]]
) -> None:
    async def scenario(start: Start) -> None:
        await (await start()).settle()
        before = versions()
        again = await start(again=True)
        settled = await again.settle()
        assert settled.foreign == [Foreign("ConfigMap", "j-1", False)]
        await again.settle(Children())
        assert versions() == before

    in_namespace(scenario)


def test_what_cannot_be_changed_in_place_is_made_again_while_it_has_no_pods(
    in_namespace: Callable[[Scenario], None], kubectl: Kubectl, namespace: str
) -> None:
    def student() -> Any:
        return kubectl.json("get", "statefulset", "j-student", "-n", namespace)

    async def scenario(start: Start) -> None:
        await (await start()).settle()
        seen = "--for=jsonpath={.status.observedGeneration}=1"
        kubectl("wait", "statefulset/j-student", seen, "--timeout=90s", "-n", namespace)
        old = student()["metadata"]["uid"]
        jobs = await start(student={"modelCache": {"perPod": "10Gi"}})
        second = Children(attempt=2, running=True, teachers=0, students=0)
        await jobs.settle(second)
        await jobs.settle(second)
        assert student()["metadata"]["uid"] != old
        assert student()["spec"]["volumeClaimTemplates"]

    in_namespace(scenario)


def test_what_the_api_server_refuses_is_told_in_its_words(
    in_namespace: Callable[[Scenario], None], names: Callable[[], set[str]], kubectl: Kubectl, namespace: str
) -> None:
    hold_to_quota(kubectl, namespace, "count/deployments.apps=0")

    async def scenario(start: Start) -> None:
        jobs = await start()
        settled = await jobs.settle()
        assert settled.refused.startswith("Deployment j-teacher was refused: ")
        assert "exceeded quota: none" in settled.refused
        assert names() == NAMES - {"deployment.apps/j-teacher"}
        kubectl("delete", "quota", "none", "-n", namespace)
        while (await jobs.settle()).refused:
            pass
        assert names() == NAMES

    in_namespace(scenario)
