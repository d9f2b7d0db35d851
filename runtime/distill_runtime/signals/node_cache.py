"""Parts of signals on the node's disk, shared by the processes of a node and bounded in size."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distill_runtime.digests import digest_of_file
from distill_runtime.store.base import ObjectCorrupt, ObjectStore

log = logging.getLogger(__name__)


class NodeCache:
    """Files named by the sha256 of their content. The least recently used go when there are too many bytes."""

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._folder = folder
        self.capacity_bytes = capacity_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.safetensors"

    def bring(self, store: ObjectStore, key: str, sha256: str, size: int) -> Path:
        """The file with this content, fetched once for all processes of the node.

        Raises
        ------
        ObjectMissing
            It isn't in the store.
        ObjectCorrupt
            The store has other bytes under this key.
        """
        path = self._path(sha256)
        with self._locked(sha256):
            if path.exists():
                os.utime(path)
                return path
            self._make_room(size)
            arrived = path.with_suffix(".arrived")
            try:
                store.download(key, arrived)
                found = digest_of_file(arrived)
                if found != sha256:
                    raise ObjectCorrupt(key, sha256, found)
                arrived.replace(path)
            finally:
                arrived.unlink(missing_ok=True)
        return path

    def drop(self, sha256: str) -> None:
        """Forgets a file."""
        self._path(sha256).unlink(missing_ok=True)

    @contextmanager
    def _locked(self, sha256: str) -> Iterator[None]:
        with (self._folder / f"{sha256[:2]}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Ends with the file, also in a killed process.
            yield

    def _make_room(self, size: int) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):  # Another process makes room too.
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(length for _, length, _ in files) + size
        for _, length, path in sorted(files):
            if total <= self.capacity_bytes:
                return
            path.unlink(missing_ok=True)
            total -= length
