"""Jobs that go well, pass by pass."""

import pytest

from distill_operator.lifecycle.decision import Children
from distill_runtime.contract.outcome import ExitCode, Fact
from tests.unit.lifecycle.played_cluster import PlayedCluster
from tests.unit.lifecycle.words import (
    distilling,
    evaluated,
    evaluating,
    prepared,
    retry,
    said,
    succeeded,
    taught,
    trained,
)


def test_the_first_pass_stores_the_start_and_wants_nothing_yet() -> None:
    cluster = PlayedCluster()
    decision = cluster.reconcile()
    assert decision.children == Children()
    assert decision.children_changed
    assert decision.status.start_time == cluster.now
    assert decision.status.phase == "Preparing"
    assert cluster.reconcile().children == Children(attempt=1, running=True, prepare=True)


def test_each_phase_has_its_children() -> None:
    cluster = distilling(teacher={"replicas": 3})
    assert cluster.decision.children == Children(attempt=1, running=True, teachers=3, students=2, announced_teachers=3)
    cluster.end("teacher", **taught())
    cluster.settle()
    assert cluster.decision.children.teachers == 0
    assert cluster.names() == ["student-0", "student-1"]
    cluster.end("student-0", **trained())
    cluster.settle()
    assert cluster.decision.children == Children(attempt=1, running=True, evaluate=True, announced_teachers=3)
    cluster.end("evaluate", **evaluated())
    cluster.settle()
    assert cluster.decision.children == Children(attempt=1)
    assert cluster.status.phase == "Succeeded"


def test_an_end_is_stored_before_its_pods_go() -> None:
    cluster = distilling()
    cluster.end("student-0", **trained())
    decision = cluster.reconcile()
    assert decision.status.student.finished
    assert decision.children.students == 2
    assert cluster.reconcile().children.students == 0


def test_the_evaluation_waits_until_both_halves_hold_nothing() -> None:
    cluster = distilling()
    cluster.end("teacher", **taught())
    cluster.end("student-0", **trained())
    for _ in range(3):
        cluster.reconcile()
        cluster.control()
    assert cluster.status.phase == "Distilling"
    cluster.remove_deleted()
    cluster.control()
    cluster.reconcile()
    assert cluster.status.phase == "Evaluating"


def test_what_was_found_trained_and_scored_is_told() -> None:
    status = succeeded().status
    assert status.prepared.targets == 9000
    assert (status.signal.shards, status.signal.shards_done, status.signal.reused_shards) == (4, 4, 0)
    progress = status.progress
    assert (progress.step, progress.loss, progress.text, progress.percent_text) == (1000, 0.5, "1000/1000", "100%")
    assert status.evaluation.student_after.kl_to_teacher == 0.25
    assert status.evaluation.student_after.tasks == {"desks": {"accuracy": 0.5}}
    assert status.output.model == "s3://bucket/model"
    assert status.completion_time is not None


def test_each_event_is_told_once() -> None:
    assert succeeded().reasons() == ["AttemptStarted", "Prepared", "SignalsComplete", "StudentFinished", "Succeeded"]


@pytest.mark.parametrize(
    ("found", "spec", "teachers", "students", "announced"),
    [
        (prepared(), {}, 2, 2, 2),
        (prepared(missing=0, scores=0), {}, 0, 2, 0),
        (prepared(missing=0), {}, 1, 2, 1),
        (prepared(), {"signal": {"mode": "offline"}}, 2, 0, 0),
        (prepared(missing=0), {"signal": {"mode": "offline"}}, 1, 2, 0),
        (prepared(missing=0, scores=0), {"signal": {"mode": "streaming"}}, 2, 2, 2),
        (prepared(missing=0, scores=1, trained=True), {"signal": {"mode": "streaming"}}, 1, 0, 1),
        (prepared(trained=True), {}, 2, 0, 2),
    ],
    ids=["hybrid", "reused", "scores", "offline", "offline-scores", "streaming", "streamed-before", "trained-before"],
)
def test_halves_run_as_there_is_work_for_them(
    found: dict[str, object], spec: dict[str, object], teachers: int, students: int, announced: int
) -> None:
    cluster = PlayedCluster({"teacher": {"replicas": 2}, "student": {"workers": 2}, **spec})
    cluster.settle().end("prepare", **found)
    cluster.settle()
    assert cluster.status.phase == "Distilling"
    assert (cluster.replicas("teacher"), cluster.replicas("student")) == (teachers, students)
    assert cluster.decision.children.announced_teachers == announced


