"""etcd: its command line, and what a drill does to it."""

import base64
import http.client
import json
from pathlib import Path
from typing import Any

from tests.testcluster.errors import TestClusterError
from tests.testcluster.ports import LOOPBACK
from tests.testcluster.state import Endpoints

REQUEST_SECONDS = 30.0


def etcd_url(endpoints: Endpoints) -> str:
    """Where the API server finds etcd."""
    return f"http://{LOOPBACK}:{endpoints.etcd_port}"


def etcd_command(programs: Path, data: Path, endpoints: Endpoints) -> list[str]:
    """How etcd is started: alone, on the loopback address."""
    client, peer = etcd_url(endpoints), f"http://{LOOPBACK}:{endpoints.etcd_peer_port}"
    return [
        str(programs / "etcd"),
        "--name=etcd",
        f"--data-dir={data}",
        # A killed etcd keeps its data all the same; only a machine that loses power would lose it.
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=etcd={peer}",
    ]


def _call(endpoints: Endpoints, method: str, request: dict[str, Any]) -> dict[str, Any]:
    """One call by etcd's JSON gateway."""
    connection = http.client.HTTPConnection(LOOPBACK, endpoints.etcd_port, timeout=REQUEST_SECONDS)
    try:
        connection.request("POST", f"/v3/{method}", json.dumps(request))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise TestClusterError(f"etcd refused {method} with {response.status}: {body.decode(errors='replace')}")
    return json.loads(body)


def compact(endpoints: Endpoints) -> int:
    """Drops all history before now and returns the revision that is left; no watch can begin at an older one."""
    key = base64.b64encode(b"/registry").decode()
    revision = int(_call(endpoints, "kv/range", {"key": key})["header"]["revision"])
    _call(endpoints, "kv/compaction", {"revision": str(revision), "physical": True})
    return revision
