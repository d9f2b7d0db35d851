"""Who acts: never two, and never nobody for long."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from distill_operator.cluster.client import Client
from distill_operator.cluster.lease import Lease, LeaseLost
from distill_operator.cluster.objects import Object
from distill_operator.cluster.resources import LEASES
from distill_operator.configuration import LeaderElection
from tests.control_plane.operator.conftest import Run, connected
from tests.testcluster.control_plane import ControlPlane

LEASE_SECONDS = 6
"""A third of it must be enough for a busy machine: that is between a leader's giving up and its successor."""


def election(namespace: str, **changes: Any) -> LeaderElection:
    return LeaderElection(**{"namespace": namespace, "lease_seconds": LEASE_SECONDS, "renew_seconds": 0.5, **changes})


async def holder(client: Client, namespace: str) -> str:
    found = await client.get(LEASES, namespace, "distill-operator")
    assert found is not None
    return found["spec"]["holderIdentity"]


def test_of_several_replicas_one_leads(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        leases = [Lease(client, election(namespace)) for _ in range(4)]
        waiting = [asyncio.create_task(lease.acquire()) for lease in leases]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        leading = leases[waiting.index(done.pop())]
        holding = asyncio.create_task(leading.hold())
        await asyncio.sleep(LEASE_SECONDS + 2)
        assert [task.done() for task in waiting].count(True) == 1
        assert not holding.done()
        assert await holder(client, namespace) == leading.identity
        for task in (*waiting, holding):
            task.cancel()

    run(scenario)


def test_a_leader_that_falls_silent_is_replaced_within_the_leases_time(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        first, second = Lease(client, election(namespace)), Lease(client, election(namespace))
        await first.acquire()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await second.acquire()
        assert LEASE_SECONDS <= loop.time() - begun < 5 * LEASE_SECONDS
        assert await holder(client, namespace) == second.identity

    run(scenario)


def test_a_leader_that_ends_lets_the_next_one_begin_at_once(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        first = Lease(client, election(namespace, lease_seconds=600))
        second = Lease(client, election(namespace, lease_seconds=600))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(1)
        assert not waiting.done()
        await first.release()
        await asyncio.wait_for(waiting, 60)
        # What was ours once and isn't any more is not released.
        await first.release()
        assert await holder(client, namespace) == second.identity

    run(scenario)


def test_a_leader_gives_up_when_another_one_has_the_lease(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        lease = Lease(client, election(namespace))
        await lease.acquire()
        await change(client, namespace, holderIdentity="usurper")
        with pytest.raises(LeaseLost, match="is usurper's"):
            await asyncio.wait_for(lease.hold(), 60)
        await lease.release()
        assert await holder(client, namespace) == "usurper"

    run(scenario)


def test_a_label_that_somebody_adds_doesnt_matter(run: Run, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        lease = Lease(client, election(namespace))
        await lease.acquire()
        found = await client.get(LEASES, namespace, "distill-operator")
        assert found is not None
        found["metadata"]["labels"] = {"team": "a"}
        await client.replace(LEASES, found)
        with suppress(TimeoutError):
            await asyncio.wait_for(lease.hold(), 3)
        assert await holder(client, namespace) == lease.identity

    run(scenario)


def test_a_leader_that_cannot_renew_gives_up_before_others_take_over(
    fresh_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: Client) -> None:
        lease = Lease(client, election("default"))
        await lease.acquire()
        await asyncio.to_thread(fresh_control_plane.pause, "kube-apiserver")
        try:
            with pytest.raises(LeaseLost, match="could not be renewed"):
                await asyncio.wait_for(lease.hold(), LEASE_SECONDS)
        finally:
            await asyncio.to_thread(fresh_control_plane.resume, "kube-apiserver")

    connected(fresh_control_plane.kubeconfig, monkeypatch)(scenario)


async def change(client: Client, namespace: str, **spec: Any) -> Object:
    found = await client.get(LEASES, namespace, "distill-operator")
    assert found is not None
    return await client.replace(LEASES, {**found, "spec": {**found["spec"], **spec}})
