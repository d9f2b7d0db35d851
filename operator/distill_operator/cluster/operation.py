"""The operator at work: puts the parts of this package together, starts them and stops them."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import cast

from distill_operator.cluster.client import Client, Connection
from distill_operator.cluster.errors import ClusterError
from distill_operator.cluster.health import Health
from distill_operator.cluster.index import JobIndex
from distill_operator.cluster.informer import Informer, Source
from distill_operator.cluster.installed import wait_until_installed, warn_if_older
from distill_operator.cluster.last_words import LastWords
from distill_operator.cluster.lease import Lease
from distill_operator.cluster.objects import JobKey, Object, name_of, namespace_of
from distill_operator.cluster.passes import Passes
from distill_operator.cluster.progress import ProgressPoller
from distill_operator.cluster.queue import KeyedQueue
from distill_operator.cluster.reconcile import Reconciler
from distill_operator.cluster.resources import DISTILL_JOBS, METADATA_ONLY, PODS, WORKLOADS, Resource
from distill_operator.cluster.store import Store
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import MANAGED_BY, MANAGED_BY_LABEL
from distill_operator.metrics import IN_WORK_OLDEST_SECONDS, LEADER, QUEUE_DEPTH, QUEUE_OLDEST_SECONDS

logger = logging.getLogger(__name__)

CHILDREN_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


class Operation:
    """One replica of the operator."""

    def __init__(
        self, client: Client, configuration: OperatorConfiguration, health: Health, end: Callable[[str], None]
    ) -> None:
        """`end` is called with the reason when the process can't go on."""
        self._client = client
        self._configuration = configuration
        self._health = health
        self._end = end
        self._lease: Lease | None = None
        self._main: asyncio.Task[None] | None = None
        self._index = JobIndex()
        self._queue = KeyedQueue()

    async def start(self) -> None:
        """Waits for the API server and the resource, and begins to wait for the Lease."""
        await wait_until_installed(self._client)
        self._health.installed = True
        self._main = asyncio.create_task(self._run(), name="operation")
        self._main.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Ends all work and lets another replica take over. Passes that are cut short are made again by it."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
        if self._lease is not None:
            await self._lease.release()
        await self._client.close()

    async def connection(self) -> Connection:
        """Where and as whom the operator works."""
        return await self._client.connection()

    def heard(self, kind: str | None, job: Object) -> None:
        """Kopf tells of a DistillJob: one that was listed (`kind` None), added, changed or deleted."""
        key = JobKey(namespace_of(job), name_of(job))
        if kind == "DELETED":
            self._index.gone(key)
            self._wake(key)
        elif self._index.heard(key, job):
            self._wake(key)

    def count(self) -> None:
        """Brings the metrics up to date that are states."""
        self._index.count_phases()
        QUEUE_DEPTH.set(self._queue.depth)
        QUEUE_OLDEST_SECONDS.set(self._queue.oldest_seconds)
        IN_WORK_OLDEST_SECONDS.set(self._queue.in_work_seconds)
        LEADER.set(self._health.leading)

    def _wake(self, key: JobKey) -> None:
        if self._health.leading:
            self._queue.add(key)

    async def _run(self) -> None:
        await warn_if_older(self._client)
        async with asyncio.TaskGroup() as tasks:
            if self._configuration.leader_election.enabled:
                self._lease = Lease(self._client, self._configuration.leader_election)
                await self._lease.acquire()
                tasks.create_task(self._lease.hold(), name="lease")
            await self._lead(tasks)

    async def _lead(self, tasks: asyncio.TaskGroup) -> None:
        client, configuration = self._client, self._configuration
        last_words = LastWords()

        def departed(resource: Resource, item: Object) -> None:
            if resource == PODS:
                last_words.keep(item)

        store = Store(changed=self._wake, departed=departed)
        informers = [Informer(client, source, store) for source in _sources(configuration.namespaces)]
        progress = ProgressPoller(
            store, port=configuration.progress_port, seconds=configuration.progress_seconds, changed=self._wake
        )
        reconciler = Reconciler(client, store, last_words, self._index, self._queue, progress, configuration)
        self._health.informers, self._health.queue = informers, self._queue
        self._health.leading = True
        for informer in informers:
            tasks.create_task(informer.run(), name=f"informer {informer.source}")
        # Before all children are known a pass would take what it doesn't see for missing.
        for informer in informers:
            await informer.synced.wait()
        logger.info("all children are known")
        for key in self._index.jobs():
            self._queue.add(key)
        passes = Passes(self._queue, reconciler.reconcile)
        for number in range(configuration.workers):
            tasks.create_task(self._queue.work(passes.run), name=f"worker {number}")
        tasks.create_task(progress.run(), name="progress")
        tasks.create_task(self._look_at_all(store), name="resync")

    async def _look_at_all(self, store: Store) -> None:
        """From time to time each job gets a pass, whatever was or wasn't heard of it."""
        while True:
            await asyncio.sleep(self._configuration.resync_seconds)
            try:
                keys = await self._all_jobs()
            except ClusterError as error:
                logger.warning("not all jobs could be listed: %s", error)
                continue
            for key in keys.union(self._index.jobs(), store.jobs()):
                self._queue.add(key)

    async def _all_jobs(self) -> set[JobKey]:
        return {
            JobKey(namespace_of(item), name_of(item))
            for namespace in self._configuration.namespaces or [None]
            for item in (await self._client.list(DISTILL_JOBS, namespace, metadata_only=True)).items
        }

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._health.leading = False
        if task.cancelled():
            return
        error = task.exception()
        causes = list(_causes(error)) if error else []
        for cause in causes:
            logger.error("%s", cause, exc_info=cause)
        self._end("; ".join(map(str, causes)) or "the operation ended")


def _sources(namespaces: list[str]) -> Iterator[Source]:
    for namespace in namespaces or [None]:
        for resource in (PODS, *WORKLOADS):
            yield Source(resource, namespace, CHILDREN_SELECTOR)
        for resource in METADATA_ONLY:
            yield Source(resource, namespace, CHILDREN_SELECTOR, metadata_only=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _causes(inner)
    else:
        yield error
