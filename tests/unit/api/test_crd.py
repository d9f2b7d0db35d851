"""The definition that the API server gets, as far as it can be judged without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_operator.api.crd import chart_template, custom_resource_definition, plain_manifest
from distill_operator.api.fields import field_names
from distill_operator.api.job import DistillJob, JobSpec
from distill_operator.api.rules import ALTERNATIVES, CHANGEABLE, EXACTLY_ONE, LIST_KEYS, RULES, root_rules
from distill_operator.api.structural import NotStructural, structural_schema
from distill_operator.configuration import OperatorConfiguration
from distill_runtime.contract.sections import Section, Student, Teacher
from tests.unit.api.test_errors import models

ROOT = Path(__file__).parents[3]
LARGEST = 200_000
"""kubectl keeps the manifest in an annotation; the API server takes 262,144 bytes of annotations."""
VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All schemas in a schema, each with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for inside in ("items", "additionalProperties"):
        if inside in schema:
            yield from nodes(schema[inside], f"{path}[]")


ALL = [(path, node) for path, node in nodes(SCHEMA) if not path.startswith(".metadata")]
FIELDS = [(path, node) for path, node in ALL if not path.endswith("[]")]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("crds/distill-operator.io_distilljobs.yaml", plain_manifest()),
        ("charts/distill-operator/templates/crd.yaml", chart_template()),
    ],
)
def test_the_files_are_those_that_the_types_give(file: str, text: str) -> None:
    assert (ROOT / file).read_text() == text, "run `make generate`"


def test_the_file_is_the_definition() -> None:
    assert yaml.safe_load(plain_manifest()) == custom_resource_definition()


def test_client_side_apply_can_keep_the_definition_in_an_annotation() -> None:
    assert len(json.dumps(custom_resource_definition())) < LARGEST


def test_the_walk_finds_fields_in_lists_and_maps() -> None:
    paths = [path for path, _ in ALL]
    assert ".spec.evaluation.tasks[].labels[]" in paths
    assert ".spec.pods.student.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight" in paths
    assert ".status.evaluation.studentAfter.tasks[][]" in paths


def test_every_field_is_described() -> None:
    assert [path for path, node in FIELDS if not node.get("description")] == []


def test_no_description_says_the_same_twice() -> None:
    sentences = {path: node["description"].split(". ") for path, node in FIELDS}
    assert [path for path, said in sentences.items() if len(set(said)) != len(said)] == []


def test_every_text_list_and_map_of_the_spec_is_bounded() -> None:
    bound_of = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, node in ALL
        if path.startswith(".spec") and "enum" not in node
        if (bound := bound_of.get(node.get("type", ""), "maxProperties" if "additionalProperties" in node else None))
        if bound not in node
    ]
    assert unbounded == []


def test_nothing_of_pydantics_own_dialect_is_left() -> None:
    foreign = {"$ref", "$defs", "title", "const", "prefixItems", "patternProperties", "propertyNames", "discriminator"}
    assert [path for path, node in ALL if foreign & set(node)] == []
    assert [path for path, node in ALL if "default" in node and node["default"] is None] == []
    assert [path for path, node in ALL if node.get("additionalProperties") is False] == []


def test_what_is_reported_has_no_defaults() -> None:
    assert [path for path, node in ALL if path.startswith(".status") and "default" in node] == []


def test_fields_of_one_kind_of_task_have_no_default_which_the_others_would_be_refused_for() -> None:
    tasks = SCHEMA["properties"]["spec"]["properties"]["evaluation"]["properties"]["tasks"]["items"]["properties"]
    assert "default" not in tasks["maxNewTokens"]
    assert tasks["maxNewTokens"]["description"].endswith("For questionAnswering only. Default: 64.")
    assert tasks["promptTemplate"]["default"] == "{prompt}"


def test_each_validator_of_several_fields_has_a_rule_of_the_api_server() -> None:
    ruled = {*RULES, *ALTERNATIVES, *EXACTLY_ONE, *(model for model, _ in LIST_KEYS)}
    validated = {
        model.__name__
        for model in models(DistillJob)
        if any(item.info.mode == "after" for item in model.__pydantic_decorators__.model_validators.values())
    }
    assert len(validated) > 10
    assert validated - ruled == set()


def test_rules_are_of_models_that_exist() -> None:
    existing = {model.__name__ for model in models(DistillJob)}
    assert {*RULES, *ALTERNATIVES, *EXACTLY_ONE, *(model for model, _ in LIST_KEYS)} - existing == set()


def test_each_field_of_the_spec_either_may_change_or_is_fixed() -> None:
    fixed = {rule.field for rule in root_rules() if rule.field.startswith(".spec.")}
    assert {f".spec.{name}" for name in set(field_names(JobSpec)) - CHANGEABLE["JobSpec"]} <= fixed
    assert {f".spec.teacher.{name}" for name in set(field_names(Teacher)) - CHANGEABLE["Teacher"]} <= fixed
    assert {f".spec.student.{name}" for name in set(field_names(Student)) - CHANGEABLE["Student"]} <= fixed
    assert ".spec.pods" in fixed


def test_a_union_that_no_schema_can_hold_is_refused() -> None:
    class Mixed(Section):
        value: int | list[int]

    with pytest.raises(NotStructural, match="a union of integer and array"):
        structural_schema(Mixed)


def test_a_mapping_of_anything_is_refused() -> None:
    class Open(Section):
        value: dict[str, object]

    with pytest.raises(NotStructural):
        structural_schema(Open)


def test_the_chart_may_leave_the_definition_out_and_keeps_it_by_default() -> None:
    lines = chart_template().splitlines()
    assert lines[1] == "{{- if .Values.crd.install }}"
    assert lines[-1] == "{{- end }}"
    assert any('"helm.sh/resource-policy" "keep"' in line and ".Values.crd.keep" in line for line in lines)


def test_defaults_of_the_operators_configuration_are_checked_as_a_jobs() -> None:
    assert OperatorConfiguration.model_fields["pods"].annotation is JobSpec.model_fields["pods"].annotation
