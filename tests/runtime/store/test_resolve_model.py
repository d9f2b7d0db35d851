"""Models by URI: the same digest from everywhere, and a sentence for each thing that can be wrong."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from distill_runtime import locations
from distill_runtime.artifacts import store_folder
from distill_runtime.contract.sections import Storage
from distill_runtime.errors import RetryError, UserError
from distill_runtime.models import is_needed, resolve_model, resolve_pin
from distill_runtime.prepared import ModelPin
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.store.open import open_store
from distill_runtime.store.s3 import S3Store
from tests.fixtures.hub import COMMIT, Hub
from tests.fixtures.s3 import free_ports

NOBODY = 65534
STORAGE = Storage(uri="file:///unused")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with all that a model has, and things beside it that don't matter."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "generation_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"weight": np.arange(12, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "README.md").write_text("of no consequence")
    (folder / "sub").mkdir()
    (folder / "sub" / "config.json").write_text("{}")
    return folder


def digest(folder: Path, cache: Path, **options: Any) -> str:
    return resolve_model(f"file://{folder}", STORAGE, cache=cache, **options).pin.digest


def sentence(uri: str, cache: Path, storage: Storage = STORAGE, **options: Any) -> UserError:
    with pytest.raises(UserError) as raised:
        resolve_model(uri, storage, cache=cache, **options)
    message = str(raised.value)
    assert uri in message
    assert "\n" not in message
    assert message.endswith(".")
    return raised.value


def test_the_digest_is_the_same_whatever_the_folder_is_called(model: Path, tmp_path: Path) -> None:
    first = digest(model, tmp_path)
    (model / "README.md").write_text("rewritten")
    assert digest(model.rename(tmp_path / "another name"), tmp_path) == first


def test_the_digest_changes_with_every_file_that_matters(model: Path, tmp_path: Path) -> None:
    seen = {digest(model, tmp_path)}
    needed = [path for path in sorted(model.iterdir()) if is_needed(path.name)]
    assert len(needed) == 6
    for path in needed:
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if path.suffix == ".safetensors" else before + b" ")
        seen.add(digest(model, tmp_path))
        path.write_bytes(before)
    shutil.copy(model / "chat_template.jinja", model / "other.jinja")
    seen.add(digest(model, tmp_path))
    assert len(seen) == len(needed) + 2


def test_a_model_is_the_same_from_a_folder_a_claim_a_bucket_the_store_and_the_hub(
    model: Path, tmp_path: Path, s3_storage: Storage, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    wanted = digest(model, cache)
    monkeypatch.setattr(locations, "CLAIMS_FOLDER", tmp_path)
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    in_bucket = S3Store(bucket, "", s3_storage)
    for path in model.rglob("*"):
        if path.is_file():
            in_bucket.upload(f"some/model/{path.relative_to(model)}", path)
    store = open_store(s3_storage)
    store_folder(store, "models/abc", model)
    hub.repositories["models/org/name"] = {
        str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()
    }
    hub.repositories["models/org/many"] = {f"inner/{k}": v for k, v in hub.repositories["models/org/name"].items()}
    uris = {
        f"pvc://{model.name}": f"pvc://{model.name}",
        f"s3://{bucket}/some/model": f"s3://{bucket}/some/model",
        f"s3://{bucket}/some/model/": f"s3://{bucket}/some/model/",
        "store://models/abc": "store://models/abc",
        "hf://org/name": f"hf://org/name@{COMMIT}",
        "hf://org/name@main": f"hf://org/name@{COMMIT}",
        "hf://org/many/inner": f"hf://org/many@{COMMIT}/inner",
    }
    for uri, pinned in uris.items():
        found = resolve_model(uri, s3_storage, cache=cache, store=store)
        assert found.pin == ModelPin(uri=pinned, digest=wanted), uri
        assert (found.folder / "config.json").is_file()
        assert resolve_pin(found.pin, s3_storage, cache=cache, store=store) == found.folder


def test_only_what_is_needed_is_downloaded(model: Path, tmp_path: Path, hub: Hub) -> None:
    hub.repositories["models/org/name"] = {
        **{path.name: path.read_bytes() for path in model.iterdir() if path.is_file()},
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": b"weights once more",
        "onnx/config.json": b"{}",
    }
    found = resolve_model("hf://org/name", STORAGE, cache=tmp_path / "cache")
    downloaded = {str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()}
    assert downloaded == {path.name for path in model.iterdir() if is_needed(path.name)}


def test_an_object_that_changed_in_the_bucket_is_downloaded_anew_and_refused_under_the_old_pin(
    model: Path, tmp_path: Path, s3_storage: Storage
) -> None:
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    store = S3Store(bucket, "", s3_storage)
    for path in model.iterdir():
        if path.is_file():
            store.upload(f"model/{path.name}", path)
    first = resolve_model(f"s3://{bucket}/model", s3_storage, cache=tmp_path / "cache")
    store.put("model/config.json", b'{"model_type": "gemma"}')
    second = resolve_model(f"s3://{bucket}/model", s3_storage, cache=tmp_path / "cache")
    assert first.pin.digest != second.pin.digest
    with pytest.raises(UserError, match="has changed since"):
        resolve_pin(first.pin, s3_storage, cache=tmp_path / "cache")


def test_a_configuration_alone_will_do_for_a_random_student(model: Path, tmp_path: Path) -> None:
    with_weights = digest(model, tmp_path, require_weights=False)
    (model / "model.safetensors").unlink()
    assert digest(model, tmp_path, require_weights=False) == with_weights
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    digest(model, tmp_path, require_weights=False, require_tokenizer=False)
    assert sentence(f"file://{model}", tmp_path, require_weights=False).reason == "NoTokenizer"


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    assert sentence(f"file://{tmp_path}/nothing", tmp_path).reason == "ModelMissing"
    assert sentence("pvc://no-claim/nothing", tmp_path).reason == "ModelMissing"
    assert "three slashes" in str(sentence("file://relative/model", tmp_path))
    assert "claim" in str(sentence("pvc://claim/../../etc", tmp_path))
    assert sentence("ftp://host/model", tmp_path).reason == "BadModel"


def test_a_folder_without_configuration_is_a_sentence(model: Path, tmp_path: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")
    error = sentence(f"file://{model}", tmp_path)
    assert error.reason == "NoModelConfiguration"
    assert "merge it first" in str(error)
    for broken in ("{", "[]"):
        (model / "config.json").write_text(broken)
        assert "config.json" in str(sentence(f"file://{model}", tmp_path))


def test_a_folder_without_tokenizer_is_a_sentence(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    error = sentence(f"file://{model}", tmp_path)
    assert error.reason == "NoTokenizer"
    assert "tokenizer.json" in str(error)


def test_weights_that_are_missing_pickled_or_broken_are_a_sentence(model: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    assert sentence(f"file://{model}", tmp_path).reason == "NoWeights"
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    assert "pytorch_model.bin can run code" in str(sentence(f"file://{model}", tmp_path))
    weights.write_bytes(whole[:-4])
    assert "model.safetensors is no whole" in str(sentence(f"file://{model}", tmp_path))
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert sentence(f"file://{model}", tmp_path).reason == "BrokenWeights"


def test_a_shard_that_the_index_names_and_the_folder_lacks_is_a_sentence(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "lacks model-00002-of-00002.safetensors" in str(sentence(f"file://{model}", tmp_path))
    (model / "model.safetensors.index.json").write_text("[]")
    assert "no index" in str(sentence(f"file://{model}", tmp_path))


def read_as_nobody(model: Path, answers: "multiprocessing.Queue[str]") -> None:
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        digest(model, model)
        answers.put("read")
    except UserError as error:
        answers.put(f"{error.reason}: {error}")


@pytest.mark.parametrize("closed", ["model.safetensors", "."])
def test_a_file_of_another_user_is_a_sentence_with_the_mode_to_give(model: Path, closed: str) -> None:
    for folder in [model, *model.parents][:-1]:
        folder.chmod(folder.stat().st_mode | 0o755)
    (model / closed).chmod(0o600 if os.geteuid() == 0 else 0)
    answers = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=read_as_nobody, args=(model, answers))
    process.start()
    try:
        answer = answers.get(timeout=60)
    finally:
        process.join(30)
        (model / closed).chmod(0o755)
    assert answer.startswith("ModelUnreadable: ")
    assert str(model / closed) in answer
    assert "0644" in answer


def test_a_bucket_without_the_model_is_a_sentence(tmp_path: Path, s3_storage: Storage) -> None:
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    assert sentence(f"s3://{bucket}/nothing", tmp_path, s3_storage).reason == "ModelMissing"
    S3Store(bucket, "model", s3_storage).put("pytorch_model.bin", b"pickle")
    S3Store(bucket, "model", s3_storage).put("config.json", b"{}")
    S3Store(bucket, "model", s3_storage).put("tokenizer.json", b"{}")
    assert "pytorch_model.bin can run code" in str(sentence(f"s3://{bucket}/model", tmp_path, s3_storage))
    with pytest.raises(UserError, match="missing-bucket") as raised:
        resolve_model("s3://missing-bucket/model", s3_storage, cache=tmp_path)
    assert raised.value.reason == "BucketMissing"


def test_a_lost_artifact_asks_for_the_step_that_makes_it(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    with pytest.raises(RetryError, match="models/abc is missing"):
        resolve_model("store://models/abc", STORAGE, cache=tmp_path, store=store)


def test_what_the_hub_refuses_is_a_sentence(tmp_path: Path, hub: Hub, model: Path) -> None:
    hub.repositories["models/org/name"] = {"config.json": b"{}"}
    hub.gated.add("models/org/gated")
    assert sentence("hf://org/nothing", tmp_path).reason == "RepositoryMissing"
    assert sentence("hf://org/name@v9", tmp_path).reason == "RevisionMissing"
    assert sentence("hf://org/gated", tmp_path).reason == "ModelForbidden"
    assert sentence("hf://just-a-name", tmp_path).reason == "UserError"
    assert sentence("hf://datasets/org/name", tmp_path).reason == "BadModel"
    with pytest.raises(UserError, match="no tokenizer"):
        resolve_model("hf://org/name", STORAGE, cache=tmp_path)


def test_a_hub_that_can_t_be_reached_is_a_sentence_unless_the_model_is_in_the_cache(
    tmp_path: Path, hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["models/org/name"] = {p.name: p.read_bytes() for p in model.iterdir() if p.is_file()}
    pin = resolve_model("hf://org/name", STORAGE, cache=tmp_path / "cache").pin
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert sentence("hf://org/other", tmp_path / "cache").reason == "HubUnreachable"
    assert resolve_model("hf://org/name", STORAGE, cache=tmp_path / "cache").pin == pin
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve_model(pin.uri, STORAGE, cache=tmp_path / "cache").pin == pin
    assert sentence("hf://org/other", tmp_path / "cache").reason == "HubUnreachable"
