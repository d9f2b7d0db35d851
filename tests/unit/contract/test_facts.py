"""Facts survive their way through a termination message, whatever a job has to tell."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill_runtime.contract.facts import (
    MOST_FACTS,
    EvaluateFacts,
    PrepareFacts,
    StudentFacts,
    SubjectFacts,
    TeacherFacts,
)
from distill_runtime.contract.outcome import TERMINATION_MESSAGE_BYTES, ExitCode, Outcome

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
SCORES = st.floats(0, 1).map(lambda value: float(f"{value:.5g}"))
URIS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), max_size=1024).map("s3://b/{}".format)
PAIRS = st.sampled_from([("accuracy", "macroF1"), ("exactMatch", "tokenF1")])


@st.composite
def evaluations(draw: st.DrawFn, most_tasks: int, uris: st.SearchStrategy[str]) -> EvaluateFacts:
    metrics = draw(st.dictionaries(NAMES, PAIRS, max_size=most_tasks))

    def subject() -> SubjectFacts:
        tasks = {task: {metric: draw(SCORES) for metric in pair} for task, pair in metrics.items()}
        known = st.none() | SCORES
        return SubjectFacts(
            parameters=draw(st.none() | st.integers(0, 10**13)), kl=draw(known), ece=draw(known), tasks=tasks
        )

    return EvaluateFacts(
        model=draw(uris),
        report=draw(uris),
        steps=draw(st.integers(0, 10**9)),
        teacher=subject(),
        student_before=subject(),
        student_after=subject(),
    )


def outcome(facts: dict[str, Any], message: str = "evaluate finished.") -> Outcome:
    return Outcome(role="evaluate", code=ExitCode.FINISHED, reason="Finished", message=message, attempt=7, facts=facts)


def sent(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts as they arrive."""
    message = outcome(facts).termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    return Outcome.model_validate_json(message).facts


@given(evaluations(4, st.just("file:///store/trainings/ab/report.html")))
def test_an_evaluation_is_read_as_it_was_said(facts: EvaluateFacts) -> None:
    assert EvaluateFacts.read(sent(facts.flat())) == facts


@given(evaluations(32, URIS))
def test_of_an_evaluation_that_is_too_long_whole_tasks_are_left_out_in_order(facts: EvaluateFacts) -> None:
    flat = facts.flat()
    assert len(flat) <= MOST_FACTS
    read = EvaluateFacts.read(flat)
    tasks = list(facts.teacher.tasks)
    kept = tasks[: len(tasks) - read.tasks_left_out]
    for subject in ("teacher", "student_before", "student_after"):
        assert getattr(read, subject).tasks == {name: getattr(facts, subject).tasks[name] for name in kept}
    arrived = EvaluateFacts.read(sent(flat))
    assert (arrived.model, arrived.steps) == (facts.model, facts.steps) or len(facts.model.encode()) > 1024


def test_the_longest_addresses_leave_room_for_tasks() -> None:
    uri = "s3://" + "b" * 1019
    pair = {"accuracy": 0.12345, "macroF1": 0.12345}
    subject = SubjectFacts(
        parameters=10**12, perplexity=12.345, kl=0.12345, top1=0.12345, ece=0.12345, tasks={"desks": pair}
    )
    facts = EvaluateFacts(
        model=uri, report=uri + "/" + "r" * 90, teacher=subject, student_before=subject, student_after=subject
    )
    assert EvaluateFacts.read(sent(facts.flat())) == facts


@pytest.mark.parametrize(
    "facts",
    [
        PrepareFacts(
            signal_shards=3,
            signal_shards_missing=1,
            teacher_evaluations_missing=0,
            training_finished=True,
            total_steps=9,
        ),
        TeacherFacts(shards=3, shards_done=3, shards_reused=1, seconds=1.5, answers_made=2),
        StudentFacts(steps=9, exported_step=7, final_loss=0.25),
    ],
)
def test_facts_of_the_other_roles_are_read_as_they_were_said(facts: Any) -> None:
    assert type(facts).read(sent(facts.flat())) == facts


def test_a_reader_leaves_what_it_does_not_know_and_misses_what_it_needs() -> None:
    assert StudentFacts.read({"steps": 3, "exportedStep": 3, "fromTheFuture": "x"}).steps == 3
    with pytest.raises(ValidationError, match="exportedStep"):
        StudentFacts.read({"steps": 3})


def test_facts_that_do_not_fit_go_before_the_sentence_the_last_ones_first() -> None:
    facts = {f"fact-{number}": "x" * 200 for number in range(60)}
    message = outcome(facts, "What was wrong. " * 20).termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    read = Outcome.model_validate_json(message)
    assert read.message == "What was wrong. " * 20
    assert 0 < len(read.facts) < 60
    assert list(read.facts) == list(facts)[: len(read.facts)]
