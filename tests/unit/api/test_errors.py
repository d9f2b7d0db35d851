"""What a user reads when a field is wrong."""

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, StringConstraints

from distill_operator.api import DistillJob
from distill_operator.api.fields import constraints, field_names, field_type, is_model, without_metadata
from distill_operator.api.sentences import LONGEST_VALUE, pattern_sentence
from tests.unit.api.manifest import REMOVE, SMALLEST, changed, errors_of, load

TASK = {"kind": "classification", "name": "t", "data": "file://t.jsonl"}
ONE_MISTAKE: list[tuple[str, Any, str]] = [
    ("spec.training.globalBatch", 0, "spec.training.globalBatch: must be at least 1, got 0"),
    ("spec.teacher.gpus", 65, "spec.teacher.gpus: must be at most 64, got 65"),
    ("spec.training.optimizer.learningRate", 0, "spec.training.optimizer.learningRate: must be greater than 0, got 0"),
    ("spec.training.optimizer.betas", [0.9, 1], "spec.training.optimizer.betas[1]: must be less than 1, got 1"),
    ("spec.training.optimizer.betas", [0.9], "spec.training.optimizer.betas[1]: is required"),
    ("spec.training.optimizer.betas", 3, "spec.training.optimizer.betas: must be a list, got 3"),
    ("spec.teacher.gpus", "2", 'spec.teacher.gpus: must be a whole number, got "2"'),
    ("spec.teacher.gpus", 1.5, "spec.teacher.gpus: must be a whole number, got 1.5"),
    ("spec.training.epochs", "many", 'spec.training.epochs: must be a number, got "many"'),
    ("spec.training.packing", "maybe", 'spec.training.packing: must be true or false, got "maybe"'),
    ("spec.training.packing", 1, "spec.training.packing: must be true or false, got 1"),
    ("spec.storage.secretName", True, "spec.storage.secretName: must be text, got true; put it in quotes"),
    ("spec.storage.region", "", "spec.storage.region: must have at least 1 character, got 0"),
    (
        "spec.storage.uri",
        "hf://a",
        'spec.storage.uri: must be a URI that begins with file:// or s3://, without spaces, got "hf://a"',
    ),
    (
        "spec.teacher.model",
        "ftp://host/model",
        "spec.teacher.model: must be a URI that begins with file://, s3://, hf:// or pvc://, without spaces, "
        'got "ftp://host/model"',
    ),
    (
        "spec.storage.endpoint",
        "minio:9000",
        'spec.storage.endpoint: must begin with http:// or https:// and have no spaces, got "minio:9000"',
    ),
    (
        "spec.signal.mode",
        "hybird",
        "spec.signal.mode: must be 'hybrid', 'streaming' or 'offline', got \"hybird\"",
    ),
    ("spec.training.zeroStage", 4, "spec.training.zeroStage: must be 0, 1, 2 or 3, got 4"),
    ("spec.teacher", "hf://a/b", 'spec.teacher: must be a mapping, got "hf://a/b"'),
    ("spec.data", [1], "spec.data: must be a mapping, got a list"),
    ("spec.data.train", 5, "spec.data.train: must be text or a list, got 5"),
    ("spec.data.train", {"uri": "x"}, "spec.data.train: must be text or a list, got a mapping"),
    ("spec.data.train", [], "spec.data.train: must have at least 1 entry, got 0"),
    ("spec.data.evaluation", ["s3://a/b", 3], "spec.data.evaluation[1]: must be text, got 3; put it in quotes"),
    (
        "spec.data.train",
        ["s3://a/b", "/c/d.jsonl"],
        "spec.data.train[1]: must be a URI that begins with file://, s3://, hf:// or pvc://, without spaces, "
        'got "/c/d.jsonl"',
    ),
    (
        "spec.data.train",
        "./train.jsonl",
        "spec.data.train: must be a URI that begins with file://, s3://, hf:// or pvc://, without spaces, "
        'got "./train.jsonl"',
    ),
    ("spec.teacher.model", REMOVE, "spec.teacher.model: is required"),
    ("spec.teacher.model", None, "spec.teacher.model: is required"),
    ("spec.storage", REMOVE, "spec.storage: is required"),
    ("spec", REMOVE, "spec: is required"),
    ("kind", "Job", "kind: must be 'DistillJob', got \"Job\""),
    ("apiVersion", "v1", "apiVersion: must be 'distill-operator.io/v1alpha1', got \"v1\""),
    (
        "metadata.name",
        "Qwen3.4B",
        "metadata.name: must have only lower-case letters, digits and '-', begin with a letter and end with a letter "
        'or digit, got "Qwen3.4B"',
    ),
    ("metadata.name", "a" * 41, f'metadata.name: must have at most 40 characters, got 41: "{"a" * 41}"'),
    ("metadata.labels", {"team": 7}, "metadata.labels.team: must be text, got 7; put it in quotes"),
    ("spec.student.model", REMOVE, "spec.student: give exactly one of model and initialise"),
    (
        "spec.student.initialise",
        {"fromTeacher": {"every": 3}},
        "spec.student: give exactly one of model and initialise",
    ),
    ("spec.training", {"steps": 3, "epochs": 1}, "spec.training: give at most one of steps and epochs"),
    ("spec.output.select", "best", "spec: output.select is best, which needs data.evaluation"),
    ("spec.trainng", {}, "spec.trainng: is not a known field; did you mean training?"),
    ("spec.training.globalBtach", 3, "spec.training.globalBtach: is not a known field; did you mean globalBatch?"),
    ("spec.training.global_batch", 3, "spec.training.global_batch: is not a known field; did you mean globalBatch?"),
    ("spec.training.kubernetes", 3, "spec.training.kubernetes: is not a known field"),
    ("spec.training.constructor", None, "spec.training.constructor: is not a known field"),
    ("sepc", {}, "sepc: is not a known field; did you mean spec?"),
    ("spec.evaluation.tasks", {"kind": "x"}, "spec.evaluation.tasks: must be a list, got a mapping"),
    ("spec.evaluation.tasks", ["banking"], 'spec.evaluation.tasks[0]: must be a mapping, got "banking"'),
    ("spec.evaluation.tasks", [TASK, {}], "spec.evaluation.tasks[1].kind: is required"),
    (
        "spec.evaluation.tasks",
        [{"kind": "summarise"}],
        "spec.evaluation.tasks[0].kind: must be 'classification' or 'questionAnswering', got \"summarise\"",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "labels": ["a"]}],
        "spec.evaluation.tasks[0].labels: must have at least 2 entries, got 1: a list",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "labels": [True, "no"]}],
        "spec.evaluation.tasks[0].labels[0]: must be text, got true; put it in quotes",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "label": "x"}],
        "spec.evaluation.tasks[0].label: is not a known field; did you mean labels?",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "classification": 1}],
        "spec.evaluation.tasks[0].classification: is not a known field",
    ),
    ("spec.evaluation.tasks", [TASK, TASK], "spec.evaluation: two tasks have the same name"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), ONE_MISTAKE, ids=[case[2][:60] for case in ONE_MISTAKE])
