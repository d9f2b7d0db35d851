"""The teacher's end of the object store: takes missing shards through claims, writes them, says that it is there."""

import logging
import random
import threading
import uuid
from dataclasses import dataclass

import torch

from distill_runtime.contract.run import RunConfig
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Prepared
from distill_runtime.signals.addresses import record_use
from distill_runtime.signals.codec import encode_shard
from distill_runtime.signals.generations import (
    GENERATIONS,
    Damaged,
    FolderState,
    delete_folder,
    manifest_key,
    mark_bad,
    mark_failed,
    read_state,
)
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.heads import publish_head
from distill_runtime.signals.shards import list_states, write_shard
from distill_runtime.store.base import ObjectStore
from distill_runtime.transport.claims import Claimant, Claims
from distill_runtime.transport.demand import NOTHING_READ, Consumption, Demand, Wanted, read_consumption
from distill_runtime.transport.heartbeat import Heartbeat
from distill_runtime.transport.interface import ShardWork, SignalSink
from distill_runtime.transport.patience import Pace, PatientStore
from distill_runtime.transport.presence import Presence, presence_folder

LISTING_POLLS = 15
"""A listing of all shards is used for so many poll intervals."""
LISTING_SHARE = 20
"""And for so many times the time that it took: large stores are listed less often."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Taken:
    wanted: Wanted
    generation: int


class ObjectStoreSink(SignalSink):
    """One teacher replica's end. One thread takes; others may `put`, `fail` and `close`."""

    def __init__(
        self, store: ObjectStore, config: RunConfig, prepared: Prepared, *, replica: str, pace: Pace | None = None
    ) -> None:
        self._pace = pace or Pace()
        self._plain_store = store
        self._store = PatientStore(store, self._pace)
        self._config = config
        self._prepared = prepared
        self._signal = config.work.signal
        self._demand = Demand(self._store, config, prepared)
        claimant = Claimant(uid=config.uid, attempt=config.attempt, replica=replica, nonce=uuid.uuid4().hex)
        self._name = str(claimant)
        self._claims = Claims(
            self._store,
            claimant,
            lease_seconds=self._signal.lease_seconds,
            clock=self._pace.clock,
            renewals=store,
        )
        self._presence = Presence(replica=replica, nonce=claimant.nonce, state="running")
        self._presence_key = f"{presence_folder(config)}/{replica}.json"
        self._random = random.Random(claimant.nonce)
        self._all_done = False
        self._closing = threading.Event()
        self._close_lock = threading.Lock()
        self._states: dict[str, FolderState] = {}
        self._listing_until = float("-inf")
        self._window: tuple[Consumption, list[Wanted]] | None = None
        self._taken: dict[str, _Taken] = {}
        self._store.put(self._presence_key, self._presence.model_dump_json().encode())
        record_use(self._store, config, prepared)
        self._heartbeat = (
            Heartbeat(self.beat, self._signal.lease_seconds / 3, "teacher-heartbeat") if self._pace.background else None
        )

    def publish_head(self, head: OutputHead) -> None:
        """Stores the output head unless it is there."""
        publish_head(self._store, self._prepared, head, self._name)

    def progress(self) -> tuple[int, int]:
        """Wanted shards that are there (or can't be made), and all wanted ones, by the last look at the store. In
        streaming mode: of the held-out data, the tasks and the moving window."""
        wanted = self._wanted(self._consumption())
        return sum(self._is_done(item) for item in wanted), len(wanted)

    def take(self) -> ShardWork | None:
        """Claims the next missing shard, in the order in which the student will need them.

        Waits while others hold all that is missing or the student is too far behind (streaming). None: nothing is left
        to do, or `close` was called.

        Raises
        ------
        RetryError
            The store can't be reached, or doesn't keep what is written to it.
        """
        while not self._closing.is_set():
            consumption = self._consumption()
            listed = self._list()
            others = False
            for wanted in self._wanted(consumption):
                if self._is_done(wanted):
                    continue
                work = self._claim(wanted)
                if work is not None:
                    return work
                others = others or not self._is_done(wanted)
            if not others and (consumption.finished or not self._demand.streaming):
                if listed:
                    self._sweep()
                    self._all_done = True
                    return None
                # What an older listing called ready may have been found damaged since: look once more.
                self._listing_until = float("-inf")
                continue
            self._pace.sleep(self._pace.poll_seconds * self._random.uniform(0.5, 1.5))
        return None

    def put(self, work: ShardWork, rows: list[torch.Tensor]) -> bool:
        """Stores the rows [targets, columns] of each sequence of the shard, in the form that the work asks for: parts
        first, manifest last.

        Returns False where another replica was first; its signals count.

        Raises
        ------
        RetryError
            Reason SignalRefused: these are not the rows that were asked for, or not finite. The claim is kept; `fail`
            may follow.
        """
        taken = self._taken[work.token]
        shard = taken.wanted.shard
        name = f"shard {work.shard} of plan {work.plan}"
        encoded = encode_shard(rows, shard.targets, shard.signal.row, name=name)
        won = write_shard(self._store, shard, encoded, work.sequences, generation=taken.generation, writer=self._name)
        if not won:
            log.info("%s was written by another replica first; its signals count", name)
        self._give_up(work)
        return won

    def fail(self, work: ShardWork, message: str) -> None:
        """Leaves an error marker in the shard's place, so that no reader waits for it."""
        taken = self._taken[work.token]
        mark_failed(self._store, taken.wanted.shard.folder, taken.generation, message, self._name)
        self._give_up(work)

    def beat(self) -> None:
        """Renews the claims that are held, and says that this replica is at work. The heartbeat's thread calls it."""
        self._claims.renew()
        self._presence = self._presence.model_copy(update={"counter": self._presence.counter + 1})
        self._plain_store.put(self._presence_key, self._presence.model_dump_json().encode())

    def close(self) -> None:
        """Says that this replica has ended, and whether it had found everything done; gives its claims up."""
        with self._close_lock:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        try:
            self._claims.release_all()
            last = self._presence.model_copy(update={"state": "finished" if self._all_done else "left"})
            self._plain_store.put(self._presence_key, last.model_dump_json().encode())
        except RetryError as error:
            # The others find out by the lease.
            log.warning("this replica's end couldn't be announced: %s", error)

    def _consumption(self) -> Consumption:
        return read_consumption(self._store, self._prepared) if self._demand.streaming else NOTHING_READ

    def _wanted(self, consumption: Consumption) -> list[Wanted]:
        if self._window is not None and self._window[0] == consumption:
            return self._window[1]
        if self._demand.streaming:
            window = self._demand.window(consumption, watermark_bytes=self._signal.watermark_bytes)
            wanted = [*self._demand.before_training(), *window, *self._demand.after_training()]
        else:
            wanted = self._demand.all()
        if self._window is not None:
            before = {item.shard.folder for item in self._window[1]}
            for item in wanted:
                if item.shard.folder not in before:
                    # Since it was last seen it may have been deleted behind the student.
                    self._states.pop(item.shard.folder, None)
        self._window = (consumption, wanted)
        return wanted

    def _list(self) -> bool:
        """Lists all shards' states where the last listing is too old."""
        began = self._pace.clock()
        if began < self._listing_until:
            return False
        self._states = {
            folder: state for root in self._demand.roots for folder, state in list_states(self._store, root).items()
        }
        ended = self._pace.clock()
        age = max(LISTING_POLLS * self._pace.poll_seconds, LISTING_SHARE * (ended - began))
        self._listing_until = ended + age
        return True

    def _is_done(self, wanted: Wanted) -> bool:
        state = self._states.get(wanted.shard.folder)
        return state is not None and state.status in ("ready", "failed")

    def _look(self, wanted: Wanted) -> FolderState:
        """One shard's state as it is now."""
        folder = wanted.shard.folder
        state = read_state(self._store, folder)
        key = manifest_key(folder, state.generation)
        if state.status == "broken" and self._store.exists(key):
            damage = Damaged(f"{folder}/parts", "there is a manifest and no part", state.generation)
            log.warning("%s: it is made again", damage)
            mark_bad(self._store, folder, damage, self._name)
            state = read_state(self._store, folder)
        if state.generation >= GENERATIONS:
            raise RetryError(
                f"{self._store.uri}/{folder} was damaged {state.generation} times: the store doesn't keep what is "
                "written to it.",
                reason="StoreCorrupt",
            )
        self._states[folder] = state
        return state

    def _claim(self, wanted: Wanted) -> ShardWork | None:
        state = self._look(wanted)
        if state.status != "missing":
            return None
        key = self._claims.take(wanted.shard.folder, state)
        if key is None:
            return None
        # Another replica may have written it between the look and the claim.
        now = self._look(wanted)
        if now.status != "missing" or now.generation != state.generation:
            self._claims.release(key)
            return None
        self._taken[key] = _Taken(wanted, state.generation)
        sequences = [sequence.for_teacher for sequence in self._demand.plans[wanted.plan].shard(wanted.index)]
        row = wanted.shard.signal.row
        return ShardWork(plan=wanted.plan, shard=wanted.index, sequences=sequences, row=row, token=key)

    def _give_up(self, work: ShardWork) -> None:
        taken = self._taken.pop(work.token)
        self._claims.release(work.token)
        self._states.pop(taken.wanted.shard.folder, None)

    def _sweep(self) -> None:
        """Streaming, at the end: removes what a slow replica wrote behind the student's last deletion."""
        if self._demand.streaming:
            for folder in list_states(self._store, self._demand.train_root):
                delete_folder(self._store, folder)
