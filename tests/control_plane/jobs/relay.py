"""A wire between one client and the API server that can be cut, that counts, and that can hold news back."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ANSWER_SECONDS = 0.2
"""What the server sends later than this after the last request of a connection is no answer but news: an event of a
watch."""
CHUNK = 1 << 16


class Relay:
    """Passes bytes on; TLS goes through it, from end to end."""

    def __init__(self, kubeconfig: Path) -> None:
        self._config = yaml.safe_load(kubeconfig.read_text())
        server = urlsplit(self._config["clusters"][0]["cluster"]["server"])
        self._upstream = (server.hostname, server.port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._news_delay = 0.0
        self.attempts: list[float] = []
        """When somebody connected, by the monotonic clock."""
        self.port = 0

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """Ends it and all connections."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig that leads through this relay."""
        cluster = {**self._config["clusters"][0]["cluster"], "server": f"https://127.0.0.1:{self.port}"}
        clusters = [{**self._config["clusters"][0], "cluster": cluster}]
        path.write_text(json.dumps({**self._config, "clusters": clusters}))
        return path

    def cut(self) -> None:
        """Breaks all connections; new ones are closed at once."""
        self._cut = True
        self._loop.call_soon_threadsafe(self._close_all)

    def mend(self) -> None:
        """Lets new connections through again."""
        self._cut = False

    @contextmanager
    def news_late_by(self, seconds: float) -> Iterator[None]:
        """Holds events of watches back; answers to requests pass as usual."""
        self._news_delay = seconds
        try:
            yield
        finally:
            self._news_delay = 0.0

    def _close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts.append(time.monotonic())
        writers = {writer}
        try:
            if self._cut:
                return
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
            writers.add(upstream_writer)
            self._writers |= writers
            asked = [time.monotonic()]
            both = [self._requests(reader, upstream_writer, asked), self._answers(upstream_reader, writer, asked)]
            tasks = [asyncio.ensure_future(way) for way in both]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            return
        finally:
            self._writers -= writers
            for each in writers:
                each.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[float]) -> None:
        while data := await reader.read(CHUNK):
            asked[0] = time.monotonic()
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[float]) -> None:
        while data := await reader.read(CHUNK):
            if self._news_delay and time.monotonic() - asked[0] > ANSWER_SECONDS:
                await asyncio.sleep(self._news_delay)
            writer.write(data)
            await writer.drain()
