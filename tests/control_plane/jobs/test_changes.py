"""What users and clusters do to a job that runs: suspension, edits, evictions, lost pods."""

import pytest

from distill_runtime.contract.run import Role
from tests.control_plane.jobs.place import Place
from tests.fixtures.api_server import ApiError, ApiServer, Object, path_of
from tests.fixtures.pod_acts import Play, by_attempt, by_worker, crashes, runs, taught, trained
from tests.fixtures.watched_job import revision

pytestmark = pytest.mark.usefixtures("operator")


@pytest.mark.parametrize(
    ("phase", "play", "role"),
    [
        ("Preparing", Play(prepare=runs), "prepare"),
        ("Distilling", Play(teacher=runs, student=runs), "student"),
        ("Evaluating", Play(evaluate=runs), "evaluate"),
    ],
)
def test_a_suspended_job_has_no_pods_and_goes_on_when_resumed(place: Place, phase: str, play: Play, role: Role) -> None:
    job = place.job(f"suspend-{role}").create(play=play)
    job.wait_for_phase(phase)
    job.wait("its pods", lambda: any(pod["status"].get("phase") == "Running" for pod in job.pods(role)))
    job.edit(suspend=True)
    job.wait_for_phase("Suspended")
    job.check_nothing_held_when("Suspended")
    job.wait("that no pod is left", lambda: not job.pods())
    assert not job.children("jobs")
    assert job.status["attempts"]["suspended"] == 1
    job.change(**vars(Play()))
    job.edit(suspend=False)
    job.wait_for_phase("Succeeded")
    assert job.status["resumeTime"]
    assert job.status["attempts"].get("failed", 0) == 0
    assert job.attempt == 2
    assert len(job.pods_ever("prepare")) == (2 if phase == "Preparing" else 1)
    for reason in ("Suspended", "Resumed"):
        job.wait_for_event(reason)


def test_a_job_that_is_born_suspended_waits(place: Place) -> None:
    job = place.job("born-suspended").create({"suspend": True})
    job.wait_for_phase("Suspended")
    assert not job.pods_ever()
    job.edit(suspend=False)
    job.wait_for_phase("Succeeded")


def test_other_workers_make_a_new_attempt(place: Place) -> None:
    job = place.running("more-workers")
    job.edit(student={"workers": 3})
    job.wait_for_running("student", 3, attempt=2)
    assert job.status["attempts"].get("failed", 0) == 0
    assert job.status["observedGeneration"] == job.item["metadata"]["generation"]
    job.finish()


