"""YAML in, a job or the line of the mistake out."""

from pathlib import Path

import pytest
import yaml

from distill_operator.api import InvalidJob, load_job
from distill_runtime.contract.run import RunConfig, Work
from tests.unit.api.manifest import SMALLEST, changed, load

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
TEXT = yaml.safe_dump(SMALLEST)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "line 1, column 5: expected the node content, but found '<stream end>'"),
        (
            "spec:\n  training: {}\n  data: {}\n  training: {}\n",
            "line 4, column 3: training was given before, in line 2",
        ),
        ("a: {b: 1, b: 1}", "line 1, column 11: b was given before, in line 1"),
        ("a: &x [*x]", "line 1, column 4: an alias contains itself"),
        ("a: !!python/object:os.system 3", "could not determine a constructor"),
        ("? [a]\n: 3", "line 1, column 3: a key must be plain text"),
        ("a:\n\t- b", "line 2, column 1: found character '\\t'"),
        ("", "there is nothing in it: write a DistillJob (apiVersion: distill-operator.io/v1alpha1)"),
        ("# only a comment\n---\n", "there is nothing in it"),
        ("just text", 'must be a mapping with apiVersion, kind, metadata and spec, got "just text"'),
        ("- a", "must be a mapping with apiVersion, kind, metadata and spec, got a list"),
        (f"{TEXT}---\n{TEXT}", "has 2 documents with 2 of kind DistillJob: exactly one is wanted"),
        ("kind: A\n---\nkind: B\n", "has 2 documents with 0 of kind DistillJob: exactly one is wanted"),
        ("a: \x07", "special characters are not allowed"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        load_job(text, "job.yaml")
    assert len(caught.value.errors) == 1
    assert sentence in caught.value.errors[0]
    assert str(caught.value).startswith("job.yaml: ")


def test_objects_of_other_kinds_beside_the_job_are_left_aside() -> None:
    assert load_job(f"kind: Secret\n---\n{TEXT}---\n", "job.yaml") == load(SMALLEST)


def test_everything_but_four_sections_has_a_default() -> None:
    job = load(SMALLEST)
    assert job.metadata.namespace == "default"
    assert job.spec.suspend is False
    assert job.spec.managed_by is None
    assert job.spec.signal.mode == "hybrid"
    assert job.spec.training.optimizer.betas == (0.9, 0.95)


def test_null_stands_for_not_given() -> None:
    assert load(changed("spec.training", None)) == load(SMALLEST)
    assert load(changed("spec.training.globalBatch", None)).spec.training.global_batch == 32
    assert load(changed("spec.data.evaluation", None)) == load(SMALLEST)


def test_scalars_mean_what_they_mean_in_kubernetes() -> None:
    text = TEXT + "  training: {optimizer: {learningRate: 1e-4, betas: [0, 0.95]}, epochs: 2, packing: no}\n"
    training = load_job(text, "job.yaml").spec.training
    assert training.optimizer.learning_rate == 1e-4
    assert training.optimizer.betas == (0.0, 0.95)
    assert training.epochs == 2.0
    assert training.packing is False
    labels = "metadata: {name: job, labels: {day: 2026-01-02, time: 12:30, version: '1', old: 010}}"
    metadata = load_job(TEXT.replace("metadata:\n  name: job", labels), "job.yaml").metadata
    assert metadata.labels == {"day": "2026-01-02", "time": "12:30", "version": "1", "old": "010"}


def test_what_the_api_server_adds_is_tolerated() -> None:
    document = {
        **SMALLEST,
        "metadata": {
            "name": "job",
            "uid": "0b5c",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "status": {"phase": "Pending", "conditions": []},
    }
    job = load(document)
    assert job.metadata.uid == "0b5c"
    assert job.spec == load(SMALLEST).spec


def test_the_work_is_the_spec_without_what_only_the_operator_reads() -> None:
    work = load(changed("spec.suspend", True)).spec.work()
    assert type(work) is Work
    config = RunConfig(namespace="a", name="b", uid="c", attempt=1, work=work)
    assert RunConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid(path: Path) -> None:
    load_job(path.read_text(), str(path))
