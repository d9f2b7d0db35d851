"""The one interface to an object store."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill_runtime.digests import digest_of_bytes


class ObjectMissing(Exception):
    """There is no object under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no object {key}")
        self.key = key


class ObjectCorrupt(Exception):
    """An object's bytes are not the ones that were written."""

    def __init__(self, key: str, wanted: str, found: str) -> None:
        super().__init__(f"object {key} is corrupt: sha256 {found[:12]}…, written as {wanted[:12]}…")
        self.key = key


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a listing."""

    key: str
    size: int
    tag: str
    """Changes whenever the object does. To be compared with tags of other listings: `put_if_match` takes the tag of
    `get_tagged`."""


class ObjectStore(ABC):
    """Objects under keys below one URI. Every write is atomic: a reader sees all of an object or nothing.

    Keys are `/`-separated names without a leading slash. All methods may be called from several threads.
    A store that can't be reached ends in `errors.RetryError`, wrong credentials or a missing bucket in
    `errors.UserError`, after retries with a bound.
    """

    uri: str
    """`s3://bucket/prefix` or `file:///folder`, without a trailing slash."""

    @abstractmethod
    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`. Raises ObjectMissing."""

    @abstractmethod
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and the tag to give `put_if_match`. Raises ObjectMissing."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Writes the object, whatever was there. Returns its tag."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object unless there is one; of several writers one alone gets True."""

    @abstractmethod
    def put_if_match(self, key: str, data: bytes, tag: str) -> str | None:
        """Writes the object if it is still the one with this tag. Returns the new tag, or None if it has changed."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Is there such an object?"""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, by key. May read the whole listing before the first item."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes the object; nothing happens where there is none."""

    @abstractmethod
    def upload(self, key: str, path: Path) -> None:
        """Writes a file as an object, in parts where it is large."""

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Writes an object to a file, atomically. Raises ObjectMissing."""

    @abstractmethod
    def probe(self) -> None:
        """Checks that the store can be read and written and really refuses a second conditional put.

        Raises
        ------
        UserError
            It can't; the sentence says what to mend.
        """

    def get_verified(self, key: str, sha256: str) -> bytes:
        """The object's bytes, checked. Raises ObjectMissing and ObjectCorrupt."""
        data = self.get(key)
        found = digest_of_bytes(data)
        if found != sha256:
            raise ObjectCorrupt(key, sha256, found)
        return data
