import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_runtime import layout
from distill_runtime.contract.sections import QuestionAnsweringTask
from distill_runtime.digests import digest_of
from distill_runtime.errors import RetryError
from distill_runtime.evaluation.results import (
    HeldOut,
    LabelScores,
    ModelIdentity,
    Predictions,
    answers_key,
    generated,
    held_out_key,
    labels_key,
    loaded_key,
    question_answering,
    read_result,
    teacher_evaluations_missing,
    teacher_identity,
    write_result,
)
from distill_runtime.prepared import ModelPin, Prepared, TaskReference
from distill_runtime.store.directory import DirectoryStore
from tests.fixtures.evaluations import evaluation_config, evaluation_prepared, plan_reference
from tests.fixtures.signals import hidden_signal

STUDENT = ModelIdentity(digest="student-digest", dtype="float32")


def teacher_keys(prepared: Prepared) -> list[str]:
    teacher = teacher_identity(prepared)
    classification, answering = prepared.tasks
    settings = question_answering(evaluation_config(), prepared)[0][1]
    return [
        held_out_key(teacher, prepared),
        labels_key(teacher, classification),
        answers_key(teacher, answering, settings),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"student": ModelPin(uri="file:///other", digest="other")},
        {"training_digest": "other-seed"},
        {"total_steps": 99},
        {"train": plan_reference("plans/other")},
        {"train_signal": hidden_signal("other", 64)},
        {"training_precision": "bfloat16"},
        {"teacher": ModelPin(uri="hf://moved/elsewhere", digest="teacher-digest")},
        {"fingerprint": "other"},
    ],
)
def test_the_teachers_results_do_not_depend_on_student_seed_or_training(changes: dict[str, Any]):
    assert teacher_keys(evaluation_prepared(**changes)) == teacher_keys(evaluation_prepared())


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"teacher": ModelPin(uri="file:///teacher", digest="other")}, [True, True, True]),
        ({"teacher_dtype": "bfloat16"}, [True, True, True]),
        # Answers are generated: how signals are stored changes the rest alone.
        ({"held_out_signal": hidden_signal("other", 64)}, [True, True, False]),
        ({"evaluation": plan_reference("plans/other")}, [True, False, False]),
    ],
)
def test_another_teacher_precision_signal_or_data_has_other_results(changes: dict[str, Any], differ: list[bool]):
    pairs = zip(teacher_keys(evaluation_prepared(**changes)), teacher_keys(evaluation_prepared()), strict=True)
    assert [one != other for one, other in pairs] == differ


def test_all_results_of_a_model_have_addresses_of_their_own():
    prepared = evaluation_prepared()
    classification, answering = prepared.tasks
    settings = question_answering(evaluation_config(), prepared)[0][1]
    keys = [*teacher_keys(prepared), loaded_key(teacher_identity(prepared))]
    keys += [held_out_key(STUDENT, prepared), labels_key(STUDENT, classification), loaded_key(STUDENT)]
    keys += [answers_key(STUDENT, answering, settings)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("changes", [{"engine": "vllm"}, {"max_new_tokens": 9}])
def test_answers_depend_on_engine_and_length(changes: dict[str, Any]):
    prepared = evaluation_prepared()
    reference, settings = question_answering(evaluation_config(), prepared)[0]
    other: QuestionAnsweringTask = settings.model_copy(update=changes)
    assert answers_key(STUDENT, reference, settings) != answers_key(STUDENT, reference, other)


def test_only_unanswered_questions_of_the_teacher_count_as_missing(tmp_path: Path):
    store = DirectoryStore(tmp_path)
    config, prepared = evaluation_config(), evaluation_prepared()
    assert teacher_evaluations_missing(store, config, prepared) == 1
    reference, settings = question_answering(config, prepared)[0]
    write_result(store, answers_key(STUDENT, reference, settings), Predictions(texts=["x"]))
    assert teacher_evaluations_missing(store, config, prepared) == 1
    write_result(store, answers_key(teacher_identity(prepared), reference, settings), Predictions(texts=["x"]))
    assert teacher_evaluations_missing(store, config, prepared) == 0


def test_what_an_earlier_version_stored_is_not_taken_for_something_else(tmp_path: Path):
    """Version 1 stored the labels that were chosen, and no calibration, under the addresses of version 1."""
    store, prepared, task = DirectoryStore(tmp_path), evaluation_prepared(), evaluation_prepared().tasks[0]
    made_of = {"version": 1, "model": STUDENT.model_dump()}
    labels = layout.evaluation_key(digest_of({"kind": "labels", "task": task.digest, **made_of}))
    held_out = layout.evaluation_key(
        digest_of(
            {"kind": "heldOut", "signal": prepared.held_out_signal.digest, "data": "plans/heldout-data", **made_of}
        )
    )
    store.put(labels, b'{"texts": ["loans"]}')
    store.put(held_out, b'{"targets": 1, "kl_to_teacher": 0, "top1_agreement": 1, "cross_entropy": 1}')
    assert read_result(store, labels_key(STUDENT, task), LabelScores) is None
    assert read_result(store, held_out_key(STUDENT, prepared), HeldOut) is None
    assert store.exists(labels)
    assert store.exists(held_out)


def test_samples_of_the_teacher_count_as_missing_until_they_are_stored(tmp_path: Path):
    store = DirectoryStore(tmp_path)
    samples = TaskReference(name="samples", kind="samples", digest="s", examples_key="plans/s", plan=None)
    prepared = evaluation_prepared(tasks=[], samples=samples)
    config = evaluation_config(evaluation={"samples": {"count": 2}})
    assert teacher_evaluations_missing(store, config, prepared) == 1
    ((reference, settings),) = generated(config, prepared)
    write_result(store, answers_key(teacher_identity(prepared), reference, settings), Predictions(texts=["a", "b"]))
    assert teacher_evaluations_missing(store, config, prepared) == 0
    # Another job has the same ones if engine and length are the same, and others if not.
    for changes, missing in ({"count": 2}, 0), ({"count": 2, "engine": "transformers"}, 1):
        assert (
            teacher_evaluations_missing(store, evaluation_config(evaluation={"samples": changes}), prepared) == missing
        )


def test_the_first_writer_of_a_result_wins(tmp_path: Path):
    store = DirectoryStore(tmp_path)
    key = loaded_key(STUDENT)
    assert write_result(store, key, Predictions(texts=["first"])).texts == ["first"]
    assert write_result(store, key, Predictions(texts=["second"])).texts == ["first"]
    assert read_result(store, key, Predictions) == Predictions(texts=["first"])


def test_an_unreadable_result_is_named_and_removed(tmp_path: Path):
    store = DirectoryStore(tmp_path)
    key = loaded_key(STUDENT)
    store.put(key, b'{"texts": [1')
    with pytest.raises(RetryError, match=key):
        read_result(store, key, Predictions)
    assert read_result(store, key, Predictions) is None


def test_a_task_that_the_run_configuration_lacks_is_refused():
    config = evaluation_config(evaluation={"tasks": []})
    with pytest.raises(RetryError, match="task desks"):
        question_answering(config, evaluation_prepared())


def test_asking_what_is_missing_imports_no_engine():
    code = (
        "import sys, distill_runtime.evaluation.results as r; "
        "print([m for m in ('torch', 'transformers', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
