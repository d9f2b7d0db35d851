"""The list-watch keeps up with the API server, whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration

from distill_operator.cluster.client import Client
from distill_operator.cluster.informer import Informer, Source
from distill_operator.cluster.objects import Object, ObjectKey
from distill_operator.cluster.resources import CONFIG_MAPS, Resource
from distill_operator.cluster.store import Store
from distill_operator.constants import JOB_LABEL, MANAGED_BY, MANAGED_BY_LABEL
from tests.control_plane.operator.conftest import Run, connected, until
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.kubectl import Kubectl

SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


def config_map(name: str, **data: str) -> Object:
    labels = {MANAGED_BY_LABEL: MANAGED_BY, JOB_LABEL: "j"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data}


class Watching:
    """An informer that runs, and what came of it."""

    def __init__(self, client: Client, namespace: str, **options: Any) -> None:
        self.namespace = namespace
        self.departed: list[tuple[str, str]] = []
        self.told = 0
        self.store = Store(changed=self._changed, departed=self._departed)
        source = Source(CONFIG_MAPS, namespace, SELECTOR, metadata_only=True)
        self.informer = Informer(client, source, self.store, **options)

    def _changed(self, _: object) -> None:
        self.told += 1

    def _departed(self, _: Resource, item: Object) -> None:
        self.departed.append((item["metadata"]["name"], item["metadata"]["resourceVersion"]))

    def gone(self) -> list[str]:
        return [name for name, _ in self.departed]

    def has(self, name: str) -> bool:
        return self.store.get(ObjectKey(CONFIG_MAPS, self.namespace, name)) is not None


@asynccontextmanager
async def watching(client: Client, namespace: str, **options: Any) -> AsyncIterator[Watching]:
    watched = Watching(client, namespace, **options)
    task = asyncio.create_task(watched.informer.run())
    try:
        await asyncio.wait_for(watched.informer.synced.wait(), 60)
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def off_loop(kubectl: Kubectl, *arguments: str, manifest: Object | None = None) -> None:
    """kubectl, while the loop goes on."""
    if manifest is not None:
        await asyncio.to_thread(kubectl.apply, manifest, *arguments)
    else:
        await asyncio.to_thread(kubectl, *arguments)


def test_what_is_there_what_changes_and_what_goes_is_heard(run: Run, namespace: str, kubectl: Kubectl) -> None:
    kubectl.apply(config_map("first"), "-n", namespace)
    kubectl("create", "configmap", "foreign", "-n", namespace)

    async def scenario(client: Client) -> None:
        async with watching(client, namespace) as watched:
            assert watched.has("first")
            assert not watched.has("foreign")
            await off_loop(kubectl, "-n", namespace, manifest=config_map("second"))
            await until("the new one", lambda: watched.has("second"))
            told = watched.told
            await off_loop(kubectl, "-n", namespace, manifest=config_map("second", a="b"))
            await until("its change", lambda: watched.told > told)
            await off_loop(kubectl, "delete", "configmap", "first", "-n", namespace)
            await until("its removal", lambda: watched.gone() == ["first"])
            assert not watched.has("first")

    run(scenario)


def test_what_loses_the_label_departs(run: Run, namespace: str, kubectl: Kubectl) -> None:
    kubectl.apply(config_map("first"), "-n", namespace)

    async def scenario(client: Client) -> None:
        async with watching(client, namespace) as watched:
            await off_loop(kubectl, "label", "configmap", "first", f"{MANAGED_BY_LABEL}-", "-n", namespace)
            await until("its departure", lambda: watched.gone() == ["first"])

    run(scenario)


def test_after_an_outage_and_a_compaction_it_reports_what_vanished(
    fresh_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, kubectl = fresh_control_plane, fresh_control_plane.kubectl()
    for name in ("stays", "vanishes"):
        kubectl.apply(config_map(name), "-n", "default")

    async def scenario(client: Client) -> None:
        back = asyncio.Event()

        async def sleep(_: float) -> None:
            await back.wait()
            await asyncio.sleep(0.1)

        async with watching(client, "default", sleep=sleep) as watched:
            await asyncio.to_thread(plane.stop, "kube-apiserver")
            await asyncio.to_thread(plane.start, "kube-apiserver")
            await off_loop(kubectl, "delete", "configmap", "vanishes")
            await off_loop(kubectl, manifest=config_map("new"))
            await asyncio.to_thread(plane.stop, "kube-apiserver")
            await asyncio.to_thread(plane.compact_etcd)
            await asyncio.to_thread(plane.start, "kube-apiserver")
            assert watched.has("vanishes")
            back.set()
            await until("what vanished", lambda: watched.gone() == ["vanishes"])
            await until("what is new", lambda: watched.has("new"))
            assert watched.has("stays")
            await off_loop(kubectl, "delete", "configmap", "stays")
            await until("the next removal", lambda: "stays" in watched.gone())

    connected(plane.kubeconfig, monkeypatch)(scenario)


def test_a_server_that_keeps_silent_is_left_and_asked_again(
    fresh_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, kubectl = fresh_control_plane, fresh_control_plane.kubectl()

    async def scenario(client: Client) -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(seconds)

        async with watching(client, "default", sleep=sleep, silence_seconds=1.0) as watched:
            await asyncio.to_thread(plane.pause, "kube-apiserver")
            await until("the time-out", lambda: len(pauses) >= 1)
            await asyncio.to_thread(plane.resume, "kube-apiserver")
            await off_loop(kubectl, manifest=config_map("new"))
            await until("what is new", lambda: watched.has("new"))

    connected(plane.kubeconfig, monkeypatch)(scenario)


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    await writer.drain()
    writer.close()


async def end_each_watch_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    body = b"" if b"watch=true" in head else b'{"items": [], "metadata": {"resourceVersion": "7"}}'
    length = str(len(body)).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\nConnection: close\r\n\r\n" + body)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("behaviour", [hang_up, fail, end_each_watch_at_once])
def test_a_sick_server_is_not_stormed(behaviour: Behaviour) -> None:
    async def scenario() -> int:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await behaviour(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = Client(Configuration(host=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        task = asyncio.create_task(Watching(client, "n").informer.run())
        await asyncio.sleep(3)
        in_three_seconds = connections
        await until("that it tries again", lambda: connections >= 2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        server.close()
        return in_three_seconds

    assert asyncio.run(scenario()) <= 8
