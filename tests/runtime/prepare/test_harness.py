"""Tasks of lm-evaluation-harness in `prepare`: definitions stored, data loaded before anything starts."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.artifacts import fetch_folder
from distill_runtime.contract.sections import Harness, Storage
from distill_runtime.errors import UserError
from distill_runtime.prepare import harness as preparing_harness
from distill_runtime.prepare.harness import definitions_folder
from distill_runtime.store.open import open_store
from distill_runtime.store.s3 import S3Store
from tests.runtime.evaluation.definitions import QUESTIONS, write_definitions
from tests.runtime.prepare.preparing import Job


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    return write_definitions(tmp_path / "definitions")


def with_harness(job: Job, folder: Path, **task: Any) -> Job:
    tasks = [{"task": "capitals_choice", **task}]
    return job.changed({"evaluation": {"harness": {"tasks": tasks, "include": f"file://{folder}"}}})


def test_definitions_and_data_are_stored_and_change_nothing_else(job: Job, definitions: Path) -> None:
    before, _ = job.prepare_here()
    after, _ = with_harness(job, definitions, limit=3).prepare_here()
    assert after.harness is not None
    assert [(task.task, task.documents) for task in after.harness.tasks] == [("capitals_choice", 3)]
    assert after.model_copy(update={"harness": None, "fingerprint": before.fingerprint}) == before
    assert after.harness.include is not None
    stored = fetch_folder(open_store(job.config.work.storage), after.harness.include, job.folder / "far")
    names = {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()}
    assert names == {"choice.yaml", "written.yaml", "text.yaml", "group.yaml", "data/capitals.jsonl"}


def test_the_data_is_loaded_once_and_again_when_a_file_of_the_folder_has_changed(
    job: Job, definitions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = with_harness(job, definitions)
    first, _ = job.prepare_here()
    loaded: list[Any] = []
    real = preparing_harness.load_tasks
    monkeypatch.setattr(preparing_harness, "load_tasks", lambda *a, **k: loaded.append(a) or real(*a, **k))
    assert job.prepare_here()[0] == first
    assert loaded == []
    data = definitions / "data" / "capitals.jsonl"
    data.write_text(data.read_text().replace("paris", "london"))
    second, _ = job.prepare_here()
    assert len(loaded) == 1
    assert first.harness is not None
    assert second.harness is not None
    assert second.harness.include != first.harness.include
    assert second.harness.tasks[0].digest != first.harness.tasks[0].digest
    assert second.harness.tasks[0].documents == len(QUESTIONS)
    shutil.rmtree(job.folder / "store" / str(second.harness.include))
    assert job.prepare_here()[0] == second
    assert len(loaded) == 2


def test_a_task_whose_data_lies_outside_of_the_folder_is_told_before_anything_is_tokenised(
    job: Job, definitions: Path
) -> None:
    (definitions / "data" / "capitals.jsonl").rename(definitions / "moved.jsonl")
    ended = with_harness(job, definitions).run()
    assert ended.code == 65
    assert "evaluation.harness: the data of task capitals_choice can't be loaded (" in ended.message
    assert not any(key.startswith("plans/") for key in job.objects)


def test_a_folder_in_a_bucket_is_the_same_folder(
    tmp_path: Path, definitions: Path, s3_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    store = S3Store(bucket, "some/tasks", s3_storage)
    for path in definitions.rglob("*"):
        if path.is_file():
            store.upload(path.relative_to(definitions).as_posix(), path)
    settings = Harness.model_validate({"include": f"s3://{bucket}/some/tasks"})
    folder = definitions_folder(settings, s3_storage, cache=tmp_path / "cache")
    assert folder is not None
    for path in definitions.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(definitions)).read_bytes() == path.read_bytes()
    empty = Harness.model_validate({"include": f"s3://{bucket}/other"})
    with pytest.raises(UserError, match=r"evaluation.harness.include: .*there is nothing below it in the bucket"):
        definitions_folder(empty, s3_storage, cache=tmp_path / "cache")
    monkeypatch.setattr(preparing_harness, "MOST_FILES", 2)
    with pytest.raises(UserError, match="has 5 files"):
        definitions_folder(settings, s3_storage, cache=tmp_path / "cache")


def test_folders_that_can_not_be_used_are_told(tmp_path: Path, definitions: Path, file_storage: Storage) -> None:
    missing = Harness.model_validate({"include": f"file://{tmp_path}/nowhere"})
    with pytest.raises(UserError, match=r"evaluation.harness.include: .*there is no folder .*nowhere"):
        definitions_folder(missing, file_storage, cache=tmp_path / "cache")
    (definitions / "manifest.json").write_text("{}")
    folder = definitions_folder(
        Harness.model_validate({"include": f"file://{definitions}"}), file_storage, cache=tmp_path / "cache"
    )
    assert folder == definitions
    with pytest.raises(UserError, match=r"manifest.json of its own"):
        preparing_harness.definitions_digest(definitions, "x")
