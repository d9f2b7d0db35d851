"""What probes answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from distill_operator.cluster.health import Health
from distill_operator.cluster.informer import Source
from distill_operator.cluster.objects import JobKey
from distill_operator.cluster.queue import KeyedQueue
from distill_operator.cluster.resources import PODS

SYNCED = asyncio.Event()
SYNCED.set()


def informer(*, silent: float = 0.0, synced: bool = True) -> Any:
    now = asyncio.get_running_loop().time()
    return SimpleNamespace(
        source=Source(PODS, "n"), tried_at=now - silent, synced=SYNCED if synced else asyncio.Event()
    )


def test_it_is_ill_when_a_watch_stopped_a_pass_hangs_or_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        health = Health()
        assert health.illness() == ""
        health.informers = [informer(silent=170)]
        assert health.illness() == ""
        health.informers = [informer(silent=181)]
        assert health.illness() == "the watch of Pod in n stopped 181 s ago"
        health.informers, health.queue = [], KeyedQueue()
        assert health.illness() == ""
        monkeypatch.setattr(KeyedQueue, "in_work_seconds", 601.0)
        monkeypatch.setattr(KeyedQueue, "longest_in_work", JobKey("n", "j"))
        assert health.illness() == "n/j has been in work for 601 s"
        health.over = "the Lease is another's"
        assert health.illness() == "the Lease is another's"

    asyncio.run(scenario())


def test_it_is_ready_when_it_can_do_its_part() -> None:
    async def scenario() -> None:
        health = Health()
        assert health.unready() == "waiting for the API server to know DistillJobs"
        health.installed = True
        assert health.unready() == "", "a standby"
        health.leading, health.informers = True, [informer(), informer(synced=False)]
        assert health.unready() == "waiting for Pod in n"
        health.informers = [informer()]
        assert health.unready() == ""

    asyncio.run(scenario())
