"""Which containers run, side by side or one after the other."""

import pytest

from distill_operator.cli.refusal import Refusal
from distill_operator.cli.stages import Stage, facts_of, stages
from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.contract.outcome import ExitCode, Outcome
from distill_runtime.contract.run import Work
from distill_runtime.contract.sections import Data, Signal, Storage, Student, Teacher

EVALUATE = Stage(evaluate=True)


def work(mode: str = "hybrid", replicas: int = 2) -> Work:
    return Work(
        teacher=Teacher(model="hf://a/b", replicas=replicas),
        student=Student(model="hf://a/c"),
        data=Data(train="file:///d.jsonl"),
        storage=Storage(uri="file:///s"),
        signal=Signal.model_validate({"mode": mode}),
    )


def facts(missing: int = 0, scores: int = 0, *, finished: bool = False) -> PrepareFacts:
    return PrepareFacts(
        signal_shards=34,
        signal_shards_missing=missing,
        teacher_evaluations_missing=scores,
        training_finished=finished,
        total_steps=60,
    )


CASES: list[tuple[str, str, PrepareFacts, bool, list[Stage]]] = [
    (
        "a first run has both halves at once",
        "hybrid",
        facts(34, 1),
        False,
        [Stage(teachers=2, evaluate_teacher=True, students=True), EVALUATE],
    ),
    (
        "offline, the teacher ends before the student begins",
        "offline",
        facts(34, 1),
        False,
        [Stage(teachers=2, evaluate_teacher=True), Stage(students=True), EVALUATE],
    ),
    ("streaming has both at once", "streaming", facts(34), False, [Stage(teachers=2, students=True), EVALUATE]),
    ("signals that are there start no teacher", "hybrid", facts(), False, [Stage(students=True), EVALUATE]),
    ("offline, signals that are there start no teacher", "offline", facts(), False, [Stage(students=True), EVALUATE]),
    (
        "streaming signals may be gone behind a checkpoint: a teacher runs until the training is finished",
        "streaming",
        facts(),
        False,
        [Stage(teachers=2, students=True), EVALUATE],
    ),
    ("a finished training starts neither half", "hybrid", facts(finished=True), False, [EVALUATE]),
    ("a finished streaming training starts neither half", "streaming", facts(finished=True), False, [EVALUATE]),
    (
        "scores alone are one replica's work",
        "hybrid",
        facts(scores=2),
        False,
        [Stage(teachers=1, evaluate_teacher=True, students=True), EVALUATE],
    ),
    (
        "a finished training may still want the teacher's scores",
        "offline",
        facts(scores=1, finished=True),
        False,
        [Stage(teachers=1, evaluate_teacher=True), EVALUATE],
    ),
    (
        "held-out signals may be missing behind a finished training",
        "hybrid",
        facts(1, finished=True),
        False,
        [Stage(teachers=2), EVALUATE],
    ),
    (
        "signals that a student missed bring all teachers back, though none seems missing",
        "hybrid",
        facts(),
        True,
        [Stage(teachers=2, students=True), EVALUATE],
    ),
    (
        "offline too",
        "offline",
        facts(),
        True,
        [Stage(teachers=2), Stage(students=True), EVALUATE],
    ),
]


@pytest.mark.parametrize(("mode", "found", "needed", "wanted"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_stages(mode: str, found: PrepareFacts, needed: bool, wanted: list[Stage]) -> None:
    assert stages(found, work(mode), signals_needed=needed) == wanted


def test_a_job_without_replicas_is_refused_only_where_the_teacher_must_run() -> None:
    assert stages(facts(), work(replicas=0)) == [Stage(students=True), EVALUATE]
    with pytest.raises(
        Refusal, match=r"spec\.teacher\.replicas: is 0, but the teacher must run \(signals are missing"
    ) as caught:
        stages(facts(3), work(replicas=0))
    assert caught.value.code is ExitCode.USER_ERROR
    with pytest.raises(Refusal, match="its scores"):
        stages(facts(scores=1), work(replicas=0))


def outcome(**given: str | int | float | bool | None) -> Outcome:
    return Outcome(role="prepare", code=ExitCode.FINISHED, reason="Finished", message="", facts=given)


def test_facts_are_read_from_prepares_outcome_whatever_else_it_says() -> None:
    found = facts_of(
        outcome(
            signalShards=34,
            signalShardsMissing=3,
            teacherEvaluationsMissing=0,
            trainingFinished=False,
            totalSteps=60,
            signalDigest="ab",
        )
    )
    assert found == facts(3).model_copy(update={"signal_digest": "ab"})


def test_missing_facts_are_named() -> None:
    with pytest.raises(Refusal, match="did not say signalShardsMissing, trainingFinished"):
        facts_of(outcome(signalShards=34, teacherEvaluationsMissing=0, totalSteps=60))
