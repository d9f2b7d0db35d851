"""More jobs than GPUs: a job has both halves or holds nothing, so that none waits for another one for ever."""

from collections.abc import Iterator

import pytest

from tests.cluster.jobs.team import BOTH_HALVES_LONG, WORKERS, Team, TeamJob
from tests.cluster.platform import Platform
from tests.cluster.test_nodes import pod_spec
from tests.fixtures.api_server import Object
from tests.testcluster.node import GPU_RESOURCE

POOL = "student"
GPUS = 4
"""Of the pool's node."""
DEADLINE_SECONDS = 45
RELEASE_SECONDS = 45
"""Until the operator has seen that the time is over and the pods are gone, on a busy machine."""
TURNS_SECONDS = 1500
"""Whoever finds no room waits longer each time before it looks again."""
ALL_OF_THE_POOL: Object = {
    "pods": {
        POOL: {"extraResources": {GPU_RESOURCE: str(GPUS // WORKERS)}},
        # Whoever holds nothing fails when it gets nothing: the trained student would wait behind the next job's.
        "evaluate": {"extraResources": {GPU_RESOURCE: "0"}},
    },
    "policy": {"startupDeadlineSeconds": DEADLINE_SECONDS, "backoffLimit": 1000},
    "training": {"steps": 24},
}
"""A job whose two students need all GPUs of the pool. Its teacher has work as long as they have."""


@pytest.fixture
def half_taken(stocked: Platform, team: Team) -> Iterator[str]:
    """A pod that holds half of the pool, so that there is room for one student and not for two."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "holder"}, "spec": pod_spec(POOL, GPUS // 2)}
    stocked.kubectl.create(pod, "-n", team.namespace)
    stocked.kubectl("wait", "pod/holder", "--for=condition=Ready", "--timeout=60s", "-n", team.namespace)
    yield "holder"
    stocked.kubectl("delete", "pod", "holder", "--now", "--ignore-not-found", "-n", team.namespace)


def endings(job: TeamJob) -> set[str]:
    """Why its attempts ended."""
    attempts = [status.get("attempt", {}) for status in job.statuses()]
    return {attempt["ending"]["reason"] for attempt in attempts if "ending" in attempt}


def longest_part(job: TeamJob) -> float:
    """Seconds for which the job at most held GPUs of some of its students, but not of all."""
    nodes: dict[str, bool] = {}
    longest, since = 0.0, None
    for change in job.pod_changes(POOL):
        pod = change.item
        over = change.kind == "DELETED" or pod["status"]["phase"] in ("Succeeded", "Failed")
        nodes[pod["metadata"]["uid"]] = bool(pod["spec"].get("nodeName")) and not over
        since = (since or change.time) if 0 < sum(nodes.values()) < WORKERS else None
        longest = max(longest, change.time - since if since else 0.0)
    return longest


@pytest.mark.timeout(2 * TURNS_SECONDS)
def test_jobs_that_need_all_gpus_take_turns(stocked: Platform, team: Team, half_taken: str) -> None:
    jobs = [
        team.job(f"turn-{number}").start("gpus", BOTH_HALVES_LONG, ALL_OF_THE_POOL, {"training": {"seed": number}})
        for number in range(3)
    ]
    for job in jobs:
        job.wait("that it let go of its half", lambda job=job: "HalfAdmitted" in endings(job))
    assert max(map(longest_part, jobs)) > 0, "one of them had a part"
    stocked.kubectl("delete", "pod", half_taken, "--now", "-n", team.namespace)
    for job in jobs:
        job.wait_for_phase("Succeeded", TURNS_SECONDS)
        job.check_attempts_apart()
        assert endings(job) <= {"HalfAdmitted", "StartupDeadlineExceeded"}
        assert longest_part(job) < DEADLINE_SECONDS + RELEASE_SECONDS
