"""The student's end of the object store: brings verified rows along, waits for teachers, notices when none is left."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence as Many
from pathlib import Path

import torch

from distill_runtime.contract.run import RunConfig
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Prepared
from distill_runtime.signals.addresses import TRAIN, record_use
from distill_runtime.signals.generations import Damaged
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_manifest import head_folder
from distill_runtime.signals.heads import read_head
from distill_runtime.signals.node_cache import NodeCache
from distill_runtime.signals.reader import NotReady, ShardReader
from distill_runtime.store.base import ObjectStore
from distill_runtime.transport.consumption import ConsumptionPublisher
from distill_runtime.transport.demand import Demand
from distill_runtime.transport.interface import PlanName, SignalSource
from distill_runtime.transport.patience import Pace, patient
from distill_runtime.transport.prefetch import Key, Prefetcher, Unit
from distill_runtime.transport.presence import PresenceBoard

MEMORY_BYTES = 2 * 2**30
"""Rows that are held in memory before they are asked for."""
CACHE_BYTES = 16 * 2**30
"""Parts that are kept on the node's disk."""
CACHE_FOLDER = "signals"
"""Where they are below the node's cache, which is for other things too."""
POLLS_ALONE = 3
"""A missing shard is looked for so often after the last teacher has gone: its last write may come to light late."""

log = logging.getLogger(__name__)


