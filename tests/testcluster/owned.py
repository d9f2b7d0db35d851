"""Clusters that belong to a process, such as a test session, and end with it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.testcluster.build import Report, report_to_terminal
from tests.testcluster.cluster import Cluster, NodeRequest, down, up
from tests.testcluster.roots import dead_roots, new_owned_root

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def owned_cluster(
    nodes: Sequence[NodeRequest] = (), *, network_policies: bool = False, report: Report = report_to_terminal
) -> Iterator[Cluster]:
    """A cluster in a folder of its own that is gone after the block, or when this process is killed in it.

    What earlier processes left, because they were killed together with their guards, is removed first.
    """
    for root in dead_roots():
        down(root)
    root = new_owned_root()
    with _guarded(root):
        yield up(root, nodes, network_policies=network_policies, report=report)


@contextmanager
def _guarded(root: Path) -> Iterator[None]:
    guard = subprocess.Popen(
        [sys.executable, "-m", "tests.testcluster.guard", str(root), str(os.getpid())],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        down(root)
        guard.kill()
        guard.wait()
