"""Pods on the nodes of a cluster of our own."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.testcluster.cluster import Cluster
from tests.testcluster.components import NODE_LOST_SECONDS
from tests.testcluster.errors import TestClusterError
from tests.testcluster.images import BUSYBOX_IMAGE
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.node import GPU_RESOURCE, Node
from tests.testcluster.waiting import wait_until

PORT = 8000
NOTICED_SECONDS = 30.0
SERVE = f'while true; do printf \'%s %s\\n\' "$(hostname)" "$NVIDIA_VISIBLE_DEVICES" | nc -l -p {PORT}; done'


def pod_spec(pool: str, gpus: int = 0) -> dict[str, Any]:
    """A pod that tells its name and its GPUs to whoever connects; `restricted` lets it in."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "main",
        "image": BUSYBOX_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SERVE],
        "securityContext": security,
        "resources": {"limits": {GPU_RESOURCE: str(gpus)}} if gpus else {},
    }
    return {
        "nodeSelector": {"pool": pool},
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }


def template(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
    }


def start_teacher(kubectl: Kubectl, namespace: str, gpus: int = 2) -> str:
    """Starts a Deployment on the teachers' node and returns the name of its pod."""
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "teacher"}}
    kubectl.create({**deployment, "spec": template("teacher", pod_spec("teacher", gpus))}, "-n", namespace)
    kubectl("rollout", "status", "deployment/teacher", "--timeout=60s", "-n", namespace)
    (pod,) = kubectl.json("get", "pods", "-l", "app=teacher", "-n", namespace)["items"]
    return pod["metadata"]["name"]


def start_student(kubectl: Kubectl, namespace: str) -> str:
    """Starts a StatefulSet with a headless Service on the students' node and returns the address of its pod."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "student"},
        "spec": {"clusterIP": "None", "selector": {"app": "student"}, "ports": [{"port": PORT}]},
    }
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "student"},
        "spec": {**template("student", pod_spec("student")), "serviceName": "student"},
    }
    kubectl.create([service, stateful_set], "-n", namespace)
    kubectl("rollout", "status", "statefulset/student", "--timeout=60s", "-n", namespace)
    return kubectl.json("get", "pod", "student-0", "-n", namespace)["status"]["podIP"]


def heard(kubectl: Kubectl, namespace: str, pod: str, address: str) -> str | None:
    """What a pod hears when it connects to an address; None if nobody answers."""
    command = ["sh", "-c", f"nc -w 2 {address} {PORT} </dev/null"]
    try:
        return kubectl("exec", pod, "-n", namespace, "--", *command) or None
    except TestClusterError as error:
        if "exit code 1" not in str(error):
            raise
        return None


def allocatable_gpus(kubectl: Kubectl, node: str) -> int:
    return int(kubectl.json("get", "node", node)["status"]["allocatable"][GPU_RESOURCE])


def test_there_is_a_node_for_each_pool_with_fake_gpus(kubectl: Kubectl) -> None:
    nodes = kubectl.json("get", "nodes")["items"]
    assert {node["metadata"]["labels"]["pool"] for node in nodes} == {"teacher", "student"}
    assert [node["status"]["allocatable"][GPU_RESOURCE] for node in nodes] == ["4", "4"]


def test_a_pod_gets_gpus_that_nobody_else_has(kubectl: Kubectl, namespace: str) -> None:
    pod = start_teacher(kubectl, namespace, gpus=2)
    devices = kubectl("exec", pod, "-n", namespace, "--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").strip()
    assert len(set(devices.split(","))) == 2
    assert kubectl.json("get", "pod", pod, "-n", namespace)["spec"]["nodeName"] == "node-teacher"
    kubectl("scale", "deployment/teacher", "--replicas=3", "-n", namespace)
    unschedulable = "--for=jsonpath={.status.unavailableReplicas}=1"
    kubectl("wait", "deployment/teacher", unschedulable, "--timeout=60s", "-n", namespace)


def test_pods_find_each_other_by_name_across_nodes(kubectl: Kubectl, namespace: str) -> None:
    teacher, address = start_teacher(kubectl, namespace), start_student(kubectl, namespace)
    full = f"student-0.student.{namespace}.svc.cluster.local"
    looked_up = kubectl("exec", teacher, "-n", namespace, "--", "nslookup", "-type=a", full)
    assert f"Address: {address}" in looked_up
    assert heard(kubectl, namespace, teacher, address) == "student-0 \n"


def test_network_policies_are_enforced(kubectl: Kubectl, namespace: str) -> None:
    teacher, address = start_teacher(kubectl, namespace), start_student(kubectl, namespace)
    closed = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "student"}}, "policyTypes": ["Ingress"]},
    }
    kubectl.create(closed, "-n", namespace)
    wait_until("the policy", lambda: heard(kubectl, namespace, teacher, address) is None, NOTICED_SECONDS)
    kubectl("delete", "networkpolicy", "closed", "-n", namespace)
    wait_until("the end of the policy", lambda: heard(kubectl, namespace, teacher, address), NOTICED_SECONDS)


def test_gpus_that_turn_unhealthy_are_not_offered(cluster: Cluster, kubectl: Kubectl) -> None:
    node = cluster.node("node-teacher")
    node.set_unhealthy_gpus(["gpu0", "gpu2", "gpu3"])
    wait_until("one GPU", lambda: allocatable_gpus(kubectl, node.name) == 1, NOTICED_SECONDS)
    node.set_unhealthy_gpus([])
    wait_until("four GPUs", lambda: allocatable_gpus(kubectl, node.name) == 4, NOTICED_SECONDS)


@pytest.mark.parametrize(
    ("lose", "recover"),
    [
        pytest.param(Node.stop_kubelet, Node.start_kubelet, id="kubelet"),
        pytest.param(Node.disconnect, Node.connect, id="cable"),
    ],
)
def test_a_lost_node_is_noticed_and_comes_back(
    cluster: Cluster, kubectl: Kubectl, lose: Callable[[Node], None], recover: Callable[[Node], None]
) -> None:
    node = cluster.node("node-student")
    lose(node)
    timeout = f"--timeout={NODE_LOST_SECONDS + 40}s"
    kubectl("wait", "node/node-student", "--for=condition=Ready=Unknown", timeout)
    recover(node)
    kubectl("wait", "node/node-student", "--for=condition=Ready=True", timeout)
    assert wait_until("the GPUs", lambda: allocatable_gpus(kubectl, node.name) == 4, NOTICED_SECONDS)
