"""The evaluation of a whole job: what is stored, reused, written and refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_runtime import layout
from distill_runtime.artifacts import stored_digest
from distill_runtime.contract.outcome import Outcome
from distill_runtime.contract.report import Report
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.samples import sample_examples
from distill_runtime.errors import RetryError, UserError
from distill_runtime.evaluation import subjects
from distill_runtime.evaluation.generate_answers import answer_text
from distill_runtime.evaluation.job import EvaluationJob
from distill_runtime.evaluation.results import LabelScores, teacher_evaluations_missing
from distill_runtime.prepared import TaskReference
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.student.finish import Finished, finished_key
from tests.fixtures.models import tiny_tokenizer
from tests.runtime.evaluation.test_generation import greedy
from tests.runtime.evaluation.tiny_job import LABELS, TinyJob, target_log_probabilities


def evaluation(job: TinyJob, config: RunConfig | None = None) -> EvaluationJob:
    return EvaluationJob(config or job.config, cache=job.folder / "cache")


def with_output(job: TinyJob, uri: str) -> RunConfig:
    work = job.config.work.model_dump()
    return RunConfig.model_validate({**job.config.model_dump(), "work": {**work, "output": {"uri": uri}}})


@pytest.fixture(scope="module")
def scored(job: TinyJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts of a first evaluation, teacher and students."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        with pytest.raises(
            RetryError, match=r"teacher's answers to evaluation.tasks\[capitals\] are missing"
        ) as missing:
            evaluation(job).students()
        assert missing.value.needs == "signals"
        assert teacher_evaluations_missing(job.store, job.config, job.prepared) == 1
        assert evaluation(job).teacher() == {"answersMade": 1, "answersReused": 0}
        assert teacher_evaluations_missing(job.store, job.config, job.prepared) == 0
        assert evaluation(job).teacher() == {"answersMade": 0, "answersReused": 1}
        return dict(evaluation(job).students())


def read_report(store: DirectoryStore) -> Report:
    return Report.model_validate_json(store.get("trainings/training-digest/report.json"))


def test_the_report_has_the_scores_of_all_three_models(job: TinyJob, scored: dict[str, Any]):
    report = read_report(job.store)
    for scores in (report.teacher, report.student_before, report.student_after):
        assert scores.perplexity is not None
        assert scores.perplexity > 1
        assert 0 <= (scores.expected_calibration_error or -1) <= 1
        assert 0 <= (scores.tasks["desks"].expected_calibration_error or -1) <= 1
        assert set(scores.tasks) == {"desks", "capitals"}
        assert scores.tasks["desks"].accuracy is not None
        assert scores.tasks["capitals"].token_f1 is not None
    assert report.teacher.kl_to_teacher == 0
    assert report.student_before.kl_to_teacher != report.student_after.kl_to_teacher
    assert (report.steps, report.exported_step) == (8, 6)
    assert [point.step for point in report.curves] == list(range(1, 9))
    for scores, folder in ((report.teacher, job.teacher), (report.student_after, job.trained)):
        assert scores.parameters == AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    assert report.student_after.digest == stored_digest(job.store, "trainings/training-digest/model")
    assert scored["studentAfterEce"] == pytest.approx(report.student_after.expected_calibration_error, rel=1e-4)
    assert scored["studentAfterKl"] == pytest.approx(report.student_after.kl_to_teacher, rel=1e-4)


def test_stored_scores_are_reused_and_no_model_is_loaded(
    job: TinyJob, scored: dict[str, Any], state_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded for scores that are stored")

    for name in ("load_model", "generate_answers", "count_parameters", "TeacherStates"):
        monkeypatch.setattr(subjects, name, refuse)
    assert evaluation(job).students() == scored
    assert json.loads((state_folder / "report.json").read_text())["name"] == "tiny"
    assert (state_folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_labels_compared_otherwise_need_no_model_again(
    job: TinyJob, scored: dict[str, Any], state_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    work = job.config.work.model_dump()
    classified, answered = work["evaluation"]["tasks"]
    scores: dict[str, LabelScores] = {}
    real = subjects.choose_labels
    monkeypatch.setattr(subjects, "load_model", None)
    monkeypatch.setattr(subjects, "TeacherStates", None)
    accuracies: dict[str, float | None] = {}
    for normalisation in ("none", "tokens", "characters", "bytes"):
        tasks = [{**classified, "normalisation": normalisation}, answered]
        config = {**job.config.model_dump(), "work": {**work, "evaluation": {"tasks": tasks}}}
        monkeypatch.setattr(
            subjects, "choose_labels", lambda e, s, *rest: scores.setdefault(str(s), s) and real(e, s, *rest)
        )
        evaluation(job, RunConfig.model_validate(config)).students()
        found = read_report(job.store).student_after.tasks["desks"]
        assert found.normalisation == normalisation
        accuracies[normalisation] = found.accuracy
    # The same three models' log-probabilities were read each time, and the accuracies are those computed by hand.
    assert len(scores) == 3
    sums = [
        float(values.sum())
        for values in target_log_probabilities(job.log_probabilities(job.trained, job.labels), job.labels)
    ]
    tokens = [len(sequence.targets) for sequence in job.labels]
    divisors = {
        "none": [1] * 12,
        "tokens": tokens,
        "characters": [len(label) for label in LABELS] * 4,
        "bytes": [len(label.encode()) for label in LABELS] * 4,
    }
    right = ["loans", "transfers abroad", "cards", "loans"]
    for normalisation, by in divisors.items():
        quotients = np.array(sums).reshape(4, 3) / np.array(by).reshape(4, 3)
        chosen = [LABELS[place] for place in quotients.argmax(axis=1)]
        assert accuracies[normalisation] == sum(a == b for a, b in zip(chosen, right, strict=True)) / 4


def test_another_student_reuses_the_teachers_scores(
    job: TinyJob, scored: dict[str, Any], state_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    real = subjects.score_held_out
    monkeypatch.setattr(subjects, "score_held_out", lambda *a, **k: read.append(k["name"]) or real(*a, **k))
    finished = Finished.model_validate_json(job.store.get(finished_key("training-digest")))
    other = job.prepared.model_copy(update={"training_digest": "other-training"})
    config = job.config.model_copy(update={"uid": "u2"})
    job.store.put(layout.prepared_key(config), other.model_dump_json().encode())
    changed = finished.model_copy(update={"model_digest": "another student's"})
    job.store.put(finished_key("other-training"), changed.model_dump_json().encode())
    facts = evaluation(job, config).students()
    assert read == ["the trained student"]
    assert facts["teacherPerplexity"] == scored["teacherPerplexity"]
    assert facts["studentAfterKl"] == scored["studentAfterKl"]


def test_the_output_has_model_card_and_report_and_loads(
    job: TinyJob, scored: dict[str, Any], state_folder: Path, tmp_path: Path
):
    output = tmp_path / "out"
    evaluation(job, with_output(job, f"file://{output}")).students()
    assert AutoModelForCausalLM.from_pretrained(output).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(output).chat_template
    card = (output / "README.md").read_text()
    assert "KL to the teacher" in card
    assert "desks: accuracy" in card
    report = Report.model_validate_json((output / "report.json").read_bytes())
    assert report.model == report.student_after.model == f"file://{output}"
    manifest = json.loads((output / "manifest.json").read_text())
    # Hidden files are the directory store's own.
    visible = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert {file["name"] for file in manifest["files"]} == visible - {"manifest.json"}


def test_files_of_an_earlier_copy_do_not_stay_in_the_output(
    job: TinyJob, scored: dict[str, Any], state_folder: Path, tmp_path: Path
):
    output = tmp_path / "out"
    config = with_output(job, f"file://{output}")
    evaluation(job, config).students()
    manifest = json.loads((output / "manifest.json").read_text())
    manifest["files"].append({"name": "model-00002-of-00002.safetensors", "size": 1, "sha256": "0"})
    (output / "model-00002-of-00002.safetensors").write_text("x")
    (output / "mine.txt").write_text("not the operator's")
    (output / "manifest.json").write_text(json.dumps({**manifest, "digest": "earlier"}))
    evaluation(job, config).students()
    assert not (output / "model-00002-of-00002.safetensors").exists()
    assert (output / "mine.txt").exists()


def test_an_unfinished_training_is_not_evaluated(job: TinyJob, state_folder: Path):
    config = job.config.model_copy(update={"uid": "u3"})
    prepared = job.prepared.model_copy(update={"training_digest": "nowhere"})
    job.store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
    with pytest.raises(RetryError, match="no finished training: run the student first"):
        evaluation(job, config).students()


def test_a_teacher_that_has_changed_since_is_refused(job: TinyJob, state_folder: Path):
    config = job.config.model_copy(update={"uid": "u4"})
    pin = job.prepared.teacher.model_copy(update={"digest": "earlier"})
    prepared = job.prepared.model_copy(update={"teacher": pin})
    job.store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
    with pytest.raises(UserError, match="has changed since the job was prepared"):
        evaluation(job, config).teacher()


def test_the_process_ends_with_the_scores_as_its_facts(job: TinyJob, scored: dict[str, Any], tmp_path: Path):
    (tmp_path / "run.json").write_text(job.config.model_dump_json(by_alias=True))
    environment = {
        **os.environ,
        "DISTILL_RUN_CONFIG": str(tmp_path / "run.json"),
        "DISTILL_STATE_DIR": str(tmp_path / "state"),
        "DISTILL_CACHE_DIR": str(job.folder / "cache"),
    }
    command = [sys.executable, "-m", "distill_runtime.evaluation", "--subject", "students"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    outcome = Outcome.model_validate_json((tmp_path / "state" / "outcome.json").read_bytes())
    assert outcome.role == "evaluate"
    assert outcome.facts == scored


def test_of_two_teacher_replicas_one_answers_and_both_end_with_the_answers_stored(job: TinyJob, tmp_path: Path):
    work = job.config.work.model_dump()
    task = {**work["evaluation"]["tasks"][1], "max_new_tokens": 7}
    tasks = [work["evaluation"]["tasks"][0], task]
    changed = {**job.config.model_dump(), "uid": "u5", "work": {**work, "evaluation": {"tasks": tasks}}}
    config = RunConfig.model_validate(changed)
    job.store.put(layout.prepared_key(config), job.prepared.model_dump_json().encode())
    (tmp_path / "run.json").write_text(config.model_dump_json(by_alias=True))
    assert teacher_evaluations_missing(job.store, config, job.prepared) == 1
    command = [sys.executable, "-m", "distill_runtime.evaluation", "--subject", "teacher"]
    processes: dict[str, subprocess.Popen[bytes]] = {}
    for name in ("teacher-0", "teacher-1"):
        environment = {
            **os.environ,
            "DISTILL_RUN_CONFIG": str(tmp_path / "run.json"),
            "DISTILL_STATE_DIR": str(tmp_path / name),
            "DISTILL_CACHE_DIR": str(job.folder / "cache"),
            "DISTILL_REPLICA": name,
        }
        processes[name] = subprocess.Popen(command, env=environment)
    facts: list[dict[str, Any]] = []
    for name, process in processes.items():
        assert process.wait(300) == 0
        outcome = Outcome.model_validate_json((tmp_path / name / "outcome.json").read_bytes())
        assert outcome.role == "teacher"
        facts.append(outcome.facts)
    assert sorted(fact["answersMade"] for fact in facts) == [0, 1]
    assert sorted(fact["answersReused"] for fact in facts) == [0, 1]
    assert teacher_evaluations_missing(job.store, config, job.prepared) == 0


def test_samples_are_the_greedy_answers_of_all_three_models_and_a_second_job_needs_no_teacher(
    job: TinyJob, scored: dict[str, Any], state_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    encoder = TextEncoder(tiny_tokenizer())
    examples = sample_examples(job.held_out[:3], encoder, max_new_tokens=5)
    job.store.put("plans/samples.json", examples.model_dump_json().encode())
    samples = TaskReference(name="samples", kind="samples", digest="s", examples_key="plans/samples.json", plan=None)
    prepared = job.prepared.model_copy(update={"samples": samples})
    work = job.config.work.model_dump()
    settings = {"count": 3, "max_new_tokens": 5, "engine": "transformers"}
    changed = {**work, "evaluation": {**work["evaluation"], "samples": settings}}
    config = RunConfig.model_validate({**job.config.model_dump(), "uid": "u6", "work": changed})
    job.store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
    with pytest.raises(RetryError, match=r"teacher's answers to evaluation.samples are missing"):
        evaluation(job, config).students()
    assert evaluation(job, config).teacher() == {"answersMade": 1, "answersReused": 1}
    evaluation(job, config).students()
    report = read_report(job.store)
    assert [sample.prompt for sample in report.samples] == examples.prompts
    assert [sample.reference for sample in report.samples] == [answers[0] for answers in examples.answers]
    for field, folder in (("teacher", job.teacher), ("student_before", job.before), ("student_after", job.trained)):
        wanted = [
            answer_text(tiny_tokenizer(), greedy(folder, ids, 5, set(examples.stop_token_ids)), examples.stop_token_ids)
            for ids in examples.prompt_ids
        ]
        assert [getattr(sample, field) for sample in report.samples] == wanted
    assert report.samples[0].teacher != report.samples[0].student_after
    page = (state_folder / "report.html").read_text()
    assert page.count('class="card sample"') == 3

    monkeypatch.setattr(subjects, "generate_answers", None)
    second = config.model_copy(update={"uid": "u7"})
    job.store.put(layout.prepared_key(second), prepared.model_dump_json().encode())
    assert teacher_evaluations_missing(job.store, second, prepared) == 0
    evaluation(job, second).students()
    assert read_report(job.store).samples == report.samples
