"""Objects as files below a folder, which several processes and machines may share."""

import errno
import fcntl
import os
import shutil
import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from distill_runtime.digests import digest_of_bytes, digest_of_file
from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.store.base import ObjectInfo, ObjectMissing, ObjectStore
from distill_runtime.store.keys import RESERVED, check_key, check_prefix
from distill_runtime.store.probe import probe_store

FILE_MODE = 0o644
FOLDER_MODE = 0o755
LOCKS = 256
"""Lock files: keys share them by their checksum. They are never removed, since a removed one excludes nobody."""
FOLDER_ATTEMPTS = 100
"""Tries to write into a folder that others remove as empty at the same time."""
COPY_BYTES = 4 * 2**20
LEFTOVER_SECONDS = 24 * 3600
"""Temporary files that weren't touched for so long belong to a writer that was killed."""
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_NOTHING_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_OBJECT_AND_FOLDER = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)

# Where file locks belong to a process (NFS), its threads need locks of their own.
_thread_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class DirectoryStore(ObjectStore):
    """Objects below a folder: key `a/b` is the file `a/b`.

    The tags of `put`, `get_tagged` and `put_if_match` are digests of the content; the tags of `list` come from the
    file's time and size, so that a listing reads no file: compare them with one another alone.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_absolute():
            raise ValueError(f"{root} is not absolute")
        self._root = root
        self._temporary = root / RESERVED / "tmp"
        self._locks = root / RESERVED / "locks"
        self.uri = f"file://{root}"

    def __repr__(self) -> str:
        return f"DirectoryStore({self.uri})"

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`. Raises ObjectMissing."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start {start} and length {length} must not be negative")
        with self._errors(key), self._path(key).open("rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and the tag to give `put_if_match`. Raises ObjectMissing."""
        data = self.get(key)
        return data, digest_of_bytes(data)

    def put(self, key: str, data: bytes) -> str:
        """Writes the object, whatever was there. Returns its tag."""
        path = self._path(key)
        with self._write_errors(key), self._written(data) as temporary, self._locked(key):
            _into_folder(path, lambda: temporary.replace(path))
        return digest_of_bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object unless there is one; of several writers one alone gets True."""
        path = self._path(key)
        with self._write_errors(key):
            if path.is_file():
                return False
            with self._written(data) as temporary:
                try:
                    _into_folder(path, lambda: path.hardlink_to(temporary))
                    return True
                except FileExistsError:
                    if path.is_dir():
                        raise
                    return False
                except OSError as error:
                    if error.errno not in _NO_HARD_LINKS:
                        raise
                with self._locked(key):
                    if path.is_file():
                        return False
                    _into_folder(path, lambda: temporary.replace(path))
                    return True

    def put_if_match(self, key: str, data: bytes, tag: str) -> str | None:
        """Writes the object if it is still the one with this tag. Returns the new tag, or None if it has changed."""
        path = self._path(key)
        try:
            with self._errors(key), self._written(data) as temporary, self._locked(key):
                if digest_of_file(path) != tag:
                    return None
                temporary.replace(path)
        except ObjectMissing:
            return None
        return digest_of_bytes(data)

    def exists(self, key: str) -> bool:
        """Is there such an object?"""
        with self._errors(key):
            return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, by key."""
        folder, slash, _ = check_prefix(prefix).rpartition("/")
        with self._errors(prefix):
            yield from _walk(self._root / folder, f"{folder}{slash}", prefix)

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens where there is none. Empty folders above it go too."""
        path = self._path(key)
        try:
            with self._errors(key), self._locked(key):
                path.unlink()
        except ObjectMissing:
            return
        for folder in path.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except OSError:  # Not empty, or another one was faster: both are fine.
                return

    def upload(self, key: str, path: Path) -> None:
        """Writes a file as an object."""
        target = self._path(key)
        with path.open("rb") as source, self._write_errors(key):
            temporary = self._new_temporary()
            try:
                _copy(source, temporary)
                with self._locked(key):
                    _into_folder(target, lambda: temporary.replace(target))
            finally:
                temporary.unlink(missing_ok=True)

    def download(self, key: str, path: Path) -> None:
        """Writes an object to a file, atomically. Raises ObjectMissing."""
        source = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
        try:
            with self._errors(key), source.open("rb") as file:
                _copy(file, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def probe(self) -> None:
        """Checks that the folder can be read and written and that conditional writes are refused.

        Raises
        ------
        UserError
            It can't; the sentence names the folder and says what to mend.
        """
        probe_store(self, f"folder {self._root}")
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        with self._errors(""):
            for path in self._temporary.iterdir():
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                        path.unlink()

    def _new_temporary(self) -> Path:
        _make_folder(self._temporary)
        return self._temporary / uuid.uuid4().hex

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A temporary file with these bytes, safe on the disk."""
        temporary = self._new_temporary()
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                _finish(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone with this key among all threads, processes and machines that share the folder."""
        _make_folder(self._locks)
        path = self._locks / f"{zlib.crc32(key.encode()) % LOCKS:02x}"
        with _thread_locks[str(path)], path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Closing the file lets it go.
            yield

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except _NOTHING_THERE as error:
            raise ObjectMissing(key) from error
        except OSError as error:
            raise self._error(error, key) from error

    @contextmanager
    def _write_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error, key) from error

    def _error(self, error: OSError, key: str) -> RunError:
        where = f"folder {self._root}: {key or 'its own files'}"
        if error.errno in _OBJECT_AND_FOLDER:
            return UserError(
                f"{where} can't be written, since a file is where a folder is needed or the other way round: remove "
                "it, or correct storage.uri.",
                reason="StoreUnsuitable",
            )
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return UserError(
                f"{where} can't be used ({error.strerror}): give this user (id {os.getuid()}) the right to read and "
                "write there, or correct storage.uri.",
                reason="StoreForbidden",
            )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RetryError(f"{where} has no room left ({error.strerror}): free some space.", reason="StoreFull")
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            return UserError(
                f"{where}: the file system has no file locks ({error.strerror}): use another volume, or s3://.",
                reason="StoreUnsuitable",
            )
        return RetryError(f"{where} failed ({error.strerror}).", reason="StoreUnreachable")


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it, with their mode whatever the umask."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(FOLDER_MODE)


def _into_folder(path: Path, action: Callable[[], object]) -> None:
    """Does `action` in the folder of `path`, which others may remove as empty at any moment."""
    for attempt in range(FOLDER_ATTEMPTS):
        try:
            _make_folder(path.parent)
            action()
            return
        except FileNotFoundError:
            if attempt == FOLDER_ATTEMPTS - 1:
                raise


def _finish(descriptor: int) -> None:
    """Sets the mode, stamps the file with a clock finer than the file system's, and brings it to the disk."""
    os.fchmod(descriptor, FILE_MODE)
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))
    os.fsync(descriptor)


def _copy(source: BinaryIO, target: Path) -> None:
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, COPY_BYTES)
        file.flush()
        _finish(file.fileno())


def _walk(folder: Path, key: str, prefix: str) -> Iterator[ObjectInfo]:
    """The objects below `folder`, whose keys begin with `key`, in the order of their keys' bytes."""
    try:
        with os.scandir(folder) as entries:
            # `a-b` comes before `a/b`: a folder sorts as its name with a slash.
            found = sorted(
                ((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries),
                key=lambda item: os.fsencode(item[0]),
            )
    except _NOTHING_THERE:
        return
    for name, entry in found:
        whole = key + name
        if whole == f"{RESERVED}/" or not (whole.startswith(prefix) or prefix.startswith(whole)):
            continue
        if name.endswith("/"):
            yield from _walk(folder / entry.name, whole, prefix)
        elif entry.is_file(follow_symlinks=False):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # Deleted since.
                continue
            yield ObjectInfo(whole, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")