def test_a_mistake_is_told_by_its_field_in_one_sentence(path: str, value: Any, sentence: str) -> None:
    assert errors_of(changed(path, value)) == [sentence]


def test_all_mistakes_are_told_at_once() -> None:
    document = changed("spec.training", {"globalBatch": 0, "steps": -1, "optimiser": {}})
    document["metadata"]["name"] = "X"
    document["spec"]["evaluation"] = {"tasks": [{"kind": "classification", "name": "t"}]}
    fields = [error.split(":")[0] for error in errors_of(document)]
    assert sorted(fields) == [
        "metadata.name",
        "spec.evaluation.tasks[0].data",
        "spec.training.globalBatch",
        "spec.training.optimiser",
        "spec.training.steps",
    ]


def test_a_long_value_is_cut() -> None:
    (error,) = errors_of(changed("spec.storage.endpoint", "x" * 900))
    assert len(error) < LONGEST_VALUE + 120


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and all models inside it."""
    yield model
    pending = [field_type(field) for field in model.model_fields.values()]
    while pending:
        annotation = without_metadata(pending.pop())
        if is_model(annotation):
            yield from models(annotation)
        else:
            pending += [argument for argument in get_args(annotation) if not isinstance(argument, str | int)]


def patterns() -> set[str]:
    """All patterns of the schema."""
    return {
        str(pattern)
        for model in models(DistillJob)
        for field in model.model_fields.values()
        for item in constraints(field_type(field))
        for pattern in [getattr(item, "pattern", None)]
        if pattern is not None
    }


def test_every_pattern_of_the_schema_has_words() -> None:
    assert len(patterns()) >= 5
    assert [pattern for pattern in patterns() if pattern_sentence(pattern) is None] == []


def test_the_walk_over_the_schema_finds_constraints_in_unions_and_lists() -> None:
    train = DistillJob.model_fields["spec"].annotation.model_fields["data"].annotation.model_fields["train"]  # pyright: ignore
    assert any(isinstance(item, StringConstraints) for item in constraints(field_type(train)))


FULL = {
    **SMALLEST,
    "spec": {
        **SMALLEST["spec"],
        "student": {"initialise": {"fromTeacher": {"layers": [0, 2]}}},
        "data": {"train": ["file://a"], "columns": {}},
        "training": {"optimizer": {}, "schedule": {}},
        "evaluation": {
            "tasks": [
                {"kind": "classification", "name": "a", "data": "file://a"},
                {"kind": "questionAnswering", "name": "b", "data": "file://b"},
            ]
        },
    },
}


def sections(value: Any, model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Paths of all mappings in a job that refuse what they don't know, with their models."""
    if path != "metadata":
        yield path, model
    for name, field in field_names(model).items():
        item = value.get(name)
        below = f"{path}.{name}" if path else name
        found = list(models_of(field_type(field)))
        if isinstance(item, dict) and len(found) == 1:
            yield from sections(item, found[0], below)
        if isinstance(item, list):
            for index, entry in enumerate(item):
                if isinstance(entry, dict):
                    yield from sections(entry, found[index], f"{below}[{index}]")


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    bare = without_metadata(annotation)
    if is_model(bare):
        yield bare
    for argument in get_args(bare):
        yield from models_of(argument)


SECTIONS = list(sections(FULL, DistillJob, ""))


def put(document: Any, path: str, key: str, value: Any) -> Any:
    """A copy of the document with one more key at the path."""
    if not path:
        return {**document, key: value}
    head, _, rest = path.partition(".")
    name, _, index = head.partition("[")
    child = document[name]
    if index:
        position = int(index.rstrip("]"))
        child = [put(entry, rest, key, value) if at == position else entry for at, entry in enumerate(child)]
        return {**document, name: child}
    return {**document, name: put(child, rest, key, value)}


def test_the_full_job_is_valid_and_has_many_sections() -> None:
    load(FULL)
    assert len(SECTIONS) >= 15


@given(
    section=st.sampled_from(SECTIONS),
    key=st.from_regex(re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,20}"), fullmatch=True),
    value=st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just({"a": 1}) | st.just([1]),
)
def test_an_unknown_key_is_refused_with_its_path(section: tuple[str, type[BaseModel]], key: str, value: Any) -> None:
    path, model = section
    if key in field_names(model):
        return
    errors = errors_of(put(FULL, path, key, value))
    where = f"{path}.{key}" if path else key
    assert len(errors) == 1
    assert errors[0].startswith(f"{where}: is not a known field")
