"""Ports for servers on this machine."""

import random
import socket

from tests.testcluster.errors import TestClusterError

LOOPBACK = "127.0.0.1"
SERVER_PORTS = range(20000, 30000)
"""Below the ports that Linux gives to outgoing connections (from 32768): a server that is stopped for a drill finds its
port free when it comes back."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all different."""
    found: list[int] = []
    for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)):
        with socket.socket() as candidate:
            try:
                candidate.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise TestClusterError(f"Fewer than {count} ports of {SERVER_PORTS.start} to {SERVER_PORTS.stop} are free.")
