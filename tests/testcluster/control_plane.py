"""The control plane of a cluster: etcd, API server, controller manager and scheduler."""

import hashlib
import signal
from collections.abc import Iterable
from pathlib import Path

from tests.testcluster import etcd
from tests.testcluster.api import AdminApi
from tests.testcluster.components import COMPONENTS, Component, component_command
from tests.testcluster.credentials import ADMIN, kubeconfig_file, write_credentials, write_user
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.processes import Processes
from tests.testcluster.state import ClusterState
from tests.testcluster.waiting import wait_until

START_SECONDS = 120.0
DEFAULT_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


class ControlPlane:
    """The control plane of the cluster in `root`: what its users need, and what drills do to it."""

    def __init__(self, root: Path, state: ClusterState, processes: Processes) -> None:
        self.root = root
        self.state = state
        self.processes = processes

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a user who may do everything."""
        return kubeconfig_file(self.root, ADMIN)

    def kubeconfig_for(self, user: str, *, groups: Iterable[str] = ()) -> Path:
        """The kubeconfig of a user in groups, who may do what RBAC says."""
        members = sorted(set(groups))
        # A user's name may hold what a file's name may not.
        name = hashlib.sha256("\0".join([user, *members]).encode()).hexdigest()[:16]
        return write_user(self.root, self.state, f"user-{name}", user=user, groups=members)

    def kubectl(self, kubeconfig: Path | None = None) -> Kubectl:
        """kubectl as the admin, or as the user of a kubeconfig."""
        return Kubectl(self.state.programs / "kubectl", kubeconfig or self.kubeconfig, self.root)

    def api(self) -> AdminApi:
        """Reads from the API server as the admin."""
        return AdminApi(self.root, self.state)

    def launch(self) -> None:
        """Starts a new control plane, until the API server is ready and the others have been started."""
        self.start("etcd")
        write_credentials(self.root, self.state)
        for component in COMPONENTS[1:]:
            self.start(component)

    def wait_for_controllers(self) -> None:
        """Waits until the controllers work: namespaces get their default service account."""

        def there() -> bool:
            self.processes.check_alive(*COMPONENTS)
            return self.api().read(DEFAULT_SERVICE_ACCOUNT) is not None

        wait_until("the default service account", there, START_SECONDS)

    def start(self, component: Component) -> None:
        """Starts one server, at the address and with the data it had; of the API server it waits until it is ready."""
        self.processes.start(component, component_command(component, self.root, self.state))
        if component == "kube-apiserver":
            self._wait_for_api_server()

    def _wait_for_api_server(self) -> None:
        api = self.api()
        wait_until(
            "the API server",
            lambda: self.processes.check_alive("etcd", "kube-apiserver") and api.ready(),
            START_SECONDS,
        )

    def stop(self, component: Component) -> None:
        """Kills one server; its data stays. Connections break off at once."""
        self.processes.stop(component)

    def pause(self, component: Component) -> None:
        """Freezes one server: connections stay open and nobody answers. Resumed before anything else is done to it."""
        self.processes.send(component, signal.SIGSTOP)

    def resume(self, component: Component) -> None:
        """Lets a frozen server go on."""
        self.processes.send(component, signal.SIGCONT)

    def compact_etcd(self) -> int:
        """Drops the history of all objects; a watch from before then is refused. Returns the revision that is left.

        The API server goes on answering from its own cache: stop it, compact and start it again to see a refusal.
        """
        return etcd.compact(self.state.endpoints)
