"""Why a controller can't make pods: quota, admission. StatefulSets and batch Jobs say so only in Events."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from distill_operator.cluster.client import Client
from distill_operator.cluster.objects import JobKey, Object, part_of, uid_of
from distill_operator.cluster.observe import Child, pods_there, pods_wanted
from distill_operator.cluster.resources import BATCH_JOBS, EVENTS, STATEFUL_SETS

PATIENCE_SECONDS = 3.0
"""A workload may be short of pods for so long before its Events are read: usually its controller is only on its way."""
FRESH_SECONDS = 15.0
"""An answer is good for so long."""


class CreateWarnings:
    """What Events say of workloads that are short of pods."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._short_since: dict[str, float] = {}
        self._answers: dict[str, tuple[float, str]] = {}

    async def of(self, key: JobKey, children: Iterable[Child]) -> tuple[dict[str, str], float | None]:
        """Warnings by the workload's uid, and in how many seconds to ask again.

        Raises
        ------
        ClusterError
            The API server failed.
        """
        now = asyncio.get_running_loop().time()
        warnings: dict[str, str] = {}
        again: float | None = None
        for resource, item in children:
            if resource not in (STATEFUL_SETS, BATCH_JOBS):
                continue
            uid = uid_of(item)
            if pods_there(resource, item) >= pods_wanted(resource, item):
                self._forget(uid)
                continue
            waited = now - self._short_since.setdefault(uid, now)
            if waited < PATIENCE_SECONDS:
                again = PATIENCE_SECONDS
            else:
                warnings[uid] = await self._fresh(key, uid, now)
                again = FRESH_SECONDS
        return warnings, again

    def forget(self, children: Iterable[Child]) -> None:
        """These workloads are gone."""
        for _, item in children:
            self._forget(uid_of(item))

    def _forget(self, uid: str) -> None:
        self._short_since.pop(uid, None)
        self._answers.pop(uid, None)

    async def _fresh(self, key: JobKey, uid: str, now: float) -> str:
        asked, answer = self._answers.get(uid, (now - FRESH_SECONDS, ""))
        if now - asked >= FRESH_SECONDS:
            fields = f"involvedObject.uid={uid},reason=FailedCreate"
            answer = newest_message((await self._client.list(EVENTS, key.namespace, fields=fields)).items)
            self._answers[uid] = (now, answer)
        return answer


def newest_message(events: Iterable[Object]) -> str:
    """What the newest of these Events says; empty where there is none."""
    newest = max(events, key=_told_at, default=None)
    return "" if newest is None else newest.get("message", "")


def _told_at(event: Mapping[str, Any]) -> str:
    # Times of one form sort as text.
    times = (part_of(event, "series").get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((time for time in times if time), "")
