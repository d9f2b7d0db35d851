"""The student's rank 0 says how far it is; in streaming mode it deletes what is behind it."""

import logging
import threading

from distill_runtime.contract.run import RunConfig
from distill_runtime.errors import RetryError, RunError
from distill_runtime.prepared import Prepared
from distill_runtime.signals.generations import delete_folder
from distill_runtime.signals.shards import list_states
from distill_runtime.store.base import ObjectStore
from distill_runtime.transport.demand import Consumption, Demand, consumption_key, read_consumption

PUBLISH_SECONDS = 2.0
"""Between two publications of the current step."""

log = logging.getLogger(__name__)


class ConsumptionPublisher:
    """Publishes the newest step and checkpoint from a thread of its own, so that training doesn't wait for the store.

    Deletions follow the publication that allows them and end before the next one: a teacher that reads a publication
    finds everything it still counts on.
    """

    def __init__(
        self,
        store: ObjectStore,
        config: RunConfig,
        prepared: Prepared,
        demand: Demand,
        *,
        background: bool,
        publish_seconds: float = PUBLISH_SECONDS,
    ) -> None:
        self._store = store
        self._prepared = prepared
        self._demand = demand
        self._watermark = config.work.signal.watermark_bytes
        self._publish_seconds = publish_seconds
        self._key = consumption_key(prepared)
        before = read_consumption(store, prepared)
        self._check_fence(before, config)
        self._newest = before.model_copy(update={"uid": config.uid, "attempt": config.attempt})
        self._published = self._newest
        self._urgent = False
        self._error: RunError | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if background:
            self._thread = threading.Thread(target=self._run, name="consumption", daemon=True)
            self._thread.start()

    def position(self, step: int) -> None:
        """The student reads `step` now. A step before the checkpoint takes the checkpoint back: it was lost."""
        with self._changed:
            self._raise_error()
            checkpoint = min(self._newest.checkpoint, step)
            self._newest = self._newest.model_copy(
                update={"step": step, "checkpoint": checkpoint, "finished": step >= self._demand.order.total_steps}
            )
            self._changed.notify_all()

    def checkpointed(self, step: int, *, finished: bool) -> None:
        """Everything before `step` is durable."""
        with self._changed:
            self._raise_error()
            self._newest = self._newest.model_copy(
                update={"checkpoint": step, "step": max(step, self._newest.step), "finished": finished}
            )
            self._urgent = True
            self._changed.notify_all()

    def publish(self) -> None:
        """Publishes what is new, then deletes what nobody needs any more."""
        with self._changed:
            newest, self._urgent = self._newest, False
            published = self._published
        if newest == published:
            return
        self._store.put(self._key, newest.model_dump_json().encode())
        if self._demand.streaming and (
            published is None or newest.checkpoint != published.checkpoint or newest.finished
        ):
            self._delete_behind(newest)
        with self._changed:
            self._published = newest

    def close(self) -> None:
        """Publishes the last word and ends the thread."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        elif self._error is None:
            self.publish()
        if self._error is not None:
            log.warning("the end of reading couldn't be published: %s", self._error)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._newest != self._published)
                # A step alone isn't worth a request of its own: the newest one counts.
                self._changed.wait_for(lambda: self._closed or self._urgent, timeout=self._publish_seconds)
                closed = self._closed
            try:
                self.publish()
            except RunError as error:
                with self._changed:
                    self._error = error
                return
            if closed:
                return

    def _delete_behind(self, consumption: Consumption) -> None:
        """Deletes the training's signals that aren't in the window: those behind the checkpoint whose next use, if any,
        is further ahead than teachers may go."""
        window = self._demand.window(consumption, watermark_bytes=self._watermark)
        kept = {item.shard.folder for item in window}
        for folder in list_states(self._store, self._demand.train_root):
            if folder not in kept:
                delete_folder(self._store, folder)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    @staticmethod
    def _check_fence(before: Consumption, config: RunConfig) -> None:
        if before.uid == config.uid and before.attempt > config.attempt:
            raise RetryError(
                f"attempt {before.attempt} of {config.namespace}/{config.name} reads already: this is attempt "
                f"{config.attempt}.",
                reason="Fenced",
            )
