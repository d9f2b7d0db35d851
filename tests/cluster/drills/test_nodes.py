"""Nodes are drained, go away, or lose what they offer."""

from collections.abc import Iterator

import pytest

from tests.cluster.drills.drill import STREAMING, DrilledJob, Drills
from tests.fixtures.watched_job import merged
from tests.testcluster.node import Node
from tests.testcluster.waiting import wait_until


@pytest.fixture
def spare(drills: Drills) -> Iterator[None]:
    """The spare node takes students."""
    drills.platform.kubectl("uncordon", "node-spare")
    yield
    drills.platform.kubectl("cordon", "node-spare")
    drills.platform.kubectl("uncordon", "node-student", "node-teacher")


def drain(drills: Drills, job: DrilledJob, node: str) -> None:
    """Evicts the job's pods of a node, as an administrator does."""
    drills.platform.kubectl(
        *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force"),
        *(f"--pod-selector=distill-operator.io/job={job.name}", "--timeout=120s"),
    )


@pytest.mark.usefixtures("spare")
def test_drain_students(drills: Drills) -> None:
    """Each rank saves when its pod is evicted, and the next attempt goes on elsewhere without repeating a step."""
    job = drills.job("drain-students", taught=True).start()
    job.wait_for_step(12)
    job.strike()
    drain(drills, job, "node-student")
    drills.finish(job, disrupted=1)
    for rank in (0, 1):
        lines = drills.logs.lines(job.namespace, f"{job.name}-student-{rank}")
        assert any("Checkpointed" in line.message or "saved" in line.message for line in lines), rank
    assert {pod["spec"]["nodeName"] for pod in job.pods_ever("student").values()} == {"node-student", "node-spare"}
    assert job.steps_repeated() == 0


def test_drain_teacher(drills: Drills) -> None:
    """The teacher waits for its node; so does the student."""
    job = drills.job("drain-teacher").start(STREAMING)
    job.wait_for_step(12)
    students = job.uids("student")
    job.strike()
    drain(drills, job, "node-teacher")
    drills.platform.kubectl("uncordon", "node-teacher")
    drills.finish(job)
    assert job.uids_ever("student") == students


@pytest.mark.usefixtures("spare")
def test_lost_node(drills: Drills) -> None:
    """A node goes without a word and doesn't come back while the job runs."""
    node = drills.platform.cluster.node("node-student")
    drills.platform.kubectl("cordon", "node-spare")
    job = drills.job("lost-node", taught=True).start()
    job.wait_for_step(12)
    drills.platform.kubectl("uncordon", "node-spare")
    job.strike()
    node.crash()
    try:
        drills.finish(job, disrupted=1)
    finally:
        node.start_kubelet()
        wait_until("the node", lambda: ready(drills, node), 120)
    assert {pod["spec"]["nodeName"] for pod in job.pods_ever("student").values()} == {"node-student", "node-spare"}


def ready(drills: Drills, node: Node) -> bool:
    return node.ready(drills.platform.cluster.control_plane.api())


def test_unhealthy_gpu(drills: Drills) -> None:
    """A worker is lost while its node has too few healthy GPUs: the job waits, says so, and holds nothing back."""
    node = drills.platform.cluster.node("node-student")
    job = drills.job("unhealthy-gpu", taught=True).start()
    job.wait_for_step(12)
    node.set_unhealthy_gpus(["gpu0", "gpu1", "gpu2"])
    try:
        wait_until("that one GPU is left", lambda: allocatable(drills, node) == 1, 60)
        job.strike()
        job.delete_pod(job.pod("student", 1))
        job.wait("the scheduler's word", lambda: "nvidia.com/gpu" in job.status.get("message", ""))
    finally:
        node.set_unhealthy_gpus([])
    drills.finish(job, disrupted=1)


def allocatable(drills: Drills, node: Node) -> int:
    return int(drills.platform.kubectl.json("get", "node", node.name)["status"]["allocatable"]["nvidia.com/gpu"])


def test_out_of_memory(drills: Drills) -> None:
    """Something eats a student's memory up to its limit: the kernel kills the rank, and the job goes on."""
    limited = {"pods": {"student": {"memory": "3Gi"}}}
    job = drills.job("out-of-memory", taught=True).start(limited)
    job.wait_for_step(12)
    job.strike()
    hog = "for i in $(seq 60); do python -c 'import time; x = bytearray(64 << 20); time.sleep(60)' & done; wait"
    job.execute(job.pod("student", 1), "sh", "-c", hog)
    drills.finish(job, failed=1)
    assert "out of memory" in job.ending()["message"], job.ending()


def test_full_disk(drills: Drills) -> None:
    """A student's disk is full: the kubelet evicts the pod, the job says so and goes on."""
    # The kubelet looks every ten seconds: the job must last.
    limited = {"pods": {"student": {"ephemeralStorage": "1Gi"}}}
    job = drills.job("full-disk", taught=True).start(merged(STREAMING, limited))
    job.wait_for_step(12)
    job.strike()
    job.execute(job.pod("student", 1), "sh", "-c", "dd if=/dev/zero of=/tmp/fill bs=1M count=1200; sleep 60")
    drills.finish(job, failed=1)
    assert job.ending()["reason"] == "OutOfDisk", job.ending()
