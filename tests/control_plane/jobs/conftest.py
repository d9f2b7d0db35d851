"""One control plane, played nodes and kubelets for all modules; an operator and a namespace for each."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control_plane.jobs.installation import grant_rights, install_definition
from tests.control_plane.jobs.place import Place
from tests.fixtures.api_server import ApiServer, path_of
from tests.fixtures.api_watch import World
from tests.fixtures.kubelet import Kubelet
from tests.fixtures.operator import OperatorProcess
from tests.fixtures.played_nodes import PlayedNodes
from tests.fixtures.progress_server import ProgressServer
from tests.fixtures.watched_job import RESOURCES
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.ports import free_ports


@pytest.fixture(scope="package")
def api(control_plane: ControlPlane) -> ApiServer:
    """The API server, with all rights, and the definition of DistillJobs in it."""
    return install_definition(control_plane)


@pytest.fixture(scope="package")
def operator_kubeconfig(control_plane: ControlPlane, api: ApiServer) -> Path:
    """What the operator may do: what the installation gives it, no more."""
    return grant_rights(control_plane)


@pytest.fixture(scope="package")
def world(api: ApiServer) -> Iterator[World]:
    """All that happens."""
    with World(api, RESOURCES) as world:
        yield world


@pytest.fixture(scope="package")
def progress() -> Iterator[ProgressServer]:
    """Answers `/progress` for all pods."""
    server = ProgressServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def nodes(api: ApiServer) -> Iterator[PlayedNodes]:
    """A node for each pool, with more GPUs than anybody wants."""
    nodes = PlayedNodes(api)
    nodes.start()
    nodes.add("played-teacher", {"pool": "teacher"})
    nodes.add("played-student", {"pool": "student"})
    yield nodes
    nodes.remove_all()


@pytest.fixture(scope="package")
def kubelet(api: ApiServer, nodes: PlayedNodes, progress: ProgressServer) -> Iterator[Kubelet]:
    """Plays the kubelets."""
    kubelet = Kubelet(api, nodes, progress)
    kubelet.start()
    yield kubelet
    kubelet.stop()


@pytest.fixture(scope="module")
def make_place(api: ApiServer, world: World, kubelet: Kubelet) -> Iterator[Callable[[], Place]]:
    """Makes namespaces in which pods must be `restricted`."""
    made: list[str] = []

    def make() -> Place:
        name = f"jobs-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        api.create(path_of("namespaces"), manifest)
        made.append(name)
        return Place(api, world, kubelet, name)

    yield make
    for name in made:
        api.delete(path_of("namespaces", name=name))


@pytest.fixture(scope="module")
def place(make_place: Callable[[], Place]) -> Place:
    """The module's namespace."""
    return make_place()


@pytest.fixture(scope="package")
def settings(progress: ProgressServer) -> dict[str, object]:
    """The operator's configuration: the usual one but for what makes tests slow."""
    return {
        "runtimeImage": "registry.example/runtime:1",
        "progressPort": progress.port,
        "progressSeconds": 0.5,
        # Two thirds of it must be enough for a busy machine.
        "leaderElection": {"leaseSeconds": 9, "renewSeconds": 2},
    }


@pytest.fixture(scope="module")
def start_operator(
    operator_kubeconfig: Path, settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts operators, with changes to the usual configuration; those that run at the end are ended."""
    started: list[OperatorProcess] = []

    def start(
        *, kubeconfig: Path = operator_kubeconfig, environment: dict[str, str] | None = None, **changes: object
    ) -> OperatorProcess:
        folder = tmp_path_factory.mktemp("operator")
        metrics_port, probe_port = free_ports(2)
        ports = {"metricsPort": metrics_port, "probePort": probe_port}
        operator = OperatorProcess.start(folder, kubeconfig, {**settings, **ports, **changes}, environment)
        started.append(operator)
        return operator

    yield start
    for operator in started:
        operator.stop()


@pytest.fixture(scope="module")
def operator(start_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    """The module's operator."""
    return start_operator()
