"""lm-evaluation-harness in its own process, offline, on definitions of a user and a tiny model in float32."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_runtime.contract.sections import HarnessTask
from distill_runtime.errors import RetryError, UserError
from distill_runtime.evaluation import harness
from distill_runtime.evaluation.harness import (
    HarnessModel,
    HarnessRequest,
    LoadedTask,
    ScoredTask,
    check_definitions,
    load_tasks,
    score_tasks,
)
from distill_runtime.evaluation.run_harness import entries_of
from tests.runtime.evaluation.definitions import QUESTIONS, write_definitions
from tests.runtime.evaluation.tiny_job import TinyJob


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    return write_definitions(tmp_path / "definitions")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def request_of(folder: Path, *tasks: str, **changes: Any) -> HarnessRequest:
    wanted = [HarnessTask(task=task) for task in tasks]
    return HarnessRequest(tasks=wanted, include=str(folder), chat_template=False, model=None).model_copy(update=changes)


def loaded(folder: Path, *tasks: str, cache: Path, **changes: Any) -> list[LoadedTask]:
    return load_tasks(request_of(folder, *tasks, **changes), cache=cache)


def test_digests_are_of_the_documents_alone(tmp_path: Path, definitions: Path):
    (first,) = loaded(definitions, "capitals_choice", cache=tmp_path / "one")
    elsewhere = shutil.copytree(definitions, tmp_path / "elsewhere")
    (second,) = loaded(elsewhere, "capitals_choice", cache=tmp_path / "two")
    assert first == second
    assert first.documents == len(QUESTIONS)
    data = elsewhere / "data" / "capitals.jsonl"
    data.write_text(data.read_text().replace("paris", "london"))
    limited = [HarnessTask(task="capitals_choice", limit=2)]
    (changed,) = loaded(elsewhere, "capitals_choice", cache=tmp_path / "two")
    (fewer,) = loaded(definitions, "capitals_choice", cache=tmp_path / "one", tasks=limited)
    assert len({first.digest, changed.digest, fewer.digest}) == 3
    assert fewer.documents == 2


def test_data_that_is_not_there_is_told_with_the_tasks_name(tmp_path: Path, definitions: Path):
    (definitions / "data" / "capitals.jsonl").unlink()
    with pytest.raises(UserError, match=r"the data of task capitals_choice can't be loaded \(.*capitals.jsonl") as told:
        loaded(definitions, "capitals_choice", cache=tmp_path)
    assert "\n" not in str(told.value)


def test_public_tasks_without_a_network_and_unknown_names_are_told_with_their_names(tmp_path: Path, definitions: Path):
    with pytest.raises(UserError, match=r"the data of task arc_easy can't be loaded \(ConnectionError: .*ai2_arc"):
        loaded(definitions, "capitals_choice", "arc_easy", cache=tmp_path)
    with pytest.raises(UserError, match=r"lm-eval has no task capitals_choise: did you mean capitals_choice\?"):
        loaded(definitions, "capitals_choise", cache=tmp_path)


def test_a_task_that_runs_what_the_model_writes_is_refused(tmp_path: Path, definitions: Path):
    path = definitions / "written.yaml"
    path.write_text(path.read_text() + "unsafe_code: true\n")
    with pytest.raises(UserError, match="task capitals_written runs code that the model writes"):
        loaded(definitions, "capitals_written", cache=tmp_path)


def test_definitions_that_name_python_code_or_are_broken_are_refused_with_file_and_line(
    tmp_path: Path, definitions: Path
):
    check_definitions(definitions, "s3://b/tasks")
    (definitions / "data" / "utils.py").write_text("open('/tmp/was-here', 'w')\n")
    extra = definitions / "data" / "extra.yaml"
    extra.write_text("task: extra\nprocess_docs: !function utils.process\n")
    with pytest.raises(UserError, match=r"s3://b/tasks: data/extra.yaml:2: !function names Python code"):
        check_definitions(definitions, "s3://b/tasks")
    extra.write_text("task: [extra\n")
    with pytest.raises(UserError, match=r"data/extra.yaml is no YAML \(.*line"):
        check_definitions(definitions, "s3://b/tasks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no task definitions"):
        check_definitions(tmp_path / "empty", "x")


def answers_by_likelihood(folder: Path, length: bool) -> float:
    """Accuracy by the definition of acc and acc_norm, one forward pass for each choice."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    right = 0
    for question, choices, answer in QUESTIONS:
        scores: list[float] = []
        for choice in choices:
            context = tokenizer(f"Q: {question}\nA:", add_special_tokens=False)["input_ids"]
            ids = tokenizer(f"Q: {question}\nA: {choice}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
            score = sum(float(logs[place - 1, ids[place]]) for place in range(len(context), len(ids)))
            scores.append(score / len(choice) if length else score)
        right += scores.index(max(scores)) == answer
    return right / len(QUESTIONS)


@pytest.fixture(scope="module")
def scored(job: TinyJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ScoredTask]:
    folder = tmp_path_factory.mktemp("scored")
    definitions = write_definitions(folder / "definitions")
    tasks = [HarnessTask(task="capitals"), HarnessTask(task="capitals_text", limit=3)]
    model = HarnessModel(
        name="m", folder=str(job.trained), dtype="float32", gpus=0, trust_remote_code=False, batch_size=3
    )
    found: list[ScoredTask] = []
    told: list[int] = []
    request = request_of(definitions, tasks=tasks, model=model)
    score_tasks(request, found.append, progress=told.append, cache=folder / "cache")
    assert told == sorted(told)
    assert told[-1] > 0
    return {one.task: one for one in found}


def test_scores_are_those_computed_from_the_models_own_logits(job: TinyJob, scored: dict[str, ScoredTask]):
    by_task = {entry.task: entry for entry in scored["capitals"].entries}
    assert set(by_task) == {"capitals", "capitals_choice", "capitals_written"}
    assert by_task["capitals"].metrics["acc"] == by_task["capitals_choice"].metrics["acc"]
    choice = by_task["capitals_choice"]
    assert choice.metrics["acc"] == pytest.approx(answers_by_likelihood(job.trained, length=False))
    assert choice.metrics["acc_norm"] == pytest.approx(answers_by_likelihood(job.trained, length=True))
    assert choice.standard_errors["acc"] >= 0
    assert (choice.documents, choice.lower_is_better, choice.part_of) == (len(QUESTIONS), [], "capitals")
    assert set(by_task["capitals_written"].metrics) == {"exact_match"}


def test_a_limit_holds_and_lower_scores_can_be_better(scored: dict[str, ScoredTask]):
    (text,) = scored["capitals_text"].entries
    assert (text.documents, text.lower_is_better, text.part_of) == (3, ["byte_perplexity"], None)
    assert text.metrics["byte_perplexity"] > 1


def test_of_a_group_its_aggregate_comes_first_and_what_is_no_number_is_left_out():
    found = {
        "results": {
            "b": {"alias": "b", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 2},
            "a": {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.1, "f1,none": float("nan")},
        },
        "groups": {"z": {"acc,none": 0.4, " ": " "}, "y": {"acc,none": 0.3}},
        "group_subtasks": {"z": ["y", "b"], "y": ["a"]},
        "higher_is_better": {"b": {"acc": False}},
        "n-samples": {"a": {"effective": 2, "original": 9}, "b": {"effective": 3, "original": 9}},
    }
    group, first, second, inner = entries_of("z", found)
    assert (inner.task, inner.documents, inner.part_of) == ("y", 2, "z")
    assert (group.task, group.metrics, group.documents, group.part_of) == ("z", {"acc": 0.4}, 5, None)
    assert first.metrics == {"exact_match,strict-match": 0.25}
    assert first.standard_errors == {"exact_match,strict-match": 0.1}
    assert (second.lower_is_better, second.standard_errors, second.part_of) == (["acc"], {}, "z")


def test_the_tasks_of_a_group_without_an_aggregate_count_as_asked_for():
    found = {
        "results": {"a": {"acc,none": 0.5}, "b": {"acc,none": 0.25}},
        "group_subtasks": {"z": ["a", "b"]},
        "n-samples": {"a": {"effective": 2}, "b": {"effective": 3}},
    }
    assert [(entry.task, entry.part_of) for entry in entries_of("z", found)] == [("a", None), ("b", None)]


def test_documents_of_which_no_prompt_can_be_made_are_told_before_a_model_is_there(tmp_path: Path, definitions: Path):
    too_many = [HarnessTask(task="capitals_choice", num_fewshot=90)]
    with pytest.raises(
        UserError, match=r"of task capitals_choice with 90 solved examples \(ValueError: .*set numFewshot"
    ):
        loaded(definitions, "capitals_choice", cache=tmp_path, tasks=too_many)
    data = definitions / "data" / "capitals.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[3] = {"choices": ["a"], "answer": 0, "question": None}
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = definitions / "written.yaml"
    written.write_text(written.read_text().replace("{{question}}", "{{question.strip()}}"))
    with pytest.raises(UserError, match=r"documents of task capitals_written with 0 solved examples \(UndefinedError"):
        loaded(definitions, "capitals_written", cache=tmp_path)


def test_documents_that_changed_since_prepare_are_refused(tmp_path: Path, definitions: Path):
    digests = {"capitals_choice": "of other documents"}
    with pytest.raises(UserError, match="the data of task capitals_choice has changed since the job was prepared"):
        loaded(definitions, "capitals_choice", cache=tmp_path, digests=digests)


def test_what_was_finished_before_the_process_died_is_kept(
    tmp_path: Path, definitions: Path, monkeypatch: pytest.MonkeyPatch
):
    line = ScoredTask(task="capitals_choice", entries=[]).model_dump_json()
    (tmp_path / "dying.py").write_text(
        "import os, signal, sys\n"
        f"open(sys.argv[2], 'w').write({line!r} + '\\n' + {line[:20]!r})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(harness, "CHILD", "dying")
    found: list[ScoredTask] = []
    with pytest.raises(RetryError, match=r"evaluation.harness.tasks \(capitals_choice\) ended with code -9"):
        score_tasks(
            request_of(definitions, "capitals_choice"), found.append, progress=lambda done: None, cache=tmp_path
        )
    assert [one.task for one in found] == ["capitals_choice"]


def test_an_environment_without_the_library_is_a_sentence(
    tmp_path: Path, definitions: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(harness, "LIBRARY", "lm-eval-that-nobody-installed")
    with pytest.raises(UserError, match="needs the Python package lm-eval-that-nobody-installed"):
        loaded(definitions, "capitals_choice", cache=tmp_path)


def test_the_environment_keeps_remote_code_off_and_data_in_the_cache(
    tmp_path: Path, definitions: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "telling.py").write_text(
        "import json, os, sys\n"
        "names = ('HF_EVALUATE_OFFLINE', 'HF_DATASETS_CACHE')\n"
        f"open({str(tmp_path / 'told.json')!r}, 'w').write(json.dumps([os.environ.get(name) for name in names]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setattr(harness, "CHILD", "telling")
    assert loaded(definitions, "capitals_choice", cache=tmp_path / "cache") == []
    assert json.loads((tmp_path / "told.json").read_text()) == ["1", f"{tmp_path}/cache/datasets"]
