"""Data files by URI: found by pattern, sorted, each with a digest of its content."""

import glob
import io
import os
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from huggingface_hub import HfApi, HfFileSystem, hf_hub_download

from distill_runtime.cache import in_threads
from distill_runtime.contract.sections import Storage
from distill_runtime.data.patterns import is_pattern, literal_folder, literal_prefix, matcher
from distill_runtime.digests import digest_of, digest_of_file
from distill_runtime.errors import UserError
from distill_runtime.locations import (
    HubLocation,
    bucket_and_key,
    hub_endpoint,
    hub_errors,
    hub_location,
    local_path,
    scheme_of,
)
from distill_runtime.store.base import ObjectInfo, ObjectMissing
from distill_runtime.store.keys import check_key
from distill_runtime.store.s3 import S3Store

BLOCK_BYTES = 8 * 2**20
"""How much is read ahead from an object or a repository."""


@dataclass(frozen=True)
class DataFile(ABC):
    """One file of data."""

    uri: str
    """Where it is, without wildcards; files of the Hub with their commit."""
    size: int
    """Bytes."""
    digest: str
    """Changes whenever the content does."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Its bytes, from the beginning; can be sought in."""

    @abstractmethod
    def local_path(self, cache: Path) -> Path:
        """The file on this machine; downloaded to the cache where it is far."""


def find_files(uris: list[str], storage: Storage) -> list[DataFile]:
    """The files of all URIs, those of one pattern sorted by name; a file that several URIs name comes once.

    Raises
    ------
    UserError
        A URI names nothing, a folder, an empty file or one that can't be read.
    RetryError
        The store or the Hub failed.
    """
    finders = {"file": _local, "pvc": _local, "s3": _in_bucket, "hf": _on_hub}
    files: dict[str, DataFile] = {}
    for uri in uris:
        finder = finders.get(scheme_of(uri))
        if finder is None:
            raise UserError(f"{uri} begins with none of file://, pvc://, s3:// and hf://.", reason="BadData")
        found = finder(uri, storage)
        if not found:
            what = "no file matches it" if is_pattern(uri) else "there is no such file"
            raise UserError(f"{uri}: {what}.", reason="FileMissing")
        for file in found:
            if file.size == 0:
                raise UserError(f"{file.uri} is empty (0 bytes): remove it, or write it again.", reason="EmptyFile")
            files.setdefault(file.uri, file)
    return list(files.values())


@dataclass(frozen=True)
class LocalFile(DataFile):
    """A file on this machine; its digest is the sha256 of its content."""

    path: Path

    def open(self) -> BinaryIO:
        """Its bytes, from the beginning; can be sought in."""
        return self.path.open("rb")

    def local_path(self, cache: Path) -> Path:
        """The file itself."""
        return self.path


def _local(uri: str, storage: Storage) -> list[DataFile]:
    path = local_path(uri)
    try:
        return list(in_threads(lambda one: _describe(uri, path, one), _local_paths(uri, path)))
    except PermissionError as error:
        raise UserError(
            f"{uri}: {error.filename} can't be read by this user (id {os.geteuid()}): give it mode 0644, and its "
            "folders 0755.",
            reason="FileUnreadable",
        ) from error
    except OSError as error:
        raise UserError(
            f"{uri}: {error.filename} can't be read ({error.strerror}).", reason="FileUnreadable"
        ) from error


def _local_paths(uri: str, path: Path) -> list[Path]:
    if is_pattern(str(path)):
        # Square brackets are letters to us, and a class of letters to glob.
        found = glob.glob(str(path).replace("[", "[[]"), recursive=True)
        return [Path(name) for name in sorted(found, key=os.fsencode) if os.path.isfile(name)]
    if path.is_dir():
        raise UserError(f"{uri} is a folder: name its files, as in {uri.rstrip('/')}/*.jsonl.", reason="FileMissing")
    return [path] if path.exists() else []


def _describe(uri: str, pattern: Path, path: Path) -> LocalFile:
    own = uri.removesuffix(str(pattern)) + str(path) if scheme_of(uri) == "file" else _claim_uri(uri, path)
    return LocalFile(uri=own, size=path.stat().st_size, digest=digest_of_file(path), path=path)


def _claim_uri(uri: str, path: Path) -> str:
    claim = uri.removeprefix("pvc://").partition("/")[0]
    return f"pvc://{claim}/{path.relative_to(local_path(f'pvc://{claim}'))}"


