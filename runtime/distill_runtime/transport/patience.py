"""Time, and a store whose short outages nobody notices."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from distill_runtime.errors import RetryError
from distill_runtime.store.base import ObjectInfo, ObjectStore

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 5.0
"""What an outage costs beyond its end."""

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How both ends wait. Tests put a clock of their own in."""

    clock: Callable[[], float] = time.monotonic
    """Seconds on this machine's monotonic clock."""
    sleep: Callable[[float], None] = time.sleep
    poll_seconds: float = 1.0
    """Between two looks at what isn't there yet."""
    outage_seconds: float = 300.0
    """An outage of the store that is waited for."""
    background: bool = True
    """Run heartbeats and publishing in threads. Without them whoever owns the object calls `beat` and `publish`."""


def patient(store: ObjectStore, pace: Pace | None = None) -> "PatientStore":
    """The store with patience. One that has it already is returned as it is: patience doesn't add up."""
    return store if isinstance(store, PatientStore) else PatientStore(store, pace or Pace())


class PatientStore(ObjectStore):
    """A store that tries again for `pace.outage_seconds` while it can't be reached.

    A conditional write whose answer was lost is sent again and may then find itself: False doesn't always mean that
    another one wrote. Callers compare what is there with what they wrote where it matters.
    """

    def __init__(self, store: ObjectStore, pace: Pace) -> None:
        self._store = store
        self._pace = pace
        self.uri = store.uri

    def _patiently(self, what: str, operation: Callable[[], Answer]) -> Answer:
        began: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                return operation()
            except RetryError as error:
                now = self._pace.clock()
                began = now if began is None else began
                if error.reason != "StoreUnreachable" or now - began + pause > self._pace.outage_seconds:
                    raise
                log.warning("%s: %s Trying again in %.0f s.", what, error, pause)
            self._pace.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`. Raises ObjectMissing."""
        return self._patiently(key, lambda: self._store.get(key, start=start, length=length))

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and the tag to give `put_if_match`. Raises ObjectMissing."""
        return self._patiently(key, lambda: self._store.get_tagged(key))

    def put(self, key: str, data: bytes) -> str:
        """Writes the object, whatever was there. Returns its tag."""
        return self._patiently(key, lambda: self._store.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object unless there is one."""
        return self._patiently(key, lambda: self._store.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, tag: str) -> str | None:
        """Writes the object if it is still the one with this tag. Returns the new tag, or None if it has changed."""
        return self._patiently(key, lambda: self._store.put_if_match(key, data, tag))

    def exists(self, key: str) -> bool:
        """Is there such an object?"""
        return self._patiently(key, lambda: self._store.exists(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, by key, as one answer."""
        return iter(self._patiently(prefix, lambda: [*self._store.list(prefix)]))

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens where there is none."""
        self._patiently(key, lambda: self._store.delete(key))

    def upload(self, key: str, path: Path) -> None:
        """Writes a file as an object, in parts where it is large."""
        self._patiently(key, lambda: self._store.upload(key, path))

    def download(self, key: str, path: Path) -> None:
        """Writes an object to a file, atomically. Raises ObjectMissing."""
        self._patiently(key, lambda: self._store.download(key, path))

    def probe(self) -> None:
        """Checks that the store can be used; see `ObjectStore.probe`."""
        self._store.probe()
