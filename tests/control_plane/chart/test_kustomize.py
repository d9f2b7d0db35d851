"""`kubectl apply -k deploy` on a real API server, and the rights that the operator gets from it."""

import pytest

from tests.control_plane.chart.installation import (
    ACCOUNT,
    JOB,
    NAMESPACE,
    Request,
    allowed,
    token_kubeconfig,
    wait_for_pods_of_operator,
    wait_until_allowed,
)
from tests.control_plane.jobs.installation import wait_until_served
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.unit.chart.grants import documented_grants, grants
from tests.unit.chart.renderings import DEPLOY, RELEASE

REFUSED = [
    ("get", "/secrets"),
    ("list", "/secrets"),
    ("watch", "/secrets"),
    ("create", "/secrets"),
    ("create", "/pods"),
    ("create", "/pods/exec"),
    ("get", "/pods/log"),
    ("create", "/serviceaccounts"),
    ("create", "/serviceaccounts/token"),
    ("get", "/nodes"),
    ("delete", "/nodes"),
    ("list", "/namespaces"),
    ("create", "distill-operator.io/distilljobs"),
    ("update", "distill-operator.io/distilljobs"),
    ("patch", "distill-operator.io/distilljobs"),
    ("create", "rbac.authorization.k8s.io/rolebindings"),
    ("bind", "rbac.authorization.k8s.io/clusterroles"),
    ("escalate", "rbac.authorization.k8s.io/clusterroles"),
    ("update", "apiextensions.k8s.io/customresourcedefinitions"),
    ("create", "admissionregistration.k8s.io/validatingwebhookconfigurations"),
    ("update", "coordination.k8s.io/leases"),
]
"""What the operator must not be able to do anywhere, least of all with Secrets."""


def test_the_plain_manifests_install_the_operator(fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl("apply", "-k", str(DEPLOY))
    wait_until_served(kubectl)
    kubectl.apply(JOB, "--namespace=default")

    # The namespace is `restricted`, and the pod was let in.
    (pod,) = wait_for_pods_of_operator(kubectl)
    (volume,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == "configuration")
    assert kubectl.json("get", "configmap", volume["configMap"]["name"], f"--namespace={NAMESPACE}")["data"]

    again = kubectl("apply", "-k", str(DEPLOY)).splitlines()
    assert not [line for line in again if not line.endswith("unchanged") and "customresourcedefinition" not in line]
    kubectl("delete", "-k", str(DEPLOY), "--wait=false")


def test_the_operator_may_do_what_it_must_and_read_no_secret(fresh_control_plane: ControlPlane) -> None:
    kubectl = fresh_control_plane.kubectl()
    kubectl("apply", "-k", str(DEPLOY))
    lease = "coordination.k8s.io/leases"
    needed = [
        *(Request(*grant, "default") for grant in sorted(grants(documented_grants())) if grant[1] != lease),
        *(Request(verb, lease, NAMESPACE, RELEASE) for verb in ("get", "update")),
        Request("create", lease, NAMESPACE),
    ]
    wait_until_allowed(kubectl, ACCOUNT, needed)
    refused = [Request(*grant, namespace) for grant in REFUSED for namespace in ("default", NAMESPACE)]
    answers = allowed(kubectl, ACCOUNT, refused)
    assert not [request for request, answer in zip(refused, answers, strict=True) if answer]

    wait_until_served(kubectl)
    operator = fresh_control_plane.kubectl(token_kubeconfig(fresh_control_plane, RELEASE, NAMESPACE))
    assert operator("get", "--raw", "/openapi/v3")
    operator("get", "distilljobs", "--all-namespaces")
    with pytest.raises(TestClusterError, match='cannot list resource "secrets"'):
        operator("get", "secrets", f"--namespace={NAMESPACE}")
