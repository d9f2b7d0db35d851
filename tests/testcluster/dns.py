"""The cluster's DNS: CoreDNS as a Deployment."""

from pathlib import Path

from tests.testcluster.api import AdminApi
from tests.testcluster.kubectl import Kubectl

MANIFESTS = Path(__file__).parent / "coredns.yaml"
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"


def apply_dns(kubectl: Kubectl, address: str) -> None:
    """Creates the DNS with the address that pods ask."""
    kubectl.apply(MANIFESTS.read_text().replace("@DNS_ADDRESS@", address), "--server-side")


def dns_ready(api: AdminApi) -> bool:
    """Whether it answers."""
    deployment = api.read(DEPLOYMENT)
    return deployment is not None and deployment["status"].get("readyReplicas", 0) > 0
