"""The process that takes a cluster down when its owner has ended without doing so.

A test session that is killed can't clean up after itself. Its guard, a process of its own, waits for the owner's end.
"""

import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Waits for the owner's end and takes the cluster down."""
    root, owner = Path(arguments[0]), int(arguments[1])
    _wait_for_end_of_parent(owner)
    # Imported late: most guards are never needed, and this takes half a second.
    from tests.testcluster.cluster import down

    down(root)


def _wait_for_end_of_parent(parent: int) -> None:
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    # If the parent ended before the line above, its number may name another process now.
    if os.getppid() == parent:
        select.select([descriptor], [], [])
    os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
