import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testcluster.cluster import Cluster, down, up
from tests.testcluster.errors import TestClusterError
from tests.testcluster.owned import REPOSITORY, owned_cluster
from tests.testcluster.processes import marked_processes
from tests.testcluster.roots import dead_roots
from tests.testcluster.waiting import wait_until

SERVERS = 4
GONE_SECONDS = 60.0
OWNER = """
import sys, time
from tests.testcluster.owned import owned_cluster
with owned_cluster() as cluster:
    print(cluster.root, flush=True)
    time.sleep(600)
"""
HALF_WAY = """
import os, pathlib, signal, sys
from tests.testcluster import control_plane
from tests.testcluster.cluster import up
def killed(self):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(control_plane.ControlPlane, sys.argv[2], killed)
up(pathlib.Path(sys.argv[1]))
"""


def start_owner() -> tuple[subprocess.Popen[str], Path]:
    """A process that owns a cluster, as a test session does."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    root = owner.stdout.readline().strip()
    assert root, "the owner's cluster did not come up"
    return owner, Path(root)


def guards(root: Path) -> list[int]:
    """The processes that wait for the end of a cluster's owner."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"tests.testcluster.guard" in arguments and str(root).encode() in arguments:
            found.append(int(folder.name))
    return found


def gone(root: Path) -> bool:
    return not root.exists() and not marked_processes(root)


def test_down_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    cluster = up(root)
    cluster.control_plane.kubectl()("get", "namespaces")
    assert len(marked_processes(root)) == SERVERS
    down(root)
    assert gone(root)
    assert list(tmp_path.iterdir()) == []


def test_down_of_what_is_not_up_does_nothing(tmp_path: Path) -> None:
    down(tmp_path / "cluster")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    for action in (up, down):
        with pytest.raises(TestClusterError, match="holds files that are not a test cluster's"):
            action(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_another_process_finds_the_cluster_and_takes_it_down(tmp_path: Path) -> None:
    root = tmp_path / "cluster"
    up(root)
    command = [sys.executable, "-m", "tests.testcluster"]
    shown = subprocess.run([*command, "info", "--root", str(root)], cwd=REPOSITORY, capture_output=True, check=True)
    assert set(json.loads(shown.stdout)["processes"]) == set(Cluster.read(root).state.processes)
    subprocess.run([*command, "down", "--root", str(root)], cwd=REPOSITORY, check=True)
    assert gone(root)


@pytest.mark.parametrize("step", ["launch", "_wait_for_api_server", "wait_for_controllers"])
def test_the_next_up_removes_what_one_that_was_killed_left(tmp_path: Path, step: str) -> None:
    root = tmp_path / "cluster"
    killed = subprocess.run([sys.executable, "-c", HALF_WAY, str(root), step], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = marked_processes(root)
    assert len(left) == {"launch": 0, "_wait_for_api_server": 2, "wait_for_controllers": 4}[step]
    up(root)
    try:
        assert len(marked_processes(root)) == SERVERS
        assert not set(left) & set(marked_processes(root))
    finally:
        down(root)
    assert gone(root)


def test_a_cluster_that_does_not_come_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TestClusterError("broken on purpose")

    monkeypatch.setattr("tests.testcluster.control_plane.ControlPlane.wait_for_controllers", refuse)
    with pytest.raises(TestClusterError, match="broken on purpose"):
        up(tmp_path / "cluster")
    assert gone(tmp_path / "cluster")


def test_a_cluster_goes_when_its_owner_is_killed() -> None:
    owner, root = start_owner()
    assert len(marked_processes(root)) == SERVERS
    owner.kill()
    owner.wait()
    wait_until("the guard to take the cluster down", lambda: gone(root), GONE_SECONDS)
    wait_until("the guard's own end", lambda: not guards(root), GONE_SECONDS)


def test_the_next_owner_removes_a_cluster_whose_owner_and_guard_were_killed() -> None:
    owner, root = start_owner()
    (guard,) = guards(root)
    os.kill(guard, signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert root in dead_roots()
    assert len(marked_processes(root)) == SERVERS
    with owned_cluster() as cluster:
        assert gone(root)
        guarded = cluster.root
        assert len(guards(guarded)) == 1
    assert gone(guarded)
    assert not guards(guarded)


def test_a_cluster_of_an_owner_that_lives_is_left_alone() -> None:
    with owned_cluster() as first:
        with owned_cluster() as second:
            assert first.root != second.root
        assert len(marked_processes(first.root)) == SERVERS
        assert first.control_plane.api().ready()
