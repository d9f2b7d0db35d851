"""What a manifest's URIs mean on one machine."""

from pathlib import Path

import pytest

from distill_operator.api import DistillJob, InvalidJob, resolve_local_paths
from tests.unit.api.manifest import SMALLEST, load

FOLDER = Path("/home/me/jobs")


def job_with(spec: dict[str, object]) -> DistillJob:
    return load({**SMALLEST, "spec": {**SMALLEST["spec"], **spec}})


def test_relative_paths_count_from_the_manifests_folder_in_every_field() -> None:
    job = job_with(
        {
            "teacher": {"model": "file://teacher"},
            "student": {"initialise": {"fromConfig": {"config": "file://configs/small.json"}}},
            "data": {"train": ["file://a/*.jsonl", "s3://bucket/b"], "evaluation": "file://../held.jsonl"},
            "storage": {"uri": "file://./store"},
            "evaluation": {
                "tasks": [{"kind": "classification", "name": "t", "data": "file:///abs/t.jsonl"}],
                "harness": {"include": "file://definitions"},
            },
            "output": {"uri": "file://~/model"},
        }
    )
    spec = resolve_local_paths(job, FOLDER).spec
    assert spec.teacher.model == "file:///home/me/jobs/teacher"
    assert spec.student.initialise is not None
    assert spec.student.initialise.from_config is not None
    assert spec.student.initialise.from_config.config == "file:///home/me/jobs/configs/small.json"
    assert spec.data.train == ["file:///home/me/jobs/a/*.jsonl", "s3://bucket/b"]
    assert spec.data.evaluation == "file:///home/me/held.jsonl"
    assert spec.storage.uri == "file:///home/me/jobs/store"
    assert spec.evaluation.tasks[0].data == "file:///abs/t.jsonl"
    assert spec.evaluation.harness.include == "file:///home/me/jobs/definitions"
    assert spec.output.uri == "file:///home/me/jobs/~/model"


def test_text_that_looks_like_a_path_is_left_alone() -> None:
    task = {"kind": "classification", "name": "t", "data": "hf://a/b", "promptTemplate": "file://x {prompt}"}
    job = job_with({"data": {"train": "hf://a/b", "chatTemplate": "file://y"}, "evaluation": {"tasks": [task]}})
    assert resolve_local_paths(job, FOLDER) == job


def test_volumes_of_a_cluster_are_refused_all_at_once() -> None:
    job = job_with({"teacher": {"model": "pvc://models/big"}, "data": {"train": ["file://a", "pvc://data/b"]}})
    with pytest.raises(InvalidJob) as caught:
        resolve_local_paths(job, FOLDER)
    assert caught.value.errors == [
        "spec.teacher.model: pvc://models/big is a volume of a cluster; on this machine use file:// with a path",
        "spec.data.train[1]: pvc://data/b is a volume of a cluster; on this machine use file:// with a path",
    ]
