"""A node of a cluster: its namespaces, its servers, and what drills do to it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.testcluster.api import AdminApi
from tests.testcluster.commands import run
from tests.testcluster.container_runtime import containerd_configuration, network_configuration
from tests.testcluster.credentials import ADMIN, kubeconfig_file
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubelet import kubelet_configuration, proxy_configuration
from tests.testcluster.namespaces import create_control_group, holder_command, in_control_groups, inside, kill_members
from tests.testcluster.network import Network, name_prefix
from tests.testcluster.processes import Processes
from tests.testcluster.programs import KUBE_ROUTER
from tests.testcluster.state import ClusterState, NodeState
from tests.testcluster.waiting import wait_until

GPU_RESOURCE = "nvidia.com/gpu"
PODS = "kubepods"
"""kubelet's own control group for all pods, below the node's."""
NAMESPACES_SECONDS = 10.0
RUNTIME_SECONDS = 60.0


class Node:
    """One node of the cluster in `root`."""

    def __init__(self, root: Path, state: ClusterState, node: NodeState, processes: Processes) -> None:
        self.name = node.name
        self._root = root
        self._cluster = state
        self._state = node
        self._processes = processes
        self.home = root / "nodes" / node.name
        """Folder with the node's files; its /var/log and /var/lib/kubelet are below."""

    @property
    def _holder(self) -> int:
        if self._state.holder is None:
            raise TestClusterError(f"{self.name} is not up.")
        return self._state.holder

    def _server(self, server: str) -> str:
        return f"{server}-{self.name}"

    def _start(self, server: str, command: Sequence[str]) -> None:
        wrapped = in_control_groups(self._state.control_groups, inside(self._holder, command))
        self._processes.start(self._server(server), wrapped)

    def create(self) -> None:
        """Makes the node's control groups and namespaces, and lays the cable to this machine."""
        self.home.mkdir(parents=True)
        for group in self._state.control_groups:
            create_control_group(Path(group))
        holder = self._server("holder")
        pid = self._processes.start(holder, in_control_groups(self._state.control_groups, holder_command(self.home)))
        held = self.home / "held"
        wait_until(
            f"the namespaces of {self.name}",
            lambda: self._processes.check_alive(holder) and held.exists(),
            NAMESPACES_SECONDS,
        )
        self._state.holder = pid
        self._lay_cable()

    def _lay_cable(self) -> None:
        """Connects the node to the bridge. The host and the other nodes reach its pods through it."""
        cable, holder = self._state.interface, str(self._holder)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", holder)
        run("ip", "link", "set", cable, "master", name_prefix(self._root), "up")
        self.run("ip", "addr", "add", f"{self._state.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "unreachable", "default")
        # Any way will do: kube-proxy writes another address in before it is taken.
        self.run("ip", "route", "add", self._cluster.service_cidr, "via", self._cluster.endpoints.address)
        for other in self._cluster.nodes.values():
            if other.name != self.name:
                self.run("ip", "route", "add", other.pod_cidr, "via", other.address)
        run("ip", "route", "add", self._state.pod_cidr, "via", self._state.address)

    def run(self, *command: str) -> str:
        """Runs a command in the node's namespaces and returns what it wrote."""
        return run(*inside(self._holder, command))

    def shell(self, command: Sequence[str]) -> int:
        """Runs a command in the node's namespaces, with this process's terminal, and returns its exit code."""
        return subprocess.run(inside(self._holder, command), check=False).returncode

    def start_runtime(self, images: Sequence[Path]) -> None:
        """Starts containerd and makes images known to it."""
        (self.home / "cni").mkdir()
        (self.home / "cni" / "10-pods.conflist").write_text(network_configuration(self._state))
        (self.home / "containerd.toml").write_text(containerd_configuration(self.home))
        self._start("containerd", ["containerd", "--config", str(self.home / "containerd.toml")])
        wait_until(f"containerd on {self.name}", self._runtime_answers, RUNTIME_SECONDS, every=0.1)
        self.load_images(images)

    def _runtime_answers(self) -> bool:
        self._processes.check_alive(self._server("containerd"))
        asked = inside(self._holder, ["ctr", "version"])
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def load_images(self, archives: Sequence[Path]) -> None:
        """Makes the images of archives in `docker save`'s format known to the node."""
        for archive in archives:
            self.run("ctr", "--namespace", "k8s.io", "images", "import", str(archive.resolve()))

    def start_kubelet(self) -> None:
        """Starts kubelet, and the plugin that offers the fake GPUs. Nothing happens where it runs."""
        if self._processes.alive(self._server("kubelet")):
            return
        configuration = self.home / "kubelet.json"
        configuration.write_text(kubelet_configuration(self._root, self.home, self._cluster, self._state))
        command = [
            str(self._cluster.programs / "kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={kubeconfig_file(self._root, self.name)}",
            f"--hostname-override={self.name}",
            f"--node-ip={self._state.address}",
            f"--node-labels=pool={self._state.pool}",
        ]
        self._start("kubelet", command)
        if self._state.gpus and not self._processes.alive(self._server("fake-gpu")):
            self._start_fake_gpus()

    def _start_fake_gpus(self) -> None:
        self.set_unhealthy_gpus([])
        command = [str(self._cluster.programs / "kube"), "fake-gpu", f"-count={self._state.gpus}"]
        self._start("fake-gpu", [*command, f"-unhealthy={self._unhealthy}"])

    @property
    def _unhealthy(self) -> Path:
        return self.home / "unhealthy"

    def set_unhealthy_gpus(self, devices: Sequence[str]) -> None:
        """Makes the devices `gpu0`, `gpu1`, … (or `all`) unhealthy, and all others healthy."""
        self._unhealthy.write_text(" ".join(devices))

    def stop_kubelet(self) -> None:
        """Kills kubelet: its pods run on, and the cluster takes the node for lost after a while."""
        self._processes.stop(self._server("kubelet"))

    def crash(self) -> None:
        """Kills kubelet and all containers at once, as a power cut does. `start_kubelet` lets the node come back."""
        self.stop_kubelet()
        kill_members([Path(group) / PODS for group in self._state.control_groups])

    def cut(self, other: "Node") -> None:
        """Lets no packet pass from this node's pods to those of another one, nor back."""
        self.run("ip", "route", "replace", "unreachable", other.pod_cidr)

    def mend(self, other: "Node") -> None:
        """Undoes a cut."""
        self.run("ip", "route", "replace", other.pod_cidr, "via", other.address)

    @property
    def pod_cidr(self) -> str:
        """Addresses of its pods."""
        return self._state.pod_cidr

    @property
    def address(self) -> str:
        """Its own address."""
        return self._state.address

    def disconnect(self) -> None:
        """Pulls the node's cable."""
        run("ip", "link", "set", self._state.interface, "down")

    def connect(self) -> None:
        """Puts the node's cable back in."""
        run("ip", "link", "set", self._state.interface, "up")

    def start_proxy(self, network: Network) -> None:
        """Starts kube-proxy."""
        configuration = self.home / "kube-proxy.json"
        configuration.write_text(proxy_configuration(self._root, self._state, network))
        self._start("kube-proxy", [str(self._cluster.programs / "kube-proxy"), f"--config={configuration}"])

    def start_firewall(self) -> None:
        """Starts kube-router, only to enforce NetworkPolicies. The node must be registered."""
        command = [
            str(KUBE_ROUTER.path),
            f"--kubeconfig={kubeconfig_file(self._root, ADMIN)}",
            f"--hostname-override={self.name}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            f"--service-cluster-ip-range={self._cluster.service_cidr}",
            "--iptables-sync-period=30s",
            "--health-port=0",
            "--metrics-port=0",
        ]
        self._start("kube-router", command)

    def ready(self, api: AdminApi) -> bool:
        """Whether the node is ready and offers all of its devices; an error if one of its servers has ended."""
        self._processes.check_alive(*(self._server(server) for server in ("containerd", "kubelet", "kube-proxy")))
        found = api.read(f"/api/v1/nodes/{self.name}")
        if found is None:
            return False
        conditions = {condition["type"]: condition["status"] for condition in found["status"].get("conditions", [])}
        devices = int(found["status"].get("allocatable", {}).get(GPU_RESOURCE, 0))
        return conditions.get("Ready") == "True" and devices == self._state.gpus
