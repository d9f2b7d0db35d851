"""Claims: who is making which shard. A claim only saves work; the first manifest written wins in any case.

A claim on generation g of a folder is the object `claims/<g>-<n>.json`, put if absent; the highest n counts. Its owner
rewrites it with a rising counter. Nobody's wall clock matters: a claim is stale when it hasn't changed for the lease on
the *observer's* monotonic clock. A claim of an older attempt of the same job, or of an earlier life of the same
replica, is void at once.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from distill_runtime.prepared import Record
from distill_runtime.signals.generations import FolderState, claim_key
from distill_runtime.store.base import ObjectMissing, ObjectStore

log = logging.getLogger(__name__)


class Claimant(Record):
    """Who claims."""

    uid: str
    """Identity of the DistillJob."""
    attempt: int
    replica: str
    nonce: str
    """Differs in each life of a replica."""

    def supersedes(self, other: "Claimant") -> bool:
        """Can the other one not be at work any more, since I am?"""
        if self.uid != other.uid:
            return False
        if other.attempt != self.attempt:
            return other.attempt < self.attempt
        return other.replica == self.replica and other.nonce != self.nonce

    def __str__(self) -> str:
        return f"{self.uid}/{self.attempt}/{self.replica}"


class Claim(Record):
    """The content of a claim."""

    claimant: Claimant
    counter: int = 0
    """Rises with each renewal."""


@dataclass
class _Seen:
    tag: str
    since: float
    void: bool


class StaleWatch:
    """Tells objects that are still rewritten from those that aren't, on the observer's own clock.

    Pure: the time comes in with each observation.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._seen: dict[str, _Seen] = {}

    def is_stale(self, key: str, tag: str, now: float) -> bool:
        """Has the object been seen with this very tag for the lease? The first look never says so."""
        seen = self._seen.get(key)
        if seen is None or seen.tag != tag:
            self._seen[key] = _Seen(tag, now, void=seen.void if seen else False)
            return False
        return now - seen.since >= self._lease

    def void(self, key: str) -> None:
        """Notes that whoever wrote the object is gone."""
        self._seen[key].void = True

    def is_void(self, key: str) -> bool:
        """Is it known that whoever wrote the object is gone?"""
        return key in self._seen and self._seen[key].void

    def knows(self, key: str, tag: str) -> bool:
        """Was the object seen with this tag?"""
        return key in self._seen and self._seen[key].tag == tag

    def forget(self, key: str) -> None:
        """The object is gone."""
        self._seen.pop(key, None)


class Claims:
    """The claims of one teacher replica: takes, renews and gives them up.

    One thread takes, others may renew and release. `renewals` is the store for what doesn't wait for the end of an
    outage: a heartbeat beats again.
    """

    def __init__(
        self,
        store: ObjectStore,
        claimant: Claimant,
        *,
        lease_seconds: float,
        clock: Callable[[], float],
        renewals: ObjectStore | None = None,
    ) -> None:
        self._store = store
        self._renewals = renewals or store
        self._claimant = claimant
        self._clock = clock
        self._watch = StaleWatch(lease_seconds)
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def take(self, folder: str, state: FolderState) -> str | None:
        """Claims the generation that counts, as seen in `state`. Returns the claim's key; None where another one holds
        it or was faster."""
        number = 0
        if (last := state.last_claim) is not None:
            number, tag = last
            key = claim_key(folder, state.generation, number)
            if not self._is_free(key, tag):
                return None
            self._watch.forget(key)
            number += 1
        key = claim_key(folder, state.generation, number)
        claim = Claim(claimant=self._claimant).model_dump_json().encode()
        if not self._store.put_if_absent(key, claim) and not self._is_mine(key):
            return None
        with self._lock:
            self._held.add(key)
        return key

    def _is_free(self, key: str, tag: str) -> bool:
        new = not self._watch.knows(key, tag)
        stale = self._watch.is_stale(key, tag, self._clock())
        if new and self._is_void(key):
            self._watch.void(key)
        if stale:
            log.warning("the claim %s wasn't renewed for its lease: taking the shard over", key)
        return stale or self._watch.is_void(key)

    def _is_void(self, key: str) -> bool:
        claim = self._read(key)
        return claim is not None and self._claimant.supersedes(claim.claimant)

    def _is_mine(self, key: str) -> bool:
        """A write whose answer was lost and that was sent again finds itself."""
        claim = self._read(key)
        return claim is not None and claim.claimant == self._claimant

    def _read(self, key: str) -> Claim | None:
        try:
            return Claim.model_validate_json(self._store.get(key))
        except (ObjectMissing, ValidationError):
            # Gone, or damaged: then nobody is known, and the lease decides.
            return None

    def renew(self) -> None:
        """Rewrites every claim that is held; those that are gone are held no longer."""
        with self._lock:
            held = sorted(self._held)
        for key in held:
            if not self._renew(key):
                with self._lock:
                    self._held.discard(key)

    def _renew(self, key: str) -> bool:
        try:
            data, tag = self._renewals.get_tagged(key)
            claim = Claim.model_validate_json(data)
        except (ObjectMissing, ValidationError):
            return False
        if claim.claimant != self._claimant:
            return False
        renewed = claim.model_copy(update={"counter": claim.counter + 1})
        return self._renewals.put_if_match(key, renewed.model_dump_json().encode(), tag) is not None

    def release(self, key: str) -> None:
        """Gives a claim up."""
        with self._lock:
            self._held.discard(key)
        self._store.delete(key)

    def release_all(self) -> None:
        """Gives all claims up, without waiting for the end of an outage: the lease would end them too."""
        with self._lock:
            held, self._held = sorted(self._held), set()
        for key in held:
            self._renewals.delete(key)
