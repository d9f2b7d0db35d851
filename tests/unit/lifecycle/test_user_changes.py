"""Suspension, resumption, edits."""

from typing import Any

import pytest

from tests.unit.lifecycle.played_cluster import PlayedCluster
from tests.unit.lifecycle.words import (
    checkpointed,
    crashed,
    distilling,
    evaluated,
    evaluating,
    prepared,
    succeeded,
    trained,
)


@pytest.mark.parametrize(
    ("begin", "phase"), [(PlayedCluster, "Preparing"), (distilling, "Distilling"), (evaluating, "Evaluating")]
)
def test_a_suspended_job_has_no_pods_and_goes_on_where_it_was(begin: Any, phase: str) -> None:
    cluster = begin().settle()
    cluster.edit(suspend=True)
    cluster.reconcile()
    assert cluster.ending().reason == "Suspended"
    assert cluster.status.phase == phase
    cluster.settle()
    assert cluster.status.phase == "Suspended"
    assert cluster.pods == {}
    assert cluster.status.attempts.suspended == 1
    cluster.wait(100_000)
    assert cluster.status.phase == "Suspended"
    cluster.edit(suspend=False)
    cluster.settle()
    assert (cluster.status.phase, cluster.status.attempt.number) == (phase, 2)
    assert cluster.status.resume_time == cluster.now
    assert cluster.reasons().count("Suspended") == cluster.reasons().count("Resumed") == 1


def test_a_job_is_not_suspended_before_its_last_pod_is_removed() -> None:
    cluster = PlayedCluster().settle()
    cluster.edit(suspend=True)
    cluster.reconcile()
    cluster.reconcile()
    cluster.change(cluster.pod("prepare").uid, **checkpointed("prepare"), phase="Failed")
    cluster.reconcile()
    assert cluster.status.phase == "Preparing"
    cluster.settle()
    assert cluster.status.phase == "Suspended"


def test_a_pod_that_ended_and_stays_listed_holds_nothing_up() -> None:
    """Evicted pods of a Deployment stay until the cluster has too many of them."""
    cluster = distilling()
    evicted = cluster.pod("teacher")
    cluster.change(evicted.uid, phase="Failed", reason="Evicted", disrupted="TerminationByKubelet")
    cluster.settle()
    assert cluster.status.teacher.restarts == 1
    cluster.edit(student={"workers": 1})
    cluster.settle()
    assert evicted.uid in cluster.pods
    assert cluster.status.attempt.number == 2


def test_a_suspended_job_keeps_its_workloads_at_zero() -> None:
    """A StatefulSet that is removed would take its pods' claims along."""
    cluster = distilling()
    cluster.edit(suspend=True)
    cluster.settle()
    assert (cluster.replicas("teacher"), cluster.replicas("student")) == (0, 0)


def test_a_job_that_is_born_suspended_waits() -> None:
    cluster = PlayedCluster({"suspend": True})
    cluster.wait(1000)
    assert cluster.status.phase == "Suspended"
    assert cluster.status.start_time is None
    assert cluster.status.attempt is None
    cluster.edit(suspend=False)
    cluster.settle()
    assert cluster.status.phase == "Preparing"
    assert "Resumed" in cluster.reasons()


def test_checkpoints_of_a_suspension_are_no_disruption() -> None:
    cluster = distilling()
    cluster.edit(suspend=True)
    cluster.reconcile()
    cluster.reconcile()
    cluster.end("student-0", **checkpointed("student"))
    cluster.settle()
    assert cluster.status.attempts.model_dump() == {"failed": 0, "disrupted": 0, "suspended": 1}


def test_a_job_resumed_before_its_pods_are_gone_waits_for_them() -> None:
    cluster = distilling()
    cluster.edit(suspend=True)
    cluster.reconcile()
    cluster.reconcile()
    cluster.edit(suspend=False)
    cluster.reconcile()
    assert cluster.status.attempt.number == 1
    cluster.settle()
    assert cluster.status.attempt.number == 2


