"""The keys, certificates and kubeconfigs that the servers of a cluster start with."""

from pathlib import Path

from tests.testcluster.kubeconfig import write_kubeconfig
from tests.testcluster.pki import Authority, KeyPair, write_signing_key
from tests.testcluster.ports import LOOPBACK
from tests.testcluster.state import ClusterState

AUTHORITY = "ca"
FRONT_PROXY_AUTHORITY = "front-proxy-ca"
FRONT_PROXY_CLIENT = "front-proxy-client"
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
SERVICE_ACCOUNTS = "service-accounts"
"""Name of the key that signs the tokens of service accounts."""
ADMIN = "admin"
SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


def pki_folder(root: Path) -> Path:
    """Where keys and certificates are."""
    return root / "pki"


def kubeconfig_file(root: Path, name: str) -> Path:
    """The kubeconfig of a server, of the admin or of a user."""
    return root / "kubeconfigs" / f"{name}.yaml"


def write_credentials(root: Path, state: ClusterState) -> None:
    """Makes all that the servers of a new cluster need."""
    folder = pki_folder(root)
    folder.mkdir()
    authority, front_proxy = Authority.create(AUTHORITY), Authority.create(FRONT_PROXY_AUTHORITY)
    authority.key_pair().write(folder, AUTHORITY)
    front_proxy.key_pair().write(folder, FRONT_PROXY_AUTHORITY)
    front_proxy.issue(FRONT_PROXY_CLIENT).write(folder, FRONT_PROXY_CLIENT)
    write_signing_key(folder, SERVICE_ACCOUNTS)
    addresses = sorted({LOOPBACK, state.endpoints.address, state.kubernetes_address})
    server = authority.issue("kube-apiserver", dns_names=SERVER_NAMES, addresses=addresses)
    server.write(folder, "kube-apiserver")
    authority.issue(KUBELET_CLIENT).write(folder, KUBELET_CLIENT)
    admin = authority.issue(ADMIN, organizations=["system:masters"])
    admin.write(folder, ADMIN)
    _write_kubeconfig(root, state, ADMIN, ADMIN, admin)
    for component in ("kube-controller-manager", "kube-scheduler", *(["kube-proxy"] if state.nodes else [])):
        write_user(root, state, component, user=f"system:{component}")
    for node in state.nodes.values():
        user = f"system:node:{node.name}"
        credentials = authority.issue(
            user, organizations=["system:nodes"], dns_names=[node.name], addresses=[node.address]
        )
        credentials.write(folder, node.name)
        _write_kubeconfig(root, state, node.name, user, credentials)


def write_user(root: Path, state: ClusterState, name: str, *, user: str, groups: list[str] | None = None) -> Path:
    """Makes a client certificate for a user in groups, and returns a kubeconfig with it."""
    credentials = Authority.read(pki_folder(root), AUTHORITY).issue(user, organizations=groups or [])
    return _write_kubeconfig(root, state, name, user, credentials)


def _write_kubeconfig(root: Path, state: ClusterState, name: str, user: str, credentials: KeyPair) -> Path:
    path = kubeconfig_file(root, name)
    write_kubeconfig(
        path,
        server=state.server,
        authority=(pki_folder(root) / f"{AUTHORITY}.crt").read_bytes(),
        user=user,
        credentials=credentials,
    )
    return path
