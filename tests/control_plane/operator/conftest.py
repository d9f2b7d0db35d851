"""The operator's own client, store and jobs, on the real API server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from distill_operator.cluster.client import Client
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.waiting import wait_until

DEFINITION = Path(__file__).parents[3] / "crds" / "distill-operator.io_distilljobs.yaml"
Result = TypeVar("Result")
Run = Callable[[Callable[[Client], Awaitable[Result]]], Result]


def install(kubectl: Kubectl) -> None:
    """Applies the definition of DistillJobs, and waits until it is served."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(DEFINITION))
    wait_until("DistillJobs to be served", lambda: _is_served(kubectl))


def _is_served(kubectl: Kubectl) -> bool:
    try:
        kubectl("get", "--raw", "/apis/distill-operator.io/v1alpha1/distilljobs")
    except TestClusterError:
        return False
    return True


@pytest.fixture(scope="session")
def definition(control_plane: ControlPlane) -> None:
    """The resource, in the session's control plane."""
    install(control_plane.kubectl())


def connected(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs scenarios with a client of their own."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def run(scenario: Callable[[Client], Awaitable[Result]]) -> Result:
        async def whole() -> Result:
            client = await Client.connect()
            try:
                return await asyncio.wait_for(scenario(client), 60)
            finally:
                await client.close()

        return asyncio.run(whole())

    return run


@pytest.fixture
def run(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario with a client on the session's control plane."""
    return connected(control_plane.kubeconfig, monkeypatch)


async def until(what: str, probe: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for something in the loop."""
    try:
        async with asyncio.timeout(seconds):
            while not probe():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None