def test_a_suspension_during_a_delay_holds_the_next_attempt() -> None:
    cluster = distilling()
    cluster.end("student-0", **crashed("student"))
    cluster.settle()
    cluster.edit(suspend=True)
    cluster.wait(100)
    assert cluster.status.phase == "Suspended"
    assert cluster.pods == {}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"student": {"workers": 3}}, "spec.student.workers was changed from 2 to 3"),
        ({"teacher": {"gpus": 2}}, "the spec of the pods was changed"),
        ({"pods": {"student": {"memory": "64Gi"}}}, "the spec of the pods was changed"),
    ],
)
def test_an_edit_of_the_pods_makes_a_new_attempt(edit: dict[str, Any], words: str) -> None:
    cluster = distilling()
    cluster.edit(**edit)
    cluster.reconcile()
    assert cluster.ending().reason == "Edited"
    assert words in cluster.status.message
    cluster.settle()
    assert cluster.status.attempt.number == 2
    assert cluster.status.attempts.model_dump() == {"failed": 0, "disrupted": 0, "suspended": 1}
    assert cluster.status.attempt.workers == cluster.job.spec.student.workers
    assert len(cluster.names("student")) == cluster.job.spec.student.workers


@pytest.mark.parametrize("edit", [{"policy": {"backoffLimit": 9}}, {"teacher": {"replicas": 2}}])
def test_other_edits_end_no_attempt(edit: dict[str, Any]) -> None:
    cluster = distilling()
    cluster.edit(**edit)
    cluster.settle()
    assert cluster.status.attempt.number == 1
    assert cluster.ending() is None
    assert cluster.status.observed_generation == 2
    assert cluster.status.attempt.generation == 2


def test_a_newer_operator_that_digests_the_spec_otherwise_ends_no_attempt() -> None:
    cluster = distilling()
    attempt = cluster.status.attempt.model_copy(update={"spec_digest": "of another version"})
    cluster.job = cluster.job.model_copy(update={"status": cluster.status.model_copy(update={"attempt": attempt})})
    cluster.reconcile()
    assert cluster.ending() is None


def test_what_was_rendered_is_pinned_and_another_render_ends_the_attempt() -> None:
    cluster = distilling()
    assert cluster.status.attempt.digest == "digest-1"
    del cluster.digests[1]
    cluster.reconcile()
    assert cluster.ending() is None
    cluster.digests[1] = "another"
    cluster.reconcile()
    assert cluster.ending().reason == "RenderedAnew"
    cluster.settle()
    assert cluster.status.attempt.number == 2


@pytest.mark.parametrize("edit", [{"suspend": True}, {"student": {"workers": 3}}, {"policy": {"backoffLimit": 9}}])
def test_an_ended_job_stays_as_it_ended(edit: dict[str, Any]) -> None:
    cluster = succeeded()
    before = cluster.status
    cluster.edit(**edit)
    cluster.wait(1000)
    told = {"conditions", "observed_generation"}
    assert cluster.status.model_dump(exclude=told) == before.model_dump(exclude=told)
    assert cluster.status.observed_generation == 2


def test_a_job_that_finishes_while_it_is_suspended_has_finished() -> None:
    cluster = evaluating()
    cluster.edit(suspend=True)
    cluster.reconcile()
    cluster.end("evaluate", **evaluated())
    cluster.settle()
    assert cluster.status.phase == "Succeeded"


def test_what_prepare_found_while_it_was_suspended_is_not_found_again() -> None:
    cluster = PlayedCluster().settle()
    cluster.edit(suspend=True)
    cluster.reconcile()
    cluster.end("prepare", **prepared())
    cluster.settle()
    assert cluster.status.phase == "Suspended"
    cluster.edit(suspend=False)
    cluster.settle()
    assert cluster.status.phase == "Distilling"


def test_a_job_of_another_controller_is_left_alone() -> None:
    cluster = PlayedCluster({"managedBy": "kueue.x-k8s.io/multikueue"})
    decision = cluster.reconcile()
    assert decision.status.start_time is None
    assert decision.events == ()
    assert not decision.children_changed


def test_a_streaming_job_needs_its_teacher_again_in_the_next_attempt() -> None:
    cluster = distilling(signal={"mode": "streaming"})
    cluster.edit(student={"workers": 1})
    cluster.settle()
    assert cluster.replicas("teacher") == 1
    cluster.end("student-0", **trained())
    cluster.settle()
    assert cluster.status.student.finished