@dataclass(frozen=True)
class BucketFile(DataFile):
    """An object in a bucket; its digest is that of its tag and size."""

    store: S3Store = field(repr=False, compare=False)
    key: str
    tag: str

    def open(self) -> BinaryIO:
        """Its bytes, from the beginning; can be sought in."""
        return io.BufferedReader(_ObjectReader(self), BLOCK_BYTES)

    def local_path(self, cache: Path) -> Path:
        """The object as a file in the cache."""
        path = cache / "data" / self.digest / self.key.rpartition("/")[2]
        if path.exists():
            return path
        unchecked = path.with_name(f".{uuid.uuid4().hex}")
        try:
            self.store.download(self.key, unchecked)
            if self.store.tag_of(self.key) != self.tag:
                raise self.changed()
            unchecked.replace(path)
        except ObjectMissing as error:
            raise self.changed() from error
        finally:
            unchecked.unlink(missing_ok=True)
        return path

    def changed(self) -> UserError:
        """The error of an object that isn't the one that was found."""
        return UserError(f"{self.uri} was changed or removed while it was read: run again.", reason="FileChanged")


class _ObjectReader(io.RawIOBase):
    """An object as a file, by ranged reads of the object with one tag."""

    def __init__(self, file: BucketFile) -> None:
        super().__init__()
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        length = min(len(buffer), self._file.size - self._place)
        if length <= 0:
            return 0
        data = self._file.store.get_if_match(self._file.key, self._file.tag, start=self._place, length=length)
        if data is None:
            raise self._file.changed()
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _in_bucket(uri: str, storage: Storage) -> list[DataFile]:
    bucket, pattern = bucket_and_key(uri)
    store = S3Store(bucket, "", storage)
    whole = matcher(pattern)

    def describe(info: ObjectInfo) -> DataFile:
        own = f"s3://{bucket}/{info.key}"
        try:
            check_key(info.key)
        except ValueError as error:
            raise UserError(f"{own} can't be used: {error}.", reason="BadData") from error
        digest = digest_of({"tag": info.tag, "size": info.size})
        return BucketFile(uri=own, size=info.size, digest=digest, store=store, key=info.key, tag=info.tag)

    return [describe(info) for info in store.list(literal_prefix(pattern)) if whole.fullmatch(info.key)]


@dataclass(frozen=True)
class HubFile(DataFile):
    """A file of a repository at one commit; its digest is that of the Hub's own hash."""

    location: HubLocation

    def open(self) -> BinaryIO:
        """Its bytes, from the beginning; can be sought in."""
        files = HfFileSystem(endpoint=hub_endpoint())
        with hub_errors(self.uri):
            return cast(BinaryIO, files.open(self.uri.removeprefix("hf://"), "rb", block_size=BLOCK_BYTES))

    def local_path(self, cache: Path) -> Path:
        """The file in the Hub's cache: that of HF_HOME or HF_HUB_CACHE, else below `cache`."""
        own_cache = None if {"HF_HOME", "HF_HUB_CACHE"} & os.environ.keys() else cache / "huggingface"
        with hub_errors(self.uri):
            return Path(
                hf_hub_download(
                    self.location.repository,
                    self.location.path,
                    repo_type=self.location.kind,
                    revision=self.location.revision,
                    cache_dir=own_cache,
                    endpoint=hub_endpoint(),
                )
            )


def _on_hub(uri: str, storage: Storage) -> list[DataFile]:
    location = hub_location(uri)
    whole = matcher(location.path)
    with hub_errors(uri):
        info = HfApi(endpoint=hub_endpoint()).repo_info(
            location.repository, repo_type=location.kind, revision=location.revision
        )
        assert info.sha is not None, "the Hub always says which commit a revision is"
        root = HubLocation(location.kind, location.repository, info.sha, "").at(info.sha).removeprefix("hf://")
        folder = literal_folder(location.path).rstrip("/")
        try:
            listed = HfFileSystem(endpoint=hub_endpoint()).find(f"{root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:  # No such folder.
            return []
    files: list[DataFile] = []
    for name, details in sorted(cast(dict[str, dict], listed).items()):
        path = name.removeprefix(f"{root}/")
        if whole.fullmatch(path):
            one = HubLocation(location.kind, location.repository, info.sha, path)
            lfs = details.get("lfs")
            content = lfs["sha256"] if lfs else details["blob_id"]
            files.append(HubFile(uri=one.at(info.sha), size=details["size"], digest=content, location=one))
    return files
