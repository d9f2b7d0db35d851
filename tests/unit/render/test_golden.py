"""The manifests of two jobs are those that were read and agreed to."""

import pytest

from distill_operator.api.pods import Pods
from distill_operator.api.policy import Policy
from tests.unit.render.golden import ATTEMPTS, GOLDEN, golden_files, job_named

HOW_TO_RENEW = "python -m tests.unit.render.golden writes them anew; read the difference"


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_children_of_a_job_are_the_golden_ones(name: str) -> None:
    kept = {path.name: path.read_text() for path in (GOLDEN / name).glob("*.yaml")}
    rendered = golden_files(name)
    assert rendered.keys() == kept.keys(), HOW_TO_RENEW
    for file, text in rendered.items():
        assert text == kept[file], f"{name}/{file} differs: {HOW_TO_RENEW}"


def test_the_job_that_sets_everything_does() -> None:
    spec = job_named("everything").spec
    assert spec.pods.teacher.model_fields_set == Pods.model_fields.keys()
    assert spec.policy.model_fields_set == Policy.model_fields.keys()
