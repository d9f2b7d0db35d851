"""Folders as artifacts: whole or absent, checked, fetched once."""

import os
from pathlib import Path

import pytest

from distill_runtime.artifacts import fetch_folder, store_folder, stored_digest
from distill_runtime.errors import RetryError
from distill_runtime.store.base import ObjectStore
from distill_runtime.store.directory import DirectoryStore
from tests.runtime.store.test_object_store import at_once

KEY = "models/abc"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (made / "model.safetensors").chmod(0o600)
    (made / "sub" / "empty").write_bytes(b"")
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip_a_byte(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def test_a_folder_comes_back_as_it_was(any_store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    assert stored_digest(any_store, KEY) is None
    digest = store_folder(any_store, KEY, folder)
    assert stored_digest(any_store, KEY) == digest
    fetched = fetch_folder(any_store, KEY, tmp_path / "cache")
    assert fetched == tmp_path / "cache" / digest
    assert contents(fetched) == contents(folder)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in fetched.rglob("*") if path.is_file())


def test_storing_again_writes_nothing_and_gives_the_same_digest(any_store: ObjectStore, folder: Path) -> None:
    digest = store_folder(any_store, KEY, folder)
    before = list(any_store.list(""))
    assert store_folder(any_store, KEY, folder) == digest
    assert list(any_store.list("")) == before


def test_another_content_replaces_the_artifact(any_store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    first = store_folder(any_store, KEY, folder)
    (folder / "config.json").write_text('{"changed": true}')
    second = store_folder(any_store, KEY, folder)
    assert first != second
    assert contents(fetch_folder(any_store, KEY, tmp_path / "cache")) == contents(folder)


def test_a_folder_is_an_artifact_only_once_its_manifest_is_there(
    any_store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(any_store, "put", die)
        with pytest.raises(KeyboardInterrupt):
            store_folder(any_store, KEY, folder)
    assert stored_digest(any_store, KEY) is None
    with pytest.raises(RetryError, match=KEY):
        fetch_folder(any_store, KEY, tmp_path / "cache")
    store_folder(any_store, KEY, folder)
    assert contents(fetch_folder(any_store, KEY, tmp_path / "cache")) == contents(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_byte_is_named_and_the_artifact_is_made_again(
    any_store: ObjectStore, folder: Path, tmp_path: Path, name: str
) -> None:
    store_folder(any_store, KEY, folder)
    flip_a_byte(any_store, f"{KEY}/{name}")
    with pytest.raises(RetryError, match=f"{KEY}/{name} is corrupt"):
        fetch_folder(any_store, KEY, tmp_path / "cache")
    assert not any(path.is_dir() for path in (tmp_path / "cache").iterdir()), "nothing half is left in the cache"
    assert stored_digest(any_store, KEY) is None
    store_folder(any_store, KEY, folder)
    assert contents(fetch_folder(any_store, KEY, tmp_path / "cache")) == contents(folder)


def test_a_damaged_manifest_is_no_manifest(any_store: ObjectStore, folder: Path) -> None:
    digest = store_folder(any_store, KEY, folder)
    manifest = any_store.get(f"{KEY}/manifest.json")
    for place in range(0, len(manifest), 17):
        damaged = bytearray(manifest)
        damaged[place] ^= 1
        any_store.put(f"{KEY}/manifest.json", bytes(damaged))
        assert stored_digest(any_store, KEY) is None, f"byte {place} was flipped and nobody saw it"
    any_store.put(f"{KEY}/manifest.json", manifest[: len(manifest) // 2])
    assert stored_digest(any_store, KEY) is None
    assert store_folder(any_store, KEY, folder) == digest
    assert stored_digest(any_store, KEY) == digest


def test_a_lost_file_is_named(any_store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    store_folder(any_store, KEY, folder)
    any_store.delete(f"{KEY}/config.json")
    with pytest.raises(RetryError, match=f"no object {KEY}/config.json"):
        fetch_folder(any_store, KEY, tmp_path / "cache")


def test_several_fetchers_download_once_and_all_get_the_whole_folder(
    any_store: ObjectStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_folder(any_store, KEY, folder)
    downloads: list[str] = []
    download = any_store.download

    def counted(key: str, path: Path) -> None:
        downloads.append(key)
        download(key, path)

    monkeypatch.setattr(any_store, "download", counted)
    fetched = at_once(lambda _: contents(fetch_folder(any_store, KEY, tmp_path / "cache")))
    assert all(one == contents(folder) for one in fetched)
    assert len(downloads) == len(contents(folder))


def test_what_a_killed_fetcher_left_is_cleared_away(any_store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    digest = store_folder(any_store, KEY, folder)
    abandoned = tmp_path / "cache" / f".{digest}.part-12345678"
    abandoned.mkdir(parents=True)
    (abandoned / "model.safetensors").write_bytes(b"half")
    assert contents(fetch_folder(any_store, KEY, tmp_path / "cache")) == contents(folder)
    assert not abandoned.exists()


def test_the_digest_is_that_of_the_content_alone(any_store: ObjectStore, folder: Path) -> None:
    digest = store_folder(any_store, KEY, folder)
    os.utime(folder / "config.json", (1, 1))
    moved = folder.rename(folder.with_name("another name"))
    assert store_folder(any_store, "models/other", moved) == digest


@pytest.mark.parametrize("prepare", ["empty", "manifest"])
def test_a_folder_that_can_t_be_an_artifact_is_refused(tmp_path: Path, prepare: str) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    if prepare == "manifest":
        (bad / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="bad"):
        store_folder(DirectoryStore(tmp_path / "store"), KEY, bad)
