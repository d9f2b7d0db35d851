"""Tests on nodes: their control plane is that of the cluster with nodes."""

from collections.abc import Iterator

import pytest

from tests.cluster.platform import Platform
from tests.cluster.platform import platform as make_platform
from tests.fixtures.kubernetes import report_in
from tests.testcluster.cluster import Cluster
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.dockerfile import ImageArchive
from tests.testcluster.runtime_environment import install_packages


@pytest.fixture(scope="session")
def control_plane(cluster: Cluster) -> ControlPlane:
    """The control plane of the cluster, so that `kubectl` and `namespace` are in it."""
    return cluster.control_plane


@pytest.fixture(scope="session")
def platform(cluster: Cluster, operator_image: ImageArchive, pytestconfig: pytest.Config) -> Iterator[Platform]:
    """The cluster with the operator, a store, and namespaces in which jobs can run."""
    packages = install_packages(report_in(pytestconfig))
    with make_platform(cluster, operator_image.path, operator_image.name, packages) as made:
        yield made
