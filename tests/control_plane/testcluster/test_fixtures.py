from collections.abc import Callable

import pytest

from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl

CONFIGURATION = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"key": "value"}}
ROOT_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "root"},
    "spec": {"containers": [{"name": "main", "image": "busybox", "securityContext": {"privileged": True}}]},
}


def test_what_is_created_can_be_read(kubectl: Kubectl, namespace: str) -> None:
    kubectl.create(CONFIGURATION, "-n", namespace)
    assert kubectl.json("get", "configmap", "kept", "-n", namespace)["data"] == {"key": "value"}


def test_a_refusal_carries_the_message_of_the_api_server(kubectl: Kubectl, namespace: str) -> None:
    with pytest.raises(TestClusterError, match='configmaps "missing" not found'):
        kubectl("get", "configmap", "missing", "-n", namespace)


def test_each_namespace_is_another(make_namespace: Callable[[], str]) -> None:
    assert make_namespace() != make_namespace()


def test_namespaces_take_restricted_pods_only(kubectl: Kubectl, namespace: str) -> None:
    with pytest.raises(TestClusterError, match='violates PodSecurity "restricted:latest": privileged'):
        kubectl.create(ROOT_POD, "-n", namespace)


def test_controllers_work(kubectl: Kubectl, namespace: str) -> None:
    deployment = kubectl("create", "deployment", "web", "--image=web", "-n", namespace)
    assert "created" in deployment
    kubectl("wait", "deployment/web", "--for=condition=Progressing", "--timeout=30s", "-n", namespace)


def test_a_user_may_do_what_its_group_may(control_plane: ControlPlane, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "rolebinding", "team", "--clusterrole=view", "--group=team-a", "-n", namespace)
    member = control_plane.kubectl(control_plane.kubeconfig_for("alice", groups=["team-a"]))
    stranger = control_plane.kubectl(control_plane.kubeconfig_for("alice", groups=["team-b"]))
    assert member("get", "pods", "-n", namespace) == ""
    with pytest.raises(TestClusterError, match='User "alice" cannot create resource "configmaps"'):
        member.create(CONFIGURATION, "-n", namespace)
    with pytest.raises(TestClusterError, match='User "alice" cannot list resource "pods"'):
        stranger("get", "pods", "-n", namespace)
