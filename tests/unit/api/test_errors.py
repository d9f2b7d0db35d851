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
from tests.unit.api.manifest import SMALLEST, changed, errors_of, load
from tests.unit.api.mistakes import AGAINST_A_RULE, ONE_MISTAKE


@pytest.mark.parametrize(("path", "value", "sentence"), ONE_MISTAKE, ids=[case[2][:60] for case in ONE_MISTAKE])
def test_a_mistake_is_told_by_its_field_in_one_sentence(path: str, value: Any, sentence: str) -> None:
    assert errors_of(changed(path, value)) == [sentence]


@pytest.mark.parametrize(("path", "value", "sentence"), AGAINST_A_RULE)
def test_fields_that_do_not_fit_together_are_told_in_one_sentence(path: str, value: Any, sentence: str) -> None:
    (error,) = errors_of(changed(path, value))
    assert error.startswith(sentence)


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
