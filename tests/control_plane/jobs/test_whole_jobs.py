"""Jobs that go well: from Pending to Succeeded, with what a user sees on the way."""

import pytest

from tests.control_plane.jobs.job import Job
from tests.control_plane.jobs.place import Place
from tests.fixtures.api_server import ApiServer
from tests.fixtures.pod_acts import (
    Play,
    asks_for_a_retry,
    by_attempt,
    prepared,
    progresses,
    runs,
    starts_up,
    taught,
    trained,
)
from tests.testcluster.control_plane import ControlPlane

pytestmark = pytest.mark.usefixtures("operator")


def announced_teachers(job: Job) -> str:
    pod = job.pods("student")[0]
    variables = {variable["name"]: variable.get("value", "") for variable in pod["spec"]["containers"][0]["env"]}
    return variables["DISTILL_TEACHERS"]


@pytest.fixture(scope="module")
def succeeded(place: Place) -> Job:
    """A job that went well, looked at when it is over."""
    return place.job("whole").create().wait_for_phase("Succeeded")


def test_a_job_goes_through_its_phases_in_order(succeeded: Job) -> None:
    phases = succeeded.phases()
    assert phases[-4:] == ["Preparing", "Distilling", "Evaluating", "Succeeded"]
    assert phases[:-4] in ([], ["Pending"])


def test_one_attempt_of_each_role_is_enough(succeeded: Job) -> None:
    pods = {role: len(succeeded.pods_ever(role)) for role in ("prepare", "teacher", "student", "evaluate")}
    assert pods == {"prepare": 1, "teacher": 1, "student": 2, "evaluate": 1}
    assert succeeded.attempt == 1
    assert succeeded.status["attempts"].get("failed", 0) == 0


def test_conditions_say_ready_as_kstatus_reads_them(succeeded: Job) -> None:
    states = {kind: succeeded.condition(kind).get("status", "False") for kind in ("Ready", "Reconciling", "Stalled")}
    assert states == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    assert succeeded.status["observedGeneration"] == succeeded.item["metadata"]["generation"]


def test_status_tells_what_was_found_made_and_scored(succeeded: Job) -> None:
    status = succeeded.status
    assert status["prepared"]["signalShards"] == 4
    assert status["progress"]["step"] == 1000
    assert status["signal"]["complete"] is True
    assert status["teacher"]["finished"] is True
    assert status["student"]["finished"] is True
    assert status["evaluation"]["studentAfter"]["klToTeacher"] == 0.25
    assert status["evaluation"]["teacher"]["perplexity"] == 3.0
    assert status["output"]["model"] == "s3://bucket/models/job"
    assert status["startTime"] <= status["completionTime"]


def test_events_tell_each_step_once(succeeded: Job) -> None:
    succeeded.wait_for_event("Succeeded")
    reasons = succeeded.reasons()
    assert {"Prepared", "StudentFinished", "Succeeded"} <= set(reasons)
    assert len(reasons) == len(set(reasons))
    assert all(event.get("count", 1) == 1 for event in succeeded.events())


def test_an_ended_job_keeps_only_its_config_map(succeeded: Job) -> None:
    left = ("deployments", "statefulsets", "jobs", "services", "networkpolicies", "poddisruptionbudgets", "pods")
    succeeded.wait("nothing left of it", lambda: not any(succeeded.children(resource) for resource in left))
    assert [item["metadata"]["name"] for item in succeeded.children("configmaps")] == ["whole-1"]


