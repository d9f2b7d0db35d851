"""What is wrong is refused by the API server, with the sentence that a user reads."""

from typing import Any

import pytest

from distill_operator.api.rules import RULES
from tests.control_plane.crd.conftest import Jobs
from tests.unit.api.manifest import REMOVE, changed, errors_of
from tests.unit.api.mistakes import AGAINST_A_RULE, LABEL_KEY, ONE_MISTAKE, TASK, VOLUME, teacher

QUESTIONS = {"kind": "questionAnswering", "name": "q", "data": "file://q.jsonl"}

IN_ITS_OWN_WORDS: list[tuple[str, Any, str]] = [
    ("spec.data.train", "/a", "spec.data.train in body should match '^(file|s3|hf|pvc)://[^\\s]+$'"),
    ("spec.data.train", ["hf://a/b", "/a"], "spec.data.train[1] in body should match '^(file|s3|hf|pvc)://[^\\s]+$'"),
    ("spec.data.train", [], "spec.data.train in body should have at least 1 items"),
    ("spec.data.train", [5], "spec.data.train[0] in body must be of type string"),
    ("spec.data.train", 5, "spec.data.train: Invalid value: 5"),
    ("spec.data.train", True, '"spec.data.train" must not validate the schema (not)'),
    ("spec.data.train", {"uri": "hf://a/b"}, "spec.data.train: Too many: 1: must have at most 0 items"),
    ("spec.data.train", REMOVE, '"spec.data" must validate one and only one schema (oneOf)'),
    ("spec.data.sources", [{"uri": "s3://a/b"}], '"spec.data" must validate one and only one schema (oneOf)'),
    ("spec.output.select", "best", "spec.data.evaluation: Required value"),
    ("spec.training.stopAfterWorseEvaluations", 3, "spec.data.evaluation: Required value"),
    ("spec.evaluation.samples", {"count": 3}, "spec.data.evaluation: Required value"),
    ("spec.evaluation.tasks", [TASK, TASK], 'spec.evaluation.tasks[1]: Duplicate value: {"name":"t"}'),
    (
        "spec.student",
        {"initialise": {"fromTeacher": {"layers": [0, 1, 1]}}},
        "spec.student.initialise.fromTeacher.layers[2]: Duplicate value: 1",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "maxNewTokens": 8}],
        "spec.evaluation.tasks[0]: Invalid value: maxNewTokens is for questionAnswering only",
    ),
    (
        "spec.evaluation.tasks",
        [{**QUESTIONS, "labels": ["a", "b"]}],
        "spec.evaluation.tasks[0]: Invalid value: labels is for classification only",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "kind": "summarise"}],
        'spec.evaluation.tasks[0].kind: Unsupported value: "summarise": supported values: "classification", '
        '"questionAnswering"',
    ),
    (
        "spec.pods",
        teacher(nodeSelector={"gpu type": "h100"}),
        f"spec.pods.teacher.nodeSelector: Invalid value: a key {LABEL_KEY}",
    ),
    (
        "spec.pods",
        teacher(volumes=[VOLUME, {**VOLUME, "mountPath": "/b"}]),
        'spec.pods.teacher.volumes[1]: Duplicate value: {"name":"a"}',
    ),
    (
        "spec.pods",
        teacher(topologySpread=[{"topologyKey": "zone"}, {"topologyKey": "zone"}]),
        'Duplicate value: {"topologyKey":"zone","whenUnsatisfiable":"ScheduleAnyway"}',
    ),
    ("spec.pods", teacher(cpu="8 cores"), "spec.pods.teacher.cpu in body should match"),
    ("spec.trainng", {}, 'unknown field "spec.trainng"'),
    ("spec.pods", teacher(affinity={"nodeAfinity": {}}), 'unknown field "spec.pods.teacher.affinity.nodeAfinity"'),
]
"""Where the schema says it and not a rule: the API server's own sentence names the field."""


@pytest.mark.parametrize(("path", "value", "sentence"), AGAINST_A_RULE)
def test_fields_that_do_not_fit_together_are_refused_in_the_words_of_load_job(
    path: str, value: Any, sentence: str, checked: Jobs
) -> None:
    field, _, words = sentence.partition(": ")
    refusal = checked.check(changed(path, value))
    assert refusal is not None
    assert f"{field}: Invalid value: {words}" in refusal


def test_each_rule_has_a_manifest_that_is_refused_for_it() -> None:
    sentences = [sentence for _, _, sentence in AGAINST_A_RULE]
    for rule in (rule for rules in RULES.values() for rule in rules):
        # Where the sentence holds a value, its end is what doesn't.
        words = rule.message if not rule.message_expression else rule.message.split(" needs ")[-1]
        assert any(sentence.endswith(words) for sentence in sentences), rule.message


@pytest.mark.parametrize(("path", "value", "sentence"), IN_ITS_OWN_WORDS)
def test_a_wrong_value_is_refused_with_its_fields_name(path: str, value: Any, sentence: str, checked: Jobs) -> None:
    document = changed(path, value)
    assert errors_of(document)
    refusal = checked.check(document)
    assert refusal is not None
    assert sentence in refusal


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value, _ in ONE_MISTAKE])
def test_what_load_job_refuses_the_api_server_refuses(path: str, value: Any, checked: Jobs) -> None:
    assert checked.check(changed(path, value)) is not None
