"""A running job is reached by its own pods and by the operator, and by nobody else."""

import json
from collections.abc import Iterable, Iterator

import pytest

from distill_operator.constants import MASTER_PORT, PROGRESS_PORT
from tests.cluster.jobs.team import BOTH_HALVES_LONG, Team, TeamJob
from tests.cluster.platform import RELEASE, Platform
from tests.cluster.test_nodes import PORT as STRANGERS_PORT
from tests.cluster.test_nodes import pod_spec
from tests.fixtures.api_server import Object
from tests.testcluster.kubectl import Kubectl

CONNECT_SECONDS = 3
CONNECT = f"""
import concurrent.futures, socket, sys
def reaches(port):
    try:
        socket.create_connection((sys.argv[1], port), timeout={CONNECT_SECONDS}).close()
    except OSError:
        return False
    return True
ports = [int(word) for word in sys.argv[2:]]
with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
    print(*(port for port, found in zip(ports, pool.map(reaches, ports)) if found))
"""
CONNECT_IN_SHELL = f"""
address=$1; shift
for port in "$@"; do nc -w {CONNECT_SECONDS} "$address" "$port" </dev/null >/dev/null 2>&1 && echo "$port" & done
wait
"""
"""Both print the ports that they reach, of an address and ports."""
RESOLVE = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
OPEN_PORTS = """
import json, pathlib
ports = set()
for table in ("tcp", "tcp6"):
    for line in pathlib.Path("/proc/net", table).read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        loopback = address == "0100007F" or address == "0" * 24 + "01000000"
        if line.split()[3] == "0A" and not loopback:
            ports.add(int(port, 16))
print(json.dumps(sorted(ports)))
"""
"""Prints the ports on which somebody listens in the pod, for more than the pod itself."""
STRANGER = "stranger"
STEPS = 500
"""The job must run on while everybody tries to reach it, on a busy machine too."""


class Caller:
    """A pod that tries to reach others."""

    def __init__(self, kubectl: Kubectl, namespace: str, pod: str, *, python: bool) -> None:
        self._kubectl = kubectl
        self._prefix = ("exec", pod, "-n", namespace, "--")
        self._python = python

    def reached(self, address: str, ports: Iterable[int]) -> set[int]:
        """Those of the ports to which a connection is made; all are tried at once, each for `CONNECT_SECONDS`."""
        numbers = [str(port) for port in ports]
        command = ["python", "-c", CONNECT] if self._python else ["sh", "-c", CONNECT_IN_SHELL, "sh"]
        return {int(word) for word in self._kubectl(*self._prefix, *command, address, *numbers).split()}

    def reaches(self, address: str, port: int) -> bool:
        """Whether a connection is made."""
        return self.reached(address, [port]) == {port}

    def address_of(self, name: str) -> str:
        """What the cluster's DNS says of a name."""
        return self._kubectl(*self._prefix, "python", "-c", RESOLVE, name).strip()

    def open_ports(self) -> list[int]:
        """Ports that others could reach."""
        return json.loads(self._kubectl(*self._prefix, "python", "-c", OPEN_PORTS))


@pytest.fixture(scope="module")
def job(team: Team) -> TeamJob:
    """A job whose halves both run, for a while."""
    job = team.job("guarded").start("network-policies", BOTH_HALVES_LONG, {"training": {"steps": STEPS}})
    job.wait_for_both_halves()
    return job


@pytest.fixture(scope="module")
def strangers(stocked: Platform, team: Team) -> Iterator[list[Caller]]:
    """Pods of another namespace and of the job's own, on both nodes. They reach each other, so they can connect."""
    kubectl = stocked.kubectl
    other = stocked.make_namespace("strangers")
    callers: list[Caller] = []
    for namespace in (team.namespace, other):
        for pool in ("teacher", "student"):
            name = f"{STRANGER}-{pool}"
            kubectl.create(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec(pool)}, "-n", namespace
            )
            kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s", "-n", namespace)
            callers.append(Caller(kubectl, namespace, name, python=False))
    address = kubectl.json("get", "pod", f"{STRANGER}-student", "-n", other)["status"]["podIP"]
    assert all(caller.reaches(address, STRANGERS_PORT) for caller in callers)
    yield callers
    stocked.remove_namespace(other)


def test_a_running_job_is_reached_by_its_own_pods_and_the_operator_alone(
    stocked: Platform, strangers: list[Caller], job: TeamJob
) -> None:
    pods = {pod["metadata"]["name"]: pod for pod in job.pods()}
    own = {name: Caller(stocked.kubectl, job.namespace, name, python=True) for name in pods}
    first, second = f"{job.name}-student-0", f"{job.name}-student-1"
    (teacher,) = pods.keys() - {first, second}
    for name in (teacher, first, second):
        check_reaches_what_it_needs(stocked, own[name], pods, first)
    ports = {name: own[name].open_ports() for name in pods}
    assert {PROGRESS_PORT, MASTER_PORT} <= set(ports[first])
    assert PROGRESS_PORT in ports[teacher]
    check_operator(stocked, job, pods, first)
    reached = [
        (name, port)
        for stranger in strangers
        for name in pods
        for port in stranger.reached(pods[name]["status"]["podIP"], ports[name])
    ]
    assert reached == []
    assert {pod["metadata"]["uid"] for pod in pods.values()} == job.uids(), "the same pods ran all the time"
    job.wait_for_phase("Succeeded")
    assert job.status["attempt"]["number"] == 1


def check_reaches_what_it_needs(platform: Platform, caller: Caller, pods: dict[str, Object], first: str) -> None:
    """A pod of the job: all other pods' progress, the rendezvous, DNS and the store."""
    for pod in pods.values():
        assert caller.reaches(pod["status"]["podIP"], PROGRESS_PORT)
    full_name = f"{first}.{first.removesuffix('-0')}"
    assert caller.address_of(full_name) == pods[first]["status"]["podIP"]
    assert caller.reaches(full_name, MASTER_PORT)
    host, _, port = platform.store.endpoint.removeprefix("http://").partition(":")
    assert caller.reaches(host, int(port))


def check_operator(platform: Platform, job: TeamJob, pods: dict[str, Object], first: str) -> None:
    """The operator reads the progress of all pods, and reaches no other port."""
    (pod,) = platform.kubectl.json("get", "pods", "-n", RELEASE)["items"]
    operator = Caller(platform.kubectl, RELEASE, pod["metadata"]["name"], python=True)
    assert all(operator.reaches(pod["status"]["podIP"], PROGRESS_PORT) for pod in pods.values())
    assert not operator.reaches(pods[first]["status"]["podIP"], MASTER_PORT)
    job.wait("a step", lambda: job.status["progress"].get("step", 0) > 0)
