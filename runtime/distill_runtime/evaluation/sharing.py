"""Replicas that make results together: each result is made by one of them at a time, and all end when all are stored.

Who makes a result claims it first, as shards of signals are claimed (`transport.claims`), beside the result's own key:
evaluations/<digest>/claims/…. A claim that isn't renewed for its lease is taken over. A claim only saves work: the
first result that is stored counts in any case.
"""

import logging
import random
import uuid
from collections.abc import Callable, Mapping

from distill_runtime.signals.generations import read_state
from distill_runtime.store.base import ObjectStore
from distill_runtime.transport.claims import Claimant, Claims
from distill_runtime.transport.heartbeat import Heartbeat
from distill_runtime.transport.patience import Pace, patient

log = logging.getLogger(__name__)


class SharedResults:
    """One replica's share in making results."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        uid: str,
        attempt: int,
        replica: str,
        lease_seconds: float,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace or Pace()
        self._store = patient(store, self._pace)
        claimant = Claimant(uid=uid, attempt=attempt, replica=replica, nonce=uuid.uuid4().hex)
        self._lease_seconds = lease_seconds
        self._claims = Claims(
            self._store, claimant, lease_seconds=lease_seconds, clock=self._pace.clock, renewals=store
        )

    def make(self, makers: Mapping[str, Callable[[], object]], waiting: Callable[[], None]) -> set[str]:
        """Makes what is missing of the results under these keys, unless others do; returns the keys made here.

        Returns once all are stored. `waiting` is called whenever others hold all that is missing. What a maker raises
        ends the wait: its claim is given up, so that another replica may try.
        """
        heartbeat = Heartbeat(self._claims.renew, self._lease_seconds / 3, "results-heartbeat")
        made: set[str] = set()
        try:
            while missing := [key for key in makers if not self._store.exists(key)]:
                key = next((key for key in missing if self._make(key, makers[key])), None)
                if key is not None:
                    made.add(key)
                    continue
                waiting()
                self._pace.sleep(self._pace.poll_seconds * random.uniform(0.5, 1.5))
        finally:
            heartbeat.stop()
        return made

    def _make(self, key: str, maker: Callable[[], object]) -> bool:
        """Makes a result unless another replica is at it, or has made it since."""
        folder = key.removesuffix(".json")
        claim = self._claims.take(folder, read_state(self._store, folder))
        if claim is None:
            return False
        try:
            if self._store.exists(key):
                return False
            maker()
        finally:
            self._claims.release(claim)
        return True
