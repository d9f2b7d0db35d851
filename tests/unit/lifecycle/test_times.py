"""What takes too long: starting, standing still, being active, staying around; and what waits in the meantime."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.observed import Foreign, Pod
from distill_runtime.contract.outcome import Progress
from distill_runtime.contract.run import Role
from tests.unit.lifecycle.played_cluster import Kubelet, PlayedCluster, runs
from tests.unit.lifecycle.words import distilling, evaluated, evaluating, prepared, succeeded, taught, trained

SOON: dict[str, Any] = {"policy": {"startupDeadlineSeconds": 100, "backoffLimit": 0}}


def without_node(pod: Pod) -> Pod:
    return replace(pod, unschedulable="0/5 nodes are available: 5 Insufficient nvidia.com/gpu.")


def held(reason: str, message: str) -> Kubelet:
    return lambda pod: replace(pod, node="node-1", waiting_reason=reason, waiting_message=message)


def creating(pod: Pod) -> Pod:
    return replace(pod, node="node-1")


def starting(kubelets: dict[Role, Kubelet], spec: dict[str, Any] | None = None) -> PlayedCluster:
    """A job that begins to distil, with kubelets that do this."""
    cluster = PlayedCluster({"student": {"workers": 2}, **(spec or SOON)}, kubelets=kubelets)
    cluster.settle().end("prepare", **prepared())
    return cluster.settle()


HARD: dict[str, tuple[dict[Role, Kubelet], str, str]] = {
    "image": (
        {"student": held("ImagePullBackOff", "Back-off pulling image runtime:9")},
        "ImagePullBackOff",
        "job-student-0: Back-off pulling image runtime:9",
    ),
    "secret": (
        {"teacher": held("CreateContainerConfigError", 'secret "s3" not found')},
        "CreateContainerConfigError",
        'secret "s3" not found',
    ),
    "no node": (
        {"teacher": without_node, "student": without_node},
        "Unschedulable",
        "5 Insufficient nvidia.com/gpu",
    ),
    "image beats room": (
        {"teacher": without_node, "student": held("ErrImagePull", "not found")},
        "ErrImagePull",
        "not found",
    ),
    "nobody says why": ({"student": creating}, "StartupDeadlineExceeded", "job-student-0, job-student-1 didn't run"),
}


@pytest.mark.parametrize("name", HARD)
def test_what_never_starts_fails_with_the_words_of_whoever_knows(name: str) -> None:
    kubelets, reason, words = HARD[name]
    cluster = starting(kubelets)
    assert cluster.status.phase == "Distilling"
    assert cluster.status.reason in (reason, "Starting")
    cluster.wait(99)
    assert cluster.status.phase == "Distilling"
    cluster.wait(1)
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", reason)
    assert words in cluster.status.message
    assert "100 s (spec.policy.startupDeadlineSeconds)" in cluster.status.message
    assert cluster.names() == []


@pytest.mark.parametrize("role", ["prepare", "evaluate"])
def test_batch_jobs_have_the_same_deadline(role: Any) -> None:
    cluster = evaluating(**SOON) if role == "evaluate" else PlayedCluster(SOON)
    cluster.kubelets[role] = without_node
    if role == "evaluate":
        cluster.delete(cluster.pod("evaluate").uid)
        cluster.remove_deleted()
        cluster.unheard = []
    cluster.wait(101)
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "Unschedulable")


def test_a_batch_job_whose_pod_failed_is_left_to_its_back_off() -> None:
    cluster = PlayedCluster({"policy": {"startupDeadlineSeconds": 100}}).settle()
    cluster.kubelets["prepare"] = without_node
    cluster.end("prepare", exit_code=1)
    cluster.wait(1000)
    assert cluster.status.phase == "Preparing"


def test_a_quota_says_so() -> None:
    cluster = PlayedCluster(SOON)
    cluster.warnings["prepare-1"] = 'pods "job-prepare-1-x" is forbidden: exceeded quota: none'
    cluster.wait(1)
    assert cluster.status.reason == "QuotaExceeded"
    cluster.wait(100)
    assert cluster.status.phase == "Failed"
    assert "exceeded quota: none" in cluster.status.message


@pytest.mark.parametrize("waiting", ["student", "teacher"])
def test_a_half_admitted_job_lets_go_and_tries_again_later(waiting: Any) -> None:
    spec = {"policy": {"startupDeadlineSeconds": 100, "backoffLimit": 1}}
    cluster = starting({waiting: without_node}, spec)
    cluster.wait(100)
    assert cluster.ending().reason == "HalfAdmitted"
    assert "5 Insufficient nvidia.com/gpu" in cluster.status.message
    assert cluster.pods == {}
    cluster.kubelets = {}
    cluster.wait(4)
    assert cluster.pods == {}
    cluster.wait(6)
    assert len(cluster.pods) == 3
    assert (cluster.status.attempts.failed, cluster.status.attempt.number) == (1, 2)


def test_jobs_that_let_go_at_the_same_moment_try_again_at_others() -> None:
    """They would share the GPUs out between them again, and again none would have enough."""
    spec = {"student": {"workers": 2}, "policy": {"startupDeadlineSeconds": 100, "backoffLimit": 3}}
    delays: list[tuple[float, ...]] = []
    for uid in ("red", "blue"):
        cluster = PlayedCluster(spec, kubelets={"student": without_node})
        cluster.job = cluster.job.model_copy(update={"metadata": cluster.job.metadata.model_copy(update={"uid": uid})})
        cluster.settle().end("prepare", **prepared())
        found: list[float] = []
        for _ in range(3):
            cluster.wait(100)
            assert cluster.ending().reason == "HalfAdmitted"
            found.append((cluster.ending().retry_time - cluster.now).total_seconds())
            cluster.wait(found[-1])
        delays.append(tuple(found))
    for red, blue, longest in zip(*delays, (10, 20, 40), strict=True):
        assert red != blue
        assert longest / 2 <= min(red, blue) < max(red, blue) <= longest


def test_half_admission_by_a_quota_lets_go_too() -> None:
    cluster = PlayedCluster({"student": {"workers": 2}, "policy": {"startupDeadlineSeconds": 100}})
    cluster.warnings["student"] = "exceeded quota: gpus"
    cluster.settle().end("prepare", **prepared())
    cluster.wait(100)
    assert cluster.ending().reason == "HalfAdmitted"
    assert "exceeded quota: gpus" in cluster.status.message


@pytest.mark.parametrize("role", ["prepare", "student"])
def test_a_job_whose_pods_got_their_nodes_late_tries_again(role: Any) -> None:
    spec = {"student": {"workers": 2}, "policy": {"startupDeadlineSeconds": 100, "backoffLimit": 1}}
    cluster = PlayedCluster(spec, kubelets={role: creating})
    if role == "student":
        cluster.settle().end("prepare", **prepared())
    cluster.wait(100)
    assert cluster.ending().reason == "StartupDeadlineExceeded"
    assert "didn't run" in cluster.status.message
    cluster.kubelets = {}
    cluster.wait(10)
    assert (cluster.status.attempts.failed, cluster.status.attempt.number) == (1, 2)
    assert all(pod.phase == "Running" for pod in cluster.pods.values())


def test_half_admission_counts_against_the_backoff_limit() -> None:
    cluster = starting({"student": without_node})
    cluster.wait(100)
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "HalfAdmitted")


def test_one_teacher_is_enough_once_all_have_run() -> None:
    cluster = distilling(teacher={"replicas": 2}, **SOON)
    cluster.kubelets["teacher"] = without_node
    cluster.delete(cluster.pod("teacher").uid)
    cluster.wait(1000)
    assert cluster.status.attempt.waiting_since is None
    assert cluster.status.phase == "Distilling"


def test_students_that_lost_all_teachers_do_not_wait_for_ever() -> None:
    cluster = distilling(policy={"startupDeadlineSeconds": 100})
    cluster.kubelets["teacher"] = without_node
    cluster.delete(cluster.pod("teacher").uid)
    cluster.wait(100)
    assert cluster.ending().reason == "HalfAdmitted"


@pytest.mark.parametrize("what", ["foreign", "refused"])
def test_what_is_in_the_way_stalls_the_job_until_it_goes(what: str) -> None:
    cluster = PlayedCluster()
    cluster.reconcile()
    if what == "foreign":
        cluster.foreign = (Foreign("Service", "job-student", deleting=False),)
    else:
        cluster.refused = "Service job-student was refused: denied by the webhook"
    cluster.settle()
    condition = {one.type: one for one in cluster.status.conditions}
    assert condition["Stalled"].status == "True"
    assert condition["Stalled"].reason == ("NameTaken" if what == "foreign" else "Refused")
    assert "job-student" in condition["Stalled"].message
    assert condition["Reconciling"].status == "False"
    assert cluster.reasons().count(condition["Stalled"].reason) == 1
    cluster.foreign, cluster.refused, cluster.dirty = (), "", True
    cluster.settle()
    assert {one.type: one.status for one in cluster.status.conditions}["Stalled"] == "False"


def test_a_foreign_object_that_is_going_is_waited_for() -> None:
    cluster = PlayedCluster()
    cluster.foreign = (Foreign("Service", "job-student", deleting=True),)
    cluster.settle()
    conditions = {one.type: one for one in cluster.status.conditions}
    assert conditions["Stalled"].status == "False"
    assert conditions["Reconciling"].status == "True"


def test_a_job_that_is_not_allowed_never_begins() -> None:
    cluster = PlayedCluster()
    cluster.refused = "spec.pods.student.image: evil:1 is not among the images that this cluster allows"
    cluster.wait(100_000)
    assert cluster.status.phase == "Pending"
    assert cluster.status.attempt is None
    assert cluster.status.reason == "Refused"


def test_jobs_over_the_limit_wait_for_their_turn() -> None:
    cluster = PlayedCluster(configuration=OperatorConfiguration(max_running_jobs=2))
    cluster.running_jobs = 2
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Pending", "Queued")
    assert cluster.status.start_time is None
    cluster.running_jobs, cluster.dirty = 1, True
    cluster.settle()
    assert cluster.status.phase == "Preparing"


def test_a_job_waits_for_the_pods_of_an_earlier_one_of_its_name() -> None:
    cluster = PlayedCluster()
    cluster.earlier_pods = ("job-student-0", "job-student-1")
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Pending", "EarlierPods")
    assert "job-student-0, job-student-1" in cluster.status.message
    assert cluster.status.start_time is None
    cluster.earlier_pods, cluster.dirty = (), True
    cluster.settle()
    assert cluster.status.phase == "Preparing"


def test_a_resumed_job_waits_for_its_turn_too() -> None:
    cluster = PlayedCluster(configuration=OperatorConfiguration(max_running_jobs=1)).settle()
    cluster.edit(suspend=True)
    cluster.settle()
    cluster.running_jobs = 1
    cluster.edit(suspend=False)
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Suspended", "Queued")
    cluster.running_jobs, cluster.dirty = 0, True
    cluster.settle()
    assert (cluster.status.phase, cluster.status.attempt.number) == ("Preparing", 2)


def student_is_at(cluster: PlayedCluster, done: int, *, loss: float = 2.5) -> None:
    progress = Progress(role="student", stage="train", done=done, total=1000, loss=loss, time=done)
    cluster.progress["job-student-0"] = progress
    cluster.dirty = True


def test_progress_is_shown() -> None:
    cluster = distilling()
    student_is_at(cluster, 120)
    progress = cluster.settle().status.progress
    assert (progress.stage, progress.step, progress.percent, progress.loss) == ("train", 120, 12, 2.5)
    assert (progress.text, progress.percent_text) == ("120/1000", "12%")


def test_progress_alone_is_written_seldom() -> None:
    cluster = distilling()
    student_is_at(cluster, 1)
    cluster.settle()
    before = cluster.status
    student_is_at(cluster, 2)
    cluster.wait(14)
    assert cluster.status == before
    cluster.wait(1)
    assert cluster.status.progress.step == 2


def test_the_end_of_training_is_foreseen() -> None:
    cluster = distilling()
    for step in (0, 10, 20, 30):
        student_is_at(cluster, step)
        cluster.wait(20)
    left = (cluster.status.progress.eta - cluster.now).total_seconds()
    assert left == pytest.approx(970 * 2, rel=0.05)


def test_teachers_shards_are_counted() -> None:
    cluster = distilling()
    name = cluster.pod("teacher").name
    cluster.progress[name] = Progress(role="teacher", stage="signals", done=3, total=4, unit="shards")
    cluster.dirty = True
    assert cluster.settle().status.signal.shards_done == 3


def test_answers_of_a_pod_of_an_older_attempt_are_not_heard() -> None:
    cluster = distilling()
    student_is_at(cluster, 500)
    cluster.settle()
    cluster.edit(student={"workers": 1})
    cluster.settle()
    assert cluster.status.attempt.number == 2
    assert cluster.status.progress.last_change_time is None


def test_an_attempt_that_gets_nowhere_ends_as_stalled() -> None:
    cluster = distilling(policy={"stallTimeoutSeconds": 600})
    student_is_at(cluster, 5)
    cluster.wait(599)
    assert cluster.ending() is None
    cluster.wait(1)
    ending = cluster.ending()
    assert (ending.reason, ending.counted) == ("Stalled", True)
    assert "job-student-0 stands at train, 5 of 1000 steps" in ending.message


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_an_attempt_of_which_one_pod_gets_on_is_not_stalled(who: str) -> None:
    cluster = distilling(policy={"stallTimeoutSeconds": 600})
    for done in range(10):
        if who == "student":
            student_is_at(cluster, done)
        else:
            name = cluster.pod("teacher").name
            cluster.progress[name] = Progress(role="teacher", stage="signals", done=done, unit="shards")
            cluster.dirty = True
        cluster.wait(500)
    assert cluster.ending() is None


def test_the_same_answer_at_another_time_is_no_progress() -> None:
    cluster = distilling(policy={"stallTimeoutSeconds": 600})
    student_is_at(cluster, 5)
    cluster.wait(300)
    student_is_at(cluster, 5, loss=2.4)
    cluster.wait(300)
    assert cluster.ending().reason == "Stalled"


def test_pods_that_never_answered_are_not_called_stalled() -> None:
    cluster = distilling(policy={"stallTimeoutSeconds": 600})
    cluster.wait(100_000)
    assert cluster.ending() is None


def test_a_teacher_that_loads_its_model_is_not_called_stalled() -> None:
    cluster = starting(
        {"teacher": lambda pod: replace(runs(pod), ready=False)}, {"policy": {"stallTimeoutSeconds": 600}}
    )
    student_is_at(cluster, 0)
    cluster.wait(3500)
    assert cluster.ending() is None
    cluster.change(cluster.pod("teacher").uid, ready=True)
    cluster.wait(599)
    assert cluster.ending() is None
    cluster.wait(1)
    assert cluster.ending().reason == "Stalled"


@pytest.mark.parametrize(("pods", "budget"), [({}, 3600), ({"teacher": {"startupSeconds": 900}}, 900)])
def test_a_teacher_that_loads_its_model_for_ever_is_called_stalled(pods: dict[str, Any], budget: int) -> None:
    """One that loads late is watched by no startup probe any more."""
    policy = {"stallTimeoutSeconds": 600}
    cluster = starting({"teacher": lambda pod: replace(runs(pod), ready=False)}, {"policy": policy, "pods": pods})
    student_is_at(cluster, 0)
    cluster.wait(budget - 1)
    assert cluster.ending() is None
    cluster.wait(1)
    assert cluster.ending().reason == "Stalled"


def test_seldom_looks_are_no_stall() -> None:
    cluster = distilling(policy={"stallTimeoutSeconds": 10})
    cluster.configuration = OperatorConfiguration(progress_seconds=60)
    student_is_at(cluster, 5)
    cluster.wait(179)
    assert cluster.ending() is None
    cluster.wait(1)
    assert cluster.ending().reason == "Stalled"


def test_a_job_that_is_active_for_too_long_fails() -> None:
    cluster = distilling(policy={"activeDeadlineSeconds": 500})
    cluster.wait(499)
    assert cluster.status.phase == "Distilling"
    cluster.wait(1)
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "DeadlineExceeded")
    assert "500 s" in cluster.status.message


def test_time_in_suspension_does_not_count() -> None:
    cluster = distilling(policy={"activeDeadlineSeconds": 500})
    cluster.edit(suspend=True)
    cluster.wait(10_000)
    assert cluster.status.phase == "Suspended"
    cluster.edit(suspend=False)
    cluster.wait(499)
    assert cluster.status.phase == "Distilling"
    cluster.wait(1)
    assert cluster.status.reason == "DeadlineExceeded"


def test_an_ended_job_is_deleted_when_its_time_is_over_and_not_before_its_end_is_stored() -> None:
    cluster = evaluating(policy={"ttlSecondsAfterFinished": 0})
    cluster.end("evaluate", **evaluated())
    assert not cluster.reconcile().delete_job
    assert cluster.reconcile().delete_job
    cluster = succeeded(policy={"ttlSecondsAfterFinished": 60})
    assert cluster.decision.again_after == 60
    cluster.wait(59)
    assert not cluster.deleted
    cluster.wait(1)
    assert cluster.deleted


def test_an_ended_job_without_a_time_to_live_rests() -> None:
    cluster = succeeded()
    cluster.reconcile()
    assert cluster.decision.again_after is None
    assert not cluster.decision.delete_job


def test_pods_on_a_lost_node_are_removed_without_grace_after_a_while() -> None:
    cluster = distilling(policy={"nodeLostSeconds": 60})
    pod = cluster.pod("student-1")
    cluster.change(pod.uid, node="lost", disrupted="DeletionByTaintManager")
    cluster.delete(pod.uid)
    cluster.wait(89)
    assert pod.uid in cluster.pods
    assert cluster.status.attempt.number == 1
    cluster.wait(1)
    assert pod.uid not in cluster.pods
    assert (cluster.status.attempt.number, cluster.status.attempts.disrupted) == (2, 1)
    assert "DeletionByTaintManager" in next(event.message for event in cluster.events if event.reason == "Disrupted")


def test_a_finished_half_on_a_lost_node_does_not_hold_the_evaluation_for_ever() -> None:
    cluster = distilling(policy={"nodeLostSeconds": 60})
    cluster.end("teacher", **taught())
    cluster.change(cluster.pod("student-1").uid, node="lost")
    cluster.end("student-0", **trained())
    cluster.wait(89)
    assert cluster.status.phase == "Distilling"
    cluster.wait(1)
    assert cluster.status.phase == "Evaluating"


def test_conditions_do_not_change_from_step_to_step() -> None:
    cluster = distilling()
    before = cluster.status.conditions
    student_is_at(cluster, 1)
    cluster.wait(20)
    student_is_at(cluster, 2)
    cluster.wait(20)
    assert cluster.status.progress.step == 2
    assert cluster.status.conditions == before


def test_times_of_conditions_change_with_their_status_alone() -> None:
    cluster = distilling()
    since = {one.type: one.last_transition_time for one in cluster.status.conditions}
    cluster.wait(100)
    cluster.edit(suspend=True)
    cluster.settle()
    now = {one.type: (one.status, one.last_transition_time) for one in cluster.status.conditions}
    assert now["Ready"] == ("False", since["Ready"])
    assert now["Stalled"] == ("False", since["Stalled"])
    assert now["Reconciling"] == ("False", cluster.now)


def test_the_clock_may_go_back() -> None:
    cluster = distilling()
    student_is_at(cluster, 5)
    cluster.wait(100)
    cluster.now -= timedelta(hours=1)
    student_is_at(cluster, 6)
    cluster.settle()
    assert cluster.ending() is None
