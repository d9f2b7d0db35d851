"""One pass over one job: read, observe, decide, store, tell, act. In this order, and never two of one job at a time."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime

from distill_operator.api import DistillJob, InvalidJob
from distill_operator.api.load import job_of
from distill_operator.api.status import ENDED, DistillJobStatus
from distill_operator.cluster.children import ChildrenOfJobs, Settled
from distill_operator.cluster.client import Client
from distill_operator.cluster.events import tell
from distill_operator.cluster.index import JobIndex
from distill_operator.cluster.last_words import LastWords
from distill_operator.cluster.objects import JobKey, Object, is_deleting, uid_of
from distill_operator.cluster.observe import Sight, observe
from distill_operator.cluster.progress import ProgressPoller
from distill_operator.cluster.queue import KeyedQueue
from distill_operator.cluster.resources import CHILDREN, DISTILL_JOBS, PODS
from distill_operator.cluster.status import write_status
from distill_operator.cluster.store import Store
from distill_operator.cluster.unreadable import with_complaint
from distill_operator.cluster.warnings import CreateWarnings
from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.decide import decide
from distill_operator.lifecycle.decision import Decision
from distill_operator.lifecycle.observed import Observed
from distill_operator.render import refusal

logger = logging.getLogger(__name__)

IN_THE_WAY_SECONDS = 10.0
"""An object in the way that isn't watched is looked at again so often."""


class Reconciler:
    """Passes over jobs."""

    def __init__(
        self,
        client: Client,
        store: Store,
        last_words: LastWords,
        index: JobIndex,
        queue: KeyedQueue,
        progress: ProgressPoller,
        configuration: OperatorConfiguration,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._store = store
        self._last_words = last_words
        self._index = index
        self._queue = queue
        self._progress = progress
        self._configuration = configuration
        self._now = now
        self._children = ChildrenOfJobs(client, store, configuration)
        self._warnings = CreateWarnings(client)
        self._settled: dict[JobKey, Settled] = {}
        self._admissions: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def reconcile(self, key: JobKey) -> None:
        """One pass.

        Raises
        ------
        ClusterError
            The API server failed, or somebody wrote the job meanwhile (status `CONFLICT`).
        """
        document = await self._client.get(DISTILL_JOBS, key.namespace, key.name)
        if document is None:
            self._forget(key)
            return
        self._index.heard(key, document)
        if is_deleting(document) or document["spec"].get("managedBy"):
            # Its children go with it, or are another's.
            return
        try:
            job = job_of(document, str(key))
        except InvalidJob as error:
            await self._complain(key, document, error)
            return
        await self._act(key, document, job)

    async def _act(self, key: JobKey, document: Object, job: DistillJob) -> None:
        gone = self._last_words.of(key)
        async with self._admission(job):
            observed, look_again = await self._observe(key, job, gone)
            decision = decide(job, observed, self._now(), self._configuration)
            stored = await write_status(self._client, document, job, decision.status)
        self._index.heard(key, stored)
        if _runs(document) and not _runs(stored):
            self._let_others_begin(key)
        self._last_words.took(key, gone)
        attempt = decision.status.attempt.number if decision.status.attempt else 0
        await tell(self._client, job, attempt, decision.events)
        await self._remove_pods(key, observed, decision)
        settled = await self._children.settle(key, job, decision.children)
        self._ask_again(key, decision, settled, look_again)
        if decision.delete_job:
            logger.info("its time to live is over")
            await self._client.delete(DISTILL_JOBS, key.namespace, key.name, uid=job.metadata.uid or "")

    async def _observe(self, key: JobKey, job: DistillJob, gone: tuple[Object, ...]) -> tuple[Observed, float | None]:
        """What is seen of the job, and in how many seconds there may be more to see."""
        children = self._store.of_job(key, CHILDREN)
        pods = [item for _, item in self._store.of_job(key, (PODS,))]
        warnings, look_again = await self._warnings.of(key, children)
        settled = self._settled.get(key, Settled())
        sight = Sight(
            children=children,
            pods=pods,
            gone=gone,
            progress=self._progress.of(pods),
            warnings=warnings,
            in_the_way=settled.foreign,
            refused=self._refusal(job) or settled.refused,
            running_jobs=await self._running_jobs(job),
        )
        return observe(job, sight), look_again

    def _refusal(self, job: DistillJob) -> str:
        """Why this job may not begin; what has begun keeps the rules that it began under."""
        begun = job.status is not None and job.status.attempt is not None
        return "" if begun else refusal(job, self._configuration) or ""

    def _admission(self, job: DistillJob) -> AbstractAsyncContextManager[object]:
        """One at a time decides whether to begin, where the number of running jobs is limited."""
        return self._admissions[job.metadata.namespace] if self._is_limited(job) else nullcontext()

    def _is_limited(self, job: DistillJob) -> bool:
        waits = job.status is None or job.status.start_time is None or job.status.phase == "Suspended"
        return self._configuration.max_running_jobs is not None and waits

    async def _running_jobs(self, job: DistillJob) -> int:
        """Other jobs of the namespace that run. Read from the API server, since the answer lets a job begin."""
        if not self._is_limited(job):
            return 0
        listed = await self._client.list(DISTILL_JOBS, job.metadata.namespace)
        return sum(_runs(other) for other in listed.items if uid_of(other) != job.metadata.uid)

    def _let_others_begin(self, key: JobKey) -> None:
        """Jobs that wait for their turn hear nothing of another's end."""
        if self._configuration.max_running_jobs is not None:
            for other in self._index.waiting(key.namespace):
                self._queue.add(other)

    async def _remove_pods(self, key: JobKey, observed: Observed, decision: Decision) -> None:
        for pod in observed.pods:
            if pod.gone:
                continue
            if pod.uid in decision.remove_now:
                logger.warning("removing pod %s without grace: node %s is lost", pod.name, pod.node)
                await self._client.delete(PODS, key.namespace, pod.name, uid=pod.uid, grace_seconds=0)
            elif pod.uid in decision.replace and pod.deleting_since is None:
                logger.info("removing pod %s, which has ended, so that another one takes its place", pod.name)
                await self._client.delete(PODS, key.namespace, pod.name, uid=pod.uid)

    def _ask_again(self, key: JobKey, decision: Decision, settled: Settled, look_again: float | None) -> None:
        before = self._settled.get(key, Settled())
        self._settled[key] = settled
        if decision.children_changed or settled.reported != before.reported:
            self._queue.add(key)
        in_the_way = IN_THE_WAY_SECONDS if settled.reported != Settled().reported else None
        times = [time for time in (decision.again_after, look_again, in_the_way) if time is not None]
        if times:
            self._queue.add_after(key, min(times))

    async def _complain(self, key: JobKey, document: Object, error: InvalidJob) -> None:
        logger.error("can't be read: %s", "; ".join(error.errors))
        complaint = with_complaint(document, error, self._now())
        if complaint is not document:
            await self._client.replace(DISTILL_JOBS, complaint, "status")

    def _forget(self, key: JobKey) -> None:
        self._warnings.forget(self._store.of_job(key, CHILDREN))
        self._children.forget(key)
        self._last_words.forget(key)
        self._settled.pop(key, None)
        self._index.gone(key)
        self._queue.forget(key)
        self._let_others_begin(key)


def _runs(document: Object) -> bool:
    status = DistillJobStatus.model_validate(document.get("status") or {}, by_alias=True, by_name=False)
    return status.start_time is not None and status.phase not in (*ENDED, "Suspended")
