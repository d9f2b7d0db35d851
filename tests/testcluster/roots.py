"""The root folders of clusters: one user at a time, and names that say which process a cluster belongs to."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testcluster.errors import TestClusterError
from tests.testcluster.processes import start_ticks
from tests.testcluster.state import FRESH_SUFFIX, STATE_FILE

HIDDEN_BY_NODES = (Path("/run"), Path("/var/lib"), Path("/var/log"))
"""Nodes have folders of their own here, so that a root folder below would be out of their sight."""


def default_root() -> Path:
    """Where a cluster is when nobody says otherwise."""
    return Path(tempfile.gettempdir()) / _prefix()


def _prefix() -> str:
    return f"distill-testcluster-{os.getuid()}"


def new_owned_root() -> Path:
    """Makes a root folder whose name tells the process that it belongs to."""
    owner = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"{_prefix()}-{owner}-{start_ticks(owner)}-"))


def dead_roots() -> list[Path]:
    """Root folders of this user's whose owners have ended."""
    return [root for root in Path(tempfile.gettempdir()).glob(f"{_prefix()}-*-*-*") if not _owner_lives(root)]


def _owner_lives(root: Path) -> bool:
    pid, ticks = root.name.removeprefix(f"{_prefix()}-").split("-")[:2]
    return start_ticks(int(pid)) == int(ticks)


def check_usable(root: Path, *, for_nodes: bool) -> None:
    """Refuses a root folder that holds other files or that nodes couldn't see."""
    unfinished = {STATE_FILE + FRESH_SUFFIX}
    names = {entry.name for entry in root.iterdir()} if root.exists() else set[str]()
    if names - unfinished and STATE_FILE not in names:
        raise TestClusterError(f"{root} holds files that are not a test cluster's: choose an empty folder.")
    hidden = [folder for folder in HIDDEN_BY_NODES if root.resolve().is_relative_to(folder)]
    if for_nodes and hidden:
        raise TestClusterError(f"{root} is below {hidden[0]}, which nodes can't see: choose a folder elsewhere.")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Holds the lock of a root folder, which is made if need be: clusters come up and go down one process at a time."""
    while True:
        root.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # Removed between the two lines by the one who had the lock.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink > 0:
                yield
                return
        finally:
            os.close(descriptor)
