"""What Kopf does for the operator: it watches DistillJobs, and runs startup and end. The only file that knows Kopf.

Handlers only pass on. Watching by `on.event` writes nothing to the jobs: no annotation, no finalizer.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, cast

import kopf

from distill_operator.cluster.operation import Operation
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import GROUP, PLURAL, VERSION
from distill_operator.serving import Server

BACKOFFS = (0.5, 1.0, 2.0, 4.0)
LAST_BACKOFF = 8.0
STOP_SECONDS = 20.0
"""When the end takes longer than this, it is forced."""


class Backoffs:
    """Kopf gives a request up after the last of these, and with it the process: so there is no last one."""

    def __iter__(self) -> Iterator[float]:
        yield from BACKOFFS
        while True:
            yield LAST_BACKOFF * random.uniform(0.75, 1.25)


def run_kopf(
    operation: Operation,
    server: Server,
    configuration: OperatorConfiguration,
    end: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Runs until SIGTERM, or until `stop` is set. `end` is called with the reason when the process can't begin."""
    kopf.run(
        registry=registry_of(operation, server, end, stop),
        settings=settings_of(),
        standalone=True,
        clusterwide=not configuration.namespaces,
        namespaces=configuration.namespaces,
        stop_flag=stop,
    )


def registry_of(
    operation: Operation, server: Server, end: Callable[[str], None], stop: asyncio.Event
) -> kopf.OperatorRegistry:
    """The handlers."""
    registry = kopf.OperatorRegistry()
    on = cast("Any", kopf.on)

    @on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def start(**_: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        try:
            await server.start()
        except OSError as error:
            end(f"the ports of probes and metrics can't be opened: {error}")
            return
        await operation.start()

    @on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def login(**_: Any) -> kopf.ConnectionInfo:  # pyright: ignore[reportUnusedFunction]
        connection = await operation.connection()
        scheme, _space, token = (connection.authorization or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=connection.server,
            ca_path=connection.authority,
            certificate_path=connection.certificate,
            private_key_path=connection.key,
            insecure=not connection.verify,
            scheme=scheme.capitalize() or None,
            token=token or None,
        )

    @on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def heard(event: kopf.RawEvent, **_: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        operation.heard(event["type"], cast("dict[str, Any]", event["object"]))

    @on.cleanup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def clean_up(**_: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        await operation.stop()
        await server.stop()
        # Kopf's own task that waits for this would be waited for in vain, for seconds.
        stop.set()

    return registry


def settings_of() -> kopf.OperatorSettings:
    """How Kopf behaves."""
    settings = kopf.OperatorSettings()
    # The "default" peering of another Kopf operator would pause this one.
    settings.peering.standalone = True
    settings.posting.enabled = False
    # The resource is there when Kopf begins, and namespaces are all or listed: it need not look for either.
    settings.scanning.disabled = True
    settings.networking.error_backoffs = Backoffs()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.reconnect_backoff = 0.5
    settings.process.ultimate_exiting_timeout = STOP_SECONDS
    return settings
