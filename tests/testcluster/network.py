"""The network of a cluster with nodes: a bridge on this machine, and a cable to each node."""

import fcntl
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.testcluster.commands import run
from tests.testcluster.errors import TestClusterError
from tests.testcluster.programs import cache_folder

NUMBERS = range(100, 200)
"""The networks 10.N.0.0/16 that a cluster may take."""


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster: 10.N.0.0/16."""

    number: int

    @property
    def host(self) -> str:
        """This machine, as nodes and pods see it."""
        return f"10.{self.number}.0.1"

    def node(self, index: int) -> str:
        """A node."""
        return f"10.{self.number}.0.{11 + index}"

    def pods(self, index: int) -> str:
        """The pods of a node."""
        return f"10.{self.number}.{1 + index}.0/24"

    @property
    def all_pods(self) -> str:
        """Nodes and pods: all but the Services."""
        return f"10.{self.number}.0.0/17"

    @property
    def services(self) -> str:
        """The addresses of Services."""
        return f"10.{self.number}.128.0/20"

    @property
    def kubernetes(self) -> str:
        """The Service `kubernetes`."""
        return f"10.{self.number}.128.1"

    @property
    def dns(self) -> str:
        """The Service `kube-dns`."""
        return f"10.{self.number}.128.10"


def name_prefix(root: Path) -> str:
    """What the names of a cluster's interfaces and control groups begin with; short, as an interface's name must be."""
    return "dt" + hashlib.sha256(str(root).encode()).hexdigest()[:6]


@contextmanager
def one_choice_at_a_time() -> Iterator[None]:
    """Held from choosing a network until its bridge is there for others to see."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / ".network-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_network() -> Network:
    """A network that no address and no route of this machine uses."""
    used = {int(number) for number in re.findall(r"\b10\.(\d+)\.", run("ip", "-4", "addr") + run("ip", "-4", "route"))}
    for number in NUMBERS:
        if number not in used:
            return Network(number)
    raise TestClusterError(f"None of the networks 10.{NUMBERS.start}.0.0/16 to 10.{NUMBERS.stop - 1}.0.0/16 is free.")


def create_bridge(root: Path, network: Network) -> None:
    """Makes the bridge that joins the nodes, with this machine's address on it."""
    bridge = name_prefix(root)
    run("ip", "link", "add", bridge, "type", "bridge")
    run("ip", "addr", "add", f"{network.host}/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")


def remove_interfaces(root: Path) -> None:
    """Removes the bridge and the cables of nodes that are gone."""
    prefix = name_prefix(root)
    for entry in Path("/sys/class/net").iterdir():
        if entry.name.startswith(prefix):
            # The kernel may have taken it back meanwhile, with the last process of its node.
            run("sh", "-c", 'ip link delete "$1" || ! test -e "/sys/class/net/$1"', "sh", entry.name)


def route_services(network: Network) -> None:
    """Lets this machine reach Services, through the first node."""
    run("ip", "route", "add", network.services, "via", network.node(0))