class ObjectStoreSource(SignalSource):
    """One student process's end.

    `teachers` is the number of replicas that run beside this student; `publishes` is true for rank 0 alone. With
    `cache` whole parts are kept on the node's disk where those of a shuffle window fit into `cache_bytes`; without it
    (None), or where they don't fit, the rows of few sequences are read as ranges.
    """

    def __init__(
        self,
        store: ObjectStore,
        config: RunConfig,
        prepared: Prepared,
        *,
        cache: Path | None,
        teachers: int,
        publishes: bool,
        memory_bytes: int = MEMORY_BYTES,
        cache_bytes: int = CACHE_BYTES,
        pace: Pace | None = None,
    ) -> None:
        self.waited_seconds = 0.0
        self._pace = pace or Pace()
        self._store = patient(store, self._pace)
        self._config = config
        self._prepared = prepared
        self._teachers = teachers
        self._reader_name = f"{config.uid}/{config.attempt}/student"
        self._demand = Demand(self._store, config, prepared)
        self._head: OutputHead | None = None
        node_cache = None if cache is None else self._node_cache(cache / CACHE_FOLDER, cache_bytes)
        self._reader = ShardReader(self._store, reader=self._reader_name, cache=node_cache)
        self._board = PresenceBoard(
            self._store,
            config,
            teachers=teachers,
            lease_seconds=config.work.signal.lease_seconds,
            clock=self._pace.clock,
        )
        self._alone: Counter[str] = Counter()
        self._board_lock = threading.Lock()
        self._publisher: ConsumptionPublisher | None = None
        if publishes:
            record_use(self._store, config, prepared)
            self._publisher = ConsumptionPublisher(
                self._store, config, prepared, self._demand, background=self._pace.background
            )
        self._prefetcher = Prefetcher(
            self._read,
            unit_of=self._unit_of,
            bytes_of=self._bytes_of,
            memory_bytes=memory_bytes,
            pace=self._pace,
        )

    def head(self) -> OutputHead:
        """The teacher's output head; waits until it is published.

        Raises
        ------
        RetryError
            With `needs="signals"`: nobody is left who would publish it, or it was damaged.
        """
        while self._head is None:
            try:
                self._head = read_head(self._store, self._prepared, self._reader_name)
            except Damaged as damage:
                log.warning("%s in %s: marked, to be published again", damage, self._store.uri)
                raise RetryError(
                    f"The teacher's output head is damaged ({damage}): a teacher must publish it again.",
                    reason="SignalsMissing",
                    needs="signals",
                ) from damage
            if self._head is None:
                self._check_somebody_left(head_folder(self._prepared), "The teacher's output head")
                self._pace.sleep(self._pace.poll_seconds)
        return self._head

    def announce(self, plan: PlanName, sequences: Many[int]) -> None:
        """Sequences that will be fetched, in this order: what to bring along beforehand."""
        self._prefetcher.announce([(plan, int(sequence)) for sequence in sequences])

    def fetch(self, plan: PlanName, sequences: Many[int]) -> list[torch.Tensor]:
        """For each sequence the stored rows [targets, columns] on the CPU; `signals.rows` says what they mean.

        Waits for what is not there yet.

        Raises
        ------
        UserError
            A teacher said that this shard can't be scored.
        RetryError
            With `needs="signals"`: nobody is left who would make what is missing.
        """
        try:
            return self._prefetcher.fetch([(plan, int(sequence)) for sequence in sequences])
        finally:
            self.waited_seconds = self._prefetcher.waited_seconds

    def position(self, step: int) -> None:
        """Says that training is at this step. Cheap: published by a thread, at most every few seconds.

        In streaming mode teachers follow it: call it before the first `fetch` of each step, also of the first one.
        """
        if self._publisher is not None:
            self._publisher.position(step)

    def checkpointed(self, step: int) -> None:
        """Says that everything before `step` is durable: in streaming mode, what only earlier steps read may go."""
        if self._publisher is not None:
            self._publisher.checkpointed(step, finished=step >= self._demand.order.total_steps)

    def training_finished(self, step: int) -> None:
        """Says that no step from `step` on will be trained, as after an early stop; everything before is durable."""
        if self._publisher is not None:
            self._publisher.checkpointed(step, finished=True)

    def publish(self) -> None:
        """Publishes the position now, as the thread does by itself where `pace.background` is set."""
        if self._publisher is not None:
            self._publisher.publish()

    def close(self) -> None:
        """Ends prefetching."""
        self._prefetcher.close()
        if self._publisher is not None:
            self._publisher.close()

    def _unit_of(self, key: Key) -> Unit:
        plan, sequence = key
        return plan, self._demand.plans[plan].shard_of(sequence)[0]

    def _bytes_of(self, key: Key) -> int:
        plan, sequence = key
        targets = int(self._demand.plans[plan].target_counts[sequence])
        return targets * self._demand.signals[plan].row.row_bytes

    def _read(self, unit: Unit, sequences: list[int], urgent: bool) -> list[torch.Tensor]:
        plan, index = unit
        wanted = self._demand.wanted(plan, index)
        first = self._demand.plans[plan].first_sequence(index)
        try:
            rows = self._reader.read(wanted.shard, [sequence - first for sequence in sequences])
        except NotReady:
            if urgent:
                self._check_somebody_left(wanted.shard.folder, f"The signal of shard {index} of plan {plan}")
            raise
        with self._board_lock:
            self._alone.pop(wanted.shard.folder, None)
        return rows

    def _node_cache(self, folder: Path, capacity: int) -> NodeCache | None:
        """The cache, where the shards of a shuffle window fit into it: else each step would fetch them anew."""
        shards = sorted((sum(s.targets) for s in self._demand.plans[TRAIN].manifest.shards), reverse=True)
        window = sum(shards[: self._config.work.training.shuffle_window_shards])
        needed = window * self._demand.signals[TRAIN].row.row_bytes
        if needed > capacity:
            log.info("no node cache: a shuffle window has %d bytes of signals, the cache %d", needed, capacity)
            return None
        return NodeCache(folder, capacity)

    def _check_somebody_left(self, folder: str, what: str) -> None:
        """Counts the looks at something missing since the last teacher has gone.

        Raises
        ------
        RetryError
            There was none from the beginning, or it is still missing after two further looks.
        """
        with self._board_lock:
            if self._board.somebody_left():
                self._alone.pop(folder, None)
                return
            self._alone[folder] += 1
            alone = self._alone[folder]
        if self._teachers == 0 or alone >= POLLS_ALONE:
            why = "no teacher runs" if self._teachers == 0 else "every teacher has finished"
            raise RetryError(
                f"{what} is missing in {self._store.uri}/{folder}, and {why}: teachers must run again.",
                reason="SignalsMissing",
                needs="signals",
            )
