"""Brings rows along before they are asked for: several shards at once, within a bound of memory.

What is wanted is kept by shard, in the order in which it was announced; what `fetch` waits for goes first and isn't
held back by the bound. A shard that isn't there yet is looked at again after the poll interval.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as Many
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from distill_runtime.signals.reader import NotReady
from distill_runtime.transport.patience import Pace

THREADS = 6
"""Shards that are read at the same time."""

Key = tuple[str, int]
"""A plan and the number of a sequence in it."""
Unit = tuple[str, int]
"""A plan and the number of a shard in it."""


@dataclass
class _Need:
    """What is wanted of one shard."""

    sequences: dict[int, None] = field(default_factory=dict[int, None])
    """Not yet being read."""
    reading: list[int] = field(default_factory=list[int])
    urgent: bool = False
    misses: int = 0
    """Looks that found nothing: the teacher hasn't made it yet."""
    not_before: float = float("-inf")


class Prefetcher:
    """Reads rows in the background.

    `read(unit, sequences, urgent)` gives the rows [targets, columns] of sequences of one shard, and raises NotReady
    where the teacher hasn't made them; any other exception reaches whoever fetches from that shard. `unit_of` names a
    sequence's shard, `bytes_of` estimates the bytes of its rows.
    """

    def __init__(
        self,
        read: Callable[[Unit, list[int], bool], list[torch.Tensor]],
        *,
        unit_of: Callable[[Key], Unit],
        bytes_of: Callable[[Key], int],
        memory_bytes: int,
        pace: Pace,
        threads: int = THREADS,
    ) -> None:
        self._read = read
        self._unit_of = unit_of
        self._bytes_of = bytes_of
        self._memory_bytes = memory_bytes
        self._pace = pace
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="signals")
        self._changed = threading.Condition()
        self._needs: OrderedDict[Unit, _Need] = OrderedDict()
        self._uses: Counter[Key] = Counter()
        self._held: dict[Key, torch.Tensor] = {}
        self._held_bytes = 0
        self._reading_bytes = 0
        self._readers = 0
        self._failures: dict[Unit, BaseException] = {}
        self._closed = False
        self.waited_seconds = 0.0
        """Time in `fetch` while the teacher hadn't made what it waited for."""
        self._unclear_seconds = 0.0
        self._ticker = threading.Thread(target=self._tick, name="signals-ticker", daemon=True)
        self._ticker.start()

    def announce(self, keys: Many[Key]) -> None:
        """Each of these will be fetched once more, in this order."""
        with self._changed:
            for key in keys:
                self._uses[key] += 1
                self._want(key)
            self._start_reading()

    def fetch(self, keys: Many[Key]) -> list[torch.Tensor]:
        """The rows of each sequence, in order; waits for them."""
        with self._changed:
            for key, times in Counter(keys).items():
                self._uses[key] = max(self._uses[key], times)
                self._want(key, urgent=True)
            self._start_reading()
            while absent := [key for key in keys if key not in self._held]:
                self._wait(absent)
            self._unclear_seconds = 0.0
            rows = [self._held[key] for key in keys]
            for key in keys:
                self._release(key)
            self._start_reading()
        return rows

    def close(self) -> None:
        """Ends the threads; what is being read is waited for."""
        with self._changed:
            self._closed = True
            self._needs.clear()
            self._changed.notify_all()
        self._ticker.join()
        self._pool.shutdown(wait=True)

    def _wait(self, absent: list[Key]) -> None:
        """Waits a moment for absent rows. The lock is held."""
        units = {self._unit_of(key) for key in absent}
        for unit in units & self._failures.keys():
            raise self._failures[unit]
        if self._closed:
            raise RuntimeError("fetch after close")
        needs = [self._needs[unit] for unit in units if unit in self._needs]
        misses = sum(need.misses for need in needs)
        looking = not any(need.misses and not need.reading for need in needs)
        began = self._pace.clock()
        self._changed.wait(self._pace.poll_seconds)
        waited = self._pace.clock() - began
        if misses and not looking:
            self.waited_seconds += waited
        elif misses:
            # Only its end says whether this was one more look in vain, or the network bringing rows.
            self._unclear_seconds += waited
        if sum(need.misses for need in needs) > misses:
            self.waited_seconds += self._unclear_seconds
            self._unclear_seconds = 0.0

    def _want(self, key: Key, *, urgent: bool = False) -> None:
        if key in self._held:
            return
        unit = self._unit_of(key)
        need = self._needs.setdefault(unit, _Need())
        need.urgent = need.urgent or urgent
        if key[1] not in need.reading:
            need.sequences.setdefault(key[1])

    def _release(self, key: Key) -> None:
        self._uses[key] -= 1
        if self._uses[key] <= 0:
            del self._uses[key]
            self._held_bytes -= self._held.pop(key).nbytes

    def _start_reading(self) -> None:
        """Starts as many reads as may run now. The lock is held."""
        now = self._pace.clock()
        for urgent in (True, False):
            for unit, need in list(self._needs.items()):
                if self._readers >= self._threads or self._closed:
                    return
                if need.urgent != urgent or need.reading or not need.sequences or need.not_before > now:
                    continue
                size = sum(self._bytes_of((unit[0], sequence)) for sequence in need.sequences)
                in_memory = self._held_bytes + self._reading_bytes
                if not urgent and in_memory and in_memory + size > self._memory_bytes:
                    return
                self._submit(unit, need, size)

    def _submit(self, unit: Unit, need: _Need, size: int) -> None:
        need.reading, need.sequences = list(need.sequences), {}
        self._readers += 1
        self._reading_bytes += size
        future = self._pool.submit(self._read, unit, need.reading, need.urgent)
        future.add_done_callback(lambda done: self._arrived(unit, need, size, done))

    def _arrived(self, unit: Unit, need: _Need, size: int, done: Future[list[torch.Tensor]]) -> None:
        error = done.exception()
        with self._changed:
            self._readers -= 1
            self._reading_bytes -= size
            if error is None:
                self._take_in(unit, need, done.result())
            elif isinstance(error, NotReady):
                need.misses += 1
                need.not_before = self._pace.clock() + self._pace.poll_seconds
                need.sequences = {**dict.fromkeys(need.reading), **need.sequences}
            else:
                self._failures[unit] = error
                self._needs.pop(unit, None)
            need.reading = []
            self._start_reading()
            self._changed.notify_all()

    def _take_in(self, unit: Unit, need: _Need, rows: list[torch.Tensor]) -> None:
        for sequence, block in zip(need.reading, rows, strict=True):
            key = (unit[0], sequence)
            if self._uses[key] > 0:
                self._held[key] = block
                self._held_bytes += block.nbytes
        if not need.sequences and self._needs.get(unit) is need:
            del self._needs[unit]

    def _tick(self) -> None:
        """Looks again at what wasn't there, also while nobody fetches."""
        with self._changed:
            while not self._closed:
                self._changed.wait(self._pace.poll_seconds)
                self._start_reading()
