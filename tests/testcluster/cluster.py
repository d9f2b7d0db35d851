"""Clusters: up, and down without leaving anything behind."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.testcluster import packages
from tests.testcluster.build import Report, build, report_to_terminal
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.dns import apply_dns, dns_ready
from tests.testcluster.errors import TestClusterError
from tests.testcluster.images import write_base_images
from tests.testcluster.namespaces import hierarchies, remove_control_groups
from tests.testcluster.network import (
    Network,
    create_bridge,
    free_network,
    name_prefix,
    one_choice_at_a_time,
    remove_interfaces,
    route_services,
)
from tests.testcluster.node import Node
from tests.testcluster.ports import LOOPBACK, free_ports
from tests.testcluster.processes import Processes, kill_marked
from tests.testcluster.programs import COREDNS, KUBE_ROUTER, PAUSE, Program, kubernetes
from tests.testcluster.removal import empty_root
from tests.testcluster.roots import check_usable, locked
from tests.testcluster.state import ClusterState, Endpoints, NodeState
from tests.testcluster.waiting import wait_until

API_SERVER_PORT = 6443
"""Of a cluster with nodes, whose address is its own. A control plane alone takes a free port."""
WITHOUT_NODES = Network(96)
"""Where Services have their addresses when there are no nodes, so that nothing is routed."""
READY_SECONDS = 120.0


@dataclass(frozen=True)
class NodeRequest:
    """A node to bring up."""

    name: str
    pool: str
    """Value of its label `pool`."""
    gpus: int = 4
    """Fake devices `nvidia.com/gpu` that it offers."""


TWO_POOLS = (NodeRequest("node-teacher", "teacher"), NodeRequest("node-student", "student"))
"""A node for teachers and a node for students."""


class Cluster:
    """A cluster that is up: a control plane and its nodes, if it has any."""

    def __init__(self, root: Path, state: ClusterState) -> None:
        self.root = root
        self.state = state
        self.processes = Processes(root, state)
        self.control_plane = ControlPlane(root, state, self.processes)
        self.nodes = {name: Node(root, state, node, self.processes) for name, node in state.nodes.items()}

    @classmethod
    def read(cls, root: Path) -> "Cluster":
        """The cluster that is up in `root`."""
        return cls(root.resolve(), ClusterState.load(root))

    def node(self, name: str) -> Node:
        """One node."""
        if name not in self.nodes:
            raise TestClusterError(f"There is no node {name}; there are {', '.join(self.nodes) or 'none'}.")
        return self.nodes[name]


def needed_programs(nodes: Sequence[NodeRequest], *, network_policies: bool) -> list[Program]:
    """The programs that a cluster of this form is made of."""
    return [
        kubernetes(),
        *([PAUSE, COREDNS] if nodes else []),
        *([KUBE_ROUTER] if network_policies else []),
    ]


def up(
    root: Path,
    nodes: Sequence[NodeRequest] = (),
    *,
    network_policies: bool = False,
    images: Sequence[Path] = (),
    report: Report = report_to_terminal,
) -> Cluster:
    """Brings a cluster up in `root`, where what an earlier one left is removed first. Without nodes: a control plane.

    If it doesn't come up whole, nothing of it stays.
    """
    root = root.resolve()
    check_usable(root, for_nodes=bool(nodes))
    if nodes:
        packages.check_installed()
    build(needed_programs(nodes, network_policies=network_policies), report)
    with locked(root):
        _remove_everything(root)
        try:
            return _launch(root, nodes, network_policies, images)
        except BaseException:
            _remove_everything(root)
            root.rmdir()
            raise


def down(root: Path) -> None:
    """Takes the cluster in `root` down, whole or not: no process, interface, control group or file of it stays."""
    root = root.resolve()
    check_usable(root, for_nodes=False)
    with locked(root):
        _remove_everything(root)
        root.rmdir()


def _remove_everything(root: Path) -> None:
    """Removes all that is found by its mark or its name, but the empty folder itself, which is locked."""
    kill_marked(root)
    remove_control_groups(name_prefix(root))
    remove_interfaces(root)
    empty_root(root)


def _launch(root: Path, nodes: Sequence[NodeRequest], network_policies: bool, images: Sequence[Path]) -> Cluster:
    if nodes:
        with one_choice_at_a_time():
            network = free_network()
            create_bridge(root, network)
    else:
        network = WITHOUT_NODES
    state = _new_state(root, network, nodes, network_policies=network_policies)
    state.save(root)
    cluster = Cluster(root, state)
    cluster.control_plane.launch()
    if nodes:
        _add_nodes(cluster, network, images)
    cluster.control_plane.wait_for_controllers()
    return cluster


def _new_state(root: Path, network: Network, nodes: Sequence[NodeRequest], *, network_policies: bool) -> ClusterState:
    program, ports = kubernetes(), free_ports(5)
    return ClusterState(
        kubernetes=program.version,
        programs=program.folder,
        endpoints=Endpoints(
            address=network.host if nodes else LOOPBACK,
            port=API_SERVER_PORT if nodes else ports[0],
            etcd_port=ports[1],
            etcd_peer_port=ports[2],
            controller_manager_port=ports[3],
            scheduler_port=ports[4],
        ),
        service_cidr=network.services,
        kubernetes_address=network.kubernetes,
        dns_address=network.dns,
        network=network.number if nodes else None,
        network_policies=network_policies,
        nodes={node.name: _new_node(root, network, index, node) for index, node in enumerate(nodes)},
    )


def _new_node(root: Path, network: Network, index: int, node: NodeRequest) -> NodeState:
    prefix = name_prefix(root)
    return NodeState(
        name=node.name,
        pool=node.pool,
        gpus=node.gpus,
        address=network.node(index),
        pod_cidr=network.pods(index),
        interface=f"{prefix}n{index}",
        control_groups=[str(hierarchy / f"{prefix}-{node.name}") for hierarchy in hierarchies()],
    )


def _add_nodes(cluster: Cluster, network: Network, images: Sequence[Path]) -> None:
    """Brings all nodes up side by side, and the cluster's DNS."""
    control_plane, nodes = cluster.control_plane, list(cluster.nodes.values())
    for node in nodes:
        node.create()
    route_services(network)
    archives = [*write_base_images(cluster.root / "images", PAUSE.path, COREDNS.path), *images]
    with ThreadPoolExecutor() as pool:
        applied = pool.submit(apply_dns, control_plane.kubectl(), network.dns)
        for started in [pool.submit(_start_servers, node, network, archives) for node in nodes]:
            started.result()
        applied.result()
    api = control_plane.api()
    for node in nodes:
        wait_until(f"{node.name} to be ready", lambda node=node: node.ready(api), READY_SECONDS)
        if cluster.state.network_policies:
            node.start_firewall()
    wait_until("the cluster's DNS", lambda: dns_ready(api), READY_SECONDS)


def _start_servers(node: Node, network: Network, archives: Sequence[Path]) -> None:
    node.start_runtime(archives)
    node.start_kubelet()
    node.start_proxy(network)
