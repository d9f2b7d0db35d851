"""The client, statuses, Events and warnings on the real API server."""

import asyncio
import time

import pytest

from distill_operator.api.load import job_of
from distill_operator.api.status import DistillJobStatus
from distill_operator.cluster.client import Client, NoCluster
from distill_operator.cluster.errors import CONFLICT, CONNECTION, ClusterError
from distill_operator.cluster.events import tell
from distill_operator.cluster.installed import warn_if_older
from distill_operator.cluster.objects import JobKey
from distill_operator.cluster.resources import CONFIG_MAPS, DISTILL_JOBS, EVENTS, STATEFUL_SETS
from distill_operator.cluster.status import write_status
from distill_operator.cluster.warnings import PATIENCE_SECONDS, CreateWarnings
from distill_operator.lifecycle.decision import Event
from tests.control_plane.operator.conftest import Run
from tests.control_plane.operator.test_children import document
from tests.control_plane.quota import hold_to_quota
from tests.testcluster.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("definition")


def test_an_object_that_is_not_there_is_none(run: Run, namespace: str) -> None:
    assert run(lambda client: client.get(CONFIG_MAPS, namespace, "nothing")) is None


def test_a_second_creation_is_a_conflict_and_a_bad_object_is_refused(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        await client.create(DISTILL_JOBS, namespace, document())
        with pytest.raises(ClusterError, match="already exists") as conflict:
            await client.create(DISTILL_JOBS, namespace, document())
        assert conflict.value.status == CONFLICT
        bad = document("bad")
        bad["spec"]["teacher"]["gpus"] = -1
        with pytest.raises(ClusterError, match=r"create .*/distilljobs: .*spec.teacher.gpus") as refused:
            await client.create(DISTILL_JOBS, namespace, bad)
        assert refused.value.refused

    run(scenario)


def test_a_delete_is_of_one_uid_alone(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        made = await client.create(DISTILL_JOBS, namespace, document())
        await client.delete(DISTILL_JOBS, namespace, "j", uid="another")
        assert await client.get(DISTILL_JOBS, namespace, "j") is not None
        await client.delete(DISTILL_JOBS, namespace, "j", uid=made["metadata"]["uid"])
        assert await client.get(DISTILL_JOBS, namespace, "j") is None
        await client.delete(DISTILL_JOBS, namespace, "j", uid=made["metadata"]["uid"])

    run(scenario)


def test_long_lists_are_read_to_the_end(
    run: Run, namespace: str, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_operator.cluster.client.PAGE", 3)
    for number in range(8):
        kubectl("create", "configmap", f"c{number}", "-n", namespace)
    listed = run(lambda client: client.list(CONFIG_MAPS, namespace, metadata_only=True))
    names = [item["metadata"]["name"] for item in listed.items]
    assert {f"c{number}" for number in range(8)} <= set(names)
    assert len(names) == len(set(names))
    assert all("data" not in item for item in listed.items)


def test_a_status_is_written_once_and_never_over_another_write(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        first = await client.create(DISTILL_JOBS, namespace, document())
        status = DistillJobStatus(phase="Preparing", message="It begins.")
        stored = await write_status(client, first, job_of(first, "j"), status)
        assert stored["status"]["phase"] == "Preparing"
        again = await write_status(client, stored, job_of(stored, "j"), status)
        assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
        with pytest.raises(ClusterError) as conflict:
            await write_status(client, first, job_of(first, "j"), DistillJobStatus(phase="Failed"))
        assert conflict.value.status == CONFLICT

    run(scenario)


def test_an_event_is_told_once(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        job = job_of(await client.create(DISTILL_JOBS, namespace, document()), "j")
        lost = Event("Warning", "WorkerLost", "j-student-0 was lost", key="uid")
        await tell(client, job, 1, [lost, Event("Normal", "Prepared", "100 sequences")])
        await tell(client, job, 1, [lost])
        found = (await client.list(EVENTS, namespace)).items
        assert sorted(event["reason"] for event in found) == ["Prepared", "WorkerLost"]

    run(scenario)


def test_why_a_workload_gets_no_pods_is_read_from_its_events(run: Run, namespace: str, kubectl: Kubectl) -> None:
    hold_to_quota(kubectl, namespace, "pods=0")
    labels = {"app": "s"}
    container = {
        "name": "c",
        "image": "x",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "s"},
        "spec": {"serviceName": "s", "selector": {"matchLabels": labels}, "template": template},
    }

    async def scenario(client: Client) -> None:
        item = await client.create(STATEFUL_SETS, namespace, stateful_set)
        warnings, begun = CreateWarnings(client), time.monotonic()
        while not any((found := await warnings.of(JobKey(namespace, "j"), [(STATEFUL_SETS, item)]))[0].values()):
            assert found[1] is not None, "nobody would ask again"
            assert time.monotonic() - begun < 90
            await asyncio.sleep(1)
        assert time.monotonic() - begun >= PATIENCE_SECONDS - 1
        assert "exceeded quota: none" in found[0][item["metadata"]["uid"]]

    run(scenario)


def test_the_committed_definition_lacks_nothing_that_the_operator_knows(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run(warn_if_older)
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


def test_no_answer_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from kubernetes.aio.client.configuration import Configuration

    async def scenario() -> None:
        client = Client(Configuration(host="http://127.0.0.1:1"))
        try:
            with pytest.raises(ClusterError) as error:
                await client.get(CONFIG_MAPS, "n", "c")
            assert (error.value.status, error.value.refused) == (CONNECTION, False)
        finally:
            await client.close()

    asyncio.run(scenario())


def test_without_a_cluster_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/kubeconfig")
    with pytest.raises(NoCluster, match="set KUBECONFIG"):
        asyncio.run(Client.connect())
