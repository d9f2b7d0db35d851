"""What nodes and the building of images need from the operating system."""

import os
import subprocess
from collections.abc import Sequence

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
IMAGE_PACKAGES = ("debootstrap", "podman", "runc", "util-linux")
"""Those with which images are built from the Dockerfile, and run without a node."""
ROOT_USER = 0


def check_installed() -> None:
    """Refuses to go on where nodes can't come up: not root, or a package is missing."""
    if os.geteuid() != ROOT_USER:
        raise TestClusterError("Nodes need root: run this as root, or bring up the control plane alone.")
    _check("Nodes need", PACKAGES)


def check_image_builder_installed() -> None:
    """Refuses to go on where images can't be built: not root, or a package is missing."""
    if os.geteuid() != ROOT_USER:
        raise TestClusterError("Building images needs root: run this as root.")
    _check("Building images needs", IMAGE_PACKAGES)


def _check(who_needs: str, packages: Sequence[str]) -> None:
    missing = [package for package in packages if not _installed(package, who_needs)]
    if missing:
        raise TestClusterError(
            f"{who_needs} Debian packages that are missing: install them with `apt-get install {' '.join(missing)}`."
        )


def _installed(package: str, who_needs: str) -> bool:
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise TestClusterError(f"{who_needs} Debian or a system made from it: there is no dpkg-query here.") from None
    return answer.stdout == "installed"
