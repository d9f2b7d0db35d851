"""Data files by URI: found, sorted, read, and a sentence for each thing that can be wrong."""

import hashlib
import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_runtime import locations
from distill_runtime.contract.sections import Storage
from distill_runtime.data.files import DataFile, find_files
from distill_runtime.errors import UserError
from distill_runtime.store.s3 import S3Store
from tests.fixtures.hub import COMMIT, Hub

STORAGE = Storage(uri="file:///unused")
FILES = {
    "train/b.jsonl": b'{"text": "b"}\n',
    "train/a.jsonl": b'{"text": "a"}\n',
    "train/deep/er/c.jsonl": b'{"text": "c"}\n',
    "train/[1].jsonl": b'{"text": "1"}\n',
    "train/other.csv": b"text\nx\n",
    "train/.hidden.jsonl": b"{}\n",
}
PATTERNS = {
    "train/*.jsonl": ["train/[1].jsonl", "train/a.jsonl", "train/b.jsonl"],
    "train/?.jsonl": ["train/a.jsonl", "train/b.jsonl"],
    "train/**/*.jsonl": ["train/[1].jsonl", "train/a.jsonl", "train/b.jsonl", "train/deep/er/c.jsonl"],
    "train/[1].jsonl": ["train/[1].jsonl"],
    "**/c.jsonl": ["train/deep/er/c.jsonl"],
    "train/a.jsonl": ["train/a.jsonl"],
}


@pytest.fixture(params=["file", "pvc", "s3", "hf"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Storage]:
    """The files in each place: what stands before their paths in a URI, the same once pinned, and the storage."""
    if request.param == "s3":
        storage: Storage = request.getfixturevalue("s3_storage")
        bucket = storage.uri.removeprefix("s3://").partition("/")[0]
        store = S3Store(bucket, "", storage)
        for name, data in FILES.items():
            store.put(name, data)
        return f"s3://{bucket}/", f"s3://{bucket}/", storage
    if request.param == "hf":
        hub: Hub = request.getfixturevalue("hub")
        hub.repositories["datasets/org/data"] = dict(FILES)
        return "hf://datasets/org/data/", f"hf://datasets/org/data@{COMMIT}/", STORAGE
    for name, data in FILES.items():
        path = tmp_path / "claim" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.setattr(locations, "CLAIMS_FOLDER", tmp_path)
    base = f"file://{tmp_path}/claim/" if request.param == "file" else "pvc://claim/"
    return base, base, STORAGE


def sentence(uri: str, storage: Storage) -> UserError:
    with pytest.raises(UserError) as raised:
        find_files([uri], storage)
    message = str(raised.value)
    assert message.endswith(".")
    assert "\n" not in message
    return raised.value


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_find_the_same_files_everywhere(place: tuple[str, str, Storage], pattern: str) -> None:
    base, pinned, storage = place
    found = find_files([base + pattern], storage)
    assert [file.uri for file in found] == [pinned + name for name in PATTERNS[pattern]]
    assert [file.size for file in found] == [len(FILES[name]) for name in PATTERNS[pattern]]


def test_files_are_read_in_place_and_as_local_copies(place: tuple[str, str, Storage], tmp_path: Path) -> None:
    base, pinned, storage = place
    for file in find_files([f"{base}train/**/*.jsonl"], storage):
        wanted = FILES[file.uri.removeprefix(pinned)]
        with file.open() as stream:
            assert stream.read() == wanted
            stream.seek(3)
            assert stream.read(4) == wanted[3:7]
            assert stream.seek(-2, io.SEEK_END) == len(wanted) - 2
            assert stream.read() == wanted[-2:]
        assert file.local_path(tmp_path / "cache").read_bytes() == wanted
        assert file.local_path(tmp_path / "cache").suffix == ".jsonl"


def test_several_uris_keep_their_order_and_a_file_comes_once(place: tuple[str, str, Storage]) -> None:
    base, pinned, storage = place
    found = find_files([f"{base}train/b.jsonl", f"{base}train/?.jsonl", f"{base}train/other.csv"], storage)
    names = ["train/b.jsonl", "train/a.jsonl", "train/other.csv"]
    assert [file.uri for file in found] == [pinned + name for name in names]


@pytest.mark.parametrize("path", ["train/*.parquet", "train/nothing.jsonl", "nothing/*.jsonl", "train", "train/"])
def test_what_matches_nothing_is_named(place: tuple[str, str, Storage], path: str) -> None:
    base, _, storage = place
    error = sentence(base + path, storage)
    assert error.reason == "FileMissing"
    assert base + path in str(error)


def digest_of(files: list[DataFile]) -> str:
    (file,) = files
    return file.digest


def test_the_digest_is_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"content")
    (tmp_path / "b.jsonl").write_bytes(b"content")
    first = digest_of(find_files([f"file://{tmp_path}/a.jsonl"], STORAGE))
    assert first == hashlib.sha256(b"content").hexdigest()
    assert digest_of(find_files([f"file://{tmp_path}/b.jsonl"], STORAGE)) == first
    (tmp_path / "a.jsonl").write_bytes(b"Content")
    assert digest_of(find_files([f"file://{tmp_path}/a.jsonl"], STORAGE)) != first


