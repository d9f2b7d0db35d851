"""The container's answers over HTTP, by a thread of the supervisor: however busy the role is, they take milliseconds.

`/progress`   the newest `Progress` as JSON; 204 while there is none
`/metrics`    Prometheus text
`/startup`    200 once the role is ready for work: a teacher has loaded its engine and passed the canary
`/healthz`    200 while the supervisor's loop turns
"""

import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from distill_runtime.supervisor.metrics import CONTENT_TYPE, exposition
from distill_runtime.supervisor.vitals import Vitals

SECONDS_FOR_A_REQUEST = 10.0
"""A client that sends nothing for so long is hung up on."""

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""

log = logging.getLogger(__name__)


class ProgressServer:
    """Answers at a port, on all addresses of both families, until the process ends.

    Raises
    ------
    OSError
        The port can't be had.
    """

    def __init__(self, vitals: Vitals, port: int) -> None:
        self._server = _Server(_listen(port), vitals)
        self.port: int = self._server.socket.getsockname()[1]
        """The port; another one than was asked for where that was 0."""
        threading.Thread(target=self._server.serve_forever, name="progress-server", daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()


def answer(path: str, vitals: Vitals) -> Answer:
    """What is said to a GET of this path."""
    known: dict[str, Callable[[Vitals], Answer]] = {
        "/progress": _progress,
        "/metrics": lambda vitals: (HTTPStatus.OK, CONTENT_TYPE, exposition(vitals)),
        "/startup": lambda vitals: _probe(vitals.started, "started", "starting"),
        "/healthz": lambda vitals: _probe(vitals.healthy, "ok", "the supervisor hangs"),
    }
    found = known.get(path.partition("?")[0])
    return found(vitals) if found is not None else _text(HTTPStatus.NOT_FOUND, f"try {', '.join(known)}")


def _progress(vitals: Vitals) -> Answer:
    progress = vitals.progress()
    if progress is None:
        return _text(HTTPStatus.NO_CONTENT, "")
    return HTTPStatus.OK, "application/json", progress.model_dump_json(by_alias=True).encode()


def _probe(good: bool, yes: str, no: str) -> Answer:
    return _text(HTTPStatus.OK, yes) if good else _text(HTTPStatus.SERVICE_UNAVAILABLE, no)


def _text(status: HTTPStatus, text: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode() if text else b""


def _listen(port: int) -> socket.socket:
    """A socket for both address families, or for IPv4 where the machine has no other."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            # IPv6 may be built in and switched off. What is wrong with the port itself shows again below.
            log.debug("no IPv6: %s", error)
    return socket.create_server(("0.0.0.0", port))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, vitals: Vitals) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.vitals = vitals

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle is nothing to write a traceback about."""
        log.debug("a request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS_FOR_A_REQUEST

    def do_GET(self) -> None:
        """Answers a GET; the standard library calls it by this name."""
        assert isinstance(self.server, _Server)
        status, content_type, body = answer(self.path, self.server.vitals)
        self.send_response(status)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: they are not logged."""
