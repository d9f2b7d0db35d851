"""Objects of the API server, in the words of the life cycle."""

from datetime import UTC, datetime
from typing import Any

import pytest

from distill_operator.cluster.objects import pruned
from distill_operator.cluster.observe import Sight, observe, pod_of
from distill_operator.cluster.resources import BATCH_JOBS, CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, STATEFUL_SETS
from distill_operator.constants import DIGEST_ANNOTATION
from distill_operator.lifecycle.observed import Foreign, Workload
from distill_runtime.contract.outcome import ExitCode, Progress
from tests.unit.cluster.objects import BORN, Object, child, container, ended, job, pod, word

RUNNING = {"running": {"startedAt": "2026-11-25T10:06:00Z"}}


def seen(item: Object, **options: Any) -> Any:
    """The pod as the store would have kept it."""
    return pod_of(pruned(PODS, item), **options)


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Object:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def test_a_running_worker() -> None:
    found = seen(pod("j-student-3", status={**condition("Ready"), **container(RUNNING)}))
    assert (found.name, found.role, found.attempt, found.ordinal) == ("j-student-3", "student", 1, 3)
    assert (found.phase, found.ready, found.node) == ("Running", True, "node-1")
    assert found.created == datetime(2026, 11, 25, 10, 5, tzinfo=UTC)
    assert (found.outcome, found.exit_code, found.out_of_memory, found.restarts) == (None, None, False, 0)
    assert (found.deleting_since, found.disrupted, found.gone) == (None, "", False)


def test_only_students_have_a_number() -> None:
    assert seen(pod("j-teacher-x", role="teacher")).ordinal is None


@pytest.mark.parametrize(
    ("status", "field", "value"),
    [
        (
            {"phase": "Pending", **condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")},
            "unschedulable",
            "0/3 nodes are available",
        ),
        ({"phase": "Pending", **condition("PodScheduled", "False", "SchedulingGated", "gate")}, "unschedulable", ""),
        (
            container({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
            "waiting_reason",
            "ImagePullBackOff",
        ),
        (
            container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}),
            "waiting_message",
            'secret "s3" not found',
        ),
        (container({"waiting": {"reason": "ContainerCreating"}}), "waiting_reason", ""),
        (
            {
                "initContainerStatuses": [{"name": "sidecar", "state": {"waiting": {"reason": "ErrImagePull"}}}],
                **container({"waiting": {"reason": "PodInitializing"}}),
            },
            "waiting_reason",
            "ErrImagePull",
        ),
        (condition("DisruptionTarget", reason="EvictionByEvictionAPI"), "disrupted", "EvictionByEvictionAPI"),
        (condition("DisruptionTarget", "False", "EvictionByEvictionAPI"), "disrupted", ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "reason", "Evicted"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "message", "low on memory"),
        (container(ended(137, reason="OOMKilled")), "out_of_memory", True),
        (container(ended(137, reason="OOMKilled")), "exit_code", 137),
        (container(RUNNING, last=ended(137, reason="OOMKilled"), restarts=1), "out_of_memory", True),
        (container(RUNNING, restarts=2, last=ended(1)), "restarts", 2),
        (container(RUNNING), "ended", None),
        (container(ended(1, time="2026-11-25T10:02:03Z")), "ended", datetime(2026, 11, 25, 10, 2, 3, tzinfo=UTC)),
    ],
)
def test_what_a_status_says(status: Object, field: str, value: object) -> None:
    assert getattr(seen(pod(status=status)), field) == value


def test_the_last_word_is_heard_where_it_is() -> None:
    ways = [
        container(ended(75, word())),
        container(RUNNING, last=ended(75, word()), restarts=1),
        # Restarted in place, repeated its word when it was removed, and killed at last.
        container(ended(137), last=ended(75, word()), restarts=1),
    ]
    for status in ways:
        found = seen(pod(status=status))
        assert found.outcome is not None
        assert (found.outcome.code, found.outcome.reason, found.exit_code) == (ExitCode.RETRY, "PeerLost", 75)


def test_of_two_ends_the_first_tells_how_the_work_ended() -> None:
    status = container(ended(75, word(reason="Killed")), last=ended(137, reason="OOMKilled"), restarts=1)
    found = seen(pod(status=status))
    assert (found.out_of_memory, found.exit_code) == (True, 137)
    assert found.outcome is not None


@pytest.mark.parametrize("message", ["", "Traceback (most recent call last)", '{"role": "student"}', "[]"])
def test_a_message_that_is_none_of_ours_is_no_outcome(message: str) -> None:
    found = seen(pod(status=container(ended(1, message))))
    assert (found.outcome, found.exit_code) == (None, 1)


def test_a_foreign_container_says_nothing() -> None:
    status = container(ended(65, word(ExitCode.USER_ERROR)), name="istio-proxy")
    assert seen(pod(status=status)).outcome is None


def test_a_deleted_pod_says_since_when() -> None:
    found = seen(pod(deletionTimestamp="2026-11-25T10:09:00Z"), gone=True)
    assert (found.deleting_since, found.gone) == (datetime(2026, 11, 25, 10, 9, tzinfo=UTC), True)


def test_a_teachers_deployment() -> None:
    item = child(
        "j-teacher",
        metadata={"generation": 4},
        spec={"replicas": 3},
        status={
            "observedGeneration": 4,
            "replicas": 2,
            **condition("ReplicaFailure", reason="FailedCreate", message="exceeded quota: gpus"),
        },
    )
    observed = observe(job(), Sight(children=[(DEPLOYMENTS, pruned(DEPLOYMENTS, item))]))
    assert observed.teacher == Workload(
        "Deployment", "j-teacher", attempt=1, replicas=3, pods=2, settled=True, warning="exceeded quota: gpus"
    )


def test_a_workload_is_settled_once_its_controller_saw_the_newest_spec() -> None:
    item = child("j-student", metadata={"generation": 5}, spec={"replicas": 0}, status={"observedGeneration": 4})
    observed = observe(job(), Sight(children=[(STATEFUL_SETS, item)], warnings={"uid-j-student": "quota"}))
    assert observed.student == Workload("StatefulSet", "j-student", attempt=1, replicas=0, warning="quota")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, {"replicas": 1}),
        ({"startTime": "2026-11-25T10:00:00Z", "active": 1}, {"replicas": 1, "pods": 1, "settled": True}),
        (
            {"startTime": "2026-11-25T10:00:00Z", **condition("Complete")},
            {"replicas": 0, "settled": True, "complete": True},
        ),
        (
            {
                "startTime": "2026-11-25T10:00:00Z",
                **condition("Failed", reason="PodFailurePolicy", message="pod failed with exit code 65"),
            },
            {"settled": True, "failed": "PodFailurePolicy", "failed_message": "pod failed with exit code 65"},
        ),
    ],
)
def test_a_batch_job(status: Object, expected: dict[str, Any]) -> None:
    item = child("j-prepare-1", spec={"parallelism": 1}, status=status)
    observed = observe(job(), Sight(children=[(BATCH_JOBS, pruned(BATCH_JOBS, item))]))
    assert observed.prepare == Workload("Job", "j-prepare-1", attempt=1, **expected)