def test_an_empty_file_is_named(s3_storage: Storage, hub: Hub, tmp_path: Path) -> None:
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    (tmp_path / "empty.jsonl").touch()
    S3Store(bucket, "", s3_storage).put("data/empty.jsonl", b"")
    hub.repositories["datasets/org/data"] = {"empty.jsonl": b""}
    for uri in (f"file://{tmp_path}/*.jsonl", f"s3://{bucket}/data/*", "hf://datasets/org/data/empty.jsonl"):
        error = sentence(uri, s3_storage)
        assert error.reason == "EmptyFile"
        assert "empty.jsonl is empty" in str(error)


def test_an_object_that_changes_while_it_is_read_is_named(s3_storage: Storage, tmp_path: Path) -> None:
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    store = S3Store(bucket, "", s3_storage)
    store.put("train.jsonl", b"a" * 100)
    (file,) = find_files([f"s3://{bucket}/train.jsonl"], s3_storage)
    before = file.digest
    store.put("train.jsonl", b"b" * 100)
    assert digest_of(find_files([f"s3://{bucket}/train.jsonl"], s3_storage)) != before
    with file.open() as stream, pytest.raises(UserError, match=r"train\.jsonl was changed"):
        stream.read()
    with pytest.raises(UserError, match=r"train\.jsonl was changed"):
        file.local_path(tmp_path / "cache")


def test_parquet_is_read_from_a_bucket_and_the_hub_without_a_copy(
    s3_storage: Storage, hub: Hub, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(1000)]}), tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    bucket = s3_storage.uri.removeprefix("s3://").partition("/")[0]
    S3Store(bucket, "", s3_storage).put("x.parquet", data)
    hub.repositories["datasets/org/data"] = {"x.parquet": data}
    for uri in (f"s3://{bucket}/*.parquet", "hf://datasets/org/data/*.parquet"):
        (file,) = find_files([uri], s3_storage)
        with file.open() as stream:
            assert pq.ParquetFile(stream).read().column("text").to_pylist()[999] == "row 999"


def test_a_file_that_can_t_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    assert "loop.jsonl" in str(sentence(f"file://{tmp_path}/loop.jsonl", STORAGE))

    def forbid(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("distill_runtime.data.files.digest_of_file", forbid)
    error = sentence(f"file://{tmp_path}/a.jsonl", STORAGE)
    assert error.reason == "FileUnreadable"
    assert f"{tmp_path}/a.jsonl" in str(error)
    assert str(os.geteuid()) in str(error)


def test_what_the_hub_doesn_t_have_is_named(hub: Hub) -> None:
    hub.repositories["datasets/org/data"] = {"a.jsonl": b"x"}
    assert sentence("hf://datasets/org/nothing/a.jsonl", STORAGE).reason == "RepositoryMissing"
    assert sentence("hf://datasets/org/data@v9/a.jsonl", STORAGE).reason == "RevisionMissing"
    assert sentence("hf://org/data/a.jsonl", STORAGE).reason == "RepositoryMissing"
    assert "hf://datasets/organisation/name" in str(sentence("hf://org/data/a.jsonl", STORAGE))
    assert sentence("ftp://host/a.jsonl", STORAGE).reason == "BadData"
