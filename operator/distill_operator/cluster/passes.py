"""What surrounds each pass: its log context, its metrics, and what follows when it fails."""

import logging
import time

from distill_operator.cluster.errors import CONFLICT, ClusterError
from distill_operator.cluster.objects import JobKey
from distill_operator.cluster.queue import KeyedQueue, Pass
from distill_operator.logs import job_in_work
from distill_operator.metrics import RECONCILE_SECONDS, RECONCILES

logger = logging.getLogger(__name__)


class Passes:
    """Runs passes so that none of them takes a worker with it."""

    def __init__(self, queue: KeyedQueue, reconcile: Pass) -> None:
        self._queue = queue
        self._reconcile = reconcile

    async def run(self, key: JobKey) -> None:
        """One pass, and another one where it is needed."""
        token = job_in_work.set(str(key))
        begun = time.perf_counter()
        try:
            result = await self._attempt(key)
        finally:
            job_in_work.reset(token)
            RECONCILE_SECONDS.observe(time.perf_counter() - begun)
        RECONCILES.labels(result).inc()

    async def _attempt(self, key: JobKey) -> str:
        try:
            await self._reconcile(key)
        except ClusterError as error:
            pause = self._queue.retry(key, at_least=error.retry_after or 0.0)
            if error.status == CONFLICT:
                logger.info("%s; again in %.1f s", error, pause)
                return "conflict"
            logger.warning("%s; again in %.1f s", error, pause)
            return "retry"
        except Exception:
            # A fault in one job's pass must not end those of the others.
            logger.exception("a fault of the operator; again in %.1f s", self._queue.retry(key))
            return "error"
        self._queue.succeeded(key)
        return "done"
