"""Tests on nodes: their control plane is that of the cluster with nodes."""

import pytest

from tests.testcluster.cluster import Cluster
from tests.testcluster.control_plane import ControlPlane


@pytest.fixture(scope="session")
def control_plane(cluster: Cluster) -> ControlPlane:
    """The control plane of the cluster, so that `kubectl` and `namespace` are in it."""
    return cluster.control_plane
