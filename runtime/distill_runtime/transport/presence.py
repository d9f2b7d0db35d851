"""Which teacher replicas of an attempt are at work: jobs/…/teachers/<attempt>/<replica>.json.

A running replica rewrites its object with a rising counter. It is gone when it says so, or when its object hasn't
changed for the lease on the student's clock. Only one that found everything done says `finished`: after one that left
before, or crashed, another takes its place, under a name of its own.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.contract.run import RunConfig
from distill_runtime.prepared import Record
from distill_runtime.store.base import ObjectMissing, ObjectStore
from distill_runtime.transport.claims import StaleWatch

State = Literal["running", "finished", "left"]


class Presence(Record):
    """What a teacher replica says of itself."""

    replica: str
    nonce: str
    state: State
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
        self._finished: set[str] = set()

    def somebody_left(self) -> bool:
        """May a missing signal still come? Looks at the store once.

        No without teachers, and where all that were seen are gone and one of them had found everything done. Else yes:
        models load slowly, a lost replica is replaced, and the rule for a stall is the operator's.
        """
        if self._teachers == 0:
            return False
        now = self._clock()
        finished = False
        for info in self._store.list(f"{self._folder}/"):
            known = self._watch.knows(info.key, info.tag)
            stale = self._watch.is_stale(info.key, info.tag, now)
            state = "running" if known else self._state(info.key)
            if state != "running":
                self._watch.void(info.key)
            if state == "finished":
                self._finished.add(info.key)
            if info.key in self._finished:
                finished = True
            elif not stale and not self._watch.is_void(info.key):
                return True
        return not finished

    def _state(self, key: str) -> State:
        try:
            return Presence.model_validate_json(self._store.get(key)).state
        except (ObjectMissing, ValidationError):
            return "running"
