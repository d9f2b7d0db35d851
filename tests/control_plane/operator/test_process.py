"""The operator's own process: begins, waits, leads, survives and ends as it should."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.control_plane.jobs.installation import DEFINITION, install_definition
from tests.control_plane.operator.test_children import document
from tests.fixtures.operator import OperatorProcess
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.waiting import wait_until

MOST_MEMORY_MIB = 90
MARKS = ("kopf.zalando.org", "kopf.dev")
Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts operators on a control plane, each for one namespace; they are ended with the test."""
    started: list[OperatorProcess] = []

    def start(plane: ControlPlane, namespace: str, *, until_ready: bool = True, **changes: Any) -> OperatorProcess:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        # Two thirds of it must be enough for a busy machine.
        election = {"namespace": namespace, "leaseSeconds": 9, "renewSeconds": 2}
        configuration = {"namespaces": [namespace], "leaderElection": election, "progressSeconds": 1, **changes}
        operator = OperatorProcess.start(folder, plane.kubeconfig, configuration, until_ready=until_ready)
        started.append(operator)
        return operator

    yield start
    for operator in started:
        operator.stop()


def holder(kubectl: Kubectl, namespace: str) -> str:
    return kubectl.json("get", "lease", "distill-operator", "-n", namespace)["spec"]["holderIdentity"]


