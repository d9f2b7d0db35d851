"""How the servers of the control plane are started."""

from pathlib import Path
from typing import Literal

from tests.testcluster.credentials import (
    AUTHORITY,
    FRONT_PROXY_AUTHORITY,
    FRONT_PROXY_CLIENT,
    KUBELET_CLIENT,
    SERVICE_ACCOUNTS,
    kubeconfig_file,
    pki_folder,
)
from tests.testcluster.etcd import etcd_command, etcd_url
from tests.testcluster.ports import LOOPBACK
from tests.testcluster.programs import feature_gates
from tests.testcluster.state import ClusterState

Component = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
COMPONENTS: tuple[Component, ...] = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""The servers, in the order in which they start."""
NODE_LOST_SECONDS = 20
"""How long a node may be silent before its pods count as lost."""


def component_command(component: Component, root: Path, state: ClusterState) -> list[str]:
    """The command line of one server."""
    match component:
        case "etcd":
            return etcd_command(state.programs, root / "etcd", state.endpoints)
        case "kube-apiserver":
            return _api_server(root, state)
        case "kube-controller-manager":
            return _controller_manager(root, state)
        case "kube-scheduler":
            port = state.endpoints.scheduler_port
            return [str(state.programs / component), *_client_of_the_api(component, root, port)]


def _api_server(root: Path, state: ClusterState) -> list[str]:
    pki, endpoints = pki_folder(root), state.endpoints
    command = [
        str(state.programs / "kube-apiserver"),
        f"--etcd-servers={etcd_url(endpoints)}",
        f"--bind-address={endpoints.address}",
        f"--secure-port={endpoints.port}",
        f"--advertise-address={endpoints.address}",
        f"--tls-cert-file={pki}/kube-apiserver.crt",
        f"--tls-private-key-file={pki}/kube-apiserver.key",
        f"--client-ca-file={pki}/{AUTHORITY}.crt",
        f"--kubelet-certificate-authority={pki}/{AUTHORITY}.crt",
        f"--kubelet-client-certificate={pki}/{KUBELET_CLIENT}.crt",
        f"--kubelet-client-key={pki}/{KUBELET_CLIENT}.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/{SERVICE_ACCOUNTS}.pub",
        f"--service-account-signing-key-file={pki}/{SERVICE_ACCOUNTS}.key",
        f"--service-cluster-ip-range={state.service_cidr}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        # Webhooks are called at their pods: this machine itself has no kube-proxy.
        "--enable-aggregator-routing=true",
        f"--requestheader-client-ca-file={pki}/{FRONT_PROXY_AUTHORITY}.crt",
        f"--requestheader-allowed-names={FRONT_PROXY_CLIENT}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/{FRONT_PROXY_CLIENT}.crt",
        f"--proxy-client-key-file={pki}/{FRONT_PROXY_CLIENT}.key",
    ]
    if gates := feature_gates(state.kubernetes):
        command.append(f"--feature-gates={','.join(f'{name}={on}' for name, on in gates.items())}")
    if endpoints.address == LOOPBACK:
        command.append("--endpoint-reconciler-type=none")  # A loopback address may not be an endpoint.
    return command


def _controller_manager(root: Path, state: ClusterState) -> list[str]:
    pki, name = pki_folder(root), "kube-controller-manager"
    return [
        str(state.programs / name),
        *_client_of_the_api(name, root, state.endpoints.controller_manager_port),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki}/{SERVICE_ACCOUNTS}.key",
        f"--root-ca-file={pki}/{AUTHORITY}.crt",
        f"--cluster-signing-cert-file={pki}/{AUTHORITY}.crt",
        f"--cluster-signing-key-file={pki}/{AUTHORITY}.key",
        "--allocate-node-cidrs=false",
        f"--node-monitor-grace-period={NODE_LOST_SECONDS}s",
    ]


def _client_of_the_api(name: str, root: Path, port: int) -> list[str]:
    kubeconfig = kubeconfig_file(root, name)
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        # There is one of each: waiting for a lease would only take time.
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
