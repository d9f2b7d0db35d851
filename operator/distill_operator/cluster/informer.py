"""Keeps the store in step with the API server: one list, then watches for as long as history lasts.

The client library's own informer reconnects without a pause, asks for no bookmarks and has no time-outs.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distill_operator.cluster.backoff import backoff_seconds
from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import SILENT, ClusterError
from distill_operator.cluster.objects import Object
from distill_operator.cluster.resources import Resource
from distill_operator.cluster.store import Store
from distill_operator.metrics import WATCH_RESTARTS

logger = logging.getLogger(__name__)

WATCH_SECONDS = (240, 480)
"""Length of one watch, chosen by chance so that not all begin again at once."""
SILENCE_SECONDS = 120.0
"""A watch that gets nothing for so long may be dead: bookmarks come every minute, most of the time."""
SHORTEST_WATCH_SECONDS = 1.0
"""A watch that ends sooner counts as a failure, so that a server that hangs up isn't stormed."""


@dataclass(frozen=True)
class Source:
    """What is watched."""

    resource: Resource
    namespace: str | None = None
    """None: all namespaces."""
    labels: str | None = None
    """Label selector."""
    metadata_only: bool = False

    def __str__(self) -> str:
        return f"{self.resource} in {self.namespace or 'all namespaces'}"


class Informer:
    """Keeps one kind of object, in one namespace or all."""

    def __init__(
        self,
        client: Client,
        source: Source,
        store: Store,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.source = source
        self.synced = asyncio.Event()
        """Set once the store has all objects."""
        self.tried_at = asyncio.get_running_loop().time()
        """When it last asked or heard something, by the loop's clock."""
        self._client = client
        self._store = store
        self._sleep = sleep
        self._silence_seconds = silence_seconds
        self._version: str | None = None
        """Where the next watch begins; None: list first."""
        self._failures = 0

    async def run(self) -> None:
        """Lists and watches until it is cancelled."""
        while True:
            try:
                await self._follow()
            except ClusterError as error:
                await self._failed(error)

    async def _follow(self) -> None:
        """One watch, after a list where one is needed."""
        if self._version is None:
            await self._list()
        begun = self._now()
        await self._watch()
        if self._now() - begun < SHORTEST_WATCH_SECONDS:
            raise ClusterError(f"watch {self.source}", "ended at once", status=200)
        self._failures = 0
        WATCH_RESTARTS.labels(self.source.resource.plural, "end").inc()

    async def _list(self) -> None:
        self._heard_of()
        source = self.source
        listed = await self._client.list(
            source.resource, source.namespace, labels=source.labels, metadata_only=source.metadata_only
        )
        self._store.replaced(source.resource, source.namespace, listed.items, int(listed.version))
        self._version = listed.version
        self.synced.set()

    async def _watch(self) -> None:
        self._heard_of()
        source = self.source
        events = self._client.watch(
            source.resource,
            source.namespace,
            version=self._version or "",
            seconds=random.randint(*WATCH_SECONDS),
            silence_seconds=self._silence_seconds,
            labels=source.labels,
            metadata_only=source.metadata_only,
        )
        async for event in events:
            self._heard_of()
            self._take(event["type"], event["object"])
            self._failures = 0

    def _take(self, kind: str, item: Object) -> None:
        match kind:
            case "ADDED" | "MODIFIED":
                self._store.heard(self.source.resource, item)
            case "DELETED":
                self._store.removed(self.source.resource, item)
            case _:
                # A bookmark only says how far the watch has come.
                pass
        self._version = item["metadata"]["resourceVersion"]

    async def _failed(self, error: ClusterError) -> None:
        why = "expired" if error.expired else "silent" if error.reason == SILENT else "error"
        WATCH_RESTARTS.labels(self.source.resource.plural, why).inc()
        if error.expired:
            self._version = None
        self._failures += 1
        pause = max(backoff_seconds(self._failures), error.retry_after or 0.0)
        level = logging.WARNING if why == "error" else logging.INFO
        logger.log(level, "%s: %s; again in %.1f s", self.source, error, pause)
        self._heard_of()
        await self._sleep(pause)

    def _heard_of(self) -> None:
        self.tried_at = self._now()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
