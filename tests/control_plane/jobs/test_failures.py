"""Everything that goes wrong ends as it should, with the words of whoever knows best.

All jobs begin at once, since most of them wait for a deadline; each test waits for its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.run import Role
from tests.control_plane.jobs.job import Job
from tests.control_plane.jobs.place import Place
from tests.control_plane.quota import hold_to_quota
from tests.fixtures.api_server import Object
from tests.fixtures.played_nodes import PlayedNodes
from tests.fixtures.pod_acts import (
    Play,
    asks_for_a_retry,
    by_attempt,
    by_worker,
    crashes,
    ends,
    holds,
    progresses,
    refuses,
    runs,
    runs_out_of_memory,
    trained,
)
from tests.fixtures.watched_job import moment
from tests.testcluster.control_plane import ControlPlane

END_SECONDS = 240.0
ONCE: Object = {"backoffLimit": 0}
STARTUP_SECONDS = 30
"""Time enough for so many jobs at once to be told what holds their pods."""
SOON: Object = {"startupDeadlineSeconds": STARTUP_SECONDS, "backoffLimit": 0}
NOWHERE: Object = {"nodeSelector": {"pool": "nowhere"}}


@dataclass(frozen=True)
class Failure:
    """A job that fails, and what it says of it."""

    reason: str
    words: tuple[str, ...]
    """Parts of its message."""
    play: Play = field(default_factory=Play)
    policy: Object = field(default_factory=dict)
    spec: Object = field(default_factory=dict)
    attempts: int = 1
    """In all."""


FAILURES = {
    "prepare-refuses": Failure("BadRow", ("train.jsonl, line 3",), Play(prepare=refuses())),
    "teacher-refuses": Failure("BadRow", ("line 3",), Play(teacher=refuses(), student=runs)),
    "student-refuses": Failure("BadRow", ("line 3",), Play(teacher=runs, student=by_worker(runs, refuses()))),
    "evaluate-refuses": Failure("BadRow", ("line 3",), Play(evaluate=refuses())),
    "out-of-memory": Failure(
        "OutOfMemory",
        ("out-of-memory-student-1", "spec.pods.student.memory"),
        Play(teacher=runs, student=by_worker(runs, runs_out_of_memory)),
        ONCE,
    ),
    "teacher-out-of-memory": Failure(
        "OutOfMemory", ("spec.pods.teacher.memory",), Play(teacher=runs_out_of_memory, student=runs), ONCE
    ),
    "image-pull": Failure(
        "ImagePullBackOff",
        ("Back-off pulling image registry.example/runtime:1",),
        Play(teacher=runs, student=holds("ImagePullBackOff", "Back-off pulling image registry.example/runtime:1")),
        SOON,
    ),
    "missing-secret": Failure(
        "CreateContainerConfigError",
        ('secret "s3-credentials" not found',),
        Play(prepare=holds("CreateContainerConfigError", 'secret "s3-credentials" not found')),
        SOON,
    ),
    "unschedulable": Failure(
        "Unschedulable",
        ("nodes are available",),
        policy=SOON,
        spec={"pods": {"teacher": NOWHERE, "student": NOWHERE}},
    ),
    "prepare-unschedulable": Failure(
        "Unschedulable", ("nodes are available",), policy=SOON, spec={"pods": {"prepare": NOWHERE}}
    ),
    "crash-loop": Failure(
        "Crashed", ("crash-loop-student-0",), Play(teacher=runs, student=by_worker(crashes(loops=True), runs)), ONCE
    ),
    "teacher-crash-loop": Failure("Crashed", ("teacher",), Play(teacher=crashes(loops=True), student=runs), ONCE),
    "prepare-retries": Failure(
        "StoreUnreachable",
        ("the store at s3://bucket doesn't answer",),
        Play(prepare=asks_for_a_retry(message="the store at s3://bucket doesn't answer")),
        ONCE,
    ),
    "gives-up": Failure(
        "StoreUnreachable",
        ("the store is gone",),
        Play(teacher=runs, student=asks_for_a_retry(message="the store is gone")),
        {"backoffLimit": 1},
        attempts=2,
    ),
    "stalled": Failure(
        "Stalled",
        ("10",),
        Play(teacher=runs, student=progresses(5, 1000)),
        {"stallTimeoutSeconds": 10, "backoffLimit": 0},
    ),
    "too-long": Failure("DeadlineExceeded", ("5",), Play(teacher=runs, student=runs), {"activeDeadlineSeconds": 5}),
    "no-teacher": Failure("NoTeacher", ("spec.teacher.replicas",), spec={"teacher": {"replicas": 0}}),
    "another-version": Failure("AnotherVersion", ("prepare",), Play(prepare=ends(ExitCode.FINISHED, "Finished"))),
}


@pytest.fixture(scope="module")
def failing(place: Place, operator: object) -> dict[str, Job]:
    """All of them, at once."""
    return {
        name: place.job(name).create({"policy": failure.policy, **failure.spec}, failure.play)
        for name, failure in FAILURES.items()
    }


@pytest.fixture(scope="module")
def half_admitted(place: Place, operator: object) -> Job:
    """Nodes for its teacher there are; for its student there is none yet."""
    policy = {"startupDeadlineSeconds": STARTUP_SECONDS, "backoffLimit": 100}
    spec = {"policy": policy, "pods": {"student": {"nodeSelector": {"pool": "scarce"}}}}
    return place.job("half-admitted").create(spec, Play(teacher=runs, student=runs))


@pytest.fixture(scope="module")
def over_quota(make_place: Callable[[], Place], control_plane: ControlPlane, operator: object) -> Job:
    """A job in a namespace that may have no pod."""
    place = make_place()
    hold_to_quota(control_plane.kubectl(), place.namespace, "pods=0")
    return place.job("over-quota").create({"policy": SOON})


@pytest.fixture(scope="module")
def on_a_lost_node(place: Place, nodes: PlayedNodes, operator: object) -> Job:
    """Its students run on a node that is lost."""
    # Others keep away from it.
    nodes.add("played-frail", {"pool": "frail"}, taint="frail")
    student = {"nodeSelector": {"pool": "frail"}, "tolerations": [{"key": "frail", "operator": "Exists"}]}
    spec = {"policy": {"nodeLostSeconds": 1, "checkpointGraceSeconds": 1}, "pods": {"student": student}}
    job = place.job("node-lost").create(spec, Play(teacher=runs, student=by_attempt(runs, trained())))
    job.wait_for_running("student", 2)
    nodes.lose("played-frail")
    nodes.add("played-sturdy", {"pool": "frail"})
    return job


@pytest.fixture(scope="module", autouse=True)
def all_at_once(failing: object, half_admitted: object, over_quota: object, on_a_lost_node: object) -> None:
    """Begins all jobs before the first test looks at one."""


def test_a_half_admitted_job_releases_both_halves_and_tries_again(half_admitted: Job, nodes: PlayedNodes) -> None:
    """The first test: each failure in vain doubles the time to the next attempt."""
    job = half_admitted
    job.wait("that it lets go", lambda: job.status.get("attempts", {}).get("failed"), END_SECONDS)
    first = next(status for status in job.statuses() if status.get("attempts", {}).get("failed"))
    assert first["reason"] == first["attempt"]["ending"]["reason"] == "HalfAdmitted"
    assert job.pods_ever("teacher"), "its teacher held a node"
    nodes.add("played-scarce", {"pool": "scarce"})
    job.wait("running students", lambda: _running(job, "student") == 2, END_SECONDS)
    assert job.attempt > 1
    job.check_attempts_apart()
    job.change(student=trained())
    job.wait("its student's end", lambda: job.status["student"].get("finished"))
    job.delete()


def _running(job: Job, role: Role) -> int:
    return sum(pod["status"].get("phase") == "Running" for pod in job.pods(role))


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_ends_the_job_with_its_reason(failing: dict[str, Job], name: str) -> None:
    job, failure = failing[name], FAILURES[name]
    job.wait_for_phase("Failed", END_SECONDS)
    assert job.status["reason"] == failure.reason, job.status["message"]
    for words in failure.words:
        assert words in job.status["message"]
    assert job.attempt == failure.attempts
    assert job.condition("Stalled")["status"] == "True"
    assert job.condition("Stalled")["reason"] == failure.reason
    assert job.condition("Ready")["status"] == "False"
    job.wait_for_event("Failed")
    job.wait("that its pods are gone", lambda: not job.pods())


def test_a_retry_waits_ten_seconds(failing: dict[str, Job]) -> None:
    job = failing["gives-up"].wait_for_phase("Failed", END_SECONDS)
    endings = [status["attempt"]["ending"] for status in job.statuses() if status.get("attempt", {}).get("ending")]
    first = next(ending for ending in endings if "retryTime" in ending)
    second = next(status["attempt"] for status in job.statuses() if status.get("attempt", {}).get("number") == 2)
    assert (moment(second["startTime"]) - moment(first["time"])).total_seconds() >= 10
    assert job.status["attempts"]["failed"] == 2


def test_no_attempt_begins_before_the_pods_of_the_last_one_are_gone(failing: dict[str, Job]) -> None:
    job = failing["gives-up"].wait_for_phase("Failed", END_SECONDS)
    assert job.attempt == 2
    job.check_attempts_apart()


def test_pods_over_the_quota_say_so(over_quota: Job) -> None:
    job = over_quota.wait_for_phase("Failed", END_SECONDS)
    assert job.status["reason"] == "QuotaExceeded", job.status["message"]
    assert "exceeded quota: none" in job.status["message"]


def test_a_lost_node_costs_an_attempt_that_is_not_counted(on_a_lost_node: Job) -> None:
    job = on_a_lost_node
    job.wait("the next attempt", lambda: job.attempt == 2, END_SECONDS)
    assert job.status["attempts"].get("disrupted") == 1
    assert job.status["attempts"].get("failed", 0) == 0
    job.wait("its student's end", lambda: job.status["student"].get("finished"))
    job.delete()
