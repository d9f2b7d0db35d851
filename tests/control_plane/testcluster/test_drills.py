"""What tests do to a control plane to see whether the operator survives it."""

import json
from pathlib import Path

import pytest

from tests.testcluster.components import Component
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl

QUICK = "--request-timeout=1s"


def create(kubectl: Kubectl, name: str) -> str:
    """Makes a ConfigMap and returns its resource version."""
    return kubectl.json("create", "configmap", name)["metadata"]["resourceVersion"]


def names(kubectl: Kubectl) -> set[str]:
    return {item["metadata"]["name"] for item in kubectl.json("get", "configmaps")["items"]}


def test_an_api_server_that_comes_back_has_its_address_its_certificates_and_its_data(
    fresh_control_plane: ControlPlane,
) -> None:
    kubectl = fresh_control_plane.kubectl()
    create(kubectl, "kept")
    fresh_control_plane.stop("kube-apiserver")
    with pytest.raises(TestClusterError, match="refused"):
        kubectl("get", "configmaps", QUICK)
    fresh_control_plane.start("kube-apiserver")
    assert "kept" in names(kubectl)
    create(kubectl, "later")


def test_etcd_that_was_killed_has_all_that_was_written(fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    create(kubectl, "kept")
    fresh_control_plane.stop("etcd")
    with pytest.raises(TestClusterError):
        kubectl("get", "configmap", "kept", QUICK)
    fresh_control_plane.start("etcd")
    kubectl("wait", "configmap/kept", "--for=jsonpath={.metadata.name}=kept", "--timeout=30s")
    assert "kept" in names(kubectl)


def test_a_paused_api_server_keeps_silent_until_it_is_resumed(fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    fresh_control_plane.pause("kube-apiserver")
    with pytest.raises(TestClusterError, match=r"timeout|deadline"):
        kubectl("get", "namespaces", QUICK)
    fresh_control_plane.resume("kube-apiserver")
    assert "default" in kubectl("get", "namespaces")


def test_no_watch_begins_before_a_compaction(fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    before = create(kubectl, "before")
    create(kubectl, "between")
    fresh_control_plane.stop("kube-apiserver")
    revision = fresh_control_plane.compact_etcd()
    assert revision > int(before)
    fresh_control_plane.start("kube-apiserver")
    path = f"/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion={before}"
    event = json.loads(kubectl("get", "--raw", path).splitlines()[0])
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410


@pytest.mark.parametrize("component", ["kube-controller-manager", "kube-scheduler"])
def test_a_server_that_was_stopped_works_again_when_started(
    fresh_control_plane: ControlPlane, component: Component
) -> None:
    kubectl = fresh_control_plane.kubectl()
    fresh_control_plane.stop(component)
    kubectl("create", "deployment", "web", "--image=web")
    fresh_control_plane.start(component)
    kubectl("wait", "deployment/web", "--for=jsonpath={.status.unavailableReplicas}=1", "--timeout=60s")
    scheduled = "--for=jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable"
    kubectl("wait", "pod", "-l=app=web", scheduled, "--timeout=60s")


def test_a_server_that_ended_by_itself_is_reported_with_its_log(fresh_control_plane: ControlPlane) -> None:
    state: Path = fresh_control_plane.root / "pki"
    (state / "kube-apiserver.key").unlink()
    fresh_control_plane.stop("kube-apiserver")
    with pytest.raises(TestClusterError, match=r"(?s)kube-apiserver ended by itself.*kube-apiserver.key"):
        fresh_control_plane.start("kube-apiserver")