def status(kubectl: Kubectl, namespace: str, name: str = "j") -> dict[str, Any]:
    return kubectl.json("get", "dj", name, "-n", namespace).get("status", {})


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def run_main(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distill_operator", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.usefixtures("definition")
def test_it_leads_makes_children_writes_nothing_else_and_ends_at_once(
    control_plane: ControlPlane, namespace: str, kubectl: Kubectl, start: Start
) -> None:
    operator = start(control_plane, namespace).wait_until_leading()
    assert memory_mib(operator.pid) < MOST_MEMORY_MIB
    kubectl.create(document(), "-n", namespace)
    wait_until("the first child", lambda: kubectl("get", "jobs", "-n", namespace, "-o", "name").strip())
    job = kubectl.json("get", "dj", "j", "-n", namespace)
    # Kopf leaves no mark.
    assert "finalizers" not in job["metadata"]
    assert not any(mark in str(job["metadata"].get("annotations")) for mark in MARKS)
    assert operator.metric('distill_operator_jobs{phase="Preparing"}') == 1.0
    wait_until("rest", lambda: rests(operator))
    assert operator.metric('distill_operator_reconciles_total{result="error"}') == 0.0
    assert f'"job": "{namespace}/j"' in operator.log()
    assert operator.stop() == 0
    assert holder(kubectl, namespace) == ""


def rests(operator: OperatorProcess) -> bool:
    return operator.metric("distill_operator_queue_depth") == 0.0


@pytest.mark.usefixtures("definition")
def test_a_standby_is_ready_does_nothing_and_takes_over(
    control_plane: ControlPlane, namespace: str, kubectl: Kubectl, start: Start
) -> None:
    first = start(control_plane, namespace).wait_until_leading()
    second = start(control_plane, namespace)
    assert second.probe("readyz") == second.probe("healthz") == (200, "ok")
    assert second.metric("distill_operator_leader") == 0.0
    assert 'resource="pods"' not in second.metrics()
    first.kill()
    kubectl.create(document(), "-n", namespace)
    second.wait_until_leading()
    wait_until("its first status", lambda: status(kubectl, namespace).get("phase"))


@pytest.mark.usefixtures("definition")
def test_a_leader_that_lost_its_lease_ends(
    control_plane: ControlPlane, namespace: str, kubectl: Kubectl, start: Start
) -> None:
    operator = start(control_plane, namespace).wait_until_leading()
    patch = '{"spec": {"holderIdentity": "usurper"}}'
    kubectl("patch", "lease", "distill-operator", "--type=merge", "-p", patch, "-n", namespace)
    assert operator.wait_for_end() == 1
    assert "is usurper's" in operator.log()
    assert holder(kubectl, namespace) == "usurper"


def test_a_job_that_cannot_be_read_says_so_and_hinders_no_other(
    fresh_control_plane: ControlPlane, start: Start
) -> None:
    kubectl = fresh_control_plane.kubectl()
    install_definition(fresh_control_plane)
    # A definition that lets in what this operator's own refuses, as one of another version may.
    definition = yaml.safe_load(DEFINITION.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["teacher"]["properties"]["gpus"]["minimum"]
    kubectl.apply(definition, "--server-side", "--force-conflicts")
    bad = document("unreadable")
    bad["spec"]["teacher"]["gpus"] = -1
    wait_until("it to be let in", lambda: accepted(kubectl, bad))
    operator = start(fresh_control_plane, "default").wait_until_leading()
    kubectl("wait", "dj/unreadable", "--for=condition=Stalled", "--timeout=90s")
    told = status(kubectl, "default", "unreadable")
    assert told["reason"] == "InvalidSpec"
    assert told["message"] == "The operator can't read this job: spec.teacher.gpus: must be at least 0, got -1"
    kubectl.create(document())
    wait_until("the other one", lambda: status(kubectl, "default").get("phase") == "Preparing")
    assert operator.metric('distill_operator_reconciles_total{result="error"}') == 0.0


def accepted(kubectl: Kubectl, manifest: dict[str, Any]) -> bool:
    try:
        kubectl.create(manifest)
    except TestClusterError:
        return False
    return True


def test_it_waits_for_the_definition_and_for_the_api_server(fresh_control_plane: ControlPlane, start: Start) -> None:
    kubectl = fresh_control_plane.kubectl()
    operator = start(fresh_control_plane, "default", until_ready=False)
    assert operator.probe("healthz") == (200, "ok")
    assert operator.probe("readyz") == (503, "waiting for the API server to know DistillJobs")
    wait_until("a word about it", lambda: "isn't installed" in operator.log())
    install_definition(fresh_control_plane)
    operator.wait_until_leading()
    kubectl.create(document())
    wait_until("its first status", lambda: status(kubectl, "default").get("phase"))
    fresh_control_plane.stop("kube-apiserver")
    second = start(fresh_control_plane, "default", until_ready=False)
    assert second.probe("healthz")[0] == 200
    assert second.stop() == 0
    fresh_control_plane.start("kube-apiserver")


def test_it_survives_an_outage_with_a_compaction(fresh_control_plane: ControlPlane, start: Start) -> None:
    kubectl = fresh_control_plane.kubectl()
    install_definition(fresh_control_plane)
    operator = start(fresh_control_plane, "default", leaderElection={"enabled": False}).wait_until_leading()
    kubectl.create(document("before"))
    wait_until("its child", lambda: "before-prepare-1" in kubectl("get", "jobs", "-o", "name"))
    fresh_control_plane.stop("kube-apiserver")
    wait_until("it to notice", lambda: 'why="error"' in operator.metrics())
    fresh_control_plane.compact_etcd()
    assert operator.probe("healthz")[0] == 200
    fresh_control_plane.start("kube-apiserver")
    kubectl("delete", "job", "before-prepare-1")
    kubectl.create(document())
    wait_until("the new job's status", lambda: status(kubectl, "default").get("phase"))
    wait_until("the old job's child", lambda: "before-prepare-1" in kubectl("get", "jobs", "-o", "name"))
    assert operator.alive()
    assert operator.metric('distill_operator_reconciles_total{result="error"}') == 0.0


def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"
    file.write_text("workers: 0\n")
    ended = run_main(["--configuration", str(file)])
    assert ended.returncode == 64
    assert ended.stderr.startswith(f"{file}: workers: ")


def test_without_a_cluster_it_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"
    file.write_text("metricsPort: 0\nprobePort: 0\n")
    ended = run_main(["--configuration", str(file)], KUBECONFIG=str(tmp_path / "nowhere"))
    assert ended.returncode == 1
    assert "No cluster to work on" in ended.stderr
    assert "Traceback" not in ended.stderr
