"""helm install, upgrade and uninstall on a real API server."""

from pathlib import Path

import pytest
import yaml

from tests.control_plane.chart.installation import (
    ACCOUNT,
    CRD_NAME,
    JOB,
    NAMESPACE,
    Helm,
    Request,
    bind,
    make_restricted_namespace,
    may,
    older_chart,
    token_kubeconfig,
    wait_for_pods_of_operator,
    wait_until_allowed,
)
from tests.control_plane.jobs.installation import wait_until_served
from tests.fixtures.operator import OperatorProcess
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.programs import HELM_4
from tests.testcluster.waiting import wait_until
from tests.unit.chart.renderings import CHART, RELEASE, ROOT, VALUES

IN_NAMESPACE = ("--namespace", NAMESPACE)
ONE_HELM = pytest.mark.parametrize("helm", [HELM_4], ids=["helm4"], indirect=True)
"""For what comes from the manifests alone, which are the same for each version of helm."""


def test_a_release_comes_grows_and_goes_and_its_jobs_stay(
    helm_here: Helm, fresh_control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubectl = fresh_control_plane.kubectl()
    make_restricted_namespace(kubectl, NAMESPACE)

    # An older version, whose definition has no `policy`: the API server drops it from a job.
    helm_here("install", RELEASE, str(older_chart(helm_here.program, tmp_path)), *IN_NAMESPACE)
    wait_until_served(kubectl)
    kubectl.apply(JOB, "--namespace=default", "--validate=ignore")
    before = kubectl.json("get", "distilljob", "qwen3-4b", "--namespace=default")
    assert "policy" not in before["spec"]

    # The definition follows the upgrade; the job is the same object, and its field is kept now.
    said = helm_here("upgrade", RELEASE, str(CHART), *IN_NAMESPACE)
    assert "One replica" in said
    # The API server takes a moment to serve a changed definition.
    wait_until("the new definition", lambda: _keeps_policy(fresh_control_plane))
    after = kubectl.json("get", "distilljob", "qwen3-4b", "--namespace=default")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    # The controllers made the pod under `restricted`, and a changed configuration makes another.
    (pod,) = wait_for_pods_of_operator(kubectl)
    assert pod["spec"]["serviceAccountName"] == RELEASE
    helm_here("upgrade", RELEASE, str(CHART), *IN_NAMESPACE, "--set", "maxRunningJobs=2")
    (config_map,) = kubectl.json("get", "configmaps", *IN_NAMESPACE, "-l", f"app.kubernetes.io/instance={RELEASE}")[
        "items"
    ]
    assert yaml.safe_load(config_map["data"]["configuration.yaml"])["maxRunningJobs"] == 2
    wait_until("a new pod", lambda: _pod_names(fresh_control_plane) - {pod["metadata"]["name"]})

    # Everything goes but the definition and the jobs, and the same release finds them again.
    helm_here("uninstall", RELEASE, *IN_NAMESPACE)
    selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
    kinds = "deployments,services,configmaps,roles,rolebindings,serviceaccounts,networkpolicies"
    assert not kubectl.json("get", kinds, *IN_NAMESPACE, selector)["items"]
    assert not kubectl.json("get", "clusterroles,clusterrolebindings", selector)["items"]
    kept = kubectl.json("get", "distilljob", "qwen3-4b", "--namespace=default")
    assert kept["metadata"]["uid"] == before["metadata"]["uid"]
    helm_here("install", RELEASE, str(CHART), *IN_NAMESPACE)
    assert kubectl.json("get", "distilljobs", "--namespace=default")["items"]


def test_a_definition_that_was_applied_by_hand_is_taken_over(
    helm_here: Helm, fresh_control_plane: ControlPlane
) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl("apply", "-k", str(ROOT / "crds"))
    install = ("install", RELEASE, str(CHART), *IN_NAMESPACE, "--create-namespace")
    with pytest.raises(TestClusterError, match=CRD_NAME):
        helm_here(*install)
    helm_here(*install, "--take-ownership")
    definition = kubectl.json("get", "crd", CRD_NAME)
    assert definition["metadata"]["annotations"]["meta.helm.sh/release-name"] == RELEASE


def _keeps_policy(control_plane: ControlPlane) -> bool:
    kubectl = control_plane.kubectl()
    kubectl.apply(JOB, "--namespace=default", "--validate=ignore")
    job = kubectl.json("get", "distilljob", "qwen3-4b", "--namespace=default")
    return job["spec"].get("policy", {}).get("stallTimeoutSeconds") == 1234


def _pod_names(control_plane: ControlPlane) -> set[str]:
    return {pod["metadata"]["name"] for pod in wait_for_pods_of_operator(control_plane.kubectl())}


def test_everything_at_once_is_accepted_by_the_api_server(helm_here: Helm, fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl.apply([_monitor_definition(kind) for kind in ("ServiceMonitor", "PodMonitor")])
    for plural in ("servicemonitors", "podmonitors"):
        wait_until(f"{plural} to be served", lambda plural=plural: _lists(kubectl, plural))
    values = VALUES["everything"]
    assert values is not None
    helm_here("install", RELEASE, str(CHART), *IN_NAMESPACE, "--create-namespace", "--values", str(values))
    for kind in ("servicemonitors", "podmonitors", "poddisruptionbudgets", "networkpolicies"):
        assert kubectl.json("get", kind, *IN_NAMESPACE)["items"], kind


def _lists(kubectl: Kubectl, plural: str) -> bool:
    try:
        kubectl("get", plural, "--all-namespaces")
    except TestClusterError:
        return False
    return True


def _monitor_definition(kind: str) -> dict[str, object]:
    """The Prometheus operator's kinds without their fields: its own definitions are not a part of this project."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@ONE_HELM
def test_a_list_of_namespaces_gives_no_right_in_others(helm_here: Helm, fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    for namespace in ("team-a", "team-b"):
        kubectl("create", "namespace", namespace)
    helm_here(
        "install", RELEASE, str(CHART), *IN_NAMESPACE, "--create-namespace", "--set", "namespaces={team-a,team-b}"
    )
    jobs, lease = "distill-operator.io/distilljobs", "coordination.k8s.io/leases"
    needed = [
        Request(*request, namespace)
        for request in (("list", jobs), ("create", "apps/statefulsets"))
        for namespace in ("team-a", "team-b")
    ]
    wait_until_allowed(kubectl, ACCOUNT, [*needed, Request("update", lease, NAMESPACE, RELEASE)])
    for namespace in ("team-a", "team-b"):
        assert not may(kubectl, ACCOUNT, "list", "/secrets", namespace)
    for namespace in ("default", NAMESPACE, ""):
        assert not may(kubectl, ACCOUNT, "list", jobs, namespace)
        assert not may(kubectl, ACCOUNT, "create", "apps/statefulsets", namespace)


@ONE_HELM
def test_the_operator_works_in_its_namespaces_with_the_rights_that_it_has_there(
    helm_here: Helm, fresh_control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl("create", "namespace", "team-a")
    helm_here("install", RELEASE, str(CHART), *IN_NAMESPACE, "--create-namespace", "--set", "namespaces={team-a}")
    wait_until_served(kubectl)
    for namespace in ("team-a", "default"):
        kubectl.apply(JOB, f"--namespace={namespace}")
    config_map = kubectl.json("get", "configmap", f"{RELEASE}-configuration", *IN_NAMESPACE)
    configuration = yaml.safe_load(config_map["data"]["configuration.yaml"]) | {"metricsPort": 0, "probePort": 0}

    operator = OperatorProcess.start(tmp_path, token_kubeconfig(fresh_control_plane, RELEASE, NAMESPACE), configuration)
    try:
        operator.wait_until_leading()
        wait_until("the job's pods", lambda: kubectl.json("get", "jobs", "--namespace=team-a")["items"], 60)
        log = operator.log()
    finally:
        operator.stop()
    assert "forbidden" not in log.lower(), log
    assert not kubectl.json("get", "distilljob", "qwen3-4b", "--namespace=default").get("status")


@ONE_HELM
def test_users_get_their_rights_from_kubernetes_own_roles(helm_here: Helm, fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl("create", "namespace", "team-a")
    for user, role in (("alice", "edit"), ("bob", "view"), ("carol", "admin")):
        bind(kubectl, user, role, "team-a")
    helm_here("install", RELEASE, str(CHART), *IN_NAMESPACE, "--create-namespace")
    wait_until_served(kubectl)
    for user, verbs in (("alice", ("get", "create", "patch")), ("bob", ("list",)), ("carol", ("delete",))):
        # A controller puts the aggregated roles together.
        requests = [Request(verb, "distill-operator.io/distilljobs", "team-a") for verb in verbs]
        wait_until_allowed(kubectl, user, requests)

    alice, bob, carol = (
        fresh_control_plane.kubectl(fresh_control_plane.kubeconfig_for(user)) for user in ("alice", "bob", "carol")
    )
    alice.apply(JOB, "--namespace=team-a")
    assert bob.json("get", "distilljobs", "--namespace=team-a")["items"]
    for refused in (
        lambda: bob("delete", "distilljob", "qwen3-4b", "--namespace=team-a"),
        lambda: bob.apply({**JOB, "metadata": {"name": "other"}}, "--namespace=team-a"),
        lambda: alice.apply(JOB, "--namespace=default"),
        # What the operator says is not for users to write.
        lambda: alice(
            "patch", "distilljob", "qwen3-4b", "--namespace=team-a", "--subresource=status", "--type=merge",
            "--patch", '{"status": {"phase": "Succeeded"}}',
        ),
    ):  # fmt: skip
        with pytest.raises(TestClusterError, match="forbidden"):
            refused()
    carol("delete", "distilljob", "qwen3-4b", "--namespace=team-a")
