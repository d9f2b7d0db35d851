"""The operator's own client, store and jobs, on the real API server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from distill_operator.cluster.client import Client
from tests.control_plane.jobs.installation import install_definition
from tests.testcluster.control_plane import ControlPlane

Result = TypeVar("Result")
Run = Callable[[Callable[[Client], Awaitable[Result]]], Result]


@pytest.fixture(scope="session")
def definition(control_plane: ControlPlane) -> None:
    """The resource, in the session's control plane."""
    install_definition(control_plane)


def connected(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs scenarios with a client of their own."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def run(scenario: Callable[[Client], Awaitable[Result]]) -> Result:
        async def whole() -> Result:
            client = await Client.connect()
            try:
                return await asyncio.wait_for(scenario(client), 180)
            finally:
                await client.close()

        return asyncio.run(whole())

    return run


@pytest.fixture
def run(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario with a client on the session's control plane."""
    return connected(control_plane.kubeconfig, monkeypatch)


async def until(what: str, probe: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for something in the loop."""
    try:
        async with asyncio.timeout(seconds):
            while not probe():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None
