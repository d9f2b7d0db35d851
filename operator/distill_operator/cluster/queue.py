"""Which jobs to look at, and when: each key once, never two passes of one key at a time, failures ever later."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable

from distill_operator.cluster.backoff import backoff_seconds
from distill_operator.cluster.objects import JobKey

logger = logging.getLogger(__name__)

SOON_SECONDS = 0.001
"""What is due this soon is due: event loops wake up a little early."""

Pass = Callable[[JobKey], Awaitable[None]]


class KeyedQueue:
    """Keys that wait for a pass. A key that is added while it is in work gets one more pass afterwards."""

    def __init__(self) -> None:
        self._ready: dict[JobKey, float] = {}
        """Keys by when they became ready; the first added is the first taken."""
        self._in_work: dict[JobKey, float] = {}
        self._again: set[JobKey] = set()
        self._due: dict[JobKey, float] = {}
        self._timers: list[tuple[float, JobKey]] = []
        """A heap with all of `_due`, and entries that were overtaken."""
        self._failures: dict[JobKey, int] = {}
        self._news = asyncio.Event()

    def add(self, key: JobKey) -> None:
        """This key needs a pass now."""
        if key in self._in_work:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = self._now()
            self._news.set()

    def add_after(self, key: JobKey, seconds: float) -> None:
        """This key needs a pass then, if it gets none before."""
        due = self._now() + max(0.0, seconds)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._timers, (due, key))
            self._news.set()

    def retry(self, key: JobKey, *, at_least: float = 0.0) -> float:
        """A pass failed: again later, ever later. Returns in how many seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        seconds = max(backoff_seconds(self._failures[key]), at_least)
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: JobKey) -> None:
        """A pass did not fail: the next failure is the first one again."""
        self._failures.pop(key, None)

    def forget(self, key: JobKey) -> None:
        """Nothing more is wanted of this key, but for a pass that was asked for while it is in work."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    async def work(self, work: Pass) -> None:
        """One worker: takes key after key until it is cancelled. What `work` raises ends it."""
        while True:
            key = await self._take()
            try:
                await work(key)
            finally:
                self._done(key)

    @property
    def depth(self) -> int:
        """Keys that are ready."""
        return len(self._ready)

    @property
    def oldest_seconds(self) -> float:
        """How long the first of them has waited."""
        return self._now() - min(self._ready.values()) if self._ready else 0.0

    @property
    def in_work_seconds(self) -> float:
        """How long the longest pass has run."""
        return self._now() - min(self._in_work.values()) if self._in_work else 0.0

    @property
    def longest_in_work(self) -> JobKey | None:
        """The key of the longest pass."""
        return min(self._in_work, key=lambda key: self._in_work[key], default=None)

    async def _take(self) -> JobKey:
        while True:
            self._ripen()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._in_work[key] = self._now()
                # This pass says itself when the next one is due.
                self._due.pop(key, None)
                return key
            self._news.clear()
            timeout = self._timers[0][0] - self._now() if self._timers else None
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                continue

    def _done(self, key: JobKey) -> None:
        del self._in_work[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _ripen(self) -> None:
        soon = self._now() + SOON_SECONDS
        while self._timers and self._timers[0][0] <= soon:
            due, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
