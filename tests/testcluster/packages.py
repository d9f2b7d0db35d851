"""What nodes need from the operating system."""

import os
import subprocess

from tests.testcluster.errors import TestClusterError

PACKAGES = (
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "ipset",
    "iproute2",
    "iptables",
    "nftables",
    "procps",
    "runc",
    "util-linux",
)
"""Debian packages with the programs that a node starts."""
ROOT_USER = 0


def check_installed() -> None:
    """Refuses to go on where nodes can't come up: not root, or a package is missing."""
    if os.geteuid() != ROOT_USER:
        raise TestClusterError("Nodes need root: run this as root, or bring up the control plane alone.")
    missing = [package for package in PACKAGES if not _installed(package)]
    if missing:
        raise TestClusterError(
            f"Nodes need Debian packages that are missing: install them with `apt-get install {' '.join(missing)}`."
        )


def _installed(package: str) -> bool:
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise TestClusterError("Nodes need Debian or a system made from it: there is no dpkg-query here.") from None
    return answer.stdout == "installed"