def test_the_batch_job_of_another_attempt_is_not_seen() -> None:
    observed = observe(job(attempt=2), Sight(children=[(BATCH_JOBS, child("j-prepare-1"))]))
    assert observed.prepare is None


def test_the_digest_is_that_of_the_current_attempts_config_map() -> None:
    config_maps = [
        (CONFIG_MAPS, child(f"j-{number}", metadata={"annotations": {DIGEST_ANNOTATION: f"digest-{number}"}}))
        for number in (1, 2)
    ]
    assert observe(job(attempt=2), Sight(children=config_maps)).stored_digest == "digest-2"
    assert observe(job(attempt=3), Sight(children=config_maps)).stored_digest is None


def test_pods_of_all_attempts_and_those_that_are_gone_are_seen() -> None:
    sight = Sight(
        children=[(STATEFUL_SETS, child("j-student"))],
        pods=[pod("j-student-0", attempt=2)],
        gone=[pod("j-student-1")],
    )
    found = observe(job(attempt=2), sight).pods
    assert [(one.name, one.attempt, one.gone) for one in found] == [("j-student-0", 2, False), ("j-student-1", 1, True)]


@pytest.mark.parametrize("role", ["prepare", "teacher", "student", "evaluate"])
def test_pods_of_an_earlier_job_of_the_same_name_are_not_this_jobs(role: str) -> None:
    # As young as this job's own, and their maker is gone: nothing but the label tells them apart.
    lingering = pod(role=role, job_uid="old-uid", creationTimestamp=BORN)
    seen = observe(job(), Sight(pods=[lingering], gone=[lingering]))
    assert seen.pods == ()
    assert seen.earlier_pods == (lingering["metadata"]["name"],)
    assert observe(job(), Sight(pods=[pod(role=role)], gone=[lingering])).earlier_pods == ()


def test_pods_whose_maker_is_gone_are_still_this_jobs() -> None:
    assert len(observe(job(), Sight(pods=[pod(creationTimestamp=BORN)])).pods) == 1


def test_a_pod_with_a_role_of_somebody_else_is_left_aside() -> None:
    assert observe(job(), Sight(pods=[pod(role="cook")])).pods == ()


def test_an_object_with_a_childs_name_that_is_not_the_jobs_is_foreign() -> None:
    sight = Sight(
        children=[
            (SERVICES, child("j-teacher", owner_uid="old-uid", metadata={"deletionTimestamp": "2026-11-25T10:00:00Z"})),
            (DEPLOYMENTS, child("j-teacher")),
            (SERVICES, child("elsewhere", owner_uid="old-uid")),
        ],
        in_the_way=[Foreign("StatefulSet", "j-student", False), Foreign("Deployment", "j-teacher", False)],
    )
    observed = observe(job(), sight)
    # What was met earlier and is the job's own by now is in nobody's way.
    assert set(observed.foreign) == {Foreign("Service", "j-teacher", True), Foreign("StatefulSet", "j-student", False)}
    assert observed.teacher is not None


def test_a_foreign_workload_is_not_observed_as_the_jobs() -> None:
    assert observe(job(), Sight(children=[(STATEFUL_SETS, child("j-student", owner_uid="other"))])).student is None


def test_the_rest_is_handed_on() -> None:
    progress = {"j-student-0": Progress(role="student", stage="train", done=3)}
    observed = observe(job(), Sight(progress=progress, refused="no", running_jobs=4))
    assert (observed.progress, observed.refused, observed.running_jobs) == (progress, "no", 4)


def test_a_job_that_has_not_begun_has_no_children() -> None:
    observed = observe(job(attempt=None), Sight())
    assert (observed.prepare, observed.student, observed.pods, observed.stored_digest) == (None, None, (), None)