def test_a_job_with_nothing_left_is_only_evaluated() -> None:
    cluster = PlayedCluster().settle()
    cluster.end("prepare", **prepared(missing=0, scores=0, trained=True))
    cluster.settle()
    assert cluster.status.phase == "Evaluating"
    assert cluster.names() == ["evaluate-1-1"]


def test_offline_students_begin_when_all_signals_are_there() -> None:
    cluster = distilling(signal={"mode": "offline"})
    assert cluster.names("student") == []
    cluster.end("teacher", **taught())
    cluster.settle()
    assert cluster.names() == ["student-0", "student-1"]


def test_a_streaming_teacher_ends_with_its_student() -> None:
    cluster = distilling(signal={"mode": "streaming"})
    cluster.end("student-0", **trained())
    cluster.settle()
    assert cluster.status.phase == "Distilling"
    # The teacher's scores are missing still.
    assert len(cluster.names("teacher")) == len(cluster.names()) == 1
    cluster.end("teacher", **taught())
    assert cluster.settle().status.phase == "Evaluating"


def test_a_job_without_a_teacher_fails_when_it_needs_one() -> None:
    cluster = PlayedCluster({"teacher": {"replicas": 0}}).settle()
    cluster.end("prepare", **prepared())
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "NoTeacher")
    assert cluster.status.message.startswith("spec.teacher.replicas: is 0")


def test_a_student_that_misses_signals_brings_the_teacher_back() -> None:
    cluster = PlayedCluster({"student": {"workers": 2}}).settle()
    cluster.end("prepare", **prepared(missing=0, scores=0))
    cluster.settle().end("student-1", **retry("student", "SignalsMissing", needs="signals"))
    cluster.wait(10)
    assert cluster.status.attempt.number == 2
    assert cluster.names("student") == ["student-0", "student-1"]
    assert len(cluster.names("teacher")) == 1
    assert cluster.decision.children.announced_teachers == 1


def test_an_evaluation_that_misses_signals_runs_the_teacher_alone() -> None:
    cluster = evaluating()
    cluster.end("evaluate", **retry("evaluate", "TeacherAnswersMissing", needs="signals"))
    cluster.wait(10)
    assert cluster.status.phase == "Distilling"
    assert len(cluster.names("teacher")) == 1
    assert cluster.names("student") == []
    cluster.end("teacher", **taught())
    assert cluster.settle().status.phase == "Evaluating"


@pytest.mark.parametrize(
    ("role", "facts"),
    [("prepare", {}), ("teacher", {"shards": "many"}), ("student", {"steps": 5}), ("evaluate", {"steps": "x"})],
)
def test_facts_of_another_version_fail_the_job_with_a_sentence(role: str, facts: dict[str, object]) -> None:
    word = said(role, ExitCode.FINISHED, "Finished", facts=facts)  # type: ignore[arg-type]
    cluster = {"prepare": PlayedCluster, "evaluate": evaluating}.get(role, distilling)().settle()
    cluster.end("student-0" if role == "student" else role, **word)
    cluster.settle()
    assert (cluster.status.phase, cluster.status.reason) == ("Failed", "AnotherVersion")
    assert "another version" in cluster.status.message


def test_scores_that_are_no_numbers_are_left_out() -> None:
    cluster = evaluating()
    facts: dict[str, Fact] = {
        "studentAfterKl": float("nan"),
        "studentAfterPerplexity": 3.5,
        "desks.studentAfter.accuracy": float("inf"),
    }
    cluster.end("evaluate", **said("evaluate", ExitCode.FINISHED, "Finished", facts=facts))
    after = cluster.settle().status.evaluation.student_after
    assert (after.kl_to_teacher, after.perplexity, after.tasks) == (None, 3.5, {"desks": {}})
