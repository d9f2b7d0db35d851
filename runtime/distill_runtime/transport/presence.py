"""Which teacher replicas of an attempt are at work: jobs/…/teachers/<attempt>/<replica>.json.

A running replica rewrites its object with a rising counter. One whose object hasn't changed for the lease on the
student's clock is gone, as one that says `finished` is.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.contract.run import RunConfig
from distill_runtime.prepared import Record
from distill_runtime.store.base import ObjectMissing, ObjectStore
from distill_runtime.transport.claims import StaleWatch


class Presence(Record):
    """What a teacher replica says of itself."""

    replica: str
    nonce: str
    state: Literal["running", "finished"]
    counter: int = 0


def presence_folder(config: RunConfig) -> str:
    """Where the replicas of this attempt say that they are there."""
    return f"{layout.job_key(config)}/teachers/{config.attempt}"


class PresenceBoard:
    """The student's view of the teachers. Not for several threads at once."""

    def __init__(
        self, store: ObjectStore, config: RunConfig, *, teachers: int, lease_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._folder = presence_folder(config)
        self._teachers = teachers
        self._clock = clock
        self._watch = StaleWatch(lease_seconds)

    def somebody_left(self) -> bool:
        """May a missing signal still come? Looks at the store once.

        No without teachers. Yes while one is at work, and before the first one was seen: models load slowly, and the
        rule for a stall is the operator's. Where those that were seen are gone: yes only if none of them said that all
        was done, and others are still expected.
        """
        if self._teachers == 0:
            return False
        now = self._clock()
        seen = finished = 0
        for info in self._store.list(f"{self._folder}/"):
            known = self._watch.knows(info.key, info.tag)
            stale = self._watch.is_stale(info.key, info.tag, now)
            if not known and self._says_finished(info.key):
                self._watch.void(info.key)
            seen += 1
            if self._watch.is_void(info.key):
                finished += 1
            elif not stale:
                return True
        return seen == 0 or (finished == 0 and seen < self._teachers)

    def _says_finished(self, key: str) -> bool:
        try:
            return Presence.model_validate_json(self._store.get(key)).state == "finished"
        except (ObjectMissing, ValidationError):
            return False
