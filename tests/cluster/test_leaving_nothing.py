"""Nodes touch the whole machine: nothing of them stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testcluster.cluster import Cluster, NodeRequest, down, up
from tests.testcluster.commands import run
from tests.testcluster.errors import TestClusterError
from tests.testcluster.images import BUSYBOX_IMAGE
from tests.testcluster.namespaces import KERNEL_SETTINGS, PRIVATE_FOLDERS, hierarchies
from tests.testcluster.network import name_prefix
from tests.testcluster.owned import REPOSITORY
from tests.testcluster.processes import marked_processes
from tests.testcluster.roots import check_usable

NODES = (NodeRequest("node-one", "teacher", 1), NodeRequest("node-two", "student", 1))
POD = ["run", "sleeper", f"--image={BUSYBOX_IMAGE}", "--image-pull-policy=Never", "--", "sleep", "600"]
HALF_WAY = """
import os, pathlib, signal, sys
from tests.cluster.test_leaving_nothing import NODES
from tests.testcluster import cluster
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(cluster, sys.argv[2], killed)
cluster.up(pathlib.Path(sys.argv[1]), NODES)
"""


def machine(root: Path) -> dict[str, object]:
    """What a cluster could leave on the machine."""
    prefix = name_prefix(root)
    return {
        "interfaces": sorted(name for name in os.listdir("/sys/class/net") if name.startswith(prefix)),
        "control groups": [str(group) for folder in hierarchies() for group in folder.glob(f"{prefix}-*")],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line],
        "routes": [line for line in run("ip", "-4", "route").splitlines() if prefix in line],
        "processes": marked_processes(root),
        "folders": [folder for folder in PRIVATE_FOLDERS if Path(folder).exists()],
        "settings": {setting: Path("/proc/sys", setting).read_text() for setting in KERNEL_SETTINGS},
        "packet filter": run("iptables-save").count("KUBE-"),
        "root": root.exists(),
    }


def run_a_pod(cluster: Cluster) -> None:
    kubectl = cluster.control_plane.kubectl()
    kubectl(*POD)
    kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s")


def test_down_leaves_nothing_of_nodes_and_pods(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    before = machine(root)
    cluster = up(root, NODES, network_policies=True)
    try:
        run_a_pod(cluster)
        during = machine(root)
        assert {name for name in before if before[name] != during[name]} == {
            "interfaces",
            "control groups",
            "routes",
            "processes",
            "root",
        }
    finally:
        down(root)
    assert machine(root) == before


@pytest.mark.parametrize("step", ["_new_state", "route_services", "dns_ready"])
def test_down_removes_what_an_up_that_was_killed_left(tmp_path: Path, step: str) -> None:
    root = tmp_path / "cluster"
    before = machine(root)
    killed = subprocess.run([sys.executable, "-c", HALF_WAY, str(root), step], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert machine(root) != before
    down(root)
    assert machine(root) == before


def test_two_clusters_do_not_meet(tmp_path: Path, cluster: Cluster) -> None:
    second = up(tmp_path / "second", NODES[:1])
    try:
        assert second.state.network != cluster.state.network
        run_a_pod(second)
    finally:
        down(second.root)
    run_a_pod(cluster)
    cluster.control_plane.kubectl()("delete", "pod", "sleeper", "--now")


@pytest.mark.parametrize("folder", ["/run/cluster", "/var/lib/cluster", "/var/log/cluster"])
def test_a_root_folder_that_nodes_cannot_see_is_refused(folder: str) -> None:
    with pytest.raises(TestClusterError, match="which nodes can't see"):
        check_usable(Path(folder), for_nodes=True)