def test_other_teacher_resources_make_a_new_attempt(place: Place) -> None:
    job = place.running("more-gpus")
    job.edit(teacher={"gpus": 2})
    job.wait_for_running("student", 2, attempt=2)
    teacher = job.wait_for_running("teacher", 1, attempt=2)[0]
    assert teacher["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    job.finish()


def test_teacher_replicas_change_beside_running_pods(place: Place) -> None:
    job = place.running("more-teachers")
    students, teachers = job.uids("student"), job.uids("teacher")
    job.edit(teacher={"replicas": 3})
    job.wait_for_running("teacher", 3)
    assert teachers <= job.uids("teacher")
    job.edit(teacher={"replicas": 1})
    job.wait("one teacher", lambda: len(job.pods("teacher")) == 1)
    assert job.uids("student") == students
    assert job.attempt == 1
    job.finish()


def test_an_edited_policy_ends_no_attempt(place: Place) -> None:
    job = place.running("other-policy")
    before = job.uids()
    job.edit(policy={"backoffLimit": 7})
    generation = job.wait(
        "the edit", lambda: job.item["metadata"]["generation"] > 1 and job.item["metadata"]["generation"]
    )
    job.wait("that it was seen", lambda: job.status["observedGeneration"] == generation)
    assert job.uids() == before
    job.finish()


def test_pods_may_be_edited_while_the_job_is_suspended(place: Place) -> None:
    job = place.running("other-pods")
    job.edit(suspend=True)
    job.wait_for_phase("Suspended")
    job.edit(pods={"student": {"labels": {"team": "blue"}}})
    job.edit(suspend=False)
    pods = job.wait_for_running("student", 2, attempt=2)
    assert {pod["metadata"]["labels"]["team"] for pod in pods} == {"blue"}
    job.finish()


@pytest.mark.parametrize(
    "edit",
    [
        {"data": {"train": "s3://bucket/other.jsonl"}},
        {"student": {"model": "hf://other/model"}},
        {"storage": {"uri": "s3://other"}},
        {"training": {"seed": 7}},
        {"pods": {"student": {"memory": "64Gi"}}},
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_other_edits_of_a_running_job_are_refused(place: Place, edit: Object) -> None:
    job = place.running(f"refused-{next(iter(edit))}")
    with pytest.raises(ApiError) as refusal:
        job.edit(**edit)
    assert refusal.value.status == 422
    assert "can't change" in refusal.value.message
    job.delete()


def test_a_lost_worker_costs_an_attempt(place: Place) -> None:
    play = Play(teacher=runs, student=by_attempt(by_worker(runs, crashes()), runs))
    job = place.job("worker-lost").create(play=play)
    job.wait_for_running("student", 2, attempt=2)
    assert job.status["attempts"]["failed"] == 1
    assert len(job.pods_ever("student")) == 4
    job.finish()


def test_an_evicted_worker_costs_an_attempt_that_is_not_counted(place: Place, api: ApiServer) -> None:
    job = place.running("evicted")
    name = f"{job.name}-student-1"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    api.create(path_of("pods", job.namespace, name, "eviction"), eviction)
    job.wait_for_running("student", 2, attempt=2)
    assert job.status["attempts"].get("disrupted") == 1
    assert job.status["attempts"].get("failed", 0) == 0
    job.wait_for_event("Disrupted")
    job.finish()


def test_a_deleted_worker_costs_an_attempt_that_is_not_counted(place: Place, api: ApiServer) -> None:
    job = place.running("deleted-worker")
    api.delete(path_of("pods", job.namespace, f"{job.name}-student-0"))
    job.wait_for_running("student", 2, attempt=2)
    assert job.status["attempts"].get("disrupted") == 1
    assert job.status["attempts"].get("failed", 0) == 0
    job.finish()


def test_a_deleted_stateful_set_costs_an_attempt_that_is_not_counted(place: Place, api: ApiServer) -> None:
    job = place.running("deleted-set")
    api.delete(path_of("statefulsets", job.namespace, f"{job.name}-student"), propagationPolicy="Background")
    job.wait_for_running("student", 2, attempt=2)
    assert job.status["attempts"].get("failed", 0) == 0
    job.finish()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stateful_set_that_is_scaled_by_hand_is_scaled_back(place: Place, api: ApiServer, workers: int) -> None:
    job = place.running(f"scaled-to-{workers}")
    path = path_of("statefulsets", job.namespace, f"{job.name}-student", "scale")
    scaled = api.patch(path, {"spec": {"replicas": workers}})

    def scaled_back() -> bool:
        found = job.child("statefulsets", "student")
        newer = found is not None and revision(found) > revision(scaled)
        return newer and job.replicas("student") == 2

    job.wait("the right number", scaled_back)
    job.wait_for_running("student", 2)
    assert job.status["attempts"].get("failed", 0) == 0
    job.finish()


def test_a_lost_teacher_is_replaced_and_the_student_goes_on(place: Place, api: ApiServer) -> None:
    job = place.running("teacher-lost")
    students, teacher = job.uids("student"), job.pods("teacher")[0]
    api.delete(path_of("pods", job.namespace, teacher["metadata"]["name"]))
    job.wait("another teacher", lambda: job.uids("teacher") - {teacher["metadata"]["uid"]})
    job.wait_for_running("teacher", 1)
    job.wait("that it is counted", lambda: job.status["teacher"].get("restarts") == 1)
    assert job.uids("student") == students
    assert job.attempt == 1
    job.finish()


def test_finished_is_the_word_of_worker_0_alone(place: Place) -> None:
    job = place.job("first-word").create(play=Play(teacher=taught(), student=by_worker(runs, trained())))
    job.wait("worker 1's end", lambda: any(_restarts(pod) for pod in job.pods("student")))
    job.wait("the teacher's end", lambda: job.status["signal"].get("complete"))
    assert job.phase == "Distilling"
    job.change(student=trained())
    job.wait_for_phase("Succeeded")
    assert job.attempt == 1


def _restarts(pod: Object) -> int:
    statuses = pod["status"].get("containerStatuses", [])
    return sum(status["restartCount"] for status in statuses)
