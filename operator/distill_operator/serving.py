"""What the process serves: `/healthz` and `/readyz` for probes, `/metrics` for Prometheus.

Kopf's own liveness endpoint begins only when startup is through. A start while the API server is away takes as long as
that is, and must not be ended for it.
"""

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from distill_operator.cluster.health import Health

logger = logging.getLogger(__name__)


class Server:
    """The two HTTP servers of the process."""

    def __init__(
        self, health: Health, *, probe_port: int, metrics_port: int, before_metrics: Callable[[], None]
    ) -> None:
        self._health = health
        self._probe_port = probe_port
        self._metrics_port = metrics_port
        self._before_metrics = before_metrics
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listens on both ports."""
        probes = web.Application()
        probes.router.add_get("/healthz", self._alive)
        probes.router.add_get("/readyz", self._ready)
        metrics = web.Application()
        metrics.router.add_get("/metrics", self._metrics)
        await self._listen("probes", probes, self._probe_port)
        await self._listen("metrics", metrics, self._metrics_port)

    async def stop(self) -> None:
        """Ends both."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _listen(self, what: str, application: web.Application, port: int) -> None:
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        # Without a host: IPv4 and IPv6.
        await web.TCPSite(runner, None, port).start()
        # A free port (0) is another one for each family: IPv4's is told.
        ports = [address[1] for address in sorted(runner.addresses, key=len)]
        logger.info("serving %s on port %d", what, ports[0])

    async def _alive(self, _: web.Request) -> web.Response:
        return _answer(self._health.illness())

    async def _ready(self, _: web.Request) -> web.Response:
        return _answer(self._health.unready())

    async def _metrics(self, _: web.Request) -> web.Response:
        self._before_metrics()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(problem: str) -> web.Response:
    return web.Response(text=problem or "ok", status=503 if problem else 200)
