"""One cluster for all drills: a node for the teacher, one for the students, and a spare one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.drills.drill import GLOBAL_BATCH, STEPS, Drills, table
from tests.cluster.drills.pod_logs import PodLogs
from tests.cluster.platform import Platform, platform
from tests.fixtures.api_server import ApiServer, path_of
from tests.fixtures.api_watch import World
from tests.fixtures.kubernetes import report_in
from tests.fixtures.models import save_tiny_model
from tests.fixtures.watched_job import RESOURCES
from tests.runtime.end_to_end.local_job import rows
from tests.testcluster.cluster import TWO_POOLS, Cluster, NodeRequest
from tests.testcluster.dockerfile import ImageArchive
from tests.testcluster.owned import owned_cluster
from tests.testcluster.runtime_environment import install_packages

SPARE = NodeRequest("node-spare", "student")
"""Takes students whose node is gone; closed to pods otherwise."""
drills_key = pytest.StashKey[Drills]()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Three nodes with NetworkPolicies enforced."""
    with owned_cluster([*TWO_POOLS, SPARE], network_policies=True, report=report_in(pytestconfig)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def drill_platform(cluster: Cluster, operator_image: ImageArchive, pytestconfig: pytest.Config) -> Iterator[Platform]:
    """The cluster with operator, store, model and data."""
    packages = install_packages(report_in(pytestconfig))
    elsewhere = {"spec": {"template": {"spec": {"nodeSelector": {"pool": "teacher"}}}}}
    cluster.control_plane.kubectl()(
        "patch", "deployment", "coredns", "-n", "kube-system", "--patch", json.dumps(elsewhere)
    )
    with platform(cluster, operator_image.path, operator_image.name, packages) as made:
        folder = cluster.root / "inputs"
        save_tiny_model(folder / "teacher", hidden=256, layers=6, head_dim=64, max_position_embeddings=1024)
        made.upload({"teacher": folder / "teacher"}, "models")
        # No sequence twice: in streaming mode the teacher is at work until the last steps.
        made.upload({"train.jsonl": _lines(STEPS * GLOBAL_BATCH), "heldout.jsonl": _lines(12)}, "data")
        yield made


def _lines(count: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows(count)).encode()


@pytest.fixture(scope="session")
def drills(drill_platform: Platform, pytestconfig: pytest.Config) -> Iterator[Drills]:
    """What all drills share."""
    cluster = drill_platform.cluster
    api = ApiServer(cluster.control_plane.kubeconfig)
    api.patch(path_of("nodes", name=SPARE.name), {"spec": {"unschedulable": True}})
    homes: list[Path] = [node.home for node in cluster.nodes.values()]
    logs = PodLogs(homes, cluster.root / "pod-logs")
    logs.start()
    with World(api, RESOURCES) as world:
        made = Drills(drill_platform, api, world, logs)
        pytestconfig.stash[drills_key] = made
        yield made
    logs.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what all drills showed."""
    made = config.stash.get(drills_key, None)
    if made is not None and made.rows:
        terminalreporter.section("drills")
        terminalreporter.write_line(table(made.rows))
