"""What an installation brings into a cluster: the definition of DistillJobs, and the operator's rights."""

import json
from pathlib import Path

import yaml

from tests.fixtures.api_server import ApiServer
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]
DEFINITION = REPOSITORY / "crds" / "distill-operator.io_distilljobs.yaml"
DEPLOY = REPOSITORY / "deploy"
RIGHTS = {"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


def install_definition(control_plane: ControlPlane) -> ApiServer:
    """Applies the definition, and returns the API server once it knows DistillJobs."""
    kubectl = control_plane.kubectl()
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(DEFINITION))
    wait_until_served(kubectl)
    return ApiServer(control_plane.kubeconfig)


def wait_until_served(kubectl: Kubectl) -> None:
    """Waits until DistillJobs can be listed. `kubectl wait` gives up where a definition has no conditions yet."""
    wait_until("DistillJobs to be served", lambda: _is_served(kubectl))


def _is_served(kubectl: Kubectl) -> bool:
    try:
        kubectl("get", "distilljobs", "--all-namespaces")
    except TestClusterError:
        return False
    return True


def grant_rights(control_plane: ControlPlane) -> Path:
    """Applies what gives the operator its rights, and returns a kubeconfig of its service account."""
    kubectl = control_plane.kubectl()
    manifests = [item for item in yaml.safe_load_all(kubectl("kustomize", str(DEPLOY))) if item["kind"] in RIGHTS]
    kubectl.apply([item for item in manifests if item["kind"] == "Namespace"])
    kubectl.apply(manifests)
    account = next(item["metadata"] for item in manifests if item["kind"] == "ServiceAccount")
    token = kubectl("create", "token", account["name"], "-n", account["namespace"], "--duration=4h").strip()
    config = json.loads(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = control_plane.kubeconfig.with_name("operator.yaml")
    path.write_text(json.dumps(config))
    return path
