"""How far pods are: asks their `/progress` from time to time. Not to know is no error, and loses nothing."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

import aiohttp
from pydantic import ValidationError

from distill_operator.cluster.objects import JobKey, Object, is_deleting, job_keys, labels_of, name_of, part_of, uid_of
from distill_operator.cluster.observe import POD_INDEX_LABEL
from distill_operator.cluster.resources import PODS
from distill_operator.cluster.store import Store
from distill_operator.constants import PROGRESS_PORT, ROLE_LABEL
from distill_runtime.contract.outcome import Progress

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
"""Longest time that a pod may take to answer."""
AT_A_TIME = 32
"""Pods that are asked at a time."""
LARGEST_ANSWER = 65536


class ProgressPoller:
    """The newest answers of all running pods."""

    def __init__(self, store: Store, *, port: int | None, seconds: float, changed: Callable[[JobKey], None]) -> None:
        self._store = store
        self._port = port or PROGRESS_PORT
        self._seconds = seconds
        self._changed = changed
        self._answers: dict[str, Progress] = {}
        """By uid."""

    def of(self, pods: list[Object]) -> Mapping[str, Progress]:
        """Newest answers of these pods, by name."""
        return {name_of(pod): self._answers[uid_of(pod)] for pod in pods if uid_of(pod) in self._answers}

    async def run(self) -> None:
        """Asks all running pods every so many seconds until it is cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        # Pods of a cluster aren't reached through a proxy, and an answer is not worth a kept connection.
        connector = aiohttp.TCPConnector(limit=AT_A_TIME, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                await self._round(session)
                await asyncio.sleep(self._seconds)

    async def _round(self, session: aiohttp.ClientSession) -> None:
        pods = list(self._store.all(PODS))
        there = {uid_of(pod) for pod in pods}
        self._answers = {uid: answer for uid, answer in self._answers.items() if uid in there}
        turns = asyncio.Semaphore(AT_A_TIME)

        async def ask(pod: Object) -> None:
            async with turns:
                answer = await self._ask(session, pod["status"]["podIP"])
            if answer is not None and answer != self._answers.get(uid_of(pod)):
                self._answers[uid_of(pod)] = answer
                for key in job_keys(pod):
                    self._changed(key)

        await asyncio.gather(*(ask(pod) for pod in _worth_asking(pods)))

    async def _ask(self, session: aiohttp.ClientSession, address: str) -> Progress | None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with session.get(f"http://{host}:{self._port}/progress", allow_redirects=False) as response:
                if response.status != 200:
                    return None
                body = await response.content.read(LARGEST_ANSWER)
            return Progress.model_validate_json(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            logger.debug("no progress from %s: %s", address, error)
            return None


def _worth_asking(pods: list[Object]) -> Iterator[Object]:
    """Running pods. Of a student's workers only the first one knows more than that it runs."""
    for pod in pods:
        status, labels = part_of(pod, "status"), labels_of(pod)
        first = labels.get(ROLE_LABEL) != "student" or labels.get(POD_INDEX_LABEL, "0") == "0"
        if first and status.get("phase") == "Running" and status.get("podIP") and not is_deleting(pod):
            yield pod
