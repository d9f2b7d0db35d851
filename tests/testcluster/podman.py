"""podman, which needs no daemon, with a storage of its own in the user's cache folder."""

import resource
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from subprocess import run as run_program

from tests.testcluster.commands import run
from tests.testcluster.programs import cache_folder

OVERLAY, COPIES = "overlay", "vfs"
"""Drivers of the storage: layers on top of each other, or a whole copy for each."""
LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 65536), "nproc": (resource.RLIMIT_NPROC, 32768)}
"""What a container may have at most, where this machine's own limits aren't lower."""


def image_folder() -> Path:
    """Where images, their layers and the logs of their builds are kept."""
    return cache_folder() / "images"


def podman(*arguments: str) -> str:
    """Runs podman to its end and returns what it wrote."""
    return run(*podman_command(*arguments))


def podman_command(*arguments: str) -> list[str]:
    """The command line of a podman that knows our images alone."""
    return _command(_storage_driver(), arguments)


@cache
def _storage_driver() -> str:
    """`vfs` where the cache folder can't hold overlays, as in a container whose own root is one."""
    asked = run_program(_command(OVERLAY, ["info"]), capture_output=True, check=False)
    return COPIES if asked.returncode else OVERLAY


def _command(driver: str, arguments: Sequence[str]) -> list[str]:
    folder = image_folder() / driver
    return [
        "podman",
        *("--storage-driver", driver),
        *("--root", str(folder / "storage")),
        *("--runroot", str(folder / "run")),
        *("--tmpdir", str(folder / "tmp")),
        # What podman takes otherwise is systemd's, or can't do without version 2 of control groups.
        *("--cgroup-manager", "cgroupfs"),
        *("--events-backend", "none"),
        *("--runtime", "runc"),
        *arguments,
    ]


def limits() -> list[str]:
    """Arguments for limits that this machine grants: podman asks for more than root may have in some sandboxes."""
    found: list[str] = []
    for name, (number, most) in LIMITS.items():
        hard = resource.getrlimit(number)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
        found += ["--ulimit", f"{name}={limit}:{limit}"]
    return found
