"""What is lost while a job distils: students cost an attempt, teachers are replaced."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.lifecycle.played_cluster import PlayedCluster
from tests.unit.lifecycle.words import (
    OUT_OF_MEMORY,
    checkpointed,
    crashed,
    distilling,
    evaluating,
    prepared,
    refused,
    retry,
    taught,
    trained,
)

Happening = Callable[[PlayedCluster], None]


def ends(name: str, word: dict[str, Any]) -> Happening:
    return lambda cluster: cluster.end(name, **word)


def deleted(name: str) -> Happening:
    return lambda cluster: cluster.delete(cluster.pod(name).uid)


def evicted(cluster: PlayedCluster) -> None:
    cluster.change(cluster.pod("student-0").uid, disrupted="PreemptionByScheduler")


def vanished(cluster: PlayedCluster) -> None:
    """A pod is removed while the operator is away, and its StatefulSet makes another one."""
    cluster.now = cluster.due = cluster.now.replace(minute=cluster.now.minute + 1)
    cluster.delete(cluster.pod("student-0").uid)
    cluster.remove_deleted()
    cluster.unheard = []
    cluster.control()


def node_goes_down(cluster: PlayedCluster) -> None:
    """A worker is preempted in no time, and the other one loses its peer."""
    cluster.end("student-0", **crashed("student"))
    cluster.change(cluster.pod("student-1").uid, disrupted="PreemptionByScheduler")


STUDENTS: dict[str, tuple[Happening, str, str]] = {
    "retry": (ends("student-1", retry("student")), "StoreUnreachable", "failed"),
    "crash": (ends("student-1", crashed("student")), "Crashed", "failed"),
    "out of memory": (ends("student-0", OUT_OF_MEMORY), "OutOfMemory", "failed"),
    "silent end": (ends("student-0", {"exit_code": 0}), "NoOutcome", "failed"),
    "checkpointed": (ends("student-0", checkpointed("student")), "Disrupted", "disrupted"),
    "deleted": (deleted("student-1"), "Disrupted", "disrupted"),
    "evicted": (evicted, "Disrupted", "disrupted"),
    "replaced unseen": (vanished, "Disrupted", "disrupted"),
    "a peer was preempted": (node_goes_down, "Disrupted", "disrupted"),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_lost_worker_ends_the_attempt_and_the_next_one_begins_when_all_pods_are_gone(name: str) -> None:
    happens, reason, count = STUDENTS[name]
    cluster = distilling()
    happens(cluster)
    cluster.reconcile()
    ending = cluster.ending()
    assert (ending.reason, ending.counted) == (reason, count == "failed")
    assert getattr(cluster.status.attempts, count) == 1
    assert cluster.status.student.restarts == 1
    assert reason in cluster.reasons()
    cluster.reconcile()
    assert (cluster.replicas("teacher"), cluster.replicas("student")) == (0, 0)
    cluster.settle()
    assert cluster.status.attempt.number == (1 if count == "failed" else 2)
    assert len(cluster.pods) == (0 if count == "failed" else 3)
    cluster.wait(10)
    assert cluster.status.attempt.number == 2
    assert len(cluster.pods) == 3


OTHERS_SAY_WHY: dict[str, tuple[dict[str, Any], str, str]] = {
    "out of memory": (OUT_OF_MEMORY, "OutOfMemory", "failed"),
    "retry": (retry("student"), "StoreUnreachable", "failed"),
    "preempted": ({"disrupted": "PreemptionByScheduler"}, "Disrupted", "disrupted"),
}


@pytest.mark.parametrize("name", OTHERS_SAY_WHY)
def test_a_crash_waits_a_little_for_the_word_of_the_peer_that_was_lost(name: str) -> None:
    word, reason, count = OTHERS_SAY_WHY[name]
    cluster = distilling()
    cluster.end("student-0", **crashed("student"), ended=cluster.now)
    cluster.settle()
    assert cluster.status.attempt.ending is None
    cluster.wait(3)
    cluster.change(cluster.pod("student-1").uid, **word)
    cluster.reconcile()
    assert cluster.ending().reason == reason
    assert getattr(cluster.status.attempts, count) == 1


def test_a_crash_of_which_nobody_says_more_ends_the_attempt_soon() -> None:
    cluster = distilling()
    cluster.end("student-0", **crashed("student"), ended=cluster.now)
    cluster.settle().wait(9)
    assert cluster.status.attempt.ending is None
    cluster.wait(1)
    assert cluster.ending().reason == "Crashed"


def test_a_crash_waits_for_nobody_where_all_have_ended_or_the_clocks_differ() -> None:
    for ahead, others in ((0, True), (3600, False), (-3600, False)):
        cluster = distilling()
        word = {**crashed("student"), "ended": cluster.now + timedelta(seconds=ahead)}
        cluster.end("student-0", **word)
        if others:
            cluster.end("student-1", **word)
        cluster.reconcile()
        assert cluster.ending().reason == "Crashed"


def test_retries_wait_longer_each_time_and_then_the_job_fails() -> None:
    cluster = distilling(policy={"backoffLimit": 6})
    waited: list[float] = []
    while cluster.status.phase != "Failed":
        cluster.end("student-0", **crashed("student"))
        ended = cluster.now
        cluster.settle()
        while cluster.ending() and cluster.status.phase != "Failed":
            cluster.wait(1)
        waited.append((cluster.now - ended).total_seconds())
    assert waited == [10, 20, 40, 80, 160, 320, 0]
    assert cluster.status.attempts.failed == 7
    assert cluster.status.reason == "Crashed"
    assert "spec.policy.backoffLimit is 6" in cluster.status.message
    assert cluster.names() == []


def test_the_delay_has_an_end() -> None:
    cluster = distilling(policy={"backoffLimit": 1000})
    delays: list[float] = []
    for _ in range(8):
        cluster.end("student-0", **crashed("student"))
        ending = cluster.settle().ending()
        delays.append((ending.retry_time - ending.time).total_seconds())
        cluster.wait(360)
    assert delays[-3:] == [320, 360, 360]


@pytest.mark.parametrize(
    ("role", "pod"),
    [("prepare", "prepare"), ("teacher", "teacher"), ("student", "student-1"), ("evaluate", "evaluate")],
)
def test_the_users_error_fails_the_job_at_once(role: Any, pod: str) -> None:
    cluster = {"prepare": PlayedCluster, "evaluate": evaluating}.get(role, distilling)().settle()
    cluster.end(pod, **refused(role))
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "BadRow")
    assert "train.jsonl, line 3" in cluster.status.message
    assert cluster.status.attempts.failed == 0
    assert cluster.controlled == {}


def test_the_users_error_wins_over_an_attempt_that_is_ending() -> None:
    cluster = distilling()
    cluster.end("student-1", **crashed("student"))
    cluster.reconcile()
    cluster.end("student-0", **refused("student"))
    cluster.settle()
    assert cluster.status.phase == "Failed"
    assert cluster.status.reason == "BadRow"


def test_finished_is_the_word_of_worker_0_alone() -> None:
    cluster = distilling()
    cluster.end("student-1", **trained())
    cluster.settle()
    assert not cluster.status.student.finished
    assert cluster.ending() is None
    cluster.end("student-0", **trained())
    cluster.settle()
    assert cluster.status.student.finished


def test_a_student_that_finished_while_its_peer_crashed_is_finished() -> None:
    cluster = distilling()
    cluster.end("student-1", **crashed("student"))
    cluster.end("student-0", **trained())
    cluster.settle()
    assert cluster.status.student.finished
    assert cluster.status.attempts.failed == 0


def test_a_student_that_finishes_while_its_attempt_ends_is_not_trained_again() -> None:
    cluster = distilling()
    cluster.end("student-1", **crashed("student"))
    cluster.reconcile()
    cluster.end("student-0", **trained())
    cluster.end("teacher", **taught())
    cluster.wait(10)
    assert (cluster.status.attempt.number, cluster.status.phase) == (2, "Evaluating")


def test_pods_of_older_attempts_change_nothing() -> None:
    cluster = distilling()
    old = cluster.pod("student-0")
    cluster.end("student-1", **crashed("student"))
    cluster.wait(10)
    before = cluster.status
    cluster.pods[old.uid] = cluster.pods.get(old.uid, old)
    cluster.change(old.uid, **refused("student"))
    cluster.reconcile()
    assert cluster.status == before


@pytest.mark.parametrize("word", [retry("teacher"), crashed("teacher"), OUT_OF_MEMORY, checkpointed("teacher")])
def test_a_teacher_that_failed_is_replaced_after_it_was_counted(word: dict[str, Any]) -> None:
    cluster = distilling()
    first = cluster.pod("teacher")
    cluster.end("teacher", **word)
    counting = cluster.reconcile()
    assert (counting.replace, counting.again_after) == ((), 0)
    assert counting.status.teacher.restarts == 1
    assert cluster.reconcile().replace == (first.uid,)
    cluster.settle()
    assert cluster.pod("teacher").uid != first.uid
    assert cluster.status.attempt.number == 1
    assert cluster.status.teacher.restarts == 1
    assert cluster.reasons().count("TeacherReplaced") == 1


def test_a_teacher_that_was_taken_away_is_replaced_and_is_no_failure() -> None:
    cluster = distilling(policy={"backoffLimit": 0})
    for restarts in (1, 2, 3):
        cluster.delete(cluster.pod("teacher").uid)
        cluster.settle()
        assert cluster.status.teacher.restarts == restarts
    assert cluster.status.attempt.failed_teachers == 0
    assert cluster.ending() is None
    assert len(cluster.names("teacher")) == 1


def test_teachers_that_fail_again_and_again_end_the_attempt() -> None:
    cluster = distilling(policy={"backoffLimit": 1})
    cluster.end("teacher", **OUT_OF_MEMORY)
    cluster.settle()
    assert cluster.ending() is None
    cluster.end("teacher", **OUT_OF_MEMORY)
    cluster.settle()
    assert cluster.ending().reason == "OutOfMemory"
    assert "spec.pods.teacher.memory" in cluster.status.message
    assert cluster.status.attempts.failed == 1
    cluster.wait(10)
    assert cluster.status.attempt.failed_teachers == 0


def test_fewer_teachers_are_no_lost_teachers() -> None:
    cluster = distilling(teacher={"replicas": 3})
    cluster.edit(teacher={"replicas": 1})
    cluster.settle()
    assert len(cluster.names("teacher")) == 1
    assert cluster.status.teacher.restarts == 0
    assert cluster.status.attempt.number == 1
    cluster.edit(teacher={"replicas": 2})
    cluster.settle()
    assert len(cluster.names("teacher")) == 2
    assert "TeacherReplaced" not in cluster.reasons()


def test_one_finished_replica_sends_all_teachers_home() -> None:
    cluster = distilling(teacher={"replicas": 3})
    cluster.end("teacher", **taught())
    cluster.settle()
    assert cluster.names("teacher") == []
    assert cluster.status.teacher.finished
    assert cluster.status.signal.complete
    assert cluster.status.teacher.restarts == 0


@pytest.mark.parametrize("role", ["prepare", "evaluate"])
def test_a_batch_job_tries_again_by_itself_and_then_fails_the_job(role: Any) -> None:
    cluster = (
        evaluating(policy={"backoffLimit": 1}) if role == "evaluate" else PlayedCluster({"policy": {"backoffLimit": 1}})
    )
    cluster.settle().end(role, **crashed(role))
    cluster.settle()
    assert cluster.ending() is None
    cluster.end(role, **retry(role))
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "StoreUnreachable")
    assert "the store is gone" in cluster.status.message


def test_a_batch_job_that_fails_without_a_word_gives_its_own() -> None:
    cluster = PlayedCluster({"policy": {"backoffLimit": 0}}).settle()
    cluster.change(cluster.pod("prepare").uid, phase="Failed")
    cluster.control()
    cluster.pods.clear()
    cluster.settle()
    assert cluster.status.reason == "BackoffLimitExceeded"
    assert cluster.status.message == "Job job-prepare-1 failed: the Job has failed"


def test_a_batch_jobs_end_waits_for_its_pods_word() -> None:
    cluster = PlayedCluster({"policy": {"backoffLimit": 0}}).settle()
    seen = cluster.snapshot()
    cluster.end("prepare", **refused("prepare"))
    cluster.control()
    late = type(seen)(cluster.snapshot().workloads, seen.pods, seen.digests)
    cluster.reconcile(late)
    assert cluster.status.phase == "Preparing"
    cluster.settle()
    assert cluster.status.reason == "BadRow"


def test_a_result_that_nobody_heard_is_found_again() -> None:
    cluster = PlayedCluster().settle()
    cluster.end("prepare", **prepared())
    cluster.control()
    cluster.pods.clear()
    cluster.settle()
    assert cluster.ending().reason == "OutcomeLost"
    cluster.wait(10)
    assert cluster.names() == ["prepare-2-1"]


def test_an_image_that_is_not_ours_is_named() -> None:
    cluster = PlayedCluster().settle()
    cluster.end("prepare", exit_code=0)
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "NoOutcome")
    assert "is its image a runtime image" in cluster.status.message