def test_kubectl_shows_the_columns_and_the_story(succeeded: Job, control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl()
    header, row = kubectl("get", "dj", succeeded.name, "-n", succeeded.namespace).splitlines()
    assert header.split() == ["NAME", "PHASE", "STEP", "PROGRESS", "LOSS", "TEACHER", "STUDENT", "AGE"]
    assert row.split()[:-1] == ["whole", "Succeeded", "1000/1000", "100%", "0.5", "0/0", "0/0"]
    described = kubectl("describe", "dj", succeeded.name, "-n", succeeded.namespace)
    assert "Kl To Teacher:" in described
    assert "Events:" in described
    assert "Succeeded" in described.partition("Events:")[2]


def test_progress_is_told_while_the_student_works(place: Place) -> None:
    job = place.job("progress").create(play=Play(teacher=runs, student=progresses(120, 1000, loss=2.5)))
    job.wait("its step", lambda: job.status.get("progress", {}).get("step") == 120)
    assert job.status["progress"]["totalSteps"] == 1000
    assert job.status["progress"]["percent"] == 12
    assert job.status["progress"]["loss"] == 2.5
    job.wait("its students", lambda: job.status["student"]["text"] == "2/2")
    job.wait("its teacher", lambda: job.status["teacher"]["text"] == "1/1")
    job.delete()


def test_a_teacher_whose_work_is_done_is_scaled_to_zero_and_the_student_goes_on(place: Place) -> None:
    job = place.job("teacher-done").create(play=Play(teacher=runs, student=runs))
    students = {pod["metadata"]["uid"] for pod in job.wait_for_running("student", 2)}
    assert announced_teachers(job) == "1"
    job.change(teacher=taught())
    job.wait("no teacher", lambda: job.replicas("teacher") in (0, None) and not job.pods("teacher"))
    job.wait("that the status says so", lambda: job.status["signal"].get("complete"))
    assert {pod["metadata"]["uid"] for pod in job.wait_for_running("student", 2)} == students
    job.change(student=trained())
    job.wait_for_phase("Succeeded")
    assert job.pods_ever("student").keys() == students


def test_the_teacher_comes_back_when_the_student_misses_signals(place: Place) -> None:
    play = Play(
        prepare=prepared(missing=0, scores=0),
        student=by_attempt(asks_for_a_retry("SignalMissing", needs="signals"), trained()),
    )
    job = place.job("teacher-back").create(play=play).wait_for_phase("Succeeded")
    assert job.attempt == 2
    attempts = {pod["metadata"]["labels"]["distill-operator.io/attempt"] for pod in job.pods_ever("teacher").values()}
    assert attempts == {"2"}


def test_a_job_that_finds_everything_made_starts_no_teacher(place: Place) -> None:
    job = place.job("reused").create(play=Play(prepare=prepared(missing=0, scores=0), student=runs))
    job.wait_for_running("student", 2)
    assert announced_teachers(job) == "0"
    job.change(student=trained())
    job.wait_for_phase("Succeeded")
    assert not job.pods_ever("teacher")


def test_a_job_whose_model_was_trained_before_is_only_evaluated(place: Place) -> None:
    play = Play(prepare=prepared(missing=0, scores=0, training_finished=True))
    job = place.job("trained-before").create(play=play).wait_for_phase("Succeeded")
    assert not job.pods_ever("teacher")
    assert not job.pods_ever("student")
    assert len(job.pods_ever("evaluate")) == 1


def test_scores_alone_take_one_teacher(place: Place) -> None:
    spec = {"teacher": {"replicas": 3}}
    job = place.job("scores").create(spec, Play(prepare=prepared(missing=0), teacher=runs))
    job.wait_for_running("teacher", 1)
    assert job.replicas("teacher") == 1
    job.change(teacher=taught())
    job.wait_for_phase("Succeeded")


def test_offline_students_wait_until_all_signals_are_there(place: Place) -> None:
    job = place.job("offline").create({"signal": {"mode": "offline"}}, Play(teacher=starts_up, student=runs))
    job.wait_for_running("teacher", 1)
    job.change(teacher=runs)
    job.wait("a teacher that is ready", lambda: job.status["teacher"].get("ready") == 1)
    assert not job.pods_ever("student")
    job.change(teacher=taught())
    job.wait_for_running("student", 2)
    job.wait("no teacher", lambda: not job.pods("teacher"))
    job.change(student=trained())
    job.wait_for_phase("Succeeded")


def test_an_ended_job_is_deleted_when_its_time_to_live_is_over(place: Place, api: ApiServer) -> None:
    job = place.job("short-lived").create({"policy": {"ttlSecondsAfterFinished": 2}})
    job.wait("its end", lambda: "Succeeded" in job.phases())
    gone = lambda: place.world.get("distilljobs", job.namespace, job.name) is None  # noqa: E731
    job.wait("its deletion", gone)
    job.wait("its ConfigMap's deletion", lambda: not job.children("configmaps"))


def test_a_job_that_another_controller_manages_is_left_alone(place: Place) -> None:
    job = place.job("managed").create({"managedBy": "kueue.x-k8s.io/multikueue"})
    neighbour = place.job("neighbour").create().wait_for_phase("Succeeded")
    assert neighbour.phase == "Succeeded"
    assert not job.statuses()
    assert not job.children("configmaps")
