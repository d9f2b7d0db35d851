"""What is written down about a cluster that is up, so that other processes can use it and take it down."""

import os
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tests.testcluster.errors import TestClusterError

STATE_FILE = "state.json"
FRESH_SUFFIX = ".new"
"""Of the file that takes the place of the state once it is whole."""
state_lock = threading.RLock()
"""Held while the state is changed and written: nodes come up in threads."""


class Record(BaseModel):
    """A part of the state."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ProcessRecord(Record):
    """A server that was started."""

    pid: int
    start_ticks: int | None
    """Tells the process from a later one with the same number. None: it had ended before one could look."""


class NodeState(Record):
    """One node."""

    name: str
    pool: str
    """Value of its label `pool`."""
    gpus: int
    """Fake devices that it offers."""
    address: str
    pod_cidr: str
    interface: str
    """The host's end of its cable."""
    control_groups: list[str]
    """Its folder in each hierarchy of control groups."""
    holder: int | None = None
    """The process that holds its namespaces."""


class Endpoints(Record):
    """Where the servers of the control plane listen."""

    address: str
    """Of the API server."""
    port: int
    """Of the API server."""
    etcd_port: int
    etcd_peer_port: int
    controller_manager_port: int
    scheduler_port: int


class ClusterState(Record):
    """One cluster."""

    kubernetes: str
    """Kubernetes' version, as in `v1.37.2`."""
    programs: Path
    """The folder with Kubernetes' programs."""
    endpoints: Endpoints
    service_cidr: str
    kubernetes_address: str
    """Of the Service `kubernetes`."""
    dns_address: str
    """Of the Service `kube-dns`."""
    network: int | None = None
    """N where the cluster has the network 10.N.0.0/16; None for a control plane alone."""
    network_policies: bool = False
    """Whether NetworkPolicies are enforced."""
    nodes: dict[str, NodeState] = {}
    processes: dict[str, ProcessRecord] = {}

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.endpoints.address}:{self.endpoints.port}"

    def save(self, root: Path) -> None:
        """Writes the state; a reader sees the old one or the new one, whole."""
        with state_lock:
            fresh = root / (STATE_FILE + FRESH_SUFFIX)
            fresh.write_text(self.model_dump_json(indent=1))
            os.replace(fresh, root / STATE_FILE)

    @classmethod
    def load(cls, root: Path) -> "ClusterState":
        """Reads the state of the cluster in `root`."""
        try:
            return cls.model_validate_json((root / STATE_FILE).read_bytes())
        except FileNotFoundError:
            raise TestClusterError(f"No cluster is up in {root}: start one with `make cluster`.") from None
        except ValidationError as error:
            raise TestClusterError(f"{root / STATE_FILE} is not the state of a test cluster: {error}") from error
